package hub

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/vcdiff"
)

// A message may be told as what is new in it, a delta to the message that the receiver was sent
// before (PC3, PC3a, RTL19c). To the forms a delta is a message like others: other data, one more step
// of encoding, and extras that name its base. So it is made once for all forms, and its frame once
// for all members of a group who were sent the same message before.
//
// Who was not, because it came later, or its own messages or those of other names are left out,
// is sent frames of its own until it has caught up, which takes one message.

// maxBases bounds the bases to which a group is sent one message. Whoever has yet another one is
// sent it in full.
const maxBases = 4

// reference is a message that a client has, which a delta may refer to. It does not keep the
// message: that lives as long as the engine has it in memory, or recent.
type reference struct {
	id      string
	message weak.Pointer[pubsub.Message]
	payload payload
}

// nowhere refers to no message: a client was sent something last that no delta refers to.
var nowhere = new(reference)

// chained is the receiver of an attachment that is sent deltas.
type chained struct {
	Receiver

	// last is what the client was sent last; nil since it was told that it is attached. The
	// fan-out sets it, and others only if it is nil, or between two deliveries.
	last atomic.Pointer[reference]
}

// Allow implements Limiter, for a Receiver that is one.
func (c *chained) Allow(items int) bool { return c.Receiver.(Limiter).Allow(items) }

// chained returns a's receiver if it is sent deltas, and else nil.
func (a *Attachment) chained() *chained {
	c, _ := a.receiver.(*chained)
	return c
}

// chainLocked makes a begin with a full message again, and be sent deltas from then on, or not.
func (a *Attachment) chainLocked(deltas bool) {
	before := a.receiver
	c := a.chained()
	switch {
	case c == nil && deltas:
		a.channel.removeLocked(a)
		a.receiver = &chained{Receiver: before}
	case c != nil && deltas:
		c.last.Store(nil)
		return
	case c != nil:
		a.channel.removeLocked(a)
		a.receiver = c.Receiver
	default:
		return
	}
	if !a.channel.addLocked(a) {
		a.receiver = before // there would be too many filters; this one was here before
		a.channel.addLocked(a)
	}
}

// lastOf is the last message of p that a is sent, or nil if there is none.
func (a *Attachment) lastOf(p *parcel) *reference {
	names := a.Names()
	for _, u := range slices.Backward(p.units) {
		switch e := p.batch[u.Entry]; {
		case e.Kind >= engine.KindSummary, isChange(e.Kind) && a.wants(p, &u, names):
			return nowhere
		case e.Kind == engine.KindMessage && a.wants(p, &u, names):
			i := len(e.Body.Messages) - 1
			return new(deltas).reference(e.Body.Messages[i], e.Body.ID, i)
		}
	}
	return nil
}

// follow notes what a client is sent before all that is delivered.
func (a *Attachment) follow(last *reference) {
	if c := a.chained(); c != nil && last != nil {
		c.last.CompareAndSwap(nil, last)
	}
}

// links is how the messages of a parcel refer to each other and to what came before them.
type links struct {
	form   Form
	deltas *deltas
	full   []*engine.Entry // the parcel's entries without deltas

	from  []weak.Pointer[pubsub.Message] // by entry, what its first message refers to
	last  []*reference                   // by entry, its last message
	begin weak.Pointer[pubsub.Message]   // what the first of all messages refers to
	end   *reference                     // the last of all messages; nil if there is none

	others []otherFrame
}

// otherFrame is the frame of an entry for those who were sent another message before.
type otherFrame struct {
	entry int
	from  weak.Pointer[pubsub.Message] // zero: the first message is full
	bytes []byte
}

// link makes deltas of p's messages, each to the one before it, and the first to base.
func (p *parcel) link(form Form, base *reference, d *deltas) {
	l := &links{
		form: form, deltas: d, full: p.batch,
		from: make([]weak.Pointer[pubsub.Message], len(p.batch)),
		last: make([]*reference, len(p.batch)),
	}
	p.links, p.batch = l, slices.Clone(p.batch)
	for i, e := range l.full {
		if e == nil || e.Kind != engine.KindMessage {
			continue
		}
		p.batch[i], l.from[i], base = d.link(e, base)
		l.last[i] = base
		if l.end == nil {
			l.begin = l.from[i]
		}
		l.end = base
	}
}

