package rest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestTokensAreRevokedOverREST(t *testing.T) {
	for _, format := range []string{jsonType, msgpackType} {
		api, _ := newSandbox(t)
		issue := func(id string) map[string]string {
			t.Helper()
			status, _, d := post(t, api, format, "/keys/app.revocable/requestToken", "app.revocable:secret", fields{"clientId": id})
			if status != 201 {
				t.Fatalf("status %d, %v", status, d)
			}
			return map[string]string{"Authorization": "Bearer " + fmt.Sprint(d["token"]), "Accept": format}
		}
		history := func(header map[string]string) (status int, code string) {
			t.Helper()
			res := do(t, api, request{path: "/channels/c/messages", key: "-", header: header})
			return res.StatusCode, res.Header.Get("X-Ably-Errorcode")
		}
		bob, eve := issue("bob"), issue("eve")
		started := time.Now().UnixMilli()
		for time.Now().UnixMilli() == started { // a token of this very millisecond is not older than the revocation
		}
		status, _, answer := post(t, api, format, "/keys/app.revocable/revokeTokens", "app.revocable:secret",
			fields{"targets": []string{"clientId:bob", "invalidType:abc", "clientId:nobody"}})
		results, _ := answer["results"].([]any)
		if status != 201 || len(answer) != 3 || answer["successCount"] != 2.0 || answer["failureCount"] != 1.0 || len(results) != 3 {
			t.Fatalf("status %d, %v", status, answer)
		}
		for i, target := range []string{"clientId:bob", "invalidType:abc", "clientId:nobody"} {
			r := results[i].(map[string]any)
			if r["target"] != target {
				t.Errorf("%v", r)
			}
			if i == 1 {
				failure, _ := r["error"].(map[string]any)
				if len(r) != 2 || failure["statusCode"] != 400.0 || failure["code"] != 40003.0 || failure["message"] == "" {
					t.Errorf("%v", r)
				}
			} else if ms, _ := r["issuedBefore"].(float64); len(r) != 3 || ms < float64(started) || r["appliesAt"] != ms {
				t.Errorf("%v", r)
			}
		}
		if status, code := history(bob); status != 401 || code != "40141" {
			t.Errorf("the revoked token: %d %s", status, code)
		}
		for _, header := range []map[string]string{eve, issue("bob")} {
			if status, code := history(header); status != 200 {
				t.Errorf("another token: %d %s", status, code)
			}
		}

		// The margin is whole, whenever a client looked at the clock before.
		before := started - (20 * time.Minute).Milliseconds()
		_, _, answer = post(t, api, format, "/keys/app.revocable/revokeTokens", "app.revocable:secret",
			fields{"targets": []string{"clientId:eve"}, "issuedBefore": before, "allowReauthMargin": true})
		r := answer["results"].([]any)[0].(map[string]any)
		if at, _ := r["appliesAt"].(float64); r["issuedBefore"] != float64(before) || at <= float64(started+30_000) {
			t.Errorf("%v", r)
		}
	}
}

func TestOldVersionsGetTheBareResults(t *testing.T) {
	api, _ := newSandbox(t)
	for _, c := range []struct {
		header, param string
		list          bool
	}{{"", "", false}, {"6", "", false}, {"3", "", false}, {"2", "", true}, {"1.2", "", true}, {"", "2", true}, {"3", "2", false}} {
		r := request{method: http.MethodPost, path: "/keys/app.revocable/revokeTokens", key: "app.revocable:secret",
			body: `{"targets":["clientId:bob","x"]}`, header: map[string]string{}}
		if c.header != "" {
			r.header["X-Ably-Version"] = c.header
		}
		if c.param != "" {
			r.path += "?v=" + c.param
		}
		res := do(t, api, r)
		list, is := body(t, res).([]any)
		if res.StatusCode != 201 || is != c.list || is && len(list) != 2 {
			t.Errorf("%+v: status %d, a list: %v", c, res.StatusCode, is)
		}
	}
}

