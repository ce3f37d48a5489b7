package auth_test

import (
	"net/http/httptest"
	"testing"

	"letshare-server/internal/auth"
)

func TestAPageFromElsewhereIsNotLocalWhereverItsBrowserRuns(t *testing.T) {
	for origin, want := range map[string]bool{
		"": true, "http://localhost:5173": true, "http://app.localhost": true, "http://127.0.0.1:3000": true,
		"http://[::1]:3000": true, "http://192.168.1.7": true,
		"null": false, "https://evil.example": false, "http://localhost.evil.example": false, "http://8.8.8.8": false, "%": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "127.0.0.1:1234"
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if got := (auth.TrustedProxies)(nil).PageAware(r).Local; got != want {
			t.Errorf("%q: local is %v", origin, got)
		}
	}
}
