package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ably/ably-go/ably"
)

// countingDecoder is the SDK's decoder of deltas, which cannot decode one of them.
type countingDecoder struct {
	ably.VCDiffDecoder
	calls, broken atomic.Int32
}

func (d *countingDecoder) Decode(delta, base []byte) ([]byte, error) {
	if d.calls.Add(1) == d.broken.Load() {
		return nil, errors.New("broken on purpose")
	}
	return d.VCDiffDecoder.Decode(delta, base)
}

// version is a state of some kilobytes, of which a few parts change from one to the next.
func version(n int) map[string]any {
	parts := make(map[string]any)
	for i := range 60 {
		changed := 0
		if i%7 == n%7 {
			changed = n
		}
		parts[fmt.Sprint("part-", i)] = map[string]any{"price": float64(i * 7919 % 1000), "changed": float64(changed), "名": "部分"}
	}
	return parts
}

// PC3, PC3a, RTL18c, RTL19c, RTL20
func TestWhatComesAsDeltasIsWhatWasPublished(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		decoder := &countingDecoder{VCDiffDecoder: ably.NewVCDiffPlugin()}
		decoder.broken.Store(7)
		client := s.connected(t, "", ably.WithVCDiffPlugin(decoder))
		channel := client.Channels.Get("delta-"+t.Name(), ably.ChannelWithVCDiff())
		got := make(chan *ably.Message, 64)
		if _, err := channel.SubscribeAll(t.Context(), func(m *ably.Message) { got <- m }); err != nil {
			t.Fatal(err)
		}
		const messages = 30
		for n := range messages {
			var data any = version(n)
			text, err := json.Marshal(data)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case n%5 == 3:
				data = string(text)
			case n%5 == 4 && s.binary: // as JSON this SDK publishes bytes as base64 and does not say so
				data = text
			}
			if err := channel.Publish(t.Context(), "n", data); err != nil {
				t.Fatal(err)
			}
			// One at a time: while the SDK recovers from one delta it ignores another that fails.
			select {
			case m := <-got:
				if b, ok := data.([]byte); ok && !bytes.Equal(m.Data.([]byte), b) || !ok && !reflect.DeepEqual(m.Data, data) {
					t.Fatalf("message %d: got %.200v", n, m.Data)
				}
			case <-time.After(patience):
				t.Fatalf("message %d does not come", n)
			}
		}
		if calls := decoder.calls.Load(); calls != messages-1 {
			t.Errorf("%d deltas, want %d", calls, messages-1)
		}
	})
}
