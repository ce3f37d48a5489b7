package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"letshare-server/internal/config"
	"letshare-server/internal/metrics"
)

const (
	// orderCheck is how often it is looked whether a certificate is missing, or was not renewed.
	orderCheck = time.Minute
	// After a failure the next order waits for leastOrderWait, and twice as long each time, since
	// CAs bound how often orders may fail. autocert remembers a failure for a minute.
	leastOrderWait = 2 * time.Minute
	mostOrderWait  = 2 * time.Hour
)

// orderedCertificates are those of a CA that is asked by ACME (RFC 8555). They are ordered by Run
// only, ahead of the clients: no handshake waits for a CA, and none can make the server ask for
// anything.
type orderedCertificates struct {
	manager  *autocert.Manager
	cacheDir string
	log      *slog.Logger
	metrics  *metrics.Metrics
	wake     chan struct{} // a token when the domains may have changed

	// mu guards the fields below. Nothing is called under it.
	mu      sync.RWMutex
	domains []string
	have    map[string]*x509.Certificate // by domain; what was issued when Run last looked
}

func newOrderedCertificates(c config.Config, log *slog.Logger, m *metrics.Metrics) *orderedCertificates {
	o := &orderedCertificates{
		cacheDir: c.ACMEDir(), log: log, metrics: m,
		wake: make(chan struct{}, 1), domains: c.TLS.ACME.Domains, have: make(map[string]*x509.Certificate),
	}
	o.manager = &autocert.Manager{
		Prompt:     autocert.AcceptTOS, // the configuration was checked to say so
		Cache:      autocert.DirCache(o.cacheDir),
		HostPolicy: o.allow,
		Email:      c.TLS.ACME.Email,
		Client:     &acme.Client{DirectoryURL: c.TLS.ACME.Directory, HTTPClient: &http.Client{Timeout: 30 * time.Second}, UserAgent: "letshare-server"},
	}
	if c.TLS.ACME.Directory == "" {
		o.manager.Client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	return o
}

// allow is the HostPolicy. Challenges come with the Host of a request, where a port may follow.
func (o *orderedCertificates) allow(_ context.Context, host string) error {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if !slices.Contains(o.names(), host) {
		return fmt.Errorf("%q is not one of tls.acme.domains", host)
	}
	return nil
}

func (o *orderedCertificates) names() []string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.domains
}

// get is GetCertificate of a tls.Config. Clients that name no domain, as when they connect to an
// address, get the certificate of the first.
func (o *orderedCertificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	o.mu.RLock()
	if name == "" {
		name = o.domains[0]
	}
	known, issued := slices.Contains(o.domains, name), o.have[name] != nil
	o.mu.RUnlock()
	switch {
	case !known:
		return nil, errors.New("no certificate for this name")
	case len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto: // the CA's challenge
		return o.manager.GetCertificate(hello)
	case !issued:
		return nil, errors.New("the certificate has not been issued yet")
	}
	return o.ask(name) // for the newest
}

// ask asks autocert for a domain's certificate, with ECDSA. That is a look into memory if there
// was one before.
func (o *orderedCertificates) ask(name string) (*tls.Certificate, error) {
	return o.manager.GetCertificate(&tls.ClientHelloInfo{ServerName: name, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
}

// reload adopts other domains, and tries soon what has failed.
func (o *orderedCertificates) reload(domains []string) {
	o.mu.Lock()
	o.domains = domains
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// order is how it goes with the certificate of one domain.
type order struct {
	wait   time.Duration // after the next failure
	due    time.Time
	tried  time.Time // and failed; zero if it did not
	failed string    // what went wrong last, and was logged
}

// Run orders what is missing until ctx ends; autocert renews by itself what it has. An order that
// is under way then ends by itself, within minutes: autocert takes no context.
func (o *orderedCertificates) Run(ctx context.Context) error {
	o.checkCache()
	orders := make(map[string]*order)
	check := time.NewTicker(orderCheck)
	defer check.Stop()
	for {
		for _, name := range o.names() {
			one := orders[name]
			if one == nil {
				one = &order{wait: leastOrderWait}
				orders[name] = one
			}
			if time.Now().Before(one.due) {
				continue
			}
			if err := o.obtain(ctx, name); ctx.Err() != nil {
				return nil
			} else if err == nil {
				*one = order{wait: leastOrderWait}
			} else {
				o.metrics.CertificateFailed()
				one.tried = time.Now()
				one.due, one.wait = one.tried.Add(one.wait), min(2*one.wait, mostOrderWait)
				if kind := kindOf(err); kind != one.failed {
					one.failed = kind
					o.log.Error("certificate not obtained or renewed; it will be tried again", "domain", name, "error", err, "next", one.due)
				}
			}
		}
		o.tellEnd()
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
		case <-o.wake:
			for _, one := range orders {
				one.wait, one.due = leastOrderWait, one.tried.Add(leastOrderWait)
			}
		}
	}
}

// obtain makes sure that there is a certificate.
func (o *orderedCertificates) obtain(ctx context.Context, name string) error {
	type answer struct {
		cert *tls.Certificate
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		cert, err := o.ask(name)
		answered <- answer{cert, err}
	}()
	var a answer
	select {
	case <-ctx.Done():
		return ctx.Err()
	case a = <-answered:
	}
	if a.err != nil {
		return a.err
	}
	leaf := a.cert.Leaf
	o.mu.Lock()
	old := o.have[name]
	o.have[name] = leaf
	o.mu.Unlock()
	if old == nil || !old.Equal(leaf) {
		o.log.Info("certificate", "domain", name, "issuer", leaf.Issuer.String(), "not_after", leaf.NotAfter)
	}
	// autocert renews when a third of the time is left, at most 30 days, and does not say when it cannot.
	if left, life := time.Until(leaf.NotAfter), leaf.NotAfter.Sub(leaf.NotBefore); left < min(life/3, 30*24*time.Hour)/2 {
		return errors.New("the certificate should have been renewed, and ends soon")
	}
	return nil
}

// tellEnd notes when the first of the certificates ends.
func (o *orderedCertificates) tellEnd() {
	var first time.Time
	o.mu.RLock()
	for _, name := range o.domains {
		if c := o.have[name]; c != nil && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	o.mu.RUnlock()
	o.metrics.CertificateEnds(first)
}

// checkCache warns if nothing can be kept: each start would then order anew, until the CA refuses.
func (o *orderedCertificates) checkCache() {
	err := os.MkdirAll(o.cacheDir, 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(o.cacheDir, "check"); err == nil {
			_ = f.Close()
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		o.log.Error("certificates cannot be kept; each start will order new ones, which CAs allow a few times a week", "error", err)
	}
}

// kindOf tells failures of one kind from others.
func kindOf(err error) string {
	var problem *acme.Error
	if errors.As(err, &problem) {
		return problem.ProblemType
	}
	var refused *acme.AuthorizationError
	if errors.As(err, &refused) && len(refused.Errors) > 0 && errors.As(refused.Errors[0], &problem) {
		return problem.ProblemType
	}
	return err.Error()
}
