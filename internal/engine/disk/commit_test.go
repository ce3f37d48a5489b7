package disk

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// busyWhile keeps the committer from everything while f runs.
func busyWhile(t *testing.T, s *Store, f func()) {
	t.Helper()
	if err := s.queue.run(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// outcomes collects results in the order in which they are told.
type outcomes struct {
	mu   sync.Mutex
	list []engine.Result
	more chan struct{}
}

func newOutcomes() *outcomes { return &outcomes{more: make(chan struct{}, 1000)} }

func (o *outcomes) done(r engine.Result) {
	o.mu.Lock()
	o.list = append(o.list, r)
	o.mu.Unlock()
	o.more <- struct{}{}
}

func (o *outcomes) wait(t *testing.T, n int) []engine.Result {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		o.mu.Lock()
		list := slices.Clone(o.list)
		o.mu.Unlock()
		if len(list) >= n {
			return list
		}
		select {
		case <-o.more:
		case <-timeout:
			t.Fatalf("%d outcomes of %d", len(list), n)
		}
	}
}

func TestWhatWaitsIsCommittedTogetherAndInOrder(t *testing.T) {
	s, _ := open(t, Options{Dir: t.TempDir(), Policy: kept})
	got := newOutcomes()
	before := s.Stats().Commits
	busyWhile(t, s, func() {
		for i := range 100 {
			s.Node("a").Append(message(keptChannel("c"), engine.ID{}, fmt.Sprint(i)), got.done)
		}
	})
	list := got.wait(t, 100)
	for i := range list {
		if list[i].Err != nil || i > 0 && list[i].Serials[0] <= list[i-1].Serials[0] {
			t.Fatalf("outcome %d: %+v", i, list[i])
		}
	}
	if n := s.Stats().Commits - before; n != 1 {
		t.Errorf("%d commits", n)
	}
	if n := len(texts(t, s, keptChannel("c"))); n != 100 {
		t.Errorf("%d entries", n)
	}
}

func TestWithinAGroupRepeatsAndPreconditionsSeeWhatIsStaged(t *testing.T) {
	s, _ := open(t, Options{Dir: t.TempDir(), Policy: kept})
	ch := keptChannel("c")
	key := engine.RecordKey{Space: engine.RecordObject, Key: "k"}
	put := func(revision uint64, value string) *engine.Append {
		a := message(ch, engine.ID{}, value)
		a.Preconditions = []engine.Precondition{{RecordKey: key, Revision: revision}}
		a.Puts = []engine.Put{{RecordKey: key, Value: []byte(value), Entry: 0}}
		a.Bounds = []engine.Bound{{Space: engine.RecordObject, MaxRecords: 1}}
		return a
	}
	other := put(0, "other")
	other.Preconditions = nil
	other.Puts[0].Key = "another"
	got := newOutcomes()
	busyWhile(t, s, func() {
		for _, a := range []*engine.Append{
			message(ch, engine.ID{ConnectionID: "conn", MsgSerial: 1, Client: "chosen"}, "first"),
			message(ch, engine.ID{ConnectionID: "conn", MsgSerial: 1}, "again"),
			message(ch, engine.ID{Client: "chosen"}, "again"),
			put(0, "one"),
			put(0, "two"),
			other,
		} {
			s.Node("a").Append(a, got.done)
		}
	})
	list := got.wait(t, 6)
	for i, r := range list[:3] {
		if r.Err != nil || r.Repeated != (i > 0) || !slices.Equal(r.Serials, list[0].Serials) {
			t.Errorf("outcome %d: %+v", i, r)
		}
	}
	if list[3].Err != nil || !errors.Is(list[4].Err, engine.ErrPrecondition) || !errors.Is(list[5].Err, engine.ErrTooManyRecords) {
		t.Errorf("got %+v", list[3:])
	}
	if got := texts(t, s, ch); strings.Join(got, " ") != "first one" {
		t.Errorf("log: %q", got)
	}
}

func TestAFailedCommitLeavesNothingBehind(t *testing.T) {
	c := newClock()
	var away atomic.Bool
	s, _ := open(t, Options{Dir: t.TempDir(), Policy: kept, Now: c.Now, commit: func(tx *bbolt.Tx) error {
		if away.Load() {
			return errors.New("no such disk")
		}
		return tx.Commit()
	}})
	ch := keptChannel("c")
	mustAppend(t, s, message(ch, engine.ID{}, "before"))
	live := &recorder{}
	sub, position, err := s.Node("a").Subscribe(t.Context(), ch, live)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()

	away.Store(true)
	got := newOutcomes()
	busyWhile(t, s, func() {
		for i := range 3 {
			s.Node("a").Append(message(ch, engine.ID{ConnectionID: "conn", MsgSerial: int64(i)}, "lost"), got.done)
		}
		s.Node("a").Append(message(ch, engine.ID{ConnectionID: "conn", MsgSerial: 0}, "lost"), got.done)
	})
	for i, r := range got.wait(t, 4) {
		if !errors.Is(r.Err, engine.ErrUnavailable) || r.Repeated || len(r.Serials) > 0 {
			t.Errorf("outcome %d: %+v", i, r)
		}
	}
	away.Store(false)
	if r := result(t, s, message(ch, engine.ID{}, "at once")); !errors.Is(r.Err, engine.ErrUnavailable) {
		t.Errorf("right after it: %+v", r)
	}
	if got := s.Stats(); got.Failed != 1 {
		t.Errorf("%d commits failed", got.Failed)
	}
	c.Advance(2 * retryAfter)
	if r := mustAppend(t, s, message(ch, engine.ID{ConnectionID: "conn", MsgSerial: 1}, "after")); r.Repeated {
		t.Error("the id of what was refused is known")
	}
	if got := texts(t, s, ch); strings.Join(got, " ") != "before after" {
		t.Errorf("log: %q", got)
	}
	page, err := s.Node("a").Read(t.Context(), ch, engine.Query{After: position, Exact: true, Limit: 10})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Prev != position {
		t.Errorf("exactly after the last: %+v, %v", page, err)
	}
	if live := live.names(); strings.Join(live, " ") != "after" {
		t.Errorf("delivered: %q", live)
	}
}

// TestWhatIsInTheFileIsNeverReportedAsRefused: the meta page was written, and its fsync failed.
func TestWhatIsInTheFileIsNeverReportedAsRefused(t *testing.T) {
	var faulty atomic.Bool
	s, _ := open(t, Options{Dir: t.TempDir(), Policy: kept, commit: func(tx *bbolt.Tx) error {
		err := tx.Commit()
		if err == nil && faulty.CompareAndSwap(true, false) {
			err = syscall.EIO
		}
		return err
	}})
	ch := keptChannel("c")
	live := &recorder{}
	sub, _, err := s.Node("a").Subscribe(t.Context(), ch, live)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	faulty.Store(true)
	a := message(ch, engine.ID{ConnectionID: "conn", MsgSerial: 1}, "m")
	if r := result(t, s, a); !errors.Is(r.Err, engine.ErrUnknownOutcome) {
		t.Errorf("got %+v", r)
	}
	if got := live.names(); strings.Join(got, " ") != "m" {
		t.Errorf("delivered: %q", got)
	}
	deadline := time.Now().Add(30 * time.Second)
	r := result(t, s, a)
	for ; r.Err != nil && time.Now().Before(deadline); r = result(t, s, a) {
		time.Sleep(10 * time.Millisecond) // it refuses everything for a moment
	}
	if r.Err != nil || !r.Repeated {
		t.Errorf("again: %+v", r)
	}
	if got := texts(t, s, ch); strings.Join(got, " ") != "m" {
		t.Errorf("log: %q", got)
	}
}

// recorder is a Subscriber that keeps the names of what it is given.
type recorder struct {
	mu      sync.Mutex
	got     []string
	flushed int
}

func (r *recorder) Deliver(entries []*engine.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.got = append(r.got, e.Body.Messages[0].Name)
	}
}

