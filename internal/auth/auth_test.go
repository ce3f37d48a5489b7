package auth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/pubsub"
)

const (
	secret1 = "secret-of-key-one-which-is-long-enough"
	secret2 = "secret-of-key-two-which-is-long-enough"
	key1    = "app001.key001:" + secret1
	key2    = "app001.key002:" + secret2
)

var now = time.Date(2024, 1, 1, 12, 0, 0, 0, time.UTC)

func newApp(t testing.TB) *auth.App {
	t.Helper()
	app, err := auth.NewApp("app001", []auth.Key{
		{ID: "key001", Secret: secret1},
		{AppID: "app001", ID: "key002", Secret: secret2, Capability: capability(t, `{"a":["publish"],"b:*":["subscribe"]}`), Revocable: true},
		{ID: "local0", Secret: "published", LocalOnly: true},
	}, []auth.Namespace{{ID: "persisted", Persisted: true}, {ID: "mutable", MutableMessages: true}})
	if err != nil {
		t.Fatal(err)
	}
	return app
}

func authenticator(t testing.TB) *auth.Authenticator {
	clock := func() time.Time { return now }
	return auth.NewAuthenticator(auth.NewRegistry(newApp(t)), clock, auth.WithNonces(store(clock)))
}

// store is what the nodes of a test know together.
func store(now func() time.Time) directory.Directory {
	return directorymemory.NewStore(directorymemory.Options{Now: now}).Node(directory.Node{Name: "n1"})
}

// code checks that err is an *pubsub.Error with a code and status, and returns its text.
func code(t *testing.T, err error, want pubsub.Code, status int) string {
	t.Helper()
	var e *pubsub.Error
	if !errors.As(err, &e) {
		t.Errorf("got %v, want %d", err, want)
		return ""
	}
	if e.Code != want || e.StatusCode != status {
		t.Errorf("got %d/%d %q, want %d/%d", e.Code, e.StatusCode, e.Message, want, status)
	}
	if text := e.Error(); strings.Contains(text, secret1) || strings.Contains(text, secret2) {
		t.Errorf("a secret is in %q", text)
	}
	return e.Message
}

