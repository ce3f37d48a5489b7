package memory

import (
	"container/heap"
	"math"
	"sync"
)

// age is the place in an ageQueue of something that holds old things.
type age struct {
	channel *channel // immutable
	notes   notes    // immutable; nil if the old things are the channel's log

	oldest int64 // ms; not after the oldest thing held. Only its holder changes it, out of the queue
	index  int   // guarded by ageQueue.mu
}

const notQueued = -1

// ageQueue yields what holds the oldest things. It is lazy: it is not told when something
// is dropped, so that the age in it may be too old. Who pops something looks at what it
// really holds, under its channel's lock, and pushes it back if it holds anything.
type ageQueue struct {
	mu   sync.Mutex // the last of all locks
	heap ageHeap
}

func (q *ageQueue) push(a *age) {
	q.mu.Lock()
	defer q.mu.Unlock()
	heap.Push(&q.heap, a)
}

// ageSlack is how much, in ms, may go too early so that more goes at once.
const ageSlack = 100

// pop returns what holds the oldest things if they are not younger than before, and until
// when it holds the oldest: the next oldest comes then.
func (q *ageQueue) pop(before int64) (a *age, until int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 || q.heap[0].oldest > before {
		return nil, 0
	}
	a = heap.Pop(&q.heap).(*age)
	if len(q.heap) == 0 {
		return a, math.MaxInt64
	}
	return a, q.heap[0].oldest + ageSlack
}

// remove reports whether a was in the queue; else somebody has popped it.
func (q *ageQueue) remove(a *age) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a.index == notQueued {
		return false
	}
	heap.Remove(&q.heap, a.index)
	return true
}

type ageHeap []*age

func (h ageHeap) Len() int           { return len(h) }
func (h ageHeap) Less(i, j int) bool { return h[i].oldest < h[j].oldest }

func (h ageHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *ageHeap) Push(x any) {
	a := x.(*age)
	a.index = len(*h)
	*h = append(*h, a)
}

func (h *ageHeap) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	a.index = notQueued
	return a
}
