package load_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

	"letshare-server/internal/cli"
)

// TestMain also is the program whose subcommands load and serve the tool runs as its children.
func TestMain(m *testing.M) {
	if os.Getenv("LOAD_TEST_CHILD") != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Setenv("LOAD_TEST_CHILD", "1")
	_ = flag.Set("test.parallel", "24")                           // parallel tests wait for what does not come; it is no work
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0") // else each child with the detector sleeps a second
	goleak.VerifyTestMain(m)
}
