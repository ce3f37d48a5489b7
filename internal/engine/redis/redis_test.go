package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/enginetest"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

// testOptions are patient: the contract's tests are not about time, and the machine may be
// busy.
func testOptions(prefix string) Options {
	return Options{Policy: enginetest.Policy, Prefix: prefix, Timeout: 15 * time.Second, ReadTimeout: 15 * time.Second}
}

// node opens an engine and runs it until the test ends.
func node(t testing.TB, to redisclient.Options, opts Options) *Engine {
	t.Helper()
	client, err := redisclient.Open(t.Context(), to)
	for deadline := time.Now().Add(time.Minute); err != nil; client, err = redisclient.Open(t.Context(), to) {
		if time.Now().After(deadline) { // servers that just began may be late on a busy machine
			t.Fatal(err)
		}
	}
	e, err := New(t.Context(), client, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		client.Close()
	})
	return e
}

// harness is two nodes on one store.
func harness(t *testing.T, to redisclient.Options) enginetest.Harness {
	opts := testOptions(t.Name() + "/")
	a, b := node(t, to, opts), node(t, to, opts)
	return enginetest.Harness{A: a, B: b,
		Now: func() time.Time { return time.Now().Add(a.skewed()) },
		Advance: func(d time.Duration) {
			a.skew.Add(d.Milliseconds())
			b.skew.Add(d.Milliseconds())
		},
		Shared: true,
		Trim:   func() {},
		Reopen: func(t *testing.T) enginetest.Harness {
			a, b := node(t, to, opts), node(t, to, opts)
			return enginetest.Harness{A: a, B: b, Now: time.Now}
		},
	}
}

func TestTheContractOnOneServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return harness(t, redisclient.Options{Addresses: []string{s.Addr}})
	})
}

// One pair of nodes serves all tests on the others: connecting takes longer there.

func TestTheContractOnACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	h := harness(t, redisclient.Options{Addresses: c.Addresses()})
	enginetest.Run(t, func(*testing.T) enginetest.Harness { return h })
}

// TestTheContractOverTLS needs more than one server, since the client learns some of the addresses
// from others.
func TestTheContractOverTLS(t *testing.T) {
	t.Parallel()
	sec := redistest.NewSecurity(t)
	c := sec.StartCluster(t, 3)
	h := harness(t, sec.Options(c.Addresses()...))
	enginetest.RunShort(t, func(*testing.T) enginetest.Harness { return h })
}

func TestTheContractBehindSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	h := harness(t, redisclient.Options{Addresses: s.Addresses(), MasterName: redistest.MasterName})
	enginetest.Run(t, func(*testing.T) enginetest.Harness { return h })
}

// TestAFullServerRefusesAndKeepsWhatItHas fills a server to its maxmemory.
func TestAFullServerRefusesAndKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory", "8mb")
	e := node(t, redisclient.Options{Addresses: []string{s.Addr}}, testOptions(""))
	ch := pubsub.ChannelID{App: "app", Name: "ch"}
	put := func(n int) engine.Result {
		results := make(chan engine.Result, 1)
		e.Append(&engine.Append{Channel: ch, ID: engine.ID{ConnectionID: "c", MsgSerial: int64(n)},
			Entries: []engine.Draft{{Kind: engine.KindMessage, Body: message(fmt.Sprint(n, strings.Repeat("x", 10_000)))}},
			Puts:    []engine.Put{{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: fmt.Sprint(n)}, Value: []byte("v"), Entry: 0}},
		}, func(r engine.Result) { results <- r })
		return <-results
	}
	n := 0
	for ; n < 10_000; n++ {
		r := put(n)
		if errors.Is(r.Err, engine.ErrFull) {
			break
		}
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if n < 100 || n == 10_000 {
		t.Fatalf("full after %d messages of 10 kB in 8 MB", n)
	}
	// Refused means that nothing of it is there.
	if _, ok, err := e.Record(t.Context(), ch, engine.RecordKey{Space: engine.RecordObject, Key: fmt.Sprint(n)}); ok || err != nil {
		t.Errorf("the record of a refused append: %v, %v", ok, err)
	}
	s.Must("CONFIG", "SET", "maxmemory", "0")
	if r := put(n); r.Err != nil || r.Repeated {
		t.Errorf("the refused append again: got %+v", r)
	}
	page, err := e.Read(t.Context(), ch, engine.Query{Limit: 20_000})
	if err != nil || len(page.Entries) != n+1 {
		t.Errorf("%d entries, want %d; %v", len(page.Entries), n+1, err)
	}
}

