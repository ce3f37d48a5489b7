package rest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/rest"
	"letshare-server/internal/stats"
)

var nonce atomic.Int64

// newSandbox returns an API with a sandbox. Its configured app has the keys of newAPI, one
// whose tokens can be revoked and one that is published.
func newSandbox(t *testing.T) (http.Handler, *auth.Registry) {
	t.Helper()
	me := directory.Node{Name: "n1", Incarnation: "i1"}
	dir := directorymemory.NewStore(directorymemory.Options{}).Node(me)
	counters := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
	h := hub.New(hub.Options{
		Engine:    enginememory.NewStore(enginememory.Options{}).Node(me.Name),
		Directory: dir, Node: me, Stats: counters,
	})
	t.Cleanup(h.Close)
	reader, err := auth.ParseCapability(`{"*":["subscribe"]}`)
	if err != nil {
		t.Fatal(err)
	}
	app, err := auth.NewApp("app", []auth.Key{
		{ID: "key", Secret: "secret"}, {ID: "reader", Secret: "secret", Capability: reader},
		{ID: "revocable", Secret: "secret", Revocable: true}, {ID: "published", Secret: "secret", LocalOnly: true},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry := auth.NewRegistry(app)
	api := rest.New(rest.Options{
		Hub: h, Sandbox: auth.NewSandbox(auth.SandboxOptions{Registry: registry, MaxApps: 20}),
		Auth:  auth.NewAuthenticator(registry, nil, auth.WithNonces(dir), auth.WithRevocations(auth.NewRevocations(auth.RevocationOptions{Store: dir}))),
		Stats: counters,
	})
	// Whoever asks is local.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = "127.0.0.1:4711"
		api.ServeHTTP(w, r)
	}), registry
}

// setup is in the form of what the SDKs' suites post.
const setup = `{
	"limits": {"presence": {"maxMembers": 250}},
	"keys": [
		{},
		{"capability": "{\"cansubscribe:*\":[\"subscribe\"],\"canpublish:*\":[\"publish\"]}"},
		{"capability": {"b": ["*"], "a": ["history", "publish"]}},
		{"capability": "{}"},
		{"revocableTokens": true},
		{"capability": "{\"[*]*\":[\"*\"]}"}
	],
	"namespaces": [
		{"id": "persisted", "persisted": true},
		{"id": "pushenabled", "pushEnabled": true},
		{"id": "mutable", "mutableMessages": true}
	],
	"channels": [{"name": "persisted:presence_fixtures", "presence": [
		{"clientId": "client_bool", "data": "true"},
		{"clientId": "client_json", "data": "{ \"test\": \"This is a JSONObject clientData payload\"}"},
		{"clientId": "client_decoded", "data": "{\"example\":{\"json\":\"Object\"}}", "encoding": "json"},
		{"clientId": "client_encoded", "data": "HO4cYSP8LybPYBPZPHQOtuD53yrD3YV3NBoTEYBh4U0N1QXHbtkfsDfTspKeLQFt", "encoding": "json/utf-8/cipher+aes-128-cbc/base64"}
	]}]
}`

type madeApp struct {
	AccountID, AppID, ID string
	Keys                 []struct {
		ID, Value, KeyName, KeySecret, KeyStr, Capability string
		RevocableTokens                                   bool
		Status, Expires                                   *int
	}
	Namespaces, Channels []map[string]any
	Connections          []any
	Endpoint             string
	Port                 int
	TLS                  bool
}

// provision makes an app as a suite does.
func provision(t *testing.T, api http.Handler, host string) madeApp {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://"+host+"/apps", strings.NewReader(setup))
	r.Header.Set("Content-Type", jsonType)
	r.Header.Set("Accept", jsonType)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	var app madeApp
	if err := json.Unmarshal(w.Body.Bytes(), &app); err != nil || w.Code != 201 || w.Header().Get("Content-Type") != jsonType {
		t.Fatalf("status %d, %v in %s", w.Code, err, w.Body)
	}
	return app
}

