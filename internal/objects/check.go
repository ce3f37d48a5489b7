package objects

import (
	"slices"
	"strings"
	"time"

	"letshare-server/internal/pubsub"
)

// Check refuses what no client may ask for, and completes the operation: what its id was made from
// is dropped, and the entries of a map are in the order of their keys. now is the time
// that the id of a new object must be near. The error is CodeInvalidObject.
func Check(m *pubsub.ObjectMessage, now time.Time) error {
	op := m.Operation
	if op == nil || m.State != nil {
		return invalid("an operation is needed, and nothing else")
	}
	if op.Action > pubsub.MapClear || op.Action == pubsub.ObjectDelete {
		return invalid("action %d is not known or not for clients", op.Action)
	}
	id, err := ParseID(op.ObjectID)
	if err != nil {
		return err
	}
	switch op.Action {
	case pubsub.MapCreate, pubsub.CounterCreate:
		if err := checkID(op, id, now); err != nil {
			return err
		}
	default:
		if !op.Payload && op.Action != pubsub.MapClear {
			return invalid("what belongs to action %d is missing", op.Action)
		}
	}
	if err := CheckType(op); err != nil {
		return err
	}
	return CheckValues(op)
}

// checkID checks that the id of a new object was made from what it begins with.
func checkID(op *pubsub.ObjectOperation, id ID, now time.Time) error {
	switch {
	case op.ObjectID == pubsub.RootObject:
		return invalid("the root cannot be created")
	case op.InitialValue == "" || op.Nonce == "":
		return invalid("an initialValue and a nonce are needed")
	case id.Hash != hashOf(op.InitialValue, op.Nonce):
		return invalid("the object id is not made from the initialValue and the nonce")
	case now.Sub(time.UnixMilli(id.Ms)).Abs() > idTolerance:
		return invalid("the time in the object id is too far from now")
	}
	op.InitialValue, op.Nonce = "", ""
	op.Payload = true
	return nil
}

// CheckType checks that the operation is one on its type of object.
func CheckType(op *pubsub.ObjectOperation) error {
	id, err := ParseID(op.ObjectID)
	if err != nil {
		return err
	}
	switch op.Action {
	case pubsub.MapCreate, pubsub.MapSet, pubsub.MapRemove, pubsub.MapClear:
		if !id.IsMap {
			return invalid("an operation on a map cannot be applied to %s", clipped(op.ObjectID))
		}
	case pubsub.CounterCreate, pubsub.CounterInc:
		if id.IsMap {
			return invalid("an operation on a counter cannot be applied to %s", clipped(op.ObjectID))
		}
	}
	return nil
}

// CheckValues checks the values of an operation, and sorts those that a map begins with.
func CheckValues(op *pubsub.ObjectOperation) error {
	switch op.Action {
	case pubsub.MapSet:
		return checkValue(op.Key, op.Value)
	case pubsub.MapCreate:
		if op.Semantics != 0 {
			return invalid("the semantics of the map are not known")
		}
		slices.SortFunc(op.Entries, func(a, b pubsub.ObjectEntry) int { return strings.Compare(a.Key, b.Key) })
		for i := range op.Entries {
			e := &op.Entries[i]
			if i > 0 && op.Entries[i-1].Key == e.Key {
				return invalid("the key %q comes twice", clipped(e.Key))
			}
			if err := checkValue(e.Key, e.Data); err != nil {
				return err
			}
			if e.Tombstone {
				return invalid("the key %q cannot begin as one that was removed", clipped(e.Key))
			}
			e.Serial, e.Timestamp = "", 0 // the server's to give
		}
	}
	return nil
}

func checkValue(key string, d pubsub.ObjectData) error {
	switch d.Type {
	case pubsub.NoValue:
		return invalid("the key %q needs a value", clipped(key))
	case pubsub.ObjectValue:
		_, err := ParseID(d.Text)
		return err
	}
	return nil
}
