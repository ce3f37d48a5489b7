package pubsub

import "slices"

// RootObject is the id of the object that every channel has.
const RootObject = "root"

// ObjectAction says what an operation does to an object (OOP2).
type ObjectAction uint8

// The actions of operations, with the numbers of the wire.
const (
	MapCreate ObjectAction = iota
	MapSet
	MapRemove
	CounterCreate
	CounterInc
	ObjectDelete
	MapClear

	// ObjectUnknown stands for every number that does not fit an ObjectAction.
	ObjectUnknown ObjectAction = 255
)

// ObjectMessage is an operation on an object of a channel, or in a sync the state of one (OM2).
// Exactly one of Operation and State is set.
type ObjectMessage struct {
	ID           string
	ClientID     string
	ConnectionID string
	Timestamp    int64  // ms since the epoch
	Extras       []byte // JSON object, or nil

	Operation *ObjectOperation
	State     *ObjectState

	// Serial, SerialTimestamp and SiteCode are the server's to give.
	Serial          string
	SerialTimestamp int64 // ms since the epoch; of a State, when the object was deleted
	SiteCode        string
}

// ObjectOperation is a change of one object (OOP3).
type ObjectOperation struct {
	Action   ObjectAction
	ObjectID string

	// Payload says that what belongs to the action was there. Those of MapClear and ObjectDelete are
	// not needed.
	Payload bool

	Semantics uint8         // of MapCreate (MCR2a)
	Entries   []ObjectEntry // of MapCreate (MCR2b)
	Key       string        // of MapSet and MapRemove
	Value     ObjectData    // of MapSet
	Number    float64       // of CounterCreate, the count, and of CounterInc

	// InitialValue and Nonce are what a client has made the id from of an object that it creates
	// (MCRO2, CCRO2). They are not told anybody.
	InitialValue string
	Nonce        string
}

// DataType says which of the values of ObjectData there is.
type DataType uint8

// The types of ObjectData.
const (
	NoValue DataType = iota
	ObjectValue
	BooleanValue
	BytesValue
	NumberValue
	StringValue
	JSONValue
)

// ObjectData is a value in a map (OD2): a reference to another object, or a primitive one.
type ObjectData struct {
	Type   DataType
	True   bool
	Text   string // the id, the bytes, the string, or the JSON text
	Number float64
}

// Size is as limits count it (OD3).
func (d ObjectData) Size() int {
	switch d.Type {
	case BooleanValue:
		return 1
	case NumberValue:
		return 8
	case BytesValue, StringValue, JSONValue:
		return len(d.Text)
	}
	return 0
}

// ObjectEntry is an entry of a map (OME2).
type ObjectEntry struct {
	Key       string
	Data      ObjectData
	Tombstone bool   // it was removed; there is no Data
	Serial    string // of the operation by which it became so; empty where that is not known yet
	Timestamp int64  // of that operation, if it is a tombstone; ms since the epoch
}

// ObjectState is what an object is at some moment (OST2).
type ObjectState struct {
	ObjectID  string
	Sites     []SiteSerial // the newest operation applied, by site (OST2b)
	Tombstone bool

	// Created says that the operation that created the object was applied. What it came with is
	// in the state, so that it is told as one that came with nothing (OST2d).
	Created bool

	IsMap       bool // of a counter otherwise
	Entries     []ObjectEntry
	ClearSerial string // of the newest MapClear (OMP3c)
	Count       float64
}

// SiteSerial is a serial given by a site.
type SiteSerial struct{ Site, Serial string }

// Size is the message's size as limits count it (OM3, OOP4, OST3).
func (m *ObjectMessage) Size() int {
	n := len(m.ClientID) + len(m.Extras)
	if op := m.Operation; op != nil {
		n += len(op.Key) + op.Value.Size() + EntriesSize(op.Entries)
		if op.Payload && (op.Action == CounterCreate || op.Action == CounterInc) {
			n += 8
		}
	}
	if s := m.State; s != nil {
		n += EntriesSize(s.Entries)
		if !s.IsMap {
			n += 8
		}
	}
	return n
}

// EntriesSize is the size of entries as limits count it (OMP4, MCR3).
func EntriesSize(entries []ObjectEntry) (n int) {
	for i := range entries {
		n += len(entries[i].Key) + entries[i].Data.Size()
	}
	return n
}

// WithSerials returns a copy of the operation whose entries have a serial: those of an operation
// that creates a map have its own (RTLM23).
func (op *ObjectOperation) WithSerials(serial string) *ObjectOperation {
	c := *op
	c.Entries = slices.Clone(op.Entries)
	for i := range c.Entries {
		c.Entries[i].Serial = serial
	}
	return &c
}

// ObjectRequest is an operation as a REST request asks for it: on an object that is named by its id,
// by its path, or, if it is to be created, not at all.
type ObjectRequest struct {
	ID        string // of the client's, by which a repeat is recognised
	ObjectID  string
	Path      string // from the object with that id, or the root
	HasPath   bool
	Given     bool // the id is that of the object to be created, and was checked
	Operation *ObjectOperation
}

// ObjectView is an object, or a value in a map, with all that is in it.
type ObjectView struct {
	ID   string     // of the object; empty if it is no object
	Data ObjectData // the value if it is no object; a reference if the object is shown elsewhere

	IsMap   bool
	Count   float64
	Entries []ObjectViewEntry // in the order of keys
}

// ObjectViewEntry is a value in a map.
type ObjectViewEntry struct {
	Key   string
	Value *ObjectView
}
