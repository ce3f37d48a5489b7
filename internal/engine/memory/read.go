package memory

import (
	"context"
	"errors"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var errLimit = errors.New("engine: limit must be positive")

// maxLocked is how many entries are looked at, or trimmed, before the channel's lock is
// given to others.
const maxLocked = 4096

// Read returns logged entries. It holds the channel's lock for maxLocked entries at a time.
func (e *Engine) Read(ctx context.Context, id pubsub.ChannelID, q engine.Query) (engine.Page, error) {
	if q.Limit <= 0 {
		return engine.Page{}, errLimit
	}
	s := e.store
	lock := s.lockLoaded
	if q.Exact {
		lock = s.lockKnown
	} else {
		defer s.relieve() // of what the channel costs, if it is new
	}
	c, err := lock(id)
	if err != nil {
		return engine.Page{}, err
	}
	if c == nil {
		// A channel that does not exist has no position that anybody could have.
		if err := s.checkEpoch(q.After); err != nil {
			return engine.Page{}, err
		}
		return engine.Page{}, engine.ErrGone
	}
	now := s.nowMillis()
	c.used = now
	for !c.trim(now, maxLocked) {
		c.yield()
	}
	if c.keptElsewhere() && (q.After == "" || q.After < c.base) {
		tail := c.tail
		c.mu.Unlock()
		return s.opts.Backing.Read(ctx, id, q, tail)
	}
	if q.Exact {
		if err := c.exact(q.After); err != nil {
			c.mu.Unlock()
			return engine.Page{}, err
		}
	}
	r := reader{Query: q, page: engine.Page{Tail: c.tail}}
	if r.UpTo == "" || r.UpTo > c.tail {
		r.UpTo = c.tail // what is added while the lock is given away is of another page
	}
	for !r.scan(c) {
		c.yield()
		if q.Exact && r.After < c.base {
			c.mu.Unlock()
			return engine.Page{}, engine.ErrGone
		}
	}
	c.mu.Unlock()
	return r.page, nil
}

// yield gives others the lock for a moment. A channel that is forgotten meanwhile stays
// readable: it is empty.
func (c *channel) yield() {
	c.mu.Unlock()
	c.mu.Lock()
}

// reader is a Query on its way through the log: After and Before close in on what has not
// been looked at.
type reader struct {
	engine.Query
	page engine.Page
}

// scan looks at maxLocked entries at most. It reports whether the page is complete.
func (r *reader) scan(c *channel) bool {
	if e := r.last(c); e != nil && !r.Backwards {
		r.After = e.Serial
		if !r.add(e) {
			return true
		}
	}
	lo, hi := r.bounds(&c.log)
	if r.page.Entries == nil && lo < hi {
		r.page.Entries = make([]*engine.Entry, 0, min(r.Limit, hi-lo))
	}
	for range maxLocked {
		if lo >= hi {
			if e := r.last(c); e != nil {
				r.add(e)
			}
			return true
		}
		var e *logged
		if r.Backwards {
			hi--
			e = c.log.at(hi)
			r.Before = e.Serial
		} else {
			e = c.log.at(lo)
			lo++
			r.After = e.Serial
		}
		if !r.add(e) {
			return true
		}
	}
	return false
}

// add puts e on the page, if it is of the right kind. It reports false if the page was full.
func (r *reader) add(e *logged) bool {
	if !r.Kinds.Has(e.Kind) {
		return true
	}
	if len(r.page.Entries) == r.Limit {
		r.page.More = true
		return false
	}
	r.page.Entries = append(r.page.Entries, &e.Entry)
	return true
}

// last returns the message that the channel has put aside, if positions and times select it
// and it was not looked at. It is older than the log.
func (r *reader) last(c *channel) *logged {
	e := c.last
	if e == nil || e.Serial <= r.After || e.Serial > r.UpTo || r.Before != "" && e.Serial >= r.Before ||
		r.Start != 0 && e.Timestamp < r.Start || r.End != 0 && e.Timestamp > r.End {
		return nil
	}
	return e
}

// bounds returns the range of indices that positions and times select.
func (r *reader) bounds(l *entryLog) (lo, hi int) {
	hi = l.after(r.UpTo)
	if r.After != "" {
		lo = l.after(r.After)
	}
	if r.Before != "" {
		hi = min(hi, l.search(func(e *logged) bool { return e.Serial >= r.Before }))
	}
	if r.Start != 0 {
		lo = max(lo, l.search(func(e *logged) bool { return e.Timestamp >= r.Start }))
	}
	if r.End != 0 {
		hi = min(hi, l.search(func(e *logged) bool { return e.Timestamp > r.End }))
	}
	return lo, hi
}
