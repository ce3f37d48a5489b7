package socket

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// PollerOptions sets up a Poller.
type PollerOptions struct {
	// Workers runs the feeders; nil means the poller has its own.
	Workers *Workers
	// ReadBuffer is the size in bytes of the pooled buffers that are read into; zero means 16 KiB.
	ReadBuffer int
	// SendBuffer is SO_SNDBUF of the TCP sockets in bytes; zero means 256 KiB, and less than
	// zero leaves it to the kernel. It bounds what a peer that stops reading keeps of the
	// kernel's memory.
	SendBuffer int
	// Epoll puts plain TCP sockets into private epoll sets instead of parking a goroutine for
	// each. It does nothing on other systems than Linux.
	Epoll bool
}

// idleBuffers is how many read buffers are kept when nothing is read.
const idleBuffers = 32

// Poller turns connections into Streams and feeds what arrives on them.
type Poller struct {
	opts    PollerOptions
	workers *Workers
	own     bool // workers are run by Run
	buffers buffers
	failed  chan error // why no events come any more
	epoll   epollSets
	records buffers // of what is encrypted at a time

	// live counts streams until their Feeder knows the end, and goroutines that wait for
	// writability. It grows only under mu while closed is false or the stream is a member.
	live sync.WaitGroup

	// mu guards the fields below. Nothing under it blocks or calls out.
	mu       sync.Mutex
	closed   bool
	members  parkedList
	portable map[*portable]struct{}
	count    int
}

// NewPoller makes a Poller; it starts nothing.
func NewPoller(opts PollerOptions) *Poller {
	if opts.ReadBuffer <= 0 {
		opts.ReadBuffer = 16 << 10
	}
	if opts.SendBuffer == 0 {
		opts.SendBuffer = 256 << 10
	}
	p := &Poller{
		failed:   make(chan error, 1),
		opts:     opts,
		workers:  opts.Workers,
		buffers:  buffers{size: opts.ReadBuffer, keep: idleBuffers},
		records:  buffers{size: sealedBytes, keep: idleBuffers},
		portable: make(map[*portable]struct{}),
	}
	if p.workers == nil {
		p.workers = NewWorkers(WorkersOptions{})
		p.own = true
	}
	return p
}

// Workers is the pool that runs this poller's feeders.
func (p *Poller) Workers() *Workers { return p.workers }

// Len is the number of streams that have not ended.
func (p *Poller) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Run blocks until ctx ends, then closes the streams that are left and returns when each Feeder
// has had its Closed and every goroutine that the poller started is done. It does the same, and
// returns an error, if the system refuses to tell of events any more.
func (p *Poller) Run(ctx context.Context) error {
	var own sync.WaitGroup
	stopOwn := func() {}
	if p.own {
		workersCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stopOwn = cancel
		own.Go(func() { _ = p.workers.Run(workersCtx) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-p.failed:
	}
	p.mu.Lock()
	p.closed = true
	left := p.members.all()
	for s := range p.portable {
		left = append(left, outermost(s, s.feeder))
	}
	left = append(left, p.epoll.streamsLocked()...)
	p.mu.Unlock()
	for _, s := range left {
		_ = s.Close()
	}
	p.live.Wait()
	p.epoll.close()
	stopOwn()
	own.Wait()
	return err
}

// outermost is the stream of TLS over s, if s feeds one, or else s.
func outermost(s Stream, f Feeder) Stream {
	if over, ok := f.(*secured); ok {
		return over
	}
	return s
}

// Add takes over conn and feeds f with initial (bytes that were read from conn already; they are
// kept until fed) and then with what arrives. Calls of f may begin before Add returns. After an
// error conn is closed and f is never called.
//
// A *net.TCPConn becomes a parked stream on Linux, or one of an epoll set, and so do those under a *Begun
// and under a *tls.Conn that came through ForTLS, when its handshake is done. Every other connection becomes a
// portable one.
func (p *Poller) Add(conn net.Conn, initial []byte, f Feeder) (Stream, error) {
	if over, ok := conn.(*tls.Conn); ok {
		if l, ok := over.NetConn().(*link); ok && over.ConnectionState().HandshakeComplete {
			return p.addSecured(over, l, initial, f)
		}
	}
	if begun, ok := conn.(*Begun); ok {
		if len(begun.Early) > 0 {
			initial = append(initial[:len(initial):len(initial)], begun.Early...)
		}
		conn = begun.TCPConn
	}
	if tcp, ok := conn.(*net.TCPConn); ok && parkable {
		if p.opts.Epoll {
			return p.addEpolled(tcp, initial, f)
		}
		return p.addParked(tcp, initial, f)
	}
	return p.addPortable(conn, initial, f)
}
