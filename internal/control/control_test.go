package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/control"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	token     = "an-access-token-of-these-tests-only"
	newToken  = "another-access-token-of-these-tests"
	ownSecret = "secret-of-the-configuration"
)

// fixture is an API whose configuration has the app "own", with the key "key".
type fixture struct {
	*control.API
	registry *auth.Registry
	auth     *auth.Authenticator
	apps     *apps.Apps
	log      bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	own, err := auth.NewApp("own", []auth.Key{{ID: "key", Secret: ownSecret, Revocable: true}}, []auth.Namespace{{ID: "kept", Persisted: true}})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{registry: auth.NewRegistry(own)}
	f.auth = auth.NewAuthenticator(f.registry, nil)
	f.apps = apps.New(apps.Options{Store: directorymemory.NewStore(directorymemory.Options{}).Node(directory.Node{}), Registry: f.registry})
	f.API = control.New(control.Options{
		Apps: f.apps, Registry: f.registry, Log: slog.New(slog.NewTextHandler(&f.log, nil)),
		Stats: func(r *http.Request, app string) ([]byte, []string, error) {
			return []byte(`[{"appId":"` + app + `","unit":"` + r.URL.Query().Get("unit") + `"}]`), []string{`<./stats?>; rel="first"`}, nil
		},
	})
	f.SetTokens([]control.Token{{Name: "first", Secret: "x" + token}, {Name: "second", Secret: token}})
	return f
}

// request is one to the API; the zero values are GET, a good token, and a local peer.
type request struct {
	method, path, body string
	token              string // "-": none
	peer               string
	tls, chunked       bool
	header             map[string]string
}

type reply struct {
	status int
	header http.Header
	text   string
}

func (f *fixture) do(t *testing.T, r request) reply {
	t.Helper()
	if r.method == "" {
		r.method = http.MethodGet
	}
	if r.peer == "" {
		r.peer = "127.0.0.1:4711"
	}
	scheme := "http"
	if r.tls {
		scheme = "https"
	}
	req := httptest.NewRequest(r.method, scheme+"://server/v1"+r.path, strings.NewReader(r.body))
	req.RemoteAddr = r.peer
	if r.chunked {
		req.ContentLength = -1
	}
	switch r.token {
	case "-":
	case "":
		r.token = token
		fallthrough
	default:
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, req)
	text, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{w.Code, w.Result().Header, string(text)}
}

// ok sends a request that must succeed, and reads its answer.
func (f *fixture) ok(t *testing.T, status int, r request, into any) {
	t.Helper()
	got := f.do(t, r)
	if got.status != status {
		t.Fatalf("%s %s: status %d, want %d: %s", r.method, r.path, got.status, status, got.text)
	}
	if into == nil {
		if got.text != "" {
			t.Errorf("%s %s: a body: %s", r.method, r.path, got.text)
		}
		return
	}
	if ct := got.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s %s: %s", r.method, r.path, ct)
	}
	if err := json.Unmarshal([]byte(got.text), into); err != nil {
		t.Fatalf("%s %s: %v in %s", r.method, r.path, err, got.text)
	}
}

type object = map[string]any

// app makes an app with a key and a namespace, and returns their ids.
func (f *fixture) app(t *testing.T) (app, key string) {
	t.Helper()
	var a, k, n object
	f.ok(t, 201, request{method: "POST", path: "/accounts/letshare/apps", body: `{"name":"shop"}`}, &a)
	app = a["id"].(string)
	f.ok(t, 201, request{method: "POST", path: "/apps/" + app + "/keys", body: `{"name":"root","capability":{"*":["*"]}}`}, &k)
	f.ok(t, 201, request{method: "POST", path: "/apps/" + app + "/namespaces", body: `{"id":"there"}`}, &n)
	return app, k["id"].(string)
}

func (f *fixture) enters(key string) error {
	_, err := f.auth.REST(url.Values{"key": {key}}, nil)
	return err
}

func expect(t *testing.T, what string, got, want object) {
	t.Helper()
	for name, v := range want {
		a, _ := json.Marshal(got[name])
		if b, _ := json.Marshal(v); string(a) != string(b) {
			t.Errorf("%s: %s is %s, want %s", what, name, a, b)
		}
	}
}

