package body

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"letshare-server/internal/pubsub"
)

const version = 1

const (
	end = 0

	kindMessage    = 0x80
	kindPresence   = 0x81
	kindAnnotation = 0x82
	kindObject     = 0x83
)

// The tags of a Batch.
const (
	batchID = 1 + iota
	batchConnectionID
	batchClientID
	batchEphemeral
)

// The tags of items.
const (
	itemID = 1 + iota
	itemClientID
	itemConnectionID
	itemEncoding
	itemTimestamp
	itemExtras
	itemText
	itemBinary
	itemAction
	itemName
	itemSerial

	messageEmptyName = 20
	messageSummary   = 21
	messageVersion   = 22

	annotationType          = 30
	annotationCount         = 31
	annotationMessageSerial = 32

	objectSite   = 40
	objectID     = 41
	objectKey    = 42
	objectValue  = 43
	objectEntry  = 44
	objectNumber = 45
	objectEmpty  = 46
)

// Append writes b at the end of dst and returns that. The key of the publisher's connection
// is left out: nobody may see it.
func Append(dst []byte, b *pubsub.Batch) []byte {
	w := writer{append(dst, version)}
	w.text(batchID, b.ID)
	w.text(batchConnectionID, b.ConnectionID)
	w.text(batchClientID, b.ClientID)
	w.flag(batchEphemeral, b.Ephemeral)
	for _, m := range b.Messages {
		w.b = append(w.b, kindMessage)
		w.message(m)
		w.b = append(w.b, end)
	}
	for _, p := range b.Presence {
		w.b = append(w.b, kindPresence)
		w.common(p.ID, p.ClientID, p.ConnectionID, p.Encoding, p.Timestamp, p.Extras, p.Data, uint64(p.Action))
		w.b = append(w.b, end)
	}
	for _, a := range b.Annotations {
		w.b = append(w.b, kindAnnotation)
		w.annotation(a)
		w.b = append(w.b, end)
	}
	for _, m := range b.Objects {
		w.b = append(w.b, kindObject)
		w.object(m)
		w.b = append(w.b, end)
	}
	return append(w.b, end)
}

type writer struct{ b []byte }

func (w *writer) flag(tag byte, set bool) {
	if set {
		w.b = append(w.b, tag)
	}
}

func (w *writer) text(tag byte, s string) {
	if s != "" {
		w.b = append(w.b, tag)
		w.value(s)
	}
}

func (w *writer) value(s string) {
	w.b = binary.AppendUvarint(w.b, uint64(len(s)))
	w.b = append(w.b, s...)
}

// bytes writes b unless it is nil, which is not the same as empty.
func (w *writer) bytes(tag byte, b []byte) {
	if b != nil {
		w.b = append(w.b, tag)
		w.b = binary.AppendUvarint(w.b, uint64(len(b)))
		w.b = append(w.b, b...)
	}
}

func (w *writer) integer(tag byte, n int64) {
	if n != 0 {
		w.b = append(w.b, tag)
		w.b = binary.AppendVarint(w.b, n)
	}
}

// common writes what all kinds of items have.
func (w *writer) common(id, clientID, connectionID, encoding string, timestamp int64, extras []byte, data pubsub.Data, action uint64) {
	w.text(itemID, id)
	w.text(itemClientID, clientID)
	w.text(itemConnectionID, connectionID)
	w.text(itemEncoding, encoding)
	w.integer(itemTimestamp, timestamp)
	w.bytes(itemExtras, extras)
	if tag := byte(itemText); data.Kind != pubsub.NoData {
		if data.Kind == pubsub.BinaryData {
			tag = itemBinary
		}
		w.b = binary.AppendUvarint(append(w.b, tag), uint64(len(data.Bytes)))
		w.b = append(w.b, data.Bytes...)
	}
	if action != 0 {
		w.b = binary.AppendUvarint(append(w.b, itemAction), action)
	}
}

func (w *writer) message(m *pubsub.Message) {
	w.common(m.ID, m.ClientID, m.ConnectionID, m.Encoding, m.Timestamp, m.Extras, m.Data, uint64(m.Action))
	w.text(itemName, m.Name)
	w.text(itemSerial, m.Serial)
	w.flag(messageEmptyName, m.EmptyName)
	w.bytes(messageSummary, m.Summary)
	if v := m.Version; v != nil {
		w.b = append(w.b, messageVersion)
		w.value(v.Serial)
		w.b = binary.AppendVarint(w.b, v.Timestamp)
		w.value(v.ClientID)
		w.value(v.Description)
		if v.Metadata == nil {
			w.b = append(w.b, 0)
		} else {
			w.b = append(w.b, 1)
			w.value(string(v.Metadata))
		}
	}
}

