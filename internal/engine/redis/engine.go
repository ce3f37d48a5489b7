package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/redisclient"
)

// The times of an Engine whose Options name none.
const (
	DefaultPrefix          = "letshare:"
	DefaultTimeout         = 700 * time.Millisecond
	DefaultReadTimeout     = 2 * time.Second
	DefaultQueueBytes      = 64 << 20
	DefaultCompareInterval = 30 * time.Second
)

// Options are the settings of an Engine.
type Options struct {
	// Policy says how much of a channel's log is kept. It must not call the engine. Nil means
	// engine.LiveWindow for every channel.
	Policy func(pubsub.ChannelID) engine.Policy

	// Prefix begins the names of all keys. Empty means DefaultPrefix.
	Prefix string

	// Timeout is how long an Append may take before its caller is told that Redis cannot be
	// reached or that the outcome is unknown. Zero means DefaultTimeout.
	Timeout time.Duration

	// ReadTimeout is how long all else may take. Zero means DefaultReadTimeout.
	ReadTimeout time.Duration

	// QueueBytes bounds the Appends that wait for Redis; what comes then is refused with
	// engine.ErrUnavailable. Zero means DefaultQueueBytes.
	QueueBytes int

	// CompareInterval is how long a channel may be silent until the node asks whether it has
	// missed something. Zero means DefaultCompareInterval.
	CompareInterval time.Duration

	// RoleInterval is the time between two looks at whether a primary still is one. Zero
	// means 2 s.
	RoleInterval time.Duration

	// Log gets what an operator should know. Nil means slog.Default().
	Log *slog.Logger

	now func() time.Time
}

