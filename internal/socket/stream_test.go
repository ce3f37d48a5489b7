package socket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/socket"
)

const patience = time.Minute

// recorder is a Feeder that notes everything and watches the contract.
type recorder struct {
	mu     sync.Mutex
	got    []byte
	turns  int
	fed    bool // since the last FeedEnd
	inside atomic.Int32
	broken atomic.Bool // the contract was
	closed chan error
	onFeed func(b []byte) error
}

func newRecorder() *recorder { return &recorder{closed: make(chan error, 2)} }

func (r *recorder) Feed(b []byte) error {
	if r.inside.Add(1) != 1 || len(b) == 0 || len(r.closed) > 0 {
		r.broken.Store(true)
	}
	defer r.inside.Add(-1)
	r.mu.Lock()
	r.got = append(r.got, b...)
	r.fed = true
	r.mu.Unlock()
	if r.onFeed != nil {
		return r.onFeed(b)
	}
	return nil
}

func (r *recorder) FeedEnd() {
	if r.inside.Add(1) != 1 {
		r.broken.Store(true)
	}
	defer r.inside.Add(-1)
	r.mu.Lock()
	r.turns++
	r.fed = false
	r.mu.Unlock()
}

func (r *recorder) Closed(err error) {
	if r.inside.Add(1) != 1 {
		r.broken.Store(true)
	}
	defer r.inside.Add(-1)
	r.closed <- err
}

func (r *recorder) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func (r *recorder) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.closed:
		if r.broken.Load() {
			t.Fatal("the feeder's contract was broken")
		}
		return err
	case <-time.After(patience):
		t.Fatal("Closed was not called")
		return nil
	}
}

func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// running starts a poller that ends with the test.
func running(t testing.TB, opts socket.PollerOptions) *socket.Poller {
	p := socket.NewPoller(opts)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

// hidden is a connection that the poller does not recognise as TCP.
type hidden struct{ net.Conn }

func (h hidden) CloseWrite() error { return h.Conn.(*net.TCPConn).CloseWrite() }

// hiding accepts hidden connections.
type hiding struct{ net.Listener }

func (l hiding) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hidden{c}, nil
}

// kind is a way in which connections are made, and so an implementation of Stream.
type kind struct {
	listen func(net.Listener) net.Listener
	dial   func(address string) (net.Conn, error)
	epoll  bool
}

// with is opts for this kind.
func (k kind) with(opts socket.PollerOptions) socket.PollerOptions {
	opts.Epoll = k.epoll
	return opts
}

// onEpoll is k over epoll sets.
func (k kind) onEpoll() kind {
	k.epoll = true
	return k
}

// accept takes a connection that is ready for the poller.
func (k kind) accept(l net.Listener) (net.Conn, error) {
	c, err := l.Accept()
	if over, ok := c.(*tls.Conn); ok {
		_ = over.SetDeadline(time.Now().Add(patience))
		err = over.Handshake()
		_ = over.SetDeadline(time.Time{})
	}
	return c, err
}

// pair is two ends of a connection.
func (k kind) pair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan error, 1)
	go func() {
		var err error
		server, err = k.accept(k.listen(ln))
		accepted <- err
	}()
	if client, err = k.dial(ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	return server, client
}

// tcpPair is a pair of the parked kind.
func tcpPair(t testing.TB) (server, client net.Conn) { return parkedKind.pair(t) }

func dialTCP(address string) (net.Conn, error) { return net.Dial("tcp", address) }

var (
	parkedKind   = kind{listen: func(l net.Listener) net.Listener { return l }, dial: dialTCP}
	epollKind    = parkedKind.onEpoll()
	portableKind = kind{listen: func(l net.Listener) net.Listener { return hiding{l} }, dial: dialTCP}
)

