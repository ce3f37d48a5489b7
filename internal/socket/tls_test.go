package socket_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/socket"
	"letshare-server/test/cert"
)

// serverTLS and clientTLS are the two sides' settings.
var serverTLS, clientTLS = func() (server, client *tls.Config) {
	c, err := cert.New(1)
	if err != nil {
		panic(err)
	}
	return c.Server(), c.Client()
}()

// secured does the handshake over two ends of a connection.
func secured(t *testing.T, server, client net.Conn) (*tls.Conn, *tls.Conn) {
	t.Helper()
	s, c := tls.Server(server, serverTLS), tls.Client(client, clientTLS)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("!")) // after the session tickets
		}
		done <- err
	}()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestAbortResetsATLSPeerThatDoesNotRead(t *testing.T) {
	p := running(t, socket.PollerOptions{})
	rawServer, rawClient := tcpPair(t)
	server, client := secured(t, rawServer, rawClient)
	r := newRecorder()
	s, err := p.Add(server, nil, r)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	for start := time.Now(); time.Since(start) < 200*time.Millisecond; { // until nothing has been taken for long
		n, err := s.TryWrite(b)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			start = time.Now()
		}
	}
	_ = s.Abort()
	if err := r.end(t); err != net.ErrClosed {
		t.Fatalf("ended with %v", err)
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, client); err == nil {
		t.Fatal("the peer saw an ordinary end")
	}
}

// A goodbye of TLS is written, and here nobody takes it.
func TestNoEndOfATLSStreamWaitsForItsPeer(t *testing.T) {
	for name, end := range map[string]func(socket.Stream) error{
		"Close": socket.Stream.Close, "CloseWrite": socket.Stream.CloseWrite, "Abort": socket.Stream.Abort,
	} {
		t.Run(name, func(t *testing.T) {
			p := running(t, socket.PollerOptions{})
			waits := func() bool {
				rawServer, rawClient := net.Pipe() // without buffers
				server, _ := secured(t, rawServer, rawClient)
				r := newRecorder()
				s, err := p.Add(server, nil, r)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_ = end(s)
				took := time.Since(began)
				_ = rawClient.Close()
				_ = r.end(t)
				return took > 4*time.Second // the linger time is 5 s
			}
			for tries := 1; waits(); tries++ {
				if tries == 3 { // the machine has not just paused
					t.Fatal("it waits")
				}
			}
		})
	}
}

// What TLS has read already must be fed, although the socket will tell of nothing.
func TestBytesThatTLSHoldsAreFedFirst(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		p := running(t, socket.PollerOptions{})
		server, client := tlsKind(version, socket.ForTLS).pair(t)
		if _, err := client.Write([]byte("hello, world")); err != nil { // one record
			t.Fatal(err)
		}
		begin := make([]byte, 3)
		if _, err := io.ReadFull(server, begin); err != nil {
			t.Fatal(err)
		}
		r := newRecorder()
		if _, err := p.Add(server, begin, r); err != nil {
			t.Fatal(err)
		}
		await(t, "what was held", func() bool { return r.len() == 12 })
		_, _ = client.Write([]byte("!"))
		await(t, "what follows", func() bool { return r.len() == 13 })
		_ = client.Close()
		if err := r.end(t); err != io.EOF || string(r.got) != "hello, world!" {
			t.Errorf("%q, then %v", r.got, err)
		}
	}
}

func TestAGoodbyeThatTLSHoldsEndsTheStream(t *testing.T) {
	p := running(t, socket.PollerOptions{})
	server, client := tlsKind(tls.VersionTLS13, socket.ForTLS).pair(t)
	rawServer := server.(*tls.Conn).NetConn()
	_, _ = client.Write([]byte("x"))
	_ = client.(*tls.Conn).CloseWrite()
	_ = rawServer.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, server); err != nil { // until the goodbye
		t.Fatal(err)
	}
	r := newRecorder()
	if _, err := p.Add(server, nil, r); err != nil {
		t.Fatal(err)
	}
	if err := r.end(t); err != io.EOF {
		t.Errorf("ended with %v", err)
	}
}

// Records cut at every place, several at once, and large ones.
func TestRecordsArriveInPieces(t *testing.T) {
	for _, readBuffer := range []int{1, 7, 100, 16 << 10} {
		p := running(t, socket.PollerOptions{ReadBuffer: readBuffer})
		server, client := tlsKind(tls.VersionTLS13, socket.ForTLS).pair(t)
		r := newRecorder()
		if _, err := p.Add(server, nil, r); err != nil {
			t.Fatal(err)
		}
		var sent []byte
		for n := 1; len(sent) < 40_000; n = n*3 + 1 {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(len(sent) + i)
			}
			if _, err := client.Write(b); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, b...)
		}
		await(t, "all bytes", func() bool { return r.len() == len(sent) })
		if !bytes.Equal(r.got, sent) {
			t.Errorf("with buffers of %d what was fed differs", readBuffer)
		}
		_ = client.Close()
		if err := r.end(t); err != io.EOF {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestADamagedRecordEndsTheStream(t *testing.T) {
	p := running(t, socket.PollerOptions{})
	server, client := tlsKind(tls.VersionTLS13, socket.ForTLS).pair(t)
	r := newRecorder()
	if _, err := p.Add(server, nil, r); err != nil {
		t.Fatal(err)
	}
	if _, err := client.(*tls.Conn).NetConn().Write([]byte("\x17\x03\x03\x00\x20" + "these are 32 bytes of a forgery!!")); err != nil {
		t.Fatal(err)
	}
	err := r.end(t)
	if err == nil || err == io.EOF || errors.Is(err, net.ErrClosed) || len(r.got) > 0 {
		t.Errorf("fed %q, ended with %v", r.got, err)
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	var alert *net.OpError
	if _, err := client.Read(make([]byte, 1)); !errors.As(err, &alert) || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("the peer was told %v", err)
	}
}

func TestWritingOverTLSAllocatesNothing(t *testing.T) {
	p := running(t, socket.PollerOptions{})
	server, client := tlsKind(tls.VersionTLS13, socket.ForTLS).pair(t)
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
}

func BenchmarkTryWriteOverTLS(b *testing.B) {
	for name, below := range map[string]func(net.Listener) net.Listener{
		"secured": socket.ForTLS, "portable": func(l net.Listener) net.Listener { return hiding{l} },
	} {
		b.Run(name, func(b *testing.B) {
			p := running(b, socket.PollerOptions{})
			server, client := tlsKind(tls.VersionTLS13, below).pair(b)
			s, err := p.Add(server, nil, newRecorder())
			if err != nil {
				b.Fatal(err)
			}
			frame, got := make([]byte, 300), make([]byte, 300)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.TryWrite(frame)
				if _, err := io.ReadFull(client, got); err != nil {
					b.Fatal(err)
				}
			}
			_ = s.Close()
		})
	}
}