func (r *recorder) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushed = len(r.got)
}

func (r *recorder) Lost(pubsub.Serial) {}

func (r *recorder) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func TestADiskThatDoesNotAnswerIsNotWaitedForBeyondTheDeadline(t *testing.T) {
	c := newClock()
	s, _ := open(t, Options{Dir: t.TempDir(), Policy: kept, Now: c.Now, QueueBytes: 10_000})
	ch := keptChannel("c")
	stuck, err := s.db.Begin(true) // nobody else can write
	if err != nil {
		t.Fatal(err)
	}
	publish := func(n int64, size int, done func(engine.Result)) {
		a := message(ch, engine.ID{ConnectionID: "conn", MsgSerial: n}, strings.Repeat("x", size))
		a.Deadline = c.Now().Add(time.Second)
		s.Node("a").Append(a, done)
	}
	got := newOutcomes()
	publish(0, 10, got.done)
	for s.queue.waiting() > 0 { // until the committer has it
		time.Sleep(time.Millisecond)
	}
	publish(1, 10, got.done)
	publish(2, 20_000, got.done)
	publish(3, 10, got.done)
	c.Advance(2 * time.Second)
	list := got.wait(t, 4)
	for i, want := range []error{engine.ErrUnknownOutcome, engine.ErrDeadline, engine.ErrFull, engine.ErrDeadline} {
		if !errors.Is(list[i].Err, want) {
			t.Errorf("outcome %d: %v, want %v", i, list[i].Err, want)
		}
	}
	if err := stuck.Rollback(); err != nil {
		t.Fatal(err)
	}
	// Appending it again finds out what became of it: it was too late by then.
	r := newOutcomes()
	publish(0, 10, r.done)
	if r := r.wait(t, 1)[0]; r.Err != nil {
		t.Errorf("again: %+v", r)
	}
	if n := len(texts(t, s, ch)); n != 1 {
		t.Errorf("%d entries", n)
	}
	if len(got.wait(t, 4)) != 4 {
		t.Error("an outcome was told twice")
	}
}

