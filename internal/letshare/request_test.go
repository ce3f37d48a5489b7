package letshare

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"unicode/utf8"
)

func TestRequestsAreRead(t *testing.T) {
	for _, test := range []struct {
		frame string
		want  request
	}{
		{`{"type":"subscribe","channel":"ab"}`, request{Type: "subscribe", Channel: "ab", Event: "signal:all"}},
		{`{"type":"subscribe","channel":"ab","event":null}`, request{Type: "subscribe", Channel: "ab", Event: "signal:all"}},
		{`{"type":"subscribe","channel":"ab","event":""}`, request{Type: "subscribe", Channel: "ab", Event: "signal:all"}},
		{`{"type":"unsubscribe","channel":"ab","event":"signal:all"}`, request{Type: "unsubscribe", Channel: "ab", Event: "signal:all"}},
		{`{"type":"unsubscribe","channel":"ab","event":"x"}`, request{Type: "unsubscribe", Channel: "ab", Event: "x", explicitEvent: true}},
		{`{"type":"publish","data":null}`, request{Type: "publish", Event: "signal:all"}},
		{`{"type":"publish","data":{ "a" : 1.0 }}`, request{Type: "publish", Event: "signal:all", data: json.RawMessage(`{ "a" : 1.0 }`)}},
		{" \t\r\n{\"type\":\"x\"}\n ", request{Type: "x", Event: "signal:all"}},
		{`{}`, request{Event: "signal:all"}},
		{`{"Type":"x","TYPE":"y","tYpe":"z"}`, request{Event: "signal:all"}},
		{`{"type":"x","type":"y"}`, request{Type: "y", Event: "signal:all"}},
		{`{"type":"\u738b\ud83d\ude00\"\\\n"}`, request{Type: "王😀\"\\\n", Event: "signal:all"}},
		{`{"type":"a\ud800"}`, request{Type: "a\ufffd", Event: "signal:all"}},
		{`{"type":null,"channel":null}`, request{Event: "signal:all"}},
	} {
		got, failed := parseRequest([]byte(test.frame))
		if failed != nil {
			t.Errorf("%s: refused: %v", test.frame, failed.Message)
		} else if !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%s: got %+v, want %+v", test.frame, *got, test.want)
		}
	}
}

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	for _, test := range []struct{ frame, reason string }{
		{"", "invalid_json"}, {" ", "invalid_json"}, {"[]", "invalid_json"}, {"null", "invalid_json"}, {`"x"`, "invalid_json"}, {"7", "invalid_json"},
		{"{", "invalid_json"}, {`{"a":1}}`, "invalid_json"}, {`{"a":1}{}`, "invalid_json"}, {"{}x", "invalid_json"}, {"{}\f", "invalid_json"}, {"\v{}", "invalid_json"}, {"\u00a0{}", "invalid_json"}, {"{}\u2003", "invalid_json"}, {"\ufeff{}", "invalid_json"},
		{`{"a":01}`, "invalid_json"}, {`{"a":1,}`, "invalid_json"}, {"{\"a\":\"\n\"}", "invalid_json"}, {`{"a":"\x"}`, "invalid_json"},
		{"{\"a\":\"\xff\"}", "invalid_utf8"}, {"\xff", "invalid_utf8"}, {"{\"\xed\xa0\x80\":1}", "invalid_utf8"},
		{`{"type":1}`, "invalid_type"}, {`{"type":[]}`, "invalid_type"}, {`{"channel":{}}`, "invalid_channel"}, {`{"event":true}`, "invalid_event"},
		{`{"event":"` + strings.Repeat("x", maxEventBytes+1) + `"}`, "event_too_long"},
		{strings.Repeat("[", 1<<20), "invalid_json"}, {strings.Repeat(`{"a":`, 1<<17), "invalid_json"},
	} {
		got, failed := parseRequest([]byte(test.frame))
		if failed == nil {
			t.Errorf("%.40q: read as %+v", test.frame, got)
		} else if failed.Reason != test.reason || failed.Code != 400 || failed.Message == "" {
			t.Errorf("%.40q: refused with %+v, want reason %s", test.frame, failed, test.reason)
		}
	}
}

func TestDataGetsItsSender(t *testing.T) {
	for _, test := range []struct{ data, from, want string }{
		{`{}`, "a", `{"from":"a"}`},
		{`{ }`, "a", `{ "from":"a"}`},
		{`{"x":1}`, "a", `{"x":1,"from":"a"}`},
		{"{\"x\":1\n}", "a", "{\"x\":1\n,\"from\":\"a\"}"},
		{`{"x":"}"}`, "a", `{"x":"}","from":"a"}`},
		{`{"x":{"from":1}}`, "a", `{"x":{"from":1},"from":"a"}`},
		{`{"From":1}`, "a", `{"From":1,"from":"a"}`},
		{`{"n":9007199254740993,"m":1.50}`, "a", `{"n":9007199254740993,"m":1.50,"from":"a"}`},
		{`{}`, `a"\<&>王😀`, `{"from":"a\"\\<&>王😀"}`},
		{`{"from":"x"}`, "a", `{"from":"x"}`},
		{`{"from":null}`, "a", `{"from":null}`},
		{`{"\u0066rom":0}`, "a", `{"\u0066rom":0}`},
		{`{"from":1,"from":2}`, "a", `{"from":1,"from":2}`},
	} {
		got, failed := dataOf(&request{data: json.RawMessage(test.data)}, test.from)
		if failed != nil || string(got) != test.want {
			t.Errorf("%s: got %s %v, want %s", test.data, got, failed, test.want)
		}
	}
	for data, reason := range map[string]string{
		"": "missing_data", `5`: "invalid_data", `"x"`: "invalid_data", `[]`: "invalid_data", `true`: "invalid_data", `"{}"`: "invalid_data",
	} {
		r := &request{}
		if data != "" {
			r.data = json.RawMessage(data)
		}
		if got, failed := dataOf(r, "a"); failed == nil || failed.Reason != reason {
			t.Errorf("%s: got %s %v, want %s", data, got, failed, reason)
		}
	}
}

