package session

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/guard"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

// Transport carries one session's ProtocolMessages over one socket. Its methods only queue
// and never block; they may be called from any goroutine.
type Transport interface {
	// Send queues pm, and does not keep it. With more set, further bytes follow at once.
	Send(pm *wire.ProtocolMessage, more bool)

	// Form is how deliveries on a channel, attached under name, are encoded.
	Form(name string, layout wire.Layout) hub.Form

	// Deliver queues shared frames of an attachment, if its gate lets them through.
	Deliver(gate *outbox.Gate, frames []byte, more bool)

	// Encode returns pm as a frame of this transport, for Release.
	Encode(pm *wire.ProtocolMessage) []byte

	// Hold makes the gate keep what is delivered (RTL17); Release queues first, frame by frame, and
	// then what was kept; End queues last and lets nothing through after it.
	Hold(gate *outbox.Gate)
	Pause(gate *outbox.Gate) bool // Hold, unless the gate has ended
	Release(gate *outbox.Gate, first ...[]byte)
	End(gate *outbox.Gate, last *wire.ProtocolMessage)

	// Mute is End with nothing to say.
	Mute(gate *outbox.Gate)

	// Soon has f run in a turn of its own, unless the transport ends before.
	Soon(f func())

	// Close queues last, if it is not nil, and closes the socket once that was sent.
	Close(last *wire.ProtocolMessage)
}

// Limits are what does not change while the server runs; the others are the hub's.
type Limits struct {
	MaxFrameBytes      int // told to clients; the transport enforces it; zero means 512 KiB
	MaxIdleInterval    time.Duration
	ConnectionStateTTL time.Duration
}

// Options configure a Manager. All of them are required but Limits, Guard, Log, Metrics and
// Stats.
type Options struct {
	Hub       *hub.Hub
	Directory directory.Directory
	Node      directory.Node
	Auth      Authenticator
	KeySecret []byte // of the connectionKeys, shared by all nodes
	Limits    Limits
	After     func(d time.Duration, f func()) (stop func()) // one coarse timer
	Guard     *guard.Guard                                  // is told how authentications end; nil: nobody is
	Log       *slog.Logger
	Metrics   Metrics
	Stats     *stats.Counters // counts connections, by app; nil counts nothing
}

// Authenticator turns the credentials of a connection into a Grant. Its errors are
// *pubsub.Error.
type Authenticator interface {
	Realtime(q url.Values, h http.Header) (*auth.Grant, error)
	RealtimeToken(token, clientID string) (*auth.Grant, error)

	// Admit is a grant for the peer that presented its credential.
	Admit(*auth.Grant, auth.Peer) (*auth.Grant, *pubsub.Error)

	// Recheck reports why a grant would not be given any more.
	Recheck(*auth.Grant) *pubsub.Error
}

// Metrics is what sessions report.
type Metrics interface {
	SessionOpened()
	SessionClosed()
	SessionRefused(code pubsub.Code)
}

// Manager opens sessions and knows those that are open on this node.
type Manager struct {
	opts Options
	keys keyMaker

	opening limit.Buckets[string] // new connections by app

	mu       sync.Mutex
	sessions map[string]*Session // by connection id: those with a transport, and those that wait for one
	tasks    []func()            // for Run
	wake     chan struct{}       // a token when there are tasks

	open atomic.Int64 // sessions with a transport

	changing sync.WaitGroup // the goroutines of waiting
}

// NewManager returns a Manager with no sessions. It starts nothing.
func NewManager(opts Options) *Manager {
	l := &opts.Limits
	setDefault(&l.MaxFrameBytes, 524288)
	setDefault(&l.MaxIdleInterval, 15*time.Second)
	setDefault(&l.ConnectionStateTTL, 120*time.Second)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Metrics == nil {
		opts.Metrics = noMetrics{}
	}
	return &Manager{
		opts:     opts,
		keys:     keyMaker{opts.KeySecret},
		sessions: make(map[string]*Session),
		wake:     make(chan struct{}, 1),
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Count is the number of sessions with a transport.
func (m *Manager) Count() int { return int(m.open.Load()) }

// Kept is the number of connections whose state is kept: those with a transport, and those
// that wait to be resumed.
func (m *Manager) Kept() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sessions)
}

