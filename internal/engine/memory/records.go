package memory

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// Records returns one space's records in the order of their keys.
func (e *Engine) Records(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, after string, limit int) ([]engine.Record, error) {
	if limit <= 0 {
		return nil, errLimit
	}
	c, elsewhere := e.store.lockRecords(id)
	if elsewhere {
		return e.store.opts.Backing.Records(ctx, id, space, after, limit)
	}
	if c == nil {
		return nil, nil
	}
	defer c.mu.Unlock()
	now := e.store.nowMillis()
	c.used = now
	return c.records.list(space, after, limit, now), nil
}

// Record returns one record.
func (e *Engine) Record(ctx context.Context, id pubsub.ChannelID, key engine.RecordKey) (engine.Record, bool, error) {
	c, elsewhere := e.store.lockRecords(id)
	if elsewhere {
		return e.store.opts.Backing.Record(ctx, id, key)
	}
	if c == nil {
		return engine.Record{}, false, nil
	}
	defer c.mu.Unlock()
	now := e.store.nowMillis()
	c.used = now
	if r := c.records.get(key, now); r != nil {
		return r.Record, true, nil
	}
	return engine.Record{}, false, nil
}

// putAll replaces and deletes records. r is the result of the Append that they are part of.
func (c *channel) putAll(puts []engine.Put, r *engine.Result, now int64) {
	for i := range puts {
		p := &puts[i]
		if p.Value == nil {
			c.store.bytes.Add(-c.records.delete(p.RecordKey))
			continue
		}
		n := &record{Record: engine.Record{
			RecordKey: c.records.ownKey(p.RecordKey),
			Value:     p.Value,
			Revision:  c.store.revision.Add(1),
		}}
		if p.Entry != engine.NoEntry {
			n.Serial, n.Timestamp = r.Serials[p.Entry], r.Timestamp
		}
		if p.Expire > 0 {
			n.expires = now + p.Expire.Milliseconds()
		}
		n.transient = p.Transient
		c.store.bytes.Add(-c.records.put(n))
	}
}

// record is a Record and its end.
type record struct {
	engine.Record
	expires   int64 // ms; 0: never
	transient bool
}

func (r *record) cost() int64 { return recordCost + int64(len(r.Key)+len(r.Value)) }

func (r *record) expired(now int64) bool { return r.expires != 0 && r.expires <= now }

// maxChunk is how many records are moved at most to make room for one.
const maxChunk = 256

// recordSet holds the records of all spaces of a channel in order, in chunks that are
// never empty.
type recordSet struct {
	chunks  [][]*record
	n       int
	expires int64    // no record expires before; 0: none expires
	tallies *tallies // by space; nil if there are no records
}

// tallies is how much each space holds.
type tallies [engine.RecordObject + 1]engine.Tally

// tally counts records that come or, with negative numbers, go.
func (s *recordSet) tally(space engine.RecordSpace, records int, bytes int64) {
	if int(space) >= len(s.tallies) {
		return
	}
	if s.tallies == nil {
		s.tallies = new(tallies)
	}
	s.tallies[space].Records += records
	s.tallies[space].Bytes += bytes
}

// exceeds returns why a bound forbids puts, or nil. Records that have expired and are not
// dropped yet count.
func (s *recordSet) exceeds(b *engine.Bound, puts []engine.Put) error {
	var now engine.Tally
	if s.tallies != nil && int(b.Space) < len(s.tallies) {
		now = s.tallies[b.Space]
	}
	return b.Check(puts, now, func(key string) (int64, bool) {
		c, i, found := s.find(engine.RecordKey{Space: b.Space, Key: key})
		if !found {
			return 0, false
		}
		return engine.Payload(key, s.chunks[c][i].Value), true
	})
}

func compareKeys(r *record, key engine.RecordKey) int {
	if c := cmp.Compare(r.Space, key.Space); c != 0 {
		return c
	}
	return strings.Compare(r.Key, key.Key)
}

