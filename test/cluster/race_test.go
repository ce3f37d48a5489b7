//go:build race

package cluster_test

// buildFlags build the server as the tests themselves are built.
var buildFlags = []string{"-race"}
