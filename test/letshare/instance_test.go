package letshare_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Secrets of the servers under test, published nowhere but here.
const (
	jwtSecret = "a secret of the acceptance tests only"
	ablyKey   = "testapp.key1:another-secret-of-the-acceptance-tests"
)

// settings is how a server is started.
type settings struct {
	mode    string   // local unless it says otherwise
	env     []string // on top of what every server gets
	without []string // names of variables that every server gets, and this one not
	file    string   // text of the configuration file of the mode
	prepare func(dir string) error
}

// instance is a running server.
type instance struct {
	addr string // host:port
	dir  string // its working directory
	cmd  *exec.Cmd

	signalled sync.Once // a second signal would kill it
	exited    chan struct{}
	waitErr   error

	mu     sync.Mutex
	stdout bytes.Buffer
	stderr bytes.Buffer
}

// start starts a server and stops it with the test, which fails if it does not end well.
func start(t testing.TB, s settings) *instance {
	t.Helper()
	i, err := launch(t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.stop(); err != nil {
			t.Errorf("stopping the server: %v", err)
		}
	})
	return i
}

// launch starts a server in dir and waits until it listens.
func launch(dir string, s settings) (*instance, error) {
	mode := s.mode
	if mode == "" {
		mode = "local"
	}
	if err := os.MkdirAll(filepath.Join(dir, "configs"), 0o755); err != nil {
		return nil, err
	}
	if s.file != "" {
		if err := os.WriteFile(filepath.Join(dir, "configs", mode+".yaml"), []byte(s.file), 0o600); err != nil {
			return nil, err
		}
	}
	if s.prepare != nil {
		if err := s.prepare(dir); err != nil {
			return nil, err
		}
	}
	i := &instance{dir: dir, cmd: exec.Command(program), exited: make(chan struct{})}
	i.cmd.Dir = dir
	for _, v := range []string{
		"LETSHARE_SERVER_HOST=127.0.0.1", "LETSHARE_SERVER_PORT=0", "LETSHARE_JWT_SECRET=" + jwtSecret,
		"LETSHARE_API_KEYS=" + ablyKey, "LETSHARE_SERVER_SHUTDOWN_GRACE=500ms",
	} {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(s.without, name) {
			i.cmd.Env = append(i.cmd.Env, v)
		}
	}
	i.cmd.Env = append(i.cmd.Env, "MODE="+mode, "PATH="+os.Getenv("PATH"), "GORACE=halt_on_error=1")
	i.cmd.Env = append(i.cmd.Env, s.env...)
	// What the server prints is read until it has gone, so that it never waits for us.
	stdout, err := i.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := i.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := i.cmd.Start(); err != nil {
		return nil, fmt.Errorf("the server cannot be started: %w", err)
	}
	listening := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() { i.read(stdout, &i.stdout, listening) })
	reading.Go(func() { i.read(stderr, &i.stderr, nil) })
	go func() {
		reading.Wait()
		i.waitErr = i.cmd.Wait()
		close(i.exited)
	}()
	select {
	case i.addr = <-listening:
		return i, nil
	case <-i.exited:
		return nil, fmt.Errorf("the server ended before it listened: %v\n%s%s", i.waitErr, i.output(), i.errors())
	case <-time.After(patience):
		_ = i.cmd.Process.Kill()
		<-i.exited
		return nil, fmt.Errorf("the server does not listen after %v\n%s%s", patience, i.output(), i.errors())
	}
}

// read copies what the server prints and looks for the address that it listens on.
func (i *instance) read(r io.Reader, into *bytes.Buffer, listening chan<- string) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		i.mu.Lock()
		into.Write(line)
		i.mu.Unlock()
		var entry struct{ Msg, Address string }
		if listening != nil && json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
			listening <- entry.Address
			listening = nil
		}
		if err != nil {
			return
		}
	}
}

// output is what the server has printed to its standard output so far.
func (i *instance) output() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stdout.String()
}

// errors is what the server has printed to its standard error so far.
func (i *instance) errors() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stderr.String()
}

// errorLog is the text of logs/errors.log; empty if it is not there.
func (i *instance) errorLog() string {
	text, _ := os.ReadFile(filepath.Join(i.dir, "logs", "errors.log"))
	return string(text)
}

// stop asks the server to stop and says what is wrong with how it did.
func (i *instance) stop() error {
	select {
	case <-i.exited:
		return i.outcome()
	default:
	}
	i.signal(syscall.SIGTERM)
	select {
	case <-i.exited:
	case <-time.After(patience):
		_ = i.cmd.Process.Kill()
		<-i.exited
		return fmt.Errorf("it does not stop on SIGTERM\n%s", i.errors())
	}
	return i.outcome()
}

// signal asks the server to stop, unless it was asked before.
func (i *instance) signal(s os.Signal) {
	i.signalled.Do(func() { _ = i.cmd.Process.Signal(s) }) // it fails if the server has gone
}

// outcome says what is wrong with how the server ended. It has.
func (i *instance) outcome() error {
	if i.waitErr != nil {
		return fmt.Errorf("%w\n%s", i.waitErr, i.errors())
	}
	if strings.Contains(i.errors(), "DATA RACE") {
		return fmt.Errorf("a data race\n%s", i.errors())
	}
	return nil
}

// reply is an answer to an HTTP request.
type reply struct {
	status int
	header http.Header
	body   string
}

// web has no connection left open, so that no request hangs on one that the server closes.
var web = &http.Client{
	Timeout:   patience,
	Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
}

// request sends an HTTP request. Headers are name, value pairs.
func (i *instance) request(t testing.TB, method, path string, headers ...string) reply {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+i.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(headers); n += 2 {
		r.Header.Set(headers[n], headers[n+1])
	}
	a, err := web.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{a.StatusCode, a.Header, string(body)}
}

// handshake are the headers of a good upgrade request.
var handshake = []string{
	"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
	"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
}

// metrics is the "websocket" part of /metrics.
func (i *instance) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	var all struct{ WebSocket map[string]any }
	if err := json.Unmarshal([]byte(i.request(t, "GET", "/metrics").body), &all); err != nil {
		t.Fatal(err)
	}
	figures := make(map[string]float64)
	for name, v := range all.WebSocket {
		if n, is := v.(float64); is {
			figures[name] = n
		}
	}
	return figures
}

// eventually waits until a condition holds.
func eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// dialTCP opens a plain connection to the server.
func (i *instance) dialTCP(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", i.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	return conn
}
