package guard_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"letshare-server/internal/auth"
	"letshare-server/internal/guard"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// excesses counts what exceeded a limit.
type excesses struct {
	mu sync.Mutex
	of map[limit.Name]int
}

func (e *excesses) LimitExceeded(n limit.Name) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of[n]++
}

func (e *excesses) count(n limit.Name) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.of[n]
}

func newGuard(l limit.Limits, proxies ...string) (*guard.Guard, *limit.Set, *excesses) {
	e := &excesses{of: make(map[limit.Name]int)}
	set := limit.NewSet(l, limit.Options{Metrics: e})
	trusted, err := auth.ParseTrustedProxies(proxies)
	if err != nil {
		panic(err)
	}
	return guard.New(guard.Options{Limits: set, Proxies: trusted}), set, e
}

// peer is a socket from an address.
type peer struct {
	net.Conn
	addr   string
	closed bool
}

func (p *peer) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(p.addr), 1234))
}

func (p *peer) Close() error {
	p.closed = true
	return nil
}

func TestAnAddressHasSoManySocketsBeforeItAuthenticates(t *testing.T) {
	g, set, e := newGuard(limit.Limits{AddressSockets: 2}, "198.51.100.9")
	open := func(addr string, want bool) (*peer, context.Context) {
		t.Helper()
		p := &peer{addr: addr}
		ctx := g.ConnContext(t.Context(), p)
		g.ConnState(p, http.StateNew)
		if p.closed == want {
			t.Fatalf("%s: closed is %v", addr, p.closed)
		}
		if p.closed {
			g.ConnState(p, http.StateClosed)
		}
		return p, ctx
	}
	const addr = "203.0.113.1"
	one, _ := open(addr, true)
	_, ctx := open(addr, true)
	open(addr, false)
	open("203.0.113.2", true)
	for range 5 { // local ones and proxies are not bounded
		for _, addr := range []string{"127.0.0.1", "::1", "10.1.2.3", "fd00::1", "fe80::1", "::ffff:192.168.0.1", "198.51.100.9"} {
			open(addr, true)
		}
	}
	g.ConnState(one, http.StateActive)
	g.ConnState(one, http.StateIdle)
	open(addr, false)
	if n := e.count(limit.AddressSockets); n != 2 {
		t.Errorf("counted %d", n)
	}
	// Who has authenticated is not counted, and not counted twice.
	g.Authenticated(ctx, netip.MustParseAddr(addr), pubsub.NewError(pubsub.CodeCapabilityDenied, ""))
	open(addr, false)
	for range 2 {
		g.Authenticated(ctx, netip.MustParseAddr(addr), nil)
	}
	open(addr, true)
	open(addr, false)
	g.ConnState(one, http.StateHijacked)
	g.ConnState(one, http.StateClosed)
	open(addr, true)
	open(addr, false)

	open("2001:db8:1:1::1", true)
	open("2001:db8:1:1:2::2", true)
	open("2001:db8:1:1::3", false)
	open("2001:db8:1:2::1", true)
	set.Replace(limit.Limits{AddressSockets: 3})
	open(addr, true)
	open(addr, false)
}

func TestAnAddressMayFailSoOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, e := newGuard(limit.Limits{AddressFailures: 2, Burst: time.Second})
		wrong := pubsub.NewError(pubsub.CodeInvalidCredentials, "wrong secret")
		fail := func(addr string, err error) { g.Authenticated(t.Context(), netip.MustParseAddr(addr), err) }
		admits := func(addr string, want bool) {
			t.Helper()
			if got := g.Admit(netip.MustParseAddr(addr)); got != want {
				t.Errorf("%s: admitted is %v", addr, got)
			}
		}
		const addr = "203.0.113.1"
		for range 10 {
			fail(addr, pubsub.NewError(pubsub.CodeTokenExpired, "as clients have them"))
			fail(addr, nil)
			fail("127.0.0.1", wrong)
		}
		fail(addr, wrong)
		admits(addr, true)
		fail(addr, wrong)
		admits(addr, false)
		admits("127.0.0.1", true)
		admits("203.0.113.2", true)
		time.Sleep(500*time.Millisecond - 1)
		admits(addr, false)
		time.Sleep(time.Nanosecond)
		admits(addr, true)
		fail("2001:db8::1", pubsub.NewError(pubsub.CodeInvalidJWT, ""))
		fail("2001:db8::2", pubsub.NewError(pubsub.CodeKeyUnknown, ""))
		admits("2001:db8::3", false)
		admits("2001:db8:0:1::3", true)
		if n := e.count(limit.AddressFailures); n != 3 {
			t.Errorf("counted %d", n)
		}
		if !g.Admit(netip.Addr{}) {
			t.Error("a peer without address was refused")
		}
		var none *guard.Guard
		none.Authenticated(t.Context(), netip.MustParseAddr(addr), wrong)
		if !none.Admit(netip.MustParseAddr(addr)) {
			t.Error("no guard has refused somebody")
		}
	})
}

func TestSocketsWithoutARequestAreCounted(t *testing.T) {
	const late = 100 * time.Millisecond
	e := &excesses{of: make(map[limit.Name]int)}
	g := guard.New(guard.Options{Limits: limit.NewSet(limit.Limits{}, limit.Options{Metrics: e}), HeaderTime: late})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served atomic.Bool
	s := &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			guard.Served(r.Context())
			served.Store(true)
		}),
		ReadHeaderTimeout: late, ConnContext: g.ConnContext, ConnState: g.ConnState,
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() { _ = s.Close(); <-done }()
	dial := func(text string) *bufio.Reader {
		t.Helper()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(conn)
	}
	ended := func(r *bufio.Reader) {
		t.Helper()
		for { // an answer may say why
			if _, err := r.ReadByte(); err != nil {
				if e, ok := err.(net.Error); ok && e.Timeout() {
					t.Fatal("the socket is open still")
				}
				return
			}
		}
	}
	counted := func(want int) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for e.count(limit.HeaderTime) < want && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if n := e.count(limit.HeaderTime); n != want {
			t.Fatalf("counted %d, want %d", n, want)
		}
	}
	tooLate := 0
	for ended(dial("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); !served.Load(); tooLate++ { // on a machine that paused
		counted(tooLate + 1)
		ended(dial("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	}
	ended(dial(""))
	ended(dial("GET / HTTP/1.1\r\nHost"))
	counted(tooLate + 2)
}

// Who reads the first request hands the socket on to net/http, which tells of it anew.
func TestASocketThatComesTwiceIsCountedOnce(t *testing.T) {
	g, _, e := newGuard(limit.Limits{AddressSockets: 2})
	for range 3 { // its end is noted, too
		p := &peer{addr: "203.0.113.7"}
		g.ConnContext(t.Context(), p)
		ctx := g.ConnContext(t.Context(), p)
		guard.Served(ctx)
		other := &peer{addr: "203.0.113.7"}
		g.ConnContext(t.Context(), other)
		if p.closed || other.closed {
			t.Fatalf("closed: %v, %v", p.closed, other.closed)
		}
		g.ConnState(p, http.StateClosed)
		g.Authenticated(g.ConnContext(t.Context(), other), netip.MustParseAddr(other.addr), nil)
		g.ConnState(other, http.StateHijacked)
	}
	if n := e.count(limit.AddressSockets); n != 0 {
		t.Errorf("%d were too many", n)
	}
}
