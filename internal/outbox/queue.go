package outbox

import "sync"

// queue is buffers in order. It is taken from a pool when something must wait and goes back when
// nothing does.
type queue struct {
	items [][]byte
	start int // items[:start] are gone
}

var queues = sync.Pool{New: func() any { return new(queue) }}

// keptItems is the capacity up to which a queue is pooled.
const keptItems = 256

func newQueue() *queue { return queues.Get().(*queue) }

func (q *queue) empty() bool       { return q.start == len(q.items) }
func (q *queue) push(b []byte)     { q.items = append(q.items, b) }
func (q *queue) first() []byte     { return q.items[q.start] }
func (q *queue) setFirst(b []byte) { q.items[q.start] = b }

func (q *queue) pop() {
	q.items[q.start] = nil
	q.start++
	if q.start >= 1024 && q.start*2 >= len(q.items) {
		n := copy(q.items, q.items[q.start:])
		clear(q.items[n:])
		q.items, q.start = q.items[:n], 0
	}
}

func (q *queue) pushFront(b []byte) {
	if q.start > 0 {
		q.start--
		q.items[q.start] = b
		return
	}
	q.items = append(q.items, nil)
	copy(q.items[1:], q.items)
	q.items[0] = b
}

// head is a view of the first items, at most limit.
func (q *queue) head(limit int) [][]byte {
	return q.items[q.start:min(q.start+limit, len(q.items))]
}

func (q *queue) recycle() {
	if cap(q.items) > keptItems {
		return
	}
	clear(q.items)
	q.items, q.start = q.items[:0], 0
	queues.Put(q)
}