// onEach runs a test on each implementation.
func onEach(t *testing.T, f func(t *testing.T, k kind)) {
	onTCP(t, f)
	t.Run("portable", func(t *testing.T) { f(t, portableKind) })
	t.Run("TLS 1.3", func(t *testing.T) { f(t, tlsKind(tls.VersionTLS13, socket.ForTLS)) })
	t.Run("TLS 1.3 over epoll", func(t *testing.T) { f(t, tlsKind(tls.VersionTLS13, socket.ForTLS).onEpoll()) })
	t.Run("TLS 1.2", func(t *testing.T) { f(t, tlsKind(tls.VersionTLS12, socket.ForTLS)) })
	t.Run("portable TLS", func(t *testing.T) {
		f(t, tlsKind(tls.VersionTLS13, func(l net.Listener) net.Listener { return socket.ForTLS(hiding{l}) }))
	})
}

// onTCP runs a test on those for plain TCP.
func onTCP(t *testing.T, f func(t *testing.T, k kind)) {
	t.Run("parked", func(t *testing.T) { f(t, parkedKind) })
	t.Run("epoll", func(t *testing.T) { f(t, epollKind) })
}

// tlsKind is connections of one version of TLS; below prepares those that it runs over.
func tlsKind(version uint16, below func(net.Listener) net.Listener) kind {
	return kind{
		listen: func(l net.Listener) net.Listener { return tls.NewListener(below(l), serverTLS) },
		dial: func(address string) (net.Conn, error) {
			c := clientTLS.Clone()
			c.MaxVersion = version
			return tls.Dial("tcp", address, c)
		},
	}
}

func TestInitialBytesComeFirstAndTheEndLast(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		server, client := k.pair(t)
		r := newRecorder()
		if _, err := client.Write([]byte("world")); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Add(server, []byte("hello "), r); err != nil {
			t.Fatal(err)
		}
		await(t, "all bytes", func() bool { return r.len() == 11 })
		_ = client.Close()
		if err := r.end(t); err != io.EOF {
			t.Fatalf("ended with %v", err)
		}
		if string(r.got) != "hello world" || r.fed || r.turns == 0 {
			t.Fatalf("fed %q, %d turns, unfinished %v", r.got, r.turns, r.fed)
		}
		await(t, "an empty poller", func() bool { return p.Len() == 0 })
	})
}

func TestManyBytesArriveInOrderInBothDirections(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{ReadBuffer: 4096}))
		const n = 5 << 20
		data := make([]byte, n)
		rng := rand.NewChaCha8([32]byte{1})
		_, _ = rng.Read(data)
		server, client := k.pair(t)
		r := newRecorder()
		s, err := p.Add(server, nil, r)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = client.Write(data)
		})
		var sum []byte
		wg.Go(func() {
			h := sha256.New()
			_, _ = io.CopyN(h, client, n)
			sum = h.Sum(nil)
		})
		wg.Go(func() { // one writer, as an outbox would be
			left := data
			ready := make(chan struct{}, 1)
			for turn := 0; len(left) > 0; turn++ {
				var k int
				var err error
				if turn%2 == 0 {
					k, err = s.TryWrite(left[:min(len(left), 100_000)])
				} else {
					var bufs [][]byte
					for i := 0; i < len(left) && len(bufs) < 3000; i += 100 {
						bufs = append(bufs, left[i:min(i+100, len(left))])
						if i%1000 == 0 {
							bufs = append(bufs, nil)
						}
					}
					var k64 int64
					k64, err = s.TryWritev(bufs)
					k = int(k64)
				}
				if err != nil {
					t.Error(err)
					return
				}
				left = left[k:]
				if k == 0 {
					s.WhenWritable(func() { ready <- struct{}{} })
					<-ready
				}
			}
		})
		wg.Wait()
		want := sha256.Sum256(data)
		if !bytes.Equal(sum, want[:]) {
			t.Error("what was written differs")
		}
		await(t, "all bytes", func() bool { return r.len() == n })
		if sha256.Sum256(r.got) != want {
			t.Error("what was fed differs")
		}
		_ = s.Close()
		if err := r.end(t); err != net.ErrClosed {
			t.Fatalf("ended with %v", err)
		}
	})
}

