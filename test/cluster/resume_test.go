package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"letshare-server/internal/redisclient/redistest"
	"letshare-server/test/cluster"
)

// continuing attaches where a client was.
func continuing(serial string) func(*cluster.Frame) {
	return func(f *cluster.Frame) { f.ChannelSerial = serial }
}

func TestAConnectionMovesToAnotherNodeWithAllThatIsItsOwn(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	a, b, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]

	watcher := third.Connect("")
	watcher.Attach("room")
	publisher := a.Connect("")
	mover := a.Connect("clientId=mover")
	mover.Attach("room")
	mover.Present("room", cluster.Enter, "mover", "here")
	for i := range 3 {
		publisher.Publish("room", fmt.Sprint(i))
	}
	f, _ := mover.Find(func(f *cluster.Frame) bool { return f.Action == cluster.Message && f.Messages[0]["data"] == "2" })

	// It moves while its old transport still lives, which then ends without a word.
	moved := b.Resume(mover)
	moved.Send(map[string]any{"action": cluster.Heartbeat})
	said := len(mover.All())
	cluster.Eventually(t, "the old socket to be closed", mover.Ended)
	for _, f := range mover.All()[said:] {
		t.Errorf("the old socket is sent %+v", f)
	}
	for i := range 3 {
		publisher.Publish("room", fmt.Sprint(3+i))
	}
	attached := moved.Attach("room", continuing(f.ChannelSerial))
	if attached.Flags&cluster.Resumed == 0 || attached.Error != nil {
		t.Errorf("attached with %+v", attached)
	}
	publisher.Publish("room", "last")
	moved.Find(func(f *cluster.Frame) bool { return f.Action == cluster.Message && f.Messages[0]["data"] == "last" })
	if got, want := moved.Data("room"), []string{"3", "4", "5", "last"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// The member stayed, and can be changed from where its connection is now.
	moved.Present("room", cluster.Update, "mover", "there")
	watcher.Find(func(f *cluster.Frame) bool { return f.Action == cluster.Presence && f.Presence[0]["data"] == "there" })
	if got, want := watcher.Events("room"), []string{"2 mover", "4 mover"}; !slices.Equal(got, want) {
		t.Errorf("the watcher was told %q, want %q", got, want)
	}
	// Of what was acknowledged nothing is done twice when it is sent again.
	again := int64(0)
	moved.Send(cluster.Frame{Action: cluster.Presence, Channel: "room", MsgSerial: &again, Presence: []map[string]any{{"action": cluster.Enter, "data": "here"}}})
	moved.Acked(0)
	moved.Send(map[string]any{"action": cluster.Close})
	watcher.Find(func(f *cluster.Frame) bool {
		return f.Action == cluster.Presence && f.Presence[0]["action"] == float64(cluster.Leave)
	})
	if got, want := watcher.Events("room"), []string{"2 mover", "4 mover", "3 mover"}; !slices.Equal(got, want) {
		t.Errorf("the watcher was told %q, want %q", got, want)
	}
}

// The node that a client comes to may know less than the client does, from the node that it comes
// from.
func TestAConnectionThatMovesToANodeThatIsBehindGetsNothingTwice(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	proxy := redistest.StartProxy(t, redis.Addr)
	c := start(t, cluster.Options{Nodes: 2, Redis: redis, Address: func(i int) string { return []string{redis.Addr, proxy.Addr}[i] }})
	a, behind := c.Nodes[0], c.Nodes[1]
	data := func(text string) func(*cluster.Frame) bool {
		return func(f *cluster.Frame) bool { return f.Action == cluster.Message && f.Messages[0]["data"] == text }
	}
	watcher := behind.Connect("")
	watcher.Attach("room")
	publisher := a.Connect("")
	mover := a.Connect("clientId=mover")
	mover.Attach("room")
	publisher.Publish("room", "0")
	watcher.Find(data("0"))

	proxy.HoldFeeds(true)
	publisher.Publish("room", "1")
	publisher.Publish("room", "2")
	f, _ := mover.Find(data("2"))
	moved := behind.Resume(mover)
	attached := moved.Attach("room", continuing(f.ChannelSerial))
	if attached.Flags&cluster.Resumed == 0 || attached.Error != nil || attached.ChannelSerial != f.ChannelSerial {
		t.Errorf("attached with %+v, from %s on", attached, f.ChannelSerial)
	}
	publisher.Publish("room", "3")
	proxy.HoldFeeds(false)
	publisher.Publish("room", "last")
	for _, c := range []struct {
		client *cluster.Client
		want   []string
	}{{moved, []string{"3", "last"}}, {watcher, []string{"0", "1", "2", "3", "last"}}} {
		c.client.Find(data("last"))
		if got := c.client.Data("room"); !slices.Equal(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// What a client sent to a node that Redis does not hear, it sends again to another one (RTN19a);
// then the first node's requests reach Redis as well.
func TestWhatIsUnderWayOnTheNodeBeforeIsDoneOnce(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	proxy := redistest.StartProxy(t, redis.Addr)
	c := start(t, cluster.Options{
		Nodes: 2, Redis: redis, Address: func(i int) string { return []string{proxy.Addr, redis.Addr}[i] },
		Environ: []string{"LETSHARE_REDIS_TIMEOUT=5s"}, // so that what comes late is not too late
	})
	held, b := c.Nodes[0], c.Nodes[1]
	watcher := b.Connect("")
	watcher.Attach("room")
	mover := held.Connect("clientId=mover")
	mover.Attach("room")
	mover.Present("room", cluster.Enter, "mover", "here")
	mover.Publish("room", "0")

	message := func(text string) cluster.Frame {
		return cluster.Frame{Action: cluster.Message, Channel: "room", Messages: []map[string]any{{"data": text}}}
	}
	update := func(data string) cluster.Frame {
		return cluster.Frame{Action: cluster.Presence, Channel: "room", Presence: []map[string]any{{"action": cluster.Update, "data": data}}}
	}
	underWay := []cluster.Frame{message("first under way"), message("1"), update("going"), message("2")}
	proxy.Hold(true)
	for _, f := range underWay {
		mover.Post(f)
	}
	cluster.Eventually(t, "the first of them to be sent to Redis", func() bool { return proxy.Holds("first under way") })
	mover.Drop()
	moved := b.Resume(mover)
	moved.Attach("room")
	for i := range underWay {
		serial := int64(2 + i)
		underWay[i].MsgSerial = &serial
		moved.Send(underWay[i])
	}
	last := moved.Post(message("3"))
	for serial := range last + 1 {
		if serial >= 2 {
			moved.Acked(serial)
		}
	}
	moved.Present("room", cluster.Update, "mover", "gone")
	proxy.Hold(false)
	held.Stop() // which waits for what it does
	moved.Publish("room", "last")
	watcher.Find(func(f *cluster.Frame) bool { return f.Action == cluster.Message && f.Messages[0]["data"] == "last" })
	if got, want := watcher.Data("room"), []string{"0", "first under way", "1", "2", "3", "last"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := watcher.Events("room"), []string{"2 mover", "4 mover", "4 mover"}; !slices.Equal(got, want) {
		t.Errorf("the watcher was told %q, want %q", got, want)
	}
	_, body := b.Do("GET", "/channels/room/presence", nil)
	if !strings.Contains(string(body), `"gone"`) {
		t.Errorf("the member is %s", body)
	}
}
