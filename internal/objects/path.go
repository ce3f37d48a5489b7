package objects

import (
	"slices"
	"strings"

	"letshare-server/internal/pubsub"
)

// Path leads from an object to others, or to values, by the keys of maps.
type Path []Step

// Step is a key, or any key.
type Step struct {
	Key string
	Any bool
}

// ParsePath reads keys that are separated by dots, of which "*" stands for any. A backslash takes
// its meaning from the character after it. An empty path leads nowhere else.
func ParsePath(s string) Path {
	if s == "" {
		return nil
	}
	var p Path
	var key strings.Builder
	plain := true
	end := func() {
		p = append(p, Step{Key: key.String(), Any: plain && key.String() == "*"})
		key.Reset()
		plain = true
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.':
			end()
		case c == '\\' && i+1 < len(s):
			i++
			plain = false
			key.WriteByte(s[i])
		default:
			key.WriteByte(c)
		}
	}
	end()
	return p
}

// Wild reports whether one of the steps stands for any key.
func (p Path) Wild() bool { return slices.ContainsFunc(p, func(s Step) bool { return s.Any }) }

// Look returns an object. One that was never changed is as New makes it.
type Look func(id string) (*Object, error)

// Resolve returns what a path leads to from an object: objects, as references, and other values, in
// the order of keys. What was deleted is not there. Errors are those of look.
func (p Path) Resolve(from string, look Look) ([]pubsub.ObjectData, error) {
	o, err := look(from)
	if err != nil || o.Deleted {
		return nil, err
	}
	if len(p) == 0 {
		return []pubsub.ObjectData{{Type: pubsub.ObjectValue, Text: from}}, nil
	}
	var found []pubsub.ObjectData
	for i := range o.entries {
		e := &o.entries[i]
		if e.Tombstone || !p[0].Any && p[0].Key != e.Key {
			continue
		}
		if e.Data.Type != pubsub.ObjectValue {
			if len(p) == 1 {
				found = append(found, e.Data)
			}
			continue
		}
		more, err := p[1:].Resolve(e.Data.Text, look)
		if err != nil {
			return nil, err
		}
		if found = append(found, more...); len(found) > maxFound {
			return nil, pubsub.Errorf(pubsub.CodeTooManyMessages, "a path may lead to %d objects at most", maxFound)
		}
	}
	return found, nil
}

// maxFound bounds what a path leads to.
const maxFound = 1000

// Expand returns the operations that a request asks for, complete, the one that creates an object
// first. Objects are named by what they are when look is called.
//
// Errors are *pubsub.Error: CodeInvalidObject, CodeObjectPathUnmatched, CodeObjectUnnamed,
// CodeObjectNotProcessable, CodeTooManyMessages; or those of look.
func Expand(r *pubsub.ObjectRequest, look Look, newID func(isMap bool) string) ([]*pubsub.ObjectOperation, error) {
	op := *r.Operation
	if err := CheckValues(&op); err != nil {
		return nil, err
	}
	from, path := r.ObjectID, ParsePath(r.Path)
	if from == "" {
		from = pubsub.RootObject
	}
	if op.Action == pubsub.MapCreate || op.Action == pubsub.CounterCreate {
		return expandCreate(r, &op, from, path, look, newID)
	}
	if r.ObjectID == "" && !r.HasPath {
		return nil, pubsub.NewError(pubsub.CodeObjectUnnamed, "an objectId or a path is needed")
	}
	if len(path) == 0 {
		op.ObjectID = from
		return []*pubsub.ObjectOperation{&op}, CheckType(&op)
	}
	found, err := path.Resolve(from, look)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, unmatched(r.Path)
	}
	var all []*pubsub.ObjectOperation
	seen := make(map[string]bool, len(found))
	for _, d := range found {
		one := op
		one.ObjectID = d.Text
		if d.Type != pubsub.ObjectValue || seen[d.Text] || CheckType(&one) != nil {
			continue // of several, those are meant that it can be done to
		}
		seen[d.Text] = true
		all = append(all, &one)
	}
	if len(all) == 0 {
		return nil, pubsub.Errorf(pubsub.CodeObjectNotProcessable, "path not processable: nothing at %s is of the type that the operation is for", clipped(r.Path))
	}
	return all, nil
}

