package sse_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"letshare-server/internal/pubsub"
)

func TestAStreamTellsWhatIsPublishedOnItsChannels(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a,b"))
	for header, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no",
	} {
		if got := c.response.Header.Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	k.publish(t, "a", &pubsub.Message{Name: "greeting", Data: pubsub.Text("hi"), ClientID: "anna"}, &pubsub.Message{Data: pubsub.Text("there")})
	k.say(t, "other", "unheard")
	k.say(t, "b", "x")
	first, second, third := c.next(), c.next(), c.next()
	m := first.message(t)
	if first.name != "message" || m.Channel != "a" || m.Name != "greeting" || m.Data != "hi" || m.ClientID != "anna" ||
		!strings.HasSuffix(m.ID, ":0") || m.Serial == "" || m.Timestamp == 0 || m.Action != 0 {
		t.Errorf("%+v", first)
	}
	if m2 := second.message(t); m2.Data != "there" || m2.Channel != "a" || m2.ID != strings.TrimSuffix(m.ID, "0")+"1" {
		t.Errorf("%+v", second)
	}
	if m := third.message(t); m.Data != "x" || m.Channel != "b" {
		t.Errorf("%+v", third)
	}
	if first.id == "" || first.id == second.id || second.id == third.id {
		t.Errorf("ids %q %q %q", first.id, second.id, third.id)
	}
	if ms, err := strconv.Atoi(c.retry); err != nil || ms < 1000 || ms > 3000 {
		t.Errorf("retry: %q", c.retry)
	}
}

func TestEventStreamIsLinesUnlessEventsAreAccepted(t *testing.T) {
	k := newKit(t)
	for _, c := range []struct {
		path, accept string
		lines        bool
	}{
		{"/event-stream", "", true},
		{"/event-stream", "*/*", true},
		{"/event-stream", "application/json", true},
		{"/event-stream", "text/event-stream", false},
		{"/event-stream", "application/json, Text/Event-Stream;q=0.9", false},
		{"/sse", "", false},
		{"/sse", "application/json", false},
	} {
		stream := k.open(t, c.path+params("channel", "a"), "Accept", c.accept)
		if stream.lines != c.lines {
			t.Errorf("%s with Accept %q: lines is %v", c.path, c.accept, stream.lines)
		}
		k.say(t, "a", "x")
		if e := stream.next(); e.name != "message" || e.id == "" || e.message(t).Data != "x" || e.message(t).Channel != "a" {
			t.Errorf("%s: %+v", c.path, e)
		}
		stream.close()
	}
}

func TestPayloadsOfAllKindsArrive(t *testing.T) {
	k := newKit(t)
	for _, c := range []struct {
		what           string
		data           pubsub.Data
		encoding       string
		told, toldAs   string // in an envelope
		bare, bareLine string
	}{
		{"text", pubsub.Text("plain é \u2028"), "", "plain é \u2028", "", "plain é \u2028", "plain é \u2028"},
		{"text with line breaks", pubsub.Text("a\nb\r\nc\rd\n\n:e\n"), "", "a\nb\r\nc\rd\n\n:e\n", "", "a\nb\nc\nd\n\n:e\n", "a\nb\r\nc\rd\n\n:e\n"},
		{"text with spaces in front", pubsub.Text("  id: x"), "", "  id: x", "", "  id: x", "  id: x"},
		{"an object", pubsub.Text(`{"a": [1]}`), "json", `{"a": [1]}`, "json", `{"a": [1]}`, `{"a": [1]}`},
		{"binary", pubsub.Binary([]byte{0, 255, 10}), "", "AP8K", "base64", "AP8K", "AP8K"},
		{"ciphertext", pubsub.Binary([]byte{1}), "utf-8/cipher+aes-256-cbc", "AQ==", "utf-8/cipher+aes-256-cbc/base64", "AQ==", "AQ=="},
		{"nothing", pubsub.Data{}, "", "", "", "", ""},
		{"empty text", pubsub.Text(""), "", "", "", "", ""},
	} {
		for _, channels := range []string{"a", "a,b"} {
			events := k.open(t, "/sse"+params("channels", channels))
			lines := k.open(t, "/event-stream"+params("channels", channels))
			bare := k.open(t, "/sse"+params("channels", channels, "enveloped", "false"))
			bareLines := k.open(t, "/event-stream"+params("channels", channels, "enveloped", "false"))
			k.publish(t, "a", &pubsub.Message{Name: "n", Data: c.data, Encoding: c.encoding})
			for _, stream := range []*client{events, lines} {
				m := stream.next().message(t)
				if m.Data != c.told || m.Encoding != c.toldAs || m.Channel != "a" || m.Name != "n" {
					t.Errorf("%s: %+v", c.what, m)
				}
			}
			if e := bare.next(); e.data != c.bare || e.id == "" || e.name != "message" {
				t.Errorf("%s, bare: %+v", c.what, e)
			}
			if e := bareLines.next(); e.data != c.bareLine || e.id == "" || e.name != "message" {
				t.Errorf("%s, bare line: %+v", c.what, e)
			}
			for _, stream := range []*client{events, lines, bare, bareLines} {
				stream.close()
			}
		}
	}
}

