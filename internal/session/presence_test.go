package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

// present is a PRESENCE about one client.
func present(channel string, msgSerial int64, action pubsub.PresenceAction, clientID, data string) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionPresence, Channel: channel, HasChannel: true, MsgSerial: msgSerial,
		Presence: []*pubsub.PresenceMessage{{Action: action, ClientID: clientID, Data: pubsub.Text(data)}}}
}

func detach(channel string) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionDetach, Channel: channel, HasChannel: true}
}

// story writes what was sent, presence as "<what> <clientId>=<data>".
func story(pms []*wire.ProtocolMessage) string {
	var s []string
	for _, pm := range pms {
		text := pm.Action.String()
		if pm.Flags.Has(wire.FlagHasPresence) {
			text += "+"
		}
		for _, m := range pm.Presence {
			text += fmt.Sprintf(" %s %s=%s", [...]string{"absent", "present", "enter", "leave", "update"}[m.Action], m.ClientID, m.Data.Bytes)
		}
		s = append(s, text)
	}
	return strings.Join(s, ", ")
}

func (l *line) tells(t *testing.T, want string) []*wire.ProtocolMessage {
	t.Helper()
	sent := l.take()
	if got := story(sent); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	return sent
}

// watcher is a connection that is attached to a channel.
func (n *node) watcher(t *testing.T, channel string) *line {
	t.Helper()
	l := n.connect(t, "")
	l.says(attach(channel))
	l.take()
	return l
}

func TestALostConnectionLeavesAfterItsGraceTime(t *testing.T) {
	for query, grace := range map[string]time.Duration{
		"": 15 * time.Second, "remainPresentFor=3000": 3 * time.Second, "remainPresentFor=10": time.Second,
		"remainPresentFor=-1": time.Second, "remainPresentFor=never": 15 * time.Second,
		"remainPresentFor=300000":     5 * time.Minute, // longer than the connection can be resumed
		"remainPresentFor=2147483647": 24 * time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t)
			n.run(t)
			w := n.watcher(t, "a")
			l := n.connect(t, query)
			l.says(attach("a"), present("a", 0, pubsub.PresenceEnter, "anna", "x"))
			w.tells(t, "PRESENCE enter anna=x")
			l.session.TransportClosed()
			time.Sleep(grace - time.Millisecond)
			synctest.Wait()
			w.tells(t, "")
			time.Sleep(time.Millisecond)
			synctest.Wait()
			left := w.tells(t, "PRESENCE leave anna=x")
			if len(left) == 1 && strings.HasPrefix(left[0].ID, left[0].ConnectionID) {
				t.Errorf("the leave has the connection's id %q", left[0].ID)
			}
		})
	}
}

func TestAConnectionThatComesBackInTimeHasNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.run(t)
		w := n.watcher(t, "a")
		l := n.connect(t, "")
		key := l.only(t, wire.ActionConnected).ConnectionKey
		l.says(attach("a"), present("a", 0, pubsub.PresenceEnter, "anna", "x"))
		w.take()
		for range 3 {
			l.session.TransportClosed()
			time.Sleep(14 * time.Second)
			l = n.connect(t, "resume="+key)
			key = l.only(t, wire.ActionConnected).ConnectionKey
			l.says(attach("a"))
			l.tells(t, "ATTACHED+, SYNC present anna=x")
			time.Sleep(20 * time.Second)
			synctest.Wait()
			w.tells(t, "")
		}
		// Its members are still known to be there.
		l.says(&wire.ProtocolMessage{Action: wire.ActionClose})
		w.tells(t, "PRESENCE leave anna=x")
	})
}

func TestAConnectionThatComesBackLateEntersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.run(t)
		w := n.watcher(t, "a")
		l := n.connect(t, "")
		connected := l.only(t, wire.ActionConnected)
		l.says(attach("a"), present("a", 0, pubsub.PresenceEnter, "anna", "x"))
		l.session.TransportClosed()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		w.tells(t, "PRESENCE enter anna=x, PRESENCE leave anna=x")
		l = n.connect(t, "resume="+connected.ConnectionKey)
		if id := l.only(t, wire.ActionConnected).ConnectionID; id != connected.ConnectionID {
			t.Fatalf("connection %q became %q", connected.ConnectionID, id)
		}
		again := present("a", 1, pubsub.PresenceEnter, "anna", "x")
		again.Presence[0].ID = connected.ConnectionID + ":0:0"
		l.says(attach("a"), again)
		back := w.tells(t, "PRESENCE enter anna=x")
		if len(back) == 1 && back[0].Presence[0].ID != connected.ConnectionID+":0:0" {
			t.Errorf("the id became %q", back[0].Presence[0].ID)
		}
		l.session.TransportClosed()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		w.tells(t, "PRESENCE leave anna=x")
	})
}

func TestAConnectionThatEndsLeavesAtOnce(t *testing.T) {
	n := newNode(t)
	w := n.watcher(t, "a")
	l := n.connect(t, "")
	l.says(attach("a"), present("a", 0, pubsub.PresenceEnter, "anna", "x"))
	l.says(&wire.ProtocolMessage{Action: wire.ActionAuth, Auth: &wire.Auth{AccessToken: "refused"}})
	w.take()
	l.session.TransportClosed()
	w.tells(t, "PRESENCE leave anna=x")
}

// RTN19b
func TestADetachOverAResumedTransportLetsTheMembersLeave(t *testing.T) {
	n := newNode(t)
	w := n.watcher(t, "a")
	first := n.connect(t, "clientId=anna")
	connected := first.only(t, wire.ActionConnected)
	first.says(attach("a"), present("a", 0, pubsub.PresenceEnter, "anna", "x"))
	w.tells(t, "PRESENCE enter anna=x")
	first.session.TransportClosed()
	second := n.connect(t, "clientId=anna&resume="+connected.ConnectionKey)
	second.take()
	second.says(detach("a"))
	second.tells(t, "DETACHED")
	w.tells(t, "PRESENCE leave anna=x")
}

func TestMembersStayWhileOneNameOfTheirChannelIsAttached(t *testing.T) {
	n := newNode(t)
	w := n.watcher(t, "a")
	l := n.connect(t, "")
	l.says(attach("a"), attach("[?rewind=1]a"), attach("b"))
	l.says(present("a", 0, pubsub.PresenceEnter, "anna", "x"), present("[?rewind=1]a", 1, pubsub.PresenceEnter, "ben", "y"))
	w.tells(t, "PRESENCE enter anna=x, PRESENCE enter ben=y")
	l.says(detach("a"), detach("b"))
	w.tells(t, "")
	l.take()
	l.says(detach("[?rewind=1]a"))
	l.tells(t, "DETACHED")
	w.tells(t, "PRESENCE leave anna=x leave ben=y")
	l.says(detach("a"))
	w.tells(t, "")
}

// meddling is an engine in whose readings of records something happens.
type meddling struct {
	engine.Engine
	during func()
	fails  atomic.Bool
}

func (m *meddling) Records(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, after string, limit int) ([]engine.Record, error) {
	if m.fails.Load() {
		return nil, engine.ErrUnavailable
	}
	records, err := m.Engine.Records(ctx, id, space, after, limit)
	if during := m.during; during != nil {
		m.during = nil
		during()
	}
	return records, err
}

func newMeddling() (*meddling, func(*session.Options, *hub.Options)) {
	m := &meddling{Engine: enginememory.NewStore(enginememory.Options{}).Node("n1")}
	return m, func(_ *session.Options, h *hub.Options) { h.Engine = m }
}

