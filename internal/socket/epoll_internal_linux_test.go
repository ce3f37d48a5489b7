package socket

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// silentFeeder counts what it is told.
type silentFeeder struct {
	fed    chan int
	closed chan error
}

func newSilent() *silentFeeder {
	return &silentFeeder{fed: make(chan int, 10), closed: make(chan error, 2)}
}
func (f *silentFeeder) Feed(b []byte) error { f.fed <- len(b); return nil }
func (f *silentFeeder) FeedEnd()            {}
func (f *silentFeeder) Closed(err error)    { f.closed <- err }

// within gets a value, or fails the test.
func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

// epollPoller runs a poller with epoll until the test ends.
func epollPoller(t *testing.T) *Poller {
	p := NewPoller(PollerOptions{Epoll: true})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = p.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return p
}

// added is a stream, and its peer.
func added(t *testing.T, p *Poller, f Feeder) (Stream, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Add(server, nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return s, client
}

// everything is an event for s.
func everything(s *epolled) unix.EpollEvent {
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	return unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLHUP, Fd: int32(s.slot), Pad: int32(s.set.slots[s.slot].generation)}
}

func TestAnEventThatWasOnItsWayWhenItsStreamEndedIsNobodys(t *testing.T) {
	p := epollPoller(t)
	before := newSilent()
	first, peer := added(t, p, before)
	old := first.(*epolled)
	late := everything(old)
	_ = peer.Close()
	within(t, "the end of the first", before.closed)

	f := newSilent()
	second, peer := added(t, p, f)
	s := second.(*epolled)
	if s.slot != old.slot {
		t.Fatalf("the slot is not used again: %d after %d", s.slot, old.slot)
	}
	called := make(chan bool, 1)
	never := func() { called <- true }
	s.onWritable.Store(&never)
	// The loop's own fields must not be used beside it: a set of its slots serves as well.
	beside := &epollSet{slots: s.set.slots}
	beside.tell([]unix.EpollEvent{late})
	if s.phase.Load() != 0 || s.onWritable.Load() == nil {
		t.Error("the second stream was told")
	}
	beside.tell([]unix.EpollEvent{everything(s)})
	within(t, "the call", called)
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	within(t, "the byte", f.fed)
}

// A descriptor that is closed leaves its epoll set without an event.
func TestWhoWaitsToWriteIsToldOfTheEnd(t *testing.T) {
	p := epollPoller(t)
	f := newSilent()
	stream, _ := added(t, p, f)
	s := stream.(*epolled)
	called := make(chan bool, 1)
	call := func() { called <- true }
	s.onWritable.Store(&call)
	s.phase.Store(reading)
	s.finish(io.EOF)
	within(t, "the call", called)
	within(t, "the end", f.closed)
}

func TestASocketThatFindsNoPlaceInAnEpollSetIsParked(t *testing.T) {
	p := epollPoller(t)
	_, _ = added(t, p, newSilent())
	set := p.epoll.all[0]
	fd := set.fd
	set.mu.Lock()
	set.fd = -1 // the kernel refuses
	set.mu.Unlock()
	f := newSilent()
	s, peer := added(t, p, f)
	set.mu.Lock()
	set.fd = fd
	set.mu.Unlock()
	if _, ok := s.(*parked); !ok {
		t.Fatalf("it is a %T", s)
	}
	if p.Len() != 2 {
		t.Errorf("%d streams, want 2", p.Len())
	}
	_, _ = peer.Write([]byte("x"))
	within(t, "the byte", f.fed)
	_ = peer.Close()
	if err := within(t, "the end", f.closed); err != io.EOF {
		t.Error(err)
	}
}

func TestWithoutDescriptorsASocketIsParked(t *testing.T) {
	p := epollPoller(t)
	_, _ = added(t, p, newSilent()) // the sets have theirs
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	f := newSilent()
	s, err := p.Add(server, []byte("x"), f)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.(*parked); !ok {
		t.Fatalf("it is a %T", s)
	}
	within(t, "the byte", f.fed)
}

func TestAnIdleStreamIsSmallAndHasNoGoroutine(t *testing.T) {
	if size := unsafe.Sizeof(epolled{}) + unsafe.Sizeof(epollSlot{}); size > 96 {
		t.Errorf("an epolled and its slot have %d bytes", size)
	}
	p := epollPoller(t)
	_, _ = added(t, p, newSilent())
	const n = 50
	before := runtime.NumGoroutine()
	for range n {
		_, _ = added(t, p, newSilent())
	}
	if after := runtime.NumGoroutine(); after >= before+n {
		t.Errorf("%d goroutines before, %d after %d more", before, after, n)
	}
}
