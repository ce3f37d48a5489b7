package wsconn_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/socket"
	"letshare-server/internal/wsconn"
)

// patience bounds waiting for what must happen; nothing waits for it when all is well.
const patience = time.Minute

// echo sends every message back.
type echo struct {
	c     *wsconn.Conn
	ended chan<- wsconn.End
}

func (e *echo) Opened(c *wsconn.Conn) { e.c = c }
func (e *echo) Message(op socket.Opcode, payload []byte) {
	e.c.Outbox().Queue(socket.AppendFrame(nil, op, payload))
}
func (e *echo) TurnEnd() {}
func (e *echo) Closed(end wsconn.End) {
	if e.ended != nil {
		e.ended <- end
	}
}

// host is an HTTP server whose requests become connections with handlers from door.
type host struct {
	url    string // ws://…
	addr   string
	poller *socket.Poller
	wheel  *socket.Wheel
	ends   chan wsconn.End
	client *http.Client // trusts the certificate
	tls    bool
}

// run starts poller and wheel, and ends them with the test.
func run(t testing.TB, poller *socket.Poller, wheel *socket.Wheel) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = poller.Run(ctx) })
	wg.Go(func() { _ = wheel.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// layer is one kind of sockets that connections stand on.
type layer struct {
	name   string
	tls    bool
	poller socket.PollerOptions
}

// layers are all of them. What a client sees must be the same on each.
var layers = []layer{
	{name: "parked"},
	{name: "epoll", poller: socket.PollerOptions{Epoll: true}},
	{name: "TLS", tls: true},
}

// onTCP runs a test on those without TLS.
func onTCP(t *testing.T, f func(t *testing.T, on layer)) {
	for _, on := range layers {
		if !on.tls {
			t.Run(on.name, func(t *testing.T) { f(t, on) })
		}
	}
}

func serveOn(t testing.TB, on layer, settings wsconn.Settings, door func(ends chan<- wsconn.End) wsconn.Handler) *host {
	h := &host{poller: socket.NewPoller(on.poller), wheel: socket.NewWheel(), ends: make(chan wsconn.End, 20000+*churn)}
	run(t, h.poller, h.wheel)
	server := wsconn.NewServer(h.poller, h.wheel, settings)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		opening, err := socket.Upgrade(w, r)
		if err != nil {
			return
		}
		_, _ = server.Serve(opening, door(h.ends))
	}))
	if on.tls {
		web.StartTLS()
	} else {
		web.Start()
	}
	h.client = web.Client()
	t.Cleanup(web.Close)
	h.url = "ws" + strings.TrimPrefix(web.URL, "http")
	h.addr = web.Listener.Addr().String()
	h.tls = on.tls
	return h
}

func serveEchoOn(t testing.TB, on layer, settings wsconn.Settings) *host {
	return serveOn(t, on, settings, func(ends chan<- wsconn.End) wsconn.Handler { return &echo{ended: ends} })
}

// end waits for the next connection's end.
func (h *host) end(t testing.TB) wsconn.End {
	t.Helper()
	select {
	case e := <-h.ends:
		return e
	case <-time.After(patience):
		t.Fatal("no connection ended")
		return wsconn.End{}
	}
}

// peer is a client that sends raw frames.
type peer struct {
	t    testing.TB
	conn net.Conn
	asm  socket.Assembler
	got  []frame
}

type frame struct {
	op      socket.Opcode
	payload string
}

func (p *peer) Message(op socket.Opcode, b []byte) error {
	p.got = append(p.got, frame{op, string(b)})
	return nil
}
func (p *peer) Control(op socket.Opcode, b []byte) error { return p.Message(op, b) }

// handshake is a valid request.
const handshake = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// dial connects a raw peer, which sends more right behind the handshake.
func dial(t testing.TB, addr string, more ...byte) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return shake(t, conn, more)
}

// dial is the same over whatever the host speaks.
func (h *host) dial(t testing.TB, more ...byte) *peer {
	t.Helper()
	if !h.tls {
		return dial(t, h.addr, more...)
	}
	conn, err := tls.Dial("tcp", h.addr, h.client.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	return shake(t, conn, more)
}

func shake(t testing.TB, conn net.Conn, more []byte) *peer {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(append([]byte(handshake), more...)); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, asm: socket.NewAssembler(&socket.AssemblerOptions{Client: true, MaxMessageBytes: 16 << 20, AllowInvalidUTF8: true})}
	var head []byte
	one := make([]byte, 1)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		if _, err := conn.Read(one); err != nil {
			t.Fatalf("handshake: %v after %q", err, head)
		}
		head = append(head, one...)
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") || !strings.Contains(string(head), "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") {
		t.Fatalf("handshake answer %q", head)
	}
	return p
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// next reads one frame or message; ok is false at the end of the stream.
func (p *peer) next() (f frame, ok bool) {
	p.t.Helper()
	buf := make([]byte, 64<<10)
	for len(p.got) == 0 {
		_ = p.conn.SetReadDeadline(time.Now().Add(patience))
		n, err := p.conn.Read(buf)
		if n > 0 {
			if ferr := p.asm.Feed(buf[:n], p); ferr != nil {
				p.t.Fatalf("the server broke the protocol: %v", ferr)
			}
			continue
		}
		if err.Error() == "EOF" {
			return frame{}, false
		}
		p.t.Fatalf("reading: %v", err)
	}
	f = p.got[0]
	p.got = p.got[1:]
	return f, true
}

// expect reads one frame and compares.
func (p *peer) expect(op socket.Opcode, payload string) {
	p.t.Helper()
	f, ok := p.next()
	if !ok || f.op != op || f.payload != payload {
		p.t.Fatalf("got %v (%v) of %d bytes, want opcode %d of %d bytes", f.op, ok, len(f.payload), op, len(payload))
	}
}

// expectClose reads up to a close frame with code, then the end of the stream.
func (p *peer) expectClose(code int) {
	p.t.Helper()
	for {
		f, ok := p.next()
		if !ok {
			p.t.Fatalf("stream ended without close frame %d", code)
		}
		if f.op != socket.OpClose {
			continue
		}
		got, reason, err := socket.ParseClose([]byte(f.payload))
		if err != nil || got != code {
			p.t.Fatalf("closed with %d %q %v, want %d", got, reason, err, code)
		}
		break
	}
	if f, ok := p.next(); ok {
		p.t.Fatalf("frame %v after close", f)
	}
}

var key = [4]byte{0x12, 0x34, 0x56, 0x78}

func masked(op socket.Opcode, payload string) []byte {
	return socket.AppendMaskedFrame(nil, op, []byte(payload), key)
}

// fragment is a masked frame that may be any part of a message.
func fragment(op socket.Opcode, fin bool, payload string) []byte {
	b := socket.AppendMaskedHeader(nil, op, fin, false, len(payload), key)
	start := len(b)
	b = append(b, payload...)
	socket.Mask(b[start:], key, 0)
	return b
}

// await waits for a condition that other goroutines bring about.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
