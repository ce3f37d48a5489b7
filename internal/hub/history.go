package hub

import (
	"context"
	"math"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// History selects messages, or presence events, of a channel's log.
type History struct {
	Grant    *auth.Grant
	Channel  pubsub.ChannelName
	Start    int64         // ms, inclusive; zero: no bound
	End      int64         // ms, inclusive; zero: no bound
	Limit    int           // items, at least 1
	Forwards bool          // oldest first
	UpTo     pubsub.Serial // nothing after this position; empty: no bound

	// Cursor goes on after the item with this serial, in the direction of reading. It
	// is the Next of the page before, and stays valid while messages arrive.
	Cursor string
}

// HistoryPage is a part of a channel's history.
type HistoryPage struct {
	Messages []*pubsub.Message // shared: callers must not change them
	Next     string            // the Cursor of the next page; empty if this is the last
}

// Messages returns a page of the channel's messages, newest first unless q.Forwards (RSL2a).
// Each is as it is now, in the place where it was published.
//
// Errors are *pubsub.Error: CodeCapabilityDenied, CodeInvalidParameterValue,
// CodeUnavailable.
func (h *Hub) Messages(ctx context.Context, q *History) (*HistoryPage, error) {
	items, next, err := readItems(ctx, h, q, engine.KindMessage, delivered)
	if err != nil {
		return nil, err
	}
	if rule := h.opts.Namespace(q.Grant.App, q.Channel.Base); rule.MutableMessages {
		if _, err := h.renew(ctx, q.Channel.ID(q.Grant.App), items); err != nil {
			return nil, clientError(err)
		}
	}
	return &HistoryPage{Messages: items, Next: next}, nil
}

// readItems returns a page of items of one kind, which of takes from an entry, and the cursor
// of the next page.
func readItems[T any](ctx context.Context, h *Hub, q *History, kind engine.Kind, of func(*engine.Entry) []T) (items []T, next string, err error) {
	if !q.Grant.Allows(auth.OpHistory, q.Channel.Resource()) || q.Channel.Qualifier == "filter" {
		return nil, "", denied("read the history of", q.Channel)
	}
	id := q.Channel.ID(q.Grant.App)
	query := engine.Query{
		Kinds:     engine.Kinds(kind),
		Backwards: !q.Forwards,
		Limit:     q.Limit + 2, // the cursor's own entry, and one to know that more follows
		Start:     q.Start,
		End:       q.End,
		UpTo:      q.UpTo,
	}
	var cursors []string // of the items
	add := func(e *engine.Entry, from, to int) {
		all := of(e)
		to = min(to, len(all))
		for i := min(from, to); i < to; i++ {
			at := i
			if !q.Forwards {
				at = to - 1 - (i - from)
			}
			items = append(items, all[at])
			cursors = append(cursors, e.Serial.Item(at))
		}
	}
	if q.Cursor != "" {
		entry, index, err := pubsub.ParseItemSerial(q.Cursor)
		if err != nil {
			return nil, "", pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid cursor")
		}
		// The rest of the cursor's entry comes first, then the entries beyond it.
		e, err := h.entryAt(ctx, id, kind, entry)
		switch {
		case err != nil:
			return nil, "", err
		case e == nil: // trimmed meanwhile
		case q.Forwards:
			add(e, index+1, math.MaxInt)
		default:
			add(e, 0, index)
		}
		if q.Forwards {
			query.After = entry
		} else {
			query.Before = entry
		}
	}
	read, err := h.opts.Engine.Read(ctx, id, query)
	if err != nil {
		return nil, "", clientError(err)
	}
	for _, e := range read.Entries {
		add(e, 0, math.MaxInt)
	}
	if len(items) > q.Limit {
		return items[:q.Limit], cursors[q.Limit-1], nil
	}
	return items, "", nil
}

// entryAt returns the entry with a serial, or nil.
func (h *Hub) entryAt(ctx context.Context, id pubsub.ChannelID, kind engine.Kind, serial pubsub.Serial) (*engine.Entry, error) {
	ms, _, _, err := pubsub.ParseSerial(string(serial))
	if err != nil {
		return nil, pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid cursor")
	}
	read, err := h.opts.Engine.Read(ctx, id, engine.Query{
		Kinds: engine.Kinds(kind), Backwards: true, Limit: 1, UpTo: serial, Start: ms,
	})
	if err != nil {
		return nil, clientError(err)
	}
	if len(read.Entries) == 0 || read.Entries[0].Serial != serial {
		return nil, nil
	}
	return read.Entries[0], nil
}

// delivered returns the messages of e with all that a subscriber learns from the entry
// around them written out.
func delivered(e *engine.Entry) []*pubsub.Message {
	items := make([]*pubsub.Message, len(e.Body.Messages))
	for i := range e.Body.Messages {
		items[i] = deliveredItem(e, i)
	}
	return items
}

// deliveredItem is the i-th of them.
func deliveredItem(e *engine.Entry, i int) *pubsub.Message {
	m := *e.Body.Messages[i]
	if m.ID == "" {
		m.ID = pubsub.ItemID(e.Body.ID, i)
	}
	if m.Timestamp == 0 {
		m.Timestamp = e.Timestamp
	}
	if m.Serial == "" {
		m.Serial = e.Serial.Item(i)
	}
	var v pubsub.Version
	if m.Version != nil {
		v = *m.Version
	}
	if v.Serial == "" {
		v.Serial = e.Serial.Item(i)
	}
	if v.Timestamp == 0 {
		v.Timestamp = e.Timestamp
	}
	m.Version = &v
	return &m
}
