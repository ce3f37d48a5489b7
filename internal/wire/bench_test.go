package wire_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// publishJSON is a typical publish of about 300 bytes: JSON as text, so full of escapes.
const publishJSON = `{"action":15,"channel":"orders:eu","msgSerial":1207,"messages":[{"name":"order.updated","data":"{\"order\":\"8f14e45f\",\"state\":\"shipped\",\"items\":[{\"sku\":\"A-100\",\"n\":2},{\"sku\":\"B-200\",\"n\":1}],\"carrier\":\"post\",\"eta\":\"2026-02-03T10:00:00Z\"}","encoding":"json","clientId":"alice"}]}`

// plainJSON is one of the same length whose data is plain text.
const plainJSON = `{"action":15,"channel":"orders:eu","msgSerial":1207,"messages":[{"name":"order.updated","data":"The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown","clientId":"alice"}]}`

func msgPack(t testing.TB, json string) []byte {
	t.Helper()
	pm, err := wire.Decode(wire.JSON, []byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return wire.Append(nil, wire.MsgPack, pm)
}

func forms(t testing.TB) []struct {
	name   string
	format wire.Format
	b      []byte
} {
	return []struct {
		name   string
		format wire.Format
		b      []byte
	}{
		{"json-escaped", wire.JSON, []byte(publishJSON)},
		{"json-plain", wire.JSON, []byte(plainJSON)},
		{"msgpack-escaped", wire.MsgPack, msgPack(t, publishJSON)},
		{"msgpack-plain", wire.MsgPack, msgPack(t, plainJSON)},
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, f := range forms(b) {
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(f.b)))
			for b.Loop() {
				if _, err := wire.Decode(f.format, f.b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeInto(b *testing.B) {
	for _, f := range forms(b) {
		b.Run(f.name, func(b *testing.B) {
			var pm wire.ProtocolMessage
			b.ReportAllocs()
			b.SetBytes(int64(len(f.b)))
			for b.Loop() {
				if err := wire.DecodeInto(&pm, f.format, f.b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, f := range forms(b) {
		b.Run(f.name, func(b *testing.B) {
			pm, err := wire.Decode(f.format, f.b)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			b.SetBytes(int64(len(f.b)))
			for b.Loop() {
				dst = wire.Append(dst[:0], f.format, pm)
			}
		})
	}
}

const (
	entrySerial = "01726585978700-000000@e7k2a9Zq"
	entryTime   = 1726585978700
)

func entryOf(t testing.TB, json string) *pubsub.Batch {
	t.Helper()
	pm, err := wire.Decode(wire.JSON, []byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return &pubsub.Batch{ID: "cAbC12dE:1207", ConnectionID: "cAbC12dE", Messages: pm.Messages}
}

func BenchmarkAppendMessagePM(b *testing.B) {
	for _, f := range forms(b) {
		b.Run(f.name, func(b *testing.B) {
			json := publishJSON
			if f.name == "json-plain" || f.name == "msgpack-plain" {
				json = plainJSON
			}
			batch := entryOf(b, json)
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			b.SetBytes(int64(len(f.b)))
			for b.Loop() {
				dst = wire.AppendMessagePM(dst[:0], f.format, "orders:eu", logged(entrySerial, batch, entryTime))
			}
		})
	}
}

func BenchmarkAppendAck(b *testing.B) {
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		b.Run(f.String(), func(b *testing.B) {
			pm := &wire.ProtocolMessage{Action: wire.ActionAck, MsgSerial: 7, Count: 1,
				Res: []wire.PublishResult{{Serials: []string{entrySerial + ":000"}}}}
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				dst = wire.Append(dst[:0], f, pm)
			}
		})
	}
}

// BenchmarkElsewhere decodes the same frames with the libraries that were the alternatives,
// into less than Decode makes of them.
func BenchmarkElsewhere(b *testing.B) {
	for _, f := range forms(b) {
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(f.b)))
			for b.Loop() {
				var pm struct {
					Action    int    `json:"action"`
					Channel   string `json:"channel"`
					MsgSerial int64  `json:"msgSerial"`
					Messages  []*struct {
						Name     string `json:"name"`
						Data     any    `json:"data"`
						Encoding string `json:"encoding"`
						ClientID string `json:"clientId"`
					} `json:"messages"`
				}
				var err error
				if f.format == wire.JSON {
					err = json.Unmarshal(f.b, &pm)
				} else {
					d := msgpack.NewDecoder(bytes.NewReader(f.b))
					d.SetCustomStructTag("json")
					err = d.Decode(&pm)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
