package enginetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var appendTests = []test{
	{"AppendGivesSerialsThatGrowAndSortAsStrings", serialsGrow},
	{"AppendLogsItsEntriesInOrderWithOneTimestamp", entriesInOrder},
	{"EveryEntryNamesThePositionBeforeIt", prevChain},
	{"DoneIsCalledOnceAndInTheOrderOfTheCalls", doneInOrder},
	{"DoneMayAppendAgain", doneMayAppend},
	{"AppendAfterItsDeadlineIsRefusedAndLeavesNothing", deadline},
	{"AFailedAppendLeavesNothingBehind", atomicity},
	{"OneNameInTwoAppsIsTwoChannels", apps},
	{"AnAppendWithoutEntriesPutsItsRecords", noEntries},
	{"BothNodesReadOneOrderUnderConcurrentAppends", totalOrder},
}

func serialsGrow(t *testing.T, h Harness) {
	ch := channel(t, "")
	last := read(t, h.A, ch, engine.Query{Limit: 1}).Tail
	if last == "" {
		t.Fatal("an empty channel has no position")
	}
	nodes := []engine.Engine{h.A, h.B}
	for i := range 100 {
		r := do(t, nodes[i%2], messages(ch, numbered("m", 1+i%3)...))
		for _, s := range r.Serials {
			if s <= last {
				t.Fatalf("serial %q does not come after %q", s, last)
			}
			if _, _, _, err := pubsub.ParseSerial(string(s)); err != nil {
				t.Fatal(err)
			}
			last = s
		}
	}
}

func entriesInOrder(t *testing.T, h Harness) {
	ch := channel(t, "")
	before := h.Now().UnixMilli()
	r := do(t, h.A, &engine.Append{Channel: ch, Entries: []engine.Draft{
		{Kind: engine.KindMessage, Body: body("one")},
		{Kind: engine.KindPresence, Body: &pubsub.Batch{Presence: []*pubsub.PresenceMessage{{ClientID: "two"}}}},
		{Kind: engine.KindMessage, Body: body("three")},
	}})
	entries := all(t, h.B, ch)
	expectTexts(t, "log", entries, "one", "two", "three")
	if entries[1].Kind != engine.KindPresence {
		t.Errorf("kind: got %d", entries[1].Kind)
	}
	for i, e := range entries {
		if e.Serial != r.Serials[i] || e.Timestamp != r.Timestamp || e.Unlogged {
			t.Errorf("entry %d: got %q at %d, want %q at %d", i, e.Serial, e.Timestamp, r.Serials[i], r.Timestamp)
		}
	}
	if r.Timestamp < before {
		t.Errorf("timestamp %d is before the append, %d", r.Timestamp, before)
	}
	later := do(t, h.B, messages(ch, "four"))
	if later.Timestamp < r.Timestamp {
		t.Errorf("timestamp %d after %d", later.Timestamp, r.Timestamp)
	}
}

func prevChain(t *testing.T, h Harness) {
	ch := channel(t, "")
	ra, pa, _ := subscribe(t, h.A, ch)
	rb, pb, _ := subscribe(t, h.B, ch)
	if pa != pb {
		t.Fatalf("two positions of one empty channel: %q, %q", pa, pb)
	}
	for i := range 20 {
		do(t, h.A, messages(ch, numbered(fmt.Sprint("m", i, "."), 1+i%4)...))
	}
	do(t, h.B, messages(ch, "end"))
	entries := all(t, h.A, ch)
	expectChain(t, "log", entries, pa)
	expectChain(t, "node A", ra.untilText(t, "end"), pa)
	expectChain(t, "node B", rb.untilText(t, "end"), pa)
}

