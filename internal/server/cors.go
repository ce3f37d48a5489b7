package server

import (
	"net/http"
	"slices"
	"strings"
)

// The headers that browsers may send to the Ably doors (RSC7d2), and those that they may read.
const (
	ablyRequestHeaders = "authorization, content-type, accept, ably-agent, x-ably-version, x-ably-clientid, " +
		"x-ably-devicetoken, x-ably-devicesecret, x-ably-messageid, x-ably-name, x-ably-encoding, " +
		"x-ably-connectionkey, request-id, last-event-id"
	ablyExposedHeaders = "Link, X-Ably-Errorcode, X-Ably-Errormessage, X-Ably-Serverid, X-Ably-Requestid, Content-Type"
	allMethods         = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
	corsMaxAge         = "86400" // seconds
)

// controlOrigins lets no page use the control API but the server's own.
var controlOrigins = originPolicy{headers: "authorization, content-type, accept"}

// originPolicy says which browsers may use a door. A request without Origin is no
// browser's and is allowed.
type originPolicy struct {
	allowed []string // exactly as browsers send them
	any     bool
	headers string // that a browser may send
	exposed string // that a browser may read
}

// allows reports whether a request's origin may use the door: it is in the list, or is the
// server's own host.
func (p *originPolicy) allows(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin == "" || p.any || slices.Contains(p.allowed, origin) || isOwnOrigin(r, origin)
}

func isOwnOrigin(r *http.Request, origin string) bool {
	host, ok := strings.CutPrefix(origin, "http://")
	if !ok {
		host, ok = strings.CutPrefix(origin, "https://")
	}
	return ok && host != "" && strings.EqualFold(host, r.Host)
}

// admit sets the CORS headers of an answer. It returns false when it has answered itself: a
// refused origin with 403 and no body, a preflight with 204.
func (p *originPolicy) admit(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		if r.Method != http.MethodOptions {
			return true
		}
	} else {
		w.Header().Add("Vary", "Origin")
		if !p.allows(r) {
			w.WriteHeader(http.StatusForbidden)
			return false
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		if p.exposed != "" {
			h.Set("Access-Control-Expose-Headers", p.exposed)
		}
	}
	if r.Method != http.MethodOptions {
		return true
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", allMethods)
	h.Set("Access-Control-Allow-Headers", p.headers)
	h.Set("Access-Control-Max-Age", corsMaxAge)
	w.WriteHeader(http.StatusNoContent)
	return false
}
