package hub_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// presenceLines is a form that writes presence entries as lines of JSON.
type presenceLines struct{}

func (presenceLines) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if e.Kind != engine.KindPresence {
		return dst, units
	}
	dst = wire.AppendPresencePM(dst, wire.JSON, "room", wire.Entry{
		Serial: e.Serial, Position: e.Position(), Timestamp: e.Timestamp, Batch: e.Body,
	})
	dst = append(dst, '\n')
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// watcher is a client that knows members from SYNCs and events, and applies them by the
// rules of clients (RTP2b1-2, RTP18a-b, RTP19).
type watcher struct {
	inbox
	at    *hub.Attachment
	known map[string]*pubsub.PresenceMessage // by connectionId and clientId
}

func watch(t testing.TB, h *hub.Hub, a hub.Attach) *watcher {
	t.Helper()
	w := &watcher{known: make(map[string]*pubsub.PresenceMessage)}
	a.Form, a.Receiver = presenceLines{}, w
	w.at = attach(t, h, a)
	w.sync(t)
	return w
}

// events takes what was received.
func (w *watcher) events(t testing.TB) (all []*pubsub.PresenceMessage) {
	t.Helper()
	w.mu.Lock()
	text := w.text
	w.text = nil
	w.mu.Unlock()
	for line := range bytes.Lines(text) {
		pm, err := wire.Decode(wire.JSON, bytes.TrimSpace(line))
		if err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		pm.Inherit()
		all = append(all, pm.Presence...)
	}
	return all
}

// catchUp applies what was received, and returns it.
func (w *watcher) catchUp(t testing.TB) []*pubsub.PresenceMessage {
	t.Helper()
	all := w.events(t)
	for _, m := range all {
		w.apply(t, m)
	}
	return all
}

func (w *watcher) apply(t testing.TB, m *pubsub.PresenceMessage) {
	if m.ID == "" || m.ConnectionID == "" || m.ClientID == "" || m.Timestamp == 0 {
		t.Errorf("incomplete: %+v", m)
	}
	key := m.ConnectionID + ":" + m.ClientID
	if old := w.known[key]; old != nil && !newerToClients(m, old) {
		return
	}
	if m.Action == pubsub.PresenceLeave {
		delete(w.known, key)
	} else {
		w.known[key] = m
	}
}

// newerToClients is the rule by which clients tell which event is the newer one (RTP2b1-2).
func newerToClients(m, old *pubsub.PresenceMessage) bool {
	serial, index, ok := eventID(m)
	oldSerial, oldIndex, oldOK := eventID(old)
	if !ok || !oldOK {
		return m.Timestamp >= old.Timestamp
	}
	return serial > oldSerial || serial == oldSerial && index > oldIndex
}

func eventID(m *pubsub.PresenceMessage) (serial, index int, ok bool) {
	parts := strings.Split(m.ID, ":")
	if len(parts) != 3 || parts[0] != m.ConnectionID {
		return 0, 0, false
	}
	serial, err1 := strconv.Atoi(parts[1])
	index, err2 := strconv.Atoi(parts[2])
	return serial, index, err1 == nil && err2 == nil
}

// sync reads the members as a SYNC tells them: what is received meanwhile comes after.
func (w *watcher) sync(t testing.TB) {
	t.Helper()
	w.catchUp(t)
	members, err := w.at.Members(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	left := maps.Clone(w.known)
	for _, m := range members {
		if m.Action != pubsub.PresencePresent {
			t.Errorf("a member with action %d", m.Action)
		}
		w.apply(t, m)
		delete(left, m.ConnectionID+":"+m.ClientID)
	}
	for key := range left {
		delete(w.known, key)
	}
	w.catchUp(t)
}

// set is what the watcher takes for the members.
func (w *watcher) set() map[string]string { return dataOf(slices.Collect(maps.Values(w.known))) }

func dataOf(members []*pubsub.PresenceMessage) map[string]string {
	set := make(map[string]string)
	for _, m := range members {
		set[m.ConnectionID+":"+m.ClientID] = string(m.Data.Bytes)
	}
	return set
}

// client is one connection that enters, updates and leaves, with what it thinks its members
// are: the truth.
type client struct {
	id      string
	serial  int64
	members map[string]*pubsub.PresenceMessage
}

func (c *client) do(t testing.TB, h *hub.Hub, returned bool, items ...*pubsub.PresenceMessage) {
	var turn hub.Turn
	p := &hub.Presence{Grant: anyone, Channel: name("room"), Items: items, ConnectionID: c.id, MsgSerial: c.serial, Returned: returned}
	c.serial++
	if err := h.Presence(context.Background(), &turn, p); err != nil {
		t.Errorf("presence: %v", err)
	}
	turn.End()
}

func (c *client) step(t testing.TB, r *rand.Rand, h *hub.Hub) {
	room := []pubsub.ChannelID{{App: "app", Name: "room"}}
	switch n := r.IntN(20); {
	case n < 14: // change some
		var items []*pubsub.PresenceMessage
		for range 1 + r.IntN(3) {
			m := &pubsub.PresenceMessage{
				ClientID: string(rune('a' + r.IntN(4))),
				Action:   pubsub.PresenceEnter + pubsub.PresenceAction(r.IntN(3)),
				Data:     pubsub.Text(fmt.Sprintf("%s-%d-%d", c.id, c.serial, len(items))),
			}
			items = append(items, m)
			if m.Action == pubsub.PresenceLeave {
				delete(c.members, m.ClientID)
			} else {
				kept := *m
				kept.ID = fmt.Sprintf("%s:%d:%d", c.id, c.serial, len(items)-1)
				c.members[m.ClientID] = &kept
			}
		}
		c.do(t, h, false, items...)
	case n < 16: // detach
		if _, err := h.LeaveAll(context.Background(), c.id, room); err != nil {
			t.Errorf("leave: %v", err)
		}
		clear(c.members)
	case n < 18: // resume in time: re-entry changes nothing
		c.do(t, h, false, c.again(r, 100)...)
	default: // resume too late: some members leave and some enter again at once
		lost, err := h.Leaving(context.Background(), c.id, room)
		if err != nil {
			t.Errorf("leaving: %v", err)
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := lost.Leave(context.Background()); err != nil {
				t.Errorf("leave: %v", err)
			}
		})
		back := c.again(r, 50)
		c.do(t, h, true, back...)
		wg.Wait()
		maps.DeleteFunc(c.members, func(clientID string, _ *pubsub.PresenceMessage) bool {
			return !slices.ContainsFunc(back, func(m *pubsub.PresenceMessage) bool { return m.ClientID == clientID })
		})
	}
}

