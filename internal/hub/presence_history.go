package hub

import (
	"context"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// PresenceHistoryPage is a part of a channel's presence events.
type PresenceHistoryPage struct {
	Events []*pubsub.PresenceMessage // shared: callers must not change them
	Next   string                    // the Cursor of the next page; empty if this is the last
}

// PresenceHistory returns a page of the channel's presence events as subscribers received
// them, newest first unless q.Forwards (RSP4a). Errors are those of Messages.
func (h *Hub) PresenceHistory(ctx context.Context, q *History) (*PresenceHistoryPage, error) {
	events, next, err := readItems(ctx, h, q, engine.KindPresence, presenceOf)
	if err != nil {
		return nil, err
	}
	return &PresenceHistoryPage{Events: events, Next: next}, nil
}

// presenceOf returns the presence events of e, complete.
func presenceOf(e *engine.Entry) []*pubsub.PresenceMessage {
	items := make([]*pubsub.PresenceMessage, len(e.Body.Presence))
	for i, m := range e.Body.Presence {
		c := *m
		c.Timestamp = e.Timestamp
		items[i] = &c
	}
	return items
}
