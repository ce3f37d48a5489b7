package rest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/guard"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

// Options configure an API. Hub and Auth are required.
type Options struct {
	Hub     *hub.Hub
	Auth    Authenticator
	Proxies auth.TrustedProxies

	// Connections knows the connections that requests may publish for.
	Connections Connections

	// Stats counts requests, and answers for what was counted. Nil: nothing is.
	Stats *stats.Counters

	// Sandbox makes apps at run time. Nil: there is no such resource.
	Sandbox Sandbox

	// Guard is told how authentications end. Nil: nobody is.
	Guard *guard.Guard

	Log *slog.Logger // nil discards
}

// Sandbox makes apps at run time, and removes them. Errors of it are *pubsub.Error. Delete
// reports false if there is no such app.
type Sandbox interface {
	Create(spec auth.AppSpec) (*auth.App, error)
	Delete(appID string) (bool, error)
}

// Authenticator turns a request's credentials into a Grant. Its errors are *pubsub.Error.
type Authenticator interface {
	REST(q url.Values, h http.Header) (*auth.Grant, error)
	Admit(*auth.Grant, auth.Peer) (*auth.Grant, *pubsub.Error)

	// What a request for a token goes through, in this order.
	CheckKeyName(keyName string) error
	VouchForToken(keyName string, r *auth.TokenRequest, q url.Values, h http.Header) (*auth.Grant, error)
	IssueToken(ctx context.Context, g *auth.Grant, r *auth.TokenRequest) (*auth.TokenDetails, error)

	RevokeTokens(ctx context.Context, g *auth.Grant, keyName string, r *auth.RevocationRequest) ([]auth.RevocationResult, error)
}

// Connections finds the connection that a connectionKey of an app names, and its clientId, if it
// is identified. Errors are *pubsub.Error.
type Connections interface {
	Publisher(ctx context.Context, app, key string) (connectionID, clientID string, err error)
}

// API is the REST API.
type API struct {
	opts Options

	requests, tokenRequests limit.Buckets[string] // by app

	enumerating sync.Map // the apps whose channels are being listed
}

// New returns the API.
func New(opts Options) *API {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &API{opts: opts}
}

// call is one request on its way through the API.
type call struct {
	*http.Request
	query  url.Values
	format wire.Format
	path   []string // segments, decoded once
	id     string   // what the client calls the request; empty: nothing

	allow  string     // the methods that there are, if the call's is none of them
	counts *stats.App // of the app that the credentials are of; nil until they are known

	// envelope says that status and headers are wanted in the body, by browsers that cannot
	// read them elsewhere.
	envelope bool
}

// requestID is what a client may call a request, so that it can be found in the log.
var requestID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func newCall(r *http.Request) *call {
	c := &call{Request: r, query: r.URL.Query()}
	if id := c.query.Get("request_id"); requestID.MatchString(id) {
		c.id = id
	}
	c.format = answerFormat(r, c.query)
	switch c.query.Get("envelope") {
	case "json":
		c.envelope, c.format = true, wire.JSON
	case "msgpack":
		c.envelope, c.format = true, wire.MsgPack
	}
	return c
}

// answer is what a call ends with.
type answer struct {
	status int
	body   []byte
	links  []string // values of Link headers

	// failure is what the headers tell although the answer has a body of its own; or nil.
	failure *pubsub.Error
}

// handler answers a call. Errors that are no *pubsub.Error are internal ones.
type handler func(*API, *call) (*answer, error)

// ServeHTTP routes on the path as it was sent, because a channel's name may contain encoded
// slashes, and never redirects.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := newCall(r)
	ans, err := a.serve(c)
	c.count(err)
	if err != nil {
		a.writeError(w, c, pubsub.ErrorFor(err))
		return
	}
	header := make(http.Header)
	if ans.failure != nil {
		header = errorHeader(ans.failure)
	}
	for _, link := range ans.links {
		header.Add("Link", link)
	}
	write(w, c, ans.status, header, ans.body)
}

