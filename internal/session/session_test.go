package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

// Whatever the order and the outcomes in which the store answers, every publish is
// acknowledged once, in the order of msgSerials, and no ACK covers one that was not sent. (RTN7a, RTN7b)
func TestAcknowledgementsAreCompleteInOrderAndNeverSpanAGap(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 7))
		failing := make(map[int]bool)
		store := &deferring{fail: func(n int) error {
			if failing[n] {
				return engine.ErrFull
			}
			return nil
		}}
		n := newNode(t, func(_ *session.Options, h *hub.Options) { store.Engine = h.Engine; h.Engine = store })
		l := n.connect(t, "")
		l.take()

		type outcome struct {
			code    pubsub.Code
			serials int
		}
		want := make(map[int64]outcome)
		var order []int64
		serial, appended := int64(random.IntN(3)), 0
		for range 1 + random.IntN(40) {
			for range 1 + random.IntN(6) { // a turn
				if random.IntN(5) == 0 {
					serial += int64(random.IntN(4)) // a gap
				}
				pm := message(fmt.Sprintf("c%d", random.IntN(3)), serial)
				w := outcome{serials: 1}
				switch random.IntN(8) {
				case 0: // refused before the store is asked
					pm.Channel = ":no"
					w = outcome{code: pubsub.CodeInvalidChannelName}
				case 1: // acknowledged without the store
					pm.Messages = []*pubsub.Message{}
					w = outcome{}
				case 2:
					failing[appended] = true
					appended++
					w = outcome{code: pubsub.CodeBusy}
				default:
					appended++
				}
				want[serial] = w
				order = append(order, serial)
				l.session.Handle(&l.turn, pm)
				serial++
				if held := store.held(); held > 0 && random.IntN(3) == 0 {
					store.take(random.IntN(held))()
				}
			}
			l.session.EndTurn(&l.turn)
			for store.held() > 0 && random.IntN(3) > 0 {
				store.take(random.IntN(store.held()))()
			}
		}
		for store.held() > 0 {
			store.take(random.IntN(store.held()))()
		}

		var acknowledged []int64
		for _, pm := range l.take() {
			if pm.Action == wire.ActionNack && (pm.Count != 1 || pm.Error == nil || len(pm.Res) != 0) || pm.Action == wire.ActionAck && (len(pm.Res) != pm.Count || pm.Error != nil) {
				t.Fatalf("seed %d: %v of %d with count %d, %d results, error %v", seed, pm.Action, pm.MsgSerial, pm.Count, len(pm.Res), pm.Error)
			}
			for i := range pm.Count {
				s := pm.MsgSerial + int64(i)
				w, sent := want[s]
				switch {
				case !sent:
					t.Fatalf("seed %d: %v from %d with count %d covers %d, which was never sent", seed, pm.Action, pm.MsgSerial, pm.Count, s)
				case pm.Action == wire.ActionNack && pubsub.Code(pm.Error.Code) != w.code:
					t.Fatalf("seed %d: %d was refused with %v, want %d", seed, s, pm.Error, w.code)
				case pm.Action == wire.ActionAck && (w.code != 0 || len(pm.Res[i].Serials) != w.serials):
					t.Fatalf("seed %d: %d was acknowledged with %v, want %+v", seed, s, pm.Res[i], w)
				}
				acknowledged = append(acknowledged, s)
			}
		}
		if !slices.Equal(acknowledged, order) {
			t.Fatalf("seed %d: acknowledged %v, sent %v", seed, acknowledged, order)
		}
		l.session.TransportClosed()
	}
}

func TestPublishesOfOneTurnAreAcknowledgedTogether(t *testing.T) {
	l := newNode(t).connect(t, "")
	l.take()
	var pms []*wire.ProtocolMessage
	for i := range 600 {
		pms = append(pms, message("c", int64(i)))
	}
	l.says(pms...)
	var counts []int
	for _, pm := range l.take() {
		counts = append(counts, pm.Count)
	}
	if !slices.Equal(counts, []int{256, 256, 88}) {
		t.Errorf("ACKs with counts %v", counts)
	}
}

