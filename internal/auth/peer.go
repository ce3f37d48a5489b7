package auth

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"letshare-server/internal/pubsub"
)

// Peer is who is at the other end of a request.
type Peer struct {
	// Addr is the client's address: the socket's, or the one that trusted proxies name.
	// It is invalid if the socket has no IP address.
	Addr netip.Addr

	// Local says that the request came straight from this machine or from a private
	// network: the socket's address is loopback, private or link-local, and no header says
	// that somebody forwarded it.
	Local bool

	// Secure says that the client's bytes came over TLS: to this server, or to a trusted
	// proxy that says so with X-Forwarded-Proto.
	Secure bool
}

// TrustedProxies are the addresses whose forwarding headers are believed. The empty value
// believes none.
type TrustedProxies []netip.Prefix

// ParseTrustedProxies reads addresses ("10.0.0.7") and networks ("10.0.0.0/8").
func ParseTrustedProxies(list []string) (TrustedProxies, error) {
	var t TrustedProxies
	for _, s := range list {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, addrErr := netip.ParseAddr(s)
			if addrErr != nil {
				return nil, fmt.Errorf("trusted proxy %q: neither an address nor a network", s)
			}
			prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		t = append(t, prefix.Masked())
	}
	return t, nil
}

// Contain reports whether addr is that of a trusted proxy.
func (t TrustedProxies) Contain(addr netip.Addr) bool {
	for _, prefix := range t {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// forwardingHeaders are set by proxies. Whoever connects may set them too, so their
// presence takes rights away and never gives any.
var forwardingHeaders = []string{
	"X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip", "X-Forwarded-Host", "X-Forwarded-Proto",
	"X-Forwarded-Server", "Cf-Connecting-Ip", "True-Client-Ip", "X-Client-Ip", "Fly-Client-Ip",
}

// Peer classifies the sender of r.
//
// X-Forwarded-For is believed only if the socket's own address is a trusted proxy's, and
// is read from its end: the first address that is no trusted proxy is the client. What is
// left of it may be anybody's invention.
func (t TrustedProxies) Peer(r *http.Request) Peer {
	addr := parseAddr(r.RemoteAddr)
	p := Peer{Addr: addr, Local: isLocal(addr), Secure: r.TLS != nil}
	for _, name := range forwardingHeaders {
		if _, has := r.Header[name]; has {
			p.Local = false
		}
	}
	if !t.Contain(addr) {
		return p
	}
	if protos := r.Header["X-Forwarded-Proto"]; len(protos) > 0 {
		p.Secure = forwardedTLS(protos)
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := parseAddr(strings.TrimSpace(hops[i]))
		if !hop.IsValid() {
			break
		}
		p.Addr = hop
		if !t.Contain(hop) {
			break
		}
	}
	return p
}

// forwardedTLS reports whether every hop that X-Forwarded-Proto tells of had TLS.
func forwardedTLS(protos []string) bool {
	for proto := range strings.SplitSeq(strings.Join(protos, ","), ",") {
		if proto = strings.TrimSpace(proto); !strings.EqualFold(proto, "https") && !strings.EqualFold(proto, "wss") {
			return false
		}
	}
	return true
}

// PageAware is Peer for doors that answer every Origin: a page from elsewhere is not local,
// wherever its browser runs. Otherwise any web site could use a published credential through
// the browser of somebody who tries the server at home.
func (t TrustedProxies) PageAware(r *http.Request) Peer {
	p := t.Peer(r)
	if origin := r.Header.Get("Origin"); origin != "" && !isLocalOrigin(origin) {
		p.Local = false
	}
	return p
}

func isLocalOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || isLocal(parseAddr(host))
}

// PeerOf classifies a socket for which there is no HTTP request.
func PeerOf(remote net.Addr) Peer {
	addr := parseAddr(remote.String())
	return Peer{Addr: addr, Local: isLocal(addr)}
}

// parseAddr reads an address with or without a port; the result is invalid if it is none.
func parseAddr(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

func isLocal(addr netip.Addr) bool {
	return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast()
}

// RequireTLS sets whether Admit refuses a key that came without TLS.
func (a *Authenticator) RequireTLS(require bool) { a.requireTLS.Store(require) }

// Admit is g for the peer that presented its credential, as ForPeer says. A key that came
// without TLS, from a peer that is not local, may have been read on its way (RSA1): it is
// CodeBasicAuthWithoutTLS if RequireTLS says so, or else the log warns of the first.
func (a *Authenticator) Admit(g *Grant, p Peer) (*Grant, *pubsub.Error) {
	if g.ByKey && !p.Secure && !p.Local {
		if a.requireTLS.Load() {
			return nil, pubsub.NewError(pubsub.CodeBasicAuthWithoutTLS, "a key may not be sent without TLS; use TLS, or a token")
		}
		a.plaintext.Do(func() {
			a.log.Warn("a client sent a key without TLS; auth.require_tls refuses this", "key_name", g.KeyName, "peer", p.Addr.String())
		})
	}
	return g.ForPeer(p)
}
