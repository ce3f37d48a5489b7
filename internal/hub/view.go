package hub

import (
	"context"
	"strings"
	"sync"

	"letshare-server/internal/engine"
	"letshare-server/internal/filter"
	"letshare-server/internal/pubsub"
)

// An append is sent as the part that was added to attachments that have been sent the message
// before, and as an update with all of it to the others. The log has only the part. All of it is
// in the message's record, which may be further on by the time that it is read; then the appends
// that come later in the log and are in it already are not sent to the attachments that were sent
// it. What is never known for sure is sent whole: that is right at any time.

// seen is what an attachment was sent of messages. Attachments without one were sent all that was
// published since they began, and nothing else.
type seen struct {
	mu       sync.Mutex
	from     pubsub.Serial     // it was sent all that was published after it
	versions map[string]string // by serial, what it was sent of other messages; empty: not the newest
}

// maxSeen bounds the messages that are remembered for an attachment.
const maxSeen = 128

// view says how an attachment is sent an append.
type view uint8

const (
	viewPart view = iota
	viewWhole
	viewNothing // it has it
)

// viewOf decides about the append that made a version of a message.
func (a *Attachment) viewOf(serial, version string) view {
	from, sent, known := a.position, "", false
	if s := a.seen.Load(); s != nil {
		s.mu.Lock()
		from = s.from
		sent, known = s.versions[serial]
		s.mu.Unlock()
	}
	switch {
	case known && sent >= version:
		return viewNothing
	case a.wholeAppends:
		return viewWhole
	case known && sent != "", !known && !a.noEcho && publishedAfter(serial, from):
		return viewPart
	}
	return viewWhole
}

// publishedAfter reports whether a message was published after a position.
func publishedAfter(serial string, position pubsub.Serial) bool {
	entry, _, _ := strings.Cut(serial, ":")
	return entry > string(position)
}

// seesAll reports whether an attachment needs nothing but the parts of what is appended to
// messages, and nothing noted of them, if the oldest of them was published in this entry.
func (a *Attachment) seesAll(oldest string) bool {
	return a.seen.Load() == nil && !a.noEcho && !a.wholeAppends && oldest > string(a.position)
}

