package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/body"
	"letshare-server/internal/pubsub"
)

// The newest message of a channel whose policy has a Last is known by its serial in meta.newest,
// as long as the policy has one. When the log drops it, it is put aside in bucketLast.

// noteNewest notes the newest message of an item that is put into the log.
func (g *group) noteNewest(c *channel, it *item) error {
	newest := pubsub.Serial("")
	for i := range it.Append.Entries {
		if d := &it.Append.Entries[i]; d.Kind == engine.KindMessage && !d.Unlogged {
			newest = it.Result.Serials[i]
		}
	}
	if newest == "" {
		return nil
	}
	if c.policy.Last == 0 {
		newest = ""
	}
	if c.meta.newest != newest {
		c.meta.newest, c.dirty = newest, true
	}
	if c.inPlace {
		c.inPlace = false
		if err := g.clear(c, it.Prev); err != nil {
			return err
		}
	}
	return g.tx.Bucket(bucketLast).Delete(c.meta.id[:])
}

// replaces reports whether an item may take the place of the channel's last message although the
// bound is reached: if nothing but that is kept, and the item is not larger.
func (g *group) replaces(c *channel, it *item) bool {
	if c.policy.Retention > 0 || c.policy.Last == 0 || c.meta.newest == "" || len(it.Append.Puts) > 0 {
		return false
	}
	message := false
	for i := range it.Append.Entries {
		d := &it.Append.Entries[i]
		message = message || d.Kind == engine.KindMessage && !d.Unlogged
	}
	size := len(g.tx.Bucket(bucketLast).Get(c.meta.id[:]))
	if size == 0 {
		_, v := newFrames(g.tx, c.meta.id[:]).before(append(appendSerial(nil, c.meta.newest), 0))
		size = len(v)
	}
	c.inPlace = message && len(it.entries) <= size
	return c.inPlace
}

// clear drops the log of a channel, which begins after a position then.
func (g *group) clear(c *channel, base pubsub.Serial) error {
	frames := newFrames(g.tx, c.meta.id[:])
	for frames.lastSegment() {
		if err := frames.log.DeleteBucket(bytes.Clone(frames.segment)); err != nil {
			return err
		}
		frames = newFrames(g.tx, c.meta.id[:])
	}
	c.segment, c.in = nil, nil
	c.meta.base, c.dirty = base, true
	return nil
}

// putAside keeps the newest message if the log drops it with all up to a position.
func putAside(tx *bbolt.Tx, m *meta, upTo pubsub.Serial) error {
	if m.newest == "" || m.newest > upTo || tx.Bucket(bucketLast).Get(m.id[:]) != nil {
		return nil
	}
	e, err := findEntry(tx, m)
	if err != nil || e == nil {
		return err
	}
	b := appendSerial([]byte{valueVersion}, e.Serial)
	b = appendSerial(b, e.Prev)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Timestamp))
	if e.Body != nil {
		b = body.Append(b, e.Body)
	}
	return tx.Bucket(bucketLast).Put(m.id[:], b)
}

// findEntry returns the newest message from the log, or nil.
func findEntry(tx *bbolt.Tx, m *meta) (found *engine.Entry, err error) {
	k, v := newFrames(tx, m.id[:]).before(append(appendSerial(nil, m.newest), 0))
	if k == nil {
		return nil, nil
	}
	var f frame
	if err := f.decode(k, v, false); err != nil {
		return nil, err
	}
	err = f.each(engine.Kinds(engine.KindMessage), func(e *engine.Entry) bool {
		if e.Serial == m.newest {
			found = e
		}
		return found == nil
	})
	return found, err
}

const lastHeader = 1 + 2*serialLength + 8

// decodeLast reads what putAside wrote, but for its body.
func decodeLast(b []byte) (e *engine.Entry, text []byte, err error) {
	if len(b) < lastHeader || b[0] != valueVersion {
		return nil, nil, fmt.Errorf("last message: %w", errMalformed)
	}
	return &engine.Entry{
		Kind: engine.KindMessage, Serial: serialOf(b[1:]), Prev: serialOf(b[1+serialLength:]),
		Timestamp: int64(binary.BigEndian.Uint64(b[1+2*serialLength:])),
	}, b[lastHeader:], nil
}

// lastMessage returns the newest message if it is too old for the log, the policy keeps it, and
// the query selects it.
func (r *reader) lastMessage(tx *bbolt.Tx, m *meta) (*engine.Entry, error) {
	if r.policy.Last == 0 || m.newest == "" || !r.Kinds.Has(engine.KindMessage) || m.newest <= r.After || m.newest > r.UpTo ||
		r.Before != "" && m.newest >= r.Before {
		return nil, nil
	}
	var e *engine.Entry
	var err error
	if b := tx.Bucket(bucketLast).Get(m.id[:]); b != nil {
		var text []byte
		if e, text, err = decodeLast(b); err == nil && len(text) > 0 {
			e.Body, err = body.Decode(text)
		}
	} else {
		e, err = findEntry(tx, m)
	}
	if err != nil || e == nil {
		return nil, err
	}
	if e.Timestamp >= r.oldest || e.Timestamp < r.store.nowMillis()-r.policy.Last.Milliseconds() ||
		r.Start != 0 && e.Timestamp < r.Start || r.End != 0 && e.Timestamp > r.End {
		return nil, nil
	}
	return e, nil
}

// sweepLast drops messages that were put aside and are kept no longer, some at each sweep.
func (s *Store) sweepLast(context.Context) error {
	var dead [][]byte
	var seen []pubsub.Serial
	from := s.cursors.last
	s.cursors.last = nil
	err := s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketLast).Cursor()
		looked := 0
		for id, b := cursor.Seek(from); id != nil; id, b = cursor.Next() {
			if looked++; looked > sweepLooks {
				s.cursors.last = bytes.Clone(id)
				return nil
			}
			policy, err := s.policyOf(tx, id)
			if err != nil {
				return err
			}
			e, _, err := decodeLast(b)
			if err != nil {
				return err
			}
			if e.Timestamp < s.nowMillis()-policy.Last.Milliseconds() {
				dead = append(dead, bytes.Clone(id))
				seen = append(seen, e.Serial)
			}
		}
		return nil
	})
	if err != nil || len(dead) == 0 {
		return err
	}
	return s.queue.run(func() error {
		return s.update(func(tx *bbolt.Tx) error {
			last := tx.Bucket(bucketLast)
			for i, id := range dead {
				// Another may have been put aside meanwhile.
				if e, _, err := decodeLast(last.Get(id)); err != nil || e.Serial != seen[i] {
					continue
				}
				if err := last.Delete(id); err != nil {
					return err
				}
			}
			return nil
		})
	})
}
