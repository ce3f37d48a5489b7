package sdk

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ably/ably-go/ably"
)

// events collects the presence events of a channel that one watches.
type events chan *ably.PresenceMessage

func watchPresence(t *testing.T, channel *ably.RealtimeChannel) events {
	t.Helper()
	seen := make(events, 2*manyMembers)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	off, err := channel.Presence.SubscribeAll(ctx, func(m *ably.PresenceMessage) { seen <- m })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(off)
	return seen
}

func (e events) next(t *testing.T) *ably.PresenceMessage {
	t.Helper()
	select {
	case m := <-e:
		return m
	case <-time.After(patience):
		t.Fatal("the presence event does not come")
		return nil
	}
}

// is checks the next event.
func (e events) is(t *testing.T, action ably.PresenceAction, clientID string, data any) *ably.PresenceMessage {
	t.Helper()
	m := e.next(t)
	if m.Action != action || m.ClientID != clientID || fmt.Sprint(m.Data) != fmt.Sprint(data) {
		t.Errorf("got %v %q %v, want %v %q %v", m.Action, m.ClientID, m.Data, action, clientID, data)
	}
	return m
}

func present(t *testing.T, channel *ably.RealtimeChannel) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := channel.Presence.Get(ctx)
	if err != nil {
		t.Fatal(err)
	}
	set := make(map[string]any)
	for _, m := range members {
		set[m.ClientID] = m.Data
	}
	return set
}

func TestPresenceIsToldToAll(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		ctx := t.Context()
		name := unique("presence")
		watcher := s.connected(t, "").Channels.Get(name)
		seen := watchPresence(t, watcher)
		anna := s.connected(t, "", ably.WithClientID("anna"), ably.WithEchoMessages(false))
		own := anna.Channels.Get(name)
		ownSeen := watchPresence(t, own)
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check(own.Presence.Enter(ctx, "hello"))
		check(own.Presence.Update(ctx, "more"))
		check(own.Presence.EnterClient(ctx, "anna", "again"))
		check(own.Presence.Leave(ctx, nil))
		for _, e := range []events{seen, ownSeen} {
			m := e.is(t, ably.PresenceActionEnter, "anna", "hello")
			if m.ConnectionID != anna.Connection.ID() || !strings.HasPrefix(m.ID, m.ConnectionID+":") || m.Timestamp == 0 {
				t.Errorf("got %+v", m)
			}
			e.is(t, ably.PresenceActionUpdate, "anna", "more")
			if m := e.next(t); m.ClientID != "anna" || fmt.Sprint(m.Data) != "again" {
				t.Errorf("got %+v", m)
			}
			e.is(t, ably.PresenceActionLeave, "anna", "again")
		}
		if left := present(t, watcher); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
		if err := own.Presence.EnterClient(ctx, "*", "x"); err == nil {
			t.Error("the wildcard entered")
		}
	})
}

// manyMembers is as many as a channel has at most, by default.
const manyMembers = 1000

// RTP4, RTP18b
func TestManyMembersAreSynced(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		name := unique("presence")
		client := s.connected(t, "")
		channel := client.Channels.Get(name)
		seen := watchPresence(t, channel)
		want := make(map[string]any)
		failed := make(chan error, manyMembers)
		for i := range manyMembers {
			id := fmt.Sprintf("client%03d", i)
			want[id] = "data of " + id
			go func() { failed <- channel.Presence.EnterClient(t.Context(), id, "data of "+id) }()
		}
		for range manyMembers {
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
			seen.next(t)
		}
		other := s.connected(t, "").Channels.Get(name)
		if got := present(t, other); !maps.Equal(got, want) {
			t.Errorf("%d members", len(got))
		}
		otherSeen := watchPresence(t, s.connected(t, "").Channels.Get(name))
		for range manyMembers {
			otherSeen.next(t)
		}

		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		pages, err := s.rest(t, "").Channels.Get(name).Presence.Get(ably.GetPresenceWithLimit(100)).Items(ctx)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[string]any)
		for pages.Next(ctx) {
			if m := pages.Item(); m.Action != ably.PresenceActionPresent {
				t.Errorf("got %+v", m)
			}
			found[pages.Item().ClientID] = pages.Item().Data
		}
		if err := pages.Err(); err != nil || !maps.Equal(found, want) {
			t.Errorf("%d members over REST, %v", len(found), err)
		}

		wait := await(t, client, ably.ConnectionStateClosed)
		client.Close()
		wait()
		for range manyMembers {
			if m := otherSeen.next(t); m.Action != ably.PresenceActionLeave {
				t.Fatalf("got %+v", m)
			}
		}
	})
}

// RSP4a, RTP12d
func TestPresenceHistoryIsThereOverREST(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		name := unique("presence")
		channel := s.connected(t, "", ably.WithClientID("anna")).Channels.Get(name)
		for i := range 5 {
			if err := channel.Presence.Enter(ctx, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		var data []string
		items, err := s.rest(t, "").Channels.Get(name).Presence.History(ably.PresenceHistoryWithLimit(2)).Items(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for items.Next(ctx) {
			data = append(data, fmt.Sprint(items.Item().Data))
		}
		if err := items.Err(); err != nil || !slices.Equal(data, []string{"4", "3", "2", "1", "0"}) {
			t.Errorf("got %v, %v", data, err)
		}
	})
}
