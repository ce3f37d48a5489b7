package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

var one = pubsub.OccupancyOf(pubsub.ModeSubscribe)

// TestEveryKeyExpiresOrEndsWithItsNode does everything once, and lets the nodes end.
func TestEveryKeyExpiresOrEndsWithItsNode(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	to := redisclient.Options{Addresses: []string{s.Addr}}
	d := two(t, to, to, faultOptions(""))
	ch := pubsub.ChannelID{App: "app", Name: "ch"}
	for i, node := range []*Directory{d.a, d.b} {
		for _, f := range operations(node, fmt.Sprint("all", i), ch) {
			must(t, f(t.Context()))
		}
		node.Touch(pubsub.ChannelID{App: "app", Name: "touched"}, time.Now().Add(time.Hour))
		must(t, node.Create(t.Context(), directory.Connection{ID: fmt.Sprint("resumed", i), App: "app"}, 0))
		_, _, err := node.Resume(t.Context(), fmt.Sprint("resumed", i), 1, d.a.node)
		must(t, err)
		must(t, node.Create(t.Context(), directory.Connection{ID: fmt.Sprint("gone", i), App: "app"}, 0))
		must(t, node.Inhabit(t.Context(), fmt.Sprint("gone", i), ch))
		must(t, node.Disconnect(t.Context(), fmt.Sprint("gone", i), 1, time.Now().Add(time.Minute)))
	}
	_, err := d.a.PutApp(t.Context(), "app", 0, []byte("1"), 0)
	must(t, err)
	eventually(t, "the touched channel is listed", func() bool {
		names, _, err := d.b.Channels(t.Context(), directory.ChannelQuery{App: "app", Prefix: "touched", Limit: 1})
		return err == nil && len(names) == 1
	})
	forever := func() (keys []string) {
		for _, key := range strings.Fields(s.Must("EVAL", "return table.concat(redis.call('KEYS', '*'), '\\n')", "0")) {
			if s.Must("PTTL", key) == "-1" {
				keys = append(keys, strings.TrimPrefix(key, DefaultPrefix))
			}
		}
		return keys
	}
	for _, key := range forever() {
		switch {
		case key == "{apps}", key == "{apps}:r", key == "{nodes}":
		case strings.HasPrefix(key, "i{a:") && !strings.Contains(key, "}:"): // lives as long as they are looked at
		default:
			t.Errorf("it lives for ever: %s", key)
		}
	}
	last, _ := node(t, to, "last", faultOptions(""))
	d.killA()
	d.killB()
	eventually(t, "what the nodes had is gone", func() bool {
		for _, key := range forever() {
			if key != "{apps}" && key != "{apps}:r" && key != "{nodes}" {
				return false
			}
		}
		for _, node := range []*Directory{d.a, d.b} {
			if s.Must("EXISTS", last.keys.used(node.id), last.keys.index("app", node.id), last.keys.notices(node.id)) != "0" {
				return false
			}
		}
		return true
	})
}

func TestWhatNobodyMayForgetIsBounded(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	to := redisclient.Options{Addresses: []string{s.Addr}}
	opts := testOptions("")
	opts.Nonces, opts.Revocations, opts.AppRevocations, opts.Touched = 2*nonceBuckets, 5, 3, 10*buckets
	d, _ := node(t, to, "a", opts)

	used, tooMany := 0, false
	for i := 0; !tooMany && i < 1000; i++ {
		switch fresh, err := d.UseNonce(t.Context(), "key", fmt.Sprint(i), time.Now().Add(time.Minute)); {
		case errors.Is(err, directory.ErrTooMany):
			tooMany = true
		case err != nil || !fresh:
			t.Fatal(fresh, err)
		default:
			used++
		}
	}
	if !tooMany || used > opts.Nonces {
		t.Errorf("%d nonces are kept", used)
	}
	if fresh, err := d.UseNonce(t.Context(), "key", "0", time.Now().Add(time.Minute)); fresh || err != nil {
		t.Errorf("a used one, when full: %v, %v", fresh, err)
	}

	revoke := func(app, target string, want error) {
		t.Helper()
		now := time.Now().Add(time.Duration(d.skew.Load()) * time.Millisecond)
		err := d.Revoke(t.Context(), []directory.Revocation{{App: app, Key: app + ".key", Target: target,
			IssuedBefore: now, AppliesAt: now, Expires: now.Add(time.Hour)}})
		if !errors.Is(err, want) {
			t.Errorf("%s of %s: got %v, want %v", target, app, err, want)
		}
	}
	kept := func(want int) {
		t.Helper()
		list, _, err := d.Revocations(t.Context(), "")
		must(t, err)
		if len(list) != want {
			t.Errorf("%d revocations are kept, want %d: %v", len(list), want, list)
		}
	}
	for i := range 10 { // what is said again takes no more room
		d.skew.Add(1000)
		revoke("one", fmt.Sprint("clientId:", i%3), nil)
	}
	revoke("one", "clientId:another", directory.ErrTooMany)
	revoke("two", "clientId:0", nil)
	revoke("two", "clientId:1", nil)
	revoke("three", "clientId:0", directory.ErrTooMany)
	kept(5)
	d.skew.Add(time.Hour.Milliseconds() + 1)
	revoke("three", "clientId:0", nil)
	kept(1)
	if n := s.Must("HLEN", d.keys.revocations()[4]); n != "1" {
		t.Errorf("%s apps are counted", n)
	}

	for i := range 5000 {
		d.Touch(pubsub.ChannelID{App: "app", Name: fmt.Sprint(i)}, time.Now().Add(2*time.Hour+time.Duration(i)*time.Second))
		if i%300 == 299 { // more than wait in the node are forgotten
			eventually(t, "the touched channels are told", func() bool {
				d.touches.mu.Lock()
				defer d.touches.mu.Unlock()
				return len(d.touches.until) == 0
			})
		}
	}
	eventually(t, "as many channels as may be are listed", func() bool {
		names, more, err := d.Channels(t.Context(), directory.ChannelQuery{App: "app", Limit: 1000})
		must(t, err)
		return !more && len(names) <= opts.Touched && len(names) >= opts.Touched/2
	})
}

