package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"runtime/metrics"
	"testing"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// oddJSON are documents that once broke something, or look as if they might.
var oddJSON = []string{
	publishJSON, plainJSON,
	`{"action":15,"messages":[{"data":{"a":[1,2.50,1e400]},"extras":{"a": "\ud83d"}}]}`,
	`{"action":15,"id":"a:0","connectionId":"a","timestamp":1,"messages":[{"id":"a:0:0","connectionId":"a","timestamp":1,"data":"AQ==","encoding":"utf-8/base64"}]}`,
	`{"action":15,"messages":[{"data":"%","encoding":"base64"},{"data":"","encoding":"base64"},{"data":1,"name":1}]}`,
	`{"action":21,"annotations":[{"type":"a:flag.v1","count":1,"messageSerial":"s"}]}`,
	`{"action":1,"msgSerial":0,"count":2,"res":[{"serials":["a",null]},{}]}`,
	`{"action":300,"params":{"rewind":1,"":"x"},"error":{"cause":{"cause":{}},"detail":{}}}`,
	`{"state":[{"a":{"b":[-0,0.1,18446744073709551616]}}, {}]}`,
	`{"action":19,"state":[{"operation":{"objectId":"map:a@1","mapCreate":{"semantics":"LWW","entries":{"":{"data":{"number":-0.0}},"b":{"data":{"bytes":"/w=="}},"c":{"tombstone":true,"serialTimestamp":1,"timeserial":"s"}}}}}]}`,
	`{"action":19,"state":[{"operation":{"action":0,"nonce":"n","initialValue":"{\"map\":{\"entries\":{\"k\":{\"data\":{\"string\":\"[1]\",\"encoding\":\"json\"}}}}}"}},{"operation":{"action":4,"counterOp":{"amount":1e308}}}]}`,
	`{"action":20,"channelSerial":"a:b","state":[{"object":{"objectId":"root","siteTimeserials":{"s1":"x"},"createOp":{},"tombstone":false,"map":{"clearTimeserial":"c","entries":{"k":{"data":{"json":{"a":[1.0]}}}}}}},{"object":{"counter":{"count":2}}}]}`,
}

func addSeeds(f *testing.F, format wire.Format) {
	for _, c := range frames {
		f.Add(wire.Append(nil, format, c.pm))
	}
	for _, s := range oddJSON {
		pm := decodeJSON(f, s)
		if format == wire.JSON {
			f.Add([]byte(s))
		} else {
			f.Add(wire.Append(nil, format, pm))
		}
	}
	batch, _ := deliveries()
	f.Add(wire.AppendMessagePM(nil, format, "foo", logged(entrySerial, batch, entryTime)))
}

func FuzzDecodeJSON(f *testing.F) {
	addSeeds(f, wire.JSON)
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkFrame(t, wire.JSON, b) && !json.Valid(b) {
			t.Errorf("%q was accepted", b)
		}
	})
}

func FuzzDecodeMsgPack(f *testing.F) {
	addSeeds(f, wire.MsgPack)
	for _, b := range []string{
		"\x81\xa8messages\x91\x82\xa4data\xa1\xff\xa8encoding\xb2cipher+aes-256-cbc",
		"\x81\xa5state\x91\x83\xa1a\xd4\x00\x00\xa1b\xa1\xff\x05\xca\x7f\x80\x00\x00",
		"\x82\xa8messages\x91\x82\xa4data\x82\xa1\xff\xc4\x01\xff\xff\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\xa6extras\x80\xa6action\xcb\x40\x2e\x00\x00\x00\x00\x00\x00",
		"\x81\xa8messages\xdd\xff\xff\xff\xff\x80",
	} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkFrame(t, wire.MsgPack, b) })
}

// checkFrame decodes b and, if it is a frame, holds it to what must be true of every frame. It
// reports whether it is one.
func checkFrame(t *testing.T, f wire.Format, b []byte) bool {
	src := bytes.Clone(b)
	before := allocated()
	first, err := wire.Decode(f, b)
	if n := allocated() - before; n > uint64(len(b))*64+1<<20 {
		t.Errorf("%d bytes allocated for %d", n, len(b))
	}
	if !bytes.Equal(b, src) {
		t.Error("the source was changed")
	}
	if err != nil {
		return false
	}
	for _, to := range []wire.Format{wire.JSON, wire.MsgPack} {
		out := wire.Append(nil, to, first)
		checkOutput(t, to, out)
		second := reread(t, to, out)
		again := wire.Append(nil, to, second)
		third := reread(t, to, again)
		if !bytes.Equal(out, again) || !reflect.DeepEqual(second, third) {
			t.Errorf("%s: no fixed point:\n%q\n%q", to, out, again)
		}
		// What was written is what was read, if it was well-formed.
		if first.ItemErr == nil {
			want := reread(t, f, src)
			normalize(want, f != to)
			normalize(second, f != to)
			if !reflect.DeepEqual(want, second) {
				t.Errorf("%s to %s:\n from %q\nwrote %q\n want %s\n  got %s", f, to, src, out, dump(want), dump(second))
			}
		}
	}
	return true
}

