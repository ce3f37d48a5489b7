package session_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

// run runs the manager for as long as the test, which is in a bubble, goes on.
func (n *node) run(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	go func() { _ = n.Run(ctx) }()
	go func() { _ = n.directory.Run(ctx) }()
}

// RTN15c6, RTN15e
func TestAResumeContinuesTheConnectionWithANewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.run(t)
		l := n.connect(t, "")
		was := l.only(t, wire.ActionConnected)
		for generation := range 3 {
			l.session.TransportClosed()
			time.Sleep(100 * time.Second) // within connectionStateTtl
			l = n.connect(t, "resume="+was.ConnectionKey)
			is := l.only(t, wire.ActionConnected)
			if is.ConnectionID != was.ConnectionID || is.Error != nil || is.ConnectionKey == was.ConnectionKey ||
				is.ConnectionDetails.ConnectionKey != is.ConnectionKey {
				t.Fatalf("resume %d: %+v, after %+v", generation, is, was)
			}
			was = is
		}
		if n.Count() != 1 {
			t.Errorf("%d sessions", n.Count())
		}
	})
}

// RTN15c7, RTN16l
func TestAResumeThatFailsGivesANewConnectionAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.run(t)
		lost := n.connect(t, "")
		expired := lost.only(t, wire.ActionConnected)
		lost.session.TransportClosed()
		time.Sleep(125 * time.Second)
		closed := n.connect(t, "")
		ended := closed.only(t, wire.ActionConnected)
		closed.says(&wire.ProtocolMessage{Action: wire.ActionClose})
		closed.session.TransportClosed()
		evicted := n.connect(t, "")
		gone := evicted.only(t, wire.ActionConnected)
		evicted.session.Evict(pubsub.NewError(pubsub.CodeNotFound, "no such app"))
		evicted.only(t, wire.ActionError)
		evicted.session.TransportClosed()
		if n.Kept() != 0 {
			t.Errorf("%d connections are kept", n.Kept())
		}
		first := n.connect(t, "").only(t, wire.ActionConnected)
		for _, c := range []struct {
			what, query string
			want        int
		}{
			{"expired", "resume=" + expired.ConnectionKey, 80008},
			{"closed", "resume=" + ended.ConnectionKey, 80008},
			{"evicted", "resume=" + gone.ConnectionKey, 80008},
			{"a changed key", "resume=" + first.ConnectionKey[:len(first.ConnectionKey)-4] + "AAAA", 80008},
			{"another connection's id", "resume=other" + first.ConnectionKey, 80008},
			{"nonsense", "resume=_____!nonsense____", 80018},
			{"no id", "resume=" + first.ConnectionKey[strings.IndexByte(first.ConnectionKey, '!'):], 80018},
			{"resume wins over recover", "resume=nonsense&recover=" + first.ConnectionKey, 80018},
		} {
			pm := n.connect(t, c.query).only(t, wire.ActionConnected)
			if pm.ConnectionID == first.ConnectionID || pm.ConnectionKey == first.ConnectionKey {
				t.Errorf("%s: the old connection again", c.what)
			}
			if pm.Error == nil || pm.Error.Code != c.want || pm.Error.StatusCode != 400 {
				t.Errorf("%s: error %+v, want %d", c.what, pm.Error, c.want)
			}
		}
	})
}

// RTN15c4
func TestAResumeWithOtherCredentialsIsRefusedForGood(t *testing.T) {
	n := newNode(t)
	grant := func(key, clientID string) *auth.Grant {
		return &auth.Grant{App: "app", KeyName: key, ClientRule: auth.ClientIdentified, ClientID: clientID, Capability: auth.FullCapability}
	}
	n.tokens["anna"], n.tokens["bert"], n.tokens["other"] = grant("app.key", "anna"), grant("app.key", "bert"), grant("app.two", "anna")
	n.tokens["renewed"] = grant("app.key", "anna")
	key := n.connect(t, "access_token=anna").only(t, wire.ActionConnected).ConnectionKey
	for _, token := range []string{"bert", "other", ""} {
		_, err := n.tryConnect(t, "access_token="+token+"&resume="+key)
		var e *pubsub.Error
		if !errors.As(err, &e) || e.Code != pubsub.CodeIncompatibleCredential {
			t.Errorf("%q: %v", token, err)
		}
	}
	if pm := n.connect(t, "access_token=renewed&resume="+key).only(t, wire.ActionConnected); pm.Error != nil {
		t.Errorf("the right client: %+v", pm.Error)
	}
}

