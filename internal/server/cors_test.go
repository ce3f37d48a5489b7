package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOriginsAreComparedExactly(t *testing.T) {
	p := &originPolicy{allowed: []string{"http://localhost:3000", "https://letshare.fun"}, headers: "content-type"}
	for _, test := range []struct {
		origin, host string
		allowed      bool
	}{
		{"", "letshare.example", true},
		{"http://localhost:3000", "letshare.example", true},
		{"https://letshare.fun", "letshare.example", true},
		{"http://letshare.example", "letshare.example", true},
		{"https://letshare.example", "letshare.example", true},
		{"https://letshare.example:8443", "letshare.example:8443", true},
		{"https://LetShare.Example", "letshare.example", true},
		{"http://[::1]:8080", "[::1]:8080", true},

		{"null", "letshare.example", false},
		{"null", "null", false},
		{"http://", "", false},
		{"https://", "", false},
		{"http://localhost:3000/", "letshare.example", false},
		{"http://localhost:3000 ", "letshare.example", false},
		{"HTTP://LOCALHOST:3000", "letshare.example", false},
		{"http://localhost", "letshare.example", false},
		{"http://localhost:30000", "letshare.example", false},
		{"https://localhost:3000", "letshare.example", false},
		{"https://letshare.fun.evil.example", "letshare.example", false},
		{"https://evil-letshare.fun", "letshare.example", false},
		{"https://letshare.example/", "letshare.example", false},
		{"https://letshare.example:8443", "letshare.example", false},
		{"https://letshare.example", "letshare.example:8443", false},
		{"ftp://letshare.example", "letshare.example", false},
		{"letshare.example", "letshare.example", false},
		{"https://user@letshare.example", "letshare.example", false},
		{"*", "letshare.example", false},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
			r := httptest.NewRequest(method, "/health", nil)
			r.Host = test.host
			if test.origin != "" {
				r.Header.Set("Origin", test.origin)
			}
			w := httptest.NewRecorder()
			goOn := p.admit(w, r)
			switch {
			case !test.allowed:
				if goOn || w.Code != http.StatusForbidden || w.Body.Len() != 0 || w.Header().Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s from %q to %s: %v %d %v", method, test.origin, test.host, goOn, w.Code, w.Header())
				}
			case method == "OPTIONS":
				if goOn || w.Code != http.StatusNoContent || w.Body.Len() != 0 || w.Header().Get("Access-Control-Allow-Methods") == "" {
					t.Errorf("preflight from %q: %v %d %v", test.origin, goOn, w.Code, w.Header())
				}
			case !goOn:
				t.Errorf("%s from %q to %s is answered with %d", method, test.origin, test.host, w.Code)
			}
			if test.allowed && test.origin != "" && (w.Header().Get("Access-Control-Allow-Origin") != test.origin ||
				w.Header().Get("Access-Control-Allow-Credentials") != "true" || w.Header().Get("Vary") != "Origin") {
				t.Errorf("%s from %q: headers %v", method, test.origin, w.Header())
			}
			if test.origin == "" && w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s without Origin: headers %v", method, w.Header())
			}
		}
	}
}

func TestAPolicyForAllOriginsNamesTheOneThatAsks(t *testing.T) {
	p := &originPolicy{any: true, exposed: "Link"}
	for _, origin := range []string{"https://anybody.example", "null", "http://localhost:1/"} {
		r := httptest.NewRequest("GET", "/time", nil)
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		if !p.admit(w, r) || w.Header().Get("Access-Control-Allow-Origin") != origin || w.Header().Get("Access-Control-Expose-Headers") != "Link" {
			t.Errorf("from %q: %d %v", origin, w.Code, w.Header())
		}
	}
}

func TestTheDoorOfAnUpgradeIsChosenByItsParameters(t *testing.T) {
	for query, letshare := range map[string]bool{
		"token=x":                      true,
		"token=x&userId=a:b":           true,
		"token=":                       true,
		"token=x&pro_token=y":          true,
		"":                             false,
		"userId=a":                     false,
		"key=a.b:c":                    false,
		"token=x&key=a.b:c":            false,
		"token=x&access_token=y":       false,
		"token=x&accessToken=y":        false,
		"token=x&v=6":                  false,
		"Token=x":                      false,
		"access_token=y&v=6":           false,
		"token=x&userId=50%25&x=%zz;a": true,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		if got := isLetShare(r.URL.Query()); got != letshare {
			t.Errorf("%q: %v", query, got)
		}
	}
}
