package server

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

const adminToken = "an-access-token-of-the-tests-of-the-control-api"

// administered is a server with a control API and connections to it.
type administered struct{ node }

func administer(t *testing.T, change func(*config.Config)) *administered {
	t.Helper()
	s := start(t, func(c *config.Config) {
		c.Admin.Tokens = []config.Secret{adminToken}
		if change != nil {
			change(c)
		}
	})
	return &administered{node{s.Server, t, s.addr, s.config, s.secrets}}
}

// ask sends a request to the control API. Headers are name, value pairs.
func (a *administered) ask(method, path, body string, headers ...string) (status int, answer map[string]any) {
	a.t.Helper()
	req, err := http.NewRequest(method, "http://"+a.addr+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	_ = json.Unmarshal(text, &answer) // some are lists, or have no body
	return res.StatusCode, answer
}

func (a *administered) must(status int, method, path, body string) map[string]any {
	a.t.Helper()
	got, answer := a.ask(method, path, body)
	if got != status {
		a.t.Fatalf("%s %s: status %d %v, want %d", method, path, got, answer, status)
	}
	return answer
}

// app makes an app with one key, and returns the app's id, the key's, and the whole key.
func (a *administered) app() (app, id, key string) {
	a.t.Helper()
	app = a.must(201, "POST", "/v1/accounts/letshare/apps", `{"name":"made"}`)["id"].(string)
	id, key = a.key(app)
	return app, id, key
}

func (a *administered) key(app string) (id, key string) {
	a.t.Helper()
	made := a.must(201, "POST", "/v1/apps/"+app+"/keys", `{"name":"k","capability":{"*":["*"]}}`)
	return made["id"].(string), made["key"].(string)
}

func (a *administered) connect(key string) *client { return a.ably("key=" + url.QueryEscape(key)) }

// refuses expects that a new connection with a key gets an error.
func (a *administered) refuses(key string, code int) {
	a.t.Helper()
	a.dial("/?v=6&format=json&key=" + url.QueryEscape(key)).ends(code)
}

// ends expects that an error ends the connection, whatever its status.
func (s *client) ends(code int) {
	s.t.Helper()
	_, text, err := s.ws.Read(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var pm struct {
		Action int
		Error  struct{ Code int }
	}
	if err := json.Unmarshal(text, &pm); err != nil || pm.Action != pmError || pm.Error.Code != code {
		s.t.Errorf("got %s, want an error with code %d", text, code)
	}
	s.closed()
}

func TestWithoutAnAccessTokenThereIsNoControlAPI(t *testing.T) {
	a := administer(t, func(c *config.Config) { c.Admin.Tokens = nil })
	for _, path := range []string{"/v1/me", "/api/v1/me", "/v1/accounts/letshare/apps"} {
		if status, answer := a.ask("GET", path, ""); status != 404 || answer["error"] == nil {
			t.Errorf("%s: status %d %v", path, status, answer)
		}
	}
	b := administer(t, nil)
	for _, path := range []string{"/v1/me", "/api/v1/me"} {
		if status, answer := b.ask("GET", path, ""); status != 200 || answer["account"] == nil {
			t.Errorf("%s: status %d %v", path, status, answer)
		}
		if status, _ := b.ask("GET", path, "", "Authorization", "Bearer wrong"); status != 401 {
			t.Errorf("%s with a wrong token: status %d", path, status)
		}
		if status, _ := b.ask("GET", path, "", "Origin", "https://evil.example"); status != 403 {
			t.Errorf("%s from a page: status %d", path, status)
		}
	}
}

func TestChangesCountAtOnceOnLivingConnections(t *testing.T) {
	a := administer(t, nil)
	app, one, first := a.app()
	two, second := a.key(app)
	ours, its, other := a.connect(testKey), a.connect(first), a.connect(second)

	// A key may do less: who is there keeps what it has.
	a.must(200, "PATCH", "/v1/apps/"+app+"/keys/"+two, `{"capability":{"x":["subscribe"]}}`)
	other.works()
	if status, answer := a.post("/channels/x/messages", second, `{"name":"a"}`); status != 401 || answer["error"].(map[string]any)["code"] != 40160.0 {
		t.Errorf("a publish without the right to: status %d %v", status, answer)
	}
	// A key is revoked.
	a.must(200, "POST", "/v1/apps/"+app+"/keys/"+one+"/revoke", "")
	its.ends(40131)
	other.works()
	a.refuses(first, 40101)
	// A namespace wants identified clients: this holds for the next attach.
	a.must(201, "POST", "/v1/apps/"+app+"/namespaces", `{"id":"x","identified":true}`)
	if err := other.ws.Write(t.Context(), websocket.MessageText, []byte(`{"action":10,"channel":"x:y"}`)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := other.ws.Read(t.Context()); err != nil || !strings.Contains(string(text), "40161") {
		t.Errorf("attaching anonymously: %s, %v", text, err)
	}
	other.works()
	// The app is disabled, and enabled.
	a.must(200, "PATCH", "/v1/apps/"+app, `{"status":"disabled"}`)
	other.ends(40120)
	a.refuses(second, 40120)
	a.must(200, "PATCH", "/v1/apps/"+app, `{"status":"enabled"}`)
	other = a.connect(second)
	// It wants TLS, and does not.
	a.must(200, "PATCH", "/v1/apps/"+app, `{"tlsOnly":true}`)
	other.ends(40311)
	a.refuses(second, 40311)
	if status, answer := a.post("/channels/x/messages", second, `{"name":"a"}`); status != 403 || answer["error"].(map[string]any)["code"] != 40311.0 {
		t.Errorf("a publish without TLS: status %d %v", status, answer)
	}
	a.must(200, "PATCH", "/v1/apps/"+app, `{"tlsOnly":false}`)
	other = a.connect(second)
	// It is deleted.
	a.must(204, "DELETE", "/v1/apps/"+app, "")
	other.ends(40120)
	a.refuses(second, 40101)
	ours.works()
}

func TestWhatAnAppDidIsToldAndForgottenWithIt(t *testing.T) {
	a := administer(t, nil)
	app, _, key := a.app()
	if status, answer := a.post("/channels/x/messages", key, `{"name":"a"}`); status != 201 {
		t.Fatalf("status %d %v", status, answer)
	}
	req, err := http.NewRequest("GET", "http://"+a.addr+"/v1/apps/"+app+"/stats?unit=hour", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(text), `"messages.inbound.rest.messages.count":1`) || len(res.Header["Link"]) == 0 {
		t.Errorf("status %d, %v: %s", res.StatusCode, err, text)
	}
	if status, answer := a.ask("GET", "/v1/apps/"+app+"/stats?unit=year", ""); status != 400 || answer["code"] != 40003.0 {
		t.Errorf("a unit that is none: status %d %v", status, answer)
	}
}

func TestAReloadKeepsAppsThatWereMade(t *testing.T) {
	a := administer(t, nil)
	app, _, key := a.app()
	its := a.connect(key)
	if _, err := a.Reload(a.config, a.secrets); err != nil {
		t.Fatal(err)
	}
	its.works()

	// Now the configuration has an app with the same id.
	hiding, secrets := a.config, a.secrets
	hiding.Apps = []config.App{{ID: app}}
	secrets.Keys = append(slices.Clone(secrets.Keys), config.Key{App: app, ID: "theirs", Secret: testSecret})
	if _, err := a.Reload(hiding, secrets); err != nil {
		t.Fatal(err)
	}
	its.ends(40131)
	a.refuses(key, 40101)
	theirs := a.connect(app + ".theirs:" + testSecret)
	a.must(403, "DELETE", "/v1/apps/"+app, "")
	// And now it has not.
	if _, err := a.Reload(a.config, a.secrets); err != nil {
		t.Fatal(err)
	}
	theirs.ends(40131)
	a.connect(key).works()

	// Tokens change with it.
	without := a.secrets
	without.AdminTokens = nil
	if _, err := a.Reload(a.config, without); err != nil {
		t.Fatal(err)
	}
	a.must(404, "GET", "/v1/me", "")
	a.connect(key).works()
}

func TestWrongAccessTokensShutTheDoorForTheirAddress(t *testing.T) {
	a := administer(t, func(c *config.Config) {
		c.Server.TrustedProxies = []string{"127.0.0.1"}
		c.Limits.AddressFailuresPerSecond = 1
	})
	from := func(addr, token string) (int, map[string]any) {
		return a.ask("GET", "/v1/me", "", "X-Forwarded-For", addr, "X-Forwarded-Proto", "https", "Authorization", "Bearer "+token)
	}
	shut := false
	for range 20 {
		status, answer := from("203.0.113.9", "wrong")
		if shut = status == 429; shut {
			if answer["code"] != 42922.0 || answer["statusCode"] != 429.0 {
				t.Errorf("got %v", answer)
			}
			break
		}
		if status != 401 {
			t.Fatalf("status %d %v", status, answer)
		}
	}
	if !shut {
		t.Error("20 wrong tokens in a row are taken")
	}
	if status, answer := from("203.0.113.10", adminToken); status != 200 {
		t.Errorf("another address: status %d %v", status, answer)
	}
	if status, answer := a.ask("GET", "/v1/me", "", "X-Forwarded-For", "203.0.113.10"); status != 403 || answer["code"] != 40311.0 {
		t.Errorf("a stranger without TLS: status %d %v", status, answer)
	}
}

func TestANodeThatCannotReadItsAppsDoesNotStart(t *testing.T) {
	c := config.Default(config.Local)
	c.DataDir = t.TempDir()
	secrets, err := config.ResolveSecrets(c, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.AppsFile(), []byte(`{"format":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c, secrets, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "format 7") {
		t.Errorf("got %v", err)
	}
}
