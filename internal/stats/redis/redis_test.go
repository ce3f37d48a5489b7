package redis

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
	"letshare-server/internal/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

var noon = time.Date(2024, 2, 3, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, s *redistest.Server, opts Options) *Store {
	t.Helper()
	client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return New(client, opts)
}

func fixture(t *testing.T, id, figures string) stats.Fixture {
	t.Helper()
	f, err := stats.DecodeFixtures([]byte(fmt.Sprintf(`{"intervalId":%q,%s}`, id, figures)))
	if err != nil {
		t.Fatal(err)
	}
	return f[0]
}

// read returns all intervals of a unit with their entries, by pages.
func read(t *testing.T, s stats.Store, u stats.Unit) map[string]map[string]float64 {
	t.Helper()
	all := make(map[string]map[string]float64)
	q := stats.Query{Unit: u, Limit: 100}
	for {
		page, err := s.Read(t.Context(), "app", q)
		must(t, err)
		for _, item := range page.Items {
			flat, err := item.Flat()
			must(t, err)
			all[item.Interval.String()] = maps.Collect(flat)
			q.After = item.Interval
		}
		if !page.More {
			return all
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestItKeepsWhatAMemoryKeeps does the same to both, with folding in between.
func TestItKeepsWhatAMemoryKeeps(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	random := rand.New(rand.NewPCG(7, 7))
	now := &clock{noon}
	for _, maxBytes := range []int{0, 6000} {
		opts := Options{Now: now.Now, Prefix: t.Name() + strconv.Itoa(maxBytes), MaxAppBytes: maxBytes}
		s := open(t, server, opts)
		m := stats.NewMemory(stats.MemoryOptions{Now: now.Now, MaxAppBytes: maxBytes})
		_, err := s.began(t.Context())
		must(t, err)
		for i := range 400 {
			now.now = now.now.Add(time.Duration(random.IntN(600)) * time.Second)
			f := fixture(t, stats.At(stats.Minute, now.now).String(), fmt.Sprintf(`"inbound":{"rest":{"messages":{"count":%d}}},"channels":{"peak":%d,"min":1,"opened":%d}`,
				1+random.IntN(5), 1+random.IntN(9), random.IntN(3)))
			if i%40 == 17 {
				f.Interval = f.Interval.In(stats.Hour)
				must(t, s.Replace(t.Context(), "app", []stats.Fixture{f}))
				must(t, m.Replace(t.Context(), "app", []stats.Fixture{f}))
			} else {
				must(t, s.Add(t.Context(), "app", f.Interval, f.Totals))
				must(t, m.Add(t.Context(), "app", f.Interval, f.Totals))
			}
			if i%100 == 99 {
				server.Must("DEL", s.key("app")+":l")
				must(t, s.fold(t.Context(), "app"))
			}
		}
		for u := stats.Minute; u <= stats.Month; u++ {
			if maxBytes != 0 && u < stats.Day {
				continue // what there is no room for is folded at another moment
			}
			got, want := read(t, s, u), read(t, m, u)
			if len(want) == 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("by %s, in %d bytes:\ngot  %v\nwant %v", u, maxBytes, got, want)
			}
		}
		fields, err := s.parts(t.Context(), "app")
		must(t, err)
		bytes := 0
		for _, record := range fields {
			bytes += len(record) + 48
		}
		if maxBytes != 0 && bytes > 3*maxBytes { // what is new is not folded yet
			t.Errorf("%d bytes in %d parts", bytes, len(fields))
		}
		if ttl, err := strconv.ParseInt(server.Must("PTTL", s.key("app")), 10, 64); err != nil || ttl < life.Milliseconds()/2 {
			t.Errorf("it lives for %d ms, %v", ttl, err)
		}
		must(t, s.Forget(t.Context(), "app"))
		if got := read(t, s, stats.Month); len(got) > 0 {
			t.Errorf("forgotten, and there is %v", got)
		}
	}
}

func TestWhatNodesCountAtTheSameTimeAddsUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	now := &clock{noon.Add(time.Second)}
	a, b := open(t, server, Options{Now: now.Now}), open(t, server, Options{Now: now.Now})
	minute := stats.At(stats.Minute, noon)
	add := func(s *Store, messages, peak int) {
		t.Helper()
		figures := fmt.Sprintf(`"inbound":{"rest":{"messages":{"count":%d}}}`, messages)
		if peak > 0 {
			figures += fmt.Sprintf(`,"channels":{"peak":%d,"min":%d,"mean":%d}`, peak, peak-1, peak)
		}
		f := fixture(t, minute.String(), figures)
		must(t, s.Add(t.Context(), "app", minute, f.Totals))
	}
	check := func(what string) {
		t.Helper()
		for _, s := range []*Store{a, b} {
			got := read(t, s, stats.Minute)[minute.String()]
			for name, want := range map[string]float64{"messages.inbound.rest.messages.count": 60, "channels.peak": 9, "channels.min": 7, "channels.mean": 9} {
				if got[name] != want {
					t.Errorf("%s: %s is %v, want %v", what, name, got[name], want)
				}
			}
		}
	}
	add(a, 10, 5)
	add(b, 20, 4)
	add(a, 30, 0)
	check("at once")
	now.now = noon.Add(time.Hour)
	must(t, a.fold(t.Context(), "app")) // nobody has the lock any more, by our clock; by that of Redis a has
	server.Must("DEL", a.key("app")+":l")
	must(t, b.fold(t.Context(), "app"))
	if n := server.Must("HLEN", a.key("app")); n != "1" {
		t.Errorf("%s parts after folding", n)
	}
	check("folded")
	add(a, 0, 0) // late
	check("and later")
}

func TestWhatCouldNotBeStoredIsStoredOnceLater(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	now := &clock{noon}
	s := open(t, server, Options{Now: now.Now})
	c := stats.New(stats.Options{Store: s, Now: now.Now})
	app := c.App("app")
	app.Published(stats.REST, stats.Messages, 3, 30)
	now.now = now.now.Add(time.Second)
	must(t, c.Collect(t.Context()))
	server.Stop()
	app.Published(stats.REST, stats.Messages, 4, 40)
	now.now = now.now.Add(time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := c.Collect(ctx); err == nil {
		t.Error("it is stored in a server that is stopped")
	}
	server.Continue() // and does what was sent
	app.Published(stats.REST, stats.Messages, 5, 50)
	now.now = now.now.Add(time.Second)
	must(t, c.Collect(t.Context()))
	if got := read(t, s, stats.Hour)[stats.At(stats.Hour, noon).String()]["messages.inbound.rest.messages.count"]; got != 12 {
		t.Errorf("%v messages, want 12", got)
	}
}
