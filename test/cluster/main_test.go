package cluster_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"letshare-server/test/cluster"
	"letshare-server/test/source"
)

// program is the path of the server's binary.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	// The tests wait more than they compute, but where times count.
	parallel := "4"
	if full {
		parallel = "1"
	}
	if err := flag.Set("test.parallel", parallel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "letshare-cluster-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "no place for the server's binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "server")
	build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", program, "letshare-server/cmd/server")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "the server cannot be built: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// The go command notes only what tests look at, and not what TestMain does.
func TestResultsAreNotTakenFromBeforeAChange(t *testing.T) {
	if err := source.Watch("../.."); err != nil {
		t.Fatal(err)
	}
}

// start starts three nodes, or what o asks for.
func start(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	o.Program = program
	return cluster.Start(t, o)
}
