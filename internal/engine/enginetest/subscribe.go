package enginetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var subscribeTests = []test{
	{"EachEntryIsDeliveredOnceToEveryNode", deliverOnce},
	{"NothingIsDeliveredThatWasAppendedBeforeSubscribing", nothingOld},
	{"SubscribingAmongPublishersLeavesNoGapAndRepeatsNothing", noGap},
	{"UnsubscribeReturnsAfterTheLastDeliver", unsubscribeWaits},
	{"ANodeMaySubscribeAgain", subscribeAgain},
	{"AnEmptyChannelHasAPositionThatIsValidFromThenOn", emptyPosition},
	{"UnloggedEntriesAreDeliveredButAreNoPosition", unlogged},
}

func deliverOnce(t *testing.T, h Harness) {
	ch := channel(t, "")
	ra, _, _ := subscribe(t, h.A, ch)
	rb, _, _ := subscribe(t, h.B, ch)
	want := numbered("m", 50)
	for i, s := range want {
		do(t, []engine.Engine{h.A, h.B}[i%2], messages(ch, s))
	}
	expectTexts(t, "node A", ra.untilText(t, want[49]), want...)
	expectTexts(t, "node B", rb.untilText(t, want[49]), want...)
}

func nothingOld(t *testing.T, h Harness) {
	ch := channel(t, "")
	old := do(t, h.A, messages(ch, "old"))
	r, position, _ := subscribe(t, h.B, ch)
	if position != old.Serials[0] {
		t.Errorf("position: got %q, want %q", position, old.Serials[0])
	}
	do(t, h.A, messages(ch, "new"))
	expectTexts(t, "delivered", r.untilText(t, "new"), "new")
}

func noGap(t *testing.T, h Harness) {
	ch := channel(t, "")
	first := read(t, h.A, ch, engine.Query{Limit: 1}).Tail
	stop := make(chan struct{})
	var publishers, subscribers sync.WaitGroup
	for p, node := range []engine.Engine{h.A, h.B} {
		publishers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				a := messages(ch, fmt.Sprintf("%d.%d", p, i))
				if i%5 == 4 {
					a = messages(ch, fmt.Sprintf("%d.%d", p, i), fmt.Sprintf("%d.%d+", p, i))
				}
				do(t, node, a)
			}
		})
	}
	type join struct {
		backlog  []*engine.Entry
		position pubsub.Serial
		live     *recorder
	}
	// The two nodes take turns of subscribing, reading what was before, and leaving.
	var mu sync.Mutex
	var joins []join
	for _, node := range []engine.Engine{h.A, h.B} {
		subscribers.Go(func() {
			for range 25 {
				r := &recorder{}
				sub, position, err := node.Subscribe(t.Context(), ch, r)
				if err != nil {
					t.Errorf("Subscribe: %v", err)
					return
				}
				backlog := upTo(t, node, ch, position)
				do(t, node, messages(ch, "marker"))
				sub.Unsubscribe()
				mu.Lock()
				joins = append(joins, join{backlog, position, r})
				mu.Unlock()
			}
		})
	}
	subscribers.Wait()
	close(stop)
	publishers.Wait()
	log := all(t, h.A, ch)
	expectChain(t, "log", log, first)
	for i, j := range joins {
		live := j.live.entries
		if n := len(j.backlog); n > 0 && j.backlog[n-1].Serial != j.position {
			t.Fatalf("subscription %d: begins after %q, the backlog ends with %q", i, j.position, j.backlog[n-1].Serial)
		}
		expectChain(t, fmt.Sprintf("subscription %d", i), live, j.position)
		for k, e := range append(j.backlog, live...) {
			if e.Serial != log[k].Serial {
				t.Fatalf("subscription %d: entry %d is %s, in the log it is %s", i, k, text(e), text(log[k]))
			}
		}
	}
}

// gate is a Subscriber that notices deliveries after it was closed.
type gate struct {
	closed     atomic.Bool
	inside     atomic.Int32
	deliveries atomic.Int32
	late       atomic.Int32
}

func (g *gate) Deliver([]*engine.Entry) {
	g.inside.Add(1)
	defer g.inside.Add(-1)
	g.deliveries.Add(1)
	if g.closed.Load() {
		g.late.Add(1)
	}
}

func (g *gate) Flush()             {}
func (g *gate) Lost(pubsub.Serial) {}

