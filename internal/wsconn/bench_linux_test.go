package wsconn_test

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
	"letshare-server/internal/wsconn"
)

// rawClient is a connected WebSocket client that costs this process a descriptor and nothing else.
func rawClient(t testing.TB, addr string) int {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Write(fd, []byte(handshake)); err != nil {
		t.Fatal(err)
	}
	var head []byte
	buf := make([]byte, 1024)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		n, err := syscall.Read(fd, buf)
		if err != nil || n == 0 {
			t.Fatalf("handshake: %d %v", n, err)
		}
		head = append(head, buf[:n]...)
	}
	return fd
}

// gathering is a door that only remembers its connections.
type gathering struct {
	mu    sync.Mutex
	conns []*wsconn.Conn
}

type member struct {
	g *gathering
	c *wsconn.Conn
	n atomic.Int64
}

func (m *member) Opened(c *wsconn.Conn) {
	m.c = c
	m.g.mu.Lock()
	m.g.conns = append(m.g.conns, c)
	m.g.mu.Unlock()
}
func (m *member) Message(socket.Opcode, []byte) { m.n.Add(1) }
func (m *member) TurnEnd()                      {}
func (m *member) Closed(wsconn.End)             {}

func (g *gathering) wait(t testing.TB, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d connections", n), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.conns) == n
	})
}

func rss() int {
	b, _ := os.ReadFile("/proc/self/statm")
	var size, resident int
	fmt.Sscan(string(b), &size, &resident)
	return resident * os.Getpagesize()
}

var benchmarkLayer = flag.String("layer", layers[0].name, "layer of the benchmarks")

func benchmarked(b *testing.B) layer {
	for _, on := range layers {
		if on.name == *benchmarkLayer {
			return on
		}
	}
	b.Fatalf("no layer is called %s", *benchmarkLayer)
	return layer{}
}

// BenchmarkIdleConnection reports what 5,000 idle connections cost the server's side, each: the
// clients are bare descriptors. Run it with -benchtime=1x and alone.
func BenchmarkIdleConnection(b *testing.B) {
	const n = 5000
	for b.Loop() {
		g := new(gathering)
		h := serveOn(b, benchmarked(b), wsconn.Settings{}, func(chan<- wsconn.End) wsconn.Handler { return &member{g: g} })
		fds := make([]int, 0, n)
		for range 100 { // warm what is shared
			fds = append(fds, rawClient(b, h.addr))
		}
		g.wait(b, 100)
		var before, after runtime.MemStats
		measure := func(m *runtime.MemStats) int {
			debug.FreeOSMemory()
			time.Sleep(300 * time.Millisecond)
			debug.FreeOSMemory()
			runtime.ReadMemStats(m)
			return rss()
		}
		rssBefore := measure(&before)
		for len(fds) < n {
			fds = append(fds, rawClient(b, h.addr))
		}
		g.wait(b, n)
		for _, talk := range []bool{false, true} {
			if talk {
				hello := masked(socket.OpText, strings.Repeat("h", 200))
				for _, fd := range fds {
					if _, err := syscall.Write(fd, hello); err != nil {
						b.Fatal(err)
					}
				}
				await(b, "idle workers", func() bool { return h.poller.Workers().Busy() == false })
			}
			rssAfter := measure(&after)
			per := func(x, y uint64) float64 { return (float64(y) - float64(x)) / (n - 100) }
			suffix := ""
			if talk {
				suffix = "-talked"
			}
			b.ReportMetric(float64(rssAfter-rssBefore)/(n-100), "rss-B/conn"+suffix)
			b.ReportMetric(per(before.HeapInuse, after.HeapInuse), "heap-B/conn"+suffix)
			b.ReportMetric(per(before.HeapAlloc, after.HeapAlloc), "live-B/conn"+suffix)
			b.ReportMetric(per(before.StackInuse, after.StackInuse), "stack-B/conn"+suffix)
		}
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
		await(b, "the end of all", func() bool { return h.poller.Len() == 0 })
	}
}