func TestAFeedersErrorEndsTheStream(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		server, client := k.pair(t)
		r := newRecorder()
		no := errors.New("no")
		r.onFeed = func([]byte) error { return no }
		if _, err := p.Add(server, []byte("x"), r); err != nil {
			t.Fatal(err)
		}
		if err := r.end(t); err != no {
			t.Fatalf("ended with %v", err)
		}
		_ = client.SetReadDeadline(time.Now().Add(patience))
		if n, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("the peer read %d, %v", n, err)
		}
	})
}

func TestCloseStillDeliversAndMayBeCalledAgain(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		server, client := k.pair(t)
		r := newRecorder()
		s, err := p.Add(server, nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := s.TryWrite([]byte("goodbye")); n != 7 || err != nil {
			t.Fatal(n, err)
		}
		for range 3 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.TryWrite([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("write after close: %v", err)
		}
		called := make(chan struct{})
		s.WhenWritable(func() { close(called) })
		<-called
		_ = client.SetReadDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(client); string(b) != "goodbye" || err != nil {
			t.Fatalf("the peer read %q, %v", b, err)
		}
		if err := r.end(t); err != net.ErrClosed {
			t.Fatalf("ended with %v", err)
		}
		_, _, _ = s.Abort(), s.CloseWrite(), s.Close() // after the end: nothing happens
	})
}

func TestCloseWriteEndsOneDirection(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		server, client := k.pair(t)
		r := newRecorder()
		s, err := p.Add(server, nil, r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.TryWrite([]byte("last"))
		_ = s.CloseWrite()
		_ = client.SetReadDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(client); string(b) != "last" || err != nil {
			t.Fatalf("the peer read %q, %v", b, err)
		}
		_, _ = client.Write([]byte("still here"))
		await(t, "what the peer still sends", func() bool { return r.len() == 10 })
		_ = client.Close()
		if err := r.end(t); err != io.EOF {
			t.Fatalf("ended with %v", err)
		}
	})
}

func TestAbortResetsAPeerThatDoesNotRead(t *testing.T) {
	onTCP(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		server, client := tcpPair(t)
		r := newRecorder()
		s, err := p.Add(server, nil, r)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s)
		waiting := make(chan struct{})
		s.WhenWritable(func() { close(waiting) })
		_ = s.Abort()
		if err := r.end(t); !errors.Is(err, net.ErrClosed) && err != io.EOF {
			t.Fatalf("ended with %v", err)
		}
		<-waiting
		_ = client.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, client); err == nil {
			t.Fatal("the peer saw an ordinary end")
		}
	})
}

// fill writes until the kernel takes no more.
func fill(t *testing.T, s socket.Stream) (total int) {
	t.Helper()
	for b := make([]byte, 64<<10); ; {
		n, err := s.TryWrite(b)
		if err != nil {
			t.Fatal(err)
		}
		total += n
		if n < len(b) {
			if n, err := s.TryWrite(b); n == 0 && err == nil {
				return total
			}
		}
	}
}

func TestWritableIsToldWhenThePeerReadsAgain(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		server, client := k.pair(t)
		s, err := p.Add(server, nil, newRecorder())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var told atomic.Bool
			total := fill(t, s)
			s.WhenWritable(func() { told.Store(true) })
			time.Sleep(20 * time.Millisecond)
			if told.Load() {
				// The portable writer may have moved bytes on; then there must be room.
				if n, _ := s.TryWrite([]byte("x")); n == 0 {
					t.Fatal("told too early")
				}
				total++
			}
			_ = client.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.CopyN(io.Discard, client, int64(total)); err != nil {
				t.Fatal(err)
			}
			await(t, "the call", told.Load)
		}
	})
}

