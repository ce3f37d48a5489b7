package front_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/front"
	"letshare-server/internal/socket"
)

// patience is how long a test waits for what comes at once.
const patience = 30 * time.Second

// house is a server with a front.
type house struct {
	addr string

	mu     sync.Mutex
	states map[net.Conn]http.ConnState // the last that was told
	began  int                         // calls of ConnContext
}

func (h *house) state(c net.Conn, s http.ConnState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states[c] = s
}

// serve tells who served it, and echoes what follows an upgrade until the client ends.
func (h *house) serve(w http.ResponseWriter, r *http.Request) {
	_, direct := w.(socket.Taker)
	w.Header().Set("Served-By", map[bool]string{true: "front", false: "net/http"}[direct])
	if r.URL.Path == "/ws" {
		panic(http.ErrAbortHandler)
	}
	if r.Header.Get("Upgrade") == "" || r.URL.Query().Has("refuse") {
		http.Error(w, "no: "+r.URL.RawQuery, http.StatusForbidden)
		return
	}
	o, err := socket.Upgrade(w, r)
	if err != nil {
		return
	}
	go func() {
		defer o.Conn.Close()
		_, _ = o.Conn.Write(append(o.Answer, o.Buffered...))
		_, _ = io.Copy(o.Conn, o.Conn)
	}()
}

func open(t *testing.T, change ...func(*front.Options)) *house {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{addr: l.Addr().String(), states: make(map[net.Conn]http.ConnState)}
	workers := socket.NewWorkers(socket.WorkersOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{Handler: http.HandlerFunc(h.serve), ConnState: h.state}
	opts := front.Options{
		Handler: server.Handler, Paths: []string{"/", "/ws"}, Workers: workers, ConnState: h.state,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			h.mu.Lock()
			h.began++
			h.mu.Unlock()
			return ctx
		},
	}
	for _, f := range change {
		f(&opts)
	}
	f := front.New(l, opts)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { _ = workers.Run(ctx) })
	wg.Go(func() {
		if err := server.Serve(f); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		cancel()
		wg.Wait()
	})
	return h
}

// client is one connection.
type client struct {
	*net.TCPConn
	t  *testing.T
	in *bufio.Reader
}