func TestATransportTakenOverIsClosedInSilence(t *testing.T) {
	for _, how := range []string{"resume", "recover"} {
		n := newNode(t)
		old := n.connect(t, "")
		key := old.only(t, wire.ActionConnected).ConnectionKey
		old.says(attach("a"))
		old.take()
		now := n.connect(t, how+"="+key)
		if pm := now.only(t, wire.ActionConnected); pm.Error != nil || pm.ConnectionID != old.session.ID() {
			t.Fatalf("%s: %+v", how, pm)
		}
		if sent := old.take(); len(sent) != 0 || !old.isClosed() {
			t.Errorf("%s: the old transport is told %v, closed %v", how, actions(sent), old.isClosed())
		}
		old.says(message("a", 0)) // still on its way when it was taken over
		old.session.TransportClosed()
		now.says(attach("a"), message("a", 0))
		if got := fmt.Sprint(actions(now.take())); got != "[ATTACHED ACK MESSAGE]" {
			t.Errorf("%s: the new transport goes on with %s", how, got)
		}
		now.session.TransportClosed()
	}
}

func TestTheKeyBeforeIsGoodUntilTheNewOneWasUsed(t *testing.T) {
	n := newNode(t)
	l := n.connect(t, "")
	first := l.only(t, wire.ActionConnected).ConnectionKey
	l.session.TransportClosed()
	again := func(how, key string) (*line, string, bool) {
		l := n.connect(t, how+"="+key)
		pm := l.only(t, wire.ActionConnected)
		return l, pm.ConnectionKey, pm.Error == nil
	}
	l, _, ok := again("resume", first)
	if !ok {
		t.Fatal("the first resume fails")
	}
	l.session.TransportClosed() // before the client got its CONNECTED
	l, second, ok := again("resume", first)
	if !ok {
		t.Fatal("a lost CONNECTED costs the connection")
	}
	l.says(&wire.ProtocolMessage{Action: wire.ActionHeartbeat})
	l.session.TransportClosed()
	if _, _, ok := again("resume", first); ok {
		t.Error("the old key is good although the new one was used")
	}
	if _, _, ok := again("recover", second); !ok {
		t.Error("the new key does not recover")
	}
	if _, _, ok := again("resume", second); ok {
		t.Error("after a recover the key that it used is still good")
	}
}

// RTN19a, RTN19a2
func TestAPublishSentAgainAfterAResumeHasItsFirstResult(t *testing.T) {
	n := newNode(t)
	l := n.connect(t, "")
	key := l.only(t, wire.ActionConnected).ConnectionKey
	l.says(message("a", 0), message("a", 1))
	first := l.only(t, wire.ActionAck)
	l.session.TransportClosed()
	watcher := n.connect(t, "")
	watcher.says(attach("a"))
	watcher.take()

	l = n.connect(t, "resume="+key)
	l.take()
	l.says(message("a", 1), message("a", 3)) // 2 was a presence message, sent later with another number
	acks := l.take()
	if len(acks) != 2 || acks[0].MsgSerial != 1 || acks[0].Count != 1 || acks[0].Res[0].Serials[0] != first.Res[1].Serials[0] {
		t.Errorf("the repeat is answered with %+v, at first %+v", acks, first)
	}
	if sent := watcher.take(); len(sent) != 1 {
		t.Errorf("%d messages were delivered, want the new one only", len(sent))
	}
}

