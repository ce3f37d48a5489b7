package auth_test

import (
	"net/http"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

func TestTheMostSpecificUserClaimCounts(t *testing.T) {
	a := newClocked(t, tokenSecret)
	claims := object{
		"ably.channel.*":            "all",
		"ably.channel.chat:*":       "chats",
		"ably.channel.chat:*:vip":   "any vip",
		"ably.channel.chat:one":     "one",
		"ably.channel.[meta]*":      "meta",
		"ably.channel.tagged":       "the channel",
		"ably.room.my-room":         "the room",
		"ably.room.dms:*":           "dms",
		"ably.limits.publish.other": 7, // none of them
		"ably.channelx":             7,
	}
	jwt := sign(t, "app001.key001", secret1, claims)
	d, err := ask(a.Authenticator, "app001.key001", &auth.TokenRequest{}, "Bearer "+jwt)
	if err != nil {
		t.Fatal(err)
	}
	for kind, token := range map[string]string{"JWT": jwt, "Ably token made with it": d.Token} {
		g, err := a.REST(nil, http.Header{"Authorization": {"Bearer " + token}})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"x":                         "all",
			"chat":                      "all",
			"chat:two":                  "chats",
			"chat:one":                  "one",
			"chat:two:vip":              "any vip",
			"chat:two:guest":            "chats",
			"my-room":                   "all",
			"my-room::$chat":            "the room",
			"my-room::$chat::$messages": "the room",
			"dms:a::$chat":              "dms",
			"tagged::$space":            "the channel",
			"other::$chat":              "all",
			"[meta]x":                   "meta",
			"[queue]x":                  "",
		} {
			if got, ok := g.UserClaim(name); got != want || ok != (want != "") {
				t.Errorf("%s, %s: got %q, want %q", kind, name, got, want)
			}
		}
	}
	for _, token := range []string{sign(t, "app001.key001", secret1, nil), mint(t, a.Authenticator, nil)} {
		g, err := a.RealtimeToken(token, "")
		if err != nil {
			t.Fatal(err)
		}
		if claim, ok := g.UserClaim("x"); ok {
			t.Errorf("without claims: got %q", claim)
		}
	}
}

func TestUserClaimsAreBoundedTexts(t *testing.T) {
	a := newClocked(t, tokenSecret)
	for name, claims := range map[string]object{
		"a number":   {"ably.channel.x": 7},
		"an object":  {"ably.room.x": object{}},
		"no channel": {"ably.channel.": "x"},
		"no room":    {"ably.room.": "x"},
		"too long":   {"ably.channel.x": strings.Repeat("x", 4096)},
		"too long a name": {"ably.channel." + strings.Repeat("x", 2000): strings.Repeat("x", 1000),
			"ably.channel." + strings.Repeat("y", 2000): ""},
	} {
		_, err := a.RealtimeToken(sign(t, "app001.key001", secret1, claims), "")
		if text := code(t, err, pubsub.CodeBadRequest, 400); len(text) > 300 {
			t.Errorf("%s: %q", name, text)
		}
	}
	if _, err := a.RealtimeToken(sign(t, "app001.key001", secret1, object{"ably.channel.x": strings.Repeat("x", 4000)}), ""); err != nil {
		t.Error(err)
	}
}
