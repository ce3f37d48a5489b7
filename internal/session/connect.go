package session

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// Request is what a client asked for when it connected. Parameters that are not known are
// ignored (RTC1f, RTN2g, RSC7d3).
type Request struct {
	Query  url.Values
	Header http.Header
	Peer   auth.Peer
}

// Open authenticates the request and opens a session on transport: CONNECTED is queued when
// it returns (RTN6), which is within directoryTimeout (RTN14c). On an error nothing was queued; the
// caller answers with an ERROR and closes. Errors are *pubsub.Error.
func (m *Manager) Open(ctx context.Context, r *Request, transport Transport) (*Session, error) {
	s, err := m.begin(ctx, r, transport)
	if err != nil {
		e := pubsub.ErrorFor(err)
		m.opts.Metrics.SessionRefused(e.Code)
		return nil, e
	}
	return s, nil
}

func (m *Manager) begin(ctx context.Context, r *Request, transport Transport) (*Session, error) {
	if err := checkVersion(r.Query); err != nil {
		return nil, err
	}
	grant, err := m.opts.Auth.Realtime(r.Query, r.Header)
	m.opts.Guard.Authenticated(ctx, r.Peer.Addr, err)
	if err != nil {
		return nil, err
	}
	counts := m.opts.Stats.App(grant.App)
	grant, refused := m.opts.Auth.Admit(grant, r.Peer)
	if refused != nil {
		counts.ConnectionRefused()
		return nil, refused
	}
	s := &Session{
		manager:       m,
		transport:     transport,
		counts:        counts,
		app:           &grant.App,
		clientID:      r.Query.Get("clientId"),
		echo:          r.Query.Get("echo") != "false", // (RTN2b)
		oldObjects:    oldObjects(r.Query),
		remainPresent: uint32(remainPresent(r.Query).Milliseconds()),
		maxIdle:       uint32(m.MaxIdleInterval(r.Query).Milliseconds()),
		members:       new(whereabouts),
		grant:         grant,
	}
	ctx, cancel := withTimeout(ctx, directoryTimeout)
	defer cancel()
	lost, err := s.establish(ctx, r.Query)
	if err != nil {
		counts.ConnectionRefused()
		return nil, err
	}
	m.enroll(s)
	m.open.Add(1)
	m.opts.Metrics.SessionOpened()
	connected := s.connected()
	connected.Error = wire.NewErrorInfo(lost)
	transport.Send(connected, false)
	s.watchExpiry()
	s.recheck() // what was revoked before m knew the session has not reached it
	return s, nil
}

// How long presence members stay after their transport was lost.
const (
	defaultRemainPresent = 15 * time.Second
	leastRemainPresent   = time.Second
	mostRemainPresent    = 24 * time.Hour
)

// remainPresent reads the parameter remainPresentFor, which is in milliseconds.
func remainPresent(q url.Values) time.Duration {
	ms, err := strconv.ParseInt(q.Get("remainPresentFor"), 10, 32)
	if err != nil {
		return defaultRemainPresent
	}
	return min(max(time.Duration(ms)*time.Millisecond, leastRemainPresent), mostRemainPresent)
}

// The bounds of what a client may ask for as heartbeatInterval.
const (
	leastIdleInterval = 5 * time.Second
	mostIdleInterval  = 30 * time.Minute
)

// MaxIdleInterval is the longest time for which a client of this request is sent nothing: the
// parameter heartbeatInterval, which is in milliseconds and taken in whole seconds, or
// Limits.MaxIdleInterval (CD2h).
func (m *Manager) MaxIdleInterval(q url.Values) time.Duration {
	ms, err := strconv.ParseInt(q.Get("heartbeatInterval"), 10, 64)
	if err != nil {
		return m.opts.Limits.MaxIdleInterval
	}
	ms = min(max(ms, leastIdleInterval.Milliseconds()), mostIdleInterval.Milliseconds())
	return (time.Duration(ms) * time.Millisecond).Truncate(time.Second)
}

// checkVersion accepts protocol versions from 2 on, and a missing one (RTN2f, CSV2a).
func checkVersion(q url.Values) error {
	v := q.Get("v")
	if v == "" {
		return nil
	}
	major, _, _ := strings.Cut(v, ".")
	n, err := strconv.Atoi(major)
	switch {
	case err != nil || n < 0:
		return pubsub.Errorf(pubsub.CodeUnsupportedVersion, "unsupported protocol version")
	case n < 2:
		return pubsub.Errorf(pubsub.CodeVersionRetired, "protocol version %d is retired; use version 2 or later", n)
	}
	return nil
}

// oldObjects reports whether the client's protocol version is one before 6, whose objects look
// different. Without a version it is the newest.
func oldObjects(q url.Values) bool {
	major, _, _ := strings.Cut(q.Get("v"), ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < 6
}

// connected is the CONNECTED of this transport. Later ones on the same transport repeat
// every field (RTN24). The limits that it tells are enforced, whoever keeps them (RTN21).
func (s *Session) connected() *wire.ProtocolMessage {
	fixed, l := &s.manager.opts.Limits, s.limits()
	key := s.manager.keys.make(s.id, s.generation)
	return &wire.ProtocolMessage{
		Action:        wire.ActionConnected,
		ConnectionID:  s.id,
		ConnectionKey: key,
		ConnectionDetails: &wire.ConnectionDetails{
			ClientID:             s.grant.ReportedClientID(),
			ConnectionKey:        key,
			ConnectionStateTTL:   fixed.ConnectionStateTTL,
			MaxIdleInterval:      time.Duration(s.maxIdle) * time.Millisecond,
			MaxMessageSize:       l.MessageBytes,
			MaxFrameSize:         fixed.MaxFrameBytes,
			MaxInboundRate:       cmp.Or(l.ConnectionMessages, l.ConnectionProtocolMessages),
			ServerID:             s.manager.opts.Node.Name,
			SiteCode:             s.manager.opts.Hub.SiteCode(),
			ObjectsGCGracePeriod: hub.ObjectGrace,
		},
	}
}
