package rest_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "app.key:secret"

// newAPI returns the API on a store of its own. Its app has a key for everything and one,
// "app.reader:secret", for subscribing only.
func newAPI(t *testing.T) http.Handler {
	t.Helper()
	api, _ := newAPIAndHub(t)
	return api
}

func newAPIAndHub(t *testing.T) (http.Handler, *hub.Hub) {
	t.Helper()
	me := directory.Node{Name: "n1", Incarnation: "i1"}
	h := hub.New(hub.Options{
		Engine:    enginememory.NewStore(enginememory.Options{}).Node(me.Name),
		Directory: directorymemory.NewStore(directorymemory.Options{}).Node(me), Node: me,
		Limits: limit.NewSet(limit.Limits{BodyBytes: 100_000}, limit.Options{}),
	})
	t.Cleanup(h.Close)
	reader, err := auth.ParseCapability(`{"*":["subscribe"]}`)
	if err != nil {
		t.Fatal(err)
	}
	app, err := auth.NewApp("app", []auth.Key{{ID: "key", Secret: "secret"}, {ID: "reader", Secret: "secret", Capability: reader}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rest.New(rest.Options{Hub: h, Auth: auth.NewAuthenticator(auth.NewRegistry(app), nil)}), h
}

// request is one to the API; the zero values are GET, the key of the app and JSON.
type request struct {
	method, path string
	key          string // "-": none
	body         string
	header       map[string]string
	chunked      bool // the length of the body is not told
}

func do(t *testing.T, api http.Handler, r request) *http.Response {
	t.Helper()
	if r.method == "" {
		r.method = http.MethodGet
	}
	req := httptest.NewRequest(r.method, "http://server", strings.NewReader(r.body))
	u, err := url.Parse("http://server" + r.path)
	if err != nil {
		t.Fatal(err)
	}
	req.URL = u
	if r.chunked {
		req.ContentLength = -1
	}
	switch r.key {
	case "-":
	case "":
		r.key = key
		fallthrough
	default:
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(r.key)))
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, req)
	return w.Result()
}

var inMsgpack = map[string]string{"Accept": "application/x-msgpack"}

// body decodes the body of an answer by its content type.
func body(t *testing.T, res *http.Response) any {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(res.Header.Get("Content-Length")); err != nil || n != len(b) {
		t.Errorf("Content-Length %q for %d bytes", res.Header.Get("Content-Length"), len(b))
	}
	var v any
	switch ct := res.Header.Get("Content-Type"); ct {
	case "application/json":
		err = json.Unmarshal(b, &v)
	case "application/x-msgpack":
		d := msgpack.NewDecoder(bytes.NewReader(b))
		d.UseLooseInterfaceDecoding(true)
		v, err = d.DecodeInterfaceLoose()
		v = floats(v)
	default:
		t.Fatalf("Content-Type is %q", ct)
	}
	if err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return v
}

// floats makes numbers of MessagePack what they are in JSON.
func floats(v any) any {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = floats(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = floats(v[k])
		}
	}
	return v
}

