package redisclient_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

func TestWhoIsNotTrustedIsNotSpokenTo(t *testing.T) {
	t.Parallel()
	sec, others := redistest.NewSecurity(t), redistest.NewSecurity(t)
	s := sec.Start(t)
	good := sec.Options(s.Addr)
	client, err := redisclient.Open(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	for what, to := range map[string]func(*redisclient.Options){
		"another authority": func(o *redisclient.Options) {
			o.TLS = &tls.Config{RootCAs: others.TLS.RootCAs, Certificates: o.TLS.Certificates}
		},
		"another name":     func(o *redisclient.Options) { o.TLS = o.TLS.Clone(); o.TLS.ServerName = "redis.example" },
		"no certificate":   func(o *redisclient.Options) { o.TLS = &tls.Config{RootCAs: o.TLS.RootCAs} },
		"no TLS":           func(o *redisclient.Options) { o.TLS = nil },
		"another password": func(o *redisclient.Options) { o.Password = "another" },
		"the default user": func(o *redisclient.Options) { o.Username, o.Password = "", "" },
		"another's certificate": func(o *redisclient.Options) {
			o.TLS = &tls.Config{RootCAs: o.TLS.RootCAs, Certificates: others.TLS.Certificates}
		},
	} {
		o := good
		to(&o)
		client, err := redisclient.Open(t.Context(), o)
		if err == nil {
			client.Close()
			t.Errorf("%s: it connects", what)
		}
		t.Logf("%s: %v", what, err)
	}
	var unknown x509.UnknownAuthorityError
	o := good
	o.TLS = others.TLS
	if _, err := redisclient.Open(t.Context(), o); !errors.As(err, &unknown) {
		t.Errorf("a certificate of another authority: %v", err)
	}
}

// TestSentinelsAndTheirPrimaryHaveTLSAndPasswords follows a failover, too.
func TestSentinelsAndTheirPrimaryHaveTLSAndPasswords(t *testing.T) {
	t.Parallel()
	sec := redistest.NewSecurity(t)
	s := sec.StartSentinels(t)
	o := sec.Options(s.Addresses()...)
	o.MasterName = redistest.MasterName
	client, err := redisclient.Open(t.Context(), o)
	if err == nil {
		client.Close()
		t.Fatal("Sentinels are asked without their password")
	}
	t.Log(err)
	o.SentinelPassword = redistest.SentinelPassword
	if client, err = redisclient.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	old := s.Primary()
	old.Kill()
	s.WaitPrimary(old)
	for failed := 0; ; failed++ {
		if err = client.Do(t.Context(), client.B().Set().Key("k").Value("v").Build()).Error(); err == nil {
			break
		}
		if !redisclient.Pause(t.Context(), failed) || failed == 200 {
			t.Fatalf("the new primary: %v", err)
		}
	}
}