// RTL2f, RTL2i, RTL4c1, RTL18c
func TestAnAttachmentGoesOnFromTheClientsPosition(t *testing.T) {
	n := newNode(t)
	l := n.connect(t, "")
	key := l.only(t, wire.ActionConnected).ConnectionKey
	l.says(attach("a"))
	position := l.only(t, wire.ActionAttached).ChannelSerial
	l.session.TransportClosed()
	publisher := n.connect(t, "")
	publisher.says(message("a", 0), message("a", 1))

	l = n.connect(t, "resume="+key)
	l.take()
	l.says(&wire.ProtocolMessage{Action: wire.ActionAttach, Channel: "a", ChannelSerial: position})
	sent := l.take()
	if len(sent) < 2 || !sent[0].Flags.Has(wire.FlagResumed|wire.FlagHasBacklog) || sent[0].Error != nil || sent[0].ChannelSerial != position {
		t.Fatalf("after a gap: %+v", sent[0])
	}
	publisher.says(message("a", 2))
	if more := l.take(); len(more) != 1 {
		t.Errorf("live again: %v", actions(more))
	}

	// Nothing was missed.
	other := n.connect(t, "")
	other.take()
	other.says(attach("a"))
	here := other.only(t, wire.ActionAttached).ChannelSerial
	third := n.connect(t, "")
	third.take()
	third.says(&wire.ProtocolMessage{Action: wire.ActionAttach, Channel: "a", ChannelSerial: here})
	if pm := third.only(t, wire.ActionAttached); pm.Flags.Has(wire.FlagHasBacklog) || !pm.Flags.Has(wire.FlagResumed) || pm.ChannelSerial != here {
		t.Errorf("without a gap: %+v", pm)
	}

	for serial, code := range map[string]int{
		"nonsense": 90003,
		string(pubsub.MakeSerial(5, 0, here[len(here)-pubsub.EpochLength:])): 90003,
		string(pubsub.MakeSerial(5, 0, "otherone")):                          90005,
	} {
		c := n.connect(t, "")
		c.take()
		c.says(&wire.ProtocolMessage{Action: wire.ActionAttach, Channel: "a", ChannelSerial: serial})
		if pm := c.only(t, wire.ActionAttached); pm.Flags.Has(wire.FlagResumed) || pm.Error == nil || pm.Error.Code != code || pm.Error.StatusCode != 404 {
			t.Errorf("%s: %+v %+v", serial, pm, pm.Error)
		}
	}
}

// TB2c, TR3f
func TestARewindComesOnlyWithAFreshAttach(t *testing.T) {
	n := newNode(t)
	publisher := n.connect(t, "")
	for i := range int64(5) {
		publisher.says(message("a", i))
	}
	rewind := func(pm *wire.ProtocolMessage, value string) []*wire.ProtocolMessage {
		l := n.connect(t, "")
		l.take()
		pm.Action, pm.Channel, pm.Params = wire.ActionAttach, "a", map[string]string{"rewind": value}
		l.says(pm)
		return l.take()
	}
	for value, backlog := range map[string]bool{"1": true, "2m": true, "30s": true, "0": false, "0s": false} {
		sent := rewind(&wire.ProtocolMessage{}, value)
		if got := sent[0].Flags.Has(wire.FlagHasBacklog); got != backlog || (len(sent) > 1) != backlog || sent[0].Params["rewind"] != value {
			t.Errorf("rewind=%s: %+v and %d more", value, sent[0], len(sent)-1)
		}
	}
	if sent := rewind(&wire.ProtocolMessage{Flags: wire.FlagAttachResume}, "1"); len(sent) != 1 {
		t.Errorf("a client that was attached before gets %v", actions(sent))
	}
	for _, value := range []string{"", "x", "-1", "1h", "s", "1.5", "1 s"} {
		sent := rewind(&wire.ProtocolMessage{}, value)
		if len(sent) != 1 || sent[0].Action != wire.ActionError || sent[0].Error.Code != 40003 {
			t.Errorf("rewind=%q: %v", value, actions(sent))
		}
	}
}

func TestOnlySessionsWithATransportAreSentAway(t *testing.T) {
	n := newNode(t)
	lost, open := n.connect(t, ""), n.connect(t, "")
	key := lost.only(t, wire.ActionConnected).ConnectionKey
	lost.session.TransportClosed()
	if all := n.Sessions(); len(all) != 1 || all[0] != open.session {
		t.Errorf("%d sessions", len(all))
	}
	n.connect(t, "resume="+key)
	if all := n.Sessions(); len(all) != 2 {
		t.Errorf("%d sessions after the resume", len(all))
	}
}

func TestARequestOfAConnectionWithTLSNeedsTLS(t *testing.T) {
	n := newNode(t)
	l := n.connect(t, "")
	key := l.only(t, wire.ActionConnected).ConnectionKey
	for secure, want := range map[bool]pubsub.Code{true: 0, false: pubsub.CodeTLSRequired} {
		carrier, err := n.Carrier(t.Context(), &session.Request{Query: url.Values{}, Peer: auth.Peer{Local: true, Secure: secure}}, key)
		if want == 0 && (err != nil || carrier != session.Transport(l)) || want != 0 && pubsub.ErrorFor(err).Code != want {
			t.Errorf("secure %v: got %v, %v", secure, carrier, err)
		}
	}
}
