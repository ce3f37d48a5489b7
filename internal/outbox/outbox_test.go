package outbox_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
)

// fake is a stream with room for so many bytes, which a test grants.
type fake struct {
	mu       sync.Mutex
	room     int
	got      []byte
	wait     func()
	writes   int
	busy     bool // someone is writing: a second would be an error
	overlap  bool
	closed   bool
	shut     bool
	writeErr error
	onWrite  func() // called in the midst of a write
}

func (f *fake) TryWrite(b []byte) (int, error) {
	n, err := f.TryWritev([][]byte{b})
	return int(n), err
}

func (f *fake) TryWritev(bufs [][]byte) (int64, error) {
	f.mu.Lock()
	f.overlap = f.overlap || f.busy || f.wait != nil
	f.busy = true
	hook := f.onWrite
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
	f.writes++
	if f.closed {
		return 0, net.ErrClosed
	}
	if f.writeErr != nil {
		return 0, f.writeErr
	}
	var n int64
	for _, b := range bufs {
		m := min(len(b), f.room)
		f.got = append(f.got, b[:m]...)
		f.room -= m
		n += int64(m)
		if m < len(b) {
			break
		}
	}
	return n, nil
}

func (f *fake) WhenWritable(w func()) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		go w()
		return
	}
	f.wait = w
	f.mu.Unlock()
}

// grant makes room and lets the one who waits go on, on this goroutine.
func (f *fake) grant(n int) {
	f.mu.Lock()
	f.room += n
	w := f.wait
	f.wait = nil
	f.mu.Unlock()
	if w != nil {
		w()
	}
}

func (f *fake) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.grant(0)
	return nil
}
func (f *fake) Abort() error { return f.Close() }
func (f *fake) CloseWrite() error {
	f.mu.Lock()
	f.shut = true
	f.mu.Unlock()
	return nil
}

func (f *fake) written() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.got)
}

// owner remembers what it was told.
type owner struct {
	mu     sync.Mutex
	slow   []outbox.Reason
	failed []error
}

func (w *owner) Slow(r outbox.Reason) {
	w.mu.Lock()
	w.slow = append(w.slow, r)
	w.mu.Unlock()
}
func (w *owner) Failed(err error) {
	w.mu.Lock()
	w.failed = append(w.failed, err)
	w.mu.Unlock()
}

func expect(t *testing.T, f *fake, want string) {
	t.Helper()
	if got := f.written(); got != want {
		t.Fatalf("written %q, want %q", got, want)
	}
}

const plenty = 1 << 40

func TestPutWritesAtOnceAndQueueWaitsForFlush(t *testing.T) {
	f := &fake{room: plenty}
	o := outbox.New(f, &outbox.Options{}, nil)
	o.Put([]byte("a"))
	expect(t, f, "a")
	o.Queue([]byte("b"))
	o.Queue([]byte("c"))
	expect(t, f, "a")
	o.Put([]byte("d")) // takes along what waits
	expect(t, f, "abcd")
	if f.writes != 2 {
		t.Fatalf("%d writes", f.writes)
	}
	o.Queue([]byte("e"))
	o.Flush()
	o.Flush()
	expect(t, f, "abcde")
}

func TestPutOnAnIdleOutboxAllocatesNothing(t *testing.T) {
	f := &discard{}
	o := outbox.New(f, &outbox.Options{Stats: new(outbox.Stats), Budget: outbox.NewBudget(1 << 20), Wheel: socket.NewWheel()}, nil)
	b := []byte("frame")
	if n := testing.AllocsPerRun(1000, func() { o.Put(b) }); n != 0 {
		t.Fatalf("%v allocations per Put", n)
	}
	var g outbox.Gate
	if n := testing.AllocsPerRun(1000, func() { o.PutGate(&g, b, false) }); n != 0 {
		t.Fatalf("%v allocations per PutGate", n)
	}
}

// discard is a stream that takes everything.
type discard struct{ fake }

func (d *discard) TryWrite(b []byte) (int, error) { return len(b), nil }

