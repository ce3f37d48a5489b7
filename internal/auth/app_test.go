package auth_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// provided is an app that was made at run time, with the keys one and two.
func provided(t *testing.T, change func(*auth.App)) *auth.App {
	t.Helper()
	app, err := auth.NewApp("made01", []auth.Key{{ID: "one", Secret: secret1}, {ID: "two", Secret: secret2}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(app)
	}
	return app
}

func byKey(a *auth.Authenticator, key string) (*auth.Grant, error) {
	return a.REST(url.Values{"key": {key}}, nil)
}

func TestAnAppThatWasMadeCanGetOtherKeys(t *testing.T) {
	registry := auth.NewRegistry(newApp(t))
	a := auth.NewAuthenticator(registry, nil)
	registry.Provide(provided(t, nil))
	var grants []*auth.Grant
	for _, key := range []string{"made01.one:" + secret1, "made01.two:" + secret2} {
		g, err := byKey(a, key)
		if err != nil {
			t.Fatal(err)
		}
		grants = append(grants, g)
	}
	next, err := auth.NewApp("made01", []auth.Key{
		{ID: "one", Secret: secret1, Capability: capability(t, `{"a":["publish"]}`)}, {ID: "another", Secret: "of-its-own"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry.Provide(next)
	if err := a.Recheck(grants[0]); err != nil {
		t.Errorf("the key that stays: %v", err)
	}
	if g, err := byKey(a, "made01.one:"+secret1); err != nil || !g.Allows(auth.OpPublish, "a") || g.Allows(auth.OpPublish, "b") {
		t.Errorf("the key that may do less: %v %v", g, err)
	}
	code(t, a.Recheck(grants[1]), pubsub.CodeKeyRevoked, 401)
	_, err = byKey(a, "made01.two:"+secret2)
	code(t, err, pubsub.CodeNotFound, 401)
	if g, err := byKey(a, "made01.another:of-its-own"); err != nil || g.App != "made01" {
		t.Errorf("the new key: %v %v", g, err)
	}
	registry.Provide()
	code(t, a.Recheck(grants[0]), pubsub.CodeAppDisabled, 401)
}

func TestTheConfigurationsAppCountsAndThenTheOneThatIsKept(t *testing.T) {
	named := func(key string) *auth.App {
		app, err := auth.NewApp("app", []auth.Key{{ID: key, Secret: secret1}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return app
	}
	r := auth.NewRegistry()
	configured, kept, sandboxed := named("configured"), named("kept"), named("sandboxed")
	is := func(what string, want *auth.App) {
		t.Helper()
		if got := r.Lookup("app"); got != want {
			t.Errorf("%s: it is %v", what, got.Keys())
		}
	}
	if !r.Add(sandboxed) || r.Add(sandboxed) {
		t.Error("an app for tests is added once")
	}
	is("for tests", sandboxed)
	r.Provide(kept)
	is("kept", kept)
	r.Replace(configured)
	is("configured", configured)
	if !r.IsConfigured("app") || len(r.Configured()) != 1 {
		t.Error("it is not configured")
	}
	r.Replace()
	is("not configured any more", kept)
	if r.IsConfigured("app") || len(r.Configured()) != 0 {
		t.Error("it is configured still")
	}
	if r.Remove("app") != sandboxed || r.Remove("app") != nil {
		t.Error("an app for tests is removed once")
	}
	is("removed for tests", kept)
	if r.Add(sandboxed) {
		t.Error("an app for tests was added in spite of one that is kept")
	}
	r.Provide()
	is("gone", nil)
}

func TestAnAppThatIsDisabledRefusesItsCredentials(t *testing.T) {
	registry := auth.NewRegistry(provided(t, nil))
	a := auth.NewAuthenticator(registry, nil, auth.WithNonces(store(time.Now)), auth.WithTokenSecret(secret2))
	key := "made01.one:" + secret1
	g, err := byKey(a, key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.IssueToken(t.Context(), g, &auth.TokenRequest{KeyName: "made01.one"})
	if err != nil {
		t.Fatal(err)
	}
	made := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()})
	made.Header["kid"] = "made01.one"
	signed, err := made.SignedString([]byte(secret1))
	if err != nil {
		t.Fatal(err)
	}
	attempts := map[string]func() (*auth.Grant, error){
		"key":               func() (*auth.Grant, error) { return byKey(a, key) },
		"key and clientId":  func() (*auth.Grant, error) { return a.REST(url.Values{"key": {key}, "clientId": {"bob"}}, nil) },
		"key over realtime": func() (*auth.Grant, error) { return a.Realtime(url.Values{"key": {key}}, nil) },
		"Ably token":        func() (*auth.Grant, error) { return a.REST(url.Values{"access_token": {token.Token}}, nil) },
		"JWT":               func() (*auth.Grant, error) { return a.Realtime(url.Values{"access_token": {signed}}, nil) },
		"JWT in AUTH":       func() (*auth.Grant, error) { return a.RealtimeToken(signed, "") },
		"key for a token": func() (*auth.Grant, error) {
			return a.VouchForToken("made01.one", &auth.TokenRequest{}, url.Values{"key": {key}}, http.Header{})
		},
		"token for a token": func() (*auth.Grant, error) {
			return a.VouchForToken("made01.one", &auth.TokenRequest{}, url.Values{"access_token": {signed}}, nil)
		},
		"the connection's": func() (*auth.Grant, error) { return g, nilOr(a.Recheck(g)) },
	}
	for what, attempt := range attempts {
		if _, err := attempt(); err != nil {
			t.Errorf("%s, while the app is enabled: %v", what, err)
		}
	}
	registry.Provide()
	registry.Replace(provided(t, func(app *auth.App) { app.Disabled = true }))
	for what, attempt := range attempts {
		t.Run(what, func(t *testing.T) {
			_, err := attempt()
			code(t, err, pubsub.CodeAppDisabled, 401)
		})
	}
	_, err = byKey(a, "made01.one:wrong")
	code(t, err, pubsub.CodeInvalidCredentials, 401) // who does not know the key learns nothing
}

// nilOr is err without the type that makes nil something.
func nilOr(err *pubsub.Error) error {
	if err == nil {
		return nil
	}
	return err
}

func TestAnAppThatNeedsTLSRefusesPeersWithout(t *testing.T) {
	registry := auth.NewRegistry(provided(t, nil))
	a := auth.NewAuthenticator(registry, nil)
	plain, secure := auth.Peer{Local: true}, auth.Peer{Secure: true}
	g, err := byKey(a, "made01.one:"+secret1)
	if err != nil {
		t.Fatal(err)
	}
	over, refused := g.ForPeer(plain)
	if refused != nil {
		t.Fatal(refused)
	}
	registry.Replace(provided(t, func(app *auth.App) { app.TLSOnly = true }))
	if err := a.Recheck(g); err != nil {
		t.Errorf("with TLS: %v", err)
	}
	code(t, a.Recheck(over), pubsub.CodeTLSRequired, 403)
	if g, err = byKey(a, "made01.one:"+secret1); err != nil {
		t.Fatal(err)
	}
	if _, err := g.ForPeer(secure); err != nil {
		t.Errorf("with TLS: %v", err)
	}
	_, refused = g.ForPeer(plain)
	code(t, refused, pubsub.CodeTLSRequired, 403)
}