func (w *writer) annotation(a *pubsub.Annotation) {
	w.common(a.ID, a.ClientID, a.ConnectionID, a.Encoding, a.Timestamp, a.Extras, a.Data, uint64(a.Action))
	w.text(itemName, a.Name)
	w.text(itemSerial, a.Serial)
	w.text(annotationType, a.Type)
	if a.Count != nil {
		w.b = binary.AppendVarint(append(w.b, annotationCount), *a.Count)
	}
	w.text(annotationMessageSerial, a.MessageSerial)
}

// object writes an operation. What is not told anybody is left out.
func (w *writer) object(m *pubsub.ObjectMessage) {
	op := m.Operation
	w.common(m.ID, m.ClientID, m.ConnectionID, "", m.Timestamp, m.Extras, pubsub.Data{}, uint64(op.Action))
	w.text(objectSite, m.SiteCode)
	w.text(objectID, op.ObjectID)
	w.text(objectKey, op.Key)
	if op.Value.Type != pubsub.NoValue {
		w.b = append(w.b, objectValue)
		w.objectData(op.Value)
	}
	for i := range op.Entries {
		w.b = append(w.b, objectEntry)
		w.value(op.Entries[i].Key)
		w.objectData(op.Entries[i].Data)
	}
	if op.Number != 0 {
		w.b = binary.BigEndian.AppendUint64(append(w.b, objectNumber), math.Float64bits(op.Number))
	}
	w.flag(objectEmpty, !op.Payload)
}

func (w *writer) objectData(d pubsub.ObjectData) {
	w.b = append(w.b, byte(d.Type))
	switch d.Type {
	case pubsub.BooleanValue:
		truth := byte(0)
		if d.True {
			truth = 1
		}
		w.b = append(w.b, truth)
	case pubsub.NumberValue:
		w.b = binary.BigEndian.AppendUint64(w.b, math.Float64bits(d.Number))
	default:
		w.value(d.Text)
	}
}

var errTruncated = errors.New("stored body ends too early")

// Decode reads what Append wrote. It keeps nothing of b.
func Decode(b []byte) (*pubsub.Batch, error) {
	r := reader{b: b}
	if v := r.byte(); r.err == nil && v != version {
		return nil, fmt.Errorf("stored body has version %d, known is %d", v, version)
	}
	batch := new(pubsub.Batch)
	for r.err == nil {
		switch tag := r.byte(); tag {
		case batchID:
			batch.ID = r.text()
		case batchConnectionID:
			batch.ConnectionID = r.text()
		case batchClientID:
			batch.ClientID = r.text()
		case batchEphemeral:
			batch.Ephemeral = true
		case kindMessage:
			m := new(pubsub.Message)
			r.message(m)
			batch.Messages = append(batch.Messages, m)
		case kindPresence:
			p := new(pubsub.PresenceMessage)
			r.presence(p)
			batch.Presence = append(batch.Presence, p)
		case kindAnnotation:
			a := new(pubsub.Annotation)
			r.annotation(a)
			batch.Annotations = append(batch.Annotations, a)
		case kindObject:
			m := &pubsub.ObjectMessage{Operation: &pubsub.ObjectOperation{Payload: true}}
			r.object(m)
			batch.Objects = append(batch.Objects, m)
		case end:
			if r.err == nil && len(r.b) > 0 {
				r.err = errors.New("stored body goes on after its end")
			}
			if r.err == nil {
				return batch, nil
			}
		default:
			r.unknown(tag)
		}
	}
	return nil, r.err
}

// reader takes a body apart. After an error all it returns is zero, which ends what it reads.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) unknown(tag byte) {
	if r.err == nil {
		r.fail(fmt.Errorf("stored body has an unknown field %d", tag))
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errTruncated)
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail(errTruncated)
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail(errTruncated)
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) slice() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail(errTruncated)
		return nil
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) text() string { return string(r.slice()) }

// bytes is never nil, as against an absent field.
func (r *reader) bytes() []byte {
	s := r.slice()
	return append(make([]byte, 0, len(s)), s...)
}

