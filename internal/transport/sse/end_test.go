package sse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/transport/sse"
)

// fixed is an Authenticator that lets everybody in.
type fixed struct{ grant *auth.Grant }

func (f fixed) REST(url.Values, http.Header) (*auth.Grant, error) { return f.grant, nil }

func (f fixed) Admit(g *auth.Grant, p auth.Peer) (*auth.Grant, *pubsub.Error) { return g.ForPeer(p) }

func (f fixed) Recheck(*auth.Grant) *pubsub.Error { return nil }

func overPipes(s *settings) { s.pipes = true }

func TestSilenceIsNeverLongerThanPromised(t *testing.T) {
	for _, c := range []struct {
		path string
		want event
	}{
		{"/sse" + params("channels", "a"), event{comment: true, data: "keepalive"}},
		{"/event-stream" + params("channels", "a"), event{comment: true}},
		{"/sse" + params("channels", "a", "heartbeats", "true"), event{name: "heartbeat", data: "{}"}},
		{"/event-stream" + params("channels", "a", "heartbeats", "true"), event{name: "heartbeat"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			k := newKit(t, overPipes)
			stream := k.open(t, c.path)
			stream.comments = true
			begun := time.Now()
			for range 3 {
				last := time.Now()
				got, err := stream.read()
				if err != nil || got != c.want {
					t.Fatalf("%s: %+v %v", c.path, got, err)
				}
				if silence := time.Since(last); silence > 15*time.Second {
					t.Errorf("%s: silence of %v", c.path, silence)
				}
			}
			if each := time.Since(begun) / 3; each < 10*time.Second {
				t.Errorf("%s: a keepalive every %v", c.path, each)
			}
			// What is published puts the keepalive off.
			time.Sleep(10 * time.Second) // of the test's clock
			k.say(t, "a", "x")
			if e := stream.next(); e.name != "message" {
				t.Errorf("%s: %+v", c.path, e)
			}
			last := time.Now()
			if got, err := stream.read(); err != nil || got != c.want || time.Since(last) < 10*time.Second || time.Since(last) > 15*time.Second {
				t.Errorf("%s: %+v %v after %v", c.path, got, err, time.Since(last))
			}
			stream.close()
			synctest.Wait()
		})
	}
}

func TestAStreamEndsWithItsCredentials(t *testing.T) {
	for _, path := range []string{"/sse", "/event-stream"} {
		synctest.Test(t, func(t *testing.T) {
			grant := *anyone
			grant.Expires = time.Now().Add(40 * time.Second)
			k := newKit(t, overPipes, func(s *settings) { s.door = sse.Options{Auth: fixed{&grant}} })
			stream := k.open(t, path+params("channels", "a,b"))
			k.say(t, "a", "x")
			stream.texts(1)
			id := stream.lastID
			e := stream.next()
			if m := e.message(t); e.name != "error" || e.id != "" || m.Code != 40142 || m.StatusCode != 401 || !strings.Contains(m.Message, "expired") {
				t.Errorf("%s: %+v", path, e)
			}
			if late := time.Since(grant.Expires); late < 0 || late > time.Second {
				t.Errorf("%s: told %v after the end", path, late)
			}
			stream.ends()
			synctest.Wait()
			if n := k.hub.Rooms(); n != 0 {
				t.Errorf("%d channels are still attached", n)
			}

			// With a new one it goes on.
			k.say(t, "b", "missed")
			grant.Expires = time.Time{}
			again := k.open(t, path+params("channels", "a,b"), "Last-Event-ID", id)
			if got := again.texts(1); got != "missed" {
				t.Error(got)
			}
			again.close()
			synctest.Wait()
		})
	}
}

func TestAStreamThatIsDrainedEndsAndGoesOn(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a,b"))
	k.say(t, "a", "1")
	k.door.Drain()
	if got := c.texts(1); got != "1" {
		t.Error(got)
	}
	c.ends()
	waitFor(t, "the stream to be forgotten", func() bool { return len(k.door.Streams()) == 0 && k.hub.Rooms() == 0 })
	k.say(t, "b", "2")
	again := k.open(t, "/sse"+params("channels", "a,b"), "Last-Event-ID", c.lastID)
	if got := again.texts(1); got != "2" {
		t.Error(got)
	}
	again.ends() // it came too late to stay
}

