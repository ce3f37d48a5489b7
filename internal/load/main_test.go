package load

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also is the program that the baseline runs as its child.
func TestMain(m *testing.M) {
	if os.Getenv("LOAD_TEST_CHILD") != "" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Setenv("LOAD_TEST_CHILD", "1")
	goleak.VerifyTestMain(m)
}
