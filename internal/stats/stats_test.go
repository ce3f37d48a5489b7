package stats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

var noon = time.Date(2024, 2, 3, 12, 0, 0, 0, time.UTC)

func fixtures(t testing.TB, text string) []stats.Fixture {
	t.Helper()
	f, err := stats.DecodeFixtures([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func replace(t testing.TB, s stats.Store, text string) {
	t.Helper()
	if err := s.Replace(t.Context(), "app", fixtures(t, text)); err != nil {
		t.Fatal(err)
	}
}

// read returns all pages, with limit on each, as interval ids and entries.
func read(t testing.TB, s stats.Store, q stats.Query) (ids []string, entries []map[string]float64) {
	t.Helper()
	for {
		page, err := s.Read(t.Context(), "app", q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Items) > q.Limit || page.More && len(page.Items) != q.Limit {
			t.Fatalf("%d items with limit %d, more: %v", len(page.Items), q.Limit, page.More)
		}
		for _, item := range page.Items {
			flat, err := item.Flat()
			if err != nil {
				t.Fatal(err)
			}
			ids, entries = append(ids, item.Interval.String()), append(entries, maps.Collect(flat))
			q.After = item.Interval
		}
		if !page.More {
			return ids, entries
		}
	}
}

var allTime = stats.Query{Limit: 1000, Forwards: true}

func byUnit(u stats.Unit) stats.Query {
	q := allTime
	q.Unit = u
	return q
}

// What the suites of the JavaScript, Python and Go SDKs post, and what they expect of it.
func TestFixturesAreCompleted(t *testing.T) {
	s := stats.NewMemory(stats.MemoryOptions{})
	replace(t, s, `[
		{"intervalId":"2024-02-03:15:05",
		 "inbound":{"realtime":{"messages":{"count":70,"data":7000}}}, "outbound":{"realtime":{"messages":{"count":40,"data":4000}}},
		 "persisted":{"presence":{"count":20,"data":2000}}, "connections":{"tls":{"peak":20,"opened":10}}, "channels":{"peak":50,"opened":30},
		 "apiRequests":{"succeeded":50,"failed":10}, "tokenRequests":{"succeeded":60,"failed":20}},
		{"intervalId":"2020-01-28:14:00","unit":"minute","inProgress":"","count":0,
		 "all":{"all":{"count":50,"data":5000,"failed":0},"messages":{"count":50,"data":5000},"presence":{"count":0}},
		 "inbound":{"all":{"all":{"count":50,"data":5000},"messages":{"count":50,"data":5000}},
		            "realtime":{"all":{"count":50,"data":5000},"messages":{"count":50,"data":5000}}},
		 "push":{"messages":0,"notifications":{"attempted":{"total":0}}}, "peakRates":{"reactor":{"amqp":1}}, "xchgProducer":null},
		{"intervalId":"2020-01-28:14:01","inbound":{"all":{"all":{"count":5}},"rest":{"all":{"count":3},"presence":{"count":1}}}},
		{"intervalId":"2020-01-28:14:02","inbound":{"realtime":{"messages":{"count":0}}}}
	]`)
	ids, entries := read(t, s, byUnit(stats.Minute))
	if want := []string{"2020-01-28:14:00", "2020-01-28:14:01", "2020-01-28:14:02", "2024-02-03:15:05"}; !slices.Equal(ids, want) {
		t.Fatal(ids)
	}
	for i, want := range []map[string]float64{
		{
			"messages.all.all.count": 50, "messages.all.all.data": 5000, "messages.all.messages.count": 50, "messages.all.messages.data": 5000,
			"messages.inbound.all.all.count": 50, "messages.inbound.all.all.data": 5000,
			"messages.inbound.all.messages.count": 50, "messages.inbound.all.messages.data": 5000,
			"messages.inbound.realtime.all.count": 50, "messages.inbound.realtime.all.data": 5000,
			"messages.inbound.realtime.messages.count": 50, "messages.inbound.realtime.messages.data": 5000,
		},
		{ // wholes that are more than their parts
			"messages.all.all.count": 5, "messages.all.presence.count": 1,
			"messages.inbound.all.all.count": 5, "messages.inbound.all.presence.count": 1,
			"messages.inbound.rest.all.count": 3, "messages.inbound.rest.presence.count": 1,
		},
		{},
		{
			"messages.all.all.count": 110, "messages.all.all.data": 11000, "messages.all.messages.count": 110, "messages.all.messages.data": 11000,
			"messages.inbound.all.all.count": 70, "messages.inbound.all.all.data": 7000,
			"messages.inbound.all.messages.count": 70, "messages.inbound.all.messages.data": 7000,
			"messages.inbound.realtime.all.count": 70, "messages.inbound.realtime.all.data": 7000,
			"messages.inbound.realtime.messages.count": 70, "messages.inbound.realtime.messages.data": 7000,
			"messages.outbound.all.all.count": 40, "messages.outbound.all.all.data": 4000,
			"messages.outbound.all.messages.count": 40, "messages.outbound.all.messages.data": 4000,
			"messages.outbound.realtime.all.count": 40, "messages.outbound.realtime.all.data": 4000,
			"messages.outbound.realtime.messages.count": 40, "messages.outbound.realtime.messages.data": 4000,
			"messages.persisted.all.count": 20, "messages.persisted.all.data": 2000,
			"messages.persisted.presence.count": 20, "messages.persisted.presence.data": 2000,
			"connections.all.peak": 20, "connections.all.opened": 10, "channels.peak": 50, "channels.opened": 30,
			"apiRequests.all.succeeded": 110, "apiRequests.all.failed": 30,
			"apiRequests.other.succeeded": 50, "apiRequests.other.failed": 10,
			"apiRequests.tokenRequests.succeeded": 60, "apiRequests.tokenRequests.failed": 20,
		},
	} {
		if !maps.Equal(entries[i], want) {
			t.Errorf("%s: %v", ids[i], entries[i])
		}
	}
}

func TestAFixtureReplacesItsInterval(t *testing.T) {
	s := stats.NewMemory(stats.MemoryOptions{})
	count := func(u stats.Unit) (all []float64) {
		_, entries := read(t, s, byUnit(u))
		for _, e := range entries {
			all = append(all, e["messages.inbound.rest.messages.count"])
		}
		return all
	}
	fixture := func(id string, n int) string {
		return fmt.Sprintf(`{"intervalId":%q,"inbound":{"rest":{"messages":{"count":%d}}}}`, id, n)
	}
	for range 3 { // as suites do that share one app
		replace(t, s, "["+fixture("2020-01-28:14:00", 1)+","+fixture("2020-01-28:14:01", 2)+"]")
	}
	replace(t, s, fixture("2020-01-28:14:01", 7))
	if m, h := count(stats.Minute), count(stats.Hour); !slices.Equal(m, []float64{1, 7}) || !slices.Equal(h, []float64{8}) {
		t.Errorf("minutes %v, hours %v", m, h)
	}
	replace(t, s, fixture("2020-01-28:14", 5)) // with its minutes
	replace(t, s, fixture("2020-01-28:15:00", 1))
	if m, h, d := count(stats.Minute), count(stats.Hour), count(stats.Day); !slices.Equal(m, []float64{1}) || !slices.Equal(h, []float64{5, 1}) || !slices.Equal(d, []float64{6}) {
		t.Errorf("minutes %v, hours %v, days %v", m, h, d)
	}
	replace(t, s, fixture("2020-01", 3))
	if m, h, all := count(stats.Minute), count(stats.Hour), count(stats.Month); m != nil || h != nil || !slices.Equal(all, []float64{3}) {
		t.Errorf("minutes %v, hours %v, months %v", m, h, all)
	}
}

func TestFixturesThatAreNoneAreRefused(t *testing.T) {
	for _, c := range []struct {
		what, text string
		code       pubsub.Code
	}{
		{"no JSON", `[{"intervalId"`, pubsub.CodeInvalidRequestBody},
		{"a number", `1`, pubsub.CodeInvalidRequestBody},
		{"an array in an array", `[[]]`, pubsub.CodeInvalidRequestBody},
		{"no interval", `[{}]`, pubsub.CodeBadRequest},
		{"an interval that is none", `{"intervalId":"today"}`, pubsub.CodeBadRequest},
		{"a unit that is none", `{"intervalId":"2020-01","unit":"year"}`, pubsub.CodeBadRequest},
		{"a unit that is finer than the interval", `{"intervalId":"2020-01","unit":"day"}`, pubsub.CodeBadRequest},
		{"a text", `{"intervalId":"2020-01","channels":{"peak":"5"}}`, pubsub.CodeBadRequest},
		{"less than nothing", `{"intervalId":"2020-01","channels":{"peak":-1}}`, pubsub.CodeBadRequest},
		{"too much", `{"intervalId":"2020-01","channels":{"peak":1e16}}`, pubsub.CodeBadRequest},
		{"too many", "[" + strings.Repeat(`{"intervalId":"2020-01"},`, stats.MaxFixtures) + `{"intervalId":"2020-01"}]`, pubsub.CodeBadRequest},
	} {
		_, err := stats.DecodeFixtures([]byte(c.text))
		if e := new(pubsub.Error); !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	// A longer id than the unit needs, which is the documented form of days.
	if f := fixtures(t, `{"intervalId":"2020-01-28:00","unit":"day"}`); f[0].Interval.String() != "2020-01-28" {
		t.Error(f[0].Interval)
	}
}

func TestQueriesSelectIntervals(t *testing.T) {
	s := stats.NewMemory(stats.MemoryOptions{})
	var all []string
	for i := range 10 {
		all = append(all, fmt.Sprintf("2020-01-28:14:%02d", i*5))
		replace(t, s, fmt.Sprintf(`{"intervalId":%q,"channels":{"opened":1}}`, all[i]))
	}
	replace(t, s, `{"intervalId":"2020-02-01","channels":{"opened":1}}`)
	replace(t, s, `{"intervalId":"9998-01","channels":{"opened":1}}`) // is not yet
	at := func(h, m, s int) time.Time { return time.Date(2020, 1, 28, h, m, s, 0, time.UTC) }
	for _, c := range []struct {
		what string
		q    stats.Query
		want []string
	}{
		{"everything", stats.Query{}, all},
		{"within", stats.Query{Start: at(14, 5, 0), End: at(14, 15, 0)}, all[1:4]},
		{"from within an interval to within one", stats.Query{Start: at(14, 5, 59), End: at(14, 15, 30)}, all[1:4]},
		{"between two", stats.Query{Start: at(14, 6, 0), End: at(14, 9, 59)}, nil},
		{"from", stats.Query{Start: at(14, 40, 0)}, all[8:]},
		{"up to", stats.Query{End: at(14, 4, 59)}, all[:1]},
		{"hours", stats.Query{Unit: stats.Hour, Start: at(14, 59, 59)}, []string{"2020-01-28:14"}},
		{"days", stats.Query{Unit: stats.Day}, []string{"2020-01-28", "2020-02-01"}},
		{"months", stats.Query{Unit: stats.Month}, []string{"2020-01", "2020-02"}},
		{"months up to within one", stats.Query{Unit: stats.Month, End: at(0, 0, 0)}, []string{"2020-01"}},
	} {
		for _, limit := range []int{1, 2, 3, 100} {
			c.q.Limit = limit
			c.q.Forwards = true
			forwards, _ := read(t, s, c.q)
			c.q.Forwards = false
			backwards, _ := read(t, s, c.q)
			slices.Reverse(backwards)
			if !slices.Equal(forwards, c.want) || !slices.Equal(backwards, c.want) {
				t.Errorf("%s, by %d: %v forwards, %v backwards", c.what, limit, forwards, backwards)
			}
		}
	}
	if page, err := s.Read(t.Context(), "another", stats.Query{Limit: 1}); err != nil || len(page.Items) != 0 {
		t.Errorf("another app: %v, %v", page, err)
	}
}

// The same figures, rolled up by adding numbers in maps. What the store keeps coarse for want
// of room is the same, as far as it is still told apart.
func TestRollUpsAreThoseOfANaiveModel(t *testing.T) {
	for _, c := range []struct {
		what  string
		bytes int
		units []stats.Unit
	}{
		{"with room", 0, []stats.Unit{stats.Minute, stats.Hour, stats.Day, stats.Month}},
		{"with little room", 20_000, []stats.Unit{stats.Day, stats.Month}},
	} {
		t.Run(c.what, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, uint64(c.bytes)))
			s := stats.NewMemory(stats.MemoryOptions{MaxAppBytes: c.bytes})
			model := make(map[string]map[string]float64) // figures by minute
			for range 1000 {
				minute := noon.Add(-time.Duration(random.IntN(60*24*60)) * time.Minute).Truncate(7 * time.Minute)
				if c.bytes != 0 && model[minute.Format("2006-01-02:15:04")] != nil {
					continue // what is folded cannot be replaced
				}
				in, out, peak, low := random.IntN(5), random.IntN(1000), 1+random.IntN(9), random.IntN(2)
				mean := float64(random.IntN(8)) / 4
				id := minute.Format("2006-01-02:15:04")
				replace(t, s, fmt.Sprintf(`{"intervalId":%q,"inbound":{"rest":{"messages":{"count":%d}},"realtime":{"presence":{"count":1}}},
					"outbound":{"realtime":{"messages":{"data":%d}}},"channels":{"peak":%d,"min":%d,"mean":%g}}`, id, in, out, peak, low, mean))
				model[id] = map[string]float64{"in": float64(in), "out": float64(out), "peak": float64(peak), "low": float64(low), "mean": mean}
			}
			for _, u := range c.units {
				sums, n := make(map[string]map[string]float64), make(map[string]float64)
				for minute, f := range model {
					id := minute[:[]int{16, 13, 10, 7}[u]]
					sum := sums[id]
					if sum == nil {
						sum = map[string]float64{"low": math.Inf(1)}
						sums[id] = sum
					}
					n[id]++
					for _, name := range []string{"in", "out", "mean"} {
						sum[name] += f[name]
					}
					sum["peak"], sum["low"] = max(sum["peak"], f["peak"]), min(sum["low"], f["low"])
				}
				ids, entries := read(t, s, byUnit(u))
				if want := slices.Sorted(maps.Keys(sums)); !slices.Equal(ids, want) {
					t.Fatalf("by %s: %v, want %v", u, ids, want)
				}
				for i, id := range ids {
					got, want := entries[i], sums[id]
					for name, want := range map[string]float64{
						"messages.inbound.rest.messages.count":     want["in"],
						"messages.all.all.count":                   want["in"] + n[id],
						"messages.inbound.realtime.presence.count": n[id],
						"messages.outbound.all.all.data":           want["out"],
						"channels.peak":                            want["peak"],
						"channels.min":                             want["low"],
						"channels.mean":                            math.Round(want["mean"]/n[id]*1000) / 1000,
					} {
						if got[name] != want {
							t.Errorf("%s %s: %s is %v, want %v", u, id, name, got[name], want)
						}
					}
				}
			}
		})
	}
}

// Connections that come and go, against their number in each second.
func TestPeakMinAndMeanAreThoseOfTheNumberInEachSecond(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	now := &clock{noon.Add(-10 * time.Second)}
	start := now.now
	s := stats.NewMemory(stats.MemoryOptions{Now: now.Now})
	c := stats.New(stats.Options{Store: s, Now: now.Now})
	app := c.App("app")
	type span struct{ peak, low, sum, seconds, opened float64 }
	model := make(map[string]*span)
	connections, busy := 0, true
	for now.now.Before(start.Add(3 * time.Hour)) {
		if now.now.Unix()%5 == 0 {
			if err := c.Collect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if now.now.Unix()%600 == 0 {
			busy = random.IntN(2) == 0
		}
		var here []*span
		for _, u := range []stats.Unit{stats.Minute, stats.Hour, stats.Day} {
			id := stats.At(u, now.now).String()
			if model[id] == nil {
				model[id] = &span{peak: float64(connections), low: float64(connections)}
			}
			here = append(here, model[id])
		}
		for range random.IntN(3) {
			opened := 0.0
			switch {
			case busy && random.IntN(40) > connections:
				app.ConnectionOpened()
				connections++
				opened = 1
			case connections > 0:
				app.ConnectionClosed()
				connections--
			}
			for _, m := range here {
				m.peak, m.low = max(m.peak, float64(connections)), min(m.low, float64(connections))
				m.opened += opened
			}
		}
		for _, m := range here {
			m.sum += float64(connections)
			m.seconds++
		}
		now.now = now.now.Add(time.Second)
	}
	if err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, u := range []stats.Unit{stats.Minute, stats.Hour, stats.Day} {
		ids, entries := read(t, s, byUnit(u))
		got := make(map[string]map[string]float64)
		for i, id := range ids {
			got[id] = entries[i]
		}
		for id, m := range model {
			if i, _ := stats.ParseInterval(id); i.Unit != u {
				continue
			}
			if m.peak == 0 {
				if got[id] != nil {
					t.Errorf("%s has %v", id, got[id])
				}
				continue
			}
			found++
			want := map[string]float64{"peak": m.peak, "min": m.low, "mean": math.Round(m.sum/m.seconds*1000) / 1000, "opened": m.opened}
			for name, want := range want {
				if got := got[id]["connections.all."+name]; got != want {
					t.Errorf("%s: %s is %v, want %v", id, name, got, want)
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d intervals compared", found)
	}
}

func TestWhatIsCountedIsThereWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stats.NewMemory(stats.MemoryOptions{})
		c := stats.New(stats.Options{Store: s})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = c.Run(ctx) })

		time.Sleep(time.Minute - 3*time.Second) // of fake time
		app := c.App("app")
		app.Published(stats.Realtime, stats.Messages, 3, 30)
		time.Sleep(time.Second)
		if page, err := c.Read(t.Context(), "app", stats.Query{Limit: 1}); err != nil || len(page.Items) != 1 || page.Items[0].Until.IsZero() {
			t.Errorf("read at once: %+v, %v", page, err)
		}
		app.Published(stats.Realtime, stats.Messages, 1, 10)
		time.Sleep(6 * time.Second) // the minute is over
		app.Delivered(stats.REST, stats.Presence, 2, 20)
		time.Sleep(6 * time.Second)
		ids, entries := read(t, s, byUnit(stats.Minute))
		if len(ids) != 2 || entries[0]["messages.inbound.realtime.messages.count"] != 4 || entries[0]["messages.inbound.realtime.messages.data"] != 40 ||
			entries[1]["messages.outbound.rest.presence.count"] != 2 {
			t.Errorf("%v %v", ids, entries)
		}
		page, err := s.Read(t.Context(), "app", stats.Query{Limit: 2, Forwards: true})
		if err != nil || !page.Items[0].Until.IsZero() || !page.Items[1].Until.Equal(time.Now()) {
			t.Errorf("in progress: %+v, %v", page, err)
		}

		app.Request(stats.Succeeded)
		time.Sleep(time.Second) // or Run may just have collected, and no time has passed since
		stop()
		running.Wait()
		if _, entries := read(t, s, byUnit(stats.Month)); entries[0]["apiRequests.all.succeeded"] != 1 {
			t.Errorf("what was counted before the end: %v", entries)
		}
	})
}

