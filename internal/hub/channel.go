package hub

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"letshare-server/internal/engine"
	"letshare-server/internal/filter"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

const (
	// inlineMembers is the room size up to which the publisher's goroutine sends. Above it
	// a goroutine does, which yields every yieldEvery receivers, so that a large room does
	// not hold up small ones.
	inlineMembers = 64
	yieldEvery    = 32

	// maxPendingEntries bounds what waits for the fan-out of one room; then publishers wait
	// for it to catch up. Receivers never block, so it always does.
	maxPendingEntries = 4096
	maxPendingBytes   = 8 << 20
)

// channel is the attachments of one channel on this node, and what they are sent next.
type channel struct {
	hub    *Hub
	id     pubsub.ChannelID
	counts *stats.App

	users int // attachments and attachers; guarded by the shard's mu

	// subscribing serialises the begin and end of live delivery. It is held across calls
	// to the engine and comes before every other lock.
	subscribing  sync.Mutex
	subscription engine.Subscription // guarded by subscribing

	wholes wholes // belongs to whoever has set flushing

	wary atomic.Bool // there are attachments that may not have been sent all since they began

	// mu guards the fields below.
	mu           sync.Mutex
	caughtUp     sync.Cond // on mu: signalled each time pending was taken
	groups       []group   // by form and filter; copied before a change while shared
	shared       bool      // a fan-out is reading groups
	members      int
	pending      []*engine.Entry // delivered by the engine, not yet sent
	pendingBytes int
	lost         bool            // entries are missing, and the attachments have not been told
	spare        []*engine.Entry // the backing array not in use
	flushing     bool            // a goroutine is sending, and will send all that is pending
	delivered    uint64          // entries ever delivered here, the pending ones included
	summaries    summaries       // to be told of messages that were annotated
	watched      *watch          // nil before anybody asked for the occupancy
	position     pubsub.Serial   // where the newest delivered entry stands
	sent         pubsub.Serial   // where the newest entry stands that was sent to all
	newestStart  pubsub.Serial   // where the newest attachment began
	awaited      []arrival       // positions that calls of reach wait for
	reads        bool            // the fan-out of what is pending may have to read from the engine
	marks        []*mark         // to be made when the fan-out under way is over
}

// mark is a call that waits for the end of a fan-out.
type mark struct {
	f    func()        // with the channel locked; sets the others
	sent pubsub.Serial // where the channel was
	done chan struct{} // closed when f was called
}

// group is the attachments that share one form and one filter, and so their bytes.
type group struct {
	form   Form
	filter *filter.Filter // nil: all messages
	deltas bool           // messages are told as deltas, where they can be
	subs   []*Attachment
	shared bool // a fan-out is reading subs
}

func newChannel(h *Hub, id pubsub.ChannelID) *channel {
	c := &channel{hub: h, id: id, counts: h.opts.Stats.App(id.App)}
	c.wholes.channel = c
	c.caughtUp.L = &c.mu
	return c
}

// subscribe begins live delivery, unless it has begun.
func (c *channel) subscribe(ctx context.Context) error {
	c.subscribing.Lock()
	defer c.subscribing.Unlock()
	if c.subscription != nil {
		return nil
	}
	sub, position, err := c.hub.opts.Engine.Subscribe(ctx, c.id, c)
	if err != nil {
		return err
	}
	c.subscription = sub
	c.mu.Lock()
	c.position = max(c.position, position)
	c.mu.Unlock()
	return nil
}

// Deliver queues entries for the fan-out. It implements engine.Subscriber.
func (c *channel) Deliver(entries []*engine.Entry) {
	c.mu.Lock()
	c.pending = append(c.pending, entries...)
	for _, e := range entries {
		c.pendingBytes += e.Body.Size()
		switch e.Kind {
		case engine.KindAppend:
			c.reads = c.reads || c.mayNeedWholes(e)
		case engine.KindAnnotation:
			c.noteAnnotationsLocked(e)
		}
	}
	c.delivered += uint64(len(entries))
	c.position = entries[len(entries)-1].Position()
	if len(c.awaited) > 0 {
		c.arriveLocked(c.position)
	}
	if c.watched != nil {
		c.watched.entriesSeen(entries)
	}
	c.mu.Unlock()
}

// Flush sends what Deliver has queued. It implements engine.Subscriber.
func (c *channel) Flush() {
	c.mu.Lock()
	if c.flushing || !c.dueLocked() {
		c.mu.Unlock()
		return
	}
	c.flushing = true
	away := c.members > inlineMembers || c.reads
	c.mu.Unlock()
	if !away {
		c.send(false)
		return
	}
	c.hub.fans.Go(func() { c.send(true) })
}

