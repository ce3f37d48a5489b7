package disk

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// The bounds of what one transaction looks at for a page.
const (
	maxScanned      = 1000    // frames
	maxScannedBytes = 1 << 20 // of them
)

// Read returns logged entries up to tail, which is the newest that may be seen. It implements
// memory.Backing.
func (b *backing) Read(ctx context.Context, id pubsub.ChannelID, q engine.Query, tail pubsub.Serial) (engine.Page, error) {
	s := (*Store)(b)
	if q.UpTo == "" || q.UpTo > tail {
		q.UpTo = tail
	}
	policy := s.opts.Policy(id)
	r := reader{Query: q, store: s, id: id, page: engine.Page{Tail: tail}, oldest: s.oldest(policy), policy: policy}
	for !r.complete {
		if err := s.view(r.scan); err != nil {
			return engine.Page{}, outcomeOfRead(err)
		}
		if err := ctx.Err(); err != nil && !r.complete {
			return engine.Page{}, err
		}
	}
	return r.page, nil
}

func outcomeOfRead(err error) error {
	switch err {
	case engine.ErrGone, engine.ErrForeign, engine.ErrClosed:
		return err
	}
	return outcomeOf(err)
}

// oldest is the timestamp, in ms, of the oldest entries that a policy keeps: what is older may
// still be in the database, and is not seen.
func (s *Store) oldest(p engine.Policy) int64 {
	return max(0, s.nowMillis()-max(engine.LiveWindow, p.Retention).Milliseconds())
}

// reader is a Query on its way through the log: After and Before close in on what has not been
// looked at.
type reader struct {
	engine.Query
	store    *Store
	id       pubsub.ChannelID
	page     engine.Page
	policy   engine.Policy
	oldest   int64
	begun    bool
	complete bool
	last     pubsub.Serial // forwards and exact: position after what was looked at
}

// scan looks at a part of the log.
func (r *reader) scan(tx *bbolt.Tx) error {
	m, ok, err := lookupMeta(tx, r.id)
	if err != nil {
		return err
	}
	if !ok {
		r.complete = true
		if r.Exact {
			return r.gone("", "")
		}
		return nil
	}
	frames := newFrames(tx, m.id[:])
	if r.Exact && !r.begun {
		if err := r.exact(frames, m.base); err != nil {
			return err
		}
		r.last = r.After
	}
	last, err := r.lastMessage(tx, &m)
	if err != nil {
		return err
	}
	if last != nil && !r.Backwards && !r.begun {
		r.add(last)
		r.After = last.Serial
	}
	r.begun = true
	if !r.Backwards {
		return r.forwards(frames)
	}
	if err := r.backwards(frames); err != nil || last == nil || !r.complete || r.page.More {
		return err
	}
	r.add(last)
	return nil
}

// add puts an entry on the page, if there is room.
func (r *reader) add(e *engine.Entry) {
	if len(r.page.Entries) == r.Limit {
		r.page.More = true
		return
	}
	r.page.Entries = append(r.page.Entries, e)
}

// floor is the key from which on frames are looked at: those of After, of Start and of what is
// kept.
func (r *reader) floor(frames *frames) []byte {
	key := appendClock(make([]byte, 0, serialLength), max(r.oldest, r.Start), 0)
	key = append(key, make([]byte, pubsub.EpochLength)...)
	if r.After == "" {
		return key
	}
	// The frame of After itself may go on after it.
	after := appendSerial(nil, r.After)
	if bytes.Compare(after, key) <= 0 {
		return key
	}
	if k, _ := frames.seek(after); k != nil && bytes.Equal(k, after) {
		return after
	}
	if k, _ := frames.before(after); k != nil && bytes.Compare(k, key) > 0 {
		return bytes.Clone(k)
	}
	return key
}