func TestReadingWaitsWhileTooManyPublishesAreUnresolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(deferring)
		n := newNode(t, func(_ *session.Options, h *hub.Options) { store.Engine = h.Engine; h.Engine = store })
		l := n.connect(t, "")
		l.take()
		const most = 4096
		handled := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range most + 3 {
				l.says(message("c", int64(i)))
				handled++
			}
		}()
		synctest.Wait()
		if handled != most {
			t.Errorf("%d publishes were taken, want %d", handled, most)
		}
		store.take(0)() // the oldest
		synctest.Wait()
		if handled != most+1 {
			t.Errorf("after one answer %d publishes were taken, want %d", handled, most+1)
		}
		for store.held() > 0 {
			store.take(0)()
			synctest.Wait()
		}
		<-done
		for store.held() > 0 {
			store.take(0)()
		}
		total := 0
		for _, pm := range l.take() {
			total += pm.Count
		}
		if total != most+3 {
			t.Errorf("%d publishes were acknowledged", total)
		}
		l.session.TransportClosed()
	})
}

func grant(clientID string, expires time.Time) *auth.Grant {
	return &auth.Grant{App: "app", KeyName: "app.key", ClientRule: auth.ClientIdentified, ClientID: clientID, Capability: auth.FullCapability, Expires: expires}
}

func renew(token string) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionAuth, Auth: &wire.Auth{AccessToken: token}}
}

// RTN22, RTN22a
func TestATokenIsAskedForInTimeAndItsEndIsTheTransports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.tokens["t"] = grant("bob", time.Now().Add(100*time.Second))
		l := n.connect(t, "access_token=t")
		l.only(t, wire.ActionConnected)
		time.Sleep(70*time.Second - time.Millisecond)
		synctest.Wait()
		if sent := l.take(); len(sent) != 0 {
			t.Fatalf("sent too early: %v", actions(sent))
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		l.only(t, wire.ActionAuth)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		pm := l.only(t, wire.ActionDisconnected)
		if pm.Error.Code != 40142 || pm.Error.StatusCode != 401 || !strings.Contains(pm.Error.Message, "token expired") || !l.isClosed() {
			t.Errorf("%+v, closed: %v", pm.Error, l.isClosed())
		}
		l.session.TransportClosed()
	})
}

func TestAShortTokenIsNotAskedForAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.tokens["t"] = grant("bob", time.Now().Add(30*time.Second))
		l := n.connect(t, "access_token=t")
		l.only(t, wire.ActionConnected)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		l.only(t, wire.ActionDisconnected)
		l.session.TransportClosed()
	})
}

func TestARenewedTokenReplacesTheEndOfTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.tokens["old"] = grant("bob", time.Now().Add(60*time.Second))
		n.tokens["new"] = grant("bob", time.Now().Add(200*time.Second))
		l := n.connect(t, "access_token=old")
		first := l.only(t, wire.ActionConnected)
		l.says(renew("new"))
		second := l.only(t, wire.ActionConnected)
		if second.ConnectionID != first.ConnectionID || second.ConnectionKey != first.ConnectionKey || *second.ConnectionDetails != *first.ConnectionDetails {
			t.Errorf("CONNECTED changed from %+v to %+v", first, second)
		}
		time.Sleep(169 * time.Second)
		synctest.Wait()
		if sent := l.take(); len(sent) != 0 {
			t.Fatalf("sent %v", actions(sent))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		l.only(t, wire.ActionAuth)
		l.session.TransportClosed()
		time.Sleep(time.Hour)
		synctest.Wait()
		if sent := l.take(); len(sent) != 0 {
			t.Errorf("after the end of the transport %v was sent", actions(sent))
		}
	})
}

// RTC8a2
func TestARefusedTokenEndsTheConnection(t *testing.T) {
	n := newNode(t)
	n.tokens["bob"] = grant("bob", time.Now().Add(time.Hour))
	n.tokens["alice"] = grant("alice", time.Now().Add(time.Hour))
	elsewhere := grant("bob", time.Now().Add(time.Hour))
	elsewhere.KeyName = "app.other"
	n.tokens["other key"] = elsewhere
	for token, want := range map[string]int{"": 40101, "unknown": 40101, "alice": 40102, "other key": 40102} {
		l := n.connect(t, "access_token=bob")
		l.take()
		l.says(renew(token), attach("ignored"))
		pm := l.only(t, wire.ActionError)
		if pm.Error.Code != want || pm.HasChannel || !l.isClosed() {
			t.Errorf("token %q: %+v, closed: %v", token, pm, l.isClosed())
		}
		l.session.TransportClosed()
	}
}