// Lost notes that entries are missing; the next Flush tells the attachments. It implements
// engine.Subscriber.
func (c *channel) Lost(position pubsub.Serial) {
	c.mu.Lock()
	c.position = position
	c.lost = true
	c.arriveLocked(position)
	c.mu.Unlock()
}

// dueLocked reports whether there is something to send.
func (c *channel) dueLocked() bool { return len(c.pending) > 0 || c.lost }

// send drains pending. The caller has set flushing.
func (c *channel) send(yield bool) {
	c.mu.Lock()
	for c.dueLocked() {
		batch, reached, lost := c.pending, c.position, c.lost
		first := c.delivered - uint64(len(batch))
		c.pending, c.pendingBytes = c.spare[:0], 0
		c.spare = nil
		c.lost, c.reads = false, false
		c.shareLocked()
		groups := c.groups
		c.caughtUp.Broadcast()
		c.mu.Unlock()

		var sent tally
		var sifted sieve
		for i := range groups {
			if len(batch) > 0 {
				c.fanOut(&groups[i], batch, first, &sifted, yield, &sent)
			}
			if lost {
				groups[i].tellLost(reached)
			}
		}
		c.hub.opts.Metrics.Delivered(sent.frames)
		sent.count(c.counts)
		clear(batch)
		c.wholes.read = nil

		c.mu.Lock()
		c.sent = max(c.sent, reached)
		for _, m := range c.marks {
			m.f()
		}
		c.marks = nil
		if cap(batch) <= 256 {
			c.spare = batch[:0]
		}
	}
	c.flushing = false
	c.mu.Unlock()
}

func (g *group) tellLost(position pubsub.Serial) {
	for _, a := range g.subs {
		a.forget(position)
		a.receiver.Lost(position)
	}
}

// waitForRoom blocks while the fan-out is behind by more than the bound. The caller must
// have flushed all it has published, so that no two wait for each other.
func (c *channel) waitForRoom() {
	c.mu.Lock()
	for c.flushing && c.crowdedLocked() {
		c.caughtUp.Wait()
	}
	c.mu.Unlock()
}

func (c *channel) crowdedLocked() bool {
	return len(c.pending) > maxPendingEntries || c.pendingBytes > maxPendingBytes
}