func TestWhatAShortWriteLeftIsWrittenInOrder(t *testing.T) {
	f := &fake{room: 3}
	stats := new(outbox.Stats)
	o := outbox.New(f, &outbox.Options{Stats: stats}, nil)
	o.Put([]byte("hello"))
	o.Put([]byte(" "))
	o.Put([]byte("world"))
	expect(t, f, "hel")
	if n := o.Queued(); n != 8 {
		t.Fatalf("%d bytes queued", n)
	}
	for range 8 {
		f.grant(1)
	}
	expect(t, f, "hello world")
	if o.Queued() != 0 || stats.Bytes.Load() != 11 || stats.Buffers.Load() != 3 {
		t.Fatalf("queued %d, stats %d bytes %d buffers", o.Queued(), stats.Bytes.Load(), stats.Buffers.Load())
	}
}

func TestWhatIsPutDuringAWriteFollowsInOneVectoredWrite(t *testing.T) {
	f := &fake{room: plenty}
	o := outbox.New(f, &outbox.Options{}, nil)
	first := true
	f.onWrite = func() {
		if first {
			first = false
			for i := range 3000 {
				o.Put([]byte{byte('a' + i%26)})
			}
		}
	}
	o.Put([]byte("!"))
	if got := f.written(); len(got) != 3001 || got[:4] != "!abc" {
		t.Fatalf("%d bytes", len(got))
	}
	if f.writes != 4 { // one, then at most 1,024 buffers each
		t.Fatalf("%d writes", f.writes)
	}
}

func TestTheRestOfAShortWriteDoesNotPinTheSharedBuffer(t *testing.T) {
	f := &fake{room: (1 << 20) - 10}
	o := outbox.New(f, &outbox.Options{}, nil)
	freed := make(chan struct{})
	func() {
		shared := make([]byte, 1<<20)
		runtime.AddCleanup(&shared[0], func(int) { close(freed) }, 0)
		o.Put(shared)
	}()
	if n := o.Queued(); n != 10 {
		t.Fatalf("%d bytes queued", n)
	}
	for end := time.Now().Add(time.Minute); ; {
		runtime.GC()
		select {
		case <-freed:
			runtime.KeepAlive(o)
			return
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatal("still pinned")
		}
	}
}

func TestTooManyBytesBreakTheOutboxOnce(t *testing.T) {
	f := &fake{}
	w := &owner{}
	budget := outbox.NewBudget(1 << 30)
	o := outbox.New(f, &outbox.Options{MaxBytes: 100, Budget: budget}, w)
	for range 11 {
		o.Put(make([]byte, 10))
	}
	if len(w.slow) != 1 || w.slow[0] != outbox.TooMuch || o.Queued() != 0 || budget.Used() != 0 {
		t.Fatalf("told %v, %d bytes queued, budget %d", w.slow, o.Queued(), budget.Used())
	}
	o.Put(make([]byte, 1000))
	o.Queue(make([]byte, 1000))
	f.grant(plenty)
	if len(w.slow) != 1 || f.written() != "" {
		t.Fatalf("told %v, wrote %q", w.slow, f.written())
	}
}

func TestOneBufferBeyondTheBoundIsFineIfTheSocketTakesIt(t *testing.T) {
	f := &fake{room: plenty}
	w := &owner{}
	o := outbox.New(f, &outbox.Options{MaxBytes: 100}, w)
	o.Put(make([]byte, 500))
	o.Queue(make([]byte, 500))
	o.Flush()
	if len(f.got) != 1000 || len(w.slow) != 0 {
		t.Fatalf("%d bytes, %v", len(f.got), w.slow)
	}
	f.room = 300
	o.Put(make([]byte, 500))
	if len(w.slow) != 1 {
		t.Fatal("200 bytes wait where 100 may")
	}
}

func TestBytesThatWaitWithoutProgressBreakTheOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wheel := socket.NewWheel()
		ctx, cancel := context.WithCancel(t.Context())
		go wheel.Run(ctx)
		defer synctest.Wait()
		defer cancel()
		f := &fake{room: 1}
		w := &owner{}
		o := outbox.New(f, &outbox.Options{MaxAge: 30 * time.Second, Wheel: wheel}, w)
		o.Put([]byte("abc"))
		time.Sleep(29 * time.Second)
		if o.Overdue() {
			t.Fatal("too early")
		}
		f.grant(1) // progress
		time.Sleep(29 * time.Second)
		if o.Overdue() || o.Stuck() < 28*time.Second {
			t.Fatalf("too early, or stuck for %v", o.Stuck())
		}
		time.Sleep(2 * time.Second)
		if !o.Overdue() || o.Overdue() || len(w.slow) != 1 || w.slow[0] != outbox.TooLong {
			t.Fatalf("told %v", w.slow)
		}
	})
}

