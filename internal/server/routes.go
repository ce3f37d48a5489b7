package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"letshare-server/internal/config"
	"letshare-server/internal/transport/sse"
)

// doors is the HTTP side of a node.
type doors struct {
	node     *Server
	ably     http.Handler // WebSocket at /
	letshare http.Handler // WebSocket at /ws
	rest     http.Handler
	sse      http.Handler // at /sse and /event-stream
	metrics  http.Handler

	// browserOrigins governs LetShare's door, /health and /metrics; ablyOrigins the others.
	browserOrigins atomic.Pointer[originPolicy]
	ablyOrigins    atomic.Pointer[originPolicy]
}

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
	path := r.URL.Path
	upgrade := isUpgrade(r)
	switch {
	case path == "/ws", upgrade && isRoot(path) && isLetShare(r.URL.Query()):
		d.serve(w, r, d.browserOrigins.Load(), d.letshare)
	case upgrade && isRoot(path):
		d.serve(w, r, d.ablyOrigins.Load(), d.ably)
	case path == "/health", path == "/health/live", path == "/health/ready":
		d.serve(w, r, d.browserOrigins.Load(), http.HandlerFunc(d.health))
	case path == "/metrics":
		d.serve(w, r, d.browserOrigins.Load(), d.metrics)
	case isRoot(path) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		d.serve(w, r, d.ablyOrigins.Load(), http.HandlerFunc(greet))
	case sse.Serves(path):
		d.serve(w, r, d.ablyOrigins.Load(), d.sse)
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
			d.node.originWarnings.Warn("origin refused", "origin", r.Header.Get("Origin"), "path", r.URL.Path)
		}
		return
	}
	if isUpgrade(r) && d.node.overloaded() {
		d.node.metrics.Refused("overloaded")
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	h.ServeHTTP(w, r)
}

// greet answers whoever opens the server's address in a browser.
func greet(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("LetShare Server is running.\n\n" +
		"  /         Ably SDKs (WebSocket)\n" +
		"  /ws       LetShare (WebSocket)\n" +
		"  /sse      event streams of Ably channels\n" +
		"  /health   is it alive\n" +
		"  /metrics  how it does\n"))
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
