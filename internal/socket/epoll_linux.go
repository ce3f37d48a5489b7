package socket

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readEvents are what every socket is registered for, edge-triggered: an event tells once that
// something came, and nothing need be armed again. EPOLLPRI and EPOLLRDHUP are there to tell when
// a read that came back short has not reached the end of what is there.
const readEvents = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

// eventsAtOnce is how many events one epoll_wait takes.
const eventsAtOnce = 128

// epollSets are the private epoll sets of a Poller. There are none before there is a socket for
// them.
type epollSets struct {
	// duplicating is held for each F_DUPFD: when the table of descriptors is full, the kernel
	// lets all who want one wait for milliseconds while it grows, and each thread that waits
	// there makes Go start one more. Nothing else is taken under it.
	duplicating sync.Mutex

	// Guarded by Poller.mu.
	all  []*epollSet
	err  error  // why there are none
	next uint32 // whose turn it is to get a socket

	loops sync.WaitGroup
}

// openLocked makes the sets and starts their loops, at the first call. A loop that ends before
// close says why in failed.
func (e *epollSets) openLocked(failed chan<- error) error {
	if e.err != nil || e.all != nil {
		return e.err
	}
	for range max(1, runtime.GOMAXPROCS(0)/4) {
		set, err := newEpollSet()
		if err != nil {
			e.close()
			e.all, e.err = nil, err
			return err
		}
		e.all = append(e.all, set)
		e.loops.Go(func() {
			if err := set.run(); err != nil {
				select {
				case failed <- err:
				default: // another did
				}
			}
		})
	}
	return nil
}

// close closes the sets and waits for their loops. No stream is in them.
func (e *epollSets) close() {
	for _, set := range e.all {
		_ = set.file.Close()
	}
	e.loops.Wait()
}

// streamsLocked are those that have not ended.
func (e *epollSets) streamsLocked() []Stream {
	var all []Stream
	for _, set := range e.all {
		set.mu.Lock()
		for i := range set.slots {
			if s := set.slots[i].stream; s != nil {
				all = append(all, outermost(s, s.feeder))
			}
		}
		set.mu.Unlock()
	}
	return all
}

// epollSet is one epoll set and the streams in it. Its descriptor is itself waited for by an
// ordinary goroutine (run), in Go's netpoller, so that no thread is kept waiting.
type epollSet struct {
	file *os.File // of the epoll descriptor
	fd   int      // the same; in use only while a stream is a member, or by run

	// mu guards the fields below. epoll_ctl is called under it, so that goroutines wait here
	// rather than threads in the kernel. Lock order: Poller.mu, then epollSet.mu.
	mu    sync.Mutex
	slots []epollSlot
	free  uint32 // the first free slot; len(slots) if none is

	// The loop's own fields.
	events [eventsAtOnce]unix.EpollEvent
	hit    [eventsAtOnce]*epolled
}

// epollSlot is a stream's place in its set. Events carry its number and generation, so that one
// that was on its way while the stream ended, and its descriptor's number was given to another
// socket, is recognised.
type epollSlot struct {
	stream     *epolled // nil if the slot is free
	generation uint32
	nextFree   uint32
}

func newEpollSet() (*epollSet, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("socket: epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // what os.NewFile goes by
		_ = unix.Close(fd)
		return nil, fmt.Errorf("socket: epoll: %w", err)
	}
	file := os.NewFile(uintptr(fd), "epoll")
	if err := file.SetReadDeadline(time.Time{}); err != nil { // it is not in Go's netpoller
		_ = file.Close()
		return nil, fmt.Errorf("socket: epoll: %w", err)
	}
	return &epollSet{file: file, fd: fd}, nil
}