// sign makes a JWT. Claims are added to iat = now and exp = now + 1 h; nil removes one.
func sign(t testing.TB, kid any, secret string, claims map[string]any) string {
	t.Helper()
	all := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	for name, v := range claims {
		if all[name] = v; v == nil {
			delete(all, name)
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, all)
	if kid != nil {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAKeyIsTakenApart(t *testing.T) {
	k, err := auth.ParseKey(key1)
	if err != nil || k.AppID != "app001" || k.ID != "key001" || k.Secret != secret1 || k.Name() != "app001.key001" {
		t.Errorf("got %+v %v", k, err)
	}
	for _, text := range []string{
		"", "api:key", "js9de7r:", "js9de7r:secret", "a.b", "a.b:", ".b:c", "a.:c", "a b.c:d", "a.b.c:d", "a.b:c:d", "a.b:c.d", "a.b:c d",
		"a.b:c,d", "é.b:c", "a.b:\x00", strings.Repeat("a", 65) + ".b:c", "a.b:" + strings.Repeat("c", 257),
	} {
		_, err := auth.ParseKey(text)
		code(t, err, pubsub.CodeInvalidCredential, 400)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprint(&k), k.LogValue().String()} {
		if strings.Contains(text, secret1) {
			t.Errorf("the secret is printed: %s", text)
		}
	}
}

func TestAnAppRefusesWhatIsMalformedOrThereTwice(t *testing.T) {
	good := auth.Key{ID: "k", Secret: "s"}
	for name, make := range map[string]func() (*auth.App, error){
		"id":        func() (*auth.App, error) { return auth.NewApp("a.b", nil, nil) },
		"key twice": func() (*auth.App, error) { return auth.NewApp("a", []auth.Key{good, good}, nil) },
		"key of another": func() (*auth.App, error) {
			return auth.NewApp("a", []auth.Key{{AppID: "b", ID: "k", Secret: "s"}}, nil)
		},
		"key id":          func() (*auth.App, error) { return auth.NewApp("a", []auth.Key{{ID: "k:", Secret: "s"}}, nil) },
		"secret":          func() (*auth.App, error) { return auth.NewApp("a", []auth.Key{{ID: "k"}}, nil) },
		"namespace":       func() (*auth.App, error) { return auth.NewApp("a", nil, []auth.Namespace{{ID: "a:b"}}) },
		"namespace twice": func() (*auth.App, error) { return auth.NewApp("a", nil, []auth.Namespace{{ID: "n"}, {ID: "n"}}) },
	} {
		if _, err := make(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRulesAreFoundByTheNameUpToTheFirstColon(t *testing.T) {
	app := newApp(t)
	for name, want := range map[string]auth.Namespace{
		"persisted":     {ID: "persisted", Persisted: true},
		"persisted:a:b": {ID: "persisted", Persisted: true},
		"persistedx":    {},
		"Persisted:a":   {},
		"mutable:x":     {ID: "mutable", MutableMessages: true, Persisted: true},
		"identified:x":  {ID: "identified", Identified: true},
		"x:persisted":   {},
	} {
		if got := app.Namespace(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestARegistryCanBeReplacedWhileItIsRead(t *testing.T) {
	app, r := newApp(t), auth.NewRegistry()
	done := make(chan bool)
	go func() {
		for r.Lookup("app001") == nil {
		}
		done <- true
	}()
	r.Replace(app)
	<-done
	if r.Lookup("app001") != app || r.Lookup("other") != nil || app.Key("key001").Capability != auth.FullCapability ||
		app.Key("x") != nil || len(app.Keys()) != 3 || app.Keys()[1].ID != "key002" {
		t.Error("the registry has something else")
	}
}

func TestErrorsAreThoseOfTheMatrix(t *testing.T) {
	a := authenticator(t)
	expired := sign(t, "app001.key001", secret1, map[string]any{"iat": now.Add(-time.Hour).Unix(), "exp": now.Unix()})
	for _, c := range []struct {
		name       string
		q          string
		rest       pubsub.Code
		restStatus int
		realtime   pubsub.Code
		rtStatus   int
		text       string
	}{
		{"no credentials", "", 40101, 401, 40101, 401, "no authentication"},
		{"empty ones", "key=&access_token=", 40101, 401, 40101, 401, "no authentication"},
		{"no key", "key=api:key", 40005, 400, 40101, 401, "invalid key"},
		{"half a key", "key=js9de7r:secret", 40005, 400, 40101, 401, "invalid key"},
		{"unknown app", "key=this.is:wrong", 40400, 404, 40101, 401, "no application this"},
		{"unknown key", "key=app001.nokey:wrong", 40400, 401, 40101, 401, "no key app001.nokey"},
		{"wrong secret", "key=app001.key001:wrong", 40101, 401, 40101, 401, "wrong secret"},
		{"garbage", "access_token=invalid token", 40101, 401, 40101, 401, "invalid token"},
		{"garbage of our app", "access_token=app001.xyz", 40145, 401, 40145, 401, "invalid token"},
		{"garbage of another app", "access_token=other.xyz", 40101, 401, 40101, 401, "invalid token"},
		{"far too long", "access_token=" + strings.Repeat("a.", 100_000), 40101, 401, 40101, 401, "invalid token"},
		{"no JWT", "access_token=a.b.c", 40144, 401, 40144, 401, "invalid JWT format"},
		{"JWE", "access_token=a.b.c.d.e", 40144, 401, 40144, 401, "invalid JWT format"},
		{"JWT of an unknown app", "access_token=" + sign(t, "invalid.invalid", secret1, nil), 40400, 404, 40400, 404, "no application"},
		{"JWT of an unknown key", "access_token=" + sign(t, "app001.nokey", secret1, nil), 40130, 401, 40130, 401, "no key"},
		{"JWT with the wrong secret", "access_token=" + sign(t, "app001.key001", secret2, nil), 40144, 401, 40144, 401, "invalid JWT format"},
		{"JWT without kid", "access_token=" + sign(t, nil, secret1, nil), 40144, 401, 40144, 401, "invalid JWT format"},
		{"JWT with a strange kid", "access_token=" + sign(t, 7, secret1, nil), 40144, 401, 40144, 401, "invalid JWT format"},
		{"expired", "access_token=" + expired, 40142, 401, 40142, 401, "token expired"},
		{"no iat", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"iat": nil}), 40144, 400, 40144, 400, "iat must be specified"},
		{"no exp", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"exp": nil}), 40144, 400, 40144, 400, "exp must be specified"},
		{"strange exp", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"exp": "never"}), 40144, 400, 40144, 400, "exp must be a time"},
		{"endless", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"exp": 1e30}), 40144, 400, 40144, 400, "exp must be a time"},
		{"too long", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"exp": now.Add(24*time.Hour + time.Second).Unix()}), 40003, 400, 40003, 400, "longest life"},
		{"too long when revocable", "access_token=" + sign(t, "app001.key002", secret2, map[string]any{"exp": now.Add(time.Hour + time.Second).Unix()}), 40003, 400, 40003, 400, "longest life"},
		{"from the future", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"iat": now.Add(10 * time.Minute).Unix()}), 40144, 401, 40144, 401, "future"},
		{"not valid yet", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"nbf": now.Add(10 * time.Minute).Unix()}), 40144, 401, 40144, 401, "not valid yet"},
		{"empty clientId", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"x-ably-clientId": ""}), 40012, 400, 40012, 400, "invalid clientId"},
		{"strange clientId", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"x-ably-clientId": 7}), 40012, 400, 40012, 400, "invalid clientId"},
		{"no capability", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"x-ably-capability": "{"}), 40000, 400, 40000, 400, "invalid capability"},
		{"strange capability", "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"x-ably-capability": map[string]any{}}), 40000, 400, 40000, 400, "invalid capability"},
		{"nothing in common", "access_token=" + sign(t, "app001.key002", secret2, map[string]any{"x-ably-capability": `{"a":["history"]}`}), 40160, 401, 40160, 401, "nothing in common"},
		{"wildcard by a key", "clientId=*&key=" + key1, 40012, 400, 40012, 400, "invalid clientId"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := url.Values{}
			for pair := range strings.SplitSeq(c.q, "&") {
				name, value, _ := strings.Cut(pair, "=")
				q.Set(name, value)
			}
			_, err := a.REST(q, nil)
			if text := code(t, err, c.rest, c.restStatus); !strings.Contains(text, c.text) {
				t.Errorf("REST: %q", text)
			}
			_, err = a.Realtime(q, nil)
			if text := code(t, err, c.realtime, c.rtStatus); !strings.Contains(text, c.text) {
				t.Errorf("realtime: %q", text)
			}
			if token := q.Get("access_token"); token != "" {
				_, err = a.RealtimeToken(token, "")
				code(t, err, c.realtime, c.rtStatus)
			}
		})
	}
	_, err := a.RealtimeToken("", "")
	code(t, err, 40101, 401)
}

