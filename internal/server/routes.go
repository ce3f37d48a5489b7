package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"letshare-server/internal/config"
	"letshare-server/internal/guard"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/rest"
	"letshare-server/internal/socket"
)

// doors is the HTTP side of a node.
type doors struct {
	node     *Server
	ably     http.Handler // WebSocket at /
	comet    http.Handler // below /comet/
	letshare http.Handler // WebSocket at /ws
	sse      http.Handler // at /sse and /event-stream
	control  http.Handler // below /v1/ and /api/v1/
	metrics  http.Handler
	rest     http.Handler // all that is nowhere else
	paths    map[string]resource

	// browserOrigins governs LetShare's door, /health and /metrics; ablyOrigins the others.
	browserOrigins atomic.Pointer[originPolicy]
	ablyOrigins    atomic.Pointer[originPolicy]
}

// resource is what there is at one path.
type resource struct {
	origins *atomic.Pointer[originPolicy]
	http.Handler
}

// setPaths notes what is at paths of its own.
func (d *doors) setPaths() {
	health := http.HandlerFunc(d.health)
	d.paths = map[string]resource{
		"/ws":                     {&d.browserOrigins, d.letshare},
		"/health":                 {&d.browserOrigins, health},
		"/health/live":            {&d.browserOrigins, health},
		"/health/ready":           {&d.browserOrigins, health},
		"/metrics":                {&d.browserOrigins, d.metrics},
		"/sse":                    {&d.ablyOrigins, d.sse},
		"/event-stream":           {&d.ablyOrigins, d.sse},
		"/is-the-internet-up.txt": {&d.ablyOrigins, http.HandlerFunc(isUp)},
		"/ws-up":                  {&d.ablyOrigins, http.HandlerFunc(d.isUpgradable)},
	}
}

// webSocketPaths are where clients open WebSockets.
var webSocketPaths = []string{"/", "/ws", "/ws-up"}

// setOrigins adopts the origins of a configuration.
func (d *doors) setOrigins(c config.Config) {
	d.browserOrigins.Store(&originPolicy{allowed: c.CORS.AllowedOrigins, headers: "authorization, content-type, accept"})
	d.ablyOrigins.Store(&originPolicy{
		allowed: c.Ably.AllowedOrigins, any: len(c.Ably.AllowedOrigins) == 0,
		headers: ablyRequestHeaders, exposed: ablyExposedHeaders,
	})
}

// ServeHTTP implements http.Handler.
func (d *doors) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard.Served(r.Context())
	path := r.URL.Path
	upgrade := isUpgrade(r)
	found, known := d.paths[path]
	switch {
	case known:
		d.serve(w, r, found.origins.Load(), found.Handler)
	case upgrade && isRoot(path) && isLetShare(r.URL.Query()):
		d.serve(w, r, d.browserOrigins.Load(), d.letshare)
	case upgrade && isRoot(path):
		d.serve(w, r, d.ablyOrigins.Load(), d.ably)
	case strings.HasPrefix(path, "/comet/"):
		d.serve(w, r, d.ablyOrigins.Load(), d.comet)
	case isRoot(path) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		d.serve(w, r, d.ablyOrigins.Load(), http.HandlerFunc(greet))
	case d.node.control.Serves(path):
		d.serve(w, r, &controlOrigins, d.control)
	default:
		d.serve(w, r, d.ablyOrigins.Load(), d.rest)
	}
}

func isRoot(path string) bool { return path == "/" || path == "" }

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// isLetShare tells LetShare's front-end, whose default URL has no path, from Ably's SDKs.
func isLetShare(q url.Values) bool {
	return q.Has("token") && !q.Has("key") && !q.Has("access_token") && !q.Has("accessToken") && !q.Has("v")
}

func (d *doors) serve(w http.ResponseWriter, r *http.Request, origins *originPolicy, h http.Handler) {
	if !origins.admit(w, r) {
		if r.Method != http.MethodOptions || !origins.allows(r) {
			d.node.metrics.Refused("origin")
			d.node.originWarnings.Warn("origin refused", "origin", r.Header.Get("Origin"), "path", loggable(r.URL.Path))
		}
		return
	}
	if isUpgrade(r) && d.node.refusesClients() {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	h.ServeHTTP(w, r)
}

// guarded is a door that is shut for addresses from which too many wrong credentials came.
func (s *Server) guarded(door http.Handler) http.Handler { return s.guardedBy(door, rest.WriteError) }

// guardedBy is guarded for a door with errors of a form of its own.
func (s *Server) guardedBy(door http.Handler, writeError func(http.ResponseWriter, *http.Request, *pubsub.Error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.guard.Admit(s.proxies.Peer(r).Addr) {
			s.metrics.Refused("address")
			writeError(w, r, pubsub.NewError(pubsub.CodeAddressRate, "too many failed authentications from this address; try again later"))
			return
		}
		door.ServeHTTP(w, r)
	})
}

// loggable is a path without the connectionKeys that comet's have.
func loggable(path string) string {
	if strings.HasPrefix(path, "/comet/") {
		return "/comet/"
	}
	return path
}

// greet answers whoever opens the server's address in a browser.
func greet(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("LetShare Server is running.\n\n" +
		"  /         Ably SDKs (WebSocket)\n" +
		"  /comet/   Ably SDKs without WebSockets\n" +
		"  /ws       LetShare (WebSocket)\n" +
		"  /sse      event streams of Ably channels\n" +
		"  /health   is it alive\n" +
		"  /metrics  how it does\n"))
}

// isUp answers SDKs that look whether there is a network, with the option
// connectivityCheckUrl (RTN17j).
func isUp(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("yes\n")) // the peer is gone if this fails
}

// isUpgradable opens a WebSocket and closes it: SDKs look whether the network lets one
// through, with the option wsConnectivityCheckUrl.
func (d *doors) isUpgradable(w http.ResponseWriter, r *http.Request) {
	opening, err := socket.Upgrade(w, r)
	if err != nil {
		return // it has answered
	}
	conn := opening.Conn
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write(socket.AppendClose(opening.Answer, socket.CloseNormal, "")) // the peer is gone if this fails
}

// health answers /health and /health/live with 200 while the process runs, and
// /health/ready with 503 when it should get no new clients.
func (d *doors) health(w http.ResponseWriter, r *http.Request) {
	status, code := "healthy", http.StatusOK
	if strings.HasSuffix(r.URL.Path, "/ready") {
		if err := d.node.ready(r.Context()); err != nil {
			status, code = err.Error(), http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(d.node.metrics.Health(status)) // the peer is gone if this fails
	}
}
