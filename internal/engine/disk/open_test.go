package disk

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var update = flag.Bool("update", false, "write testdata anew")

func keptChannel(name string) pubsub.ChannelID { return pubsub.ChannelID{App: "app", Name: name} }

func message(ch pubsub.ChannelID, id engine.ID, text string) *engine.Append {
	return &engine.Append{Channel: ch, ID: id, Entries: []engine.Draft{{
		Kind: engine.KindMessage, Body: &pubsub.Batch{ID: "b", Messages: []*pubsub.Message{{Name: text}}},
	}}}
}

// result appends and waits.
func result(t testing.TB, s *Store, a *engine.Append) engine.Result {
	t.Helper()
	got := make(chan engine.Result, 1)
	s.Node("a").Append(a, func(r engine.Result) { got <- r })
	select {
	case r := <-got:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("no outcome")
		panic("unreachable")
	}
}

func mustAppend(t testing.TB, s *Store, a *engine.Append) engine.Result {
	t.Helper()
	r := result(t, s, a)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return r
}

// texts is the log of a channel.
func texts(t testing.TB, s *Store, ch pubsub.ChannelID) (out []string) {
	t.Helper()
	q := engine.Query{Limit: 1000}
	for {
		page, err := s.Node("a").Read(context.Background(), ch, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			out = append(out, e.Body.Messages[0].Name)
			q.After = e.Serial
		}
		if !page.More {
			return out
		}
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Dir: dir, Policy: kept})
	err := NewStore(Options{Dir: dir}).Open()
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), filepath.Join(dir, LockName)) {
		t.Errorf("got %v", err)
	}
	for what, err := range map[string]error{
		"restore": second(Restore(dir, strings.NewReader(""))),
		"compact": third(Compact(dir)),
	} {
		if !errors.Is(err, ErrInUse) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

func TestFilesThatAreNoneOfOursAreRefusedAndNotChanged(t *testing.T) {
	bolt := func(f func(tx *bbolt.Tx) error) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(f), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	format := func(value string) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket(bucketStore)
			if err != nil {
				return err
			}
			return b.Put(keyFormat, []byte(value))
		}
	}
	for _, c := range []struct {
		what, want string
		make       func(t *testing.T, path string)
	}{
		{"a later format", "format version 2, made by a later release; this one knows 1", bolt(format("2"))},
		{"an earlier format", "format version 0, which this release reads no more", bolt(format("0"))},
		{"no format", "no format version", bolt(format(""))},
		{"another program's", "another program's", bolt(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("theirs"))
			return err
		})},
		{"no database", "not a database", func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("text "), 10_000), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"cut", "bytes of", func(t *testing.T, path string) {
			s, stop := open(t, Options{Dir: filepath.Dir(path), Policy: kept})
			mustAppend(t, s, message(keptChannel("c"), engine.ID{}, strings.Repeat("x", 50_000)))
			stop()
			if err := os.Truncate(path, 5*4096); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		path := filepath.Join(t.TempDir(), FileName)
		c.make(t, path)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		err = NewStore(Options{Dir: filepath.Dir(path)}).Open()
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the file has changed (%v)", c.what, err)
		}
	}
}

func TestADirectoryThatCannotBeMadeIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewStore(Options{Dir: filepath.Join(file, "dir")}).Open(); err == nil {
		t.Error("no error")
	}
}

// fixture is a store with something of everything.
func fixture(t *testing.T, opts Options, c *clock) *Store {
	opts.Policy, opts.Now = keptByName, c.Now
	s, _ := open(t, opts)
	mustAppend(t, s, message(keptChannel("last:c"), engine.ID{}, "replaced"))
	mustAppend(t, s, message(keptChannel("last:c"), engine.ID{}, "last"))
	c.Advance(engine.LiveWindow + time.Minute)
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		a := message(keptChannel("kept:one"), engine.ID{ConnectionID: "conn", MsgSerial: int64(i)}, fmt.Sprint("message ", i))
		if i%5 == 0 {
			a.ID.Client = fmt.Sprint("client ", i)
			a.Entries = append(a.Entries, engine.Draft{Kind: engine.KindPresence, Body: &pubsub.Batch{Messages: []*pubsub.Message{{Name: "second"}}}},
				engine.Draft{Kind: engine.KindMessage, Unlogged: true, Body: &pubsub.Batch{}})
			a.Puts = []engine.Put{
				{RecordKey: engine.RecordKey{Space: engine.RecordVersion, Key: fmt.Sprint("v", i)}, Value: []byte("version"), Entry: 1},
				{RecordKey: engine.RecordKey{Space: engine.RecordPresence, Key: fmt.Sprint("member", i)}, Value: []byte("member"), Entry: engine.NoEntry, Transient: true},
				{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: fmt.Sprint("o", i)}, Value: []byte("object"), Entry: engine.NoEntry, Expire: time.Hour},
			}
		}
		mustAppend(t, s, a)
	}
	mustAppend(t, s, message(keptChannel("kept:two"), engine.ID{}, "only"))
	mustAppend(t, s, message(keptChannel("free"), engine.ID{}, "gone"))
	return s
}

