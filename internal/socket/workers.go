package socket

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// Task is something to run on a worker. A pointer to a long-lived value makes handing it over
// free of allocation.
type Task interface{ Run() }

// TaskFunc is a function as a Task.
type TaskFunc func()

// Run calls f.
func (f TaskFunc) Run() { f() }

// WorkersOptions sets the size of a pool of workers.
type WorkersOptions struct {
	// Soft is how many workers exist before tasks wait for one; zero means 4 per CPU and at
	// least 8. A burst of ready sockets thus costs a queue and not a thousand stacks.
	Soft int
	// Max is how many there may be while tasks block; zero means 1024. Beyond it tasks wait.
	Max int
	// Idle is how long an unused worker is kept; zero means 10 s.
	Idle time.Duration
}

// growAfter is how long no waiting task may have been taken before more workers are started:
// all of them are then blocked, not busy.
const growAfter = time.Millisecond

// Workers runs tasks on goroutines whose stacks are warm: the worker that became idle last is
// used first, and those not needed for a while end.
//
// Tasks may block for milliseconds. While every worker is taken, further tasks wait in order; if
// none of those is taken within a millisecond the pool grows.
type Workers struct {
	opts WorkersOptions

	// mu guards the fields below. Nothing under it blocks or calls out.
	mu       sync.Mutex
	idle     []*worker // LIFO: the warmest last
	alive    int
	queue    []Task // waiting tasks are queue[head:]
	head     int
	taken    uint64 // waiting tasks taken so far
	epoch    uint32 // half-lives of idle workers passed
	stopping bool
	empty    *sync.Cond // alive became zero while stopping

	pressed chan struct{} // a token when tasks began to wait
}

type worker struct {
	next  chan Task // nil retires it
	epoch uint32    // when it became idle
}

// NewWorkers makes a pool. It has no goroutine until there is a task.
func NewWorkers(opts WorkersOptions) *Workers {
	if opts.Soft <= 0 {
		opts.Soft = max(8, 4*runtime.GOMAXPROCS(0))
	}
	if opts.Max <= 0 {
		opts.Max = 1024
	}
	opts.Max = max(opts.Max, opts.Soft)
	if opts.Idle <= 0 {
		opts.Idle = 10 * time.Second
	}
	w := &Workers{opts: opts, pressed: make(chan struct{}, 1)}
	w.empty = sync.NewCond(&w.mu)
	return w
}

// Go runs t on a worker, soon. It never blocks and never refuses, also while the pool stops.
func (w *Workers) Go(t Task) {
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		k := w.idle[n-1]
		w.idle[n-1] = nil
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		k.next <- t // never blocks: room for one, and k was idle
		return
	}
	if w.alive < w.opts.Soft || w.stopping {
		w.alive++
		w.mu.Unlock()
		go w.work(t)
		return
	}
	first := w.head == len(w.queue)
	w.queue = append(w.queue, t)
	w.mu.Unlock()
	if first {
		select {
		case w.pressed <- struct{}{}:
		default:
		}
	}
}

// Yield lets waiting tasks go first: it puts t behind them and returns true, or returns false
// when none waits and the caller may as well go on.
func (w *Workers) Yield(t Task) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.head == len(w.queue) {
		return false
	}
	w.queue = append(w.queue, t)
	return true
}

// Busy reports whether a task given now would have to wait.
func (w *Workers) Busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.idle) == 0 && w.alive >= w.opts.Soft
}

// Run keeps the pool's size right until ctx ends, then waits for every task and every worker.
// Tasks given later still run, on goroutines that end with them.
func (w *Workers) Run(ctx context.Context) error {
	retire := time.NewTicker(w.opts.Idle / 2)
	defer retire.Stop()
	grow := time.NewTimer(time.Hour)
	grow.Stop()
	defer grow.Stop()
	var taken uint64
	for {
		select {
		case <-ctx.Done():
			w.stop()
			return nil
		case <-retire.C:
			w.retire()
		case <-w.pressed:
			w.mu.Lock()
			taken = w.taken
			w.mu.Unlock()
			grow.Reset(growAfter)
		case <-grow.C:
			if w.grow(&taken) {
				grow.Reset(growAfter)
			}
		}
	}
}

// work is the life of a worker whose first task is t.
func (w *Workers) work(t Task) {
	var k *worker
	for {
		t.Run()
		w.mu.Lock()
		if t = w.takeLocked(); t != nil {
			w.mu.Unlock()
			continue
		}
		if w.stopping {
			w.endedLocked()
			w.mu.Unlock()
			return
		}
		if k == nil {
			k = &worker{next: make(chan Task, 1)}
		}
		k.epoch = w.epoch
		w.idle = append(w.idle, k)
		w.mu.Unlock()
		if t = <-k.next; t == nil {
			return
		}
	}
}

// takeLocked takes the task that waited longest, or nil.
func (w *Workers) takeLocked() Task {
	if w.head == len(w.queue) {
		return nil
	}
	t := w.queue[w.head]
	w.queue[w.head] = nil
	w.head++
	w.taken++
	switch {
	case w.head == len(w.queue):
		w.head = 0
		if cap(w.queue) > 4096 {
			w.queue = nil
		} else {
			w.queue = w.queue[:0]
		}
	case w.head >= 1024 && w.head*2 >= len(w.queue):
		n := copy(w.queue, w.queue[w.head:])
		clear(w.queue[n:])
		w.queue, w.head = w.queue[:n], 0
	}
	return t
}

// grow starts workers if tasks wait and none was taken since the last look. It returns whether
// tasks still wait.
func (w *Workers) grow(taken *uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting := len(w.queue) - w.head
	if waiting == 0 {
		return false
	}
	if w.taken == *taken {
		for range min(waiting, max(4, w.alive/2), w.opts.Max-w.alive) {
			w.alive++
			go w.work(w.takeLocked())
		}
	}
	*taken = w.taken
	return w.head < len(w.queue)
}

// retire ends the workers that have been idle for Idle.
func (w *Workers) retire() {
	w.mu.Lock()
	w.epoch++
	n := 0
	for n < len(w.idle) && w.epoch-w.idle[n].epoch > 2 {
		n++ // the idle list is ordered: the coldest first
	}
	cold := append([]*worker(nil), w.idle[:n]...)
	w.idle = w.idle[:copy(w.idle, w.idle[n:])]
	clear(w.idle[len(w.idle):cap(w.idle)])
	for range cold {
		w.endedLocked()
	}
	w.mu.Unlock()
	for _, k := range cold {
		k.next <- nil
	}
}

// stop ends all workers once their tasks are done, and waits for that.
func (w *Workers) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = true
	for _, k := range w.idle {
		k.next <- nil
		w.endedLocked()
	}
	w.idle = nil
	// Tasks may be waiting for workers that are all blocked by them.
	for w.head < len(w.queue) {
		w.alive++
		go w.work(w.takeLocked())
	}
	for w.alive > 0 {
		w.empty.Wait()
	}
}

func (w *Workers) endedLocked() {
	w.alive--
	if w.alive == 0 {
		w.empty.Broadcast()
	}
}
