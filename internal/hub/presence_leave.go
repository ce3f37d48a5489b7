package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// LeaveAll makes the members of a connection, which has ended or does not enter meanwhile,
// leave the given channels. It is told at once. It may be repeated. failed are the channels
// where members may still be, and err says why.
func (h *Hub) LeaveAll(ctx context.Context, connectionID string, channels []pubsub.ChannelID) (failed []pubsub.ChannelID, err error) {
	for _, id := range channels {
		if e := h.leaveChannel(ctx, id, connectionID, nil); e != nil {
			failed = append(failed, id)
			err = errors.Join(err, fmt.Errorf("leave %s: %w", id, e))
		}
	}
	return failed, err
}

// Leaving is the members of a connection that seems lost, as they were when they were read.
// It lets them go without a race against the connection's resume:
//
//  1. Hub.Leaving reads them,
//  2. the directory marks the connection as reaped, which fails if it was resumed,
//  3. Leave lets go those that are as they were.
//
// A resume that comes after the second step finds the mark. What it enters again is put
// again (Presence.Returned), and so is not as it was.
type Leaving struct {
	hub          *Hub
	connectionID string
	revisions    map[pubsub.ChannelID]map[string]uint64 // by clientId
}

// Leaving reads the members of a connection in the given channels.
func (h *Hub) Leaving(ctx context.Context, connectionID string, channels []pubsub.ChannelID) (*Leaving, error) {
	l := &Leaving{h, connectionID, make(map[pubsub.ChannelID]map[string]uint64, len(channels))}
	for _, id := range channels {
		members, err := h.membersOf(ctx, id, connectionID)
		if err != nil {
			return nil, clientError(err)
		}
		if len(members.byClient) == 0 {
			continue
		}
		l.revisions[id] = make(map[string]uint64, len(members.byClient))
		for clientID, m := range members.byClient {
			l.revisions[id][clientID] = m.revision
		}
	}
	return l, nil
}

// Leave lets the members go that have not changed since they were read. It may be repeated
// after an error.
func (l *Leaving) Leave(ctx context.Context) (err error) {
	for id, revisions := range l.revisions {
		if e := l.hub.leaveChannel(ctx, id, l.connectionID, revisions); e != nil {
			err = errors.Join(err, fmt.Errorf("leave %s: %w", id, e))
		}
	}
	return err
}

const (
	// maxLeavesPerEntry and maxLeaveBytes bound what leaves together, and so the size of
	// one frame.
	maxLeavesPerEntry = 100
	maxLeaveBytes     = 32 << 10
)

// leaveChannel lets members go: all, or those with these revisions.
func (h *Hub) leaveChannel(ctx context.Context, id pubsub.ChannelID, connectionID string, revisions map[string]uint64) error {
	for {
		left := 0
		_, err := h.settle(ctx, func(ctx context.Context, deadline time.Time) (*engine.Append, error) {
			members, err := h.membersOf(ctx, id, connectionID)
			if err != nil {
				return nil, err
			}
			if revisions != nil {
				maps.DeleteFunc(members.byClient, func(clientID string, m *memberChange) bool {
					return revisions[clientID] != m.revision
				})
			}
			var a *engine.Append
			if a, left = members.leave(); a == nil {
				return nil, nil
			}
			a.Channel, a.Deadline = id, deadline
			return a, nil
		})
		if err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		if c := h.lookup(id); c != nil {
			c.Flush()
		}
	}
}

// leave makes the Append by which the first of the members leave, and says how many. The
// leaves are synthesised: their ids do not begin with the connection's, so that clients
// compare them by time, which is not before that of what the member did last (RTP2b1), and
// enter such members again (RTP17b).
func (m membersOf) leave() (a *engine.Append, count int) {
	clients := make([]string, 0, len(m.byClient))
	for clientID := range m.byClient {
		clients = append(clients, clientID)
	}
	slices.Sort(clients)
	batch := &pubsub.Batch{ID: "leave-" + randomID() + ":0", ConnectionID: m.connectionID}
	bytes := 0
	for _, clientID := range clients {
		c := m.byClient[clientID]
		size := c.now.Size()
		if n := len(batch.Presence); n == maxLeavesPerEntry || n > 0 && bytes+size > maxLeaveBytes {
			break
		}
		bytes += size
		item := *c.now
		item.Action = pubsub.PresenceLeave
		item.ID, item.Timestamp = pubsub.ItemID(batch.ID, len(batch.Presence)), 0
		batch.Presence = append(batch.Presence, &item)
		c.now, c.changed = nil, true
	}
	if len(batch.Presence) == 0 {
		return nil, 0
	}
	a = &engine.Append{Entries: []engine.Draft{{Kind: engine.KindPresence, Body: batch}}}
	m.put(a)
	return a, len(batch.Presence)
}

// UnloadFixture makes what LoadFixture made leave.
func (h *Hub) UnloadFixture(ctx context.Context, app, channel string) error {
	name, err := pubsub.ParseChannelName(channel)
	if err != nil {
		return err
	}
	if err := h.leaveChannel(ctx, name.ID(app), fixtureConnection, nil); err != nil {
		return clientError(err)
	}
	return nil
}

// fixtureConnection is the connectionId of members that belong to no connection.
const fixtureConnection = "fixture"

// LoadFixture makes members permanent ones of a channel of an app. Each has a clientId, and
// perhaps data, an encoding and extras; the rest is not looked at.
func (h *Hub) LoadFixture(ctx context.Context, app, channel string, members []*pubsub.PresenceMessage) error {
	name, err := pubsub.ParseChannelName(channel)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return nil
	}
	id := name.ID(app)
	batch := &pubsub.Batch{ID: fixtureConnection + ":0", ConnectionID: fixtureConnection}
	for i, m := range members {
		batch.Presence = append(batch.Presence, &pubsub.PresenceMessage{
			ID: pubsub.ItemID(batch.ID, i), Action: pubsub.PresenceEnter, ClientID: m.ClientID, ConnectionID: fixtureConnection,
			Data: m.Data, Encoding: m.Encoding, Extras: m.Extras,
		})
	}
	_, err = h.settle(ctx, func(ctx context.Context, deadline time.Time) (*engine.Append, error) {
		before, err := h.membersOf(ctx, id, fixtureConnection)
		if err != nil {
			return nil, err
		}
		for _, m := range batch.Presence {
			c := before.get(m.ClientID)
			c.now, c.changed = m, true
		}
		a := &engine.Append{Channel: id, Entries: []engine.Draft{{Kind: engine.KindPresence, Body: batch}}, Deadline: deadline}
		before.put(a)
		return a, nil
	})
	if err != nil {
		return clientError(err)
	}
	if c := h.lookup(id); c != nil {
		c.Flush()
	}
	return nil
}