func (o *Options) setDefaults() {
	if o.Policy == nil {
		o.Policy = func(pubsub.ChannelID) engine.Policy { return engine.Policy{} }
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = DefaultReadTimeout
	}
	if o.QueueBytes == 0 {
		o.QueueBytes = DefaultQueueBytes
	}
	if o.CompareInterval == 0 {
		o.CompareInterval = DefaultCompareInterval
	}
	if o.RoleInterval == 0 {
		o.RoleInterval = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.now = time.Now
}

// Engine is one node's access to Redis.
type Engine struct {
	opts     Options
	client   rueidis.Client
	cluster  bool
	instance string // stands for a connection's id where an Append has none
	sequence atomic.Int64

	life context.Context // ends with Run, or Close
	end  context.CancelFunc

	skew     atomic.Int64 // ms; only tests have any
	runs     runs
	appender appender
	feeds    feeds
	catching catching
	long     longLists
	stats    counters

	topology atomic.Pointer[topology]
	check    chan struct{} // the topology may have changed
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine on a client that redisclient.Open returned. The caller closes the
// client, after Run has returned.
func New(ctx context.Context, client rueidis.Client, opts Options) (*Engine, error) {
	opts.setDefaults()
	e := &Engine{
		opts:     opts,
		client:   client,
		cluster:  client.Mode() == rueidis.ClientModeCluster,
		instance: "~" + rand.Text(),
		check:    make(chan struct{}, 1),
	}
	e.life, e.end = context.WithCancel(context.Background())
	e.runs.shards = make(map[string]*shardRun)
	e.runs.slot = make([]atomic.Pointer[run], 1)
	if e.cluster {
		e.runs.slot = make([]atomic.Pointer[run], slots)
	}
	e.appender = appender{e: e, queues: make(map[pubsub.ChannelID]*queue), lanes: make(map[laneKey]*lane)}
	e.feeds = feeds{e: e, subs: make(map[string]*subscription), byShard: make(map[string]*feed)}
	if err := e.refreshTopology(ctx); err != nil {
		e.end()
		return nil, fmt.Errorf("ask Redis for its shards: %w", err)
	}
	return e, nil
}

// sweepInterval is the time between two looks for Appends whose time is over.
const sweepInterval = 50 * time.Millisecond

// topologyInterval is the time between two looks at a cluster's shards when nothing seems to
// have changed.
const topologyInterval = 10 * time.Second

// Run answers Appends in time, finds out what channels have missed, and follows the shards,
// until ctx ends. Then all else ends too: what waits is answered engine.ErrClosed, or
// engine.ErrUnknownOutcome.
func (e *Engine) Run(ctx context.Context) error {
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	compare := time.NewTicker(e.opts.CompareInterval / 4)
	defer compare.Stop()
	topology := time.NewTicker(topologyInterval)
	defer topology.Stop()
	var background sync.WaitGroup
	comparing := make(chan struct{}, 1)
	checking := make(chan struct{}, 1)
	once := func(busy chan struct{}, f func()) {
		select {
		case busy <- struct{}{}:
			background.Go(func() {
				f()
				<-busy
			})
		default: // the last one is still at it
		}
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-sweep.C:
			e.appender.sweep(now)
		case now := <-compare.C:
			once(comparing, func() { e.compareSilent(now) })
		case <-topology.C:
			e.checkTopology()
		case <-e.check:
			once(checking, func() {
				if err := e.refreshTopology(e.life); err != nil {
					redisclient.Pause(e.life, 4)
					e.checkTopology()
				}
			})
		}
	}
	e.end()
	background.Wait()
	e.appender.close()
	e.feeds.close()
	e.catching.running.Wait()
	return nil
}

// compareSilent compares the tails of the channels that had nothing for long.
func (e *Engine) compareSilent(now time.Time) {
	var silent []*subscription
	for _, s := range e.feeds.all() {
		s.mu.Lock()
		if s.live && now.Sub(s.heard) >= e.opts.CompareInterval*3/4 {
			silent = append(silent, s)
		}
		s.mu.Unlock()
	}
	e.compare(e.life, silent)
}

// Ready asks every primary for a sign of life.
func (e *Engine) Ready(ctx context.Context) error {
	if e.life.Err() != nil {
		return engine.ErrClosed
	}
	for shard := range e.topology.Load().shards {
		node := e.node(shard)
		if node == nil {
			return fmt.Errorf("%w: %w", engine.ErrUnavailable, errNoNode)
		}
		if err := node.Do(ctx, node.B().Ping().Build()).Error(); err != nil {
			return fmt.Errorf("%w: %w", engine.ErrUnavailable, err)
		}
	}
	return nil
}

func (e *Engine) skewed() time.Duration { return time.Duration(e.skew.Load()) * time.Millisecond }

// retention is a policy's, as the scripts want it.
func (e *Engine) retention(id pubsub.ChannelID) string {
	return strconv.FormatInt(e.opts.Policy(id).Retention.Milliseconds(), 10)
}

// topology is which shard keeps which slot. A shard's name is the address of its primary, or
// empty if there is but one.
type topology struct {
	shards map[string]bool
	slots  []string // nil if there is but one shard
}

func (e *Engine) shardOf(slot uint16) string {
	t := e.topology.Load()
	if t.slots == nil {
		return ""
	}
	return t.slots[slot]
}

// checkTopology makes Run look at the shards soon.
func (e *Engine) checkTopology() {
	select {
	case e.check <- struct{}{}:
	default:
	}
}

// node returns the client of a shard's primary, nil if there is none.
func (e *Engine) node(shard string) rueidis.Client {
	if !e.cluster {
		return e.client
	}
	if n, ok := e.client.Nodes()[shard]; ok {
		return n
	}
	return nil
}

func (e *Engine) refreshTopology(ctx context.Context) error {
	if !e.cluster {
		if e.topology.Load() == nil {
			e.topology.Store(&topology{shards: map[string]bool{"": true}})
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.ReadTimeout)
	defer cancel()
	// Any node will do, but one that is cut off does not know; the others outvote it soon.
	m, err := e.client.Do(ctx, e.client.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		return err
	}
	t := &topology{shards: make(map[string]bool), slots: make([]string, slots)}
	for i := range m {
		parts, err := m[i].ToArray()
		if err != nil || len(parts) < 3 {
			return errMalformed
		}
		first, err1 := parts[0].AsInt64()
		last, err2 := parts[1].AsInt64()
		primary, err3 := parts[2].ToArray()
		if errors.Join(err1, err2, err3) != nil || len(primary) < 2 || first < 0 || last >= slots {
			return errMalformed
		}
		host, err1 := primary[0].ToString()
		port, err2 := primary[1].AsInt64()
		if errors.Join(err1, err2) != nil {
			return errMalformed
		}
		addr := net.JoinHostPort(host, strconv.FormatInt(port, 10))
		t.shards[addr] = true
		for n := first; n <= last; n++ {
			t.slots[n] = addr
		}
	}
	if len(t.shards) == 0 {
		return errMalformed
	}
	old := e.topology.Swap(t)
	if old != nil {
		e.feeds.move(t.shards)
	}
	return nil
}

// runID asks a server for the id of its process.
func runID(ctx context.Context, c rueidis.CoreClient) (string, error) {
	text, err := c.Do(ctx, c.B().Info().Section("server").Build()).ToString()
	if err != nil {
		return "", err
	}
	id, found := redisclient.Info(text)["run_id"]
	if !found {
		return "", errors.New("engine: INFO of Redis has no run_id")
	}
	return strings.Clone(id), nil
}

// clock is how far a shard's clock is from this process's.
type clock struct {
	mu      sync.Mutex
	millis  int64         // store's minus ours
	quality time.Duration // of the round trip that told so
	learned time.Time
}

// learn takes an answer's time. The quickest answers tell best.
func (c *clock) learn(storeMillis int64, start time.Time, elapsed time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if elapsed > c.quality && start.Sub(c.learned) < time.Minute && !c.learned.IsZero() {
		return
	}
	c.millis = storeMillis - start.Add(elapsed/2).UnixMilli()
	c.quality, c.learned = elapsed, start
}

// restart is learn, of another process and perhaps another machine.
func (c *clock) restart(storeMillis int64, start time.Time, elapsed time.Duration) {
	c.mu.Lock()
	c.learned = time.Time{}
	c.mu.Unlock()
	c.learn(storeMillis, start, elapsed)
}

func (c *clock) offset() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.millis
}

type counters struct {
	appends, calls, ambiguous, gaps, caught, lost, feedBreaks atomic.Int64
}

// Stats are figures of an Engine, since its start unless it says otherwise.
type Stats struct {
	Appends    int64 // sent, again ones too
	Calls      int64 // of the script that did them
	Ambiguous  int64 // calls whose outcome was not known at once
	Gaps       int64 // live entries that did not follow on the one before
	CaughtUp   int64 // entries read from the log because they were missing
	Lost       int64 // times that the log did not have them
	FeedBreaks int64 // ends of connections for live entries
	Queued     int64 // bytes of Appends that wait now
	Subscribed int   // channels, now
}

// Stats returns the figures of now.
func (e *Engine) Stats() Stats {
	s := Stats{
		Appends:    e.stats.appends.Load(),
		Calls:      e.stats.calls.Load(),
		Ambiguous:  e.stats.ambiguous.Load(),
		Gaps:       e.stats.gaps.Load(),
		CaughtUp:   e.stats.caught.Load(),
		Lost:       e.stats.lost.Load(),
		FeedBreaks: e.stats.feedBreaks.Load(),
	}
	e.appender.mu.Lock()
	s.Queued = int64(e.appender.bytes)
	e.appender.mu.Unlock()
	e.feeds.mu.RLock()
	s.Subscribed = len(e.feeds.subs)
	e.feeds.mu.RUnlock()
	return s
}
