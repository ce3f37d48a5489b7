package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/pubsub"
)

const (
	secret3 = "secret-of-key-three-which-is-long-enough"
	key3    = "app001.key003:" + secret3
)

// revoking is a node that shares with others what is revoked.
type revoking struct {
	*auth.Authenticator
	registry    *auth.Registry
	revocations *auth.Revocations
	now         time.Time
}

// newRevoking returns a node whose key003, beside those of newApp, has everything and is
// revocable.
func newRevoking(t testing.TB) *revoking {
	r := &revoking{now: now}
	r.join(t, store(r.clock), r.clock)
	return r
}

func (r *revoking) clock() time.Time { return r.now }

func (r *revoking) join(t testing.TB, d directory.Directory, clock func() time.Time) {
	t.Helper()
	app, err := auth.NewApp("app001", []auth.Key{
		{ID: "key001", Secret: secret1},
		{ID: "key002", Secret: secret2, Capability: capability(t, `{"a":["publish"],"b:*":["subscribe"]}`), Revocable: true},
		{ID: "key003", Secret: secret3, Revocable: true},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.registry = auth.NewRegistry(app)
	r.revocations = auth.NewRevocations(auth.RevocationOptions{Store: d, Now: clock})
	r.Authenticator = auth.NewAuthenticator(r.registry, clock, auth.WithTokenSecret(tokenSecret),
		auth.WithNonces(d), auth.WithRevocations(r.revocations))
}

func (r *revoking) revoke(t testing.TB, key string, request auth.RevocationRequest) []auth.RevocationResult {
	t.Helper()
	g, err := r.REST(url.Values{"key": {key}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	results, err := r.RevokeTokens(t.Context(), g, g.KeyName, &request)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// jwt3 makes a JWT of key003 that was issued some time before now.
func jwt3(t testing.TB, ago time.Duration, claims object) string {
	all := object{"iat": float64(now.Add(-ago).UnixMilli()) / 1000, "exp": now.Add(50 * time.Minute).Unix()}
	for name, v := range claims {
		all[name] = v
	}
	return sign(t, "app001.key003", secret3, all)
}

func TestARevocationIsOfItsTargetsOnly(t *testing.T) {
	const minute = time.Minute
	for _, c := range []struct {
		target string
		ago    time.Duration
		claims object
		param  string
		hit    bool
	}{
		{"clientId:bob", minute, object{"x-ably-clientId": "bob"}, "", true},
		{"clientId:bob", time.Millisecond, object{"x-ably-clientId": "bob"}, "", true},
		{"clientId:bob", 0, object{"x-ably-clientId": "bob"}, "", false},
		{"clientId:bob", -minute, object{"x-ably-clientId": "bob"}, "", false},
		{"clientId:bob", minute, object{"x-ably-clientId": "bobby"}, "", false},
		{"clientId:bob", minute, object{"x-ably-clientId": "Bob"}, "", false},
		{"clientId:bob", minute, nil, "", false},
		{"clientId:bob", minute, object{"x-ably-clientId": "*"}, "", false},
		{"clientId:bob", minute, object{"x-ably-clientId": "*"}, "bob", true},
		{"clientId:*", minute, object{"x-ably-clientId": "*"}, "", true},
		{"clientId:*", minute, object{"x-ably-clientId": "bob"}, "", false},
		{"clientId:a:b", minute, object{"x-ably-clientId": "a:b"}, "", true},
		{"clientId:group", minute, object{"x-ably-revocation-key": "group"}, "", false},
		{"revocationKey:group", minute, object{"x-ably-revocation-key": "group"}, "", true},
		{"revocationKey:group", minute, object{"x-ably-revocation-key": "other"}, "", false},
		{"revocationKey:group", minute, object{"x-ably-clientId": "group"}, "", false},
		{"channel:foo", minute, object{"x-ably-capability": `{"foo":["publish"],"bar":["*"]}`}, "", true},
		{"channel:foo:*", minute, object{"x-ably-capability": `{"foo:*":["*"]}`}, "", true},
		{"channel:foo:bar", minute, object{"x-ably-capability": `{"foo:*":["*"]}`}, "", false},
		{"channel:*:*", minute, object{"x-ably-capability": `{"foo:*":["*"]}`}, "", false},
		{"channel:*", minute, nil, "", true}, // inherited from the key
		{"channel:[*]*", minute, object{"x-ably-capability": `{"foo":["*"]}`}, "", false},
	} {
		t.Run(fmt.Sprint(c.target, c.ago, c.claims, c.param), func(t *testing.T) {
			a := newRevoking(t)
			token := jwt3(t, c.ago, c.claims)
			q := url.Values{"access_token": {token}}
			if c.param != "" {
				q.Set("clientId", c.param)
			}
			before, err := a.Realtime(q, nil)
			if err != nil {
				t.Fatal(err)
			}
			a.revoke(t, key3, auth.RevocationRequest{Targets: []string{c.target}})
			_, err = a.Realtime(q, nil)
			recheck := a.Recheck(before)
			if !c.hit {
				if err != nil || recheck != nil {
					t.Errorf("refused: %v %v", err, recheck)
				}
				return
			}
			if text := code(t, err, pubsub.CodeTokenRevoked, 401); text != "token revoked" {
				t.Errorf("%q", text)
			}
			code(t, recheck, pubsub.CodeTokenRevoked, 401)
			if c.param == "" {
				_, err = a.REST(url.Values{"access_token": {token}}, nil)
				code(t, err, pubsub.CodeTokenRevoked, 401)
				_, err = a.RealtimeToken(token, "")
				code(t, err, pubsub.CodeTokenRevoked, 401)
				_, err = a.VouchForToken("app001.key003", &auth.TokenRequest{}, nil, http.Header{"Authorization": {"Bearer " + token}})
				code(t, err, pubsub.CodeTokenRevoked, 401)
			}
			// The key itself and other keys' tokens are as good as before.
			if _, err := a.REST(url.Values{"key": {key3}, "clientId": {"bob"}}, nil); err != nil {
				t.Error(err)
			}
			others := object{"x-ably-clientId": "bob", "x-ably-revocation-key": "group", "iat": now.Add(-minute).Unix(), "exp": now.Add(minute).Unix()}
			if _, err := a.RealtimeToken(sign(t, "app001.key001", secret1, others), ""); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAblyTokensAreRevokedAndThoseMadeWithThem(t *testing.T) {
	a := newRevoking(t)
	issue := func(credentials string, r *auth.TokenRequest) string {
		t.Helper()
		d, err := ask(a.Authenticator, "app001.key003", r, credentials)
		if err != nil {
			t.Fatal(err)
		}
		if d.Issued != a.now.UnixMilli() {
			t.Errorf("issued %d, want %d", d.Issued, a.now.UnixMilli())
		}
		return d.Token
	}
	first := issue("Basic "+b64(key3), &auth.TokenRequest{ClientID: "bob", HasClientID: true})
	grouped := jwt3(t, 0, object{"x-ably-revocation-key": "group"})
	a.now = a.now.Add(time.Minute)
	a.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:bob", "revocationKey:group"}, AllowReauthMargin: true})
	a.now = a.now.Add(time.Second)
	// In the margin the old token is good, and may ask for another, which is no way out.
	second := issue("Bearer "+first, &auth.TokenRequest{})
	third := issue("Bearer "+second, &auth.TokenRequest{})
	ofGroup := issue("Bearer "+grouped, &auth.TokenRequest{})
	fresh := issue("Basic "+b64(key3), &auth.TokenRequest{ClientID: "bob", HasClientID: true})
	for _, token := range []string{first, second, third, ofGroup, fresh} {
		if _, err := a.RealtimeToken(token, ""); err != nil {
			t.Error(err)
		}
	}
	a.now = a.now.Add(30 * time.Second)
	for _, token := range []string{first, second, third, ofGroup, grouped} {
		_, err := a.RealtimeToken(token, "")
		code(t, err, pubsub.CodeTokenRevoked, 401)
	}
	if _, err := a.RealtimeToken(fresh, ""); err != nil {
		t.Error(err)
	}
	// An envelope hides nothing.
	_, err := a.RealtimeToken(part(t, object{"x-ably-token": first})+".e30.x", "")
	code(t, err, pubsub.CodeTokenRevoked, 401)
	// When none of the tokens can be alive the revocation is forgotten, and nothing comes back.
	a.now = a.now.Add(time.Hour)
	for _, token := range []string{first, second, third, ofGroup, fresh} {
		_, err := a.RealtimeToken(token, "")
		code(t, err, pubsub.CodeTokenExpired, 401)
	}
}

func TestRevocationsAreAskedForWithTheirOwnRevocableKey(t *testing.T) {
	a := newRevoking(t)
	grant := func(q url.Values) *auth.Grant {
		t.Helper()
		g, err := a.REST(q, nil)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	bob := []string{"clientId:bob"}
	ms := func(d time.Duration) *int64 { n := now.Add(d).UnixMilli(); return &n }
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprint("clientId:", i)
	}
	for _, c := range []struct {
		name    string
		g       *auth.Grant
		key     string
		request auth.RevocationRequest
		code    pubsub.Code
		status  int
	}{
		{"a token", grant(url.Values{"access_token": {jwt3(t, 0, nil)}}), "app001.key003", auth.RevocationRequest{Targets: bob}, 40162, 401},
		{"another key of the app", grant(url.Values{"key": {key2}}), "app001.key003", auth.RevocationRequest{Targets: bob}, 40133, 401},
		{"the key for another", grant(url.Values{"key": {key3}}), "other.key003", auth.RevocationRequest{Targets: bob}, 40133, 401},
		{"a key that is not revocable", grant(url.Values{"key": {key1}}), "app001.key001", auth.RevocationRequest{Targets: bob}, 40163, 401},
		{"no targets", grant(url.Values{"key": {key3}}), "app001.key003", auth.RevocationRequest{}, 40003, 400},
		{"101 targets", grant(url.Values{"key": {key3}}), "app001.key003", auth.RevocationRequest{Targets: many}, 40003, 400},
		{"the future", grant(url.Values{"key": {key3}}), "app001.key003", auth.RevocationRequest{Targets: bob, IssuedBefore: ms(time.Millisecond)}, 40003, 400},
		{"too long ago", grant(url.Values{"key": {key3}}), "app001.key003", auth.RevocationRequest{Targets: bob, IssuedBefore: ms(-time.Hour - time.Millisecond)}, 40003, 400},
		{"zero", grant(url.Values{"key": {key3}}), "app001.key003", auth.RevocationRequest{Targets: bob, IssuedBefore: new(int64)}, 40003, 400},
		{"good", grant(url.Values{"key": {key3}}), "app001.key003", auth.RevocationRequest{Targets: many[:100], IssuedBefore: ms(-time.Hour)}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			results, err := a.RevokeTokens(t.Context(), c.g, c.key, &c.request)
			if c.code != 0 {
				code(t, err, c.code, c.status)
			} else if err != nil || len(results) != len(c.request.Targets) {
				t.Errorf("got %v %v", results, err)
			}
		})
	}
}

func TestEachTargetHasItsOwnResult(t *testing.T) {
	a := newRevoking(t)
	targets := []string{"clientId:bob", "invalidType:abc", "clientId:", "clientId", "", "channel:" + strings.Repeat("x", 1024), "revocationKey:r", "clientId:bob"}
	before := now.Add(-20 * time.Minute).UnixMilli()
	results := a.revoke(t, key3, auth.RevocationRequest{Targets: targets, IssuedBefore: &before, AllowReauthMargin: true})
	for i, r := range results {
		if r.Target != targets[i] {
			t.Errorf("%d: %+v", i, r)
		}
		if i > 0 && i < 6 {
			code(t, r.Err, pubsub.CodeInvalidParameterValue, 400)
			if r.IssuedBefore != 0 || r.AppliesAt != 0 {
				t.Errorf("%d: %+v", i, r)
			}
		} else if r.Err != nil || r.IssuedBefore != before || r.AppliesAt <= now.UnixMilli()+30_000 || r.AppliesAt > now.UnixMilli()+31_000 {
			t.Errorf("%d: %+v", i, r)
		}
	}
	results = a.revoke(t, key3, auth.RevocationRequest{Targets: targets[:1]})
	if r := results[0]; r.Err != nil || r.IssuedBefore != now.UnixMilli() || r.AppliesAt != now.UnixMilli() {
		t.Errorf("%+v", r)
	}
}

func TestAWeakerRevocationDoesNotSaveAToken(t *testing.T) {
	a := newRevoking(t)
	token := jwt3(t, time.Minute, object{"x-ably-clientId": "bob"})
	old := now.Add(-30 * time.Minute).UnixMilli()
	a.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:bob"}})
	a.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:bob"}, AllowReauthMargin: true})
	a.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:bob"}, IssuedBefore: &old})
	_, err := a.RealtimeToken(token, "")
	code(t, err, pubsub.CodeTokenRevoked, 401)
}

func TestATokenThatBecameRevocableLivesForAnHourAtMost(t *testing.T) {
	a := newRevoking(t)
	r := request()
	r.TTL = "86400000"
	d, err := ask(a.Authenticator, "app001.key001", signed(r, secret1), "")
	if err != nil {
		t.Fatal(err)
	}
	app, err := auth.NewApp("app001", []auth.Key{{ID: "key001", Secret: secret1, Revocable: true}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.registry.Replace(app)
	g, err := a.RealtimeToken(d.Token, "")
	if err != nil || !g.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("got %+v %v", g, err)
	}
	a.now = now.Add(time.Hour)
	_, err = a.RealtimeToken(d.Token, "")
	code(t, err, pubsub.CodeTokenExpired, 401)
}

// hearing is a node whose Run notes what it is told.
type hearing struct {
	revoking
	ended  atomic.Int64
	ending atomic.Pointer[func(*auth.Grant) bool]
}

func TestEveryNodeActsOnRevocationsAtTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := directorymemory.NewStore(directorymemory.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		nodes := []*hearing{{}, {}}
		done := make(chan error, len(nodes))
		for i, n := range nodes {
			n.join(t, shared.Node(directory.Node{Name: fmt.Sprint(i)}), time.Now)
			go func() {
				done <- n.revocations.Run(ctx, func() { n.ended.Add(1) }, func(which func(*auth.Grant) bool) { n.ending.Store(&which) })
			}()
		}
		sign := func(id string) *auth.Grant {
			t.Helper()
			token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
				"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "x-ably-clientId": id})
			token.Header["kid"] = "app001.key003"
			text, err := token.SignedString([]byte(secret3))
			if err != nil {
				t.Fatal(err)
			}
			g, err := nodes[1].RealtimeToken(text, "")
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		bob, eve := sign("bob"), sign("eve")
		time.Sleep(time.Second)

		nodes[0].revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:eve"}})
		if nodes[0].Recheck(eve) == nil {
			t.Error("the node that was asked still takes the token")
		}
		synctest.Wait()
		for i, n := range nodes {
			if n.ended.Load() != 1 || n.ending.Load() != nil || n.Recheck(eve) == nil || n.Recheck(bob) != nil {
				t.Errorf("node %d: ended %d times; %v %v", i, n.ended.Load(), n.Recheck(eve), n.Recheck(bob))
			}
		}

		results := nodes[0].revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:bob"}, AllowReauthMargin: true})
		synctest.Wait()
		fresh := sign("bob")
		for i, n := range nodes {
			which := n.ending.Load()
			if which == nil || !(*which)(bob) || (*which)(eve) || (*which)(fresh) || n.ended.Load() != 1 || n.Recheck(bob) != nil {
				t.Errorf("node %d: not asked for another token, or too early", i)
			}
		}
		time.Sleep(time.Until(time.UnixMilli(results[0].AppliesAt)) - time.Millisecond)
		synctest.Wait()
		for i, n := range nodes {
			if n.ended.Load() != 1 || n.Recheck(bob) != nil {
				t.Errorf("node %d: revoked before its time", i)
			}
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		for i, n := range nodes {
			if n.ended.Load() != 2 || n.Recheck(bob) == nil || n.Recheck(fresh) != nil {
				t.Errorf("node %d: ended %d times; %v %v", i, n.ended.Load(), n.Recheck(bob), n.Recheck(fresh))
			}
		}
		cancel()
		for range nodes {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// forgetful is a store that gives no notice but those of a test, and fails while broken is set.
type forgetful struct {
	directory.Directory
	broken  atomic.Bool
	notices chan struct{}
}

func (f *forgetful) Revoked() <-chan struct{} { return f.notices }

func (f *forgetful) Revocations(ctx context.Context, after string) ([]directory.Revocation, string, error) {
	if f.broken.Load() {
		return nil, "", errors.New("no connection")
	}
	return f.Directory.Revocations(ctx, after)
}

func (f *forgetful) Revoke(ctx context.Context, list []directory.Revocation) error {
	if f.broken.Load() {
		return directory.ErrTooMany
	}
	return f.Directory.Revoke(ctx, list)
}

func TestALostNoticeIsMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := directorymemory.NewStore(directorymemory.Options{})
		f := &forgetful{Directory: shared.Node(directory.Node{Name: "b"}), notices: make(chan struct{})}
		asked, deaf := &revoking{}, &hearing{}
		asked.join(t, shared.Node(directory.Node{Name: "a"}), time.Now)
		deaf.join(t, f, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- deaf.revocations.Run(ctx, func() { deaf.ended.Add(1) }, nil) }()
		time.Sleep(time.Second)
		f.broken.Store(true)
		asked.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:bob"}})
		time.Sleep(time.Minute)
		if deaf.ended.Load() != 0 {
			t.Error("it knows what it cannot know")
		}
		f.broken.Store(false)
		time.Sleep(5 * time.Second) // it failed before, so that it asks more often
		if n := deaf.ended.Load(); n != 1 {
			t.Errorf("told %d times", n)
		}
		asked.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:eve"}})
		time.Sleep(30 * time.Second)
		if n := deaf.ended.Load(); n != 2 {
			t.Errorf("told %d times", n)
		}
		// A notice is used up by a reading that fails.
		f.broken.Store(true)
		asked.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:zoe"}})
		f.notices <- struct{}{}
		synctest.Wait()
		f.broken.Store(false)
		time.Sleep(5 * time.Second)
		if n := deaf.ended.Load(); n != 3 {
			t.Errorf("told %d times", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestARevocationThatCannotBeRecordedIsAnError(t *testing.T) {
	r := &revoking{now: now}
	f := &forgetful{Directory: store(r.clock)}
	r.join(t, f, r.clock)
	f.broken.Store(true)
	g, err := r.REST(url.Values{"key": {key3}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.RevokeTokens(t.Context(), g, g.KeyName, &auth.RevocationRequest{Targets: []string{"clientId:bob"}})
	code(t, err, pubsub.CodeRateLimited, 429)
}

func TestAGrantIsNotGoodAnyMoreWhenItsKeyIsGone(t *testing.T) {
	a := newRevoking(t)
	byKey, err := a.Realtime(url.Values{"key": {key1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	byToken, err := a.RealtimeToken(sign(t, "app001.key001", secret1, nil), "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := a.Realtime(url.Values{"key": {key3}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		keys       []auth.Key // nil: the app is gone
		gone, stay pubsub.Code
	}{
		{"nothing changed", []auth.Key{{ID: "key001", Secret: secret1}, {ID: "key003", Secret: secret3}}, 0, 0},
		{"fewer rights", []auth.Key{{ID: "key001", Secret: secret1, Capability: capability(t, `{"x":["publish"]}`)}, {ID: "key003", Secret: secret3}}, 0, 0},
		{"the key is gone", []auth.Key{{ID: "key003", Secret: secret3}}, 40131, 0},
		{"another secret", []auth.Key{{ID: "key001", Secret: secret2}, {ID: "key003", Secret: secret3}}, 40131, 0},
		{"the app is gone", nil, 40120, 40120},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.registry.Replace()
			if c.keys != nil {
				app, err := auth.NewApp("app001", c.keys, nil)
				if err != nil {
					t.Fatal(err)
				}
				a.registry.Replace(app)
			}
			for g, want := range map[*auth.Grant]pubsub.Code{byKey: c.gone, byToken: c.gone, other: c.stay} {
				switch err := a.Recheck(g); {
				case want != 0:
					code(t, err, want, 401)
				case err != nil:
					t.Errorf("%v: %v", g, err)
				}
			}
		})
	}
}

func TestKeysOfTheAppRevokeLetShareTokensToo(t *testing.T) {
	r := &revoking{}
	d := store(time.Now)
	r.join(t, d, time.Now)
	r.revocations = auth.NewRevocations(auth.RevocationOptions{Store: d, Life: func(string) time.Duration { return 24 * time.Hour }})
	r.Authenticator = auth.NewAuthenticator(r.registry, nil, auth.WithRevocations(r.revocations))
	signed := func(claims jwt.MapClaims) string {
		claims["exp"] = time.Now().Add(12 * time.Hour).Unix()
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret1))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	hourAgo := time.Now().Add(-2 * time.Hour).Unix()
	door := &auth.LetShare{Tokens: auth.NewJWTService(secret1, 0), App: "app001", EnforceRoom: true, Revocations: r.revocations}
	bob, undated := signed(jwt.MapClaims{"user_id": "bob", "iat": hourAgo}), signed(jwt.MapClaims{"user_id": "bob"})
	inRoom := signed(jwt.MapClaims{"user_id": "zoe", "room_id": "lobby", "iat": hourAgo})
	eve, later := signed(jwt.MapClaims{"user_id": "eve", "iat": hourAgo}), signed(jwt.MapClaims{"user_id": "bob", "iat": time.Now().Add(time.Minute).Unix()})
	_, before, err := door.Authenticate(bob)
	if err != nil {
		t.Fatal(err)
	}
	r.revoke(t, key3, auth.RevocationRequest{Targets: []string{"clientId:bob", "channel:lobby"}})
	for name, token := range map[string]string{"his": bob, "undated": undated, "of the room": inRoom} {
		_, _, err := door.Authenticate(token)
		if text := code(t, err, pubsub.CodeTokenRevoked, 401); text != "token验证失败: 已被撤销" {
			t.Errorf("%s: %q", name, text)
		}
	}
	if door.Recheck(before) == nil {
		t.Error("his connection may stay")
	}
	for name, token := range map[string]string{"hers": eve, "a later one of his": later} {
		if _, _, err := door.Authenticate(token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := &auth.LetShare{Tokens: door.Tokens, App: "another", Revocations: r.revocations}
	if _, _, err := other.Authenticate(bob); err != nil {
		t.Errorf("another app: %v", err)
	}
}
