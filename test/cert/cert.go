// Package cert makes certificates for tests.
package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificate is for localhost and 127.0.0.1, and good for an hour.
type Certificate struct {
	CertPEM, KeyPEM []byte
	Pair            tls.Certificate
	Pool            *x509.CertPool // trusts it
}

// New makes a certificate that is vouched for by itself.
func New(serial int64) (*Certificate, error) { return create(serial, nil) }

// Issue makes a certificate that c vouches for.
func (c *Certificate) Issue(serial int64) (*Certificate, error) { return create(serial, c) }

func create(serial int64, issuer *Certificate) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		BasicConstraintsValid: true, IsCA: issuer == nil,
	}
	parent, signer := template, crypto.PrivateKey(key)
	if issuer != nil {
		template.Subject.CommonName = "test of " + issuer.Pair.Leaf.Subject.CommonName // with the issuer's name it would be its own
		parent, signer = issuer.Pair.Leaf, issuer.Pair.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &Certificate{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		Pool:    x509.NewCertPool(),
	}
	if issuer != nil {
		c.Pool = issuer.Pool
	} else {
		c.Pool.AppendCertsFromPEM(c.CertPEM)
	}
	c.Pair, err = tls.X509KeyPair(c.CertPEM, c.KeyPEM)
	return c, err
}

// Server is the settings of a server that has it.
func (c *Certificate) Server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.Pair}}
}

// Client is the settings of a client that trusts it.
func (c *Certificate) Client() *tls.Config {
	return &tls.Config{RootCAs: c.Pool, ServerName: "localhost"}
}

// Write puts it and its key into files of a directory.
func (c *Certificate) Write(dir string) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err = os.WriteFile(certFile, c.CertPEM, 0o600); err == nil {
		err = os.WriteFile(keyFile, c.KeyPEM, 0o600)
	}
	return certFile, keyFile, err
}
