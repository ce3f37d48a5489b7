package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"letshare-server/internal/config"
)

// doors is the HTTP side of a node.
type doors struct {
	node     *Server
	ably     http.Handler // WebSocket at /
	comet    http.Handler // below /comet/
	letshare http.Handler // WebSocket at /ws
	rest     http.Handler
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
	case strings.HasPrefix(path, "/comet/"):
		d.serve(w, r, d.ablyOrigins.Load(), d.comet)
	case path == "/health", path == "/health/live", path == "/health/ready":
		d.serve(w, r, d.browserOrigins.Load(), http.HandlerFunc(d.health))
	case path == "/metrics":
		d.serve(w, r, d.browserOrigins.Load(), d.metrics)
	case isRoot(path) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		d.serve(w, r, d.ablyOrigins.Load(), http.HandlerFunc(greet))
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
