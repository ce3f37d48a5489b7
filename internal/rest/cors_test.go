package rest_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
	"letshare-server/internal/server"
)

// Browsers send preflights to every path, and take no error that CORS does not let through.
func TestBrowsersOfAnyOriginMayUseTheAPI(t *testing.T) {
	cfg := config.Default(config.Local)
	cfg.DataDir = t.TempDir()
	cfg.Server.Host, cfg.Server.Port, cfg.Server.ShutdownGrace = "127.0.0.1", "0", time.Second
	secrets, err := config.ResolveSecrets(cfg, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(cfg, secrets, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	const origin = "https://app.example:8443"
	for _, path := range []string{"/time", "/channels/a%2Fb/messages", "/no/such/path", "//twice", "/keys/app.key/requestToken"} {
		for _, method := range []string{http.MethodOptions, http.MethodGet, http.MethodPost} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", origin)
			if method == http.MethodOptions {
				req.Header.Set("Access-Control-Request-Method", "POST")
				req.Header.Set("Access-Control-Request-Headers", "authorization,x-ably-version,ably-agent")
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			h := res.Header
			if h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Allow-Credentials") != "true" || !strings.Contains(h.Get("Vary"), "Origin") {
				t.Errorf("%s %s: headers %v", method, path, h)
			}
			if res.StatusCode >= 300 && res.StatusCode < 400 {
				t.Errorf("%s %s: redirected with %d", method, path, res.StatusCode)
			}
			if method == http.MethodOptions {
				if res.StatusCode != http.StatusNoContent {
					t.Errorf("preflight of %s: %d", path, res.StatusCode)
				}
				for _, name := range []string{"authorization", "content-type", "accept", "ably-agent", "x-ably-version", "x-ably-clientid"} {
					if !strings.Contains(strings.ToLower(h.Get("Access-Control-Allow-Headers")), name) {
						t.Errorf("preflight of %s does not allow %s", path, name)
					}
				}
				for _, name := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
					if !strings.Contains(h.Get("Access-Control-Allow-Methods"), name) {
						t.Errorf("preflight of %s does not allow %s", path, name)
					}
				}
				continue
			}
			for _, name := range []string{"link", "x-ably-errorcode", "x-ably-errormessage"} {
				if !strings.Contains(strings.ToLower(h.Get("Access-Control-Expose-Headers")), name) {
					t.Errorf("%s %s does not expose %s", method, path, name)
				}
			}
			if ct := h.Get("Content-Type"); ct != "application/json" {
				t.Errorf("%s %s: Content-Type %q", method, path, ct)
			}
		}
	}
}