func doneInOrder(t *testing.T, h Harness) {
	ch := channel(t, "")
	const n = 500
	var mu sync.Mutex
	var order []int
	var serials []pubsub.Serial
	finished := make(chan struct{})
	for i := range n {
		h.A.Append(messages(ch, fmt.Sprint(i)), func(r engine.Result) {
			mu.Lock()
			defer mu.Unlock()
			if r.Err != nil {
				t.Errorf("Append: %v", r.Err)
			}
			order = append(order, i)
			serials = append(serials, r.Serials...)
			if len(order) == n {
				close(finished)
			}
		})
	}
	select {
	case <-finished:
	case <-time.After(patience):
		t.Fatal("some done was not called")
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.IsSorted(order) || !slices.IsSorted(serials) {
		t.Fatal("done calls, or serials, are not in the order of the appends")
	}
	for i, e := range all(t, h.B, ch) {
		if text(e) != fmt.Sprint(i) {
			t.Fatalf("entry %d is %s", i, text(e))
		}
	}
	if len(order) != n {
		t.Fatalf("%d done calls for %d appends", len(order), n)
	}
}

func doneMayAppend(t *testing.T, h Harness) {
	ch := channel(t, "")
	finished := make(chan error, 1)
	h.A.Append(messages(ch, "first"), func(engine.Result) {
		h.A.Append(messages(ch, "second"), func(r engine.Result) { finished <- r.Err })
	})
	select {
	case err := <-finished:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("an append within done does not end")
	}
	expectTexts(t, "log", all(t, h.A, ch), "first", "second")
}

func deadline(t *testing.T, h Harness) {
	ch := channel(t, "")
	r, _, _ := subscribe(t, h.B, ch)
	late := messages(ch, "late")
	late.ID = engine.ID{Client: "id"}
	late.Deadline = h.Now().Add(-time.Second)
	late.Puts = []engine.Put{{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: "k"}, Value: []byte("v")}}
	if got := try(t, h.A, late); !errors.Is(got.Err, engine.ErrDeadline) {
		t.Fatalf("got %v, want ErrDeadline", got.Err)
	}
	intime := messages(ch, "in time")
	intime.ID = engine.ID{Client: "id"}
	intime.Deadline = h.Now().Add(time.Hour)
	if got := do(t, h.A, intime); got.Repeated {
		t.Fatal("the id of a refused append is known")
	}
	expectTexts(t, "delivered", r.untilText(t, "in time"), "in time")
	if _, ok, _ := h.A.Record(t.Context(), ch, late.Puts[0].RecordKey); ok {
		t.Fatal("a refused append put a record")
	}
	far := messages(ch, "far")
	far.Deadline = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	do(t, h.A, far)
}

func atomicity(t *testing.T, h Harness) {
	ch := channel(t, "")
	live, _, _ := subscribe(t, h.B, ch)
	key := func(k string) engine.RecordKey { return engine.RecordKey{Space: engine.RecordObject, Key: k} }
	do(t, h.A, &engine.Append{Channel: ch, Entries: drafts("base"),
		Puts: []engine.Put{{RecordKey: key("a"), Value: []byte("old"), Entry: 0}}})
	a, _, err := h.A.Record(t.Context(), ch, key("a"))
	if err != nil {
		t.Fatal(err)
	}
	tail := read(t, h.A, ch, engine.Query{Limit: 1}).Tail

	failing := &engine.Append{Channel: ch, Entries: drafts("x", "y"),
		ID: engine.ID{ConnectionID: "conn", MsgSerial: 1},
		Preconditions: []engine.Precondition{
			{RecordKey: key("a"), Revision: a.Revision},
			{RecordKey: key("b"), Revision: 99}, // there is none
		},
		Puts: []engine.Put{
			{RecordKey: key("a"), Value: []byte("new"), Entry: 1},
			{RecordKey: key("b"), Value: []byte("new"), Entry: engine.NoEntry},
		},
	}
	if r := try(t, h.B, failing); !errors.Is(r.Err, engine.ErrPrecondition) {
		t.Fatalf("got %v, want ErrPrecondition", r.Err)
	}
	if got, _, _ := h.A.Record(t.Context(), ch, key("a")); string(got.Value) != "old" || got.Revision != a.Revision {
		t.Errorf("record a: got %q, revision %d", got.Value, got.Revision)
	}
	if _, ok, _ := h.A.Record(t.Context(), ch, key("b")); ok {
		t.Error("record b exists")
	}
	if got := read(t, h.A, ch, engine.Query{Limit: 1}).Tail; got != tail {
		t.Errorf("tail moved from %q to %q", tail, got)
	}
	failing.Preconditions[1].Revision = 0
	if r := do(t, h.B, failing); r.Repeated {
		t.Fatal("the id of a failed append is known")
	}
	expectTexts(t, "delivered", live.untilText(t, "y"), "base", "x", "y")
	expectTexts(t, "log", all(t, h.A, ch), "base", "x", "y")
}

