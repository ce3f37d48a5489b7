package socket

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// TickLength is the resolution of a Wheel and of its clock.
const TickLength = 100 * time.Millisecond

// Ticks is coarse time: a Wheel's count of TickLength. Zero is before any Wheel began, and serves
// as "never".
type Ticks uint32

// wheelSlots times TickLength is one turn (51 s); timers beyond it are passed over meanwhile.
const wheelSlots = 512

// Expirer is what a Timer calls.
type Expirer interface {
	// Expire runs on the wheel's goroutine: it must not block, and hands longer work on.
	Expire()
}

// Timer is one entry of a Wheel, embedded in what it belongs to. Its zero value is not scheduled.
// All fields belong to the Wheel.
type Timer struct {
	next, prev *Timer
	target     Expirer
	due        Ticks
}

// Wheel is the timer of all sockets. Scheduling and stopping cost a lock and a few pointers, and
// allocate nothing.
//
// It is made for lazy timers: activity only notes Now() in a field; when the timer expires, its
// owner looks at that field and schedules again for the rest.
type Wheel struct {
	now atomic.Uint32

	// mu guards the fields below and those of all scheduled Timers.
	mu    sync.Mutex
	slots [wheelSlots]Timer // heads of circular lists
	ready Timer             // due, and not yet called
	size  int
}

// NewWheel makes a Wheel whose clock stands at 1 until Run.
func NewWheel() *Wheel {
	w := new(Wheel)
	w.now.Store(1)
	for i := range w.slots {
		w.slots[i].next, w.slots[i].prev = &w.slots[i], &w.slots[i]
	}
	w.ready.next, w.ready.prev = &w.ready, &w.ready
	return w
}

// Now is the coarse time: one atomic load.
func (w *Wheel) Now() Ticks { return Ticks(w.now.Load()) }

// Since is the time from t until now; t being in the future gives zero.
func (w *Wheel) Since(t Ticks) time.Duration { return w.Now().Sub(t) }

// Sub is the time from u to t, or zero if u is later.
func (t Ticks) Sub(u Ticks) time.Duration {
	if u >= t {
		return 0
	}
	return time.Duration(t-u) * TickLength
}

// Len is the number of scheduled timers.
func (w *Wheel) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// Schedule lets t expire after d, at most one tick late, in place of any earlier schedule. A call
// of Expire that is under way is not held back.
func (w *Wheel) Schedule(t *Timer, target Expirer, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlinkLocked(t)
	w.linkLocked(t, target, w.dueIn(d))
}

// ScheduleSooner is Schedule unless t is scheduled for earlier already. Of several who want a call
// by a certain time, the most impatient wins.
func (w *Wheel) ScheduleSooner(t *Timer, target Expirer, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	due := w.dueIn(d)
	if t.next != nil && t.due <= due {
		return
	}
	w.unlinkLocked(t)
	w.linkLocked(t, target, due)
}

// Stop takes t off the wheel. A call of Expire that is under way is not held back.
func (w *Wheel) Stop(t *Timer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlinkLocked(t)
}

// Run lets time pass until ctx ends.
func (w *Wheel) Run(ctx context.Context) error {
	ticker := time.NewTicker(TickLength)
	defer ticker.Stop()
	base := w.Now()
	start := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		w.advance(base + Ticks(time.Since(start)/TickLength))
	}
}

// advance moves the clock to now and expires what is due.
func (w *Wheel) advance(now Ticks) {
	last := w.Now()
	if now <= last {
		return
	}
	w.now.Store(uint32(now))
	w.mu.Lock()
	for i := range min(now-last, wheelSlots) {
		head := &w.slots[(now-i)%wheelSlots]
		for t := head.next; t != head; {
			next := t.next
			if t.due <= now {
				w.unlinkLocked(t)
				w.insertLocked(&w.ready, t)
			}
			t = next
		}
	}
	for w.ready.next != &w.ready {
		t := w.ready.next
		target := t.target
		w.unlinkLocked(t)
		w.mu.Unlock()
		target.Expire()
		w.mu.Lock()
	}
	w.mu.Unlock()
}

// dueIn rounds up: the running tick has passed in part.
func (w *Wheel) dueIn(d time.Duration) Ticks {
	n := (max(d, 0) + TickLength - 1) / TickLength
	return w.Now() + Ticks(min(n, math.MaxInt32)) + 1
}

func (w *Wheel) linkLocked(t *Timer, target Expirer, due Ticks) {
	t.target, t.due = target, due
	w.insertLocked(&w.slots[due%wheelSlots], t)
}

func (w *Wheel) insertLocked(head, t *Timer) {
	t.prev, t.next = head.prev, head
	head.prev.next = t
	head.prev = t
	w.size++
}

func (w *Wheel) unlinkLocked(t *Timer) {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.size--
}
