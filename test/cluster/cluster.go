package cluster

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"letshare-server/internal/redisclient/redistest"
	"letshare-server/test/host"
)

// Patience bounds every wait for something that must happen. All is well long before.
const Patience = time.Minute

// Secrets of the nodes under test, published nowhere but here.
const (
	Key       = "clustr.key001:cluster-tests-secret-of-no-value"
	JWTSecret = "cluster-tests-jwt-secret-of-no-value-at-all"
)

// Options say what a Cluster is to be like.
type Options struct {
	Program string             // path of the server's binary
	Nodes   int                // zero means 3
	Redis   *redistest.Server  // nil: one is started
	Address func(i int) string // of Redis for the i-th node; nil: that of the server
	Environ []string           // settings of all nodes, as LETSHARE_…=value
	File    string             // text of their configuration file
}

// Cluster is nodes that share a Redis. They end with the test, which fails if they do not end
// well.
type Cluster struct {
	Redis *redistest.Server
	Nodes []*Node
}

// Start starts Redis and the nodes, and waits until they are ready.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	c := &Cluster{Redis: o.Redis}
	if c.Redis == nil {
		c.Redis = redistest.Start(t)
	}
	if o.Address == nil {
		o.Address = func(int) string { return c.Redis.Addr }
	}
	for i := range o.Nodes {
		n := &Node{t: t, name: fmt.Sprint("node ", i), program: o.Program, dir: t.TempDir()}
		config := filepath.Join(n.dir, "config.yaml")
		if err := os.WriteFile(config, []byte(o.File), 0o600); err != nil {
			t.Fatal(err)
		}
		n.args = []string{"serve", "-config", config}
		n.environ = append([]string{
			"MODE=production", "LETSHARE_SERVER_HOST=127.0.0.1", "LETSHARE_API_KEYS=" + Key, "LETSHARE_JWT_SECRET=" + JWTSecret,
			"LETSHARE_SERVER_SHUTDOWN_GRACE=500ms", "LETSHARE_REDIS_ADDRESSES=" + o.Address(i),
			"HOME=" + n.dir, "PATH=" + os.Getenv("PATH"),
		}, o.Environ...)
		n.Addr = n.listen("LETSHARE_SERVER_PORT")
		if slices.ContainsFunc(o.Environ, func(v string) bool { return strings.HasPrefix(v, "LETSHARE_TLS_CERT_FILE=") }) {
			n.TLSAddr = n.listen("LETSHARE_TLS_PORT")
		}
		c.Nodes = append(c.Nodes, n)
	}
	var starting sync.WaitGroup
	for _, n := range c.Nodes {
		starting.Go(n.start)
	}
	starting.Wait()
	for _, n := range c.Nodes {
		t.Cleanup(n.end)
	}
	for _, n := range c.Nodes {
		if n.failed != nil {
			t.Fatal(n.failed)
		}
	}
	return c
}

// Node is one server.
type Node struct {
	Addr    string // host:port
	TLSAddr string // the same for TLS, if it has that beside

	t             testing.TB
	name          string
	program, dir  string
	args, environ []string
	failed        error

	mu     sync.Mutex
	cmd    *exec.Cmd // nil: it does not run
	exited chan struct{}
	out    *output
}

// output is what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// listen has the node listen on a port of its own, which it keeps when it starts again.
func (n *Node) listen(setting string) string {
	port := strconv.Itoa(host.FreePort(n.t))
	n.environ = append(n.environ, setting+"="+port)
	return net.JoinHostPort("127.0.0.1", port)
}

// Start starts the node again, after Kill or Stop, at the same address.
func (n *Node) Start() {
	n.t.Helper()
	if n.start(); n.failed != nil {
		n.t.Fatal(n.failed)
	}
}