// saw notes that an attachment was sent a version of a message as a whole, or, with an empty
// version, that it was not sent something of the message. at is where the channel is.
func (a *Attachment) saw(serial, version string, at pubsub.Serial) {
	s := a.seen.Load()
	if s == nil {
		if version != "" && !a.noEcho && !a.wholeAppends && publishedAfter(serial, a.position) {
			return
		}
		s = a.makeSeen()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.versions[serial]; !known && len(s.versions) >= maxSeen {
		clear(s.versions)
		s.from = max(s.from, at)
		a.channel.wary.Store(true)
	}
	s.note(serial, version)
}

func (s *seen) note(serial, version string) {
	if s.versions == nil {
		s.versions = make(map[string]string)
	}
	s.versions[serial] = version
}

func (a *Attachment) makeSeen() *seen {
	s := &seen{from: a.position}
	if !a.seen.CompareAndSwap(nil, s) {
		return a.seen.Load()
	}
	return s
}

// adopt notes what an attachment is about to be sent of the past: all that was published after a
// position, and versions of messages. What the fan-out has noted meanwhile is sent later, and
// stays.
func (a *Attachment) adopt(from pubsub.Serial, versions map[string]string) {
	if from == a.position && len(versions) == 0 {
		return
	}
	s := a.makeSeen()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = from
	for serial, version := range versions {
		if _, known := s.versions[serial]; !known {
			s.note(serial, version)
		}
	}
}

// forget notes that an attachment was not sent all up to a position.
func (a *Attachment) forget(position pubsub.Serial) {
	a.channel.wary.Store(true)
	s := a.makeSeen()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = max(s.from, position)
	clear(s.versions)
}

// changedMessage is the message that an entry of KindUpdate or KindAppend is about, and the version
// that it made.
func changedMessage(e *engine.Entry) (serial, version string) {
	m := e.Body.Messages[0]
	if m.Version != nil && m.Version.Serial != "" {
		return m.Serial, m.Version.Serial
	}
	return m.Serial, e.Serial.Item(0)
}

func isChange(k engine.Kind) bool { return k == engine.KindUpdate || k == engine.KindAppend }

// mayNeedWholes reports whether an attachment may need more than the part that e, of KindAppend,
// has. It is asked under mu.
func (c *channel) mayNeedWholes(e *engine.Entry) bool {
	return c.wary.Load() || !publishedAfter(e.Body.Messages[0].Serial, c.newestStart)
}

// wholes are messages that were appended to, read once for each batch. It belongs to one fan-out.
type wholes struct {
	channel *channel
	read    map[string]*pubsub.Message // by serial; nil: it cannot be read
}

// of returns the entry that tells all of the message that e appends to, in the place of e. It is
// nil if the message cannot be read.
func (w *wholes) of(e *engine.Entry) *engine.Entry {
	serial, version := changedMessage(e)
	m, known := w.read[serial]
	if !known || m != nil && m.Version.Serial < version {
		h := w.channel.hub
		ctx, cancel := context.WithTimeout(context.Background(), h.opts.AppendTimeout)
		defer cancel()
		var err error
		if m, _, err = h.current(ctx, w.channel.id, serial); err == nil {
			err = h.withSummary(ctx, w.channel.id, m)
		}
		if err != nil {
			m = nil
		} else {
			shown(m)
		}
		if w.read == nil {
			w.read = make(map[string]*pubsub.Message)
		}
		w.read[serial] = m
	}
	if m == nil {
		return nil
	}
	return replaced(e, m)
}

// replaced is an entry that tells of m in the place of e.
func replaced(e *engine.Entry, messages ...*pubsub.Message) *engine.Entry {
	whole := *e
	whole.Kind = engine.KindUpdate
	whole.Body = &pubsub.Batch{Messages: messages}
	return &whole
}

// changed decides how a is sent a unit of an entry that changes a message, which passes its
// filters or not: as it is; if whole is not nil, by that; or not at all. It notes what comes of it.
func (a *Attachment) changed(p *parcel, u *Unit, passes bool) (asIs bool, whole []byte) {
	e := p.batch[u.Entry]
	serial, version := changedMessage(e)
	if !passes {
		if a.noEcho && e.Body.ConnectionID == a.connID && a.wantsKind(e.Kind) && a.viewOf(serial, version) != viewNothing {
			a.saw(serial, "", e.Serial)
		}
		return false, nil
	}
	if e.Kind == engine.KindUpdate {
		a.saw(serial, version, e.Serial)
		return true, nil
	}
	switch a.viewOf(serial, version) {
	case viewPart:
		return true, nil
	case viewNothing:
		return false, nil
	}
	w := p.wholeFor(a, u.Entry)
	switch {
	case w.message == nil: // it is not told what it misses
		a.forget(e.Position())
		a.receiver.Lost(e.Position())
	case len(w.frames) > 0:
		a.saw(serial, w.message.Version.Serial, e.Serial)
		p.wholesSent++
	}
	return false, w.frames
}

// wholeFrames are the frames that tell all of a message, in the place of an append to it.
type wholeFrames struct {
	message *pubsub.Message // nil: it cannot be read
	frames  []byte          // empty: it does not pass the group's filter
}

// wholeFor returns the frames for a's group that tell all of what the i-th entry appends to.
func (p *parcel) wholeFor(a *Attachment, i int) wholeFrames {
	w, made := p.wholly[i]
	if made {
		return w
	}
	if e := p.wholes.of(p.batch[i]); e != nil {
		w.message = e.Body.Messages[0]
		if a.filter == nil || a.filter.Matches(filter.Of(w.message)) {
			w.frames, _ = a.form.AppendFrames(nil, nil, e, i)
		}
	}
	if p.wholly == nil {
		p.wholly = make(map[int]wholeFrames)
	}
	p.wholly[i] = w
	return w
}

// asSeen is what an attachment that was sent all up to since is sent of the entries after it. It
// adds to versions what it notes of messages.
func (a *Attachment) asSeen(entries []*engine.Entry, since pubsub.Serial, w *wholes, versions map[string]string) []*engine.Entry {
	var out []*engine.Entry
	for i, e := range entries {
		if !isChange(e.Kind) {
			if out != nil {
				out = append(out, e)
			}
			continue
		}
		if out == nil {
			out = append(make([]*engine.Entry, 0, len(entries)), entries[:i]...)
		}
		serial, version := changedMessage(e)
		sent, known := versions[serial]
		all := !known && !a.noEcho && publishedAfter(serial, since)
		switch {
		case a.noEcho && e.Body.ConnectionID == a.connID:
			versions[serial] = ""
			continue
		case known && sent >= version:
			continue
		case e.Kind == engine.KindUpdate:
			if !all || a.wholeAppends {
				versions[serial] = version
			}
		case (known && sent != "" || all) && !a.wholeAppends:
		default:
			if e = w.of(e); e == nil {
				return nil
			}
			_, versions[serial] = changedMessage(e)
		}
		out = append(out, e)
	}
	if out == nil {
		return entries
	}
	return out
}
