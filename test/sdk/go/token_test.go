package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ably/ably-go/ably"
)

// RSA8a, TN2
func TestWhoHasTheKeyGetsTokensAndConnectsWithThem(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		name := unique("token")
		details, err := s.rest(t, "").Auth.RequestToken(deadline(t), &ably.TokenParams{
			ClientID: "bob", TTL: 123456, Capability: fmt.Sprintf(`{%q:["subscribe","publish"]}`, name),
		})
		must(t, err)
		if details.ClientID != "bob" || details.Expires-details.Issued != 123456 || details.KeyName == "" ||
			details.Capability != fmt.Sprintf(`{%q:["publish","subscribe"]}`, name) {
			t.Errorf("got %+v", details)
		}
		client := s.connected(t, details.Token)
		if id := client.Auth.ClientID(); id != "bob" {
			t.Errorf("clientId %q", id)
		}
		channel := client.Channels.Get(name)
		messages := subscribe(t, channel)
		must(t, channel.Publish(deadline(t), "a", "b"))
		if m := next(t, messages); m.ClientID != "bob" || m.Data != "b" {
			t.Errorf("got %v", m)
		}
		wantCode(t, client.Channels.Get(unique("other")).Publish(deadline(t), "a", "b"), 40160, 401)

		rest := s.rest(t, details.Token)
		must(t, rest.Channels.Get(name).Publish(deadline(t), "a", "b"))
		wantCode(t, rest.Channels.Get(unique("other")).Publish(deadline(t), "a", "b"), 40160, 401)
	})
}

func TestATokenForAnyClientAndOneForNobody(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		any, err := s.rest(t, "").Auth.RequestToken(deadline(t), &ably.TokenParams{ClientID: "*"})
		must(t, err)
		channel := s.connected(t, any.Token).Channels.Get(unique("any"))
		messages := subscribe(t, channel)
		must(t, channel.PublishMultiple(deadline(t), []*ably.Message{{Name: "a", ClientID: "dora"}}))
		if m := next(t, messages); m.ClientID != "dora" {
			t.Errorf("got %v", m)
		}
		nobody, err := s.rest(t, "").Auth.RequestToken(deadline(t), nil)
		must(t, err)
		if nobody.ClientID != "" || nobody.Expires-nobody.Issued != time.Hour.Milliseconds() || nobody.Capability != `{"*":["*"]}` {
			t.Errorf("got %+v", nobody)
		}
		must(t, s.connected(t, nobody.Token).Channels.Get(unique("anonymous")).Publish(deadline(t), "a", "b"))
	})
}

// RSA9a
func TestAnAuthCallbackGivesRequestsThatItsServerSigned(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		signer := s.rest(t, "")
		var calls atomic.Int32
		callback := ably.WithAuthCallback(func(context.Context, ably.TokenParams) (ably.Tokener, error) {
			life := time.Minute
			if calls.Add(1) == 1 {
				life = shortLife
			}
			return signer.Auth.CreateTokenRequest(&ably.TokenParams{ClientID: "carol", TTL: life.Milliseconds()})
		})
		client, err := ably.NewRealtime(s.options([]ably.ClientOption{callback})...)
		must(t, err)
		connected := await(t, client, ably.ConnectionStateConnected)
		client.Connect()
		connected()
		if id := client.Auth.ClientID(); id != "carol" {
			t.Errorf("clientId %q", id)
		}
		disconnected, again := await(t, client, ably.ConnectionStateDisconnected), await(t, client, ably.ConnectionStateConnected)
		wantCode(t, disconnected().Reason, 40142, 401)
		again()
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls", n)
		}
		closed := await(t, client, ably.ConnectionStateClosed)
		client.Close()
		closed()
	})
}

// RSA9c-d, RSA9g
func TestRequestsForTokensAreRefused(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		signer := s.rest(t, "")
		for _, c := range []struct {
			what   string
			params ably.TokenParams
			code   ably.ErrorCode
			status int
		}{
			{"a year", ably.TokenParams{TTL: 365 * 24 * 3600 * 1000}, 40003, 400},
			{"an old request", ably.TokenParams{Timestamp: time.Now().Add(-30 * time.Minute).UnixMilli()}, 40104, 401},
			{"an unknown operation", ably.TokenParams{Capability: `{"a":["fly"]}`}, 40000, 400},
			{"nothing in common", ably.TokenParams{Capability: `{"[meta]log":["subscribe"]}`}, 40160, 401},
		} {
			_, err := signer.Auth.RequestToken(deadline(t), &c.params)
			if err == nil {
				t.Fatalf("%s: there is a token", c.what)
			}
			wantCode(t, err, c.code, c.status)
		}
	})
}

// app is what POST /apps answers, as far as the SDK's suite reads it.
type app struct {
	AppID string
	Keys  []struct{ ID, Value, Capability string }
}

func TestAnAppIsProvisionedUsedAndDeleted(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		base := fmt.Sprintf("http://%s:%d/apps", s.host, s.port)
		send := func(method, path, key string, body []byte) *http.Response {
			req, err := http.NewRequestWithContext(deadline(t), method, base+path, bytes.NewReader(body))
			must(t, err)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Accept", "application/json")
			if key != "" {
				name, secret, _ := bytes.Cut([]byte(key), []byte(":"))
				req.SetBasicAuth(string(name), string(secret))
			}
			res, err := http.DefaultClient.Do(req)
			must(t, err)
			t.Cleanup(func() { _ = res.Body.Close() })
			return res
		}
		res := send(http.MethodPost, "", "", []byte(`{"keys":[{"capability":"{\"[*]*\":[\"*\"]}"}],"namespaces":[{"id":"persisted","persisted":true}]}`))
		var made app
		must(t, json.NewDecoder(res.Body).Decode(&made))
		if res.StatusCode != http.StatusCreated || len(made.Keys) != 1 || made.Keys[0].Capability != `{"[*]*":["*"]}` {
			t.Fatalf("status %d, %+v", res.StatusCode, made)
		}
		own := s
		own.key = made.AppID + "." + made.Keys[0].ID + ":" + made.Keys[0].Value
		client := own.connected(t, "")
		must(t, client.Channels.Get("persisted:x").Publish(deadline(t), "a", "b"))
		details, err := own.rest(t, "").Auth.RequestToken(deadline(t), nil)
		must(t, err)

		ended := await(t, client, ably.ConnectionStateFailed)
		if res := send(http.MethodDelete, "/"+made.AppID, own.key, nil); res.StatusCode != http.StatusNoContent {
			t.Errorf("deleting: status %d", res.StatusCode)
		}
		if c := ended(); c.Reason == nil || c.Reason.Code != 40120 {
			t.Errorf("the connection ended with %v", c.Reason)
		}
		for _, token := range []string{"", details.Token} {
			wantCode(t, own.rest(t, token).Channels.Get("x").Publish(deadline(t), "a", "b"), 40400, 404)
		}
	})
}