func (n *Node) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	cmd := exec.Command(n.program, n.args...)
	cmd.Dir = n.dir
	cmd.Env = n.environ
	cmd.SysProcAttr = host.Child()
	out := new(output)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		n.failed = err
		return
	}
	cmd.Stderr = out
	if n.failed = cmd.Start(); n.failed != nil {
		return
	}
	listening := make(chan struct{})
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		lines := bufio.NewReader(io.TeeReader(stdout, out))
		for {
			line, err := lines.ReadBytes('\n')
			var entry struct{ Msg string }
			if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
				close(listening)
			}
			if err != nil {
				break
			}
		}
		_ = cmd.Wait() // its state tells
	}()
	select {
	case <-listening:
	case <-exited:
		n.failed = fmt.Errorf("%s ended before it listened:\n%s", n.name, out)
		return
	case <-time.After(Patience):
		_ = cmd.Process.Kill()
		<-exited
		n.failed = fmt.Errorf("%s does not listen:\n%s", n.name, out)
		return
	}
	n.cmd, n.exited, n.out = cmd, exited, out
}

// Kill ends the node at once, as a crash does.
func (n *Node) Kill() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	<-n.exited
	n.checkRaces()
	n.cmd = nil
}

// Stop asks the node to stop, and waits until it has.
func (n *Node) Stop() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(Patience):
		_ = n.cmd.Process.Signal(syscall.SIGQUIT) // says what it does
		<-n.exited
		n.t.Errorf("%s does not stop on SIGTERM:\n%s", n.name, n.out)
	}
	if !n.cmd.ProcessState.Success() {
		n.t.Errorf("%s ended with %v:\n%s", n.name, n.cmd.ProcessState, n.out)
	}
	n.checkRaces()
	n.cmd = nil
}

// Signal sends the node a signal.
func (n *Node) Signal(s os.Signal) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

func (n *Node) checkRaces() {
	n.t.Helper()
	if text := n.out.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		n.t.Errorf("%s:\n%s", n.name, text)
	}
}

// end stops the node with the test.
func (n *Node) end() {
	n.Stop()
	if n.t.Failed() && n.out != nil {
		text := n.out.String()
		n.t.Logf("what %s said last:\n%s", n.name, text[max(0, len(text)-8<<10):])
	}
}

// Log is what the node has logged since its start.
func (n *Node) Log() string { return n.out.String() }

// web has no connection left open, so that no request hangs on one that a node closes.
var web = &http.Client{Timeout: Patience, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

// Do sends a request with the key, and returns status and body. Values are JSON; nil is none.
func (n *Node) Do(method, path string, body any) (status int, answer []byte) {
	n.t.Helper()
	status, answer, err := n.Try(method, path, body)
	if err != nil {
		n.t.Fatalf("%s %s at %s: %v", method, path, n.name, err)
	}
	return status, answer
}

// Try is Do for a node that may not answer.
func (n *Node) Try(method, path string, body any) (status int, answer []byte, err error) {
	return n.Ask(method, path, "Basic "+base64.StdEncoding.EncodeToString([]byte(Key)), body)
}

// Ask is Try with another value of the header Authorization.
func (n *Node) Ask(method, path, authorization string, body any) (status int, answer []byte, err error) {
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		text = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, "http://"+n.Addr+path, text)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", authorization)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	a, err := web.Do(r)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(a.Body)
	return a.StatusCode, answer, errors.Join(err, a.Body.Close())
}

// Metric is a figure of the node's, summed over all labels; NaN-like absence is an error.
func (n *Node) Metric(name string) (sum float64) {
	n.t.Helper()
	_, text := n.Do("GET", "/metrics?format=prometheus", nil)
	found := false
	for line := range strings.Lines(string(text)) {
		rest, is := strings.CutPrefix(line, name)
		if !is || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err != nil {
			n.t.Fatalf("%q: %v", line, err)
		}
		sum += v
		found = true
	}
	if !found {
		n.t.Fatalf("%s has no metric %s", n.name, name)
	}
	return sum
}

// Eventually waits until ok, which is asked again and again.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !Within(Patience, ok) {
		t.Fatalf("still waiting for %s", what)
	}
}

// Within is Eventually for what may not come. It reports whether it has.
func Within(d time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(d)
	for !ok() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}
