package outbox

import (
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/socket"
)

// Defaults of Options.
const (
	DefaultMaxBytes = 4 << 20
	DefaultMaxAge   = 30 * time.Second
)

// fewBytes may be queued before the budget is told of them: a Flush comes in a moment, and the budget
// is everybody's.
const fewBytes = 4 << 10

// maxBatch is how many buffers one vectored write takes.
const maxBatch = 1024

// Options are shared by all outboxes of a kind, and do not change once in use.
type Options struct {
	// MaxBytes bounds what waits, held bytes included; zero means 4 MiB. Beyond it the outbox
	// breaks with TooMuch.
	MaxBytes int
	// MaxAge bounds how long bytes wait without any being taken; zero means 30 s. Beyond it
	// Overdue breaks the outbox with TooLong.
	MaxAge time.Duration
	// Budget bounds the bytes that wait in all outboxes together; nil means no such bound.
	Budget *Budget
	// Wheel is the clock of MaxAge and LastWrite; without it time stands still.
	Wheel *socket.Wheel
	// Stats counts what is written; nil means nobody counts.
	Stats *Stats
}

// Stats counts over all outboxes that share it.
type Stats struct {
	Bytes   atomic.Int64 // given to the kernel
	Buffers atomic.Int64 // put, and given to the kernel in full
	Writes  atomic.Int64 // attempts to write
	Broken  atomic.Int64 // outboxes that broke
}

// Reason is why an outbox broke.
type Reason uint8

// The bounds an outbox can break at.
const (
	TooMuch    Reason = iota + 1 // Options.MaxBytes
	TooLong                      // Options.MaxAge
	OverBudget                   // Options.Budget, and it was the largest
)

func (r Reason) String() string {
	switch r {
	case TooMuch:
		return "too many bytes waiting"
	case TooLong:
		return "no progress for too long"
	case OverBudget:
		return "largest queue when the process's budget was exceeded"
	}
	return "not broken"
}

// Owner is told when its outbox breaks: once, under no lock, on the goroutine of whoever found out.
// It must not block.
type Owner interface {
	// Slow says that the peer does not keep up. Closing the stream is the owner's to do.
	Slow(Reason)
	// Failed says that the stream refused to be written to. It is closed afterwards.
	Failed(err error)
}

// Then is what Finish does when everything is written.
type Then uint8

// In the order of what each includes.
const (
	ThenNothing    Then = iota
	ThenCloseWrite      // tell the peer that no more follows
	ThenClose           // close the stream
)

// Outbox is the queue in front of one Stream. Init makes it usable; it must not be copied after.
// All methods may be called from any goroutine.
type Outbox struct {
	stream socket.Stream // immutable, as the next two
	opts   *Options
	owner  Owner

	lastPut atomic.Uint32 // coarse time at which bytes were last put to be written
	charged atomic.Int64  // what the budget counts for this outbox; written under mu

	// mu guards the fields below. Lock order: Outbox.mu, then Budget.mu. Nothing under it
	// writes, blocks or calls out of this package.
	mu         sync.Mutex
	queue      *queue       // what waits to be written; nil if nothing does
	queueBytes int          // in queue
	heldBytes  int          // in gates
	stuckSince socket.Ticks // since when nothing was taken; zero unless waiting
	flushing   bool         // someone owns the stream's writing side
	waiting    bool         // that is the stream's WhenWritable
	finishing  bool         // Finish was called: nothing more is accepted
	broken     bool         // beyond a bound, closed, or the stream failed: everything is dropped
	then       Then

	// Guarded by Budget.mu: the registry of outboxes that have bytes waiting.
	next, prev *Outbox
}

// Init sets the outbox up in front of stream. opts may be shared; owner may be nil.
func (o *Outbox) Init(stream socket.Stream, opts *Options, owner Owner) {
	o.stream, o.opts, o.owner = stream, opts, owner
	o.lastPut.Store(uint32(o.now()))
}

// New is an Outbox of its own; most are embedded in their owner and use Init.
func New(stream socket.Stream, opts *Options, owner Owner) *Outbox {
	o := new(Outbox)
	o.Init(stream, opts, owner)
	return o
}

