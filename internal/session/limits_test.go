package session_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

// excesses counts what exceeded a limit. It is for one goroutine, or a synctest bubble.
type excesses map[limit.Name]int

func (e excesses) LimitExceeded(n limit.Name) { e[n]++ }

// limitedNode returns a node with limits that can be changed, and what exceeded them. The app
// of the token "test" has no rates.
func limitedNode(t *testing.T, l limit.Limits) (*node, *limit.Set, excesses) {
	t.Helper()
	e := make(excesses)
	set := limit.NewSet(l, limit.Options{Metrics: e, WithoutRates: func(app string) bool { return app == "test" }})
	n := newNode(t, func(_ *session.Options, o *hub.Options) { o.Limits = set })
	n.tokens["test"] = &auth.Grant{App: "test", KeyName: "test.key", ClientRule: auth.ClientAny, Capability: auth.FullCapability}
	return n, set, e
}

// several is a publish of n messages.
func several(channel string, msgSerial int64, n int) *wire.ProtocolMessage {
	pm := message(channel, msgSerial)
	for len(pm.Messages) < n {
		pm.Messages = append(pm.Messages, &pubsub.Message{Data: pubsub.Text("x")})
	}
	return pm
}

func TestTheMessagesOfAConnectionHaveARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, set, e := limitedNode(t, limit.Limits{Burst: time.Second, Rates: limit.Rates{ConnectionMessages: 4}})
		l := n.connect(t, "")
		if pm := l.only(t, wire.ActionConnected); pm.ConnectionDetails.MaxInboundRate != 4 {
			t.Errorf("the client was told %d", pm.ConnectionDetails.MaxInboundRate)
		}
		l.says(attach("room"))
		l.take()
		serial := int64(-1)
		say := func(want wire.Action, pm *wire.ProtocolMessage) {
			t.Helper()
			serial++
			pm.MsgSerial = serial
			l.says(pm)
			for _, got := range l.take() {
				switch got.Action {
				case wire.ActionMessage, wire.ActionPresence:
					continue
				case want:
				default:
					t.Fatalf("got %v, want %v", got.Action, want)
				}
				if got.MsgSerial != serial || got.Count != 1 {
					t.Errorf("got %+v", got)
				}
				if want == wire.ActionNack && (got.Error.Code != 42911 || got.Error.StatusCode != 429 || got.HasChannel) {
					t.Errorf("refused with %+v", got.Error)
				}
			}
		}
		enter := func() *wire.ProtocolMessage {
			return &wire.ProtocolMessage{Action: wire.ActionPresence, Channel: "room", HasChannel: true,
				Presence: []*pubsub.PresenceMessage{{Action: pubsub.PresenceEnter, ClientID: "me"}}}
		}
		say(wire.ActionAck, several("room", 0, 2))
		say(wire.ActionNack, several("room", 0, 3))
		say(wire.ActionAck, enter())
		say(wire.ActionAck, message("room", 0))
		say(wire.ActionNack, message("room", 0))
		say(wire.ActionNack, enter())
		time.Sleep(250 * time.Millisecond)
		say(wire.ActionAck, message("room", 0))
		say(wire.ActionNack, message("room", 0))
		if e[limit.ConnectionMessages] != 4 || l.isClosed() {
			t.Errorf("counted %v, closed %v", e, l.isClosed())
		}
		// Others have a rate of their own, and those of an app for tests none.
		other := n.connect(t, "access_token=test")
		if pm := other.only(t, wire.ActionConnected); pm.ConnectionDetails.MaxInboundRate != 20000 {
			t.Errorf("an app for tests was told %d", pm.ConnectionDetails.MaxInboundRate)
		}
		for i := range int64(1000) {
			other.says(message("room", i))
			if pm := other.only(t, wire.ActionAck); pm.MsgSerial != i {
				t.Fatalf("got %+v", pm)
			}
		}
		set.Replace(limit.Limits{})
		say(wire.ActionAck, several("room", 0, 1000))
		l.session.TransportClosed()
		other.session.TransportClosed()
	})
}

func TestManyTimesTheRateEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, e := limitedNode(t, limit.Limits{Burst: time.Second, Rates: limit.Rates{ConnectionMessages: 3}})
		l := n.connect(t, "")
		l.take()
		for i := range int64(3 * limit.FatalFactor) {
			l.says(message("room", i))
			want := wire.ActionAck
			if i >= 3 {
				want = wire.ActionNack
			}
			l.only(t, want)
		}
		l.says(message("room", 60))
		if pm := l.only(t, wire.ActionError); pm.Error.Code != 42921 || pm.Error.StatusCode != 429 || pm.HasChannel || !l.isClosed() {
			t.Errorf("got %+v", pm)
		}
		if e[limit.ConnectionMessages] != 57 || e[limit.ConnectionMessagesFatal] != 1 {
			t.Errorf("counted %v", e)
		}
		l.says(message("room", 61))
		if sent := l.take(); len(sent) != 0 {
			t.Errorf("after the end: %v", actions(sent))
		}
		l.session.TransportClosed()
	})
}

func TestFloodsAndAttachmentsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, e := limitedNode(t, limit.Limits{ConnectionChannels: 1, ConnectionProtocolMessages: 5})
		l := n.connect(t, "")
		l.says(attach("a"), attach("b"))
		tooMany := message("a", 0)
		tooMany.ItemErr = pubsub.NewError(pubsub.CodeTooManyMessages, "as the codec found")
		l.says(tooMany)
		if e[limit.ConnectionChannels] != 1 || e[limit.PublishMessages] != 1 {
			t.Errorf("counted %v", e)
		}
		for range 20 {
			l.says(&wire.ProtocolMessage{Action: wire.ActionUnknown})
		}
		if e[limit.ConnectionProtocolMessages] != 1 || !l.isClosed() {
			t.Errorf("counted %v", e)
		}
		l.session.TransportClosed()
	})
}