// RSA3a-c, RSA11
func TestTheAuthorizationHeaderGoesBeforeTokenAndKey(t *testing.T) {
	a := authenticator(t)
	token := sign(t, "app001.key002", secret2, nil)
	for _, c := range []struct{ name, header, query, want string }{
		{"basic", "Basic " + b64(key1), "access_token=" + token + "&key=a.b:c", "app001.key001"},
		{"basic, unpadded, lower case", "basic  " + strings.TrimRight(b64(key1), "="), "", "app001.key001"},
		{"bearer in base64", "Bearer " + b64(token), "key=a.b:c", "app001.key002"},
		{"bearer in base64 for URLs", "Bearer " + base64.RawURLEncoding.EncodeToString([]byte(token)), "", "app001.key002"},
		{"raw bearer", "bearer " + token, "", "app001.key002"},
		{"token before key", "", "access_token=" + token + "&key=" + key1, "app001.key002"},
		{"other spelling", "", "accessToken=" + token, "app001.key002"},
		{"key", "", "key=" + key1, "app001.key001"},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if c.header != "" {
			h.Set("Authorization", c.header)
		}
		for _, door := range []func(url.Values, http.Header) (*auth.Grant, error){a.Realtime, a.REST} {
			if g, err := door(q, h); err != nil || g.KeyName != c.want || g.App != "app001" {
				t.Errorf("%s: %v %v", c.name, g, err)
			}
		}
	}
	for _, header := range []string{"Basic", "Digest x", "Basic ", "Bearer  ", "x"} {
		_, err := a.REST(url.Values{"key": {key1}}, http.Header{"Authorization": {header}})
		code(t, err, 40101, 401)
	}
	_, err := a.REST(nil, http.Header{"Authorization": {"Basic %%%"}})
	code(t, err, 40005, 400)
	_, err = a.Realtime(nil, http.Header{"Authorization": {"Basic %%%"}})
	code(t, err, 40101, 401)
}