func TestAppendsAfterTheEndAreRefusedAndThoseBeforeAreNot(t *testing.T) {
	dir := t.TempDir()
	s, stop := open(t, Options{Dir: dir, Policy: kept})
	got := newOutcomes()
	const n = 300
	for i := range n {
		s.Node("a").Append(message(keptChannel("c"), engine.ID{}, fmt.Sprint(i)), got.done)
	}
	stop()
	for i, r := range got.wait(t, n) {
		if r.Err != nil {
			t.Fatalf("outcome %d: %v", i, r.Err)
		}
	}
	if r := result(t, s, message(keptChannel("c"), engine.ID{}, "late")); !errors.Is(r.Err, engine.ErrClosed) {
		t.Errorf("got %+v", r)
	}
	if _, err := s.Node("a").Read(t.Context(), keptChannel("c"), engine.Query{Limit: 1}); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	s, _ = open(t, Options{Dir: dir, Policy: kept})
	if got := texts(t, s, keptChannel("c")); len(got) != n {
		t.Errorf("%d entries", len(got))
	}
}

func TestAChannelThatBecomesPersistedTakesItsPastAlong(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	policy := engine.Policy{}
	var mu sync.Mutex
	opts := Options{Dir: dir, Now: c.Now, Policy: func(pubsub.ChannelID) engine.Policy {
		mu.Lock()
		defer mu.Unlock()
		return policy
	}}
	become := func(s *Store, p engine.Policy) {
		mu.Lock()
		policy = p
		mu.Unlock()
		s.mem.Sweep()
	}
	s, stop := open(t, opts)
	ch := keptChannel("c")
	key := engine.RecordKey{Space: engine.RecordObject, Key: "k"}
	member := engine.RecordKey{Space: engine.RecordPresence, Key: "m"}
	one := message(ch, engine.ID{}, "one")
	one.Puts = []engine.Put{{RecordKey: key, Value: []byte("v"), Entry: 0}, {RecordKey: member, Value: []byte("m"), Entry: 0, Transient: true}}
	first := mustAppend(t, s, one)
	mustAppend(t, s, message(ch, engine.ID{ConnectionID: "conn", MsgSerial: 1}, "two"))
	was, _, _ := s.Node("a").Record(t.Context(), ch, key)
	become(s, engine.Policy{Retention: time.Hour})
	expect := func(s *Store, want string, members bool) {
		t.Helper()
		if got := texts(t, s, ch); strings.Join(got, " ") != want {
			t.Errorf("log: %q, want %q", got, want)
		}
		r, ok, err := s.Node("a").Record(t.Context(), ch, key)
		if !ok || err != nil || r.Revision != was.Revision || r.Serial != was.Serial {
			t.Errorf("record: %+v, %v, %v; was %+v", r, ok, err, was)
		}
		if _, ok, err := s.Node("a").Record(t.Context(), ch, member); ok != members || err != nil {
			t.Errorf("member: %v, %v", ok, err)
		}
	}
	expect(s, "one two", true)
	stale := message(ch, engine.ID{}, "stale")
	stale.Preconditions = []engine.Precondition{{RecordKey: key, Revision: was.Revision + 1}}
	if r := result(t, s, stale); !errors.Is(r.Err, engine.ErrPrecondition) {
		t.Errorf("a stale precondition: %+v", r)
	}
	expect(s, "one two", true)
	guarded := message(ch, engine.ID{}, "three")
	guarded.Preconditions = []engine.Precondition{{RecordKey: key, Revision: was.Revision}}
	mustAppend(t, s, guarded)
	if r := mustAppend(t, s, message(ch, engine.ID{ConnectionID: "conn", MsgSerial: 1}, "again")); !r.Repeated {
		t.Errorf("a publish of before is not known: %+v", r)
	}
	expect(s, "one two three", true)
	stop()

	s, stop = open(t, opts)
	expect(s, "one two three", false)
	page, err := s.Node("a").Read(t.Context(), ch, engine.Query{After: first.Serials[0], Exact: true, Limit: 10})
	if err != nil || len(page.Entries) != 2 {
		t.Errorf("exactly after the first: %d entries, %v", len(page.Entries), err)
	}
	// Not persisted any more, the channel stays what it is until it is forgotten.
	become(s, engine.Policy{})
	mustAppend(t, s, message(ch, engine.ID{}, "four"))
	expect(s, "one two three four", false)
	stop()
	c.Advance(engine.LiveWindow + time.Second)
	s, _ = open(t, opts)
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, s, ch); len(got) != 0 {
		t.Errorf("log of a channel that is not persisted: %q", got)
	}
}