func keptByName(id pubsub.ChannelID) engine.Policy {
	switch pubsub.Namespace(id.Name) {
	case "kept":
		return engine.Policy{Retention: 24 * time.Hour}
	case "last":
		return engine.Policy{Last: 24 * time.Hour}
	}
	return engine.Policy{}
}

// expectFixture looks for what fixture made, on the day it was made.
func expectFixture(t *testing.T, s *Store) {
	t.Helper()
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("message ", i))
		if i%5 == 0 {
			want = append(want, "second")
		}
	}
	if got := texts(t, s, keptChannel("kept:one")); strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("log: got %q, want %q", got, want)
	}
	if got := texts(t, s, keptChannel("kept:two")); len(got) != 1 || got[0] != "only" {
		t.Errorf("log of the second channel: got %q", got)
	}
	if got := texts(t, s, keptChannel("free")); len(got) != 0 {
		t.Errorf("a channel that is not persisted: got %q", got)
	}
	if got := texts(t, s, keptChannel("last:c")); len(got) != 1 || got[0] != "last" {
		t.Errorf("the last message: got %q", got)
	}
	for space, want := range map[engine.RecordSpace]int{engine.RecordVersion: 4, engine.RecordObject: 4, engine.RecordPresence: 0} {
		records, err := s.Node("a").Records(t.Context(), keptChannel("kept:one"), space, "", 100)
		if err != nil || len(records) != want {
			t.Errorf("space %d: %d records, %v; want %d", space, len(records), err, want)
		}
		for _, r := range records {
			if space == engine.RecordVersion && (string(r.Value) != "version" || r.Serial == "" || r.Timestamp == 0) {
				t.Errorf("got %+v", r)
			}
		}
	}
	again := mustAppend(t, s, message(keptChannel("kept:one"), engine.ID{ConnectionID: "conn", MsgSerial: 7}, "again"))
	if !again.Repeated || len(again.Serials) != 1 {
		t.Errorf("a publish that was kept is not known: %+v", again)
	}
	again = mustAppend(t, s, message(keptChannel("kept:one"), engine.ID{Client: "client 5"}, "again"))
	if !again.Repeated || len(again.Serials) != 3 {
		t.Errorf("a publish with three entries is not known: %+v", again)
	}
	last := mustAppend(t, s, message(keptChannel("kept:one"), engine.ID{}, "new"))
	if all := texts(t, s, keptChannel("kept:one")); all[len(all)-1] != "new" || last.Repeated {
		t.Errorf("what is new is not the last: %q", all)
	}
}

// ofFormat is the file of a format version, as a release wrote it when the version was new. It
// stays as it is for ever; -update writes that of a new version, beside the others.
func ofFormat(t *testing.T, version int) []byte {
	t.Helper()
	file := filepath.Join("testdata", fmt.Sprintf("format%d.db", version))
	if _, err := os.Stat(file); *update && version == formatVersion && errors.Is(err, fs.ErrNotExist) {
		s := fixture(t, Options{Dir: t.TempDir()}, newClock())
		var b bytes.Buffer
		if err := s.Backup(t.Context(), func(int64) (io.Writer, error) { return &b, nil }); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("format %d needs a file for ever, which -update makes: %v", version, err)
	}
	return stored
}

