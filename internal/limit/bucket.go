package limit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// Bucket measures one rate. It holds what comes in the Set's burst, and fills with the rate;
// rate and burst may change between calls. The zero value is full. It may be used from any
// goroutine.
type Bucket struct {
	full atomic.Int64 // when it is full again, on the Set's clock
}

// Allow takes n out of b, at a rate of perSecond, and reports whether they were there: if
// not, it takes nothing. More than b holds are allowed when it is full; they are owed then.
// A rate of 0 allows everything.
func (s *Set) Allow(b *Bucket, perSecond, n int) bool {
	if perSecond <= 0 {
		return true
	}
	now := s.now()
	for {
		before := b.full.Load()
		after, ok := s.take(before, now, perSecond, n)
		if !ok {
			return false
		}
		if b.full.CompareAndSwap(before, after) {
			return true
		}
	}
}

// take returns when a bucket that is full again at a time will be so without n. It reports
// false if they are not in it.
func (s *Set) take(full, now int64, perSecond, n int) (after int64, ok bool) {
	cost := int64(n) * int64(time.Second) / int64(perSecond)
	size := int64(s.Load().Burst)
	from := max(full, now)
	if from-now+cost > size && (full > now || cost <= size) {
		return full, false
	}
	return from + cost, true
}

const (
	bucketShards = 16

	// maxBuckets bounds each Buckets. Beyond it the buckets of some are forgotten,
	// which makes them full: a table that is full of other keys refuses nobody.
	maxBuckets = 1 << 16
)

// Buckets are Bucket by key, of which they keep a hash of 64 bits and not the key itself.
// Those that are full again need no memory. The zero value is ready.
type Buckets[K comparable] struct {
	once   sync.Once
	seed   maphash.Seed
	shards [bucketShards]bucketShard
}

type bucketShard struct {
	mu   sync.Mutex       // nothing is called under it
	full map[uint64]int64 // by the key's hash
}

// AllowOf is Allow for the bucket of a key.
func AllowOf[K comparable](s *Set, t *Buckets[K], key K, perSecond, n int) bool {
	if perSecond <= 0 {
		return true
	}
	sh, hash := t.shard(key)
	now := s.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	full, known := sh.full[hash]
	after, ok := s.take(full, now, perSecond, n)
	if !ok {
		return false
	}
	if !known {
		sh.makeRoomLocked(now)
	}
	sh.full[hash] = after
	return true
}

// HasOf reports whether AllowOf would allow n, and takes nothing.
func HasOf[K comparable](s *Set, t *Buckets[K], key K, perSecond, n int) bool {
	if perSecond <= 0 {
		return true
	}
	sh, hash := t.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, ok := s.take(sh.full[hash], s.now(), perSecond, n)
	return ok
}

func (t *Buckets[K]) shard(key K) (sh *bucketShard, hash uint64) {
	t.once.Do(func() { t.seed = maphash.MakeSeed() })
	hash = maphash.Comparable(t.seed, key)
	return &t.shards[hash%bucketShards], hash
}

// makeRoomLocked makes room for one more bucket.
func (sh *bucketShard) makeRoomLocked(now int64) {
	const most = maxBuckets / bucketShards
	if sh.full == nil {
		sh.full = make(map[uint64]int64)
	}
	if len(sh.full) < most {
		return
	}
	for hash, full := range sh.full {
		if full <= now {
			delete(sh.full, hash)
		}
	}
	for hash := range sh.full {
		if len(sh.full) < most*3/4 { // so that not every new key walks through all
			return
		}
		delete(sh.full, hash)
	}
}

// Len is how many buckets are kept.
func (t *Buckets[K]) Len() int {
	n := 0
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		n += len(sh.full)
		sh.mu.Unlock()
	}
	return n
}