func TestWritingAllocatesNothing(t *testing.T) {
	onTCP(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		server, client := tcpPair(t)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, client) })
		s, err := p.Add(server, nil, newRecorder())
		if err != nil {
			t.Fatal(err)
		}
		b := []byte("frame")
		bufs := [][]byte{b, b, b}
		if n := testing.AllocsPerRun(200, func() { _, _ = s.TryWrite(b) }); n != 0 && !raceEnabled {
			t.Errorf("%v allocations per TryWrite", n)
		}
		if n := testing.AllocsPerRun(200, func() { _, _ = s.TryWritev(bufs) }); n != 0 && !raceEnabled {
			t.Errorf("%v allocations per TryWritev", n)
		}
		_ = s.Close()
		wg.Wait()
	})
}

func TestOneFloodingPeerDoesNotStarveOthers(t *testing.T) {
	onTCP(t, func(t *testing.T, k kind) {
		workers := socket.NewWorkers(socket.WorkersOptions{Soft: 1, Max: 1})
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = workers.Run(ctx) })
		t.Cleanup(func() { cancel(); wg.Wait() })
		p := running(t, k.with(socket.PollerOptions{Workers: workers, ReadBuffer: 4096}))
		flooded, flooder := tcpPair(t)
		wg.Go(func() {
			for b := make([]byte, 1<<20); ; {
				if _, err := flooder.Write(b); err != nil {
					return
				}
			}
		})
		flood := newRecorder()
		flood.onFeed = func([]byte) error {
			flood.mu.Lock()
			flood.got = flood.got[:0]
			flood.mu.Unlock()
			return nil
		}
		if _, err := p.Add(flooded, nil, flood); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			quiet, peer := tcpPair(t)
			r := newRecorder()
			if _, err := p.Add(quiet, nil, r); err != nil {
				t.Fatal(err)
			}
			_, _ = peer.Write([]byte("x"))
			await(t, "the quiet peer's turn", func() bool { return r.len() == 1 })
			_ = peer.Close()
			r.end(t)
		}
		_ = flooder.Close()
		flood.end(t)
	})
}

func TestRunEndsAllStreamsAndRefusesNewOnes(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		t.Parallel() // goodbyes of TLS wait for those who do not read
		p := socket.NewPoller(k.with(socket.PollerOptions{}))
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = p.Run(ctx) })
		var all []*recorder
		for range 50 {
			server, _ := k.pair(t)
			r := newRecorder()
			s, err := p.Add(server, nil, r)
			if err != nil {
				t.Fatal(err)
			}
			if len(all)%2 == 0 {
				fill(t, s)
				s.WhenWritable(func() {})
			}
			all = append(all, r)
		}
		cancel()
		wg.Wait()
		for _, r := range all {
			select {
			case err := <-r.closed:
				if err != net.ErrClosed {
					t.Fatalf("ended with %v", err)
				}
			default:
				t.Fatal("Run returned before Closed")
			}
		}
		server, client := k.pair(t)
		if _, err := p.Add(server, nil, newRecorder()); err != socket.ErrPollerClosed {
			t.Fatalf("added after the end: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("the refused connection: %v", err)
		}
	})
}

var churn = flag.Int("churn", 600, "connections that come and go")

// Streams come, talk and go while others close them from all sides; nothing may be lost, called
// twice or left over.
func TestStreamsStandChurn(t *testing.T) {
	onEach(t, func(t *testing.T, k kind) {
		descriptors := openDescriptors(t)
		p := running(t, k.with(socket.PollerOptions{ReadBuffer: 512}))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		tln := k.listen(ln)
		const drivers = 4
		each := *churn / drivers
		var wg sync.WaitGroup
		var ends atomic.Int64
		wg.Go(func() {
			for range each * drivers {
				c, err := k.accept(tln)
				if err != nil {
					t.Error(err)
					return
				}
				e := &echoFeeder{ends: &ends}
				e.mu.Lock()
				s, err := p.Add(c, nil, e)
				e.s = s
				e.mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		})
		for d := range drivers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(d), 7))
				for range each {
					c, err := k.dial(ln.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					msg := bytes.Repeat([]byte("m"), 1+r.IntN(3000))
					_ = c.SetDeadline(time.Now().Add(patience))
					switch r.IntN(6) {
					case 0: // goes without a word
					case 1:
						_, _ = c.Write(msg)
					case 2:
						_, _ = c.Write(msg)
						if _, err := io.ReadFull(c, msg); err != nil {
							t.Error(err)
						}
					case 3:
						msg[len(msg)-1] = '!' // asks the other side to close
						_, _ = c.Write(msg)
						_, _ = io.Copy(io.Discard, c)
					case 4:
						_, _ = c.Write(msg)
						if tcp, ok := c.(*net.TCPConn); ok {
							_ = tcp.SetLinger(0)
						}
					case 5:
						msg[len(msg)-1] = '?' // asks the other side to abort
						_, _ = c.Write(msg)
						_, _ = io.Copy(io.Discard, c)
					}
					_ = c.Close()
				}
			})
		}
		wg.Wait()
		await(t, "all ends", func() bool { return ends.Load() == int64(each*drivers) && p.Len() == 0 })
		// The listener's, and what the run-time and the layer need once.
		await(t, "all descriptors to be closed", func() bool { return openDescriptors(t) < descriptors+20 })
	})
}

