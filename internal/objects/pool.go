package objects

import "letshare-server/internal/pubsub"

// Pool is the objects of a channel by their ids.
type Pool map[string]*Object

// Get returns an object, and makes it if it is not there (RTO6). The error is CodeInvalidObject.
func (p Pool) Get(id string) (*Object, error) {
	if o := p[id]; o != nil {
		return o, nil
	}
	o, err := New(id)
	if err == nil {
		p[id] = o
	}
	return o, err
}

// Apply applies an operation to its object (RTO9), and reports whether it had an effect.
func (p Pool) Apply(m *pubsub.ObjectMessage) bool {
	o, err := p.Get(m.Operation.ObjectID)
	return err == nil && o.Apply(m)
}

// Reachable returns the ids of the objects to which something leads from the root, and of the root.
func (p Pool) Reachable() map[string]bool {
	found := map[string]bool{pubsub.RootObject: true}
	for next := []string{pubsub.RootObject}; len(next) > 0; {
		o := p[next[len(next)-1]]
		next = next[:len(next)-1]
		if o == nil {
			continue
		}
		for i := range o.entries {
			if e := &o.entries[i]; e.Data.Type == pubsub.ObjectValue && !found[e.Data.Text] {
				found[e.Data.Text] = true
				next = append(next, e.Data.Text)
			}
		}
	}
	return found
}
