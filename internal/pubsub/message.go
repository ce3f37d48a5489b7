package pubsub

import "strconv"

// DataKind says what a payload is.
type DataKind uint8

// The kinds of payload. NoData is an absent payload, which is not the same as an empty one.
const (
	NoData DataKind = iota
	TextData
	BinaryData
)

// Data is a payload, opaque to the server: text or bytes, with base64 already removed.
type Data struct {
	Kind  DataKind
	Bytes []byte // UTF-8 when Kind is TextData; immutable
}

// Text returns a text payload.
func Text(s string) Data { return Data{TextData, []byte(s)} }

// Binary returns a binary payload, which keeps b.
func Binary(b []byte) Data { return Data{BinaryData, b} }

// MessageAction says what a message does to the one with its serial (TM5).
type MessageAction uint8

// The actions of messages, with the numbers of the wire.
const (
	MessageCreate MessageAction = iota
	MessageUpdate
	MessageDelete
	MessageMeta
	MessageSummary
	MessageAppend
)

// Message is one message (TM2b-j, TM2r). Absent strings are empty; EmptyName tells a name that is
// empty from none.
type Message struct {
	ID           string
	Name         string
	Data         Data
	Encoding     string // without a trailing base64
	ClientID     string
	ConnectionID string
	Timestamp    int64  // ms since the epoch
	Extras       []byte // JSON object, or nil
	Action       MessageAction
	EmptyName    bool // Name is empty and not absent
	Serial       string
	Version      *Version
	Summary      []byte // annotations.summary as JSON, or nil (TM2u, TM8a)

	// ConnectionKey is what a REST publish on behalf of a connection carries; it is never
	// sent to anyone.
	ConnectionKey string
}

// Version identifies one version of a message (TM2s1-5).
type Version struct {
	Serial      string
	Timestamp   int64 // ms since the epoch
	ClientID    string
	Description string
	Metadata    []byte // JSON object of strings, or nil
}

// Size is the message's size as limits count it (TM6a-f): name, data, clientId and the JSON
// text of extras, in bytes, with binary data at its raw length.
func (m *Message) Size() int {
	return len(m.Name) + len(m.Data.Bytes) + len(m.ClientID) + len(m.Extras)
}

// PresenceAction says what a presence message tells of its member (TP2).
type PresenceAction uint8

// The actions of presence messages, with the numbers of the wire.
const (
	PresenceAbsent PresenceAction = iota
	PresencePresent
	PresenceEnter
	PresenceLeave
	PresenceUpdate
)

// PresenceMessage is one presence event, or one member of a presence set (TP3a-i).
type PresenceMessage struct {
	ID           string
	Action       PresenceAction
	ClientID     string
	ConnectionID string
	Data         Data
	Encoding     string // without a trailing base64
	Timestamp    int64  // ms since the epoch; never 0 when sent
	Extras       []byte // JSON object, or nil
}

// Size is counted as for messages (TP5).
func (m *PresenceMessage) Size() int {
	return len(m.Data.Bytes) + len(m.ClientID) + len(m.Extras)
}

// AnnotationAction says whether an annotation is added or taken back (TAN2b).
type AnnotationAction uint8

// The actions of annotations, with the numbers of the wire.
const (
	AnnotationCreate AnnotationAction = iota
	AnnotationDelete
)

// Annotation is a note to a message, such as a reaction (TAN2a-l).
type Annotation struct {
	ID            string
	Action        AnnotationAction
	Type          string
	Name          string
	ClientID      string
	ConnectionID  string
	Count         *int64
	Data          Data
	Encoding      string // without a trailing base64
	MessageSerial string
	Serial        string
	Timestamp     int64  // ms since the epoch
	Extras        []byte // JSON object, or nil
}

// Size is counted as for messages, with the type added.
func (a *Annotation) Size() int {
	return len(a.Type) + len(a.Name) + len(a.Data.Bytes) + len(a.ClientID) + len(a.Extras)
}

// Batch is what one publish carries (RSL1c, RTL6i1-2): the items that share an id base, a
// publisher and a place in the channel's order, and that are delivered together or not at all.
// Exactly one of the slices is filled. A Batch is immutable once it was given to the engine.
type Batch struct {
	ID           string // base of the items' ids: "connectionId:msgSerial", or random
	ConnectionID string // the publisher's connection; empty for REST
	ClientID     string // the publisher's identity; empty if anonymous
	Ephemeral    bool   // delivered to live attachments only, never stored

	Messages    []*Message
	Presence    []*PresenceMessage
	Annotations []*Annotation
	Objects     []*ObjectMessage
}

// Size is the sum of the items' sizes, which limits are compared with (RSL1i, TO3l8, TO3l8f).
func (b *Batch) Size() int {
	n := 0
	for _, m := range b.Messages {
		n += m.Size()
	}
	for _, p := range b.Presence {
		n += p.Size()
	}
	for _, a := range b.Annotations {
		n += a.Size()
	}
	for _, o := range b.Objects {
		n += o.Size()
	}
	return n
}

// Len is the number of items.
func (b *Batch) Len() int {
	return len(b.Messages) + len(b.Presence) + len(b.Annotations) + len(b.Objects)
}

// ItemID is the id of the index-th item of a batch whose base is base.
func ItemID(base string, index int) string { return base + ":" + strconv.Itoa(index) }

// RealtimeID is the base of the ids of what a connection publishes with msgSerial.
func RealtimeID(connectionID string, msgSerial int64) string {
	var digits [20]byte
	return connectionID + ":" + string(strconv.AppendInt(digits[:0], msgSerial, 10))
}
