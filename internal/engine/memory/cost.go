package memory

import (
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// Estimates, in bytes, of what is kept beside the bytes of names and payloads: structs at
// the size class they are allocated in, pointers to them, room in slices and maps.
const (
	channelCost = 512
	entryCost   = 256 // Entry, its serial, its place in the log, Batch
	itemCost    = 256 // the largest item, Message, and its place in the Batch
	recordCost  = 144

	connectionCost = 224 // connectionNotes, its places in the map and the queue
	resultCost     = 40
	rangeCost      = 40
	clientsCost    = 176
	clientCost     = 112
)

func (c *channel) cost() int64 {
	return channelCost + int64(len(c.id.App)+len(c.id.Name))
}

func draftCost(d *engine.Draft) int64 {
	if d.Unlogged {
		return 0
	}
	if d.Body == nil {
		return entryCost
	}
	return entryCost + batchCost(d.Body)
}

func batchCost(b *pubsub.Batch) int64 {
	n := b.Size() + b.Len()*itemCost + len(b.ID) + len(b.ConnectionID) + len(b.ClientID)
	for _, m := range b.Messages {
		n += len(m.ID) + len(m.Encoding) + len(m.ConnectionID) + len(m.Serial) + len(m.Summary)
		if v := m.Version; v != nil {
			n += 112 + len(v.Serial) + len(v.ClientID) + len(v.Description) + len(v.Metadata)
		}
	}
	for _, p := range b.Presence {
		n += len(p.ID) + len(p.Encoding) + len(p.ConnectionID)
	}
	for _, a := range b.Annotations {
		n += len(a.ID) + len(a.Encoding) + len(a.ConnectionID) + len(a.MessageSerial) + len(a.Serial)
	}
	for _, m := range b.Objects {
		n += len(m.ID) + len(m.ConnectionID)
		if op := m.Operation; op != nil {
			n += 160 + len(op.ObjectID) + 96*len(op.Entries)
		}
	}
	return int64(n)
}

func putCost(p *engine.Put) int64 {
	if p.Value == nil {
		return 0
	}
	return recordCost + int64(len(p.Key)+len(p.Value))
}

// appendCost is what an Append adds at most.
func appendCost(a *engine.Append) (cost int64) {
	for i := range a.Entries {
		cost += draftCost(&a.Entries[i])
	}
	for i := range a.Puts {
		cost += putCost(&a.Puts[i])
	}
	return cost
}
