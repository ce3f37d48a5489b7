package server

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

func TestTheBannerQuotesPublishedCredentialsOnly(t *testing.T) {
	const own = "a-secret-of-my-own-that-nobody-knows"
	for _, c := range []struct {
		what  string
		mode  config.Mode
		keys  []config.Secret
		jwt   config.Secret
		says  []string
		never []string
	}{
		{"nothing configured", config.Local, nil, "", []string{auth.LocalKey, "eyJ", "4711"}, nil},
		{"own credentials", config.Local, []config.Secret{"mine01.key001:" + own}, own, []string{"mine01.key001", "4711"}, []string{own, "eyJ", auth.LocalKey}},
		{"production", config.Production, []config.Secret{"mine01.key001:" + own}, own, nil, []string{"mine01", own, "eyJ"}},
	} {
		cfg := config.Default(c.mode)
		cfg.DataDir = t.TempDir()
		cfg.APIKeys = c.keys
		if c.jwt != "" {
			cfg.JWT.Secret = c.jwt
		}
		secrets, err := config.ResolveSecrets(cfg, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(cfg, secrets, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		banner := s.Banner(&net.TCPAddr{Port: 4711})
		for _, text := range c.says {
			if !strings.Contains(banner, text) {
				t.Errorf("%s: %q is not in %s", c.what, text, banner)
			}
		}
		for _, text := range c.never {
			if strings.Contains(banner, text) {
				t.Errorf("%s: %q is in %s", c.what, text, banner)
			}
		}
	}
}
