//go:build !race

// With the race detector the SDKs are run against one node only, and test/cluster against three:
// all four runs take minutes.

package sdk

import "testing"

func TestTheJavaScriptSDKWorksWithACluster(t *testing.T) {
	t.Parallel()
	testJavaScript(t, startCluster)
}

func TestTheGoSDKWorksWithACluster(t *testing.T) {
	t.Parallel()
	testGo(t, startCluster)
}
