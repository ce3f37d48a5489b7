package enginetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var retentionTests = []test{
	{"EveryLogIsKeptForTheLiveWindow", liveWindow},
	{"AClientAtTheTrimBoundaryContinuesAndOneBeforeItDoesNot", trimBoundary},
	{"APersistedLogIsKeptForItsRetention", retention},
	{"AChannelForgottenAndUsedAgainClaimsNoContinuity", forgotten},
	{"RecordsOutliveTheLog", recordsStay},
	{"AFullStoreDropsTheOldestBacklogFirst", fullDropsOldest},
	{"AFullStoreRefusesWhatWouldDropPersistedEntries", fullRefuses},
	{"TheLastMessageOutlivesTheLog", lastStays},
	{"TheLastMessageIsSelectedAsAnyOther", lastSelected},
	{"AFullStoreDropsNoLastMessageButReplacesIt", fullKeepsLast},
}

// age moves the clock on, and the store drops what is too old then.
func age(t *testing.T, h Harness, d time.Duration) {
	t.Helper()
	if h.Advance == nil {
		t.Skip("the clock cannot be moved")
	}
	h.Advance(d)
	h.Trim()
}

func liveWindow(t *testing.T, h Harness) {
	for _, namespace := range []string{"", namespaceKept, namespaceFew, namespaceSmall} {
		ch := channel(t, namespace)
		position := read(t, h.A, ch, engine.Query{Limit: 1}).Tail
		want := numbered(strings.Repeat("long", 100), 30)
		for _, s := range want {
			do(t, h.A, messages(ch, s))
		}
		age(t, h, engine.LiveWindow-slack)
		expectTexts(t, namespace, read(t, h.B, ch, engine.Query{After: position, Exact: true, Limit: 100}).Entries, want...)
	}
}

func trimBoundary(t *testing.T, h Harness) {
	ch := channel(t, "")
	first := read(t, h.A, ch, engine.Query{Limit: 1}).Tail
	expect := func(p pubsub.Serial, want ...string) {
		t.Helper()
		page, err := h.B.Read(t.Context(), ch, engine.Query{After: p, Exact: true, Limit: 10})
		if err != nil {
			t.Fatalf("after %q: %v", p, err)
		}
		expectTexts(t, "exactly after", page.Entries, want...)
		expectChain(t, "exactly after", page.Entries, p)
	}
	expectGone := func(p pubsub.Serial) {
		t.Helper()
		if _, err := h.B.Read(t.Context(), ch, engine.Query{After: p, Exact: true, Limit: 10}); !errors.Is(err, engine.ErrGone) {
			t.Fatalf("after %q: got %v, want ErrGone", p, err)
		}
	}
	old := do(t, h.A, messages(ch, "one", "two")).Serials
	age(t, h, engine.LiveWindow/2)
	young := do(t, h.A, messages(ch, "three")).Serials
	expect(first, "one", "two", "three")

	age(t, h, engine.LiveWindow/2+time.Second)
	expectGone(first)
	expectGone(old[0])
	expect(old[1], "three")
	expectTexts(t, "log", all(t, h.A, ch), "three")

	_, position, _ := subscribe(t, h.A, ch) // or the channel might be forgotten
	age(t, h, engine.LiveWindow)
	if position != young[0] {
		t.Fatalf("position: got %q, want %q", position, young[0])
	}
	expectGone(old[1])
	expect(young[0])
	do(t, h.A, messages(ch, "four"))
	expect(young[0], "four")
	expectGone(old[1])
}

func retention(t *testing.T, h Harness) {
	lengths := map[string]int{"": 0, namespaceKept: 30, namespaceFew: 10, namespaceSmall: 9}
	channels := make(map[string]pubsub.ChannelID)
	want := numbered(strings.Repeat("x", 1000), 30)
	for namespace := range lengths {
		channels[namespace] = channel(t, namespace)
		for _, s := range want {
			do(t, h.A, messages(channels[namespace], s))
		}
	}
	age(t, h, engine.LiveWindow+time.Second)
	for namespace, most := range lengths {
		got := texts(all(t, h.B, channels[namespace]))
		if len(got) > most || namespace == namespaceKept && len(got) < most ||
			namespace == namespaceFew && len(got) < most || namespace == namespaceSmall && len(got) < most/2 {
			t.Errorf("namespace %q: %d entries, want %d", namespace, len(got), most)
		}
		if !slices.Equal(got, want[len(want)-len(got):]) {
			t.Errorf("namespace %q: these are not the newest", namespace)
		}
	}
	age(t, h, time.Hour-engine.LiveWindow-slack)
	if n := len(all(t, h.A, channels[namespaceKept])); n != 30 {
		t.Errorf("%d of 30 entries left before their time is over", n)
	}
	age(t, h, slack)
	if n := len(all(t, h.A, channels[namespaceKept])); n != 0 {
		t.Errorf("%d entries left when their time is over", n)
	}
}