// G2
func TestAnAppIsProvisionedForASuite(t *testing.T) {
	api, registry := newSandbox(t)
	app := provision(t, api, "server.example:8081")
	if app.AccountID == "" || len(app.AppID) != 6 || app.ID != app.AppID || app.Endpoint != "server.example" || app.Port != 8081 || app.TLS ||
		app.Connections == nil {
		t.Errorf("got %+v", app)
	}
	var capabilities []string
	for i, k := range app.Keys {
		capabilities = append(capabilities, k.Capability)
		if len(k.ID) != 6 || len(k.Value) < 32 || k.KeyName != app.AppID+"."+k.ID || k.KeySecret != k.Value || k.KeyStr != k.KeyName+":"+k.Value ||
			k.RevocableTokens != (i == 4) || k.Status == nil || k.Expires == nil {
			t.Errorf("key %d: %+v", i, k)
		}
	}
	if want := []string{`{"*":["*"]}`, `{"canpublish:*":["publish"],"cansubscribe:*":["subscribe"]}`, `{"a":["history","publish"],"b":["*"]}`,
		`{"*":["*"]}`, `{"*":["*"]}`, `{"[*]*":["*"]}`}; !slices.Equal(capabilities, want) {
		t.Errorf("capabilities %q", capabilities)
	}
	if len(app.Namespaces) != 3 || app.Namespaces[2]["mutableMessages"] != true || len(app.Channels) != 1 {
		t.Errorf("namespaces %v, channels %v", app.Namespaces, app.Channels)
	}

	known := registry.Lookup(app.AppID)
	if !known.Namespace("persisted:x").Persisted || !known.Namespace("pushenabled:x").PushEnabled || !known.Namespace("mutable:x").MutableMessages ||
		known.Namespace("other").Persisted {
		t.Error("the rules are not those that were posted")
	}
	if f := known.Fixtures(); len(f) != 1 || f[0].Channel != "persisted:presence_fixtures" || len(f[0].Members) != 4 {
		t.Fatalf("fixtures %+v", f)
	}
	for i, want := range []struct {
		clientID, data, encoding string
		kind                     pubsub.DataKind
	}{
		{"client_bool", "true", "", pubsub.TextData},
		{"client_json", `{ "test": "This is a JSONObject clientData payload"}`, "", pubsub.TextData},
		{"client_decoded", `{"example":{"json":"Object"}}`, "json", pubsub.TextData},
		{"client_encoded", "", "json/utf-8/cipher+aes-128-cbc", pubsub.BinaryData}, // the base64 step is JSON's
	} {
		m := known.Fixtures()[0].Members[i]
		if m.ClientID != want.clientID || m.Encoding != want.encoding || m.Data.Kind != want.kind || want.data != "" && string(m.Data.Bytes) != want.data {
			t.Errorf("member %+v, want %+v", m, want)
		}
	}

	// Apps do not know each other's channels.
	other := provision(t, api, "server.example")
	if other.Port != 80 || other.AppID == app.AppID {
		t.Errorf("another app %+v", other)
	}
	if res := do(t, api, request{method: "POST", path: "/channels/c/messages", key: app.Keys[0].KeyStr, body: `{"name":"a"}`}); res.StatusCode != 201 {
		t.Errorf("publish: status %d", res.StatusCode)
	}
	for key, want := range map[string]int{app.Keys[0].KeyStr: 1, other.Keys[0].KeyStr: 0} {
		if list, _ := body(t, do(t, api, request{path: "/channels/c/messages", key: key})).([]any); len(list) != want {
			t.Errorf("history of %s: %v", key, list)
		}
	}
}

func TestAnAppIsProvisionedInMessagePackToo(t *testing.T) {
	api, _ := newSandbox(t)
	status, _, app := post(t, api, msgpackType, "/apps", "-", map[string]any{"keys": []any{map[string]any{}}})
	if keys, _ := app["keys"].([]any); status != 201 || len(keys) != 1 || app["port"] != float64(80) {
		t.Errorf("status %d, %v", status, app)
	}
}

