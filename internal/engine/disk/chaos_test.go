package disk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// roleVariable makes the test's binary one of children, a process of its own that can be
// killed.
const roleVariable = "LETSHARE_TEST_DISK_ROLE"

var children = map[string]func(){"publish": publishUntilKilled, "step": commitStepByStep, "full": fillTheDisk}

// rounds is how often a fault is injected: CHAOS times, or a few.
func rounds(t *testing.T, few int) int {
	if n, err := strconv.Atoi(os.Getenv("CHAOS")); err == nil {
		return n
	}
	if testing.Short() {
		t.Skip("takes seconds")
	}
	return few
}

// child is a process of this binary.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	err bytes.Buffer
}

func start(t *testing.T, role string, args ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0], args...)}
	c.Env = append(os.Environ(), roleVariable+"="+role)
	c.Stderr = &c.err
	out, err := c.StdoutPipe()
	if err == nil {
		c.in, err = c.StdinPipe()
	}
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	hung := time.AfterFunc(2*time.Minute, func() { _ = c.Process.Kill() })
	t.Cleanup(func() {
		hung.Stop()
		_ = c.Process.Kill() // it has ended, mostly
		_ = c.Wait()
	})
	return c
}

// line is the child's next line.
func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		t.Fatalf("the child ended: %s", c.err.String())
	}
	return c.out.Text()
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// running opens and runs a store for a child, for as long as that lives.
func running(opts Options) *Store {
	s := NewStore(opts)
	fatal(s.Open())
	go func() { fatal(s.Run(context.Background())) }()
	return s
}

const (
	publishers  = 12
	publishedTo = 5 // channels
	window      = 4 // publishes in flight of one publisher
)

func publisherChannel(p int) pubsub.ChannelID { return keptChannel(fmt.Sprint("kept:", p%publishedTo)) }

// report is a line of a child that publishes.
type report struct {
	Publisher int
	Number    int64
	Serial    pubsub.Serial // empty: it was refused
}

// publishUntilKilled goes on after the numbers that were acknowledged, as a client does that
// lost its connection: it sends what has no outcome again, with its id. Now and then it tries
// what must be refused.
func publishUntilKilled() {
	s := running(Options{Dir: os.Args[1], Policy: kept, SweepInterval: 50 * time.Millisecond})
	var from []int64
	fatal(json.Unmarshal([]byte(os.Args[2]), &from))
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		fatal(out.Encode(r))
	}
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
			e := s.Node("a")
			free := make(chan struct{}, window)
			for n := from[p] + 1; ; n++ {
				free <- struct{}{}
				a := message(publisherChannel(p), engine.ID{ConnectionID: fmt.Sprint("p", p), MsgSerial: n}, fmt.Sprintf("%d/%d/%s", p, n, strings.Repeat("x", rng.IntN(2000))))
				e.Append(a, func(r engine.Result) {
					fatal(r.Err)
					say(report{p, n, r.Serials[0]})
					<-free
				})
				if rng.IntN(5) == 0 {
					refused := message(publisherChannel(p), engine.ID{Client: fmt.Sprint("refused", rng.Uint64())}, "refused")
					if rng.IntN(2) == 0 {
						refused.Deadline = time.Now().Add(-time.Second)
					} else {
						refused.Preconditions = []engine.Precondition{{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: "none"}, Revision: 7}}
					}
					e.Append(refused, func(r engine.Result) {
						if r.Err == nil {
							fatal(errors.New("what must be refused is not"))
						}
						say(report{Publisher: p})
					})
				}
			}
		})
	}
	all.Wait()
}

// TestWhatWasAcknowledgedSurvivesKill kills a process with -9 while it publishes, again and
// again.
func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	from := make([]int64, publishers)
	for p := range from {
		from[p] = -1
	}
	serials := make([][]pubsub.Serial, publishers) // by number
	acknowledged, refused, found := 0, 0, 0
	for round := range rounds(t, 10) {
		args, err := json.Marshal(from)
		if err != nil {
			t.Fatal(err)
		}
		c := start(t, "publish", dir, string(args))
		kill := func() { _ = c.Process.Signal(syscall.SIGKILL) }
		var timer *time.Timer
		for c.out.Scan() {
			if timer == nil { // it works
				timer = time.AfterFunc(rand.N(60*time.Millisecond), kill)
			}
			var r report
			if err := json.Unmarshal(c.out.Bytes(), &r); err != nil {
				break // cut by the kill
			}
			if r.Serial == "" {
				refused++
				continue
			}
			if r.Number != from[r.Publisher]+1 {
				t.Fatalf("round %d: publisher %d: number %d is acknowledged after %d", round, r.Publisher, r.Number, from[r.Publisher])
			}
			from[r.Publisher]++
			serials[r.Publisher] = append(serials[r.Publisher], r.Serial)
			acknowledged++
		}
		_ = c.Wait()
		if c.ProcessState.Exited() {
			t.Fatalf("round %d: the child ended by itself: %s", round, c.err.String())
		}
		found = expectPublished(t, dir, serials)
	}
	t.Logf("acknowledged %d, refused %d, lost 0, duplicated 0; %d in the log", acknowledged, refused, found)
	if acknowledged == 0 || refused == 0 {
		t.Error("nothing happened")
	}
}

