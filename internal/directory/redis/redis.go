package redis

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// What Options mean that say nothing.
const (
	DefaultPrefix         = "letshare:"
	DefaultTimeout        = 900 * time.Millisecond
	DefaultLease          = 10 * time.Second
	DefaultStateTTL       = 2 * time.Minute
	DefaultNotices        = 1024
	DefaultNonces         = 500_000
	DefaultTouched        = 100_000
	DefaultRevocations    = 50_000
	DefaultAppRevocations = 10_000
)

// Options are the settings of a Directory. Those of all nodes must be equal.
type Options struct {
	// Prefix begins the names of all keys. Empty means DefaultPrefix.
	Prefix string

	// Timeout is how long an operation may take before it fails with
	// directory.ErrUnavailable. Zero means DefaultTimeout.
	Timeout time.Duration

	// Lease is how long after its last sign of life a node is taken for gone; it gives four in
	// that time. Zero means DefaultLease.
	Lease time.Duration

	// StateTTL is for how long connections of a node that is gone may be resumed. Zero means
	// DefaultStateTTL.
	StateTTL time.Duration

	// Notices is how many supersessions wait for the node's attention; more are dropped. Zero
	// means DefaultNotices.
	Notices int

	// Nonces is how many used nonces are kept, by all nodes. Zero means DefaultNonces.
	Nonces int

	// Touched is how many touched channels of an app are kept; of more, those that are listed
	// for the shortest time are forgotten. Zero means DefaultTouched.
	Touched int

	// Revocations is how many revocations are kept, and AppRevocations how many of them for one
	// app. Zero means DefaultRevocations and DefaultAppRevocations.
	Revocations, AppRevocations int

	// Log gets what an operator should know. Nil means slog.Default().
	Log *slog.Logger

	heartbeat time.Duration // the time between two signs of life
	tending   time.Duration // the time between two looks at what is to live on
}

func (o *Options) setDefaults() {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{{&o.Timeout, DefaultTimeout}, {&o.Lease, DefaultLease}, {&o.StateTTL, DefaultStateTTL}} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	for _, d := range []struct {
		at    *int
		value int
	}{
		{&o.Notices, DefaultNotices}, {&o.Nonces, DefaultNonces}, {&o.Touched, DefaultTouched},
		{&o.Revocations, DefaultRevocations}, {&o.AppRevocations, DefaultAppRevocations},
	} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.heartbeat == 0 {
		o.heartbeat = o.Lease / 4
	}
	if o.tending == 0 {
		o.tending = 10 * time.Second
	}
}

// Directory is one node's access to Redis.
type Directory struct {
	opts   Options
	client rueidis.Client
	node   directory.Node
	id     string // nodeID of node
	keys   keys

	skew  atomic.Int64 // ms that are added to the store's time; only tests have any
	clock atomic.Int64 // the store's time minus ours, in ms, as measured last

	superseded chan directory.Supersession
	revoked    chan struct{} // holds one notice
	changed    chan pubsub.ChannelID
	apps       chan struct{} // holds one notice
	returned   chan struct{} // holds one notice

	buried, comebacks atomic.Int64

	lease   leaseState
	counts  counts
	touches touches

	// mu guards the fields below. Nothing is called under it.
	mu       sync.Mutex
	held     map[string]*holder              // ids of which a record is being made or resumed
	used     map[string]struct{}             // what the store knows that this node has used
	doubtful map[string]directory.Connection // records that may have become this node's without its knowing
	repairs  []func(context.Context) error   // what could not be done
}

var _ directory.Directory = (*Directory)(nil)

