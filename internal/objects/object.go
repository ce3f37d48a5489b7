package objects

import (
	"slices"
	"strings"

	"letshare-server/internal/pubsub"
)

// Object is a map or a counter. It is not safe for concurrent use.
type Object struct {
	ID    string
	IsMap bool // a counter otherwise

	Created   bool  // the operation that creates it was applied; never of the root
	Deleted   bool  // it is a tombstone, on which nothing has an effect any more
	DeletedAt int64 // ms since the epoch

	// OrphanedAt is when it was found that nothing leads from the root to it; 0 if something does,
	// or nobody has looked.
	OrphanedAt int64

	// PutAt is when the record was put, if not beside an operation; ms since the epoch. Decode
	// completes it.
	PutAt int64

	// Count is a counter's value.
	Count float64

	sites       []pubsub.SiteSerial
	entries     []pubsub.ObjectEntry // of a map, in the order of keys
	clearSerial string               // of the newest MapClear
}

// New returns an object to which nothing was done (RTO6). The error is CodeInvalidObject: the
// id is none.
func New(id string) (*Object, error) {
	parsed, err := ParseID(id)
	if err != nil {
		return nil, err
	}
	return &Object{ID: id, IsMap: parsed.IsMap}, nil
}

// Apply applies an operation that has its serial and site, as clients do (RTLM15, RTLC7, RTLO5), and
// reports whether it had an effect. One that is of another type of object has none.
func (o *Object) Apply(m *pubsub.ObjectMessage) bool {
	if !o.isNew(m) {
		return false
	}
	op := m.Operation
	if o.Deleted || CheckType(op) != nil {
		return false
	}
	switch op.Action {
	case pubsub.MapCreate, pubsub.CounterCreate:
		return o.create(op, m.Serial)
	case pubsub.MapSet:
		return o.set(pubsub.ObjectEntry{Key: op.Key, Data: op.Value, Serial: m.Serial})
	case pubsub.MapRemove:
		return o.set(pubsub.ObjectEntry{Key: op.Key, Tombstone: true, Serial: m.Serial, Timestamp: m.SerialTimestamp})
	case pubsub.MapClear:
		return o.clear(m.Serial)
	case pubsub.CounterInc:
		o.Count += op.Number
		return true
	case pubsub.ObjectDelete:
		return o.delete(m.SerialTimestamp)
	}
	return false
}

// isNew notes an operation's serial, and reports whether it was not applied before (RTLO4a).
func (o *Object) isNew(m *pubsub.ObjectMessage) bool {
	if m.Serial == "" || m.SiteCode == "" {
		return false
	}
	for i := range o.sites {
		if s := &o.sites[i]; s.Site == m.SiteCode {
			if m.Serial <= s.Serial {
				return false
			}
			s.Serial = m.Serial
			return true
		}
	}
	o.sites = append(o.sites, pubsub.SiteSerial{Site: m.SiteCode, Serial: m.Serial})
	return true
}

// create merges what the object begins with, once (RTLM16, RTLC8). The entries have the serial of the
// operation (RTLM23).
func (o *Object) create(op *pubsub.ObjectOperation, serial string) bool {
	if o.Created {
		return false
	}
	o.Created = true
	o.Count += op.Number
	for _, e := range op.Entries {
		if e.Serial == "" {
			e.Serial = serial
		}
		o.set(e)
	}
	return true
}

// set makes an entry the one of its key, unless that is newer (RTLM7, RTLM8, RTLM9).
func (o *Object) set(e pubsub.ObjectEntry) bool {
	if o.clearSerial != "" && e.Serial <= o.clearSerial {
		return false
	}
	i, found := o.find(e.Key)
	switch {
	case !found:
		o.entries = slices.Insert(o.entries, i, e)
	case e.Serial <= o.entries[i].Serial:
		return false
	default:
		o.entries[i] = e
	}
	return true
}

func (o *Object) find(key string) (i int, found bool) {
	return slices.BinarySearchFunc(o.entries, key, func(e pubsub.ObjectEntry, key string) int {
		return strings.Compare(e.Key, key)
	})
}

// clear removes all entries that are older (RTLM24).
func (o *Object) clear(serial string) bool {
	if o.clearSerial > serial {
		return false
	}
	o.clearSerial = serial
	o.entries = slices.DeleteFunc(o.entries, func(e pubsub.ObjectEntry) bool { return e.Serial < serial })
	return true
}

// delete makes the object a tombstone. The root never becomes one (RTLO4e10).
func (o *Object) delete(at int64) bool {
	if o.ID == pubsub.RootObject {
		return false
	}
	o.Deleted, o.DeletedAt, o.OrphanedAt, o.Created = true, at, 0, false
	o.Count, o.entries, o.clearSerial = 0, nil, ""
	return true
}

// Allows reports why a client may not do an operation to the object: CodeObjectDeleted, or
// CodeInvalidObject if it is of another type.
func (o *Object) Allows(op *pubsub.ObjectOperation) error {
	if o.Deleted {
		return pubsub.Errorf(pubsub.CodeObjectDeleted, "object %s was deleted", o.ID)
	}
	return CheckType(op)
}

// Entries are those of a map, the removed ones included, in the order of their keys. They are the
// object's own.
func (o *Object) Entries() []pubsub.ObjectEntry { return o.entries }

// Get returns the value that a map has for a key.
func (o *Object) Get(key string) (d pubsub.ObjectData, found bool) {
	i, found := o.find(key)
	if !found || o.entries[i].Tombstone {
		return pubsub.ObjectData{}, false
	}
	return o.entries[i].Data, true
}

// Trim drops the entries that were removed before a time, in ms since the epoch (RTLM19), and
// reports whether there were some. What is being removed stays.
func (o *Object) Trim(before int64) bool {
	n := len(o.entries)
	o.entries = slices.DeleteFunc(o.entries, func(e pubsub.ObjectEntry) bool { return e.Tombstone && e.Timestamp != 0 && e.Timestamp < before })
	return len(o.entries) < n
}

// State is what an OBJECT_SYNC tells of the object, as one message (OST2). It refers to the object.
func (o *Object) State() *pubsub.ObjectMessage {
	m := &pubsub.ObjectMessage{State: &pubsub.ObjectState{
		ObjectID: o.ID, Sites: o.sites, Tombstone: o.Deleted, Created: o.Created,
		IsMap: o.IsMap, Entries: o.entries, ClearSerial: o.clearSerial, Count: o.Count,
	}}
	if o.Deleted {
		m.SerialTimestamp = o.DeletedAt
	}
	return m
}

// Restore returns the object that a State tells of, as clients do (RTLM6, RTLC6).
func Restore(m *pubsub.ObjectMessage) (*Object, error) {
	s := m.State
	o, err := New(s.ObjectID)
	if err != nil {
		return nil, err
	}
	o.Created, o.Count, o.clearSerial = s.Created, s.Count, s.ClearSerial
	o.sites = slices.Clone(s.Sites)
	o.entries = slices.Clone(s.Entries)
	slices.SortFunc(o.entries, func(a, b pubsub.ObjectEntry) int { return strings.Compare(a.Key, b.Key) })
	if s.Tombstone {
		o.delete(m.SerialTimestamp)
	}
	return o, nil
}

// Empty reports whether the object is as it was made by New.
func (o *Object) Empty() bool { return len(o.sites) == 0 }
