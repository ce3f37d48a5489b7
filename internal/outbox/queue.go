package outbox

import "sync"

// queue is buffers in order. It is taken from a pool when something must wait and goes back when
// nothing does.
type queue struct {
	items [][]byte
	start int // items[:start] are gone

	// own holds the bytes of the newest items that were copied. What is behind its length is
	// free; it is used again when all is written.
	own []byte
}

var queues = sync.Pool{New: func() any { return new(queue) }}

const (
	// keptItems is the capacity up to which a queue is pooled.
	keptItems = 256

	// ownBytes is how much is allocated for copies at a time. Larger ones have their own.
	ownBytes = 1 << 10
)

func newQueue() *queue { return queues.Get().(*queue) }

func (q *queue) empty() bool       { return q.start == len(q.items) }
func (q *queue) push(b []byte)     { q.items = append(q.items, b) }
func (q *queue) first() []byte     { return q.items[q.start] }
func (q *queue) setFirst(b []byte) { q.items[q.start] = b }

// pushCopy is push for bytes that the caller uses again.
func (q *queue) pushCopy(b []byte) {
	if len(b) > ownBytes {
		q.push(append([]byte(nil), b...))
		return
	}
	if cap(q.own)-len(q.own) < len(b) {
		q.own = make([]byte, 0, ownBytes) // what was copied before stays where it is
	}
	start := len(q.own)
	q.own = append(q.own, b...)
	q.push(q.own[start:len(q.own):len(q.own)])
}

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
	q.own = q.own[:0]
	queues.Put(q)
}