func TestALineIsAnObjectWhoseDataIsJSONInAString(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/event-stream"+params("channel", "a"))
	k.say(t, "a", "x")
	line, err := c.r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal([]byte(line), &all); err != nil || len(all) != 3 {
		t.Fatalf("%v in %q", err, line)
	}
	if text, ok := all["data"].(string); !ok || !json.Valid([]byte(text)) {
		t.Errorf("data is %v", all["data"])
	}
}

func TestPresenceIsToldToo(t *testing.T) {
	k := newKit(t)
	all := k.open(t, "/sse"+params("channels", "a"))
	messages := k.open(t, "/sse"+params("channels", "a", "modes", "subscribe"))
	presence := k.open(t, "/sse"+params("channels", "[?modes=presence_subscribe]a,b", "modes", "subscribe"))
	bare := k.open(t, "/event-stream"+params("channels", "a", "enveloped", "false"))
	k.present(t, "a", 0,
		&pubsub.PresenceMessage{Action: pubsub.PresenceEnter, ClientID: "anna", Data: pubsub.Text("here")},
		&pubsub.PresenceMessage{Action: pubsub.PresenceEnter, ClientID: "bert"})
	k.say(t, "a", "x")
	k.present(t, "a", 1, &pubsub.PresenceMessage{Action: pubsub.PresenceLeave, ClientID: "anna"})
	e := all.next()
	m := e.message(t)
	if e.name != "presence" || m.Channel != "a" || m.ClientID != "anna" || m.Data != "here" || m.Action != int(pubsub.PresenceEnter) ||
		m.ConnectionID != "conn" || m.ID != "conn:0:0" || m.Timestamp == 0 || e.id == "" {
		t.Errorf("%+v", e)
	}
	if m := all.next().message(t); m.ClientID != "bert" {
		t.Errorf("%+v", m)
	}
	if got := all.texts(1); got != "x" {
		t.Error(got)
	}
	if m := all.next().message(t); m.ClientID != "anna" || m.Action != int(pubsub.PresenceLeave) {
		t.Errorf("%+v", m)
	}
	if got := messages.texts(1); got != "x" {
		t.Error(got)
	}
	for _, want := range []string{"anna", "bert", "anna"} {
		if m := presence.next().message(t); m.ClientID != want || m.Channel != "[?modes=presence_subscribe]a" {
			t.Errorf("%+v", m)
		}
	}
	if e := bare.next(); e.name != "presence" || e.data != "here" {
		t.Errorf("%+v", e)
	}
}

func TestRewindIsForAllChannelsUnlessAQualifierSaysOtherwise(t *testing.T) {
	k := newKit(t)
	for i := range 5 {
		for _, channel := range []string{"a", "b", "c"} {
			k.say(t, channel, fmt.Sprint(channel, i))
		}
	}
	c := k.open(t, "/sse"+params("channels", "a,[?rewind=3]b,[?rewind=0]c", "rewind", "1"))
	k.say(t, "c", "now")
	if got := c.texts(5); got != "a4 b2 b3 b4 now" {
		t.Error(got)
	}
	limited := k.open(t, "/sse"+params("channels", "a", "rewind", "2m", "rewindLimit", "2"))
	if got := limited.texts(2); got != "a3 a4" {
		t.Error(got)
	}

	// Who goes on from an id gets what was missed, and no rewind but on new channels.
	k.say(t, "a", "missed")
	again := k.open(t, "/sse"+params("channels", "a,b,d", "rewind", "1", "lastEvent", c.lastID))
	k.say(t, "b", "last")
	if got := again.texts(2); got != "missed last" {
		t.Error(got)
	}
}

func TestNamesMayHaveCommasWithASeparator(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channel", "fo,o|ba?r", "separator", "|", "channels", "x|fo,o"))
	for _, channel := range []string{"fo,o", "ba?r", "x"} {
		k.say(t, channel, "in "+channel)
		if m := c.next().message(t); m.Channel != channel || m.Data != "in "+channel {
			t.Errorf("%+v", m)
		}
	}
}

