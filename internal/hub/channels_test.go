package hub_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

func TestActiveChannelsAreListedOnEveryNode(t *testing.T) {
	withCluster(t, func(t *testing.T, c *cluster) {
		list := func(want ...string) {
			t.Helper()
			for i, h := range c.hubs {
				names, more, err := h.Channels(t.Context(), &hub.Channels{Grant: anyone, Limit: 100})
				if err != nil || more || !slices.Equal(names, want) {
					t.Errorf("node %d lists %q %v %v, want %q", i, names, more, err, want)
				}
			}
		}
		at := func(node int, channel string) *hub.Attachment {
			return attach(t, c.hubs[node], hub.Attach{Channel: name(channel), ConnectionID: fmt.Sprint("c", node), Receiver: discard{}, Form: plain{}})
		}
		say := func(node int, channel string) {
			t.Helper()
			var turn hub.Turn
			done := make(chan hub.Published, 1)
			err := c.hubs[node].Publish(&turn, &hub.Publish{Grant: anyone, Channel: name(channel), Messages: message("n", "x")}, func(p hub.Published) { done <- p })
			turn.End()
			if p := <-done; err != nil || p.Err != nil {
				t.Fatal(err, p.Err)
			}
		}
		first, second := at(0, "attached"), at(1, "[?rewind=1]attached")
		say(1, "said")
		say(0, "attached")
		list("attached", "said")
		first.Detach()
		time.Sleep(time.Minute)
		list("attached", "said") // a message, at least a minute ago
		time.Sleep(20 * time.Second)
		list("attached")
		second.Detach()
		list("attached")
		time.Sleep(time.Minute)
		list("attached")
		time.Sleep(20 * time.Second)
		list()

		// What goes on stays.
		for range 100 {
			say(0, "said")
			time.Sleep(10 * time.Second)
			list("said")
		}
		at(0, "said").Detach()
		time.Sleep(time.Minute)
		list("said")
		time.Sleep(20 * time.Second)
		list()
	})
}

// touches counts what the directory is told.
type touches struct {
	directory.Directory
	of map[string]int // by channel
}

func (d *touches) Touch(id pubsub.ChannelID, until time.Time) {
	d.of[id.Name]++
	d.Directory.Touch(id, until)
}

func TestTheDirectoryIsNotToldOfEachPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := directory.Node{Name: "n1", Incarnation: "i1"}
		dir := &touches{directorymemory.NewStore(directorymemory.Options{}).Node(node), make(map[string]int)}
		h := newHub(t, func(o *hub.Options) { o.Directory = dir })
		var turn hub.Turn
		say := func(channel string) {
			t.Helper()
			if err := h.Publish(&turn, &hub.Publish{Grant: anyone, Channel: name(channel), Messages: message("n", "x")}, func(hub.Published) {}); err != nil {
				t.Fatal(err)
			}
			turn.End()
		}
		attached := attach(t, h, hub.Attach{Channel: name("attached"), Receiver: discard{}, Form: plain{}})
		for range 100 {
			for range 100 {
				say("attached")
				say("nobody there")
			}
			time.Sleep(time.Second)
		}
		if n := dir.of["attached"]; n != 0 {
			t.Errorf("told %d times of a channel with an attachment", n)
		}
		if n := dir.of["nobody there"]; n != 5 { // in 100 s
			t.Errorf("told %d times", n)
		}
		attached.Detach()
		if n := dir.of["attached"]; n != 1 {
			t.Errorf("told %d times of a channel that nobody is attached to any more", n)
		}
	})
}

func TestListingChannelsNeedsTheRightToIt(t *testing.T) {
	h := newHub(t)
	some, err := auth.ParseCapability(`{"a:*":["channel-metadata"],"*":["subscribe"]}`)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = h.Channels(t.Context(), &hub.Channels{Grant: &auth.Grant{App: "app", Capability: some}, Limit: 1})
	if e := pubsub.ErrorFor(err); e == nil || e.Code != pubsub.CodeCapabilityDenied {
		t.Errorf("got %v", err)
	}
}
