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
		return directorytest.Harness{A: s.Node(nodeA), B: s.Node(nodeB), NodeA: nodeA, NodeB: nodeB, Now: c.Now, Advance: c.Advance,
			KillA: func() { s.Bury(nodeA) }}
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

func TestTouchedChannelsAreBounded(t *testing.T) {
	c := newClock()
	const most = 10 * shardCount
	s := NewStore(Options{Now: c.Now, Touched: most})
	d := s.Node(nodeA)
	for i := range 100 * most {
		d.Touch(pubsub.ChannelID{App: "app", Name: fmt.Sprint(i)}, c.Now().Add(time.Minute))
	}
	// Not every shard need be full.
	if n := s.Stats().Touched; n > most || n < most/2 {
		t.Errorf("%d are kept", n)
	}
	c.Advance(time.Minute)
	s.sweep()
	if n := s.Stats().Touched; n != 0 {
		t.Errorf("%d are left", n)
	}
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

func TestNoncesAreBoundedAndNoneIsForgottenForAnother(t *testing.T) {
	c := newClock()
	a := NewStore(Options{Now: c.Now, Nonces: 2}).Node(nodeA)
	for _, nonce := range []string{"1", "2"} {
		if fresh, err := a.UseNonce(t.Context(), "app.key", nonce, c.Now().Add(5*time.Minute)); !fresh || err != nil {
			t.Fatalf("got %v %v", fresh, err)
		}
	}
	if fresh, err := a.UseNonce(t.Context(), "app.key", "3", c.Now().Add(5*time.Minute)); fresh || err != directory.ErrTooMany {
		t.Errorf("when full: got %v %v", fresh, err)
	}
	if fresh, err := a.UseNonce(t.Context(), "app.key", "1", c.Now().Add(5*time.Minute)); fresh || err != nil {
		t.Errorf("a used one, when full: got %v %v", fresh, err)
	}
	c.Advance(7 * time.Minute)
	if fresh, err := a.UseNonce(t.Context(), "app.key", "3", c.Now().Add(5*time.Minute)); !fresh || err != nil {
		t.Errorf("later: got %v %v", fresh, err)
	}
}

func TestRevocationsAreBoundedForEachAppAndForAll(t *testing.T) {
	c := newClock()
	s := NewStore(Options{Now: c.Now, Revocations: 5, AppRevocations: 3})
	a := s.Node(nodeA)
	revoke := func(app, target string) error {
		now := c.Now()
		return a.Revoke(t.Context(), []directory.Revocation{{App: app, Key: app + ".key", Target: target,
			IssuedBefore: now, AppliesAt: now, Expires: now.Add(time.Hour)}})
	}
	for i := range 10 { // what is said again takes no more room
		c.Advance(time.Second)
		if err := revoke("one", fmt.Sprint("clientId:", i%3)); err != nil {
			t.Fatal(err)
		}
	}
	if err := revoke("one", "clientId:another"); err != directory.ErrTooMany {
		t.Errorf("more than an app may have: got %v", err)
	}
	for i := range 2 {
		if err := revoke("two", fmt.Sprint("clientId:", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := revoke("three", "clientId:1"); err != directory.ErrTooMany {
		t.Errorf("more than all may have: got %v", err)
	}
	if list, _, _ := a.Revocations(t.Context(), ""); len(list) != 5 {
		t.Errorf("%d are kept", len(list))
	}
	c.Advance(time.Hour)
	if err := revoke("three", "clientId:1"); err != nil {
		t.Errorf("when the others have expired: %v", err)
	}
	if list, _, _ := a.Revocations(t.Context(), ""); len(list) != 1 {
		t.Errorf("%d are kept", len(list))
	}
	if n := len(s.revocations.apps); n != 1 {
		t.Errorf("%d apps are counted", n)
	}
}