func TestEachCountIsToldOnce(t *testing.T) {
	s := stats.NewMemory(stats.MemoryOptions{})
	c := stats.New(stats.Options{Store: s})
	app := c.App("app")
	const each = 1000
	var counting sync.WaitGroup
	for range 4 {
		counting.Go(func() {
			for range each {
				c.App("app").Published(stats.Realtime, stats.Messages, 1, 10)
				app.Refused(stats.REST, stats.Messages, 1)
				app.Failed(stats.Realtime, stats.Presence, 1)
				app.Delivered(stats.Realtime, stats.Presence, 2, 6)
				app.Persisted(stats.Messages, 1, 10)
				app.ConnectionOpened()
				app.ChannelOpened()
				app.ConnectionClosed()
				app.ConnectionResumed()
				app.ConnectionRefused()
				app.ConnectionClosed()
				app.ChannelClosed()
				app.Request(stats.RequestFailed)
				app.TokenRequest(stats.RequestRefused)
			}
		})
	}
	done := make(chan struct{})
	go func() { counting.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		if _, err := c.Read(t.Context(), "app", stats.Query{Limit: 1}); err != nil {
			t.Fatal(err)
		}
	}
	got := make(map[string]float64)
	_, entries := read(t, s, byUnit(stats.Minute))
	for _, e := range entries {
		for name, n := range e {
			got[name] += n
		}
	}
	for name, want := range map[string]float64{
		"messages.inbound.realtime.messages.count": 4 * each, "messages.inbound.realtime.messages.data": 40 * each,
		"messages.inbound.rest.messages.refused": 4 * each, "messages.inbound.realtime.presence.failed": 4 * each,
		"messages.outbound.realtime.presence.count": 8 * each, "messages.outbound.realtime.presence.data": 24 * each,
		"messages.persisted.messages.count": 4 * each, "messages.persisted.all.data": 40 * each,
		"connections.all.opened": 4 * each, "connections.all.refused": 4 * each, "channels.opened": 4 * each,
		"apiRequests.other.failed": 4 * each, "apiRequests.tokenRequests.refused": 4 * each,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// broken is a store that takes nothing while it has an error.
type broken struct {
	stats.Store
	err error
}

func (b *broken) Add(ctx context.Context, app string, minute stats.Interval, t *stats.Totals) error {
	if b.err != nil {
		return b.err
	}
	return b.Store.Add(ctx, app, minute, t)
}

func TestWhatAStoreDoesNotTakeIsKept(t *testing.T) {
	now := &clock{noon}
	s := &broken{stats.NewMemory(stats.MemoryOptions{Now: now.Now}), errors.New("away")}
	c := stats.New(stats.Options{Store: s, Now: now.Now})
	for range 3 {
		c.App("app").ChannelOpened()
		now.now = now.now.Add(30 * time.Second)
		if err := c.Collect(t.Context()); !errors.Is(err, s.err) {
			t.Error(err)
		}
	}
	s.err = nil
	now.now = now.now.Add(time.Second)
	if err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, entries := read(t, s, byUnit(stats.Hour))
	if len(entries) != 1 || entries[0]["channels.opened"] != 3 || entries[0]["channels.peak"] != 3 {
		t.Error(entries)
	}
}

func TestAForgottenAppHasNothing(t *testing.T) {
	s := stats.NewMemory(stats.MemoryOptions{})
	c := stats.New(stats.Options{Store: s})
	gone := c.App("app")
	gone.ChannelOpened()
	if err := c.Replace(t.Context(), "app", fixtures(t, `{"intervalId":"2020-01"}`)); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	gone.ChannelOpened() // somebody still knows it
	if err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids, _ := read(t, s, byUnit(stats.Month)); ids != nil || s.Bytes() != 0 {
		t.Errorf("%v, %d bytes", ids, s.Bytes())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const maxApp, maxAll = 10_000, 40_000
	random := rand.New(rand.NewPCG(5, 6))
	s := stats.NewMemory(stats.MemoryOptions{MaxBytes: maxAll, MaxAppBytes: maxApp})
	sum := make(map[string]float64)
	for i := range 5000 {
		app := fmt.Sprintf("app%d", random.IntN(20))
		f := fixtures(t, fmt.Sprintf(`{"intervalId":%q,"channels":{"opened":%d,"peak":1,"mean":0.25},"apiRequests":{"failed":1}}`,
			noon.Add(time.Duration(i)*time.Minute).Format("2006-01-02:15:04"), 1+i))
		if err := s.Replace(t.Context(), app, f); err != nil {
			t.Fatal(err)
		}
		sum[app] += float64(1 + i)
		if s.Bytes() > maxAll {
			t.Fatalf("%d bytes after %d", s.Bytes(), i)
		}
	}
	for app, want := range sum {
		page, err := s.Read(t.Context(), app, stats.Query{Unit: stats.Month, Limit: 10, End: noon.AddDate(0, 1, 0)})
		if err != nil || len(page.Items) != 1 {
			t.Fatal(page, err)
		}
		flat, err := page.Items[0].Flat()
		if err != nil {
			t.Fatal(err)
		}
		if got := maps.Collect(flat)["channels.opened"]; got != want {
			t.Errorf("%s: %v in the month, want %v", app, got, want)
		}
	}
}

func TestTheOldestMonthsGo(t *testing.T) {
	s := stats.NewMemory(stats.MemoryOptions{})
	for i := range 500 {
		f := fixtures(t, fmt.Sprintf(`{"intervalId":%q,"channels":{"opened":1}}`, noon.AddDate(0, i, 0).Format("2006-01")))
		if err := s.Replace(t.Context(), "app0", f); err != nil {
			t.Fatal(err)
		}
	}
	page, err := s.Read(t.Context(), "app0", stats.Query{Unit: stats.Month, Limit: 1000, End: noon.AddDate(100, 0, 0)})
	if err != nil || len(page.Items) != 120 || page.Items[0].Interval.String() != noon.AddDate(0, 499, 0).Format("2006-01") {
		t.Errorf("%d months, %v", len(page.Items), err)
	}
}

func TestMinutesBeyondTheirNumberAreInTheirHour(t *testing.T) {
	now := &clock{noon}
	s := stats.NewMemory(stats.MemoryOptions{Now: now.Now})
	c := stats.New(stats.Options{Store: s, Now: now.Now})
	const minutes = 2880 + 90
	for range minutes {
		c.App("app").Request(stats.Succeeded)
		now.now = now.now.Add(time.Minute)
		if err := c.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ids, _ := read(t, s, byUnit(stats.Minute))
	if len(ids) != 2880 || ids[0] != noon.Add(90*time.Minute).Format("2006-01-02:15:04") {
		t.Errorf("%d minutes from %s", len(ids), ids[0])
	}
	total := 0.0
	_, hours := read(t, s, byUnit(stats.Hour))
	for _, h := range hours {
		if h["apiRequests.all.succeeded"] > 60 {
			t.Error(h)
		}
		total += h["apiRequests.all.succeeded"]
	}
	if total != minutes {
		t.Errorf("%v requests in all hours", total)
	}
	t.Logf("%d bytes for two days of one figure", s.Bytes())
}

func TestCountingAllocatesNothing(t *testing.T) {
	c := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
	for what, app := range map[string]*stats.App{"counting": c.App("app"), "not counting": (*stats.Counters)(nil).App("app")} {
		allocs := testing.AllocsPerRun(100, func() {
			app.Published(stats.Realtime, stats.Messages, 1, 100)
			app.Persisted(stats.Messages, 1, 100)
			app.Delivered(stats.Realtime, stats.Messages, 50, 5000)
			app.ConnectionOpened()
			app.ConnectionClosed()
			app.Request(stats.Succeeded)
			c.App("app")
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", what, allocs)
		}
	}
}

func BenchmarkPublishedAndDelivered(b *testing.B) {
	app := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})}).App("app")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			app.Published(stats.Realtime, stats.Messages, 1, 100)
			app.Delivered(stats.Realtime, stats.Messages, 50, 5000)
		}
	})
}

