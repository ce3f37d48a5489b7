package letshare

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
)

// form encodes the messages of a room, one frame each.
type form struct{ room string }

// AppendFrames implements hub.Form. Messages whose data is no JSON object come from Ably's
// doors and mean nothing here: they have no frame.
func (f form) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if e.Kind != engine.KindMessage {
		return dst, units
	}
	for i, m := range e.Body.Messages {
		if !carriesObject(m) {
			continue
		}
		start := len(dst)
		dst = socket.BeginFrame(dst)
		dst = append(dst, `{"type":"message","channel":`...)
		dst = appendQuoted(dst, f.room)
		dst = append(dst, `,"event":`...)
		dst = appendQuoted(dst, m.Name)
		dst = append(dst, `,"data":`...)
		dst = append(dst, m.Data.Bytes...)
		dst = append(dst, `,"timestamp":`...)
		dst = strconv.AppendInt(dst, e.Timestamp, 10)
		dst = append(dst, '}')
		dst = socket.EndFrame(dst, start, socket.OpText)
		units = append(units, hub.Unit{Entry: index, Item: i, End: len(dst)})
	}
	return dst, units
}

// carriesObject reports whether the data is the text of a JSON object.
func carriesObject(m *pubsub.Message) bool {
	if m.Data.Kind != pubsub.TextData || (m.Encoding != "json" && m.Encoding != "") {
		return false
	}
	trimmed := bytes.TrimLeft(m.Data.Bytes, jsonSpace)
	return len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(m.Data.Bytes)
}

// statusFrame acknowledges a subscribe or an unsubscribe.
func statusFrame(status string, r *request) []byte {
	b := socket.BeginFrame(make([]byte, 0, 256))
	b = append(b, `{"type":"`...)
	b = append(b, status...)
	b = append(b, `","channel":`...)
	b = appendQuoted(b, r.Channel)
	b = append(b, `,"event":`...)
	b = appendQuoted(b, r.Event)
	b = append(b, `,"data":{"room":`...)
	b = appendQuoted(b, r.Channel)
	b = append(b, `,"event":`...)
	b = appendQuoted(b, r.Event)
	b = append(b, `,"status":"`...)
	b = append(b, status...)
	b = append(b, `"},"timestamp":`...)
	return endJSON(b)
}

// errorFrame tells a client of its mistake.
func errorFrame(f *failure) []byte {
	b := socket.BeginFrame(make([]byte, 0, 192))
	b = append(b, `{"type":"error","error":{"code":`...)
	b = strconv.AppendInt(b, int64(f.Code), 10)
	b = append(b, `,"message":`...)
	b = appendQuoted(b, f.Message)
	b = append(b, `,"reason":`...)
	b = appendQuoted(b, f.Reason)
	b = append(b, `},"timestamp":`...)
	return endJSON(b)
}

func endJSON(b []byte) []byte {
	b = strconv.AppendInt(b, time.Now().UnixMilli(), 10)
	return socket.EndFrame(append(b, '}'), 0, socket.OpText)
}

// appendQuoted appends s as a JSON string. Only what must be escaped is.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r) // invalid UTF-8 becomes U+FFFD
		}
	}
	return append(dst, '"')
}
