package control

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/guard"
	"letshare-server/internal/pubsub"
)

// Options configure an API. Apps and Registry are required.
type Options struct {
	Apps     *apps.Apps
	Registry *auth.Registry // for the apps of the configuration
	Proxies  auth.TrustedProxies

	// Stats answers for the statistics of an app, as JSON with Link headers. Errors are
	// *pubsub.Error, or the server's own. Nil: there is no such resource.
	Stats func(r *http.Request, app string) (body []byte, links []string, err error)

	Guard *guard.Guard // is told how authentications end; nil: nobody is
	Log   *slog.Logger // nil discards
}

// Token is an access token.
type Token struct {
	Name   string // what it is called in the log
	Secret string
}

// API is the control API.
type API struct {
	opts   Options
	tokens atomic.Pointer[[]digest]
}

// digest is a token as it is compared with others.
type digest struct {
	name string
	sum  [sha256.Size]byte
}

// New returns the API without tokens.
func New(opts Options) *API {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{opts: opts}
	a.SetTokens(nil)
	return a
}

// SetTokens exchanges the tokens that are accepted.
func (a *API) SetTokens(tokens []Token) {
	digests := make([]digest, 0, len(tokens))
	for _, t := range tokens {
		digests = append(digests, digest{t.Name, sha256.Sum256([]byte(t.Secret))})
	}
	a.tokens.Store(&digests)
}

// account is the only one. All apps are its own.
const account = "letshare"

// prefixes are where the API is: as in the addresses of Ably's own, and as the Ably CLI asks
// hosts of other names.
var prefixes = []string{"/v1/", "/api/v1/"}

// Serves reports whether a path is the API's, which it never is without tokens.
func (a *API) Serves(path string) bool {
	if len(*a.tokens.Load()) == 0 {
		return false
	}
	_, is := withoutPrefix(path)
	return is
}

func withoutPrefix(path string) (string, bool) {
	for _, prefix := range prefixes {
		if rest, is := strings.CutPrefix(path, prefix); is {
			return rest, true
		}
	}
	return "", false
}

// call is one request with its way through the API.
type call struct {
	*http.Request
	path []string // segments after the prefix, decoded once
	by   digest   // whose token it carries
	peer auth.Peer
}

// answer is what a call ends with: a value to be sent as JSON, or nothing.
type answer struct {
	status int
	body   any
	links  []string
}

type handler func(*API, *call) (*answer, error)

// ServeHTTP answers a request. It routes on the path as it was sent, because ids may contain
// encoded slashes.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ans, err := a.serve(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store") // there are secrets in it
	for _, link := range ans.links {
		h.Add("Link", link)
	}
	if ans.body == nil {
		if ans.status != http.StatusNoContent {
			h.Set("Content-Length", "0")
		}
		w.WriteHeader(ans.status)
		return
	}
	write(w, r, ans.status, ans.body)
}

func write(w http.ResponseWriter, r *http.Request, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // it is made of what can be
		status, text = http.StatusInternalServerError, []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text) // the peer is gone if this fails
	}
}

func (a *API) serve(r *http.Request) (*answer, error) {
	c := &call{Request: r, peer: a.opts.Proxies.PageAware(r)}
	if err := a.authenticate(c); err != nil {
		return nil, err
	}
	rest, _ := withoutPrefix(r.URL.EscapedPath())
	for s := range strings.SplitSeq(rest, "/") {
		decoded, err := url.PathUnescape(s)
		if err != nil {
			return nil, pubsub.NewError(pubsub.CodeBadRequest, "the path is not properly encoded")
		}
		c.path = append(c.path, decoded)
	}
	methods := route(c.path)
	if methods == nil || c.path[len(c.path)-1] == "stats" && a.opts.Stats == nil {
		return nil, pubsub.NewError(pubsub.CodeNotFound, "no such resource")
	}
	h := methods[r.Method]
	if h == nil && r.Method == http.MethodHead {
		h = methods[http.MethodGet]
	}
	if h == nil {
		return nil, pubsub.NewError(pubsub.CodeMethodNotAllowed, "the method is not allowed here")
	}
	return h(a, c)
}

