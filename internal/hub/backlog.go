package hub

import (
	"context"
	"errors"
	"slices"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// The bounds of what an attachment is sent of the past.
const (
	// MaxRewind is the number of messages that a rewind goes back at most.
	MaxRewind = 100

	backlogPage     = 500     // entries read at a time
	maxBacklogBytes = 2 << 20 // of frames; a longer gap is told as lost
)

// Backlog is what an attachment missed, or asked to see again, in its own form.
type Backlog struct {
	Frames [][]byte      // in order; the receiver sends them before what it was holding back
	Err    *pubsub.Error // why something is missing, to tell the client; nil if nothing is
}

// Resume returns what the attachment missed since a position that its client knows: every
// entry after it up to Position. If that cannot be told completely there are no frames, and
// Err is CodeMessagesExpired (the position is no longer in the log, or never was),
// CodeOtherSite (it is of another incarnation of the log) or CodeBacklogTooLong.
func (a *Attachment) Resume(ctx context.Context, since pubsub.Serial) Backlog {
	var frames collector
	var sent tally
	size := 0
	for {
		page, err := a.channel.hub.opts.Engine.Read(ctx, a.channel.id, engine.Query{
			After: since, UpTo: a.position, Limit: backlogPage, Exact: true,
		})
		if err != nil {
			return Backlog{Err: discontinuity(err)}
		}
		for _, part := range a.render(page.Entries, &sent) {
			if size += len(part); size > maxBacklogBytes {
				return Backlog{Err: pubsub.NewError(pubsub.CodeBacklogTooLong, "too much was missed to be sent; read the history instead")}
			}
			frames = append(frames, part)
		}
		if !page.More {
			sent.count(a.channel.counts)
			return Backlog{Frames: frames}
		}
		since = page.Entries[len(page.Entries)-1].Serial
	}
}

// discontinuity is what a client is told when its position cannot be continued from.
func discontinuity(err error) *pubsub.Error {
	switch {
	case errors.Is(err, engine.ErrGone):
		return pubsub.NewError(pubsub.CodeMessagesExpired, "continuity lost: the messages since then have expired").Because(err)
	case errors.Is(err, engine.ErrForeign):
		return pubsub.NewError(pubsub.CodeOtherSite, "continuity lost: the server has lost the messages since then").Because(err)
	}
	return clientError(err)
}

// Rewind returns the last messages before Position: those of the last window of time, or
// the newest if window is zero; limit at most, and MaxRewind in any case. They leave a client
// at Position, where it is already. Err is CodeBacklogTooLong, as a warning, if the window
// had more.
func (a *Attachment) Rewind(ctx context.Context, window time.Duration, limit int) Backlog {
	limit = min(limit, MaxRewind)
	query := engine.Query{
		Kinds: engine.Kinds(engine.KindMessage), Backwards: true, UpTo: a.position, Limit: limit + 1,
	}
	if window > 0 {
		query.Start = time.Now().Add(-window).UnixMilli()
	}
	page, err := a.channel.hub.opts.Engine.Read(ctx, a.channel.id, query)
	if err != nil {
		return Backlog{Err: clientError(err)}
	}
	var past []*engine.Entry
	messages := 0
	for _, e := range page.Entries {
		if messages >= limit {
			break
		}
		messages += len(e.Body.Messages)
		// As of old, it is no place to resume from.
		seen := *e
		seen.Unlogged, seen.Prev = true, a.position
		past = append(past, &seen)
	}
	slices.Reverse(past)
	var sent tally
	b := Backlog{Frames: a.render(past, &sent)}
	sent.count(a.channel.counts)
	if window > 0 && len(past) < len(page.Entries) {
		b.Err = pubsub.Errorf(pubsub.CodeBacklogTooLong, "the rewind was cut to %d messages", limit)
	}
	return b
}

// render encodes entries in the attachment's form and returns what passes its filters, which
// it adds to sent.
func (a *Attachment) render(entries []*engine.Entry, sent *tally) [][]byte {
	p := parcel{batch: entries, first: a.start, mixed: true}
	for i, e := range entries {
		p.bytes, p.units = a.form.AppendFrames(p.bytes, p.units, e, i)
	}
	var frames collector
	p.receivers = make([]int32, len(p.units))
	a.sendSome(&p, &frames)
	sent.add(&p)
	return frames
}

// collector is a Receiver that keeps what it receives.
type collector [][]byte

// Receive implements Receiver.
func (c *collector) Receive(frames []byte, _ bool) { *c = append(*c, frames) }

// Lost implements Receiver.
func (c *collector) Lost(pubsub.Serial) {}
