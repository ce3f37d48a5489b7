package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// RSL1i, RSL1k3, TM2i
func TestAPublishIsRefusedWithTheCodeThatSaysWhy(t *testing.T) {
	h := newHub(t, func(o *hub.Options) {
		o.Namespace = func(_, channel string) auth.Namespace {
			return auth.Namespace{MutableMessages: pubsub.Namespace(channel) == "mutable"}
		}
	})
	bob := &auth.Grant{App: "app", ClientRule: auth.ClientIdentified, ClientID: "bob", Capability: auth.FullCapability}
	nobody := &auth.Grant{App: "app", Capability: auth.FullCapability}
	one := func(change func(*pubsub.Message)) []*pubsub.Message {
		m := message("n", "x")
		change(m[0])
		return m
	}
	extras := func(s string) []*pubsub.Message { return one(func(m *pubsub.Message) { m.Extras = []byte(s) }) }
	ids := func(list ...string) (all []*pubsub.Message) {
		for _, id := range list {
			all = append(all, &pubsub.Message{ID: id})
		}
		return all
	}
	many := make([]*pubsub.Message, hub.MaxMessagesPerPublish+1)
	for i := range many {
		many[i] = new(pubsub.Message)
	}
	ephemeral := func(s string) *pubsub.Message { return &pubsub.Message{Extras: []byte(`{"ephemeral":` + s + `}`)} }
	action := func(a pubsub.MessageAction) []*pubsub.Message {
		return one(func(m *pubsub.Message) { m.Action, m.Serial = a, "serial" })
	}
	for _, c := range []struct {
		what     string
		grant    *auth.Grant
		channel  string
		messages []*pubsub.Message
		want     pubsub.Code // 0: accepted
	}{
		{"good", anyone, "room", message("n", "x"), 0},
		{"no messages", anyone, "room", nil, 0},
		{"no capability", capability(t, `{"room":["subscribe"]}`), "room", message("n", "x"), pubsub.CodeCapabilityDenied},
		{"a metachannel", anyone, "[meta]log", message("n", "x"), pubsub.CodeCapabilityDenied},
		{"just the largest", anyone, "room", message("n", strings.Repeat("x", 65535)), 0},
		{"too large", anyone, "room", message("n", strings.Repeat("x", 65536)), pubsub.CodeMessageTooLarge},
		{"too large together", anyone, "room", append(message("", strings.Repeat("x", 40000)), message("", strings.Repeat("x", 40000))...), pubsub.CodeMessageTooLarge},
		{"too many", anyone, "room", many, pubsub.CodeTooManyMessages},
		{"just as many", anyone, "many", many[1:], 0},
		{"another's clientId", bob, "room", one(func(m *pubsub.Message) { m.ClientID = "alice" }), pubsub.CodeInvalidClientID},
		{"one's own clientId", bob, "room", one(func(m *pubsub.Message) { m.ClientID = "bob" }), 0},
		{"a clientId of a nobody", nobody, "room", one(func(m *pubsub.Message) { m.ClientID = "bob" }), pubsub.CodeInvalidClientID},
		{"the wildcard as clientId", anyone, "room", one(func(m *pubsub.Message) { m.ClientID = "*" }), pubsub.CodeInvalidClientID},
		{"another's connectionId", anyone, "room", one(func(m *pubsub.Message) { m.ConnectionID = "c2" }), pubsub.CodeInvalidConnectionID},
		{"one's own connectionId", anyone, "room", one(func(m *pubsub.Message) { m.ConnectionID = "c1" }), 0},
		{"an update", anyone, "room", action(pubsub.MessageUpdate), pubsub.CodeMutableRuleMissing},
		{"a delete", anyone, "room", action(pubsub.MessageDelete), pubsub.CodeMutableRuleMissing},
		{"an append", anyone, "room", action(pubsub.MessageAppend), pubsub.CodeMutableRuleMissing},
		{"an update after a message", anyone, "room", append(message("n", "x"), action(pubsub.MessageUpdate)...), pubsub.CodeMutableRuleMissing},
		{"an update where there may be some", anyone, "mutable:room", action(pubsub.MessageUpdate), pubsub.CodeInvalidParameterValue},
		{"an append there", capability(t, `{"mutable:*":["message-update-own"]}`), "mutable:room", action(pubsub.MessageAppend), pubsub.CodeInvalidParameterValue},
		{"an update without the right", capability(t, `{"mutable:*":["publish","message-delete-any"]}`), "mutable:room", action(pubsub.MessageUpdate), pubsub.CodeCapabilityDenied},
		{"a delete without the right", capability(t, `{"*":["publish","message-update-any"]}`), "room", action(pubsub.MessageDelete), pubsub.CodeCapabilityDenied},
		{"a message where there may be updates", anyone, "mutable:room", message("n", "x"), 0},
		{"extras that are allowed", anyone, "room", extras(`{"headers":{"a":1,"b":null,"c":"x","d":false},"push":{},"ref":{"type":"x"},"ai":{}}`), 0},
		{"extras that are not", anyone, "room", extras(`{"userClaim":"root"}`), pubsub.CodeInvalidExtras},
		{"extras that are no object", anyone, "room", extras(`[1]`), pubsub.CodeInvalidExtras},
		{"headers that are not flat", anyone, "room", extras(`{"headers":{"a":[]}}`), pubsub.CodeInvalidExtras},
		{"headers that are no object", anyone, "room", extras(`{"headers":"x"}`), pubsub.CodeInvalidExtras},
		{"privileged without the right", capability(t, `{"room":["publish"]}`), "room", extras(`{"privileged":{"skipRule":"*"}}`), pubsub.CodeCapabilityDenied},
		{"privileged with the right", capability(t, `{"room":["publish","privileged-headers"]}`), "room", extras(`{"privileged":{"skipRule":"*"}}`), 0},
		{"ephemeral and other messages", anyone, "room", []*pubsub.Message{ephemeral("true"), ephemeral("false")}, pubsub.CodeBadRequest},
		{"ephemeral messages", anyone, "room", []*pubsub.Message{ephemeral("true"), ephemeral("true")}, 0},
		{"any id", anyone, "room", ids("whatever"), 0},
		{"ids of one base", anyone, "room", ids("a:b:0", "a:b:1"), 0},
		{"ids of two bases", anyone, "room", ids("a:0", "b:1"), pubsub.CodeInvalidMessageID},
		{"ids in disorder", anyone, "room", ids("c:1", "c:0"), pubsub.CodeInvalidMessageID},
		{"equal ids", anyone, "room", ids("d", "d"), pubsub.CodeInvalidMessageID},
		{"an id for the first only", anyone, "room", ids("e:0", ""), pubsub.CodeInvalidMessageID},
		{"an id for the second only", anyone, "room", ids("", "f:1"), pubsub.CodeInvalidMessageID},
	} {
		t.Run(c.what, func(t *testing.T) {
			called := 0
			err := h.Publish(new(hub.Turn), &hub.Publish{
				Grant: c.grant, Channel: name(c.channel), Messages: c.messages, ConnectionID: "c1", MsgSerial: int64(len(c.what)),
			}, func(p hub.Published) {
				called++
				if p.Err != nil || p.Count != len(c.messages) {
					t.Errorf("outcome %+v", p)
				}
			})
			if codeOf(err) != c.want || (err == nil) != (c.want == 0) {
				t.Errorf("got %v, want code %d", err, c.want)
			}
			if (err == nil) != (called == 1) || called > 1 {
				t.Errorf("done was called %d times with error %v", called, err)
			}
		})
	}
}

