package server

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

// RSA1
func TestAKeyWithoutTLSIsRefusedIfTheServerRequiresIt(t *testing.T) {
	s := start(t, func(c *config.Config) {
		c.Auth.RequireTLS = true
		c.Server.TrustedProxies = []string{"203.0.113.9"}
	})
	token, err := requestedToken(t, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []struct {
		name, addr, proto string
		allowed           bool
	}{
		{"this machine", "", "", true},
		{"a private network", "10.1.2.3", "", true},
		{"afar", "203.0.113.1", "", false},
		{"afar, claiming TLS", "203.0.113.1", "https", false},
		{"a trusted proxy with TLS", "203.0.113.9", "https", true},
		{"a trusted proxy without TLS", "203.0.113.9", "http", false},
		{"a trusted proxy that does not say", "203.0.113.9", "", false},
	} {
		s.claimed.Store(from.addr)
		headers := []string{"X-Forwarded-Proto", from.proto}
		if from.proto == "" {
			headers = nil
		}
		for _, request := range []struct {
			method, path, body string
			status             int
		}{
			{"GET", "/channels/a/messages", "", 200},
			{"POST", "/channels/a/messages", `{"data":"x"}`, 201},
			{"POST", "/keys/limits.key1/requestToken", `{"keyName":"limits.key1"}`, 201},
			{"GET", "/comet/connect?v=6&stream=false", "", 200},
			{"GET", "/event-stream?v=1.2&channels=a", "", 200},
		} {
			status := request.status
			code := 0
			if !from.allowed {
				status, code = 401, 40103
			}
			answer := s.begin(t, request.method, request.path, testKey, request.body, headers...)
			if got := answer.Header.Get("X-Ably-Errorcode"); answer.StatusCode != status || got != "" != (code != 0) || code != 0 && got != fmt.Sprint(code) {
				t.Errorf("%s: %s %s: %s, code %s", from.name, request.method, request.path, answer.Status, got)
			}
		}
		if from.proto != "" {
			continue // the WebSocket client sends no headers
		}
		_, pm := s.realtime(t, "key="+testKey)
		if from.allowed != (pm["action"] == 4.0) || !from.allowed && (pm["action"] != 9.0 || errorCode(pm) != 40103) {
			t.Errorf("%s: WebSocket: %v", from.name, pm)
		}
		// A token is no key, and neither is what was signed with one.
		if _, pm := s.realtime(t, "access_token="+token); pm["action"] != 4.0 {
			t.Errorf("%s: WebSocket with a token: %v", from.name, pm)
		}
		if _, err := requestedToken(t, s); err != nil {
			t.Errorf("%s: a signed request for a token: %v", from.name, err)
		}
	}

	c := s.config
	c.Auth.RequireTLS = false
	if restart, err := s.Reload(c, s.secrets); err != nil || len(restart) > 0 {
		t.Fatal(restart, err)
	}
	s.claimed.Store("203.0.113.1")
	if _, pm := s.realtime(t, "key="+testKey); pm["action"] != 4.0 {
		t.Errorf("when it is not required any more: %v", pm)
	}
}

// begin is ask for an answer whose body may have no end.
func (s *running) begin(t *testing.T, method, path, key, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	name, secret, _ := strings.Cut(key, ":")
	r.SetBasicAuth(name, secret)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer
}

// requestedToken signs a request with testKey and returns the token that it is answered with.
func requestedToken(t *testing.T, s *running) (string, error) {
	t.Helper()
	name, secret, _ := strings.Cut(testKey, ":")
	now, nonce := time.Now().UnixMilli(), fmt.Sprintf("nonce-%020d", time.Now().UnixNano())
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = fmt.Fprintf(mac, "%s\n\n\n\n%d\n%s\n", name, now, nonce) // a hash takes everything
	body := fmt.Sprintf(`{"keyName":%q,"timestamp":%d,"nonce":%q,"mac":%q}`, name, now, nonce, base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	answer := s.ask(t, "POST", "/keys/"+name+"/requestToken", "", body)
	var details struct{ Token string }
	if err := json.NewDecoder(answer.Body).Decode(&details); err != nil || details.Token == "" {
		return "", fmt.Errorf("%s: %w", answer.Status, err)
	}
	return details.Token, nil
}

func TestTheFirstKeyWithoutTLSIsWarnedOf(t *testing.T) {
	var log bytes.Buffer
	app, err := auth.NewApp("app", []auth.Key{{ID: "key", Secret: "secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := auth.NewAuthenticator(auth.NewRegistry(app), nil, auth.WithLog(slog.New(slog.NewTextHandler(&log, nil))))
	key, err := a.REST(map[string][]string{"key": {"app.key:secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []auth.Peer{{Local: true}, {Secure: true}} {
		if _, err := a.Admit(key, p); err != nil || log.Len() > 0 {
			t.Errorf("%+v: %v %s", p, err, &log)
		}
	}
	for range 3 {
		if g, err := a.Admit(key, auth.Peer{}); err != nil || !g.Plaintext {
			t.Errorf("%v %v", g, err)
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "auth.require_tls") || strings.Contains(text, "secret") {
		t.Errorf("logged: %q", text)
	}
}