// RSA7a, RSA7c, RSA12a, RSA15a-c
func TestIdentityComesFromCredentialAndParameter(t *testing.T) {
	a := authenticator(t)
	named := func(id any) string {
		return "access_token=" + sign(t, "app001.key001", secret1, map[string]any{"x-ably-clientId": id})
	}
	for _, c := range []struct {
		name, credential, param string
		rule                    auth.ClientRule
		id, reported            string
		failure                 pubsub.Code
	}{
		{"token x", named("x"), "", auth.ClientIdentified, "x", "x", 0},
		{"token x, param x", named("x"), "clientId=x", auth.ClientIdentified, "x", "x", 0},
		{"token x, param y", named("x"), "clientId=y", 0, "", "", 40102},
		{"token x, param *", named("x"), "clientId=*", 0, "", "", 40102},
		{"token x, empty param", named("x"), "clientId=", 0, "", "", 40012},
		{"token *, param y", named("*"), "clientId=y", auth.ClientIdentified, "y", "y", 0},
		{"token *", named("*"), "", auth.ClientAny, "", "*", 0},
		{"token *, param *", named("*"), "clientId=*", auth.ClientAny, "", "*", 0},
		{"anonymous, param y", named(nil), "clientId=y", 0, "", "", 40102},
		{"anonymous", named(nil), "", auth.ClientAnonymous, "", "", 0},
		{"key, param y", "key=" + key1, "clientId=y", auth.ClientIdentified, "y", "y", 0},
		{"key", "key=" + key1, "", auth.ClientAny, "", "*", 0},
		{"key, empty param", "key=" + key1, "clientId=", 0, "", "", 40012},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, _ := url.ParseQuery(c.credential + "&" + c.param)
			g, err := a.Realtime(q, nil)
			if c.failure != 0 {
				code(t, err, c.failure, c.failure.StatusCode())
				return
			}
			if err != nil || g.ClientRule != c.rule || g.ClientID != c.id || g.ReportedClientID() != c.reported || g.Identified() != (c.id != "") {
				t.Errorf("got %v %v", g, err)
			}
			if token := q.Get("access_token"); token != "" {
				again, err := a.RealtimeToken(token, q.Get("clientId"))
				if err != nil || g.CheckRenewal(again) != nil {
					t.Errorf("in band: %v %v", again, err)
				}
			}
		})
	}
}

func TestARESTPublisherIsNamedByHeaderOrParameter(t *testing.T) {
	a := authenticator(t)
	header := func(id string) http.Header { return http.Header{"X-Ably-Clientid": {b64(id)}} }
	if g, err := a.REST(url.Values{"key": {key1}, "clientId": {"param"}}, header("头")); err != nil || g.ClientID != "头" {
		t.Errorf("header: %v %v", g, err)
	}
	if g, err := a.REST(url.Values{"key": {key1}, "clientId": {"param"}}, nil); err != nil || g.ClientID != "param" {
		t.Errorf("parameter: %v %v", g, err)
	}
	token := sign(t, "app001.key001", secret1, map[string]any{"x-ably-clientId": "me"})
	if g, err := a.REST(url.Values{"access_token": {token}, "clientId": {"filter"}}, header("me")); err != nil || g.ClientID != "me" {
		t.Errorf("a filter beside a token: %v %v", g, err)
	}
	_, err := a.REST(url.Values{"access_token": {token}}, header("you"))
	code(t, err, 40102, 401)
	_, err = a.REST(url.Values{"key": {key1}}, header("*"))
	code(t, err, 40012, 400)
	_, err = a.REST(url.Values{"key": {key1}}, http.Header{"X-Ably-Clientid": {"%"}})
	code(t, err, 40004, 400)
}

