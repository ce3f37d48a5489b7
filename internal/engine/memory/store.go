package memory

import (
	"crypto/rand"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// The budgets of a Store whose Options name none.
const (
	DefaultLogBytes = 256 << 20
	DefaultIDBytes  = 64 << 20
)

// DefaultSweepInterval is the time between two sweeps of Run.
const DefaultSweepInterval = 5 * time.Second

// Options are the settings of a Store.
type Options struct {
	// Policy says how much of a channel's log is kept. It is asked when a channel is first
	// used and again at every sweep, and must not call the engine. Nil means
	// engine.LiveWindow for every channel.
	Policy func(pubsub.ChannelID) engine.Policy

	// LogBytes bounds channels, entries and records. Zero means DefaultLogBytes.
	LogBytes int64

	// IDBytes bounds the remembered ids. Zero means DefaultIDBytes.
	IDBytes int64

	// SweepInterval is the time between two sweeps. Zero means DefaultSweepInterval.
	SweepInterval time.Duration

	// Now is the store's clock. Nil means time.Now.
	Now func() time.Time

	// Backing keeps the channels whose Policy is Persisted. Nil means that nothing outlives
	// the store.
	Backing Backing
}

// Store is what the nodes share.
type Store struct {
	opts   Options
	epoch  string
	epochs atomic.Pointer[[]string] // of the ids that are remembered; the first is epoch
	seed   maphash.Seed

	shards [shardCount]shard

	bytes     atomic.Int64 // against Options.LogBytes
	idBytes   atomic.Int64 // against Options.IDBytes
	entries   atomic.Int64
	evicted   atomic.Int64
	forgotten atomic.Int64
	revision  atomic.Uint64 // of the newest record of all channels

	logs  ageQueue // the unpersisted channels that have entries
	notes ageQueue // all that remembers ids

	// roomMu makes those that need room wait for one another. It is taken before any
	// shard's or channel's lock.
	roomMu   sync.Mutex
	pressure int64 // when everything was last swept for room, in ms

	// shedMu lets one goroutine forget ids for all.
	shedMu sync.Mutex
}

const shardCount = 64

// shard is a part of the channels.
type shard struct {
	// mu guards the fields below. Lock order: shard.mu, channel.mu, ageQueue.mu.
	mu       sync.RWMutex
	channels map[pubsub.ChannelID]*channel

	// highWater is not before any clock of a channel that was here and is forgotten.
	highMs      int64
	highCounter int
}

// NewStore returns an empty store with an epoch of its own.
func NewStore(opts Options) *Store {
	if opts.Policy == nil {
		opts.Policy = func(pubsub.ChannelID) engine.Policy { return engine.Policy{} }
	}
	if opts.LogBytes == 0 {
		opts.LogBytes = DefaultLogBytes
	}
	if opts.IDBytes == 0 {
		opts.IDBytes = DefaultIDBytes
	}
	if opts.SweepInterval == 0 {
		opts.SweepInterval = DefaultSweepInterval
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{
		opts:  opts,
		epoch: strings.ToLower(rand.Text()[:pubsub.EpochLength]),
		seed:  maphash.MakeSeed(),
	}
	s.epochs.Store(&[]string{s.epoch})
	for i := range s.shards {
		s.shards[i].channels = make(map[pubsub.ChannelID]*channel)
	}
	return s
}

// Epoch is the epoch of all serials of this store.
func (s *Store) Epoch() string { return s.epoch }

// Node returns the access of one node.
func (s *Store) Node(name string) *Engine { return &Engine{store: s, name: name} }

// Stats are figures of a store.
type Stats struct {
	Channels  int   // known now
	Entries   int64 // in all logs
	Bytes     int64 // used of Options.LogBytes
	IDBytes   int64 // used of Options.IDBytes
	Evicted   int64 // entries dropped before their time for want of room, since the start
	Forgotten int64 // ids forgotten before their time for want of room, since the start
}

// Stats returns the figures of now.
func (s *Store) Stats() Stats {
	st := Stats{
		Entries:   s.entries.Load(),
		Bytes:     s.bytes.Load(),
		IDBytes:   s.idBytes.Load(),
		Evicted:   s.evicted.Load(),
		Forgotten: s.forgotten.Load(),
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		st.Channels += len(sh.channels)
		sh.mu.RUnlock()
	}
	return st
}

func (s *Store) nowMillis() int64 { return s.opts.Now().UnixMilli() }

func (s *Store) shard(id pubsub.ChannelID) *shard {
	return &s.shards[maphash.String(s.seed, id.Name)%shardCount]
}

// lock returns the channel with its lock held; it makes it when there is none.
func (s *Store) lock(id pubsub.ChannelID) *channel {
	for {
		c := s.find(id)
		if c == nil {
			c = s.create(id)
		}
		c.mu.Lock()
		if !c.forgotten {
			return c
		}
		c.mu.Unlock()
	}
}

// lockExisting returns the channel with its lock held, or nil.
func (s *Store) lockExisting(id pubsub.ChannelID) *channel {
	for {
		c := s.find(id)
		if c == nil {
			return nil
		}
		c.mu.Lock()
		if !c.forgotten {
			return c
		}
		c.mu.Unlock()
	}
}

func (s *Store) find(id pubsub.ChannelID) *channel {
	sh := s.shard(id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.channels[id]
}

func (s *Store) create(id pubsub.ChannelID) *channel {
	policy := s.opts.Policy(id)
	now := s.nowMillis()
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c := sh.channels[id]; c != nil {
		return c
	}
	// The name may be a part of a frame that would live as long as the channel.
	id = pubsub.ChannelID{App: strings.Clone(id.App), Name: strings.Clone(id.Name)}
	c := &channel{id: id, store: s, policy: policy, used: now}
	c.age.channel = c
	c.age.index = notQueued
	c.backed = s.backs(policy)
	c.clock.Resume(sh.highMs, sh.highCounter)
	c.base = c.nextSerial(now)
	c.tail = c.base
	sh.channels[id] = c
	s.bytes.Add(c.cost())
	return c
}

// forget drops the channel if it holds nothing, and nobody used it since the given time.
func (s *Store) forget(c *channel, since int64) {
	sh := s.shard(c.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgotten || !c.idle(since) || (c.aged && !s.logs.remove(&c.age)) {
		return
	}
	c.aged = false
	c.forgotten = true
	delete(sh.channels, c.id)
	s.bytes.Add(-c.cost())
	sh.passed(c.lastMs, c.lastCounter)
}

// passed raises the high water. The caller holds sh.mu.
func (sh *shard) passed(ms int64, counter int) {
	if ms > sh.highMs || ms == sh.highMs && counter > sh.highCounter {
		sh.highMs, sh.highCounter = ms, counter
	}
}
