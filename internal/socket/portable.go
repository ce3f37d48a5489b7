package socket

import (
	"net"
	"sync"
	"time"
)

// portableBuffer is how many bytes a portable stream takes before it would block.
const portableBuffer = 64 << 10

// portableRead is the read buffer of a portable stream, which it keeps while it waits.
const portableRead = 4 << 10

// portableLinger is how long a closed portable stream goes on writing what it has taken.
const portableLinger = 5 * time.Second

// portable is a Stream over any net.Conn. A goroutine reads and feeds, and is thereby the worker
// of its stream; another writes what was taken, for as long as there is something.
type portable struct {
	conn   net.Conn
	poller *Poller
	feeder Feeder

	// mu guards the fields below. Nothing under it blocks or calls out.
	mu        sync.Mutex
	taken     []byte // not yet with conn
	writing   bool   // the writer goroutine runs
	shut      bool   // CloseWrite after taken is written
	closed    bool
	ended     bool // conn is closed, and so no writer may start
	writeErr  error
	onceReady func() // WhenWritable's
}

func (p *Poller) addPortable(conn net.Conn, initial []byte, f Feeder) (Stream, error) {
	s := &portable{conn: conn, poller: p, feeder: f}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = conn.Close()
		return nil, ErrPollerClosed
	}
	p.live.Add(1)
	p.portable[s] = struct{}{}
	p.count++
	p.mu.Unlock()
	go s.read(initial)
	return s, nil
}

// read feeds until the end, which it then tells the feeder.
func (s *portable) read(initial []byte) {
	err := s.feed(initial)
	if err == nil {
		buf := make([]byte, min(portableRead, s.poller.opts.ReadBuffer))
		for err == nil {
			var n int
			n, err = s.conn.Read(buf)
			if ferr := s.feed(buf[:n]); ferr != nil {
				err = ferr
			}
		}
	}
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	lingers := closed && s.writing
	if !lingers {
		s.ended = true
	}
	s.mu.Unlock()
	if closed {
		err = net.ErrClosed
	}
	if !lingers { // otherwise the writer closes it
		_ = s.conn.Close()
	}
	p := s.poller
	p.mu.Lock()
	delete(p.portable, s)
	p.count--
	p.mu.Unlock()
	s.feeder.Closed(closedError(err))
	p.live.Done()
}

// feed gives b to the feeder unless this side has closed.
func (s *portable) feed(b []byte) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	if len(b) == 0 {
		return nil
	}
	if err := s.feeder.Feed(b); err != nil {
		return err
	}
	s.feeder.FeedEnd()
	return nil
}

func (s *portable) TryWrite(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked(b)
}

func (s *portable) TryWritev(bufs [][]byte) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total int64
	for _, b := range bufs {
		n, err := s.takeLocked(b)
		total += int64(n)
		if err != nil || n < len(b) {
			return total, err
		}
	}
	return total, nil
}

func (s *portable) takeLocked(b []byte) (int, error) {
	if s.closed || s.shut {
		return 0, net.ErrClosed
	}
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	n := min(len(b), portableBuffer-len(s.taken))
	if n <= 0 {
		return 0, nil
	}
	s.taken = append(s.taken, b[:n]...)
	s.startLocked()
	return n, nil
}

// startLocked starts the writer if it does not run. The reader's own count in live keeps the
// poller waiting until ended is set, so that the count never grows from zero.
func (s *portable) startLocked() {
	if !s.writing && !s.ended {
		s.writing = true
		s.poller.live.Add(1)
		go s.write()
	}
}

// write gives conn what was taken until there is no more.
func (s *portable) write() {
	defer s.poller.live.Done()
	var spare []byte
	for {
		s.mu.Lock()
		if len(s.taken) == 0 || s.writeErr != nil {
			break
		}
		b := s.taken
		s.taken = spare[:0]
		s.mu.Unlock()
		_, err := s.conn.Write(b)
		spare = b
		s.mu.Lock()
		if err != nil {
			s.writeErr = err
		}
		ready := s.onceReady
		s.onceReady = nil
		s.mu.Unlock()
		if ready != nil {
			ready()
		}
	}
	s.writing = false
	s.taken = nil
	closed, shut, ready := s.closed, s.shut, s.onceReady
	s.onceReady = nil
	if closed {
		s.ended = true
	}
	s.mu.Unlock()
	if closed {
		_ = s.conn.Close()
	} else if shut {
		s.closeWrite()
	}
	if ready != nil {
		ready()
	}
}

func (s *portable) WhenWritable(f func()) {
	s.mu.Lock()
	if s.writing && !s.closed {
		s.onceReady = f
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.poller.workers.Go(TaskFunc(f))
}

// Close leaves the end to the writer: closing a TLS connection writes, and may wait.
func (s *portable) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.startLocked()
	s.mu.Unlock()
	// Neither the writer nor the reader may wait for long.
	_ = s.conn.SetWriteDeadline(time.Now().Add(portableLinger))
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // it fails if the writer was faster, and has closed
	return nil
}

// Abort takes the socket from under a TLS connection, which would say goodbye first.
func (s *portable) Abort() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	under := underneath(s.conn)
	if c, ok := under.(interface{ SetLinger(seconds int) error }); ok { // a *net.TCPConn, or what is like one
		_ = c.SetLinger(0) // otherwise the kernel keeps what the peer does not take
	}
	return under.Close()
}

// CloseWrite leaves the end to the writer, as Close does.
func (s *portable) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.shut && !s.closed {
		s.shut = true
		s.startLocked()
	}
	return nil
}

func (s *portable) closeWrite() {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// underneath is the connection that a TLS connection runs over, and any other itself.
func underneath(conn net.Conn) net.Conn {
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = over.NetConn()
	}
}
