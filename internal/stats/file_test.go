package stats_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/stats"
)

func keeping(t testing.TB, path string, opts stats.MemoryOptions) *stats.Memory {
	t.Helper()
	s := stats.NewMemory(opts)
	if err := s.Keep(path); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatisticsAreThereAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "here")
	path := filepath.Join(dir, "statistics.json")
	now := &clock{noon}
	s := keeping(t, path, stats.MemoryOptions{Now: now.Now})
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("there is a directory before there is something to keep")
	}
	replace(t, s, `[{"intervalId":"2024-02-03:11:59","inbound":{"realtime":{"messages":{"count":5,"data":700}}}},
		{"intervalId":"2023-12","inbound":{"realtime":{"messages":{"count":9,"data":900}}}},
		{"intervalId":"2024-02-01:07","outbound":{"realtime":{"messages":{"count":3,"data":300}}}}]`)
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	again := keeping(t, path, stats.MemoryOptions{Now: now.Now})
	if again.Bytes() != s.Bytes() {
		t.Errorf("%d bytes after a restart, %d before", again.Bytes(), s.Bytes())
	}
	for u := stats.Minute; u <= stats.Month; u++ {
		ids, entries := read(t, s, byUnit(u))
		gotIDs, got := read(t, again, byUnit(u))
		if len(ids) == 0 || !reflect.DeepEqual(gotIDs, ids) || !reflect.DeepEqual(got, entries) {
			t.Errorf("by the %v: %v %v, want %v %v", u, gotIDs, got, ids, entries)
		}
	}
	if err := again.Forget(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if err := again.Save(); err != nil {
		t.Fatal(err)
	}
	if ids, _ := read(t, keeping(t, path, stats.MemoryOptions{}), allTime); len(ids) > 0 {
		t.Errorf("%v were forgotten and are there", ids)
	}
	// What another process has written is not overwritten.
	replace(t, s, `[{"intervalId":"2024-02-03:12:00"}]`)
	if err := s.Save(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestRunSavesOnceAMinuteAndAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics.json")
	synctest.Test(t, func(t *testing.T) {
		s := keeping(t, path, stats.MemoryOptions{})
		c := stats.New(stats.Options{Store: s})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = c.Run(ctx) })
		count := func() (n float64) {
			_, entries := read(t, keeping(t, path, stats.MemoryOptions{}), byUnit(stats.Month))
			for _, e := range entries {
				n += e["messages.inbound.realtime.messages.count"]
			}
			return n
		}
		c.App("app").Published(stats.Realtime, stats.Messages, 1, 100)
		time.Sleep(30 * time.Second)
		if _, err := os.Stat(path); err == nil {
			t.Error("saved after half a minute")
		}
		time.Sleep(45 * time.Second)
		if n := count(); n != 1 {
			t.Errorf("after a minute there are %v messages in the file", n)
		}
		c.App("app").Published(stats.Realtime, stats.Messages, 2, 100)
		time.Sleep(time.Second)
		cancel()
		running.Wait()
		if n := count(); n != 3 {
			t.Errorf("at the end there are %v messages in the file", n)
		}
	})
}

func TestAFileOfStatisticsThatIsNotGoodIsAnErrorAndStays(t *testing.T) {
	for what, text := range map[string]string{
		"is damaged":        "",
		"is something else": "[]",
		"format 2":          `{"format":2}`,
		"damaged, level":    `{"format":1,"apps":{"a":[[],[],[],[],[]]}}`,
		"damaged, record":   `{"format":1,"apps":{"a":[[{"t":1,"r":"AAAA"}]]}}`,
		"damaged, order":    `{"format":1,"apps":{"a":[[{"t":2,"r":"AQ=="},{"t":1,"r":"AQ=="}]]}}`,
		"damaged, start":    `{"format":1,"apps":{"a":[[],[{"t":61,"r":"AQ=="}]]}}`,
	} {
		path := filepath.Join(t.TempDir(), "statistics.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		what, _, _ = strings.Cut(what, ",")
		for _, err := range []error{stats.NewMemory(stats.MemoryOptions{}).Keep(path), stats.CheckFile(path)} {
			if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", text, err)
			}
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%s: the file has changed: %s, %v", text, after, err)
		}
	}
}

func BenchmarkSave(b *testing.B) {
	s := keeping(b, filepath.Join(b.TempDir(), "statistics.json"), stats.MemoryOptions{})
	for m := range 2880 {
		at := noon.Add(time.Duration(m) * time.Minute)
		replace(b, s, fmt.Sprintf(`[{"intervalId":"%s","inbound":{"realtime":{"messages":{"count":5,"data":700}}}}]`, stats.At(stats.Minute, at)))
	}
	for b.Loop() {
		replace(b, s, `[{"intervalId":"2024-02-03:12:00"}]`)
		if err := s.Save(); err != nil {
			b.Fatal(err)
		}
	}
}
