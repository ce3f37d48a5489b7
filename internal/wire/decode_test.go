package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// pack encodes v as MessagePack with the other implementation.
func pack(t testing.TB, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, f wire.Format, b []byte) *wire.ProtocolMessage {
	t.Helper()
	pm, err := wire.Decode(f, b)
	if err != nil {
		t.Fatalf("decode %s %q: %v", f, b, err)
	}
	return pm
}

func decodeJSON(t testing.TB, s string) *wire.ProtocolMessage {
	t.Helper()
	return decode(t, wire.JSON, []byte(s))
}

// firstMessage decodes a frame with one message, given as JSON.
func firstMessage(t testing.TB, item string) *pubsub.Message {
	t.Helper()
	pm := decodeJSON(t, `{"action":15,"channel":"c","msgSerial":0,"messages":[`+item+`]}`)
	if pm.ItemErr != nil {
		t.Fatalf("%s: %v", item, pm.ItemErr)
	}
	return pm.Messages[0]
}

type object = map[string]any

func frame(item object) object {
	return object{"action": 15, "channel": "c", "msgSerial": 0, "messages": []any{item}}
}

// TR4a-s, TM2a-u, TP3a-i, TAN2a-l
func TestEveryFieldIsReadInBothFormats(t *testing.T) {
	source := object{
		"action": 4, "id": "abc:1", "channel": "foo", "channelSerial": "s1", "msgSerial": 7, "count": 2,
		"connectionId": "abc", "connectionKey": "abc!k", "flags": 196612, "timestamp": 1726585978700,
		"auth":   object{"accessToken": "tok", "other": 1},
		"params": object{"rewind": "1", "delta": "vcdiff"},
		"connectionDetails": object{
			"clientId": "*", "connectionKey": "abc!k", "connectionStateTtl": 120000, "maxIdleInterval": 15000,
			"maxMessageSize": 65536, "maxFrameSize": 524288, "maxInboundRate": 50, "serverId": "n1",
			"siteCode": "s1", "objectsGCGracePeriod": 86400000,
		},
		"error": object{
			"code": 40160, "statusCode": 401, "message": "no", "href": "h", "serverId": "n1",
			"detail": object{"a": "b"}, "cause": object{"code": 1, "statusCode": 2, "message": "c"},
		},
		"messages": []any{object{
			"id": "abc:1:0", "name": "n", "data": "d", "encoding": "utf-8", "clientId": "alice", "connectionId": "abc",
			"connectionKey": "key", "timestamp": 1, "extras": object{"headers": object{"k": 1}}, "action": 1, "serial": "s",
			"version":     object{"serial": "v", "timestamp": 2, "clientId": "bob", "description": "why", "metadata": object{"m": "1"}},
			"annotations": object{"summary": object{"r": object{"total": 1}}},
		}},
		"presence": []any{object{
			"id": "abc:1:0", "action": 2, "clientId": "alice", "connectionId": "abc", "data": "d", "encoding": "utf-8",
			"timestamp": 3, "extras": object{"locks": []any{}},
		}},
		"annotations": []any{object{
			"id": "abc:1:0", "action": 1, "type": "r:total.v1", "name": "n", "clientId": "alice", "connectionId": "abc", "count": 3,
			"data": "d", "encoding": "utf-8", "messageSerial": "ms", "serial": "as", "timestamp": 4, "extras": object{},
		}},
		"res": []any{object{"serials": []any{"a", nil}}, object{}},
	}
	three := int64(3)
	want := &wire.ProtocolMessage{
		Action: wire.ActionConnected, ID: "abc:1", Auth: &wire.Auth{AccessToken: "tok"}, Channel: "foo", HasChannel: true,
		ChannelSerial: "s1", MsgSerial: 7, HasMsgSerial: true, Count: 2, ConnectionID: "abc", ConnectionKey: "abc!k",
		ConnectionDetails: &wire.ConnectionDetails{
			ClientID: "*", ConnectionKey: "abc!k", ConnectionStateTTL: 2 * time.Minute, MaxIdleInterval: 15 * time.Second,
			MaxMessageSize: 65536, MaxFrameSize: 524288, MaxInboundRate: 50, ServerID: "n1", SiteCode: "s1",
			ObjectsGCGracePeriod: 24 * time.Hour,
		},
		Error: &wire.ErrorInfo{
			Code: 40160, StatusCode: 401, Message: "no", Href: "h", ServerID: "n1", Detail: map[string]string{"a": "b"},
			Cause: &wire.ErrorInfo{Code: 1, StatusCode: 2, Message: "c"},
		},
		Flags:  wire.FlagResumed | wire.Flags(pubsub.ModePresence|pubsub.ModePublish),
		Params: map[string]string{"rewind": "1", "delta": "vcdiff"}, Timestamp: 1726585978700,
		Messages: []*pubsub.Message{{
			ID: "abc:1:0", Name: "n", Data: pubsub.Text("d"), Encoding: "utf-8", ClientID: "alice", ConnectionID: "abc",
			ConnectionKey: "key", Timestamp: 1, Extras: []byte(`{"headers":{"k":1}}`), Action: pubsub.MessageUpdate, Serial: "s",
			Version: &pubsub.Version{Serial: "v", Timestamp: 2, ClientID: "bob", Description: "why", Metadata: []byte(`{"m":"1"}`)},
			Summary: []byte(`{"r":{"total":1}}`),
		}},
		Presence: []*pubsub.PresenceMessage{{
			ID: "abc:1:0", Action: pubsub.PresenceEnter, ClientID: "alice", ConnectionID: "abc", Data: pubsub.Text("d"),
			Encoding: "utf-8", Timestamp: 3, Extras: []byte(`{"locks":[]}`),
		}},
		Annotations: []*pubsub.Annotation{{
			ID: "abc:1:0", Action: pubsub.AnnotationDelete, Type: "r:total.v1", Name: "n", ClientID: "alice", ConnectionID: "abc",
			Count: &three, Data: pubsub.Text("d"), Encoding: "utf-8", MessageSerial: "ms", Serial: "as", Timestamp: 4, Extras: []byte(`{}`),
		}},
		Res: []wire.PublishResult{{Serials: []string{"a", ""}}, {}},
	}
	text, err := json.Marshal(source)
	if err != nil {
		t.Fatal(err)
	}
	for f, b := range map[wire.Format][]byte{wire.JSON: text, wire.MsgPack: pack(t, source)} {
		got := decode(t, f, b)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", f, dump(got), dump(want))
		}
	}
	if m := want.Flags.Modes(); m != pubsub.ModePresence|pubsub.ModePublish || !want.Flags.Has(wire.FlagResumed) {
		t.Errorf("modes %b of %b", m, want.Flags)
	}
}

