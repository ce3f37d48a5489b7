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

func TestTheBannerSaysWhereTLSIsSpoken(t *testing.T) {
	certFile, keyFile, _ := certify(t, t.TempDir(), 1)
	for _, test := range []struct {
		cert, port  string
		says, never []string
	}{
		{"", "", []string{"tls: false, port: 4711", "ws://localhost:4711", "http://localhost:4711"}, []string{"tlsPort", "wss:", "https:"}},
		{certFile, "", []string{"tlsPort: 4711", "wss://localhost:4711", "https://localhost:4711"}, []string{"tls: false", "ws:", "http:"}},
		{certFile, "0", []string{"tls: false, port: 4711", "ws://localhost:4711", "http://localhost:4711", "tlsPort: <tls>", "wss://localhost:<tls>"}, nil},
	} {
		cfg := config.Default(config.Local)
		cfg.DataDir, cfg.Server.Host, cfg.Server.Port = t.TempDir(), "127.0.0.1", "0"
		if test.cert != "" {
			cfg.TLS = config.TLS{CertFile: test.cert, KeyFile: keyFile, Port: test.port}
		}
		secrets, err := config.ResolveSecrets(cfg, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(cfg, secrets, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Listen()
		if err != nil {
			t.Fatal(err)
		}
		banner := s.Banner(&net.TCPAddr{Port: 4711})
		if _ = l.Close(); s.TLSAddr() != nil {
			_, port, _ := net.SplitHostPort(s.TLSAddr().String())
			banner = strings.ReplaceAll(banner, port, "<tls>")
			_ = s.secure.Close()
		}
		for _, text := range test.says {
			if !strings.Contains(banner, text) {
				t.Errorf("%+v: %q is not in %s", test, text, banner)
			}
		}
		for _, text := range test.never {
			if strings.Contains(banner, " "+text) {
				t.Errorf("%+v: %q is in %s", test, text, banner)
			}
		}
	}
}