func (a *API) serve(c *call) (*answer, error) {
	for _, s := range segments(c.URL.EscapedPath()) {
		decoded, err := url.PathUnescape(s)
		if err != nil {
			return nil, pubsub.NewError(pubsub.CodeBadRequest, "the path is not properly encoded")
		}
		c.path = append(c.path, decoded)
	}
	if len(c.path) > 2 && c.path[0] == "channels" && c.path[2] == "objects" {
		c.path[2] = "object" // as it was called before
	}
	found := find(c.path)
	if found == nil || found.sandbox && a.opts.Sandbox == nil {
		return nil, noSuchResource(c)
	}
	h := found.methods[c.Method]
	if h == nil && c.Method == http.MethodHead {
		h = found.methods[http.MethodGet]
	}
	if h == nil {
		return nil, c.notAllowed(slices.Sorted(maps.Keys(found.methods))...)
	}
	return h(a, c)
}

// notAllowed says that the call has another method than those that there are.
func (c *call) notAllowed(methods ...string) error {
	c.allow = strings.Join(methods, ", ")
	return pubsub.Errorf(pubsub.CodeMethodNotAllowed, "method %s is not allowed here", clip(c.Method))
}

func noSuchResource(c *call) error {
	return pubsub.Errorf(pubsub.CodeNotFound, "no such resource: %s", clip(c.URL.Path))
}

// resource is what the API has at a path, with the handlers of its methods.
type resource struct {
	path    string // where {name} stands for one segment
	sandbox bool   // there is none without a sandbox
	methods map[string]handler

	segments []string // of path
}

// resources are all that the API has (RSC19f).
var resources = split([]resource{
	{path: "/time", methods: map[string]handler{http.MethodGet: (*API).time}},
	{path: "/keys/{keyName}/requestToken", methods: map[string]handler{http.MethodPost: (*API).requestToken, http.MethodGet: (*API).noToken}},
	{path: "/keys/{keyName}/revokeTokens", methods: map[string]handler{http.MethodPost: (*API).revokeTokens}},
	{path: "/stats", methods: map[string]handler{http.MethodGet: (*API).stats, http.MethodPost: (*API).postStats}},
	{path: "/apps", sandbox: true, methods: map[string]handler{http.MethodPost: (*API).createApp}},
	{path: "/apps/{id}", sandbox: true, methods: map[string]handler{http.MethodDelete: (*API).deleteApp}},
	{path: "/messages", methods: map[string]handler{http.MethodPost: (*API).batchPublish}},
	{path: "/presence", methods: map[string]handler{http.MethodGet: (*API).batchPresence}},
	{path: "/channels", methods: map[string]handler{http.MethodGet: (*API).channels}},
	{path: "/channels/{name}", methods: map[string]handler{http.MethodGet: (*API).status}},
	{path: "/channels/{name}/messages", methods: map[string]handler{http.MethodGet: (*API).history, http.MethodPost: (*API).publish}},
	{path: "/channels/{name}/messages/{serial}", methods: map[string]handler{http.MethodPatch: (*API).updateMessage, http.MethodGet: (*API).message}},
	{path: "/channels/{name}/messages/{serial}/versions", methods: map[string]handler{http.MethodGet: (*API).versions}},
	{path: "/channels/{name}/messages/{serial}/annotations", methods: map[string]handler{http.MethodGet: (*API).annotations, http.MethodPost: (*API).annotate}},
	{path: "/channels/{name}/messages/{serial}/client-summary", methods: map[string]handler{http.MethodGet: (*API).clientSummary}},
	{path: "/channels/{name}/object", methods: map[string]handler{http.MethodGet: (*API).object, http.MethodPost: (*API).changeObjects}},
	{path: "/channels/{name}/object/{id}", methods: map[string]handler{http.MethodGet: (*API).object}},
	{path: "/channels/{name}/history", methods: map[string]handler{http.MethodGet: (*API).history}},
	{path: "/channels/{name}/presence", methods: map[string]handler{http.MethodGet: (*API).presence}},
	{path: "/channels/{name}/presence/history", methods: map[string]handler{http.MethodGet: (*API).presenceHistory}},
})

func split(all []resource) []resource {
	for i := range all {
		all[i].segments = segments(all[i].path)
	}
	return all
}