func dump(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%+v", v)
	}
	return string(b)
}

// RSL1e, RTF1
func TestNullAndUnknownFieldsAreAbsent(t *testing.T) {
	pm := decodeJSON(t, ` { "action" : null , "channel":null,"msgSerial":null,"messages":null,"error":null,"auth":{"accessToken":null},
		"new":{"deep":[1,-2.5e-3,"x\u00e9\n",true,false,null,{}]},"presence":[{"clientId":null,"data":null,"extras":null,"id":null,"later":[]}]}`+"\r\n\t ")
	want := &wire.ProtocolMessage{Auth: &wire.Auth{}, Presence: []*pubsub.PresenceMessage{{}}}
	if !reflect.DeepEqual(pm, want) {
		t.Errorf("got %s", dump(pm))
	}
	packed := decode(t, wire.MsgPack, pack(t, object{"action": nil, "channel": nil, "new": []any{1.5, object{"a": []byte{1}}},
		"auth": object{"accessToken": nil}, "presence": []any{object{"clientId": nil, "data": nil, "later": 1}}}))
	if !reflect.DeepEqual(packed, want) {
		t.Errorf("got %s", dump(packed))
	}
}

func TestAMissingActionIsAHeartbeatAndUnknownOnesAreKeptApart(t *testing.T) {
	for text, want := range map[string]wire.Action{
		`{}`: wire.ActionHeartbeat, `{"action":15}`: wire.ActionMessage, `{"action":22}`: 22,
		`{"action":255}`: wire.ActionUnknown, `{"action":300}`: wire.ActionUnknown, `{"action":-1}`: wire.ActionUnknown,
	} {
		if got := decodeJSON(t, text).Action; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if s := wire.ActionObjectSync.String() + " " + wire.Action(99).String(); s != "OBJECT_SYNC action 99" {
		t.Error(s)
	}
}

func TestIntegersAreAcceptedInEveryForm(t *testing.T) {
	for _, text := range []string{"1000", "1000.0", "1e3", "1E+3", "10000e-1"} {
		if pm := decodeJSON(t, `{"msgSerial":`+text+`}`); pm.MsgSerial != 1000 || !pm.HasMsgSerial {
			t.Errorf("%s: %d", text, pm.MsgSerial)
		}
	}
	for _, v := range []any{uint64(1000), int64(1000), float64(1000), float32(1000), int16(1000), uint32(1000)} {
		if pm := decode(t, wire.MsgPack, pack(t, object{"msgSerial": v})); pm.MsgSerial != 1000 {
			t.Errorf("%T: %d", v, pm.MsgSerial)
		}
	}
	for v, want := range map[string]int64{"9223372036854775807": 9223372036854775807, "9007199254740993": 9007199254740993, "0": 0, "-0": 0} {
		if pm := decodeJSON(t, `{"msgSerial":`+v+`}`); pm.MsgSerial != want {
			t.Errorf("%s: %d", v, pm.MsgSerial)
		}
	}
	for b, want := range map[string]int64{
		"\xff": -1, "\xd0\x80": -128, "\xd1\x80\x00": -32768, "\xd2\x80\x00\x00\x00": -1 << 31,
		"\xd3\x80\x00\x00\x00\x00\x00\x00\x00": -1 << 63, "\xd3\x00\x00\x00\x00\x00\x00\x00\x05": 5, "\x7f": 127,
		"\xcc\xff": 255, "\xcd\xff\xff": 65535, "\xce\xff\xff\xff\xff": 1<<32 - 1, "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff": 1<<63 - 1,
	} {
		if pm := decode(t, wire.MsgPack, []byte("\x81\xa9timestamp"+b)); pm.Timestamp != want {
			t.Errorf("%x: %d, want %d", b, pm.Timestamp, want)
		}
	}
}

func TestAFrameThatIsNoProtocolMessageIsAProtocolError(t *testing.T) {
	deep := strings.Repeat("[", 101) + strings.Repeat("]", 101)
	frames := map[wire.Format][]string{
		wire.JSON: {
			``, ` `, `[]`, `1`, `null`, `"x"`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{a:1}`, `{"a" 1}`, `{}{}`, `{} x`,
			`{"a":[1,]}`, `{"a":[,]}`, `{"a":[1 2]}`, `{"a":[`, `{"a":tru}`, `{"a":nul}`, `{"a":falsy}`, `{"a":01}`, `{"a":-}`, `{"a":1.}`,
			`{"a":.5}`, `{"a":1e}`, `{"a":+1}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\u12`, `{"a":"` + "\n" + `"}`, `{"a":"` + "\xff" + `"}`,
			`{"` + "\xc0\xaf" + `":1}`, `{"a":` + deep + `}`, "\ufeff{}",
			`{"action":"15"}`, `{"action":1.5}`, `{"action":[]}`, `{"channel":1}`, `{"channel":{}}`, `{"id":1}`, `{"flags":"1"}`,
			`{"msgSerial":-1}`, `{"msgSerial":"0"}`, `{"msgSerial":0.5}`, `{"msgSerial":9223372036854775808}`, `{"msgSerial":1e400}`,
			`{"count":-1}`, `{"count":"1"}`, `{"timestamp":true}`, `{"auth":"x"}`, `{"auth":{"accessToken":1}}`, `{"params":[]}`,
			`{"params":{"a":{}}}`, `{"error":"x"}`, `{"error":{"code":"1"}}`, `{"connectionDetails":1}`, `{"res":{}}`, `{"res":[1]}`, `{"res":[{"serials":"x"}]}`,
		},
		wire.MsgPack: {
			"", "\xc0", "\x90", "\x01", "\xc1", "\x81", "\x81\xa1a", "\x82\xa1a\x01", "\x80\x80", "\x81\xa1a\xc1", "\xdf\xff\xff\xff\xff",
			"\xdf\xff\xff\xff\xff\xa1a\x01", "\x81\xa1a\xdd\xff\xff\xff\xff", "\x81\xa1a\xdb\xff\xff\xff\xffab", "\x81\xa1a\xc6\xff\xff\xff\xff",
			"\x81\xa1a\xc9\xff\xff\xff\xff\x00", "\x81\xa1a\xd8\x00", "\x81\xa1a\xcb\x00", "\x81\xa7channel\x01", "\x81\xa7channel\xa1\xff",
			"\x81\xa6action\xa215", "\x81\xa9msgSerial\xff", "\x81\xa9msgSerial\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
			"\x81\xa9msgSerial\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "\x81\xa1a" + strings.Repeat("\x91", 101) + "\x01",
		},
	}
	for f, list := range frames {
		for _, b := range list {
			pm, err := wire.Decode(f, []byte(b))
			var e *pubsub.Error
			if !errors.As(err, &e) || e.Code != pubsub.CodeProtocolError || pm != nil {
				t.Errorf("%s %q: %v, %v", f, b, pm, err)
			}
		}
	}
}

func TestNestingIsAllowedUpToTheBound(t *testing.T) {
	decodeJSON(t, `{"a":`+strings.Repeat("[", 99)+strings.Repeat("]", 99)+`}`)
	decode(t, wire.MsgPack, []byte("\x81\xa1a"+strings.Repeat("\x91", 99)+"\x01"))
}

func TestAWrongItemIsAnItemErrorNotAFrameError(t *testing.T) {
	for _, c := range []struct {
		item string
		code pubsub.Code
	}{
		{`{"name":1}`, 40016},
		{`{"name":{"a":[1]}}`, 40016},
		{`{"data":1}`, 40013},
		{`{"data":1.5e3}`, 40013},
		{`{"data":true}`, 40013},
		{`{"data":{},"encoding":"utf-8"}`, 40013},
		{`{"encoding":"cipher+aes-256-cbc/base64","data":[]}`, 40013},
		{`{"encoding":1}`, 40013},
		{`{"clientId":1}`, 40012},
		{`{"clientId":""}`, 40012},
		{`{"extras":[]}`, 40032},
		{`{"extras":"{}"}`, 40032},
		{`{"id":1}`, 40031},
		{`{"id":""}`, 40031},
		{`{"connectionId":1}`, 40006},
		{`{"connectionKey":[]}`, 40006},
		{`{"timestamp":"now"}`, 40000},
		{`{"timestamp":1.5}`, 40000},
		{`{"action":"message.create"}`, 40000},
		{`{"action":256}`, 40000},
		{`{"action":-1}`, 40000},
		{`{"serial":1}`, 40003},
		{`{"version":1}`, 40003},
		{`{"version":{"serial":1}}`, 40003},
		{`{"version":{"clientId":1}}`, 40012},
		{`{"version":{"metadata":"x"}}`, 40003},
		{`{"annotations":[]}`, 40000},
		{`{"annotations":{"summary":1}}`, 40000},
		{`1`, 40000},
		{`null`, 40000},
		{`[]`, 40000},
	} {
		text := `{"action":15,"messages":[{"name":"ok"},` + c.item + `],"channel":"c","msgSerial":3}`
		var packed bytes.Buffer
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := msgpack.NewEncoder(&packed).Encode(v); err != nil {
			t.Fatal(err)
		}
		for f, b := range map[wire.Format][]byte{wire.JSON: []byte(text), wire.MsgPack: packed.Bytes()} {
			pm := decode(t, f, b)
			if pm.ItemErr == nil || pm.ItemErr.Code != c.code || pm.ItemErr.StatusCode != 400 {
				t.Errorf("%s %s: %v, want %d", f, c.item, pm.ItemErr, c.code)
			}
			if pm.MsgSerial != 3 || pm.Channel != "c" {
				t.Errorf("%s %s: the frame's fields are lost: %s", f, c.item, dump(pm))
			}
			if f == wire.JSON && !strings.HasPrefix(pm.ItemErr.Message, "messages[1]: ") {
				t.Errorf("%s: %q does not name the place", c.item, pm.ItemErr.Message)
			}
		}
	}
}

func TestTheFirstItemErrorCounts(t *testing.T) {
	pm := decodeJSON(t, `{"messages":[{"data":1,"name":{"a":[1]}},{"id":""}],"presence":1}`)
	if pm.ItemErr == nil || pm.ItemErr.Message != "messages[0]: data must be a string, an object, an array or binary" {
		t.Error(pm.ItemErr)
	}
}

func TestItemsThatAreNoArrayAreAnItemError(t *testing.T) {
	for _, text := range []string{`{"action":15,"messages":{}}`, `{"action":15,"messages":"x"}`, `{"action":14,"presence":1}`,
		`{"action":21,"annotations":true}`, `{"action":19,"state":{}}`, `{"action":19,"state":[1]}`} {
		if pm := decodeJSON(t, text); pm.ItemErr == nil || pm.ItemErr.Code != pubsub.CodeBadRequest {
			t.Errorf("%s: %v", text, pm.ItemErr)
		}
	}
	pm := decodeJSON(t, `{"action":15,"messages":[]}`)
	if pm.ItemErr != nil || pm.Messages == nil || len(pm.Messages) != 0 {
		t.Errorf("an empty array: %s", dump(pm))
	}
}

func TestTooManyItemsAreNotKept(t *testing.T) {
	pm := decodeJSON(t, `{"action":15,"messages":[`+strings.Repeat(`{},`, wire.MaxItems)+`{}]}`)
	if pm.ItemErr == nil || pm.ItemErr.Code != pubsub.CodeTooManyMessages || len(pm.Messages) != wire.MaxItems {
		t.Errorf("%v, %d kept", pm.ItemErr, len(pm.Messages))
	}
	pm = decode(t, wire.MsgPack, append([]byte("\x81\xa8messages\xdc\x03\xe8"), bytes.Repeat([]byte{0x80}, 1000)...))
	if pm.ItemErr != nil || len(pm.Messages) != 1000 {
		t.Errorf("%v, %d kept", pm.ItemErr, len(pm.Messages))
	}
}

func TestAFixext1OfJsUndefinedIsNilAndOtherExtensionsAreIgnored(t *testing.T) {
	for _, ext := range []string{"\xd4\x00\x00", "\xd5\x01\x00\x00", "\xd6\xff\x00\x00\x00\x00", "\xd7\x01\x00\x00\x00\x00\x00\x00\x00\x00",
		"\xd8\x01" + strings.Repeat("\x00", 16), "\xc7\x01\x05\x00", "\xc8\x00\x01\x05\x00", "\xc9\x00\x00\x00\x01\x05\x00", "\xc7\x00\x05"} {
		pm := decode(t, wire.MsgPack, []byte("\x83\xa7channel"+ext+"\xa6action\x0f\xa8messages\x91\x82\xa4data"+ext+"\xa6extras"+ext))
		if pm.HasChannel || pm.Action != wire.ActionMessage || pm.ItemErr != nil || pm.Messages[0].Data.Kind != pubsub.NoData || pm.Messages[0].Extras != nil {
			t.Errorf("%x: %s", ext, dump(pm))
		}
	}
}

// RSL4a-b, RSL6a-b
func TestPayloadsFollowTheirEncoding(t *testing.T) {
	text, binary := pubsub.Text, func(s string) pubsub.Data { return pubsub.Binary([]byte(s)) }
	for _, c := range []struct {
		name     string
		json     string // the item's fields
		pack     object // the same in MessagePack; nil if there is no such thing
		data     pubsub.Data
		encoding string
	}{
		{"absent", ``, object{}, pubsub.Data{}, ""},
		{"null", `"data":null`, object{"data": nil}, pubsub.Data{}, ""},
		{"an empty text", `"data":""`, object{"data": ""}, text(""), ""},
		{"a text", `"data":"é\n\"\\\/\u00e9\ud83d\ude00\u0000"`, object{"data": "é\n\"\\/é😀\x00"}, text("é\n\"\\/é😀\x00"), ""},
		{"half a surrogate pair", `"data":"\ud83dx\ude00\ud83d\ud83d\ude00"`, nil, text("�x��😀"), ""},
		{"json", `"data":"{}","encoding":"json"`, object{"data": "{}", "encoding": "json"}, text("{}"), "json"},
		{"base64", `"data":"AQID/w==","encoding":"base64"`, object{"data": "AQID/w==", "encoding": "base64"}, binary("\x01\x02\x03\xff"), ""},
		{"bytes", `"data":"AQID/w==","encoding":"base64"`, object{"data": []byte("\x01\x02\x03\xff")}, binary("\x01\x02\x03\xff"), ""},
		{"encoding first", `"encoding":"base64","data":"AQID/w=="`, nil, binary("\x01\x02\x03\xff"), ""},
		{"base64 with an escape", `"data":"AQID\/w==","encoding":"base64"`, nil, binary("\x01\x02\x03\xff"), ""},
		{"base64 without padding", `"data":"AQID/w","encoding":"base64"`, object{"data": "AQID/w", "encoding": "base64"}, binary("\x01\x02\x03\xff"), ""},
		{"empty base64", `"data":"","encoding":"base64"`, object{"data": []byte{}}, binary(""), ""},
		{"base64 at the end of a chain", `"data":"AQI=","encoding":"utf-8/cipher+aes-256-cbc/base64"`,
			object{"data": []byte{1, 2}, "encoding": "utf-8/cipher+aes-256-cbc"}, binary("\x01\x02"), "utf-8/cipher+aes-256-cbc"},
		{"only the last base64 step is undone", `"data":"QVFJPQ==","encoding":"base64/base64"`,
			object{"data": "QVFJPQ==", "encoding": "base64/base64"}, binary("AQI="), "base64"},
		{"invalid base64", `"data":"%%%","encoding":"base64"`, object{"data": "%%%", "encoding": "base64"}, text("%%%"), "base64"},
		{"base64 in the middle", `"data":"AQI=","encoding":"base64/utf-8"`, object{"data": "AQI=", "encoding": "base64/utf-8"}, text("AQI="), "base64/utf-8"},
		{"a step that ends alike", `"data":"AQI=","encoding":"xbase64"`, object{"data": "AQI=", "encoding": "xbase64"}, text("AQI="), "xbase64"},
		{"bytes called base64", `"data":"QVFJPQ==","encoding":"base64/base64"`, object{"data": []byte("AQI="), "encoding": "base64"}, binary("AQI="), "base64"},
		{"an encoding without data", `"encoding":"utf-8/base64"`, object{"encoding": "utf-8/base64"}, pubsub.Data{}, "utf-8/base64"},
		{"an object", `"data":{"b":[1,"x"],"a":null}`, nil, text(`{"b":[1,"x"],"a":null}`), "json"},
		{"an object, exactly as written", `"data": { "z":9007199254740993, "a":1.0,"e":1E2 ,"s":"\u0041\/" } `, nil,
			text(`{ "z":9007199254740993, "a":1.0,"e":1E2 ,"s":"\u0041\/" }`), "json"},
		{"an object called json", `"data":{"a":1},"encoding":"json"`, object{"data": object{"a": 1}, "encoding": "json"}, text(`{"a":1}`), "json"},
		{"an object at the end of a chain with json", `"encoding":"x/json","data":[1]`, object{"data": []any{1}, "encoding": "x/json"}, text(`[1]`), "x/json"},
		{"an array", `"data":[1,"x",{"k":true}]`, object{"data": []any{1, "x", object{"k": true}}}, text(`[1,"x",{"k":true}]`), "json"},
		{"a map with all that MessagePack has", `"data":{"a":[18446744073709551615,-5,1.5,"AQI=",null,1e+21,1]}`,
			object{"data": object{"a": []any{uint64(1<<64 - 1), -5, 1.5, []byte{1, 2}, nil, 1e21, float32(1)}}},
			text(`{"a":[18446744073709551615,-5,1.5,"AQI=",null,1e+21,1]}`), "json"},
		{"ciphertext sent as str", `"data":"/wE=","encoding":"utf-8/cipher+aes-256-cbc/base64"`,
			object{"data": "\xff\x01", "encoding": "utf-8/cipher+aes-256-cbc"}, binary("\xff\x01"), "utf-8/cipher+aes-256-cbc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := firstMessage(t, "{"+c.json+"}")
			if !reflect.DeepEqual(m.Data, c.data) || m.Encoding != c.encoding {
				t.Errorf("JSON: %d %q %q", m.Data.Kind, m.Data.Bytes, m.Encoding)
			}
			if c.pack == nil {
				return
			}
			pm := decode(t, wire.MsgPack, pack(t, frame(c.pack)))
			if m := pm.Messages[0]; pm.ItemErr != nil || !reflect.DeepEqual(m.Data, c.data) || m.Encoding != c.encoding {
				t.Errorf("MessagePack: %v %d %q %q", pm.ItemErr, m.Data.Kind, m.Data.Bytes, m.Encoding)
			}
		})
	}
}

func TestInvalidUTF8IsNeverText(t *testing.T) {
	for field, code := range map[string]pubsub.Code{"data": 40013, "name": 40016, "clientId": 40012, "id": 40031, "encoding": 40013, "serial": 40003} {
		pm := decode(t, wire.MsgPack, pack(t, frame(object{field: "a\xff"})))
		if pm.ItemErr == nil || pm.ItemErr.Code != code {
			t.Errorf("%s: %v", field, pm.ItemErr)
		}
	}
	pm := decode(t, wire.MsgPack, pack(t, frame(object{"data": "a\xff", "encoding": "utf-8"})))
	if pm.ItemErr == nil || pm.ItemErr.Code != 40013 || pm.Messages[0].Data.Kind != pubsub.NoData {
		t.Errorf("%v", pm.ItemErr)
	}
	pm = decode(t, wire.MsgPack, pack(t, frame(object{"extras": object{"\xff": "a\xff"}})))
	if got := string(pm.Messages[0].Extras); got != `{"�":"a�"}` {
		t.Errorf("extras %q", got)
	}
	pm.Messages[0].Data, pm.Messages[0].Name = pubsub.Text("b\xff"), "c\xff" // whoever made that
	if b := wire.Append(nil, wire.JSON, pm); !bytes.Contains(b, []byte("\"name\":\"c�\",\"data\":\"b�\"")) {
		t.Errorf("%s", b)
	}
	if b := wire.Append(nil, wire.MsgPack, pm); !bytes.Contains(b, []byte("\xa4b�")) {
		t.Errorf("%x", b)
	}
}

// RSL6a2
func TestExtrasAreKeptAsCompactJSON(t *testing.T) {
	if got := string(firstMessage(t, `{"extras":{"a":1.0,"b":"\u00e9"}}`).Extras); got != `{"a":1.0,"b":"\u00e9"}` {
		t.Error(got)
	}
	if got := string(firstMessage(t, "{\"extras\": {\n \"a\" : [ 1 , 2.50, { } ] ,\t\"b c\":\" \" } }").Extras); got != `{"a":[1,2.50,{}],"b c":" "}` {
		t.Error(got)
	}
	pm := decode(t, wire.MsgPack, []byte("\x81\xa8messages\x91\x81\xa6extras\x84\x05\x01\xff\x02\xc3\x03\xa1k\xd4\x00\x00"))
	if got := string(pm.Messages[0].Extras); got != `{"5":1,"-1":2,"k":null}` {
		t.Error(got)
	}
}

func TestParamsTakeScalarsForTheirText(t *testing.T) {
	want := map[string]string{"rewind": "1", "b": "true", "s": "x", "f": "1.5"}
	if got := decodeJSON(t, `{"params":{"rewind":1,"b":true,"s":"x","n":null,"f":1.5}}`).Params; !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
	packed := pack(t, object{"params": object{"rewind": 1, "b": true, "s": "x", "n": nil, "f": 1.5}})
	if got := decode(t, wire.MsgPack, packed).Params; !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
}

func TestNothingDecodedRefersToTheSource(t *testing.T) {
	for _, f := range forms(t) {
		src := bytes.Clone(f.b)
		pm := decode(t, f.format, src)
		want := dump(pm)
		for i := range src {
			src[i] = 'X'
		}
		if got := dump(pm); got != want {
			t.Errorf("%s: %s", f.name, got)
		}
	}
	src := pack(t, object{"messages": []any{object{"data": []byte{1, 2}, "extras": object{"a": 1}}}, "state": []any{object{"a": 1}}})
	pm := decode(t, wire.MsgPack, src)
	want := dump(pm)
	clear(src)
	if got := dump(pm); got != want {
		t.Error(got)
	}
}

func TestItemsInheritFromTheirFrame(t *testing.T) {
	pm := decodeJSON(t, `{"id":"c:1","connectionId":"c","timestamp":5,"messages":[{},{"id":"x","connectionId":"d","timestamp":6}],"presence":[{}],"annotations":[{}]}`)
	if m := pm.Messages[0]; m.ID != "" || m.ConnectionID != "" || m.Timestamp != 0 {
		t.Error("decoding alone made the items inherit")
	}
	pm.Inherit()
	a, b := pm.Messages[0], pm.Messages[1]
	if a.ID != "c:1:0" || a.ConnectionID != "c" || a.Timestamp != 5 || b.ID != "x" || b.ConnectionID != "d" || b.Timestamp != 6 {
		t.Errorf("%+v %+v", a, b)
	}
	if p, n := pm.Presence[0], pm.Annotations[0]; p.ID != "c:1:0" || p.Timestamp != 5 || n.ConnectionID != "c" {
		t.Errorf("%+v %+v", p, n)
	}
}

func TestFramesAreWrittenInArrays(t *testing.T) {
	pms := []*wire.ProtocolMessage{{}, {Action: wire.ActionClosed}}
	if got := string(wire.AppendAll(nil, pms...)); got != `[{"action":0},{"action":8}]` {
		t.Error(got)
	}
}

func TestRESTBodiesHoldOneItemOrAnArray(t *testing.T) {
	one, many := object{"name": "a", "data": []byte{1}}, []any{object{"name": "a", "data": []byte{1}}, object{"data": ""}}
	for _, c := range []struct {
		f wire.Format
		b []byte
		n int
	}{
		{wire.JSON, []byte(`{"name":"a","data":"AQ==","encoding":"base64"}`), 1},
		{wire.JSON, []byte(`[{"name":"a","data":"AQ==","encoding":"base64"},{"data":""}]`), 2},
		{wire.MsgPack, pack(t, one), 1},
		{wire.MsgPack, pack(t, many), 2},
	} {
		got, err := wire.DecodeMessages(c.f, c.b)
		if err != nil || len(got) != c.n || got[0].Name != "a" || string(got[0].Data.Bytes) != "\x01" {
			t.Errorf("%s: %v %v", c.f, got, err)
		}
	}
	if got, err := wire.DecodeMessages(wire.JSON, []byte(`[]`)); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if got, err := wire.DecodePresence(wire.JSON, []byte(`[{"action":2,"clientId":"x"}]`)); err != nil || got[0].Action != pubsub.PresenceEnter {
		t.Error(got, err)
	}
	if got, err := wire.DecodeAnnotations(wire.JSON, []byte(`{"type":"a:flag.v1"}`)); err != nil || got[0].Type != "a:flag.v1" {
		t.Error(got, err)
	}
	for body, code := range map[string]pubsub.Code{`{"name":1}`: 40016, `[{"extras":1}]`: 40032, `[1]`: 40000, `1`: 40000, `null`: 40000, `[`: 40001, ``: 40001, `{}x`: 40001} {
		got, err := wire.DecodeMessages(wire.JSON, []byte(body))
		var e *pubsub.Error
		if !errors.As(err, &e) || e.Code != code || got != nil {
			t.Errorf("%s: %v %v", body, got, err)
		}
	}
}

func TestAllocationStaysInProportionToTheSource(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty messages": append([]byte("\x81\xa8messages\xdd\x00\x08\x00\x00"), bytes.Repeat([]byte{0x80}, 1<<19)...),
		"empty state":    append([]byte("\x81\xa5state\xdd\x00\x08\x00\x00"), bytes.Repeat([]byte{0x80}, 1<<19)...),
		"a false length": append([]byte("\x81\xa8messages\xdd\xff\xff\xff\xff"), bytes.Repeat([]byte{0x80}, 1<<10)...),
		"empty results":  append([]byte("\x81\xa3res\xdd\x00\x08\x00\x00"), bytes.Repeat([]byte{0x80}, 1<<19)...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = wire.Decode(wire.MsgPack, b)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(b))*40+1<<20 {
			t.Errorf("%s: %d bytes allocated for %d", name, n, len(b))
		}
	}
}

// What a client sends is decoded at a constant cost, however long it is: the ids, names and data that
// are kept, and the message that holds them.
func TestDecodingAPublishCostsTheSameHoweverLongItIs(t *testing.T) {
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		for _, n := range []int{10, 300, 60_000} {
			frame := wire.Append(nil, f, &wire.ProtocolMessage{Action: wire.ActionMessage, Channel: "room", HasMsgSerial: true, MsgSerial: 7,
				Messages: []*pubsub.Message{{Name: "n", Data: pubsub.Text(strings.Repeat("x", n))}}})
			var pm wire.ProtocolMessage
			allocs := testing.AllocsPerRun(100, func() {
				if err := wire.DecodeInto(&pm, f, frame); err != nil {
					t.Fatal(err)
				}
			})
			if allocs > 3 {
				t.Errorf("%s with %d bytes: %v allocations, want 3", f, n, allocs)
			}
		}
	}
}
