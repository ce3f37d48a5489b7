// Package redistest starts real redis-servers for tests: alone, as a Redis Cluster with
// replicas, or behind Sentinel. Each listens on free ports of 127.0.0.1, keeps its files in
// a directory of the test, and ends with it.
//
// The programs are redis-server, redis-sentinel and redis-cli, as the system finds them. With
// LETSHARE_TEST_REDIS=/opt/valkey/bin/valkey they are /opt/valkey/bin/valkey-server and so on.
package redistest

import (
	"bytes"
	"cmp"
	"context"
	"net"
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

	"github.com/redis/rueidis"

	"letshare-server/test/host"
)

// patience is how long a server may take to be ready, or to end.
const patience = 30 * time.Second

// Server is one redis-server, or Sentinel.
type Server struct {
	Addr string

	t    testing.TB
	dir  string
	port int
	args []string
	exe  string
	sec  *Security // nil: neither TLS nor users

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	out  *bytes.Buffer
}

// Start starts a server that stands alone, with more settings as redis-server takes them on
// its command line. Nothing is kept on disk unless they say so.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	return start(t, nil, settings)
}

// program is the path of one of Redis' programs: server, sentinel or cli.
func program(name string) string {
	return cmp.Or(os.Getenv("LETSHARE_TEST_REDIS"), "redis") + "-" + name
}

func start(t testing.TB, sec *Security, settings []string) *Server {
	t.Helper()
	exe := program("server")
	if _, err := exec.LookPath(exe); err != nil {
		t.Fatalf("%v: run test/deps.sh, or install Redis 7", err)
	}
	port := host.FreePort(t)
	s := &Server{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		t:    t, dir: t.TempDir(), port: port, exe: exe, sec: sec,
		args: slices.Concat(sec.server(port), []string{"--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
			"--loglevel", "warning"}, settings),
	}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// Restart starts the server, after a Kill, as another process on the same port.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	args := s.args
	if s.exe == program("sentinel") {
		args = []string{filepath.Join(s.dir, "sentinel.conf")}
	} else {
		args = append(args, "--dir", s.dir)
	}
	s.out = new(bytes.Buffer)
	s.cmd = exec.Command(s.exe, args...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = host.Child()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	cmd := s.cmd
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	wait(s.t, s.exe+" on "+s.Addr, func() bool {
		select {
		case <-done:
			if s.sec != nil && strings.Contains(s.out.String(), "Bad directive") {
				s.t.Fatalf("%s speaks no TLS: take one that was built with it (BUILD_TLS=yes), such as Debian's: %s", s.exe, s.out)
			}
			s.t.Fatalf("%s ended: %s", s.exe, s.out)
		default:
		}
		conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		return true
	})
}

// Kill ends the server at once, and waits until it is gone.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.done
	s.cmd = nil
}

// Stop makes the server stand still, as SIGSTOP does; Continue lets it go on.
func (s *Server) Stop() { s.signal(syscall.SIGSTOP) }

// Continue ends Stop.
func (s *Server) Continue() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Pid is the server's process.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Do sends the server a command on a connection of its own and returns the answer as text.
func (s *Server) Do(words ...string) (string, error) {
	o := rueidis.ClientOption{InitAddress: []string{s.Addr}, DisableCache: true, ForceSingleClient: true,
		Dialer: net.Dialer{Timeout: time.Second}, ConnWriteTimeout: 5 * time.Second}
	if s.sec != nil {
		o.TLSConfig, o.Username, o.Password = s.sec.TLS, User, Password
		if s.exe == program("sentinel") {
			o.Username, o.Password = "", SentinelPassword
		}
	}
	client, err := rueidis.NewClient(o)
	if err != nil {
		return "", err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := client.Do(ctx, client.B().Arbitrary(words...).Build()).ToMessage()
	if err != nil {
		return "", err
	}
	if text, err := m.ToString(); err == nil {
		return text, nil
	}
	if n, err := m.ToInt64(); err == nil {
		return strconv.FormatInt(n, 10), nil
	}
	return m.String(), nil
}

// Must is Do without an error.
func (s *Server) Must(words ...string) string {
	s.t.Helper()
	text, err := s.Do(words...)
	if err != nil {
		s.t.Fatalf("%s: %q: %v", s.Addr, words, err)
	}
	return text
}

func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
