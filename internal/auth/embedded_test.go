package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// part is one part of a JWS or JWE.
func part(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

type object = map[string]any

func TestATokenInsideAnotherCountsAsItself(t *testing.T) {
	a := newClocked(t, tokenSecret)
	token := mint(t, a.Authenticator, func(r *auth.TokenRequest) { r.ClientID, r.HasClientID = "bob", true })
	inner := sign(t, "app001.key002", secret2, object{"x-ably-clientId": "bob", "x-ably-capability": `{"a":["publish"]}`})
	end := now.Add(time.Hour)
	times := object{"iat": now.Unix(), "exp": end.Unix()}
	padded := func(v any) string {
		text, _ := json.Marshal(v)
		return base64.StdEncoding.EncodeToString(text)
	}
	for _, c := range []struct {
		name, outer string
		key         string
		end         time.Time
	}{
		{"in the header of a JWS", part(t, object{"alg": "HS256", "x-ably-token": token}) + "." + part(t, times) + ".anybodys", "app001.key001", end},
		{"a JWT in it", part(t, object{"alg": "ES256", "kid": "theirs", "x-ably-token": inner}) + "." + part(t, times) + ".x", "app001.key002", end},
		{"as a claim", part(t, object{"alg": "RS256"}) + "." + part(t, object{"x-ably-token": token, "exp": end.Unix()}) + ".x", "app001.key001", end},
		{"a JWT as a claim", part(t, object{"alg": "RS256"}) + "." + part(t, object{"x-ably-token": inner}) + ".x", "app001.key002", end},
		{"unsigned", part(t, object{"alg": "none", "x-ably-token": token}) + "." + part(t, times) + ".", "app001.key001", end},
		{"in another base64", padded(object{"alg": "HS256", "x-ably-token": token, "": "??>>"}) + "." + padded(times) + ".x", "app001.key001", end},
		{"in the header of a JWE", part(t, object{"alg": "dir", "enc": "A256GCM", "x-ably-token": token}) + "..aXY.Y3Q.dGFn", "app001.key001", end},
		{"a JWT in a JWE", part(t, object{"alg": "RSA-OAEP", "enc": "A256GCM", "x-ably-token": inner}) + ".a2V5.aXY.Y3Q.dGFn", "app001.key002", end},
		{"which ends sooner", part(t, object{"x-ably-token": token}) + "." + part(t, object{"exp": now.Add(time.Minute).Unix()}) + ".x", "app001.key001", now.Add(time.Minute)},
		{"made a moment later", part(t, object{"x-ably-token": token}) + "." + part(t, object{"exp": end.Unix() + 1}) + ".x", "app001.key001", end},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, enter := range []func() (*auth.Grant, error){
				func() (*auth.Grant, error) {
					return a.Realtime(url.Values{"access_token": {c.outer}, "clientId": {"bob"}}, nil)
				},
				func() (*auth.Grant, error) { return a.RealtimeToken(c.outer, "") },
				func() (*auth.Grant, error) { return a.REST(url.Values{"access_token": {c.outer}}, nil) },
			} {
				g, err := enter()
				if err != nil || g.KeyName != c.key || g.ClientID != "bob" || !g.Expires.Equal(c.end) {
					t.Errorf("got %+v %v", g, err)
				}
			}
			_, err := a.Realtime(url.Values{"access_token": {c.outer}, "clientId": {"eve"}}, nil)
			code(t, err, pubsub.CodeIncompatibleCredential, 401)
			a.now = a.now.Add(time.Hour)
			defer func() { a.now = now }()
			_, err = a.RealtimeToken(c.outer, "")
			code(t, err, pubsub.CodeTokenExpired, 401)
		})
	}
}

func TestAnEnvelopeGivesNoRightsOfItsOwn(t *testing.T) {
	a := newClocked(t, tokenSecret)
	token := mint(t, a.Authenticator, nil)
	good := sign(t, "app001.key001", secret1, nil)
	forged := sign(t, "app001.key001", secret2, nil)
	times := part(t, object{"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})
	outer := func(inner any) string {
		return part(t, object{"alg": "HS256", "x-ably-token": inner}) + "." + times + ".x"
	}
	for _, c := range []struct {
		name, token string
		code        pubsub.Code
	}{
		{"a forged JWT inside", outer(forged), pubsub.CodeInvalidJWT},
		{"a truncated token inside", outer(token[:len(token)-1]), pubsub.CodeInvalidToken},
		{"garbage inside", outer("garbage"), pubsub.CodeInvalidCredentials},
		{"nothing inside", outer(""), pubsub.CodeInvalidCredentials},
		{"no text inside", outer(7), pubsub.CodeInvalidJWT},
		{"an envelope inside", outer(outer(token)), pubsub.CodeInvalidJWT},
		{"an encrypted one inside", outer(part(t, object{"x-ably-token": token}) + "..aXY.Y3Q.dGFn"), pubsub.CodeInvalidCredentials},
		{"a key inside", outer(key1), pubsub.CodeInvalidToken},
		{"longer than what is inside", part(t, object{"x-ably-token": token}) + "." + part(t, object{"exp": now.Add(time.Hour + 2*time.Minute).Unix()}) + ".x", pubsub.CodeInvalidJWT},
		{"over although what is inside is not", part(t, object{"x-ably-token": token}) + "." + part(t, object{"exp": now.Unix()}) + ".x", pubsub.CodeTokenExpired},
		{"without a readable end", part(t, object{"x-ably-token": token}) + "." + part(t, object{"exp": "soon"}) + ".x", pubsub.CodeInvalidJWT},
		{"without readable claims", part(t, object{"x-ably-token": token}) + ".bm90aGluZw.x", pubsub.CodeInvalidJWT},
		{"a JWE without a token", part(t, object{"alg": "dir"}) + "..aXY.Y3Q.dGFn", pubsub.CodeInvalidJWT},
		{"a JWE with the token where nobody can read it", part(t, object{"alg": "dir"}) + "." + part(t, object{"x-ably-token": token}) + ".aXY.Y3Q.dGFn", pubsub.CodeInvalidJWT},
		{"other claims of the outer one", part(t, object{"alg": "HS256", "kid": "app001.key001"}) + "." +
			part(t, object{"x-ably-clientId": "root", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}) + "." + strings.Split(good, ".")[2], pubsub.CodeInvalidJWT},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := a.RealtimeToken(c.token, "")
			code(t, err, c.code, 401)
		})
	}
	// Rights and identity are the inner token's, whatever the outer one claims.
	g, err := a.RealtimeToken(part(t, object{"x-ably-token": sign(t, "app001.key002", secret2, nil), "kid": "app001.key001"})+"."+
		part(t, object{"x-ably-clientId": "root", "x-ably-capability": `{"*":["*"]}`})+".x", "")
	if err != nil || g.ClientID != "" || g.KeyName != "app001.key002" || g.Allows(auth.OpHistory, "a") {
		t.Errorf("got %+v %v", g, err)
	}
}