// TestAnotherProcessBeginsAnEpochAndKeepsTheLog restarts a server with its data.
func TestAnotherProcessBeginsAnEpochAndKeepsTheLog(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	e := node(t, redisclient.Options{Addresses: []string{s.Addr}}, testOptions(""))
	ch := pubsub.ChannelID{App: "app", Name: "ch"}
	put := func(text string) pubsub.Serial {
		t.Helper()
		for {
			results := make(chan engine.Result, 1)
			e.Append(&engine.Append{Channel: ch, ID: engine.ID{Client: text}, Entries: []engine.Draft{{Kind: engine.KindMessage, Body: message(text)}}},
				func(r engine.Result) { results <- r })
			r := <-results
			if r.Err == nil {
				return r.Serials[0]
			}
			if !errors.Is(r.Err, engine.ErrUnavailable) && !errors.Is(r.Err, engine.ErrUnknownOutcome) {
				t.Fatal(r.Err)
			}
		}
	}
	one := put("one")
	s.Kill()
	s.Restart()
	two := put("two")
	if one.Epoch() == two.Epoch() || two <= one {
		t.Errorf("serials %q, then %q", one, two)
	}
	page, err := e.Read(t.Context(), ch, engine.Query{After: one, Exact: true, Limit: 10})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Serial != two || page.Entries[0].Prev != one {
		t.Errorf("after the last of the epoch before: got %d entries, %v", len(page.Entries), err)
	}
	lost := pubsub.MakeSerial(page.Entries[0].Timestamp, 999, one.Epoch())
	if _, err := e.Read(t.Context(), ch, engine.Query{After: lost, Exact: true, Limit: 10}); !errors.Is(err, engine.ErrGone) {
		t.Errorf("after a serial that was lost with the end of the epoch: got %v, want ErrGone", err)
	}
}

// TestIDsTakeBoundedRoom publishes more than a connection's results are kept for, and one
// connection's msgSerials with gaps, as one has that uses other channels too.
func TestIDsTakeBoundedRoom(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := node(t, redisclient.Options{Addresses: []string{s.Addr}}, testOptions(""))
	ch := pubsub.ChannelID{App: "app", Name: "ch"}
	const n = 6000
	ids := map[string]func(i int) engine.ID{
		"dense":    func(i int) engine.ID { return engine.ID{ConnectionID: "dense", MsgSerial: int64(i)} },
		"sparse":   func(i int) engine.ID { return engine.ID{ConnectionID: "sparse", MsgSerial: int64(3 * i)} },
		e.instance: func(int) engine.ID { return engine.ID{} },
	}
	for connection, id := range ids {
		var wg sync.WaitGroup
		first := make([]engine.Result, n)
		for i := range n {
			wg.Add(1)
			e.Append(&engine.Append{Channel: ch, ID: id(i), Entries: []engine.Draft{{Kind: engine.KindMessage, Body: message("m")}}},
				func(r engine.Result) {
					first[i] = r
					wg.Done()
				})
			if i%100 == 99 {
				wg.Wait()
			}
		}
		wg.Wait()
		k := e.keys(ch)
		length, err := strconv.Atoi(s.Must("LLEN", k.connection(connection)))
		if err != nil || length > 2048+64+256 || connection == e.instance && length > 64+64+256 {
			t.Errorf("%s: a list of %d elements, %v", connection, length, err)
		}
		if size, err := strconv.Atoi(s.Must("MEMORY", "USAGE", k.connection(connection), "SAMPLES", "0")); err != nil || size > 160<<10 {
			t.Errorf("%s: %d bytes, %v", connection, size, err)
		}
		if connection == e.instance {
			continue
		}
		for _, i := range []int{0, 1, n / 4, n / 2, n - 2049, n - 1000, n - 1} {
			results := make(chan engine.Result, 1)
			e.Append(&engine.Append{Channel: ch, ID: id(i), Entries: []engine.Draft{{Kind: engine.KindMessage, Body: message("again")}}},
				func(r engine.Result) { results <- r })
			// Of gaps there may be more than are remembered.
			r := <-results
			if want := connection == "dense" || i >= n-2000; !r.Repeated && want || r.Err != nil {
				t.Errorf("%s: publish %d of %d again: %+v", connection, i, n, r)
			}
			if len(r.Serials) > 0 && r.Repeated && r.Serials[0] != first[i].Serials[0] {
				t.Errorf("%s: publish %d of %d again: another result", connection, i, n)
			}
		}
	}
}

// TestDeadlinesAreInTheTimeOfRedis makes a node believe that Redis' clock is an hour behind,
// and then that it is right.
func TestDeadlinesAreInTheTimeOfRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := node(t, redisclient.Options{Addresses: []string{s.Addr}}, testOptions(""))
	ch := pubsub.ChannelID{App: "app", Name: "ch"}
	put := func(deadline time.Time) error {
		results := make(chan engine.Result, 1)
		e.Append(&engine.Append{Channel: ch, Deadline: deadline, Entries: []engine.Draft{{Kind: engine.KindMessage, Body: message("m")}}},
			func(r engine.Result) { results <- r })
		return (<-results).Err
	}
	if err := put(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	clock := &e.runs.shard("").clock
	if offset := clock.offset(); offset < -10_000 || offset > 10_000 {
		t.Errorf("on one machine: %d ms", offset)
	}
	clock.restart(time.Now().Add(-time.Hour).UnixMilli(), time.Now(), 0)
	if err := put(time.Now().Add(time.Minute)); !errors.Is(err, engine.ErrDeadline) {
		t.Errorf("got %v, want ErrDeadline", err)
	}
	clock.restart(time.Now().UnixMilli(), time.Now(), 0)
	if err := put(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
}
