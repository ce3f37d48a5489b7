package errorlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/errorlog"
)

type line struct {
	Timestamp time.Time      `json:"timestamp"`
	Level     string         `json:"level"`
	Message   string         `json:"message"`
	Fields    map[string]any `json:"fields"`
}

func readLines(t *testing.T, dir string) []line {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, errorlog.FileName))
	if err != nil {
		t.Fatal(err)
	}
	var lines []line
	for raw := range bytes.Lines(text) {
		var l line
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatalf("line %q: %v", raw, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func messages(lines []line) []string {
	var list []string
	for _, l := range lines {
		list = append(list, l.Message)
	}
	return list
}

// run starts l and returns a function that ends it and waits.
func run(t *testing.T, l *errorlog.Log) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func TestWarningsAndErrorsBecomeLinesAndTheRestDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "logs") // made by the log
		l := errorlog.New(errorlog.Options{Dir: dir})
		stop := run(t, l)
		var stdout bytes.Buffer
		log := errorlog.Logger(slog.NewJSONHandler(&stdout, nil), l)
		log.Debug("unseen")
		log.Info("hello")
		log.Warn("slow", "took", 3*time.Second, "n", 7, "ratio", 0.5, "on", true, "at", time.Unix(0, 0))
		log.With("room", "ab").WithGroup("peer").With("ip", "::1").Error("broken", "error", fmt.Errorf("read: %w", errors.ErrUnsupported),
			slog.Group("more", "list", []int{1, 2}))
		stop()

		lines := readLines(t, dir)
		if got := messages(lines); !slices.Equal(got, []string{"slow", "broken"}) {
			t.Fatalf("messages: %q", got)
		}
		if lines[0].Level != "warning" || lines[1].Level != "error" || !lines[0].Timestamp.Equal(time.Now()) {
			t.Errorf("levels and time: %+v", lines)
		}
		want := map[string]any{"took": "3s", "n": 7.0, "ratio": "0.5", "on": true, "at": "1970-01-01T00:00:00Z"}
		if got := fmt.Sprint(lines[0].Fields); got != fmt.Sprint(want) {
			t.Errorf("fields: %v, want %v", got, want)
		}
		if got, want := fmt.Sprint(lines[1].Fields),
			"map[peer:map[error:read: unsupported operation ip:::1 more:map[list:[1 2]]] room:ab]"; got != want {
			t.Errorf("fields: %v, want %v", got, want)
		}
		if !strings.Contains(stdout.String(), "hello") || strings.Contains(stdout.String(), "unseen") ||
			!strings.Contains(stdout.String(), "broken") {
			t.Errorf("stdout: %s", stdout.String())
		}
	})
}

func TestALineIsOnDiskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := errorlog.New(errorlog.Options{Dir: dir})
		defer run(t, l)()
		slog.New(l).Error("now")
		synctest.Wait()
		if got := messages(readLines(t, dir)); !slices.Equal(got, []string{"now"}) {
			t.Errorf("messages: %q", got)
		}
	})
}

func TestTheNewestEntriesAreKeptAndTrimmedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := errorlog.New(errorlog.Options{Dir: dir, MaxEntries: 10})
		stop := run(t, l)
		log := slog.New(l)
		for i := range 1000 {
			log.Error(fmt.Sprint(i))
			if i%7 == 0 {
				synctest.Wait()
				if n := len(readLines(t, dir)); n > 20 {
					t.Fatalf("%d lines after %d entries", n, i+1)
				}
			}
		}
		time.Sleep(201 * time.Millisecond) // of the bubble's clock
		synctest.Wait()
		var want []string
		for i := 990; i < 1000; i++ {
			want = append(want, fmt.Sprint(i))
		}
		if got := messages(readLines(t, dir)); !slices.Equal(got, want) {
			t.Errorf("messages: %q, want %q", got, want)
		}
		log.Error("last")
		stop()
		if got := messages(readLines(t, dir)); !slices.Equal(got, append(want[1:], "last")) {
			t.Errorf("after the end: %q", got)
		}
	})
}

func TestAFloodDoesNotBecomeAFloodOfRewrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := errorlog.New(errorlog.Options{Dir: dir})
		stop := run(t, l)
		log := slog.New(l)
		inodes := map[string]bool{}
		file := filepath.Join(dir, errorlog.FileName)
		var before os.FileInfo
		for i := range 10_000 { // in one second
			log.Warn(fmt.Sprint(i))
			time.Sleep(100 * time.Microsecond)
			if info, err := os.Stat(file); err == nil && (before == nil || !os.SameFile(before, info)) {
				before = info
				inodes[fmt.Sprint(i)] = true
			}
		}
		stop()
		if len(inodes) > 8 {
			t.Errorf("the file was replaced %d times in a second", len(inodes))
		}
		lines := readLines(t, dir)
		if len(lines) != 200 || lines[199].Message != "9999" || lines[0].Message != "9800" {
			t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1].Message)
		}
	})
}

func TestAnExistingFileIsContinuedWithItsNewestLines(t *testing.T) {
	for _, c := range []struct{ name, text, first string }{
		{"whole", "", "old-7"},
		{"torn", `{"timestamp":"2024`, "old-7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				var text strings.Builder
				for i := range 10 {
					fmt.Fprintf(&text, `{"timestamp":"2024-01-01T00:00:00Z","level":"error","message":"old-%d","fields":{}}`+"\n", i)
				}
				text.WriteString(c.text)
				if err := os.WriteFile(filepath.Join(dir, errorlog.FileName), []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				l := errorlog.New(errorlog.Options{Dir: dir, MaxEntries: 4})
				stop := run(t, l)
				slog.New(l).Warn("new")
				stop()
				if got := messages(readLines(t, dir)); !slices.Equal(got, []string{c.first, "old-8", "old-9", "new"}) {
					t.Errorf("messages: %q", got)
				}
			})
		})
	}
}