func TestTheServerCompletesAMessageAndTrustsNothingThatIsItsOwnToGive(t *testing.T) {
	h := newHub(t)
	bob := &auth.Grant{App: "app", ClientRule: auth.ClientIdentified, ClientID: "bob", Capability: auth.FullCapability}
	m := &pubsub.Message{Name: "n", Timestamp: 1, Serial: "mine", Version: &pubsub.Version{Serial: "mine"}, Summary: []byte(`{}`), Action: pubsub.MessageMeta}
	p := publish(t, h, new(hub.Turn), hub.Publish{Grant: bob, Messages: []*pubsub.Message{m}, ConnectionID: "c1", MsgSerial: 7})
	page, err := h.Messages(t.Context(), &hub.History{Grant: bob, Channel: name("room"), Limit: 1})
	if err != nil || len(page.Messages) != 1 {
		t.Fatalf("%v %v", page, err)
	}
	got := page.Messages[0]
	if got.ID != "c1:7:0" || got.ClientID != "bob" || got.ConnectionID != "c1" || got.Action != pubsub.MessageCreate ||
		got.Serial != p.Serial.Item(0) || got.Timestamp < 1e12 || got.Version == nil || got.Version.Serial != got.Serial || got.Summary != nil {
		t.Errorf("got %+v", got)
	}
}