func TestTheLargestOutboxBreaksFirstWhenTheBudgetIsExceeded(t *testing.T) {
	budget := outbox.NewBudget(1000)
	opts := &outbox.Options{Budget: budget}
	var owners [5]owner
	var boxes [5]*outbox.Outbox
	for i := range boxes {
		boxes[i] = outbox.New(&fake{}, opts, &owners[i])
		boxes[i].Put(make([]byte, 100*(i+1)-1)) // 99, 199, 299, 399: 996
		if i == 3 {
			break
		}
	}
	if budget.Used() != 996 {
		t.Fatalf("%d used", budget.Used())
	}
	boxes[0].Put(make([]byte, 5)) // 1001
	if len(owners[3].slow) != 1 || owners[3].slow[0] != outbox.OverBudget {
		t.Fatalf("told %v", owners[3].slow)
	}
	if budget.Used() != 602 || boxes[0].Queued() != 104 {
		t.Fatalf("%d used", budget.Used())
	}
	for i := range 3 {
		if len(owners[i].slow) != 0 {
			t.Fatalf("outbox %d broke too", i)
		}
		boxes[i].Close()
	}
	if budget.Used() != 0 {
		t.Fatalf("%d used after all closed", budget.Used())
	}
}

func TestNothingPrecedesAttachedOrFollowsDetached(t *testing.T) {
	f := &fake{room: plenty}
	o := outbox.New(f, &outbox.Options{MaxBytes: 100}, nil)
	var g outbox.Gate
	o.Hold(&g)
	o.PutGate(&g, []byte("1"), false)
	o.PutGate(&g, []byte("2"), true)
	o.Put([]byte("x"))
	expect(t, f, "x")
	if o.Queued() != 2 {
		t.Fatalf("%d bytes queued", o.Queued())
	}
	o.Release(&g, []byte("["), []byte("0"))
	expect(t, f, "x[012")
	o.PutGate(&g, []byte("3"), true)
	expect(t, f, "x[012")
	o.PutGate(&g, []byte("4"), false)
	expect(t, f, "x[01234")
	o.End(&g, []byte("]"))
	if o.PutGate(&g, []byte("5"), false) {
		t.Fatal("accepted after the end")
	}
	o.Release(&g, []byte("["))
	expect(t, f, "x[01234]")
	o.Hold(&g) // attached anew
	o.PutGate(&g, []byte("6"), false)
	o.End(&g, []byte("|"))
	o.Hold(&g)
	o.Release(&g, []byte("["))
	o.PutGate(&g, []byte("7"), false)
	expect(t, f, "x[01234]|[7")
	if o.Queued() != 0 {
		t.Fatalf("%d bytes queued", o.Queued())
	}
}

func TestAPauseHoldsAnAttachmentThatGoesOnAndNoOther(t *testing.T) {
	f := &fake{room: plenty}
	o := outbox.New(f, &outbox.Options{MaxBytes: 100}, nil)
	var g outbox.Gate
	o.PutGate(&g, []byte("1"), false)
	for range 2 { // the second changes nothing
		if !o.Pause(&g) {
			t.Fatal("not paused")
		}
	}
	o.PutGate(&g, []byte("2"), false)
	expect(t, f, "1")
	o.Release(&g, []byte("["))
	expect(t, f, "1[2")
	if !o.Pause(&g) {
		t.Fatal("not paused")
	}
	o.PutGate(&g, []byte("3"), false)
	o.End(&g, []byte("]"))
	if o.Pause(&g) {
		t.Fatal("paused after the end")
	}
	o.Release(&g, []byte("["))
	o.PutGate(&g, []byte("4"), false)
	expect(t, f, "1[2]")
	if o.Queued() != 0 {
		t.Fatalf("%d bytes queued", o.Queued())
	}
}

