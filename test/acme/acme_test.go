package acme

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"letshare-server/test/cert"
	"letshare-server/test/host"
	"letshare-server/test/source"
)

// patience bounds what runs by itself.
const patience = 2 * time.Minute

// programs builds the server and Pebble once.
var programs = sync.OnceValues(func() (dir string, err error) {
	if err := source.Watch("../.."); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "acme"); err != nil {
		return "", err
	}
	for pkg, at := range map[string]string{
		"letshare-server/cmd/server":                               ".",
		"github.com/letsencrypt/pebble/v2/cmd/pebble":              "pebble",
		"github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv": "pebble",
	} {
		args := []string{"build", "-o", filepath.Join(dir, filepath.Base(pkg))}
		if raceEnabled && at == "." {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, pkg)...)
		cmd.Dir, cmd.Env = at, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := programs(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// ports that nothing else uses.
func ports(t *testing.T, n int) []string {
	t.Helper()
	list := make([]string, n)
	for i := range list {
		list[i] = strconv.Itoa(host.FreePort(t))
	}
	return list
}

// process is a program that runs until it is stopped, at the latest by the end of the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	stop func()

	mu   sync.Mutex
	said bytes.Buffer
}

func start(t *testing.T, dir string, environ []string, name string, args ...string) *process {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(filepath.Join(bin, name), args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, append([]string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}, environ...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.said, lines.Text())
			p.mu.Unlock()
		}
	}()
	p.stop = sync.OnceFunc(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(time.Minute):
			t.Errorf("%s did not stop", name)
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		_ = p.cmd.Wait() // Pebble knows no good end
		if strings.Contains(p.text(), "DATA RACE") {
			t.Errorf("%s has a data race", name)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.text())
		}
	})
	t.Cleanup(p.stop)
	return p
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// await waits until try returns no error.
func await(t *testing.T, what string, try func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}

// authority is a Pebble with a DNS server that says that all names are here.
type authority struct {
	*process
	directory string
	trust     string // file of who vouches for its API
	roots     *x509.CertPool
}

// startAuthority starts one that looks for challenges at two ports, and issues for so long.
func startAuthority(t *testing.T, http01, tlsALPN01 string, life time.Duration) *authority {
	t.Helper()
	dir := t.TempDir()
	c, err := cert.New(1)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := c.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	free := ports(t, 4)
	api, management, dns, dnsManagement := free[0], free[1], free[2], free[3]
	config := fmt.Sprintf(`{"pebble":{"listenAddress":"127.0.0.1:%s","managementListenAddress":"127.0.0.1:%s","certificate":%q,"privateKey":%q,
		"httpPort":%s,"tlsPort":%s,"ocspResponderURL":"","externalAccountBindingRequired":false,"retryAfter":{"authz":1,"order":1},
		"profiles":{"default":{"description":"the only one","validityPeriod":%d}}}}`,
		api, management, certFile, keyFile, http01, tlsALPN01, int(life.Seconds()))
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, dir, nil, "pebble-challtestsrv", "-http01", "", "-https01", "", "-doh", "", "-tlsalpn01", "", "-defaultIPv6", "",
		"-dnsserver", "127.0.0.1:"+dns, "-management", "127.0.0.1:"+dnsManagement)
	a := &authority{directory: "https://localhost:" + api + "/dir", trust: certFile}
	a.process = start(t, dir, []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"},
		"pebble", "-config", file, "-dnsserver", "127.0.0.1:"+dns)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.Client()}, Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	await(t, "Pebble", func() error {
		res, err := client.Get("https://localhost:" + management + "/roots/0")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		pem, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		a.roots = x509.NewCertPool()
		if !a.roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("no root in %q", pem)
		}
		return nil
	})
	return a
}

// orders is how many orders the authority has got.
func (a *authority) orders() int { return strings.Count(a.text(), "POST /order-plz") }

// server is the one of this repository.
type server struct {
	*process
	dir, config string
	plain, tls  string // ports
	a           *authority
}

func newServer(t *testing.T, a *authority, plain, tls string) *server {
	dir := t.TempDir()
	return &server{dir: dir, config: filepath.Join(dir, "config.yaml"), plain: plain, tls: tls, a: a}
}