func reread(t *testing.T, f wire.Format, b []byte) *wire.ProtocolMessage {
	t.Helper()
	pm, err := wire.Decode(f, b)
	if err != nil {
		t.Fatalf("%s %q: %v", f, b, err)
	}
	return pm
}

func checkOutput(t *testing.T, f wire.Format, b []byte) {
	t.Helper()
	if f == wire.JSON {
		if !json.Valid(b) || !utf8.Valid(b) || bytes.ContainsAny(b, "\r\n") {
			t.Errorf("wrote %q", b)
		}
		return
	}
	var v any
	d := msgpack.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&v); err != nil { // it refuses extension types
		t.Errorf("wrote %x: %v", b, err)
	}
	if _, err := d.PeekCode(); err == nil {
		t.Errorf("wrote more than one value: %x", b)
	}
}

// normalize removes the differences that writing may make: inherited fields, arrays that are
// always there, keys that are never sent, and, between formats, the spelling of JSON.
func normalize(pm *wire.ProtocolMessage, spelling bool) {
	pm.Inherit()
	if pm.Action == wire.ActionAck || pm.Action == wire.ActionNack {
		pm.HasMsgSerial = true
	}
	switch pm.Action {
	case wire.ActionMessage:
		pm.Messages = append([]*pubsub.Message{}, pm.Messages...)
	case wire.ActionPresence, wire.ActionSync:
		pm.Presence = append([]*pubsub.PresenceMessage{}, pm.Presence...)
	case wire.ActionAnnotation:
		pm.Annotations = append([]*pubsub.Annotation{}, pm.Annotations...)
	case wire.ActionObject, wire.ActionObjectSync:
		pm.State = append([]*pubsub.ObjectMessage{}, pm.State...)
	}
	for i := range pm.Res {
		pm.Res[i].Serials = append([]string{}, pm.Res[i].Serials...)
	}
	for _, m := range pm.Messages {
		m.ConnectionKey = ""
		if spelling {
			m.Extras, m.Summary = respell(m.Extras), respell(m.Summary)
			if m.Version != nil {
				m.Version.Metadata = respell(m.Version.Metadata)
			}
		}
	}
	if !spelling {
		return
	}
	for _, m := range pm.Presence {
		m.Extras = respell(m.Extras)
	}
	for _, a := range pm.Annotations {
		a.Extras = respell(a.Extras)
	}
	for _, m := range pm.State {
		m.Extras = respell(m.Extras)
	}
}

// respell is JSON text as it comes back from MessagePack.
func respell(text []byte) []byte {
	if text == nil {
		return nil
	}
	b, err := wire.Transcode(nil, wire.MsgPack, wire.JSON, text)
	if err != nil {
		panic(err)
	}
	b, err = wire.Transcode(nil, wire.JSON, wire.MsgPack, b)
	if err != nil {
		panic(err)
	}
	return b
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// A batch that is accepted is within its limits, and has no spec that says nothing.
func FuzzDecodeBatch(f *testing.F) {
	for _, b := range []string{
		`{"channels":"a","messages":{"name":"x","data":{"a":[1]}}}`,
		`[{"channels":["a","b"],"messages":[{"data":"x"},{}]},{"messages":{},"channels":"c"}]`,
		"\x82\xa8channels\x92\xa1a\xa1b\xa8messages\x91\x81\xa4data\xc4\x01\xff",
		"\x91\x82\xa8channels\xdd\xff\xff\xff\xff\xa8messages\xdd\xff\xff\xff\xff\x80",
	} {
		f.Add(b[0] == '\x82' || b[0] == '\x91', []byte(b))
	}
	f.Fuzz(func(t *testing.T, packed bool, b []byte) {
		format := wire.JSON
		if packed {
			format = wire.MsgPack
		}
		specs, err := wire.DecodeBatch(format, b)
		if err != nil {
			return
		}
		if len(specs) == 0 || len(specs) > wire.MaxBatchSpecs {
			t.Fatalf("%d specs", len(specs))
		}
		messages := 0
		for _, s := range specs {
			messages += len(s.Messages)
			if len(s.Channels) == 0 || len(s.Channels) > wire.MaxBatchChannels || len(s.Messages) == 0 || len(s.Messages) > wire.MaxItems || messages > wire.MaxBatchMessages {
				t.Fatalf("%d channels, %d messages of %d", len(s.Channels), len(s.Messages), messages)
			}
			for _, m := range s.Messages {
				if m == nil {
					t.Fatal("a message is nil")
				}
			}
		}
	})
}
