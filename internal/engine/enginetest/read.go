package enginetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var readTests = []test{
	{"ReadFindsWhatTheQuerySelects", readSelects},
	{"BoundsAreComparedByOrderAndNeedNotBeInTheLog", readByOrder},
	{"ReadExactlyAfterEveryEntryFindsTheRest", exactEverywhere},
	{"ReadExactlyAfterAnUnknownPositionIsGone", exactUnknown},
	{"ReadExactlyAfterAPositionOfAnotherEpochIsForeign", exactForeign},
	{"PagesMeetWhileOthersAppend", pagesMeet},
}

func readSelects(t *testing.T, h Harness) {
	ch := channel(t, "")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	kinds := []engine.Kind{engine.KindMessage, engine.KindPresence, engine.KindAnnotation, engine.KindObject}
	for i := range 60 {
		a := messages(ch, numbered(fmt.Sprintf("m%d.", i), 1+rng.IntN(3))...)
		for k := range a.Entries {
			a.Entries[k].Kind = kinds[rng.IntN(len(kinds))]
		}
		do(t, h.A, a)
		if h.Advance != nil {
			h.Advance(time.Duration(rng.IntN(3)) * time.Millisecond)
		}
	}
	log := all(t, h.A, ch)
	serial := func() pubsub.Serial {
		if rng.IntN(3) == 0 {
			return ""
		}
		return log[rng.IntN(len(log))].Serial
	}
	for range 500 {
		q := engine.Query{
			Backwards: rng.IntN(2) == 0,
			Limit:     1 + rng.IntN(40),
			After:     serial(),
			UpTo:      serial(),
			Before:    serial(),
			Exact:     rng.IntN(2) == 0,
		}
		if q.After == "" {
			q.Exact = false
		}
		if rng.IntN(2) == 0 {
			q.Kinds = engine.Kinds(kinds[:1+rng.IntN(len(kinds)-1)]...)
		}
		if rng.IntN(3) == 0 {
			q.Start = log[rng.IntN(len(log))].Timestamp
		}
		if rng.IntN(3) == 0 {
			q.End = log[rng.IntN(len(log))].Timestamp
		}
		want, more := selected(log, q)
		p := read(t, h.B, ch, q)
		if !slices.EqualFunc(p.Entries, want, func(a, b *engine.Entry) bool { return a.Serial == b.Serial }) || p.More != more {
			t.Fatalf("%+v: got %q, more %v; want %q, more %v", q, texts(p.Entries), p.More, texts(want), more)
		}
		if p.Tail != log[len(log)-1].Serial {
			t.Fatalf("tail: got %q", p.Tail)
		}
	}
}

// selected is what a query selects from a log, found the slow way.
func selected(log []*engine.Entry, q engine.Query) (page []*engine.Entry, more bool) {
	for _, e := range log {
		if q.Kinds.Has(e.Kind) && (q.After == "" || e.Serial > q.After) && (q.UpTo == "" || e.Serial <= q.UpTo) &&
			(q.Before == "" || e.Serial < q.Before) && (q.Start == 0 || e.Timestamp >= q.Start) && (q.End == 0 || e.Timestamp <= q.End) {
			page = append(page, e)
		}
	}
	if q.Backwards {
		slices.Reverse(page)
	}
	if len(page) > q.Limit {
		return page[:q.Limit], true
	}
	return page, false
}

func readByOrder(t *testing.T, h Harness) {
	ch := channel(t, "")
	a := do(t, h.A, messages(ch, "one"))
	ms, counter, epoch, err := pubsub.ParseSerial(string(a.Serials[0]))
	if err != nil {
		t.Fatal(err)
	}
	between := pubsub.MakeSerial(ms, counter+1, epoch) // given to the entry that is not logged
	hidden := messages(ch, "unlogged")
	hidden.Entries[0].Unlogged = true
	hs := do(t, h.A, hidden).Serials[0]
	do(t, h.A, messages(ch, "two"))
	for _, p := range []pubsub.Serial{between, hs} {
		if p > hs {
			continue // another millisecond began, and "two" may come before
		}
		expectTexts(t, "up to", read(t, h.B, ch, engine.Query{UpTo: p, Limit: 9}).Entries, "one")
		expectTexts(t, "after", read(t, h.B, ch, engine.Query{After: p, Limit: 9}).Entries, "two")
	}
	old := pubsub.MakeSerial(1, 0, "zzzzzzzz")
	expectTexts(t, "after an old one", read(t, h.B, ch, engine.Query{After: old, Limit: 9}).Entries, "one", "two")
	expectTexts(t, "up to an old one", read(t, h.B, ch, engine.Query{UpTo: old, Limit: 9}).Entries)
}