func TestWhatIsSentAboveTheOutboundRateIsDroppedAndTheClientIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, e := limitedNode(t, limit.Limits{Burst: time.Second, Rates: limit.Rates{ConnectionOutbound: 10}})
		n.run(t)
		l, publisher := n.connect(t, ""), n.connect(t, "")
		l.says(attach("room"), attach("other"))
		l.take()
		serial := int64(0)
		publish := func(times int) {
			for range times {
				publisher.says(message("room", serial))
				serial++
			}
			publisher.take()
		}
		publish(15)
		if sent := l.take(); len(sent) != 10 || slices.ContainsFunc(sent, func(pm *wire.ProtocolMessage) bool { return pm.Action != wire.ActionMessage }) {
			t.Fatalf("got %v, want 10 messages", actions(sent))
		}
		// There is an allowance again, but nothing follows a gap that the client does not
		// know of.
		time.Sleep(500 * time.Millisecond)
		publish(2)
		if sent := l.take(); len(sent) != 0 {
			t.Fatalf("got %v before the client was told", actions(sent))
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		told := l.only(t, wire.ActionAttached)
		if told.Error == nil || told.Error.Code != 80020 || told.Error.StatusCode != 400 || told.Flags.Has(wire.FlagResumed) || told.Channel != "room" {
			t.Errorf("told %+v, %+v", told, told.Error)
		}
		publish(3)
		if sent := l.take(); len(sent) != 3 {
			t.Errorf("afterwards got %v, want 3 messages", actions(sent))
		}
		if e[limit.ConnectionOutbound] != 1 {
			t.Errorf("counted %v", e)
		}
		// The position that it was told is behind the gap: from there nothing is missing.
		later := n.connect(t, "")
		again := attach("room")
		again.ChannelSerial = told.ChannelSerial
		later.says(again)
		sent := later.take()
		if len(sent) != 3 || sent[1].Error != nil || !sent[1].Flags.Has(wire.FlagResumed) || sent[2].Channel != "roomroomroom" {
			t.Errorf("from there: %v", actions(sent))
		}
		for _, c := range []*line{l, publisher, later} {
			c.session.TransportClosed()
		}
	})
}

func TestAnyATTACHEDTellsOfWhatWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, _ := limitedNode(t, limit.Limits{Burst: time.Second, Rates: limit.Rates{ConnectionOutbound: 1}})
		n.run(t)
		l, publisher := n.connect(t, ""), n.connect(t, "")
		l.says(attach("room"))
		publisher.says(message("room", 0), message("room", 1))
		publisher.says(message("room", 2))
		l.take()
		changed := attach("room")
		changed.Params = map[string]string{"modes": "subscribe"}
		l.says(changed)
		if pm := l.only(t, wire.ActionAttached); pm.Error == nil || pm.Error.Code != 80020 || pm.Flags.Has(wire.FlagResumed) {
			t.Errorf("got %+v", pm)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if sent := l.take(); len(sent) != 0 {
			t.Errorf("told twice: %v", actions(sent))
		}
		l.session.TransportClosed()
		publisher.session.TransportClosed()
	})
}

func TestNewConnectionsOfAnAppHaveARateAndABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, set, e := limitedNode(t, limit.Limits{Burst: time.Second, AppConnections: 3, Rates: limit.Rates{AppNewConnections: 2}})
		n.run(t)
		refused := func(query string, code pubsub.Code, status int, action wire.Action) {
			t.Helper()
			_, err := n.tryConnect(t, query)
			e := pubsub.ErrorFor(err)
			if e == nil || e.Code != code || e.StatusCode != status {
				t.Fatalf("got %v, want %d", err, code)
			}
			if pm := session.Refusal(e); pm.Action != action || pm.Error.Code != int(code) {
				t.Errorf("the client is told %+v", pm)
			}
		}
		one, two := n.connect(t, ""), n.connect(t, "")
		refused("", 80021, 429, wire.ActionDisconnected)
		time.Sleep(500 * time.Millisecond)
		three := n.connect(t, "")
		time.Sleep(time.Second)
		refused("", 40111, 403, wire.ActionError)
		if pm := session.Refusal(pubsub.NewError(pubsub.CodeUnavailable, "away")); pm.Action != wire.ActionDisconnected { // RTN14d
			t.Errorf("a client that may try again is told %+v", pm)
		}
		if e[limit.AppConnectionRate] != 1 || e[limit.AppConnections] != 1 {
			t.Errorf("counted %v", e)
		}
		// An app for tests has the bound and no rate.
		var tests []*line
		for range 3 {
			tests = append(tests, n.connect(t, "access_token=test"))
		}
		refused("access_token=test", 40111, 403, wire.ActionError)

		// Who was there before comes back, whatever the bounds.
		key := two.only(t, wire.ActionConnected).ConnectionKey
		two.session.TransportClosed()
		four := n.connect(t, "")
		again := n.connect(t, "resume="+key)
		if pm := again.only(t, wire.ActionConnected); pm.Error != nil || pm.ConnectionID != two.session.ID() {
			t.Errorf("the resume got %+v", pm)
		}
		time.Sleep(time.Second)
		refused("", 40111, 403, wire.ActionError)
		set.Replace(limit.Limits{AppConnections: 5})
		five := n.connect(t, "")
		for _, l := range append(tests, one, three, four, again, five) {
			l.session.TransportClosed()
		}
	})
}