// expectPublished opens the directory and looks for exactly what was acknowledged, and what has
// no outcome yet.
func expectPublished(t *testing.T, dir string, serials [][]pubsub.Serial) (found int) {
	t.Helper()
	s, stop := open(t, Options{Dir: dir, Policy: kept})
	defer stop()
	next := make([]int64, publishers)
	for ch := range publishedTo {
		var before pubsub.Serial
		q := engine.Query{Limit: 500}
		for more := true; more; {
			page, err := s.Node("a").Read(t.Context(), publisherChannel(ch), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Entries {
				if before != "" && e.Prev != before || e.Serial <= before {
					t.Fatalf("entry %s names %s before it, which is %s", e.Serial, e.Prev, before)
				}
				before, q.After = e.Serial, e.Serial
				found++
				var p, n int64
				if _, err := fmt.Sscanf(e.Body.Messages[0].Name, "%d/%d/", &p, &n); err != nil {
					t.Fatalf("%.20q was refused and is in the log", e.Body.Messages[0].Name)
				}
				if n != next[p] {
					t.Fatalf("publisher %d: number %d is in the log where %d belongs", p, n, next[p])
				}
				next[p]++
				if n < int64(len(serials[p])) && serials[p][n] != e.Serial {
					t.Fatalf("publisher %d: number %d has serial %s, acknowledged as %s", p, n, e.Serial, serials[p][n])
				}
			}
			more = page.More
		}
	}
	for p, n := range next {
		if n < int64(len(serials[p])) {
			t.Fatalf("publisher %d: %d are in the log, %d were acknowledged", p, n, len(serials[p]))
		}
		if n > int64(len(serials[p])+window) {
			t.Fatalf("publisher %d: %d are in the log, %d were acknowledged and %d more sent at most", p, n, len(serials[p]), window)
		}
	}
	return found
}

const stepAppends = 100

// commitStepByStep commits one group for each line that it reads.
func commitStepByStep() {
	s := running(Options{Dir: os.Args[1], Policy: kept, mapBytes: 1, SweepInterval: time.Hour})
	in := bufio.NewScanner(os.Stdin)
	for step := 0; ; step++ {
		fmt.Println("at rest")
		if !in.Scan() {
			return
		}
		var all sync.WaitGroup
		all.Add(stepAppends)
		// In one transaction, since the committer is busy with this meanwhile.
		_ = s.queue.run(func() error {
			for i := range stepAppends {
				s.Node("a").Append(message(keptChannel(fmt.Sprint("kept:", i%3)), engine.ID{}, fmt.Sprintf("%d/%d/%s", step, i, strings.Repeat("x", rand.IntN(1000)))), func(r engine.Result) {
					fatal(r.Err)
					all.Done()
				})
			}
			return nil
		})
		all.Wait()
	}
}

// TestAPowerLossDuringACommitLosesNothingBeforeIt stops a process in the middle of a commit and
// opens what a power loss could leave of its file: of what was written since the last fsync any
// part.
func TestAPowerLossDuringACommitLosesNothingBeforeIt(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	read := func() []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	c := start(t, "step", dir)
	var data, meta, whole int
	for step := range rounds(t, 12) {
		c.line(t) // at rest
		before := read()
		if _, err := io.WriteString(c.in, "go\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(3 * time.Millisecond)) // somewhere in the commit, or just before or after
		pause(t, c)
		during := read()
		if err := c.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		const pages = 2 * 4096
		if !bytes.Equal(before[:pages], during[:pages]) {
			// The data is durable; of the page that makes it valid the old or the new.
			meta++
			expectSteps(t, during, step+1)
			copy(during[:pages], before[:pages])
			expectSteps(t, during, step)
			continue
		}
		if bytes.Equal(before, during[:min(len(before), len(during))]) && len(before) == len(during) {
			whole++
		} else {
			data++
		}
		for range 3 {
			torn := slices.Clone(during)
			const sector = 512
			for at := 0; at+sector <= len(torn); at += sector {
				if rng.IntN(2) == 0 {
					if at+sector <= len(before) {
						copy(torn[at:at+sector], before[at:])
					} else {
						clear(torn[at : at+sector])
					}
				}
			}
			expectSteps(t, torn, step)
		}
	}
	t.Logf("stopped before a commit wrote anything: %d, while it wrote data: %d, after it wrote the meta page: %d", whole, data, meta)
}

// pause returns when all threads of the child stand still.
func pause(t *testing.T, c *child) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for moving := true; moving; {
		moving = false
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.Process.Pid))
		if err != nil || len(tasks) == 0 {
			t.Skip("there is no /proc to see when a process has stopped")
		}
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				continue // the thread has ended
			}
			_, state, _ := bytes.Cut(b, []byte(") "))
			moving = moving || len(state) > 0 && state[0] != 'T' && state[0] != 'Z'
		}
		if time.Now().After(deadline) {
			t.Fatal("the child does not stop")
		}
	}
}