func TestEventsComeAfterTheSyncThatTheyMayChange(t *testing.T) {
	m, with := newMeddling()
	n := newNode(t, with)
	other := n.watcher(t, "a")
	other.says(present("a", 0, pubsub.PresenceEnter, "stays", "1"), present("a", 1, pubsub.PresenceEnter, "leaves", "1"))
	next := int64(2)
	meddle := func() {
		other.says(present("a", next, pubsub.PresenceUpdate, "stays", "2"), present("a", next+1, pubsub.PresenceLeave, "leaves", "1"),
			present("a", next+2, pubsub.PresenceEnter, "comes", "1"), message("a", next+3))
		next += 4
	}
	l := n.connect(t, "")
	l.take()
	m.during = meddle
	l.says(attach("a"))
	const changes = "PRESENCE update stays=2, PRESENCE leave leaves=1, PRESENCE enter comes=1, MESSAGE"
	l.tells(t, "ATTACHED+, SYNC present leaves=1 present stays=1, "+changes)

	// Likewise when the client asks for it, and when its options change.
	other.says(present("a", next, pubsub.PresenceEnter, "leaves", "1"), present("a", next+1, pubsub.PresenceLeave, "comes", "1"))
	next += 2
	l.take()
	m.during = meddle
	l.says(&wire.ProtocolMessage{Action: wire.ActionSync, Channel: "a", HasChannel: true})
	l.tells(t, "SYNC present leaves=1 present stays=2, "+changes)

	other.says(present("a", next, pubsub.PresenceEnter, "leaves", "1"), present("a", next+1, pubsub.PresenceLeave, "comes", "1"))
	next += 2
	l.take()
	m.during = meddle
	options := attach("a")
	options.Flags = wire.Flags(pubsub.ModeSubscribe | pubsub.ModePresenceSubscribe)
	l.says(options)
	l.tells(t, "ATTACHED+, SYNC present leaves=1 present stays=2, "+changes)
}

// RTL13a
func TestAnAttachmentWhoseMembersCannotBeReadIsToBeTriedAgain(t *testing.T) {
	m, with := newMeddling()
	n := newNode(t, with)
	l := n.watcher(t, "a")
	m.fails.Store(true)
	l.says(attach("b"), attach("a"), &wire.ProtocolMessage{Action: wire.ActionSync, Channel: "a", HasChannel: true})
	for _, pm := range l.tells(t, "DETACHED, DETACHED") {
		if pm.Error == nil || pm.Error.Code != int(pubsub.CodeUnavailable) {
			t.Errorf("got %+v", pm)
		}
	}
	m.fails.Store(false)
	l.says(attach("a"), attach("b"), message("a", 0))
	l.tells(t, "ATTACHED, ATTACHED, ACK, MESSAGE")
}

func TestMembersThatCouldNotLeaveAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, with := newMeddling()
		n := newNode(t, with)
		n.run(t)
		w := n.watcher(t, "a")
		closing, lost := n.connect(t, ""), n.connect(t, "")
		closing.says(attach("a"), present("a", 0, pubsub.PresenceEnter, "closing", ""))
		lost.says(attach("a"), present("a", 0, pubsub.PresenceEnter, "lost", ""))
		w.take()
		m.fails.Store(true)
		closing.says(&wire.ProtocolMessage{Action: wire.ActionClose})
		closing.session.TransportClosed()
		lost.session.TransportClosed()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		w.tells(t, "")
		m.fails.Store(false)
		time.Sleep(60 * time.Second)
		synctest.Wait()
		sent := w.take()
		if got := story(sent); len(sent) != 2 || !strings.Contains(got, "leave closing=") || !strings.Contains(got, "leave lost=") {
			t.Errorf("got %s", got)
		}
	})
}