// New returns the access of a node on a client that redisclient.Open returned, and tells the
// others that the node lives, for the time of one lease. A name and incarnation are used once.
// The caller closes the client, after Run has returned.
func New(ctx context.Context, client rueidis.Client, node directory.Node, opts Options) (*Directory, error) {
	opts.setDefaults()
	d := &Directory{
		opts:       opts,
		client:     client,
		node:       node,
		id:         nodeID(node),
		keys:       keys(opts.Prefix),
		superseded: make(chan directory.Supersession, opts.Notices),
		revoked:    make(chan struct{}, 1),
		changed:    make(chan pubsub.ChannelID, opts.Notices),
		apps:       make(chan struct{}, 1),
		returned:   make(chan struct{}, 1),
		held:       make(map[string]*holder),
		used:       make(map[string]struct{}),
		doubtful:   make(map[string]directory.Connection),
	}
	d.counts.channels, d.counts.watched = make(map[pubsub.ChannelID]*tally), make(map[pubsub.ChannelID]struct{})
	d.touches.until, d.touches.wake = make(map[pubsub.ChannelID]int64), make(chan struct{}, 1)
	for try := 1; ; try++ {
		err := d.measure(ctx)
		if err == nil {
			_, err = d.heartbeat(ctx)
		}
		if err == nil || try == tries {
			return d, err
		}
	}
}

// tries is how often New tries to reach Redis, each for the time of one operation.
const tries = 10

// Stats are figures of a Directory.
type Stats struct {
	Heard    time.Time // when Redis last heard that this node lives
	Buried   int64     // nodes that were gone and that this one buried, since its start
	Returned int64     // times that this node was taken for gone, or forgotten, since its start
	Waiting  int       // changes that Redis does not know yet, now
	Counted  int       // channels where this node counts something, now
	Watched  int       // channels of whose changes it is told, now
}

// Stats returns the figures of now.
func (d *Directory) Stats() Stats {
	s := Stats{Buried: d.buried.Load(), Returned: d.comebacks.Load()}
	d.lease.mu.Lock()
	s.Heard = d.lease.last
	d.lease.mu.Unlock()
	c := &d.counts
	c.mu.Lock()
	s.Counted, s.Watched = len(c.channels), len(c.watched)
	for _, t := range c.channels {
		if t.dirty {
			s.Waiting++
		}
	}
	c.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Waiting += len(d.repairs) + len(d.doubtful)
	return s
}

// Superseded yields the connections of this node that another generation took over.
func (d *Directory) Superseded() <-chan directory.Supersession { return d.superseded }

// Revoked yields when there may be new revocations.
func (d *Directory) Revoked() <-chan struct{} { return d.revoked }

// Changed yields the watched channels whose occupancy has changed.
func (d *Directory) Changed() <-chan pubsub.ChannelID { return d.changed }

// AppsChanged yields when apps may have changed.
func (d *Directory) AppsChanged() <-chan struct{} { return d.apps }

// Returned yields when the store does not know this node's connections any more.
func (d *Directory) Returned() <-chan struct{} { return d.returned }

// Run gives signs of life, reads notices, repeats what could not be done, and buries nodes
// that are gone, until ctx ends. Then it tells the others that this node is gone.
func (d *Directory) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { d.readNotices(ctx) })
	running.Go(func() { d.live(ctx) })
	running.Go(func() { d.mend(ctx) })
	running.Go(func() { d.tellTouches(ctx) })
	running.Wait()
	ctx, cancel := d.bounded(context.WithoutCancel(ctx))
	defer cancel()
	d.leave(ctx)
	return nil
}

// holder is a lock of one id.
type holder struct {
	mu   sync.Mutex
	uses int // guarded by Directory.mu
}

// hold waits until nobody on this node makes or resumes the record of id, and returns what
// lets the next one do it.
func (d *Directory) hold(id string) (release func()) {
	d.mu.Lock()
	h := d.held[id]
	if h == nil {
		h = new(holder)
		d.held[id] = h
	}
	h.uses++
	d.mu.Unlock()
	h.mu.Lock()
	return func() {
		h.mu.Unlock()
		d.mu.Lock()
		defer d.mu.Unlock()
		if h.uses--; h.uses == 0 {
			delete(d.held, id)
		}
	}
}