func segments(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

// find returns the resource at a path, or nil.
func find(path []string) *resource {
	for i := range resources {
		if r := &resources[i]; slices.EqualFunc(r.segments, path, matches) {
			return r
		}
	}
	return nil
}

func matches(pattern, segment string) bool { return pattern == segment || pattern[0] == '{' }

// Endpoints lists what the API has, as "GET /channels/{name}".
func Endpoints() (all []string) {
	for i := range resources {
		for method := range resources[i].methods {
			all = append(all, method+" "+resources[i].path)
		}
	}
	slices.Sort(all)
	return all
}

// time answers with the server's clock (RSC16). It needs no credentials.
func (a *API) time(c *call) (*answer, error) {
	now := time.Now().UnixMilli()
	if c.format == wire.MsgPack {
		// An array of one uint64.
		body := []byte{0x91, 0xcf, 0, 0, 0, 0, 0, 0, 0, 0}
		for i := range 8 {
			body[2+i] = byte(now >> (56 - 8*i))
		}
		return &answer{status: http.StatusOK, body: body}, nil
	}
	return &answer{status: http.StatusOK, body: []byte("[" + strconv.FormatInt(now, 10) + "]")}, nil
}

// authenticate returns what the call's credentials allow, and counts the call as one of the
// app's requests.
func (a *API) authenticate(c *call) (*auth.Grant, error) {
	grant, err := a.opts.Auth.REST(c.query, c.Header)
	if err == nil {
		c.counts = a.opts.Stats.App(grant.App)
	}
	if grant, err = a.forPeer(c, grant, err, a.opts.Auth.Admit); err != nil {
		return nil, err
	}
	if len(c.path) > 1 && c.path[0] == "channels" {
		if name, err := pubsub.ParseChannelName(c.path[1]); err == nil { // a bad name is told later
			if err := a.opts.Hub.CheckTLS(grant, name); err != nil {
				return nil, err
			}
		}
	}
	most := a.opts.Hub.Limits().For(grant.App).AppRequests
	return grant, a.pace(&a.requests, grant.App, most, limit.AppRequests)
}

// forPeer is a grant for the call's peer, as admit gives or refuses it. err is how the
// authentication ended; the guard is told.
func (a *API) forPeer(c *call, grant *auth.Grant, err error, admit func(*auth.Grant, auth.Peer) (*auth.Grant, *pubsub.Error)) (*auth.Grant, error) {
	peer := a.opts.Proxies.PageAware(c.Request)
	a.opts.Guard.Authenticated(c.Context(), peer.Addr, err)
	if err != nil {
		return nil, err
	}
	grant, refused := admit(grant, peer)
	if refused != nil {
		return nil, refused
	}
	return grant, nil
}

// pace counts one request of an app against a rate.
func (a *API) pace(rates *limit.Buckets[string], app string, most int, name limit.Name) error {
	if limit.AllowOf(a.opts.Hub.Limits(), rates, app, most, 1) {
		return nil
	}
	a.opts.Hub.Limits().Exceeded(name, app)
	return pubsub.Errorf(pubsub.CodeRequestRate, "rate limit exceeded: %d such requests per second of one application", most)
}

// readBody reads a body of limited size.
func (a *API) readBody(c *call) ([]byte, error) { return a.readBodyWithin(c, math.MaxInt) }

// readBodyWithin reads a body of at most most bytes.
func (a *API) readBodyWithin(c *call, most int) ([]byte, error) {
	most = min(most, a.opts.Hub.Limits().Load().BodyBytes)
	if c.ContentLength > int64(most) {
		return nil, a.bodyTooLarge(c, most)
	}
	body, err := io.ReadAll(io.LimitReader(c.Body, int64(most)+1))
	if err != nil {
		return nil, pubsub.NewError(pubsub.CodeInvalidRequestBody, "the body could not be read").Because(err)
	}
	if len(body) > most {
		return nil, a.bodyTooLarge(c, most)
	}
	return body, nil
}

// expectsContinue says that the client sends its body when it has heard that it may.
func (c *call) expectsContinue() bool {
	return strings.EqualFold(c.Header.Get("Expect"), "100-continue")
}

// maxDiscarded is how much of a body that is too large is read nevertheless: a client that is
// still writing would be reset, and not see the answer.
const maxDiscarded = 4 << 20

func (a *API) bodyTooLarge(c *call, most int) error {
	if !c.expectsContinue() {
		_, _ = io.CopyN(io.Discard, c.Body, maxDiscarded) // whatever comes of it
	}
	a.opts.Hub.Limits().Exceeded(limit.BodyBytes, "")
	return pubsub.Errorf(pubsub.CodeMessageTooLarge, "the body exceeds %d bytes", most)
}

// bodyFormat is the format of the request's body.
func (c *call) bodyFormat() wire.Format {
	if mediaType(c.Header.Get("Content-Type")) == msgpackType {
		return wire.MsgPack
	}
	return wire.JSON
}

const (
	jsonType    = "application/json"
	msgpackType = "application/x-msgpack"
)

// answerFormat is the first format of the Accept header that we have (RSC8c); the format
// parameter wins over it.
func answerFormat(r *http.Request, q url.Values) wire.Format {
	switch q.Get("format") {
	case "msgpack":
		return wire.MsgPack
	case "json":
		return wire.JSON
	}
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			switch mediaType(part) {
			case msgpackType:
				return wire.MsgPack
			case jsonType:
				return wire.JSON
			}
		}
	}
	return wire.JSON
}