func TestAnAppIsMadeUsedChangedAndDeleted(t *testing.T) {
	f := newFixture(t)
	var me struct {
		Token   struct{ ID, Name string }
		User    struct{ ID int }
		Account struct{ ID, Name string }
	}
	f.ok(t, 200, request{path: "/me"}, &me)
	if me.Account.ID == "" || me.Account.Name == "" || me.Token.ID != "second" || me.User.ID == 0 {
		t.Errorf("got %+v", me)
	}
	all := "/accounts/" + me.Account.ID + "/apps"
	var app, key, namespace object
	f.ok(t, 201, request{method: "POST", path: all, body: `{"name":"Größe <1>","status":"enabled","tlsOnly":false}`}, &app)
	expect(t, "the app", app, object{"name": "Größe <1>", "status": "enabled", "tlsOnly": false, "accountId": me.Account.ID})
	id := app["id"].(string)
	if len(id) != 6 || app["created"].(float64) == 0 || app["created"] != app["modified"] {
		t.Errorf("got %v", app)
	}

	keys := "/apps/" + id + "/keys"
	f.ok(t, 201, request{method: "POST", path: keys, body: `{"name":"root","capability":{"b":["subscribe","publish"],"a:*":["*"]},"revocableTokens":true}`}, &key)
	capability := object{"b": []string{"subscribe", "publish"}, "a:*": []string{"*"}}
	expect(t, "the key", key, object{"name": "root", "appId": id, "status": 0, "revocableTokens": true, "capability": capability})
	whole := key["key"].(string)
	if !strings.HasPrefix(whole, id+"."+key["id"].(string)+":") || f.enters(whole) != nil {
		t.Errorf("%v does not get in", key)
	}

	namespaces := "/apps/" + id + "/namespaces"
	f.ok(t, 201, request{method: "POST", path: namespaces, body: `{"id":"a/b","authenticated":true,"persisted":true,"exposeTimeserial":true}`}, &namespace)
	expect(t, "the namespace", namespace, object{"id": "a/b", "appId": id, "authenticated": true, "identified": true, "persisted": true,
		"exposeTimeserial": true, "tlsOnly": false, "batchingEnabled": false, "populateChannelRegistry": false})
	if rule := f.registry.Lookup(id).Namespace("a/b:x"); !rule.Persisted || !rule.Identified || rule.TLSOnly {
		t.Errorf("the rule is %+v", rule)
	}

	// What is not mentioned, or null, stays.
	f.ok(t, 200, request{method: "PATCH", path: "/apps/" + id, body: `{"tlsOnly":true,"name":null}`}, &app)
	expect(t, "the changed app", app, object{"name": "Größe <1>", "status": "enabled", "tlsOnly": true})
	f.ok(t, 200, request{method: "PATCH", path: keys + "/" + key["id"].(string), body: `{"name":"other","capability":null}`}, &key)
	expect(t, "the changed key", key, object{"name": "other", "capability": capability, "key": whole, "revocableTokens": true})
	f.ok(t, 200, request{method: "PATCH", path: keys + "/" + key["id"].(string), body: `{"capability":{"c":["history"]}}`}, &key)
	g, err := f.auth.REST(url.Values{"key": {whole}}, nil)
	if err != nil || !g.Allows(auth.OpHistory, "c") || g.Allows(auth.OpPublish, "b") {
		t.Errorf("the changed key: %v %v", g, err)
	}
	f.ok(t, 200, request{method: "PATCH", path: namespaces + "/a%2Fb", body: `{"identified":false,"tlsOnly":true}`}, &namespace)
	expect(t, "the changed namespace", namespace, object{"id": "a/b", "authenticated": false, "identified": false, "persisted": true, "tlsOnly": true})

	var list []object
	f.ok(t, 200, request{path: keys}, &list)
	if len(list) != 1 || !maps.EqualFunc(list[0], key, func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Errorf("the keys are %v", list)
	}
	f.ok(t, 200, request{path: namespaces}, &list)
	if len(list) != 1 || list[0]["id"] != "a/b" {
		t.Errorf("the namespaces are %v", list)
	}
	f.ok(t, 200, request{path: all}, &list)
	if len(list) != 2 || list[0]["id"] != "own" || list[1]["id"] != id || list[1]["tlsOnly"] != true {
		t.Errorf("the apps are %v", list)
	}
	f.ok(t, 200, request{path: "/apps/" + id + "/stats?unit=hour"}, &list)
	if len(list) != 1 || list[0]["appId"] != id || list[0]["unit"] != "hour" {
		t.Errorf("the statistics are %v", list)
	}

	f.ok(t, 204, request{method: "DELETE", path: namespaces + "/a%2Fb"}, nil)
	f.ok(t, 200, request{path: namespaces}, &list)
	if len(list) != 0 || f.registry.Lookup(id).Namespace("a/b").Persisted {
		t.Error("the namespace is there still")
	}
	f.ok(t, 200, request{method: "PATCH", path: "/apps/" + id, body: `{"status":"disabled","tlsOnly":false}`}, &app)
	if app["status"] != "disabled" || f.enters(whole) == nil {
		t.Error("the app is not disabled")
	}
	f.ok(t, 200, request{method: "PATCH", path: "/apps/" + id, body: `{"status":"enabled"}`}, &app)
	if err := f.enters(whole); err != nil {
		t.Error(err)
	}
	f.ok(t, 200, request{method: "POST", path: keys + "/" + key["id"].(string) + "/revoke"}, nil)
	if f.enters(whole) == nil {
		t.Error("the key is good still")
	}
	f.ok(t, 204, request{method: "DELETE", path: "/apps/" + id}, nil)
	if f.registry.Lookup(id) != nil {
		t.Error("the app is there still")
	}
	secret := strings.SplitN(whole, ":", 2)[1]
	if log := f.log.String(); strings.Contains(log, secret) || strings.Contains(log, token) || strings.Count(log, "by=second") != 12 {
		t.Errorf("the log is\n%s", log)
	}
}