func exactEverywhere(t *testing.T, h Harness) {
	ch := channel(t, "")
	position := read(t, h.A, ch, engine.Query{Limit: 1}).Tail
	for i := range 40 {
		do(t, h.A, messages(ch, numbered(fmt.Sprint(i, "."), 1+i%20)...))
	}
	log := all(t, h.A, ch)
	for i := range len(log) + 1 {
		p := read(t, h.B, ch, engine.Query{After: position, Exact: true, Limit: len(log) + 1})
		if !slices.Equal(texts(p.Entries), texts(log[i:])) {
			t.Fatalf("after %d entries: got %d, want %d", i, len(p.Entries), len(log)-i)
		}
		expectChain(t, "page", p.Entries, position)
		if i < len(log) {
			position = log[i].Serial
		}
	}
}

func exactUnknown(t *testing.T, h Harness) {
	ch := channel(t, "")
	r := do(t, h.A, messages(ch, "one", "two", "three"))
	ms, counter, epoch, err := pubsub.ParseSerial(string(r.Serials[2]))
	if err != nil {
		t.Fatal(err)
	}
	other := do(t, h.A, messages(pubsub.ChannelID{App: "app", Name: ch.Name + "-other"}, "elsewhere"))
	for what, p := range map[string]pubsub.Serial{
		"nothing":                    "",
		"no serial":                  "108:0",
		"an item's serial":           pubsub.Serial(r.Serials[0].Item(0)),
		"before all":                 pubsub.MakeSerial(ms-1000, 7, epoch),
		"after all":                  pubsub.MakeSerial(ms+1000, counter, epoch),
		"another channel's, perhaps": other.Serials[0],
	} {
		if slices.Contains(r.Serials, p) {
			continue
		}
		for _, channel := range []pubsub.ChannelID{ch, {App: "app", Name: ch.Name + "-empty-" + what}} {
			_, err := h.B.Read(t.Context(), channel, engine.Query{After: p, Exact: true, Limit: 9})
			// A store of several parts may have an epoch for each of them.
			if elsewhere := channel != ch || p.Epoch() != epoch; elsewhere && errors.Is(err, engine.ErrForeign) {
				continue
			}
			if !errors.Is(err, engine.ErrGone) {
				t.Errorf("%s (%q): got %v, want ErrGone", what, p, err)
			}
		}
	}
}

func exactForeign(t *testing.T, h Harness) {
	ch := channel(t, "")
	r := do(t, h.A, messages(ch, "one"))
	ms, counter, _, err := pubsub.ParseSerial(string(r.Serials[0]))
	if err != nil {
		t.Fatal(err)
	}
	foreign := pubsub.MakeSerial(ms, counter, "zzzzzzzz")
	for _, channel := range []pubsub.ChannelID{ch, {App: "app", Name: ch.Name + "-empty"}} {
		if _, err := h.B.Read(t.Context(), channel, engine.Query{After: foreign, Exact: true, Limit: 9}); !errors.Is(err, engine.ErrForeign) {
			t.Errorf("got %v, want ErrForeign", err)
		}
	}
}

func pagesMeet(t *testing.T, h Harness) {
	ch := channel(t, "")
	for i := range 300 {
		do(t, h.A, messages(ch, fmt.Sprint("old", i)))
	}
	before := all(t, h.A, ch)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				do(t, h.A, messages(ch, fmt.Sprint("new", i)))
			}
		}
	})
	for _, backwards := range []bool{false, true} {
		var got []*engine.Entry
		q := engine.Query{Backwards: backwards, Limit: 7, UpTo: before[len(before)-1].Serial}
		for {
			p := read(t, h.B, ch, q)
			got = append(got, p.Entries...)
			if !p.More {
				break
			}
			last := p.Entries[len(p.Entries)-1].Serial
			if backwards {
				q.Before = last
			} else {
				q.After = last
			}
		}
		if backwards {
			slices.Reverse(got)
		}
		if !slices.Equal(texts(got), texts(before)) {
			t.Errorf("backwards %v: the pages have %d entries, want %d", backwards, len(got), len(before))
		}
	}
	// Pages that follow the growing end meet too.
	position, got := pubsub.Serial(""), []*engine.Entry(nil)
	for range 200 {
		p := read(t, h.B, ch, engine.Query{After: position, Exact: position != "", Limit: 5})
		got = append(got, p.Entries...)
		if n := len(p.Entries); n > 0 {
			position = p.Entries[n-1].Serial
		}
		if p.Tail < position {
			t.Errorf("tail %q is before the page's last entry %q", p.Tail, position)
		}
	}
	close(stop)
	wg.Wait()
	log := all(t, h.A, ch)
	if !slices.Equal(texts(got), texts(log[:len(got)])) {
		t.Error("following pages leave gaps or repeat entries")
	}
}
