package wire_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// unpack decodes MessagePack with the other implementation.
func unpack(t testing.TB, b []byte) any {
	t.Helper()
	var v any
	if err := msgpack.Unmarshal(b, &v); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return v
}

// sameValue reports whether a value read from JSON and one read from MessagePack are the same.
func sameValue(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

var details = &wire.ConnectionDetails{
	ClientID: "*", ConnectionKey: "cAbC12dE!k1", ConnectionStateTTL: 2 * time.Minute, MaxIdleInterval: 15 * time.Second,
	MaxMessageSize: 65536, MaxFrameSize: 524288, MaxInboundRate: 50, ServerID: "n1", SiteCode: "s1",
	ObjectsGCGracePeriod: 24 * time.Hour,
}

// frames are what the server and its clients send, as documented.
var frames = []struct {
	name string
	pm   *wire.ProtocolMessage
	json string
}{
	{"a heartbeat", &wire.ProtocolMessage{}, `{"action":0}`},
	{"a ping", &wire.ProtocolMessage{ID: "p1"}, `{"action":0,"id":"p1"}`},
	{"CONNECTED", &wire.ProtocolMessage{Action: wire.ActionConnected, ConnectionID: "cAbC12dE", ConnectionKey: "cAbC12dE!k1", ConnectionDetails: details},
		`{"action":4,"connectionId":"cAbC12dE","connectionKey":"cAbC12dE!k1","connectionDetails":{"clientId":"*","connectionKey":"cAbC12dE!k1","maxMessageSize":65536,"maxFrameSize":524288,"maxInboundRate":50,"connectionStateTtl":120000,"maxIdleInterval":15000,"serverId":"n1","siteCode":"s1","objectsGCGracePeriod":86400000}}`},
	{"CONNECTED with zeros", &wire.ProtocolMessage{Action: wire.ActionConnected, ConnectionDetails: &wire.ConnectionDetails{}},
		`{"action":4,"connectionDetails":{"maxMessageSize":0,"maxFrameSize":0,"maxInboundRate":0,"connectionStateTtl":0,"maxIdleInterval":0,"objectsGCGracePeriod":0}}`},
	{"ATTACH", &wire.ProtocolMessage{Action: wire.ActionAttach, Channel: "foo", Params: map[string]string{"rewind": "1", "delta": "vcdiff"}},
		`{"action":10,"channel":"foo","params":{"delta":"vcdiff","rewind":"1"}}`},
	{"ATTACHED", &wire.ProtocolMessage{Action: wire.ActionAttached, Channel: "foo", ChannelSerial: "01726585978590-000000@e7k2", Flags: wire.Flags(pubsub.DefaultModes)},
		`{"action":11,"channel":"foo","channelSerial":"01726585978590-000000@e7k2","flags":3080192}`},
	{"ATTACHED without flags", &wire.ProtocolMessage{Action: wire.ActionAttached, Channel: "foo"}, `{"action":11,"channel":"foo","flags":0}`},
	{"an ERROR for the channel without a name", &wire.ProtocolMessage{Action: wire.ActionError, HasChannel: true, Error: wire.NewErrorInfo(pubsub.NewError(40010, "Invalid channel id: "))},
		`{"action":9,"channel":"","error":{"code":40010,"statusCode":400,"message":"Invalid channel id: "}}`},
	{"an ERROR for the connection", &wire.ProtocolMessage{Action: wire.ActionError, Error: wire.NewErrorInfo(pubsub.NewError(40142, "token expired"))},
		`{"action":9,"error":{"code":40142,"statusCode":401,"message":"token expired"}}`},
	{"an error with all of its fields", &wire.ProtocolMessage{Action: wire.ActionDisconnected, Error: &wire.ErrorInfo{Code: 1, StatusCode: 2, Href: "h", ServerID: "s", Detail: map[string]string{"b": "2", "a": "1"}, Cause: &wire.ErrorInfo{Message: "c"}}},
		`{"action":6,"error":{"code":1,"statusCode":2,"message":"","href":"h","cause":{"code":0,"statusCode":0,"message":"c"},"serverId":"s","detail":{"a":"1","b":"2"}}}`},
	{"the first ACK", &wire.ProtocolMessage{Action: wire.ActionAck, Count: 1, Res: []wire.PublishResult{{Serials: []string{"s:000", ""}}, {}}},
		`{"action":1,"msgSerial":0,"count":1,"res":[{"serials":["s:000",null]},{"serials":[]}]}`},
	{"an ACK of all items of an entry, and of a publish that is too old", &wire.ProtocolMessage{Action: wire.ActionAck, Count: 3, Res: []wire.PublishResult{{}}, EntryRes: []wire.EntryResult{{Entry: "s", Items: 2}, {Items: 1}}},
		`{"action":1,"msgSerial":0,"count":3,"res":[{"serials":[]},{"serials":["s:000","s:001"]},{"serials":[null]}]}`},
	{"a NACK", &wire.ProtocolMessage{Action: wire.ActionNack, MsgSerial: 5, Error: wire.NewErrorInfo(pubsub.NewError(40009, "too large"))},
		`{"action":2,"msgSerial":5,"count":0,"error":{"code":40009,"statusCode":413,"message":"too large"}}`},
	{"the first publish", &wire.ProtocolMessage{Action: wire.ActionMessage, Channel: "foo", HasMsgSerial: true, Messages: []*pubsub.Message{{Name: "n", Data: pubsub.Text("d")}}},
		`{"action":15,"channel":"foo","msgSerial":0,"messages":[{"name":"n","data":"d","action":0}]}`},
	{"AUTH", &wire.ProtocolMessage{Action: wire.ActionAuth, Auth: &wire.Auth{AccessToken: "t"}}, `{"action":17,"auth":{"accessToken":"t"}}`},
	{"an empty SYNC", &wire.ProtocolMessage{Action: wire.ActionSync, Channel: "foo", ChannelSerial: "a:"}, `{"action":16,"channel":"foo","channelSerial":"a:","presence":[]}`},
	{"an empty PRESENCE", &wire.ProtocolMessage{Action: wire.ActionPresence, Channel: "foo"}, `{"action":14,"channel":"foo","presence":[]}`},
	{"an empty OBJECT_SYNC", &wire.ProtocolMessage{Action: wire.ActionObjectSync, Channel: "foo"}, `{"action":20,"channel":"foo","state":[]}`},
	{"an empty ANNOTATION", &wire.ProtocolMessage{Action: wire.ActionAnnotation, Channel: "foo"}, `{"action":21,"channel":"foo","annotations":[]}`},
	{"SYNC", &wire.ProtocolMessage{Action: wire.ActionSync, Channel: "foo", Presence: []*pubsub.PresenceMessage{
		{Action: pubsub.PresencePresent, ID: "c:0:0", ClientID: "a", ConnectionID: "c", Data: pubsub.Text(""), Timestamp: 5, Extras: []byte(`{"locks":[]}`)}, {}}},
		`{"action":16,"channel":"foo","presence":[{"action":1,"id":"c:0:0","clientId":"a","connectionId":"c","data":"","timestamp":5,"extras":{"locks":[]}},{"action":0}]}`},
	{"an annotation", &wire.ProtocolMessage{Action: wire.ActionAnnotation, Annotations: []*pubsub.Annotation{{Type: "r:multiple.v1", Name: "👍", Count: new(int64), MessageSerial: "ms", Serial: "s", Action: pubsub.AnnotationDelete}}},
		`{"action":21,"annotations":[{"action":1,"type":"r:multiple.v1","name":"👍","count":0,"messageSerial":"ms","serial":"s"}]}`},
	{"items that say what their frame says", &wire.ProtocolMessage{Action: wire.ActionMessage, ID: "c:7", ConnectionID: "c", Timestamp: 5, Messages: []*pubsub.Message{
		{ID: "c:7:0", ConnectionID: "c", Timestamp: 5}, {ID: "c:7:0", ConnectionID: "d", Timestamp: 6}, {ID: "c:72"}}},
		`{"action":15,"id":"c:7","connectionId":"c","timestamp":5,"messages":[{"action":0},{"id":"c:7:0","connectionId":"d","timestamp":6,"action":0},{"id":"c:72","action":0}]}`},
	{"a changed message", &wire.ProtocolMessage{Action: wire.ActionMessage, Messages: []*pubsub.Message{{Action: pubsub.MessageUpdate, Serial: "s", Extras: []byte(`{"headers":{"a":[1,-1,1.5,null,true,"x\n\u00e9"]}}`),
		Version: &pubsub.Version{Serial: "v", Timestamp: 9, ClientID: "op", Description: "why", Metadata: []byte(`{"k":"v"}`)}, Summary: []byte(`{"r:total.v1":{"total":1}}`)}}},
		`{"action":15,"messages":[{"extras":{"headers":{"a":[1,-1,1.5,null,true,"x\n\u00e9"]}},"action":1,"serial":"s","version":{"serial":"v","timestamp":9,"clientId":"op","description":"why","metadata":{"k":"v"}},"annotations":{"summary":{"r:total.v1":{"total":1}}}}]}`},
	{"text that must be escaped, but not for HTML", &wire.ProtocolMessage{Channel: "a\"\\/\b\f\n\r\t\x00\x1f<>&\u2028é😀\x7f"},
		`{"action":0,"channel":"a\"\\/\b\f\n\r\t\u0000\u001f<>&` + "\u2028é😀\x7f" + `"}`},
	{"more members than a short map holds", &wire.ProtocolMessage{Action: wire.ActionAck, ID: "i", Auth: &wire.Auth{}, Channel: "c", ChannelSerial: "s", ConnectionID: "i", ConnectionKey: "k",
		ConnectionDetails: &wire.ConnectionDetails{}, Error: &wire.ErrorInfo{}, Flags: 1, Params: map[string]string{}, Timestamp: 1, Messages: []*pubsub.Message{}, Presence: []*pubsub.PresenceMessage{},
		Annotations: []*pubsub.Annotation{}, State: []*pubsub.ObjectMessage{}, Res: []wire.PublishResult{}},
		`{"action":1,"channel":"c","channelSerial":"s","msgSerial":0,"count":0,"id":"i","connectionId":"i","connectionKey":"k","connectionDetails":{"maxMessageSize":0,"maxFrameSize":0,"maxInboundRate":0,"connectionStateTtl":0,"maxIdleInterval":0,"objectsGCGracePeriod":0},"auth":{"accessToken":""},"error":{"code":0,"statusCode":0,"message":""},"flags":1,"params":{},"timestamp":1,"messages":[],"presence":[],"annotations":[],"state":[],"res":[]}`},
}

func TestFramesAreWrittenAsTheHandbookSays(t *testing.T) {
	for _, c := range frames {
		t.Run(c.name, func(t *testing.T) {
			b := wire.Append([]byte("x"), wire.JSON, c.pm)
			if string(b[1:]) != c.json {
				t.Errorf("\n got %s\nwant %s", b[1:], c.json)
			}
			var v any
			if err := json.Unmarshal(b[1:], &v); err != nil {
				t.Error(err)
			}
			if p := unpack(t, wire.Append([]byte("x"), wire.MsgPack, c.pm)[1:]); !sameValue(p, v) {
				t.Errorf("in MessagePack: %v", p)
			}
		})
	}
}

func TestPayloadsAreWrittenForTheFormat(t *testing.T) {
	for _, c := range []struct {
		name     string
		data     pubsub.Data
		encoding string
		json     string
		pack     object
	}{
		{"absent", pubsub.Data{}, "", `{"action":0}`, object{}},
		{"an empty text", pubsub.Text(""), "", `{"data":"","action":0}`, object{"data": ""}},
		{"empty bytes", pubsub.Binary(nil), "", `{"data":"","encoding":"base64","action":0}`, object{"data": []byte{}}},
		{"bytes", pubsub.Binary([]byte{1, 255}), "", `{"data":"Af8=","encoding":"base64","action":0}`, object{"data": []byte{1, 255}}},
		{"ciphertext", pubsub.Binary([]byte{1}), "utf-8/cipher+aes-256-cbc", `{"data":"AQ==","encoding":"utf-8/cipher+aes-256-cbc/base64","action":0}`,
			object{"data": []byte{1}, "encoding": "utf-8/cipher+aes-256-cbc"}},
		{"an encoding with a quote", pubsub.Binary(nil), `"\`, `{"data":"","encoding":"\"\\/base64","action":0}`, object{"data": []byte{}, "encoding": `"\`}},
		{"json", pubsub.Text(`{}`), "json", `{"data":"{}","encoding":"json","action":0}`, object{"data": "{}", "encoding": "json"}},
		{"an encoding alone", pubsub.Data{}, "x", `{"encoding":"x","action":0}`, object{"encoding": "x"}},
	} {
		m := &pubsub.Message{Data: c.data, Encoding: c.encoding}
		if got := string(wire.AppendMessage(nil, wire.JSON, m)); got != c.json {
			t.Errorf("%s: %s", c.name, got)
		}
		got := unpack(t, wire.AppendMessage(nil, wire.MsgPack, m)).(object)
		delete(got, "action")
		if !reflect.DeepEqual(got, c.pack) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestEveryLengthHasItsHeader(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536} {
		s := strings.Repeat("a", n)
		quoted := strings.Repeat(`\n`, n/2)
		params := map[string]string{}
		for i := range n % 1000 {
			params[pubsub.ItemID("k", i)] = s[:1]
		}
		many := make([]*pubsub.PresenceMessage, n)
		list := "[" + strings.TrimSuffix(strings.Repeat("0,", n), ",") + "]"
		for i := range many {
			many[i] = &pubsub.PresenceMessage{}
		}
		pm := &wire.ProtocolMessage{Channel: s, HasChannel: true, Params: params, Presence: many,
			Messages: []*pubsub.Message{{Data: pubsub.Binary([]byte(s)), Extras: []byte(`{"s":"` + quoted + `","l":` + list + `}`)}}}
		v := unpack(t, wire.Append(nil, wire.MsgPack, pm)).(object)
		m := v["messages"].([]any)[0].(object)
		extras := m["extras"].(object)
		if v["channel"] != s || len(v["params"].(object)) != len(params) || len(v["presence"].([]any)) != n || string(m["data"].([]byte)) != s ||
			extras["s"] != strings.Repeat("\n", n/2) || len(extras["l"].([]any)) != n {
			t.Errorf("length %d is not read back", n)
		}
	}
}

func TestIntegersAreWrittenInTheirShortestForm(t *testing.T) {
	for v, size := range map[int64]int{0: 0, 1: 1, 127: 1, 128: 2, 255: 2, 256: 3, 65535: 3, 65536: 5, 1<<32 - 1: 5, 1 << 32: 9, 1<<63 - 1: 9,
		-1: 1, -32: 1, -33: 2, -128: 2, -129: 3, -32768: 3, -32769: 5, -1 << 31: 5, -1<<31 - 1: 9, -1 << 63: 9} {
		pm := &wire.ProtocolMessage{Timestamp: v}
		b := wire.Append(nil, wire.MsgPack, pm)
		if size > 0 && len(b) != len("\x82\xa6action\x00\xa9timestamp")+size {
			t.Errorf("%d: %x", v, b)
		}
		if got := decode(t, wire.MsgPack, b).Timestamp; got != v {
			t.Errorf("%d became %d", v, got)
		}
	}
}

// RSL6a2
func TestExtrasCrossFormatsInMeaning(t *testing.T) {
	m := &pubsub.Message{Extras: []byte(`{"i":9007199254740993,"u":18446744073709551615,"n":-9223372036854775808,"z":-0,"f":1.5,"g":1.0,"h":1e400,"k":-1e400,"b":123456789012345678901234567890,"q\"":"\ud83d\ude00"}`)}
	got := unpack(t, wire.AppendMessage(nil, wire.MsgPack, m)).(object)["extras"].(object)
	if got["i"] != uint64(9007199254740993) || got["u"] != uint64(1<<64-1) || got["n"] != int64(-1<<63) || got["f"] != 1.5 || got["g"] != int8(1) || got[`q"`] != "😀" {
		t.Errorf("%#v", got)
	}
	back, err := wire.DecodeMessages(wire.MsgPack, wire.AppendMessage(nil, wire.MsgPack, m))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"i":9007199254740993,"u":18446744073709551615,"n":-9223372036854775808,"z":-0,"f":1.5,"g":1,"h":1.7976931348623157e+308,"k":-1.7976931348623157e+308,"b":1.2345678901234568e+29,"q\"":"😀"}`
	if string(back[0].Extras) != want {
		t.Errorf("%s", back[0].Extras)
	}
	m.Extras = []byte(`{"a":`)
	if got := unpack(t, wire.AppendMessage(nil, wire.MsgPack, m)).(object)["extras"]; !reflect.DeepEqual(got, object{}) {
		t.Errorf("extras that are no JSON: %v", got)
	}
}

func TestRESTBodiesAreWrittenCompletely(t *testing.T) {
	ms := []*pubsub.Message{{ID: "b:0", Name: "n", Data: pubsub.Binary([]byte{1}), ConnectionID: "c", ConnectionKey: "secret", Timestamp: 5, Serial: "s"}, {}}
	if got := string(wire.AppendMessages(nil, wire.JSON, ms)); got != `[{"id":"b:0","name":"n","data":"AQ==","encoding":"base64","connectionId":"c","timestamp":5,"action":0,"serial":"s"},{"action":0}]` {
		t.Error(got)
	}
	if got := string(wire.AppendMessages(nil, wire.JSON, nil)); got != `[]` {
		t.Error(got)
	}
	if got := unpack(t, wire.AppendMessages(nil, wire.MsgPack, ms)).([]any); len(got) != 2 || got[0].(object)["id"] != "b:0" {
		t.Error(got)
	}
	if got := string(wire.AppendPresence(nil, wire.JSON, []*pubsub.PresenceMessage{{ID: "x", Action: 1}})); got != `[{"action":1,"id":"x"}]` {
		t.Error(got)
	}
	if got := string(wire.AppendAnnotations(nil, wire.JSON, []*pubsub.Annotation{{ID: "x", Type: "t"}})); got != `[{"action":0,"id":"x","type":"t"}]` {
		t.Error(got)
	}
}

// TI1
func TestErrorsTellWhatAClientMaySee(t *testing.T) {
	e := wire.NewErrorInfo(&pubsub.Error{Code: 40009, Message: "too large", Err: errors.New("for the log")})
	if got := string(wire.AppendError(nil, wire.JSON, e)); got != `{"error":{"code":40009,"statusCode":413,"message":"too large"}}` {
		t.Error(got)
	}
	if got := string(wire.AppendErrorInfo(nil, wire.JSON, e)); got != `{"code":40009,"statusCode":413,"message":"too large"}` {
		t.Error(got)
	}
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		if got, err := wire.DecodeError(f, wire.AppendError(nil, f, e)); err != nil || !reflect.DeepEqual(got, e) {
			t.Error(got, err)
		}
	}
	for _, s := range []string{``, `[]`, `{}`, `{"error":null}`, `{"error":1}`} {
		if _, err := wire.DecodeError(wire.JSON, []byte(s)); err == nil {
			t.Errorf("%s was accepted", s)
		}
	}
	if wire.NewErrorInfo(nil) != nil {
		t.Error("no error became one")
	}
}

func TestTranscodeCarriesADocumentOver(t *testing.T) {
	b, err := wire.Transcode([]byte("x"), wire.MsgPack, wire.JSON, []byte(` [1726585978700, {"a":[true,null,"b"]}] `))
	if err != nil {
		t.Fatal(err)
	}
	if got := unpack(t, b[1:]); !reflect.DeepEqual(got, []any{uint64(1726585978700), object{"a": []any{true, nil, "b"}}}) {
		t.Errorf("%#v", got)
	}
	back, err := wire.Transcode(nil, wire.JSON, wire.MsgPack, b[1:])
	if err != nil || string(back) != `[1726585978700,{"a":[true,null,"b"]}]` {
		t.Errorf("%s %v", back, err)
	}
	if b, err := wire.Transcode([]byte("x"), wire.JSON, wire.JSON, []byte(`[1,`)); err == nil || string(b) != "x" {
		t.Errorf("%s %v", b, err)
	}
}
