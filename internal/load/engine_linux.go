package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// groupSpec is a set of rooms that are alike.
type groupSpec struct {
	name       string
	rooms      int
	members    int // connections in each room
	publishers int // how many of a room's members publish
	rate       float64
	inflight   int  // in a closed loop (rate 0): messages of one room under way at a time
	batch      int  // publish so many with one write, when as many have arrived; zero means 1
	acks       bool // the loop is closed by acknowledgements, and nobody receives
}

// engineSpec is all that an engine needs to know.
type engineSpec struct {
	addresses   []*net.TCPAddr // of the server, or of all nodes of a cluster, which the connections of a room take in turns
	host        string         // of the handshake
	tls         *tls.Config    // nil without TLS
	dialect     func() dialect
	groups      []groupSpec
	join        bool // wait for the room, not only for the connection
	echo        bool // publishers receive their own messages
	loops       int
	perSource   int // connections from one source address
	concurrency int // handshakes under way at a time
	timeout     time.Duration
	frameBytes  int // of the frame that a publisher sends, header included
}

// engine is a set of connections and what they did.
type engine struct {
	spec  engineSpec
	base  time.Time // of all times in ns
	run   uint32
	loops []*loop
	conns int
	stop  atomic.Bool
}

// room belongs to one loop.
type room struct {
	id         int
	group      int
	channel    string
	payload    int // bytes of the data that publishers put in
	track      tracker
	members    []*conn
	publishers []*publisher
	slots      []uint32 // deliveries each message in flight still lacks
	free       []uint32
	next       int // publisher whose turn it is
}

// publisher is a connection that publishes.
type publisher struct {
	conn   *conn
	index  int
	seq    uint32 // of its newest message
	serial int64  // of its next publish
	acked  int64  // serials below were acknowledged
	sent   []int64
}

func newEngine(spec engineSpec) *engine {
	e := &engine{spec: spec, base: time.Now(), run: rand.Uint32N(10_000)}
	spec.loops = max(spec.loops, 1)
	for range spec.loops {
		l := &loop{e: e, dialect: spec.dialect(), poll: -1, beside: -1, timer: -1, buf: make([]byte, 256<<10), events: make([]unix.EpollEvent, 512)}
		for range spec.groups {
			l.groups = append(l.groups, &groupState{})
		}
		e.loops = append(e.loops, l)
	}
	id := 0
	for g, group := range spec.groups {
		for range group.rooms {
			l := e.loops[id%len(e.loops)]
			l.addRoom(e, id, g, group)
			id++
			e.conns += group.members
		}
	}
	for _, l := range e.loops {
		l.settle()
	}
	return e
}

func (l *loop) addRoom(e *engine, id, g int, group groupSpec) {
	r := &room{id: id, group: g, channel: l.dialect.channel(int(e.run), id)}
	pubs := group.publishers
	r.track = newTracker(group.members, pubs)
	r.payload, _ = payloadFor(l.dialect, r.channel, e.spec.frameBytes)
	for m := range group.members {
		c := &conn{fd: -1, room: r, member: int32(m), number: int32(len(l.conns))}
		if m < pubs {
			c.pub = &publisher{conn: c, index: m, sent: make([]int64, max(group.inflight, 1))}
			r.publishers = append(r.publishers, c.pub)
		}
		r.members = append(r.members, c)
		l.conns = append(l.conns, c)
	}
	if group.rate == 0 && !group.acks {
		r.slots = make([]uint32, group.inflight)
		for i := range r.slots {
			r.free = append(r.free, uint32(len(r.slots)-1-i))
		}
	}
	l.rooms = append(l.rooms, r)
}

// settle makes the turns of the open loops: first publishers of all rooms, then second ones.
func (l *loop) settle() {
	for g, group := range l.e.spec.groups {
		if group.rate == 0 {
			continue
		}
		for p := range group.publishers {
			for _, r := range l.rooms {
				if r.group == g {
					l.groups[g].turns = append(l.groups[g].turns, r.publishers[p])
				}
			}
		}
	}
}

// receivers is how many deliveries a message of the room must give.
func (e *engine) receivers(r *room) int {
	switch {
	case e.spec.groups[r.group].acks:
		return 0
	case e.spec.echo:
		return len(r.members)
	}
	return len(r.members) - 1
}

// each runs f for all loops and waits. It returns the first error, having stopped the others.
func (e *engine) each(ctx context.Context, f func(*loop) error) error {
	e.stop.Store(false)
	defer context.AfterFunc(ctx, func() { e.stop.Store(true) })()
	errs := make([]error, len(e.loops))
	var wg sync.WaitGroup
	for i, l := range e.loops {
		wg.Go(func() {
			if errs[i] = f(l); errs[i] != nil {
				e.stop.Store(true)
			}
		})
	}
	wg.Wait()
	// A loop's own trouble says more than that another one was told to stop.
	slices.SortStableFunc(errs, func(a, b error) int { return rank(a) - rank(b) })
	if ctx.Err() != nil && (errs[0] == nil || errors.Is(errs[0], errStopped)) {
		return context.Cause(ctx)
	}
	return errs[0]
}

func rank(err error) int {
	switch {
	case err == nil:
		return 2
	case errors.Is(err, errStopped):
		return 1
	}
	return 0
}

var errStopped = errors.New("stopped")

// connect opens all connections and returns when each is ready, which it must be within the
// timeout after the one before.
func (e *engine) connect(ctx context.Context) error {
	return e.each(ctx, (*loop).connect)
}