// again returns re-entries of some of the members.
func (c *client) again(r *rand.Rand, percent int) (items []*pubsub.PresenceMessage) {
	for _, clientID := range slices.Sorted(maps.Keys(c.members)) {
		if r.IntN(100) < percent {
			m := *c.members[clientID]
			m.Action = pubsub.PresenceEnter
			items = append(items, &m)
		}
	}
	return items
}

func TestEverybodyEndsWithTheSameMembers(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { everybodyAgrees(t, seed) })
	}
}

func everybodyAgrees(t *testing.T, seed uint64) {
	// Time stands still on some seeds: then only ids and order tell what is newer.
	options := enginememory.Options{}
	if seed%2 == 0 {
		now := time.Now()
		options.Now = func() time.Time { return now }
	}
	store := enginememory.NewStore(options)
	rooms := directorymemory.NewStore(directorymemory.Options{})
	var hubs []*hub.Hub
	for _, node := range []directory.Node{{Name: "n1", Incarnation: "i"}, {Name: "n2", Incarnation: "i"}} {
		h := hub.New(hub.Options{Engine: store.Node(node.Name), Directory: rooms.Node(node), Node: node})
		defer h.Close()
		hubs = append(hubs, h)
	}
	var clients []*client
	var all sync.WaitGroup
	for i := range 5 {
		c := &client{id: fmt.Sprintf("conn%d", i), members: make(map[string]*pubsub.PresenceMessage)}
		clients = append(clients, c)
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 40 {
				c.step(t, r, hubs[r.IntN(2)]) // it may come back on another node
			}
		})
	}
	var watchers []*watcher
	for i := range 4 {
		w := watch(t, hubs[i%2], hub.Attach{ConnectionID: fmt.Sprintf("watcher%d", i)})
		defer w.at.Detach()
		watchers = append(watchers, w)
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for range 30 {
				if r.IntN(3) == 0 {
					w.sync(t)
				} else {
					w.catchUp(t)
				}
				runtime.Gosched()
			}
		})
	}
	own := watch(t, hubs[0], hub.Attach{ConnectionID: "conn0", Modes: pubsub.ModePresence, NoEcho: true})
	defer own.at.Detach()
	all.Wait()

	want := make(map[string]string)
	for _, c := range clients {
		for clientID, m := range c.members {
			want[c.id+":"+clientID] = string(m.Data.Bytes)
		}
	}
	for _, h := range hubs {
		// Deliveries to a node come within Append, and are sent when somebody ends a turn
		// there.
		var turn hub.Turn
		publish(t, h, &turn, hub.Publish{Messages: message("n", "x")})
		turn.End()
	}
	for i, h := range hubs {
		page, err := h.Members(t.Context(), &hub.Members{Grant: anyone, Channel: name("room"), Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if got := dataOf(page.Members); !maps.Equal(got, want) {
			t.Errorf("hub %d has %v, want %v", i, got, want)
		}
	}
	for i, w := range watchers {
		w.catchUp(t)
		if got := w.set(); !maps.Equal(got, want) {
			t.Errorf("watcher %d has %v, want %v", i, got, want)
		}
	}
	own.catchUp(t)
	maps.DeleteFunc(want, func(key, _ string) bool { return !strings.HasPrefix(key, "conn0:") })
	if got := own.set(); !maps.Equal(got, want) {
		t.Errorf("the connection itself has %v, want %v", got, want)
	}
}
