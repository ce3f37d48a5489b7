package directorytest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

var orphanTests = []test{
	{"ChannelsWithMembersAreKnownToBothNodes", inhabited},
	{"ConnectionsOfANodeThatIsGoneAreOrphans", orphaned},
	{"AnOrphanIsGivenToOneAndAgainIfItIsNotSettled", claimed},
	{"AnOrphanMayBeResumed", orphanResumed},
	{"WhatANodeThatIsGoneCountedIsCountedNoMore", uncounted},
	{"AConnectionIsReclaimedUnlessItMoved", reclaimed},
}

func channelsOf(t *testing.T, names ...string) (ids []pubsub.ChannelID) {
	for _, n := range names {
		ids = append(ids, pubsub.ChannelID{App: "app", Name: name(t) + n})
	}
	return ids
}

func expectInhabited(t *testing.T, h Harness, id string, want ...pubsub.ChannelID) {
	t.Helper()
	for _, d := range []directory.Directory{h.A, h.B} {
		got, err := d.Inhabited(t.Context(), id)
		expectError(t, "Inhabited", err, nil)
		sortChannels(got)
		if !slices.Equal(got, want) {
			t.Fatalf("members in %v, want %v", got, want)
		}
	}
}

func sortChannels(ids []pubsub.ChannelID) {
	slices.SortFunc(ids, func(a, b pubsub.ChannelID) int { return strings.Compare(a.Name, b.Name) })
}

func inhabited(t *testing.T, h Harness) {
	id, ch := name(t), channelsOf(t, "1", "2", "3")
	create(t, h, id)
	expectInhabited(t, h, id)
	expectError(t, "Inhabit", h.A.Inhabit(t.Context(), id), nil)
	expectError(t, "Inhabit", h.A.Inhabit(t.Context(), id, ch[0], ch[1]), nil)
	expectError(t, "Inhabit", h.B.Inhabit(t.Context(), id, ch[1], ch[2]), nil)
	expectInhabited(t, h, id, ch...)
	resume(t, h.B, id, 1, h.NodeB)
	expectInhabited(t, h, id, ch...)
	expectError(t, "Vacate", h.B.Vacate(t.Context(), id, ch[1], channel(t)), nil)
	expectInhabited(t, h, id, ch[0], ch[2])
	expectError(t, "Disconnect", h.B.Disconnect(t.Context(), id, 2, h.Now().Add(time.Minute)), nil)
	expectInhabited(t, h, id, ch[0], ch[2])
	expectError(t, "Close", h.A.Close(t.Context(), id, 2), nil)
	expectInhabited(t, h, id)
	expectError(t, "Inhabit", h.A.Inhabit(t.Context(), id, ch[0]), nil) // late
	create(t, h, id)
	expectInhabited(t, h, id)
}

// mortal records a connection of node A with members in some channels.
func mortal(t *testing.T, h Harness, id string, grace time.Duration, channels ...pubsub.ChannelID) {
	t.Helper()
	c := directory.Connection{ID: id, App: "app", GrantDigest: "digest", Grace: grace}
	expectError(t, "Create", h.A.Create(t.Context(), c, 0), nil)
	expectError(t, "Inhabit", h.A.Inhabit(t.Context(), id, channels...), nil)
}

