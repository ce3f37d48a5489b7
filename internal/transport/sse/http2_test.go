package sse_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"letshare-server/internal/pubsub"
)

func overHTTP2(s *settings) { s.http2 = true }

func TestStreamsWorkOverHTTP2(t *testing.T) {
	for _, path := range []string{"/sse", "/event-stream"} {
		k := newKit(t, overHTTP2)
		c := k.open(t, path+params("channels", "a"))
		if c.response.ProtoMajor != 2 || c.response.Header.Get("Cache-Control") != "no-cache, no-transform" {
			t.Fatalf("%s %v", c.response.Proto, c.response.Header)
		}
		k.say(t, "a", "one")
		id := c.next().id
		k.say(t, "a", "two", "three")
		if got := c.texts(2); !strings.Contains(got, "two") || !strings.Contains(got, "three") {
			t.Errorf("got %q", got)
		}
		c.close()
		waitFor(t, "the end of the stream", func() bool { return k.count.closed.Load() == 1 })
		again := k.open(t, path+params("channels", "a"), "Last-Event-ID", id)
		if got := again.next().message(t).Data; got != "two" {
			t.Errorf("resumed with %q", got)
		}
		waitFor(t, "the stream to be listed", func() bool { return len(k.door.Streams()) == 1 })
		for _, s := range k.door.Streams() {
			s.Evict(pubsub.NewError(pubsub.CodeTokenRevoked, "revoked"))
		}
		if got := again.next().message(t).Data; got != "three" {
			t.Errorf("then %q", got)
		}
		if got := again.next().message(t).Code; got != int(pubsub.CodeTokenRevoked) {
			t.Errorf("the last event has code %d", got)
		}
		if _, err := again.r.ReadByte(); err != io.EOF {
			t.Errorf("the stream ended with %v", err)
		}
	}
}

func TestARefusalOverHTTP2IsAnOrdinaryAnswer(t *testing.T) {
	k := newKit(t, overHTTP2)
	if res := k.get(t, "/sse"+params("channels", "a"), "Authorization", "Bearer no"); res.StatusCode != 401 || res.ProtoMajor != 2 {
		t.Errorf("%s %s", res.Proto, res.Status)
	}
}

func TestASlowStreamOverHTTP2IsCutOffAndDelaysNobody(t *testing.T) {
	const messages, size = 100, 32 << 10 // more than the client's window and the queue
	k := newKit(t, overHTTP2, smallOutbox(512<<10))
	fast, slow := k.open(t, "/sse"+params("channels", "a")), k.open(t, "/sse"+params("channels", "a"))
	for i := range messages {
		k.say(t, "a", fmt.Sprintf("<%d>", i)+strings.Repeat("x", size))
		if e := fast.next(); !strings.HasPrefix(e.message(t).Data, fmt.Sprintf("<%d>", i)) {
			t.Fatalf("message %d: %.100v", i, e)
		}
	}
	waitFor(t, "the slow one to be closed", func() bool { return k.count.closed.Load() == 1 })
	if n := k.count.slow.Load(); n != 1 {
		t.Errorf("%d were too slow", n)
	}
	if _, err := io.Copy(io.Discard, slow.response.Body); err == nil {
		t.Error("the slow one saw an ordinary end")
	}
}
