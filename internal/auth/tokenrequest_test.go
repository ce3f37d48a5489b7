package auth_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

var nonces atomic.Int64

// request is one for a token of key001, current and with a nonce of its own, but unsigned.
func request() *auth.TokenRequest {
	return &auth.TokenRequest{
		KeyName: "app001.key001", Timestamp: strconv.FormatInt(now.UnixMilli(), 10),
		Nonce: fmt.Sprintf("nonce-number-%06d", nonces.Add(1)),
	}
}

func signed(r *auth.TokenRequest, secret string) *auth.TokenRequest {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s\n%s\n%s\n%s\n%s\n%s\n", r.KeyName, r.TTL, r.Capability, r.ClientID, r.Timestamp, r.Nonce)
	r.MAC = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return r
}

// ask makes a request of an authenticator, with the credentials given, as a door does.
func ask(a *auth.Authenticator, keyName string, r *auth.TokenRequest, credentials string) (*auth.TokenDetails, error) {
	if err := a.CheckKeyName(keyName); err != nil {
		return nil, err
	}
	h := http.Header{}
	if credentials != "" {
		h.Set("Authorization", credentials)
	}
	g, err := a.VouchForToken(keyName, r, nil, h)
	if err != nil {
		return nil, err
	}
	return a.IssueToken(context.Background(), g, r)
}

func basic(key string) string { return "Basic " + b64(key) }