// configure says which certificates it orders.
func (s *server) configure(t *testing.T, domains ...string) {
	t.Helper()
	list, _ := json.Marshal(domains) // which is YAML, too
	text := fmt.Sprintf("server: {host: 127.0.0.1, port: %q}\ntls: {port: %q, acme: {domains: %s, accept_terms: true, directory: %q, email: ops@a.example}}\n",
		s.plain, s.tls, list, s.a.directory)
	if s.plain == "" {
		text = strings.Replace(strings.Replace(text, `port: ""`, fmt.Sprintf("port: %q", s.tls), 1), fmt.Sprintf("tls: {port: %q, ", s.tls), "tls: {", 1)
	}
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *server) start(t *testing.T) {
	t.Helper()
	s.process = start(t, s.dir, []string{"MODE=local", "SSL_CERT_FILE=" + s.a.trust}, "server", "-config", s.config)
}

// certificate does a handshake with a name, and returns what the server has for it.
func (s *server) certificate(name string) (*x509.Certificate, error) {
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: s.a.roots}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", "127.0.0.1:"+s.tls)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

func (s *server) awaitCertificate(t *testing.T, name string, good func(*x509.Certificate) bool) (c *x509.Certificate) {
	t.Helper()
	await(t, "a certificate for "+name, func() (err error) {
		if c, err = s.certificate(name); err == nil && !good(c) {
			err = fmt.Errorf("it has %v, ending %v", c.SerialNumber, c.NotAfter)
		}
		return err
	})
	return c
}

func whichever(*x509.Certificate) bool { return true }

// By TLS-ALPN-01, on a listener that speaks nothing but TLS.
func TestACertificateIsOrderedRenewedAndJoinedByOthers(t *testing.T) {
	t.Parallel()
	free := ports(t, 2)
	s := newServer(t, startAuthority(t, free[1], free[0], 9*time.Second), "", free[0])
	s.configure(t, "a.example")
	s.start(t)
	first := s.awaitCertificate(t, "a.example", whichever)
	s.configure(t, "a.example", "b.example")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if c := s.awaitCertificate(t, "b.example", whichever); len(c.DNSNames) != 1 || c.DNSNames[0] != "b.example" {
		t.Errorf("it is for %v", c.DNSNames)
	}
	s.awaitCertificate(t, "a.example", func(c *x509.Certificate) bool { return c.SerialNumber.Cmp(first.SerialNumber) != 0 })
}

// By HTTP-01, on the listener without TLS, because where the CA looks for TLS there is nobody.
func TestAStartTakesTheCertificateThatIsKept(t *testing.T) {
	t.Parallel()
	free := ports(t, 3)
	a := startAuthority(t, free[0], free[2], time.Hour)
	s := newServer(t, a, free[0], free[1])
	s.configure(t, "a.example")
	s.start(t)
	first := s.awaitCertificate(t, "a.example", whichever)
	orders := a.orders()
	for _, name := range []string{"b.example", "a.example.b.example", "localhost"} {
		if c, err := s.certificate(name); err == nil {
			t.Errorf("for %q there is a certificate of %v", name, c.DNSNames)
		}
	}
	if n := a.orders(); n != orders || orders == 0 {
		t.Errorf("%d orders, then %d", orders, n)
	}
	for name, want := range map[string]int{"a.example": http.StatusNotFound, "b.example": http.StatusForbidden} {
		r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+s.plain+"/.well-known/acme-challenge/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = name
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = res.Body.Close(); res.StatusCode != want {
			t.Errorf("a challenge for %s: %s", name, res.Status)
		}
	}
	s.stop()
	a.stop()
	s.start(t)
	if c := s.awaitCertificate(t, "a.example", whichever); c.SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("another certificate, of a CA that is not there")
	}
	kept, err := filepath.Glob(filepath.Join(s.dir, "data", "acme", "*"))
	if err != nil || len(kept) != 2 { // the account's key and the certificate
		t.Errorf("kept: %v %v", kept, err)
	}
	for _, file := range kept {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", file, info.Mode(), err)
		}
	}
}