// Bodies as ably-control-go 0.6, the control module of terraform-provider-ably 1.0 and the Ably
// CLI send them.
func TestRequestsAsTheToolsSendThem(t *testing.T) {
	f := newFixture(t)
	type step struct{ method, path, body, has string }
	for what, steps := range map[string][]step{
		"ably-control-go": {
			{"POST", "/accounts/letshare/apps", `{"name":"n","tlsOnly":false,"fcmKey":"","fcmServiceAccount":"","fcmProjectId":"","apnsCertificate":"","apnsPrivateKey":"","apnsUseSandboxEndpoint":false}`, `"name":"n"`},
			{"PATCH", "/apps/APP", `{"status":"disabled","tlsOnly":true,"fcmKey":"","fcmServiceAccount":"","fcmProjectId":"","apnsCertificate":"","apnsPrivateKey":"","apnsUseSandboxEndpoint":true}`, `"apnsUseSandboxEndpoint":true`},
			{"POST", "/apps/APP/keys", `{"name":"k","capability":{"a":["subscribe"]},"revocableTokens":true}`, `"status":0,`},
			{"PATCH", "/apps/APP/keys/KEY", `{"name":"k2","capability":{"b":["publish"]},"revocableTokens":false}`, `"capability":{"b":["publish"]}`},
			{"PATCH", "/apps/APP/keys/KEY", `{"capability":null,"revocableTokens":false}`, `"capability":{"b":["publish"]}`},
			{"POST", "/apps/APP/namespaces", `{"id":"ns","authenticated":false,"persisted":false,"persistLast":false,"pushEnabled":false,"tlsOnly":false,"exposeTimeserial":false,"batchingEnabled":false,"conflationEnabled":false,"conflationInterval":null,"conflationKey":""}`, `"id":"ns"`},
			{"PATCH", "/apps/APP/namespaces/ns", `{"authenticated":true,"persisted":true,"persistLast":false,"pushEnabled":false,"tlsOnly":true,"exposeTimeserial":true,"batchingEnabled":false,"conflationEnabled":false,"conflationInterval":null,"conflationKey":""}`, `"authenticated":true`},
			{"POST", "/apps/APP/keys/KEY/revoke", "", ""},
			{"DELETE", "/apps/APP/namespaces/ns", "", ""},
			{"DELETE", "/apps/APP", "", ""},
		},
		"terraform-provider-ably": {
			{"POST", "/accounts/letshare/apps", `{"name":"n","status":"enabled","tlsOnly":true}`, `"status":"enabled","tlsOnly":true`},
			{"PATCH", "/apps/APP", `{"name":"n2","status":"enabled","tlsOnly":false,"apnsUseSandboxEndpoint":false}`, `"name":"n2"`},
			{"POST", "/apps/APP/keys", `{"name":"k","revocableTokens":false,"capability":{"[*]*":["subscribe","statistics"]}}`, `"capability":{"[*]*":["subscribe","statistics"]}`},
			{"POST", "/apps/APP/namespaces", `{"id":"ns","identified":true,"persisted":false,"persistLast":false,"pushEnabled":false,"tlsOnly":false,"exposeTimeserial":false,"mutableMessages":false,"populateChannelRegistry":true,"batchingEnabled":false,"conflationEnabled":false}`, `"identified":true`},
			{"PATCH", "/apps/APP/namespaces/ns", `{"identified":false}`, `"populateChannelRegistry":true`},
			{"DELETE", "/apps/APP/namespaces/ns", "", ""},
			{"POST", "/apps/APP/keys/KEY/revoke", "", ""},
			{"DELETE", "/apps/APP", "", ""},
		},
		"Ably CLI": {
			{"POST", "/accounts/letshare/apps", `{"name":"n","tlsOnly":false}`, `"name":"n"`},
			{"POST", "/apps/APP/keys", `{"name":"k","capability":{"*":["*"]}}`, `"name":"k"`},
			{"POST", "/apps/APP/namespaces", `{"id":"ns","persisted":true,"exposeTimeSerial":true}`, `"exposeTimeserial":true`},
			{"DELETE", "/apps/APP", "", ""},
		},
	} {
		var app, key string
		for _, s := range steps {
			path := strings.NewReplacer("APP", app, "KEY", key).Replace(s.path)
			got := f.do(t, request{method: s.method, path: path, body: s.body})
			if got.status >= 300 || !strings.Contains(got.text, s.has) {
				t.Errorf("%s: %s %s %s: %d %s", what, s.method, path, s.body, got.status, got.text)
				break
			}
			var made struct{ ID string }
			_ = json.Unmarshal([]byte(got.text), &made) // some have none
			switch {
			case strings.HasPrefix(s.path, "/accounts"):
				app = made.ID
			case s.method == "POST" && strings.HasSuffix(s.path, "/keys"):
				key = made.ID
			}
		}
	}
}

