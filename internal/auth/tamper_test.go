package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// genuine are credentials of every kind, all good.
type genuine struct {
	a         *clocked
	keys      []string
	jwts      []string // Ably JWTs
	tokens    []string // Ably tokens
	envelopes []string // of one of the two
	letshare  []string
	door      *auth.LetShare
	request   *auth.TokenRequest
}

func newGenuine(t testing.TB) *genuine {
	g := &genuine{a: newClocked(t, tokenSecret), keys: []string{key1, key2}}
	g.jwts = []string{
		sign(t, "app001.key001", secret1, nil),
		sign(t, "app001.key001", secret1, object{"x-ably-clientId": "bob", "x-ably-capability": `{"a":["publish"]}`,
			"x-ably-revocation-key": "group", "ably.channel.a": "claim", "nbf": now.Unix()}),
		sign(t, "app001.key002", secret2, object{"x-ably-clientId": "*"}),
	}
	g.tokens = []string{
		mint(t, g.a.Authenticator, nil),
		mint(t, g.a.Authenticator, func(r *auth.TokenRequest) { r.ClientID, r.HasClientID, r.Capability = "bob", true, `{"a":["publish"]}` }),
	}
	times := part(t, object{"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
	g.envelopes = []string{
		part(t, object{"alg": "HS256", "x-ably-token": g.tokens[1]}) + "." + times + ".c2lnbmF0dXJl",
		part(t, object{"alg": "dir", "enc": "A256GCM", "x-ably-token": g.jwts[1]}) + "..aXY.Y3Q.dGFn",
		part(t, object{"alg": "RS256"}) + "." + part(t, object{"x-ably-token": g.jwts[1], "exp": now.Add(time.Minute).Unix()}) + ".c2ln",
	}
	g.door = &auth.LetShare{Tokens: auth.NewJWTService(secret2, 0), App: "app001", EnforceRoom: true}
	token, err := g.door.Tokens.GenerateToken("anna", "desktop", "lobby")
	if err != nil {
		t.Fatal(err)
	}
	g.letshare = []string{token}
	g.request = signed(&auth.TokenRequest{KeyName: "app001.key001", TTL: "60000", Capability: `{"a":["publish"]}`, ClientID: "bob", HasClientID: true,
		Timestamp: "1704110400000", Nonce: "nonce-of-a-request"}, secret1)
	return g
}

func (g *genuine) all() []string {
	return slices.Concat(g.keys, g.jwts, g.tokens, g.envelopes, g.letshare)
}

// never tries a credential that is not genuine at every door.
func (g *genuine) never(t testing.TB, credential string) {
	t.Helper()
	if slices.Contains(g.all(), credential) {
		return // as it happens
	}
	for door, enter := range map[string]func() (*auth.Grant, error){
		"token, REST":     func() (*auth.Grant, error) { return g.a.REST(url.Values{"access_token": {credential}}, nil) },
		"token, realtime": func() (*auth.Grant, error) { return g.a.Realtime(url.Values{"access_token": {credential}}, nil) },
		"token, in band":  func() (*auth.Grant, error) { return g.a.RealtimeToken(credential, "") },
		"key, REST":       func() (*auth.Grant, error) { return g.a.REST(url.Values{"key": {credential}}, nil) },
		"key, realtime":   func() (*auth.Grant, error) { return g.a.Realtime(url.Values{"key": {credential}}, nil) },
		"bearer": func() (*auth.Grant, error) {
			return g.a.REST(nil, http.Header{"Authorization": {"Bearer " + b64(credential)}})
		},
		"LetShare": func() (*auth.Grant, error) {
			_, grant, err := g.door.Authenticate(credential)
			return grant, err
		},
	} {
		grant, err := enter()
		var e *pubsub.Error
		if err == nil && !g.holds(credential, grant) {
			t.Errorf("%s: %q got in as %+v", door, credential, grant)
		} else if err != nil && (!errors.As(err, &e) || e.StatusCode < 400 || e.StatusCode > 499) {
			t.Errorf("%s: %q: %v", door, credential, err)
		}
	}
}

// holds reports whether a credential is an envelope in which a genuine token is as it was, and
// gives what that does and no more.
func (g *genuine) holds(credential string, grant *auth.Grant) bool {
	asURL := strings.NewReplacer("+", "-", "/", "_", "=", "") // envelopes come in either base64
	for _, p := range strings.Split(credential, ".") {
		text, err := base64.RawURLEncoding.DecodeString(asURL.Replace(p))
		if err != nil {
			continue
		}
		for _, token := range slices.Concat(g.jwts, g.tokens) {
			if !strings.Contains(string(text), token) {
				continue
			}
			inner, err := g.a.RealtimeToken(token, "")
			if err == nil && inner.KeyName == grant.KeyName && inner.ReportedClientID() == grant.ReportedClientID() &&
				inner.Capability.Equal(grant.Capability) && !grant.Expires.After(inner.Expires) {
				return true
			}
		}
	}
	return false
}

func TestGenuineCredentialsGetIn(t *testing.T) {
	g := newGenuine(t)
	for _, key := range g.keys {
		if _, err := g.a.REST(url.Values{"key": {key}}, nil); err != nil {
			t.Error(err)
		}
	}
	for _, token := range slices.Concat(g.jwts, g.tokens, g.envelopes) {
		if _, err := g.a.RealtimeToken(token, ""); err != nil {
			t.Error(err)
		}
	}
	for _, token := range g.letshare {
		if _, _, err := g.door.Authenticate(token); err != nil {
			t.Error(err)
		}
	}
	if _, err := ask(g.a.Authenticator, g.request.KeyName, g.request, ""); err != nil {
		t.Error(err)
	}
}

// values are what a field may be changed to.
var values = []any{nil, "", "*", "root", "app001.key001", "app001.key002", "app001.local0", `{"*":["*"]}`, "HS512", "none", "RS256", true, -1, 0,
	int64(253402300799), 1e300, []string{"*"}, object{}}

// rewrites are all ways to change one field of a JSON object, or to add one.
func rewrites(text string) (all []string) {
	var fields object
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if decoder.Decode(&fields) != nil {
		return nil
	}
	write := func(change func(object)) {
		changed := maps.Clone(fields)
		change(changed)
		b, _ := json.Marshal(changed)
		if string(b) != text {
			all = append(all, string(b))
		}
	}
	names := slices.Sorted(maps.Keys(fields))
	for _, name := range names {
		write(func(o object) { delete(o, name) })
		for _, v := range values {
			write(func(o object) { o[name] = v })
		}
	}
	for _, name := range []string{"x-ably-clientId", "x-ably-capability", "x-ably-token", "ably.channel.*", "kid", "alg", "crit", "exp", "user_id", "room_id"} {
		for _, v := range values {
			write(func(o object) { o[name] = v })
		}
	}
	return all
}

func TestTamperedCredentialsNeverGetIn(t *testing.T) {
	g := newGenuine(t)
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for _, good := range slices.Concat(g.jwts, g.letshare) {
		p := strings.Split(good, ".")
		header, _ := base64.RawURLEncoding.DecodeString(p[0])
		claims, _ := base64.RawURLEncoding.DecodeString(p[1])
		for _, changed := range rewrites(string(header)) {
			g.never(t, encode(changed)+"."+p[1]+"."+p[2])
		}
		for _, changed := range rewrites(string(claims)) {
			g.never(t, p[0]+"."+encode(changed)+"."+p[2])
		}
		g.never(t, p[0]+"."+encode(" "+string(claims))+"."+p[2])
		g.never(t, encode(string(header)+" ")+"."+p[1]+"."+p[2])
		// Signed with what is not the key's secret, or not as its header says.
		var fields, all map[string]any
		if json.Unmarshal(header, &fields) != nil || json.Unmarshal(claims, &all) != nil {
			t.Fatal("unreadable")
		}
		for _, secret := range []string{"", secret1 + "x", secret3, "published", tokenSecret, "app001", "app001.key001", key1, fieldsText(fields["kid"])} {
			token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(all))
			maps.Copy(token.Header, fields)
			text, err := token.SignedString([]byte(secret))
			if err != nil {
				t.Fatal(err)
			}
			g.never(t, text)
		}
		secret := secret1
		if fields["kid"] != "app001.key001" {
			secret = secret2
		}
		for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS384, jwt.SigningMethodHS512, jwt.SigningMethodNone} {
			for _, alg := range []string{method.Alg(), "HS256", "hs256", "None", "NONE", ""} {
				token := jwt.NewWithClaims(method, jwt.MapClaims(all))
				maps.Copy(token.Header, fields)
				token.Header["alg"] = alg
				var key any = []byte(secret)
				if method == jwt.SigningMethodNone {
					key = jwt.UnsafeAllowNoneSignatureType
				}
				text, err := token.SignedString(key)
				if err != nil {
					t.Fatal(err)
				}
				g.never(t, text)
				g.never(t, text[:strings.LastIndexByte(text, '.')+1])
			}
		}
	}
	for _, good := range g.all() {
		for n := range len(good) {
			g.never(t, good[:n])
			g.never(t, good[n+1:])
			g.never(t, good[:n]+good[n+1:])
		}
		for _, tail := range []string{" ", "\n", "=", "==", "A", ".", "\x00", "%00"} {
			g.never(t, good+tail)
			g.never(t, tail+good)
		}
	}
}

