package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// LeaveRule says which members LeaveAll may take away.
type LeaveRule uint8

// The rules of LeaveAll.
const (
	// LeaveAnyway takes away whatever members there are: the connection has ended, or will
	// not enter meanwhile.
	LeaveAnyway LeaveRule = iota

	// LeaveUnchanged spares members that changed after they were first read: their
	// connection, which seemed lost, was resumed and has entered them again.
	LeaveUnchanged
)

// LeaveAll makes the members of a connection leave the given channels, which is told at
// once. It may be repeated. failed are the channels where they may still be, and err says
// why.
func (h *Hub) LeaveAll(ctx context.Context, connectionID string, channels []pubsub.ChannelID, rule LeaveRule) (failed []pubsub.ChannelID, err error) {
	for _, id := range channels {
		if e := h.leaveChannel(ctx, id, connectionID, rule); e != nil {
			failed = append(failed, id)
			err = errors.Join(err, fmt.Errorf("leave %s: %w", id, e))
		}
	}
	return failed, err
}

const (
	// maxLeavesPerEntry and maxLeaveBytes bound what leaves together, and so the size of
	// one frame.
	maxLeavesPerEntry = 100
	maxLeaveBytes     = 32 << 10
)

func (h *Hub) leaveChannel(ctx context.Context, id pubsub.ChannelID, connectionID string, rule LeaveRule) error {
	var first map[string]uint64 // the revisions that were read first
	for {
		left := 0
		err := h.settle(ctx, func(deadline time.Time) (*engine.Append, error) {
			members, err := h.membersOf(ctx, id, connectionID)
			if err != nil {
				return nil, err
			}
			if rule == LeaveUnchanged {
				if first == nil {
					first = make(map[string]uint64, len(members.byClient))
					for clientID, m := range members.byClient {
						first[clientID] = m.revision
					}
				}
				for clientID, m := range members.byClient {
					if first[clientID] != m.revision {
						delete(members.byClient, clientID)
					}
				}
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
// compare them by time, which is not before that of what the member did last (RTP2b1).
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

// fixtureConnection is the connectionId of members that belong to no connection.
const fixtureConnection = "fixture"

// LoadFixture makes members permanent ones of a channel of an app. Each has a clientId, and
// perhaps data, an encoding and extras; they are handed over.
func (h *Hub) LoadFixture(ctx context.Context, app, channel string, members []*pubsub.PresenceMessage) error {
	name, err := pubsub.ParseChannelName(channel)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return nil
	}
	id := name.ID(app)
	batch := &pubsub.Batch{ID: fixtureConnection + ":0", ConnectionID: fixtureConnection, Presence: members}
	err = h.settle(ctx, func(deadline time.Time) (*engine.Append, error) {
		before, err := h.membersOf(ctx, id, fixtureConnection)
		if err != nil {
			return nil, err
		}
		for i, m := range members {
			m.Action, m.ConnectionID, m.Timestamp = pubsub.PresenceEnter, fixtureConnection, 0
			m.ID = pubsub.ItemID(batch.ID, i)
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
