package disk

import (
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/memory"
)

// item is an Append on its way through the committer.
type item struct {
	memory.Stage
	done     func(engine.Result)
	entries  []byte // as they are stored
	cost     int64
	refused  error // why it was, before it was in the queue
	staged   bool
	repeated *item // the one of the same group whose id it has
	told     atomic.Bool
}

// late is the outcome when it is overdue and was not looked at.
func (it *item) late() engine.Result {
	if it.refused != nil {
		return engine.Result{Err: it.refused}
	}
	return engine.Result{Err: engine.ErrDeadline}
}

// tell gives the outcome to whoever appended, unless it was given.
func (it *item) tell(r engine.Result) {
	if it.told.CompareAndSwap(false, true) {
		it.done(r)
	}
}

// job is other work for the committer: a transaction of its own.
type job struct {
	f    func() error
	done chan error
}

// itemCost is what an item takes beside its bytes.
const itemCost = 512

// queue is what waits for the committer.
type queue struct {
	wake chan struct{} // a token when there may be something

	// mu guards the fields below. It is the last of all locks.
	mu     sync.Mutex
	items  []*item
	jobs   []*job
	bytes  int64
	goal   int           // how many items somebody waits for
	full   chan struct{} // gets a token when there are as many
	closed bool          // the committer is gone
}

func (q *queue) init() { q.wake, q.full = make(chan struct{}, 1), make(chan struct{}, 1) }

// reach returns a channel that gets a token when more items have come, as many as given.
func (q *queue) reach(more int) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.full: // of an earlier goal
	default:
	}
	q.goal = len(q.items) + more
	return q.full
}

func (q *queue) wakeUp() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// add puts an item at the end. What is too much is refused when its turn comes, so that
// outcomes keep their order. It reports false if there is nobody to commit it.
func (q *queue) add(it *item, most int64) bool {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	if q.bytes+it.cost > most && q.bytes > 0 {
		it.refused = errQueueFull
		it.entries, it.cost = nil, 0
	}
	it.cost += itemCost
	q.bytes += it.cost
	q.items = append(q.items, it)
	first := len(q.items) == 1
	if len(q.items) == q.goal {
		q.full <- struct{}{}
		q.goal = 0
	}
	q.mu.Unlock()
	if first {
		q.wakeUp()
	}
	return true
}

// run has the committer do f, and waits.
func (q *queue) run(f func() error) error {
	j := &job{f, make(chan error, 1)}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return engine.ErrClosed
	}
	q.jobs = append(q.jobs, j)
	q.mu.Unlock()
	q.wakeUp()
	return <-j.done
}

// maxGroupBytes bounds what one transaction writes.
const maxGroupBytes = 8 << 20

// take returns what is next: at most most items, and one job.
func (q *queue) take(most int) (items []*item, j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, int64(0)
	for n < len(q.items) && n < most && bytes < maxGroupBytes {
		bytes += q.items[n].cost
		n++
	}
	q.bytes -= bytes
	if n == len(q.items) {
		items, q.items = q.items, nil
	} else {
		items, q.items = q.items[:n:n], q.items[n:]
	}
	if len(q.jobs) > 0 {
		j, q.jobs = q.jobs[0], q.jobs[1:]
	}
	if len(q.items) > 0 || len(q.jobs) > 0 {
		q.wakeUp()
	}
	return items, j
}

// overdue takes out what stands at the head and is of no use any more.
func (q *queue) overdue(now time.Time) (items []*item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.items) && q.items[n].overdue(now) {
		q.bytes -= q.items[n].cost
		n++
	}
	items, q.items = q.items[:n:n], q.items[n:]
	return items
}

// overdue reports whether the item would be refused.
func (it *item) overdue(now time.Time) bool {
	return it.refused != nil || !it.Append.Deadline.IsZero() && !now.Before(it.Append.Deadline)
}

func (q *queue) waiting() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// shut refuses what comes from now on. It reports false if there is still something to do.
func (q *queue) shut() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 || len(q.jobs) > 0 {
		return false
	}
	q.closed = true
	return true
}