// HP4, HP6-7, TI1
func TestErrorsAreToldInHeadersAndBodyInTheClientsFormat(t *testing.T) {
	api := newAPI(t)
	for _, c := range []struct {
		what         string
		request      request
		status, code int
	}{
		{"an unknown path", request{path: "/nowhere"}, 404, 40400},
		{"the root", request{path: "/"}, 404, 40400},
		{"a path that is too long", request{path: "/channels/x/messages/more/and/more"}, 404, 40400},
		{"a path with dots, which is not followed", request{path: "/channels/../time"}, 404, 40400},
		{"a path with an empty segment", request{path: "//time"}, 404, 40400},
		{"an unknown resource of a channel", request{path: "/channels/x/nothing"}, 404, 40400},
		{"the requestToken that there is not", request{path: "/keys/app.key/requestToken"}, 404, 40400},
		{"a wrong method", request{method: "DELETE", path: "/time"}, 405, 40500},
		{"a wrong method of a channel", request{method: "PUT", path: "/channels/x/messages"}, 405, 40500},
		{"no credentials", request{path: "/channels/x/messages", key: "-"}, 401, 40101},
		{"a wrong secret", request{path: "/channels/x/messages", key: "app.key:wrong"}, 401, 40101},
		{"a key that is none", request{path: "/channels/x/messages", key: "nonsense"}, 400, 40005},
		{"an unknown app", request{path: "/channels/x/messages", key: "no.key:secret"}, 404, 40400},
		{"an unknown key", request{path: "/channels/x/messages", key: "app.nokey:secret"}, 401, 40400},
		{"no capability to read", request{path: "/channels/x/messages", key: "app.reader:secret"}, 401, 40160},
		{"no capability to publish", request{method: "POST", path: "/channels/x/messages", key: "app.reader:secret", body: `{}`}, 401, 40160},
		{"a channel that cannot be", request{path: "/channels/:x/messages"}, 400, 40010},
		{"a channel that cannot be, with control characters", request{path: "/channels/%0A%00%E6%B5%8B/messages"}, 400, 40010},
		{"a limit that is none", request{path: "/channels/x/messages?limit=ten"}, 400, 40003},
		{"a limit of nothing", request{path: "/channels/x/messages?limit=0"}, 400, 40003},
		{"a limit beyond the limit", request{path: "/channels/x/messages?limit=1001"}, 400, 40003},
		{"a direction that is none", request{path: "/channels/x/messages?direction=up"}, 400, 40003},
		{"a start after the end", request{path: "/channels/x/messages?start=2&end=1"}, 400, 40003},
		{"a start that is no time", request{path: "/channels/x/messages?start=now"}, 400, 40003},
		{"a cursor that is none", request{path: "/channels/x/messages?cursor=abc"}, 400, 40003},
		{"an attach point that is none", request{path: "/channels/x/messages?from_serial=abc"}, 400, 90008},
		{"a body that is no JSON", request{method: "POST", path: "/channels/x/messages", body: `{"name":`}, 400, 40001},
		{"an empty body", request{method: "POST", path: "/channels/x/messages"}, 400, 40001},
		{"no messages", request{method: "POST", path: "/channels/x/messages", body: `[]`}, 400, 40000},
		{"data that is a number", request{method: "POST", path: "/channels/x/messages", body: `{"data":1}`}, 400, 40013},
		{"a name that is a number", request{method: "POST", path: "/channels/x/messages", body: `{"name":1}`}, 400, 40016},
		{"an empty clientId", request{method: "POST", path: "/channels/x/messages", body: `{"clientId":""}`}, 400, 40012},
		{"a clientId header that is not base64", request{method: "POST", path: "/channels/x/messages", body: `{}`, header: map[string]string{"X-Ably-ClientId": "%%%"}}, 400, 40004},
		{"a message too large", request{method: "POST", path: "/channels/x/messages", body: `{"data":"` + strings.Repeat("x", 65537) + `"}`}, 413, 40009},
		{"a body too large", request{method: "POST", path: "/channels/x/messages", body: strings.Repeat(" ", 100_001)}, 413, 40009},
		{"a body too large that does not say so", request{method: "POST", path: "/channels/x/messages", body: strings.Repeat(" ", 100_001), chunked: true}, 413, 40009},
		{"a publish that asks for it", request{method: "POST", path: "/channels/x/messages?_forceNack=true", body: `{}`}, 400, 40099},
	} {
		for _, format := range []string{"application/json", "application/x-msgpack"} {
			r := c.request
			r.header = map[string]string{"Accept": format}
			for k, v := range c.request.header {
				r.header[k] = v
			}
			res := do(t, api, r)
			if ct := res.Header["Content-Type"]; !slices.Equal(ct, []string{format}) {
				t.Errorf("%s: Content-Type %q, want exactly %q", c.what, ct, format)
				continue
			}
			v, _ := body(t, res).(map[string]any)
			e, _ := v["error"].(map[string]any)
			message, _ := e["message"].(string)
			if res.StatusCode != c.status || e["code"] != float64(c.code) || e["statusCode"] != float64(c.status) || message == "" || len(v) != 1 {
				t.Errorf("%s: status %d with %v, want %d with code %d", c.what, res.StatusCode, v, c.status, c.code)
			}
			if h := res.Header.Get("X-Ably-Errorcode"); h != strconv.Itoa(c.code) {
				t.Errorf("%s: X-Ably-Errorcode %q", c.what, h)
			}
			if h := res.Header.Get("X-Ably-Errormessage"); !regexp.MustCompile(`^[ -~]+$`).MatchString(h) {
				t.Errorf("%s: X-Ably-Errormessage %q", c.what, h)
			}
		}
	}
}

