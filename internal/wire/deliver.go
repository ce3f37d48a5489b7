package wire

import (
	"letshare-server/internal/pubsub"
)

// serialIndexDigits is the least number of digits of an item's index in its serial, as
// pubsub.Serial.Item writes it.
const serialIndexDigits = 3

// Entry is an entry of a channel's order on its way to a client.
type Entry struct {
	Serial    pubsub.Serial // its own: its items' serials are Serial.Item(i)
	Position  pubsub.Serial // where a client stands after it (RTL15b): Serial, unless it is not in the log
	Timestamp int64         // ms since the epoch
	Batch     *pubsub.Batch
}

// AppendMessagePM appends the MESSAGE frame that delivers an entry. The frame says what its
// messages have in common, and they only what differs. If the batch has no id, as a part of
// one has none that passed a filter, each message says its id, connectionId and timestamp
// itself, because a client would derive a wrong id from its place in the frame (TM2a).
//
// Messages get what their place gives them and they do not have already: the serial
// Serial.Item(i), and as version that serial and their timestamp (TM2s1-2). A version without a
// serial, as that of a change whose place was not known when it was made, gets the place's
// serial and timestamp. An entry without a serial, which is no place, gives neither serials
// nor versions. It allocates nothing but room in dst.
func AppendMessagePM(dst []byte, f Format, channel string, x Entry) []byte {
	e := entry{x, x.Batch.ID != ""}
	w := writer{b: dst, format: f}
	object := e.begin(&w, ActionMessage, channel)
	w.key("messages")
	array := w.arrayOf(len(x.Batch.Messages))
	for i := range x.Batch.Messages {
		w.elem()
		e.message(&w, i)
	}
	w.endArray(array)
	w.endObject(object)
	return w.b
}

// AppendPresencePM appends the PRESENCE frame that delivers b, as AppendMessagePM does.
func AppendPresencePM(dst []byte, f Format, channel string, x Entry) []byte {
	e := entry{x, true}
	w := writer{b: dst, format: f}
	object := e.begin(&w, ActionPresence, channel)
	w.key("presence")
	array := w.arrayOf(len(x.Batch.Presence))
	for i, m := range x.Batch.Presence {
		w.elem()
		w.presence(m, e.identity(i, m.ID, m.ConnectionID, m.Timestamp, ""))
	}
	w.endArray(array)
	w.endObject(object)
	return w.b
}

// AppendAnnotationPM appends the ANNOTATION frame that delivers b, as AppendMessagePM does.
func AppendAnnotationPM(dst []byte, f Format, channel string, x Entry) []byte {
	e := entry{x, true}
	w := writer{b: dst, format: f}
	object := e.begin(&w, ActionAnnotation, channel)
	w.key("annotations")
	array := w.arrayOf(len(x.Batch.Annotations))
	for i, a := range x.Batch.Annotations {
		w.elem()
		w.annotation(a, e.identity(i, a.ID, a.ConnectionID, a.Timestamp, a.Serial))
	}
	w.endArray(array)
	w.endObject(object)
	return w.b
}

// AppendEntryMessage appends the index-th message of an entry by itself and complete, as SSE
// and REST show it.
func AppendEntryMessage(dst []byte, f Format, x Entry, index int) []byte {
	e := entry{x, false}
	w := writer{b: dst, format: f}
	e.message(&w, index)
	return w.b
}

// AppendEntryPresence is AppendEntryMessage for the index-th presence message.
func AppendEntryPresence(dst []byte, f Format, x Entry, index int) []byte {
	e := entry{x, false}
	w := writer{b: dst, format: f}
	m := x.Batch.Presence[index]
	w.presence(m, e.identity(index, m.ID, m.ConnectionID, m.Timestamp, ""))
	return w.b
}

// entry is an Entry while it is written.
type entry struct {
	Entry
	shared bool // the frame says what the items have in common
}

// begin writes the frame up to its items.
func (e *entry) begin(w *writer, action Action, channel string) mark {
	object := w.object()
	w.key("action")
	w.uint(uint64(action))
	w.key("channel")
	w.str(channel)
	w.optional("channelSerial", string(e.Position))
	if e.shared {
		w.optional("id", e.Batch.ID)
		w.optional("connectionId", e.Batch.ConnectionID)
		w.optionalInt("timestamp", e.Timestamp)
	}
	return object
}

// identity returns what the index-th item says of itself.
func (e *entry) identity(index int, id, connectionID string, timestamp int64, serial string) identity {
	x := identity{whole(id), connectionID, timestamp, whole(serial)}
	if e.shared {
		x = inherited{e.Batch.ID, e.Batch.ConnectionID, e.Timestamp}.of(index, id, connectionID, timestamp, serial)
		if serial != "" { // of a message of before, which says when that was
			x.timestamp = timestamp
		}
	} else {
		if id == "" {
			x.id = ref{e.Batch.ID, index}
		}
		if connectionID == "" {
			x.connectionID = e.Batch.ConnectionID
		}
		if timestamp == 0 {
			x.timestamp = e.Timestamp
		}
	}
	if serial == "" {
		x.serial = ref{string(e.Serial), index}
	}
	return x
}

func (e *entry) message(w *writer, index int) {
	m := e.Batch.Messages[index]
	x := e.identity(index, m.ID, m.ConnectionID, m.Timestamp, m.Serial)
	if x.serial.s == "" && m.Version == nil {
		w.message(m, x, nil, ref{})
		return
	}
	v := pubsub.Version{Timestamp: m.Timestamp}
	serial := x.serial
	if m.Version != nil {
		v, serial = *m.Version, whole(m.Version.Serial)
		if v.Serial == "" {
			serial = ref{string(e.Serial), index}
		}
	}
	if v.Timestamp == 0 {
		v.Timestamp = e.Timestamp
	}
	w.message(m, x, &v, serial)
}
