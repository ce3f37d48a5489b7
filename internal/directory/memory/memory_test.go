package memory

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/directory/directorytest"
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

var (
	nodeA = directory.Node{Name: "a", Incarnation: "1"}
	nodeB = directory.Node{Name: "b", Incarnation: "1"}
)

func TestTheContract(t *testing.T) {
	directorytest.Run(t, func(t *testing.T) directorytest.Harness {
		c := newClock()
		s := NewStore(Options{Now: c.Now})
		return directorytest.Harness{A: s.Node(nodeA), B: s.Node(nodeB), NodeA: nodeA, NodeB: nodeB, Now: c.Now, Advance: c.Advance}
	})
}

// one is a connection that publishes and subscribes.
var one = pubsub.OccupancyOf(pubsub.ModeSubscribe | pubsub.ModePublish)

func TestANewIncarnationEndsTheCountsOfTheOneBefore(t *testing.T) {
	s := NewStore(Options{})
	id := pubsub.ChannelID{App: "app", Name: "room"}
	only := pubsub.ChannelID{App: "app", Name: "only there"}
	a, b := s.Node(nodeA), s.Node(nodeB)
	for range 3 {
		a.Join(t.Context(), id, nodeA, one, 0)
		a.Join(t.Context(), only, nodeA, one, 0)
	}
	b.Join(t.Context(), id, nodeB, one, 0)
	a.Watch(t.Context(), only, true)
	b.Watch(t.Context(), id, true)
	occupied := func() int32 {
		o, _ := b.Occupancy(t.Context(), id)
		return o[pubsub.MetricConnections]
	}
	s.Node(nodeA) // again, the same life
	if n := occupied(); n != 4 {
		t.Errorf("got %d, want 4", n)
	}
	s.Node(directory.Node{Name: "a", Incarnation: "2"})
	if len(b.Changed()) != 1 {
		t.Error("a watcher was not told")
	}
	if n := occupied(); n != 1 {
		t.Errorf("got %d, want 1", n)
	}
	if err := a.Adjust(t.Context(), id, nodeA, pubsub.Occupancy{}.Minus(one)); err != nil {
		t.Error(err)
	}
	if n := occupied(); n != 1 {
		t.Errorf("after a late Leave: got %d, want 1", n)
	}
	if got := s.Stats(); got.Channels != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestNoticesAreBounded(t *testing.T) {
	s := NewStore(Options{Notices: 3})
	a := s.Node(nodeA)
	for i := range 5 {
		id := fmt.Sprint("connection", i)
		a.Create(t.Context(), directory.Connection{ID: id}, 0)
		if _, _, err := s.Node(nodeB).Resume(t.Context(), id, 1, nodeB); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if got := <-a.Superseded(); got.ID != fmt.Sprint("connection", i) {
			t.Errorf("got %+v", got)
		}
	}
	if n := len(a.Superseded()); n != 0 {
		t.Errorf("%d more notices", n)
	}
	if err := a.Commit(t.Context(), "connection4", 1); err != directory.ErrSuperseded {
		t.Errorf("the next operation: got %v", err)
	}
}

func TestRunRemovesExpiredRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(Options{})
		d := s.Node(nodeA)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		for i := range 10 {
			id := fmt.Sprint("connection", i)
			d.Create(ctx, directory.Connection{ID: id}, 0)
			if i > 0 {
				d.Disconnect(ctx, id, 1, time.Now().Add(time.Minute))
			}
		}
		time.Sleep(time.Minute - time.Second)
		if n := s.Stats().Connections; n != 10 {
			t.Errorf("before the deadline: %d records", n)
		}
		time.Sleep(time.Second + DefaultSweepInterval)
		if n := s.Stats().Connections; n != 1 {
			t.Errorf("after the deadline: %d records", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestARecordCostsLessThan200Bytes(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 50_000
	before := heap()
	s := NewStore(Options{})
	d := s.Node(nodeA)
	for i := range n {
		d.Create(t.Context(), directory.Connection{
			ID: fmt.Sprintf("connection%06d", i), App: "app", GrantDigest: strings.Repeat("d", 32)}, 0)
	}
	each := (heap() - before) / n
	t.Logf("%d bytes each", each)
	if each >= 200 {
		t.Errorf("%d bytes each", each)
	}
	runtime.KeepAlive(s)
}

func BenchmarkResume(b *testing.B) {
	s := NewStore(Options{})
	a := s.Node(nodeA)
	a.Create(b.Context(), directory.Connection{ID: "connection"}, 0)
	b.ReportAllocs()
	for g := uint64(1); b.Loop(); g++ {
		a.Resume(b.Context(), "connection", g, nodeB)
		a.Commit(b.Context(), "connection", g+1)
	}
}

func BenchmarkJoinAndLeave(b *testing.B) {
	s := NewStore(Options{})
	a := s.Node(nodeA)
	id := pubsub.ChannelID{App: "app", Name: "room"}
	b.ReportAllocs()
	for b.Loop() {
		a.Join(b.Context(), id, nodeA, one, 50)
		a.Adjust(b.Context(), id, nodeA, pubsub.Occupancy{}.Minus(one))
	}
}