// Publisher returns the connection that a key names, and its clientId if it is identified, for a
// request that publishes on its behalf. It must be of the app, on whichever node; otherwise the error is
// CodeInvalidConnectionID. If that cannot be found out it is CodeUnavailable.
func (m *Manager) Publisher(ctx context.Context, app, key string) (id, clientID string, err error) {
	id, _, form := m.keys.parse(key)
	if form != genuineKey {
		return "", "", errNoPublisher()
	}
	m.mu.Lock()
	s := m.sessions[id]
	m.mu.Unlock()
	if s != nil {
		if grant := s.Grant(); grant.App == app {
			return id, grant.ClientID, nil
		}
		return "", "", errNoPublisher()
	}
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	record, err := m.opts.Directory.Lookup(ctx, id)
	switch {
	case errors.Is(err, directory.ErrNotFound):
		return "", "", errNoPublisher()
	case err != nil:
		return "", "", pubsub.NewError(pubsub.CodeUnavailable, "the connection cannot be looked up; try again").Because(err)
	case record.App != app:
		return "", "", errNoPublisher()
	}
	return id, clientOf(record.GrantDigest), nil
}

func errNoPublisher() error {
	return pubsub.NewError(pubsub.CodeInvalidConnectionID, "invalid connectionKey: no such connection")
}

// Session is one Ably connection.
//
// The fields without a lock belong to the goroutine that runs the transport's turn. There may be
// a million of them in memory, so that their size is kept below that of Go's next size class.
type Session struct {
	manager    *Manager
	transport  Transport
	counts     *stats.App
	id         string
	app        *string // never changes
	generation uint64
	clientID   string // the clientId parameter it was opened with
	echo       bool
	closed     bool // nothing more is taken from the transport
	ended      bool // the connection is not to be resumed
	deltas     bool // it was attached with deltas somewhere
	oldObjects bool // objects are told in the layout of protocol version 5
	returned   bool // the connection was resumed when its members' time was over

	maxIdle       uint32      // ms, as told to the client
	remainPresent uint32      // ms
	committed     atomic.Bool // the key of the transport before is dead
	superseded    atomic.Bool // another transport carries the connection
	gone          atomic.Bool // the transport has ended
	counted       atomic.Bool // in the number of its app's connections
	evicted       atomic.Bool // the connection was ended from outside
	syncs         atomic.Uint32

	attachments []*attachment
	members     *whereabouts
	received    received
	acks        acks
	waiting     *waiting // nil before anything had to wait
	rate        rateWindow
	rates       *rates // nil while there is no limit for them; see rated

	// mu guards what expiry and re-authentication share with the turn.
	mu    sync.Mutex
	grant *auth.Grant
	stop  func() // stops the timers: of the credential's end, or, without a transport, of the connection's
}

// ID is the connectionId.
func (s *Session) ID() string { return s.id }

// Grant is what the connection may do now.
func (s *Session) Grant() *auth.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant
}

// Handle acts on one ProtocolMessage. What it causes is sent by EndTurn at the latest, with
// turn being ended by then.
func (s *Session) Handle(turn *hub.Turn, pm *wire.ProtocolMessage) {
	if s.closed || s.superseded.Load() || !s.commit() {
		return
	}
	if most := s.limits().ConnectionProtocolMessages; s.rate.exceeds(most) {
		s.Exceeded(limit.ConnectionProtocolMessages)
		s.fail(pubsub.Errorf(pubsub.CodeProtocolMessageFlood, "more than %d protocol messages in a second", most))
		return
	}
	switch pm.Action {
	case wire.ActionHeartbeat:
		s.heartbeat(pm)
	case wire.ActionAttach:
		s.attach(pm)
	case wire.ActionDetach:
		s.detach(pm)
	case wire.ActionMessage, wire.ActionPresence, wire.ActionAnnotation, wire.ActionObject:
		// After a resume some SDKs send what is not acknowledged twice, and end if they are
		// answered twice.
		if s.generation == 1 || s.received.add(pm.MsgSerial) {
			s.acknowledged(turn, pm)
		}
	case wire.ActionSync:
		s.sync(pm)
	case wire.ActionAuth:
		s.reauthorize(pm)
	case wire.ActionClose: // (RTN12a)
		s.ended = true
		s.leaveAll()
		s.close(&wire.ProtocolMessage{Action: wire.ActionClosed})
	case wire.ActionDisconnect:
		s.close(nil)
	default: // unknown actions are ignored (RTF1)
	}
}

