// Package metrics is every figure that the server reports about itself: name, unit, labels
// and help are here and nowhere else. Other packages declare the few calls they make;
// Metrics implements them.
//
// It answers /metrics in two forms: the JSON that people read with curl, and Prometheus'
// text for a scraper that asks for it.
package metrics

import (
	"context"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

// Door says through which protocol a connection came.
type Door uint8

// The doors.
const (
	Ably Door = iota
	LetShare
	SSE
	doors
)

func (d Door) String() string { return [...]string{"ably", "letshare", "sse"}[d] }

// Metrics counts. All methods may be called from any goroutine, and cost an atomic
// operation or two.
type Metrics struct {
	started time.Time

	opened [doors]atomic.Int64
	active [doors]atomic.Int64

	published  atomic.Int64
	delivered  atomic.Int64
	rooms      atomic.Int64
	slowClosed atomic.Int64
	comet      atomic.Int64
	exceeded   [limit.Names]atomic.Int64
	rate       rate

	commitSeconds, commitAppends histogram
	commitsFailed                atomic.Int64

	redisUp       atomic.Bool
	redisAnswered atomic.Int64 // ns that the last answer took
	settings      atomic.Int64 // that differ

	certificateFailures atomic.Int64
	certificateEnds     atomic.Int64 // seconds since 1970

	mu      sync.Mutex
	refused map[string]int64 // by reason

	held func() Held
}

// Held is what a node keeps in memory now.
type Held struct {
	Sessions    int   // Ably connections, those that wait to be resumed included
	OutboxBytes int64 // waiting for slow sockets
	LogBytes    int64 // of the memory engine's channels: messages, members and overheads
	IDBytes     int64 // of the ids by which the memory engine knows what is sent again
	Evicted     int64 // messages dropped before their time for want of room, since the start

	Storage *Storage // nil: there is no database
	Redis   *Redis   // nil: the node stands alone
}

// Redis is what a node of a cluster has had to do with Redis since its start, and now.
type Redis struct {
	Appends     int64 // sent, again ones too
	Calls       int64 // of the script that did them
	Ambiguous   int64 // calls whose outcome was not known at once
	Gaps        int64 // live entries that did not follow on the one before
	CaughtUp    int64 // entries read from the log because they were missing
	Lost        int64 // times that the log did not have them
	FeedBreaks  int64 // ends of connections for live entries
	QueuedBytes int64 // of Appends that wait now
	Channels    int   // whose live entries the node gets now

	// What all nodes know.
	HeardSeconds float64 // since Redis last heard that this node lives
	Returned     int64   // times that the others took this node for gone, or Redis had forgotten it
	Buried       int64   // nodes that were gone and whose connections this one let go
	Waiting      int     // changes that Redis does not know yet, now
	Counted      int     // channels where this node counts attachments, now
	Watched      int     // channels of whose occupancy it is told, now
}

// Storage is what the database holds now.
type Storage struct {
	FileBytes    int64 // of its pages, used and free
	FreeBytes    int64 // of those that are free, to be used again
	WaitingBytes int64 // of what waits to be committed
}

// New returns metrics that count from now on.
func New() *Metrics {
	return &Metrics{
		started: time.Now(), refused: make(map[string]int64), held: func() Held { return Held{} },
		commitSeconds: newHistogram(.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5),
		commitAppends: newHistogram(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
	}
}

// Watch names what is asked for the figures of Held. It is called before anything is served.
func (m *Metrics) Watch(held func() Held) { m.held = held }

// Published counts messages accepted from a publisher.
func (m *Metrics) Published(messages int) { m.published.Add(int64(messages)) }

// Delivered counts frames handed to receivers.
func (m *Metrics) Delivered(frames int) { m.delivered.Add(int64(frames)) }

// ChannelOpened counts a channel with its first attachment on this node.
func (m *Metrics) ChannelOpened() { m.rooms.Add(1) }

// ChannelClosed counts a channel that lost its last attachment.
func (m *Metrics) ChannelClosed() { m.rooms.Add(-1) }

// ConnectionOpened counts a connection that got in.
func (m *Metrics) ConnectionOpened(d Door) {
	m.opened[d].Add(1)
	m.active[d].Add(1)
}

// ConnectionClosed counts the end of a connection.
func (m *Metrics) ConnectionClosed(d Door) { m.active[d].Add(-1) }

// SessionOpened counts an Ably connection.
func (m *Metrics) SessionOpened() { m.ConnectionOpened(Ably) }

// SessionClosed counts the end of an Ably connection.
func (m *Metrics) SessionClosed() { m.ConnectionClosed(Ably) }

// SessionRefused counts an Ably connection that did not get in.
func (m *Metrics) SessionRefused(code pubsub.Code) { m.Refused(strconv.Itoa(int(code))) }

// StreamOpened counts an event stream.
func (m *Metrics) StreamOpened() { m.ConnectionOpened(SSE) }

// StreamClosed counts the end of an event stream.
func (m *Metrics) StreamClosed() { m.ConnectionClosed(SSE) }

// StreamRefused counts an event stream that did not get in.
func (m *Metrics) StreamRefused(code pubsub.Code) { m.Refused(strconv.Itoa(int(code))) }

// Refused counts a connection that did not get in. reason is one of a small, fixed set.
func (m *Metrics) Refused(reason string) {
	m.mu.Lock()
	m.refused[reason]++
	m.mu.Unlock()
}

// CometOpened counts a transport over HTTP. The connection that it carries is counted too, as
// any other.
func (m *Metrics) CometOpened() { m.comet.Add(1) }

// CometClosed counts the end of a transport over HTTP.
func (m *Metrics) CometClosed() { m.comet.Add(-1) }

// SlowConsumerClosed counts a socket that was closed because it did not keep up.
func (m *Metrics) SlowConsumerClosed() { m.slowClosed.Add(1) }

// LimitExceeded counts what a limit has refused, dropped or ended.
func (m *Metrics) LimitExceeded(n limit.Name) { m.exceeded[n].Add(1) }

// Committed counts publishes that are durable together, and how long that took.
func (m *Metrics) Committed(appends int, took time.Duration) {
	m.commitSeconds.observe(took.Seconds())
	m.commitAppends.observe(float64(appends))
}

// CommitFailed counts what the disk refused.
func (m *Metrics) CommitFailed() { m.commitsFailed.Add(1) }

// RedisAnswered notes whether Redis has answered a look at it, and after how long.
func (m *Metrics) RedisAnswered(up bool, took time.Duration) {
	m.redisUp.Store(up)
	m.redisAnswered.Store(int64(took))
}

// SettingsCompared notes how many settings of this node differ from those of others.
func (m *Metrics) SettingsCompared(differing int) { m.settings.Store(int64(differing)) }

// histogram counts values by size.
type histogram struct {
	bounds []float64 // immutable

	mu     sync.Mutex
	counts []uint64 // of values up to the bound, and not to the one before
	count  uint64
	sum    float64
}

func newHistogram(bounds ...float64) histogram {
	return histogram{bounds: bounds, counts: make([]uint64, len(bounds))}
}

func (h *histogram) observe(v float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := sort.SearchFloat64s(h.bounds, v); i < len(h.counts) {
		h.counts[i]++
	}
	h.count++
	h.sum += v
}

// cumulative is what Prometheus wants: for each bound the number of values up to it.
func (h *histogram) cumulative() (count uint64, sum float64, buckets map[float64]uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	buckets = make(map[float64]uint64, len(h.bounds))
	upTo := uint64(0)
	for i, b := range h.bounds {
		upTo += h.counts[i]
		buckets[b] = upTo
	}
	return h.count, h.sum, buckets
}

// CertificateFailed counts a certificate that could not be read, ordered or renewed.
func (m *Metrics) CertificateFailed() { m.certificateFailures.Add(1) }

// CertificateEnds notes when the certificates are good until, the first of them. Zero means that
// there is none.
func (m *Metrics) CertificateEnds(at time.Time) {
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	m.certificateEnds.Store(at.Unix())
}

// rateSamples is the number of seconds over which the rate of messages is averaged.
const rateSamples = 10

// rate averages a counter from readings taken once a second.
type rate struct {
	mu       sync.Mutex
	readings [rateSamples + 1]int64 // the newest first
	taken    int
}

func (r *rate) sample(counter int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(r.readings[1:], r.readings[:])
	r.readings[0] = counter
	r.taken = min(r.taken+1, len(r.readings))
}

func (r *rate) perSecond() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken < 2 {
		return 0
	}
	return float64(r.readings[0]-r.readings[r.taken-1]) / float64(r.taken-1)
}

// Run takes the readings that rates are made from, until ctx ends.
func (m *Metrics) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		m.rate.sample(m.published.Load())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
