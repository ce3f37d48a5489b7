package sdk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"letshare-server/test/cert"
	"letshare-server/test/cluster"
	"letshare-server/test/source"
)

const (
	key = "sdktst.key001:sdk-tests-secret-of-no-value"

	// patience bounds what runs by itself: building, and all tests of one SDK.
	patience = 10 * time.Minute
)

func TestTheJavaScriptSDKWorksWithTheServer(t *testing.T) {
	t.Parallel()
	testJavaScript(t, startServer)
}

func TestTheJavaScriptSDKWorksWithACluster(t *testing.T) {
	t.Parallel()
	testJavaScript(t, startCluster)
}

func testJavaScript(t *testing.T, start func(*testing.T) *testServer) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("node is missing: install Node.js 20.10 or later (%v)", err)
	}
	checkNodeModules(t, "js")
	tests, err := filepath.Glob("js/*.test.mjs")
	if err != nil || len(tests) == 0 {
		t.Fatalf("no tests in js: %v", err)
	}
	for i := range tests {
		tests[i] = filepath.Base(tests[i])
	}
	server := start(t)
	report := filepath.Join(t.TempDir(), "report.tap")
	args := append([]string{
		"--test", "--test-concurrency=3", "--test-reporter=spec", "--test-reporter-destination=stdout",
		"--test-reporter=tap", "--test-reporter-destination=" + report,
	}, tests...)
	runErr := run(t, "js", append(server.environ(), "NODE_PATH=", "NODE_OPTIONS="), node, args...)
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	ran, skipped := tapCount(t, text, "pass")+tapCount(t, text, "fail"), tapCount(t, text, "skipped")+tapCount(t, text, "todo")
	t.Logf("%d tests ran", ran)
	switch {
	case runErr != nil:
		t.Errorf("node --test: %v", runErr)
	case ran == 0:
		t.Error("no test ran")
	case skipped > 0:
		t.Errorf("%d tests were skipped", skipped)
	}
}

func TestTheGoSDKWorksWithTheServer(t *testing.T) {
	t.Parallel()
	testGo(t, startServer)
}

func TestTheGoSDKWorksWithACluster(t *testing.T) {
	t.Parallel()
	testGo(t, startCluster)
}

func testGo(t *testing.T, start func(*testing.T) *testServer) {
	t.Helper()
	// What was read counts for the cache of test results; the other module's files do not.
	if _, err := os.ReadDir("go"); err != nil {
		t.Fatal(err)
	}
	server := start(t)
	var out bytes.Buffer
	args := []string{"test", "-v", "-count=1"}
	if raceEnabled {
		args = append(args, "-race")
	}
	// Flags that are meant for this module, such as an overlay, are none of the other's.
	environ := append(server.environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	err := runTo(t, &out, "go", environ, "go", append(args, "./...")...)
	ran := len(regexp.MustCompile(`(?m)^\s*--- PASS: `).FindAllIndex(out.Bytes(), -1))
	t.Logf("%d tests ran", ran)
	switch {
	case err != nil:
		t.Errorf("go test in test/sdk/go: %v", err)
	case ran == 0:
		t.Error("no test ran")
	case bytes.Contains(out.Bytes(), []byte("--- SKIP")):
		t.Error("tests were skipped")
	}
}

// tapCount reads one number of the summary at the end of a TAP report.
func tapCount(t *testing.T, report []byte, what string) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^# `+what+` (\d+)$`).FindAllSubmatch(report, -1)
	if m == nil {
		t.Fatalf("the report of node --test has no line \"# %s\": it did not come to its end", what)
	}
	n, _ := strconv.Atoi(string(m[len(m)-1][1]))
	return n
}

// checkNodeModules fails unless exactly what the lock file names is installed.
func checkNodeModules(t *testing.T, dir string) {
	t.Helper()
	wanted := readLock(t, filepath.Join(dir, "package-lock.json"))
	installed := readLock(t, filepath.Join(dir, "node_modules", ".package-lock.json"))
	for path, w := range wanted {
		if path == "" || w.Optional {
			continue
		}
		if installed[path].Version != w.Version {
			t.Fatalf("%s/%s is version %q, and the lock file says %q: run \"make deps\"", dir, path, installed[path].Version, w.Version)
		}
	}
	for path := range installed {
		if _, ok := wanted[path]; !ok {
			t.Fatalf("%s/%s is not in the lock file: run \"make deps\"", dir, path)
		}
	}
}

type lockedPackage struct {
	Version  string
	Optional bool
}

func readLock(t *testing.T, path string) map[string]lockedPackage {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is missing: run \"make deps\"", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	var lock struct{ Packages map[string]lockedPackage }
	if err := json.Unmarshal(b, &lock); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return lock.Packages
}

// testServer is a running server and what its tests have to know.
type testServer struct {
	host, port string
	tlsPort    string
	ca         string   // file of the certificate at tlsPort
	tokens     []string // for LetShare's door

	// The ports of the nodes, comma-separated. Of a cluster port and tlsPort are a balancer's, which
	// gives every connection to another node.
	nodes, tlsNodes string
}

