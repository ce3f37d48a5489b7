package limit

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestABucketHoldsABurstAndFillsWithTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Limits{Burst: 5 * time.Second}, Options{})
		var b Bucket
		var all Buckets[string]
		for _, allow := range map[string]func(n int) bool{
			"a bucket":   func(n int) bool { return s.Allow(&b, 50, n) },
			"one of all": func(n int) bool { return AllowOf(s, &all, "key", 50, n) },
		} {
			took := func(n int) (times int) {
				for allow(n) {
					times++
				}
				return times
			}
			if got := took(1); got != 250 {
				t.Fatalf("%d at once, want 250", got)
			}
			time.Sleep(20*time.Millisecond - 1)
			if allow(1) {
				t.Error("allowed before its time")
			}
			time.Sleep(time.Nanosecond)
			if !allow(1) || allow(1) {
				t.Error("not one after a fiftieth of a second")
			}
			time.Sleep(time.Second)
			if got := took(10); got != 5 {
				t.Errorf("%d times 10 after a second, want 5", got)
			}
			time.Sleep(time.Hour)
			if got := took(1); got != 250 {
				t.Errorf("%d after an hour, want 250", got)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestMoreThanABucketHoldsIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Limits{Burst: 5 * time.Second}, Options{})
		var b Bucket
		if !s.Allow(&b, 10, 1) || s.Allow(&b, 10, 51) {
			t.Error("51 of 50 were allowed, though it was not full")
		}
		time.Sleep(100 * time.Millisecond)
		if !s.Allow(&b, 10, 100) {
			t.Fatal("100 of 50 were not allowed when it was full")
		}
		time.Sleep(5 * time.Second)
		if s.Allow(&b, 10, 1) {
			t.Error("the debt was not paid off yet")
		}
		time.Sleep(100 * time.Millisecond)
		if !s.Allow(&b, 10, 1) {
			t.Error("the debt was paid off")
		}
	})
}

func TestARateMayChangeAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Limits{Burst: time.Second}, Options{})
		var b Bucket
		if !s.Allow(&b, 10, 10) || s.Allow(&b, 10, 1) {
			t.Fatal("not 10 at once")
		}
		if !s.Allow(&b, 0, 1_000_000) {
			t.Error("0 is a limit")
		}
		s.Replace(Limits{Burst: 2 * time.Second})
		if !s.Allow(&b, 10, 10) || s.Allow(&b, 10, 1) {
			t.Error("a longer burst did not give 10 more")
		}
	})
}

func TestManyTakeNoMoreThanThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		s := NewSet(Limits{Burst: time.Second}, Options{})
		var b Bucket
		var all Buckets[int]
		var one, other atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 500 {
					if s.Allow(&b, 1000, 1) {
						one.Add(1)
					}
					if AllowOf(s, &all, 7, 1000, 1) {
						other.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if one.Load() != 1000 || other.Load() != 1000 {
			t.Errorf("%d and %d, want 1000", one.Load(), other.Load())
		}
	})
}

func TestBucketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Limits{Burst: time.Second}, Options{})
		var all Buckets[int]
		for i := range 3 * maxBuckets {
			if !AllowOf(s, &all, i, 1, 1) {
				t.Fatalf("key %d was refused at first sight", i)
			}
		}
		if n := all.Len(); n > maxBuckets || n < maxBuckets/2 {
			t.Errorf("%d buckets", n)
		}
		if AllowOf(s, &all, 3*maxBuckets-1, 1, 1) {
			t.Error("the newest was forgotten")
		}
		time.Sleep(time.Second) // all are full again, and need no room
		for i := range maxBuckets {
			AllowOf(s, &all, -1-i, 1, 1)
		}
		if n := all.Len(); n > maxBuckets {
			t.Errorf("%d buckets", n)
		}
	})
}

func TestAppsWithoutRatesKeepTheirCounts(t *testing.T) {
	s := NewSet(Limits{PresenceMembers: 3, AppConnections: 4, ConnectionProtocolMessages: 2000, Rates: Rates{ConnectionMessages: 5}},
		Options{WithoutRates: func(app string) bool { return app == "test" }})
	if l := s.For("app"); l.ConnectionMessages != 5 || l.ConnectionProtocolMessages != 2000 || l != s.Load() {
		t.Errorf("got %+v", l)
	}
	if l := s.For("test"); l.Rates != (Rates{}) || l.ConnectionProtocolMessages != 20000 || l.PresenceMembers != 3 || l.AppConnections != 4 {
		t.Errorf("got %+v", l)
	}
	s.Replace(Limits{})
	for _, app := range []string{"app", "test"} {
		if l := s.For(app); l.PresenceMembers != 1000 || l.ConnectionProtocolMessages != 20000 || l.MessageBytes != 65536 || l.Burst != 5*time.Second {
			t.Errorf("%s: got %+v", app, l)
		}
	}
}

func TestNobodyIsAskedAboutAnAppWhileThereAreNoRates(t *testing.T) {
	s := NewSet(Limits{}, Options{WithoutRates: func(string) bool { panic("asked") }})
	s.For("app")
	if n := testing.AllocsPerRun(100, func() { s.For("app") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type counter map[Name]int

func (c counter) LimitExceeded(n Name) { c[n]++ }

func TestEachExcessIsCountedAndFewAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := make(counter)
		s := NewSet(Limits{}, Options{Metrics: c, Log: slog.New(slog.NewTextHandler(&out, nil))})
		for range 10 {
			s.Exceeded(MessageBytes, "app")
		}
		s.Exceeded(BodyBytes, "")
		time.Sleep(logPause)
		s.Exceeded(MessageBytes, "app")
		if c[MessageBytes] != 11 || c[BodyBytes] != 1 {
			t.Errorf("counted %v", c)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "limit=max_message_bytes app=app suppressed_before=0") ||
			!strings.Contains(lines[1], "limit=max_body_bytes") || !strings.Contains(lines[2], "limit=max_message_bytes app=app suppressed_before=9") {
			t.Errorf("logged %q", lines)
		}
	})
}

func TestEveryLimitHasANameOfItsOwn(t *testing.T) {
	seen := make(map[string]bool)
	for n := range Names {
		if s := n.String(); s == "" || seen[s] {
			t.Errorf("limit %d is called %q", n, s)
		}
		seen[n.String()] = true
	}
	if fmt.Sprint(ChannelBytes) != "channel_bytes_per_second" {
		t.Error("names are not printed")
	}
}

func BenchmarkLimitsThatAreOff(b *testing.B) {
	s := NewSet(Limits{}, Options{WithoutRates: func(string) bool { return false }})
	for b.Loop() {
		if s.For("app").ChannelMessages != 0 {
			b.Fatal()
		}
	}
}
