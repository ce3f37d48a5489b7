package sdk

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ably/ably-go/ably"
	"github.com/golang-jwt/jwt/v5"
)

// ask sends a request for a token as it is, and returns the token.
func (s target) ask(t *testing.T, keyName string, request map[string]any) (status int, token string) {
	t.Helper()
	body, err := json.Marshal(request)
	must(t, err)
	req, err := http.NewRequestWithContext(deadline(t), http.MethodPost,
		fmt.Sprintf("http://%s:%d/keys/%s/requestToken", s.host, s.port, keyName), bytes.NewReader(body))
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	var details struct{ Token string }
	must(t, json.NewDecoder(res.Body).Decode(&details))
	return res.StatusCode, details.Token
}

// enters reports whether a token gets in over REST.
func (s target) enters(t *testing.T, token string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, fmt.Sprintf("http://%s:%d/channels/tampered/messages", s.host, s.port), nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte(token)))
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	must(t, err)
	if res.StatusCode != http.StatusOK && (res.StatusCode < 400 || res.StatusCode > 499) {
		t.Errorf("%q: status %d", token, res.StatusCode)
	}
	return res.StatusCode == http.StatusOK
}

func TestASignedRequestIsGoodInNoOtherForm(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		signed, err := s.rest(t, "").Auth.CreateTokenRequest(&ably.TokenParams{ClientID: "bob", TTL: 60000, Capability: `{"tampered":["history","subscribe"]}`})
		must(t, err)
		text, err := json.Marshal(signed)
		must(t, err)
		genuine := make(map[string]any)
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		must(t, decoder.Decode(&genuine))
		keyName, _, _ := strings.Cut(s.key, ":")
		never := func(field string, value any) {
			t.Helper()
			request := make(map[string]any)
			for name, v := range genuine {
				request[name] = v
			}
			if request[field] = value; value == nil {
				delete(request, field)
			}
			if status, token := s.ask(t, keyName, request); status < 400 || status > 499 || token != "" {
				t.Errorf("%s = %v: status %d", field, value, status)
			}
		}
		for _, field := range []string{"keyName", "ttl", "capability", "clientId", "timestamp", "nonce", "mac"} {
			value, there := genuine[field]
			if !there {
				t.Fatalf("the request has no %s: %s", field, text)
			}
			for _, other := range []any{nil, "*", "root", 1, 60001, `{"*":["*"]}`, "nosuch.key", []string{}} {
				never(field, other)
			}
			good := fmt.Sprint(value)
			for i := range len(good) {
				never(field, good[:i])
				never(field, good[:i]+string(good[i]^1)+good[i+1:])
			}
		}
		status, token := s.ask(t, keyName, genuine)
		if status != http.StatusCreated || !s.enters(t, token) {
			t.Fatalf("status %d for the genuine one", status)
		}
		for i := range len(token) {
			if s.enters(t, token[:i]) || s.enters(t, token[:i]+string(token[i]^1)+token[i+1:]) {
				t.Errorf("it gets in without its character %d", i)
			}
		}
		must(t, s.connected(t, token).Channels.Get("tampered").Attach(deadline(t)))
	})
}

func TestAJWTOfALibraryIsGoodInNoOtherForm(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		keyName, secret, _ := strings.Cut(s.key, ":")
		claims := func() jwt.MapClaims {
			return jwt.MapClaims{"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "x-ably-clientId": "bob",
				"x-ably-capability": `{"tampered":["history"]}`}
		}
		sign := func(method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
			t.Helper()
			token := jwt.NewWithClaims(method, claims)
			token.Header["kid"] = kid
			text, err := token.SignedString(key)
			must(t, err)
			return text
		}
		good := sign(jwt.SigningMethodHS256, []byte(secret), keyName, claims())
		if !s.enters(t, good) {
			t.Fatal("the genuine one does not get in")
		}
		tampered := []string{
			sign(jwt.SigningMethodHS256, []byte(secret+"x"), keyName, claims()),
			sign(jwt.SigningMethodHS256, []byte(keyName), keyName, claims()),
			sign(jwt.SigningMethodHS256, []byte(secret), "nosuch.key", claims()),
			sign(jwt.SigningMethodHS384, []byte(secret), keyName, claims()),
			sign(jwt.SigningMethodHS512, []byte(secret), keyName, claims()),
			sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, keyName, claims()),
		}
		parts := strings.Split(good, ".")
		for field := range claims() {
			for _, value := range []any{nil, "", "*", "root", 0, 1e300, `{"*":["*"]}`, time.Now().Add(time.Hour).Unix()} {
				changed := claims()
				if changed[field] = value; value == nil {
					delete(changed, field)
				}
				other := sign(jwt.SigningMethodHS256, []byte("another secret"), keyName, changed)
				tampered = append(tampered, parts[0]+"."+strings.Split(other, ".")[1]+"."+parts[2], other)
			}
		}
		for _, header := range []string{`{"alg":"none","kid":%q}`, `{"alg":"HS512","kid":%q}`, `{"alg":"RS256","kid":%q}`, `{"kid":%q}`, `{"alg":"HS256"}`,
			`{"alg":"HS256","kid":%q,"crit":["exp"]}`} {
			if strings.Contains(header, "%q") {
				header = fmt.Sprintf(header, keyName)
			}
			coded := base64.RawURLEncoding.EncodeToString([]byte(header))
			tampered = append(tampered, coded+"."+parts[1]+"."+parts[2], coded+"."+parts[1]+".")
		}
		for i := range len(good) {
			tampered = append(tampered, good[:i], good[:i]+string(good[i]^1)+good[i+1:])
		}
		for _, token := range tampered {
			if s.enters(t, token) {
				t.Errorf("%q gets in", token)
			}
		}
		for _, token := range tampered[:6] {
			client := s.realtime(t, token)
			states := make(chan ably.ConnectionStateChange, 64)
			off := client.Connection.OnAll(func(c ably.ConnectionStateChange) { states <- c })
			client.Connect()
			c := ably.ConnectionStateChange{Current: ably.ConnectionStateConnecting}
			for late := time.After(patience); c.Current == ably.ConnectionStateConnecting; {
				select {
				case c = <-states:
				case <-late:
					t.Fatal("there is no answer")
				}
			}
			if c.Current == ably.ConnectionStateConnected || c.Reason == nil {
				t.Errorf("%v (%v) with %q", c.Current, c.Reason, token)
			}
			off()
		}
	})
}
