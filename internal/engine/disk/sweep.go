package disk

import (
	"bytes"
	"context"
	"time"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// The bounds of what one transaction of a sweep looks at, or drops.
const (
	sweepLooks    = 1000
	sweepSegments = 8
	sweepKeys     = 1000
)

// abandonedFor is how long a log stays whose channel is not persisted any more: a start with the
// wrong configuration costs nothing that a start with the right one does not bring back.
const abandonedFor = 24 * time.Hour

// sweepCursors are where the next sweep goes on.
type sweepCursors struct {
	channels []byte // id
	last     []byte // id
	records  []byte
}

func (s *Store) sweepUntil(ctx context.Context) {
	t := time.NewTicker(s.opts.SweepInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.mem.Sweep()
			if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
				s.opts.Log.Warn("storage: what is too old is not removed", "error", err)
			}
		}
	}
}

// sweep drops what no policy keeps any more, in transactions of bounded size between the
// commits of others.
func (s *Store) sweep(ctx context.Context) error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	for _, part := range []func(context.Context) error{s.sweepLogs, s.sweepLast, s.sweepRecords, s.sweepChannels} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// old is a part of a log that is not kept: a whole segment, or the frames of one up to a key.
type old struct {
	id      []byte
	segment []byte
	upTo    []byte // key; nil: all of the segment
	last    bool   // the channel's newest message is put aside if it goes
}

