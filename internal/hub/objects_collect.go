package hub

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/objects"
	"letshare-server/internal/pubsub"
)

const (
	// collectEvery is how often a node looks through a channel's objects, at most.
	collectEvery = time.Hour

	// collectedPerEntry bounds the objects that are deleted or put together.
	collectedPerEntry = 100

	// maxCollectable bounds the channels of which a node knows when it looked. Of more it looks at none
	// until it has forgotten some.
	maxCollectable = 1 << 16
)

// objectCollector knows which channels' objects are to be looked through. Only those are that are used: of others
// nobody sees what is in them, and the store forgets them after a time.
type objectCollector struct {
	mu      sync.Mutex
	looked  map[pubsub.ChannelID]time.Time // within collectEvery, or a little longer
	swept   time.Time                      // when older ones were dropped from looked
	queue   []pubsub.ChannelID
	running bool
}

// collectSoon has somebody look through a channel's objects, if nobody on this node has lately.
func (h *Hub) collectSoon(id pubsub.ChannelID) {
	k, now := &h.collector, time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if last, found := k.looked[id]; found && now.Sub(last) < collectEvery {
		return
	}
	if k.looked == nil {
		k.looked = make(map[pubsub.ChannelID]time.Time)
	}
	if now.Sub(k.swept) >= collectEvery {
		maps.DeleteFunc(k.looked, func(_ pubsub.ChannelID, last time.Time) bool { return now.Sub(last) >= collectEvery })
		k.swept = now
	}
	if len(k.looked) >= maxCollectable {
		return
	}
	k.looked[id] = now
	k.queue = append(k.queue, id)
	if !k.running {
		k.running = true
		h.fans.Go(h.collectAll)
	}
}

// collectAll looks through one channel after the other.
func (h *Hub) collectAll() {
	k := &h.collector
	for {
		k.mu.Lock()
		if len(k.queue) == 0 {
			k.running, k.queue = false, nil
			k.mu.Unlock()
			return
		}
		id := k.queue[0]
		k.queue = k.queue[1:]
		k.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), h.opts.AppendTimeout)
		_ = h.collect(ctx, id) // what fails is due the next time, too
		cancel()
	}
}

// collect deletes objects to which nothing has led for ObjectGrace (RTO10), forgets those that were
// deleted before that, notes to which nothing leads now, and puts records again that are much older than
// the newest: all expire together. What others change meanwhile stays until the next time.
func (h *Hub) collect(ctx context.Context, id pubsub.ChannelID) error {
	pool, revisions := make(objects.Pool), make(map[string]uint64)
	newest := int64(0)
	err := h.eachObject(ctx, id, func(o *objects.Object, revision uint64) error {
		pool[o.ID], revisions[o.ID] = o, revision
		newest = max(newest, o.PutAt)
		return nil
	})
	if err != nil {
		return err
	}
	now := time.Now()
	before := now.Add(-ObjectGrace).UnixMilli()
	garbage := pool.Garbage(before)
	guard := func(a *engine.Append, objectID string) {
		a.Preconditions = append(a.Preconditions, engine.Precondition{RecordKey: objectKey(objectID), Revision: revisions[objectID]})
	}
	for due := range slices.Chunk(garbage.Due(), collectedPerEntry) {
		batch := &pubsub.Batch{ID: "collect-" + randomID()}
		a := &engine.Append{Entries: []engine.Draft{{Kind: engine.KindObject, Body: batch}}}
		for _, objectID := range garbage.Guards(due) {
			guard(a, objectID)
		}
		for i, objectID := range due {
			m := &pubsub.ObjectMessage{
				ID: pubsub.ItemID(batch.ID, i), SiteCode: h.opts.SiteCode,
				Operation: &pubsub.ObjectOperation{Action: pubsub.ObjectDelete, ObjectID: objectID, Payload: true},
			}
			batch.Objects = append(batch.Objects, m)
			placed := *m
			placed.Serial = objects.Pending(i)
			pool[objectID].Apply(&placed)
			a.Puts = append(a.Puts, putObject(pool[objectID], 0))
		}
		if err := h.collected(ctx, id, a); err != nil {
			return err
		}
		if c := h.lookup(id); c != nil {
			c.Flush()
		}
	}
	for _, o := range pool {
		if o.Deleted && o.DeletedAt == 0 {
			delete(pool, o.ID) // just now
		}
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(pool)), collectedPerEntry) {
		a := new(engine.Append)
		for _, objectID := range ids {
			o := pool[objectID]
			orphan := garbage.Orphan(objectID)
			switch {
			case o.Deleted && o.DeletedAt < before:
				a.Puts = append(a.Puts, engine.Put{RecordKey: objectKey(objectID), Entry: engine.NoEntry})
			case orphan != (o.OrphanedAt != 0) && !o.Deleted, newest-o.PutAt > (objectSlack / 2).Milliseconds():
				if !orphan {
					o.OrphanedAt = 0
				} else if o.OrphanedAt == 0 {
					o.OrphanedAt = now.UnixMilli()
				}
				a.Puts = append(a.Puts, putObject(o, engine.NoEntry))
			default:
				continue
			}
			guard(a, objectID)
		}
		if len(a.Puts) == 0 {
			continue
		}
		if err := h.collected(ctx, id, a); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hub) collected(ctx context.Context, id pubsub.ChannelID, a *engine.Append) error {
	a.Channel = id
	a.Deadline, _ = ctx.Deadline()
	return h.appendAndWait(a).Err
}
