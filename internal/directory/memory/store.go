package memory

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

const (
	// DefaultSweepInterval is the time between two sweeps of Run.
	DefaultSweepInterval = 5 * time.Second

	// DefaultStateTTL is for how long connections of a node that is gone may be resumed.
	DefaultStateTTL = 2 * time.Minute

	// DefaultNotices is how many supersessions, and how many changes of occupancy, wait for a
	// node.
	DefaultNotices = 1024

	// DefaultNonces is how many nonces are kept: for 5 minutes of 1,700 token requests per
	// second, in about 30 MiB.
	DefaultNonces = 500_000

	// DefaultTouched is how many touched channels are kept, in about 20 MiB.
	DefaultTouched = 100_000

	// DefaultRevocations and DefaultAppRevocations are how many revocations are kept.
	DefaultRevocations    = 50_000
	DefaultAppRevocations = 10_000
)

// Options are the settings of a Store.
type Options struct {
	// SweepInterval is the time between two sweeps. Zero means DefaultSweepInterval.
	SweepInterval time.Duration

	// Notices is how many supersessions, and how many changes of occupancy, wait for each
	// node; more are dropped. Zero means DefaultNotices.
	Notices int

	// Nonces is how many used nonces are kept. Zero means DefaultNonces.
	Nonces int

	// Revocations is how many revocations are kept, and AppRevocations how many of them for
	// one app. Zero means DefaultRevocations and DefaultAppRevocations.
	Revocations, AppRevocations int

	// Touched is how many touched channels are kept; of more, some are forgotten. Zero means
	// DefaultTouched.
	Touched int

	// StateTTL is for how long connections of a node that is gone may be resumed. Zero means
	// DefaultStateTTL.
	StateTTL time.Duration

	// Now is the store's clock. Nil means time.Now.
	Now func() time.Time
}

const shardCount = 32

// Store is what the nodes share.
type Store struct {
	opts Options
	seed maphash.Seed

	connections [shardCount]connectionShard
	counts      [shardCount]countShard
	nonces      nonces
	revocations revocations
	apps        apps

	// mu guards the fields below. It is taken last, under a shard's lock.
	mu    sync.RWMutex
	nodes map[directory.Node]*node
	used  map[string]*app
}

// app is an app as records of connections refer to it.
type app struct {
	name      string
	connected atomic.Int64 // its Connected connections
}

