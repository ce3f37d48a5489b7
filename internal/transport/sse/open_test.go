package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

func TestWhatIsPublishedWhileAStreamOpensFollowsWhatWasMissed(t *testing.T) {
	for _, channels := range []string{"a", "a,b"} {
		s := new(spy)
		k := newKit(t, func(set *settings) { set.spy = s })
		c := k.open(t, "/sse"+params("channels", channels))
		k.say(t, "a", "1")
		c.texts(1)
		c.close()
		k.say(t, "a", "2", "3")
		var reads atomic.Int64
		s.reading(func() error {
			k.say(t, "a", fmt.Sprint("during ", reads.Add(1)))
			return nil
		})
		again := k.open(t, "/sse"+params("channels", channels), "Last-Event-ID", c.lastID)
		k.say(t, "a", "after")
		want := "2 3 during 1 after"
		if channels != "a" {
			want = "2 3 during 1 during 2 after"
		}
		if got := again.texts(3 + int(reads.Load())); got != want {
			t.Errorf("%s: %q, want %q", channels, got, want)
		}
		c.close()
		again.close()
	}
}

func TestAStreamThatCannotKeepUpWithItsOpeningIsCut(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		s := new(spy)
		k := newKit(t, smallOutbox(64<<10), func(set *settings) { set.spy, set.http2 = s, http2 })
		c := k.open(t, "/sse"+params("channels", "a"))
		k.say(t, "a", "1")
		c.texts(1)
		c.close()
		s.reading(func() error {
			for range 15 {
				k.say(t, "a", strings.Repeat("x", 1000))
			}
			return nil
		})
		web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Protocols: k.protocols()}}
		res, err := web.Get(k.url + "/sse" + params("channels", "a", "key", key, "lastEvent", c.lastID))
		if http2 && err != nil {
			t.Error(err)
		}
		if err == nil {
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if len(b) > 0 || err == nil {
				t.Errorf("HTTP/2 is %v: got %s %.100q %v", http2, res.Status, b, err)
			}
		}
		s.reading(nil)
		again := k.open(t, "/sse"+params("channels", "a"), "Last-Event-ID", c.lastID)
		if e := again.next(); e.name != "message" || !strings.HasPrefix(e.message(t).Data, "xxx") {
			t.Errorf("HTTP/2 is %v: %.200v", http2, e)
		}
		again.close()
	}
}

func TestWhileTheStoreIsAwayNothingIsSaidToBeLost(t *testing.T) {
	s := new(spy)
	k := newKit(t, func(set *settings) { set.spy = s })
	c := k.open(t, "/sse"+params("channels", "a"))
	k.say(t, "a", "1")
	c.texts(1)
	c.close()
	k.say(t, "a", "2")
	s.reading(func() error { return engine.ErrUnavailable })
	res := k.get(t, "/sse"+params("channels", "a"), "Last-Event-ID", c.lastID)
	if res.StatusCode != 503 || res.Header.Get("X-Ably-Errorcode") != "50005" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	res = k.get(t, "/sse"+params("channels", "a", "rewind", "1"))
	if res.StatusCode != 503 {
		t.Errorf("rewind: %s", res.Status)
	}
	s.reading(nil)
	again := k.open(t, "/sse"+params("channels", "a"), "Last-Event-ID", c.lastID)
	if got := again.texts(1); got != "2" {
		t.Error(got)
	}
}

func TestARewindIsCutToWhatAQueueTakes(t *testing.T) {
	for _, c := range []struct {
		channels, size int
	}{{1, 20_000}, {20, 2000}, {300, 1}} {
		k := newKit(t, smallOutbox(256<<10))
		var names []string
		for i := range c.channels {
			names = append(names, fmt.Sprint("c", i))
			for n := range 10 {
				k.say(t, names[i], fmt.Sprintf("%d %s", n, strings.Repeat("x", c.size)))
			}
		}
		stream := k.open(t, "/sse"+params("channels", strings.Join(names, ","), "rewind", "10"))
		k.say(t, names[0], "now")
		got := make(map[string][]string)
		for {
			e := stream.next()
			m := e.message(t)
			if e.name != "message" {
				t.Fatalf("%d channels: %.200v", c.channels, e)
			}
			if m.Data == "now" {
				break
			}
			got[m.Channel] = append(got[m.Channel], m.Data[:1])
		}
		all := 0
		for channel, texts := range got {
			all += len(texts)
			if want := "0123456789"[10-len(texts):]; strings.Join(texts, "") != want {
				t.Errorf("%s: %v, want the newest", channel, texts)
			}
		}
		if all == 0 || all == 10*c.channels {
			t.Errorf("%d channels: %d messages of %d", c.channels, all, 10*c.channels)
		}
		stream.close()
	}
}

func TestALossInTheStoreIsTold(t *testing.T) {
	for _, channels := range []string{"a", "b,a"} {
		s := new(spy)
		k := newKit(t, func(set *settings) { set.spy = s })
		c := k.open(t, "/sse"+params("channels", channels))
		k.say(t, "a", "1")
		c.texts(1)

		// The engine has lost something before where the channel stands now.
		k.say(t, "a", "2")
		m := c.next().message(t)
		at, _, err := pubsub.ParseItemSerial(m.Serial)
		if err != nil {
			t.Fatal(err)
		}
		s.lose(at)
		e := c.next()
		if m := e.message(t); e.name != "error" || m.Code != 90003 || m.Channel != "a" || e.id == "" {
			t.Errorf("%+v", e)
		}
		k.say(t, "a", "3")
		if got := c.texts(1); got != "3" {
			t.Error(got)
		}
		again := k.open(t, "/sse"+params("channels", channels), "Last-Event-ID", e.id)
		if got := again.texts(1); got != "3" {
			t.Error(got)
		}
		for _, c := range []*client{c, again} {
			c.close()
		}
	}
}
