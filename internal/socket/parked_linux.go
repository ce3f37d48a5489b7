package socket

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// parkable says that addParked works on this system.
const parkable = true

// fullReads is how many full buffers one stream may feed before waiting tasks get a turn.
const fullReads = 4

// parked is a TCP socket whose reader waits in Go's netpoller without a buffer.
//
// At any time one of three holds the reading side: the parked goroutine (park), the pool of
// workers (after Go or Yield), or the worker that runs Run. Its fields therefore need no lock;
// they are handed on by the go statement and by the pool's mutex.
//
// Every system call is made inside a RawConn callback, so that Go's own lock of the descriptor
// keeps it from being closed, and its number from being reused, meanwhile. The descriptor is
// closed at one place, finish; Close and Abort only shut the socket down, which wakes the reader.
type parked struct {
	conn   *net.TCPConn
	raw    syscall.RawConn
	poller *Poller
	feeder Feeder

	// readFn and parkFn are the method values tryRead and park, made once.
	readFn func(fd uintptr) bool
	parkFn func()

	closed atomic.Bool // this side has closed

	// The reading side's fields.
	once bool   // tryRead may not wait
	buf  []byte // a pooled buffer, while it is in use
	in   []byte // what was read and not fed yet: in buf, or a copy
	err  error  // how reading ended

	// Guarded by Poller.mu.
	next, prev *parked
	member     bool
}

func (p *Poller) addParked(conn *net.TCPConn, initial []byte, f Feeder) (Stream, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	if p.opts.SendBuffer > 0 {
		_ = conn.SetWriteBuffer(p.opts.SendBuffer) // a smaller buffer is no reason to refuse
	}
	s := &parked{conn: conn, raw: raw, poller: p, feeder: f}
	s.readFn = s.tryRead
	s.parkFn = s.park
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = conn.Close()
		return nil, ErrPollerClosed
	}
	p.live.Add(1)
	p.members.add(s)
	p.count++
	p.mu.Unlock()
	if len(initial) > 0 {
		s.in = initial
		p.workers.Go(s)
	} else {
		go s.parkFn()
	}
	return s, nil
}

// park waits for bytes on a small stack and hands them to a worker. It calls nothing of the
// application's and ends after the handover.
func (s *parked) park() {
	if err := s.raw.Read(s.readFn); err != nil {
		s.err = err
	}
	if s.buf != nil && len(s.in) <= len(s.buf)/8 && s.poller.workers.Busy() {
		// It will have to wait its turn: then not with a whole buffer.
		s.in = append([]byte(nil), s.in...)
		s.release()
	}
	s.poller.workers.Go(s)
}

// tryRead reads what is there. The attempt belongs into the callback: RawConn.Read forgets an
// earlier wake-up before it calls, and the poller tells of each arrival only once.
func (s *parked) tryRead(fd uintptr) bool {
	if s.closed.Load() {
		s.err = net.ErrClosed
		return true
	}
	if s.buf == nil {
		s.buf = s.poller.buffers.get()
	}
	for {
		n, errno := receive(int(fd), s.buf)
		switch errno {
		case 0:
			if n == 0 {
				s.err = io.EOF
			} else {
				s.in = s.buf[:n]
			}
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			s.release()
			return s.once
		default:
			s.err = errno
			return true
		}
	}
}

func (s *parked) release() {
	if s.buf != nil {
		s.poller.buffers.put(s.buf)
		s.buf = nil
	}
}

// Run feeds what was read, reads on while buffers come back full, and parks again. It is the
// stream as a Task.
func (s *parked) Run() {
	for full := 0; ; {
		if s.in == nil && s.err == nil { // its turn again after a Yield, or a full buffer before
			s.once = true
			if err := s.raw.Read(s.readFn); err != nil {
				s.err = err
			}
			s.once = false
			if s.in == nil && s.err == nil {
				break
			}
		}
		if s.closed.Load() {
			s.finish(net.ErrClosed)
			return
		}
		if s.in == nil {
			if full > 0 {
				s.feeder.FeedEnd()
			}
			s.finish(s.err)
			return
		}
		in := s.in
		s.in = nil
		whole := s.buf != nil && len(in) == len(s.buf)
		if err := s.feeder.Feed(in); err != nil {
			s.finish(err)
			return
		}
		if !whole {
			break // most likely nothing is left; the parked goroutine looks again anyway
		}
		if full++; full >= fullReads {
			full = 0
			s.feeder.FeedEnd()
			s.release()
			if s.poller.workers.Yield(s) {
				return
			}
		}
	}
	s.release()
	s.feeder.FeedEnd()
	go s.parkFn()
}