func TestWhatCannotBeIsRefusedWithTheFieldsName(t *testing.T) {
	f := newFixture(t)
	app, key := f.app(t)
	const (
		post, patch, remove = "POST", "PATCH", "DELETE"
		all                 = "/accounts/letshare/apps"
	)
	one, keys, namespaces := "/apps/"+app, "/apps/"+app+"/keys", "/apps/"+app+"/namespaces"
	long := strings.Repeat("x", 256)
	before := f.do(t, request{path: keys}).text + f.do(t, request{path: namespaces}).text + f.do(t, request{path: all}).text
	for _, c := range []struct {
		what         string
		request      request
		status, code int
		field        string // that details have; "": there are none
	}{
		{"an unknown path", request{path: "/nothing"}, 404, 40400, ""},
		{"no path", request{path: "/"}, 404, 40400, ""},
		{"an unknown part of an app", request{path: one + "/queues"}, 404, 40400, ""},
		{"another account", request{path: "/accounts/somebody/apps"}, 404, 40400, ""},
		{"a path that is too long", request{path: keys + "/" + key + "/revoke/now"}, 404, 40400, ""},
		{"a wrong method", request{method: "PUT", path: one}, 405, 40500, ""},
		{"a wrong method of keys", request{method: remove, path: keys + "/" + key}, 405, 40500, ""},

		{"no name", request{method: post, path: all, body: `{}`}, 422, 40003, "name"},
		{"an empty name", request{method: post, path: all, body: `{"name":""}`}, 422, 40003, "name"},
		{"a name of null", request{method: post, path: all, body: `{"name":null}`}, 422, 40003, "name"},
		{"a long name", request{method: post, path: all, body: `{"name":"` + long + `"}`}, 422, 40003, "name"},
		{"a name that is a number", request{method: post, path: all, body: `{"name":1}`}, 422, 40003, "name"},
		{"a name with a line feed", request{method: post, path: all, body: `{"name":"a\nb"}`}, 422, 40003, "name"},
		{"a status that is none", request{method: post, path: all, body: `{"name":"a","status":"on"}`}, 422, 40003, "status"},
		{"tlsOnly that is a text", request{method: post, path: all, body: `{"name":"a","tlsOnly":"true"}`}, 422, 40003, "tlsOnly"},
		{"an id", request{method: post, path: all, body: `{"name":"a","id":"mine"}`}, 422, 40003, "id"},
		{"push", request{method: post, path: all, body: `{"name":"a","fcmKey":"x"}`}, 422, 40003, "fcmKey"},
		{"an unknown field", request{method: post, path: all, body: `{"name":"a","colour":"red"}`}, 422, 40003, "colour"},
		{"no object", request{method: post, path: all, body: `[]`}, 400, 40001, ""},
		{"null", request{method: post, path: all, body: `null`}, 400, 40001, ""},
		{"no JSON", request{method: post, path: all, body: `{"name":`}, 400, 40001, ""},
		{"no UTF-8", request{method: post, path: all, body: "{\"name\":\"\xff\"}"}, 400, 40001, ""},
		{"nothing", request{method: post, path: all}, 400, 40001, ""},
		{"too much", request{method: post, path: all, body: strings.Repeat(" ", 128<<10+1)}, 413, 40009, ""},
		{"too much that does not say so", request{method: post, path: all, body: strings.Repeat(" ", 128<<10+1), chunked: true}, 413, 40009, ""},

		{"another id for an app", request{method: patch, path: one, body: `{"id":"other"}`}, 422, 40003, "id"},
		{"a status that is none for an app", request{method: patch, path: one, body: `{"status":"gone"}`}, 422, 40003, "status"},
		{"a good field with a bad one", request{method: patch, path: one, body: `{"name":"lost","tlsOnly":1}`}, 422, 40003, "tlsOnly"},
		{"an app that is not there", request{method: patch, path: "/apps/nobody", body: `{}`}, 404, 40400, ""},
		{"deleting one that is not there", request{method: remove, path: "/apps/nobody"}, 404, 40400, ""},
		{"statistics of one that is not there", request{path: "/apps/nobody/stats"}, 404, 40400, ""},
		{"an app of the configuration", request{method: patch, path: "/apps/own", body: `{}`}, 403, 40300, ""},
		{"deleting one of the configuration", request{method: remove, path: "/apps/own"}, 403, 40300, ""},

		{"a key without a name", request{method: post, path: keys, body: `{"capability":{"*":["*"]}}`}, 422, 40003, "name"},
		{"a key without a capability", request{method: post, path: keys, body: `{"name":"k"}`}, 422, 40003, "capability"},
		{"a capability of nothing", request{method: post, path: keys, body: `{"name":"k","capability":{}}`}, 422, 40003, "capability"},
		{"a capability of no operation", request{method: post, path: keys, body: `{"name":"k","capability":{"a":[]}}`}, 422, 40003, "capability"},
		{"a capability that is unknown", request{method: post, path: keys, body: `{"name":"k","capability":{"a":["fly"]}}`}, 422, 40003, "capability"},
		{"a capability that is a text", request{method: post, path: keys, body: `{"name":"k","capability":"{}"}`}, 422, 40003, "capability"},
		{"revocableTokens that is a number", request{method: post, path: keys, body: `{"name":"k","capability":{"*":["*"]},"revocableTokens":1}`}, 422, 40003, "revocableTokens"},
		{"a secret", request{method: post, path: keys, body: `{"name":"k","capability":{"*":["*"]},"key":"own.key:mine"}`}, 422, 40003, "key"},
		{"a key of an app that is not there", request{method: post, path: "/apps/nobody/keys", body: `{"name":"k","capability":{"*":["*"]}}`}, 404, 40400, ""},
		{"keys of an app that is not there", request{path: "/apps/nobody/keys"}, 404, 40400, ""},
		{"a key of an app of the configuration", request{method: post, path: "/apps/own/keys", body: `{"name":"k","capability":{"*":["*"]}}`}, 403, 40300, ""},
		{"a bad change of a key", request{method: patch, path: keys + "/" + key, body: `{"name":"lost","capability":{"*":["fly"]}}`}, 422, 40003, "capability"},
		{"another id for a key", request{method: patch, path: keys + "/" + key, body: `{"id":"other"}`}, 422, 40003, "id"},
		{"a key that is not there", request{method: patch, path: keys + "/nobody", body: `{}`}, 404, 40400, ""},
		{"revoking a key that is not there", request{method: post, path: keys + "/nobody/revoke"}, 404, 40400, ""},
		{"revoking a key of the configuration", request{method: post, path: "/apps/own/keys/key/revoke"}, 403, 40300, ""},

		{"a namespace without an id", request{method: post, path: namespaces, body: `{}`}, 422, 40003, "id"},
		{"an empty id", request{method: post, path: namespaces, body: `{"id":""}`}, 422, 40003, "id"},
		{"an id with a colon", request{method: post, path: namespaces, body: `{"id":"a:b"}`}, 422, 40003, "id"},
		{"an id that is too long", request{method: post, path: namespaces, body: `{"id":"` + long + `"}`}, 422, 40003, "id"},
		{"an id that is there", request{method: post, path: namespaces, body: `{"id":"there"}`}, 422, 40003, "id"},
		{"persisted that is a number", request{method: post, path: namespaces, body: `{"id":"a","persisted":0}`}, 422, 40003, "persisted"},
		{"two names that disagree", request{method: post, path: namespaces, body: `{"id":"a","identified":true,"authenticated":false}`}, 422, 40003, "identified"},
		{"batching", request{method: post, path: namespaces, body: `{"id":"a","batchingEnabled":true}`}, 422, 40003, "batchingEnabled"},
		{"an interval of conflation", request{method: post, path: namespaces, body: `{"id":"a","conflationInterval":100}`}, 422, 40003, "conflationInterval"},
		{"a namespace of an app that is not there", request{method: post, path: "/apps/nobody/namespaces", body: `{"id":"a"}`}, 404, 40400, ""},
		{"namespaces of an app that is not there", request{path: "/apps/nobody/namespaces"}, 404, 40400, ""},
		{"a namespace of an app of the configuration", request{method: post, path: "/apps/own/namespaces", body: `{"id":"a"}`}, 403, 40300, ""},
		{"another id for a namespace", request{method: patch, path: namespaces + "/there", body: `{"id":"other"}`}, 422, 40003, "id"},
		{"an unknown field of a namespace", request{method: patch, path: namespaces + "/there", body: `{"persistent":true}`}, 422, 40003, "persistent"},
		{"a namespace that is not there", request{method: patch, path: namespaces + "/nobody", body: `{}`}, 404, 40400, ""},
		{"deleting a namespace that is not there", request{method: remove, path: namespaces + "/nobody"}, 404, 40400, ""},
		{"deleting a namespace of the configuration", request{method: remove, path: "/apps/own/namespaces/kept"}, 403, 40300, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			expectFailure(t, f.do(t, c.request), c.status, c.code, c.field)
		})
	}
	after := f.do(t, request{path: keys}).text + f.do(t, request{path: namespaces}).text + f.do(t, request{path: all}).text
	if after != before {
		t.Errorf("something has changed:\n%s\n%s", before, after)
	}
}

