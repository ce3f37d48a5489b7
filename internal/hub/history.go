package hub

import (
	"context"
	"slices"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// History selects messages of a channel's log.
type History struct {
	Grant    *auth.Grant
	Channel  pubsub.ChannelName
	Start    int64         // ms, inclusive; zero: no bound
	End      int64         // ms, inclusive; zero: no bound
	Limit    int           // messages, at least 1
	Forwards bool          // oldest first
	UpTo     pubsub.Serial // nothing after this position; empty: no bound

	// Cursor goes on after the message with this serial, in the direction of reading. It
	// is the Next of the page before, and stays valid while messages arrive.
	Cursor string
}

// HistoryPage is a part of a channel's history.
type HistoryPage struct {
	Messages []*pubsub.Message // shared: callers must not change them
	Next     string            // the Cursor of the next page; empty if this is the last
}

// Messages returns a page of the channel's messages as subscribers received them, newest
// first unless q.Forwards.
//
// Errors are *pubsub.Error: CodeCapabilityDenied, CodeInvalidParameterValue,
// CodeUnavailable.
func (h *Hub) Messages(ctx context.Context, q *History) (*HistoryPage, error) {
	if !q.Grant.Allows(auth.OpHistory, q.Channel.Resource()) || q.Channel.Qualifier == "filter" {
		return nil, denied("read the history of", q.Channel)
	}
	query := engine.Query{
		Kinds:     engine.Kinds(engine.KindMessage),
		Backwards: !q.Forwards,
		Limit:     q.Limit + 2, // the cursor's own entry, and one to know that more follows
		Start:     q.Start,
		End:       q.End,
		UpTo:      q.UpTo,
	}
	page := new(HistoryPage)
	if q.Cursor != "" {
		entry, index, err := pubsub.ParseItemSerial(q.Cursor)
		if err != nil {
			return nil, pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid cursor")
		}
		// The rest of the cursor's entry comes first, then the entries beyond it.
		rest, err := h.restOfEntry(ctx, q, entry, index)
		if err != nil {
			return nil, err
		}
		page.Messages = rest
		if q.Forwards {
			query.After = entry
		} else {
			query.Before = entry
		}
	}
	read, err := h.opts.Engine.Read(ctx, q.channelID(), query)
	if err != nil {
		return nil, clientError(err)
	}
	for _, e := range read.Entries {
		page.Messages = append(page.Messages, q.itemsOf(e)...)
	}
	if len(page.Messages) > q.Limit {
		page.Messages = page.Messages[:q.Limit]
		page.Next = page.Messages[q.Limit-1].Serial
	}
	return page, nil
}

func (q *History) channelID() pubsub.ChannelID {
	return q.Channel.ID(q.Grant.App)
}

// itemsOf returns the messages of e in the direction of reading.
func (q *History) itemsOf(e *engine.Entry) []*pubsub.Message {
	items := delivered(e)
	if !q.Forwards {
		slices.Reverse(items)
	}
	return items
}

// restOfEntry returns the messages of one entry that come after the one at index, in the
// direction of reading.
func (h *Hub) restOfEntry(ctx context.Context, q *History, entry pubsub.Serial, index int) ([]*pubsub.Message, error) {
	ms, _, _, err := pubsub.ParseSerial(string(entry))
	if err != nil {
		return nil, pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid cursor")
	}
	read, err := h.opts.Engine.Read(ctx, q.channelID(), engine.Query{
		Kinds: engine.Kinds(engine.KindMessage), Backwards: true, Limit: 1, UpTo: entry, Start: ms,
	})
	if err != nil {
		return nil, clientError(err)
	}
	if len(read.Entries) == 0 || read.Entries[0].Serial != entry {
		return nil, nil // trimmed meanwhile
	}
	items := delivered(read.Entries[0])
	if q.Forwards {
		return items[min(index+1, len(items)):], nil
	}
	items = items[:min(index, len(items))]
	slices.Reverse(items)
	return items, nil
}

// delivered returns the messages of e with all that a subscriber learns from the entry
// around them written out.
func delivered(e *engine.Entry) []*pubsub.Message {
	items := make([]*pubsub.Message, len(e.Body.Messages))
	for i, m := range e.Body.Messages {
		c := *m
		if c.ID == "" {
			c.ID = pubsub.ItemID(e.Body.ID, i)
		}
		c.Timestamp = e.Timestamp
		if c.Serial == "" {
			c.Serial = e.Serial.Item(i)
		}
		if c.Version == nil {
			c.Version = &pubsub.Version{Serial: c.Serial, Timestamp: c.Timestamp}
		}
		items[i] = &c
	}
	return items
}
