package disk

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

func kept(pubsub.ChannelID) engine.Policy { return engine.Policy{Retention: 24 * time.Hour} }

// BenchmarkAcknowledged keeps a number of publishes of 300 bytes in flight and counts those that
// are durable, with groups and with a transaction for each.
func BenchmarkAcknowledged(b *testing.B) {
	data := pubsub.Text(strings.Repeat("x", 300))
	for _, group := range []int{1, DefaultGroup} {
		for _, inFlight := range []int{1, 64, 1024} {
			for _, channels := range []int{1, 64} {
				b.Run(fmt.Sprintf("group=%d/inflight=%d/channels=%d", group, inFlight, channels), func(b *testing.B) {
					s, stop := open(b, Options{Dir: b.TempDir(), Policy: kept, Group: group})
					defer stop()
					e := s.Node("a")
					slots := make(chan int, inFlight)
					for i := range inFlight {
						slots <- i
					}
					serials := make([]int64, inFlight)
					b.ReportAllocs()
					b.ResetTimer()
					for i := range b.N {
						slot := <-slots
						serials[slot]++
						e.Append(&engine.Append{
							Channel: pubsub.ChannelID{App: "app", Name: fmt.Sprint("kept:", i%channels)},
							ID:      engine.ID{ConnectionID: fmt.Sprint("connection", slot), MsgSerial: serials[slot]},
							Entries: []engine.Draft{{Kind: engine.KindMessage, Body: &pubsub.Batch{Messages: []*pubsub.Message{{Name: "name", Data: data}}}}},
						}, func(r engine.Result) {
							if r.Err != nil {
								b.Error(r.Err)
							}
							slots <- slot
						})
					}
					for range inFlight {
						<-slots
					}
					b.StopTimer()
					st := s.Stats()
					b.ReportMetric(float64(st.Appends)/b.Elapsed().Seconds(), "acks/s")
					b.ReportMetric(float64(st.Appends)/float64(st.Commits), "acks/commit")
				})
			}
		}
	}
}