func expectFailure(t *testing.T, got reply, status, code int, field string) {
	t.Helper()
	var e struct {
		Message          string
		Code, StatusCode int
		Href             string
		Details          map[string][]string
	}
	decoder := json.NewDecoder(strings.NewReader(got.text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		t.Fatalf("%v in %s", err, got.text)
	}
	if got.status != status || e.StatusCode != status || e.Code != code || e.Message == "" || e.Href != fmt.Sprint("https://help.ably.io/error/", code) {
		t.Errorf("status %d: %s, want %d %d", got.status, got.text, status, code)
	}
	switch {
	case field == "" && e.Details != nil, field != "" && (len(e.Details) != 1 || len(e.Details[field]) == 0):
		t.Errorf("the details are %v, want those of %q", e.Details, field)
	case field != "" && !strings.Contains(e.Message, field):
		t.Errorf("the message %q does not name %s", e.Message, field)
	}
}

func TestNamespacesHaveTheFlagsOfTheConfiguration(t *testing.T) {
	f := newFixture(t)
	app, _ := f.app(t)
	for _, name := range []string{"persisted", "persistLast", "identified", "tlsOnly", "mutableMessages", "pushEnabled"} {
		for _, value := range []bool{false, true} {
			got := f.do(t, request{method: "PATCH", path: "/apps/" + app + "/namespaces/there", body: fmt.Sprintf(`{%q:%v}`, name, value)})
			if got.status != 200 || !strings.Contains(got.text, fmt.Sprintf(`%q:%v`, name, value)) {
				t.Errorf("%s %v: %d %s", name, value, got.status, got.text)
			}
		}
	}
	want := auth.Namespace{ID: "there", Persisted: true, PersistLast: true, Identified: true, TLSOnly: true, MutableMessages: true, PushEnabled: true}
	if got := f.registry.Lookup(app).Namespace("there"); got != want {
		t.Errorf("the rule is %+v", got)
	}
}

func TestOnlyAnAccessTokenOpensTheAPI(t *testing.T) {
	f := newFixture(t)
	app, key := f.app(t)
	whole := app + "." + key + ":" + f.apps.Get(app).Keys[0].Secret
	for _, c := range []struct {
		what string
		request
		status, code int
	}{
		{"a good one", request{}, 200, 0},
		{"a good one over TLS", request{peer: "203.0.113.1:1", tls: true}, 200, 0},
		{"none", request{token: "-"}, 401, 40100},
		{"another", request{token: newToken}, 401, 40100},
		{"the beginning of one", request{token: token[:len(token)-1]}, 401, 40100},
		{"a longer one", request{token: token + "x"}, 401, 40100},
		{"a key", request{token: whole}, 401, 40100},
		{"as Basic", request{token: "-", header: map[string]string{"Authorization": "Basic " + token}}, 401, 40100},
		{"an empty one", request{token: "-", header: map[string]string{"Authorization": "Bearer "}}, 401, 40100},
		{"a stranger without TLS", request{peer: "203.0.113.1:1"}, 403, 40311},
		{"a wrong one of a stranger without TLS", request{peer: "203.0.113.1:1", token: "wrong"}, 403, 40311},
		{"one that a proxy forwards", request{header: map[string]string{"X-Forwarded-For": "127.0.0.1"}}, 403, 40311},
		{"one that an unknown proxy calls secure", request{peer: "203.0.113.1:1", header: map[string]string{"X-Forwarded-Proto": "https"}}, 403, 40311},
		{"one of another site's page", request{header: map[string]string{"Origin": "https://evil.example"}}, 403, 40311},
	} {
		for _, path := range []string{"/me", "/accounts/letshare/apps", "/apps/" + app + "/keys"} {
			c.request.path = path
			got := f.do(t, c.request)
			if c.code == 0 {
				if got.status != c.status || got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: %d %s", c.what, got.status, got.text)
				}
				continue
			}
			expectFailure(t, got, c.status, c.code, "")
		}
	}
	// An unknown path tells nothing to who has no token.
	expectFailure(t, f.do(t, request{path: "/nothing", token: "-"}), 401, 40100, "")
	// Tokens are exchanged at once.
	f.SetTokens([]control.Token{{Name: "new", Secret: newToken}})
	expectFailure(t, f.do(t, request{path: "/me"}), 401, 40100, "")
	if got := f.do(t, request{path: "/me", token: newToken}); got.status != 200 {
		t.Errorf("the new token: %d", got.status)
	}
	f.SetTokens(nil)
	expectFailure(t, f.do(t, request{path: "/me", token: "-"}), 401, 40100, "")
	if f.Serves("/v1/me") {
		t.Error("it serves something without a token")
	}
}

