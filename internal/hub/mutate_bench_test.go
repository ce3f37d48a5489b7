package hub_test

import (
	"strconv"
	"testing"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// BenchmarkChange compares a publish with what else can be done on a channel whose messages can be
// changed, with one attachment.
func BenchmarkChange(b *testing.B) {
	text := pubsub.Text("some tokens ")
	for what, op := range map[string]func(h *hub.Hub, turn *hub.Turn, serial string, i int64) error{
		"publish": func(h *hub.Hub, turn *hub.Turn, _ string, i int64) error {
			return h.Publish(turn, &hub.Publish{Grant: anyone, Channel: mutableRoom, ConnectionID: "c", MsgSerial: i,
				Messages: []*pubsub.Message{{Name: "n", Data: text}}}, func(hub.Published) {})
		},
		"append": func(h *hub.Hub, turn *hub.Turn, serial string, i int64) error {
			return h.Publish(turn, &hub.Publish{Grant: anyone, Channel: mutableRoom, ConnectionID: "c", MsgSerial: i,
				Messages: []*pubsub.Message{{Action: pubsub.MessageAppend, Serial: serial, Data: text}}}, func(hub.Published) {})
		},
		"annotate": func(h *hub.Hub, turn *hub.Turn, serial string, i int64) error {
			_, err := h.Annotate(b.Context(), turn, &hub.Annotate{Grant: anyone, Channel: mutableRoom, ConnectionID: "c", MsgSerial: i,
				Items: []*pubsub.Annotation{{Type: "x:multiple.v1", Name: "n", ClientID: "ann", MessageSerial: serial}}})
			return err
		},
	} {
		b.Run(what, func(b *testing.B) {
			h := mutableHub(b)
			attach(b, h, hub.Attach{Channel: mutableRoom, Receiver: discard{}, Form: plain{}})
			var turn hub.Turn
			fresh := func() string { return act(b, h, hub.Publish{Messages: message("n", "x")}) }
			serial := fresh()
			b.ReportAllocs()
			i := int64(0)
			for b.Loop() {
				if i++; i%200 == 0 { // the length of an answer of a model
					serial = fresh()
				}
				if err := op(h, &turn, serial, i); err != nil {
					b.Fatal(err)
				}
				turn.End()
			}
			h.Close()
		})
	}
}

// BenchmarkAnnotateForMany annotates a message to which so many clients have reacted with the same
// six names.
func BenchmarkAnnotateForMany(b *testing.B) {
	for _, clients := range []int{1, 100, 10_000} {
		b.Run(strconv.Itoa(clients), func(b *testing.B) {
			h := mutableHub(b)
			serial := act(b, h, hub.Publish{Messages: message("n", "x")})
			var turn hub.Turn
			react := func(i int) {
				items := []*pubsub.Annotation{{Type: "x:unique.v1", Name: strconv.Itoa((i + i/clients) % 6), ClientID: strconv.Itoa(i % clients), MessageSerial: serial}}
				if _, err := h.Annotate(b.Context(), &turn, &hub.Annotate{Grant: anyone, Channel: mutableRoom, Items: items}); err != nil {
					b.Fatal(err)
				}
			}
			for i := range clients {
				react(i)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				react(i)
				i++
			}
			h.Close()
		})
	}
}
