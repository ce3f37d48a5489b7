package sse

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// attachTimeout bounds all that the store is asked for until a stream is open.
const attachTimeout = 10 * time.Second

// subscription is a stream's membership in one channel. It is the hub's Receiver.
type subscription struct {
	stream     *stream
	index      int
	form       form
	attachment *hub.Attachment

	// mark is where the client stands, guarded by stream.mu. A stream with one channel does
	// not keep it up: each of its records has all of its id.
	mark

	// What is sent first. It is no more needed then.
	backlog [][]byte      // records
	lost    *pubsub.Error // why the client cannot go on from where it was
}

// attach subscribes to the channels. What they deliver is kept until the stream is open. On
// an error nothing is left attached.
func (d *Door) attach(ctx context.Context, p *params, grant *auth.Grant) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	s := &stream{
		door: d, id: newConnectionID(), grant: grant, counts: d.opts.Stats.App(grant.App), style: p.style,
		channels: len(p.channels), budget: d.maxBacklogBytes(),
	}
	s.subscriptions = make([]*subscription, 0, len(p.channels))
	marks := p.resume
	for i := range p.channels {
		c := &p.channels[i]
		sub := &subscription{stream: s, index: i, mark: mark{tag: tagOf(c.id)}}
		sub.form = form{style: p.style, channel: c.name.Attached, tag: sub.tag, alone: s.channels == 1}
		request := &hub.Attach{Grant: grant, Channel: c.name, Modes: c.modes, ConnectionID: s.id, Form: sub.form, Receiver: sub}
		var since *position
		if since, marks = takeMark(marks, sub.tag); since != nil {
			request.Since = since.serial()
		}
		var err error
		if sub.attachment, err = d.opts.Hub.Attach(ctx, request); err == nil {
			s.subscriptions = append(s.subscriptions, sub)
			if since != nil {
				err = sub.resume(ctx, *since)
			} else {
				err = sub.begin(ctx, c.rewind)
			}
		}
		if err != nil {
			s.detach()
			return nil, err
		}
	}
	return s, nil
}

func newConnectionID() string {
	var b [9]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// takeMark finds the channel's position in an id, and takes it away. The first with its tag
// is right, because the order of the channels is that of the id unless the client changed it.
func takeMark(marks []mark, t tag) (since *position, left []mark) {
	i := slices.IndexFunc(marks, func(m mark) bool { return m.tag == t })
	if i < 0 {
		return nil, marks
	}
	p := marks[i].position
	return &p, slices.Delete(marks, i, i+1)
}

// begin starts from now on, or some way back.
func (c *subscription) begin(ctx context.Context, rewind hub.Rewind) error {
	c.position = positionOf(c.attachment.Position())
	if rewind.Limit == 0 {
		return nil
	}
	b := c.attachment.Rewind(ctx, rewind)
	if b.Err != nil && b.Err.Code != pubsub.CodeBacklogTooLong { // some of the past is better than none
		return b.Err
	}
	records := c.split(b.Frames)
	first := len(records)
	for first > 0 && c.stream.afford(records[first-1:first]) {
		first--
	}
	c.backlog = records[first:]
	return nil
}

// resume goes on from where the client was. If that cannot be, it is told, and what is
// published from now on follows.
func (c *subscription) resume(ctx context.Context, since position) error {
	c.position = since
	b := c.attachment.Resume(ctx, since.serial())
	if b.Err != nil {
		switch b.Err.Code {
		case pubsub.CodeMessagesExpired, pubsub.CodeOtherSite, pubsub.CodeBacklogTooLong:
			c.lost = b.Err
			return nil
		}
		return b.Err // it may go better the next time
	}
	records := slices.DeleteFunc(c.split(b.Frames), func(record []byte) bool {
		m := c.form.own(record)
		// Of a publish that the client has the first part of.
		return m.done > 0 && m.done <= since.done && m.serial() == since.serial()
	})
	if !c.stream.afford(records) {
		c.lost = tooMuch()
		return nil
	}
	c.backlog = records
	return nil
}

// split returns the records that are joined in frames.
func (c *subscription) split(frames [][]byte) (records [][]byte) {
	for _, joined := range frames {
		c.form.records(joined, func(record []byte) { records = append(records, record) })
	}
	return records
}

// afford takes records off what the stream may be sent of the past, unless that is too
// little.
func (s *stream) afford(records [][]byte) bool {
	size := 0
	for _, r := range records {
		size += len(r)
	}
	if s.channels > 1 { // each has an id that tells of all
		size += len(records) * (idChars + idCharsPerChannel*s.channels)
	}
	if size > s.budget {
		return false
	}
	s.budget -= size
	return true
}

func tooMuch() *pubsub.Error {
	return pubsub.NewError(pubsub.CodeBacklogTooLong, "too much was missed to be sent; read the history instead")
}

// Receive implements hub.Receiver.
func (c *subscription) Receive(frames []byte, more bool) { c.stream.receive(c, frames, more) }

// Lost implements hub.Receiver.
func (c *subscription) Lost(p pubsub.Serial) { c.stream.lost(c, p) }

// Barred implements hub.Barred: the stream ends, as it would not have begun. One that is not open
// yet looks itself when it is.
func (c *subscription) Barred(err *pubsub.Error) {
	s := c.stream
	s.mu.Lock()
	opened := s.opened
	s.mu.Unlock()
	if opened {
		s.Evict(err)
	}
}