// A client that reads nothing is dropped although its queue is not full.
func TestAClientThatTakesNothingForTooLongIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(t, overPipes)
		k.open(t, "/sse"+params("channels", "a"))
		synctest.Wait()
		for range 20 {
			k.say(t, "a", strings.Repeat("x", 20_000)) // more than stays on the way
		}
		begun := time.Now()
		for k.count.closed.Load() == 0 && time.Since(begun) < time.Hour {
			time.Sleep(time.Second) // of the test's clock
		}
		if d := time.Since(begun); d < 25*time.Second || d > 60*time.Second || k.count.slow.Load() != 1 {
			t.Errorf("dropped after %v, %d for being slow", d, k.count.slow.Load())
		}
	})
}

// What a stream is not told of moves it on nevertheless when it is resumed, or it would seem
// to have lost that when it is trimmed.
func TestAResumedStreamStandsAfterWhatItDoesNotWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(t, overPipes)
		path := "/sse" + params("channels", "a,b", "modes", "subscribe")
		c := k.open(t, path)
		k.say(t, "a", "1")
		c.texts(1)
		c.close()
		anna := func(n int64) {
			k.present(t, "a", n, &pubsub.PresenceMessage{Action: pubsub.PresenceUpdate, ClientID: "anna"})
		}
		time.Sleep(time.Second) // of the test's clock, here and below
		anna(0)
		time.Sleep(200 * time.Second)
		anna(1)
		again := k.open(t, path, "Last-Event-ID", c.lastID)
		k.say(t, "b", "2")
		again.texts(1)
		again.close()
		time.Sleep(100 * time.Second)
		last := k.open(t, path, "Last-Event-ID", again.lastID)
		k.say(t, "b", "3")
		if got := last.texts(1); got != "3" {
			t.Error(got)
		}
		last.close()
		synctest.Wait()
	})
}

func TestAStreamWhoseAppIsGoneEnds(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a"))
	waitFor(t, "the stream", func() bool { return len(k.door.Streams()) == 1 })
	k.door.Recheck()
	k.say(t, "a", "still there")
	if got := c.texts(1); got != "still there" {
		t.Errorf("got %q", got)
	}
	k.apps.Replace()
	k.door.Recheck()
	if e := c.next(); e.name != "error" || e.message(t).Code != 40120 {
		t.Errorf("%+v", e)
	}
	c.ends()
}

func TestAStreamThatIsEvictedIsToldWhy(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a"))
	lines := k.open(t, "/event-stream"+params("channels", "a"))
	waitFor(t, "both streams", func() bool { return len(k.door.Streams()) == 2 })
	for _, s := range k.door.Streams() {
		if s.Grant().App != "app" {
			t.Errorf("of app %s", s.Grant().App)
		}
		s.Evict(pubsub.NewError(pubsub.CodeTokenRevoked, "token revoked"))
		s.Evict(pubsub.NewError(pubsub.CodeTokenRevoked, "only the first counts"))
	}
	for _, stream := range []*client{c, lines} {
		if e := stream.next(); e.name != "error" || e.message(t).Code != 40141 || e.message(t).Message != "token revoked" {
			t.Errorf("%+v", e)
		}
		stream.ends()
	}
}

func TestAClientThatLeavesIsForgotten(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a,b"))
	waitFor(t, "the stream", func() bool { return len(k.door.Streams()) == 1 })
	c.close()
	waitFor(t, "the stream to be forgotten", func() bool { return len(k.door.Streams()) == 0 && k.hub.Rooms() == 0 })
	k.say(t, "a", "to nobody")
}

func TestAPeerThatTalksInsteadOfListeningIsDropped(t *testing.T) {
	k := newKit(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(k.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /sse?v=1.2&channels=a&key="+key+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conn, make([]byte, 15)); err != nil {
		t.Fatal(err)
	}
	go func() { // until it fails
		for err := error(nil); err == nil; {
			_, err = conn.Write(bytes.Repeat([]byte("x"), 4096))
		}
	}()
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it may talk for ever")
	}
}

