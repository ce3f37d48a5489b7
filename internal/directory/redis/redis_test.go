package redis

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
	"letshare-server/internal/directory/directorytest"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

// testOptions are patient: the contract's tests are not about time, and the machine may be
// busy.
func testOptions(prefix string) Options {
	return Options{Prefix: prefix, Timeout: 15 * time.Second, Log: slog.New(slog.DiscardHandler), heartbeat: 50 * time.Millisecond}
}

// node opens a directory and runs it until the test ends, or kill is called.
func node(t testing.TB, to redisclient.Options, name string, opts Options) (d *Directory, kill func()) {
	t.Helper()
	client, err := redisclient.Open(t.Context(), to)
	for deadline := time.Now().Add(time.Minute); err != nil; client, err = redisclient.Open(t.Context(), to) {
		if time.Now().After(deadline) { // servers that just began may be late on a busy machine
			t.Fatal(err)
		}
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
		KillA: func() {
			killA()
			eventually(t, "the other node buries it", func() bool {
				for _, key := range b.keys.nodes() {
					if _, err := b.client.Do(t.Context(), b.client.B().Zscore().Key(key).Member(a.id).Build()).AsFloat64(); !rueidis.IsRedisNil(err) {
						return false
					}
				}
				return true
			})
		},
	}
}

// eventually waits for something that takes no time if the machine is not busy.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestTheContractOnOneServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	directorytest.Run(t, func(t *testing.T) directorytest.Harness {
		return harness(t, redisclient.Options{Addresses: []string{s.Addr}})
	})
}

func TestTheContractOverTLS(t *testing.T) {
	t.Parallel()
	sec := redistest.NewSecurity(t)
	s := sec.Start(t)
	directorytest.Run(t, func(t *testing.T) directorytest.Harness { return harness(t, sec.Options(s.Addr)) })
}

func TestTheContractAndFaultsOnACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	to := redisclient.Options{Addresses: c.Addresses()}
	t.Run("TheContract", func(t *testing.T) {
		directorytest.Run(t, func(t *testing.T) directorytest.Harness { return harness(t, to) })
	})
	t.Run("PrimaryKilled", func(t *testing.T) { primaryOfAShardKilled(t, c, to) })
}

func TestTheContractAndFaultsBehindSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	to := redisclient.Options{Addresses: s.Addresses(), MasterName: redistest.MasterName}
	t.Run("TheContract", func(t *testing.T) {
		directorytest.Run(t, func(t *testing.T) directorytest.Harness { return harness(t, to) })
	})
	t.Run("PrimaryKilled", func(t *testing.T) { primaryKilled(t, s, to) })
}