// Put sends b, one or more whole frames, as soon as the socket takes it: now, if nothing waits and
// no one else is writing. b must not change any more.
func (o *Outbox) Put(b []byte) { o.put(b, true, false) }

// PutQuiet is Put for frames that applications do not see, such as pings: LastWrite passes over them.
func (o *Outbox) PutQuiet(b []byte) { o.put(b, false, false) }

// PutCopy is Put for bytes that the caller uses again: what is not written at once is copied.
func (o *Outbox) PutCopy(b []byte) { o.put(b, true, true) }

func (o *Outbox) put(b []byte, counts, borrowed bool) {
	if len(b) == 0 {
		return
	}
	o.mu.Lock()
	if o.broken || o.finishing {
		o.mu.Unlock()
		return
	}
	if counts {
		o.touch()
	}
	o.sendLocked(b, borrowed)
}

// sendLocked writes b, or queues it, or a copy if it is borrowed, where others are ahead. It unlocks.
func (o *Outbox) sendLocked(b []byte, borrowed bool) {
	if o.queue != nil || o.flushing {
		if borrowed {
			o.pushCopyLocked(b)
		} else {
			o.pushLocked(b)
		}
		o.flushUnlock()
		return
	}
	// At rest: no queue is needed unless the write falls short.
	o.flushing = true
	o.mu.Unlock()
	n, err := o.stream.TryWrite(b)
	o.mu.Lock()
	o.count(int64(n), 1)
	if n == len(b) && err == nil {
		if s := o.opts.Stats; s != nil {
			s.Buffers.Add(1)
		}
		if o.queue == nil && !o.broken && !o.finishing && o.charged.Load() == 0 { // the usual case
			o.flushing = false
			o.mu.Unlock()
			return
		}
		o.runUnlock(false, nil)
		return
	}
	if err == nil && !o.broken {
		o.pushFrontLocked(append([]byte(nil), b[n:]...))
	}
	o.runUnlock(true, err)
}

// Queue is Put without writing: b goes with the next Flush, or with whoever writes before.
func (o *Outbox) Queue(b []byte) {
	if len(b) == 0 {
		return
	}
	o.mu.Lock()
	if o.broken || o.finishing {
		o.mu.Unlock()
		return
	}
	o.touch()
	o.pushLocked(b)
	o.settleUnlock()
}

// QueueQuiet is to Queue what PutQuiet is to Put.
func (o *Outbox) QueueQuiet(b []byte) {
	o.mu.Lock()
	if o.broken || o.finishing || len(b) == 0 {
		o.mu.Unlock()
		return
	}
	o.pushLocked(b)
	o.settleUnlock()
}

// QueueCopy is to Queue what PutCopy is to Put.
func (o *Outbox) QueueCopy(b []byte) {
	if len(b) == 0 {
		return
	}
	o.mu.Lock()
	if o.broken || o.finishing {
		o.mu.Unlock()
		return
	}
	o.touch()
	o.pushCopyLocked(b)
	o.settleUnlock()
}

// Flush writes what was queued, unless another goroutine is about to.
func (o *Outbox) Flush() {
	o.mu.Lock()
	o.flushUnlock()
}

// Finish sends final (which may be nil) after everything queued before, accepts nothing more, and
// then does what then says. Called again it sends nothing, but may ask for more to be done then.
// How long the peer may take is for the owner to bound.
func (o *Outbox) Finish(final []byte, then Then) {
	o.mu.Lock()
	if o.broken {
		o.mu.Unlock()
		if then == ThenClose {
			_ = o.stream.Close()
		}
		return
	}
	if !o.finishing {
		o.finishing = true
		if len(final) > 0 {
			o.pushLocked(final)
		}
	}
	o.then = max(o.then, then)
	if o.flushing {
		o.settleUnlock()
		return
	}
	o.flushing = true
	o.runUnlock(false, nil)
}

// CloseAfterFlush is Finish with ThenClose.
func (o *Outbox) CloseAfterFlush(final []byte) { o.Finish(final, ThenClose) }

