package sse

import (
	"fmt"
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
)

// sink is a socket that takes everything.
type sink struct{ writes, bytes int }

func (s *sink) TryWrite(b []byte) (int, error) { s.writes++; s.bytes += len(b); return len(b), nil }
func (s *sink) TryWritev(bufs [][]byte) (n int64, err error) {
	s.writes++
	for _, b := range bufs {
		n += int64(len(b))
	}
	s.bytes += int(n)
	return n, nil
}
func (s *sink) WhenWritable(func()) { panic("it is") }
func (s *sink) Close() error        { return nil }
func (s *sink) Abort() error        { return nil }
func (s *sink) CloseWrite() error   { return nil }

// opened is a stream of so many channels that is open.
func opened(channels int) (*stream, *sink) {
	s, k := &stream{opened: true}, new(sink)
	for i := range channels {
		id := pubsub.ChannelID{App: "app", Name: fmt.Sprint("c", i)}
		c := &subscription{stream: s, index: i, mark: mark{tagOf(id), positionOf(pubsub.MakeSerial(1_726_585_978_590, 0, "abcdefgh"))}}
		c.form = form{channel: id.Name, tag: c.tag, alone: channels == 1}
		s.subscriptions = append(s.subscriptions, c)
	}
	s.out.Init(k, &outbox.Options{}, nil)
	return s, k
}

func entry(ms int64, texts ...string) *engine.Entry {
	b := &pubsub.Batch{ID: "x"}
	for _, t := range texts {
		b.Messages = append(b.Messages, &pubsub.Message{Name: "n", Data: pubsub.Text(t)})
	}
	return &engine.Entry{
		Kind: engine.KindMessage, Timestamp: ms, Body: b,
		Serial: pubsub.MakeSerial(ms, 0, "abcdefgh"), Prev: pubsub.MakeSerial(ms-1, 0, "abcdefgh"),
	}
}

func TestStreamsOfOneKindShareTheirRecords(t *testing.T) {
	one, _ := opened(1)
	other, _ := opened(1)
	if one.subscriptions[0].form != other.subscriptions[0].form {
		t.Error("two streams of one channel do not share")
	}
	two, _ := opened(2)
	three, _ := opened(3)
	if two.subscriptions[1].form != three.subscriptions[1].form {
		t.Error("two streams of several channels do not share what they have in common")
	}
}

func TestADeliveryAllocatesNothingAndIsOneWrite(t *testing.T) {
	for _, channels := range []int{1, 2, 20} {
		s, k := opened(channels)
		c := s.subscriptions[channels-1]
		frames, units := c.form.AppendFrames(nil, nil, entry(1_726_585_978_600, "1", "2", "3"), 0)
		if len(units) != 3 || units[2].End != len(frames) {
			t.Fatalf("%v", units)
		}
		c.Receive(frames, false) // makes the memory that is kept
		k.writes = 0
		n := testing.AllocsPerRun(100, func() { c.Receive(frames, false) })
		if n != 0 && !raceEnabled { // with the detector pools forget at random
			t.Errorf("%d channels: %v allocations", channels, n)
		}
		if k.writes != 101 {
			t.Errorf("%d channels: %d writes for 101 deliveries", channels, k.writes)
		}
	}
}

func BenchmarkDelivery(b *testing.B) {
	for _, channels := range []int{1, 10, 100} {
		for _, turns := range []string{"one channel", "in turn"} {
			if channels == 1 && turns == "in turn" {
				continue
			}
			b.Run(fmt.Sprintf("channels=%d/%s", channels, turns), func(b *testing.B) {
				s, k := opened(channels)
				frames := make([][]byte, channels)
				for i, c := range s.subscriptions {
					frames[i], _ = c.form.AppendFrames(nil, nil, entry(1_726_585_978_600, "some text of a usual length, as it were"), 0)
				}
				b.ReportAllocs()
				for i := range b.N {
					at := 0
					if turns == "in turn" {
						at = i % channels
					}
					s.subscriptions[at].Receive(frames[at], false)
				}
				b.ReportMetric(float64(k.bytes)/float64(b.N), "bytes/op")
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := entry(1_726_585_978_600, "some text of a usual length, as it were")
	for name, f := range map[string]form{"events": {channel: "c", alone: true}, "lines": {channel: "c", alone: true, style: style{lines: true}}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			dst, units := []byte(nil), []hub.Unit(nil)
			for range b.N {
				dst, units = f.AppendFrames(dst[:0], units[:0], e, 0)
			}
		})
	}
}
