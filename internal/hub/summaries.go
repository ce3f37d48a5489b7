package hub

import (
	"context"
	"errors"
	"maps"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

const (
	// summaryInterval is how often at most a message's summary is told while it is being
	// annotated. The first is told at once.
	summaryInterval = 100 * time.Millisecond

	// summaryTries is how often a summary is tried to be read; then those who are attached are
	// told that they have missed something.
	summaryTries = 5
)

// summaries is the messages of a channel that were annotated and whose summary those who are
// attached have not been told (TM8a). A goroutine tells it while there are any.
type summaries struct {
	due     map[string]struct{} // serials; guarded by channel.mu
	telling bool                // the goroutine is there; guarded by channel.mu
}

// noteAnnotationsLocked has the summaries of the messages told that an entry annotates.
func (c *channel) noteAnnotationsLocked(e *engine.Entry) {
	s := &c.summaries
	if s.due == nil {
		s.due = make(map[string]struct{})
	}
	noteAnnotated(s.due, []*engine.Entry{e})
	if !s.telling && len(s.due) > 0 {
		s.telling = true
		c.hub.fans.Go(c.tellSummaries)
	}
}

// tellSummaries tells what is due, and what becomes due while it waits for summaryInterval.
func (c *channel) tellSummaries() {
	for failed := 0; ; time.Sleep(summaryInterval) {
		c.mu.Lock()
		due := c.summaries.due
		c.summaries.due, c.summaries.telling = nil, len(due) > 0
		c.mu.Unlock()
		if len(due) == 0 {
			return
		}
		count := len(due)
		switch err := c.tell(due); {
		case err == nil || len(due) < count:
			failed = 0
		case failed < summaryTries:
			failed++
		default:
			failed = 0
			clear(due)
			c.mu.Lock()
			position := c.position
			c.mu.Unlock()
			c.Lost(position)
			c.Flush()
		}
		c.mu.Lock()
		if c.summaries.due == nil {
			c.summaries.due = due
		} else {
			maps.Copy(c.summaries.due, due)
		}
		c.mu.Unlock()
	}
}

// tell tells how the messages are annotated that have these serials, and removes them from due.
func (c *channel) tell(due map[string]struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.hub.opts.AppendTimeout)
	defer cancel()
	defer c.Flush()
	for serial := range due {
		e, err := c.summaryOf(ctx, serial)
		if err != nil {
			return err
		}
		delete(due, serial)
		if e == nil {
			continue
		}
		if c.crowded() {
			c.Flush()
			c.waitForRoom()
		}
		c.insert([]*engine.Entry{e})
	}
	return nil
}

// summaryOf makes the entry that tells how a message is annotated now, or nil if there is neither
// the message nor a summary any more.
func (c *channel) summaryOf(ctx context.Context, serial string) (*engine.Entry, error) {
	told := &pubsub.Message{Serial: serial, Action: pubsub.MessageSummary}
	if err := c.hub.withSummary(ctx, c.id, told); err != nil {
		return nil, err
	}
	m, _, err := c.hub.current(ctx, c.id, serial)
	gone := (*pubsub.Error)(nil)
	switch {
	case err == nil:
		told.Name, told.EmptyName = m.Name, m.EmptyName
	case !errors.As(err, &gone):
		return nil, err
	case told.Summary == nil:
		return nil, nil
	}
	if told.Summary == nil {
		told.Summary = []byte("{}")
	}
	return summaryEntry(told), nil
}

// summaryEntry tells how a message is annotated. It is no place in the channel's order.
func summaryEntry(m *pubsub.Message) *engine.Entry {
	return &engine.Entry{
		Kind: engine.KindSummary, Unlogged: true, Timestamp: time.Now().UnixMilli(),
		Body: &pubsub.Batch{ID: randomID() + ":0", Messages: []*pubsub.Message{m}},
	}
}
