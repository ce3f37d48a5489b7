package server

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/objects"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/rest"
	"letshare-server/internal/transport/comet"
)

// row is a request to an endpoint and how it is answered, whatever the format and the version of
// HTTP.
type row struct {
	at   string // the endpoint; "" for none
	what string

	// The request, as far as it is not the example of the endpoint.
	method, path, query string
	as                  string   // a key, the name of a token, or nobody; "" for the key for everything
	header              []string // names and values
	body                string   // JSON, which is sent in the format of the client
	raw                 string   // is sent as it is

	site    string                                     // which server; "" for the one that has everything
	state   func(s *site) (undo func())                // that the server is in
	prepare func(s *site, r *row, client *http.Client) // makes what the request uses up
	again   bool                                       // try until it is answered so

	status int
	code   int    // of the error; 0 for none
	item   int    // of the error in a result; 0 for none
	shape  string // of the body, if it is not that of an error; see misfit
	media  string // of the answer, if it is not that of the client
}

// example is a good request to an endpoint.
type example struct{ path, query, body string }

var examples = map[string]example{
	"GET /time":                                             {path: "/time"},
	"POST /keys/{keyName}/requestToken":                     {path: "/keys/table.all/requestToken", body: `{}`},
	"GET /keys/{keyName}/requestToken":                      {path: "/keys/table.all/requestToken"},
	"POST /keys/{keyName}/revokeTokens":                     {path: "/keys/table.revocable/revokeTokens", body: `{"targets":["clientId:somebody"]}`},
	"GET /stats":                                            {path: "/stats", query: "start=2024-02-03:15:03&end=2024-02-03:15:03"},
	"POST /stats":                                           {path: "/stats", body: `[{"intervalId":"2024-02-03:15:03","inbound":{"realtime":{"messages":{"count":5,"data":50}}}}]`},
	"POST /apps":                                            {path: "/apps", body: `{"keys":[{}],"namespaces":[{"id":"persisted","persisted":true}]}`},
	"DELETE /apps/{id}":                                     {path: "/apps/table"},
	"POST /messages":                                        {path: "/messages", body: `{"channels":["batch:1","batch:2"],"messages":{"data":"x"}}`},
	"GET /presence":                                         {path: "/presence", query: "channels=persisted:members,nobody"},
	"GET /channels":                                         {path: "/channels", query: "prefix=listed"},
	"GET /channels/{name}":                                  {path: "/channels/persisted:members"},
	"POST /channels/{name}/messages":                        {path: "/channels/said/messages", body: `[{"name":"n","data":"x"},{"data":{"a":1}}]`},
	"GET /channels/{name}/messages":                         {path: "/channels/persisted:history/messages"},
	"GET /channels/{name}/messages/{serial}":                {path: "/channels/said/messages/x"},
	"GET /channels/{name}/messages/{serial}/versions":       {path: "/channels/said/messages/x/versions"},
	"PATCH /channels/{name}/messages/{serial}":              {path: "/channels/said/messages/x", body: `{"action":1,"data":"y"}`},
	"GET /channels/{name}/messages/{serial}/annotations":    {path: "/channels/said/messages/x/annotations"},
	"GET /channels/{name}/messages/{serial}/client-summary": {path: "/channels/said/messages/x/client-summary", query: "forClientId=bob"},
	"POST /channels/{name}/messages/{serial}/annotations":   {path: "/channels/said/messages/x/annotations", body: `[{"type":"reaction:total.v1"}]`},
	"GET /channels/{name}/object":                           {path: "/channels/things/object"},
	"GET /channels/{name}/object/{id}":                      {path: "/channels/things/object/root"},
	"POST /channels/{name}/object":                          {path: "/channels/things/object", body: `{"path":"","mapSet":{"key":"k","value":{"string":"v"}}}`},
	"GET /channels/{name}/history":                          {path: "/channels/persisted:history/history"},
	"GET /channels/{name}/presence":                         {path: "/channels/persisted:members/presence"},
	"GET /channels/{name}/presence/history":                 {path: "/channels/persisted:members/presence/history"},
	"GET /comet/connect":                                    {path: "/comet/connect", query: "v=3&stream=false"},
	"GET /comet/{connectionKey}/recv":                       {path: "/comet/nothing/recv"},
	"POST /comet/{connectionKey}/send":                      {path: "/comet/nothing/send", body: `[{"action":0}]`},
	"GET /comet/{connectionKey}/close":                      {path: "/comet/nothing/close"},
	"GET /comet/{connectionKey}/disconnect":                 {path: "/comet/nothing/disconnect"},
	"GET /sse":                                              {path: "/sse", query: "v=3&channels=table"},
	"GET /event-stream":                                     {path: "/event-stream", query: "v=3&channels=table"},
	"GET /is-the-internet-up.txt":                           {path: "/is-the-internet-up.txt"},
	"GET /health":                                           {path: "/health"},
	"GET /health/live":                                      {path: "/health/live"},
	"GET /health/ready":                                     {path: "/health/ready"},
	"GET /metrics":                                          {path: "/metrics"},
	"GET /ws":                                               {path: "/ws"},
	"GET /ws-up":                                            {path: "/ws-up"},
	"GET /":                                                 {path: "/"},
}

const (
	jsonMedia = "application/json"
	packMedia = "application/x-msgpack"
)

// Shapes of answers.
const (
	message    = `{"id":"<string>","name?":"<string>","data":"<string>","encoding?":"json","timestamp":"<number>","serial":"<string>","action":0,"version":{"serial":"<string>","timestamp":"<number>"}}`
	member     = `{"id":"<string>","clientId":"<string>","connectionId":"<string>","data":"<string>","timestamp":"<number>","action":1}`
	entered    = `{"id":"<string>","clientId":"<string>","connectionId":"<string>","data":"<string>","timestamp":"<number>","action":2}`
	details    = `{"channelId":"<string>","name":"<string>","status":{"isActive":true,"occupancy":{"metrics":{"connections":"<number>","publishers":"<number>","subscribers":"<number>","presenceConnections":"<number>","presenceMembers":"<number>","presenceSubscribers":"<number>","objectPublishers":"<number>","objectSubscribers":"<number>"}}}}`
	annotation = `{"action":0,"id":"<string>","type":"<string>","name?":"x","clientId?":"bob","messageSerial":"<string>","serial":"<string>","timestamp":"<number>"}`
	failure    = `{"code":"<number>","statusCode":"<number>","message":"<string>"}`
	said       = `{"channel":"<string>","messageId":"<string>","serials":["<string>"]}`
	tokenOf    = `{"token":"<string>","keyName":"table.all","issued":"<number>","expires":"<number>","capability":"{\"*\":[\"*\"]}"}`
	appOf      = `{"accountId":"<string>","appId":"<string>","id":"<string>","status":0,"keys":["…",{"id":"<string>","value":"<string>","keyName":"<string>","keySecret":"<string>","keyStr":"<string>","capability":"{\"*\":[\"*\"]}","revocableTokens":false,"status":0,"expires":0}],"namespaces":["…","<any>"],"channels":[],"connections":[],"endpoint":"127.0.0.1","port":"<number>","tls":true}`
	pmFailed   = `[{"action":6,"error":` + failure + `}]`
)

// Limits and faults.

func failing(f fault) func(*site) func() {
	return func(s *site) func() {
		s.fault.Store(&f)
		return func() { s.fault.Store(nil) }
	}
}

var (
	errBroken = errors.New("broken")

	away      = failing(fault{engine: engine.ErrUnavailable, directory: directory.ErrUnavailable, stats: errBroken})
	unknown   = failing(fault{append: engine.ErrUnknownOutcome})
	broken    = failing(fault{engine: errBroken, directory: errBroken})
	tooMany   = failing(fault{nonces: directory.ErrTooMany})
	paced     = limited(func(l *limit.Limits) { l.AppRequests, l.AppTokenRequests = 1, 1 })
	messages1 = limited(func(l *limit.Limits) { l.ChannelMessages = 1 })
	bytes1    = limited(func(l *limit.Limits) { l.ChannelBytes = 1 })
)

