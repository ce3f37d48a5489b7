package enginetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var recordTests = []test{
	{"ARecordHasTheSerialAndTimestampOfItsEntry", recordEntry},
	{"RecordsArePutReplacedAndDeleted", recordLife},
	{"ARevisionIsNeverUsedTwice", revisions},
	{"PreconditionsGuardEveryRecordTheyName", preconditions},
	{"ConcurrentIncrementsFromTwoNodesLoseNothing", counters},
	{"RecordsAreListedInOrderPageByPage", recordPages},
	{"RecordsOfSpacesAndChannelsAreSeparate", recordSpaces},
	{"ARecordExpires", recordExpires},
	{"BoundsLimitWhatASpaceGrowsTo", bounds},
}

func key(space engine.RecordSpace, k string) engine.RecordKey {
	return engine.RecordKey{Space: space, Key: k}
}

func put(ch pubsub.ChannelID, k engine.RecordKey, value string) *engine.Append {
	return &engine.Append{Channel: ch, Puts: []engine.Put{{RecordKey: k, Value: []byte(value), Entry: engine.NoEntry}}}
}

func record(t *testing.T, e engine.Engine, ch pubsub.ChannelID, k engine.RecordKey) (engine.Record, bool) {
	t.Helper()
	r, ok, err := e.Record(t.Context(), ch, k)
	if err != nil {
		t.Fatalf("Record: %v", err)
	}
	return r, ok
}

func recordEntry(t *testing.T, h Harness) {
	ch := channel(t, "")
	k0, k1, k2 := key(engine.RecordVersion, "0"), key(engine.RecordVersion, "1"), key(engine.RecordVersion, "2")
	a := messages(ch, "zero", "one")
	a.Entries[1].Unlogged = true
	a.Puts = []engine.Put{
		{RecordKey: k0, Value: []byte("v0"), Entry: 0},
		{RecordKey: k1, Value: []byte("v1"), Entry: 1},
		{RecordKey: k2, Value: []byte("v2"), Entry: engine.NoEntry},
	}
	res := do(t, h.A, a)
	for i, k := range []engine.RecordKey{k0, k1} {
		r, ok := record(t, h.B, ch, k)
		if !ok || r.Serial != res.Serials[i] || r.Timestamp != res.Timestamp || string(r.Value) != fmt.Sprint("v", i) || r.RecordKey != k {
			t.Errorf("got %+v, %v; want serial %q", r, ok, res.Serials[i])
		}
	}
	if r, ok := record(t, h.B, ch, k2); !ok || r.Serial != "" || string(r.Value) != "v2" {
		t.Errorf("got %+v, %v", r, ok)
	}
}

func recordLife(t *testing.T, h Harness) {
	ch := channel(t, "")
	k := key(engine.RecordPresence, "conn:client")
	if _, ok := record(t, h.A, ch, k); ok {
		t.Fatal("a record that nobody put")
	}
	var last uint64
	for i := range 5 {
		do(t, h.A, put(ch, k, fmt.Sprint(i)))
		r, ok := record(t, h.B, ch, k)
		if !ok || string(r.Value) != fmt.Sprint(i) || r.Revision <= last {
			t.Fatalf("got %+v, %v after revision %d", r, ok, last)
		}
		last = r.Revision
	}
	do(t, h.B, &engine.Append{Channel: ch, Puts: []engine.Put{{RecordKey: k, Value: []byte{}, Entry: engine.NoEntry}}})
	if r, ok := record(t, h.A, ch, k); !ok || len(r.Value) != 0 {
		t.Errorf("an empty value: got %+v, %v", r, ok)
	}
	for range 2 { // deleting what is not there is no error
		do(t, h.B, &engine.Append{Channel: ch, Puts: []engine.Put{{RecordKey: k, Entry: engine.NoEntry}}})
		if _, ok := record(t, h.A, ch, k); ok {
			t.Error("a deleted record exists")
		}
	}
	do(t, h.A, &engine.Append{Channel: ch, Puts: []engine.Put{
		{RecordKey: k, Value: []byte("a"), Entry: engine.NoEntry},
		{RecordKey: k, Entry: engine.NoEntry},
		{RecordKey: k, Value: []byte("b"), Entry: engine.NoEntry},
	}})
	if r, ok := record(t, h.B, ch, k); !ok || string(r.Value) != "b" {
		t.Errorf("three puts in order: got %+v, %v", r, ok)
	}
}