// common reads a field that all kinds of items have, and reports whether it was one.
func (r *reader) common(tag byte, id, clientID, connectionID, encoding *string, timestamp *int64, extras *[]byte, data *pubsub.Data) bool {
	switch tag {
	case itemID:
		*id = r.text()
	case itemClientID:
		*clientID = r.text()
	case itemConnectionID:
		*connectionID = r.text()
	case itemEncoding:
		*encoding = r.text()
	case itemTimestamp:
		*timestamp = r.varint()
	case itemExtras:
		*extras = r.bytes()
	case itemText:
		*data = pubsub.Data{Kind: pubsub.TextData, Bytes: r.bytes()}
	case itemBinary:
		*data = pubsub.Data{Kind: pubsub.BinaryData, Bytes: r.bytes()}
	default:
		return false
	}
	return true
}

func (r *reader) message(m *pubsub.Message) {
	for tag := r.byte(); tag != end; tag = r.byte() {
		if r.common(tag, &m.ID, &m.ClientID, &m.ConnectionID, &m.Encoding, &m.Timestamp, &m.Extras, &m.Data) {
			continue
		}
		switch tag {
		case itemAction:
			m.Action = pubsub.MessageAction(r.uvarint())
		case itemName:
			m.Name = r.text()
		case itemSerial:
			m.Serial = r.text()
		case messageEmptyName:
			m.EmptyName = true
		case messageSummary:
			m.Summary = r.bytes()
		case messageVersion:
			v := &pubsub.Version{Serial: r.text(), Timestamp: r.varint(), ClientID: r.text(), Description: r.text()}
			if r.byte() != 0 {
				v.Metadata = r.bytes()
			}
			m.Version = v
		default:
			r.unknown(tag)
		}
	}
}

func (r *reader) presence(p *pubsub.PresenceMessage) {
	for tag := r.byte(); tag != end; tag = r.byte() {
		if r.common(tag, &p.ID, &p.ClientID, &p.ConnectionID, &p.Encoding, &p.Timestamp, &p.Extras, &p.Data) {
			continue
		}
		if tag == itemAction {
			p.Action = pubsub.PresenceAction(r.uvarint())
		} else {
			r.unknown(tag)
		}
	}
}

func (r *reader) annotation(a *pubsub.Annotation) {
	for tag := r.byte(); tag != end; tag = r.byte() {
		if r.common(tag, &a.ID, &a.ClientID, &a.ConnectionID, &a.Encoding, &a.Timestamp, &a.Extras, &a.Data) {
			continue
		}
		switch tag {
		case itemAction:
			a.Action = pubsub.AnnotationAction(r.uvarint())
		case itemName:
			a.Name = r.text()
		case itemSerial:
			a.Serial = r.text()
		case annotationType:
			a.Type = r.text()
		case annotationCount:
			n := r.varint()
			a.Count = &n
		case annotationMessageSerial:
			a.MessageSerial = r.text()
		default:
			r.unknown(tag)
		}
	}
}

func (r *reader) object(m *pubsub.ObjectMessage) {
	op := m.Operation
	var encoding string
	var data pubsub.Data
	for tag := r.byte(); tag != end; tag = r.byte() {
		if r.common(tag, &m.ID, &m.ClientID, &m.ConnectionID, &encoding, &m.Timestamp, &m.Extras, &data) {
			continue
		}
		switch tag {
		case itemAction:
			op.Action = pubsub.ObjectAction(r.uvarint())
		case objectSite:
			m.SiteCode = r.text()
		case objectID:
			op.ObjectID = r.text()
		case objectKey:
			op.Key = r.text()
		case objectValue:
			op.Value = r.objectData()
		case objectEntry:
			op.Entries = append(op.Entries, pubsub.ObjectEntry{Key: r.text(), Data: r.objectData()})
		case objectNumber:
			op.Number = r.float()
		case objectEmpty:
			op.Payload = false
		default:
			r.unknown(tag)
		}
	}
}

func (r *reader) float() float64 {
	if len(r.b) < 8 {
		r.fail(errTruncated)
		return 0
	}
	f := math.Float64frombits(binary.BigEndian.Uint64(r.b))
	r.b = r.b[8:]
	return f
}

func (r *reader) objectData() pubsub.ObjectData {
	d := pubsub.ObjectData{Type: pubsub.DataType(r.byte())}
	switch d.Type {
	case pubsub.BooleanValue:
		d.True = r.byte() != 0
	case pubsub.NumberValue:
		d.Number = r.float()
	case pubsub.ObjectValue, pubsub.BytesValue, pubsub.StringValue, pubsub.JSONValue:
		d.Text = r.text()
	default:
		if r.err == nil {
			r.fail(fmt.Errorf("stored body has an unknown type %d of value", d.Type))
		}
	}
	return d
}