func TestHeldBytesCountAgainstTheBounds(t *testing.T) {
	f := &fake{room: plenty}
	w := &owner{}
	budget := outbox.NewBudget(1 << 20)
	o := outbox.New(f, &outbox.Options{MaxBytes: 100, Budget: budget}, w)
	var g outbox.Gate
	o.Hold(&g)
	o.PutGate(&g, make([]byte, 60), false)
	if budget.Used() != 60 {
		t.Fatalf("%d used", budget.Used())
	}
	o.End(&g, []byte("]"))
	if budget.Used() != 0 {
		t.Fatalf("%d used after End", budget.Used())
	}
	o.Hold(&g)
	o.PutGate(&g, make([]byte, 60), false)
	o.PutGate(&g, make([]byte, 60), false)
	if len(w.slow) != 1 || budget.Used() != 0 {
		t.Fatalf("told %v, %d used", w.slow, budget.Used())
	}
	if o.PutGate(&g, make([]byte, 60), false) {
		t.Fatal("accepted after breaking")
	}
}

func TestFinishWritesWhatWaitsThenEndsTheStream(t *testing.T) {
	f := &fake{room: 1}
	o := outbox.New(f, &outbox.Options{}, nil)
	o.Put([]byte("ab"))
	o.Finish([]byte("c"), outbox.ThenCloseWrite)
	o.Put([]byte("d"))
	if f.shut || f.closed {
		t.Fatal("ended before everything was written")
	}
	f.grant(10)
	expect(t, f, "abc")
	if !f.shut || f.closed {
		t.Fatal("the writing side should have ended")
	}
	o.CloseAfterFlush([]byte("e")) // asks for more than before, sends nothing
	expect(t, f, "abc")
	if !f.closed {
		t.Fatal("the stream should have closed")
	}
}

func TestAFailedWriteIsToldAndClosesTheStream(t *testing.T) {
	broken := errors.New("broken pipe")
	f := &fake{writeErr: broken}
	w := &owner{}
	o := outbox.New(f, &outbox.Options{}, w)
	o.Put([]byte("a"))
	o.Put([]byte("b"))
	if len(w.failed) != 1 || w.failed[0] != broken || !f.closed || o.Queued() != 0 {
		t.Fatalf("told %v, closed %v, queued %d", w.failed, f.closed, o.Queued())
	}
}

// Many put, queue and flush at once while room comes in dribs and drabs: every stream of numbers
// must arrive complete and in order, and never may two write at a time.
func TestConcurrentPutsKeepEachPuttersOrder(t *testing.T) {
	for seed := range uint64(20) {
		f := &fake{}
		o := outbox.New(f, &outbox.Options{MaxBytes: 1 << 30, Budget: outbox.NewBudget(1 << 40)}, nil)
		const putters, each = 8, 500
		var wg sync.WaitGroup
		for p := range putters {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(p)))
				var g outbox.Gate
				for i := range each {
					b := binary.BigEndian.AppendUint32([]byte{byte(p)}, uint32(i))
					switch r.IntN(5) {
					case 0:
						o.Put(b)
					case 1:
						o.Queue(b)
					case 2:
						o.PutGate(&g, b, true)
					case 3:
						o.PutGate(&g, b, false)
					case 4:
						o.Hold(&g)
						o.PutGate(&g, b, false)
						o.Release(&g)
					}
				}
				o.Flush()
			})
		}
		done := make(chan struct{})
		go func() {
			r := rand.New(rand.NewPCG(seed, 99))
			for len(f.written()) < putters*each*5 {
				f.grant(r.IntN(300))
				runtime.Gosched()
			}
			close(done)
		}()
		wg.Wait()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("only %d bytes written, %d queued", len(f.written()), o.Queued())
		}
		var next [putters]uint32
		for b := f.got; len(b) > 0; b = b[5:] {
			if n := binary.BigEndian.Uint32(b[1:]); n != next[b[0]] {
				t.Fatalf("putter %d: %d, want %d", b[0], n, next[b[0]])
			}
			next[b[0]]++
		}
		if f.overlap {
			t.Fatal("two wrote at once")
		}
	}
}

