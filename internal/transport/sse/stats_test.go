package sse_test

import (
	"context"
	"maps"
	"testing"

	"letshare-server/internal/stats"
)

func TestStreamsAreCountedAsConnections(t *testing.T) {
	c := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
	counted := func() map[string]float64 {
		page, err := c.Read(context.Background(), "app", stats.Query{Unit: stats.Month, Limit: 1})
		if err != nil || len(page.Items) != 1 {
			return nil
		}
		entries, err := page.Items[0].Flat()
		if err != nil {
			t.Fatal(err)
		}
		return maps.Collect(entries)
	}
	k := newKit(t, func(s *settings) { s.door.Stats = c })
	for _, refused := range []string{
		"/sse?v=1.2&channels=closed&key=app.some:secret", "/sse?v=1.2&channels=a&rewind=often",
		"/sse?v=1.2&channels=a&key=app.key:wrong", // of whom, nobody knows
	} {
		k.get(t, refused)
	}
	for i := range int64(2) {
		k.open(t, "/sse?v=1.2&channels=a").response.Body.Close()
		waitFor(t, "the end of the stream", func() bool { return k.count.closed.Load() == i+1 })
	}
	k.open(t, "/sse?v=1.2&channels=a")
	waitFor(t, "the stream", func() bool { return counted()["connections.all.opened"] == 3 })
	got := counted()
	if got["connections.all.peak"] != 1 || got["connections.all.refused"] != 2 {
		t.Error(got)
	}
}