// recent keeps messages that deltas may refer to for some time: not every engine has what it
// delivered in memory. The zero value is ready for use.
type recent struct {
	mu       sync.Mutex        // guards the fields below; nothing is called under it
	messages []*pubsub.Message // the oldest first
	bytes    int
}

const (
	// maxRecentBytes bounds the messages that are kept for deltas, of all channels.
	maxRecentBytes = 8 << 20

	recentOverhead = 512 // bytes of a message besides its data, about
)

// keep keeps the last message of each entry of a parcel.
func (r *recent) keep(l *links) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range l.full {
		if l.last[i] == nil || l.last[i] == nowhere {
			continue
		}
		m := e.Body.Messages[len(e.Body.Messages)-1]
		if n := len(r.messages); n > 0 && r.messages[n-1] == m {
			continue // another group is sent it too
		}
		r.messages = append(r.messages, m)
		r.bytes += len(m.Data.Bytes) + recentOverhead
	}
	for r.bytes > maxRecentBytes {
		r.bytes -= len(r.messages[0].Data.Bytes) + recentOverhead
		r.messages[0] = nil
		r.messages = r.messages[1:]
	}
}

// base is what most of a group were sent last, as far as a look at few of them tells.
func (g *group) base() *reference {
	for _, a := range g.subs {
		if last := a.chained().last.Load(); last != nil && last != nowhere {
			return last
		}
	}
	return nil
}

// frame returns the frame of an entry for one who was sent last before, unless that is the one
// for most.
func (l *links) frame(entry int, last *reference) (own []byte) {
	var none, from weak.Pointer[pubsub.Message]
	if last != nil {
		from = last.message
	}
	if l.from[entry] == from || l.from[entry] == none {
		return nil
	}
	others := 0
	for i := range l.others {
		if o := &l.others[i]; o.entry == entry {
			if o.from == from {
				return o.bytes
			}
			others++
		}
	}
	if others >= maxBases && from != none {
		return l.frame(entry, nil)
	}
	e, _, _ := l.deltas.link(l.full[entry], last)
	b, _ := l.form.AppendFrames(nil, nil, e, entry)
	l.others = append(l.others, otherFrame{entry, from, b})
	return b
}

// sendChained is send to one who is sent deltas.
func (a *Attachment) sendChained(p *parcel, wantsAll bool) {
	c, l := a.chained(), p.links
	var none weak.Pointer[pubsub.Message]
	last := c.last.Load()
	if wantsAll && p.kinds < engine.KindSummary && (l.begin == none || last != nil && last.message == l.begin) {
		c.Receive(p.bytes, false)
		p.whole++
		if l.end != nil {
			c.last.Store(l.end)
		}
		return
	}
	before := last
	names := a.Names()
	var run []byte      // not yet handed over
	at := 0             // where the unit begins
	begin, end := 0, -1 // where the run does, and ends, if it is of the shared frames
	for i := range p.units {
		u := &p.units[i]
		if a.wants(p, u, names) {
			p.receivers[i]++
			var own []byte
			switch kind := p.batch[u.Entry].Kind; {
			case kind == engine.KindMessage:
				own = l.frame(u.Entry, last)
				last = l.last[u.Entry]
			case kind >= engine.KindSummary:
				last = nowhere // a message to the client, but none of the channel's
			}
			if own != nil || at != end {
				if run != nil {
					c.Receive(run, true)
				}
				begin = at
			}
			if run, end = own, -1; own == nil {
				run, end = p.bytes[begin:u.End:u.End], u.End
			}
		}
		at = u.End
	}
	if run != nil {
		c.Receive(run, false)
	}
	if last != before {
		c.last.Store(last)
	}
}

// deltas are those of one batch of entries. The zero value is ready for use.
type deltas struct {
	made       map[step]*pubsub.Message // nil: none that is smaller
	references map[*pubsub.Message]*reference
}