// RSA8f1-4, RSL1m1-4, RTL6g2-3
func TestAnItemsClientIDMustFitThePublisher(t *testing.T) {
	alice := &auth.Grant{ClientRule: auth.ClientIdentified, ClientID: "alice"}
	anyone := &auth.Grant{ClientRule: auth.ClientAny}
	nobody := &auth.Grant{}
	for _, c := range []struct {
		g       *auth.Grant
		id      string
		present bool
		want    string
		fails   bool
	}{
		{alice, "", false, "alice", false}, {alice, "alice", true, "alice", false}, {alice, "bob", true, "", true},
		{alice, "", true, "", true}, {alice, "*", true, "", true},
		{anyone, "", false, "", false}, {anyone, "bob", true, "bob", false}, {anyone, "*", true, "", true}, {anyone, "", true, "", true},
		{nobody, "", false, "", false}, {nobody, "bob", true, "", true}, {nobody, "", true, "", true},
	} {
		got, err := c.g.CheckClientID(c.id, c.present)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%v, item %q (%v): %q %v", c.g, c.id, c.present, got, err)
		}
		if err != nil {
			code(t, err, 40012, 400)
		}
	}
}

func TestAJWTNarrowsItsKeysRights(t *testing.T) {
	app := newApp(t)
	a := auth.NewAuthenticator(auth.NewRegistry(app), func() time.Time { return now })
	g, err := a.RealtimeToken(sign(t, "app001.key002", secret2, map[string]any{"x-ably-capability": `{"b:x":["*"],"c":["*"]}`}), "")
	if err != nil || g.Capability.String() != `{"b:x":["subscribe"]}` || !g.Expires.Equal(now.Add(time.Hour)) {
		t.Fatalf("got %v %v", g, err)
	}
	if !g.Allows(auth.OpSubscribe, "b:x") || g.Allows(auth.OpPublish, "a") || g.Ops("b:y") != 0 {
		t.Errorf("rights: %v", g.Capability)
	}
	for _, claims := range []map[string]any{nil, {"x-ably-capability": ""}, {"x-ably-capability": nil}, {"x-ably-capability": `{"*":["*"]}`}} {
		g, err := a.RealtimeToken(sign(t, "app001.key002", secret2, claims), "")
		if err != nil || g.Capability != app.Key("key002").Capability {
			t.Errorf("%v: the key's capability is not shared: %v %v", claims, g, err)
		}
	}
	fraction := sign(t, "app001.key001", secret1, map[string]any{"exp": float64(now.Unix()) + 0.5})
	if g, err := a.RealtimeToken(fraction, ""); err != nil || !g.Expires.Equal(now.Add(500*time.Millisecond)) {
		t.Errorf("a fraction of a second: %v %v", g, err)
	}
}

func TestAClientMustBeAllowedToCallItselfAServer(t *testing.T) {
	a := authenticator(t)
	token := sign(t, "app001.key001", secret1, nil)
	_, err := a.Realtime(url.Values{"access_token": {token}, "clientType": {"server"}}, nil)
	code(t, err, 40167, 401)
	token = sign(t, "app001.key001", secret1, map[string]any{"x-ably-clientType": "server"})
	if _, err := a.Realtime(url.Values{"access_token": {token}, "clientType": {"server"}}, nil); err != nil {
		t.Error(err)
	}
	if _, err := a.Realtime(url.Values{"key": {key1}, "clientType": {"server"}}, nil); err != nil {
		t.Error(err)
	}
}

