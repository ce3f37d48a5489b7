package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/config"
	"letshare-server/internal/metrics"
)

func orders(t *testing.T, directory string, log io.Writer) (*orderedCertificates, *metrics.Metrics) {
	t.Helper()
	c := config.Default(config.Local)
	c.DataDir = t.TempDir()
	c.TLS.ACME = config.ACME{Domains: []string{"a.example", "b.example"}, AcceptTerms: true, Directory: directory}
	m := metrics.New()
	return newOrderedCertificates(c, slog.New(slog.NewTextHandler(log, nil)), m), m
}

// figure is what /metrics says.
func figure(m *metrics.Metrics, name string) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics?format=prometheus", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func TestACertificateThatCannotBeOrderedIsToldOnceAndTriedLessAndLessOften(t *testing.T) {
	const nobody = "https://127.0.0.1:1/directory"
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer // of Run alone
		o, m := orders(t, nobody, &log)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = o.Run(ctx) })
		time.Sleep(31 * time.Minute) // 0, 2, 6, 14 and 30 minutes
		cancel()
		run.Wait()
		if got := figure(m, "letshare_certificate_failures_total"); got != "10" {
			t.Errorf("%s failures of two domains", got)
		}
		if n := strings.Count(log.String(), "not obtained"); n != 2 || !strings.Contains(log.String(), "refused") {
			t.Errorf("%d lines of the log: %s", n, log.String())
		}
		if got := figure(m, "letshare_certificate_not_after_seconds"); got != "0" {
			t.Errorf("a certificate ends at %s", got)
		}
		synctest.Wait()
		time.Sleep(2 * time.Minute) // autocert forgets its failures
	})
}

// Clients can neither wait for the CA nor make the server ask it.
func TestHandshakesNeverOrder(t *testing.T) {
	var asked atomic.Int64
	ca := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer ca.Close()
	o, _ := orders(t, ca.URL, io.Discard)
	o.manager.Client.HTTPClient = ca.Client()
	for _, name := range []string{"", "a.example", "A.example.", "other.example", "a.example.evil", "127.0.0.1", "*"} {
		for _, protocols := range [][]string{{"h2", "http/1.1"}, nil, {"acme-tls/1"}} {
			if cert, err := o.get(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protocols}); err == nil {
				t.Errorf("%q %v: got %v", name, protocols, cert)
			}
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the CA was asked %d times", n)
	}
	if err := o.obtain(t.Context(), "a.example"); err == nil || asked.Load() == 0 {
		t.Errorf("an order: %v, asked %d times", err, asked.Load())
	}
}

func TestDomainsAreReplacedByAReload(t *testing.T) {
	c := config.Default(config.Local)
	c.DataDir = t.TempDir()
	c.TLS.ACME = config.ACME{Domains: []string{"a.example"}, AcceptTerms: true}
	s, err := New(c, config.Secrets{DefaultApp: "app"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.TLS.ACME.Domains = []string{"b.example"}
	if need, err := s.Reload(c, config.Secrets{DefaultApp: "app"}); err != nil || len(need) > 0 {
		t.Error(need, err)
	}
	if s.ordered.allow(t.Context(), "a.example") == nil || s.ordered.allow(t.Context(), "b.example") != nil {
		t.Errorf("the domains are %v", s.ordered.names())
	}
	c.TLS.ACME.Domains = nil
	if need, err := s.Reload(c, config.Secrets{DefaultApp: "app"}); err != nil || len(need) != 1 {
		t.Error(need, err)
	}
}