func TestAChannelThatIsNamedTwiceIsToldOnce(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a,a,[?rewind=1]a"))
	k.say(t, "a", "1")
	k.say(t, "a", "2")
	if got := c.texts(2); got != "1 2" {
		t.Error(got)
	}
}

func TestAStreamMayFilter(t *testing.T) {
	k := newKit(t)
	filtered := func(expression string) string {
		return "[filter=" + base64.URLEncoding.EncodeToString([]byte(expression)) + "]a"
	}
	path := "/sse" + params("channels", filtered("name == 'yes'")+","+filtered("name == 'no'")+",b", "key", "app.wide:secret")
	c := k.open(t, path)
	var all []*pubsub.Message
	for _, name := range []string{"yes", "other", "no", "yes"} {
		all = append(all, &pubsub.Message{Name: name})
	}
	k.publish(t, "a", all...)
	k.say(t, "b", "live")
	var got []string
	for range 4 {
		m := c.next().message(t)
		got = append(got, m.Name)
	}
	slices.Sort(got) // of two channels
	if want := []string{"n", "no", "yes", "yes"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAStreamGoesOnWithinAPublishOfSeveral(t *testing.T) {
	k := newKit(t)
	for _, channels := range []string{"a", "a,b", "b,a,c"} {
		for _, path := range []string{"/sse", "/event-stream"} {
			first := k.open(t, path+params("channels", channels))
			k.say(t, "a", "before")
			if got := first.texts(1); got != "before" {
				t.Fatal(got)
			}
			k.say(t, "a", "1", "2", "3", "4")
			k.say(t, "a", "after")
			for seen := range 6 {
				if seen > 0 {
					first.next()
				}
				again := k.open(t, path+params("channels", channels), "Last-Event-ID", first.lastID)
				want := strings.Join([]string{"1", "2", "3", "4", "after"}[seen:], " ")
				if got := again.texts(5 - seen); got != want {
					t.Errorf("%s of %s after %d: %q, want %q", path, channels, seen, got, want)
				}
				k.say(t, "a", "live") // is what comes next
				if got := again.texts(1); got != "live" {
					t.Errorf("%s of %s after %d: %q", path, channels, seen, got)
				}
				again.close()
				// The others go on without what was said to this one.
				if seen < 5 {
					continue
				}
				if got := first.texts(6); got != "live live live live live live" {
					t.Error(got)
				}
			}
			first.close()
		}
	}
}

func TestWhereTheIDMayStand(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a"))
	k.say(t, "a", "1", "2", "3")
	var ids []string
	for range 3 {
		ids = append(ids, c.next().id)
	}
	for _, test := range []struct {
		what, path string
		header     []string
		want       string
	}{
		{"the header", params("channels", "a"), []string{"Last-Event-ID", ids[0]}, "2"},
		{"lastEvent", params("channels", "a", "lastEvent", ids[0]), nil, "2"},
		{"lastEventId", params("channels", "a", "lastEventId", ids[0]), nil, "2"},
		{"the header, which is newer than the URL", params("channels", "a", "lastEvent", ids[0]), []string{"Last-Event-ID", ids[1]}, "3"},
		{"an empty header", params("channels", "a", "lastEvent", ids[0]), []string{"Last-Event-ID", ""}, "2"},
	} {
		again := k.open(t, "/sse"+test.path, test.header...)
		if got := again.texts(1); got != test.want {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
		again.close()
	}
}

func TestNothingIsMissedBeforeTheFirstEvent(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a,b"))
	k.say(t, "b", "x") // makes the client read on to the first id
	c.next()
	first := c.lastID
	c.close()
	fresh := k.open(t, "/sse"+params("channels", "a,b"))
	fresh.comments = true
	// The id that comes first is there before any event.
	for fresh.lastID == "" {
		line, err := fresh.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			fresh.lastID = strings.TrimSpace(id)
		}
	}
	fresh.close()
	k.say(t, "a", "missed")
	for _, id := range []string{first, fresh.lastID} {
		again := k.open(t, "/sse"+params("channels", "a,b"), "Last-Event-ID", id)
		if got := again.texts(1); got != "missed" {
			t.Error(got)
		}
	}
}

func TestChannelsThatTheIDDoesNotKnowBeginNow(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a,b,c"))
	k.say(t, "a", "a1")
	c.next()
	k.say(t, "a", "a2")
	k.say(t, "b", "b1")
	k.say(t, "d", "unheard")
	c.close()
	again := k.open(t, "/sse"+params("channels", "d,b,a"), "Last-Event-ID", c.lastID)
	k.say(t, "d", "d1")
	if got := again.texts(3); got != "b1 a2 d1" {
		t.Error(got)
	}
}

func TestAnIDOfOneChannelTellsWhatCameOnTheOthers(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a,b,c"))
	said := []string{"a1", "b1", "a2", "a3", "c1", "b2"}
	ids := []string{""}
	for _, text := range said {
		k.say(t, text[:1], text)
		if got := c.texts(1); got != text {
			t.Fatal(got)
		}
		ids = append(ids, c.lastID)
	}
	k.say(t, "c", "last")
	for i, id := range ids[1:] {
		again := k.open(t, "/sse"+params("channels", "a,b,c"), "Last-Event-ID", id)
		left := append([]string{"last"}, said[i+1:]...)
		got := strings.Fields(again.texts(len(left)))
		slices.Sort(left)
		slices.Sort(got)
		if !slices.Equal(got, left) {
			t.Errorf("after %s: %v, want %v", said[i], got, left)
		}
		again.close()
	}
}

func TestEphemeralMessagesLeaveTheClientWhereItIs(t *testing.T) {
	k := newKit(t)
	c := k.open(t, "/sse"+params("channels", "a"))
	k.say(t, "a", "logged")
	before := c.next()
	extras := func() []byte { return []byte(`{"ephemeral":true}`) }
	k.publish(t, "a", &pubsub.Message{Data: pubsub.Text("e1"), Extras: extras()}, &pubsub.Message{Data: pubsub.Text("e2"), Extras: extras()})
	for range 2 {
		if e := c.next(); e.id != before.id {
			t.Errorf("an ephemeral message has the id %s, and the one before it %s", e.id, before.id)
		}
	}
	k.say(t, "a", "next")
	c.next()
	again := k.open(t, "/sse"+params("channels", "a"), "Last-Event-ID", before.id)
	if got := again.texts(1); got != "next" {
		t.Error(got)
	}
}

// TestEveryMessageArrivesOnceAndInOrderHoweverOftenTheClientIsCut publishes to several
// channels while a client comes and goes at random, with ids from events and from lines.
func TestEveryMessageArrivesOnceAndInOrderHoweverOftenTheClientIsCut(t *testing.T) {
	const perChannel = 400
	for _, channels := range [][]string{{"a"}, {"a", "b", "c"}} {
		t.Run(strings.Join(channels, ","), func(t *testing.T) {
			k := newKit(t)
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			list := strings.Join(channels, ",")
			c := k.open(t, "/sse"+params("channels", list))
			var publishers sync.WaitGroup
			published := make(chan struct{}, 5) // one for each message that may be read: publishers are never far ahead
			for i, channel := range channels {
				r := rand.New(rand.NewPCG(seed, uint64(i+1)))
				publishers.Go(func() {
					for n := 0; n < perChannel; {
						var texts []string
						for range 1 + r.IntN(4) {
							if n < perChannel {
								texts = append(texts, strconv.Itoa(n))
								n++
							}
						}
						k.say(t, channel, texts...)
						for range texts {
							published <- struct{}{}
						}
					}
				})
			}
			next := make(map[string]int)
			cuts := 0
			for left := 1 + r.IntN(30); ; left-- { // a client that has no id yet begins anew
				done := true
				for _, channel := range channels {
					done = done && next[channel] == perChannel
				}
				if done {
					break
				}
				if left <= 0 {
					left = 1 + r.IntN(30)
					c.close()
					cuts++
					path := []string{"/sse", "/event-stream"}[r.IntN(2)]
					id := c.lastID
					c = k.open(t, path+params("channels", list), "Last-Event-ID", id)
					c.lastID = id
				}
				<-published
				e := c.next()
				m := e.message(t)
				if e.name != "message" || m.Data != strconv.Itoa(next[m.Channel]) {
					t.Fatalf("after %d cuts: %+v, want %d", cuts, e, next[m.Channel])
				}
				next[m.Channel]++
			}
			publishers.Wait()
			t.Logf("%d cuts", cuts)
			for _, channel := range channels {
				k.say(t, channel, "last")
			}
			for range channels {
				if got := c.texts(1); got != "last" {
					t.Error(got)
				}
			}
		})
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	k := newKit(t)
	for _, method := range []string{http.MethodPost, http.MethodHead, http.MethodDelete} {
		res := k.do(t, method, "/sse"+params("channels", "a"))
		if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("X-Ably-Errorcode") != "40500" {
			t.Errorf("%s: %s %v", method, res.Status, res.Header)
		}
	}
}
