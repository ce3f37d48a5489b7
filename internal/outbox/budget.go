package outbox

import (
	"sync"
	"sync/atomic"
)

// Budget bounds the bytes that wait in all outboxes that share it. When it is exceeded the largest
// of them breaks first, then the next, until it is not.
//
// Only outboxes with bytes waiting are on its books, so that a fan-out into sockets that keep up
// never touches it.
type Budget struct {
	max       int64
	used      atomic.Int64
	relieving atomic.Bool

	// mu guards the registry: first, and next and prev of its members.
	mu    sync.Mutex
	first *Outbox
}

// NewBudget makes a budget of maxBytes.
func NewBudget(maxBytes int64) *Budget { return &Budget{max: maxBytes} }

// Used is the number of bytes that wait at present.
func (b *Budget) Used() int64 { return b.used.Load() }

// charge sets what waits in o and reports whether the budget is exceeded. o.mu is held.
func (b *Budget) charge(o *Outbox, waits int64) bool {
	was := o.charged.Load()
	if was == waits {
		return false
	}
	o.charged.Store(waits)
	if (was == 0) != (waits == 0) {
		b.mu.Lock()
		if was == 0 {
			o.next = b.first
			if b.first != nil {
				b.first.prev = o
			}
			b.first = o
		} else {
			if o.prev != nil {
				o.prev.next = o.next
			} else {
				b.first = o.next
			}
			if o.next != nil {
				o.next.prev = o.prev
			}
			o.next, o.prev = nil, nil
		}
		b.mu.Unlock()
	}
	return b.used.Add(waits-was) > b.max && waits > was
}

// relieve breaks the largest outboxes until the budget is kept. No outbox's lock is held. Only one
// goroutine does it at a time: others come back with their next byte.
func (b *Budget) relieve() {
	if b.relieving.Swap(true) {
		return
	}
	defer b.relieving.Store(false)
	for b.used.Load() > b.max {
		var largest *Outbox
		var most int64
		b.mu.Lock()
		for o := b.first; o != nil; o = o.next {
			if n := o.charged.Load(); n > most {
				largest, most = o, n
			}
		}
		b.mu.Unlock()
		if largest == nil {
			return
		}
		largest.mu.Lock()
		if largest.charged.Load() < most/2 {
			largest.mu.Unlock() // it has emptied meanwhile: look again
			continue
		}
		largest.breakUnlock(OverBudget)
	}
}
