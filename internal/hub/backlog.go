package hub

import (
	"cmp"
	"context"
	"errors"
	"maps"
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
	maxSifted       = 1000    // messages that a filtered rewind looks through
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
	var last *reference
	size := 0
	from, read, versions := since, wholes{channel: a.channel}, make(map[string]string)
	annotated, err := a.annotatedJustBefore(ctx, since)
	if err != nil {
		return Backlog{Err: clientError(err)}
	}
	add := func(entries []*engine.Entry) (fits bool) {
		parts, at := a.render(entries, &sent)
		last = cmp.Or(at, last)
		for _, part := range parts {
			size += len(part)
		}
		frames = append(frames, parts...)
		return size <= maxBacklogBytes
	}
	for {
		page, err := a.channel.hub.opts.Engine.Read(ctx, a.channel.id, engine.Query{
			After: since, UpTo: a.position, Limit: backlogPage, Exact: true,
		})
		if err != nil {
			return Backlog{Err: discontinuity(err)}
		}
		noteAnnotated(annotated, page.Entries)
		entries := a.asSeen(page.Entries, from, &read, versions)
		if entries == nil && len(page.Entries) > 0 {
			return Backlog{Err: pubsub.NewError(pubsub.CodeMessagesExpired, "continuity lost: a message that was appended to since then cannot be read")}
		}
		if !add(entries) {
			return tooLong()
		}
		if !page.More {
			// Of summaries the newest are enough.
			for _, serial := range slices.Sorted(maps.Keys(annotated)) {
				e, err := a.channel.summaryOf(ctx, serial)
				if err != nil {
					return Backlog{Err: clientError(err)}
				}
				if e == nil {
					continue
				}
				e.Prev = a.position
				if !add([]*engine.Entry{e}) {
					return tooLong()
				}
			}
			sent.count(a.channel.counts)
			a.adopt(from, versions)
			a.follow(last)
			return Backlog{Frames: frames}
		}
		since = page.Entries[len(page.Entries)-1].Serial
	}
}

// untold is how long before a position a message may have been annotated without those who were
// there having been told its summary.
const untold = 2 * time.Second

// annotatedJustBefore returns the serials of messages that were annotated at a position or within
// untold before it.
func (a *Attachment) annotatedJustBefore(ctx context.Context, position pubsub.Serial) (map[string]struct{}, error) {
	serials := make(map[string]struct{})
	c := a.channel
	ms, _, _, invalid := pubsub.ParseSerial(string(position))
	if rule := c.hub.opts.Namespace(c.id.App, c.id.Name); invalid != nil || !rule.MutableMessages {
		return serials, nil
	}
	page, err := c.hub.opts.Engine.Read(ctx, c.id, engine.Query{
		Kinds: engine.Kinds(engine.KindAnnotation), Backwards: true, UpTo: position, Start: ms - untold.Milliseconds(), Limit: backlogPage,
	})
	noteAnnotated(serials, page.Entries)
	return serials, err
}

// noteAnnotated adds the serials of the messages that entries annotate.
func noteAnnotated(serials map[string]struct{}, entries []*engine.Entry) {
	for _, e := range entries {
		for _, item := range e.Body.Annotations {
			if methodOf(item.Type) != methodNone {
				serials[item.MessageSerial] = struct{}{}
			}
		}
	}
}

func tooLong() Backlog {
	return Backlog{Err: pubsub.NewError(pubsub.CodeBacklogTooLong, "too much was missed to be sent; read the history instead")}
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

// Rewind returns messages before Position, as r says, and MaxRewind at most, of those that
// pass the attachment's filter. They leave a client at Position, where it is already. Err is
// CodeBacklogTooLong, as a warning, if the window had more.
func (a *Attachment) Rewind(ctx context.Context, r Rewind) Backlog {
	window, limit := r.Window, min(r.Limit, MaxRewind)
	query := engine.Query{
		Kinds: engine.Kinds(engine.KindMessage), Backwards: true, UpTo: a.position, Limit: limit + 1,
	}
	if window > 0 {
		query.Start = time.Now().Add(-window).UnixMilli()
	}
	var past []*engine.Entry
	from := a.position // after which the client knows all messages
	messages, read, cut := 0, 0, false
	for more := true; more && !cut; {
		page, err := a.channel.hub.opts.Engine.Read(ctx, a.channel.id, query)
		if err != nil {
			return Backlog{Err: clientError(err)}
		}
		for _, e := range a.sift(page.Entries) {
			if e == nil {
				continue
			}
			if cut = messages >= limit; cut {
				break
			}
			messages += len(e.Body.Messages)
			// As of old, it is no place to resume from.
			old := *e
			old.Unlogged, old.Prev = true, a.position
			past = append(past, &old)
			if a.filter == nil {
				from = e.Prev
			}
		}
		read += len(page.Entries)
		if more = page.More && a.filter != nil; more {
			cut = cut || read >= maxSifted
			query.Before = page.Entries[len(page.Entries)-1].Serial
			query.Limit = backlogPage
		}
	}
	slices.Reverse(past)
	if err := a.renew(ctx, past, from); err != nil {
		return Backlog{Err: clientError(err)}
	}
	var sent tally
	frames, last := a.render(past, &sent)
	b := Backlog{Frames: frames}
	sent.count(a.channel.counts)
	a.follow(last)
	if window > 0 && cut {
		b.Err = pubsub.Errorf(pubsub.CodeBacklogTooLong, "the rewind was cut to %d messages", messages)
	}
	return b
}

// renew replaces the messages of entries of the past by what they are now. They are about to be
// sent, and with them the client has all messages that were published after from.
func (a *Attachment) renew(ctx context.Context, past []*engine.Entry, from pubsub.Serial) error {
	c := a.channel
	if rule := c.hub.opts.Namespace(c.id.App, c.id.Name); !rule.MutableMessages || len(past) == 0 {
		return nil
	}
	var all []*pubsub.Message
	for _, e := range past {
		all = append(all, delivered(e)...)
	}
	versions, err := c.hub.renew(ctx, c.id, all)
	if err != nil {
		return err
	}
	for i, e := range past {
		n := len(e.Body.Messages)
		if slices.ContainsFunc(all[:n], func(m *pubsub.Message) bool { return versions[m.Serial] != "" || m.Summary != nil }) {
			past[i] = replaced(e, all[:n]...)
		}
		all = all[n:]
	}
	a.adopt(from, versions)
	return nil
}

// render encodes entries in the attachment's form and returns what passes its filters, which
// it adds to sent, and what the last message is, if that matters.
func (a *Attachment) render(entries []*engine.Entry, sent *tally) (frames [][]byte, last *reference) {
	p := parcel{batch: a.sift(entries), first: a.start, mixed: true, settled: true}
	for i, e := range p.batch {
		if e != nil {
			p.bytes, p.units = a.form.AppendFrames(p.bytes, p.units, e, i)
		}
	}
	var parts collector
	p.receivers = make([]int32, len(p.units))
	a.sendSome(&p, &parts)
	sent.add(&p)
	if a.chained() != nil {
		last = a.lastOf(&p)
	}
	return parts, last
}

// sift returns what of each entry passes the attachment's filter, nil if nothing does.
func (a *Attachment) sift(entries []*engine.Entry) []*engine.Entry {
	if a.filter == nil {
		return entries
	}
	return new(sieve).sift(a.filter, entries)
}

// collector is a Receiver that keeps what it receives.
type collector [][]byte

// Receive implements Receiver.
func (c *collector) Receive(frames []byte, _ bool) { *c = append(*c, frames) }

// Lost implements Receiver.
func (c *collector) Lost(pubsub.Serial) {}