// RSL1k4-5, RTN19a
func TestARepeatGetsTheFirstSerialsAndIsNotDelivered(t *testing.T) {
	h := newHub(t)
	box := new(inbox)
	attach(t, h, hub.Attach{Receiver: box})
	var turn hub.Turn
	for _, again := range []struct {
		what string
		p    func() hub.Publish
	}{
		{"by msgSerial", func() hub.Publish {
			return hub.Publish{Messages: message("n", "m"), ConnectionID: "c1", MsgSerial: 3}
		}},
		{"by id", func() hub.Publish {
			return hub.Publish{Messages: []*pubsub.Message{{ID: "id", Data: pubsub.Text("i")}}}
		}},
	} {
		first := publish(t, h, &turn, again.p())
		second := publish(t, h, &turn, again.p())
		if first.Serial != second.Serial || first.BaseID != second.BaseID {
			t.Errorf("%s: %+v and then %+v", again.what, first, second)
		}
	}
	// An id of the client's never meets one of the server's.
	publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{{ID: "c1:3:0", Data: pubsub.Text("not swallowed")}}})
	// Nor do ids that only begin alike.
	publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{{ID: "id:0", Data: pubsub.Text("first")}}})
	pair := func() hub.Publish {
		return hub.Publish{Messages: []*pubsub.Message{{ID: "id:0", Data: pubsub.Text("both")}, {ID: "id:1", Data: pubsub.Text("both")}}}
	}
	both := publish(t, h, &turn, pair())
	if again := publish(t, h, &turn, pair()); again.Serial != both.Serial {
		t.Errorf("%+v and then %+v", both, again)
	}
	turn.End()
	if got := box.data(); got != "m i not swallowed first both" {
		t.Errorf("got %q", got)
	}
}

func TestEphemeralMessagesAreDeliveredAndNotKept(t *testing.T) {
	h := newHub(t)
	box := new(inbox)
	at := attach(t, h, hub.Attach{Receiver: box})
	kept := say(t, h, "kept")
	var turn hub.Turn
	publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{{Data: pubsub.Text("gone"), Extras: []byte(`{"ephemeral":true}`)}}})
	turn.End()
	if got := box.data(); got != "kept gone" {
		t.Errorf("got %q", got)
	}
	if reached := at.Mark(nil, func() {}); reached != kept.Serial {
		t.Errorf("an ephemeral message is a position: %s, want %s", reached, kept.Serial)
	}
	page, err := h.Messages(t.Context(), &hub.History{Grant: anyone, Channel: name("room"), Limit: 10})
	if err != nil || len(page.Messages) != 1 {
		t.Errorf("the history has %d messages (%v)", len(page.Messages), err)
	}
}

func TestTroubleOfTheStoreIsToldAsWhatTheClientCanDo(t *testing.T) {
	spy := new(spied)
	h := newHub(t, func(o *hub.Options) { spy.Engine = o.Engine; o.Engine = spy })
	for _, c := range []struct {
		err  error
		want pubsub.Code
	}{
		{engine.ErrUnavailable, pubsub.CodeUnavailable},
		{engine.ErrDeadline, pubsub.CodeUnavailable},
		{engine.ErrClosed, pubsub.CodeUnavailable},
		{engine.ErrFull, pubsub.CodeBusy},
		{engine.ErrUnknownOutcome, pubsub.CodeTimeout},
		{context.DeadlineExceeded, pubsub.CodeUnavailable},
		{errors.New("something else"), pubsub.CodeInternalError},
	} {
		spy.appendErr = fmt.Errorf("append: %w", c.err)
		var out hub.Published
		if err := h.Publish(new(hub.Turn), &hub.Publish{Grant: anyone, Channel: name("room"), Messages: message("n", "x")},
			func(p hub.Published) { out = p }); err != nil {
			t.Fatal(err)
		}
		if out.Err == nil || out.Err.Code != c.want {
			t.Errorf("%v: a publish got %v, want %d", c.err, out.Err, c.want)
		}
		spy.readErr = spy.appendErr
		if _, err := h.Messages(t.Context(), &hub.History{Grant: anyone, Channel: name("room"), Limit: 1}); codeOf(err) != c.want {
			t.Errorf("%v: history got %v, want %d", c.err, err, c.want)
		}
	}
}

