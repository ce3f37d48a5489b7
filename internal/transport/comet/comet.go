package comet

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/socket"
	"letshare-server/internal/throttle"
	"letshare-server/internal/wire"
)

// Options configure a Door. Manager, Workers and Wheel are required.
type Options struct {
	Manager *session.Manager
	Workers *socket.Workers // on which sessions are told that their transport has ended
	Wheel   *socket.Wheel
	Outbox  outbox.Options // MaxAge also bounds how long an answer may be stuck
	Proxies auth.TrustedProxies

	// MaxFrameBytes bounds each ProtocolMessage of a client; a longer one ends the transport
	// with a DISCONNECTED that says why. Zero means 512 KiB. How many of them one request
	// sends is not bounded, and costs no memory.
	MaxFrameBytes int

	// MaxIdleInterval is the longest time without anything sent while a recv waits. Zero
	// means what each client was told.
	MaxIdleInterval time.Duration

	// Overloaded says whether new connections are refused with CodeBusy now; nil means never.
	Overloaded func() bool

	// MaxAbsence is how long a client may take to ask for more; then the transport is lost.
	// Zero means 25 s: by default SDKs give up on a silent server after the same time (RTN23a).
	MaxAbsence time.Duration

	Log     *slog.Logger // nil discards
	Metrics Metrics      // nil: nobody counts
}

// Metrics is what the door reports.
type Metrics interface {
	CometOpened()
	CometClosed()
	SlowConsumerClosed() // beside CometClosed: the client did not keep up
}

// Door is the Ably protocol's comet endpoint, everything below /comet/.
type Door struct {
	opts  Options
	noisy *throttle.Warnings // about clients' mistakes

	// live counts the requests that are being answered and the transports that have not
	// ended. It grows only under mu, while closed is false.
	live sync.WaitGroup

	// mu guards the fields below. Nothing under it blocks or calls out.
	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
}

const (
	// heartbeatMargin makes heartbeats leave in time for the interval that clients are told.
	heartbeatMargin = time.Second

	// closeTimeout is how long the last words wait for a recv.
	closeTimeout = 3 * time.Second
)

