package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/config"
)

// refusal is what a client is told.
type refusal struct {
	code, status int
	text         string
}

// askREST makes a request with credentials, and returns what its answer says in the body; the
// headers must say the same.
func (n *node) askREST(q url.Values, h http.Header, format string) refusal {
	n.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+n.addr+"/channels/c/messages?"+q.Encode(), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	for name, values := range h {
		req.Header[name] = values
	}
	req.Header.Set("Accept", format)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		return refusal{status: http.StatusOK}
	}
	var answer struct {
		Error struct {
			Code       int    `json:"code" msgpack:"code"`
			StatusCode int    `json:"statusCode" msgpack:"statusCode"`
			Message    string `json:"message" msgpack:"message"`
		} `json:"error" msgpack:"error"`
	}
	decode := json.Unmarshal
	if format == "application/x-msgpack" {
		decode = msgpack.Unmarshal
	}
	if err := decode(body, &answer); err != nil || res.Header.Get("Content-Type") != format {
		n.t.Errorf("%v, %s: %q", err, res.Header.Get("Content-Type"), body)
	}
	e := answer.Error
	header, _ := json.Marshal(e.Code)
	if e.StatusCode != res.StatusCode || res.Header.Get("X-Ably-Errorcode") != string(header) || res.Header.Get("X-Ably-Errormessage") == "" {
		n.t.Errorf("status %d, headers %v, body %+v", res.StatusCode, res.Header, e)
	}
	return refusal{e.Code, e.StatusCode, e.Message}
}

// askRealtime connects with credentials, and returns what the first ProtocolMessage says. A
// refusal is an ERROR without a channel, and the socket is closed after it.
func (n *node) askRealtime(q url.Values, h http.Header) refusal {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+n.addr+"/?v=6&"+q.Encode(), &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		n.t.Fatal(err) // a refusal is told after the upgrade
	}
	defer ws.CloseNow()
	_, text, err := ws.Read(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	var pm struct {
		Action  int
		Channel *string
		Error   struct {
			Code, StatusCode int
			Message          string
		}
	}
	if err := json.Unmarshal(text, &pm); err != nil {
		n.t.Fatal(err)
	}
	if pm.Action == 4 {
		return refusal{status: http.StatusOK}
	}
	if _, _, err := ws.Read(ctx); pm.Action != pmError || pm.Channel != nil || websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		n.t.Errorf("got %s, then %v", text, err)
	}
	return refusal{pm.Error.Code, pm.Error.StatusCode, pm.Error.Message}
}