// BenchmarkReadMonth reads all that is kept of a busy app as one month.
func BenchmarkReadMonth(b *testing.B) {
	now := &clock{noon}
	s := stats.NewMemory(stats.MemoryOptions{Now: now.Now})
	c := stats.New(stats.Options{Store: s, Now: now.Now})
	app := c.App("app")
	for i := range 25 * 24 * 60 {
		app.Published(stats.Realtime, stats.Messages, i, 100*i)
		app.Delivered(stats.Realtime, stats.Messages, 50*i, 5000*i)
		app.Published(stats.REST, stats.Messages, i, 100*i)
		app.Published(stats.Realtime, stats.Presence, i, 100*i)
		app.Delivered(stats.Realtime, stats.Presence, 50*i, 5000*i)
		app.Persisted(stats.Messages, i, i)
		app.ConnectionOpened()
		app.ChannelOpened()
		app.Request(stats.Succeeded)
		app.TokenRequest(stats.Succeeded)
		now.now = now.now.Add(time.Minute)
		if err := c.Collect(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := s.Read(b.Context(), "app", stats.Query{Unit: stats.Month, Limit: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(s.Bytes()), "store-bytes")
}

// nested is an item in the form of fixtures.
func nested(t testing.TB, item *stats.Item) []byte {
	t.Helper()
	paths, err := item.Nested()
	if err != nil {
		t.Fatal(err)
	}
	object := map[string]any{"intervalId": item.Interval.String()}
	for path, v := range paths {
		names := strings.Split(path, ".")
		in := object
		for _, name := range names[:len(names)-1] {
			if in[name] == nil {
				in[name] = make(map[string]any)
			}
			in = in[name].(map[string]any)
		}
		in[names[len(names)-1]] = v
	}
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What was decoded can be stored, and told in the form that it came in, which means the same.
func FuzzDecodeFixtures(f *testing.F) {
	for _, text := range []string{
		`[{"intervalId":"2024-02-03:15:05","inbound":{"realtime":{"messages":{"count":70,"data":7000}}},"connections":{"tls":{"peak":20,"opened":10}}}]`,
		`{"intervalId":"2024-02","unit":"month","all":{"all":{"count":5}},"apiRequests":{"succeeded":50},"channels":{"mean":1.5,"min":1,"peak":3}}`,
		`{"intervalId":"2024-02-03:00","unit":"day","persisted":{"all":{"count":1e15},"presence":{"data":0.1}},"tokenRequests":{"refused":1}}`,
		`[]`, `{}`, `[null]`, `{"intervalId":"2024-02-03:15","inbound":{"rest":[]}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := stats.DecodeFixtures(text)
		if err != nil {
			if e := new(pubsub.Error); !errors.As(err, &e) || e.StatusCode != 400 {
				t.Fatal(err)
			}
			return
		}
		for _, fixture := range list {
			record := fixture.Totals.Record()
			totals, err := record.Totals()
			if err != nil || *totals != *fixture.Totals {
				t.Fatalf("%v: %v came back as %v", err, fixture.Totals, totals)
			}
			first := stats.Item{Interval: fixture.Interval, Record: record}
			again, err := stats.DecodeFixtures(nested(t, &first))
			if err != nil {
				t.Fatal(err)
			}
			second := stats.Item{Interval: again[0].Interval, Record: again[0].Totals.Record()}
			a, err1 := first.Nested()
			b, err2 := second.Nested()
			if err1 != nil || err2 != nil || first.Interval != second.Interval {
				t.Fatal(err1, err2)
			}
			one, two := maps.Collect(a), maps.Collect(b)
			for name := range one {
				if math.Abs(one[name]-two[name]) > 1e-6*one[name]+0.002 {
					t.Errorf("%s: %v and %v", name, one[name], two[name])
				}
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte{1})
	f.Add([]byte{1, 3, 8, 1, 1, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0})
	f.Add([]byte(fixtures(f, `{"intervalId":"2024-02","channels":{"mean":0.5,"peak":7},"apiRequests":{"failed":300}}`)[0].Totals.Record()))
	f.Fuzz(func(t *testing.T, b []byte) {
		totals, err := stats.Record(b).Totals()
		if err != nil {
			return
		}
		again, err := totals.Record().Totals()
		if err != nil || *again != *totals {
			t.Fatalf("%v: %v came back as %v", err, totals, again)
		}
	})
}