// What the store knows that a node has used: kind and name.
const (
	usedApp    = "a" // and the app: it has an index
	usedBucket = "b" // and a bucket of channels: it counts there
)

// use notes for those who bury this node that it has left something in a part of the store.
func (d *Directory) use(ctx context.Context, part string) error {
	d.mu.Lock()
	_, known := d.used[part]
	d.mu.Unlock()
	if known {
		return nil
	}
	if _, _, err := d.eval(ctx, scriptAdd, []string{d.keys.used(d.id)}, part); err != nil {
		return err
	}
	d.mu.Lock()
	d.used[part] = struct{}{}
	d.mu.Unlock()
	return nil
}

// maxRepairs bounds what waits to be done again, and maxDoubtful the records in doubt. What is
// beyond is found when a node is buried, at the latest.
const (
	maxRepairs  = 100_000
	maxDoubtful = 100_000
)

// repair has f called until it succeeds.
func (d *Directory) repair(f func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.repairs) < maxRepairs {
		d.repairs = append(d.repairs, f)
	}
}

// doubt notes that a record may have become this node's, and nobody here knows: before is
// what it was.
func (d *Directory) doubt(before directory.Connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.doubtful) < maxDoubtful {
		d.doubtful[before.ID] = before
	}
}

// trust notes that there is somebody here who knows that a record is this node's.
func (d *Directory) trust(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.doubtful, id)
}

// mendInterval is the time between two tries of what could not be done.
const mendInterval = time.Second

// mend does what could not be done, until ctx ends.
func (d *Directory) mend(ctx context.Context) {
	ticker := time.NewTicker(mendInterval)
	defer ticker.Stop()
	looked := time.Now()
	var place auditPlace
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		d.mendOnce(ctx)
		all := time.Since(looked) >= d.opts.tending
		if all {
			looked = time.Now()
			d.tend(ctx)
			_ = d.audit(ctx, &place) // which goes on the next time
		}
		d.report(ctx, all)
	}
}

func (d *Directory) mendOnce(ctx context.Context) {
	d.mu.Lock()
	repairs := d.repairs
	d.repairs = nil
	doubtful := make([]directory.Connection, 0, len(d.doubtful))
	for _, c := range d.doubtful {
		doubtful = append(doubtful, c)
	}
	d.mu.Unlock()
	for _, c := range doubtful {
		repairs = append(repairs, func(ctx context.Context) error { return d.settleDoubt(ctx, c) })
	}
	for i, f := range repairs {
		once, cancel := d.bounded(ctx)
		err := f(once)
		cancel()
		if !errors.Is(err, directory.ErrUnavailable) {
			if err != nil {
				d.opts.Log.Error("what could not be done in Redis is given up", "error", err)
			}
			continue
		}
		for j, f := range repairs[i:] {
			if i+j < len(repairs)-len(doubtful) { // those in doubt are still noted
				d.repair(f)
			}
		}
		return
	}
}

// settleDoubt makes an orphan of a record that became this node's although nobody here knows.
func (d *Directory) settleDoubt(ctx context.Context, before directory.Connection) error {
	defer d.hold(before.ID)()
	d.mu.Lock()
	_, still := d.doubtful[before.ID]
	d.mu.Unlock()
	if !still {
		return nil
	}
	now, err := d.connection(ctx, before.ID, "look")
	switch is := now.found; {
	case err != nil:
	case now.status != statusOK || is.Owner != d.node:
		_, _, err = d.index(ctx, before.App, d.id, "", before.ID, "remove", "", 0)
	case is.Owner != before.Owner || is.Generation > before.Generation || before.State == 0:
		err = d.orphan(ctx, d.id, before.App, before.ID)
	}
	if !errors.Is(err, directory.ErrUnavailable) {
		d.trust(before.ID)
	}
	return err
}