// expectSteps opens a file and looks for all of some steps and nothing more.
func expectSteps(t *testing.T, file []byte, steps int) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, stop := open(t, Options{Dir: dir, Policy: kept, mapBytes: 1, noSync: true})
	defer stop()
	found := make(map[string]bool)
	for ch := range 3 {
		for _, text := range texts(t, s, keptChannel(fmt.Sprint("kept:", ch))) {
			name, _, _ := strings.Cut(text, "/x")
			found[strings.TrimSuffix(name, "/")] = true
		}
	}
	for step := range steps {
		for i := range stepAppends {
			if name := fmt.Sprintf("%d/%d", step, i); !found[name] {
				t.Fatalf("after %d steps %s is lost", steps, name)
			}
		}
	}
	if len(found) != steps*stepAppends {
		t.Fatalf("after %d steps there are %d entries", steps, len(found))
	}
}

// fillTheDisk says what happens when its file may not grow, and when it may again.
func fillTheDisk() {
	signal.Ignore(syscall.SIGXFSZ)
	s := running(Options{Dir: os.Args[1], Policy: keptByName, mapBytes: 1, SweepInterval: time.Hour})
	var was syscall.Rlimit
	fatal(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was))
	limit := was
	limit.Cur = 300 << 10
	fatal(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	e := s.Node("a")
	publish := func(ch pubsub.ChannelID, n int64) engine.Result {
		got := make(chan engine.Result, 1)
		e.Append(message(ch, engine.ID{ConnectionID: "c", MsgSerial: n}, fmt.Sprintf("%d/%s", n, strings.Repeat("x", 5000))), func(r engine.Result) { got <- r })
		return <-got
	}
	acknowledged := int64(0)
	var r engine.Result
	for ; r.Err == nil; acknowledged++ {
		r = publish(keptChannel("kept:c"), acknowledged)
	}
	acknowledged--
	fmt.Println("full:", errors.Is(r.Err, engine.ErrFull), acknowledged > 10, r.Err)
	page, err := e.Read(context.Background(), keptChannel("kept:c"), engine.Query{Limit: 1000})
	fmt.Println("read:", err, int64(len(page.Entries)) == acknowledged)
	fmt.Println("others:", publish(keptChannel("free"), 0).Err)
	fmt.Println("ready:", e.Ready(context.Background()))
	fatal(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was))
	for r = publish(keptChannel("kept:c"), acknowledged); r.Err != nil; {
		r = publish(keptChannel("kept:c"), acknowledged)
		time.Sleep(10 * time.Millisecond) // until it tries again
	}
	page, err = e.Read(context.Background(), keptChannel("kept:c"), engine.Query{Limit: 1000})
	fmt.Println("again:", err, int64(len(page.Entries)) == acknowledged+1, r.Repeated)
}

func TestAFullDiskRefusesAndIsUsedAgainWhenThereIsRoom(t *testing.T) {
	dir := t.TempDir()
	c := start(t, "full", dir)
	for _, want := range []string{
		"full: true true engine: storage budget used up: file too large",
		"read: <nil> true", "others: <nil>", "ready: <nil>", "again: <nil> true false",
	} {
		if got := c.line(t); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, c.err.String())
	}
	s, _ := open(t, Options{Dir: dir, Policy: keptByName})
	for i, text := range texts(t, s, keptChannel("kept:c")) {
		if !strings.HasPrefix(text, fmt.Sprint(i, "/")) {
			t.Fatalf("entry %d is %.10q", i, text)
		}
	}
}