func TestAnySenderAndAnyFieldsMakeValidData(t *testing.T) {
	property := func(fields map[string]string, from string) bool {
		delete(fields, "from")
		data, err := json.Marshal(fields)
		if err != nil {
			return false
		}
		if fields == nil {
			data = []byte("{}")
		}
		out, failed := dataOf(&request{data: data}, from)
		return failed == nil && isDataPlusSender(data, out, from)
	}
	if err := quick.Check(property, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

// isDataPlusSender reports whether out is data with the sender added and nothing changed.
func isDataPlusSender(data, out []byte, from string) bool {
	var before, after map[string]json.RawMessage
	if !json.Valid(out) || utf8.Valid(data) && !utf8.Valid(out) || json.Unmarshal(data, &before) != nil || json.Unmarshal(out, &after) != nil {
		return false
	}
	if _, has := before["from"]; has {
		return bytes.Equal(data, out)
	}
	var sender string
	if json.Unmarshal(after["from"], &sender) != nil || sender != strings.ToValidUTF8(from, "\ufffd") && utf8.ValidString(from) {
		return false
	}
	delete(after, "from")
	return bytes.HasPrefix(out, bytes.TrimSuffix(data, []byte("}"))) && (len(before) == 0 && len(after) == 0 || reflect.DeepEqual(before, after))
}

func TestQuotingGivesTheTextBack(t *testing.T) {
	property := func(s string) bool {
		var back string
		quoted := appendQuoted([]byte("x"), s)[1:]
		return utf8.Valid(quoted) && json.Unmarshal(quoted, &back) == nil && back == string([]rune(s))
	}
	if err := quick.Check(property, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"", "\x00\x1f\x7f\"\\/<>&\u2028\u2029", "\xff\xfe", "王😀", "\ufffd", "a\nb\tc\rd"} {
		if !property(s) {
			t.Errorf("%q does not survive", s)
		}
	}
	if got := string(appendQuoted(nil, "\"\\\x01\n王<")); got != `"\"\\\u0001\u000a王<"` {
		t.Errorf("got %s", got)
	}
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"type":"subscribe","channel":"room","event":"signal:all"}`,
		`{"type":"unsubscribe","channel":"room"}`,
		`{"type":"publish","channel":"room","event":"signal:a:b","data":{"type":"discover","from":"u","userType":"desktop"}}`,
		`{"type":"publish","channel":"room","data":{"n":9007199254740993,"a":[1,2,{"x":null}]}}`,
		`{"type":"publish","channel":"room","data":{}}`, `{"type":"publish","channel":"room","data":null}`,
		`{"type":"publish","data":{"\u0066rom":1,"x":"}"}}`, `{"data":{"a":"\ud800"} }`, `[]`, ``, `{"type":5}`, "{\"a\":\"\xff\"}", `{"data":{ }}`,
	} {
		f.Add([]byte(seed), "anna:1b2c3d")
	}
	f.Add([]byte(`{"data":{"a":1}}`), "\xff\"\\\x00\u2028")
	f.Fuzz(func(t *testing.T, frame []byte, from string) {
		read := bytes.Clone(frame)
		r, failed := parseRequest(read)
		if failed != nil {
			checkFrame(t, errorFrame(failed))
			if json.Valid(frame) && utf8.Valid(frame) && bytes.HasPrefix(bytes.Trim(frame, jsonSpace), []byte("{")) && failed.Reason == "invalid_json" {
				t.Errorf("a JSON object is called none: %q", frame)
			}
			return
		}
		if !json.Valid(frame) || !utf8.Valid(frame) {
			t.Fatalf("read %q as %+v", frame, r)
		}
		if r.Event == "" || len(r.Event) > maxEventBytes || r.explicitEvent == (r.Event == defaultEvent) {
			t.Errorf("event %q, explicit %v", r.Event, r.explicitEvent)
		}
		for _, s := range []string{r.Type, r.Channel, r.Event} {
			if !utf8.ValidString(s) {
				t.Errorf("%q is not UTF-8", s)
			}
		}
		checkFrame(t, statusFrame("subscribed", r))
		checkFrame(t, errorFrame(fail("unsupported_type", "不支持的消息类型: "+clip(r.Type))))

		input := bytes.Clone(r.data)
		out, failed := dataOf(r, from)
		if failed != nil {
			if r.data != nil && bytes.HasPrefix(r.data, []byte("{")) {
				t.Errorf("an object is refused: %q", r.data)
			}
			return
		}
		if !isDataPlusSender(input, out, from) {
			t.Errorf("%q from %q became %q", input, from, out)
		}
		// The frame's buffer is used again once the request is handled.
		kept := bytes.Clone(out)
		clear(read)
		if !bytes.Equal(out, kept) {
			t.Errorf("the data changes with the frame")
		}
		if limit := len(input) + 6*len(from) + len(`,"from":""}`); len(out) > limit {
			t.Errorf("%d bytes of data became %d", len(input), len(out))
		}
	})
}