func mediaType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(s))
}

// write answers a call. In an envelope the answer is always 200 and tells the rest in its body.
func write(w http.ResponseWriter, c *call, status int, header http.Header, body []byte) {
	contentType := jsonType
	if c.format == wire.MsgPack {
		contentType = msgpackType
	}
	if c.id != "" {
		header.Set("X-Ably-Requestid", c.id)
	}
	if status == http.StatusNoContent {
		body = nil
	} else {
		header.Set("Content-Type", contentType) // exactly this: the JavaScript SDK compares it whole (RSC8d)
	}
	if c.envelope {
		body = wire.AppendEnvelope(nil, c.format, status, header, body)
		status, header = http.StatusOK, http.Header{"Content-Type": {contentType}}
	}
	h := w.Header()
	maps.Copy(h, header)
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if c.Method != http.MethodHead {
		_, _ = w.Write(body) // the peer is gone if this fails
	}
}

// writeError answers with an error, in the body and in headers (RSL1d, HP4, HP6-7).
func (a *API) writeError(w http.ResponseWriter, c *call, e *pubsub.Error) {
	a.logFailure(c, e)
	writeError(w, c, e)
}

// logFailure notes an error that is the server's own.
func (a *API) logFailure(c *call, e *pubsub.Error) {
	if e.StatusCode >= 500 && !errors.Is(e, context.Canceled) {
		a.opts.Log.Error("request failed", "method", c.Method, "path", c.URL.Path, "request_id", c.id, "code", int(e.Code), "error", e)
	}
}

// WriteError answers a request to any door with an error, as the API does.
func WriteError(w http.ResponseWriter, r *http.Request, e *pubsub.Error) {
	writeError(w, newCall(r), e)
}

func writeError(w http.ResponseWriter, c *call, e *pubsub.Error) {
	if !c.envelope && c.Header.Get("Origin") != "" {
		// A browser's. There the JavaScript SDK decodes MessagePack only in good answers and in
		// envelopes; of an error it would not learn the code.
		c.format = wire.JSON
	}
	header := errorHeader(e)
	if c.allow != "" {
		header.Set("Allow", c.allow)
	}
	write(w, c, e.StatusCode, header, wire.AppendError(nil, c.format, wire.NewErrorInfo(e)))
}

// errorHeader is what the headers tell of an error.
func errorHeader(e *pubsub.Error) http.Header {
	h := make(http.Header)
	if e.StatusCode == http.StatusTooManyRequests {
		h.Set("Retry-After", "1") // all rates are per second
	}
	h.Set("X-Ably-Errorcode", strconv.Itoa(int(e.Code)))
	h.Set("X-Ably-Errormessage", e.HeaderText())
	return h
}

func clip(s string) string {
	if len(s) > 128 {
		return strings.ToValidUTF8(s[:128], "") + "…"
	}
	return s
}