// connect counts one more Connected connection. With max > 0 it reports false, and counts
// nothing, if there are as many.
func (a *app) connect(max int) bool {
	for {
		n := a.connected.Load()
		if max > 0 && n >= int64(max) {
			return false
		}
		if a.connected.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// node is a node as records refer to it.
type node struct {
	directory.Node
	superseded chan directory.Supersession
	revoked    chan struct{} // holds one notice
	changed    chan pubsub.ChannelID
	apps       chan struct{} // holds one notice
	returned   chan struct{} // holds one notice
}

type connectionShard struct {
	mu        sync.Mutex // guards the maps and what they hold
	records   map[string]*record
	inhabited map[string][]pubsub.ChannelID // by connection; of some that have expired, too
	orphans   map[string]int64              // when Orphans returns them, in ms since the epoch
}

// NewStore returns an empty store.
func NewStore(opts Options) *Store {
	if opts.SweepInterval == 0 {
		opts.SweepInterval = DefaultSweepInterval
	}
	if opts.Notices == 0 {
		opts.Notices = DefaultNotices
	}
	if opts.Nonces == 0 {
		opts.Nonces = DefaultNonces
	}
	if opts.Revocations == 0 {
		opts.Revocations = DefaultRevocations
	}
	if opts.AppRevocations == 0 {
		opts.AppRevocations = DefaultAppRevocations
	}
	if opts.Touched == 0 {
		opts.Touched = DefaultTouched
	}
	if opts.StateTTL == 0 {
		opts.StateTTL = DefaultStateTTL
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{
		opts:  opts,
		seed:  maphash.MakeSeed(),
		nodes: make(map[directory.Node]*node),
		used:  make(map[string]*app),
	}
	for i := range shardCount {
		s.connections[i] = connectionShard{
			records: make(map[string]*record), inhabited: make(map[string][]pubsub.ChannelID), orphans: make(map[string]int64),
		}
		s.counts[i].channels = make(map[pubsub.ChannelID]*count)
		s.counts[i].touched = make(map[pubsub.ChannelID]int64)
	}
	return s
}

// Directory is one node's access to a Store.
type Directory struct {
	store *Store
	node  *node
}

var _ directory.Directory = (*Directory)(nil)

// Node returns the access of one node. Another incarnation of the same name is over.
func (s *Store) Node(n directory.Node) *Directory {
	var over []*node
	s.mu.RLock()
	for other, node := range s.nodes {
		if other.Name == n.Name && other.Incarnation != n.Incarnation {
			over = append(over, node)
		}
	}
	s.mu.RUnlock()
	for _, old := range over {
		s.bury(old)
	}
	return &Directory{store: s, node: s.node(n)}
}

// node returns what stands for n in records.
func (s *Store) node(n directory.Node) *node {
	s.mu.RLock()
	known := s.nodes[n]
	s.mu.RUnlock()
	if known != nil {
		return known
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.nodes[n]; known != nil {
		return known
	}
	known = &node{
		Node:       n,
		superseded: make(chan directory.Supersession, s.opts.Notices),
		revoked:    make(chan struct{}, 1),
		changed:    make(chan pubsub.ChannelID, s.opts.Notices),
		apps:       make(chan struct{}, 1),
		returned:   make(chan struct{}, 1),
	}
	s.nodes[n] = known
	return known
}

// app returns what stands for an app in records.
func (s *Store) app(name string) *app {
	s.mu.RLock()
	known := s.used[name]
	s.mu.RUnlock()
	if known != nil {
		return known
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.used[name]; known != nil {
		return known
	}
	known = &app{name: name}
	s.used[name] = known
	return known
}

// Superseded yields the connections of this node that another generation took over.
func (d *Directory) Superseded() <-chan directory.Supersession { return d.node.superseded }

// Changed yields the watched channels whose occupancy has changed.
func (d *Directory) Changed() <-chan pubsub.ChannelID { return d.node.changed }

// Run removes expired records until ctx ends. One node's Run is enough for a Store.
func (d *Directory) Run(ctx context.Context) error {
	t := time.NewTicker(d.store.opts.SweepInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			d.store.sweep()
		}
	}
}

// sweep does once what Run does again and again.
func (s *Store) sweep() {
	now := s.opts.Now().UnixMilli()
	for i := range s.connections {
		sh := &s.connections[i]
		sh.mu.Lock()
		for id, r := range sh.records {
			if r.expired(now) {
				delete(sh.records, id)
			}
		}
		for id := range sh.inhabited {
			if _, orphan := sh.orphans[id]; sh.records[id] == nil && !orphan {
				delete(sh.inhabited, id)
			}
		}
		sh.mu.Unlock()
	}
	for i := range s.counts {
		s.counts[i].sweep(now)
	}
	s.nonces.sweep(now)
	s.revocations.sweep(now)
}

// Stats are figures of a store.
type Stats struct {
	Connections int // records, expired ones not yet swept included
	Channels    int // with connections, or watched
	Touched     int // channels, expired ones not yet swept included
}

// Stats returns the figures of now.
func (s *Store) Stats() Stats {
	var st Stats
	for i := range shardCount {
		c, n := &s.connections[i], &s.counts[i]
		c.mu.Lock()
		st.Connections += len(c.records)
		c.mu.Unlock()
		n.mu.Lock()
		st.Channels += len(n.channels)
		st.Touched += len(n.touched)
		n.mu.Unlock()
	}
	return st
}
