package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

func TestTheLogIsAQueue(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var l entryLog
	var want []*logged
	next := 0
	for range 3000 {
		grow := rng.IntN(2) == 0
		for range rng.IntN(100) {
			if grow {
				e := &logged{Entry: engine.Entry{Serial: pubsub.MakeSerial(int64(next), 0, "00000000"), Timestamp: int64(next)}, cost: rng.Int64N(9)}
				next++
				l.push(e)
				want = append(want, e)
			} else if len(want) > 0 {
				if e := l.pop(); e != want[0] {
					t.Fatal("popped another than the oldest")
				}
				want = want[1:]
			}
		}
		var bytes int64
		for i, e := range want {
			bytes += e.cost
			if l.at(i) != e {
				t.Fatalf("%d is another", i)
			}
		}
		if l.n != len(want) || l.bytes != bytes {
			t.Fatalf("%d entries, %d bytes; want %d, %d", l.n, l.bytes, len(want), bytes)
		}
		if n := len(l.segments); n > 0 && (n-1)*segmentSize > l.n+segmentSize {
			t.Fatalf("%d segments for %d entries", n, l.n)
		}
		if l.n > 0 && l.oldest != want[0].Timestamp {
			t.Fatalf("the oldest is of %d, want %d", l.oldest, want[0].Timestamp)
		}
		if l.n > 0 {
			i := rng.IntN(l.n)
			if got := l.after(want[i].Serial); got != i+1 {
				t.Fatalf("after %d comes %d", i, got)
			}
		}
		if rng.IntN(20) == 0 {
			l.release()
		}
	}
}

func TestSerialsGrowThoughTheClockRunsBackwardsAndTheChannelIsForgotten(t *testing.T) {
	c := newClock()
	s := NewStore(Options{Now: c.Now})
	var last pubsub.Serial
	for i := range 20 {
		r := s.append(message(channelID(0), "x"))
		page, err := s.Node("a").Read(t.Context(), channelID(0), engine.Query{After: r.Serials[0], Exact: true, Limit: 1})
		if err != nil || page.Tail != r.Serials[0] {
			t.Fatalf("tail %q, %v", page.Tail, err)
		}
		if r.Serials[0] <= last {
			t.Fatalf("serial %q after %q", r.Serials[0], last)
		}
		if i > 0 {
			if _, err := s.Node("a").Read(t.Context(), channelID(0), engine.Query{After: last, Exact: true, Limit: 1}); err != engine.ErrGone {
				t.Fatalf("a position from before the channel was forgotten: got %v, want ErrGone", err)
			}
		}
		last = r.Serials[0]
		for range 2 {
			c.Advance(time.Hour)
			s.sweep()
		}
		if n := s.Stats().Channels; n != 0 {
			t.Fatalf("%d channels are not forgotten", n)
		}
		c.Advance(-2*time.Hour - time.Second)
		if i%2 == 0 {
			// A channel of the time in between changes nothing.
			s.append(message(channelID(1+i), "x"))
		}
	}
}

func TestARepeatReturnsSerialsAcrossTheEndOfAMillisecond(t *testing.T) {
	c := newClock()
	s := NewStore(Options{Now: c.Now})
	ch := s.lock(channelID(0))
	ch.clock.Resume(c.Now().UnixMilli(), pubsub.MaxSerialCounter-1)
	ch.mu.Unlock()
	for _, id := range []engine.ID{{Client: "id"}, {ConnectionID: "conn", MsgSerial: 3}} {
		a := message(channelID(0), "x")
		for range 3 {
			a.Entries = append(a.Entries, a.Entries[0])
		}
		a.ID = id
		first, again := s.append(a), s.append(a)
		if !again.Repeated || !slices.Equal(first.Serials, again.Serials) || first.Timestamp != again.Timestamp {
			t.Errorf("got %+v, want %+v", again, first)
		}
		if !slices.IsSorted(first.Serials) {
			t.Errorf("serials %q do not grow", first.Serials)
		}
		ch.clock.Resume(c.Now().UnixMilli()+10, pubsub.MaxSerialCounter)
	}
}

func TestARepeatByTheClientsIDIsKnownByItsMsgSerialToo(t *testing.T) {
	c := newClock()
	s := NewStore(Options{Now: c.Now})
	a := message(channelID(0), "x")
	a.ID = engine.ID{Client: "id"}
	first := s.append(a)
	c.Advance(time.Minute)
	a.ID = engine.ID{ConnectionID: "conn", MsgSerial: 5, Client: "id"}
	s.append(a)
	c.Advance(2 * time.Minute) // the client's id is forgotten
	if r := s.append(a); !r.Repeated || !slices.Equal(r.Serials, first.Serials) {
		t.Errorf("got %+v, want %+v", r, first)
	}
	a.ID = engine.ID{Client: "id"}
	if r := s.append(a); r.Repeated {
		t.Errorf("got %+v", r)
	}
}