// limited puts limits in force, of which nothing is saved up.
func limited(change func(*limit.Limits)) func(*site) func() {
	return func(s *site) func() {
		l := s.usual
		l.Burst = time.Nanosecond
		change(&l)
		s.limits.Replace(l)
		return func() { s.limits.Replace(s.usual) }
	}
}

func draining(s *site) func() {
	s.draining.Store(true)
	return func() { s.draining.Store(false) }
}

// listing has somebody list the channels of the app until undo.
func listing(s *site) func() {
	begun, end := make(chan struct{}, 100), make(chan struct{})
	s.fault.Store(&fault{listing: func() { begun <- struct{}{}; <-end }})
	done := make(chan string)
	go func() {
		res, err := s.fetch(s.clients["HTTP/2.0"], http.MethodGet, "/channels", keyOfAll, nil)
		if err != nil {
			done <- err.Error()
		} else {
			done <- res.Status
		}
	}()
	<-begun
	return func() {
		close(end)
		if status := <-done; status != "200 OK" {
			s.t.Errorf("the list: %s", status)
		}
		s.fault.Store(nil)
	}
}

// manyApps makes as many apps as there may be.
func manyApps(s *site) func() {
	var made []string
	for {
		app, err := s.sandbox.Create(auth.AppSpec{})
		if err != nil {
			return func() {
				for _, id := range made {
					s.sandbox.Delete(id)
				}
			}
		}
		made = append(made, app.ID)
	}
}

// Preparations.

// stranger fails to authenticate, from the address that the row's request comes from.
func stranger(s *site, _ *row, client *http.Client) {
	s.send(client, http.MethodGet, "/channels", "table.all:wrong", nil, "X-Forwarded-For", "203.0.113.7")
}

// cometOf connects a client of a key, or with a token, and has the row's request be about the connection. The
// query of connect goes on with more.
func cometOf(as, more string) func(*site, *row, *http.Client) {
	return func(s *site, r *row, client *http.Client) {
		s.t.Helper()
		key := s.connect(client, as, more)
		verb := r.at[strings.LastIndex(r.at, "/"):]
		r.path = "/comet/" + url.PathEscape(key) + verb
		if verb == "/recv" {
			s.send(client, http.MethodPost, "/comet/"+url.PathEscape(key)+"/send", as, []byte(`[{"action":0,"id":"ping"}]`))
		}
	}
}

func (s *site) connect(client *http.Client, as, more string) (key string) {
	s.t.Helper()
	res := s.send(client, http.MethodGet, "/comet/connect?v=3&stream=false"+more, as, nil)
	v := decoded(s.t, res)
	if wrong := misfit([]any{map[string]any{"action": 4.0, "connectionId": "<string>", "connectionKey": "<string>", "connectionDetails": "<any>"}}, v, "CONNECTED"); wrong != "" {
		s.t.Fatal(wrong)
	}
	return v.([]any)[0].(map[string]any)["connectionKey"].(string)
}

// superseded connects a client whose connection another one has resumed by now.
func superseded(s *site, r *row, client *http.Client) {
	cometOf(keyOfAll, "")(s, r, client)
	key := strings.Split(r.path, "/")[2] // escaped
	s.connect(client, keyOfAll, "&resume="+key)
}

// sandboxedApp makes an app for the request to delete.
func sandboxedApp(s *site, r *row, _ *http.Client) {
	app := s.post("/apps", nobody, `{"keys":[{}]}`, http.StatusCreated)
	r.path, r.as = "/apps/"+app["appId"].(string), app["keys"].([]any)[0].(map[string]any)["keyStr"].(string)
}

// ofMessage publishes a message, in the place of which the request is.
func ofMessage(channel string) func(*site, *row, *http.Client) {
	return func(s *site, r *row, _ *http.Client) {
		path := examples[r.at].path
		r.path = strings.Replace(path, "/channels/said/messages/x", "/channels/"+channel+"/messages/"+url.PathEscape(s.publish(channel)), 1)
	}
}

// annotated has the request be about a message that was annotated twice.
func annotated(s *site, r *row, client *http.Client) {
	ofMessage("mutable:x")(s, r, client)
	path := r.path[:strings.LastIndex(r.path, "/")] + "/annotations"
	s.post(path, keyOfAll, `[{"type":"reaction:total.v1"},{"type":"reaction:unique.v1","name":"x","clientId":"bob"}]`, http.StatusCreated)
}

// deletedObject is one that only the server deletes, which takes a day.
const deletedObject = "counter:c@1700000000000"

// withObjects has the request be to a channel with some objects. A request that says so is about the one that was
// deleted.
func withObjects(s *site, r *row, _ *http.Client) {
	path := cmp.Or(r.path, examples[r.at].path)
	r.path = strings.Replace(path, "/things/", "/filled/", 1)
	s.post("/channels/filled/object", keyOfAll, `[
		{"id":"fill:0","path":"","mapSet":{"key":"a","value":{"string":"b"}}},
		{"id":"fill:1","path":"","mapSet":{"key":"c","value":{"objectId":"map:m@1700000000000"}}},
		{"id":"fill:2","objectId":"map:m@1700000000000","mapSet":{"key":"d","value":{"number":1.5}}}]`, http.StatusCreated)
	o, err := objects.New(deletedObject)
	if err != nil {
		s.t.Fatal(err)
	}
	o.Apply(&pubsub.ObjectMessage{Serial: "s", SerialTimestamp: 1, SiteCode: "s1", Operation: &pubsub.ObjectOperation{Action: pubsub.ObjectDelete, ObjectID: o.ID}})
	done := make(chan engine.Result, 1)
	s.engine.Append(&engine.Append{
		Channel: pubsub.ChannelID{App: "table", Name: "filled"}, Deadline: time.Now().Add(time.Minute),
		Puts: []engine.Put{{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: o.ID}, Value: o.Encode(), Entry: engine.NoEntry, Expire: time.Hour}},
	}, func(r engine.Result) { done <- r })
	if r := <-done; r.Err != nil {
		s.t.Fatal(r.Err)
	}
}

// publish publishes a message and returns its serial, whatever state the server is in.
func (s *site) publish(channel string) string {
	s.t.Helper()
	defer s.fault.Store(s.fault.Swap(nil))
	said := s.post("/channels/"+channel+"/messages", keyOfAll, `{"data":"x"}`, http.StatusCreated)
	return said["serials"].([]any)[0].(string)
}

// signedRequest has the body be a token request that is signed with a key. What is changed first is signed.
func signedRequest(change func(*auth.TokenRequest)) func(*site, *row, *http.Client) {
	return func(_ *site, r *row, _ *http.Client) {
		q := auth.TokenRequest{KeyName: "table.all", TTL: "600000", Timestamp: strconv.FormatInt(time.Now().UnixMilli(), 10),
			Nonce: strconv.FormatUint(rand.Uint64(), 36) + strconv.FormatUint(rand.Uint64(), 36) + "0123456789"}
		if change != nil {
			change(&q)
		}
		if q.MAC == "" {
			mac := hmac.New(sha256.New, []byte(tableSecret))
			_, _ = fmt.Fprintf(mac, "%s\n%s\n\n\n%s\n%s\n", q.KeyName, q.TTL, q.Timestamp, q.Nonce)
			q.MAC = base64.StdEncoding.EncodeToString(mac.Sum(nil))
		}
		text, err := json.Marshal(map[string]string{"keyName": q.KeyName, "ttl": q.TTL, "timestamp": q.Timestamp, "nonce": q.Nonce, "mac": q.MAC})
		if err != nil {
			panic(err)
		}
		r.as, r.body = nobody, string(text)
	}
}

// twice has the request be one that was made already.
func twice(s *site, r *row, client *http.Client) {
	signedRequest(nil)(s, r, client)
	s.post(examples[r.at].path, nobody, r.body, http.StatusCreated)
}

func header64(clientID string) []string {
	return []string{"X-Ably-ClientId", base64.StdEncoding.EncodeToString([]byte(clientID))}
}

func times(n int, element string) string {
	return "[" + strings.Repeat(element+",", n-1) + element + "]"
}

const plaintext = "X-Forwarded-Proto"