func TestADiskThatCannotBeWrittenIsReportedOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A file where the directory should be fails like a read-only disk, for root too.
		dir := filepath.Join(t.TempDir(), "logs")
		if err := os.WriteFile(dir, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		var told lockedBuffer
		l := errorlog.New(errorlog.Options{Dir: dir, MaxEntries: 3, Trouble: slog.NewTextHandler(&told, nil)})
		stop := run(t, l)
		log := slog.New(l)
		for i := range 10 {
			log.Error(fmt.Sprint(i))
			time.Sleep(7 * time.Second)
		}
		synctest.Wait()
		if n := strings.Count(told.String(), "cannot be written"); n != 1 {
			t.Errorf("told %d times: %s", n, told.String())
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got := messages(readLines(t, dir)); !slices.Equal(got, []string{"7", "8", "9"}) {
			t.Errorf("messages: %q", got)
		}
		if !strings.Contains(told.String(), "written again") || l.Dropped() != 7 {
			t.Errorf("dropped %d, told %s", l.Dropped(), told.String())
		}
		stop()
	})
}

func TestAFileThatWasMovedAwayStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := errorlog.New(errorlog.Options{Dir: dir, MaxEntries: 3})
		stop := run(t, l)
		log := slog.New(l)
		log.Error("a")
		log.Error("b")
		synctest.Wait()
		if err := os.Rename(filepath.Join(dir, errorlog.FileName), filepath.Join(dir, "old")); err != nil {
			t.Fatal(err)
		}
		log.Error("c")
		log.Error("d")
		stop()
		if got := messages(readLines(t, dir)); !slices.Equal(got, []string{"c", "d"}) {
			t.Errorf("messages: %q", got)
		}
	})
}

type explosive struct{}

func (*explosive) Error() string { panic("no") }

func TestNothingThatIsLoggedBreaksALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := errorlog.New(errorlog.Options{Dir: dir})
		stop := run(t, l)
		log := slog.New(l)
		log.Error("line\nbreak \xff", "bad\xff", "\xfe", "func", func() {}, "error", (*explosive)(nil))
		log.Error(strings.Repeat("long ", 10_000), "x", strings.Repeat("y", 100_000))
		many := make([]any, 0, 400)
		for i := range 200 {
			many = append(many, fmt.Sprint(i), strings.Repeat("z", 1000))
		}
		log.Error("many", many...)
		stop()
		lines := readLines(t, dir)
		if len(lines) != 3 || lines[2].Fields["truncated"] == nil {
			t.Errorf("lines: %d, %v", len(lines), lines[len(lines)-1])
		}
		info, err := os.Stat(filepath.Join(dir, errorlog.FileName))
		if err != nil || info.Size() > 16<<10 {
			t.Errorf("size %v, error %v", info.Size(), err)
		}
	})
}

func TestManyGoroutinesMayLogAtOnce(t *testing.T) {
	dir := t.TempDir()
	l := errorlog.New(errorlog.Options{Dir: dir, MaxEntries: 50})
	stop := run(t, l)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			log := slog.New(l).With("a", 1)
			for i := range 500 {
				log.Error("x", "i", i)
			}
		})
	}
	wg.Wait()
	stop()
	if n := len(readLines(t, dir)); n != 50 {
		t.Errorf("%d lines", n)
	}
}

func TestRedactURLHidesCredentialsAndNothingElse(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/ws?token=abc&userId=a:b", "/ws?token=***&userId=a:b"},
		{"/?key=a.b:c&v=6&format=json", "/?key=***&v=6&format=json"},
		{"/?access_token=x&accessToken=y&Token=z", "/?access_token=***&accessToken=***&Token=***"},
		{"/?%74oken=x&to%6ben=y", "/?%74oken=***&to%6ben=***"},
		{"/?a=1;token=x", "/?a=1&token=***"},
		{"/?token=a?token=b", "/?token=***"},
		{"/?bad%zz=x&resume=k&recover=l", "/?bad%zz=***&resume=***&recover=***"},
		{"wss://user:pw@host/ws?token=x#token=y", "wss://host/ws?token=***#token=***"},
		{"wss://user:pw@host", "wss://host"},
		{"/health", "/health"},
		{"/?token", "/?token"},
		{"", ""},
	} {
		if got := errorlog.RedactURL(c.in); got != c.want {
			t.Errorf("RedactURL(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzRedactURL(f *testing.F) {
	f.Add("/ws?", "&userId=1")
	f.Add("wss://h/?a=b&", "#x")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "SECRET-VALUE"
		if strings.Contains(before, "#") || strings.Contains(before+after, secret) || !strings.Contains(before, "?") {
			t.Skip()
		}
		if got := errorlog.RedactURL(before + "&token=" + secret + "&" + after); strings.Contains(got, secret) {
			t.Errorf("RedactURL lets the token through: %q", got)
		}
	})
}

func BenchmarkHandle(b *testing.B) {
	l := errorlog.New(errorlog.Options{Dir: b.TempDir()})
	log := slog.New(l)
	b.ReportAllocs()
	for b.Loop() {
		log.Warn("refused", "remote", "127.0.0.1", "reason", "token")
	}
}
