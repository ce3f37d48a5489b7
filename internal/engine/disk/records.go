package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// maxRecordKey bounds the keys of records, in bytes, as bbolt bounds keys.
const maxRecordKey = 16 << 10

const (
	recordTransient = 1 << iota
	recordHasEntry
)

// spaceKey is the key in bucketRecords before all records of a space.
func spaceKey(id []byte, space engine.RecordSpace) []byte {
	return append(append(make([]byte, 0, idLength+1+64), id...), byte(space))
}

func recordKey(id []byte, key engine.RecordKey) []byte {
	return append(spaceKey(id, key.Space), key.Key...)
}

func encodeRecord(r *engine.Record, expires int64, transient bool, epoch string) []byte {
	b := make([]byte, 0, 2+8+8+pubsub.EpochLength+serialLength+8+len(r.Value))
	flags := byte(0)
	if transient {
		flags |= recordTransient
	}
	if r.Serial != "" {
		flags |= recordHasEntry
	}
	b = append(b, valueVersion, flags)
	b = binary.BigEndian.AppendUint64(b, r.Revision)
	b = binary.BigEndian.AppendUint64(b, uint64(expires))
	if transient {
		b = append(b, epoch...)
	}
	if r.Serial != "" {
		b = binary.BigEndian.AppendUint64(appendSerial(b, r.Serial), uint64(r.Timestamp))
	}
	return append(b, r.Value...)
}

// stored is a record as it lies in the database; its Value points into that.
type stored struct {
	engine.Record
	expires int64
	epoch   string // of the process that it ends with; empty: it is kept
}

// decodeRecord reads a record from what bucketRecords has under a key.
func decodeRecord(key, value []byte) (stored, error) {
	var r stored
	if len(key) <= idLength || len(value) < 2 || value[0] != valueVersion {
		return r, fmt.Errorf("record: %w", errMalformed)
	}
	r.Space, r.Key = engine.RecordSpace(key[idLength]), string(key[idLength+1:])
	flags := value[1]
	f := fields{b: value[2:]}
	r.Revision = binary.BigEndian.Uint64(f.take(8))
	r.expires = int64(binary.BigEndian.Uint64(f.take(8)))
	if flags&recordTransient != 0 {
		r.epoch = string(f.take(pubsub.EpochLength))
	}
	if flags&recordHasEntry != 0 {
		r.Serial = serialOf(f.take(serialLength))
		r.Timestamp = int64(binary.BigEndian.Uint64(f.take(8)))
	}
	if f.bad {
		return r, fmt.Errorf("record: %w", errMalformed)
	}
	r.Value = f.b
	return r, nil
}

// gone reports whether the record has ended, by time or with another process.
func (r *stored) gone(now int64, epoch string) bool {
	return r.expires != 0 && r.expires <= now || r.epoch != "" && r.epoch != epoch
}

// record returns the record with a key, or none, whose revision is 0.
func (g *group) record(c *channel, key engine.RecordKey) (stored, error) {
	if !c.known() {
		return stored{}, nil
	}
	return lookup(g.tx, c.meta.id[:], key, g.now, g.store.mem.Epoch())
}

func lookup(tx *bbolt.Tx, id []byte, key engine.RecordKey, now int64, epoch string) (stored, error) {
	k := recordKey(id, key)
	v := tx.Bucket(bucketRecords).Get(k)
	if v == nil {
		return stored{}, nil
	}
	r, err := decodeRecord(k, v)
	if err != nil || r.gone(now, epoch) {
		return stored{}, err
	}
	return r, nil
}

// bound checks a Bound of an Append that puts.
func (g *group) bound(c *channel, b *engine.Bound, puts []engine.Put) error {
	now, err := g.tally(c, b.Space)
	if err != nil {
		return outcomeOf(err)
	}
	exceeded := b.Check(puts, now, func(key string) (int64, bool) {
		r, e := g.record(c, engine.RecordKey{Space: b.Space, Key: key})
		if e != nil || r.Revision == 0 {
			err = e
			return 0, false
		}
		return engine.Payload(key, r.Value), true
	})
	if err != nil {
		return outcomeOf(err)
	}
	return exceeded
}

// tally counts what a space holds, once in a group.
func (g *group) tally(c *channel, space engine.RecordSpace) (engine.Tally, error) {
	if t := c.tallies[space]; t != nil {
		return *t, nil
	}
	t := new(engine.Tally)
	if c.known() {
		prefix := spaceKey(c.meta.id[:], space)
		epoch := g.store.mem.Epoch()
		cursor := g.tx.Bucket(bucketRecords).Cursor()
		for k, v := cursor.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = cursor.Next() {
			r, err := decodeRecord(k, v)
			if err != nil {
				return engine.Tally{}, err
			}
			if !r.gone(g.now, epoch) {
				t.Records++
				t.Bytes += engine.Payload(r.Key, r.Value)
			}
		}
	}
	if c.tallies == nil {
		c.tallies = make(map[engine.RecordSpace]*engine.Tally)
	}
	c.tallies[space] = t
	return *t, nil
}

