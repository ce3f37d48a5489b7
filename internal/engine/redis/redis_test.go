package redis

import (
	"context"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/enginetest"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

// testOptions are patient: the contract's tests are not about time, and the machine may be
// busy.
func testOptions(prefix string) Options {
	return Options{Policy: enginetest.Policy, Prefix: prefix, Timeout: 15 * time.Second, ReadTimeout: 15 * time.Second}
}

// node opens an engine and runs it until the test ends.
func node(t testing.TB, to redisclient.Options, opts Options) *Engine {
	t.Helper()
	client, err := redisclient.Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(t.Context(), client, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		client.Close()
	})
	return e
}

// harness is two nodes on one store.
func harness(t *testing.T, to redisclient.Options) enginetest.Harness {
	opts := testOptions(t.Name() + "/")
	a, b := node(t, to, opts), node(t, to, opts)
	return enginetest.Harness{A: a, B: b,
		Now: func() time.Time { return time.Now().Add(a.skewed()) },
		Advance: func(d time.Duration) {
			a.skew.Add(d.Milliseconds())
			b.skew.Add(d.Milliseconds())
		},
		Trim: func() {},
		Reopen: func(t *testing.T) enginetest.Harness {
			a, b := node(t, to, opts), node(t, to, opts)
			return enginetest.Harness{A: a, B: b, Now: time.Now}
		},
	}
}

func TestTheContractOnOneServer(t *testing.T) {
	s := redistest.Start(t)
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return harness(t, redisclient.Options{Addresses: []string{s.Addr}})
	})
}

var _ engine.Engine = (*Engine)(nil)

func TestTheContractOnACluster(t *testing.T) {
	c := redistest.StartCluster(t, 3)
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return harness(t, redisclient.Options{Addresses: c.Addresses()})
	})
}

func TestTheContractBehindSentinel(t *testing.T) {
	s := redistest.StartSentinels(t)
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return harness(t, redisclient.Options{Addresses: s.Addresses(), MasterName: redistest.MasterName})
	})
}
