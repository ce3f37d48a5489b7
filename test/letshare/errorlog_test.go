package letshare_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// entries are the lines of errors.log, parsed.
func (i *instance) entries(t testing.TB) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(i.errorLog()) {
		all = append(all, parse(t, line))
	}
	return all
}

func TestErrorsLogHoldsJSONLines(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_LOG_LEVEL=debug"}})
	s.request(t, "GET", "/ws?token=abc", handshake...)
	c := s.connect(t, "anna")
	c.send("nonsense")
	c.expectError()
	s.request(t, "GET", "/health")
	eventually(t, patience, "two entries are in errors.log", func() bool { return len(s.entries(t)) >= 2 })
	for _, e := range s.entries(t) {
		if keys(e) != "fields level message timestamp" {
			t.Errorf("an entry has the keys %q: %v", keys(e), e)
		}
		wantTime(t, e["timestamp"])
		if e["level"] != "warning" && e["level"] != "error" {
			t.Errorf("an entry has the level %v", e["level"])
		}
		if text, is := e["message"].(string); !is || text == "" {
			t.Errorf("an entry has the message %v", e["message"])
		}
		fields, is := e["fields"].(map[string]any)
		if !is {
			t.Errorf("an entry has the fields %v", e["fields"])
		}
		if v, has := fields["error"]; has {
			if text, is := v.(string); !is || text == "" || text == "{}" {
				t.Errorf("an error is logged as %v", v)
			}
		}
	}
	if !strings.Contains(s.errorLog(), "token验证失败") {
		t.Errorf("errors.log does not say why a token was refused: %s", s.errorLog())
	}
}

func TestErrorsLogKeepsTheNewestEntries(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_LOG_MAX_ENTRIES=5"}})
	const users = 23
	for n := range users {
		c := s.connect(t, fmt.Sprintf("user-%d.", n))
		c.send("nonsense")
		c.expectError()
	}
	eventually(t, patience, "errors.log holds the newest 5", func() bool {
		all := s.entries(t)
		if len(all) != 5 {
			return false
		}
		for n, e := range all {
			if !strings.Contains(fmt.Sprint(e["fields"]), fmt.Sprintf("user-%d.", users-5+n)) {
				return false
			}
		}
		return true
	})
}

func TestErrorsLogSurvivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for n := range 2 {
		s, err := launch(dir, settings{env: []string{"LETSHARE_LOG_MAX_ENTRIES=3"}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			c := s.connect(t, fmt.Sprintf("run%d-%d.", n, i))
			c.send("nonsense")
			c.expectError()
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			all := s.entries(t)
			if len(all) != 3 || !strings.Contains(fmt.Sprint(all[0]), "run0-1.") || !strings.Contains(fmt.Sprint(all[2]), "run1-1.") {
				t.Errorf("errors.log holds %v", all)
			}
		}
	}
}

func TestManyBadRequestsAreNotManyRewrites(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_LOG_MAX_ENTRIES=200"}})
	path := filepath.Join(s.dir, "logs", "errors.log")
	stop, counted := make(chan struct{}), make(chan int)
	go func() {
		rewrites := 0
		var last os.FileInfo
		for {
			if now, err := os.Stat(path); err == nil {
				if last != nil && !os.SameFile(last, now) {
					rewrites++
				}
				last = now
			}
			select {
			case <-stop:
				counted <- rewrites
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	began := time.Now()
	c := s.connect(t, "anna")
	const count = 10_000
	go func() {
		for range count {
			c.send("nonsense")
		}
	}()
	for range count {
		if m := c.next(); m["type"] != "error" {
			t.Fatalf("got %v", m)
		}
	}
	c.works()
	took := time.Since(began)
	close(stop)
	if rewrites, most := <-counted, 5+int(took/(100*time.Millisecond)); rewrites > most {
		t.Errorf("errors.log was rewritten %d times in %v, want %d at most", rewrites, took, most)
	}
	eventually(t, patience, "errors.log has its size", func() bool { return len(s.entries(t)) <= 200 })
}

func TestTheServerWorksWithALogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(dir string) error{
		"the directory is a file": func(dir string) error { return os.WriteFile(filepath.Join(dir, "logs"), nil, 0o600) },
		"the file is a directory": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "logs", "errors.log", "x"), 0o700) },
		"the disk is full": func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "logs"), 0o700); err != nil {
				return err
			}
			return os.Symlink("/dev/full", filepath.Join(dir, "logs", "errors.log"))
		},
		"the directory is read-only": func(dir string) error { return os.Mkdir(filepath.Join(dir, "logs"), 0o500) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, settings{prepare: prepare})
			room := newRoom()
			c, other := s.connect(t, "anna"), s.connect(t, "bert")
			c.subscribe(room)
			other.subscribe(room)
			for n := range 300 {
				c.send("nonsense")
				c.expectError()
				if n%100 == 0 {
					c.publish(room, `{"from":1}`)
					other.expect(room, "signal:all", `{"from":1}`)
				}
			}
			s.request(t, "GET", "/ws?token=x", handshake...)
			if name != "the directory is read-only" || os.Geteuid() != 0 { // root may write anywhere
				eventually(t, patience, "the server says that the log cannot be written", func() bool {
					return strings.Contains(s.output(), "errors.log cannot be written")
				})
			}
			if r := s.request(t, "GET", "/health"); r.status != 200 {
				t.Errorf("health: %d %s", r.status, r.body)
			}
		})
	}
}