// TestDirectoriesOfThisFormatAndTheOneBeforeOpen opens, backs up, restores and compacts what
// releases wrote, of the format as it is and of the one before, once there is one.
func TestDirectoriesOfThisFormatAndTheOneBeforeOpen(t *testing.T) {
	for version := max(formatVersion-1, 1); version <= formatVersion; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			stored := ofFormat(t, version)
			c := newClock()
			c.Advance(engine.LiveWindow + 2*time.Minute)
			into := func(b []byte) (dir string) {
				dir = t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, FileName), b, 0o600); err != nil {
					t.Fatal(err)
				}
				return dir
			}
			expect := func(dir string) {
				t.Helper()
				s, stop := open(t, Options{Dir: dir, Policy: keptByName, Now: c.Now})
				expectFixture(t, s)
				stop()
			}
			expect(into(stored))

			s, stop := open(t, Options{Dir: into(stored), Policy: keptByName, Now: c.Now})
			var b bytes.Buffer
			if err := s.Backup(t.Context(), func(int64) (io.Writer, error) { return &b, nil }); err != nil {
				t.Fatal(err)
			}
			stop()
			for what, backup := range map[string][]byte{"a backup": b.Bytes(), "a backup of that release": stored} {
				dir := filepath.Join(t.TempDir(), "new")
				if contents, err := Restore(dir, bytes.NewReader(backup)); err != nil || contents.Channels != 3 || contents.Appends < 21 {
					t.Errorf("%s: restored %+v: %v", what, contents, err)
				}
				expect(dir)
			}

			dir := into(stored)
			if _, _, err := Compact(dir); err != nil {
				t.Fatal(err)
			}
			expect(dir)
		})
	}
}

func TestABackupOfARunningStoreIsRestored(t *testing.T) {
	c := newClock()
	s := fixture(t, Options{Dir: t.TempDir()}, c)
	var b bytes.Buffer
	size := int64(0)
	err := s.Backup(t.Context(), func(n int64) (io.Writer, error) {
		size = n
		mustAppend(t, s, message(keptChannel("kept:one"), engine.ID{}, "after the backup began"))
		return &b, nil
	})
	if err != nil || int64(b.Len()) != size {
		t.Fatalf("%d bytes of %d: %v", b.Len(), size, err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	contents, err := Restore(dir, bytes.NewReader(b.Bytes()))
	if err != nil || contents != (Contents{Channels: 3, Appends: 21, Records: 12}) {
		t.Errorf("restored %+v: %v", contents, err)
	}
	if _, err := Restore(dir, bytes.NewReader(b.Bytes())); !errors.Is(err, fs.ErrExist) {
		t.Errorf("restored over a database: %v", err)
	}
	c.Advance(time.Minute)
	again, stop := open(t, Options{Dir: dir, Policy: keptByName, Now: c.Now})
	expectFixture(t, again)
	stop()

	for what, bad := range map[string][]byte{
		"nothing":   nil,
		"half":      b.Bytes()[:b.Len()/2],
		"scribbled": scribbled(b.Bytes()),
	} {
		dir := t.TempDir()
		if _, err := Restore(dir, bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: restored", what)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.db*")); len(left) > 0 {
			t.Errorf("%s: left %q", what, left)
		}
	}
}

// scribbled is a copy with a fault in every page but the first two.
func scribbled(b []byte) []byte {
	b = bytes.Clone(b)
	for i := 2*4096 + 8; i < len(b); i += 4096 {
		copy(b[i:], "scribbled over")
	}
	return b
}

func TestABackupEndsWithItsContext(t *testing.T) {
	s, _ := open(t, Options{Dir: t.TempDir(), Policy: kept})
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Backup(ctx, func(int64) (io.Writer, error) {
		cancel()
		return io.Discard, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCompactGivesSpaceBack(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	s, stop := open(t, Options{Dir: dir, Policy: keptByName, Now: c.Now, noSync: true})
	for i := range 300 {
		mustAppend(t, s, message(keptChannel("kept:one"), engine.ID{}, fmt.Sprint(i, strings.Repeat("x", 10_000))))
	}
	c.Advance(25 * time.Hour)
	mustAppend(t, s, message(keptChannel("kept:one"), engine.ID{}, "young"))
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	full := s.Stats()
	if full.FreeBytes < 2<<20 {
		t.Errorf("the sweep freed %d bytes", full.FreeBytes)
	}
	stop()
	before, after, err := Compact(dir)
	if err != nil || before < 3<<20 || after > 200<<10 {
		t.Fatalf("from %d bytes to %d: %v", before, after, err)
	}
	s, _ = open(t, Options{Dir: dir, Policy: keptByName, Now: c.Now})
	if got := texts(t, s, keptChannel("kept:one")); len(got) != 1 || got[0] != "young" {
		t.Errorf("got %d entries", len(got))
	}
	if now := s.Stats(); now.FileBytes > 250<<10 {
		t.Errorf("%d bytes after compacting", now.FileBytes)
	}
}
