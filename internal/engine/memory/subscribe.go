package memory

import (
	"context"
	"slices"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// subscription is one node's live delivery of one channel.
type subscription struct {
	channel *channel
	to      engine.Subscriber
}

// Subscribe begins live delivery. It fails only if the channel's Backing does.
func (e *Engine) Subscribe(_ context.Context, id pubsub.ChannelID, to engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	defer e.store.relieve() // of what the channel costs, if it is new
	c, err := e.store.lockLoaded(id)
	if err != nil {
		return nil, "", err
	}
	defer c.mu.Unlock()
	c.used = e.store.nowMillis()
	sub := &subscription{channel: c, to: to}
	c.subs = append(c.subs, sub)
	return sub, c.tail, nil
}

// Unsubscribe waits for the channel's lock, under which Deliver runs.
func (s *subscription) Unsubscribe() {
	c := s.channel
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.subs, s); i >= 0 {
		c.subs = slices.Delete(c.subs, i, i+1)
		c.used = c.store.nowMillis()
	}
}
