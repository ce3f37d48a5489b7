package guard

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

// Options configure a Guard.
type Options struct {
	Limits  *limit.Set // required
	Proxies auth.TrustedProxies

	// HeaderTime is how long the server waits for the header of a request; a socket that
	// ended after so long without one is counted. Zero means that none is.
	HeaderTime time.Duration
}

// Guard is the bounds of one server. A nil Guard bounds nothing. All methods may be called
// from any goroutine.
type Guard struct {
	opts     Options
	failures limit.Buckets[netip.Prefix]

	// mu guards the fields below. Nothing is called under it.
	mu      sync.Mutex
	sockets map[net.Conn]*visit  // of net/http
	strange map[netip.Prefix]int // sockets on which nobody has authenticated, by source
}

// visit is one socket while it is net/http's.
type visit struct {
	guard  *Guard
	source netip.Prefix // zero: not bounded
	opened time.Time
	served atomic.Bool // a request has come

	counted bool // in Guard.strange; guarded by Guard.mu
}

// New returns a Guard.
func New(opts Options) *Guard {
	return &Guard{opts: opts, sockets: make(map[net.Conn]*visit), strange: make(map[netip.Prefix]int)}
}

// source is what an address is bounded by. It reports false for one that is not bounded.
func source(addr netip.Addr) (netip.Prefix, bool) {
	if !addr.IsValid() || addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() {
		return netip.Prefix{}, false
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked(), true
}

type visitKey struct{}

// ConnContext is to be the ConnContext of an http.Server. It closes a socket that is one too
// many of its address. One that came before, and has not ended, is counted once.
func (g *Guard) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	g.mu.Lock()
	known := g.sockets[conn]
	g.mu.Unlock()
	if known != nil {
		return context.WithValue(ctx, visitKey{}, known)
	}
	v := &visit{guard: g, opened: time.Now()}
	addr := auth.PeerOf(conn.RemoteAddr()).Addr
	if s, bounded := source(addr); bounded && !g.opts.Proxies.Contain(addr) {
		v.source = s
	}
	if !g.enter(conn, v) {
		g.opts.Limits.Exceeded(limit.AddressSockets, "")
		_ = conn.Close() // whoever reads from it finds out
		return ctx
	}
	return context.WithValue(ctx, visitKey{}, v)
}

func (g *Guard) enter(conn net.Conn, v *visit) bool {
	most := g.opts.Limits.Load().AddressSockets
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.source.IsValid() {
		if g.strange[v.source] >= most {
			return false
		}
		g.strange[v.source]++
		v.counted = true
	}
	g.sockets[conn] = v
	return true
}

// ConnState is to be the ConnState of the same http.Server. A socket that is hijacked is no
// more the guard's: whoever does so authenticates the peer at once, or closes it.
func (g *Guard) ConnState(conn net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	g.mu.Lock()
	v := g.sockets[conn]
	delete(g.sockets, conn)
	g.mu.Unlock()
	if v == nil {
		return
	}
	v.known()
	if late := g.opts.HeaderTime; late > 0 && state == http.StateClosed && !v.served.Load() && time.Since(v.opened) >= late {
		g.opts.Limits.Exceeded(limit.HeaderTime, "")
	}
}

// known takes the socket off those on which nobody has authenticated.
func (v *visit) known() {
	g := v.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if !v.counted {
		return
	}
	v.counted = false
	if g.strange[v.source]--; g.strange[v.source] == 0 {
		delete(g.strange, v.source)
	}
}

// Served notes that a request has come, given its context.
func Served(ctx context.Context) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		v.served.Store(true)
	}
}

// Admit reports whether an address may present credentials now.
func (g *Guard) Admit(addr netip.Addr) bool {
	s, bounded := source(addr)
	if g == nil || !bounded || limit.HasOf(g.opts.Limits, &g.failures, s, g.opts.Limits.Load().AddressFailures, 1) {
		return true
	}
	g.opts.Limits.Exceeded(limit.AddressFailures, "")
	return false
}

// Authenticated tells how an authentication ended, of a peer with an address. ctx is that of
// its request; with another the socket of the request stays one on which nobody has
// authenticated.
func (g *Guard) Authenticated(ctx context.Context, addr netip.Addr, err error) {
	if g == nil {
		return
	}
	if err == nil {
		if v, ok := ctx.Value(visitKey{}).(*visit); ok {
			v.known()
		}
		return
	}
	if s, bounded := source(addr); bounded && isGuess(pubsub.ErrorFor(err)) {
		limit.AllowOf(g.opts.Limits, &g.failures, s, g.opts.Limits.Load().AddressFailures, 1)
	}
}

// isGuess reports whether a refusal is one of credentials that never were good. Others, such
// as expired tokens, come from clients as they should be.
func isGuess(e *pubsub.Error) bool {
	switch e.Code {
	case pubsub.CodeInvalidCredential, pubsub.CodeInvalidCredentials, pubsub.CodeKeyUnknown, pubsub.CodeKeyRevoked,
		pubsub.CodeTokenUnknown, pubsub.CodeInvalidJWT, pubsub.CodeInvalidToken:
		return true
	case pubsub.CodeNotFound: // of an app or a key
		return true
	}
	return false
}