// orphans returns n orphans, sorted.
func orphans(t *testing.T, d directory.Directory, n int) []directory.Orphan {
	t.Helper()
	list, err := d.Orphans(t.Context(), n)
	expectError(t, "Orphans", err, nil)
	if len(list) != n {
		t.Fatalf("%d orphans, want %d", len(list), n)
	}
	slices.SortFunc(list, func(a, b directory.Orphan) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func noOrphans(t *testing.T, h Harness) {
	t.Helper()
	list, err := h.B.Orphans(t.Context(), 10)
	expectError(t, "Orphans", err, nil)
	if len(list) > 0 {
		t.Fatalf("orphans: %+v", list)
	}
}

func orphaned(t *testing.T, h Harness) {
	ch := channelsOf(t, "1", "2")
	id := func(s string) string { return name(t) + s }
	mortal(t, h, id("connected"), 15*time.Second, ch...)
	mortal(t, h, id("disconnected"), 15*time.Second, ch[0])
	expectError(t, "Disconnect", h.A.Disconnect(t.Context(), id("disconnected"), 1, h.Now().Add(time.Minute)), nil)
	mortal(t, h, id("closed"), 15*time.Second, ch[0])
	expectError(t, "Close", h.A.Close(t.Context(), id("closed"), 1), nil)
	mortal(t, h, id("moved"), 0, ch[0])
	resume(t, h.B, id("moved"), 1, h.NodeB)
	expectError(t, "Create of B", h.B.Create(t.Context(), directory.Connection{ID: id("of B"), App: "app"}, 0), nil)
	noOrphans(t, h)
	before := h.Now()
	h.KillA()
	c := lookup(t, h.B, id("connected"))
	if c.State != directory.Disconnected || c.Generation != 1 || c.Grace != 15*time.Second || c.Deadline.Before(before.Add(time.Minute)) {
		t.Errorf("got %+v", c)
	}
	noOrphans(t, h) // until the grace time is over
	h.Advance(15 * time.Second)
	list := orphans(t, h.B, 2)
	for i, want := range []string{id("connected"), id("disconnected")} {
		got := list[i]
		sortChannels(got.Channels)
		if got.ID != want || got.Generation != 1 || got.State != directory.Disconnected || !slices.Equal(got.Channels, ch[:2-i]) {
			t.Errorf("got %+v", got)
		}
		expectError(t, "Reap", h.B.Reap(t.Context(), got.ID, got.Generation), nil)
		expectError(t, "Settle", h.B.Settle(t.Context(), got.ID), nil)
	}
	h.Advance(directory.OrphanClaim)
	noOrphans(t, h)
	for _, there := range []string{"moved", "of B"} {
		if c := lookup(t, h.B, id(there)); c.State != directory.Connected {
			t.Errorf("%+v", c)
		}
	}
	// None of A's is counted any more.
	err := h.B.Create(t.Context(), directory.Connection{ID: id("another"), App: "app"}, 2)
	expectError(t, "Create", err, directory.ErrFull)
	expectError(t, "Close", h.B.Close(t.Context(), id("of B"), 1), nil)
	err = h.B.Create(t.Context(), directory.Connection{ID: id("another"), App: "app"}, 2)
	expectError(t, "Create", err, nil)
}

func claimed(t *testing.T, h Harness) {
	const n = 10
	for i := range n {
		mortal(t, h, fmt.Sprint(name(t), i), 0)
	}
	h.KillA()
	given := make(map[string]bool)
	for _, size := range []int{3, n - 3} {
		for _, o := range orphans(t, h.B, size) {
			if given[o.ID] {
				t.Errorf("%s is given twice", o.ID)
			}
			given[o.ID] = true
		}
	}
	noOrphans(t, h)
	expectError(t, "Settle", h.B.Settle(t.Context(), name(t)+"3"), nil)
	h.Advance(directory.OrphanClaim)
	for _, o := range orphans(t, h.B, n-1) {
		if o.ID == name(t)+"3" {
			t.Error("what is settled is given again")
		}
		expectError(t, "Settle", h.B.Settle(t.Context(), o.ID), nil)
	}
	h.Advance(directory.OrphanClaim)
	noOrphans(t, h)
}

func orphanResumed(t *testing.T, h Harness) {
	for _, id := range []string{"in time", "reaped"} {
		mortal(t, h, name(t)+id, 15*time.Second, channel(t))
	}
	h.KillA()
	resume(t, h.B, name(t)+"in time", 1, h.NodeB)
	h.Advance(15 * time.Second)
	o := orphans(t, h.B, 1)[0]
	if o.ID != name(t)+"reaped" {
		t.Fatalf("got %+v", o)
	}
	expectError(t, "Reap", h.B.Reap(t.Context(), o.ID, o.Generation), nil)
	if _, reaped := resume(t, h.B, o.ID, 1, h.NodeB); !reaped {
		t.Error("the resume does not know that the members have left")
	}
	expectError(t, "Settle", h.B.Settle(t.Context(), o.ID), nil)
	h.Advance(directory.OrphanClaim)
	noOrphans(t, h)
	if c := lookup(t, h.B, name(t)+"in time"); c.State != directory.Connected || c.Owner != h.NodeB {
		t.Errorf("got %+v", c)
	}
}

func uncounted(t *testing.T, h Harness) {
	ch := channel(t)
	join(t, h.A, ch, h.NodeA, 1)
	join(t, h.A, ch, h.NodeA, 2)
	join(t, h.B, ch, h.NodeB, 3)
	only := pubsub.ChannelID{App: name(t), Name: "only there"}
	join(t, h.A, only, h.NodeA, 1)
	watch(t, h.B, ch, true)
	h.KillA()
	expectChanged(t, h.B, ch, connections(1))
	names, _, err := h.B.Channels(t.Context(), directory.ChannelQuery{App: only.App, Limit: 10})
	expectError(t, "Channels", err, nil)
	if len(names) > 0 {
		t.Fatalf("listed: %q", names)
	}
}

func reclaimed(t *testing.T, h Harness) {
	id, app := name(t), name(t)
	mine := directory.Connection{ID: id, App: app, Generation: 2, Committed: 2, GrantDigest: "digest", Grace: time.Second}
	want := mine
	want.Owner, want.State = h.NodeA, directory.Connected
	reclaim := func(what string, reaped bool) {
		t.Helper()
		was, err := h.A.Reclaim(t.Context(), mine)
		expectError(t, "Reclaim", err, nil)
		if was != reaped {
			t.Errorf("%s: reaped is %v", what, was)
		}
		if got := lookup(t, h.B, id); got != want {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
		// It is counted once.
		other := directory.Connection{ID: id + "other", App: app}
		expectError(t, what+": Create", h.B.Create(t.Context(), other, 1), directory.ErrFull)
		expectError(t, what+": Create", h.B.Create(t.Context(), other, 2), nil)
		expectError(t, what+": Close", h.B.Close(t.Context(), other.ID, 1), nil)
	}
	reclaim("there was none", false)
	reclaim("it was Connected", false)
	expectError(t, "Disconnect", h.B.Disconnect(t.Context(), id, 2, h.Now().Add(time.Minute)), nil)
	reclaim("it was Disconnected", false)
	expectError(t, "Disconnect", h.B.Disconnect(t.Context(), id, 2, h.Now().Add(time.Minute)), nil)
	expectError(t, "Reap", h.B.Reap(t.Context(), id, 2), nil)
	reclaim("it was Reaped", true)
	mine.Committed, mine.Generation = 2, 3 // the store lost the end of it
	want.Generation = 3
	reclaim("it had an older generation", false)
	resume(t, h.B, id, 3, h.NodeB)
	_, err := h.A.Reclaim(t.Context(), mine)
	expectError(t, "Reclaim of what moved", err, directory.ErrSuperseded)
	if c := lookup(t, h.A, id); c.Owner != h.NodeB || c.Generation != 4 {
		t.Errorf("got %+v", c)
	}
}