// scratch is the memory of one encoding pass, before the frames are copied to a buffer of
// exactly their size that all receivers share.
type scratch struct {
	buf       []byte
	units     []Unit
	receivers []int32
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxScratchBytes is the largest scratch buffer that is kept.
const maxScratchBytes = 256 << 10

// fanOut encodes batch once in the group's form, if somebody wants it, and hands each
// attachment its part. It adds what was handed over to sent.
func (c *channel) fanOut(g *group, batch []*engine.Entry, first uint64, sifted *sieve, yields bool, sent *tally) {
	p := parcel{batch: batch, first: first, end: batch[len(batch)-1].Position(), wholes: &c.wholes}
	if p.kinds, p.mixed = kindsOf(batch); !p.mixed {
		p.needs = modeFor(p.kinds)
	}
	p.noteChanges()
	encoded := false
	for i, a := range g.subs {
		if a.wantsAny(&p) {
			if !encoded {
				if g.filter != nil {
					p.batch = sifted.sift(g.filter, batch)
				}
				if p.unlinked = g.deltas && p.changes; g.deltas && !p.changes {
					p.link(g.form, g.base(), sifted.asDeltas())
					c.hub.recent.keep(p.links)
				}
				p.encode(g.form)
				encoded = true
			}
			if len(p.units) == 0 {
				break // nothing passes, or the form has no words for it
			}
			a.send(&p)
		}
		if yields && i%yieldEvery == yieldEvery-1 {
			yield()
		}
	}
	if encoded {
		sent.add(&p)
		p.release()
	}
}

// parcel is what a group is sent in one go: the frames of several entries, joined.
type parcel struct {
	batch []*engine.Entry // what passes the group's filter; nil in the place of what does not
	first uint64          // number of entries that came before batch[0]
	end   pubsub.Serial   // where a client stands after it
	units []Unit
	bytes []byte
	kinds engine.Kind // the kind of all entries, unless mixed
	mixed bool
	needs pubsub.Mode // for entries of kinds; 0: it is not that alone
	links *links      // nil: without deltas

	// unlinked says that who is sent deltas otherwise is sent changed messages, to which no delta
	// refers, and nothing but whole ones beside them.
	unlinked bool

	changes bool    // there are updates, deletes or appends among the entries
	oldest  string  // then the entry of the oldest message that they change
	settled bool    // every receiver is sent all of it, as far as its filters allow
	wholes  *wholes // reads messages that are appended to
	wholly  map[int]wholeFrames

	whole     int     // attachments that were sent all of it
	receivers []int32 // by unit, attachments that were sent it and not the whole

	wholesSent int // messages that were sent instead of what is appended to them

	scratch *scratch // that units and receivers are in
}

// encode makes the frames, in a buffer of exactly their size that all receivers share.
func (p *parcel) encode(form Form) {
	s := scratches.Get().(*scratch)
	s.buf, s.units = s.buf[:0], s.units[:0]
	for i, e := range p.batch {
		if e != nil {
			s.buf, s.units = form.AppendFrames(s.buf, s.units, e, i)
		}
	}
	s.receivers = slices.Grow(s.receivers[:0], len(s.units))[:len(s.units)]
	clear(s.receivers)
	p.scratch, p.units, p.receivers, p.bytes = s, s.units, s.receivers, slices.Clone(s.buf)
}

// release ends the use of units; the frames are kept by whoever received them.
func (p *parcel) release() {
	if s := p.scratch; cap(s.buf) <= maxScratchBytes {
		scratches.Put(s)
	}
	p.scratch, p.units, p.receivers = nil, nil, nil
}

// noteChanges finds out whether entries change messages, and which is the oldest of those.
func (p *parcel) noteChanges() {
	if !p.mixed && !isChange(p.kinds) {
		return
	}
	for _, e := range p.batch {
		if !isChange(e.Kind) {
			continue
		}
		if entry, _, _ := strings.Cut(e.Body.Messages[0].Serial, ":"); !p.changes || entry < p.oldest {
			p.changes, p.oldest = true, entry
		}
	}
}

func kindsOf(batch []*engine.Entry) (k engine.Kind, mixed bool) {
	k = batch[0].Kind
	for _, e := range batch[1:] {
		mixed = mixed || e.Kind != k
	}
	return k, mixed
}

// shareLocked marks everything that a fan-out reads without the lock.
func (c *channel) shareLocked() {
	c.shared = true
	for i := range c.groups {
		c.groups[i].shared = true
	}
}

// unshareLocked makes c.groups safe to change.
func (c *channel) unshareLocked() {
	if c.shared {
		c.groups = slices.Clone(c.groups)
		c.shared = false
	}
}

// addLocked makes a a member: entries delivered from now on are sent to it. It does not if
// the channel has as many different filters as it may.
func (c *channel) addLocked(a *Attachment) bool {
	c.unshareLocked()
	deltas := a.chained() != nil
	filters := 0
	for i := range c.groups {
		g := &c.groups[i]
		if g.form == a.form && sameFilter(g.filter, a.filter) && g.deltas == deltas {
			a.form, a.filter = g.form, g.filter // one copy for all
			g.unshare()
			g.subs = append(g.subs, a)
			c.members++
			return true
		}
		if g.filter != nil {
			filters++
		}
	}
	fresh := group{form: a.form, filter: a.filter, deltas: deltas, subs: []*Attachment{a}}
	if a.filter == nil {
		c.groups = slices.Insert(c.groups, 0, fresh) // those who filter come last
	} else if filters < maxFilters {
		c.groups = append(c.groups, fresh)
	} else {
		return false
	}
	c.members++
	return true
}

// removeLocked ends a's membership. A fan-out under way may still send to it.
func (c *channel) removeLocked(a *Attachment) {
	c.unshareLocked()
	for i := range c.groups {
		g := &c.groups[i]
		if g.form != a.form || g.filter != a.filter || g.deltas != (a.chained() != nil) {
			continue
		}
		at := slices.Index(g.subs, a)
		if at < 0 {
			return
		}
		c.members--
		g.unshare()
		last := len(g.subs) - 1
		g.subs[at] = g.subs[last]
		g.subs[last] = nil
		g.subs = g.subs[:last]
		if last == 0 {
			c.groups = slices.Delete(c.groups, i, i+1)
		}
		return
	}
}

func (g *group) unshare() {
	if g.shared {
		g.subs = slices.Clone(g.subs)
		g.shared = false
	}
}