// BenchmarkConnect is a whole connection: TCP, upgrade, one message each way, close. The clients'
// half is in it.
func BenchmarkConnect(b *testing.B) {
	h := serveEchoOn(b, benchmarked(b), wsconn.Settings{})
	hello := masked(socket.OpText, "hello")
	buf := make([]byte, 100)
	begin := cpu()
	b.ReportAllocs()
	for b.Loop() {
		fd := rawClient(b, h.addr)
		_, _ = syscall.Write(fd, hello)
		if n, err := syscall.Read(fd, buf); n != 7 || err != nil {
			b.Fatal(n, err)
		}
		_ = syscall.Close(fd)
		<-h.ends
	}
	b.ReportMetric(float64(cpu()-begin)/float64(b.N), "cpu-ns/op")
}

// BenchmarkFanOut puts one shared frame into 1,000 connections whose clients read it; it counts
// when all bytes have been read. cpu-ns/delivery includes the clients' half.
func BenchmarkFanOut(b *testing.B) {
	const n = 1000
	for _, inFlight := range []int{1, 16} {
		b.Run(fmt.Sprintf("%dInFlight", inFlight), func(b *testing.B) {
			g := new(gathering)
			stats := new(outbox.Stats)
			h := serveOn(b, benchmarked(b), wsconn.Settings{Outbox: outbox.Options{Stats: stats}}, func(chan<- wsconn.End) wsconn.Handler { return &member{g: g} })
			fds := make([]int, n)
			for i := range fds {
				fds[i] = rawClient(b, h.addr)
			}
			g.wait(b, n)
			frame := socket.AppendFrame(nil, socket.OpText, bytes.Repeat([]byte("x"), 300))
			buf := make([]byte, 64<<10)
			stats.Writes.Store(0)
			var server time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				begin := cpu()
				for range inFlight {
					for _, c := range g.conns {
						c.Outbox().Queue(frame)
					}
				}
				for _, c := range g.conns {
					c.Outbox().Flush()
				}
				server += cpu() - begin
				for _, fd := range fds {
					for left := len(frame) * inFlight; left > 0; {
						m, err := syscall.Read(fd, buf)
						if err != nil || m == 0 {
							b.Fatal(m, err)
						}
						left -= m
					}
				}
			}
			b.StopTimer()
			deliveries := float64(b.N * n * inFlight)
			b.ReportMetric(float64(server)/deliveries, "server-cpu-ns/delivery")
			b.ReportMetric(float64(stats.Writes.Load())/deliveries, "writes/delivery")
			for _, fd := range fds {
				_ = syscall.Close(fd)
			}
			await(b, "the end of all", func() bool { return h.poller.Len() == 0 })
		})
	}
	b.Run("BareWrites", func(b *testing.B) { // the floor: one write of the same bytes per socket
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		var pairs [][2]int
		for range n {
			tcp := ln.Addr().(*net.TCPAddr)
			fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
			if err != nil {
				b.Fatal(err)
			}
			if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}); err != nil {
				b.Fatal(err)
			}
			c, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			f, err := c.(*net.TCPConn).File()
			if err != nil {
				b.Fatal(err)
			}
			dup, err := syscall.Dup(int(f.Fd()))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = f.Close(), c.Close()
			_ = syscall.SetsockoptInt(dup, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
			pairs = append(pairs, [2]int{dup, fd})
		}
		frame := socket.AppendFrame(nil, socket.OpText, bytes.Repeat([]byte("x"), 300))
		buf := make([]byte, 64<<10)
		var server time.Duration
		b.ResetTimer()
		for range b.N {
			begin := cpu()
			for _, p := range pairs {
				if _, err := syscall.Write(p[0], frame); err != nil {
					b.Fatal(err)
				}
			}
			server += cpu() - begin
			for _, p := range pairs {
				if _, err := syscall.Read(p[1], buf); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(server)/float64(b.N*n), "server-cpu-ns/delivery")
		for _, p := range pairs {
			_, _ = syscall.Close(p[0]), syscall.Close(p[1])
		}
	})
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