func TestBrowsersAreToldErrorsInJSONUnlessInAnEnvelope(t *testing.T) {
	api := newAPI(t)
	browser := map[string]string{"Accept": msgpackType, "Origin": "https://app.example"}
	for _, c := range []struct {
		request request
		want    string
	}{
		{request{method: "POST", path: "/channels/x/messages", key: "app.key:wrong", body: "{}"}, jsonType},
		{request{path: "/nowhere"}, jsonType},
		{request{path: "/nowhere?format=msgpack"}, jsonType},
		{request{path: "/nowhere?envelope=msgpack"}, msgpackType},
		{request{path: "/channels/x/messages"}, msgpackType},
	} {
		c.request.header = browser
		res := do(t, api, c.request)
		if ct := res.Header.Get("Content-Type"); ct != c.want {
			t.Errorf("%s: %q, want %q", c.request.path, ct, c.want)
		}
		if v, _ := body(t, res).(map[string]any); res.StatusCode >= 400 && v["error"] == nil {
			t.Errorf("%s: %d with %v", c.request.path, res.StatusCode, v)
		}
	}
}

// RSC8a-d
func TestTheFormatOfTheAnswerIsTheFirstThatTheClientAcceptsAndWeHave(t *testing.T) {
	api := newAPI(t)
	const j, m = "application/json", "application/x-msgpack"
	for _, c := range []struct{ accept, query, want string }{
		{"", "", j},
		{"*/*", "", j},
		{"text/html", "", j},
		{j, "", j},
		{m, "", m},
		{"Application/X-MsgPack", "", m},
		{m + "," + j, "", m},
		{j + ", " + m, "", j},
		{"text/html, " + m + ";q=0.5", "", m},
		{j + "; charset=utf-8", "", j},
		{j, "?format=msgpack", m},
		{m, "?format=json", j},
		{m, "?format=html", m},
	} {
		r := request{path: "/time" + c.query, key: "-"}
		if c.accept != "" {
			r.header = map[string]string{"Accept": c.accept}
		}
		res := do(t, api, r)
		if ct := res.Header.Get("Content-Type"); ct != c.want {
			t.Errorf("Accept %q, query %q: got %s", c.accept, c.query, ct)
			continue
		}
		list, _ := body(t, res).([]any)
		if len(list) != 1 || time.Since(time.UnixMilli(int64(list[0].(float64)))).Abs() > time.Minute {
			t.Errorf("the time is %v", list)
		}
	}
}