func revisions(t *testing.T, h Harness) {
	ch := channel(t, "")
	k := key(engine.RecordPresence, "k")
	seen := make(map[uint64]bool)
	for range 10 {
		do(t, h.A, put(ch, k, "v"))
		r, _ := record(t, h.A, ch, k)
		if r.Revision == 0 || seen[r.Revision] {
			t.Fatalf("revision %d", r.Revision)
		}
		seen[r.Revision] = true
		do(t, h.A, &engine.Append{Channel: ch, Puts: []engine.Put{{RecordKey: k, Entry: engine.NoEntry}}})
		do(t, h.B, put(ch, k, "w"))
		stale := put(ch, k, "stale")
		stale.Preconditions = []engine.Precondition{{RecordKey: k, Revision: r.Revision}}
		if got := try(t, h.A, stale); !errors.Is(got.Err, engine.ErrPrecondition) {
			t.Fatalf("a record that was made anew has its old revision: got %v", got.Err)
		}
		r, _ = record(t, h.A, ch, k)
		seen[r.Revision] = true
		do(t, h.A, &engine.Append{Channel: ch, Puts: []engine.Put{{RecordKey: k, Entry: engine.NoEntry}}})
	}
}

func preconditions(t *testing.T, h Harness) {
	ch := channel(t, "")
	a, b := key(engine.RecordObject, "a"), key(engine.RecordObject, "b")
	do(t, h.A, put(ch, a, "1"))
	ra, _ := record(t, h.A, ch, a)
	for _, c := range []struct {
		name string
		of   []engine.Precondition
		want error
	}{
		{"both hold", []engine.Precondition{{RecordKey: a, Revision: ra.Revision}, {RecordKey: b}}, nil},
		{"a is another", []engine.Precondition{{RecordKey: a, Revision: ra.Revision + 1}, {RecordKey: b}}, engine.ErrPrecondition},
		{"a exists", []engine.Precondition{{RecordKey: a}}, engine.ErrPrecondition},
		{"b does not", []engine.Precondition{{RecordKey: b, Revision: 1}}, engine.ErrPrecondition},
		{"it is of another space", []engine.Precondition{{RecordKey: key(engine.RecordPresence, "a"), Revision: ra.Revision}}, engine.ErrPrecondition},
	} {
		t.Run(c.name, func(t *testing.T) {
			app := messages(ch, c.name)
			app.Preconditions = c.of
			if r := try(t, h.B, app); !errors.Is(r.Err, c.want) {
				t.Errorf("got %v, want %v", r.Err, c.want)
			}
		})
	}
	expectTexts(t, "log", all(t, h.A, ch), "both hold")
}