// ownRows are what each endpoint has of its own.
func ownRows() (all []row) {
	add := func(at string, rows ...row) {
		for _, r := range rows {
			r.at = at
			all = append(all, r)
		}
	}
	add("", row{what: "nothing there", path: "/nowhere", method: "GET", status: 404, code: 40400},
		row{what: "a path that is not encoded well", path: "/channels//message/more", method: "GET", status: 404, code: 40400})

	add("GET /time", row{what: "the time", as: nobody, status: 200, shape: `["<number>"]`})

	add("POST /channels/{name}/messages",
		row{what: "two messages", status: 201, shape: `{"channel":"said","messageId":"<string>","serials":["<string>","<string>"]}`},
		row{what: "one message", body: `{"data":"x"}`, path: "/channels/a%2Fb/messages", status: 201, shape: `{"channel":"a/b","messageId":"<string>","serials":["<string>"]}`},
		row{what: "the same again", body: `{"id":"once","data":"x"}`, status: 201, shape: `{"channel":"said","messageId":"once","serials":["<string>"]}`},
		row{what: "an ephemeral message", body: `{"data":"x"}`, query: "ephemeral=true", status: 201, shape: said},
		row{what: "no messages", body: `[]`, status: 400, code: 40000},
		row{what: "ephemeral and other messages", body: `[{},{"extras":{"ephemeral":true}}]`, status: 400, code: 40000},
		row{what: "a body that is none", raw: `{"name":`, status: 400, code: 40001},
		row{what: "a serial that is none", body: `{"serial":7}`, status: 400, code: 40003},
		row{what: "a connection that is not there", body: `{"connectionKey":"x"}`, status: 400, code: 40006},
		row{what: "a connection of somebody", body: `{"connectionId":"x"}`, status: 400, code: 40006},
		row{what: "a message that is too large", body: `{"data":"` + strings.Repeat("x", 65537) + `"}`, status: 413, code: 40009},
		row{what: "a body that is too large", raw: strings.Repeat(" ", 2<<20+1), status: 413, code: 40009},
		row{what: "a channel that cannot be", path: "/channels/:x/messages", status: 400, code: 40010},
		row{what: "an empty clientId", body: `{"clientId":""}`, status: 400, code: 40012},
		row{what: "another clientId", as: "bob", body: `{"clientId":"eve"}`, status: 400, code: 40012},
		row{what: "data that is a number", body: `{"data":1}`, status: 400, code: 40013},
		row{what: "a name that is a number", body: `{"name":1}`, status: 400, code: 40016},
		row{what: "an empty id", body: `{"id":""}`, status: 400, code: 40031},
		row{what: "ids that do not belong together", body: `[{"id":"a:0"},{"id":"b:1"}]`, status: 400, code: 40031},
		row{what: "extras that are not allowed", body: `{"extras":{"x":1}}`, status: 400, code: 40032},
		row{what: "too many messages", body: times(1001, `{}`), status: 400, code: 40034},
		row{what: "a wish for it", query: "_forceNack=true", status: 400, code: 40099},
		row{what: "no right", as: reader, status: 401, code: 40160},
		row{what: "nobody in particular", as: "anonymous", path: "/channels/identified:x/messages", status: 401, code: 40161},
		row{what: "no TLS", path: "/channels/safe:x/messages", header: []string{plaintext, "http"}, status: 403, code: 40311},
		row{what: "more messages than may be", state: messages1, again: true, status: 429, code: 42913},
		row{what: "more bytes than may be", state: bytes1, again: true, status: 429, code: 42914},
		row{what: "a store that does as it likes", state: broken, status: 500, code: 50000},
		row{what: "a store that does not answer", state: unknown, status: 503, code: 50003},
		row{what: "a full store", site: "full", path: "/channels/persisted:full/messages", status: 503, code: 50004},
		row{what: "a store that is away", state: away, status: 503, code: 50005},
		row{what: "an update", body: `{"action":1,"serial":"x","data":"y"}`, status: 400, code: 93002},
	)

	for at, shape := range map[string]string{
		"GET /channels/{name}/messages/{serial}":          message,
		"GET /channels/{name}/messages/{serial}/versions": `[` + message + `]`,
	} {
		path := func(channel string) string { return strings.Replace(examples[at].path, "said", channel, 1) }
		missing := strings.Replace(examples[at].path, "/x", "/01726585978590-000000@abcdefgh:000", 1)
		add(at,
			row{what: "a message", prepare: ofMessage("mutable:x"), status: 200, shape: shape},
			row{what: "a message of a plain channel", prepare: ofMessage("said"), status: 200, shape: shape},
			row{what: "a serial that is none", status: 400, code: 40003},
			row{what: "a message that is not there", path: missing, status: 404, code: 40400},
			row{what: "a channel that cannot be", path: path(":x"), status: 400, code: 40010},
			row{what: "no right", as: reader, status: 401, code: 40160},
			row{what: "no TLS", path: path("safe:x"), header: []string{plaintext, "http"}, status: 403, code: 40311},
			row{what: "a store that does as it likes", path: missing, state: broken, status: 500, code: 50000},
			row{what: "a store that is away", path: missing, state: away, status: 503, code: 50005},
		)
	}
	add("GET /channels/{name}/messages/{serial}/versions",
		row{what: "a limit that is none", query: "limit=0", status: 400, code: 40003},
		row{what: "a direction that is none", query: "direction=up", status: 400, code: 40003},
		row{what: "a cursor that is none", query: "cursor=x", status: 400, code: 40003},
	)

	changed := ofMessage("mutable:x")
	add("PATCH /channels/{name}/messages/{serial}",
		row{what: "an update", prepare: changed, status: 200, shape: `{"versionSerial":"<string>"}`},
		row{what: "a delete", prepare: changed, body: `{"action":2,"version":{"description":"why","metadata":{"k":"v"}}}`, status: 200, shape: `{"versionSerial":"<string>"}`},
		row{what: "an append", prepare: changed, body: `{"action":5,"data":"y"}`, status: 200, shape: `{"versionSerial":"<string>"}`},
		row{what: "no change", prepare: changed, body: `{"data":"y"}`, status: 400, code: 40000},
		row{what: "two changes", prepare: changed, body: `[{"action":1},{"action":1}]`, status: 400, code: 40000},
		row{what: "a body that is none", raw: `{"name":`, status: 400, code: 40001},
		row{what: "a serial that is none", path: "/channels/mutable:x/messages/x", status: 400, code: 40003},
		row{what: "a message that grows too large", prepare: changed, body: `{"action":5,"data":"` + strings.Repeat("y", 65536) + `"}`, status: 413, code: 40009},
		row{what: "a channel that cannot be", path: "/channels/:x/messages/x", status: 400, code: 40010},
		row{what: "another clientId", as: "bob", prepare: changed, body: `{"action":1,"version":{"clientId":"eve"}}`, status: 400, code: 40012},
		row{what: "bytes for a text", prepare: changed, body: `{"action":5,"data":"eQ==","encoding":"base64"}`, status: 400, code: 40013},
		row{what: "a name that is a number", prepare: changed, body: `{"action":1,"name":7}`, status: 400, code: 40016},
		row{what: "extras that are not allowed", prepare: changed, body: `{"action":1,"extras":{"x":1}}`, status: 400, code: 40032},
		row{what: "no right", as: reader, status: 401, code: 40160},
		row{what: "nobody in particular", as: "anonymous", path: "/channels/identified:x/messages/x", status: 401, code: 40161},
		row{what: "somebody without a name", as: "of nobody's own", prepare: changed, status: 401, code: 40166},
		row{what: "no TLS", path: "/channels/safe:x/messages/x", header: []string{plaintext, "http"}, status: 403, code: 40311},
		row{what: "a message that is not there", path: "/channels/mutable:x/messages/01726585978590-000000@abcdefgh:000", status: 404, code: 40400},
		row{what: "more messages than may be", path: "/channels/mutable:x/messages/01726585978590-000000@abcdefgh:000", state: messages1, again: true, status: 429, code: 42913},
		row{what: "more bytes than may be", path: "/channels/mutable:x/messages/01726585978590-000000@abcdefgh:000", state: bytes1, again: true, status: 429, code: 42914},
		row{what: "a store that does as it likes", path: "/channels/mutable:x/messages/01726585978590-000000@abcdefgh:000", state: broken, status: 500, code: 50000},
		row{what: "a store that does not answer", prepare: changed, state: unknown, status: 503, code: 50003},
		row{what: "a full store", site: "full", prepare: func(s *site, r *row, _ *http.Client) { r.path = "/channels/mutable:full/messages/" + s.first }, status: 503, code: 50004},
		row{what: "a store that is away", path: "/channels/mutable:x/messages/01726585978590-000000@abcdefgh:000", state: away, status: 503, code: 50005},
		row{what: "no rule that allows it", status: 400, code: 93002},
	)

	for _, at := range []string{"GET /channels/{name}/messages/{serial}/annotations", "POST /channels/{name}/messages/{serial}/annotations",
		"GET /channels/{name}/messages/{serial}/client-summary"} {
		path := func(channel string) string { return strings.Replace(examples[at].path, "said", channel, 1) }
		missing := strings.Replace(path("mutable:x"), "/x", "/01726585978590-000000@abcdefgh:000", 1)
		add(at,
			row{what: "a serial that is none", path: path("mutable:x"), status: 400, code: 40003},
			row{what: "a message that is not there", path: missing, status: 404, code: 40400},
			row{what: "a channel that cannot be", path: path(":x"), status: 400, code: 40010},
			row{what: "no right", as: reader, status: 401, code: 40160},
			row{what: "nobody in particular", as: "anonymous", path: path("identified:x"), status: 401, code: 40161},
			row{what: "no TLS", path: path("safe:x"), header: []string{plaintext, "http"}, status: 403, code: 40311},
			row{what: "a store that does as it likes", path: missing, state: broken, status: 500, code: 50000},
			row{what: "a store that is away", path: missing, state: away, status: 503, code: 50005},
			row{what: "no rule that allows it", status: 400, code: 93002},
		)
	}
	add("GET /channels/{name}/messages/{serial}/annotations",
		row{what: "two", prepare: annotated, status: 200, shape: `[` + annotation + `,` + annotation + `]`},
		row{what: "one page", prepare: annotated, query: "limit=1", status: 200, shape: `[` + annotation + `]`},
		row{what: "none", prepare: changed, status: 200, shape: `[]`},
		row{what: "a limit that is none", path: "/channels/mutable:x/messages/x/annotations", query: "limit=0", status: 400, code: 40003},
		row{what: "a cursor that is none", path: "/channels/mutable:x/messages/x/annotations", query: "cursor=x", status: 400, code: 40003},
	)
	add("GET /channels/{name}/messages/{serial}/client-summary",
		row{what: "what bob has done", prepare: annotated, status: 200, shape: `{"reaction:total.v1":{"total":1},"reaction:unique.v1":{"x":{"total":1,"clientIds":["bob"],"clipped":false}}}`},
		row{what: "what oneself has done", as: "bob", query: "x=y", prepare: annotated, status: 200, shape: `{"reaction:total.v1":{"total":1},"reaction:unique.v1":{"x":{"total":1,"clientIds":["bob"],"clipped":false}}}`},
		row{what: "nothing", prepare: changed, status: 200, shape: `{}`},
		row{what: "nobody", query: "x=y", prepare: changed, status: 400, code: 40003},
	)
	missing := "/channels/mutable:x/messages/01726585978590-000000@abcdefgh:000/annotations"
	add("POST /channels/{name}/messages/{serial}/annotations",
		row{what: "one", prepare: changed, status: 201, shape: `{"channel":"mutable:x","messageId":"<string>","serials":["<string>"]}`},
		row{what: "two", prepare: changed, body: `[{"type":"reaction:total.v1"},{"action":1,"type":"reaction:unique.v1","clientId":"bob"}]`, status: 201, shape: `{"channel":"mutable:x","messageId":"<string>","serials":["<string>","<string>"]}`},
		row{what: "the same again", prepare: changed, body: `{"id":"once","type":"reaction:total.v1"}`, status: 201, shape: `{"channel":"mutable:x","messageId":"once","serials":["<string>"]}`},
		row{what: "no annotations", prepare: changed, body: `[]`, status: 400, code: 40000},
		row{what: "an action that there is not", prepare: changed, body: `{"action":2,"type":"reaction:total.v1"}`, status: 400, code: 40000},
		row{what: "a body that is none", raw: `{"name":`, status: 400, code: 40001},
		row{what: "no type", prepare: changed, body: `{}`, status: 400, code: 40003},
		row{what: "no name", prepare: changed, body: `{"type":"reaction:unique.v1","clientId":"bob"}`, status: 400, code: 40003},
		row{what: "a connection of somebody", prepare: changed, body: `{"type":"reaction:total.v1","connectionId":"x"}`, status: 400, code: 40006},
		row{what: "an annotation that is too large", prepare: changed, body: `{"type":"x","data":"` + strings.Repeat("x", 65536) + `"}`, status: 413, code: 40009},
		row{what: "another clientId", as: "bob", prepare: changed, body: `{"type":"reaction:total.v1","clientId":"eve"}`, status: 400, code: 40012},
		row{what: "data that is a number", prepare: changed, body: `{"type":"reaction:total.v1","data":1}`, status: 400, code: 40013},
		row{what: "an empty id", prepare: changed, body: `{"id":"","type":"reaction:total.v1"}`, status: 400, code: 40031},
		row{what: "extras that are the server's", prepare: changed, body: `{"type":"reaction:total.v1","extras":{"userClaim":"x"}}`, status: 400, code: 40032},
		row{what: "too many", prepare: changed, body: times(1001, `{"type":"reaction:total.v1"}`), status: 400, code: 40034},
		row{what: "a reaction of nobody", as: "anonymous", prepare: changed, body: `{"type":"reaction:flag.v1"}`, status: 401, code: 40161},
		row{what: "more messages than may be", path: missing, state: messages1, again: true, status: 429, code: 42913},
		row{what: "more bytes than may be", path: missing, state: bytes1, again: true, status: 429, code: 42914},
		row{what: "a store that does not answer", prepare: changed, state: unknown, status: 503, code: 50003},
		row{what: "a full store", site: "full", prepare: func(s *site, r *row, _ *http.Client) {
			r.path = "/channels/mutable:full/messages/" + s.first + "/annotations"
		}, status: 503, code: 50004},
	)

	for _, at := range []string{"GET /channels/{name}/object", "GET /channels/{name}/object/{id}"} {
		path := func(channel string) string { return strings.Replace(examples[at].path, "things", channel, 1) }
		add(at,
			row{what: "the values", prepare: withObjects, status: 200, shape: `{"a":"b","c":{"d":1.5}}`},
			row{what: "all there is to it", prepare: withObjects, query: "compact=false", status: 200, shape: `{"objectId":"root","map":{"semantics":"LWW","entries":{"a":{"data":{"string":"b"}},"c":{"data":{"objectId":"<string>","map":{"semantics":"LWW","entries":{"d":{"data":{"number":1.5}}}}}}}}}`},
			row{what: "what a path leads to", prepare: withObjects, query: "path=c.d&compact=true", status: 200, shape: `1.5`},
			row{what: "no objects", path: path("nobody"), status: 200, shape: `{}`},
			row{what: "a form that there is not", query: "compact=1", status: 400, code: 40003},
			row{what: "a channel that cannot be", path: path(":x"), status: 400, code: 40010},
			row{what: "no right", as: reader, status: 401, code: 40160},
			row{what: "nobody in particular", as: "anonymous", path: path("identified:x"), status: 401, code: 40161},
			row{what: "no TLS", path: path("safe:x"), header: []string{plaintext, "http"}, status: 403, code: 40311},
			row{what: "a store that does as it likes", state: broken, status: 500, code: 50000},
			row{what: "a store that is away", state: away, status: 503, code: 50005},
			row{what: "a path to nothing", prepare: withObjects, query: "path=c.e", status: 400, code: 92005},
			row{what: "a path to several", prepare: withObjects, query: "path=*", status: 400, code: 92007},
		)
	}
	add("GET /channels/{name}/object/{id}",
		row{what: "another than the root", prepare: withObjects, path: "/channels/things/object/map:m@1700000000000", status: 200, shape: `{"d":1.5}`},
		row{what: "an object that was deleted", prepare: withObjects, path: "/channels/things/object/" + deletedObject, status: 400, code: 92003},
		row{what: "an object that is not there", path: "/channels/things/object/map:x@1700000000000", status: 404, code: 92004},
	)
	const changedObjects = `{"channel":"things","messageId":"<string>","objectIds":["…","<string>"]}`
	add("POST /channels/{name}/object",
		row{what: "one", status: 201, shape: changedObjects},
		row{what: "two", body: `[{"path":"n","counterCreate":{"count":1}},{"objectId":"counter:a@1700000000000","counterInc":{"number":-2}}]`, status: 201, shape: `{"channel":"things","messageId":"<string>","objectIds":["<string>","root","counter:a@1700000000000"]}`},
		row{what: "the same again", body: `{"id":"once","path":"","mapRemove":{"key":"k"}}`, status: 201, shape: `{"channel":"things","messageId":"once:0","objectIds":["root"]}`},
		row{what: "no operations", body: `[]`, status: 400, code: 40000},
		row{what: "a body that is none", raw: `{"path":`, status: 400, code: 40001},
		row{what: "an id that is a number", body: `{"id":1,"path":"","mapRemove":{"key":"k"}}`, status: 400, code: 40031},
		row{what: "an operation that is too large", body: `{"path":"","mapSet":{"key":"k","value":{"string":"` + strings.Repeat("x", 65536) + `"}}}`, status: 413, code: 40009},
		row{what: "a channel that cannot be", path: "/channels/:x/object", status: 400, code: 40010},
		row{what: "too many", body: times(1001, `{"path":"","mapRemove":{"key":"k"}}`), status: 400, code: 40034},
		row{what: "no right", as: reader, status: 401, code: 40160},
		row{what: "nobody in particular", as: "anonymous", path: "/channels/identified:x/object", status: 401, code: 40161},
		row{what: "no TLS", path: "/channels/safe:x/object", header: []string{plaintext, "http"}, status: 403, code: 40311},
		row{what: "more messages than may be", state: messages1, again: true, status: 429, code: 42913},
		row{what: "more bytes than may be", state: bytes1, again: true, status: 429, code: 42914},
		row{what: "a store that does as it likes", state: broken, status: 500, code: 50000},
		row{what: "a store that does not answer", state: unknown, status: 503, code: 50003},
		row{what: "a full store", site: "full", path: "/channels/persisted:full/object", status: 503, code: 50004},
		row{what: "a store that is away", state: away, status: 503, code: 50005},
		row{what: "no operation", body: `{"path":""}`, status: 400, code: 92000},
		row{what: "more objects than may be", state: limited(func(l *limit.Limits) { l.Objects = 1 }), body: `[{"counterCreate":{}},{"counterCreate":{}}]`, status: 400, code: 92001},
		row{what: "an object that was deleted", prepare: withObjects, body: `{"objectId":"` + deletedObject + `","counterInc":{"number":1}}`, status: 400, code: 92002},
		row{what: "a path to nothing", prepare: withObjects, body: `{"path":"c.e","mapRemove":{"key":"k"}}`, status: 400, code: 92005},
		row{what: "no object", body: `{"mapRemove":{"key":"k"}}`, status: 400, code: 92006},
		row{what: "a path to a value", prepare: withObjects, body: `{"path":"a","mapRemove":{"key":"k"}}`, status: 400, code: 92007},
	)

	for _, at := range []string{"GET /channels/{name}/messages", "GET /channels/{name}/history", "GET /channels/{name}/presence/history"} {
		shape, last := message, at[strings.LastIndex(at, "/"):]
		if strings.Contains(at, "presence") {
			shape, last = entered, "/presence/history"
		}
		add(at,
			row{what: "two", status: 200, shape: `[` + shape + `,` + shape + `]`},
			row{what: "one page", query: "limit=1&direction=forwards", status: 200, shape: `[` + shape + `]`},
			row{what: "none", path: "/channels/nobody" + last, status: 200, shape: `[]`},
			row{what: "a limit that is none", query: "limit=0", status: 400, code: 40003},
			row{what: "a direction that is none", query: "direction=up", status: 400, code: 40003},
			row{what: "a start after the end", query: "start=2&end=1", status: 400, code: 40003},
			row{what: "a cursor that is none", query: "cursor=x", status: 400, code: 40003},
			row{what: "a channel that cannot be", path: "/channels/:x" + last, status: 400, code: 40010},
			row{what: "no right", as: reader, status: 401, code: 40160},
			row{what: "no TLS", path: "/channels/safe:x" + last, header: []string{plaintext, "http"}, status: 403, code: 40311},
			row{what: "a store that does as it likes", state: broken, status: 500, code: 50000},
			row{what: "a store that is away", state: away, status: 503, code: 50005},
			row{what: "an attach point that is none", query: "from_serial=x", status: 400, code: 90008},
		)
	}

	add("GET /channels/{name}/presence",
		row{what: "two", as: reader, status: 200, shape: `[` + member + `,` + member + `]`},
		row{what: "one", query: "clientId=alice", status: 200, shape: `[` + member + `]`},
		row{what: "one page", query: "limit=1", status: 200, shape: `[` + member + `]`},
		row{what: "none", path: "/channels/nobody/presence", status: 200, shape: `[]`},
		row{what: "a limit that is none", query: "limit=x", status: 400, code: 40003},
		row{what: "a cursor that is none", query: "cursor=*", status: 400, code: 40003},
		row{what: "a channel that cannot be", path: "/channels/:x/presence", status: 400, code: 40010},
		row{what: "no right", as: "of a publisher", status: 401, code: 40160},
		row{what: "no TLS", path: "/channels/safe:x/presence", header: []string{plaintext, "http"}, status: 403, code: 40311},
		row{what: "a store that does as it likes", state: broken, status: 500, code: 50000},
		row{what: "a store that is away", state: away, status: 503, code: 50005},
	)

	add("GET /channels/{name}",
		row{what: "its state", status: 200, shape: details},
		row{what: "a channel that cannot be", path: "/channels/:x", status: 400, code: 40010},
		row{what: "no right", as: reader, status: 401, code: 40160},
		row{what: "no TLS", path: "/channels/safe:x", header: []string{plaintext, "http"}, status: 403, code: 40311},
		row{what: "a store that does as it likes", state: broken, status: 500, code: 50000},
		row{what: "a store that is away", state: away, status: 503, code: 50005},
	)

	add("GET /channels",
		row{what: "names", status: 200, shape: `["listed:1","listed:2"]`},
		row{what: "one page", query: "prefix=listed&limit=1", status: 200, shape: `["listed:1"]`},
		row{what: "none", query: "prefix=none", status: 200, shape: `[]`},
		row{what: "details", query: "prefix=listed&by=value", status: 200, shape: `[` + details + `,` + details + `]`},
		row{what: "details for an old client", header: []string{"X-Ably-Version", "2"}, status: 200, shape: `[` + details + `,` + details + `]`},
		row{what: "names for an old client", query: "prefix=listed&by=id&v=1.2", status: 200, shape: `["listed:1","listed:2"]`},
		row{what: "a limit that is none", query: "limit=1001", status: 400, code: 40003},
		row{what: "something else", query: "by=size", status: 400, code: 40003},
		row{what: "a cursor that is none", query: "cursor=*", status: 400, code: 40011},
		row{what: "a version that is none", query: "v=x", status: 400, code: 40017},
		row{what: "no right", as: reader, status: 401, code: 40160},
		row{what: "two at once", state: listing, status: 429, code: 42912},
		row{what: "a store that does as it likes", state: broken, status: 500, code: 50000},
		row{what: "a store that is away", state: away, status: 503, code: 50005},
	)

	spec := func(message string) string { return `{"channels":"batch:1","messages":` + message + `}` }
	result := func(inner string) string {
		return `{"successCount":"<number>","failureCount":"<number>","results":` + inner + `}`
	}
	failed := `[` + result(`[{"channel":"<string>","error":`+failure+`}]`) + `]`
	add("POST /messages",
		row{what: "two channels", status: 201, shape: `[` + result(`[`+said+`,`+said+`]`) + `]`},
		row{what: "two specs", body: `[` + spec(`{}`) + `,` + spec(`{}`) + `]`, status: 201, shape: `[` + result(`[`+said+`]`) + `,` + result(`[`+said+`]`) + `]`},
		row{what: "two channels for an old client", query: "v=2", status: 201, shape: `[` + said + `,` + said + `]`},
		row{what: "no specs", body: `[]`, status: 400, code: 40000},
		row{what: "no channel", body: `{"channels":[],"messages":{}}`, status: 400, code: 40000},
		row{what: "a body that is none", raw: `{"channels":`, status: 400, code: 40001},
		row{what: "a serial that is none", body: spec(`{"serial":7}`), status: 400, code: 40003},
		row{what: "a connection that is none", body: spec(`{"connectionKey":7}`), status: 400, code: 40006},
		row{what: "a body that is too large", raw: strings.Repeat(" ", 2<<20+1), status: 413, code: 40009},
		row{what: "an empty clientId", body: spec(`{"clientId":""}`), status: 400, code: 40012},
		row{what: "data that is a number", body: spec(`{"data":1}`), status: 400, code: 40013},
		row{what: "a name that is a number", body: spec(`{"name":1}`), status: 400, code: 40016},
		row{what: "a version that is none", header: []string{"X-Ably-Version", "new"}, status: 400, code: 40017},
		row{what: "a failure for an old client", query: "v=2", body: `{"channels":["batch:1",":x"],"messages":{}}`, status: 400, code: 40020,
			shape: `{"error":` + failure + `,"batchResponse":[` + said + `,{"channel":":x","error":` + failure + `}]}`},
		row{what: "an empty id", body: spec(`{"id":""}`), status: 400, code: 40031},
		row{what: "extras that are none", body: spec(`{"extras":7}`), status: 400, code: 40032},
		row{what: "too many messages", body: spec(times(1001, `{}`)), status: 400, code: 40034},
		row{what: "too many channels", body: `{"channels":` + numbered(101) + `,"messages":{}}`, status: 400, code: 90010},

		row{what: "ephemeral and other messages", body: spec(`[{},{"extras":{"ephemeral":true}}]`), status: 201, item: 40000, shape: failed},
		row{what: "a connection that is not there", body: spec(`{"connectionKey":"x"}`), status: 201, item: 40006, shape: failed},
		row{what: "a message that is too large", body: spec(`{"data":"` + strings.Repeat("x", 65537) + `"}`), status: 201, item: 40009, shape: failed},
		row{what: "a channel that cannot be", body: `{"channels":"batch:1","channels":":x","messages":{}}`, status: 201, item: 40010, shape: failed},
		row{what: "another clientId", as: "bob", body: spec(`{"clientId":"eve"}`), status: 201, item: 40012, shape: failed},
		row{what: "ids that do not belong together", body: spec(`[{"id":"a:0"},{"id":"b:1"}]`), status: 201, item: 40031, shape: failed},
		row{what: "extras that are not allowed", body: spec(`{"extras":{"x":1}}`), status: 201, item: 40032, shape: failed},
		row{what: "no right", as: reader, body: spec(`{}`), status: 201, item: 40160, shape: failed},
		row{what: "nobody in particular", as: "anonymous", body: `{"channels":"identified:x","messages":{}}`, status: 201, item: 40161, shape: failed},
		row{what: "no TLS", body: `{"channels":"safe:x","messages":{}}`, header: []string{plaintext, "http"}, status: 201, item: 40311, shape: failed},
		row{what: "more messages than may be", state: messages1, body: spec(`[{},{}]`), again: true, status: 201, item: 42913, shape: failed},
		row{what: "more bytes than may be", state: bytes1, body: spec(`{"data":"xx"}`), again: true, status: 201, item: 42914, shape: failed},
		row{what: "a store that does as it likes", state: broken, body: spec(`{}`), status: 201, item: 50000, shape: failed},
		row{what: "a store that does not answer", state: unknown, body: spec(`{}`), status: 201, item: 50003, shape: failed},
		row{what: "a full store", site: "full", body: `{"channels":"persisted:full","messages":{}}`, status: 201, item: 50004, shape: failed},
		row{what: "a store that is away", state: away, body: spec(`{}`), status: 201, item: 50005, shape: failed},
		row{what: "an update", body: spec(`{"action":1,"serial":"x","data":"y"}`), status: 201, item: 93002, shape: failed},
	)

	present := func(inner string) string { return `{"channel":"<string>","presence":` + inner + `}` }
	failed = result(`[{"channel":"<string>","error":` + failure + `}]`)
	add("GET /presence",
		row{what: "two channels", as: reader, status: 200, shape: result(`[` + present(`[`+member+`,`+member+`]`) + `,` + present(`[]`) + `]`)},
		row{what: "two channels for an old client", query: "channels=persisted:members|nobody&separator=|&v=2", status: 200, shape: `[` + present(`[`+member+`,`+member+`]`) + `,` + present(`[]`) + `]`},
		row{what: "no channel", query: "channels=", status: 400, code: 40003},
		row{what: "a version that is none", query: "channels=x&v=x", status: 400, code: 40017},
		row{what: "a failure for an old client", query: "channels=nobody,:x&v=2", status: 400, code: 40020,
			shape: `{"error":` + failure + `,"batchResponse":[` + present(`[]`) + `,{"channel":":x","error":` + failure + `}]}`},
		row{what: "too many channels", query: "channels=c" + strings.Repeat(",c", 100), status: 400, code: 90010},
		row{what: "too many members", query: "channels=many", status: 200, item: 40009, shape: failed},
		row{what: "a channel that cannot be", query: "channels=:x", status: 200, item: 40010, shape: failed},
		row{what: "no right", as: "of a publisher", query: "channels=persisted:members", status: 200, item: 40160, shape: failed},
		row{what: "no TLS", query: "channels=safe:x", header: []string{plaintext, "http"}, status: 200, item: 40311, shape: failed},
		row{what: "a store that does as it likes", query: "channels=persisted:members", state: broken, status: 200, item: 50000, shape: failed},
		row{what: "a store that is away", query: "channels=persisted:members", state: away, status: 200, item: 50005, shape: failed},
	)

	huge := `{"x":"` + strings.Repeat("x", 256<<10) + `"}`
	at := "POST /keys/{keyName}/requestToken"
	add(at,
		row{what: "a token for who has the key", status: 201, shape: tokenOf},
		row{what: "a token for a signed request", prepare: signedRequest(nil), status: 201, shape: tokenOf},
		row{what: "a token for bob", as: "bob", status: 201, shape: strings.TrimSuffix(tokenOf, "}") + `,"clientId":"bob"}`},
		row{what: "a capability that is none", body: `{"capability":"all"}`, status: 400, code: 40000},
		row{what: "a body that is none", raw: `{"ttl":`, status: 400, code: 40001},
		row{what: "a life that is too long", body: `{"ttl":86400001}`, status: 400, code: 40003},
		row{what: "a body that is too large", body: huge, status: 413, code: 40009},
		row{what: "an empty clientId", body: `{"clientId":""}`, status: 400, code: 40012},
		row{what: "a bad signature", prepare: signedRequest(func(q *auth.TokenRequest) { q.MAC = "bWFj" }), status: 401, code: 40101},
		row{what: "the key of others", as: reader, status: 401, code: 40101},
		row{what: "the name of another key", body: `{"keyName":"table.reader"}`, status: 401, code: 40101},
		row{what: "another clientId", as: "bob", body: `{"clientId":"eve"}`, status: 401, code: 40102},
		row{what: "a request of yesterday", prepare: signedRequest(func(q *auth.TokenRequest) { q.Timestamp = "1000000000000" }), status: 401, code: 40104},
		row{what: "a request that was used", prepare: twice, status: 401, code: 40105},
		row{what: "a nonce that is too short", body: `{"nonce":"short"}`, status: 401, code: 40105},
		row{what: "nothing that the key may do", as: reader, path: "/keys/table.reader/requestToken", body: `{"capability":{"x":["publish"]}}`, status: 401, code: 40160},
		row{what: "an unknown key", path: "/keys/table.nosuch/requestToken", status: 404, code: 40400},
		row{what: "an unknown app", path: "/keys/nosuch.all/requestToken", status: 404, code: 40400},
		row{what: "too many nonces", state: tooMany, prepare: signedRequest(nil), status: 503, code: 50004},
		row{what: "a store that is away", state: away, prepare: signedRequest(nil), status: 503, code: 50005},
	)
	add("GET /keys/{keyName}/requestToken",
		row{what: "nothing to get", as: nobody, status: 404, code: 40400},
	)
	add("POST /keys/{keyName}/revokeTokens",
		row{what: "a target", as: revocable, status: 201, shape: result(`[{"target":"clientId:somebody","issuedBefore":"<number>","appliesAt":"<number>"}]`)},
		row{what: "a target that is none", as: revocable, body: `{"targets":["x:y"]}`, status: 201, item: 40003, shape: result(`[{"target":"x:y","error":` + failure + `}]`)},
		row{what: "a target for an old client", as: revocable, query: "v=2", status: 201, shape: `[{"target":"clientId:somebody","issuedBefore":"<number>","appliesAt":"<number>"}]`},
		row{what: "a body that is none", as: revocable, raw: `{"targets":`, status: 400, code: 40001},
		row{what: "no targets", as: revocable, body: `{"targets":[]}`, status: 400, code: 40003},
		row{what: "the future", as: revocable, body: `{"targets":["clientId:x"],"issuedBefore":9000000000000}`, status: 400, code: 40003},
		row{what: "a body that is too large", as: revocable, body: huge, status: 413, code: 40009},
		row{what: "a version that is none", as: revocable, query: "v=x", status: 400, code: 40017},
		row{what: "another key", status: 401, code: 40133},
		row{what: "a token", as: "of a revocable key", status: 401, code: 40162},
		row{what: "a key that is not revocable", path: "/keys/table.all/revokeTokens", status: 401, code: 40163},
		row{what: "too many", as: crowded, path: "/keys/crowded.key/revokeTokens", status: 429, code: 42910},
		row{what: "a store that is away", state: away, as: revocable, status: 503, code: 50005},
	)

	interval := `"intervalId":"2024-02-03:15:03","unit":"minute"`
	add("GET /stats",
		row{what: "a minute", status: 200, shape: `[{` + interval + `,"schema":"<string>","appId":"table","entries":{"messages.inbound.realtime.messages.count":5,"messages.inbound.realtime.messages.data":50,"messages.inbound.realtime.all.count":5,"messages.inbound.realtime.all.data":50,"messages.inbound.all.messages.count":5,"messages.inbound.all.messages.data":50,"messages.inbound.all.all.count":5,"messages.inbound.all.all.data":50,"messages.all.messages.count":5,"messages.all.messages.data":50,"messages.all.all.count":5,"messages.all.all.data":50}}]`},
		row{what: "a minute for an old client", header: []string{"X-Ably-Version", "1.2"}, status: 200,
			shape: `[{` + interval + `,"all":"<any>","inbound":{"all":"<any>","realtime":{"all":"<any>","messages":{"count":5,"data":50}}}}]`},
		row{what: "none", query: "end=1", status: 200, shape: `[]`},
		row{what: "a unit that is none", query: "unit=year", status: 400, code: 40003},
		row{what: "a limit that is none", query: "limit=0", status: 400, code: 40003},
		row{what: "a version that is none", query: "v=x", status: 400, code: 40017},
		row{what: "no right", as: reader, status: 401, code: 40160},
		row{what: "a store that is away", state: away, status: 503, code: 50005},
	)
	add("POST /stats",
		row{what: "a minute", status: 201, shape: `[]`},
		row{what: "an interval that is none", body: `[{"intervalId":"x"}]`, status: 400, code: 40000},
		row{what: "a body that is none", raw: `[{"intervalId":`, status: 400, code: 40001},
		row{what: "a body that is too large", raw: strings.Repeat(" ", 2<<20+1), status: 413, code: 40009},
		row{what: "no right", as: reader, status: 401, code: 40160},
		row{what: "a token", as: "anonymous", status: 401, code: 40162},
		row{what: "no sandbox", site: "bare", status: 405, code: 40500},
		row{what: "a store that is away", state: away, status: 503, code: 50005},
	)

	add("POST /apps",
		row{what: "an app", as: nobody, status: 201, shape: appOf},
		row{what: "a namespace that is none", as: nobody, body: `{"namespaces":[{"id":"a:b"}]}`, status: 400, code: 40000},
		row{what: "a body that is none", as: nobody, raw: `{"keys":`, status: 400, code: 40001},
		row{what: "a body that is too large", as: nobody, body: huge, status: 413, code: 40009},
		row{what: "a channel that cannot be", as: nobody, body: `{"channels":[{"name":":x"}]}`, status: 400, code: 40010},
		row{what: "a member without a name", as: nobody, body: `{"channels":[{"name":"x","presence":[{}]}]}`, status: 400, code: 40012},
		row{what: "a member's data that is a number", as: nobody, body: `{"channels":[{"name":"x","presence":[{"clientId":"m","data":7}]}]}`, status: 400, code: 40013},
		row{what: "too many apps", as: nobody, state: manyApps, status: 429, code: 42910},
		row{what: "no sandbox", as: nobody, site: "bare", status: 404, code: 40400},
	)
	add("DELETE /apps/{id}",
		row{what: "an app", prepare: sandboxedApp, status: 204},
		row{what: "an app of others", path: "/apps/other", status: 401, code: 40100},
		row{what: "a token", as: "anonymous", status: 401, code: 40162},
		row{what: "an app of the configuration", status: 403, code: 40300},
		row{what: "no sandbox", site: "bare", status: 404, code: 40400},
	)

	connected := `[{"action":4,"connectionId":"<string>","connectionKey":"<string>","connectionDetails":"<any>"}]`
	add("GET /comet/connect",
		row{what: "a connection", media: jsonMedia, status: 200, shape: connected},
		row{what: "a connection that streams", media: jsonMedia, query: "v=3&format=json&stream=false", status: 200, shape: connected},
		row{what: "anybody", media: jsonMedia, query: "v=3&clientId=*", status: 400, code: 40012},
		row{what: "a version that is none", media: jsonMedia, query: "v=x", status: 400, code: 40017},
		row{what: "a version of old", media: jsonMedia, query: "v=1.2", status: 400, code: 80024},
		row{what: "another clientId", media: jsonMedia, as: "bob", query: "v=3&clientId=eve", status: 401, code: 40102},
		row{what: "too many connections", media: jsonMedia, state: connections1, status: 403, code: 40111},
		row{what: "a server that is none", media: jsonMedia, as: "bob", query: "v=3&clientType=server", status: 401, code: 40167},
		row{what: "more connections than may be", media: jsonMedia, again: true, state: limited(func(l *limit.Limits) { l.AppNewConnections = 1 }), status: 429, code: 80021},
		row{what: "a server that stops", media: jsonMedia, state: draining, status: 503, code: 50004},
		row{what: "a store that is away", media: jsonMedia, state: away, status: 503, code: 50005},
	)
	for _, verb := range []string{"GET /comet/{connectionKey}/recv", "POST /comet/{connectionKey}/send", "GET /comet/{connectionKey}/close", "GET /comet/{connectionKey}/disconnect"} {
		add(verb,
			row{what: "another key", media: jsonMedia, prepare: cometOf(keyOfAll, ""), as: reader, status: 401, code: 40102},
			row{what: "no TLS", media: jsonMedia, prepare: cometOf(keyOfAll, ""), header: []string{plaintext, "http"}, status: 403, code: 40311},
			row{what: "a transport of before", media: jsonMedia, prepare: superseded, status: 410, code: 80016},
			row{what: "no connection", media: jsonMedia, status: 410, code: 80022},
		)
	}
	add("GET /comet/{connectionKey}/recv",
		row{what: "an answer to a ping", media: jsonMedia, prepare: cometOf(keyOfAll, ""), status: 200, shape: `[{"action":0,"id":"ping"}]`},
	)
	add("POST /comet/{connectionKey}/send",
		row{what: "a ping", media: jsonMedia, prepare: cometOf(keyOfAll, ""), raw: `[{"action":0}]`, status: 204},
		row{what: "a frame that is too large", media: jsonMedia, prepare: cometOf(keyOfAll, ""), raw: `[{"action":0,"id":"` + strings.Repeat("x", 512<<10) + `"}]`,
			status: 413, code: 40009, shape: pmFailed},
		row{what: "a body that is none", media: jsonMedia, prepare: cometOf(keyOfAll, ""), raw: `{`, status: 400, code: 80013, shape: pmFailed},
	)
	for _, verb := range []string{"GET /comet/{connectionKey}/close", "GET /comet/{connectionKey}/disconnect"} {
		add(verb, row{what: "an end", media: jsonMedia, prepare: cometOf(keyOfAll, ""), status: 204})
	}

	for at, lines := range map[string]string{"GET /sse": "text/event-stream", "GET /event-stream": "application/x-ndjson"} {
		add(at,
			row{what: "a stream", media: lines, status: 200},
			row{what: "no channels", media: jsonMedia, query: "v=3", status: 400, code: 40000},
			row{what: "an id that is none", media: jsonMedia, query: "v=3&channels=table&lastEvent=x", status: 400, code: 40003},
			row{what: "a channel that cannot be", media: jsonMedia, query: "v=3&channels=:x", status: 400, code: 40010},
			row{what: "no version", media: jsonMedia, query: "channels=x", status: 400, code: 40017},
			row{what: "too many channels of an app", media: jsonMedia, state: limited(func(l *limit.Limits) { l.AppChannels = 1 }), query: "v=3&channels=a,b", status: 403, code: 40114},
			row{what: "no right", media: jsonMedia, as: "of a publisher", status: 401, code: 40160},
			row{what: "nobody in particular", media: jsonMedia, as: "anonymous", query: "v=3&channels=identified:x", status: 401, code: 40161},
			row{what: "no TLS", media: jsonMedia, query: "v=3&channels=safe:x", header: []string{plaintext, "http"}, status: 403, code: 40311},
			row{what: "a store that does as it likes", media: jsonMedia, state: broken, status: 500, code: 50000},
			row{what: "a server that stops", media: jsonMedia, state: draining, status: 503, code: 50004},
			row{what: "a store that is away", media: jsonMedia, state: away, status: 503, code: 50005},
			row{what: "too many channels", media: jsonMedia, state: limited(func(l *limit.Limits) { l.ConnectionChannels = 1 }), query: "v=3&channels=a,b", status: 400, code: 90010},
		)
	}

	add("GET /is-the-internet-up.txt", row{what: "yes", as: nobody, media: "text/plain", status: 200, shape: `"yes\n"`})
	add("GET /", row{what: "a greeting", as: nobody, media: "text/plain; charset=utf-8", status: 200, shape: `"<string>"`})
	for _, path := range []string{"/health", "/health/live", "/health/ready"} {
		add("GET "+path, row{what: "well", as: nobody, media: "application/json; charset=utf-8", status: 200, shape: `"<object>"`})
	}
	add("GET /health/ready", row{what: "a server that stops", as: nobody, state: draining, media: "application/json; charset=utf-8", status: 503, shape: `"<object>"`})
	add("GET /metrics", row{what: "figures", as: nobody, media: jsonMedia, status: 200, shape: `"<object>"`})
	add("GET /ws", row{what: "no token", as: nobody, media: "application/json; charset=utf-8", status: 401, shape: `{"error":"<string>"}`})
	add("GET /ws-up", row{what: "no WebSocket", as: nobody, media: "text/plain; charset=utf-8", status: 400, shape: `"<string>"`})
	return all
}

