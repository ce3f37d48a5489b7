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
	for _, a := range e.Body.Annotations {
		if methodOf(a.Type) != methodNone {
			s.due[a.MessageSerial] = struct{}{}
		}
	}
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
		events, err := c.summariesOf(due)
		switch {
		case err == nil:
			failed = 0
			c.insert(events)
			c.Flush()
		case failed < summaryTries:
			failed++
			c.mu.Lock()
			if c.summaries.due == nil {
				c.summaries.due = due
			} else {
				maps.Copy(c.summaries.due, due)
			}
			c.mu.Unlock()
		default:
			failed = 0
			c.mu.Lock()
			position := c.position
			c.mu.Unlock()
			c.Lost(position)
			c.Flush()
		}
	}
}

// summariesOf reads how messages are annotated and makes the entries that tell it.
func (c *channel) summariesOf(serials map[string]struct{}) (events []*engine.Entry, err error) {
	h := c.hub
	ctx, cancel := context.WithTimeout(context.Background(), h.opts.AppendTimeout)
	defer cancel()
	for serial := range serials {
		m, _, err := h.current(ctx, c.id, serial)
		if gone := (*pubsub.Error)(nil); errors.As(err, &gone) {
			continue // its time is over
		}
		if err != nil {
			return nil, err
		}
		told := &pubsub.Message{Name: m.Name, EmptyName: m.EmptyName, Serial: serial, Action: pubsub.MessageSummary, Summary: []byte("{}")}
		if err := h.withSummary(ctx, c.id, told); err != nil {
			return nil, err
		}
		events = append(events, summaryEntry(told))
	}
	return events, nil
}

// summaryEntry tells how a message is annotated. It is no place in the channel's order.
func summaryEntry(m *pubsub.Message) *engine.Entry {
	return &engine.Entry{
		Kind: engine.KindSummary, Unlogged: true, Timestamp: time.Now().UnixMilli(),
		Body: &pubsub.Batch{ID: randomID() + ":0", Messages: []*pubsub.Message{m}},
	}
}