// finish closes the descriptor and tells the feeder.
func (s *parked) finish(err error) {
	s.release()
	s.closed.Store(true)
	_ = s.conn.Close()
	p := s.poller
	p.mu.Lock()
	p.members.remove(s)
	p.count--
	p.mu.Unlock()
	s.feeder.Closed(closedError(err))
	p.live.Done()
}

// do runs op on s and gives it back.
func (s *parked) do(op *writeOp) (int, error) {
	rawErr := s.raw.Write(op.run)
	n, err := op.done()
	if rawErr != nil {
		err = rawErr
	}
	if err != nil {
		return n, closedError(err)
	}
	return n, nil
}

func (s *parked) TryWrite(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	op := writeOps.Get().(*writeOp)
	op.one = b
	return s.do(op)
}

func (s *parked) TryWritev(bufs [][]byte) (int64, error) {
	var total int64
	for len(bufs) > 0 {
		if s.closed.Load() {
			return total, net.ErrClosed
		}
		op := writeOps.Get().(*writeOp)
		var want int
		if bufs, want = op.take(bufs); want == 0 {
			_, _ = op.done()
			break
		}
		n, err := s.do(op)
		total += int64(n)
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

func (s *parked) WhenWritable(f func()) {
	p := s.poller
	p.mu.Lock()
	alive := s.member
	if alive {
		p.live.Add(1)
	}
	p.mu.Unlock()
	if !alive {
		p.workers.Go(TaskFunc(f))
		return
	}
	go s.awaitWritable(f)
}

// awaitWritable waits until the kernel takes bytes or the stream ends, then calls f.
func (s *parked) awaitWritable(f func()) {
	defer s.poller.live.Done()
	first := true
	// An error means that the stream has ended, which f finds out when it writes.
	_ = s.raw.Write(func(fd uintptr) bool {
		if !first {
			return true
		}
		// RawConn.Write has forgotten a wake-up that came since the short write: look.
		first = false
		return s.closed.Load() || writableNow(fd)
	})
	f()
}

// writableNow asks the kernel without waiting.
func writableNow(fd uintptr) bool {
	const pollOut = 0x4
	pfd := struct {
		fd      int32
		events  int16
		revents int16
	}{fd: int32(fd), events: pollOut}
	var now syscall.Timespec
	n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&pfd)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno != 0 || n > 0 // after an error the next write tells
}

func (s *parked) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.shutdown(syscall.SHUT_RDWR, false)
}

func (s *parked) Abort() error {
	s.closed.Store(true)
	// Only reading is shut down, which wakes the reader: a FIN would wait behind the bytes
	// that are to be thrown away. The reset goes out when finish closes the descriptor.
	return s.shutdown(syscall.SHUT_RD, true)
}

func (s *parked) CloseWrite() error { return s.shutdown(syscall.SHUT_WR, false) }

func (s *parked) shutdown(how int, reset bool) error {
	var err error
	ctrl := s.raw.Control(func(fd uintptr) {
		if reset {
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		}
		err = syscall.Shutdown(int(fd), how)
	})
	if ctrl != nil || err == syscall.ENOTCONN {
		return nil // it has ended, or the peer was faster
	}
	return err
}

// parkedList is the streams of a poller, linked through themselves.
type parkedList struct{ first *parked }

func (l *parkedList) add(s *parked) {
	s.member = true
	s.next = l.first
	if l.first != nil {
		l.first.prev = s
	}
	l.first = s
}

func (l *parkedList) remove(s *parked) {
	s.member = false
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
}

func (l *parkedList) all() []Stream {
	var all []Stream
	for s := l.first; s != nil; s = s.next {
		all = append(all, outermost(s, s.feeder))
	}
	return all
}