func TestAppsOfTheConfigurationAreReadWithoutTheirSecrets(t *testing.T) {
	f := newFixture(t)
	var keys, namespaces []object
	f.ok(t, 200, request{path: "/apps/own/keys"}, &keys)
	f.ok(t, 200, request{path: "/apps/own/namespaces"}, &namespaces)
	if len(keys) != 1 || len(namespaces) != 1 {
		t.Fatalf("got %v, %v", keys, namespaces)
	}
	expect(t, "the key", keys[0], object{"id": "key", "appId": "own", "revocableTokens": true, "capability": object{"*": []string{"*"}}, "status": 0})
	expect(t, "the namespace", namespaces[0], object{"id": "kept", "persisted": true, "identified": false})
	if _, has := keys[0]["key"]; has || strings.Contains(fmt.Sprint(keys), ownSecret) {
		t.Errorf("the key is told: %v", keys)
	}

	// One with the id of an app that was made takes its place, until it goes.
	app, _ := f.app(t)
	hides, err := auth.NewApp(app, []auth.Key{{ID: "theirs", Secret: ownSecret}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := f.registry.Lookup("own")
	f.registry.Replace(own, hides)
	f.ok(t, 200, request{path: "/apps/" + app + "/keys"}, &keys)
	var all []object
	f.ok(t, 200, request{path: "/accounts/letshare/apps"}, &all)
	if len(keys) != 1 || keys[0]["id"] != "theirs" || len(all) != 2 {
		t.Errorf("got %v of %v", keys, all)
	}
	expectFailure(t, f.do(t, request{method: "DELETE", path: "/apps/" + app}), 403, 40300, "")
	f.registry.Replace(own)
	f.ok(t, 200, request{path: "/apps/" + app + "/keys"}, &keys)
	if len(keys) != 1 || keys[0]["name"] != "root" {
		t.Errorf("got %v", keys)
	}
}

func TestManyWritersAtOnceLoseNothing(t *testing.T) {
	f := newFixture(t)
	app, _ := f.app(t)
	const writers, each = 4, 8
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprint(w, "-", i)
				got := f.do(t, request{method: "POST", path: "/apps/" + app + "/namespaces", body: `{"id":"` + id + `"}`})
				if got.status != 201 {
					t.Errorf("%d %s", got.status, got.text)
				}
				got = f.do(t, request{method: "PATCH", path: "/apps/" + app + "/namespaces/" + id, body: `{"persisted":true}`})
				if got.status != 200 {
					t.Errorf("%d %s", got.status, got.text)
				}
				if i%2 == 0 {
					got = f.do(t, request{method: "DELETE", path: "/apps/" + app + "/namespaces/" + id})
					if got.status != 204 {
						t.Errorf("%d %s", got.status, got.text)
					}
				}
			}
		})
	}
	wg.Wait()
	var list []object
	f.ok(t, 200, request{path: "/apps/" + app + "/namespaces"}, &list)
	persisted := 0
	for _, n := range list {
		if n["persisted"] == true {
			persisted++
		}
	}
	if persisted != writers*each/2 || len(list) != persisted+1 {
		t.Errorf("%d of %d namespaces are persisted", persisted, len(list))
	}
}