func (h *house) dial(t *testing.T) *client {
	t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{conn.(*net.TCPConn), t, bufio.NewReader(conn)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads an answer, and checks who gave it.
func (c *client) answer(status int, by string) (body string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if res.StatusCode != status || res.Header.Get("Served-By") != by {
		c.t.Fatalf("%s by %s, want %d by %s", res.Status, res.Header.Get("Served-By"), status, by)
	}
	if status == http.StatusSwitchingProtocols {
		return ""
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// echoes expects what is sent to come back.
func (c *client) echoes(s string) {
	c.t.Helper()
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c.in, b); err != nil || string(b) != s {
		c.t.Fatalf("%q, %v; want %q", b, err, s)
	}
}

// ended expects no more.
func (c *client) ended() {
	c.t.Helper()
	if b, err := io.ReadAll(c.in); err != nil || len(b) > 0 {
		c.t.Fatalf("%q, %v after the end", b, err)
	}
}

func upgrade(target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
}

func TestAWebSocketIsServedWithoutNetHTTP(t *testing.T) {
	c := open(t).dial(t)
	c.send(upgrade("/?v=4") + "early")
	c.answer(http.StatusSwitchingProtocols, "front")
	c.echoes("early")
	c.send("late")
	c.echoes("late")
}

func TestAllElseIsServedByNetHTTP(t *testing.T) {
	h := open(t)
	plain := "GET /a?%d HTTP/1.1\r\nHost: a\r\n\r\n"
	t.Run("requests one after the other", func(t *testing.T) {
		c := h.dial(t)
		for i := range 3 {
			c.send(fmt.Sprintf(plain, i))
			if body := c.answer(http.StatusForbidden, "net/http"); body != fmt.Sprintf("no: %d\n", i) {
				t.Fatal(body)
			}
		}
		c.send(fmt.Sprintf(plain, 3) + fmt.Sprintf(plain, 4))
		c.answer(http.StatusForbidden, "net/http")
		c.answer(http.StatusForbidden, "net/http")
	})
	t.Run("a request before the WebSocket", func(t *testing.T) {
		c := h.dial(t)
		c.send(fmt.Sprintf(plain, 0) + upgrade("/") + "early")
		c.answer(http.StatusForbidden, "net/http")
		c.answer(http.StatusSwitchingProtocols, "net/http")
		c.echoes("early")
	})
	t.Run("a path without WebSockets", func(t *testing.T) {
		c := h.dial(t)
		c.send(upgrade("/comet/x?refuse"))
		c.answer(http.StatusForbidden, "net/http")
	})
	t.Run("a head that comes in pieces", func(t *testing.T) {
		c := h.dial(t)
		head := upgrade("/")
		c.send(head[:40])
		h.waitUntilNetHTTPHas(t, c)
		c.send(head[40:])
		c.answer(http.StatusSwitchingProtocols, "net/http")
		c.send("late")
		c.echoes("late")
	})
	t.Run("a long head", func(t *testing.T) {
		c := h.dial(t)
		c.send(upgrade("/?" + strings.Repeat("x", 100_000)))
		c.answer(http.StatusSwitchingProtocols, "net/http")
	})
	t.Run("a body", func(t *testing.T) {
		c := h.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
		c.answer(http.StatusForbidden, "net/http")
	})
	t.Run("no HTTP", func(t *testing.T) {
		c := h.dial(t)
		c.send("hello\r\n\r\n")
		c.answer(http.StatusBadRequest, "")
	})
}

// waitUntilNetHTTPHas returns when net/http has been told of the connection.
func (h *house) waitUntilNetHTTPHas(t *testing.T, c *client) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		for conn, state := range h.states {
			if conn.RemoteAddr().String() == c.LocalAddr().String() && (state == http.StateNew || state == http.StateActive) {
				h.mu.Unlock()
				return
			}
		}
		h.mu.Unlock()
		if time.Now().After(end) {
			t.Fatal("net/http does not have it")
		}
	}
}

func TestARefusalIsAnsweredAndEndsTheConnection(t *testing.T) {
	c := open(t).dial(t)
	c.send(upgrade("/?refuse") + strings.Repeat("x", 10_000)) // what is unread must not take the answer back
	if body := c.answer(http.StatusForbidden, "front"); body != "no: refuse\n" {
		t.Fatal(body)
	}
	_ = c.CloseWrite()
	c.ended()
	c = open(t).dial(t)
	c.send(strings.Replace(upgrade("/"), "Version: 13", "Version: 12", 1))
	c.answer(http.StatusUpgradeRequired, "front")
	_ = c.CloseWrite()
	c.ended()
}

func TestAPanicEndsOneConnection(t *testing.T) {
	h := open(t)
	c := h.dial(t)
	c.send(upgrade("/ws"))
	c.ended()
	c = h.dial(t)
	c.send(upgrade("/"))
	c.answer(http.StatusSwitchingProtocols, "front")
}

func TestSilentClientsAreClosed(t *testing.T) {
	h := open(t, func(o *front.Options) { o.HeaderTime = 50 * time.Millisecond })
	c := h.dial(t)
	c.ended()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.began != 1 {
		t.Errorf("%d connections began", h.began)
	}
}

func TestCloseEndsThoseWhoHaveSaidNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{}, 10)
	workers := socket.NewWorkers(socket.WorkersOptions{})
	var working sync.WaitGroup
	defer working.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	working.Go(func() { _ = workers.Run(ctx) })
	f := front.New(l, front.Options{
		Handler: http.NotFoundHandler(), Workers: workers,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { began <- struct{}{}; return ctx },
	})
	ended := make(chan error)
	go func() { ended <- f.Run(context.Background()) }()
	h := &house{addr: l.Addr().String()}
	clients := []*client{h.dial(t), h.dial(t), h.dial(t)}
	for range clients {
		<-began
	}
	clients[0].send("GET /a HTTP/1.1\r\n") // nobody calls Accept
	_ = f.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, c := range clients {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection is open")
		}
	}
	if _, err := f.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// What a client sends is served alike, however it is cut into pieces.
func TestPiecesMakeNoDifference(t *testing.T) {
	h := open(t)
	request := []byte(upgrade("/?a=b") + "early")
	var wg sync.WaitGroup
	for cut := 1; cut < len(request); cut += 7 {
		c := h.dial(t)
		wg.Go(func() {
			_, _ = c.Write(request[:cut])
			_, _ = c.Write(request[cut:])
			res, err := http.ReadResponse(c.in, nil)
			if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
				t.Errorf("cut at %d: %v, %v", cut, res, err)
				return
			}
			b := make([]byte, 5)
			if _, err := io.ReadFull(c.in, b); err != nil || !bytes.Equal(b, []byte("early")) {
				t.Errorf("cut at %d: %q, %v", cut, b, err)
			}
		})
	}
	wg.Wait()
}