// Close drops what waits and closes the stream. The owner is not told.
func (o *Outbox) Close() {
	o.mu.Lock()
	o.dropLocked()
	o.settleUnlock()
	_ = o.stream.Close()
}

// Abort is Close, but what the peer has not taken yet of what was written is lost, too.
func (o *Outbox) Abort() {
	o.mu.Lock()
	o.dropLocked()
	o.settleUnlock()
	_ = o.stream.Abort()
}

// Overdue breaks the outbox if bytes have waited for MaxAge without any being taken, and reports
// whether it did. The owner's timer calls it.
func (o *Outbox) Overdue() bool {
	o.mu.Lock()
	if o.broken || o.stuckSince == 0 || o.now().Sub(o.stuckSince) < o.opts.maxAge() {
		o.mu.Unlock()
		return false
	}
	o.breakUnlock(TooLong)
	return true
}

// Stuck is for how long bytes have waited without any being taken; zero if none wait.
func (o *Outbox) Stuck() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stuckSince == 0 {
		return 0
	}
	return max(o.now().Sub(o.stuckSince), time.Nanosecond)
}

// Queued is the number of bytes that wait, held ones included.
func (o *Outbox) Queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queueBytes + o.heldBytes
}

// LastWrite is when bytes were last put to be written, the quiet ones not counted.
func (o *Outbox) LastWrite() socket.Ticks { return socket.Ticks(o.lastPut.Load()) }

// MaxAge is the bound that Overdue applies.
func (o *Outbox) MaxAge() time.Duration { return o.opts.maxAge() }

// flushUnlock makes the caller the flusher if there is something to flush and no other.
func (o *Outbox) flushUnlock() {
	if o.flushing || o.queue == nil || o.broken {
		o.settleUnlock()
		return
	}
	o.flushing = true
	o.runUnlock(false, nil)
}

// runUnlock is the flusher: it writes until nothing waits or the kernel takes no more. blocked says
// that this is known already, err that writing has failed.
func (o *Outbox) runUnlock(blocked bool, err error) {
	for {
		if err != nil || o.broken {
			failed := !o.broken
			o.flushing = false
			o.dropLocked()
			o.settleUnlock()
			if failed {
				if o.owner != nil {
					o.owner.Failed(err)
				}
				_ = o.stream.Close()
			}
			return
		}
		if o.queue == nil {
			o.flushing = false
			then := ThenNothing
			if o.finishing {
				then, o.then = o.then, ThenNothing
			}
			o.settleUnlock()
			switch then {
			case ThenCloseWrite:
				_ = o.stream.CloseWrite()
			case ThenClose:
				_ = o.stream.Close()
			}
			return
		}
		if blocked {
			if o.queueBytes+o.heldBytes > o.opts.maxBytes() {
				o.flushing = false
				o.breakUnlock(TooMuch)
				return
			}
			o.waiting = true
			if o.stuckSince == 0 {
				o.stuckSince = max(o.now(), 1)
			}
			o.settleUnlock()
			o.stream.WhenWritable(o.writable)
			return
		}
		// Only the flusher takes from the queue; others append behind this view of it.
		batch := o.queue.head(maxBatch)
		o.mu.Unlock()
		var n int64
		if len(batch) == 1 {
			var n1 int
			n1, err = o.stream.TryWrite(batch[0])
			n = int64(n1)
		} else {
			n, err = o.stream.TryWritev(batch)
		}
		o.mu.Lock()
		o.count(n, 1)
		if !o.broken {
			blocked = !o.wroteLocked(n, len(batch))
		}
	}
}

// writable is called by the stream when it takes bytes again, or has ended.
func (o *Outbox) writable() {
	o.mu.Lock()
	o.waiting = false
	o.runUnlock(false, nil)
}

