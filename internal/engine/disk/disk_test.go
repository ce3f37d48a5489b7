package disk

import (
	"cmp"
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/enginetest"
	"letshare-server/internal/pubsub"
)

// clock is a time that only tests move.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) Advance(d time.Duration) { c.nanos.Add(int64(d)) }

// open opens a store that runs until the test ends, or until the returned func is called.
func open(t testing.TB, opts Options) (s *Store, stop func()) {
	t.Helper()
	opts.SweepInterval = cmp.Or(opts.SweepInterval, time.Hour) // who counts segments sweeps by hand
	s = NewStore(opts)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	var stopped bool
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

// everything persists all channels, those of the suite's default namespace for LiveWindow.
func everything(id pubsub.ChannelID) engine.Policy {
	p := enginetest.Policy(id)
	p.Retention = max(p.Retention, time.Second)
	return p
}

func harness(t *testing.T, opts Options, c *clock) enginetest.Harness {
	opts.noSync = true // the contract needs no disk that keeps its promise
	s, stop := open(t, opts)
	h := enginetest.Harness{
		A: s.Node("a"), B: s.Node("b"), Now: time.Now,
		Reopen: func(t *testing.T) enginetest.Harness {
			stop()
			return harness(t, opts, c)
		},
		Limited: func(t *testing.T, bytes int64) enginetest.Harness {
			o := opts
			o.Dir, o.LogBytes, o.MaxBytes, o.Policy = t.TempDir(), bytes, bytes, enginetest.Policy
			return harness(t, o, c)
		},
	}
	if c != nil {
		h.Now, h.Advance = c.Now, c.Advance
		h.Trim = func() {
			s.mem.Sweep()
			if err := s.sweep(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	return h
}

func TestTheContract(t *testing.T) {
	for name, policy := range map[string]func(pubsub.ChannelID) engine.Policy{"AsTheSuiteSays": enginetest.Policy, "EverythingPersisted": everything} {
		t.Run(name+"/AClockThatStands", func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Harness {
				c := newClock()
				return harness(t, Options{Dir: t.TempDir(), Policy: policy, Now: c.Now}, c)
			})
		})
		t.Run(name+"/TheRealClock", func(t *testing.T) {
			if name != "AsTheSuiteSays" && os.Getenv("CHAOS") == "" {
				t.Skip("thousands of commits once more: with CHAOS set")
			}
			enginetest.Run(t, func(t *testing.T) enginetest.Harness {
				return harness(t, Options{Dir: t.TempDir(), Policy: policy}, nil)
			})
		})
	}
}