func TestAPutNeedsItsEntry(t *testing.T) {
	s := NewStore(Options{})
	for _, entry := range []int{-2, 1, 7} {
		a := message(channelID(0), "x")
		a.Puts = []engine.Put{{Value: []byte("v"), Entry: entry}}
		if r := s.append(a); r.Err == nil {
			t.Errorf("entry %d of 1 was accepted", entry)
		}
	}
}

func TestLimitsMustBePositive(t *testing.T) {
	e := NewStore(Options{}).Node("a")
	if _, err := e.Read(t.Context(), channelID(0), engine.Query{}); err == nil {
		t.Error("Read")
	}
	if _, err := e.Records(t.Context(), channelID(0), engine.RecordObject, "", 0); err == nil {
		t.Error("Records")
	}
}

// TestKnownMsgSerialsAreThoseThatCame compares with a map, under all that makes notes
// shorter.
func TestKnownMsgSerialsAreThoseThatCame(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		n := &connectionNotes{}
		came := make(map[int64]bool)
		next, now := int64(0), int64(1_000_000)
		for range 10_000 {
			if rng.IntN(3) > 0 {
				next += 1 + rng.Int64N(2)*rng.Int64N(5)
			}
			m := next
			if rng.IntN(20) == 0 {
				m = max(0, next-rng.Int64N(3000)) // late
			}
			if _, known := n.find(m); known && !came[m] {
				t.Fatalf("msgSerial %d never came", m)
			} else if !known {
				n.add(result{msgSerial: m, noted: now})
			}
			came[m] = true
			if _, known := n.find(m); !known {
				t.Fatalf("msgSerial %d just came", m)
			}
			switch rng.IntN(500) {
			case 0:
				n.shed()
			case 1:
				now += rng.Int64N(30_000)
				n.expire(now)
			}
			if n.results.n > maxResults || len(n.ranges) > maxRanges {
				t.Fatalf("%d results, %d ranges", n.results.n, len(n.ranges))
			}
		}
		for m := range next + 10 {
			if _, known := n.find(m); known && !came[m] {
				t.Fatalf("msgSerial %d never came", m)
			}
		}
		for i := 1; i < len(n.ranges); i++ {
			if n.ranges[i].first <= n.ranges[i-1].last+1 {
				t.Fatalf("ranges %+v and %+v touch", n.ranges[i-1], n.ranges[i])
			}
		}
		for {
			if _, ok := n.oldest(); !ok {
				break
			}
			n.shed()
		}
		if n.size() != 0 {
			t.Fatalf("%d bytes of nothing", n.size())
		}
	}
}

func TestALongReadGivesOthersTheLock(t *testing.T) {
	c := newClock()
	s := NewStore(Options{Now: c.Now})
	const n = 3 * maxLocked
	for i := range n {
		a := message(channelID(0), "x")
		if i%1000 == 0 {
			a.Entries[0].Kind = engine.KindPresence
		}
		s.append(a)
	}
	for _, q := range []engine.Query{
		{Kinds: engine.Kinds(engine.KindPresence), Limit: 100},
		{Kinds: engine.Kinds(engine.KindPresence), Limit: 100, Backwards: true},
		{Kinds: engine.Kinds(engine.KindPresence), Limit: 5},
		{Kinds: engine.Kinds(engine.KindPresence), Limit: 5, Backwards: true},
		{Kinds: engine.Kinds(engine.KindObject), Limit: 5},
	} {
		page, err := s.Node("a").Read(t.Context(), channelID(0), q)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		if q.Kinds.Has(engine.KindPresence) {
			want = min(q.Limit, (n+999)/1000)
		}
		if len(page.Entries) != want || page.More != (want == 5) {
			t.Errorf("%+v: %d entries, more %v; want %d", q, len(page.Entries), page.More, want)
		}
	}
}

func TestRunTrimsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Node("a").Run(ctx) }()
		for i := range 10 {
			a := message(channelID(i), "x")
			a.ID = engine.ID{Client: "id"}
			s.append(a)
		}
		time.Sleep(engine.LiveWindow - time.Second)
		if got := s.Stats(); got.Entries != 10 {
			t.Errorf("within LiveWindow: %+v", got)
		}
		time.Sleep(2*engine.LiveWindow + DefaultSweepInterval)
		if got := s.Stats(); got != (Stats{}) {
			t.Errorf("long after: %+v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestThePolicyMayChange(t *testing.T) {
	c := newClock()
	retention := time.Hour
	s := NewStore(Options{Now: c.Now, Policy: func(pubsub.ChannelID) engine.Policy { return engine.Policy{Retention: retention} }})
	for i := range 10 {
		s.append(message(channelID(0), fmt.Sprint(i)))
	}
	c.Advance(engine.LiveWindow + time.Second)
	s.sweep()
	if got := s.Stats(); got.Entries != 10 {
		t.Errorf("got %+v", got)
	}
	retention = 0
	s.sweep()
	if got := s.Stats(); got.Entries != 0 {
		t.Errorf("got %+v", got)
	}
}
