package disk

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// segments counts those of all logs.
func segments(t *testing.T, s *Store) (n int) {
	t.Helper()
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketLog).ForEach(func(_, _ []byte) error { n++; return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func sweep(t *testing.T, s *Store) {
	t.Helper()
	s.mem.Sweep()
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRetentionDropsSegmentsAndLeavesTheBoundary(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	opts := Options{Dir: dir, Policy: func(pubsub.ChannelID) engine.Policy { return engine.Policy{Retention: 3 * time.Hour} }, Now: c.Now, noSync: true}
	s, stop := open(t, opts)
	busy, quiet := keptChannel("busy"), keptChannel("quiet")
	var positions []pubsub.Serial
	payload := strings.Repeat("x", 20_000)
	for hour := range 6 {
		for i := range 120 { // 2.4 MB, which is three segments
			r := mustAppend(t, s, message(busy, engine.ID{}, fmt.Sprint(hour, "/", i, "/", payload)))
			if i == 119 {
				positions = append(positions, r.Serials[0])
			}
		}
		mustAppend(t, s, message(quiet, engine.ID{}, fmt.Sprint(hour)))
		c.Advance(time.Hour)
	}
	if n := segments(t, s); n < 6*3+6 {
		t.Errorf("%d segments", n)
	}
	// What is too old is not seen, although it is there.
	if got := texts(t, s, quiet); strings.Join(got, " ") != "3 4 5" {
		t.Errorf("before the sweep: %q", got)
	}
	exactly := func(hour int, want error) {
		t.Helper()
		page, err := s.Node("a").Read(t.Context(), busy, engine.Query{After: positions[hour], Exact: true, Limit: 1})
		if !errors.Is(err, want) || err == nil && len(page.Entries) == 1 && page.Entries[0].Prev != positions[hour] {
			t.Errorf("exactly after hour %d: %v, want %v", hour, err, want)
		}
	}
	for range 2 {
		exactly(1, engine.ErrGone)
		exactly(2, nil) // the boundary
		exactly(3, nil)
		exactly(5, nil)
		sweep(t, s)
	}
	if n := segments(t, s); n < 3*3 || n > 4*4 {
		t.Errorf("%d segments after the sweep", n)
	}
	used := s.Stats()
	if used.FreeBytes < 5<<20 {
		t.Errorf("%d bytes are free after the sweep", used.FreeBytes)
	}
	stop()

	s, stop = open(t, opts)
	exactly(1, engine.ErrGone)
	exactly(2, nil)
	if got := s.Stats(); got.FreeBytes < used.FreeBytes*9/10 {
		t.Errorf("%d bytes are free after a restart, there were %d", got.FreeBytes, used.FreeBytes)
	}
	tail := positions[5]
	c.Advance(24 * time.Hour)
	for range 3 { // memory forgets the channels, then the database does
		sweep(t, s)
		c.Advance(engine.LiveWindow + time.Second)
	}
	if err := s.view(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketIDs).Cursor().First(); k != nil {
			t.Error("a channel that holds nothing is still known")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	stop()
	c.Advance(-48 * time.Hour) // now before everything that was
	s, _ = open(t, opts)
	if r := mustAppend(t, s, message(busy, engine.ID{}, "new")); r.Serials[0] <= tail {
		t.Errorf("serial %s after %s", r.Serials[0], tail)
	}
}

// TestASweepLetsOthersCommitInBetween: a job drops one segment, and after each job the committer
// takes what was appended meanwhile.
func TestASweepLetsOthersCommitInBetween(t *testing.T) {
	c := newClock()
	s, _ := open(t, Options{Dir: t.TempDir(), Policy: kept, Now: c.Now, noSync: true})
	for i := range 200 {
		mustAppend(t, s, message(keptChannel("c"), engine.ID{}, fmt.Sprint(i, strings.Repeat("x", 50_000))))
	}
	c.Advance(25 * time.Hour)
	all := segments(t, s)
	if all < 8 {
		t.Fatalf("%d segments", all)
	}
	var drop []old
	err := s.view(func(tx *bbolt.Tx) (err error) {
		drop, _, err = s.findOld(tx, nil)
		return err
	})
	if err != nil || len(drop) != all {
		t.Fatalf("%d of %d segments are old, %v", len(drop), all, err)
	}
	for i, p := range drop[:3] {
		if err := s.drop([]old{p}); err != nil {
			t.Fatal(err)
		}
		if n := segments(t, s); n != all-i-1 {
			t.Errorf("%d segments of %d after %d jobs", n, all, i+1)
		}
	}
	var q queue
	q.init()
	for range 2 {
		go func() { _ = q.run(func() error { return nil }) }()
	}
	for n := 0; n < 2; {
		q.mu.Lock()
		n = len(q.jobs)
		q.mu.Unlock()
	}
	for range 2 {
		q.add(&item{}, 1000)
		items, j := q.take(10)
		if len(items) != 1 || j == nil {
			t.Errorf("taken: %d items, job %v", len(items), j)
		}
		j.done <- j.f()
	}
}

func TestRecordsThatEndedAreRemoved(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	opts := Options{Dir: dir, Policy: keptByName, Now: c.Now, noSync: true}
	s, stop := open(t, opts)
	ch := keptChannel("kept:c")
	const n = 3000
	for i := range n / 10 {
		a := message(ch, engine.ID{}, "m")
		for k := range 10 {
			a.Puts = append(a.Puts, engine.Put{
				RecordKey: engine.RecordKey{Space: engine.RecordPresence, Key: fmt.Sprintf("%06d", i*10+k)}, Value: []byte("v"), Entry: 0,
				Transient: k < 5, Expire: time.Duration(k/9) * time.Minute, // one of ten expires
			})
		}
		mustAppend(t, s, a)
	}
	stored := func() (n int) {
		_ = s.view(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketRecords).ForEach(func(_, _ []byte) error { n++; return nil })
		})
		return n
	}
	if got := stored(); got != n {
		t.Fatalf("%d records", got)
	}
	stop()
	s, _ = open(t, opts)
	c.Advance(2 * time.Minute)
	records, err := s.Node("a").Records(t.Context(), ch, engine.RecordPresence, "", n)
	if err != nil || len(records) != n*4/10 {
		t.Errorf("%d records are seen, %v", len(records), err)
	}
	for range n/sweepKeys + 2 {
		sweep(t, s)
	}
	if got := stored(); got != n*4/10 {
		t.Errorf("%d records are stored after sweeps", got)
	}
}

func TestAChannelThatIsNotPersistedAnyMoreStaysForADay(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	right := Options{Dir: dir, Policy: kept, Now: c.Now, noSync: true}
	wrong := Options{Dir: dir, Now: c.Now, noSync: true}
	s, stop := open(t, right)
	a := message(keptChannel("c"), engine.ID{}, "m")
	key := engine.RecordKey{Space: engine.RecordObject, Key: "k"}
	a.Puts = []engine.Put{{RecordKey: key, Value: []byte("v"), Entry: 0}}
	mustAppend(t, s, a)
	stop()
	for _, hours := range []int{12, 13} {
		c.Advance(time.Duration(hours) * time.Hour)
		s, stop = open(t, wrong)
		sweep(t, s)
		if got := texts(t, s, keptChannel("c")); len(got) != 0 {
			t.Errorf("a channel that is not persisted: %q", got)
		}
		stop()
		s, stop = open(t, right)
		_, found, err := s.Node("a").Record(t.Context(), keptChannel("c"), key)
		if err != nil || found != (hours == 12) {
			t.Errorf("after %d hours more: record %v, %v", hours, found, err)
		}
		if n := segments(t, s); n != 0 != (hours == 12) {
			t.Errorf("after %d hours more: %d segments", hours, n)
		}
		stop()
	}
}