// run tells streams of their events until the set is closed.
func (e *epollSet) run() (failed error) {
	raw, err := e.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("socket: epoll: %w", err)
	}
	_ = raw.Read(func(fd uintptr) bool { // its error is that the set was closed
		for {
			n, errno := e.wait(int(fd))
			switch {
			case errno == unix.EINTR:
			case errno != 0:
				failed = fmt.Errorf("socket: epoll_wait: %w", errno)
				return true
			default:
				if n > 0 {
					e.tell(e.events[:n])
				}
				if n < len(e.events) {
					// Everything that was there has been told. RawConn.Read notices
					// what came since it called.
					return false
				}
			}
		}
	})
	return failed
}

// wait takes the events that are there. It does not wait, so that Go's scheduler is not told of a
// system call.
func (e *epollSet) wait(fd int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&e.events[0])), uintptr(len(e.events)), 0, 0, 0)
	return int(n), errno
}

// tell gives events to the streams that they are about.
func (e *epollSet) tell(events []unix.EpollEvent) {
	e.mu.Lock()
	for i := range events {
		slot := &e.slots[uint32(events[i].Fd)]
		if slot.generation == uint32(events[i].Pad) {
			e.hit[i] = slot.stream
		}
	}
	e.mu.Unlock()
	for i := range events {
		if s := e.hit[i]; s != nil {
			e.hit[i] = nil
			s.told(events[i].Events)
		}
	}
}

// add gives s a slot.
func (e *epollSet) add(s *epolled) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.free == uint32(len(e.slots)) {
		e.slots = append(e.slots, epollSlot{nextFree: e.free + 1})
	}
	s.set, s.slot = e, e.free
	slot := &e.slots[e.free]
	slot.stream = s
	e.free = slot.nextFree
}

// remove frees the slot of s. No event of its generation counts any more.
func (e *epollSet) remove(s *epolled) {
	e.mu.Lock()
	defer e.mu.Unlock()
	slot := &e.slots[s.slot]
	slot.stream = nil
	slot.generation++
	slot.nextFree = e.free
	e.free = s.slot
}

// control registers s, or changes what it is registered for. s has its slot, and its descriptor
// is held.
func (e *epollSet) control(op int, s *epolled, events uint32) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	event := unix.EpollEvent{Events: events, Fd: int32(s.slot), Pad: int32(e.slots[s.slot].generation)}
	return unix.EpollCtl(e.fd, op, int(s.fd), &event)
}

// epolled is a TCP socket in an epoll set. While it is idle it has no goroutine and no buffer.
//
// Its descriptor is not known to Go's run-time. Whoever uses it holds it (hold, release); it is
// closed by finish or by the last who held it then, so that its number cannot be another socket's
// during a system call. Close and Abort only note the end, and let a worker come to it.
//
// At most one task reads: the one that took the stream from idle (wake). Its fields need no lock.
type epolled struct {
	poller  *Poller
	feeder  Feeder
	set     *epollSet
	slot    uint32 // in set
	fd      int32
	initial *[]byte // read before the stream was; the reader's

	phase  atomic.Uint32 // bits of reading, whoever reads
	users  atomic.Int32  // who hold the descriptor, and gone
	closed atomic.Bool   // this side has closed, or the stream has ended
	ended  bool          // guarded by Poller.mu

	onWritable atomic.Pointer[func()] // what WhenWritable was given; whoever swaps it out calls it
}

// The bits of epolled.phase.
const (
	reading uint32 = 1 << iota // a task reads, or is about to
	again                      // there were events since it last looked
	beyond                     // one of them told of more than bytes
)

// gone is the bit of epolled.users that says that the descriptor is to be closed.
const gone = 1 << 30