func (r *reader) forwards(frames *frames) error {
	var f frame
	scanned, size := 0, 0
	for k, v := frames.seek(r.floor(frames)); k != nil; k, v = frames.next() {
		if err := f.decode(k, v, false); err != nil {
			return err
		}
		if r.End != 0 && f.ms > r.End {
			break
		}
		var stop error
		err := f.each(r.Kinds, func(e *engine.Entry) bool {
			if e.Serial <= r.After {
				return true
			}
			if e.Serial > r.UpTo || r.Before != "" && e.Serial >= r.Before {
				r.complete = true
				return false
			}
			if r.Exact && r.Start == 0 && e.Prev != r.last {
				stop = engine.ErrGone // what was between them is not kept
				return false
			}
			if r.Kinds.Has(e.Kind) {
				if len(r.page.Entries) == r.Limit {
					r.page.More, r.complete = true, true
					return false
				}
				r.page.Entries = append(r.page.Entries, e)
			}
			r.After, r.last = e.Serial, e.Serial
			return true
		})
		if err != nil || stop != nil || r.complete {
			if stop != nil {
				return stop
			}
			return err
		}
		if scanned, size = scanned+1, size+len(v); scanned >= maxScanned || size >= maxScannedBytes {
			return nil
		}
	}
	r.complete = true
	return nil
}

func (r *reader) backwards(frames *frames) error {
	floor := r.floor(frames)
	// The first frame to look at is the one that has UpTo, or what is before Before.
	limit := appendSerial(nil, r.UpTo)
	limit = append(limit, 0) // the key after it
	if r.Before != "" && r.Before <= r.UpTo {
		limit = appendSerial(nil, r.Before)
	}
	var f frame
	scanned, size := 0, 0
	for k, v := frames.before(limit); k != nil && bytes.Compare(k, floor) >= 0; k, v = frames.prev() {
		if err := f.decode(k, v, false); err != nil {
			return err
		}
		if r.Start != 0 && f.ms < r.Start {
			break
		}
		if r.End == 0 || f.ms <= r.End {
			var some []*engine.Entry
			err := f.each(r.Kinds, func(e *engine.Entry) bool {
				if r.Kinds.Has(e.Kind) && e.Serial > r.After && e.Serial <= r.UpTo && (r.Before == "" || e.Serial < r.Before) {
					some = append(some, e)
				}
				return true
			})
			if err != nil {
				return err
			}
			for i := len(some) - 1; i >= 0; i-- {
				if len(r.page.Entries) == r.Limit {
					r.page.More, r.complete = true, true
					return nil
				}
				r.page.Entries = append(r.page.Entries, some[i])
			}
		}
		r.Before = serialOf(k)
		if scanned, size = scanned+1, size+len(v); scanned >= maxScanned || size >= maxScannedBytes {
			return nil
		}
	}
	r.complete = true
	return nil
}

// exact fails unless the log is complete after r.After.
func (r *reader) exact(frames *frames, base pubsub.Serial) error {
	if _, _, _, err := pubsub.ParseSerial(string(r.After)); err != nil {
		return engine.ErrGone
	}
	// What is too old is as if it were not there: then its newest entry is the boundary.
	oldest := appendClock(make([]byte, 0, serialLength), r.oldest, 0)
	oldest = append(oldest, make([]byte, pubsub.EpochLength)...)
	var f frame
	if k, v := frames.before(oldest); k != nil {
		err := f.decode(k, v, false)
		if err == nil {
			base, err = f.tail()
		}
		if err != nil {
			return err
		}
	}
	if r.After == base {
		return nil
	}
	around := base
	key := appendSerial(nil, r.After)
	k, v := frames.before(append(key, 0)) // the frame that begins at or before it
	if k != nil {
		if err := f.decode(k, v, false); err != nil {
			return err
		}
		found := false
		err := f.each(noKinds, func(e *engine.Entry) bool {
			found = e.Serial == r.After
			return !found
		})
		if err != nil {
			return err
		}
		if found && f.ms >= r.oldest {
			return nil
		}
		around = serialOf(k)
	}
	return r.gone(around, base)
}

// gone says what a position is that is not in the log, given positions that are.
func (r *reader) gone(near ...pubsub.Serial) error {
	_, _, epoch, err := pubsub.ParseSerial(string(r.After))
	if err != nil || epoch == r.store.mem.Epoch() {
		return engine.ErrGone
	}
	for _, p := range near {
		if p.Epoch() == epoch {
			return engine.ErrGone
		}
	}
	return engine.ErrForeign
}