// full is a store that cannot be written.
type full struct{ directory.Directory }

func (full) PutApp(context.Context, string, uint64, json.RawMessage, int) (uint64, error) {
	return 0, fmt.Errorf("%w: the disk is full", directory.ErrUnavailable)
}

func TestAStoreThatFailsIsTheServersFault(t *testing.T) {
	f := newFixture(t)
	var log bytes.Buffer
	f.API = control.New(control.Options{Registry: f.registry, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Apps: apps.New(apps.Options{Registry: f.registry, Store: full{}})})
	f.SetTokens([]control.Token{{Name: "only", Secret: token}})
	got := f.do(t, request{method: "POST", path: "/accounts/letshare/apps", body: `{"name":"a"}`})
	expectFailure(t, got, 503, 50005, "")
	if strings.Contains(got.text, "disk") || !strings.Contains(log.String(), "the disk is full") {
		t.Errorf("told %s, logged %s", got.text, log.String())
	}
	expectFailure(t, f.do(t, request{path: "/apps/own/stats"}), 404, 40400, "")
}

// Whatever a body is, the answer is one, the server is not at fault, and what is kept is good.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{
		`{"name":"shop","status":"disabled","tlsOnly":true,"fcmKey":""}`, `{"name":"k","capability":{"[*]*":["*"]},"revocableTokens":true}`,
		`{"id":"ns","identified":true,"persisted":true,"conflationInterval":null}`, `{"id":"a:b"}`, `{"name":"\u0000"}`, `[]`, `{"name":{"a":1}}`, "{\"id\":\"\xff\"}",
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		x := newFixture(t)
		app, key := x.app(t)
		for _, r := range []request{
			{method: "POST", path: "/accounts/letshare/apps"}, {method: "PATCH", path: "/apps/" + app},
			{method: "POST", path: "/apps/" + app + "/keys"}, {method: "PATCH", path: "/apps/" + app + "/keys/" + key},
			{method: "POST", path: "/apps/" + app + "/namespaces"}, {method: "PATCH", path: "/apps/" + app + "/namespaces/there"},
		} {
			r.body = body
			if got := x.do(t, r); got.status >= 500 || !json.Valid([]byte(got.text)) {
				t.Errorf("%s %s %q: %d %s", r.method, r.path, body, got.status, got.text)
			}
		}
		if err := x.apps.Refresh(t.Context()); err != nil || x.registry.Lookup(app) == nil {
			t.Errorf("%q: what is kept is not good: %v", body, err)
		}
	})
}
