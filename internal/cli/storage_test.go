package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/config"
	"letshare-server/internal/server"
)

const storageKey = "app001.key001:storage-storage-storage-storage"

// startWithStorage runs a server with a database until the returned func is called.
func startWithStorage(t *testing.T, dir string) (address string, stop func()) {
	t.Helper()
	cfg := config.Default(config.Local)
	cfg.Server.Host, cfg.Server.Port, cfg.Server.ShutdownGrace = "127.0.0.1", "0", time.Millisecond
	cfg.Storage.Dir, cfg.APIKeys = dir, []config.Secret{storageKey}
	cfg.Namespaces = []config.Namespace{{ID: "kept", Persisted: true}}
	secrets, err := resolveSecrets(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(cfg, secrets, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func request(t *testing.T, method, address, path, body string) string {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	name, secret, _ := strings.Cut(storageKey, ":")
	r.SetBasicAuth(name, secret)
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s %v", method, path, answer.Status, said, err)
	}
	return string(said)
}

func publishN(t *testing.T, address string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		request(t, "POST", address, "/channels/kept:c/messages", fmt.Sprintf(`{"name":"m%d"}`, i))
	}
	request(t, "POST", address, "/channels/free/messages", `{"name":"free"}`)
}

func history(t *testing.T, address, channel string) (names []string) {
	t.Helper()
	var messages []struct{ Name string }
	if err := json.Unmarshal([]byte(request(t, "GET", address, "/channels/"+channel+"/messages?direction=forwards&limit=1000", "")), &messages); err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		names = append(names, m.Name)
	}
	return names
}

func expectNames(t *testing.T, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d messages, want %d", len(got), n)
	}
	for i, name := range got {
		if name != fmt.Sprint("m", i) {
			t.Fatalf("message %d is %s", i, name)
		}
	}
}

// TestHistoryOutlivesTheServerAndMovesWithABackup goes the whole way of a database: publish,
// back up while the server runs, restart, restore elsewhere, compact.
func TestHistoryOutlivesTheServerAndMovesWithABackup(t *testing.T) {
	t.Chdir(t.TempDir()) // the path of a socket must be short
	address, stop := startWithStorage(t, "data")
	publishN(t, address, 0, 20)
	code, out, errs := call(t, nil, "backup", "-dir", "data", "-to", "copy.db")
	if code != 0 || !strings.Contains(out, "1 channels, 20 publishes") {
		t.Fatalf("backup: code %d, %s%s", code, out, errs)
	}
	info, err := os.Stat("copy.db")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info, err)
	}
	if socket, err := os.Stat(filepath.Join("data", server.CommandSocket)); err != nil || socket.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", socket, err)
	}
	publishN(t, address, 20, 30)
	for _, args := range [][]string{{"restore", "-dir", "data", "-from", "copy.db"}, {"compact", "-dir", "data"}} {
		if code, out, errs := call(t, nil, args...); code != 1 || !strings.Contains(errs, "in use by another process") {
			t.Errorf("%q while the server runs: code %d, %s%s", args, code, out, errs)
		}
	}
	stop()

	// Without a server the copy comes from the directory itself.
	if code, out, errs := call(t, []string{"LETSHARE_STORAGE_DIR=data"}, "backup", "-to", "later.db"); code != 0 || !strings.Contains(out, "30 publishes") {
		t.Errorf("backup without a server: code %d, %s%s", code, out, errs)
	}
	if code, out, errs := call(t, nil, "restore", "-dir", "data", "-from", "copy.db"); code != 1 || !strings.Contains(errs, "exists") {
		t.Errorf("restore over a database: code %d, %s%s", code, out, errs)
	}
	if code, out, errs := call(t, nil, "compact", "-dir", "data"); code != 0 || !strings.HasPrefix(out, "from ") {
		t.Errorf("compact: code %d, %s%s", code, out, errs)
	}
	address, stop = startWithStorage(t, "data")
	expectNames(t, history(t, address, "kept:c"), 30)
	if got := history(t, address, "free"); len(got) != 0 {
		t.Errorf("a channel that is not persisted has %d messages", len(got))
	}
	var months []struct {
		Entries map[string]float64 `json:"entries"`
	}
	if err := json.Unmarshal([]byte(request(t, "GET", address, "/stats?unit=month", "")), &months); err != nil {
		t.Fatal(err)
	}
	published := 0.0
	for _, m := range months {
		published += m.Entries["messages.inbound.rest.messages.count"]
	}
	if published != 32 { // also those of the channel that is not persisted
		t.Errorf("after a restart the statistics know of %v publishes", published)
	}
	stop()

	if code, out, errs := call(t, nil, "restore", "-dir", "elsewhere", "-from", "copy.db"); code != 0 || !strings.Contains(out, "20 publishes") {
		t.Fatalf("restore: code %d, %s%s", code, out, errs)
	}
	address, _ = startWithStorage(t, "elsewhere")
	expectNames(t, history(t, address, "kept:c"), 20)
	publishN(t, address, 20, 25)
	expectNames(t, history(t, address, "kept:c"), 25)
	if got := request(t, "GET", address, "/metrics?format=prometheus", ""); !strings.Contains(got, "letshare_storage_commit_publishes_count 5\n") {
		t.Errorf("metrics: %s", got)
	}
}

func TestCommandsOfTheStorageSayWhatIsWrong(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("text", bytes.Repeat([]byte("text"), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"backup", "-to", "copy"}, "storage.dir is not set"},
		{[]string{"backup", "-dir", "none", "-to", "copy"}, "none/letshare.db: no such file"},
		{[]string{"backup", "-dir", "none", "-to", "none/copy"}, "none"},
		{[]string{"restore", "-dir", "new", "-from", "absent"}, "absent: no such file"},
		{[]string{"restore", "-dir", "new", "-from", "text"}, "not a database of this release"},
		{[]string{"compact", "-dir", "new"}, "letshare.db: no such file"},
	} {
		if code, out, errs := call(t, nil, c.args...); code != 1 || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: code %d, %q, %q; want %q", c.args, code, out, errs, c.want)
		}
	}
	if left, _ := filepath.Glob("*copy*"); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}