// expandCreate makes the operations that create an object and, if there is a path, make a map refer
// to it.
func expandCreate(r *pubsub.ObjectRequest, op *pubsub.ObjectOperation, from string, path Path, look Look, newID func(isMap bool) string) ([]*pubsub.ObjectOperation, error) {
	if !r.Given {
		if r.ObjectID != "" && !r.HasPath {
			return nil, invalid("to create an object with an id of the client's, its initialValue and nonce are needed")
		}
		op.ObjectID = newID(op.Action == pubsub.MapCreate)
	} else {
		op.ObjectID, from = r.ObjectID, pubsub.RootObject
	}
	if !r.HasPath {
		return []*pubsub.ObjectOperation{op}, nil
	}
	if len(path) == 0 || path.Wild() {
		return nil, pubsub.NewError(pubsub.CodeObjectNotProcessable, "path not processable: an object is created at a path of at least one key, and without wildcards")
	}
	last := len(path) - 1
	parents, err := path[:last].Resolve(from, look)
	if err != nil {
		return nil, err
	}
	if len(parents) == 0 {
		return nil, unmatched(r.Path)
	}
	set := &pubsub.ObjectOperation{
		Action: pubsub.MapSet, ObjectID: parents[0].Text, Payload: true, Key: path[last].Key,
		Value: pubsub.ObjectData{Type: pubsub.ObjectValue, Text: op.ObjectID},
	}
	if parents[0].Type != pubsub.ObjectValue || CheckType(set) != nil {
		return nil, pubsub.Errorf(pubsub.CodeObjectNotProcessable, "path not processable: what should refer to %s is no map", clipped(r.Path))
	}
	return []*pubsub.ObjectOperation{op, set}, nil
}

func unmatched(path string) *pubsub.Error {
	return pubsub.Errorf(pubsub.CodeObjectPathUnmatched, "no objects matched path: %s", clipped(path))
}

// View returns what a path leads to from an object, with all that is in it. A map that it meets again
// is a reference there. Errors are *pubsub.Error: CodeObjectNotFound, CodeObjectUnreadable for an object
// that was deleted, CodeObjectPathUnmatched, CodeObjectNotProcessable for a path that may lead to several.
func (p Pool) View(from, path string) (*pubsub.ObjectView, error) {
	steps := ParsePath(path)
	switch o := p[from]; {
	case o == nil && from == pubsub.RootObject:
		if len(steps) == 0 {
			return &pubsub.ObjectView{ID: from, IsMap: true}, nil
		}
		return nil, unmatched(path)
	case o == nil:
		return nil, pubsub.Errorf(pubsub.CodeObjectNotFound, "object not found: %s", clipped(from))
	case o.Deleted:
		return nil, pubsub.Errorf(pubsub.CodeObjectUnreadable, "object was deleted: %s", clipped(from))
	case steps.Wild():
		return nil, pubsub.NewError(pubsub.CodeObjectNotProcessable, "path not processable: wildcards are for operations")
	}
	found, err := steps.Resolve(from, func(id string) (*Object, error) {
		if o := p[id]; o != nil {
			return o, nil
		}
		return New(id)
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, unmatched(path)
	}
	if v := p.view(found[0], make(map[string]bool)); v != nil {
		return v, nil
	}
	return nil, unmatched(path)
}

// view returns nil for what is not there any more. Maps that are in shown are shown elsewhere.
func (p Pool) view(d pubsub.ObjectData, shown map[string]bool) *pubsub.ObjectView {
	if d.Type != pubsub.ObjectValue {
		return &pubsub.ObjectView{Data: d}
	}
	o := p[d.Text]
	if o == nil || o.Deleted {
		return nil
	}
	if shown[o.ID] {
		return &pubsub.ObjectView{Data: d}
	}
	v := &pubsub.ObjectView{ID: o.ID, IsMap: o.IsMap, Count: o.Count}
	if !o.IsMap {
		return v
	}
	shown[o.ID] = true
	for i := range o.entries {
		e := &o.entries[i]
		if e.Tombstone {
			continue
		}
		if in := p.view(e.Data, shown); in != nil {
			v.Entries = append(v.Entries, pubsub.ObjectViewEntry{Key: e.Key, Value: in})
		}
	}
	return v
}