func unsubscribeWaits(t *testing.T, h Harness) {
	ch := channel(t, "")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, node := range []engine.Engine{h.A, h.B} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					do(t, node, messages(ch, "m"))
				}
			}
		})
	}
	for i := range 100 {
		g := &gate{}
		sub, _, err := []engine.Engine{h.A, h.B}[i%2].Subscribe(t.Context(), ch, g)
		if err != nil {
			t.Fatal(err)
		}
		for range rand.IntN(3) {
			do(t, h.A, messages(ch, "m"))
		}
		sub.Unsubscribe()
		if g.inside.Load() != 0 {
			t.Error("Unsubscribe returned during a Deliver")
		}
		g.closed.Store(true)
		do(t, h.A, messages(ch, "m"))
		sub.Unsubscribe() // twice is harmless
		if g.late.Load() != 0 {
			t.Error("Deliver was called after Unsubscribe")
		}
	}
	close(stop)
	wg.Wait()
}

func subscribeAgain(t *testing.T, h Harness) {
	ch := channel(t, "")
	r1, _, sub := subscribe(t, h.A, ch)
	do(t, h.B, messages(ch, "first"))
	r1.untilText(t, "first")
	sub.Unsubscribe()
	missed := do(t, h.B, messages(ch, "missed"))
	r2, position, _ := subscribe(t, h.A, ch)
	if position != missed.Serials[0] {
		t.Errorf("position: got %q, want %q", position, missed.Serials[0])
	}
	do(t, h.B, messages(ch, "second"))
	expectTexts(t, "second subscription", r2.untilText(t, "second"), "second")
	expectTexts(t, "first subscription", r1.untilText(t, "first"), "first")
}

func emptyPosition(t *testing.T, h Harness) {
	exactly := func(t *testing.T, ch pubsub.ChannelID, position pubsub.Serial) {
		t.Helper()
		if p := read(t, h.B, ch, engine.Query{After: position, Exact: true, Limit: 10}); len(p.Entries) != 0 || p.Tail != position {
			t.Fatalf("empty: got %d entries, tail %q, want none, %q", len(p.Entries), p.Tail, position)
		}
		do(t, h.A, messages(ch, "one"))
		do(t, h.B, messages(ch, "two"))
		p := read(t, h.B, ch, engine.Query{After: position, Exact: true, Limit: 10})
		expectTexts(t, "after the position", p.Entries, "one", "two")
		expectChain(t, "log", p.Entries, position)
	}
	t.Run("FromSubscribe", func(t *testing.T) {
		ch := channel(t, "")
		_, position, _ := subscribe(t, h.A, ch)
		exactly(t, ch, position)
	})
	t.Run("FromRead", func(t *testing.T) {
		ch := channel(t, "")
		exactly(t, ch, read(t, h.A, ch, engine.Query{Limit: 1}).Tail)
	})
}

func unlogged(t *testing.T, h Harness) {
	ch := channel(t, "")
	r, position, _ := subscribe(t, h.B, ch)
	a := messages(ch, "one", "two", "three", "four", "five")
	for _, i := range []int{0, 2, 4} {
		a.Entries[i].Unlogged = true
	}
	a.ID = engine.ID{ConnectionID: "conn", MsgSerial: 3}
	res := do(t, h.A, a)
	do(t, h.A, messages(ch, "end"))
	live := r.untilText(t, "end")
	expectTexts(t, "delivered", live, "one", "two", "three", "four", "five", "end")
	expectChain(t, "delivered", live, position)
	for i, e := range live[:5] {
		if e.Serial != res.Serials[i] {
			t.Errorf("entry %d: serial %q, the result says %q", i, e.Serial, res.Serials[i])
		}
		if e.Unlogged != (i%2 == 0) {
			t.Errorf("entry %d: unlogged is %v", i, e.Unlogged)
		}
	}
	log := all(t, h.A, ch)
	expectTexts(t, "log", log, "two", "four", "end")
	expectChain(t, "log", log, position)
	if _, err := h.A.Read(t.Context(), ch, engine.Query{After: res.Serials[2], Exact: true, Limit: 1}); err == nil {
		t.Error("the serial of an unlogged entry is a position")
	}
	again := do(t, h.B, a)
	if !again.Repeated || len(again.Serials) != 5 || again.Serials[4] != res.Serials[4] {
		t.Errorf("again: got %+v, want the serials of %+v", again, res)
	}
	last := messages(ch, "last")
	last.Entries[0].Unlogged = true
	tail := read(t, h.A, ch, engine.Query{Limit: 1}).Tail
	do(t, h.A, last)
	if got := read(t, h.A, ch, engine.Query{Limit: 1}).Tail; got != tail {
		t.Errorf("an unlogged entry moved the tail from %q to %q", tail, got)
	}
}