// openDescriptors is how many this process has; zero on systems that do not tell.
func openDescriptors(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

type echoFeeder struct {
	mu   sync.Mutex
	s    socket.Stream
	ends *atomic.Int64
}

func (e *echoFeeder) Feed(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _ = e.s.TryWrite(b)
	switch b[len(b)-1] {
	case '!':
		go e.s.Close()
		return e.s.Close()
	case '?':
		go e.s.CloseWrite()
		return e.s.Abort()
	}
	return nil
}
func (e *echoFeeder) FeedEnd()     {}
func (e *echoFeeder) Closed(error) { e.ends.Add(1) }

// Writers that have not noticed the end of their stream write on while the number of its descriptor
// is given to new sockets: no byte may arrive at another peer than its own.
func TestBytesNeverReachTheNextSocketWithTheSameDescriptor(t *testing.T) {
	onTCP(t, func(t *testing.T, k kind) {
		p := running(t, k.with(socket.PollerOptions{}))
		rng := rand.New(rand.NewPCG(1, 2))
		var wg sync.WaitGroup
		for i := range 150 {
			tag := byte(i % 0x80)
			server, client := tcpPair(t)
			r := newRecorder()
			s, err := p.Add(server, nil, r)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { // the writer
				b := bytes.Repeat([]byte{tag}, 100)
				for ended := 0; ended < 200; {
					n, err := s.TryWritev([][]byte{b, b})
					if _, err2 := s.TryWrite(b); err != nil || err2 != nil {
						ended++
					} else if n == 0 {
						ready := make(chan struct{})
						s.WhenWritable(func() { close(ready) })
						<-ready
					}
				}
			})
			wg.Go(func() { // the peer
				_ = client.SetReadDeadline(time.Now().Add(patience))
				b := make([]byte, 4096)
				for {
					n, err := client.Read(b)
					if i := bytes.IndexFunc(b[:n], func(c rune) bool { return c != rune(tag) }); i >= 0 {
						t.Errorf("connection %d got bytes of another", i)
					}
					if err != nil {
						_ = client.Close()
						return
					}
				}
			})
			switch rng.IntN(3) {
			case 0:
				wg.Go(func() { _ = s.Close() })
			case 1:
				wg.Go(func() { _ = s.Abort() })
			case 2:
				wg.Go(func() { _ = client.Close() })
			}
			wg.Go(func() { <-r.closed })
		}
		wg.Wait()
	})
}

func BenchmarkTryWrite(b *testing.B) {
	for name, k := range map[string]kind{"parked": parkedKind, "epoll": epollKind} {
		b.Run(name, func(b *testing.B) {
			p := running(b, k.with(socket.PollerOptions{}))
			server, client := tcpPair(b)
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = io.Copy(io.Discard, client) })
			s, err := p.Add(server, nil, newRecorder())
			if err != nil {
				b.Fatal(err)
			}
			frame := make([]byte, 300)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.TryWrite(frame)
			}
			_ = s.Close()
			wg.Wait()
		})
	}
}