func apps(t *testing.T, h Harness) {
	one := channel(t, "")
	two := one
	two.App = "other"
	do(t, h.A, messages(one, "of one"))
	do(t, h.A, messages(two, "of two"))
	expectTexts(t, "one", all(t, h.B, one), "of one")
	expectTexts(t, "two", all(t, h.B, two), "of two")
}

func noEntries(t *testing.T, h Harness) {
	ch := channel(t, "")
	live, _, _ := subscribe(t, h.A, ch)
	key := engine.RecordKey{Space: engine.RecordVersion, Key: "k"}
	r := do(t, h.A, &engine.Append{Channel: ch, ID: engine.ID{Client: "id"},
		Puts: []engine.Put{{RecordKey: key, Value: []byte("v"), Entry: engine.NoEntry}}})
	if len(r.Serials) != 0 || r.Timestamp == 0 {
		t.Errorf("got %+v", r)
	}
	again := do(t, h.B, &engine.Append{Channel: ch, ID: engine.ID{Client: "id"},
		Puts: []engine.Put{{RecordKey: key, Value: []byte("w"), Entry: engine.NoEntry}}})
	if !again.Repeated {
		t.Error("its id is not known")
	}
	if got, _, _ := h.B.Record(t.Context(), ch, key); string(got.Value) != "v" || got.Serial != "" {
		t.Errorf("got record %+v", got)
	}
	do(t, h.A, messages(ch, "end"))
	expectTexts(t, "delivered", live.untilText(t, "end"), "end")
}

func totalOrder(t *testing.T, h Harness) {
	ch := channel(t, "")
	ra, position, _ := subscribe(t, h.A, ch)
	rb, _, _ := subscribe(t, h.B, ch)
	const publishers, each = 6, 150
	var wg sync.WaitGroup
	results := make([][]pubsub.Serial, publishers)
	for p := range publishers {
		node := []engine.Engine{h.A, h.B}[p%2]
		wg.Go(func() {
			for i := range each {
				r := do(t, node, messages(ch, fmt.Sprintf("%d.%d.a", p, i), fmt.Sprintf("%d.%d.b", p, i)))
				results[p] = append(results[p], r.Serials...)
			}
		})
	}
	wg.Wait()
	do(t, h.A, messages(ch, "end"))
	log := all(t, h.A, ch)
	for what, got := range map[string][]*engine.Entry{
		"log on B":      all(t, h.B, ch),
		"deliveries, A": ra.untilText(t, "end"),
		"deliveries, B": rb.untilText(t, "end"),
	} {
		if len(got) != len(log) {
			t.Fatalf("%s: %d entries, the log has %d", what, len(got), len(log))
		}
		for i, e := range got {
			if e.Serial != log[i].Serial || text(e) != text(log[i]) {
				t.Fatalf("%s: entry %d is %s, in the log it is %s", what, i, text(e), text(log[i]))
			}
		}
	}
	expectChain(t, "log", log, position)
	if len(log) != publishers*each*2+1 {
		t.Fatalf("%d entries", len(log))
	}
	at := make(map[string]int)
	for i, e := range log {
		at[text(e)] = i
	}
	for p := range publishers {
		if !slices.IsSorted(results[p]) {
			t.Errorf("publisher %d: serials do not grow", p)
		}
		for i := range each {
			a, b := at[fmt.Sprintf("%d.%d.a", p, i)], at[fmt.Sprintf("%d.%d.b", p, i)]
			if b != a+1 || log[a].Serial != results[p][2*i] {
				t.Fatalf("publisher %d: append %d is not in one piece", p, i)
			}
		}
	}
}