// step is from one message to the next.
type step struct{ from, to *pubsub.Message }

// link returns e with deltas, its first message referring to base, if it can, and each other to
// the one before it. from is what the first refers to, zero if it is full, and last the entry's
// last message.
func (d *deltas) link(e *engine.Entry, base *reference) (linked *engine.Entry, from weak.Pointer[pubsub.Message], last *reference) {
	linked = e
	var body *pubsub.Batch
	for i, m := range e.Body.Messages {
		next := d.reference(m, e.Body.ID, i)
		if delta := d.delta(m, next.payload, base); delta != nil {
			if body == nil {
				copied := *e.Body
				body = &copied
				body.Messages = slices.Clone(body.Messages)
				entry := *e
				linked = &entry
				linked.Body = body
			}
			body.Messages[i] = delta
			if i == 0 {
				from = base.message
			}
		}
		base = next
	}
	return linked, from, base
}

// reference returns how a delta refers to the index-th message of a batch with that id.
func (d *deltas) reference(m *pubsub.Message, batch string, index int) *reference {
	if r := d.references[m]; r != nil {
		return r
	}
	r := nowhere
	if p := payloadOf(m); p != opaque {
		r = &reference{cmp.Or(m.ID, pubsub.ItemID(batch, index)), weak.Make(m), p}
	}
	if d.references == nil {
		d.references = make(map[*pubsub.Message]*reference)
	}
	d.references[m] = r
	return r
}

// delta returns m as a delta to base, or nil if there is none that is smaller.
func (d *deltas) delta(m *pubsub.Message, is payload, base *reference) *pubsub.Message {
	if base == nil || is == opaque {
		return nil
	}
	from := base.message.Value()
	if from == nil {
		return nil
	}
	delta, known := d.made[step{from, m}]
	if !known {
		delta = deltaOf(m, is, from, base.id)
		if d.made == nil {
			d.made = make(map[step]*pubsub.Message)
		}
		d.made[step{from, m}] = delta
	}
	return delta
}

// payload is what clients make of a message's data, as far as they agree on it.
type payload uint8

const (
	opaque payload = iota // no delta refers to it, and it is no delta
	raw
	text
	jsonText
)

// payloadOf says what m's data is. It is opaque if some client might not know how to decode it:
// then the client would keep what came before as the base of the next delta, and take that for
// something else. For the same reason the JSON must be valid. What is encrypted has nothing in
// common with what came before it.
func payloadOf(m *pubsub.Message) payload {
	switch {
	case len(m.Data.Bytes) == 0:
	case m.Data.Kind == pubsub.BinaryData && m.Encoding == "":
		return raw
	case m.Data.Kind == pubsub.TextData && m.Encoding == "":
		return text
	case m.Data.Kind == pubsub.TextData && m.Encoding == "json" && json.Valid(m.Data.Bytes):
		return jsonText
	}
	return opaque
}

// deltaOf returns m as a delta to the message with that id (DE2a, DE2b, RTL20), or nil if there is none that is
// smaller than m's data in either format: in JSON a delta is base64, and text is not.
func deltaOf(m *pubsub.Message, is payload, base *pubsub.Message, id string) *pubsub.Message {
	encoding, limit := "vcdiff", len(m.Data.Bytes)
	if is != raw {
		limit = base64.StdEncoding.DecodedLen(limit-1) + 1 // what is less is shorter than limit in base64
		encoding = "utf-8/vcdiff"
	}
	if is == jsonText {
		encoding = "json/utf-8/vcdiff"
	}
	bytes, ok := vcdiff.Encode(base.Data.Bytes, m.Data.Bytes, limit)
	if !ok {
		return nil
	}
	from, _ := json.Marshal(id) // cannot fail
	delta := *m
	delta.Data, delta.Encoding = pubsub.Binary(bytes), encoding
	delta.Extras = withExtra(m.Extras, "delta", slices.Concat([]byte(`{"from":`), from, []byte(`,"format":"vcdiff"}`)))
	return &delta
}