func counters(t *testing.T, h Harness) {
	ch := channel(t, "")
	k := key(engine.RecordAnnotation, "counter")
	const each = 100
	var wg sync.WaitGroup
	for i := range 4 {
		node := []engine.Engine{h.A, h.B}[i%2]
		wg.Go(func() {
			for range each {
				for {
					r, _, err := node.Record(t.Context(), ch, k)
					if err != nil {
						t.Errorf("Record: %v", err)
						return
					}
					var n uint64
					if len(r.Value) > 0 {
						n = binary.BigEndian.Uint64(r.Value)
					}
					res := try(t, node, &engine.Append{Channel: ch, Entries: drafts("tick"),
						Preconditions: []engine.Precondition{{RecordKey: k, Revision: r.Revision}},
						Puts:          []engine.Put{{RecordKey: k, Value: binary.BigEndian.AppendUint64(nil, n+1), Entry: 0}},
					})
					if res.Err == nil {
						break
					}
					if !errors.Is(res.Err, engine.ErrPrecondition) {
						t.Errorf("Append: %v", res.Err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	r, _ := record(t, h.A, ch, k)
	if n := binary.BigEndian.Uint64(r.Value); n != 4*each {
		t.Errorf("counted to %d, want %d", n, 4*each)
	}
	log := all(t, h.B, ch)
	if len(log) != 4*each || r.Serial != log[len(log)-1].Serial {
		t.Errorf("%d entries, the record is of %q", len(log), r.Serial)
	}
}

func recordPages(t *testing.T, h Harness) {
	ch := channel(t, "")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	want := make(map[string]string)
	for range 1500 {
		k := fmt.Sprintf("k%03d", rng.IntN(900))
		if rng.IntN(4) == 0 {
			do(t, h.A, &engine.Append{Channel: ch, Puts: []engine.Put{{RecordKey: key(engine.RecordPresence, k), Entry: engine.NoEntry}}})
			delete(want, k)
			continue
		}
		v := fmt.Sprint(rng.Uint32())
		do(t, h.A, put(ch, key(engine.RecordPresence, k), v))
		want[k] = v
	}
	for _, limit := range []int{1, 7, 300, 5000} {
		var keys []string
		after := ""
		for {
			page, err := h.B.Records(t.Context(), ch, engine.RecordPresence, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				keys = append(keys, r.Key)
				if string(r.Value) != want[r.Key] || r.Space != engine.RecordPresence || r.Revision == 0 {
					t.Fatalf("got %+v, want value %q", r, want[r.Key])
				}
			}
			if len(page) > limit {
				t.Fatalf("%d records, the limit is %d", len(page), limit)
			}
			if len(page) < limit {
				break
			}
			after = page[len(page)-1].Key
		}
		if !slices.IsSorted(keys) || len(keys) != len(want) {
			t.Fatalf("pages of %d: %d keys, want %d; sorted: %v", limit, len(keys), len(want), slices.IsSorted(keys))
		}
	}
	page, err := h.A.Records(t.Context(), ch, engine.RecordPresence, "k4495", 3) // is no key
	if err != nil || len(page) == 0 || page[0].Key <= "k4495" {
		t.Errorf("after a key that is not there: got %+v, %v", page, err)
	}
}

func recordSpaces(t *testing.T, h Harness) {
	one := channel(t, "")
	two := one
	two.Name += "-two"
	spaces := []engine.RecordSpace{engine.RecordPresence, engine.RecordVersion, engine.RecordAnnotation, engine.RecordObject}
	for _, ch := range []pubsub.ChannelID{one, two} {
		for _, s := range spaces {
			for _, k := range []string{"a", "b"} {
				do(t, h.A, put(ch, key(s, k), fmt.Sprint(ch.Name, s, k)))
			}
		}
	}
	for _, ch := range []pubsub.ChannelID{one, two} {
		for _, s := range spaces {
			page, err := h.B.Records(t.Context(), ch, s, "", 10)
			if err != nil || len(page) != 2 {
				t.Fatalf("%v, space %d: got %d records, %v", ch, s, len(page), err)
			}
			for i, r := range page {
				if want := fmt.Sprint(ch.Name, s, []string{"a", "b"}[i]); string(r.Value) != want {
					t.Errorf("got %q, want %q", r.Value, want)
				}
			}
		}
	}
	if page, err := h.A.Records(t.Context(), pubsub.ChannelID{App: "app", Name: one.Name + "-none"}, engine.RecordPresence, "", 1); err != nil || len(page) != 0 {
		t.Errorf("a channel that nobody used: got %d records, %v", len(page), err)
	}
}

func recordExpires(t *testing.T, h Harness) {
	if h.Advance == nil {
		t.Skip("the clock cannot be moved")
	}
	ch := channel(t, "")
	k, kept := key(engine.RecordPresence, "k"), key(engine.RecordPresence, "kept")
	expiring := put(ch, k, "v")
	expiring.Puts[0].Expire = time.Minute
	do(t, h.A, expiring)
	do(t, h.A, put(ch, kept, "v"))
	h.Advance(time.Minute - slack)
	r, ok := record(t, h.B, ch, k)
	if !ok {
		t.Fatal("expired too early")
	}
	h.Advance(slack + time.Second)
	if _, ok := record(t, h.B, ch, k); ok {
		t.Error("an expired record exists")
	}
	if page, _ := h.B.Records(t.Context(), ch, engine.RecordPresence, "", 10); len(page) != 1 || page[0].Key != "kept" {
		t.Errorf("listed: %+v", page)
	}
	h.Trim()
	stale := put(ch, k, "new")
	stale.Preconditions = []engine.Precondition{{RecordKey: k, Revision: r.Revision}}
	if res := try(t, h.A, stale); !errors.Is(res.Err, engine.ErrPrecondition) {
		t.Errorf("an expired record holds a precondition: got %v", res.Err)
	}
	stale.Preconditions[0].Revision = 0
	do(t, h.A, stale)
	h.Advance(time.Hour)
	if _, ok := record(t, h.A, ch, k); !ok {
		t.Error("a put without Expire expires")
	}
}

func bounds(t *testing.T, h Harness) {
	ch := channel(t, "")
	few := []engine.Bound{{Space: engine.RecordPresence, MaxRecords: 2}}
	bounded := func(e engine.Engine, b []engine.Bound, want error, puts ...engine.Put) {
		t.Helper()
		a := messages(ch, "x")
		a.Bounds, a.Puts = b, puts
		if got := try(t, e, a); !errors.Is(got.Err, want) {
			t.Errorf("got %v, want %v", got.Err, want)
		}
	}
	put := func(k, value string) engine.Put {
		return engine.Put{RecordKey: key(engine.RecordPresence, k), Value: []byte(value), Entry: engine.NoEntry}
	}
	gone := func(k string) engine.Put {
		return engine.Put{RecordKey: key(engine.RecordPresence, k), Entry: engine.NoEntry}
	}
	bounded(h.A, few, nil, put("a", "1"))
	bounded(h.B, few, nil, put("b", "1"))
	bounded(h.A, few, engine.ErrTooManyRecords, put("c", "1"))
	bounded(h.A, few, nil, put("a", "2"), put("b", "2"))
	bounded(h.B, few, nil, gone("a"), put("c", "1"))
	bounded(h.B, few, engine.ErrTooManyRecords, put("d", "1"), gone("absent"))
	bounded(h.B, few, nil, put("d", "1"), gone("d"), gone("d"), put("b", "3"))
	bounded(h.A, few, nil, engine.Put{RecordKey: key(engine.RecordObject, "elsewhere"), Value: []byte("1"), Entry: engine.NoEntry})
	bounded(h.A, nil, nil, put("e", "1"))
	bounded(h.A, few, nil, gone("e"), put("f", "1")) // not more than before, if too many
	bounded(h.A, few, engine.ErrTooManyRecords, put("g", "1"))

	// b, c and f with values of one byte: six bytes.
	small := []engine.Bound{{Space: engine.RecordPresence, MaxBytes: 8}}
	bounded(h.A, small, nil, put("b", "333"))
	bounded(h.B, small, engine.ErrRecordsTooLarge, put("b", "4444"))
	bounded(h.B, small, engine.ErrRecordsTooLarge, put("h", ""))
	bounded(h.B, small, nil, put("c", ""))
	bounded(h.A, small, nil, put("h", ""))
	records, err := h.B.Records(t.Context(), ch, engine.RecordPresence, "", 10)
	if err != nil || len(records) != 4 {
		t.Errorf("got %d records, %v", len(records), err)
	}
	page, err := h.A.Read(t.Context(), ch, engine.Query{Limit: 100})
	if err != nil || len(page.Entries) != 11 {
		t.Errorf("%d entries, %v: what was refused left something behind", len(page.Entries), err)
	}
}