// RTL12, RTP18
func TestAfterALossTheMembersAreToldAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := &subscribed{Engine: enginememory.NewStore(enginememory.Options{}).Node("n1")}
		n := newNode(t, func(_ *session.Options, h *hub.Options) { h.Engine = spy })
		n.run(t)
		l := n.watcher(t, "a")
		l.says(present("a", 0, pubsub.PresenceEnter, "anna", "x"))
		l.take()
		position := pubsub.MakeSerial(time.Now().UnixMilli()+1, 0, "abcdefgh")
		spy.to.Lost(position)
		spy.to.Flush()
		synctest.Wait()
		told := l.tells(t, "ATTACHED+, SYNC present anna=x")
		if len(told) == 2 && (told[0].ChannelSerial != string(position) || told[0].Error == nil || told[0].Flags.Has(wire.FlagResumed)) {
			t.Errorf("got %+v", told[0])
		}
		// It is not told to a channel that was detached meanwhile.
		spy.to.Lost(position)
		spy.to.Flush()
		l.says(detach("a"))
		synctest.Wait()
		if sent := l.take(); sent[len(sent)-1].Action != wire.ActionDetached {
			t.Errorf("got %s", story(sent))
		}
	})
}

// subscribed is an engine whose subscriber a test gets at.
type subscribed struct {
	engine.Engine
	to engine.Subscriber
}

func (s *subscribed) Subscribe(ctx context.Context, id pubsub.ChannelID, to engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	s.to = to
	return s.Engine.Subscribe(ctx, id, to)
}

func TestPresenceIsAcknowledgedInItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deferring{Engine: enginememory.NewStore(enginememory.Options{}).Node("n1"), fail: func(n int) error {
			if n == 2 {
				return engine.ErrUnavailable
			}
			return nil
		}}
		n := newNode(t, func(_ *session.Options, h *hub.Options) { h.Engine = d })
		l := n.connect(t, "")
		l.says(attach("a"))
		l.take()
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.says(message("a", 0), present("a", 1, pubsub.PresenceEnter, "anna", ""), present("a", 2, pubsub.PresenceEnter, "ben", ""))
		}()
		synctest.Wait()
		if d.held() != 2 {
			t.Fatalf("%d outcomes are open", d.held())
		}
		d.take(1)() // of the first presence, before that of the message
		synctest.Wait()
		d.take(1)()
		<-done
		for _, pm := range l.take() {
			if pm.Action == wire.ActionAck || pm.Action == wire.ActionNack {
				t.Errorf("acknowledged before the message: %+v", pm)
			}
		}
		d.take(0)()
		answers := l.take()
		if len(answers) != 2 || answers[0].Action != wire.ActionAck || answers[0].Count != 2 || answers[0].MsgSerial != 0 ||
			answers[1].Action != wire.ActionNack || answers[1].MsgSerial != 2 || answers[1].Error.Code != int(pubsub.CodeUnavailable) {
			t.Errorf("got %+v", answers)
		}
	})
}

// RTP18a-b
func TestASyncComesInPagesOfBoundedSize(t *testing.T) {
	n := newNode(t)
	l := n.watcher(t, "a")
	for i := range 250 {
		l.says(present("a", int64(i), pubsub.PresenceEnter, fmt.Sprintf("c%03d", i), strings.Repeat("x", 10*(i%200))))
	}
	var cursors []string
	seen := 0
	other := n.connect(t, "")
	other.take()
	other.says(attach("a"))
	for _, pm := range other.take()[1:] {
		sequence, cursor, _ := strings.Cut(pm.ChannelSerial, ":")
		if pm.Action != wire.ActionSync || sequence == "" || len(pm.Presence) == 0 || len(pm.Presence) > 100 {
			t.Errorf("got %v with %q and %d members", pm.Action, pm.ChannelSerial, len(pm.Presence))
		}
		if size := len(wire.Append(nil, wire.JSON, pm)); size >= 64<<10 {
			t.Errorf("a page of %d bytes", size)
		}
		cursors = append(cursors, cursor)
		seen += len(pm.Presence)
	}
	if seen != 250 || len(cursors) < 7 || slices.Index(cursors, "") != len(cursors)-1 {
		t.Errorf("%d members in pages with the cursors %q", seen, cursors)
	}
}
