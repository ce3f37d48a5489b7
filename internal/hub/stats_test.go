package hub_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// counting is a hub with statistics, and the entries of its app so far.
func counting(t *testing.T, options ...func(*hub.Options)) (h *hub.Hub, so func(what string) map[string]float64) {
	now := time.Date(2024, 2, 3, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	c := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{Now: clock}), Now: clock})
	h = newHub(t, append(options, func(o *hub.Options) { o.Stats = c })...)
	return h, func(what string) map[string]float64 {
		h.Close()
		now = now.Add(time.Second)
		page, err := c.Read(t.Context(), "app", stats.Query{Unit: stats.Day, Limit: 1})
		if err != nil || len(page.Items) != 1 {
			t.Fatal(page, err)
		}
		flat, err := page.Items[0].Flat()
		if err != nil {
			t.Fatal(err)
		}
		picked := maps.Collect(flat)
		maps.DeleteFunc(picked, func(name string, _ float64) bool { return !strings.HasPrefix(name, what+".") })
		return picked
	}
}

func expectFigures(t *testing.T, what string, got, want map[string]float64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestPublishesAreCountedByHowTheyCame(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		h, so := counting(t, func(o *hub.Options) {
			o.Namespace = func(_, _ string) auth.Namespace { return auth.Namespace{Persisted: persisted} }
		})
		var turn hub.Turn
		three := []*pubsub.Message{{Name: "a", Data: pubsub.Text("12")}, {Data: pubsub.Binary([]byte{1, 2, 3})}, {ClientID: "me"}}
		publish(t, h, &turn, hub.Publish{Messages: three, ConnectionID: "c", MsgSerial: 1})
		publish(t, h, &turn, hub.Publish{Messages: message("n", "again"), ConnectionID: "c", MsgSerial: 2})
		publish(t, h, &turn, hub.Publish{Messages: message("n", "again"), ConnectionID: "c", MsgSerial: 2}) // a repeat
		publish(t, h, &turn, hub.Publish{Messages: message("n", "12345")})
		publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{{Name: "e", Extras: []byte(`{"ephemeral":true}`)}}})
		denied := &hub.Publish{Grant: capability(t, `{"other":["publish"]}`), Channel: name("room"), Messages: message("n", "x")}
		if err := h.Publish(&turn, denied, func(hub.Published) {}); err == nil {
			t.Error("was not denied")
		}
		turn.End()
		expectFigures(t, "inbound", so("messages.inbound"), map[string]float64{
			"messages.inbound.realtime.messages.count": 4, "messages.inbound.realtime.messages.data": 3 + 3 + 2 + 6,
			"messages.inbound.realtime.all.count": 4, "messages.inbound.realtime.all.data": 14,
			"messages.inbound.rest.messages.count": 2, "messages.inbound.rest.messages.data": 6 + 1 + 18,
			"messages.inbound.rest.all.count": 2, "messages.inbound.rest.all.data": 25,
			"messages.inbound.all.messages.count": 6, "messages.inbound.all.messages.data": 39,
			"messages.inbound.all.all.count": 6, "messages.inbound.all.all.data": 39,
			"messages.inbound.rest.messages.refused": 1, "messages.inbound.rest.all.refused": 1,
			"messages.inbound.all.messages.refused": 1, "messages.inbound.all.all.refused": 1,
		})
		want := map[string]float64{}
		if persisted {
			want = map[string]float64{
				"messages.persisted.messages.count": 5, "messages.persisted.messages.data": 20,
				"messages.persisted.all.count": 5, "messages.persisted.all.data": 20,
			}
		}
		expectFigures(t, "persisted", so("messages.persisted"), want)
		expectFigures(t, "outbound", so("messages.outbound"), map[string]float64{})
	}
}

func TestWhatTheStoreDoesNotTakeIsCountedAsFailed(t *testing.T) {
	h, so := counting(t, func(o *hub.Options) { o.Engine = &spied{Engine: o.Engine, appendErr: engine.ErrUnavailable} })
	var turn hub.Turn
	failed := errors.New("done was not called")
	err := h.Publish(&turn, &hub.Publish{Grant: anyone, Channel: name("room"), Messages: message("n", "x"), ConnectionID: "c"},
		func(p hub.Published) { failed = p.Err })
	if err != nil || failed == nil {
		t.Fatal(err, failed)
	}
	if got := so("messages.inbound.realtime.messages"); got["messages.inbound.realtime.messages.failed"] != 1 || len(got) != 1 {
		t.Error(got)
	}
}

