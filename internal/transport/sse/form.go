package sse

import (
	"bytes"
	"encoding/base64"

	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// style is how a stream is written.
type style struct {
	lines bool // JSON objects, one per line, instead of Server-Sent Events
	bare  bool // payloads instead of whole messages
}

// form is how the deliveries of one channel are encoded.
type form struct {
	style
	channel string // the name exactly as the client wrote it
	tag     tag
	alone   bool // the stream has no other channel: a record's bytes are all of it
}

// The names of events.
const (
	eventMessage  = "message"
	eventPresence = "presence"
	eventError    = "error"
)

// AppendFrames implements hub.Form: one record for each item.
func (f form) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	event, n := eventMessage, len(e.Body.Messages)
	switch {
	case e.Kind.OfMessages():
	case e.Kind == engine.KindPresence:
		event, n = eventPresence, len(e.Body.Presence)
	default:
		return dst, units
	}
	x := wire.Entry{Serial: e.Serial, Position: e.Position(), Timestamp: e.Timestamp, Batch: e.Body}
	after := positionOf(e.Position())
	before := after // for what is not in the log, all of it
	if !e.Unlogged && n > 1 {
		before = positionOf(e.Prev)
	}
	for i := range n {
		p := after
		if !e.Unlogged && i < n-1 {
			p = before
			p.done = i + 1
		}
		if f.alone {
			dst = append(dst, f.beforeID()...)
		}
		dst = appendOwn(dst, mark{f.tag, p})
		dst = append(dst, f.afterID()...)
		dst = f.appendEvent(dst, event, func(dst []byte) []byte { return f.appendData(dst, e.Kind, x, i) })
		units = append(units, hub.Unit{Entry: index, Item: i, End: len(dst)})
	}
	return dst, units
}

// beforeID begins a record that has an id.
func (s style) beforeID() string {
	if s.lines {
		return `{"id":"`
	}
	return "id: "
}

// afterID follows an id.
func (s style) afterID() string {
	if s.lines {
		return `",`
	}
	return "\n"
}

// endOfID is the first byte of afterID.
func (s style) endOfID() byte { return s.afterID()[0] }

// endOfRecord is what ends a record, and stands nowhere else in it.
func (s style) endOfRecord() string {
	if s.lines {
		return "\n"
	}
	return "\n\n"
}

// appendEvent appends a record from behind its id, or an object's brace, to its end. data
// appends the data as text.
func (s style) appendEvent(dst []byte, event string, data func([]byte) []byte) []byte {
	if s.lines {
		dst = append(dst, `"event":"`...)
		dst = append(dst, event...)
		dst = append(dst, `","data":`...)
		start := len(dst)
		dst = data(dst)
		end := len(dst)
		dst = wire.AppendString(dst, wire.JSON, dst[start:end])
		dst = append(dst[:start], dst[end:]...)
		return append(dst, "}\n"...)
	}
	dst = append(dst, "event: "...)
	dst = append(dst, event...)
	dst = append(dst, "\ndata: "...)
	start := len(dst)
	dst = data(dst)
	if bytes.ContainsAny(dst[start:], "\r\n") {
		text := bytes.Clone(dst[start:])
		dst = dst[:start]
		for {
			end := bytes.IndexAny(text, "\r\n")
			if end < 0 {
				break
			}
			dst = append(dst, text[:end]...)
			dst = append(dst, "\ndata: "...)
			if bytes.HasPrefix(text[end:], []byte("\r\n")) {
				end++
			}
			text = text[end+1:]
		}
		dst = append(dst, text...)
	}
	return append(dst, "\n\n"...)
}

// appendData appends the index-th item of an entry: as JSON with its channel, or just its
// payload.
func (f form) appendData(dst []byte, kind engine.Kind, x wire.Entry, index int) []byte {
	if f.bare {
		d := &pubsub.Data{}
		if kind.OfMessages() {
			d = &x.Batch.Messages[index].Data
		} else {
			d = &x.Batch.Presence[index].Data
		}
		if d.Kind == pubsub.BinaryData {
			return base64.StdEncoding.AppendEncode(dst, d.Bytes)
		}
		return append(dst, d.Bytes...)
	}
	if kind.OfMessages() {
		dst = wire.AppendEntryMessage(dst, wire.JSON, x, index)
	} else {
		dst = wire.AppendEntryPresence(dst, wire.JSON, x, index)
	}
	return withChannel(dst, f.channel)
}

// withChannel adds a member to the JSON object, which is not empty, at the end of dst.
func withChannel(dst []byte, channel string) []byte {
	dst = append(dst[:len(dst)-1], `,"channel":`...)
	dst = wire.AppendString(dst, wire.JSON, []byte(channel))
	return append(dst, '}')
}

// appendError appends the event that tells of an error, from behind its id. channel is the
// one that it is about, or empty.
func (s style) appendError(dst []byte, channel string, err *pubsub.Error) []byte {
	return s.appendEvent(dst, eventError, func(dst []byte) []byte {
		dst = wire.AppendErrorInfo(dst, wire.JSON, wire.NewErrorInfo(err))
		if channel != "" {
			dst = withChannel(dst, channel)
		}
		return dst
	})
}

// lastError is the event that ends a stream.
func (s style) lastError(err *pubsub.Error) []byte {
	var b []byte
	if s.lines {
		b = append(b, '{')
	}
	return s.appendError(b, "", err)
}

// keepalive is what is sent when nothing happens: something that clients pass over, or an
// event that applications see.
func (s style) keepalive(explicit bool) []byte {
	switch {
	case s.lines && explicit:
		return []byte("{\"event\":\"heartbeat\"}\n")
	case s.lines:
		return []byte("\n")
	case explicit:
		return []byte("event: heartbeat\ndata: {}\n\n") // without data nobody would be told
	}
	return []byte(":keepalive\n\n")
}

// records calls f for each of the records that are joined in frames.
func (s style) records(frames []byte, f func(record []byte)) {
	end := s.endOfRecord()
	for len(frames) > 0 {
		n := len(frames)
		if i := bytes.Index(frames, []byte(end)); i >= 0 {
			n = i + len(end)
		}
		f(frames[:n:n])
		frames = frames[n:]
	}
}

// own is the mark in a record that a form has made.
func (f form) own(record []byte) mark {
	if f.alone {
		record = record[len(f.beforeID()):]
	}
	text, _, _ := bytes.Cut(record, []byte{f.endOfID()})
	m, _ := readOwn(text) // our own
	return m
}
