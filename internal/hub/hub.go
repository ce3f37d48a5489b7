package hub

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// Options configure a Hub. Engine and Directory are required.
type Options struct {
	Engine    engine.Engine
	Directory directory.Directory
	Node      directory.Node

	// Namespace returns the rules of a channel; nil means no rules at all.
	Namespace func(app, channel string) auth.Namespace

	// Retention returns for how long a channel's messages are kept, beyond engine.LiveWindow:
	// what belongs to a message stays as long. Nil means 24 h for all.
	Retention func(pubsub.ChannelID) time.Duration

	// SiteCode names the deployment to clients of objects, whose order it has a part in. All nodes have
	// the same, since they share one order. Empty means "s1".
	SiteCode string

	// Limits are those of the hub and of its doors. Nil means the defaults.
	Limits *limit.Set

	// AppendTimeout is how long the store may take to apply a publish. Zero means 5 s.
	AppendTimeout time.Duration

	// Metrics is told what happens; nil means nobody is.
	Metrics Metrics

	// Stats counts what happens, by app; nil counts nothing.
	Stats *stats.Counters
}

// Metrics is what the hub reports. The methods are called on the hot path.
type Metrics interface {
	Published(messages int) // accepted from a publisher, of any door
	Delivered(frames int)   // handed to receivers, in units of frames
	ChannelOpened()
	ChannelClosed()
}

// Hub is the channels of one node.
type Hub struct {
	opts      Options
	seed      maphash.Seed
	shards    [shardCount]shard
	fans      sync.WaitGroup // the goroutines that serve large rooms, sum up and collect
	collector objectCollector

	dueMu   sync.Mutex    // guards due and entered; taken last, nothing is done under it
	due     []*watch      // whose timer has ended, for Run
	entered []*watch      // whose channel's members have changed, for Run
	wake    chan struct{} // a token when there are some

	messageRates, byteRates limit.Buckets[pubsub.ChannelID] // of what is published
	tokenRates              limit.Buckets[publisher]

	recent recent // bases of deltas

	changing [changeQueues]chan struct{} // each holds a token while a message is being changed: inQueue

	appsMu      sync.Mutex     // comes after a shard's mu; nothing is locked under it
	appChannels map[string]int // channels in the shards, by app
}

const shardCount = 64

// shard holds a part of the channels. Lock order: channel.subscribing, shard.mu, then the
// engine's locks, then channel.mu. Nothing blocks under shard.mu or channel.mu.
type shard struct {
	mu       sync.RWMutex
	channels map[pubsub.ChannelID]*channel
	changes  atomic.Uint64 // of channels; written under mu

	touched touched // without mu
}

// New returns a hub with no channels. It starts nothing.
func New(opts Options) *Hub {
	if opts.Limits == nil {
		opts.Limits = limit.NewSet(limit.Limits{}, limit.Options{})
	}
	if opts.SiteCode == "" {
		opts.SiteCode = "s1"
	}
	if opts.AppendTimeout == 0 {
		opts.AppendTimeout = 5 * time.Second
	}
	if opts.Namespace == nil {
		opts.Namespace = func(_, _ string) auth.Namespace { return auth.Namespace{} }
	}
	if opts.Retention == nil {
		opts.Retention = func(pubsub.ChannelID) time.Duration { return 24 * time.Hour }
	}
	if opts.Metrics == nil {
		opts.Metrics = noMetrics{}
	}
	h := &Hub{opts: opts, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1), appChannels: make(map[string]int)}
	for i := range h.shards {
		h.shards[i].channels = make(map[pubsub.ChannelID]*channel)
	}
	for i := range h.changing {
		h.changing[i] = make(chan struct{}, 1)
	}
	return h
}

// Close waits until the fan-out of everything published so far is done. Publish and Attach
// must not be called any more.
func (h *Hub) Close() { h.fans.Wait() }

// Limits are the limits in force, for the doors that lead here.
func (h *Hub) Limits() *limit.Set { return h.opts.Limits }

// SiteCode names the deployment to clients of objects (CD2j).
func (h *Hub) SiteCode() string { return h.opts.SiteCode }

// Rooms is the number of channels with at least one attachment on this node.
func (h *Hub) Rooms() int {
	n := 0
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.RLock()
		n += len(s.channels)
		s.mu.RUnlock()
	}
	return n
}

func (h *Hub) shard(id pubsub.ChannelID) *shard {
	return &h.shards[maphash.Comparable(h.seed, id)%shardCount]
}

// lookup returns the channel if it has attachments on this node.
func (h *Hub) lookup(id pubsub.ChannelID) *channel {
	return h.shard(id).lookup(id)
}

func (s *shard) lookup(id pubsub.ChannelID) *channel {
	s.mu.RLock()
	c := s.channels[id]
	s.mu.RUnlock()
	return c
}

// acquire returns the channel with live delivery begun, and counts the caller as a user of
// it until release.
func (h *Hub) acquire(ctx context.Context, id pubsub.ChannelID) (*channel, error) {
	s := h.shard(id)
	s.mu.Lock()
	c := s.channels[id]
	if c == nil {
		if err := h.countChannel(id.App); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		c = newChannel(h, id)
		s.channels[id] = c
		s.changes.Add(1)
		h.opts.Metrics.ChannelOpened()
		c.counts.ChannelOpened()
	}
	c.users++
	s.mu.Unlock()

	if err := c.subscribe(ctx); err != nil {
		h.release(c)
		return nil, err
	}
	return c, nil
}

// release takes back one acquire, and reports whether it was the last one, which ends live
// delivery.
func (h *Hub) release(c *channel) (closed bool) {
	s := h.shard(c.id)
	s.mu.Lock()
	c.users--
	last := c.users == 0
	s.mu.Unlock()
	if !last {
		return false
	}

	// The channel stays findable until delivery has ended, so that an attachment that
	// comes meanwhile waits for it and begins delivery anew.
	c.subscribing.Lock()
	defer c.subscribing.Unlock()
	s.mu.RLock()
	unused := c.users == 0
	s.mu.RUnlock()
	if !unused {
		return false
	}
	if c.subscription != nil {
		c.subscription.Unsubscribe()
		c.subscription = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.users == 0 && s.channels[c.id] == c {
		delete(s.channels, c.id)
		s.changes.Add(1)
		h.uncountChannel(c.id.App)
		h.opts.Metrics.ChannelClosed()
		c.counts.ChannelClosed()
		closed = true
	}
	return closed
}

// counts returns what counts for a channel's app, given the channel if it is known here.
func (h *Hub) counts(c *channel, id pubsub.ChannelID) *stats.App {
	if c != nil {
		return c.counts
	}
	return h.opts.Stats.App(id.App)
}

// clientError turns an error of the engine or the directory into what a client is told.
func clientError(err error) *pubsub.Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrUnknownOutcome):
		return pubsub.NewError(pubsub.CodeTimeout, "outcome unknown: the store did not answer in time").Because(err)
	case errors.Is(err, engine.ErrFull):
		return pubsub.NewError(pubsub.CodeBusy, "the server's storage is full; try again later").Because(err)
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrDeadline), errors.Is(err, engine.ErrClosed),
		errors.Is(err, directory.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return pubsub.NewError(pubsub.CodeUnavailable, "the store cannot be reached; try again").Because(err)
	}
	return pubsub.ErrorFor(err)
}

type noMetrics struct{}

func (noMetrics) Published(int)  {}
func (noMetrics) Delivered(int)  {}
func (noMetrics) ChannelOpened() {}
func (noMetrics) ChannelClosed() {}