func TestTheFormatOfTheBodyIsThatOfItsContentType(t *testing.T) {
	api := newAPI(t)
	packed, err := msgpack.Marshal(map[string]any{"name": "packed", "data": []byte{1, 2, 255}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []request{
		{body: `{"name":"plain","data":"AQL/","encoding":"base64"}`, header: map[string]string{"Content-Type": "application/json; charset=utf-8", "Accept": "application/x-msgpack"}},
		{body: string(packed), header: map[string]string{"Content-Type": "application/x-msgpack", "Accept": "application/json"}},
		{body: `[{"name":"typeless","data":"AQL/","encoding":"base64"}]`},
	} {
		r.method, r.path = http.MethodPost, "/channels/formats/messages"
		res := do(t, api, r)
		if res.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %d %v", r.body, res.StatusCode, body(t, res))
		}
	}
	plain := body(t, do(t, api, request{path: "/channels/formats/history?direction=forwards"})).([]any)
	raw := body(t, do(t, api, request{path: "/channels/formats/history?direction=forwards", header: inMsgpack})).([]any)
	for i, name := range []string{"plain", "packed", "typeless"} {
		p, r := plain[i].(map[string]any), raw[i].(map[string]any)
		if p["name"] != name || p["data"] != "AQL/" || p["encoding"] != "base64" {
			t.Errorf("in JSON: %v", p)
		}
		if _, encoded := r["encoding"]; r["name"] != name || r["data"] != "\x01\x02\xff" || encoded {
			t.Errorf("in MessagePack: %v", r)
		}
	}
}

func TestAnAnswerRepeatsWhatTheClientCallsTheRequest(t *testing.T) {
	api := newAPI(t)
	for id, want := range map[string]string{
		"": "", "Zm9v_-9": "Zm9v_-9", "a%0D%0Ab": "", "a%20b": "", strings.Repeat("x", 64): strings.Repeat("x", 64), strings.Repeat("x", 65): "",
	} {
		for _, path := range []string{"/time", "/nowhere"} {
			res := do(t, api, request{path: path + "?request_id=" + id})
			if got := res.Header.Get("X-Ably-Requestid"); got != want {
				t.Errorf("%s called %q: %q", path, id, got)
			}
			enveloped := body(t, do(t, api, request{path: path + "?envelope=json&request_id=" + id})).(map[string]any)["headers"].(map[string]any)
			if got, _ := enveloped["x-ably-requestid"].(string); got != want {
				t.Errorf("%s called %q, in an envelope: %q", path, id, got)
			}
		}
	}
}

func TestABodyThatIsTooLargeIsNotAskedFor(t *testing.T) {
	server := httptest.NewServer(newAPI(t))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	basic := base64.StdEncoding.EncodeToString([]byte(key))
	fmt.Fprintf(conn, "POST /channels/x/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nExpect: 100-continue\r\nContent-Length: 100001\r\n\r\n", basic)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != 413 || res.Header.Get("X-Ably-Errorcode") != "40009" {
		t.Errorf("got %v %v", res, err)
	}
}

// RSL1n
func TestAPublishIsAnsweredWithChannelIDAndSerials(t *testing.T) {
	api := newAPI(t)
	for _, accept := range []map[string]string{nil, inMsgpack} {
		res := do(t, api, request{method: "POST", path: "/channels/a%2Fb%3Fc/messages", body: `[{"name":"1"},{"name":"2"}]`, header: accept})
		v := body(t, res).(map[string]any)
		serials, _ := v["serials"].([]any)
		id, _ := v["messageId"].(string)
		if res.StatusCode != http.StatusCreated || v["channel"] != "a/b?c" || len(serials) != 2 || !strings.HasSuffix(id, ":0") || len(v) != 3 {
			t.Fatalf("%d %v", res.StatusCode, v)
		}
		list := body(t, do(t, api, request{path: "/channels/a%2Fb%3Fc/messages?limit=2&direction=backwards"})).([]any)
		newest := list[0].(map[string]any)
		if newest["name"] != "2" || newest["serial"] != serials[1] || newest["id"] != strings.TrimSuffix(id, "0")+"1" || newest["action"] != 0.0 {
			t.Errorf("the newest message is %v after %v", newest, v)
		}
	}
}

// RSL1k4-5
func TestARepeatedPublishIsAnsweredAsTheFirst(t *testing.T) {
	api := newAPI(t)
	publish := func() any {
		return body(t, do(t, api, request{method: "POST", path: "/channels/x/messages", body: `[{"id":"base:0","name":"1"},{"id":"base:1","name":"2"}]`}))
	}
	first, second := fmt.Sprint(publish()), fmt.Sprint(publish())
	if first != second {
		t.Errorf("first %s, then %s", first, second)
	}
	if list := body(t, do(t, api, request{path: "/channels/x/messages"})).([]any); len(list) != 2 {
		t.Errorf("%d messages are kept", len(list))
	}
}

func TestObjectsAsDataAreKeptAsJSONText(t *testing.T) {
	api := newAPI(t)
	do(t, api, request{method: "POST", path: "/channels/x/messages", body: `{"data":{"b":[1,2.50,null],"a":"ä"}}`})
	m := body(t, do(t, api, request{path: "/channels/x/messages"})).([]any)[0].(map[string]any)
	if m["encoding"] != "json" || m["data"] != `{"b":[1,2.50,null],"a":"ä"}` {
		t.Errorf("got %v", m)
	}
}

// RSL1e
func TestAbsentNullAndEmptyAreKeptApart(t *testing.T) {
	api := newAPI(t)
	for body, want := range map[string]string{
		`{}`:                             "absent",
		`{"name":null,"data":null}`:      "absent",
		`{"data":""}`:                    "empty",
		`{"data":"","encoding":"utf-8"}`: "empty",
		`{"name":"","data":""}`:          "empty",
	} {
		do(t, api, request{method: "POST", path: "/channels/x/messages", body: body})
		m := bodyOfNewest(t, api)
		data, present := m["data"]
		name, named := m["name"]
		if named != strings.Contains(body, `"name":""`) || named && name != "" || (want == "empty") != present || present && data != "" {
			t.Errorf("%s became %v", body, m)
		}
	}
}

// RSL1l
func TestAPublishMayAskNotToBeKept(t *testing.T) {
	api := newAPI(t)
	res := do(t, api, request{method: "POST", path: "/channels/x/messages?ephemeral=true", body: `{"name":"a"}`})
	if res.StatusCode != 201 {
		t.Errorf("%s", res.Status)
	}
	if kept := body(t, do(t, api, request{path: "/channels/x/messages"})).([]any); len(kept) != 0 {
		t.Errorf("kept: %v", kept)
	}
}

func bodyOfNewest(t *testing.T, api http.Handler) map[string]any {
	t.Helper()
	return body(t, do(t, api, request{path: "/channels/x/messages?limit=1"})).([]any)[0].(map[string]any)
}

// RSA7e2
func TestThePublisherIsWhomTheHeaderOrTheParameterNames(t *testing.T) {
	api := newAPI(t)
	header := map[string]string{"X-Ably-ClientId": base64.StdEncoding.EncodeToString([]byte("böb"))}
	for _, c := range []struct {
		r    request
		want any
	}{
		{request{body: `{}`}, nil},
		{request{body: `{"clientId":"any"}`}, "any"},
		{request{body: `{}`, header: header}, "böb"},
		{request{body: `{"clientId":"böb"}`, header: header}, "böb"},
	} {
		c.r.method, c.r.path = http.MethodPost, "/channels/x/messages"
		if res := do(t, api, c.r); res.StatusCode != http.StatusCreated {
			t.Fatalf("%v: %v", c.r, body(t, res))
		}
		if got := bodyOfNewest(t, api)["clientId"]; got != c.want {
			t.Errorf("%s with %v: clientId %v, want %v", c.r.body, c.r.header, got, c.want)
		}
	}
	res := do(t, api, request{method: "POST", path: "/channels/x/messages", body: `{"clientId":"eve"}`, header: header})
	if res.StatusCode != http.StatusBadRequest || res.Header.Get("X-Ably-Errorcode") != "40012" {
		t.Errorf("another's clientId: %d %s", res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
	}
}

func TestHeadIsAnsweredLikeGetWithoutABody(t *testing.T) {
	api := newAPI(t)
	res := do(t, api, request{method: "HEAD", path: "/time"})
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK || len(b) != 0 || res.Header.Get("Content-Length") == "0" {
		t.Errorf("%d with %q", res.StatusCode, b)
	}
}

// linkForm is what the JavaScript SDK understands.
var linkForm = regexp.MustCompile(`^<(\./\w+)\?([^,<> ]*)>; rel="(\w+)"$`)

// links returns the parameters of a page's Link headers by relation.
func links(t *testing.T, res *http.Response, resource string) map[string]url.Values {
	t.Helper()
	all := make(map[string]url.Values)
	for _, h := range res.Header.Values("Link") {
		m := linkForm.FindStringSubmatch(h)
		if m == nil || m[1] != "./"+resource {
			t.Fatalf("Link %q", h)
		}
		q, err := url.ParseQuery(m[2])
		if err != nil || all[m[3]] != nil {
			t.Fatalf("Link %q: %v", h, err)
		}
		all[m[3]] = q
	}
	return all
}

// TG4-6
func TestLinksKeepTheParametersAndNameEachRelationOnce(t *testing.T) {
	api := newAPI(t)
	for i := range 5 {
		do(t, api, request{method: "POST", path: "/channels/x/messages", body: fmt.Sprintf(`{"name":"%d"}`, i)})
	}
	for _, resource := range []string{"messages", "history"} {
		res := do(t, api, request{path: "/channels/x/" + resource + "?limit=2&direction=forwards&start=1&key=secret&unknown=a%2Cb"})
		l := links(t, res, resource)
		if len(l) != 3 || l["first"] == nil || l["current"] == nil || l["next"] == nil {
			t.Fatalf("links %v", l)
		}
		for rel, q := range l {
			if q.Get("limit") != "2" || q.Get("direction") != "forwards" || q.Get("start") != "1" || q.Has("key") || q.Has("cursor") != (rel == "next") {
				t.Errorf("%s has %v", rel, q)
			}
		}
		last := do(t, api, request{path: "/channels/x/" + resource + "?limit=5"})
		if l := links(t, last, resource); len(l) != 2 || l["next"] != nil {
			t.Errorf("the last page has links %v", l)
		}
	}
}

func TestPagesStayWhatTheyAreWhileMessagesArrive(t *testing.T) {
	for _, direction := range []string{"forwards", "backwards"} {
		api := newAPI(t)
		publish := func(names ...string) {
			var list []string
			for _, n := range names {
				list = append(list, fmt.Sprintf(`{"name":%q}`, n))
			}
			do(t, api, request{method: "POST", path: "/channels/x/messages", body: "[" + strings.Join(list, ",") + "]"})
		}
		publish("1", "2")
		publish("3")
		publish("4", "5", "6", "7")
		want := []string{"1", "2", "3", "4", "5", "6", "7"}
		if direction == "backwards" {
			slices.Reverse(want)
		}
		var got []string
		var again []url.Values
		q := url.Values{"limit": {"2"}, "direction": {direction}}
		for {
			res := do(t, api, request{path: "/channels/x/messages?" + q.Encode()})
			for _, m := range body(t, res).([]any) {
				got = append(got, m.(map[string]any)["name"].(string))
			}
			l := links(t, res, "messages")
			again = append(again, l["current"])
			if l["next"] == nil {
				break
			}
			q = l["next"]
			if direction == "backwards" {
				publish("later")
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", direction, got, want)
		}
		// The pages but the first are the same when they are read again.
		var reread []string
		for _, q := range again[1:] {
			for _, m := range body(t, do(t, api, request{path: "/channels/x/messages?" + q.Encode()})).([]any) {
				reread = append(reread, m.(map[string]any)["name"].(string))
			}
		}
		if !slices.Equal(reread, want[2:]) {
			t.Errorf("%s: read again %v, want %v", direction, reread, want[2:])
		}
	}
}

// RSL2b1, RTL10b
func TestHistoryIsBoundedByTimeAndByAttachPoint(t *testing.T) {
	api := newAPI(t)
	var serials []string
	var times []float64
	for i := range 4 {
		v := body(t, do(t, api, request{method: "POST", path: "/channels/x/messages", body: fmt.Sprintf(`{"name":"%d"}`, i)})).(map[string]any)
		serials = append(serials, v["serials"].([]any)[0].(string))
		times = append(times, bodyOfNewest(t, api)["timestamp"].(float64))
	}
	names := func(query string) (list []string) {
		for _, m := range body(t, do(t, api, request{path: "/channels/x/messages?direction=forwards&" + query})).([]any) {
			list = append(list, m.(map[string]any)["name"].(string))
		}
		return list
	}
	position, _, _ := strings.Cut(serials[2], ":")
	for _, param := range []string{"from_serial", "fromSerial"} {
		if got := names(param + "=" + url.QueryEscape(position)); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Errorf("%s: got %v", param, got)
		}
	}
	if got := names(fmt.Sprintf("end=%.0f", times[0]-1)); got != nil {
		t.Errorf("before all: got %v", got)
	}
	if got := names(fmt.Sprintf("start=%.0f", times[3]+1)); got != nil {
		t.Errorf("after all: got %v", got)
	}
	if got := names(fmt.Sprintf("start=%.0f&end=%.0f", times[0], times[3])); len(got) != 4 {
		t.Errorf("from the first to the last: got %v", got)
	}
}