// RSA5, RSA6, RSA9e-f, TK2a-c
func TestASignedRequestGetsWhatItAsksFor(t *testing.T) {
	for _, c := range []struct {
		name       string
		request    auth.TokenRequest // KeyName, TTL, Capability, ClientID
		secret     string
		life       int64
		capability string
		clientID   string
	}{
		{"nothing", auth.TokenRequest{}, secret1, 3_600_000, `{"*":["*"]}`, ""},
		{"a ttl", auth.TokenRequest{TTL: "1"}, secret1, 1, `{"*":["*"]}`, ""},
		{"a ttl of none", auth.TokenRequest{TTL: "0"}, secret1, 3_600_000, `{"*":["*"]}`, ""},
		{"a ttl with a fraction of zeros", auth.TokenRequest{TTL: "60000.0"}, secret1, 60_000, `{"*":["*"]}`, ""},
		{"a ttl with an exponent", auth.TokenRequest{TTL: "6e4"}, secret1, 60_000, `{"*":["*"]}`, ""},
		{"the longest ttl", auth.TokenRequest{TTL: "86400000"}, secret1, 86_400_000, `{"*":["*"]}`, ""},
		{"a clientId", auth.TokenRequest{ClientID: "bob"}, secret1, 3_600_000, `{"*":["*"]}`, "bob"},
		{"any clientId", auth.TokenRequest{ClientID: "*"}, secret1, 3_600_000, `{"*":["*"]}`, "*"},
		{"a capability", auth.TokenRequest{Capability: `{ "b" : ["subscribe","publish"], "a":["*"] }`}, secret1, 3_600_000,
			`{"a":["*"],"b":["publish","subscribe"]}`, ""},
		{"the key's capability", auth.TokenRequest{KeyName: "app001.key002"}, secret2, 3_600_000,
			`{"a":["publish"],"b:*":["subscribe"]}`, ""},
		{"more than the key has", auth.TokenRequest{KeyName: "app001.key002", Capability: `{"*":["*"]}`}, secret2, 3_600_000,
			`{"a":["publish"],"b:*":["subscribe"]}`, ""},
		{"some of what the key has", auth.TokenRequest{KeyName: "app001.key002", TTL: "3600000", Capability: `{"b:x":["*"],"c":["*"]}`}, secret2, 3_600_000,
			`{"b:x":["subscribe"]}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, r := authenticator(t), request()
			if c.request.KeyName != "" {
				r.KeyName = c.request.KeyName
			}
			r.TTL, r.Capability, r.ClientID = c.request.TTL, c.request.Capability, c.request.ClientID
			r.HasClientID = r.ClientID != ""
			d, err := ask(a, r.KeyName, signed(r, c.secret), "")
			if err != nil {
				t.Fatal(err)
			}
			want := auth.TokenDetails{Token: d.Token, KeyName: r.KeyName, Issued: now.UnixMilli(), Expires: now.UnixMilli() + c.life,
				Capability: c.capability, ClientID: c.clientID}
			if *d != want || !strings.HasPrefix(d.Token, "app001.") || url.QueryEscape(d.Token) != d.Token {
				t.Errorf("got %+v", d)
			}
			g, err := a.RealtimeToken(d.Token, "")
			if err != nil {
				t.Fatal(err)
			}
			if g.App != "app001" || g.KeyName != r.KeyName || g.ByKey || g.Capability.String() != c.capability || g.ReportedClientID() != c.clientID ||
				g.Expires.UnixMilli() != d.Expires || g.LocalOnly {
				t.Errorf("granted %+v", g)
			}
		})
	}
}

func TestSDKsSignATTLOfZeroAsNone(t *testing.T) {
	r := signed(request(), secret1)
	r.TTL = "0"
	if d, err := ask(authenticator(t), r.KeyName, r, ""); err != nil || d.Expires-d.Issued != 3_600_000 {
		t.Errorf("got %+v %v", d, err)
	}
}

func TestRequestsForTokensAreRefused(t *testing.T) {
	at := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).UnixMilli(), 10) }
	for _, c := range []struct {
		name   string
		change func(*auth.TokenRequest)
		code   pubsub.Code
		status int
	}{
		{"old", func(r *auth.TokenRequest) { r.Timestamp = at(-30 * time.Minute) }, 40104, 401},
		{"just too old", func(r *auth.TokenRequest) { r.Timestamp = at(-2*time.Minute - time.Millisecond) }, 40104, 401},
		{"of the future", func(r *auth.TokenRequest) { r.Timestamp = at(2*time.Minute + time.Millisecond) }, 40104, 401},
		{"of no time", func(r *auth.TokenRequest) { r.Timestamp = "" }, 40104, 401},
		{"timestamp in words", func(r *auth.TokenRequest) { r.Timestamp = "now" }, 40104, 401},
		{"timestamp beyond all bounds", func(r *auth.TokenRequest) { r.Timestamp = "9223372036854775807" }, 40104, 401},
		{"timestamp before all bounds", func(r *auth.TokenRequest) { r.Timestamp = "-9223372036854775808" }, 40104, 401},
		{"no nonce", func(r *auth.TokenRequest) { r.Nonce = "" }, 40105, 401},
		{"short nonce", func(r *auth.TokenRequest) { r.Nonce = "123456789012345" }, 40105, 401},
		{"negative ttl", func(r *auth.TokenRequest) { r.TTL = "-1" }, 40003, 400},
		{"ttl not a number", func(r *auth.TokenRequest) { r.TTL = "NaN" }, 40003, 400},
		{"infinite ttl", func(r *auth.TokenRequest) { r.TTL = "Infinity" }, 40003, 400},
		{"ttl in words", func(r *auth.TokenRequest) { r.TTL = "an hour" }, 40003, 400},
		{"hexadecimal ttl", func(r *auth.TokenRequest) { r.TTL = "0x10" }, 40003, 400},
		{"ttl with a fraction", func(r *auth.TokenRequest) { r.TTL = "1.5" }, 40003, 400},
		{"long ttl", func(r *auth.TokenRequest) { r.TTL = "86400001" }, 40003, 400},
		{"a ttl of a year", func(r *auth.TokenRequest) { r.TTL = "31536000000" }, 40003, 400},
		{"ttl beyond all bounds", func(r *auth.TokenRequest) { r.TTL = "1e300" }, 40003, 400},
		{"empty clientId", func(r *auth.TokenRequest) { r.HasClientID = true }, 40012, 400},
		{"capability unreadable", func(r *auth.TokenRequest) { r.Capability = "{" }, 40000, 400},
		{"capability of lists", func(r *auth.TokenRequest) { r.Capability = "[]" }, 40000, 400},
		{"unknown operation", func(r *auth.TokenRequest) { r.Capability = `{"a":["publish_"]}` }, 40000, 400},
		{"no operations", func(r *auth.TokenRequest) { r.Capability = `{"a":[]}` }, 40000, 400},
		{"* beside others", func(r *auth.TokenRequest) { r.Capability = `{"a":["*","publish"]}` }, 40000, 400},
		{"nothing in common", func(r *auth.TokenRequest) { r.Capability = `{"[meta]log":["subscribe"]}` }, 40160, 401},
		{"a capability for nothing", func(r *auth.TokenRequest) { r.Capability = `{}` }, 40160, 401},
		{"a token too long", func(r *auth.TokenRequest) { r.ClientID, r.HasClientID = strings.Repeat("x", 120_000), true }, 40000, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request()
			c.change(r)
			_, err := ask(authenticator(t), r.KeyName, signed(r, secret1), "")
			code(t, err, c.code, c.status)
		})
	}
}

// RSA9g
func TestASignatureIsOverEveryFieldAsItCame(t *testing.T) {
	a := authenticator(t)
	full := func() *auth.TokenRequest {
		r := request()
		r.TTL, r.Capability, r.ClientID, r.HasClientID = "1000", `{"b":["publish"], "a":["publish"]}`, "bob", true
		return signed(r, secret1)
	}
	for name, change := range map[string]func(*auth.TokenRequest){
		"ttl":                   func(r *auth.TokenRequest) { r.TTL = "2000" },
		"ttl taken away":        func(r *auth.TokenRequest) { r.TTL = "" },
		"ttl spelled otherwise": func(r *auth.TokenRequest) { r.TTL = "1000.0" },
		"capability":            func(r *auth.TokenRequest) { r.Capability = `{"*":["*"]}` },
		"capability in order":   func(r *auth.TokenRequest) { r.Capability = `{"a":["publish"],"b":["publish"]}` },
		"clientId":              func(r *auth.TokenRequest) { r.ClientID = "*" },
		"clientId taken away":   func(r *auth.TokenRequest) { r.ClientID, r.HasClientID = "", false },
		"timestamp":             func(r *auth.TokenRequest) { r.Timestamp += "0" },
		"nonce":                 func(r *auth.TokenRequest) { r.Nonce += "0" },
		"fields run together":   func(r *auth.TokenRequest) { r.TTL, r.Capability = "1000\n"+r.Capability, "" },
		"mac of another secret": func(r *auth.TokenRequest) { signed(r, secret2) },
		"mac cut":               func(r *auth.TokenRequest) { r.MAC = r.MAC[:len(r.MAC)-1] },
		"mac longer":            func(r *auth.TokenRequest) { r.MAC += "=" },
		"mac of nothing":        func(r *auth.TokenRequest) { r.MAC = "x" },
		"another key's name":    func(r *auth.TokenRequest) { r.KeyName = "app001.key002"; signed(r, secret1) },
		"no key's name":         func(r *auth.TokenRequest) { r.KeyName = ""; signed(r, secret1) },
	} {
		r := full()
		change(r)
		// The key itself beside it makes a bad signature no better.
		for _, credentials := range []string{"", basic(key1)} {
			_, err := ask(a, "app001.key001", r, credentials)
			if text := code(t, err, pubsub.CodeInvalidCredentials, 401); text == "" {
				t.Errorf("%s", name)
			}
		}
	}
	if _, err := ask(a, "app001.key001", full(), ""); err != nil {
		t.Error(err)
	}
}

func TestAKeyThatIsUnknownHasNoTokens(t *testing.T) {
	for _, name := range []string{"nosuch.key001", "app001.nosuch", "app001", "", "app001.key001.x", "."} {
		r := request()
		r.KeyName = name
		_, err := ask(authenticator(t), name, signed(r, secret1), "")
		code(t, err, pubsub.CodeNotFound, 404)
	}
}

func TestARevocableKeysTokensLiveForAnHour(t *testing.T) {
	r := request()
	r.KeyName, r.TTL = "app001.key002", "3600001"
	_, err := ask(authenticator(t), r.KeyName, signed(r, secret2), "")
	code(t, err, pubsub.CodeInvalidParameterValue, 400)
}

func TestAnUnsignedRequestNeedsCredentialsOfTheKey(t *testing.T) {
	a := authenticator(t)
	other, err := ask(a, "app001.key002", signed(&auth.TokenRequest{KeyName: "app001.key002", Timestamp: request().Timestamp, Nonce: request().Nonce}, secret2), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, credentials string
		code              pubsub.Code
		status            int
	}{
		{"none", "", 40101, 401},
		{"wrong secret", basic("app001.key001:wrong"), 40101, 401},
		{"another key", basic(key2), 40101, 401},
		{"unknown key", basic("app001.nosuch:secret"), 40400, 401},
		{"a token of another key", "Bearer " + other.Token, 40101, 401},
		{"no token", "Bearer garbage", 40101, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ask(a, "app001.key001", request(), c.credentials)
			code(t, err, c.code, c.status)
		})
	}
	for name, r := range map[string]*auth.TokenRequest{
		"complete": request(), "empty": {}, "with a clientId": {ClientID: "me", HasClientID: true},
	} {
		if d, err := ask(a, "app001.key001", r, basic(key1)); err != nil || d.ClientID != r.ClientID {
			t.Errorf("%s: %+v %v", name, d, err)
		}
	}
	// What is there is checked without a signature too.
	old := request()
	old.Timestamp = "0"
	_, err = ask(a, "app001.key001", old, basic(key1))
	code(t, err, pubsub.CodeTimestampNotCurrent, 401)
	_, err = ask(a, "app001.key001", &auth.TokenRequest{Nonce: "short"}, basic(key1))
	code(t, err, pubsub.CodeNonceReplayed, 401)
	twice := request()
	_, _ = ask(a, "app001.key001", twice, basic(key1))
	_, err = ask(a, "app001.key001", twice, basic(key1))
	code(t, err, pubsub.CodeNonceReplayed, 401)
}

func TestATokenThatAsksForATokenGetsNoMoreThanItHas(t *testing.T) {
	a := authenticator(t)
	token := sign(t, "app001.key001", secret1, map[string]any{
		"exp": now.Add(10 * time.Minute).Unix(), "x-ably-clientId": "bob", "x-ably-capability": `{"a":["publish"]}`,
	})
	bearer := "Bearer " + token
	d, err := ask(a, "app001.key001", &auth.TokenRequest{Capability: `{"*":["*"]}`}, bearer)
	if err != nil || d.ClientID != "bob" || d.Capability != `{"a":["publish"]}` || d.Expires-d.Issued != 600_000 {
		t.Errorf("got %+v %v", d, err)
	}
	_, err = ask(a, "app001.key001", &auth.TokenRequest{TTL: "600001"}, bearer)
	code(t, err, pubsub.CodeInvalidParameterValue, 400)
	for _, id := range []string{"eve", "*"} {
		_, err = ask(a, "app001.key001", &auth.TokenRequest{ClientID: id, HasClientID: true}, bearer)
		code(t, err, pubsub.CodeIncompatibleCredential, 401)
	}
	_, err = ask(a, "app001.key001", &auth.TokenRequest{Capability: `{"b":["publish"]}`}, bearer)
	code(t, err, pubsub.CodeCapabilityDenied, 401)

	anonymous := "Bearer " + sign(t, "app001.key001", secret1, nil)
	_, err = ask(a, "app001.key001", &auth.TokenRequest{ClientID: "eve", HasClientID: true}, anonymous)
	code(t, err, pubsub.CodeIncompatibleCredential, 401)
	if d, err := ask(a, "app001.key001", &auth.TokenRequest{}, anonymous); err != nil || d.ClientID != "" {
		t.Errorf("got %+v %v", d, err)
	}
}

func TestATokenOfAPublishedKeyIsForLocalPeersToo(t *testing.T) {
	a := authenticator(t)
	r := request()
	r.KeyName = "app001.local0"
	g, err := a.VouchForToken(r.KeyName, signed(r, "published"), nil, nil)
	if err != nil || !g.LocalOnly {
		t.Fatalf("got %+v %v", g, err)
	}
	d, err := a.IssueToken(t.Context(), g, r)
	if err != nil {
		t.Fatal(err)
	}
	if g, err = a.RealtimeToken(d.Token, ""); err != nil || !g.LocalOnly {
		t.Errorf("got %+v %v", g, err)
	}
}

// RSA9c
func TestOfManyUsesOfOneRequestOneSucceeds(t *testing.T) {
	a, r := authenticator(t), signed(request(), secret1)
	var wg sync.WaitGroup
	var good, replayed atomic.Int32
	for range 50 {
		wg.Go(func() {
			_, err := ask(a, r.KeyName, r, "")
			var e *pubsub.Error
			switch {
			case err == nil:
				good.Add(1)
			case errors.As(err, &e) && e.Code == pubsub.CodeNonceReplayed && e.StatusCode == 401:
				replayed.Add(1)
			}
		})
	}
	wg.Wait()
	if good.Load() != 1 || replayed.Load() != 49 {
		t.Errorf("%d succeeded, %d were replays", good.Load(), replayed.Load())
	}
}

func TestNoncesAreForgottenWhenTheyHaveExpired(t *testing.T) {
	clock := now
	n := auth.NewMemoryNonces(3, func() time.Time { return clock })
	use := func(key, nonce string) (bool, error) { return n.Use(t.Context(), key, nonce, clock.Add(5*time.Minute)) }
	for _, c := range []struct {
		key, nonce string
		fresh      bool
	}{{"a", "1", true}, {"a", "1", false}, {"b", "1", true}, {"a", "2", true}, {"a", "2", false}} {
		if fresh, err := use(c.key, c.nonce); fresh != c.fresh || err != nil {
			t.Errorf("%s %s: %v %v", c.key, c.nonce, fresh, err)
		}
	}
	// Full: nothing is forgotten for the sake of others.
	_, err := use("a", "3")
	code(t, err, pubsub.CodeBusy, 503)
	clock = clock.Add(4 * time.Minute)
	if fresh, err := use("a", "1"); fresh || err != nil {
		t.Errorf("got %v %v", fresh, err)
	}
	clock = clock.Add(2 * time.Minute)
	if fresh, err := use("a", "1"); !fresh || err != nil {
		t.Errorf("got %v %v", fresh, err)
	}
}

// failing is a store of nonces that cannot be reached.
type failing struct{}

func (failing) Use(context.Context, string, string, time.Time) (bool, error) {
	return false, errors.New("no connection")
}

func TestWithoutItsNoncesARequestIsNotAnswered(t *testing.T) {
	a := auth.NewAuthenticator(auth.NewRegistry(newApp(t)), func() time.Time { return now }, auth.WithNonces(failing{}))
	if d, err := ask(a, "app001.key001", signed(request(), secret1), ""); err == nil || pubsub.ErrorFor(err).StatusCode != 500 {
		t.Errorf("got %+v %v", d, err)
	}
}
