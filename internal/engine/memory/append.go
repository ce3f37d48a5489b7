package memory

import (
	"errors"
	"math"
	"time"
	"unsafe"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var (
	errNoSuchEntry    = errors.New("engine: a put refers to an entry that the append does not have")
	errTooManyEntries = errors.New("engine: too many entries in one append")
)

// trimPerAppend is how many entries an Append drops for the one that it adds, so that a log
// shrinks although Run is late, and no Append waits for long.
const trimPerAppend = 16

// Append does a on this goroutine; done has been called when it returns. If the channel is
// backed, its Backing does both.
func (e *Engine) Append(a *engine.Append, done func(engine.Result)) {
	if r, here := e.store.tryAppend(a); here {
		done(r)
	} else {
		e.store.opts.Backing.Append(a, done)
	}
}

// Prompt reports that a channel is in memory alone. It implements engine.Prompt.
func (e *Engine) Prompt(channel pubsub.ChannelID) bool {
	if e.store.opts.Backing == nil {
		return true
	}
	if c := e.store.lockExisting(channel); c != nil {
		defer c.mu.Unlock()
		return !c.backed
	}
	return !e.store.backs(e.store.opts.Policy(channel))
}

// valid fails if a could not be done at any time.
func valid(a *engine.Append) error {
	for i := range a.Puts {
		if n := a.Puts[i].Entry; n != engine.NoEntry && (n < 0 || n >= len(a.Entries)) {
			return errNoSuchEntry
		}
	}
	if len(a.Entries) > math.MaxUint16 {
		return errTooManyEntries
	}
	return nil
}

// tryAppend does a, unless it is not done here.
func (s *Store) tryAppend(a *engine.Append) (r engine.Result, here bool) {
	if err := valid(a); err != nil {
		return engine.Result{Err: err}, true
	}
	cost := appendCost(a)
	reserved, searched := false, false
	for {
		c := s.lock(a.Channel)
		if c.backed {
			c.mu.Unlock()
			if reserved {
				s.bytes.Add(-cost)
			}
			return engine.Result{}, false
		}
		now := s.opts.Now()
		if r, ok := c.check(a, now); !ok {
			c.mu.Unlock()
			if reserved {
				s.bytes.Add(-cost)
			}
			return r, true
		}
		if !reserved {
			switch {
			case c.onlyDeletes(a):
				s.bytes.Add(cost)
			case s.reserve(cost):
			case s.reserveInPlace(cost, c.replaces(a)):
			case searched:
				c.mu.Unlock()
				return engine.Result{Err: engine.ErrFull}, true
			default:
				// Other channels have to give, which cannot be done under this one's lock.
				c.mu.Unlock()
				reserved, searched = s.makeRoom(cost), true
				continue
			}
		}
		r := c.apply(a, now.UnixMilli(), cost)
		c.mu.Unlock()
		s.relieve()
		return r, true
	}
}

// onlyDeletes reports whether a deletes records and puts none. Such an Append is done even
// when the budget is used up, or nothing could ever become free: members that leave say so.
func (c *channel) onlyDeletes(a *engine.Append) (any bool) {
	for i := range a.Puts {
		if a.Puts[i].Value != nil {
			return false
		}
		_, _, found := c.records.find(a.Puts[i].RecordKey)
		any = any || found
	}
	return any
}

// news finds out that a comes too late, or that it is known; ok says that it is neither.
func (c *channel) news(a *engine.Append, at time.Time) (r engine.Result, ok bool) {
	if !a.Deadline.IsZero() && !at.Before(a.Deadline) {
		return engine.Result{Err: engine.ErrDeadline}, false
	}
	r, known := c.recall(a.ID, at.UnixMilli())
	return r, !known
}

// check finds the reasons not to apply a; ok says that there are none.
func (c *channel) check(a *engine.Append, at time.Time) (r engine.Result, ok bool) {
	if r, ok := c.news(a, at); !ok {
		return r, false
	}
	now := at.UnixMilli()
	for i := range a.Preconditions {
		p := &a.Preconditions[i]
		var revision uint64
		if r := c.records.get(p.RecordKey, now); r != nil {
			revision = r.Revision
		}
		if revision != p.Revision {
			return engine.Result{Err: engine.ErrPrecondition}, false
		}
	}
	for i := range a.Bounds {
		if err := c.records.exceeds(&a.Bounds[i], a.Puts); err != nil {
			return engine.Result{Err: err}, false
		}
	}
	return engine.Result{}, true
}

// apply does what check allowed. cost is appendCost, which Store.bytes already counts.
func (c *channel) apply(a *engine.Append, now, cost int64) engine.Result {
	c.used = now
	c.trim(now, trimPerAppend*max(1, len(a.Entries)))
	if len(a.Entries) == 0 {
		o := outcome{ms: max(now, c.lastMs)}
		c.note(a.ID, o, now)
		r := engine.Result{Timestamp: o.ms}
		c.putAll(a.Puts, &r, now)
		return r
	}
	one := int64(unknownCost)
	if len(a.Entries) == 1 && len(a.Puts) == 0 {
		one = cost
	}
	r, counter := c.add(a.Entries, now, one)
	c.note(a.ID, outcome{ms: r.Timestamp, counter: counter, count: uint16(len(a.Entries))}, now)
	c.putAll(a.Puts, &r, now)
	for _, sub := range c.subs {
		sub.to.Deliver(c.scratch)
	}
	c.clearScratch()
	return r
}

// unknownCost says that a cost has to be found out.
const unknownCost = -1

// add gives the entries their serials, puts them in the log and leaves them in scratch for
// Deliver. cost is that of each, or unknownCost. It also returns the counter of the first serial.
func (c *channel) add(drafts []engine.Draft, now, cost int64) (r engine.Result, counter int32) {
	if len(drafts) > 1 {
		r.Serials = make([]pubsub.Serial, len(drafts))
	}
	before := c.log.n
	for i := range drafts {
		d := &drafts[i]
		serial := c.nextSerial(now)
		if i == 0 {
			r.Timestamp, counter = c.lastMs, int32(c.lastCounter)
		}
		e := draftEntry(d, serial, c.tail, r.Timestamp, cost)
		if len(drafts) > 1 {
			r.Serials[i] = serial
		} else {
			r.Serials = unsafe.Slice(&e.Serial, 1) // which nobody changes either
		}
		if !d.Unlogged {
			c.log.push(e)
			c.tail = serial
			if d.Kind == engine.KindMessage {
				c.newest = serial
				if c.last != nil {
					c.dropLast()
				}
			}
		}
		if len(c.subs) > 0 {
			c.scratch = append(c.scratch, &e.Entry)
		}
	}
	c.store.entries.Add(int64(c.log.n - before))
	c.putInAge()
	return r, counter
}

func draftEntry(d *engine.Draft, serial, prev pubsub.Serial, timestamp, cost int64) *logged {
	e := &logged{Entry: engine.Entry{
		Kind:      d.Kind,
		Unlogged:  d.Unlogged,
		Serial:    serial,
		Prev:      prev,
		Timestamp: timestamp,
		Body:      d.Body,
	}}
	switch {
	case d.Unlogged:
	case cost == unknownCost:
		e.cost = draftCost(d)
	default:
		e.cost = cost
	}
	return e
}

// putInAge makes the log one of those that give when there is no room.
func (c *channel) putInAge() {
	if !c.aged && c.log.n > 0 && !c.persisted() {
		c.aged = true
		c.age.oldest = c.log.oldest
		c.store.logs.push(&c.age)
	}
}

// maxScratch is how many places for Deliver a channel keeps.
const maxScratch = 64

func (c *channel) clearScratch() {
	if cap(c.scratch) > maxScratch {
		c.scratch = nil
		return
	}
	clear(c.scratch)
	c.scratch = c.scratch[:0]
}
