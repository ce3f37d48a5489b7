package auth_test

import (
	"net/http"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

func TestTheMostSpecificPublishRateCounts(t *testing.T) {
	a := newClocked(t, tokenSecret)
	const claim = "ably.limits.publish.perAttachment.maxRate."
	jwt := sign(t, "app001.key001", secret1, object{
		claim + "*": 10, claim + "chat:*": 0.1, claim + "chat:one": 0, claim + "chat:*:vip": 2.5, claim + "[meta]*": 7,
		claim + "tiny": 1e-9, claim + "huge": 1e300,
		"ably.limits.publish.perAttachment": 1, "ably.limits.publish.perChannel.maxRate.*": 2, // none of them
	})
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
			"x": "10", "x:y": "10", "chat": "10", "chat:two": "0.1", "chat:one": "0", "chat:two:vip": "2.5", "[meta]log": "7", "[queue]x": "none",
			"tiny": "0.001", "huge": "1000000",
		} {
			got := "none"
			if rate, ok := g.PublishRate(name); ok {
				got = rate.String()
			}
			if got != want {
				t.Errorf("%s, %s: got %s, want %s", kind, name, got, want)
			}
		}
	}
	for _, token := range []string{sign(t, "app001.key001", secret1, nil), mint(t, a.Authenticator, nil)} {
		g, err := a.RealtimeToken(token, "")
		if err != nil {
			t.Fatal(err)
		}
		if rate, ok := g.PublishRate("x"); ok {
			t.Errorf("without claims: got %v", rate)
		}
	}
}

func TestPublishRatesAreNumbersForChannels(t *testing.T) {
	a := newClocked(t, tokenSecret)
	const claim = "ably.limits.publish.perAttachment.maxRate."
	for name, claims := range map[string]object{
		"a text":     {claim + "*": "10"},
		"negative":   {claim + "*": -1},
		"null":       {claim + "*": object{}},
		"no channel": {claim: 10},
		"too long":   {claim + strings.Repeat("x", 2100): 1, claim + strings.Repeat("y", 2100): 1},
	} {
		_, err := a.RealtimeToken(sign(t, "app001.key001", secret1, claims), "")
		if text := code(t, err, pubsub.CodeBadRequest, 400); len(text) > 300 {
			t.Errorf("%s: a text of %d bytes", name, len(text))
		}
	}
}