// TestCountsAreRightAfterCallsWithoutAnswers has connections come and go while calls fail,
// some before and some after they were done.
func TestCountsAreRightAfterCallsWithoutAnswers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := redistest.StartProxy(t, s.Addr)
	opts := faultOptions("")
	opts.Lease = time.Minute
	d := two(t, redisclient.Options{Addresses: []string{p.Addr}}, redisclient.Options{Addresses: []string{s.Addr}}, opts)
	channels := []pubsub.ChannelID{{App: "app", Name: "1"}, {App: "app", Name: "2"}}
	var mu sync.Mutex
	inside := make(map[pubsub.ChannelID]int32)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			ch := channels[i%2]
			here := int32(0)
			for done := false; !done; {
				select {
				case <-stop:
					done = true
				default:
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(4000))*time.Microsecond)
				if here == 0 || random.IntN(2) == 0 {
					if _, err := d.a.Join(ctx, ch, d.a.node, one, 0); err == nil {
						here++
					}
				} else {
					_ = d.a.Adjust(ctx, ch, d.a.node, pubsub.Occupancy{}.Minus(one)) // it has left, whatever this says
					here--
				}
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			inside[ch] += here
		})
	}
	for range 20 {
		p.Cut()
		time.Sleep(20 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	for _, ch := range channels {
		eventually(t, "what is counted is right", func() bool {
			o, err := d.b.Occupancy(t.Context(), ch)
			return err == nil && o[pubsub.MetricConnections] == inside[ch]
		})
	}
	t.Logf("inside: %v", inside)
}

func TestTheIndexIsMended(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	to := redisclient.Options{Addresses: []string{s.Addr}}
	d := two(t, to, to, faultOptions(""))
	must(t, d.a.Create(t.Context(), directory.Connection{ID: "mine", App: "app"}, 0))
	must(t, d.b.Create(t.Context(), directory.Connection{ID: "other", App: "app"}, 0))
	// As if a failover had lost the end of one shard.
	for _, id := range []string{"other", "none"} {
		_, _, err := d.a.index(t.Context(), "app", d.a.id, "", id, "put", connected, 0)
		must(t, err)
	}
	record := d.a.keys.connection("mine")[0]
	s.Must("PEXPIRE", record, "30000")
	eventually(t, "what is wrong is dropped", func() bool { return s.Must("GET", d.a.keys.connected("app")) == "2" })
	if n := s.Must("ZCARD", d.a.keys.index("app", d.a.id)); n != "1" || s.Must("ZSCORE", d.a.keys.index("app", d.a.id), "mine") == "" {
		t.Errorf("the index has %s", n)
	}
	eventually(t, "the record lives on", func() bool { return len(s.Must("PTTL", record)) > len("30000") })
}

func TestCountsAreToldAgainFromTimeToTime(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	d, _ := node(t, redisclient.Options{Addresses: []string{s.Addr}}, "a", faultOptions(""))
	ch := pubsub.ChannelID{App: "app", Name: "ch"}
	_, err := d.Join(t.Context(), ch, d.node, one, 0)
	must(t, err)
	s.Must("DEL", d.keys.counts(bucketOf(ch), ch.Name), d.keys.occupied(bucketOf(ch))) // as if a failover had lost it
	d.counts.mu.Lock()
	d.counts.channels[ch].reported = time.Now().Add(-reportInterval)
	d.counts.mu.Unlock()
	eventually(t, "it is there again", func() bool {
		o, err := d.Occupancy(t.Context(), ch)
		must(t, err)
		names, _, err := d.Channels(t.Context(), directory.ChannelQuery{App: "app", Limit: 1})
		must(t, err)
		return o == one && len(names) == 1
	})
}

func TestANodeIsBuriedByOneAtATime(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	to := redisclient.Options{Addresses: []string{s.Addr}}
	d := two(t, to, to, faultOptions(""))
	must(t, d.a.Create(t.Context(), directory.Connection{ID: "c", App: "app"}, 0))
	lock := d.b.keys.burying(d.a.id)
	s.Must("SET", lock, "another")
	d.killA()
	must(t, d.b.bury(t.Context(), d.a.id))
	err := d.b.buryStep(t.Context(), d.a.id, func(context.Context) error {
		t.Error("a step is done that is another's")
		return nil
	})
	if !errors.Is(err, errNotBurying) {
		t.Errorf("a step that is another's: %v", err)
	}
	state := func() directory.State {
		c, err := d.b.Lookup(t.Context(), "c")
		must(t, err)
		return c.State
	}
	if is := state(); is != directory.Connected {
		t.Errorf("state %d", is)
	}
	s.Must("DEL", lock) // the other one has ended
	eventually(t, "it goes on", func() bool { return state() == directory.Disconnected })
}

func TestAClockThatIsWrongIsCorrected(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	opts := faultOptions("")
	opts.heartbeat = time.Hour
	d, _ := node(t, redisclient.Options{Addresses: []string{s.Addr}}, "a", opts)
	at := time.UnixMilli(1_700_000_000_000)
	for _, c := range []struct{ off, want int64 }{{0, 0}, {900, 0}, {-900, 0}, {5000, 5000}, {-3_600_000, -3_600_000}} {
		d.clock.Store(c.off)
		if got := d.stored(at) - at.UnixMilli(); got != c.want || !d.restored(d.stored(at)).Equal(at) {
			t.Errorf("a store that is %d ms ahead: %d", c.off, got)
		}
	}
	eventually(t, "a measurement during which the machine does not pause", func() bool {
		must(t, d.measure(t.Context()))
		off := d.clock.Load()
		return off <= 1000 && off >= -1000 // on one machine
	})
}

func TestRecordsOfAnotherVersionAreAnError(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	d, _ := node(t, redisclient.Options{Addresses: []string{s.Addr}}, "a", testOptions(""))
	must(t, d.Create(t.Context(), directory.Connection{ID: "c", App: "app"}, 0))
	s.Must("SETRANGE", d.keys.connection("c")[0], "0", "\x02")
	if _, err := d.Lookup(t.Context(), "c"); err == nil || errors.Is(err, directory.ErrUnavailable) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("Lookup: %v", err)
	}
	if _, err := d.PutApp(t.Context(), "app", 0, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	s.Must("HSET", d.keys.appRecords()[0], "app", "\x02\x00\x00\x00\x00\x00\x00\x01{}")
	if _, err := d.Apps(t.Context()); err == nil {
		t.Error("Apps: it is read")
	}
}

func BenchmarkCreateAndClose(b *testing.B) { benchmark(b, (*Directory).createAndClose) }

func BenchmarkJoinAndLeave(b *testing.B) { benchmark(b, (*Directory).joinAndLeave) }

func (d *Directory) createAndClose(ctx context.Context, i int64) error {
	id := fmt.Sprint("connection", i)
	if err := d.Create(ctx, directory.Connection{ID: id, App: "app"}, 0); err != nil {
		return err
	}
	return d.Close(ctx, id, 1)
}

func (d *Directory) joinAndLeave(ctx context.Context, i int64) error {
	ch := pubsub.ChannelID{App: "app", Name: fmt.Sprint("channel", i%1000)}
	if _, err := d.Join(ctx, ch, d.node, one, 0); err != nil {
		return err
	}
	return d.Adjust(ctx, ch, d.node, pubsub.Occupancy{}.Minus(one))
}

func benchmark(b *testing.B, f func(*Directory, context.Context, int64) error) {
	s := redistest.Start(b)
	d, _ := node(b, redisclient.Options{Addresses: []string{s.Addr}}, "a", faultOptions(""))
	b.ReportAllocs()
	var n sync.Mutex
	next := int64(0)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n.Lock()
			next++
			i := next
			n.Unlock()
			if err := f(d, context.Background(), i); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