func numbered(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"c%d"`, i)
	}
	return "[" + strings.Join(list, ",") + "]"
}

// connections1 has the app have as many connections as it may.
func connections1(s *site) func() {
	s.connect(s.clients["HTTP/2.0"], keyOfAll, "")
	return limited(func(l *limit.Limits) { l.AppConnections = 1 })(s)
}

// Classes of endpoints, as the page about them calls them.
const (
	everyRequest = "every request"
	withKey      = "every request with credentials"
	withKeyPaced = "the same, but event streams and comet"
)

// public are the endpoints that want no credentials.
var public = []string{"GET /time", "POST /apps", "GET /keys/{keyName}/requestToken", "GET /channels/{name}/messages/{serial}"}

// refusing are the endpoints that answer with nothing but errors here.
var refusing = []string{
	"GET /keys/{keyName}/requestToken", "GET /ws", "GET /ws-up", "GET /channels/{name}/messages/{serial}", "PATCH /channels/{name}/messages/{serial}",
	"GET /channels/{name}/messages/{serial}/annotations", "POST /channels/{name}/messages/{serial}/annotations",
}

// commonRows are what many endpoints have in common, by the class of these.
func commonRows() map[string][]row {
	all := make(map[string][]row)
	streams := []string{"GET /sse", "GET /event-stream"}
	api, transports := rest.Endpoints(), comet.Endpoints()
	for _, at := range slices.Concat(api, streams, transports) {
		media := jsonMedia
		if slices.Contains(api, at) {
			media = ""
		}
		add := func(class string, r row) {
			if r.at = at; r.code != 42922 { // which a guard tells before any of them
				r.media = media
			}
			all[class] = append(all[class], r)
		}
		add(everyRequest, row{what: "another method", method: "PUT", status: 405, code: 40500})
		add(everyRequest, row{what: "an address that failed", header: []string{"X-Forwarded-For", "203.0.113.7"},
			state: limited(func(l *limit.Limits) { l.AddressFailures = 1 }), prepare: stranger, again: true, status: 429, code: 42922})
		if slices.Contains(public, at) {
			continue
		}
		realtime := slices.Contains(transports, at)
		for _, c := range []struct {
			what, as                     string
			header                       []string
			status, code                 int
			realtimeStatus, realtimeCode int // 0: it does not matter there
		}{
			{"no credentials", nobody, nil, 401, 40101, 401, 40101},
			{"a key that is none", "nonsense", nil, 400, 40005, 401, 40101},
			{"an unknown app", "nosuch.key:" + tableSecret, nil, 404, 40400, 401, 40101},
			{"an unknown key", "table.nosuch:" + tableSecret, nil, 401, 40400, 401, 40101},
			{"a wrong secret", "table.all:wrong", nil, 401, 40101, 401, 40101},
			{"a header that is unreadable", keyOfAll, []string{"X-Ably-ClientId", "%"}, 400, 40004, 0, 0},
			{"a header for anybody", keyOfAll, header64("*"), 400, 40012, 0, 0},
			{"a header for another", "bob", header64("eve"), 401, 40102, 0, 0},
			{"a token of no capability", "of no capability", nil, 400, 40000, 400, 40000},
			{"a token of a long life", "of long life", nil, 400, 40003, 400, 40003},
			{"a token of a key that is gone", "of a key gone", nil, 401, 40130, 401, 40130},
			{"a token of a key with another secret", "of a changed key", nil, 401, 40131, 401, 40131},
			{"a revoked token", "revoked", nil, 401, 40141, 401, 40141},
			{"a token that has expired", "expired", nil, 401, 40142, 401, 40142},
			{"a forged token", "forged", nil, 401, 40144, 401, 40144},
			{"a token without a time", "of no time", nil, 400, 40144, 400, 40144},
			{"a tampered token", "tampered", nil, 401, 40145, 401, 40145},
			{"a token of no use", "of no use", nil, 401, 40160, 401, 40160},
			{"a published key from afar", published, []string{"X-Forwarded-For", "203.0.113.8"}, 403, 40300, 403, 40300},
		} {
			r := row{what: c.what, as: c.as, header: c.header, status: c.status, code: c.code}
			if realtime {
				r.status, r.code = c.realtimeStatus, c.realtimeCode
			}
			if c.as == published && strings.Contains(at, "requestToken") {
				r.path = "/keys/table.published/requestToken"
			}
			if r.code != 0 {
				add(withKey, r)
			}
		}
		if !realtime && !slices.Contains(streams, at) {
			add(withKeyPaced, row{what: "more requests than may be", as: pacedKey(at), state: paced, again: true, status: 429, code: 42918})
		}
	}
	return all
}

// pacedKey is one that can do something at an endpoint.
func pacedKey(at string) string {
	if strings.Contains(at, "revokeTokens") {
		return revocable
	}
	return keyOfAll
}