func forgotten(t *testing.T, h Harness) {
	ch := channel(t, "")
	empty := pubsub.ChannelID{App: "app", Name: ch.Name + "-empty"}
	position := do(t, h.A, messages(ch, "one")).Serials[0]
	seed := read(t, h.A, empty, engine.Query{Limit: 1}).Tail
	// Long enough for the log to be trimmed, and then for the channels to be forgotten.
	for range 4 {
		age(t, h, engine.LiveWindow+time.Second)
	}
	for _, c := range []struct {
		channel  pubsub.ChannelID
		position pubsub.Serial
	}{{ch, position}, {empty, seed}} {
		// Whether the store still knows the channel or not: what is appended now comes
		// later, and either it follows the position or the position is gone.
		r := do(t, h.B, messages(c.channel, "two"))
		if r.Serials[0] <= c.position {
			t.Fatalf("serial %q after %q", r.Serials[0], c.position)
		}
		page, err := h.A.Read(t.Context(), c.channel, engine.Query{After: c.position, Exact: true, Limit: 10})
		if err == nil {
			expectTexts(t, "after the old position", page.Entries, "two")
			expectChain(t, "after the old position", page.Entries, c.position)
		} else if !errors.Is(err, engine.ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
	}
}

func recordsStay(t *testing.T, h Harness) {
	ch := channel(t, "")
	k := key(engine.RecordPresence, "k")
	a := messages(ch, "one")
	a.Puts = []engine.Put{{RecordKey: k, Value: []byte("v"), Entry: 0}}
	position := do(t, h.A, a).Serials[0]
	for range 4 {
		age(t, h, engine.LiveWindow+time.Second)
	}
	if r, ok := record(t, h.B, ch, k); !ok || r.Serial != position {
		t.Fatalf("got %+v, %v", r, ok)
	}
}

func fullDropsOldest(t *testing.T, h Harness) {
	if h.Limited == nil {
		t.Skip("the store has no budget")
	}
	h = h.Limited(t, 300_000)
	one, two := channel(t, ""), pubsub.ChannelID{App: "app", Name: "two"}
	live, position, _ := subscribe(t, h.B, one)
	payload := strings.Repeat("x", 1000)
	old := do(t, h.A, messages(two, "old")).Serials[0]
	const n = 1000
	for i := range n {
		if h.Advance != nil {
			h.Advance(time.Millisecond)
		}
		do(t, h.A, messages(one, fmt.Sprint(payload, i)))
	}
	do(t, h.A, messages(one, "end"))
	expectChain(t, "delivered", live.untilText(t, "end"), position)
	log := all(t, h.A, one)
	if len(log) < 50 || len(log) > 300 {
		t.Errorf("a log of %d entries of 1 kB in a store of 300 kB", len(log))
	}
	if got := text(log[len(log)-2]); got != fmt.Sprint(payload, n-1) {
		t.Errorf("the newest entry is not there")
	}
	expectChain(t, "log", log, log[0].Prev)
	if _, err := h.B.Read(t.Context(), one, engine.Query{After: position, Exact: true, Limit: 1}); !errors.Is(err, engine.ErrGone) {
		t.Errorf("from before what was dropped: got %v, want ErrGone", err)
	}
	p := read(t, h.B, one, engine.Query{After: log[0].Prev, Exact: true, Limit: n})
	if len(p.Entries) != len(log) {
		t.Errorf("from the boundary: %d entries, want %d", len(p.Entries), len(log))
	}
	if got := all(t, h.A, two); len(got) != 0 {
		t.Errorf("the oldest entry of all is still there, in another channel")
	}
	if got := do(t, h.A, messages(two, "new")).Serials[0]; got <= old {
		t.Errorf("serial %q after %q", got, old)
	}
}

func fullRefuses(t *testing.T, h Harness) {
	if h.Limited == nil {
		t.Skip("the store has no budget")
	}
	h = h.Limited(t, 300_000)
	ch := channel(t, namespaceKept)
	live, position, _ := subscribe(t, h.B, ch)
	payload := strings.Repeat("x", 1000)
	id := engine.ID{Client: "id"}
	n := 0
	var r engine.Result
	for ; n < 1000; n++ {
		r = try(t, h.A, withID(messages(ch, fmt.Sprint(payload, n)), engine.ID{ConnectionID: "conn", MsgSerial: int64(n)}))
		if r.Err != nil {
			break
		}
	}
	if !errors.Is(r.Err, engine.ErrFull) {
		t.Fatalf("after %d entries of 1 kB in a store of 300 kB: got %v, want ErrFull", n, r.Err)
	}
	if n < 50 {
		t.Errorf("full after %d entries", n)
	}
	log := all(t, h.A, ch)
	if len(log) != n {
		t.Fatalf("%d entries, %d were acknowledged", len(log), n)
	}
	big := withID(messages(ch, strings.Repeat("y", 400_000)), id)
	if r := try(t, h.B, big); !errors.Is(r.Err, engine.ErrFull) {
		t.Errorf("larger than the store: got %v, want ErrFull", r.Err)
	}
	if r := do(t, h.A, withID(messages(ch, fmt.Sprint(payload, 0)), engine.ID{ConnectionID: "conn", MsgSerial: 0})); !r.Repeated {
		t.Error("a full store does not know a repeat")
	}
	if got := len(live.until(t, "all", func(e []*engine.Entry) bool { return len(e) >= n })); got != n {
		t.Errorf("%d entries delivered, %d appended", got, n)
	}
	if h.Advance == nil {
		return
	}
	age(t, h, time.Hour)
	if r := do(t, h.A, withID(messages(ch, "new"), id)); r.Repeated {
		t.Error("the id of a refused append is known")
	}
	expectChain(t, "delivered", live.untilText(t, "new"), position)
}

// present is an Append of a presence event, which is no message.
func present(ch pubsub.ChannelID, client string) *engine.Append {
	return &engine.Append{Channel: ch, Entries: []engine.Draft{{
		Kind: engine.KindPresence, Body: &pubsub.Batch{ID: "b", Presence: []*pubsub.PresenceMessage{{ClientID: client}}},
	}}}
}

func lastStays(t *testing.T, h Harness) {
	for namespace, retention := range map[string]time.Duration{namespaceLast: engine.LiveWindow, namespaceBoth: time.Hour} {
		ch := channel(t, namespace)
		do(t, h.A, messages(ch, "one"))
		last := do(t, h.A, messages(ch, "two", "three")).Serials[1]
		live := messages(ch, "unlogged")
		live.Entries[0].Unlogged = true
		do(t, h.A, live)
		tail := do(t, h.A, present(ch, "somebody")).Serials[0]
		age(t, h, retention+time.Second)
		page := read(t, h.B, ch, engine.Query{Limit: 10})
		expectTexts(t, namespace, page.Entries, "three")
		if page.Entries[0].Serial != last || page.Tail != tail || page.More {
			t.Errorf("%s: got %+v of %s, tail %s; want %s, tail %s", namespace, page.Entries[0], last, page.Tail, last, tail)
		}

		// It is no place to continue from: what came after it is gone.
		if _, err := h.A.Read(t.Context(), ch, engine.Query{After: last, Exact: true, Limit: 10}); !errors.Is(err, engine.ErrGone) {
			t.Errorf("%s: exactly after the last message: %v, want ErrGone", namespace, err)
		}
		expectTexts(t, namespace, read(t, h.A, ch, engine.Query{After: tail, Exact: true, Limit: 10}).Entries)

		// Long after, with nobody there, it is still the last.
		for range 3 {
			age(t, h, 7*time.Hour)
		}
		expectTexts(t, namespace, all(t, h.A, ch), "three")
		_, position, _ := subscribe(t, h.A, ch)
		if position < tail {
			t.Errorf("%s: position %q, was %q", namespace, position, tail)
		}

		// The next one takes its place, at once and for as long.
		next := do(t, h.B, messages(ch, "four"))
		expectTexts(t, namespace, all(t, h.A, ch), "four")
		age(t, h, 23*time.Hour)
		expectTexts(t, namespace, all(t, h.A, ch), "four")
		if s := do(t, h.B, present(ch, "somebody else")).Serials[0]; s <= next.Serials[0] {
			t.Errorf("%s: serial %q after %q", namespace, s, next.Serials[0])
		}
		age(t, h, time.Hour-slack)
		if got := texts(all(t, h.A, ch)); len(got) == 0 || got[0] != "four" {
			t.Errorf("%s: got %q before its time is over", namespace, got)
		}
		age(t, h, slack+time.Second)
		if got := texts(all(t, h.A, ch)); slices.Contains(got, "four") {
			t.Errorf("%s: got %q when its time is over", namespace, got)
		}
	}
}

func lastSelected(t *testing.T, h Harness) {
	ch := channel(t, namespaceLast)
	before := do(t, h.A, messages(ch, "one")).Serials[0]
	first := do(t, h.A, messages(ch, "two"))
	age(t, h, engine.LiveWindow-time.Second)
	second := do(t, h.A, present(ch, "bob"))
	age(t, h, 2*time.Second) // now the log has nothing but bob
	last, bob := first.Serials[0], second.Serials[0]
	for _, c := range []struct {
		what string
		q    engine.Query
		want []string
		more bool
	}{
		{"everything", engine.Query{}, []string{"two", "bob"}, false},
		{"everything, backwards", engine.Query{Backwards: true}, []string{"bob", "two"}, false},
		{"the first", engine.Query{Limit: 1}, []string{"two"}, true},
		{"the newest", engine.Query{Limit: 1, Backwards: true}, []string{"bob"}, true},
		{"the newest message", engine.Query{Limit: 1, Backwards: true, Kinds: engine.Kinds(engine.KindMessage)}, []string{"two"}, false},
		{"presence", engine.Query{Kinds: engine.Kinds(engine.KindPresence)}, []string{"bob"}, false},
		{"after one before it", engine.Query{After: before}, []string{"two", "bob"}, false},
		{"after it", engine.Query{After: last}, []string{"bob"}, false},
		{"up to it", engine.Query{UpTo: last, Backwards: true}, []string{"two"}, false},
		{"up to one before it", engine.Query{UpTo: before, Backwards: true}, nil, false},
		{"before what follows", engine.Query{Before: bob, Backwards: true}, []string{"two"}, false},
		{"before it", engine.Query{Before: last, Backwards: true}, nil, false},
		{"from its time on", engine.Query{Start: first.Timestamp}, []string{"two", "bob"}, false},
		{"later", engine.Query{Start: first.Timestamp + 1}, []string{"bob"}, false},
		{"until its time", engine.Query{End: first.Timestamp}, []string{"two"}, false},
		{"earlier", engine.Query{End: first.Timestamp - 1}, nil, false},
	} {
		if c.q.Limit == 0 {
			c.q.Limit = 10
		}
		page := read(t, h.B, ch, c.q)
		if got := texts(page.Entries); !slices.Equal(got, c.want) || page.More != c.more {
			t.Errorf("%s: got %q, more %v; want %q, %v", c.what, got, page.More, c.want, c.more)
		}
	}
}

func fullKeepsLast(t *testing.T, h Harness) {
	if h.Limited == nil {
		t.Skip("the store has no budget")
	}
	h = h.Limited(t, 300_000)
	payload := strings.Repeat("x", 1000)
	var kept []pubsub.ChannelID
	var r engine.Result
	for len(kept) < 1000 {
		ch := channel(t, namespaceLast)
		ch.Name += fmt.Sprint(len(kept))
		if r = try(t, h.A, messages(ch, payload)); r.Err != nil {
			break
		}
		kept = append(kept, ch)
		do(t, h.A, messages(ch, payload)) // in its place; the first of the two may go
	}
	if !errors.Is(r.Err, engine.ErrFull) || len(kept) < 50 {
		t.Fatalf("after %d messages of 1 kB in a store of 300 kB: got %v, want ErrFull", len(kept), r.Err)
	}
	for i, ch := range kept {
		if got := all(t, h.B, ch); len(got) == 0 {
			t.Fatalf("the last message of channel %d is gone", i)
		}
		if r := try(t, h.B, messages(ch, strings.Repeat("y", 1000))); r.Err != nil {
			t.Fatalf("channel %d: a message as large as the last one it replaces: %v", i, r.Err)
		}
		log := all(t, h.B, ch)
		if got := text(log[len(log)-1]); got[0] != 'y' {
			t.Fatalf("channel %d: the last message is %q", i, got[:1])
		}
	}
	// What others need is not taken from them.
	ch := channel(t, "")
	if r := try(t, h.A, messages(ch, strings.Repeat(payload, 20))); r.Err != nil && !errors.Is(r.Err, engine.ErrFull) {
		t.Errorf("a large message of another channel: got %v, want ErrFull, or that there is room of its own", r.Err)
	}
	if got := all(t, h.B, kept[0]); len(got) == 0 || text(got[len(got)-1])[0] != 'y' {
		t.Error("the last message is gone")
	}
}