// onlyDeletes reports whether a deletes records that are there and puts none. Such an Append is
// done although the bound is reached: members that leave say so.
func (g *group) onlyDeletes(c *channel, a *engine.Append) (any bool) {
	for i := range a.Puts {
		if a.Puts[i].Value != nil {
			return false
		}
		r, err := g.record(c, a.Puts[i].RecordKey)
		any = any || err == nil && r.Revision > 0
	}
	return any
}

// putAll replaces and deletes the records of a staged item.
func (g *group) putAll(c *channel, it *item) error {
	for i := range it.Append.Puts {
		p := &it.Append.Puts[i]
		if p.Value == nil {
			if err := g.deleteRecord(c, p.RecordKey); err != nil {
				return err
			}
			continue
		}
		r := engine.Record{RecordKey: p.RecordKey, Value: p.Value, Revision: g.store.mem.NextRevision()}
		if p.Entry != engine.NoEntry {
			r.Serial, r.Timestamp = it.Result.Serials[p.Entry], it.Result.Timestamp
		}
		expires := int64(0)
		if p.Expire > 0 {
			expires = g.now + p.Expire.Milliseconds()
		}
		if err := g.putRecord(c, &r, expires, p.Transient); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) putRecord(c *channel, r *engine.Record, expires int64, transient bool) error {
	if t := c.tallies[r.Space]; t != nil {
		old, err := g.record(c, r.RecordKey)
		if err != nil {
			return err
		}
		if old.Revision > 0 {
			t.Records--
			t.Bytes -= engine.Payload(r.Key, old.Value)
		}
		t.Records++
		t.Bytes += engine.Payload(r.Key, r.Value)
	}
	key := recordKey(c.meta.id[:], r.RecordKey)
	value := encodeRecord(r, expires, transient, g.store.mem.Epoch())
	g.written += int64(len(key) + len(value))
	g.revision = max(g.revision, r.Revision)
	return g.tx.Bucket(bucketRecords).Put(key, value)
}

func (g *group) deleteRecord(c *channel, key engine.RecordKey) error {
	if t := c.tallies[key.Space]; t != nil {
		old, err := g.record(c, key)
		if err != nil {
			return err
		}
		if old.Revision > 0 {
			t.Records--
			t.Bytes -= engine.Payload(key.Key, old.Value)
		}
	}
	return g.tx.Bucket(bucketRecords).Delete(recordKey(c.meta.id[:], key))
}

// maxSkipped is how many records that have ended are passed over in one transaction.
const maxSkipped = 4096

// Records returns one space's records in the order of their keys. It implements
// memory.Backing.
func (b *backing) Records(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, after string, limit int) (out []engine.Record, err error) {
	s := (*Store)(b)
	now, epoch := s.nowMillis(), s.mem.Epoch()
	for more := true; more && err == nil; {
		err = s.view(func(tx *bbolt.Tx) error {
			more = false
			m, ok, err := lookupMeta(tx, id)
			if err != nil || !ok {
				return err
			}
			prefix := spaceKey(m.id[:], space)
			from := append(bytes.Clone(prefix), after...)
			cursor := tx.Bucket(bucketRecords).Cursor()
			k, v := cursor.Seek(from)
			if after != "" && bytes.Equal(k, from) {
				k, v = cursor.Next()
			}
			for skipped := 0; k != nil && bytes.HasPrefix(k, prefix) && len(out) < limit; k, v = cursor.Next() {
				r, err := decodeRecord(k, v)
				if err != nil {
					return err
				}
				if !r.gone(now, epoch) {
					r.Value = bytes.Clone(r.Value)
					out = append(out, r.Record)
				} else if skipped++; skipped == maxSkipped {
					after, more = r.Key, true
					return ctx.Err()
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, outcomeOf(err)
	}
	return out, nil
}

// Record returns one record. It implements memory.Backing.
func (b *backing) Record(_ context.Context, id pubsub.ChannelID, key engine.RecordKey) (out engine.Record, found bool, err error) {
	s := (*Store)(b)
	err = s.view(func(tx *bbolt.Tx) error {
		m, ok, err := lookupMeta(tx, id)
		if err != nil || !ok {
			return err
		}
		r, err := lookup(tx, m.id[:], key, s.nowMillis(), s.mem.Epoch())
		if err != nil || r.Revision == 0 {
			return err
		}
		r.Value = append([]byte{}, r.Value...)
		out, found = r.Record, true
		return nil
	})
	if err != nil {
		return engine.Record{}, false, outcomeOf(err)
	}
	return out, found, nil
}

func lookupMeta(tx *bbolt.Tx, id pubsub.ChannelID) (meta, bool, error) {
	v := tx.Bucket(bucketChannels).Get(channelKey(id))
	if v == nil {
		return meta{}, false, nil
	}
	m, err := decodeMeta(v)
	return m, err == nil, err
}
