package redis

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/directory/directorytest"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

// testOptions are patient: the contract's tests are not about time, and the machine may be
// busy.
func testOptions(prefix string) Options {
	return Options{Prefix: prefix, Timeout: 15 * time.Second}
}

// node opens a directory and runs it until the test ends, or kill is called.
func node(t testing.TB, to redisclient.Options, name string, opts Options) (d *Directory, kill func()) {
	t.Helper()
	client, err := redisclient.Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	d, err = New(t.Context(), client, directory.Node{Name: name, Incarnation: rand.Text()}, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	kill = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		client.Close()
	})
	t.Cleanup(kill)
	return d, kill
}

// harness is two nodes on one store.
func harness(t *testing.T, to redisclient.Options) directorytest.Harness {
	opts := testOptions(t.Name() + "/")
	a, killA := node(t, to, "a", opts)
	b, _ := node(t, to, "b", opts)
	return directorytest.Harness{A: a, B: b, NodeA: a.node, NodeB: b.node,
		Now: func() time.Time { return time.Now().Add(time.Duration(a.skew.Load()) * time.Millisecond) },
		Advance: func(d time.Duration) {
			a.skew.Add(d.Milliseconds())
			b.skew.Add(d.Milliseconds())
		},
		KillA: killA,
	}
}

func TestTheContractOnOneServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	directorytest.RunConnections(t, func(t *testing.T) directorytest.Harness {
		return harness(t, redisclient.Options{Addresses: []string{s.Addr}})
	})
}
