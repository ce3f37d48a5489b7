//go:build linux

package container

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"letshare-server/test/host"
	"letshare-server/test/source"
)

const root = "../.."

// image is what the Dockerfile says.
type image struct {
	build  string // the command that makes the binary
	user   uint32
	dir    string
	mode   string
	health []string
	entry  []string
}

func readDockerfile(t *testing.T) image {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		m := regexp.MustCompile("(?m)" + pattern).FindSubmatch(text)
		if m == nil {
			t.Fatalf("the Dockerfile has no line like %s", pattern)
		}
		return string(m[1])
	}
	list := func(s string) (words []string) {
		if err := json.Unmarshal([]byte(s), &words); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return words
	}
	user, err := strconv.Atoi(find(`^USER (\d+):\d+$`))
	if err != nil || user == 0 {
		t.Fatalf("the image's user must be a number other than 0, got %d (%v)", user, err)
	}
	if !bytes.Contains(text, []byte("\nFROM scratch\n")) {
		t.Fatal("the image must be made from scratch")
	}
	return image{
		build:  find(`^RUN (CGO_ENABLED=0 go build .*)$`),
		user:   uint32(user),
		dir:    find(`^WORKDIR (/app)$`),
		mode:   find(`^ENV MODE=(\w+)$`),
		health: list(find(`^HEALTHCHECK .*CMD (\[.*\])$`)),
		entry:  list(find(`^ENTRYPOINT (\[.*\])$`)),
	}
}

// assemble makes the image's root directory.
func assemble(t *testing.T, img image) string {
	t.Helper()
	if err := source.Watch(root); err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	app := filepath.Join(top, img.dir)
	for _, dir := range []string{"logs", "data", "configs"} {
		if err := os.MkdirAll(filepath.Join(app, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command := strings.Replace(img.build, "/out"+img.dir, app, 1)
	if command == img.build {
		t.Fatalf("the build command does not write to /out%s: %s", img.dir, img.build)
	}
	build := exec.Command("sh", "-c", command)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	if err := os.CopyFS(filepath.Join(app, "configs"), os.DirFS(filepath.Join(root, "configs"))); err != nil {
		t.Fatal(err)
	}
	// t.TempDir makes directories that only their owner enters.
	for dir := top; dir != os.TempDir() && len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		err := filepath.WalkDir(app, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, int(img.user), int(img.user))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return top
}

// inside returns a command that runs in the image as its user, with nothing in its
// environment but env. Without root the user is mapped in a namespace of its own.
func inside(img image, top string, args, env []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = img.dir
	cmd.Env = env
	attr := &syscall.SysProcAttr{Chroot: top, Credential: &syscall.Credential{Uid: img.user, Gid: img.user, NoSetGroups: true}}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(img.user), HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: int(img.user), HostID: gid, Size: 1}}
	} else {
		attr.Credential.NoSetGroups = false
	}
	cmd.SysProcAttr = attr
	return cmd
}

// instance is the image's entry point, running. It ends with the test at the latest.
type instance struct {
	cmd   *exec.Cmd
	port  string
	ended chan struct{}
	err   error // of the process, when it has ended

	mu  sync.Mutex
	out bytes.Buffer
}

// log is what it has printed.
func (s *instance) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

func start(t *testing.T, img image, top string, env ...string) *instance {
	t.Helper()
	s := &instance{port: strconv.Itoa(host.FreePort(t)), ended: make(chan struct{})}
	s.cmd = inside(img, top, img.entry, append([]string{"MODE=" + img.mode, "LETSHARE_SERVER_PORT=" + s.port}, env...))
	s.cmd.Stderr = os.Stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("cannot run in an empty root directory as user %d: %v (run the tests as root, or allow user namespaces)", img.user, err)
	}
	listening := make(chan struct{})
	heard := sync.OnceFunc(func() { close(listening) })
	go func() {
		defer close(s.ended)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			s.mu.Lock()
			fmt.Fprintln(&s.out, lines.Text())
			s.mu.Unlock()
			if strings.Contains(lines.Text(), `"msg":"listening"`) {
				heard()
			}
		}
		s.err = s.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // unless it has ended
		<-s.ended
	})
	select {
	case <-listening:
	case <-s.ended:
		t.Fatalf("the server ended at once:\n%s", s.log())
	case <-time.After(time.Minute):
		t.Fatalf("the server did not begin to listen:\n%s", s.log())
	}
	return s
}