func TestDeliveriesAreCountedForEachReceiver(t *testing.T) {
	h, so := counting(t)
	for range 2 {
		attach(t, h, hub.Attach{})
	}
	attach(t, h, hub.Attach{Names: []string{"yes"}})
	attach(t, h, hub.Attach{Names: []string{"yes"}, Form: lines{label: "single", items: true, count: sharedLines.count}})
	attach(t, h, hub.Attach{ConnectionID: "c", NoEcho: true})
	attach(t, h, hub.Attach{Modes: pubsub.ModePresence})
	var turn hub.Turn
	publish(t, h, &turn, hub.Publish{Messages: append(message("yes", "12"), message("no", "1234")...), ConnectionID: "c", MsgSerial: 1})
	publish(t, h, &turn, hub.Publish{Messages: message("no", "1"), ConnectionID: "d"})
	turn.End()
	// The two without a filter are sent everything, 3 messages of 5, 6 and 3 bytes; who wants
	// "yes" is sent its whole frame, or the one message; the publisher what others published.
	expectFigures(t, "outbound", so("messages.outbound.realtime.messages"), map[string]float64{
		"messages.outbound.realtime.messages.count": 2*3 + 2 + 1 + 1,
		"messages.outbound.realtime.messages.data":  2*14 + 11 + 5 + 3,
	})
	if got := so("messages.all.messages"); got["messages.all.messages.count"] != 10+3 {
		t.Error(got)
	}
}

// Of a filtered channel what passes is counted, and not what it is a part of.
func TestDeliveriesOfAFilteredChannelAreCounted(t *testing.T) {
	h, so := counting(t)
	at := attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'yes'")})
	attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'yes'"), Form: lines{label: "single", items: true, count: sharedLines.count}})
	attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'no'"), ConnectionID: "c", NoEcho: true})
	var turn hub.Turn
	publish(t, h, &turn, hub.Publish{Messages: append(message("no", "1234"), message("yes", "12")...), ConnectionID: "d"})
	turn.End()
	publish(t, h, &turn, hub.Publish{Messages: append(message("no", "1234"), message("yes", "12")...), ConnectionID: "c"})
	publish(t, h, &turn, hub.Publish{Messages: message("neither", "1"), ConnectionID: "d", MsgSerial: 1})
	turn.End()
	if b := at.Rewind(t.Context(), hub.Rewind{Limit: 1}); b.Err != nil || len(b.Frames) != 0 {
		t.Fatal(b) // nothing is older than the attachment
	}
	again := attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'yes'")})
	if b := again.Rewind(t.Context(), hub.Rewind{Limit: 1}); b.Err != nil || len(b.Frames) != 1 {
		t.Fatal(b)
	}
	// Two messages to those who want "yes", one of them once more, and one to who wants "no".
	expectFigures(t, "outbound", so("messages.outbound.realtime.messages"), map[string]float64{
		"messages.outbound.realtime.messages.count": 2*2 + 1 + 1, "messages.outbound.realtime.messages.data": 5*5 + 6,
	})
}

// Events of the occupancy are no messages of the channel.
func TestOccupancyEventsAreNotCounted(t *testing.T) {
	h, so := counting(t)
	at := attach(t, h, hub.Attach{})
	if frames, err := at.ShowOccupancy(t.Context(), hub.AllOccupancy, at.Position()); err != nil || len(frames) != 1 {
		t.Fatal(frames, err)
	}
	expectFigures(t, "messages", so("messages"), map[string]float64{})
}

func TestWhatLimitsRefuseIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, so := counting(t, func(o *hub.Options) {
			o.Limits = limit.NewSet(limit.Limits{Burst: time.Second, Rates: limit.Rates{ChannelMessages: 3}, AppChannels: 1}, limit.Options{})
		})
		attach(t, h, hub.Attach{})
		if _, err := h.Attach(t.Context(), &hub.Attach{Grant: anyone, Channel: name("another"), Form: sharedLines, Receiver: new(inbox)}); code(err) != pubsub.CodeChannelLimit {
			t.Error(err)
		}
		var turn hub.Turn
		defer turn.End()
		more := append(message("n", "1"), append(message("n", "2"), message("n", "3")...)...)
		publish(t, h, &turn, hub.Publish{Messages: message("n", "x"), ConnectionID: "c", MsgSerial: 1})
		err := h.Publish(&turn, &hub.Publish{Grant: anyone, Channel: name("room"), Messages: more}, func(hub.Published) {})
		if code(err) != pubsub.CodeChannelMessageRate {
			t.Error(err)
		}
		items := []*pubsub.PresenceMessage{
			{Action: pubsub.PresenceEnter, ClientID: "a"}, {Action: pubsub.PresenceEnter, ClientID: "b"},
			{Action: pubsub.PresenceEnter, ClientID: "c"}, {Action: pubsub.PresenceEnter, ClientID: "d"},
		}
		err = h.Presence(t.Context(), &turn, &hub.Presence{Grant: anyone, Channel: name("room"), Items: items, ConnectionID: "c", MsgSerial: 2})
		if code(err) != pubsub.CodeChannelMessageRate {
			t.Error(err)
		}
		got := so("messages.inbound")
		if got["messages.inbound.rest.messages.refused"] != 3 || got["messages.inbound.realtime.presence.refused"] != 4 || got["messages.inbound.all.all.count"] != 1 {
			t.Error(got)
		}
		if got := so("channels"); got["channels.refused"] != 1 || got["channels.opened"] != 1 {
			t.Error(got)
		}
	})
}