func (p *Poller) addEpolled(conn *net.TCPConn, initial []byte, f Feeder) (Stream, error) {
	fd, err := p.epoll.duplicate(conn, p.opts.SendBuffer)
	if err != nil { // no descriptor is left; a parked stream needs no other
		return p.addParked(conn, initial, f)
	}
	s := &epolled{poller: p, feeder: f, fd: int32(fd)}
	s.phase.Store(reading) // nobody else's until all is ready
	s.users.Store(1)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = unix.Close(fd)
		_ = conn.Close()
		return nil, ErrPollerClosed
	}
	if p.epoll.openLocked(p.failed) != nil {
		p.mu.Unlock()
		_ = unix.Close(fd)
		return p.addParked(conn, initial, f)
	}
	p.live.Add(1)
	p.count++
	p.epoll.next++
	set := p.epoll.all[p.epoll.next%uint32(len(p.epoll.all))]
	set.add(s)
	p.mu.Unlock()
	if err := set.control(unix.EPOLL_CTL_ADD, s, readEvents); err != nil { // fs.epoll.max_user_watches
		s.leave()
		s.drop()
		s.release()
		defer p.live.Done()
		return p.addParked(conn, initial, f)
	}
	// The duplicate keeps the socket, and Go's structures for the original are freed.
	_ = conn.Close()
	s.release()
	if len(initial) > 0 {
		in := initial
		s.initial = &in
		p.workers.Go(s)
	} else if !s.phase.CompareAndSwap(reading, 0) {
		p.workers.Go(s) // something has come already
	}
	return s, nil
}