func TestSerialsGrowOverARestartWithAClockThatRanBack(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	var last pubsub.Serial
	var epochs []string
	for i := range 6 {
		s, stop := open(t, Options{Dir: dir, Policy: kept, Now: c.Now})
		for range 3 {
			r := mustAppend(t, s, message(keptChannel("c"), engine.ID{}, "m"))
			if r.Serials[0] <= last {
				t.Fatalf("serial %s after %s", r.Serials[0], last)
			}
			last = r.Serials[0]
		}
		page, err := s.Node("a").Read(t.Context(), keptChannel("c"), engine.Query{After: last, Exact: true, Limit: 1})
		if err != nil || page.Tail != last {
			t.Fatalf("tail %s, %v; want %s", page.Tail, err, last)
		}
		if epochs = append(epochs, last.Epoch()); slices.Contains(epochs[:i], last.Epoch()) {
			t.Errorf("an epoch comes again: %q", epochs)
		}
		// A position of another life that never was.
		ms, counter, _, _ := pubsub.ParseSerial(string(last))
		for epoch, want := range map[string]error{epochs[0]: engine.ErrGone, "zzzzzzzz": engine.ErrForeign} {
			p := pubsub.MakeSerial(ms-1, counter, epoch)
			if _, err := s.Node("a").Read(t.Context(), keptChannel("c"), engine.Query{After: p, Exact: true, Limit: 1}); i < 2 && !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", p, err, want)
			}
		}
		stop()
		c.Advance(-time.Hour)
	}
	s, _ := open(t, Options{Dir: dir, Policy: kept, Now: c.Now})
	if got := texts(t, s, keptChannel("c")); len(got) != 18 {
		t.Errorf("%d entries", len(got))
	}
}
