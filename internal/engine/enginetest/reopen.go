package enginetest

import (
	"errors"
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var reopenTests = []test{
	{"WhatWasAcknowledgedInAPersistedNamespaceIsThereAgain", reopenKeeps},
	{"TheLastMessageIsThereAgain", reopenKeepsLast},
	{"ATransientRecordEndsWithTheProcess", reopenForgets},
	{"AReopenedStoreNeverClaimsAContinuityThatItCannotHave", reopenContinuity},
}

func reopenKeeps(t *testing.T, h Harness) {
	if h.Reopen == nil {
		t.Skip("nothing outlives the store")
	}
	ch := channel(t, namespaceKept)
	k := key(engine.RecordVersion, "k")
	id := engine.ID{Client: "chosen"}
	a := withID(messages(ch, "one", "two"), id)
	a.Puts = []engine.Put{{RecordKey: k, Value: []byte("v"), Entry: 1}}
	first := do(t, h.A, a)
	before, _ := record(t, h.A, ch, k)
	log := all(t, h.A, ch)

	h = h.Reopen(t)
	again := all(t, h.B, ch)
	expectTexts(t, "log", again, "one", "two")
	for i, e := range again {
		if e.Serial != log[i].Serial || e.Prev != log[i].Prev || e.Timestamp != log[i].Timestamp || e.Kind != log[i].Kind {
			t.Errorf("entry %d: got %+v, had %+v", i, e, log[i])
		}
	}
	if r, ok := record(t, h.B, ch, k); !ok || r.Revision != before.Revision || r.Serial != before.Serial || string(r.Value) != "v" {
		t.Errorf("record: got %+v, %v; had %+v", r, ok, before)
	}
	if r := do(t, h.A, withID(messages(ch, "again"), id)); !r.Repeated || len(r.Serials) != 2 || r.Serials[0] != first.Serials[0] {
		t.Errorf("repeat: got %+v, had %+v", r, first)
	}
	if s := do(t, h.A, messages(ch, "three")).Serials[0]; s <= first.Serials[1] {
		t.Errorf("serial %q after %q", s, first.Serials[1])
	}
}

func reopenKeepsLast(t *testing.T, h Harness) {
	if h.Reopen == nil {
		t.Skip("nothing outlives the store")
	}
	ch := channel(t, namespaceLast)
	do(t, h.A, messages(ch, "one"))
	last := do(t, h.A, messages(ch, "two")).Serials[0]
	h = h.Reopen(t)
	page := read(t, h.B, ch, engine.Query{Limit: 1, Backwards: true})
	expectTexts(t, "log", page.Entries, "two")
	if page.Entries[0].Serial != last {
		t.Errorf("serial %q, was %q", page.Entries[0].Serial, last)
	}
}

func reopenForgets(t *testing.T, h Harness) {
	if h.Reopen == nil {
		t.Skip("nothing outlives the store")
	}
	ch := channel(t, namespaceKept)
	member, fixture := key(engine.RecordPresence, "conn:member"), key(engine.RecordPresence, "fixture:member")
	a := messages(ch, "both enter")
	a.Puts = []engine.Put{
		{RecordKey: member, Value: []byte("m"), Entry: 0, Transient: true},
		{RecordKey: fixture, Value: []byte("f"), Entry: 0},
	}
	do(t, h.A, a)
	for _, k := range []engine.RecordKey{member, fixture} {
		if _, ok := record(t, h.B, ch, k); !ok {
			t.Errorf("%s is not there", k.Key)
		}
	}
	shared := h.Shared
	h = h.Reopen(t)
	if shared {
		if _, ok := record(t, h.A, ch, member); !ok {
			t.Error("a transient record is gone, although other processes use the store")
		}
		return
	}
	if r, ok := record(t, h.A, ch, member); ok {
		t.Errorf("a transient record is there again: %+v", r)
	}
	if page, err := h.B.Records(t.Context(), ch, engine.RecordPresence, "", 10); err != nil || len(page) != 1 || page[0].Key != fixture.Key {
		t.Errorf("records: %+v, %v", page, err)
	}
	// It does not count, and its key is free.
	again := messages(ch, "enters again")
	again.Bounds = []engine.Bound{{Space: engine.RecordPresence, MaxRecords: 2}}
	again.Preconditions = []engine.Precondition{{RecordKey: member}}
	again.Puts = a.Puts[:1]
	do(t, h.A, again)
	if _, ok := record(t, h.B, ch, member); !ok {
		t.Error("it cannot be put again")
	}
}

func reopenContinuity(t *testing.T, h Harness) {
	if h.Reopen == nil {
		t.Skip("nothing outlives the store")
	}
	type client struct{ seed, last pubsub.Serial }
	clients := make(map[pubsub.ChannelID]client)
	for _, namespace := range []string{"", namespaceKept} {
		ch := channel(t, namespace)
		seed := read(t, h.A, ch, engine.Query{Limit: 1}).Tail
		clients[ch] = client{seed, do(t, h.A, messages(ch, "one", "two")).Serials[1]}
	}
	h = h.Reopen(t)
	for ch, c := range clients {
		if s := do(t, h.B, messages(ch, "three")).Serials[0]; s <= c.last {
			t.Errorf("serial %q after %q", s, c.last)
		}
		for p, want := range map[pubsub.Serial][]string{c.seed: {"one", "two", "three"}, c.last: {"three"}} {
			page, err := h.A.Read(t.Context(), ch, engine.Query{After: p, Exact: true, Limit: 10})
			switch {
			case err == nil:
				expectTexts(t, "after reopening", page.Entries, want...)
				expectChain(t, "after reopening", page.Entries, p)
			case !errors.Is(err, engine.ErrGone) && !errors.Is(err, engine.ErrForeign):
				t.Errorf("got %v, want ErrGone or ErrForeign", err)
			}
		}
	}
}
