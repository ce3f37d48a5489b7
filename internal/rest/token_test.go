package rest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

const (
	jsonType    = "application/json"
	msgpackType = "application/x-msgpack"
)

// fields are those of a request for a token.
type fields map[string]any

// tokenRequest is a current one of app.key with a nonce of its own. What is given replaces its
// fields; nil removes one. It is signed at the end, over what SDKs sign.
func tokenRequest(given fields) fields {
	r := fields{"keyName": "app.key", "timestamp": time.Now().UnixMilli(), "nonce": fmt.Sprintf("%016x", nonce.Add(1))}
	for name, v := range given {
		if r[name] = v; v == nil {
			delete(r, name)
		}
	}
	text := ""
	for _, name := range []string{"keyName", "ttl", "capability", "clientId", "timestamp", "nonce"} {
		if v, ok := r[name]; ok {
			text += fmt.Sprint(v)
		}
		text += "\n"
	}
	if _, given := r["mac"]; !given {
		mac := hmac.New(sha256.New, []byte("secret"))
		mac.Write([]byte(text))
		r["mac"] = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return r
}

// post sends a value in a format, and reads the answer, which must be in it too.
func post(t *testing.T, api http.Handler, format, path, key string, v any) (int, http.Header, map[string]any) {
	t.Helper()
	marshal := json.Marshal
	if format == msgpackType {
		marshal = msgpack.Marshal
	}
	b, err := marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	res := do(t, api, request{method: http.MethodPost, path: path, key: key, body: string(b), header: map[string]string{"Content-Type": format, "Accept": format}})
	if ct := res.Header.Get("Content-Type"); ct != format {
		t.Errorf("Content-Type %q, want %q", ct, format)
	}
	answer, _ := body(t, res).(map[string]any)
	return res.StatusCode, res.Header, answer
}

func TestASignedRequestGetsAToken(t *testing.T) {
	api, _ := newSandbox(t)
	for _, format := range []string{jsonType, msgpackType} {
		status, _, d := post(t, api, format, "/keys/app.key/requestToken", "-",
			tokenRequest(fields{"ttl": 1234567, "clientId": "bob", "capability": `{"b":["publish"],"a":["*"]}`}))
		token, _ := d["token"].(string)
		issued, _ := d["issued"].(float64)
		if status != 201 || len(d) != 6 || !strings.HasPrefix(token, "app.") || d["keyName"] != "app.key" || d["clientId"] != "bob" ||
			d["capability"] != `{"a":["*"],"b":["publish"]}` || d["expires"] != issued+1234567 ||
			time.Since(time.UnixMilli(int64(issued))).Abs() > time.Minute {
			t.Fatalf("status %d, %v", status, d)
		}
		for _, bearer := range []string{token, base64.StdEncoding.EncodeToString([]byte(token))} {
			header := map[string]string{"Authorization": "Bearer " + bearer}
			for path, want := range map[string]int{"/channels/b/messages": 201, "/channels/c/messages": 401} {
				res := do(t, api, request{method: http.MethodPost, path: path, key: "-", body: `{"name":"a"}`, header: header})
				if res.StatusCode != want {
					t.Errorf("%s with the token: status %d, want %d", path, res.StatusCode, want)
				}
			}
		}
	}
}

func TestRequestsForTokensAreRefusedWithTheirCodes(t *testing.T) {
	api, _ := newSandbox(t)
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).UnixMilli() }
	used := tokenRequest(nil)
	if status, _, d := post(t, api, jsonType, "/keys/app.key/requestToken", "-", used); status != 201 {
		t.Fatalf("status %d, %v", status, d)
	}
	for _, c := range []struct {
		name   string
		path   string // empty: of app.key
		key    string
		body   fields
		status int
		code   int
	}{
		{"an unknown app", "nosuch.key", "-", tokenRequest(fields{"keyName": "nosuch.key"}), 404, 40400},
		{"an unknown key", "app.nosuch", "-", tokenRequest(fields{"keyName": "app.nosuch"}), 404, 40400},
		{"an unknown key of somebody known", "app.nosuch", key, tokenRequest(fields{"keyName": "app.nosuch"}), 404, 40400},
		{"a name that is none", "app", "-", tokenRequest(nil), 404, 40400},
		{"the name of another key", "", "-", tokenRequest(fields{"keyName": "app.reader"}), 401, 40101},
		{"a bad mac", "", "-", tokenRequest(fields{"mac": "bWFj"}), 401, 40101},
		{"a bad mac beside a key", "", key, tokenRequest(fields{"mac": "bWFj"}), 401, 40101},
		{"unsigned, no credentials", "", "-", fields{"keyName": "app.key"}, 401, 40101},
		{"unsigned, another key", "", "app.reader:secret", fields{"keyName": "app.key"}, 401, 40101},
		{"unsigned, wrong secret", "", "app.key:wrong", fields{"keyName": "app.key"}, 401, 40101},
		{"an old timestamp", "", "-", tokenRequest(fields{"timestamp": ago(30 * time.Minute)}), 401, 40104},
		{"a timestamp to come", "", "-", tokenRequest(fields{"timestamp": ago(-30 * time.Minute)}), 401, 40104},
		{"no timestamp", "", "-", tokenRequest(fields{"timestamp": nil}), 401, 40104},
		{"used before", "", "-", used, 401, 40105},
		{"a short nonce", "", "-", tokenRequest(fields{"nonce": "short"}), 401, 40105},
		{"a negative ttl", "", "-", tokenRequest(fields{"ttl": -1}), 400, 40003},
		{"a ttl in words", "", "-", tokenRequest(fields{"ttl": "invalid ttl"}), 400, 40003},
		{"a ttl of a year", "", "-", tokenRequest(fields{"ttl": int64(365 * 24 * 3600 * 1000)}), 400, 40003},
		{"a ttl that is an array", "", "-", tokenRequest(fields{"ttl": []int{1}}), 400, 40003},
		{"an empty clientId", "", "-", tokenRequest(fields{"clientId": ""}), 400, 40012},
		{"a clientId that is a number", "", "-", tokenRequest(fields{"clientId": 7}), 400, 40012},
		{"a capability that is none", "", "-", tokenRequest(fields{"capability": "all"}), 400, 40000},
		{"an unknown operation", "", "-", tokenRequest(fields{"capability": `{"c":["publish_"]}`}), 400, 40000},
		{"no operations", "", "-", tokenRequest(fields{"capability": `{"c":[]}`}), 400, 40000},
		{"* beside others", "", "-", tokenRequest(fields{"capability": `{"c":["*","publish"]}`}), 400, 40000},
		{"nothing in common", "app.reader", "-", tokenRequest(fields{"keyName": "app.reader", "capability": `{"c":["publish"]}`}), 401, 40160},
		{"a long life of a revocable key", "app.revocable", "-", tokenRequest(fields{"keyName": "app.revocable", "ttl": 3600001}), 400, 40003},
	} {
		for _, format := range []string{jsonType, msgpackType} {
			path := c.path
			if path == "" {
				path = "app.key"
			}
			sent := c.body
			if sent["mac"] != nil && c.name != "used before" {
				// Another nonce for each format, unless it is the point.
				again := fields{}
				for name, v := range sent {
					again[name] = v
				}
				if again["mac"] != "bWFj" {
					delete(again, "mac")
				}
				if len(fmt.Sprint(again["nonce"])) >= 16 {
					delete(again, "nonce")
				}
				if _, has := again["timestamp"]; !has {
					again["timestamp"] = nil
				}
				sent = tokenRequest(again)
			}
			status, h, answer := post(t, api, format, "/keys/"+path+"/requestToken", c.key, sent)
			e, _ := answer["error"].(map[string]any)
			if status != c.status || e["code"] != float64(c.code) || e["statusCode"] != float64(c.status) ||
				h.Get("X-Ably-Errorcode") != fmt.Sprint(c.code) || h.Get("X-Ably-Errormessage") == "" {
				t.Errorf("%s in %s: status %d, %v, want %d/%d", c.name, format, status, answer, c.status, c.code)
			}
		}
	}
	// MessagePack can say what JSON cannot.
	status, _, answer := post(t, api, msgpackType, "/keys/app.key/requestToken", key, fields{"keyName": "app.key", "ttl": math.NaN()})
	if e, _ := answer["error"].(map[string]any); status != 400 || e["code"] != float64(40003) {
		t.Errorf("a ttl of NaN: status %d, %v", status, answer)
	}
	// There is nothing to get, whether the key is known or not.
	for _, name := range []string{"app.key", "nosuch.key"} {
		res := do(t, api, request{path: "/keys/" + name + "/requestToken", key: "-"})
		if res.StatusCode != 404 || res.Header.Get("X-Ably-Errorcode") != "40400" {
			t.Errorf("GET of %s: status %d, %v", name, res.StatusCode, res.Header)
		}
	}
	res := do(t, api, request{method: http.MethodPost, path: "/keys/app.key/requestToken", body: `{"capability":"` + strings.Repeat("x", 300_000) + `"}`})
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge request: status %d", res.StatusCode)
	}
}

