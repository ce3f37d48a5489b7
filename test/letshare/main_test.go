// Package letshare_test holds the server to what is promised to LetShare's front-end, from
// outside: it builds the program, starts it, and talks to it over sockets. It uses
// nothing of the server's code.
//
// Most tests share one server and run side by side, each in rooms of its own; a test that
// counts, fills or stops something starts a server for itself.
package letshare_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"letshare-server/test/source"
)

// patience bounds every wait for something that must happen. All is well long before.
const patience = time.Minute

var (
	program string    // path of the server's binary
	shared  *instance // the server of all tests that need no other
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// The tests wait more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "letshare-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "no place for the server's binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "server")
	build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", program, "letshare-server/cmd/server")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "the server cannot be built (is `go` in PATH? does `go build ./cmd/server` work?): %v\n%s", err, out)
		return 1
	}
	home := filepath.Join(dir, "shared")
	if shared, err = launch(home, settings{env: []string{"LETSHARE_LOG_LEVEL=debug"}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "the shared server:", err)
		code = 1
	}
	return code
}

// The go command notes only what tests look at, and not what TestMain does.
func TestResultsAreNotTakenFromBeforeAChange(t *testing.T) {
	if err := source.Watch("../.."); err != nil {
		t.Fatal(err)
	}
}