func (s *testServer) environ() []string {
	env := append(os.Environ(),
		"LETSHARE_TEST_HOST="+s.host, "LETSHARE_TEST_PORT="+s.port, "LETSHARE_TEST_KEY="+key,
		"LETSHARE_TEST_TLS_PORT="+s.tlsPort, "LETSHARE_TEST_CA="+s.ca,
		"LETSHARE_TEST_NODE_PORTS="+s.nodes, "LETSHARE_TEST_NODE_TLS_PORTS="+s.tlsNodes, "NODE_EXTRA_CA_CERTS="+s.ca)
	for i, token := range s.tokens {
		env = append(env, fmt.Sprintf("LETSHARE_TEST_TOKEN_%d=%s", i+1, token))
	}
	return env
}

// startCluster runs three nodes behind a balancer.
func startCluster(t *testing.T) *testServer {
	t.Helper()
	s, program, environ := prepare(t)
	// On a busy machine Redis may be late, and the tests do not publish again.
	c := cluster.Start(t, cluster.Options{Program: program, Environ: append(environ, "LETSHARE_REDIS_TIMEOUT=5s")})
	var addrs, tlsAddrs, ports, tlsPorts []string
	for _, n := range c.Nodes {
		addrs, ports = append(addrs, n.Addr), append(ports, portOf(t, n.Addr))
		tlsAddrs, tlsPorts = append(tlsAddrs, n.TLSAddr), append(tlsPorts, portOf(t, n.TLSAddr))
	}
	s.host, s.port, s.tlsPort = "127.0.0.1", portOf(t, cluster.Balance(t, addrs)), portOf(t, cluster.Balance(t, tlsAddrs))
	s.nodes, s.tlsNodes = strings.Join(ports, ","), strings.Join(tlsPorts, ",")
	return s
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatalf("the server listens on %q: %v", address, err)
	}
	return port
}

// prepare builds the program, and returns its settings: they are all, none are of this process's
// environment.
func prepare(t *testing.T) (s *testServer, program string, environ []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := source.Watch("../.."); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program = filepath.Join(dir, "letshare-server")
	build := []string{"build", "-o", program}
	if raceEnabled {
		build = append(build, "-race")
	}
	if out, err := exec.CommandContext(ctx, "go", append(build, "letshare-server/cmd/server")...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	certificate, err := cert.New(1)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := certificate.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	environ = []string{
		"LETSHARE_TLS_PORT=0", "LETSHARE_TLS_CERT_FILE=" + certFile, "LETSHARE_TLS_KEY_FILE=" + keyFile,
		"MODE=local", "LETSHARE_SERVER_HOST=127.0.0.1", "LETSHARE_SERVER_PORT=0", "LETSHARE_API_KEYS=" + key,
		"LETSHARE_SANDBOX_ENABLED=true",
		"LETSHARE_JWT_SECRET=sdk-tests-jwt-secret-of-no-value-at-all", "HOME=" + dir, "PATH=" + os.Getenv("PATH"),
	}
	s = &testServer{ca: certFile}
	for _, user := range []string{"anna", "ben"} {
		cmd := exec.CommandContext(ctx, program, "token", "-user", user)
		cmd.Dir, cmd.Env = dir, environ
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("letshare-server token: %v", err)
		}
		s.tokens = append(s.tokens, strings.TrimSpace(string(out)))
	}
	return s, program, environ
}

// startServer runs the program until the test ends, when it must stop by itself, in a directory
// of its own.
func startServer(t *testing.T) *testServer {
	t.Helper()
	s, program, environ := prepare(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.Command(program)
	cmd.Dir, cmd.Env = filepath.Dir(program), environ
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan [2]string, 1)
	var log bytes.Buffer // to be read when done is closed
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(io.TeeReader(stdout, &log))
		for lines.Scan() {
			var entry struct {
				Msg, Address string
				TLSAddress   string `json:"tls_address"`
			}
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "listening" {
				address <- [2]string{entry.Address, entry.TLSAddress}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("the server did not stop within a minute of SIGTERM")
			_ = cmd.Process.Kill()
			<-done
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s\n%s", tail(log.Bytes()), tail(stderr.Bytes()))
		}
		if bytes.Contains(stderr.Bytes(), []byte("DATA RACE")) {
			t.Errorf("the server has a data race:\n%s", stderr.Bytes())
		}
	})
	select {
	case a := <-address:
		if s.host, s.port, err = net.SplitHostPort(a[0]); err != nil {
			t.Fatalf("the server listens on %q: %v", a, err)
		}
		s.tlsPort = portOf(t, a[1])
		s.nodes, s.tlsNodes = s.port, s.tlsPort
	case <-done:
		t.Fatal("the server ended at once")
	case <-ctx.Done():
		t.Fatal("the server does not listen")
	}
	return s
}

func tail(b []byte) []byte {
	const most = 16 << 10
	return b[max(0, len(b)-most):]
}

func run(t *testing.T, dir string, environ []string, name string, args ...string) error {
	return runTo(t, io.Discard, dir, environ, name, args...)
}

// runTo runs a program in dir; what it says goes to the test's log, line by line, and to w.
func runTo(t *testing.T, w io.Writer, dir string, environ []string, name string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, environ
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdout = io.MultiWriter(w, t.Output())
	cmd.Stderr = cmd.Stdout
	return cmd.Run()
}
