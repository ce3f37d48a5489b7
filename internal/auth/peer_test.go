package auth_test

import (
	"crypto/tls"
	"net/http/httptest"
	"testing"

	"letshare-server/internal/auth"
)

func TestWhoHasTLS(t *testing.T) {
	proxies, err := auth.ParseTrustedProxies([]string{"10.0.0.7"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from   string
		direct bool
		proto  []string
		want   bool
	}{
		{"1.2.3.4:5", true, nil, true},
		{"1.2.3.4:5", false, nil, false},
		{"1.2.3.4:5", false, []string{"https"}, false}, // anybody can write that
		{"1.2.3.4:5", true, []string{"http"}, true},
		{"10.0.0.7:5", false, nil, false},
		{"10.0.0.7:5", false, []string{"https"}, true},
		{"10.0.0.7:5", true, []string{"http"}, false},
		{"10.0.0.7:5", false, []string{"https", "http"}, false},
		{"10.0.0.7:5", false, []string{"HTTPS, wss"}, true},
		{"10.0.0.7:5", false, []string{""}, false},
		{"127.0.0.1:5", false, nil, false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.from
		if c.direct {
			r.TLS = new(tls.ConnectionState)
		}
		if c.proto != nil {
			r.Header["X-Forwarded-Proto"] = c.proto
		}
		if got := proxies.Peer(r).Secure; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
