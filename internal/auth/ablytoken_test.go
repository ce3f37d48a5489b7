package auth_test

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

const tokenSecret = "a secret for the tokens of these tests"

// clocked is an authenticator whose clock and apps the test moves.
type clocked struct {
	*auth.Authenticator
	registry *auth.Registry
	now      time.Time
}

func newClocked(t testing.TB, secret string) *clocked {
	c := &clocked{registry: auth.NewRegistry(newApp(t)), now: now}
	clock := func() time.Time { return c.now }
	c.Authenticator = auth.NewAuthenticator(c.registry, clock, auth.WithTokenSecret(secret), auth.WithNonces(store(clock)))
	return c
}

// mint makes an Ably token of key001.
func mint(t testing.TB, a *auth.Authenticator, change func(*auth.TokenRequest)) string {
	t.Helper()
	r := request()
	if change != nil {
		change(r)
	}
	d, err := ask(a, r.KeyName, signed(r, secret1), "")
	if err != nil {
		t.Fatal(err)
	}
	return d.Token
}

func TestAnAblyTokenIsAcceptedAtEveryDoor(t *testing.T) {
	a := newClocked(t, tokenSecret)
	token := mint(t, a.Authenticator, func(r *auth.TokenRequest) { r.ClientID, r.HasClientID = "bob", true })
	header := func(value string) http.Header { return http.Header{"Authorization": {value}} }
	for name, enter := range map[string]func() (*auth.Grant, error){
		"access_token": func() (*auth.Grant, error) { return a.Realtime(url.Values{"access_token": {token}}, nil) },
		"accessToken":  func() (*auth.Grant, error) { return a.Realtime(url.Values{"accessToken": {token}}, nil) },
		"with clientId": func() (*auth.Grant, error) {
			return a.Realtime(url.Values{"access_token": {token}, "clientId": {"bob"}}, nil)
		},
		"in band":      func() (*auth.Grant, error) { return a.RealtimeToken(token, "bob") },
		"REST, plain":  func() (*auth.Grant, error) { return a.REST(nil, header("Bearer "+token)) },
		"REST, base64": func() (*auth.Grant, error) { return a.REST(nil, header("Bearer "+b64(token))) },
		"REST, URL base64": func() (*auth.Grant, error) {
			return a.REST(nil, header("Bearer "+base64.RawURLEncoding.EncodeToString([]byte(token))))
		},
		"REST, parameter": func() (*auth.Grant, error) { return a.REST(url.Values{"access_token": {token}}, nil) },
	} {
		if g, err := enter(); err != nil || g.ClientID != "bob" || g.ByKey {
			t.Errorf("%s: %+v %v", name, g, err)
		}
	}
	// Another authenticator with the same secret takes it, one with another does not.
	if _, err := newClocked(t, tokenSecret).RealtimeToken(token, ""); err != nil {
		t.Error(err)
	}
	_, err := newClocked(t, tokenSecret+"!").RealtimeToken(token, "")
	code(t, err, pubsub.CodeInvalidToken, 401)
	_, err = authenticator(t).RealtimeToken(token, "")
	code(t, err, pubsub.CodeInvalidToken, 401)
}

func TestAnAblyTokenSaysWhoItsClientIs(t *testing.T) {
	a := newClocked(t, tokenSecret)
	bob := mint(t, a.Authenticator, func(r *auth.TokenRequest) { r.ClientID, r.HasClientID = "bob", true })
	anybody := mint(t, a.Authenticator, func(r *auth.TokenRequest) { r.ClientID, r.HasClientID = "*", true })
	nobody := mint(t, a.Authenticator, nil)
	for _, c := range []struct {
		token, claim, is string
		code             pubsub.Code
		status           int
	}{
		{bob, "", "bob", 0, 0}, {bob, "bob", "bob", 0, 0}, {bob, "eve", "", 40102, 401},
		{anybody, "", "*", 0, 0}, {anybody, "eve", "eve", 0, 0},
		{nobody, "", "", 0, 0}, {nobody, "eve", "", 40102, 401},
	} {
		g, err := a.RealtimeToken(c.token, c.claim)
		if c.code != 0 {
			code(t, err, c.code, c.status)
		} else if err != nil || g.ReportedClientID() != c.is {
			t.Errorf("%q: %+v %v", c.claim, g, err)
		}
	}
	_, err := a.Realtime(url.Values{"access_token": {bob}, "clientType": {"server"}}, nil)
	code(t, err, pubsub.CodeClientTypeRequired, 401)
}