func TestWhatIsSentAgainIsCountedAgain(t *testing.T) {
	h, so := counting(t)
	first := attach(t, h, hub.Attach{})
	for range 3 {
		say(t, h, "12345")
	}
	at := attach(t, h, hub.Attach{})
	if b := at.Resume(t.Context(), first.Position()); b.Err != nil {
		t.Fatal(b.Err)
	}
	if b := at.Rewind(t.Context(), hub.Rewind{Limit: 2}); b.Err != nil {
		t.Fatal(b.Err)
	}
	expectFigures(t, "outbound", so("messages.outbound.realtime.messages"), map[string]float64{
		"messages.outbound.realtime.messages.count": 3 + 3 + 2, "messages.outbound.realtime.messages.data": 8 * 6,
	})
}

func TestPresenceIsCounted(t *testing.T) {
	h, so := counting(t, func(o *hub.Options) {
		o.Limits = limit.NewSet(limit.Limits{PresenceMembers: 2}, limit.Options{})
		o.Namespace = func(_, _ string) auth.Namespace { return auth.Namespace{Persisted: true} }
	})
	attach(t, h, hub.Attach{})
	enter := func(serial int64, clients ...string) error {
		var items []*pubsub.PresenceMessage
		for _, c := range clients {
			items = append(items, &pubsub.PresenceMessage{Action: pubsub.PresenceEnter, ClientID: c, Data: pubsub.Text("hi")})
		}
		var turn hub.Turn
		defer turn.End()
		return h.Presence(t.Context(), &turn, &hub.Presence{Grant: anyone, Channel: name("room"), Items: items, ConnectionID: "c", MsgSerial: serial})
	}
	if err := enter(1, "a", "b"); err != nil {
		t.Fatal(err)
	}
	if err := enter(2, "c"); err == nil {
		t.Error("there was room")
	}
	if err := enter(3, "*"); err == nil {
		t.Error("everybody entered")
	}
	expectFigures(t, "inbound", so("messages.inbound.realtime.presence"), map[string]float64{
		"messages.inbound.realtime.presence.count": 2, "messages.inbound.realtime.presence.data": 6, "messages.inbound.realtime.presence.refused": 2,
	})
	expectFigures(t, "persisted", so("messages.persisted.presence"), map[string]float64{
		"messages.persisted.presence.count": 2, "messages.persisted.presence.data": 6,
	})
}

// events is a form that tells of presence.
type events struct{}

func (events) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if e.Kind != engine.KindPresence {
		return dst, units
	}
	dst = append(dst, "event\n"...)
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

func TestPresenceIsCountedForEachReceiver(t *testing.T) {
	h, so := counting(t)
	for range 3 {
		attach(t, h, hub.Attach{Form: events{}})
	}
	attach(t, h, hub.Attach{Form: events{}, Modes: pubsub.ModeSubscribe})
	var turn hub.Turn
	items := []*pubsub.PresenceMessage{{Action: pubsub.PresenceEnter, ClientID: "a"}, {Action: pubsub.PresenceEnter, ClientID: "b", Data: pubsub.Text("hi")}}
	if err := h.Presence(t.Context(), &turn, &hub.Presence{Grant: anyone, Channel: name("room"), Items: items, ConnectionID: "c"}); err != nil {
		t.Fatal(err)
	}
	publish(t, h, &turn, hub.Publish{Messages: message("n", "what the form has no words for")})
	turn.End()
	expectFigures(t, "outbound", so("messages.outbound.realtime"), map[string]float64{
		"messages.outbound.realtime.presence.count": 6, "messages.outbound.realtime.presence.data": 3 * (1 + 3),
		"messages.outbound.realtime.all.count": 6, "messages.outbound.realtime.all.data": 12,
	})
}

func TestChannelsAreCounted(t *testing.T) {
	h, so := counting(t)
	a, b := attach(t, h, hub.Attach{}), attach(t, h, hub.Attach{})
	c := attach(t, h, hub.Attach{Channel: name("another")})
	a.Detach()
	c.Detach()
	if got := so("channels"); got["channels.opened"] != 2 || got["channels.peak"] != 2 || got["channels.mean"] != 1 {
		t.Error(got)
	}
	b.Detach()
	attach(t, h, hub.Attach{})
	if got := so("channels"); got["channels.opened"] != 3 || got["channels.peak"] != 2 {
		t.Error(got)
	}
}

// A message's size is that with the clientId that the publisher has.
func TestAClientIDThatTheServerFillsInCounts(t *testing.T) {
	h, so := counting(t)
	var turn hub.Turn
	grant := *anyone
	grant.ClientRule, grant.ClientID = auth.ClientIdentified, "somebody"
	publish(t, h, &turn, hub.Publish{Grant: &grant, Messages: message("n", "123"), ConnectionID: "c", MsgSerial: 1})
	turn.End()
	if got := so("messages.inbound.realtime.messages")["messages.inbound.realtime.messages.data"]; got != 1+3+8 {
		t.Errorf("%v bytes", got)
	}
}
