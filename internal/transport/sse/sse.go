package sse

import (
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/guard"
	"letshare-server/internal/hub"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
	"letshare-server/internal/stats"
	"letshare-server/internal/throttle"
	"letshare-server/internal/wire"
)

// Options configure a Door. Hub, Auth, Poller and Wheel are required.
type Options struct {
	Hub     *hub.Hub
	Auth    Authenticator
	Poller  *socket.Poller
	Wheel   *socket.Wheel
	Outbox  outbox.Options // its Wheel is set by New
	Proxies auth.TrustedProxies

	// MaxIdleInterval is the longest time without anything sent. Zero means 15 s.
	MaxIdleInterval time.Duration

	// Overloaded reports whether the server takes no further connection; nil means never.
	Overloaded func() bool

	Guard   *guard.Guard    // is told how authentications end; nil: nobody is
	Metrics Metrics         // nil: nobody counts
	Stats   *stats.Counters // counts streams as connections, by app; nil counts nothing
	Log     *slog.Logger    // nil discards
}

// Authenticator turns the credentials of a request into a Grant. Its errors are
// *pubsub.Error.
type Authenticator interface {
	REST(q url.Values, h http.Header) (*auth.Grant, error)

	// Admit is a grant for the peer that presented its credential.
	Admit(*auth.Grant, auth.Peer) (*auth.Grant, *pubsub.Error)

	// Recheck reports why a grant would not be given any more.
	Recheck(*auth.Grant) *pubsub.Error
}

// Metrics is what the door reports.
type Metrics interface {
	StreamOpened()
	StreamClosed()
	StreamRefused(code pubsub.Code)
	SlowConsumerClosed()
}

// Door is the endpoint of event streams.
type Door struct {
	opts  Options
	noisy *throttle.Warnings // about clients' mistakes

	mu       sync.Mutex
	streams  map[*stream]struct{}
	draining bool
}

// New returns the endpoint. It starts nothing.
func New(opts Options) *Door {
	if opts.MaxIdleInterval == 0 {
		opts.MaxIdleInterval = 15 * time.Second
	}
	if opts.Outbox.MaxBytes == 0 {
		opts.Outbox.MaxBytes = outbox.DefaultMaxBytes
	}
	opts.Outbox.Wheel = opts.Wheel
	if opts.Overloaded == nil {
		opts.Overloaded = func() bool { return false }
	}
	if opts.Metrics == nil {
		opts.Metrics = noMetrics{}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Door{opts: opts, noisy: throttle.New(opts.Log), streams: make(map[*stream]struct{})}
}

// ServeHTTP answers with a stream, or with an error as the REST API does.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := d.serve(w, r); err != nil {
		d.refuse(w, r, pubsub.ErrorFor(err))
	}
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return pubsub.NewError(pubsub.CodeMethodNotAllowed, "event streams are read with GET")
	}
	if d.opts.Overloaded() {
		w.Header().Set("Retry-After", "5")
		return pubsub.NewError(pubsub.CodeBusy, "too many connections; try again later")
	}
	query := r.URL.Query()
	if err := checkVersion(query); err != nil {
		return err
	}
	grant, err := d.opts.Auth.REST(query, r.Header)
	peer := d.opts.Proxies.PageAware(r)
	d.opts.Guard.Authenticated(r.Context(), peer.Addr, err)
	if err != nil {
		return err
	}
	if err := d.stream(w, r, query, grant, peer); err != nil {
		d.opts.Stats.App(grant.App).ConnectionRefused()
		return err
	}
	return nil
}

// stream answers a request whose credentials are good with a stream.
func (d *Door) stream(w http.ResponseWriter, r *http.Request, query url.Values, grant *auth.Grant, peer auth.Peer) error {
	grant, refused := d.opts.Auth.Admit(grant, peer)
	if refused != nil {
		return refused
	}
	p, err := d.readParams(r, query, grant)
	if err != nil {
		return err
	}
	s, err := d.attach(r.Context(), p, grant)
	if err != nil {
		return err
	}
	if r.ProtoMajor >= 2 {
		s.openResponse(w, r, p)
		return nil
	}
	if err := s.openSocket(w, p); err != nil {
		s.detach()
		return err
	}
	return nil
}

// refuse answers with an error.
func (d *Door) refuse(w http.ResponseWriter, r *http.Request, err *pubsub.Error) {
	d.opts.Metrics.StreamRefused(err.Code)
	d.noisy.Warn("event stream refused", "code", int(err.Code), "error", err, "peer", d.opts.Proxies.Peer(r).Addr.String())
	body := wire.AppendError(nil, wire.JSON, wire.NewErrorInfo(err))
	h := w.Header()
	h.Set("X-Ably-Errorcode", strconv.Itoa(int(err.Code)))
	h.Set("X-Ably-Errormessage", err.HeaderText())
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(err.StatusCode)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the peer is gone if this fails
	}
}

// Stream is one open stream.
type Stream interface {
	// Grant is what the stream may do.
	Grant() *auth.Grant

	// Evict ends the stream after what is queued and an error event.
	Evict(err *pubsub.Error)
}

// Drain ends all streams after what is queued, and those that open later at once, because
// the server stops. EventSource comes back by itself, with the id of what it received last.
func (d *Door) Drain() {
	d.mu.Lock()
	d.draining = true
	all := make([]*stream, 0, len(d.streams))
	for s := range d.streams {
		all = append(all, s)
	}
	d.mu.Unlock()
	for _, s := range all {
		s.end(nil)
	}
}

// Recheck ends the streams whose credentials are not good any more, because their app or key
// is gone or their token is revoked. New ones with such credentials must be refused by then.
func (d *Door) Recheck() {
	for _, s := range d.Streams() {
		s.(*stream).recheck()
	}
}

// Streams returns those that are open now.
func (d *Door) Streams() []Stream {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Stream, 0, len(d.streams))
	for s := range d.streams {
		all = append(all, s)
	}
	return all
}

type noMetrics struct{}

func (noMetrics) StreamOpened()             {}
func (noMetrics) StreamClosed()             {}
func (noMetrics) StreamRefused(pubsub.Code) {}
func (noMetrics) SlowConsumerClosed()       {}
