package memory

import (
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/enginetest"
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

// append is Append of any node.
func (s *Store) append(a *engine.Append) engine.Result {
	r, _ := s.tryAppend(a)
	return r
}

func open(logBytes int64, c *clock) enginetest.Harness {
	s := NewStore(Options{Policy: enginetest.Policy, LogBytes: logBytes, Now: c.Now})
	return enginetest.Harness{
		A:       s.Node("a"),
		B:       s.Node("b"),
		Now:     c.Now,
		Advance: c.Advance,
		Trim:    s.sweep,
		Limited: func(t *testing.T, logBytes int64) enginetest.Harness { return open(logBytes, c) },
	}
}

// openReal opens a store with the clock of the machine.
func openReal(logBytes int64) enginetest.Harness {
	s := NewStore(Options{Policy: enginetest.Policy, LogBytes: logBytes})
	return enginetest.Harness{
		A: s.Node("a"), B: s.Node("b"), Now: time.Now,
		Limited: func(_ *testing.T, logBytes int64) enginetest.Harness { return openReal(logBytes) },
	}
}

func TestTheContractWithAClockThatStands(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Harness { return open(0, newClock()) })
}

func TestTheContractWithTheRealClock(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return openReal(0)
	})
}
