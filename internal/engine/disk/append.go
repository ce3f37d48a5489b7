package disk

import (
	"fmt"

	"letshare-server/internal/engine"
)

var errQueueFull = fmt.Errorf("%w: too much waits for the disk", engine.ErrFull)

// Append queues a for the committer. It implements memory.Backing.
func (b *backing) Append(a *engine.Append, done func(engine.Result)) {
	it := &item{done: done, entries: encodeEntries(a)}
	it.Append = a
	it.cost = int64(len(it.entries))
	for i := range a.Puts {
		it.cost += int64(len(a.Puts[i].Key) + len(a.Puts[i].Value))
	}
	if !b.queue.add(it, b.opts.QueueBytes) {
		done(engine.Result{Err: engine.ErrClosed})
	}
}