// publish lets the groups publish for d, or until so many deliveries were caused if deliveries is not
// zero, and waits for what is under way.
func (e *engine) publish(ctx context.Context, d time.Duration, deliveries int64) error {
	for _, l := range e.loops {
		l.quota = (deliveries + int64(len(e.loops)) - 1) / int64(len(e.loops))
	}
	start := e.now() + int64(5*time.Millisecond)
	return e.each(ctx, func(l *loop) error { return l.publishFor(start, d) })
}

// hold answers pings for d and expects silence otherwise.
func (e *engine) hold(ctx context.Context, d time.Duration) error {
	until := e.now() + int64(d)
	return e.each(ctx, func(l *loop) error {
		return l.spin(func() bool { return l.now >= until })
	})
}

// talk lets each connection publish n messages, rate of them a second in all.
func (e *engine) talk(ctx context.Context, n int, rate float64) error {
	return e.each(ctx, func(l *loop) error { return l.talk(n, rate*float64(len(l.conns))/float64(e.conns)) })
}

// leave says goodbye on every connection and closes it, at the latest after two seconds. It works
// also after an interruption.
func (e *engine) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = e.each(ctx, (*loop).leave) // what is still open is closed below
	for _, l := range e.loops {
		l.close()
	}
}

// done is how many deliveries and acknowledgements came so far.
func (e *engine) done() (n uint64) {
	for _, l := range e.loops {
		n += l.done.Load()
	}
	return n
}

func (e *engine) now() int64 { return int64(time.Since(e.base)) }

// tally sums what the loops counted.
func (e *engine) tally() tally {
	var t tally
	for _, l := range e.loops {
		t.counts.add(&l.counts)
		for _, s := range l.firstErrors {
			if len(t.errors) < maxErrors {
				t.errors = append(t.errors, s)
			}
		}
		t.connectTimes.add(&l.connectTimes)
		t.lag = max(t.lag, l.lag)
		t.busiest = max(t.busiest, l.busiest)
		if l.dialect.answers() {
			for _, c := range l.conns {
				if c.pub != nil {
					t.counts.unacked += uint64(c.pub.serial - c.pub.acked)
				}
			}
		}
	}
	for g := range e.spec.groups {
		gt := groupTally{}
		for _, l := range e.loops {
			s := l.groups[g]
			gt.published += s.published
			gt.acks += s.acks
			gt.latency.add(&s.latency)
			gt.expected += s.expected
			gt.last = max(gt.last, s.last)
			for _, r := range l.rooms {
				if r.group == g {
					gt.deliveries += r.track.deliveries
					gt.duplicated += r.track.duplicated
					gt.reordered += r.track.reordered
				}
			}
		}
		t.groups = append(t.groups, gt)
	}
	return t
}

// restart forgets what was measured, not what was verified: numbers of the messages go on.
func (e *engine) restart() {
	for _, l := range e.loops {
		l.lag, l.busiest = 0, 0
		l.counts.frameBytes, l.counts.frames, l.counts.reads = 0, 0, 0
		for _, s := range l.groups {
			s.latency = histogram{}
		}
	}
}

// tally is what happened so far.
type tally struct {
	counts       counts
	errors       []string
	connectTimes histogram
	lag          time.Duration
	busiest      float64 // share of its time that the busiest thread ran
	groups       []groupTally
}

type groupTally struct {
	published, expected, deliveries, duplicated, reordered, acks uint64
	latency                                                      histogram
	last                                                         int64 // when the newest delivery or acknowledgement came
}

// counts are a loop's sums over all of its connections.
type counts struct {
	failures   uint64 // ERROR, NACK, closed or broken connections, unreadable frames
	strays     uint64 // deliveries in a room they do not belong to, echoes that were declined, damaged payloads
	unacked    uint64 // publishes without acknowledgement
	badAcks    uint64 // acknowledgements out of order, twice or for nothing
	pings      uint64
	frames     uint64 // deliveries, whether verified or not
	frameBytes uint64 // of the frames they came in, headers included
	reads      uint64
}

func (c *counts) add(o *counts) {
	c.failures += o.failures
	c.strays += o.strays
	c.unacked += o.unacked
	c.badAcks += o.badAcks
	c.pings += o.pings
	c.frames += o.frames
	c.frameBytes += o.frameBytes
	c.reads += o.reads
}

// source is the address that connection n of the engine comes from, or nil for the usual one. The
// kernel has some 28,000 ephemeral ports for each pair of addresses, and loopback has many
// addresses.
func (e *engine) source(n int) *unix.SockaddrInet4 {
	if a := e.spec.addresses[0]; e.conns <= e.spec.perSource || a.IP.To4() == nil || !a.IP.IsLoopback() {
		return nil
	}
	at := 2 + n/e.spec.perSource
	return &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(at >> 8), byte(at)}}
}

// address is where a connection goes.
func (e *engine) address(c *conn) *net.TCPAddr {
	return e.spec.addresses[(c.room.id+int(c.member))%len(e.spec.addresses)]
}

func sockaddr(a *net.TCPAddr) (unix.Sockaddr, int, error) {
	if ip := a.IP.To4(); ip != nil {
		return &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}, unix.AF_INET, nil
	}
	if ip := a.IP.To16(); ip != nil {
		return &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(ip)}, unix.AF_INET6, nil
	}
	return nil, 0, fmt.Errorf("no address for %v", a)
}

// raiseFiles makes room for n connections.
func raiseFiles(n int) error {
	want := uint64(n) + 200
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur >= want {
		return nil
	}
	hard := limit.Max
	limit.Cur, limit.Max = want, max(want, hard)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		return nil
	}
	return fmt.Errorf("%d connections need %d open files, and the hard limit here is %d: raise it (ulimit -Hn %d as root, "+
		"LimitNOFILE= of a service, --ulimit nofile= of a container) or ask for fewer connections", n, want, hard, want)
}
