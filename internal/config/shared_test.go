package config_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"letshare-server/internal/config"
)

// differing are the settings that differ.
func differing(a, b map[string]string) (names []string) {
	for name, value := range a {
		if b[name] != value {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestSettingsThatNodesShare(t *testing.T) {
	started := config.Default(config.Production)
	secrets := config.Secrets{
		JWTSecret: "jwt", TokenSecret: "token", DefaultApp: "app", AdminTokens: []config.AdminToken{{Secret: "one"}, {Secret: "two"}},
		Keys: []config.Key{{App: "app", ID: "a", Secret: "1"}, {App: "app", ID: "b", Secret: "2"}, {App: "more", ID: "c", Secret: "3"}},
	}
	before := config.Shared(started, started, secrets)
	for _, name := range slices.Collect(maps.Keys(before)) {
		for _, own := range []string{"server.", "log.", "redis.", "storage.", "tls.", "data_dir"} {
			if strings.HasPrefix(name, own) {
				t.Errorf("%s is each node's own", name)
			}
		}
	}
	for _, c := range []struct {
		what   string
		change func(started, loaded *config.Config, s *config.Secrets)
		want   []string
	}{
		{"nothing", func(_, _ *config.Config, _ *config.Secrets) {}, nil},
		{"what is each node's own", func(a, b *config.Config, _ *config.Secrets) {
			a.Server.Port, b.Log.Level, a.Redis.Addresses, a.TLS.Port, b.Limits.LogBytes = "1", "debug", []string{"x"}, "2", 7
		}, nil},
		{"another order", func(_, _ *config.Config, s *config.Secrets) {
			slices.Reverse(s.Keys)
			slices.Reverse(s.AdminTokens)
		}, nil},
		{"a limit", func(_, b *config.Config, _ *config.Secrets) { b.Limits.AppConnections = 7 }, []string{"limits.app_connections"}},
		{"a limit that takes a restart", func(_, b *config.Config, _ *config.Secrets) { b.Limits.MaxFrameBytes = 7 }, nil},
		{"the same after it", func(a, _ *config.Config, _ *config.Secrets) { a.Limits.MaxFrameBytes = 7 }, []string{"limits.max_frame_bytes"}},
		{"the size of rooms", func(a, _ *config.Config, _ *config.Secrets) { a.WebSocket.MaxRoomUsers = 7 }, []string{"websocket.max_room_users"}},
		{"a rule", func(_, b *config.Config, _ *config.Secrets) {
			b.Namespaces = []config.Namespace{{ID: "n", Persisted: true}}
		}, []string{"namespaces"}},
		{"a rule of another app", func(_, b *config.Config, _ *config.Secrets) {
			b.Apps = []config.App{{ID: "more", Namespaces: []config.Namespace{{ID: "n"}}}}
		}, []string{"apps"}},
		{"the mode", func(a, _ *config.Config, _ *config.Secrets) { a.Mode = config.Local }, []string{"MODE"}},
		{"a secret", func(_, _ *config.Config, s *config.Secrets) { s.JWTSecret = "another" }, []string{"jwt.secret"}},
		{"the secret of tokens", func(_, _ *config.Config, s *config.Secrets) { s.TokenSecret = "another" }, []string{"ably.token_secret"}},
		{"the secret of a key", func(_, _ *config.Config, s *config.Secrets) { s.Keys[1].Secret = "another" }, []string{"api_keys"}},
		{"whether it is revocable", func(_, _ *config.Config, s *config.Secrets) { s.Keys[1].Revocable = true }, []string{"api_keys"}},
		{"the capability of another app's", func(_, _ *config.Config, s *config.Secrets) { s.Keys[2].Capability = "{}" }, []string{"apps"}},
		{"an access token", func(_, _ *config.Config, s *config.Secrets) { s.AdminTokens = s.AdminTokens[:1] }, []string{"admin.tokens"}},
	} {
		a, b, s := started, started, secrets
		s.Keys, s.AdminTokens = slices.Clone(s.Keys), slices.Clone(s.AdminTokens)
		c.change(&a, &b, &s)
		if got := differing(before, config.Shared(a, b, s)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q differ, want %q", c.what, got, c.want)
		}
	}
}
