package load

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ownServer is a server of the product that the tool started for itself, as it is deployed: in
// production mode with everything on, but for the size of rooms, which the measurements exceed.
type ownServer struct {
	pid     int
	url     string
	key     string
	secret  string
	pprof   string // host:port, if it serves profiles
	process *exec.Cmd
	dir     string
	output  sync.WaitGroup
}

// startOwn runs the command line as a server with more variables of the environment. It is ready when
// startOwn returns, and ends with stop. profiles makes it serve some, which takes memory.
func startOwn(ctx context.Context, command, env []string, profiles bool) (*ownServer, error) {
	dir, err := os.MkdirTemp("", "letshare-load-")
	if err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	s := &ownServer{key: "load1.key1:" + rand.Text() + rand.Text(), secret: rand.Text() + rand.Text(), dir: dir}
	// An interrupt goes to the whole process group; the server ends with stop.
	s.process = exec.CommandContext(context.WithoutCancel(ctx), command[0], command[1:]...)
	s.process.Dir = dir
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, v := range os.Environ() {
		// What is set for another server must not change what is measured.
		if !strings.HasPrefix(v, "LETSHARE_") && !strings.HasPrefix(v, "MODE=") {
			s.process.Env = append(s.process.Env, v)
		}
	}
	s.process.Env = append(s.process.Env, "MODE=production", "LETSHARE_SERVER_HOST=127.0.0.1", "LETSHARE_SERVER_PORT=0", "LETSHARE_API_KEYS="+s.key,
		"LETSHARE_JWT_SECRET="+s.secret, "LETSHARE_WEBSOCKET_MAX_ROOM_USERS=100000",
		"LETSHARE_SERVER_SHUTDOWN_GRACE=0s")
	if profiles {
		s.process.Env = append(s.process.Env, "LETSHARE_DEBUG_PPROF_ADDRESS=127.0.0.1:0")
	}
	s.process.Env = append(s.process.Env, env...)
	var stderr strings.Builder
	s.process.Stderr = &stderr
	stdout, err := s.process.StdoutPipe()
	if err == nil {
		err = s.process.Start()
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start a server: %w", err)
	}
	s.pid = s.process.Process.Pid
	kill := time.AfterFunc(20*time.Second, func() { _ = s.process.Process.Kill() })
	lines := bufio.NewScanner(stdout)
	for !s.ready(profiles) && lines.Scan() {
		var line struct {
			Address string `json:"address"`
			Pprof   string `json:"pprof_address"`
		}
		_ = json.Unmarshal(lines.Bytes(), &line) // other lines do not matter
		if line.Address != "" {
			s.url = "ws://" + line.Address
		}
		if line.Pprof != "" {
			s.pprof = line.Pprof
		}
	}
	kill.Stop()
	s.output.Go(func() { _, _ = io.Copy(io.Discard, stdout) })
	if !s.ready(profiles) {
		s.stop()
		return nil, fmt.Errorf("start a server: it did not say where it listens: %.1000s", stderr.String())
	}
	return s, nil
}

func (s *ownServer) ready(profiles bool) bool { return s.url != "" && (s.pprof != "" || !profiles) }

func (s *ownServer) stop() {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { _ = s.process.Process.Kill() })
	defer kill.Stop()
	s.output.Wait()
	_ = s.process.Wait() // how it ended is no part of a measurement
	os.RemoveAll(s.dir)
}

// use makes the options those of a load on the server.
func (s *ownServer) use(o *options) error {
	o.url, o.key, o.secret, o.token, o.pid, o.pprof = s.url, s.key, s.secret, "", s.pid, s.pprof
	return o.resolve()
}

// mallocs is how many objects a server has allocated since it began, told by its debug.pprof_address.
func mallocs(ctx context.Context, address string) (uint64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/debug/pprof/heap?debug=1", nil)
	if err != nil {
		return 0, err
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return 0, fmt.Errorf("ask for the server's allocations: %w (is --pprof its debug.pprof_address?)", err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20) // one of them has the pauses of the garbage collector
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), "# Mallocs = "); ok {
			return strconv.ParseUint(n, 10, 64)
		}
	}
	return 0, errors.New("ask for the server's allocations: the answer does not tell them")
}
