package server

import (
	"testing"
	"time"

	"letshare-server/internal/config"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

func TestNamespacesSayHowLongMessagesStay(t *testing.T) {
	const day = 24 * time.Hour
	s := start(t, func(c *config.Config) {
		c.Namespaces = []config.Namespace{
			{ID: "kept", Persisted: true}, {ID: "last", PersistLast: true}, {ID: "both", Persisted: true, PersistLast: true},
		}
	})
	for channel, want := range map[string]engine.Policy{
		"kept":      {Retention: day},
		"last:a":    {Last: 365 * day},
		"both:a":    {Retention: day, Last: 365 * day},
		"none:last": {},
	} {
		if got := s.policy(pubsub.ChannelID{App: "limits", Name: channel}); got != want {
			t.Errorf("%s: got %+v, want %+v", channel, got, want)
		}
	}
	if got := s.policy(pubsub.ChannelID{App: "other", Name: "kept"}); got != (engine.Policy{}) {
		t.Errorf("another app's: %+v", got)
	}
}