// New returns the endpoint. It starts nothing.
func New(opts Options) *Door {
	if opts.MaxFrameBytes == 0 {
		opts.MaxFrameBytes = 512 << 10
	}
	if opts.MaxAbsence == 0 {
		opts.MaxAbsence = 25 * time.Second
	}
	if opts.Outbox.MaxAge == 0 {
		opts.Outbox.MaxAge = outbox.DefaultMaxAge
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Metrics == nil {
		opts.Metrics = noMetrics{}
	}
	opts.Outbox.Wheel = opts.Wheel
	return &Door{opts: opts, noisy: throttle.New(opts.Log), conns: make(map[*conn]struct{})}
}

// Len is the number of transports that have not ended.
func (d *Door) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// Run blocks until ctx ends, then ends the transports that are left and returns when all
// their sessions know it and no request is being answered. Later requests get 503.
func (d *Door) Run(ctx context.Context) error {
	<-ctx.Done()
	d.mu.Lock()
	d.closed = true
	left := make([]*conn, 0, len(d.conns))
	for c := range d.conns {
		left = append(left, c)
	}
	d.mu.Unlock()
	for _, c := range left {
		c.end()
	}
	d.live.Wait()
	return nil
}

// enter counts a request, or a transport, unless the door is closed.
func (d *Door) enter(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.live.Add(1)
	if c != nil {
		d.conns[c] = struct{}{}
	}
	return true
}

// leave undoes enter.
func (d *Door) leave(c *conn) {
	if c != nil {
		d.mu.Lock()
		delete(d.conns, c)
		d.mu.Unlock()
		d.opts.Metrics.CometClosed()
	}
	d.live.Done()
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.enter(nil) {
		fail(w, pubsub.NewError(pubsub.CodeUnavailable, "the server is shutting down"))
		return
	}
	defer d.leave(nil)
	request := &session.Request{Query: r.URL.Query(), Header: r.Header, Peer: d.opts.Proxies.PageAware(r)}
	path := strings.TrimPrefix(r.URL.Path, "/comet/")
	if path == "connect" {
		switch {
		case !allowed(w, r, http.MethodGet):
		case d.opts.Overloaded != nil && d.opts.Overloaded():
			w.Header().Set("Retry-After", "5")
			fail(w, pubsub.NewError(pubsub.CodeBusy, "the server takes no connections now"))
		default:
			d.connect(w, r, request)
		}
		return
	}
	key, name, _ := strings.Cut(path, "/")
	verb, known := verbs[name]
	if !known {
		fail(w, pubsub.NewError(pubsub.CodeNotFound, "no such resource"))
		return
	}
	if !allowed(w, r, verb.method) {
		return
	}
	carrier, err := d.opts.Manager.Carrier(r.Context(), request, key)
	if err != nil {
		d.refuse(w, request, "comet request refused", err)
		return
	}
	c, ok := carrier.(*conn)
	if !ok {
		fail(w, pubsub.NewError(pubsub.CodeConnectionSuperseded, "a transport of another kind carries the connection"))
		return
	}
	verb.serve(c, w, r)
}

// verbs are what can be asked of a connection, by the path below it.
var verbs = map[string]struct {
	method string
	serve  func(*conn, http.ResponseWriter, *http.Request)
}{
	"recv":       {http.MethodGet, (*conn).recv},
	"send":       {http.MethodPost, (*conn).send},
	"close":      {http.MethodGet, (*conn).close},
	"disconnect": {http.MethodGet, (*conn).disconnect},
}

// Endpoints lists what the door has, as "GET /comet/{connectionKey}/recv".
func Endpoints() []string {
	all := []string{"GET /comet/connect"}
	for name, verb := range verbs {
		all = append(all, verb.method+" /comet/{connectionKey}/"+name)
	}
	slices.Sort(all)
	return all
}

// connect opens a session, and goes on as a recv.
func (d *Door) connect(w http.ResponseWriter, r *http.Request, request *session.Request) {
	c := &conn{
		door:    d,
		stream:  request.Query.Get("stream") != "false",
		maxIdle: d.opts.MaxIdleInterval,
		done:    make(chan struct{}),
		sending: make(chan struct{}, 1),
	}
	if c.maxIdle == 0 {
		c.maxIdle = d.opts.Manager.MaxIdleInterval(request.Query)
	}
	c.out.Init((*outlet)(c), &d.opts.Outbox, (*owner)(c))
	if !d.enter(c) {
		fail(w, pubsub.NewError(pubsub.CodeUnavailable, "the server is shutting down"))
		return
	}
	d.opts.Metrics.CometOpened()
	if err := c.open(r.Context(), request); err != nil {
		c.end()
		d.refuse(w, request, "connection refused", err)
		return
	}
	c.recv(w, r)
}

// refuse answers a request that is not let in. The log says so, unless it only comes too
// late.
func (d *Door) refuse(w http.ResponseWriter, request *session.Request, what string, err error) {
	e := pubsub.ErrorFor(err)
	if e.StatusCode == http.StatusGone {
		fail(w, e)
		return
	}
	d.noisy.Warn(what, "code", int(e.Code), "error", e, "peer", request.Peer.Addr.String())
	fail(w, e)
}

// allowed refuses other methods than the one that a resource has.
func allowed(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method {
		return true
	}
	w.Header().Set("Allow", method)
	fail(w, pubsub.NewError(pubsub.CodeMethodNotAllowed, "this method is not allowed here"))
	return false
}

// setHeaders sets what all answers have. Nothing on the way may keep, change or hold back
// any of them.
func setHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("Content-Type", "application/json") // exactly this: SDKs compare it whole
}

// fail answers with an error that is no ProtocolMessage. SDKs end the connection for good at
// codes 4xxxx other than token errors, and reconnect at the others.
func fail(w http.ResponseWriter, e *pubsub.Error) {
	answer(w, e, wire.AppendError(nil, wire.JSON, wire.NewErrorInfo(e)))
}

// answer answers with an error's status and headers.
func answer(w http.ResponseWriter, e *pubsub.Error, body []byte) {
	setHeaders(w)
	h := w.Header()
	h.Set("X-Ably-Errorcode", strconv.Itoa(int(e.Code)))
	h.Set("X-Ably-Errormessage", e.HeaderText())
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.StatusCode)
	_, _ = w.Write(body) // the peer is gone if this fails
}

// noContent answers that all is well.
func noContent(w http.ResponseWriter) {
	setHeaders(w)
	w.Header().Del("Content-Type")
	w.WriteHeader(http.StatusNoContent)
}

type noMetrics struct{}

func (noMetrics) CometOpened()        {}
func (noMetrics) CometClosed()        {}
func (noMetrics) SlowConsumerClosed() {}