// wroteLocked takes n written bytes off the queue and reports whether they were all of its first
// buffers.
func (o *Outbox) wroteLocked(n int64, buffers int) bool {
	if n > 0 {
		o.stuckSince = 0
	}
	o.queueBytes -= int(n)
	q := o.queue
	done := 0
	for ; done < buffers; done++ {
		b := q.first()
		if int64(len(b)) > n {
			if n > 0 {
				// A copy, so that the rest of a buffer shared by many is not pinned.
				q.setFirst(append([]byte(nil), b[n:]...))
			}
			break
		}
		n -= int64(len(b))
		q.pop()
	}
	if s := o.opts.Stats; s != nil {
		s.Buffers.Add(int64(done))
	}
	if q.empty() {
		o.queue = nil
		q.recycle()
		o.stuckSince = 0
	}
	return done == buffers
}

func (o *Outbox) pushLocked(b []byte) {
	if o.queue == nil {
		o.queue = newQueue()
	}
	o.queue.push(b)
	o.queueBytes += len(b)
}

func (o *Outbox) pushCopyLocked(b []byte) {
	if o.queue == nil {
		o.queue = newQueue()
	}
	o.queue.pushCopy(b)
	o.queueBytes += len(b)
}

// pushFrontLocked queues what a short write left, ahead of what others appended meanwhile.
func (o *Outbox) pushFrontLocked(b []byte) {
	if o.queue == nil {
		o.queue = newQueue()
	}
	o.queue.pushFront(b)
	o.queueBytes += len(b)
}

// dropLocked ends the outbox and frees what waits, unless the flusher is writing from it: that is
// a matter of microseconds, and then the flusher does it.
func (o *Outbox) dropLocked() {
	o.broken = true
	o.heldBytes = 0
	o.stuckSince = 0
	if o.queue != nil && (!o.flushing || o.waiting) {
		o.queue.recycle()
		o.queue = nil
		o.queueBytes = 0
	}
}

// settleUnlock brings the budget up to date, enforces MaxBytes, and unlocks. Too much that was only
// queued is written before it is judged.
func (o *Outbox) settleUnlock() {
	if !o.broken && o.queueBytes+o.heldBytes > o.opts.maxBytes() {
		if !o.flushing && o.queue != nil {
			o.flushing = true
			o.runUnlock(false, nil)
			return
		}
		o.breakUnlock(TooMuch)
		return
	}
	over := o.chargeLocked()
	o.mu.Unlock()
	if over {
		o.opts.Budget.relieve()
	}
}

// chargeLocked tells the budget what waits here. Bytes that a flusher is about to write are not
// waiting, nor are a few that were queued and whose Flush follows. It reports whether the budget is
// exceeded.
func (o *Outbox) chargeLocked() bool {
	budget := o.opts.Budget
	if budget == nil {
		return false
	}
	waits := o.heldBytes
	if o.waiting || !o.flushing && o.queueBytes > fewBytes {
		waits += o.queueBytes
	}
	if o.broken {
		waits = 0
	}
	return budget.charge(o, int64(waits))
}

// breakUnlock ends the outbox at a bound and tells the owner.
func (o *Outbox) breakUnlock(r Reason) {
	if o.broken {
		o.mu.Unlock()
		return
	}
	o.dropLocked()
	o.chargeLocked()
	if s := o.opts.Stats; s != nil {
		s.Broken.Add(1)
	}
	o.mu.Unlock()
	if o.owner != nil {
		o.owner.Slow(r)
	}
}

func (o *Outbox) now() socket.Ticks {
	if o.opts.Wheel == nil {
		return 0
	}
	return o.opts.Wheel.Now()
}

func (o *Outbox) touch() {
	if now := uint32(o.now()); o.lastPut.Load() != now {
		o.lastPut.Store(now)
	}
}

func (o *Outbox) count(bytes, writes int64) {
	if s := o.opts.Stats; s != nil {
		s.Bytes.Add(bytes)
		s.Writes.Add(writes)
	}
}

func (p *Options) maxBytes() int {
	if p.MaxBytes > 0 {
		return p.MaxBytes
	}
	return DefaultMaxBytes
}

func (p *Options) maxAge() time.Duration {
	if p.MaxAge > 0 {
		return p.MaxAge
	}
	return DefaultMaxAge
}
