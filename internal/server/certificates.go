package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/metrics"
)

// certificateCheck is how often the certificate's files are looked at, at most.
const certificateCheck = 2 * time.Second

// certificates is the certificate of the listener. When its files change the next handshakes
// use the new one; while what they hold is no certificate with its key, the one before.
type certificates struct {
	certFile, keyFile string
	log               *slog.Logger
	metrics           *metrics.Metrics
	current           atomic.Pointer[tls.Certificate]
	looked            atomic.Int64 // ns since the epoch; when the files were last looked at

	// mu guards the field below, and the reading of the files. No other lock is taken under it.
	mu   sync.Mutex
	seen [2]stamp // of the files as they were last read, good or bad
}

// stamp tells a file from what it was before.
type stamp struct {
	modified time.Time
	bytes    int64
}

// newCertificates reads the files; they must be good.
func newCertificates(certFile, keyFile string, log *slog.Logger, m *metrics.Metrics) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, log: log, metrics: m}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.readLocked(); err != nil {
		return nil, err
	}
	return c, nil
}

// get is GetCertificate of a tls.Config. It looks for a new certificate now and then; other
// handshakes do not wait for that.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now, looked := time.Now().UnixNano(), c.looked.Load()
	if now-looked >= int64(certificateCheck) && c.looked.CompareAndSwap(looked, now) {
		c.mu.Lock()
		if c.stamps() != c.seen {
			c.adoptLocked()
		}
		c.mu.Unlock()
	}
	return c.current.Load(), nil
}

// reload reads the files whether they look changed or not.
func (c *certificates) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adoptLocked()
}

func (c *certificates) adoptLocked() {
	if err := c.readLocked(); err != nil {
		c.metrics.CertificateFailed()
		c.log.Error("certificate not reloaded; the one before stays in use", "error", err)
	}
}

func (c *certificates) readLocked() error {
	c.seen = c.stamps() // before the reading, so that a change during it is seen later
	c.looked.Store(time.Now().UnixNano())
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("tls.cert_file and tls.key_file: %w", err)
	}
	c.current.Store(&pair)
	c.metrics.CertificateEnds(pair.Leaf.NotAfter)
	c.log.Info("certificate read", "names", pair.Leaf.DNSNames, "not_after", pair.Leaf.NotAfter)
	if time.Now().After(pair.Leaf.NotAfter) {
		c.log.Warn("the certificate has expired", "not_after", pair.Leaf.NotAfter)
	}
	return nil
}

func (c *certificates) stamps() (s [2]stamp) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}
