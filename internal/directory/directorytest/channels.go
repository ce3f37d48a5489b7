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

var channelTests = []test{
	{"ChannelsOfAllNodesAreListedInOrder", listed},
	{"ATouchedChannelIsListedForAWhile", touched},
	{"PagesOfChannelsFollowOneAnother", channelPages},
}

// list returns the names of an app's channels, on which both nodes agree.
func list(t *testing.T, h Harness, app string) (names []string) {
	t.Helper()
	for i, d := range []directory.Directory{h.A, h.B} {
		got, more, err := d.Channels(t.Context(), directory.ChannelQuery{App: app, Limit: 1000})
		expectError(t, "Channels", err, nil)
		if more {
			t.Fatal("there are more than a thousand")
		}
		if i > 0 && !slices.Equal(got, names) {
			t.Fatalf("node A lists %q, node B %q", names, got)
		}
		names = got
	}
	return names
}

func expectListed(t *testing.T, h Harness, app string, want ...string) {
	t.Helper()
	if got := list(t, h, app); !slices.Equal(got, want) {
		t.Fatalf("listed: got %q, want %q", got, want)
	}
}

func listed(t *testing.T, h Harness) {
	app := name(t)
	expectListed(t, h, app)
	in := func(name string) pubsub.ChannelID { return pubsub.ChannelID{App: app, Name: name} }
	for _, name := range []string{"b", "ä", "[meta]log", "a:x", "B", "a"} {
		join(t, h.A, in(name), h.NodeA, 1)
	}
	join(t, h.B, in("b"), h.NodeB, 2)
	join(t, h.B, in("c"), h.NodeB, 1)
	join(t, h.B, pubsub.ChannelID{App: app + "2", Name: "other"}, h.NodeB, 1)
	expectError(t, "Watch", h.A.Watch(t.Context(), in("watched"), true), nil)
	expectListed(t, h, app, "B", "a", "a:x", "b", "c", "ä")
	leave(t, h.A, in("b"), h.NodeA)
	leave(t, h.A, in("a"), h.NodeA)
	expectListed(t, h, app, "B", "a:x", "b", "c", "ä")
	leave(t, h.B, in("b"), h.NodeB)
	expectListed(t, h, app, "B", "a:x", "c", "ä")
}

// eventually waits for what a store may do after Touch has returned.
func eventually(t *testing.T, h Harness, app string, want ...string) {
	t.Helper()
	for _, d := range []directory.Directory{h.A, h.B} {
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			got, _, err := d.Channels(t.Context(), directory.ChannelQuery{App: app, Limit: 1000})
			expectError(t, "Channels", err, nil)
			if slices.Equal(got, want) {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("listed: got %q, want %q", got, want)
			}
		}
	}
}

func touched(t *testing.T, h Harness) {
	app := name(t)
	in := func(name string) pubsub.ChannelID { return pubsub.ChannelID{App: app, Name: name} }
	h.A.Touch(in("a"), h.Now().Add(time.Minute))
	h.B.Touch(in("b"), h.Now().Add(2*time.Minute))
	h.B.Touch(in("b"), h.Now().Add(time.Minute)) // takes nothing back
	h.B.Touch(in("[meta]b"), h.Now().Add(time.Minute))
	h.B.Touch(pubsub.ChannelID{App: app + "2", Name: "other"}, h.Now().Add(time.Minute))
	h.A.Touch(in("c"), h.Now().Add(time.Minute))
	eventually(t, h, app, "a", "b", "c")
	join(t, h.B, in("c"), h.NodeB, 1)
	expectListed(t, h, app, "a", "b", "c") // once
	h.Advance(time.Minute)
	expectListed(t, h, app, "b", "c")
	leave(t, h.B, in("c"), h.NodeB)
	expectListed(t, h, app, "b")
	h.Advance(time.Minute)
	expectListed(t, h, app)
	h.A.Touch(in("a"), h.Now().Add(time.Minute))
	eventually(t, h, app, "a")
}

func channelPages(t *testing.T, h Harness) {
	app := name(t)
	var all []string
	for i := range 50 {
		for _, kind := range []string{"attached", "touched"} {
			id := pubsub.ChannelID{App: app, Name: fmt.Sprintf("%s:%02d", kind, i)}
			if all = append(all, id.Name); kind == "attached" {
				join(t, h.A, id, h.NodeA, 1)
			} else {
				h.A.Touch(id, h.Now().Add(time.Hour))
			}
		}
	}
	slices.Sort(all)
	eventually(t, h, app, all...)
	for _, prefix := range []string{"", "attached:", "touched:1", "touched:50", "none"} {
		want := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !strings.HasPrefix(name, prefix) })
		for _, limit := range []int{1, 7, 10, 50, 99, 100, 101} {
			q := directory.ChannelQuery{App: app, Prefix: prefix, Limit: limit}
			var got []string
			for {
				names, more, err := h.B.Channels(t.Context(), q)
				expectError(t, "Channels", err, nil)
				if len(names) > limit || more && len(names) < limit {
					t.Fatalf("a page of %d has %d, and more is %v", limit, len(names), more)
				}
				if got = append(got, names...); !more {
					break
				}
				q.After = names[len(names)-1]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q by %d: got %q, want %q", prefix, limit, got, want)
			}
		}
	}
}