// RSC7e
func TestAVersionThatIsNoneIsRefusedWhereItMatters(t *testing.T) {
	api, _ := newSandbox(t)
	for _, version := range []string{"x", "3x", "+3", "-1", "1.", "1.x", ".2", "1.2.3", " ", "99999999999999999999", "0x3"} {
		r := request{method: http.MethodPost, path: "/keys/app.revocable/revokeTokens", key: "app.revocable:secret", body: `{"targets":["x"]}`}
		r.header = map[string]string{"X-Ably-Version": version}
		if res := do(t, api, r); res.StatusCode != 400 || res.Header.Get("X-Ably-Errorcode") != "40017" {
			t.Errorf("%q: %d %s", version, res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
		}
		r.path, r.header = r.path+"?v="+url.QueryEscape(version), nil
		if res := do(t, api, r); res.StatusCode != 400 || res.Header.Get("X-Ably-Errorcode") != "40017" {
			t.Errorf("v=%q: %d %s", version, res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
		}
		if res := do(t, api, request{path: "/time", header: map[string]string{"X-Ably-Version": version}}); res.StatusCode != 200 {
			t.Errorf("%q of /time: %d", version, res.StatusCode)
		}
	}
}

func TestRevocationsAreRefusedWithTheirCodes(t *testing.T) {
	api, _ := newSandbox(t)
	_, _, d := post(t, api, jsonType, "/keys/app.revocable/requestToken", "app.revocable:secret", fields{})
	bearer := map[string]string{"Authorization": "Bearer " + fmt.Sprint(d["token"])}
	const path, owner, bob = "/keys/app.revocable/revokeTokens", "app.revocable:secret", `{"targets":["clientId:bob"]}`
	targets := func(n int) string { return `{"targets":["x:` + strings.Repeat(`","x:`, n-1) + `"]}` }
	for _, c := range []struct {
		name   string
		r      request
		status int
		code   string
	}{
		{"nobody", request{path: path, key: "-", body: bob}, 401, "40101"},
		{"a token", request{path: path, key: "-", header: bearer, body: bob}, 401, "40162"},
		{"the wrong secret", request{path: path, key: "app.revocable:wrong", body: bob}, 401, "40101"},
		{"another key", request{path: path, key: key, body: bob}, 401, "40133"},
		{"an unknown key", request{path: "/keys/app.nosuch/revokeTokens", key: owner, body: bob}, 401, "40133"},
		{"a key without revocable tokens", request{path: "/keys/app.key/revokeTokens", key: key, body: bob}, 401, "40163"},
		{"no JSON", request{path: path, key: owner, body: "{"}, 400, "40001"},
		{"no object", request{path: path, key: owner, body: `["clientId:bob"]`}, 400, "40001"},
		{"targets that are no list", request{path: path, key: owner, body: `{"targets":"clientId:bob"}`}, 400, "40001"},
		{"targets that are no texts", request{path: path, key: owner, body: `{"targets":[1]}`}, 400, "40001"},
		{"no targets", request{path: path, key: owner, body: "{}"}, 400, "40003"},
		{"101 targets", request{path: path, key: owner, body: targets(101)}, 400, "40003"},
		{"100 targets", request{path: path, key: owner, body: targets(100)}, 201, ""},
		{"a fraction", request{path: path, key: owner, body: `{"targets":["clientId:bob"],"issuedBefore":1.5}`}, 400, "40003"},
		{"a time in seconds", request{path: path, key: owner, body: fmt.Sprintf(`{"targets":["clientId:bob"],"issuedBefore":%d}`, time.Now().Unix())}, 400, "40003"},
		{"a time to come", request{path: path, key: owner, body: fmt.Sprintf(`{"targets":["clientId:bob"],"issuedBefore":%d}`, time.Now().Add(time.Minute).UnixMilli())}, 400, "40003"},
		{"a bad version", request{path: path + "?v=x", key: owner, body: bob}, 400, "40017"},
		{"too much", request{path: path, key: owner, body: `{"targets":["` + strings.Repeat("x", 300<<10) + `"]}`}, 413, "40009"},
		{"another method", request{method: http.MethodGet, path: path, key: owner}, 405, "40500"},
	} {
		for _, format := range []string{jsonType, msgpackType} {
			r := c.r
			if r.method == "" {
				r.method = http.MethodPost
			}
			header := map[string]string{"Accept": format}
			for name, v := range r.header {
				header[name] = v
			}
			r.header = header
			res := do(t, api, r)
			if got := res.Header.Get("X-Ably-Errorcode"); res.StatusCode != c.status || got != c.code || res.Header.Get("Content-Type") != format {
				t.Errorf("%s: status %d, code %s, want %d %s", c.name, res.StatusCode, got, c.status, c.code)
			}
		}
	}
}