// TestCredentialsAreRefusedAsSDKsExpectIt goes through what can be wrong with credentials, at
// the doors. The rows for plaintext connections are those of TLS.
func TestCredentialsAreRefusedAsSDKsExpectIt(t *testing.T) {
	n := run(t)
	day := 24 * time.Hour
	signed := func(kid, secret string, claims jwt.MapClaims) string {
		t.Helper()
		all := jwt.MapClaims{"iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(30 * time.Minute).Unix()}
		for name, v := range claims {
			if all[name] = v; v == nil {
				delete(all, name)
			}
		}
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, all)
		if token.Header["kid"] = kid; kid == "" {
			delete(token.Header, "kid")
		}
		text, err := token.SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	one := func(claims jwt.MapClaims) string { return signed("mine.one", testSecret, claims) }
	issue := func(key, body string) string {
		t.Helper()
		name, _, _ := strings.Cut(key, ":")
		status, d := n.post("/keys/"+name+"/requestToken", key, body)
		if status != 201 {
			t.Fatalf("status %d %v", status, d)
		}
		return d["token"].(string)
	}
	const keyOne, keyTwo = "mine.one:" + testSecret, "mine.two:" + otherSecret
	ably, ablyBob, ofTwo, soonOver := issue(keyOne, "{}"), issue(keyOne, `{"clientId":"bob"}`), issue(keyTwo, "{}"), issue(keyOne, `{"ttl":1}`)
	revoked := one(jwt.MapClaims{"x-ably-clientId": "revoked"})
	if status, _ := n.post("/keys/mine.one/revokeTokens", keyOne, `{"targets":["clientId:revoked"]}`); status != 201 {
		t.Fatalf("status %d", status)
	}
	// Key three was there once, and key two has another secret by now.
	reload := func(keys ...config.Key) {
		t.Helper()
		secrets := n.secrets
		secrets.Keys = keys
		if _, err := n.Reload(n.config, secrets); err != nil {
			t.Fatal(err)
		}
	}
	first, second := n.secrets.Keys[0], n.secrets.Keys[1]
	reload(first, second, config.Key{App: "mine", ID: "three", Secret: "the-secret-of-a-key-that-was-there"})
	ofThree := issue("mine.three:the-secret-of-a-key-that-was-there", "{}")
	second.Secret = "the-secret-that-key-two-has-by-now"
	reload(first, second)

	header := func(v string) http.Header { return http.Header{"Authorization": {v}} }
	basic := func(v string) http.Header { return header("Basic " + base64.StdEncoding.EncodeToString([]byte(v))) }
	q := func(pairs ...string) url.Values {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	token := func(v string) url.Values { return q("access_token", v) }
	fine := refusal{status: http.StatusOK}
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		name           string
		q              url.Values
		h              http.Header
		rest, realtime refusal
	}{
		{"no credentials", nil, nil, refusal{40101, 401, "no authentication credentials"}, refusal{40101, 401, "no authentication credentials"}},
		{"a key that is none", q("key", "api:key"), nil, refusal{40005, 400, "invalid key"}, refusal{40101, 401, "invalid key"}},
		{"a key without a name", q("key", "js9de7r:secret"), nil, refusal{40005, 400, "invalid key"}, refusal{40101, 401, "invalid key"}},
		{"the same as Basic", nil, basic("js9de7r:secret"), refusal{40005, 400, "invalid key"}, refusal{40101, 401, "invalid key"}},
		{"an unknown app", q("key", "this.is:wrong"), nil, refusal{40400, 404, "no application"}, refusal{40101, 401, "no application"}},
		{"an unknown app, short", q("key", "a.b:wrong"), nil, refusal{40400, 404, "no application"}, refusal{40101, 401, "no application"}},
		{"an unknown app, long", q("key", long+".b:wrong"), nil, refusal{40400, 404, "no application"}, refusal{40101, 401, "no application"}},
		{"an unknown key", q("key", "mine.nokey:wrong"), nil, refusal{40400, 401, "no key"}, refusal{40101, 401, "no key"}},
		{"a wrong secret", q("key", "mine.one:wrong"), nil, refusal{40101, 401, "wrong secret"}, refusal{40101, 401, "wrong secret"}},
		{"a token that is none", token("invalid token"), nil, refusal{40101, 401, "invalid token"}, refusal{40101, 401, "invalid token"}},
		{"the same as Bearer", nil, header("Bearer invalid-token"), refusal{40101, 401, "invalid token"}, refusal{40101, 401, "invalid token"}},
		{"a JWT of an unknown app", token(signed("invalid.invalid", "invalidinvalid", nil)), nil, refusal{40400, 404, "no application"}, refusal{40400, 404, "no application"}},
		{"a JWT of an unknown app, short", token(signed("a.b", "invalidinvalid", nil)), nil, refusal{40400, 404, "no application"}, refusal{40400, 404, "no application"}},
		{"a JWT of an unknown app, long", token(signed(long+".b", "invalidinvalid", nil)), nil, refusal{40400, 404, "no application"}, refusal{40400, 404, "no application"}},
		{"a JWT of an unknown key", token(signed("mine.nokey", testSecret, nil)), nil, refusal{40130, 401, "no key"}, refusal{40130, 401, "no key"}},
		{"a JWT with a bad signature", token(signed("mine.one", "wrong", nil)), nil, refusal{40144, 401, "invalid JWT format"}, refusal{40144, 401, "invalid JWT format"}},
		{"a JWT without a key", token(signed("", testSecret, nil)), nil, refusal{40144, 401, "invalid JWT format"}, refusal{40144, 401, "invalid JWT format"}},
		{"a malformed JWT", token("a.b.c"), nil, refusal{40144, 401, "invalid JWT format"}, refusal{40144, 401, "invalid JWT format"}},
		{"a JWE without a token", token("a.b.c.d.e"), nil, refusal{40144, 401, "invalid JWT format"}, refusal{40144, 401, "invalid JWT format"}},
		{"a JWT without iat", token(one(jwt.MapClaims{"iat": nil})), nil, refusal{40144, 400, "iat must be specified"}, refusal{40144, 400, "iat must be specified"}},
		{"a JWT without exp", token(one(jwt.MapClaims{"exp": nil})), nil, refusal{40144, 400, "exp must be specified"}, refusal{40144, 400, "exp must be specified"}},
		{"a JWT that lives too long", token(one(jwt.MapClaims{"exp": time.Now().Add(day).Unix()})), nil, refusal{40003, 400, "longest life"}, refusal{40003, 400, "longest life"}},
		{"a JWT that has expired", token(one(jwt.MapClaims{"exp": time.Now().Unix()})), nil, refusal{40142, 401, "token expired"}, refusal{40142, 401, "token expired"}},
		{"an Ably token that has expired", token(soonOver), nil, refusal{40142, 401, "token expired"}, refusal{40142, 401, "token expired"}},
		{"an Ably token that is none", token("mine.nothing"), nil, refusal{40145, 401, "invalid token"}, refusal{40145, 401, "invalid token"}},
		{"an Ably token that was changed", token(ably[:len(ably)-1]), nil, refusal{40145, 401, "invalid token"}, refusal{40145, 401, "invalid token"}},
		{"an Ably token of nobody's app", token("nobody.nothing"), nil, refusal{40101, 401, "invalid token"}, refusal{40101, 401, "invalid token"}},
		{"an Ably token of a key that is gone", token(ofThree), nil, refusal{40130, 401, "no key"}, refusal{40130, 401, "no key"}},
		{"an Ably token of a key with another secret", token(ofTwo), nil, refusal{40131, 401, "earlier key"}, refusal{40131, 401, "earlier key"}},
		{"a revoked token", token(revoked), nil, refusal{40141, 401, "token revoked"}, refusal{40141, 401, "token revoked"}},
		{"a revoked token for another client", q("access_token", revoked, "clientId", "x"), nil, refusal{40141, 401, "token revoked"}, refusal{40102, 401, "incompatible"}},
		{"a token of another client", q("access_token", ablyBob, "clientId", "eve"), nil, fine, refusal{40102, 401, "incompatible"}},
		{"a token of nobody", q("access_token", ably, "clientId", "eve"), nil, fine, refusal{40102, 401, "incompatible"}},
		{"a header of another client", token(ablyBob), http.Header{"X-Ably-Clientid": {"ZXZl"}}, refusal{40102, 401, "incompatible"}, fine},
		{"a header that is unreadable", token(ablyBob), http.Header{"X-Ably-Clientid": {"%"}}, refusal{40004, 400, "X-Ably-ClientId"}, fine},
		{"any client by a key", q("key", keyOne, "clientId", "*"), nil, refusal{40012, 400, "invalid clientId"}, refusal{40012, 400, "invalid clientId"}},
		{"a token for no client", token(one(jwt.MapClaims{"x-ably-clientId": ""})), nil, refusal{40012, 400, "invalid clientId"}, refusal{40012, 400, "invalid clientId"}},
		{"a server that is none", q("access_token", ably, "clientType", "server"), nil, fine, refusal{40167, 401, "clientType=server"}},
		{"a capability that is none", token(one(jwt.MapClaims{"x-ably-capability": "{"})), nil, refusal{40000, 400, "invalid capability"}, refusal{40000, 400, "invalid capability"}},
		{"no right to read", token(one(jwt.MapClaims{"x-ably-capability": `{"c":["publish"]}`})), nil, refusal{40160, 401, ""}, fine},
		{"a token and a bad key", q("access_token", ably, "key", "api:key"), nil, fine, fine},
		{"a header before a token", token("invalid token"), basic(keyOne), fine, fine},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.t = t
			for _, format := range []string{"application/json", "application/x-msgpack"} {
				if got := n.askREST(c.q, c.h, format); got.code != c.rest.code || got.status != c.rest.status || !strings.Contains(got.text, c.rest.text) {
					t.Errorf("REST: got %+v, want %+v", got, c.rest)
				}
			}
			if got := n.askRealtime(c.q, c.h); got.code != c.realtime.code || got.status != c.realtime.status || !strings.Contains(got.text, c.realtime.text) {
				t.Errorf("realtime: got %+v, want %+v", got, c.realtime)
			}
		})
	}
	n.t = t

	status, app := n.post("/apps", "", `{"keys":[{},{}]}`)
	id, _ := app["appId"].(string)
	if six := regexp.MustCompile(`^\w{6}$`); status != 201 || !six.MatchString(id) {
		t.Errorf("status %d, app id %q", status, id)
	}
	for _, k := range app["keys"].([]any) {
		if name := k.(map[string]any)["keyName"].(string); !regexp.MustCompile(`^` + id + `\.\w{6}$`).MatchString(name) {
			t.Errorf("key name %q", name)
		}
	}
}