// RSL2a, TG4
func TestPagesOfAnySizeAreTogetherTheWholeHistory(t *testing.T) {
	h := newHub(t)
	var all []string
	for i := range 12 {
		batch := make([]*pubsub.Message, i%4+1)
		for j := range batch {
			data := fmt.Sprintf("%d.%d", i, j)
			batch[j] = &pubsub.Message{Data: pubsub.Text(data)}
			all = append(all, data)
		}
		publish(t, h, new(hub.Turn), hub.Publish{Messages: batch, ConnectionID: "c", MsgSerial: int64(i)})
	}
	for limit := 1; limit <= len(all)+1; limit++ {
		for _, forwards := range []bool{true, false} {
			want := slices.Clone(all)
			if !forwards {
				slices.Reverse(want)
			}
			var got []string
			q := hub.History{Grant: anyone, Channel: name("room"), Limit: limit, Forwards: forwards}
			for {
				page, err := h.Messages(t.Context(), &q)
				if err != nil {
					t.Fatal(err)
				}
				if len(page.Messages) > limit || len(page.Messages) == 0 {
					t.Fatalf("limit %d, forwards %v: a page of %d after %d", limit, forwards, len(page.Messages), len(got))
				}
				for _, m := range page.Messages {
					got = append(got, string(m.Data.Bytes))
				}
				if q.Cursor = page.Next; page.Next == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("limit %d, forwards %v: got %v", limit, forwards, got)
			}
		}
	}
}

func TestHistoryNeedsItsCapability(t *testing.T) {
	h := newHub(t)
	_, err := h.Messages(t.Context(), &hub.History{Grant: capability(t, `{"room":["subscribe"]}`), Channel: name("room"), Limit: 1})
	if codeOf(err) != pubsub.CodeCapabilityDenied {
		t.Errorf("got %v", err)
	}
}

// discard is a receiver that costs nothing.
type discard struct{}

func (discard) Receive([]byte, bool) {}
func (discard) Lost(pubsub.Serial)   {}

// plain is a form that allocates nothing.
type plain struct{}

func (plain) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	dst = append(dst, e.Serial...)
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// room is a hub with a room of the given size, and a function that publishes to it and
// returns when all have received.
func room(t testing.TB, members int) (publish func()) {
	h := newHub(t, func(o *hub.Options) {
		o.Stats = stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
	})
	for range members {
		attach(t, h, hub.Attach{Receiver: discard{}, Form: plain{}})
	}
	var turn hub.Turn
	channel, done := name("room"), func(hub.Published) {}
	serial := int64(0)
	return func() {
		serial++
		err := h.Publish(&turn, &hub.Publish{Grant: anyone, Channel: channel, Messages: message("n", "x"), ConnectionID: "c", MsgSerial: serial, Final: true}, done)
		if err != nil {
			t.Fatal(err)
		}
		turn.End()
		h.Close()
	}
}

func TestDeliveryAllocatesNothingForEachReceiver(t *testing.T) {
	perPublish := make(map[int]float64)
	for _, members := range []int{1, 100, 1000} {
		publish := room(t, members)
		for range 100 {
			publish()
		}
		perPublish[members] = testing.AllocsPerRun(200, publish)
	}
	t.Logf("allocations per publish by members: %v", perPublish)
	// A tenth of an allocation for each receiver would show as 100. What a goroutine for a
	// large room and the race detector's pools cost stays below.
	if more := perPublish[1000] - perPublish[1]; more > 20 {
		t.Errorf("a thousand receivers cost %.0f allocations more than one: %v", more, perPublish)
	}
}

func BenchmarkFanOut(b *testing.B) {
	for _, members := range []int{1, 50, 1000} {
		b.Run(strconv.Itoa(members), func(b *testing.B) {
			publish := room(b, members)
			b.ReportAllocs()
			for b.Loop() {
				publish()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(members), "ns/delivery")
		})
	}
}

// BenchmarkPublish is a publish to a channel to which nobody on the node is attached.
func BenchmarkPublish(b *testing.B) {
	publish := room(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		publish()
	}
}