func TestWhoHasTheKeyNeedsNoSignature(t *testing.T) {
	api, _ := newSandbox(t)
	for _, format := range []string{jsonType, msgpackType} {
		for _, sent := range []fields{{}, {"keyName": "app.key", "ttl": "5000", "capability": map[string][]string{"x": {"publish"}}}} {
			status, _, d := post(t, api, format, "/keys/app.key/requestToken", key, sent)
			life, capability := 3_600_000.0, `{"*":["*"]}`
			if sent["ttl"] != nil {
				life, capability = 5000, `{"x":["publish"]}`
			}
			if status != 201 || d["capability"] != capability || d["expires"].(float64)-d["issued"].(float64) != life {
				t.Errorf("status %d, %v", status, d)
			}
		}
	}
}

func TestPublishedKeysHaveTokensForLocalPeersOnly(t *testing.T) {
	api, _ := newSandbox(t)
	for origin, want := range map[string]int{"": 201, "http://localhost:3000": 201, "https://elsewhere.example": 403} {
		b, err := json.Marshal(tokenRequest(fields{"keyName": "app.published"}))
		if err != nil {
			t.Fatal(err)
		}
		r := request{method: http.MethodPost, path: "/keys/app.published/requestToken", key: "-", body: string(b)}
		if origin != "" {
			r.header = map[string]string{"Origin": origin}
		}
		if res := do(t, api, r); res.StatusCode != want {
			t.Errorf("from %q: status %d, want %d", origin, res.StatusCode, want)
		}
	}
}
