package letshare

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
)

// payloads splits frames and checks that each is a whole text frame of a server.
func payloads(t testing.TB, b []byte) []string {
	t.Helper()
	var all []string
	for len(b) > 0 {
		h, size, err := socket.ParseHeader(b)
		if err != nil || size == 0 || !h.Fin || h.Masked || h.Opcode != socket.OpText || uint64(len(b)-size) < h.Length {
			t.Fatalf("not a text frame: %+v %v in %.100q", h, err, b)
		}
		all = append(all, string(b[size:size+int(h.Length)]))
		b = b[size+int(h.Length):]
	}
	return all
}

// checkFrame checks that a frame holds one JSON object in UTF-8.
func checkFrame(t testing.TB, frame []byte) {
	t.Helper()
	texts := payloads(t, frame)
	if len(texts) != 1 || !strings.HasPrefix(texts[0], "{") || !json.Valid([]byte(texts[0])) || !utf8.ValidString(texts[0]) {
		t.Errorf("frames %q", texts)
	}
}

func textMessage(name, data, encoding string) *pubsub.Message {
	return &pubsub.Message{Name: name, Data: pubsub.Data{Kind: pubsub.TextData, Bytes: []byte(data)}, Encoding: encoding}
}

func TestOnlyObjectsAreCarried(t *testing.T) {
	for _, test := range []struct {
		data, encoding string
		want           bool
	}{
		{`{}`, "json", true}, {`{"a":1}`, "", true}, {" \n{} ", "json", true},
		{`{}`, "utf-8", false}, {`{}`, "json/utf-8", false}, {`{}`, "json/utf-8/cipher+aes-128-cbc/base64", false},
		{``, "json", false}, {`[]`, "json", false}, {`"{}"`, "json", false}, {`null`, "json", false}, {`{`, "json", false}, {`{}{}`, "", false},
		{`{"a":}`, "json", false}, {`hello`, "", false}, {"\ufeff{}", "json", false},
	} {
		if got := carriesObject(textMessage("x", test.data, test.encoding)); got != test.want {
			t.Errorf("%q with encoding %q: %v", test.data, test.encoding, got)
		}
	}
	for _, kind := range []*pubsub.Message{{Encoding: "json"}, {Data: pubsub.Data{Kind: pubsub.BinaryData, Bytes: []byte("{}")}, Encoding: "json"}} {
		if carriesObject(kind) {
			t.Errorf("%+v is carried", kind)
		}
	}
}

func TestEachObjectOfAnEntryIsOneFrame(t *testing.T) {
	e := &engine.Entry{Timestamp: 1704067200000, Body: &pubsub.Batch{Messages: []*pubsub.Message{
		textMessage("signal:all", `{"n":9007199254740993}`, "json"),
		textMessage("signal:all", `not for this door`, ""),
		textMessage(`odd "name"`, `{"from":"x"}`, ""),
	}}}
	e.Kind = engine.KindMessage
	buf, units := form{"room 王"}.AppendFrames([]byte("before"), []hub.Unit{{End: 6}}, e, 3)
	want := []string{
		`{"type":"message","channel":"room 王","event":"signal:all","data":{"n":9007199254740993},"timestamp":1704067200000}`,
		`{"type":"message","channel":"room 王","event":"odd \"name\"","data":{"from":"x"},"timestamp":1704067200000}`,
	}
	if got := payloads(t, buf[6:]); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %q", got)
	}
	if len(units) != 3 || units[1].Entry != 3 || units[1].Item != 0 || units[2].Item != 2 || units[2].End != len(buf) {
		t.Errorf("units %+v of %d bytes", units, len(buf))
	}
	if got := payloads(t, buf[6:units[1].End]); len(got) != 1 || got[0] != want[0] {
		t.Errorf("the first unit holds %q", got)
	}
	e.Kind = engine.KindPresence
	if buf, units := (form{"ab"}).AppendFrames(nil, nil, e, 0); len(buf) != 0 || len(units) != 0 {
		t.Errorf("presence gives %q", buf)
	}
}

func TestLongTextsOfClientsAreCut(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "short": "short", strings.Repeat("王", 64): strings.Repeat("王", 64), strings.Repeat("王", 65): strings.Repeat("王", 64) + "…",
	} {
		if got := clip(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}