// duplicate is another descriptor of a connection's socket, not inherited by other programs.
func (e *epollSets) duplicate(conn *net.TCPConn, sendBuffer int) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	rawErr := raw.Control(func(old uintptr) {
		if sendBuffer > 0 {
			_ = unix.SetsockoptInt(int(old), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // a smaller buffer is no reason to refuse
		}
		e.duplicating.Lock()
		defer e.duplicating.Unlock()
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if rawErr != nil {
		return 0, rawErr
	}
	return fd, err
}

// hold keeps the descriptor open until release. It returns false if there is none any more.
func (s *epolled) hold() bool {
	for {
		n := s.users.Load()
		if n&gone != 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *epolled) release() {
	if s.users.Add(-1) == gone {
		_ = unix.Close(int(s.fd))
	}
}

// drop closes the descriptor as soon as nobody holds it. It is called once.
func (s *epolled) drop() {
	if s.users.Or(gone) == 0 {
		_ = unix.Close(int(s.fd))
	}
}

// told takes note of events. It runs on the set's loop and calls nothing of the application's.
func (s *epolled) told(events uint32) {
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.wakeWriter()
	}
	if events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0 {
		s.wake(again | beyond)
	} else if events&unix.EPOLLIN != 0 {
		s.wake(again)
	}
}

// wake lets a worker read unless one does already; then that one looks again.
func (s *epolled) wake(bits uint32) {
	if s.phase.Or(bits|reading)&reading == 0 {
		s.poller.workers.Go(s)
	}
}

// wakeWriter lets a worker call what WhenWritable was given, if anything.
func (s *epolled) wakeWriter() {
	if s.onWritable.Load() == nil {
		return
	}
	if f := s.onWritable.Swap(nil); f != nil {
		s.poller.workers.Go(TaskFunc(*f))
	}
}

// Run reads and feeds until nothing is left. It is the stream as a Task, and the reader as long as
// reading is set.
func (s *epolled) Run() {
	if s.initial != nil && !s.feedInitial() {
		return
	}
	var buf []byte
	defer func() {
		if buf != nil {
			s.poller.buffers.put(buf)
		}
	}()
	toTheEnd := false
	for full := 0; ; {
		// What this forgets happened before the read below, which finds it.
		seen := s.phase.Swap(reading)
		toTheEnd = toTheEnd || seen&beyond != 0
		if s.closed.Load() {
			s.finish(net.ErrClosed)
			return
		}
		if buf == nil {
			buf = s.poller.buffers.get()
		}
		n, err := readNow(int(s.fd), buf)
		if n > 0 {
			if err := s.feeder.Feed(buf[:n]); err != nil {
				s.finish(err)
				return
			}
			if full++; n == len(buf) && full < fullReads {
				continue
			}
		}
		if full > 0 {
			full = 0
			s.feeder.FeedEnd()
		}
		switch {
		case err == syscall.EAGAIN, n > 0 && n < len(buf) && !toTheEnd:
			// Nothing is left, and an event follows whatever comes. After a short read that
			// is so unless the event which told of the bytes told of an end, too, or of
			// urgent bytes, where reads stop.
			if s.phase.CompareAndSwap(reading, 0) {
				return
			}
		case err != nil:
			s.finish(err)
			return
		}
		if toTheEnd {
			s.phase.Or(beyond)
		}
		if s.poller.workers.Yield(s) {
			return
		}
	}
}

// feedInitial reports whether the stream goes on.
func (s *epolled) feedInitial() bool {
	in := *s.initial
	s.initial = nil
	if s.closed.Load() {
		s.finish(net.ErrClosed)
		return false
	}
	if err := s.feeder.Feed(in); err != nil {
		s.finish(err)
		return false
	}
	s.feeder.FeedEnd()
	return true
}

// readNow reads what is there: io.EOF at the end, EAGAIN if there is nothing.
func readNow(fd int, b []byte) (int, error) {
	for {
		n, errno := receive(fd, b)
		switch {
		case errno == 0 && n > 0:
			return n, nil
		case errno == 0:
			return 0, io.EOF
		case errno != syscall.EINTR:
			return 0, errno
		}
	}
}

// finish gives the descriptor up and tells the feeder.
func (s *epolled) finish(err error) {
	s.closed.Store(true)
	s.leave()
	s.drop()
	s.wakeWriter()
	s.feeder.Closed(closedError(err))
	s.poller.live.Done()
}

// leave takes s off the poller's streams.
func (s *epolled) leave() {
	p := s.poller
	p.mu.Lock()
	defer p.mu.Unlock()
	s.set.remove(s)
	s.ended = true
	p.count--
}

func (s *epolled) TryWrite(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.closed.Load() || !s.hold() {
		return 0, net.ErrClosed
	}
	defer s.release()
	return writeNow(int(s.fd), b)
}

func (s *epolled) TryWritev(bufs [][]byte) (int64, error) {
	var total int64
	for len(bufs) > 0 {
		if s.closed.Load() || !s.hold() {
			return total, net.ErrClosed
		}
		op := writeOps.Get().(*writeOp)
		var want int
		if bufs, want = op.take(bufs); want > 0 {
			op.write(uintptr(s.fd))
		}
		s.release()
		n, err := op.done()
		total += int64(n)
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// WhenWritable asks for EPOLLOUT, from then on. Asking makes the kernel look whether it takes bytes
// already, so that nothing is missed which happened since the short write.
func (s *epolled) WhenWritable(f func()) {
	p := s.poller
	p.mu.Lock()
	alive := !s.ended
	if alive {
		p.live.Add(2) // for the call of f, and for the use of the set here
	}
	p.mu.Unlock()
	if !alive {
		p.workers.Go(TaskFunc(f))
		return
	}
	defer p.live.Done()
	call := func() {
		defer p.live.Done()
		f()
	}
	s.onWritable.Store(&call)
	if s.closed.Load() || !s.askForWritable() {
		s.wakeWriter()
	}
}

func (s *epolled) askForWritable() bool {
	if !s.hold() {
		return false
	}
	defer s.release()
	return s.set.control(unix.EPOLL_CTL_MOD, s, readEvents|unix.EPOLLOUT) == nil
}

func (s *epolled) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	err := s.shutdown(syscall.SHUT_RDWR)
	s.wakeWriter()
	s.wake(again)
	return err
}

func (s *epolled) Abort() error {
	s.closed.Store(true)
	if s.hold() {
		// The reset goes out when the descriptor is closed.
		_ = syscall.SetsockoptLinger(int(s.fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		s.release()
	}
	s.wakeWriter()
	s.wake(again)
	return nil
}

func (s *epolled) CloseWrite() error { return s.shutdown(syscall.SHUT_WR) }

func (s *epolled) shutdown(how int) error {
	if !s.hold() {
		return nil // it has ended
	}
	defer s.release()
	if err := syscall.Shutdown(int(s.fd), how); err != syscall.ENOTCONN {
		return err
	}
	return nil // the peer was faster
}
