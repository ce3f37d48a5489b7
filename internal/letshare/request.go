package letshare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// defaultEvent is the event of a request that names none.
const defaultEvent = "signal:all"

// maxEventBytes bounds an event's name.
const maxEventBytes = 512

// request is one frame of a client.
type request struct {
	Type    string
	Channel string
	Event   string          // defaultEvent if none was given
	data    json.RawMessage // as it was written; nil if absent or null
	// explicitEvent tells an unsubscribe from one event from one that leaves the room.
	explicitEvent bool
}

// failure is an error that a client is told of; its connection goes on.
type failure struct {
	Code    int    // 400 as the original's clients expect it, or 403
	Reason  string // for machines, stable
	Message string // for the app's user
}

func fail(reason, message string) *failure { return &failure{400, reason, message} }

// parseRequest reads a frame. The request keeps parts of frame.
func parseRequest(frame []byte) (*request, *failure) {
	if !utf8.Valid(frame) {
		return nil, fail("invalid_utf8", "消息不是有效的 UTF-8 文本")
	}
	fields, err := objectFields(frame)
	if err != nil {
		return nil, fail("invalid_json", "消息格式错误：不是有效的 JSON 对象")
	}
	r := &request{Event: defaultEvent, data: fields["data"]}
	if bytes.Equal(r.data, []byte("null")) {
		r.data = nil
	}
	for _, f := range []struct {
		key  string
		into *string
	}{{"type", &r.Type}, {"channel", &r.Channel}, {"event", &r.Event}} {
		if failed := stringField(fields, f.key, f.into); failed != nil {
			return nil, failed
		}
	}
	if r.explicitEvent = r.Event != defaultEvent; r.Event == "" {
		r.Event, r.explicitEvent = defaultEvent, false
	}
	if len(r.Event) > maxEventBytes {
		return nil, fail("event_too_long", fmt.Sprintf("事件名太长，最多 %d 字节", maxEventBytes))
	}
	return r, nil
}

func stringField(fields map[string]json.RawMessage, key string, into *string) *failure {
	raw, ok := fields[key]
	if !ok || bytes.Equal(raw, []byte("null")) {
		return nil
	}
	if raw[0] != '"' || json.Unmarshal(raw, into) != nil {
		return fail("invalid_"+key, "消息格式错误："+key+" 必须是字符串")
	}
	return nil
}

// jsonSpace is white space as JSON has it, which is less than Unicode's.
const jsonSpace = " \t\r\n"

var errNoObject = errors.New("not a JSON object")

// objectFields splits a JSON object into its members, keys matched exactly and values as
// they were written. Of equal keys the last one counts.
func objectFields(b []byte) (map[string]json.RawMessage, error) {
	if b = bytes.Trim(b, jsonSpace); len(b) == 0 || b[0] != '{' {
		return nil, errNoObject
	}
	var fields map[string]json.RawMessage
	return fields, json.Unmarshal(b, &fields)
}

// dataOf checks a publish's data and returns it with its sender written in, unless it names
// one itself.
func dataOf(r *request, from string) ([]byte, *failure) {
	if r.data == nil {
		return nil, fail("missing_data", "缺少消息数据")
	}
	fields, err := objectFields(r.data)
	if err != nil {
		return nil, fail("invalid_data", "消息数据格式错误")
	}
	if _, ok := fields["from"]; ok {
		return bytes.Clone(r.data), nil
	}
	var quoted strings.Builder
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(from); err != nil {
		return nil, fail("invalid_data", "消息数据格式错误")
	}
	end := bytes.LastIndexByte(r.data, '}')
	out := make([]byte, 0, len(r.data)+quoted.Len()+8)
	out = append(out, r.data[:end]...)
	if len(fields) > 0 {
		out = append(out, ',')
	}
	out = append(out, `"from":`...)
	out = append(out, strings.TrimSuffix(quoted.String(), "\n")...)
	return append(out, '}'), nil
}