// route returns the handlers of a path by method, or nil.
func route(path []string) map[string]handler {
	switch n := len(path); {
	case n == 1 && path[0] == "me":
		return map[string]handler{http.MethodGet: (*API).me}
	case n == 3 && path[0] == "accounts" && path[1] == account && path[2] == "apps":
		return map[string]handler{http.MethodGet: (*API).listApps, http.MethodPost: (*API).createApp}
	case n < 2 || path[0] != "apps":
		return nil
	case n == 2:
		return map[string]handler{http.MethodPatch: (*API).updateApp, http.MethodDelete: (*API).deleteApp}
	case n == 3 && path[2] == "stats":
		return map[string]handler{http.MethodGet: (*API).stats}
	case n == 3 && path[2] == "keys":
		return map[string]handler{http.MethodGet: (*API).listKeys, http.MethodPost: (*API).createKey}
	case n == 4 && path[2] == "keys":
		return map[string]handler{http.MethodPatch: (*API).updateKey}
	case n == 5 && path[2] == "keys" && path[4] == "revoke":
		return map[string]handler{http.MethodPost: (*API).revokeKey}
	case n == 3 && path[2] == "namespaces":
		return map[string]handler{http.MethodGet: (*API).listNamespaces, http.MethodPost: (*API).createNamespace}
	case n == 4 && path[2] == "namespaces":
		return map[string]handler{http.MethodPatch: (*API).updateNamespace, http.MethodDelete: (*API).deleteNamespace}
	}
	return nil
}

// authenticate finds out whose token a call carries. Over a network that others may listen to
// it takes TLS, before it looks at the token.
func (a *API) authenticate(c *call) error {
	if !c.peer.Secure && !c.peer.Local {
		return pubsub.NewError(pubsub.CodeTLSRequired, "the control API needs TLS: secrets would be sent in the clear")
	}
	token := ""
	if scheme, value, _ := strings.Cut(c.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		token = strings.TrimSpace(value)
	}
	// All are compared, whether one fits or not.
	given, fits := sha256.Sum256([]byte(token)), false
	for _, d := range *a.tokens.Load() {
		if subtle.ConstantTimeCompare(d.sum[:], given[:]) == 1 {
			c.by, fits = d, true
		}
	}
	if !fits {
		a.opts.Guard.Authenticated(c.Context(), c.peer.Addr, pubsub.NewError(pubsub.CodeInvalidCredentials, "wrong access token"))
		return pubsub.NewError(pubsub.CodeUnauthorized, "Access denied")
	}
	a.opts.Guard.Authenticated(c.Context(), c.peer.Addr, nil)
	return nil
}

// maxBodyBytes bounds a request's body; it has room for the longest capability.
const maxBodyBytes = 128 << 10

// fields reads the object that is the body of a request.
func (c *call) fields() (*fields, error) {
	if c.ContentLength > maxBodyBytes {
		return nil, tooLarge(c)
	}
	body, err := io.ReadAll(io.LimitReader(c.Body, maxBodyBytes+1))
	if err != nil {
		return nil, pubsub.NewError(pubsub.CodeInvalidRequestBody, "the body could not be read").Because(err)
	}
	if len(body) > maxBodyBytes {
		return nil, tooLarge(c)
	}
	return readFields(body)
}

// maxDiscarded is how much of a body that is too large is read nevertheless: a client that is
// still writing would be reset, and not see the answer.
const maxDiscarded = 4 << 20

func tooLarge(c *call) error {
	_, _ = io.CopyN(io.Discard, c.Body, maxDiscarded) // whatever comes of it
	return pubsub.Errorf(pubsub.CodeMessageTooLarge, "the body exceeds %d bytes", maxBodyBytes)
}

// log notes a change.
func (a *API) log(c *call, what string, args ...any) {
	a.opts.Log.Info(what, append(args, "by", c.by.name, "peer", c.peer.Addr.String())...)
}

// failure is the body of an answer that is an error.
type failure struct {
	Message    string              `json:"message"`
	Code       int                 `json:"code"`
	StatusCode int                 `json:"statusCode"`
	Href       string              `json:"href"`
	Details    map[string][]string `json:"details,omitempty"`
}

// WriteError answers a request with an error, as the API does.
func WriteError(w http.ResponseWriter, r *http.Request, e *pubsub.Error) { writeError(w, r, e, nil) }

func writeError(w http.ResponseWriter, r *http.Request, e *pubsub.Error, details map[string][]string) {
	code := strconv.Itoa(int(e.Code))
	h := w.Header()
	if e.StatusCode == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if e.StatusCode == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	h.Set("X-Ably-Errorcode", code)
	h.Set("X-Ably-Errormessage", e.HeaderText())
	write(w, r, e.StatusCode, failure{e.Message, int(e.Code), e.StatusCode, "https://help.ably.io/error/" + code, details})
}

func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var details map[string][]string
	if problems := new(invalid); errors.As(err, &problems) {
		details, err = problems.details, problems.asError()
	}
	e := pubsub.ErrorFor(err)
	if e.StatusCode >= 500 {
		a.opts.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "code", int(e.Code), "error", e)
	}
	writeError(w, r, e, details)
}