// What became of a position is told, and the channel goes on from now.
func TestLostContinuityIsTold(t *testing.T) {
	for _, path := range []string{"/sse", "/event-stream"} {
		for _, channels := range []string{"a", "a,b"} {
			synctest.Test(t, func(t *testing.T) {
				k := newKit(t, overPipes, smallOutbox(256<<10))
				c := k.open(t, path+params("channels", channels))
				k.say(t, "a", "0")
				id := c.next().id
				c.close()

				// live skips what the other channel lost.
				live := func(c *client) event {
					for {
						if e := c.next(); e.name != "error" || e.message(t).Code != 90005 || e.message(t).Channel != "b" {
							return e
						}
					}
				}
				lost := func(what, id string, code int) {
					t.Helper()
					again := k.open(t, path+params("channels", channels), "Last-Event-ID", id)
					defer again.close()
					e := again.next()
					if m := e.message(t); e.name != "error" || m.Code != code || m.Channel != "a" || m.Message == "" || e.id == "" {
						t.Fatalf("%s: %+v", what, e)
					}
					k.say(t, "a", "live")
					if got := live(again).message(t).Data; got != "live" {
						t.Errorf("%s: %s", what, got)
					}
					// Where the error has left the client it can go on.
					more := k.open(t, path+params("channels", channels), "Last-Event-ID", e.id)
					defer more.close()
					if got := live(more).message(t).Data; got != "live" {
						t.Errorf("%s, after the error: %s", what, got)
					}
				}
				large := strings.Repeat("x", 60_000)
				k.say(t, "a", large)
				k.say(t, "a", large)
				k.say(t, "a", large)
				lost("too much", id, 90004)
				time.Sleep(2 * engine.LiveWindow) // of the test's clock
				k.say(t, "a", "much later")
				lost("trimmed", id, 90003)

				other := newKit(t, overPipes)
				c = other.open(t, path+params("channels", channels))
				other.say(t, "a", "elsewhere")
				lost("another server's", c.next().id, 90005)
				c.close()
				synctest.Wait()
			})
		}
	}
}

func TestASlowClientDelaysNobodyAndGoesOnWhereItStopped(t *testing.T) {
	const messages, size = 400, 10_000
	for _, channels := range []string{"a", "a,b"} {
		k := newKit(t, smallOutbox(512<<10), func(s *settings) { s.poller.SendBuffer = 32 << 10 })
		fast := k.open(t, "/sse"+params("channels", channels))
		slow := k.open(t, "/sse"+params("channels", channels))
		expect := func(i int, e event) {
			t.Helper()
			if !strings.HasPrefix(e.message(t).Data, fmt.Sprintf("<%d>", i)) {
				t.Fatalf("message %d: %.100v", i, e)
			}
		}
		for i := range messages {
			k.say(t, "a", fmt.Sprintf("<%d>", i)+strings.Repeat("x", size))
			expect(i, fast.next()) // and the other one reads nothing
		}
		waitFor(t, "the slow one to be closed", func() bool { return k.count.closed.Load() == 1 })
		if n := k.count.slow.Load(); n != 1 {
			t.Fatalf("%d were too slow", n)
		}
		next := 0
		for e, err := slow.read(); err == nil; e, err = slow.read() {
			expect(next, e)
			next++
		}
		if next == messages {
			t.Fatal("it was not slow")
		}

		// It has missed more than a queue takes at once. That is told, and it goes on.
		again := k.open(t, "/sse"+params("channels", channels), "Last-Event-ID", slow.lastID)
		if e := again.next(); e.name != "error" || e.message(t).Code != 90004 {
			t.Errorf("%.200v", e)
		}
		// What it missed less of it gets, from where another one was.
		for i := range 10 {
			k.say(t, "a", fmt.Sprintf("<%d>", messages+i)+strings.Repeat("x", size))
		}
		same := k.open(t, "/sse"+params("channels", channels), "Last-Event-ID", fast.lastID)
		for i := range 10 {
			for _, c := range []*client{fast, again, same} {
				expect(messages+i, c.next())
			}
		}
		for _, c := range []*client{fast, again, same} {
			c.close()
		}
	}
}