func TestWhereAnAppsClientsFindTheServer(t *testing.T) {
	api, _ := newSandbox(t)
	for host, want := range map[string]madeApp{
		"127.0.0.1:18080": {Endpoint: "127.0.0.1", Port: 18080}, "localhost": {Endpoint: "localhost", Port: 80},
		"[::1]:18080": {Endpoint: "::1", Port: 18080}, "[::1]": {Endpoint: "::1", Port: 80},
	} {
		if app := provision(t, api, host); app.Endpoint != want.Endpoint || app.Port != want.Port || app.TLS {
			t.Errorf("%s: %+v", host, app)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "https://server.example/apps", strings.NewReader("{}")) // with TLS
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	var app madeApp
	if err := json.Unmarshal(w.Body.Bytes(), &app); err != nil || app.Endpoint != "server.example" || app.Port != 443 || !app.TLS {
		t.Errorf("%v %+v", err, app)
	}
}

func TestAppsThatCannotBeAreRefused(t *testing.T) {
	api, _ := newSandbox(t)
	for sent, code := range map[string]string{
		``: "40001", `[]`: "40001", `{"keys":{}}`: "40001", `{"keys":[{"capability":"{\"a\":[\"fly\"]}"}]}`: "40000", `{"keys":[{"capability":7}]}`: "40000",
		`{"namespaces":[{"id":"a:b"}]}`: "40000", `{"namespaces":[{}]}`: "40000", `{"namespaces":[7]}`: "40001",
		`{"channels":[{"name":":x"}]}`: "40010", `{"channels":[{}]}`: "40010", `{"channels":[{"name":"x","presence":[{}]}]}`: "40012",
		`{"channels":[{"name":"x","presence":[{"clientId":"*"}]}]}`: "40012", `{"channels":[{"name":"x","presence":7}]}`: "40000",
		`{"channels":[{"name":"x","presence":[{"clientId":"m","data":7}]}]}`: "40013", `{"keys":[` + strings.Repeat("{},", 100) + `{}]}`: "40000",
	} {
		res := do(t, api, request{method: http.MethodPost, path: "/apps", key: "-", body: sent})
		if got := res.Header.Get("X-Ably-Errorcode"); res.StatusCode != 400 || got != code {
			t.Errorf("%.60s: status %d, code %s, want %s", sent, res.StatusCode, got, code)
		}
	}
	if res := do(t, api, request{method: http.MethodPost, path: "/apps", body: strings.Repeat(" ", 70_000)}); res.StatusCode != 413 {
		t.Errorf("a huge app: status %d", res.StatusCode)
	}
	for range 20 {
		provision(t, api, "server")
	}
	if res := do(t, api, request{method: http.MethodPost, path: "/apps", body: "{}"}); res.StatusCode != 429 {
		t.Errorf("too many apps: status %d", res.StatusCode)
	}
}

func TestAnAppIsDeletedByAnyOfItsKeys(t *testing.T) {
	api, _ := newSandbox(t)
	app, other := provision(t, api, "server"), provision(t, api, "server")
	status, _, d := post(t, api, jsonType, "/keys/"+app.Keys[0].KeyName+"/requestToken", app.Keys[0].KeyStr, fields{})
	token, _ := d["token"].(string)
	if status != 201 || token == "" {
		t.Fatalf("status %d, %v", status, d)
	}
	for _, c := range []struct {
		what, path, key, token string
		status                 int
		code                   string
	}{
		{"without credentials", app.AppID, "-", "", 401, "40101"},
		{"with another's key", app.AppID, other.Keys[0].KeyStr, "", 401, "40100"},
		{"with a token", app.AppID, "-", token, 401, "40162"},
		{"an app of the configuration", "app", key, "", 403, "40300"},
		{"with any key", app.AppID, app.Keys[3].KeyStr, "", 204, ""},
		{"twice", app.AppID, app.Keys[3].KeyStr, "", 404, "40400"},
	} {
		r := request{method: http.MethodDelete, path: "/apps/" + c.path, key: c.key}
		if c.token != "" {
			r.header = map[string]string{"Authorization": "Bearer " + c.token}
		}
		res := do(t, api, r)
		if res.StatusCode != c.status || res.Header.Get("X-Ably-Errorcode") != c.code {
			t.Errorf("%s: status %d, code %s", c.what, res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
		}
		if c.status == 204 && (res.Header.Get("Content-Type") != "" || res.Header.Get("Content-Length") != "" || res.ContentLength > 0) {
			t.Errorf("204 with %v", res.Header)
		}
	}
	for what, r := range map[string]request{
		"key":     {path: "/channels/c/messages", key: app.Keys[0].KeyStr},
		"token":   {path: "/channels/c/messages", key: "-", header: map[string]string{"Authorization": "Bearer " + token}},
		"request": {method: http.MethodPost, path: "/keys/" + app.Keys[0].KeyName + "/requestToken", key: "-", body: "{}"},
	} {
		if res := do(t, api, r); res.StatusCode != 404 || res.Header.Get("X-Ably-Errorcode") != "40400" {
			t.Errorf("%s of a deleted app: status %d", what, res.StatusCode)
		}
	}
	if res := do(t, api, request{path: "/channels/c/messages", key: other.Keys[0].KeyStr}); res.StatusCode != 200 {
		t.Errorf("the other app: status %d", res.StatusCode)
	}
}

func TestWithoutASandboxThereAreNoApps(t *testing.T) {
	api := newAPI(t)
	for _, r := range []request{
		{method: http.MethodPost, path: "/apps", body: setup}, {path: "/apps"}, {method: http.MethodDelete, path: "/apps/app"},
	} {
		if res := do(t, api, r); res.StatusCode != 404 || res.Header.Get("X-Ably-Errorcode") != "40400" {
			t.Errorf("%s %s: status %d", r.method, r.path, res.StatusCode)
		}
	}
	if res := do(t, api, request{method: http.MethodPost, path: "/stats", body: "[]"}); res.StatusCode != 405 {
		t.Errorf("statistics: status %d", res.StatusCode)
	}
}