func fieldsText(v any) string { s, _ := v.(string); return s }

func TestTamperedTokenRequestsGetNoToken(t *testing.T) {
	g := newGenuine(t)
	never := func(r auth.TokenRequest) {
		t.Helper()
		if r == *g.request {
			return
		}
		if d, err := ask(g.a.Authenticator, r.KeyName, &r, ""); err == nil {
			t.Errorf("%+v got %+v", r, d)
		}
	}
	fields := func(r *auth.TokenRequest) map[string]*string {
		return map[string]*string{"keyName": &r.KeyName, "ttl": &r.TTL, "capability": &r.Capability, "clientId": &r.ClientID,
			"timestamp": &r.Timestamp, "nonce": &r.Nonce, "mac": &r.MAC}
	}
	var read auth.TokenRequest
	for name := range fields(&read) {
		for _, v := range []string{"", "*", "0", "1", "60001", "86400000", "app001.key002", `{"*":["*"]}`, `{"a":["publish"]} `, "root", "1704110400001", "another-nonce-of-it"} {
			r := *g.request
			*fields(&r)[name] = v
			r.HasClientID = r.ClientID != ""
			if name == "mac" && v == "" || name == "clientId" && v == "" && r == *g.request {
				continue
			}
			never(r)
		}
		r := *g.request
		good := *fields(&r)[name]
		for n := range len(good) {
			r := *g.request
			*fields(&r)[name] = good[:n]
			r.HasClientID = r.ClientID != ""
			if r.MAC != "" {
				never(r)
			}
			*fields(&r)[name] = good[:n] + "\n" + good[n:]
			never(r)
		}
	}
	for _, secret := range []string{"", secret2, secret3, "app001.key001", tokenSecret} {
		never(*signed(&auth.TokenRequest{KeyName: "app001.key001", Timestamp: g.request.Timestamp, Nonce: "a-nonce-of-its-own"}, secret))
	}
	// What is signed is lines: what moves from one field to another must not be taken, even if the
	// signer let somebody choose a clientId with a line's end.
	r := *signed(&auth.TokenRequest{KeyName: "app001.key001", Capability: `{"a":["publish"]}`, ClientID: "\nroot", HasClientID: true,
		Timestamp: g.request.Timestamp, Nonce: "a-nonce-of-its-own"}, secret1)
	never(r)
	r.Capability, r.ClientID = r.Capability+"\n", "root"
	never(r)
	pretty := signed(&auth.TokenRequest{KeyName: "app001.key001", Capability: "{\n\"a\":\n[\"publish\"]\n}",
		Timestamp: g.request.Timestamp, Nonce: "another-nonce-of-it"}, secret1)
	if _, err := ask(g.a.Authenticator, pretty.KeyName, pretty, ""); err != nil {
		t.Errorf("a capability in lines: %v", err)
	}
}