// RTC8a2
func TestARenewalKeepsAppKeyAndIdentity(t *testing.T) {
	old := &auth.Grant{App: "a", KeyName: "a.b", ClientRule: auth.ClientIdentified, ClientID: "x"}
	same := *old
	same.Expires, same.Capability = now, auth.FullCapability
	if err := old.CheckRenewal(&same); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*auth.Grant){
		"app": func(g *auth.Grant) { g.App = "z" }, "key": func(g *auth.Grant) { g.KeyName = "a.z" },
		"client": func(g *auth.Grant) { g.ClientID = "z" }, "rule": func(g *auth.Grant) { g.ClientRule = auth.ClientAny },
	} {
		next := *old
		change(&next)
		if err := old.CheckRenewal(&next); err == nil || err.Code != 40102 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPublishedCredentialWorksFromLocalPeersOnly(t *testing.T) {
	g, err := authenticator(t).Realtime(url.Values{"key": {"app001.local0:published"}}, nil)
	if err != nil || !g.LocalOnly {
		t.Fatalf("got %v %v", g, err)
	}
	if _, err := g.ForPeer(auth.Peer{Local: true}); err != nil {
		t.Error("refused to a local peer")
	}
	if _, err := g.ForPeer(auth.Peer{}); err == nil || err.Code != 40300 {
		t.Errorf("given to a remote peer: %v", err)
	}
	for credential, want := range map[string]bool{
		"letshare-jwt-secret-key-2024": true, "letshare-jwt-secret-key-2024-local": true, "letshare-jwt-secret-key-2024-production": true,
		auth.LocalKey: true, "other1.other1:" + strings.SplitN(auth.LocalKey, ":", 2)[1]: true, "your-secret": true,
		"": false, key1: false, "my own": false,
	} {
		if auth.IsPublished(credential) != want {
			t.Errorf("%q: %v", credential, !want)
		}
	}
	if k, err := auth.ParseKey(auth.LocalKey); err != nil || len(k.AppID) != 6 || len(k.ID) != 6 || len(k.Secret) < 32 {
		t.Errorf("the local key: %v %v", k, err)
	}
}

func TestPeersAreLocalUnlessSomebodyForwardedThem(t *testing.T) {
	trusted, err := auth.ParseTrustedProxies([]string{"10.0.0.0/8", "192.0.2.1", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, remote, header, value string
		trusted                     auth.TrustedProxies
		addr                        string
		local                       bool
	}{
		{"loopback", "127.0.0.1:5", "", "", nil, "127.0.0.1", true},
		{"IPv6 loopback", "[::1]:5", "", "", nil, "::1", true},
		{"private", "192.168.1.2:5", "", "", nil, "192.168.1.2", true},
		{"mapped", "[::ffff:10.1.2.3]:5", "", "", nil, "10.1.2.3", true},
		{"unique local", "[fd00::1]:5", "", "", nil, "fd00::1", true},
		{"link-local", "[fe80::1%eth0]:5", "", "", nil, "fe80::1", true},
		{"public", "203.0.113.9:5", "", "", nil, "203.0.113.9", false},
		{"no address", "@", "", "", nil, "invalid IP", false},
		{"forwarded, not trusted", "127.0.0.1:5", "X-Forwarded-For", "127.0.0.1", nil, "127.0.0.1", false},
		{"forwarded by another header", "127.0.0.1:5", "Forwarded", "for=127.0.0.1", trusted, "127.0.0.1", false},
		{"empty header", "127.0.0.1:5", "Via", "", nil, "127.0.0.1", false},
		{"forwarded, trusted", "10.0.0.1:5", "X-Forwarded-For", "203.0.113.9", trusted, "203.0.113.9", false},
		{"a chain", "10.0.0.1:5", "X-Forwarded-For", "127.0.0.1, 203.0.113.9, 192.0.2.1", trusted, "203.0.113.9", false},
		{"all trusted", "10.0.0.1:5", "X-Forwarded-For", "10.0.0.3,10.0.0.2", trusted, "10.0.0.3", false},
		{"with port", "[::1]:5", "X-Forwarded-For", "[2001:db8::1]:80", trusted, "2001:db8::1", false},
		{"nonsense", "10.0.0.1:5", "X-Forwarded-For", "1.2.3.4, unknown", trusted, "10.0.0.1", false},
		{"trusted but direct", "10.0.0.1:5", "", "", trusted, "10.0.0.1", true},
		{"from a stranger", "203.0.113.9:5", "X-Forwarded-For", "127.0.0.1", trusted, "203.0.113.9", false},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{}}
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		if p := c.trusted.Peer(r); p.Addr.String() != c.addr || p.Local != c.local {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
	if p := auth.PeerOf(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5}); !p.Local || p.Addr.String() != "127.0.0.1" {
		t.Errorf("a socket: %+v", p)
	}
	if _, err := auth.ParseTrustedProxies([]string{"me"}); err == nil {
		t.Error("no error")
	}
}

func TestAGrantIsLoggedWithoutItsCredential(t *testing.T) {
	g, err := authenticator(t).Realtime(url.Values{"key": {key1}, "clientId": {"me"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("in", "grant", g, "none", (*auth.Grant)(nil), "capability", g.Capability)
	text := b.String() + fmt.Sprintf("%v %+v", g, *g)
	if !strings.Contains(text, "grant.client_id=me") || !strings.Contains(text, "app001.key001") || strings.Contains(text, secret1) {
		t.Errorf("logged: %s", text)
	}
}

// FuzzAblyToken: nothing gets in but what was signed, in the one spelling it was signed in.
func FuzzAblyToken(f *testing.F) {
	good := sign(f, "app001.key001", secret1, map[string]any{"x-ably-clientId": "me"})
	a := authenticator(f)
	if _, err := a.RealtimeToken(good, ""); err != nil {
		f.Fatal(err)
	}
	f.Add(good, "")
	f.Add(good+"\n", "")
	f.Add(good[:len(good)-1]+"B", "")
	f.Add(good+"=", "")
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iat": now.Unix(), "exp": now.Unix() + 60}).
		SignedString(jwt.UnsafeAllowNoneSignatureType)
	f.Add(none, "x")
	for _, header := range []string{
		`{"alg":"HS256","kid":"app001.key001","crit":["exp"]}`, `{"alg":"none","kid":"app001.key001"}`, `{"alg":"HS512","kid":"app001.key001"}`,
		`{"kid":"app001.key001"}`, `{"alg":"HS256","kid":["app001.key001"]}`,
	} {
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(header))+good[strings.IndexByte(good, '.'):], "me")
	}
	f.Fuzz(func(t *testing.T, token, clientID string) {
		for _, err := range []error{
			second(a.RealtimeToken(token, clientID)),
			second(a.Realtime(url.Values{"access_token": {token}, "clientId": {clientID}}, nil)),
			second(a.REST(url.Values{"access_token": {token}}, nil)),
		} {
			var e *pubsub.Error
			if err == nil && token != good {
				t.Errorf("%q got in", token)
			} else if err != nil && (!errors.As(err, &e) || e.StatusCode < 400 || e.StatusCode > 499) {
				t.Errorf("%q: %v", token, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// FuzzParseKey: a key that was read can be written again, and its text is never in an error.
func FuzzParseKey(f *testing.F) {
	for _, text := range []string{key1, key2, auth.LocalKey, "a.b:c", "a.b", "a:b.c", "", "a.b:c:d"} {
		f.Add(text)
	}
	a := authenticator(f)
	f.Fuzz(func(t *testing.T, text string) {
		k, err := auth.ParseKey(text)
		if err == nil && k.Name()+":"+k.Secret != text {
			t.Errorf("%q became %q", text, k.Name())
		}
		if err != nil && len(text) > 24 && strings.Contains(err.Error(), text) {
			t.Errorf("%q is in %v", text, err)
		}
		for _, err := range []error{
			second(a.Realtime(url.Values{"key": {text}}, nil)),
			second(a.REST(nil, http.Header{"Authorization": {"Basic " + b64(text)}})),
		} {
			if err == nil && text != key1 && text != key2 && text != "app001.local0:published" {
				t.Errorf("%q got in", text)
			}
		}
	})
}

func BenchmarkKey(b *testing.B) {
	a, q := authenticator(b), url.Values{"key": {key1}}
	b.ReportAllocs()
	for b.Loop() {
		a.Realtime(q, nil)
	}
}

func BenchmarkJWT(b *testing.B) {
	a, q := authenticator(b), url.Values{"access_token": {sign(b, "app001.key001", secret1, nil)}}
	b.ReportAllocs()
	for b.Loop() {
		a.Realtime(q, nil)
	}
}
