package redistest

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"letshare-server/internal/redisclient"
	"letshare-server/test/cert"
)

// Who may use servers with a Security. Others may not: there is no default user.
const (
	User             = "node"
	Password         = "redistest-password-of-no-value"
	SentinelPassword = "redistest-sentinel-password-of-no-value"
)

// Security is TLS on all connections, of servers to each other too, with a certificate wanted of
// clients, and a user with a password.
type Security struct {
	TLS *tls.Config // of a client that is let in, if it gives the password

	CAFile, CertFile, KeyFile string // the same as files
}

// NewSecurity makes an authority and a certificate of it, for servers and clients.
func NewSecurity(t testing.TB) *Security {
	t.Helper()
	ca, err := cert.New(1)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.Issue(2)
	if err != nil {
		t.Fatal(err)
	}
	s := &Security{TLS: &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{own.Pair}, MinVersion: tls.VersionTLS12}}
	caDir, dir := t.TempDir(), t.TempDir()
	if s.CAFile, _, err = ca.Write(caDir); err != nil {
		t.Fatal(err)
	}
	if s.CertFile, s.KeyFile, err = own.Write(dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// Start is the function Start for a server with TLS and the user.
func (s *Security) Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	return start(t, s, settings)
}

// StartCluster is the function StartCluster for such servers.
func (s *Security) StartCluster(t testing.TB, shards int, settings ...string) *Cluster {
	t.Helper()
	return startCluster(t, s, shards, settings)
}

// StartSentinels is the function StartSentinels for such servers. Sentinels have TLS too, and
// SentinelPassword.
func (s *Security) StartSentinels(t testing.TB, settings ...string) *Sentinels {
	t.Helper()
	return startSentinels(t, s, settings)
}

// Options are those of a client that is let in.
func (s *Security) Options(addresses ...string) redisclient.Options {
	return redisclient.Options{Addresses: addresses, TLS: s.TLS, Username: User, Password: Password}
}

// files are settings that servers and Sentinels have in common.
func (s *Security) files() [][2]string {
	return [][2]string{
		{"tls-cert-file", s.CertFile}, {"tls-key-file", s.KeyFile}, {"tls-ca-cert-file", s.CAFile},
		{"tls-auth-clients", "yes"}, {"tls-replication", "yes"},
	}
}

// server is the arguments of a server that listens on a port.
func (s *Security) server(port int) []string {
	if s == nil {
		return []string{"--port", strconv.Itoa(port)}
	}
	args := []string{"--port", "0", "--tls-port", strconv.Itoa(port), "--tls-cluster", "yes"}
	for _, f := range s.files() {
		args = append(args, "--"+f[0], f[1])
	}
	return append(args, "--user", User, "on", ">"+Password, "~*", "&*", "+@all", "--user", "default", "off",
		"--masteruser", User, "--masterauth", Password)
}

// sentinel is the first lines of a Sentinel's configuration, and sentinelAuth the last.
func (s *Security) sentinel(port int) string {
	if s == nil {
		return fmt.Sprintf("port %d\n", port)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "port 0\ntls-port %d\nrequirepass %s\n", port, SentinelPassword)
	for _, f := range s.files() {
		fmt.Fprintf(&b, "%s %s\n", f[0], f[1])
	}
	return b.String()
}

func (s *Security) sentinelAuth() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("sentinel auth-user %s %s\nsentinel auth-pass %s %s\n", MasterName, User, MasterName, Password)
}

// cli is the first arguments of redis-cli.
func (s *Security) cli() []string {
	if s == nil {
		return nil
	}
	return []string{"--tls", "--cacert", s.CAFile, "--cert", s.CertFile, "--key", s.KeyFile, "--user", User, "--pass", Password, "--no-auth-warning"}
}