func TestAnAblyTokenEndsToTheMillisecond(t *testing.T) {
	a := newClocked(t, tokenSecret)
	token := mint(t, a.Authenticator, func(r *auth.TokenRequest) { r.TTL = "1500" })
	a.now = now.Add(1499 * time.Millisecond)
	if _, err := a.RealtimeToken(token, ""); err != nil {
		t.Error(err)
	}
	a.now = now.Add(1500 * time.Millisecond)
	for _, err := range []error{second(a.RealtimeToken(token, "")), second(a.REST(url.Values{"access_token": {token}}, nil))} {
		if text := code(t, err, pubsub.CodeTokenExpired, 401); text != "token expired" {
			t.Errorf("told %q", text)
		}
	}
}

func TestAnAblyTokenEndsWithItsAppAndKey(t *testing.T) {
	a := newClocked(t, tokenSecret)
	token := mint(t, a.Authenticator, nil)
	app := func(keys ...auth.Key) *auth.App {
		app, err := auth.NewApp("app001", keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		return app
	}
	a.registry.Replace()
	_, err := a.RealtimeToken(token, "")
	code(t, err, pubsub.CodeNotFound, 404)
	a.registry.Replace(app(auth.Key{ID: "key002", Secret: secret2}))
	_, err = a.RealtimeToken(token, "")
	code(t, err, pubsub.CodeKeyUnknown, 401)
	a.registry.Replace(app(auth.Key{ID: "key001", Secret: secret2}))
	_, err = a.RealtimeToken(token, "")
	code(t, err, pubsub.CodeKeyRevoked, 401)
	a.registry.Replace(app(auth.Key{ID: "key001", Secret: secret1, Capability: capability(t, `{"a":["publish"]}`)}))
	if g, err := a.RealtimeToken(token, ""); err != nil || g.Capability.String() != `{"a":["publish"]}` {
		t.Errorf("of a key with fewer rights: %+v %v", g, err)
	}
	// Under another app's name it is none.
	other, err := auth.NewApp("app002", []auth.Key{{ID: "key001", Secret: secret1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.registry.Replace(other)
	_, err = a.RealtimeToken("app002"+strings.TrimPrefix(token, "app001"), "")
	code(t, err, pubsub.CodeInvalidToken, 401)
}

func TestWhatIsNoAblyTokenIsToldApart(t *testing.T) {
	a := newClocked(t, tokenSecret)
	good := mint(t, a.Authenticator, nil)
	for _, c := range []struct {
		token string
		code  pubsub.Code
	}{
		{"invalid token", 40101}, {"garbage", 40101}, {"nosuch.token", 40101}, {"nosuch" + good[len("app001"):], 40101}, {".x", 40101},
		{strings.Repeat("x", 128<<10+1), 40101}, {"app001." + strings.Repeat("x", 128<<10), 40101},
		{"app001.", 40145}, {"app001.x", 40145}, {"app001.invalid-token", 40145}, {good[:len(good)-1], 40145}, {good + "A", 40145},
		{good + "=", 40145}, {good + "\n", 40145}, {good[:20] + "\r\n" + good[20:], 40145}, {"app001." + strings.Repeat("A", 32), 40145},
		{"app001." + strings.Repeat("A", 200), 40145},
	} {
		_, err := a.RealtimeToken(c.token, "")
		if code(t, err, c.code, 401) == "" {
			t.Errorf("%.40q", c.token)
		}
	}
	// Every other spelling of the last character, and every bit.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := len("app001."); i < len(good); i++ {
		for _, c := range []byte(alphabet + "+/= ") {
			if c == good[i] {
				continue
			}
			if _, err := a.RealtimeToken(good[:i]+string(c)+good[i+1:], ""); err == nil {
				t.Fatalf("got in with %q at %d", c, i)
			}
		}
	}
}

// FuzzOpaqueToken: nothing gets in but the token that was made, in its one spelling.
func FuzzOpaqueToken(f *testing.F) {
	a := newClocked(f, rand.Text()) // the processes of a fuzzer must not know each other's tokens
	good := mint(f, a.Authenticator, func(r *auth.TokenRequest) { r.Capability = `{"a":["publish"]}` })
	f.Add(good, "", 0, byte(0))
	f.Add(good, "bob", 30, byte(1))
	f.Add("app001.", "", 0, byte(0))
	f.Add(good[:len(good)-2], "", 3, byte(0x20))
	f.Add(b64(good), "", 7, byte(0x80))
	f.Fuzz(func(t *testing.T, token, clientID string, at int, flip byte) {
		mutated := []byte(good)
		if at >= 0 && at < len(good) {
			mutated[at] ^= flip
		}
		raw, _ := base64.RawURLEncoding.DecodeString(good[len("app001."):])
		if at >= 0 && at < len(raw) {
			raw[at] ^= flip
		}
		for _, token := range []string{token, string(mutated), "app001." + base64.RawURLEncoding.EncodeToString(raw), good + token, "app001." + token} {
			for _, err := range []error{
				second(a.RealtimeToken(token, clientID)),
				second(a.REST(url.Values{"access_token": {token}}, nil)),
			} {
				var e *pubsub.Error
				if err == nil && token != good {
					t.Errorf("%q got in", token)
				} else if err != nil && (!errors.As(err, &e) || e.StatusCode < 400 || e.StatusCode > 499) {
					t.Errorf("%q: %v", token, err)
				}
			}
		}
	})
}

// FuzzTokenRequest: whoever does not have the secret gets no token, and who has it gets one
// that opens and is no more than was asked for.
func FuzzTokenRequest(f *testing.F) {
	f.Add("1000", `{"a":["publish"]}`, "bob", true, "1704110400000", "nonce-number-one", "bWFj")
	f.Add("-1", "{", "", true, "0", "x", "")
	f.Add("NaN", "", "*", true, "1e30", "nonce-number-one", "")
	f.Fuzz(func(t *testing.T, ttl, capability, clientID string, hasClientID bool, timestamp, nonce, mac string) {
		a := newClocked(t, tokenSecret)
		r := &auth.TokenRequest{KeyName: "app001.key001", TTL: ttl, Capability: capability, ClientID: clientID,
			HasClientID: hasClientID || clientID != "", Timestamp: timestamp, Nonce: nonce, MAC: mac}
		if _, err := ask(a.Authenticator, r.KeyName, r, ""); err == nil {
			t.Errorf("%+v got a token", r)
		}
		d, err := ask(a.Authenticator, r.KeyName, signed(r, secret1), "")
		if err != nil {
			var e *pubsub.Error
			if !errors.As(err, &e) || e.StatusCode < 400 || e.StatusCode > 499 {
				t.Errorf("%+v: %v", r, err)
			}
			return
		}
		g, err := a.RealtimeToken(d.Token, "")
		if err != nil || g.Capability.String() != d.Capability || g.ReportedClientID() != d.ClientID || d.ClientID != clientID ||
			d.Expires-d.Issued < 1 || d.Expires-d.Issued > 24*3_600_000 {
			t.Errorf("%+v: %+v, %+v %v", r, d, g, err)
		}
	})
}