// mutate changes a credential in some way, or joins it with another.
func mutate(rng *rand.Rand, good string, others []string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=.:{}\"\\ \n\x00\xff"
	b := []byte(good)
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			break
		}
		i, j := rng.IntN(len(b)), rng.IntN(len(b))
		i, j = min(i, j), max(i, j)
		switch rng.IntN(11) {
		case 0:
			b[i] ^= 1 << rng.IntN(8)
		case 1:
			b[i] = letters[rng.IntN(len(letters))]
		case 2:
			b = slices.Delete(b, i, j)
		case 3:
			b = slices.Insert(b, i, letters[rng.IntN(len(letters))])
		case 4:
			b = slices.Insert(b, j, slices.Clone(b[i:j])...)
		case 5:
			b[i], b[j] = b[j], b[i]
		case 6: // parts of two
			other := others[rng.IntN(len(others))]
			b = append(b[:i:i], other[rng.IntN(len(other)):]...)
		case 7: // one part of another
			p, q := strings.Split(string(b), "."), strings.Split(others[rng.IntN(len(others))], ".")
			p[rng.IntN(len(p))] = q[rng.IntN(len(q))]
			b = []byte(strings.Join(p, "."))
		case 8: // the bytes of a part
			p := strings.Split(string(b), ".")
			n := rng.IntN(len(p))
			if raw, err := base64.RawURLEncoding.DecodeString(p[n]); err == nil && len(raw) > 0 {
				raw[rng.IntN(len(raw))] ^= 1 << rng.IntN(8)
				p[n] = base64.RawURLEncoding.EncodeToString(raw)
				b = []byte(strings.Join(p, "."))
			}
		case 9: // a field of a part
			p := strings.Split(string(b), ".")
			n := rng.IntN(len(p))
			if raw, err := base64.RawURLEncoding.DecodeString(p[n]); err == nil {
				if all := rewrites(string(raw)); len(all) > 0 {
					p[n] = base64.RawURLEncoding.EncodeToString([]byte(all[rng.IntN(len(all))]))
					b = []byte(strings.Join(p, "."))
				}
			}
		case 10:
			b = []byte(strings.ToUpper(string(b)))
		}
	}
	return string(b)
}

func (g *genuine) mutations(t testing.TB, rng *rand.Rand, n int) {
	all := g.all()
	for range n {
		g.never(t, mutate(rng, all[rng.IntN(len(all))], all))
	}
}

func TestMutatedCredentialsNeverGetIn(t *testing.T) {
	n := 100_000
	if raceEnabled {
		n = 10_000
	}
	g := newGenuine(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g.mutations(t, rand.New(rand.NewPCG(seed, 1)), n)
}

// FuzzMutations goes on for as long as one likes.
func FuzzMutations(f *testing.F) {
	g := newGenuine(f)
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { g.mutations(t, rand.New(rand.NewPCG(a, b)), 100) })
}