func TestAnAttachmentKeepsWhatItAskedForAcrossGrants(t *testing.T) {
	n := newNode(t)
	wide := grant("bob", time.Time{})
	narrow := grant("bob", time.Time{})
	narrow.Capability, _ = auth.ParseCapability(`{"kept":["*"],"less":["subscribe"]}`)
	n.tokens["wide"], n.tokens["narrow"] = wide, narrow
	l := n.connect(t, "access_token=wide")
	l.says(attach("lost"), attach("kept"), attach("less"))
	l.take()
	l.says(renew("narrow"))
	sent := l.take()
	if !slices.Equal(actions(sent), []wire.Action{wire.ActionConnected, wire.ActionError, wire.ActionAttached}) || sent[1].Channel != "lost" ||
		sent[1].Error.Code != 40160 || sent[2].Channel != "less" || sent[2].Flags.Modes() != pubsub.ModeSubscribe|pubsub.ModePresenceSubscribe || !sent[2].Flags.Has(wire.FlagResumed) {
		t.Fatalf("got %v: %+v", actions(sent), sent)
	}
	l.says(message("less", 0), message("kept", 1))
	sent = l.take()
	if sent[0].Action != wire.ActionNack || sent[0].Error.Code != 40160 || sent[1].Action != wire.ActionAck {
		t.Fatalf("got %v", actions(sent))
	}
	l.says(renew("wide"))
	sent = l.take()
	if len(sent) != 2 || sent[1].Channel != "less" || sent[1].Flags.Modes() != pubsub.DefaultModes {
		t.Fatalf("got %v: %+v", actions(sent), sent)
	}
}

// RTL17
func TestWhatArrivesWhileAnAttachmentBeginsComesAfterAttached(t *testing.T) {
	n := newNode(t)
	l, other := n.connect(t, ""), n.connect(t, "")
	l.take()
	number := int64(0)
	l.releasing = func() {
		other.says(message("room", number))
		number++
	}
	for range 2 {
		l.says(attach("room"))
		sent := l.take()
		if !slices.Equal(actions(sent), []wire.Action{wire.ActionAttached, wire.ActionMessage}) {
			t.Fatalf("got %v", actions(sent))
		}
		if sent[0].ChannelSerial == "" || !sent[0].HasChannel {
			t.Errorf("ATTACHED is %+v", sent[0])
		}
		l.says(&wire.ProtocolMessage{Action: wire.ActionDetach, Channel: "room"})
		l.only(t, wire.ActionDetached)
	}
}

func TestAConnectionHasABoundedNumberOfChannels(t *testing.T) {
	n := newNode(t, limits(limit.Limits{ConnectionChannels: 2}))
	l := n.connect(t, "")
	l.take()
	l.says(attach("a"), attach("b"), attach("c"), attach("a"))
	sent := l.take()
	if !slices.Equal(actions(sent), []wire.Action{wire.ActionAttached, wire.ActionAttached, wire.ActionError, wire.ActionAttached}) || sent[2].Error.Code != 90010 || sent[2].Channel != "c" {
		t.Fatalf("got %v: %+v", actions(sent), sent)
	}
	l.says(&wire.ProtocolMessage{Action: wire.ActionDetach, Channel: "b"}, attach("c"))
	if sent := l.take(); !slices.Equal(actions(sent), []wire.Action{wire.ActionDetached, wire.ActionAttached}) {
		t.Fatalf("got %v", actions(sent))
	}
}