// Outboxes break, close and finish at any moment; whatever happens the budget's books must balance.
func TestTheBudgetBalancesUnderChurn(t *testing.T) {
	budget := outbox.NewBudget(20_000)
	opts := &outbox.Options{MaxBytes: 2000, Budget: budget}
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(p)))
			for range 200 {
				f := &fake{room: r.IntN(500)}
				w := &owner{}
				o := outbox.New(f, opts, w)
				var g outbox.Gate
				var inner sync.WaitGroup
				for range 3 {
					seed := r.Uint64()
					inner.Go(func() {
						r := rand.New(rand.NewPCG(seed, 0))
						for range 20 {
							switch r.IntN(9) {
							case 0, 1:
								o.Put(make([]byte, r.IntN(300)))
							case 2:
								o.Queue(make([]byte, r.IntN(300)))
							case 3:
								o.Hold(&g)
							case 4:
								o.PutGate(&g, make([]byte, r.IntN(300)), false)
							case 5:
								o.Release(&g, []byte("["))
							case 6:
								o.End(&g, []byte("]"))
							case 7:
								f.grant(r.IntN(200))
							case 8:
								o.Overdue()
							}
						}
					})
				}
				inner.Wait()
				if r.IntN(2) == 0 {
					o.CloseAfterFlush([]byte("end"))
					f.grant(plenty)
				}
				o.Close()
				if o.Queued() != 0 || len(w.slow)+len(w.failed) > 1 {
					t.Errorf("%d bytes queued after Close, told %v %v", o.Queued(), w.slow, w.failed)
				}
			}
		})
	}
	wg.Wait()
	if budget.Used() != 0 {
		t.Fatalf("%d used when all are closed", budget.Used())
	}
}

func TestReasonsHaveWords(t *testing.T) {
	for _, r := range []outbox.Reason{0, outbox.TooMuch, outbox.TooLong, outbox.OverBudget} {
		if s := fmt.Sprint(r); strings.ContainsAny(s, "0123456789") {
			t.Errorf("%q", s)
		}
	}
}

func BenchmarkPutInline(b *testing.B) {
	o := outbox.New(&discard{}, &outbox.Options{Stats: new(outbox.Stats), Budget: outbox.NewBudget(1 << 20), Wheel: socket.NewWheel()}, nil)
	frame := bytes.Repeat([]byte("x"), 300)
	b.ReportAllocs()
	for b.Loop() {
		o.Put(frame)
	}
}

func TestBytesThatAreUsedAgainAreCopiedUnlessTheyWereWritten(t *testing.T) {
	f := &fake{room: 3}
	o := outbox.New(f, &outbox.Options{}, nil)
	var want strings.Builder
	b := make([]byte, 0, 4<<10)
	put := func(call func([]byte), n int) {
		b = b[:0]
		for range n {
			b = append(b, byte('a'+want.Len()%26))
			want.WriteByte(b[len(b)-1])
		}
		call(b)
		clear(b)
	}
	put(o.PutCopy, 2)
	expect(t, f, want.String())
	for _, n := range []int{2, 1, 0, 700, 600, 1 << 10, 4 << 10, 5} { // into one chunk, into more, and beyond one
		put(o.QueueCopy, n)
		put(o.PutCopy, n)
	}
	f.grant(plenty)
	expect(t, f, want.String())
	put(o.QueueCopy, 6) // the chunk again
	put(o.QueueCopy, 7)
	o.Flush()
	expect(t, f, want.String())
}

func TestCopiesForAnIdleOutboxAllocateNothing(t *testing.T) {
	o := outbox.New(&discard{}, &outbox.Options{Stats: new(outbox.Stats), Budget: outbox.NewBudget(1 << 20), Wheel: socket.NewWheel()}, nil)
	b := []byte("frame")
	// What the collector takes from a pool meanwhile is no promise broken.
	if n := testing.AllocsPerRun(1000, func() { o.QueueCopy(b); o.Flush(); o.PutCopy(b) }); n >= 1 && !raceEnabled {
		t.Fatalf("%v allocations", n)
	}
}
