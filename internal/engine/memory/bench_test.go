package memory

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

type discard struct{}

func (discard) Deliver([]*engine.Entry) {}
func (discard) Flush()                  {}
func (discard) Lost(pubsub.Serial)      {}

func ignore(engine.Result) {}

// TestAnAppendOfOneMessageCostsFewAllocations is the promise of the hot path: the entry
// and its serial, with the growth of log and ids over many of them.
func TestAnAppendOfOneMessageCostsFewAllocations(t *testing.T) {
	e := NewStore(Options{}).Node("a")
	if _, _, err := e.Subscribe(t.Context(), channelID(0), discard{}); err != nil {
		t.Fatal(err)
	}
	a := message(channelID(0), "x")
	a.ID.ConnectionID = "connection"
	allocs := testing.AllocsPerRun(2000, func() {
		a.ID.MsgSerial++
		e.Append(a, ignore)
	})
	if allocs > 2 {
		t.Errorf("%v allocations, want 2", allocs)
	}
}

func BenchmarkAppend(b *testing.B) {
	data := strings.Repeat("x", 100)
	for _, bench := range []struct {
		name  string
		nodes int
		id    func(a *engine.Append, i int64)
	}{
		{"NoID", 1, func(*engine.Append, int64) {}},
		{"Realtime", 1, func(a *engine.Append, i int64) { a.ID = engine.ID{ConnectionID: "connection", MsgSerial: i} }},
		{"Client", 1, func(a *engine.Append, i int64) { a.ID = engine.ID{Client: "0123456789ab" + strconv.FormatInt(i, 10)} }},
		{"TwoNodes", 2, func(a *engine.Append, i int64) { a.ID = engine.ID{ConnectionID: "connection", MsgSerial: i} }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := NewStore(Options{})
			for range bench.nodes {
				s.Node("n").Subscribe(b.Context(), channelID(0), discard{})
			}
			e := s.Node("a")
			a := message(channelID(0), data)
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				bench.id(a, i)
				e.Append(a, ignore)
			}
		})
	}
}

func BenchmarkAppendInParallel(b *testing.B) {
	for _, channels := range []int{1, 10_000} {
		b.Run(strconv.Itoa(channels)+"channels", func(b *testing.B) {
			s := NewStore(Options{})
			e := s.Node("a")
			for i := range channels {
				e.Subscribe(b.Context(), channelID(i), discard{})
			}
			var connections atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				a := message(channelID(0), "x")
				a.ID.ConnectionID = strconv.FormatInt(connections.Add(1), 10)
				ids := make([]pubsub.ChannelID, channels)
				for i := range ids {
					ids[i] = channelID(i)
				}
				for pb.Next() {
					a.ID.MsgSerial++
					a.Channel = ids[a.ID.MsgSerial%int64(channels)]
					e.Append(a, ignore)
				}
			})
		})
	}
}

// BenchmarkAppendWhenFull evicts for every entry.
func BenchmarkAppendWhenFull(b *testing.B) {
	s := NewStore(Options{LogBytes: 8 << 20})
	e := s.Node("a")
	a := message(channelID(0), "x")
	ids := make([]pubsub.ChannelID, 1000)
	for i := range ids {
		ids[i] = channelID(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		a.Channel = ids[i%len(ids)]
		e.Append(a, ignore)
	}
	if b.N > 100_000 && s.Stats().Evicted == 0 {
		b.Error("it was not full")
	}
}

func BenchmarkReadAfterTheNewest(b *testing.B) {
	s := NewStore(Options{})
	e := s.Node("a")
	for range 100_000 {
		e.Append(message(channelID(0), "x"), ignore)
	}
	page, _ := e.Read(b.Context(), channelID(0), engine.Query{Limit: 1})
	b.ReportAllocs()
	for b.Loop() {
		e.Read(b.Context(), channelID(0), engine.Query{After: page.Tail, Exact: true, Limit: 100})
	}
}
