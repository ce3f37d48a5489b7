package socket

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// recordBytes is how many bytes are encrypted at a time: what a record of TLS holds at most.
	recordBytes = 16 << 10
	// sealedBytes is what they take encrypted, in as small records as TLS begins with.
	sealedBytes = 18 << 10
	// maxSealed bounds what was encrypted and the kernel does not take. More than sealedBytes
	// of it are answers to a peer that goes on renewing its keys and does not read.
	maxSealed = 64 << 10
	// securedLinger is for how long a closed stream goes on writing what it has taken.
	securedLinger = 5 * time.Second
)

// ForTLS makes the connections that l accepts ready for a *tls.Conn over them to become a Stream
// that keeps neither a buffer nor a stack of its own while nothing happens. Until then they are
// what they were.
func ForTLS(l net.Listener) net.Listener { return tlsListener{l} }

type tlsListener struct{ net.Listener }

func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &link{TCPConn: tcp}, nil
	}
	return c, err
}

// link is a TCP connection as the TLS over it sees it. Once there is a Stream it neither waits nor
// fails: it reads what the Stream was fed, and writes into the Stream's buffer.
type link struct {
	*net.TCPConn
	over atomic.Pointer[secured]
}

func (l *link) Read(b []byte) (int, error) {
	if s := l.over.Load(); s != nil {
		return s.pull(b)
	}
	return l.TCPConn.Read(b)
}

func (l *link) Write(b []byte) (int, error) {
	if s := l.over.Load(); s != nil {
		return s.push(b)
	}
	return l.TCPConn.Write(b)
}

// SetWriteDeadline is what TLS calls around its goodbye, for which nobody waits here.
func (l *link) SetWriteDeadline(t time.Time) error {
	if l.over.Load() != nil {
		return nil
	}
	return l.TCPConn.SetWriteDeadline(t)
}

// NetConn is the connection below.
func (l *link) NetConn() net.Conn { return l.TCPConn }

// ErrAgain is what a connection under a *tls.Conn answers instead of waiting for bytes. Because it
// is temporary, TLS returns it and can be read from again, once the handshake is done.
var ErrAgain error = againError{}

type againError struct{}

func (againError) Error() string   { return "socket: no bytes yet" }
func (againError) Timeout() bool   { return true }
func (againError) Temporary() bool { return true }

// errNotRead ends a stream whose peer makes TLS answer and does not read the answers.
var errNotRead = errors.New("socket: peer does not read what TLS has to say")

// secured is a Stream of TLS: the Feeder of the stream below it, which it decrypts for a Feeder of
// its own. Neither side waits, and both are as that stream's.
type secured struct {
	tls    *tls.Conn
	below  Stream // set under mu by addSecured
	feeder Feeder
	poller *Poller
	closed atomic.Bool // this side has closed

	// The reading side's fields, owned as the stream's below.
	in    []byte // encrypted, and not taken by TLS
	plain bool   // what is fed next was decrypted already
	fed   bool   // since the last FeedEnd
	err   error  // of TLS or the feeder

	// mu guards the fields below. It is taken under the locks of crypto/tls, and Poller.mu and
	// Workers.mu are taken under it. Nothing under it blocks: TryWrite of the stream below is
	// called, and its WhenWritable.
	mu      sync.Mutex
	out     []byte // encrypted, and not taken by the stream below
	waiting bool   // for the stream below to take more
	shut    bool   // CloseWrite was called
	halved  bool   // that of the stream below was, too
	closing bool   // Close was called, as that of the stream below will be when out is empty
	failed  error
	ready   func() // WhenWritable's
	linger  *time.Timer
}

// addSecured takes over a TLS connection whose handshake is done.
func (p *Poller) addSecured(conn *tls.Conn, l *link, initial []byte, f Feeder) (Stream, error) {
	s := &secured{tls: conn, feeder: f, poller: p}
	l.over.Store(s)
	// What TLS has read already, nobody else will tell of.
	buf := p.buffers.get()
	for s.err == nil {
		var n int
		if n, s.err = conn.Read(buf); n > 0 {
			initial = append(initial, buf[:n]...)
		}
	}
	p.buffers.put(buf)
	if s.err == ErrAgain {
		s.err = nil
	}
	releaseBuffers(conn, 0)
	s.plain = len(initial) > 0
	ended := s.err != nil && !s.plain // and nobody will be fed to find out
	s.mu.Lock()                       // whoever is fed early waits here until there is a stream to write to
	defer s.mu.Unlock()
	below, err := p.Add(l.TCPConn, initial, s)
	if err != nil {
		return nil, err
	}
	s.below = below
	_ = s.sendLocked() // what TLS had to say meanwhile
	if ended {
		_ = below.Close()
	}
	return s, nil
}

// Feed decrypts.
func (s *secured) Feed(b []byte) error {
	if s.closed.Load() {
		return nil // Close or Abort ends the stream below, when the peer has got its own
	}
	if s.plain {
		s.plain = false
		s.fed = true
		if err := s.feeder.Feed(b); err != nil {
			return s.end(err)
		}
		return s.err
	}
	s.in = b
	buf := s.poller.buffers.get()
	defer s.poller.buffers.put(buf)
	for {
		n, err := s.tls.Read(buf)
		if s.closed.Load() {
			return nil
		}
		if n > 0 {
			s.fed = true
			if err := s.feeder.Feed(buf[:n]); err != nil {
				return s.end(err)
			}
		}
		switch err {
		case nil:
		case ErrAgain:
			releaseBuffers(s.tls, keptInput)
			return s.send() // TLS may have had something to say by itself
		default:
			_ = s.send()
			s.err = err
			return err
		}
	}
}