// acknowledged acts on a ProtocolMessage that needs an acknowledgement.
func (s *Session) acknowledged(turn *hub.Turn, pm *wire.ProtocolMessage) {
	if err := s.pace(pm); err != nil {
		s.counts.Refused(stats.Realtime, stats.Messages, len(pm.Messages))
		s.counts.Refused(stats.Realtime, stats.Presence, len(pm.Presence))
		if err.Code == pubsub.CodeConnectionFlood {
			s.fail(err)
		} else {
			s.refuse(pm, err)
		}
		return
	}
	switch pm.Action {
	case wire.ActionMessage:
		s.publish(turn, pm)
	case wire.ActionPresence:
		s.presence(turn, pm)
	case wire.ActionAnnotation:
		s.annotate(turn, pm)
	case wire.ActionObject:
		s.publishObjects(turn, pm)
	}
}

// EndTurn sends what Handle left to be joined: acknowledgements, and behind them what was
// published, so that they leave together with the connection's own echo. A client that takes
// deltas gets its echo first, if the room is small: if it cannot decode that, it asks to be
// attached anew (RTL18c) before it publishes what it would not decode either.
func (s *Session) EndTurn(turn *hub.Turn) {
	if s.deltas {
		turn.End()
	}
	s.acks.endTurn(s)
	turn.End()
}

// pingDelay holds the answer to a ping back: the JavaScript SDK measures in whole
// milliseconds and takes 0 for no answer.
const pingDelay = 2 * time.Millisecond

// heartbeat answers a ping (RTN13a) with its id (RTN13e), or without one as older SDKs send it.
func (s *Session) heartbeat(pm *wire.ProtocolMessage) {
	answer := &wire.ProtocolMessage{Action: wire.ActionHeartbeat, ID: pm.ID}
	time.AfterFunc(pingDelay, func() { s.transport.Send(answer, false) })
}

// Drain asks the client to reconnect, which it does at once (RTN15h3), and closes the
// transport. A status of 500 or more would send it to another host (RTN17f1).
func (s *Session) Drain() {
	s.disconnect(pubsub.NewError(pubsub.CodeDisconnected, "the server is shutting down; please reconnect"))
}

// Sessions returns the sessions that have a transport now.
func (m *Manager) Sessions() []*Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*Session, 0, m.open.Load())
	for _, s := range m.sessions {
		if !s.gone.Load() {
			all = append(all, s)
		}
	}
	return all
}

// fail ends the connection for good (RTN15j).
func (s *Session) fail(err *pubsub.Error) {
	s.ended = true
	s.close(&wire.ProtocolMessage{Action: wire.ActionError, Error: wire.NewErrorInfo(err)})
}

// close ends the transport with last; TransportClosed does the rest.
func (s *Session) close(last *wire.ProtocolMessage) {
	s.closed = true
	s.acks.endTurn(s)
	s.transport.Close(last)
}

// stopTimers stops what would happen later.
func (s *Session) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// directoryTimeout bounds each call to the directory. Clients wait 10 s (RTL4f, RTL5f).
const directoryTimeout = 5 * time.Second

// rateWindow counts events per second of the wall clock.
type rateWindow struct {
	second uint32 // of the wall clock, as far as 32 bits go
	count  uint32
}

// exceeds counts one event and reports whether there were more than limit in this second.
func (w *rateWindow) exceeds(limit int) bool {
	w.count++
	if int64(w.count) <= int64(limit) {
		return false
	}
	// The clock is asked only when the budget is used up.
	if now := uint32(time.Now().Unix()); now != w.second {
		w.second, w.count = now, 1
		return false
	}
	return true
}

type noMetrics struct{}

func (noMetrics) SessionOpened()             {}
func (noMetrics) SessionClosed()             {}
func (noMetrics) SessionRefused(pubsub.Code) {}