// stop ends the instance as docker stop does.
func (s *instance) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	if s.err != nil {
		t.Fatalf("SIGTERM: %v\n%s", s.err, s.log())
	}
}

func TestTheImageServesFromAnEmptyRootAsAnUnprivilegedUser(t *testing.T) {
	img := readDockerfile(t)
	top := assemble(t, img)
	binary := filepath.Join(top, img.entry[0])
	if out, err := exec.Command("sh", "-c", "LC_ALL=C ldd "+binary+" 2>&1").CombinedOutput(); err == nil && !bytes.Contains(out, []byte("not a dynamic executable")) {
		t.Errorf("the binary is not static: %s", out)
	}

	s := start(t, img, top)
	var status struct{ Uid string }
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)); err != nil {
		t.Error(err)
	} else if m := regexp.MustCompile(`(?m)^Uid:\s+(\d+)`).FindSubmatch(text); m != nil {
		status.Uid = string(m[1])
	}
	if os.Getuid() == 0 && status.Uid != fmt.Sprint(img.user) {
		t.Errorf("the server runs as user %s, want %d", status.Uid, img.user)
	}

	health := inside(img, top, img.health, []string{"MODE=" + img.mode, "LETSHARE_SERVER_PORT=" + s.port})
	out, err := health.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte(`"healthy"`)) {
		t.Errorf("health check: %v\n%s", err, out)
	}

	// Nothing is configured: production has made its own secrets, for their owner only.
	made := make(map[string]string)
	for _, name := range []string{"jwt-secret", "api-key"} {
		path := filepath.Join(top, img.dir, "data", name)
		info, err := os.Stat(path)
		if err != nil {
			t.Errorf("no secret was made: %v", err)
			continue
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", name, info.Mode().Perm())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		made[name] = strings.TrimSpace(string(text))
	}
	for name, secret := range made {
		if len(secret) < 32 {
			t.Errorf("%s is too short", name)
		}
		if strings.Contains(s.log(), secret) {
			t.Errorf("the log quotes the %s", name)
		}
	}
	key := made["api-key"]
	response, err := http.Get("http://127.0.0.1:" + s.port + "/channels/demo/messages?key=" + key)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the key that was made gives %s", response.Status)
	}
	// A refused token is a warning, which errors.log keeps.
	response, err = http.Get("http://127.0.0.1:" + s.port + "/ws?token=no-token")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("a bad token gives %s, want 401", response.Status)
	}
	s.stop(t)
	text, err := os.ReadFile(filepath.Join(top, img.dir, "logs", "errors.log"))
	if err != nil || !bytes.Contains(text, []byte("connection refused")) {
		t.Errorf("errors.log: %v\n%s", err, text)
	}

	s = start(t, img, top)
	defer s.stop(t)
	again, err := os.ReadFile(filepath.Join(top, img.dir, "data", "api-key"))
	if err != nil || strings.TrimSpace(string(again)) != key {
		t.Errorf("the next start made another key (%v)", err)
	}
}

func TestTheHealthCheckFailsWithoutAServer(t *testing.T) {
	img := readDockerfile(t)
	top := assemble(t, img)
	health := inside(img, top, img.health, []string{"MODE=" + img.mode, "LETSHARE_SERVER_PORT=" + strconv.Itoa(host.FreePort(t))})
	if out, err := health.CombinedOutput(); err == nil {
		t.Errorf("healthy without a server:\n%s", out)
	}
}

func TestTheImageServesFromAReadOnlyRootWithEphemeralSecrets(t *testing.T) {
	img := readDockerfile(t)
	top := assemble(t, img)
	for _, dir := range []string{"logs", "data", ""} {
		path := filepath.Join(top, img.dir, dir)
		if err := os.Chmod(path, 0o555); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			if err := os.Chown(path, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
		defer func() { _ = os.Chmod(path, 0o755) }() // for the removal
	}
	s := start(t, img, top)
	response, err := http.Get("http://127.0.0.1:" + s.port + "/health/ready")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("/health/ready: %s", response.Status)
	}
	s.stop(t)
	if !strings.Contains(s.log(), "none can be kept") {
		t.Errorf("the log does not say that the secrets are ephemeral:\n%s", s.log())
	}
}