// end says goodbye, if that can be done at once, because of an error of the feeder.
func (s *secured) end(err error) error {
	s.err = err
	_ = s.tls.CloseWrite()
	_ = s.send()
	return err
}

// FeedEnd implements Feeder.
func (s *secured) FeedEnd() {
	if s.fed {
		s.fed = false
		s.feeder.FeedEnd()
	}
}

// Closed implements Feeder.
func (s *secured) Closed(err error) {
	s.mu.Lock()
	if s.linger != nil {
		s.linger.Stop()
	}
	s.mu.Unlock()
	switch {
	case s.err != nil:
		err = s.err
	case s.closed.Load():
		err = net.ErrClosed
	}
	s.feeder.Closed(closedError(err))
}

// pull is how TLS reads.
func (s *secured) pull(b []byte) (int, error) {
	if len(s.in) == 0 {
		s.in = nil
		return 0, ErrAgain
	}
	n := copy(b, s.in)
	s.in = s.in[n:]
	return n, nil
}

// push is how TLS writes.
func (s *secured) push(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil && len(s.out)+len(b) > maxSealed {
		s.failed = errNotRead
	}
	if s.failed != nil {
		return 0, s.failed
	}
	if s.out == nil {
		s.out = s.poller.records.get()[:0]
	}
	s.out = append(s.out, b...)
	return len(b), nil
}

func (s *secured) send() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendLocked()
}

// sendLocked gives what was encrypted to the stream below, as far as that takes it, and does what
// is to be done when it has taken all.
func (s *secured) sendLocked() error {
	if s.below == nil || s.waiting {
		return s.failed
	}
	if len(s.out) > 0 && s.failed == nil {
		n, err := s.below.TryWrite(s.out)
		if err != nil {
			s.failed = err
		} else if n < len(s.out) {
			s.keepLocked(n)
			s.waiting = true
			s.below.WhenWritable(s.writable)
			return nil
		}
	}
	s.keepLocked(len(s.out))
	switch {
	case s.closing:
		_ = s.below.Close()
	case s.shut && !s.halved:
		s.halved = true
		_ = s.below.CloseWrite()
	}
	return s.failed
}

// keepLocked forgets the first n bytes of out, and keeps the others in a buffer of their size: the
// pooled one is needed elsewhere.
func (s *secured) keepLocked(n int) {
	whole := s.out
	s.out = append([]byte(nil), whole[n:]...)
	if cap(whole) == sealedBytes {
		s.poller.records.put(whole[:sealedBytes])
	}
}

// writable is called by the stream below when it takes bytes again, or has ended.
func (s *secured) writable() {
	s.mu.Lock()
	s.waiting = false
	_ = s.sendLocked()
	var ready func()
	if !s.waiting {
		ready, s.ready = s.ready, nil
	}
	s.mu.Unlock()
	if ready != nil {
		ready()
	}
}

func (s *secured) TryWrite(b []byte) (int, error) {
	total := 0
	for total < len(b) {
		if full, err := s.full(); full || err != nil {
			return total, err
		}
		n := min(len(b)-total, recordBytes)
		if err := s.seal(b[total : total+n]); err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// TryWritev joins small buffers, so that they share records.
func (s *secured) TryWritev(bufs [][]byte) (total int64, err error) {
	joined := s.poller.records.get()
	defer s.poller.records.put(joined)
	for len(bufs) > 0 {
		if full, err := s.full(); full || err != nil {
			return total, err
		}
		n := 0
		for len(bufs) > 0 && n+len(bufs[0]) <= recordBytes {
			n += copy(joined[n:], bufs[0])
			bufs = bufs[1:]
		}
		if n == 0 && len(bufs) > 0 {
			n, err := s.TryWrite(bufs[0])
			total += int64(n)
			if err != nil || n < len(bufs[0]) {
				return total, err
			}
			bufs = bufs[1:]
			continue
		}
		if err := s.seal(joined[:n]); err != nil {
			return total, err
		}
		total += int64(n)
	}
	return total, nil
}

// full reports whether the stream below has not taken yet what it was given.
func (s *secured) full() (bool, error) {
	if s.closed.Load() {
		return false, net.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return false, closedError(s.failed)
	}
	if s.shut {
		return false, net.ErrClosed
	}
	return s.waiting, nil
}

// seal encrypts b and gives it to the stream below.
func (s *secured) seal(b []byte) error {
	_, err := s.tls.Write(b)
	if err == nil {
		err = s.send()
	}
	if err != nil && s.closed.Load() {
		return net.ErrClosed // TLS has words of its own for it
	}
	return err
}

func (s *secured) WhenWritable(f func()) {
	s.mu.Lock()
	if s.waiting {
		s.ready = f
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.poller.workers.Go(TaskFunc(f))
}

// Close says goodbye behind what was taken.
func (s *secured) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	_ = s.tls.CloseWrite()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	_ = s.sendLocked()
	if s.waiting {
		s.linger = time.AfterFunc(securedLinger, func() { _ = s.below.Close() })
	}
	return nil
}

func (s *secured) Abort() error {
	s.closed.Store(true)
	s.mu.Lock()
	s.failed = net.ErrClosed
	s.mu.Unlock()
	return s.below.Abort()
}

func (s *secured) CloseWrite() error {
	if s.closed.Load() {
		return nil
	}
	_ = s.tls.CloseWrite()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	_ = s.sendLocked()
	return nil
}
