package limit

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Limits are the numbers in force at one time. They are not changed; a Set exchanges them.
type Limits struct {
	// Sizes in bytes. Zero means the default.
	MessageBytes int // of one publish; 65536
	BodyBytes    int // of the body of one HTTP request; 2 MiB

	// Counts. Zero means the default.
	ConnectionChannels int   // attachments of one connection; 1000
	PresenceMembers    int   // of one channel; 1000
	PresenceBytes      int64 // what they take together; 1 MiB
	Objects            int   // maps and counters of one channel; 50000
	ObjectBytes        int64 // what they take together; 6.5 MiB
	AddressSockets     int   // of one address that have not authenticated; 1000

	// Counts of one app. Zero means no limit.
	AppConnections int // connections with a transport, on all nodes
	AppChannels    int // channels with an attachment, on this node

	// ConnectionProtocolMessages is how many ProtocolMessages of any kind one connection may
	// send in a second. Zero means 20000.
	ConnectionProtocolMessages int

	// AddressFailures is how many authentications from one address may fail in a second.
	// Zero means 10.
	AddressFailures int

	// Burst is how long a rate may have been saved up for: a bucket holds as much as comes
	// in this time. Zero means 5 s.
	Burst time.Duration

	Rates
}

// Rates are bounds per second. Zero means no limit.
type Rates struct {
	ConnectionMessages int // messages and presence messages that one connection sends
	ConnectionOutbound int // that one connection is sent

	ChannelMessages int // published to one channel on this node
	ChannelBytes    int // the same in bytes

	AppNewConnections int // of one app on this node
	AppRequests       int // REST requests of one app on this node, those for tokens aside
	AppTokenRequests  int // requests for tokens of one app on this node
}

// FatalFactor is how many times ConnectionMessages a connection may send before it is ended.
const FatalFactor = 20

// defaultProtocolMessages holds also where there are no rates, against floods.
const defaultProtocolMessages = 20_000

func (l Limits) withDefaults() Limits {
	setDefault(&l.MessageBytes, 64<<10)
	setDefault(&l.BodyBytes, 2<<20)
	setDefault(&l.ConnectionChannels, 1000)
	setDefault(&l.PresenceMembers, 1000)
	setDefault(&l.PresenceBytes, 1<<20)
	setDefault(&l.Objects, 50_000)
	setDefault(&l.ObjectBytes, 6_815_744)
	setDefault(&l.AddressSockets, 1000)
	setDefault(&l.ConnectionProtocolMessages, defaultProtocolMessages)
	setDefault(&l.AddressFailures, 10)
	setDefault(&l.Burst, 5*time.Second)
	return l
}

// withoutRates is l for an app that has none. Counts and sizes stay.
func (l Limits) withoutRates() Limits {
	l.Rates = Rates{}
	l.ConnectionProtocolMessages = max(l.ConnectionProtocolMessages, defaultProtocolMessages)
	return l
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Options configure a Set. The zero value is good.
type Options struct {
	// WithoutRates reports whether an app has no rates, as those for tests have none. It is
	// asked while there are any. Nil means that there is no such app.
	WithoutRates func(app string) bool

	Metrics Metrics      // nil: nobody is told
	Log     *slog.Logger // nil discards
}

// Metrics is what a Set reports.
type Metrics interface {
	LimitExceeded(Name)
}

// Set is the limits in force. All methods may be called from any goroutine.
type Set struct {
	opts    Options
	started time.Time
	current atomic.Pointer[generation]
	breach  [Names]breaches
}

// generation is the limits between two calls of Replace.
type generation struct {
	all       Limits
	unlimited Limits // of apps without rates
	differ    bool
}

// breaches keeps the log short.
type breaches struct {
	logged atomic.Int64 // when the next line may be written, on the Set's clock
	silent atomic.Int64 // since the last line
}

// NewSet returns a Set with the given limits.
func NewSet(l Limits, opts Options) *Set {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Metrics == nil {
		opts.Metrics = noMetrics{}
	}
	s := &Set{opts: opts, started: time.Now()}
	s.Replace(l)
	return s
}

// Replace puts other limits in force, for all that is open too.
func (s *Set) Replace(l Limits) {
	g := &generation{all: l.withDefaults()}
	g.unlimited = g.all.withoutRates()
	g.differ = g.all != g.unlimited && s.opts.WithoutRates != nil
	s.current.Store(g)
}

// Load returns the limits of now. The caller changes nothing.
func (s *Set) Load() *Limits { return &s.current.Load().all }

// For is Load for what belongs to an app.
func (s *Set) For(app string) *Limits {
	g := s.current.Load()
	if g.differ && s.opts.WithoutRates(app) {
		return &g.unlimited
	}
	return &g.all
}

// now is the time since the Set was made, which no change of the clock disturbs.
func (s *Set) now() int64 { return int64(time.Since(s.started)) }

// logPause is how long nothing more is logged of a limit after a line about it.
const logPause = time.Minute

// Exceeded tells metrics and log of one excess of a limit. app may be empty.
func (s *Set) Exceeded(n Name, app string) {
	s.opts.Metrics.LimitExceeded(n)
	b := &s.breach[n]
	now, due := s.now(), b.logged.Load()
	if now < due || !b.logged.CompareAndSwap(due, now+int64(logPause)) {
		b.silent.Add(1)
		return
	}
	s.opts.Log.Warn("limit exceeded", "limit", n.String(), "app", app, "suppressed_before", b.silent.Swap(0))
}

type noMetrics struct{}

func (noMetrics) LimitExceeded(Name) {}