// sweepLogs drops the old ends of all logs.
func (s *Store) sweepLogs(ctx context.Context) error {
	var from []byte
	for more := true; more; {
		var drop []old
		err := s.view(func(tx *bbolt.Tx) (err error) {
			drop, from, err = s.findOld(tx, from)
			more = from != nil
			return err
		})
		if err != nil {
			return err
		}
		for len(drop) > 0 {
			n := min(len(drop), sweepSegments)
			if err := s.drop(drop[:n]); err != nil {
				return err
			}
			drop = drop[n:]
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// findOld looks at logs, beginning with the channel whose id is from, and says with which to
// go on; nil after the last.
func (s *Store) findOld(tx *bbolt.Tx, from []byte) (drop []old, next []byte, err error) {
	log := tx.Bucket(bucketLog)
	segs := log.Cursor()
	k, _ := segs.First()
	if from != nil {
		k, _ = segs.Seek(from)
	}
	for looked := 0; k != nil; {
		id := bytes.Clone(k[:idLength])
		if looked >= sweepLooks || len(drop) >= 4*sweepSegments {
			return drop, id, nil
		}
		policy, err := s.policyOf(tx, id)
		if err != nil {
			return nil, nil, err
		}
		oldest := s.oldest(policy)
		if !policy.Persisted() {
			oldest -= abandonedFor.Milliseconds()
		}
		for ; k != nil && bytes.HasPrefix(k, id); k, _ = segs.Next() {
			looked++
			if started, _ := clockOf(k[idLength:]); started >= oldest {
				break
			}
			last, _ := log.Bucket(k).Cursor().Last()
			if ms, _ := clockOf(last); ms >= oldest {
				break
			}
			if len(drop) >= 4*sweepSegments {
				break // the rest of it when these are gone
			}
			drop = append(drop, old{id: id, segment: bytes.Clone(k), last: policy.Last > 0})
		}
		if policy.MaxEntries > 0 || policy.MaxBytes > 0 {
			n, more := s.findTooMuch(tx, id, policy)
			drop, looked = append(drop, more...), looked+n
		}
		k, _ = segs.Seek(append(bytes.Clone(id), 0xff))
	}
	return drop, nil, nil
}

// frameOverhead is what a frame counts for in Policy.MaxBytes beside its bytes.
const frameOverhead = 64

// findTooMuch finds the frames of a log that are more than its policy keeps.
func (s *Store) findTooMuch(tx *bbolt.Tx, id []byte, p engine.Policy) (looked int, drop []old) {
	live := appendClock(nil, s.nowMillis()-engine.LiveWindow.Milliseconds(), 0)
	f := newFrames(tx, id)
	bytesKept := int64(0)
	for k, v := f.last(); k != nil; k, v = f.prev() {
		looked++
		bytesKept += int64(len(k) + len(v) + frameOverhead)
		if p.MaxEntries > 0 && looked > p.MaxEntries || p.MaxBytes > 0 && bytesKept > p.MaxBytes {
			if bytes.Compare(k, live) < 0 {
				limit := bytes.Clone(k)
				// All before it goes too, oldest first.
				for k, _ := f.seek(make([]byte, serialLength)); k != nil && bytes.Compare(k, limit) <= 0; {
					drop = append(drop, old{id: id, segment: bytes.Clone(f.segment), upTo: limit, last: p.Last > 0})
					n, _ := f.segs.Next()
					if !f.enter(n) {
						break
					}
					k, _ = f.in.First()
				}
				return looked, drop
			}
		}
	}
	return looked, nil
}

func (s *Store) policyOf(tx *bbolt.Tx, id []byte) (engine.Policy, error) {
	key := tx.Bucket(bucketIDs).Get(id)
	channel, err := channelOf(key)
	if err != nil {
		return engine.Policy{}, err
	}
	return s.opts.Policy(channel), nil
}

// drop removes parts of logs, and notes where those begin now.
func (s *Store) drop(parts []old) error {
	for _, p := range parts {
		for again := true; again; {
			err := s.queue.run(func() error {
				return s.update(func(tx *bbolt.Tx) (err error) {
					again, err = dropPart(tx, p)
					return err
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// update is a transaction that writes, on the committer's goroutine.
func (s *Store) update(f func(*bbolt.Tx) error) error {
	err := s.db.Update(f)
	s.measure()
	return err
}

// dropPart removes what p names, or the first sweepKeys frames of it; again says that there is
// more.
func dropPart(tx *bbolt.Tx, p old) (again bool, err error) {
	log := tx.Bucket(bucketLog)
	in := log.Bucket(p.segment)
	if in == nil {
		return false, nil
	}
	cursor := in.Cursor()
	newest, v := cursor.Last() // of those that go
	var keys [][]byte          // if not all go
	var size uint64
	if p.upTo != nil {
		newest, v = nil, nil
		for k, value := cursor.First(); k != nil && bytes.Compare(k, p.upTo) <= 0; k, value = cursor.Next() {
			if again = len(keys) == sweepKeys; again {
				break
			}
			keys = append(keys, bytes.Clone(k))
			newest, v = k, value
			size += uint64(len(k) + len(value))
		}
		if newest == nil {
			return false, nil
		}
	}
	var f frame
	if err := f.decode(newest, v, false); err != nil {
		return false, err
	}
	tail, err := f.tail()
	if err != nil {
		return false, err
	}
	if err := moveBase(tx, p, tail, &f); err != nil {
		return false, err
	}
	for _, k := range keys {
		if err := in.Delete(k); err != nil {
			return false, err
		}
	}
	if k, _ := in.Cursor().First(); keys == nil || k == nil {
		return false, log.DeleteBucket(p.segment)
	}
	return again, in.SetSequence(in.Sequence() - min(size, in.Sequence()))
}

// moveBase notes that a log begins after a position, since p goes, and that its clock goes on
// after f.
func moveBase(tx *bbolt.Tx, p old, base pubsub.Serial, f *frame) error {
	key := bytes.Clone(tx.Bucket(bucketIDs).Get(p.id))
	channels := tx.Bucket(bucketChannels)
	m, err := decodeMeta(channels.Get(key))
	if err != nil {
		return err
	}
	if p.last {
		if err := putAside(tx, &m, base); err != nil {
			return err
		}
	}
	m.base = base
	m.ms, m.counter = f.last()
	return channels.Put(key, m.encode())
}

// sweepRecords drops records that have ended, some at each sweep.
func (s *Store) sweepRecords(context.Context) error {
	var dead [][]byte
	from := s.cursors.records
	s.cursors.records = nil
	err := s.view(func(tx *bbolt.Tx) error {
		w := s.weeder(tx)
		cursor := tx.Bucket(bucketRecords).Cursor()
		k, v := cursor.Seek(from)
		for looked := 0; k != nil; k, v = cursor.Next() {
			if looked++; looked > 4*sweepLooks || len(dead) == sweepKeys {
				s.cursors.records = bytes.Clone(k)
				return nil
			}
			ended, err := w.ended(k, v)
			if err != nil {
				return err
			}
			if ended {
				dead = append(dead, bytes.Clone(k))
			}
		}
		return nil
	})
	if err != nil || len(dead) == 0 {
		return err
	}
	return s.queue.run(func() error {
		return s.update(func(tx *bbolt.Tx) error {
			w := s.weeder(tx)
			records := tx.Bucket(bucketRecords)
			for _, k := range dead {
				// It may have been deleted, or put again, meanwhile.
				v := records.Get(k)
				if v == nil {
					continue
				}
				ended, err := w.ended(k, v)
				if err != nil {
					return err
				}
				if ended {
					if err := records.Delete(k); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// weeder finds records that have ended, in the order of their keys.
type weeder struct {
	store     *Store
	tx        *bbolt.Tx
	now       int64
	id        []byte // of the channel looked at last
	abandoned bool   // that channel is not persisted any more, and its log is gone
}

func (s *Store) weeder(tx *bbolt.Tx) *weeder {
	return &weeder{store: s, tx: tx, now: s.nowMillis()}
}

func (w *weeder) ended(k, v []byte) (bool, error) {
	r, err := decodeRecord(k, v)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(w.id, k[:idLength]) {
		w.id = bytes.Clone(k[:idLength])
		channel, err := channelOf(w.tx.Bucket(bucketIDs).Get(w.id))
		if err != nil {
			return false, err
		}
		w.abandoned = !w.store.opts.Policy(channel).Persisted() && !w.store.mem.Knows(channel) && !hasLog(w.tx, w.id)
	}
	return w.abandoned || r.gone(w.now, w.store.mem.Epoch()), nil
}

// sweepChannels forgets channels that hold nothing and that nobody uses, some at each sweep.
func (s *Store) sweepChannels(context.Context) error {
	var empty [][]byte
	from := s.cursors.channels
	s.cursors.channels = nil
	err := s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketIDs).Cursor()
		looked := 0
		for id, key := cursor.Seek(from); id != nil; id, key = cursor.Next() {
			if looked++; looked > sweepLooks || len(empty) == sweepKeys {
				s.cursors.channels = bytes.Clone(id)
				return nil
			}
			channel, err := channelOf(key)
			if err != nil {
				return err
			}
			if !s.mem.Knows(channel) && holdsNothing(tx, id) {
				empty = append(empty, bytes.Clone(id))
			}
		}
		return nil
	})
	if err != nil || len(empty) == 0 {
		return err
	}
	return s.queue.run(func() error {
		return s.update(func(tx *bbolt.Tx) error {
			ids, channels := tx.Bucket(bucketIDs), tx.Bucket(bucketChannels)
			for _, id := range empty {
				key := bytes.Clone(ids.Get(id))
				channel, err := channelOf(key)
				if err != nil || s.mem.Knows(channel) || !holdsNothing(tx, id) {
					continue
				}
				m, err := decodeMeta(channels.Get(key))
				if err != nil {
					return err
				}
				s.mem.Passed(channel, m.ms, m.counter)
				if err := putHigh(tx, m.ms, m.counter); err != nil {
					return err
				}
				if err := ids.Delete(id); err != nil {
					return err
				}
				if err := channels.Delete(key); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func holdsNothing(tx *bbolt.Tx, id []byte) bool {
	return !hasLog(tx, id) && !hasPrefix(tx.Bucket(bucketRecords), id)
}

// hasLog reports whether there is any entry of a channel.
func hasLog(tx *bbolt.Tx, id []byte) bool {
	return hasPrefix(tx.Bucket(bucketLog), id) || tx.Bucket(bucketLast).Get(id) != nil
}

func hasPrefix(b *bbolt.Bucket, prefix []byte) bool {
	k, _ := b.Cursor().Seek(prefix)
	return k != nil && bytes.HasPrefix(k, prefix)
}