// find returns the place of key: where it is, or where it belongs. The chunk is
// len(chunks) only if there are none.
func (s *recordSet) find(key engine.RecordKey) (chunk, i int, found bool) {
	chunk, found = slices.BinarySearchFunc(s.chunks, key, func(c []*record, k engine.RecordKey) int {
		return compareKeys(c[0], k)
	})
	if found || len(s.chunks) == 0 {
		return chunk, 0, found
	}
	chunk = max(chunk-1, 0)
	i, found = slices.BinarySearchFunc(s.chunks[chunk], key, compareKeys)
	return chunk, i, found
}

// ownKey returns a key that keeps nothing else in memory: that of the record which is there, or a copy.
func (s *recordSet) ownKey(key engine.RecordKey) engine.RecordKey {
	if c, i, found := s.find(key); found {
		return s.chunks[c][i].RecordKey
	}
	key.Key = strings.Clone(key.Key)
	return key
}

func (s *recordSet) get(key engine.RecordKey, now int64) *record {
	if c, i, found := s.find(key); found && !s.chunks[c][i].expired(now) {
		return s.chunks[c][i]
	}
	return nil
}

// list copies out what Records returns.
func (s *recordSet) list(space engine.RecordSpace, after string, limit int, now int64) []engine.Record {
	c, i, found := s.find(engine.RecordKey{Space: space, Key: after})
	if found && after != "" {
		i++
	}
	var out []engine.Record
	for ; c < len(s.chunks); c, i = c+1, 0 {
		for ; i < len(s.chunks[c]); i++ {
			r := s.chunks[c][i]
			if r.Space != space || len(out) == limit {
				return out
			}
			if !r.expired(now) {
				out = append(out, r.Record)
			}
		}
	}
	return out
}

// put adds r, or replaces the record with its key. It returns the cost of what it replaced.
func (s *recordSet) put(r *record) (freed int64) {
	if r.expires != 0 && (s.expires == 0 || r.expires < s.expires) {
		s.expires = r.expires
	}
	c, i, found := s.find(r.RecordKey)
	switch {
	case found:
		old := s.chunks[c][i]
		s.tally(r.Space, 0, engine.Payload(r.Key, r.Value)-engine.Payload(old.Key, old.Value))
		s.chunks[c][i] = r
		return old.cost()
	case len(s.chunks) == 0:
		s.chunks = append(s.chunks, []*record{r})
	default:
		s.chunks[c] = slices.Insert(s.chunks[c], i, r)
		if n := len(s.chunks[c]); n > maxChunk {
			// Keys that come in order, as serials do, leave full chunks behind.
			half := n / 2
			if c == len(s.chunks)-1 && i == n-1 {
				half = n - 1
			}
			rest := slices.Clone(s.chunks[c][half:])
			clear(s.chunks[c][half:])
			s.chunks[c] = s.chunks[c][:half]
			s.chunks = slices.Insert(s.chunks, c+1, rest)
		}
	}
	s.n++
	s.tally(r.Space, 1, engine.Payload(r.Key, r.Value))
	return 0
}

// delete returns the cost of what it deleted.
func (s *recordSet) delete(key engine.RecordKey) (freed int64) {
	c, i, found := s.find(key)
	if !found {
		return 0
	}
	old := s.chunks[c][i]
	freed = old.cost()
	s.n--
	s.tally(old.Space, -1, -engine.Payload(old.Key, old.Value))
	s.chunks[c] = slices.Delete(s.chunks[c], i, i+1)
	if len(s.chunks[c]) == 0 {
		s.chunks = slices.Delete(s.chunks, c, c+1)
	}
	if s.n == 0 {
		*s = recordSet{}
	}
	return freed
}

// expire drops the records whose time is over and returns what they cost.
func (s *recordSet) expire(now int64) (freed int64) {
	if s.expires == 0 || s.expires > now {
		return 0
	}
	s.expires = 0
	chunks := s.chunks[:0]
	for _, c := range s.chunks {
		c = slices.DeleteFunc(c, func(r *record) bool {
			if r.expired(now) {
				freed += r.cost()
				s.n--
				s.tally(r.Space, -1, -engine.Payload(r.Key, r.Value))
				return true
			}
			if r.expires != 0 && (s.expires == 0 || r.expires < s.expires) {
				s.expires = r.expires
			}
			return false
		})
		if len(c) > 0 {
			chunks = append(chunks, c)
		}
	}
	clear(s.chunks[len(chunks):])
	s.chunks = chunks
	return freed
}