// CD2e, RTN15j
func TestAFloodEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, limits(limit.Limits{ConnectionProtocolMessages: 10}))
		l := n.connect(t, "")
		l.take()
		for range 40 {
			l.says(&wire.ProtocolMessage{Action: wire.ActionUnknown})
		}
		pm := l.only(t, wire.ActionError)
		if pm.Error.Code != 42924 || pm.Error.StatusCode != 429 || pm.HasChannel || !l.isClosed() {
			t.Errorf("%+v", pm.Error)
		}
	})
}

func TestWhatASteadyClientSendsIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, limits(limit.Limits{ConnectionProtocolMessages: 10}))
		l := n.connect(t, "")
		l.take()
		for range 100 {
			for range 5 {
				l.says(&wire.ProtocolMessage{Action: wire.ActionUnknown})
			}
			time.Sleep(time.Second)
		}
		if sent := l.take(); len(sent) != 0 {
			t.Errorf("got %v", actions(sent))
		}
		l.session.TransportClosed()
	})
}

func TestTheEndOfATransportFreesEverything(t *testing.T) {
	n := newNode(t)
	l := n.connect(t, "")
	l.says(attach("a"), attach("b"))
	other := n.connect(t, "")
	other.says(attach("a"))
	if n.Count() != 2 {
		t.Fatalf("%d sessions", n.Count())
	}
	l.take()
	l.session.TransportClosed()
	other.says(message("a", 0))
	if sent := l.take(); len(sent) != 0 {
		t.Errorf("%v was sent after the end", actions(sent))
	}
	if n.Count() != 1 {
		t.Errorf("%d sessions are left", n.Count())
	}
	other.session.TransportClosed()
	if n.Count() != 0 {
		t.Errorf("%d sessions are left", n.Count())
	}
}

// CSV2a, RTN2f
func TestOldProtocolVersionsAreRefused(t *testing.T) {
	n := newNode(t)
	for version, want := range map[string]pubsub.Code{
		"": 0, "2": 0, "3": 0, "5": 0, "6": 0, "99": 0, "2.0": 0,
		"1": 80024, "0": 80024, "1.2": 80024, "0.8": 80024,
		"six": 40017, "-1": 40017, ".5": 40017,
	} {
		_, err := n.tryConnect(t, "v="+version)
		var got pubsub.Code
		if err != nil {
			got = pubsub.ErrorFor(err).Code
		}
		if got != want {
			t.Errorf("version %q: got %d, want %d", version, got, want)
		}
	}
}

// RTN15h3, RTN17f1
func TestDrainAsksTheClientToComeBack(t *testing.T) {
	n := newNode(t)
	l := n.connect(t, "")
	l.take()
	for _, s := range n.Sessions() {
		s.Drain()
	}
	pm := l.only(t, wire.ActionDisconnected)
	if pm.Error.Code != 80003 || pm.Error.StatusCode != 400 || !l.isClosed() {
		t.Errorf("%+v", pm.Error)
	}
}

// RTN13a, RTN13e
func TestAPingIsAnsweredWithItsIDAndNotAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newNode(t).connect(t, "")
		l.take()
		l.says(&wire.ProtocolMessage{Action: wire.ActionHeartbeat, ID: "p"})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if sent := l.take(); len(sent) != 0 {
			t.Errorf("%v was sent within a millisecond, which some clients measure as none", actions(sent))
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if pm := l.only(t, wire.ActionHeartbeat); pm.ID != "p" {
			t.Errorf("id %q", pm.ID)
		}
		l.session.TransportClosed()
	})
}

// unreachable is an engine at which nothing can be subscribed to.
type unreachable struct{ engine.Engine }

func (unreachable) Subscribe(context.Context, pubsub.ChannelID, engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	return nil, "", engine.ErrUnavailable
}

// RTL13b
func TestAnAttachThatFailsForNowIsToBeTriedAgain(t *testing.T) {
	n := newNode(t, func(_ *session.Options, h *hub.Options) { h.Engine = unreachable{h.Engine} })
	l := n.connect(t, "")
	l.take()
	l.says(attach("a"))
	if pm := l.only(t, wire.ActionDetached); pm.Channel != "a" || !pm.HasChannel || pm.Error == nil || pm.Error.Code != int(pubsub.CodeUnavailable) {
		t.Errorf("got %+v", pm)
	}
}
