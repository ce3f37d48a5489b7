package hub_test

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// claiming is the grant of a JWT whose issuer says something of its client.
func claiming(t testing.TB, claims jwt.MapClaims) *auth.Grant {
	t.Helper()
	app, err := auth.NewApp("app", []auth.Key{{ID: "key", Secret: "secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims["iat"], claims["exp"], claims["x-ably-clientId"] = time.Now().Unix(), time.Now().Add(time.Hour).Unix(), "bob"
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = "app.key"
	text, err := token.SignedString([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := auth.NewAuthenticator(auth.NewRegistry(app), nil).RealtimeToken(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestAMessageSaysWhatTheIssuerSaysOfItsPublisher(t *testing.T) {
	bob := claiming(t, jwt.MapClaims{"ably.channel.room": `a "friend" <x>`})
	for _, c := range []struct{ channel, extras, want string }{
		{"room", "", `{"userClaim":"a \"friend\" \u003cx\u003e"}`},
		{"room", "{}", `{"userClaim":"a \"friend\" \u003cx\u003e"}`},
		{"room", " { } ", `{"userClaim":"a \"friend\" \u003cx\u003e"}`},
		{"room", "null", `{"userClaim":"a \"friend\" \u003cx\u003e"}`},
		{"room", `{"headers":{"a":"}"}, "ref":{"b":1} }`, `{"headers":{"a":"}"}, "ref":{"b":1},"userClaim":"a \"friend\" \u003cx\u003e"}`},
		{"other", `{"headers":{}}`, `{"headers":{}}`},
		{"other", "", ""},
	} {
		h := newHub(t)
		var turn hub.Turn
		publish(t, h, &turn, hub.Publish{Grant: bob, Channel: name(c.channel), Messages: []*pubsub.Message{{Extras: []byte(c.extras)}, {Name: "second"}}})
		turn.End()
		page, err := h.Messages(t.Context(), &hub.History{Grant: anyone, Channel: name(c.channel), Limit: 10, Forwards: true})
		if err != nil || len(page.Messages) != 2 {
			t.Fatalf("%v %v", page, err)
		}
		if got := string(page.Messages[0].Extras); got != c.want {
			t.Errorf("%s with %q: got %s, want %s", c.channel, c.extras, got, c.want)
		}
		if second := page.Messages[1].Extras; (len(second) > 0) != (c.channel == "room") {
			t.Errorf("the second message: %s", second)
		}
	}
}

func TestAMemberSaysWhatTheIssuerSaysOfItsClient(t *testing.T) {
	h := newHub(t)
	bob := claiming(t, jwt.MapClaims{"ably.channel.*": "friend"})
	extras := func() string {
		t.Helper()
		return string(members(t, h, hub.Members{}).Members[0].Extras)
	}
	as := func(p *hub.Presence) *hub.Presence { p.Grant = bob; return p }
	m := enter("bob", "1")
	m.Extras = []byte(`{"locks":[]}`)
	do(t, h, as(request("conn", 0, m)))
	if got := extras(); got != `{"locks":[],"userClaim":"friend"}` {
		t.Errorf("entered: %s", got)
	}
	// A re-entry with what is known keeps it (RTP17g).
	again := enter("bob", "1")
	again.ID = "conn:0:0"
	p := as(request("conn", 1, again))
	p.Returned = true
	do(t, h, p)
	if got := extras(); got != `{"locks":[],"userClaim":"friend"}` {
		t.Errorf("entered again: %s", got)
	}
	do(t, h, as(request("conn", 2, update("bob", "2"))))
	if got := extras(); got != `{"userClaim":"friend"}` {
		t.Errorf("updated: %s", got)
	}
	forged := update("bob", "3")
	forged.Extras = []byte(`{"userClaim":"root"}`)
	if err := try(t, h, as(request("conn", 3, forged))); err == nil || pubsub.ErrorFor(err).Code != pubsub.CodeInvalidExtras {
		t.Errorf("a claim of one's own: %v", err)
	}
	w := watch(t, h, hub.Attach{})
	do(t, h, as(request("conn", 4, leave("bob", ""))))
	if left := w.events(t); len(left) != 1 || string(left[0].Extras) != `{"userClaim":"friend"}` {
		t.Errorf("left: %v", left)
	}
}
