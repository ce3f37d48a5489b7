package socket_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"letshare-server/internal/socket"
)

var schedules = flag.Int("schedules", 60, "random schedules that the layers are compared by")

// The same random schedule of frames, splits, stalls, ends and resets has the same outcome on each
// implementation for plain TCP: the same bytes and messages, the same order of calls, the same
// errors.
func TestTheLayersCannotBeToldApart(t *testing.T) {
	n := *schedules
	if testing.Short() {
		n = min(n, 50)
	}
	for seed := range uint64(n) {
		want, got := follow(t, parkedKind, seed), follow(t, epollKind, seed)
		if !slices.Equal(want, got) {
			t.Fatalf("schedule %d\n%s:\n\t%s\n%s:\n\t%s", seed,
				"parked", strings.Join(want, "\n\t"), "epoll", strings.Join(got, "\n\t"))
		}
		if t.Failed() {
			return
		}
	}
}

// script is one connection that follows a schedule, and the log of what came of it. What depends
// on timing (how bytes are cut into readings) is not in the log; after every step both sides come
// to rest.
type script struct {
	t      *testing.T
	rng    *rand.Rand
	log    []string
	stop   func() // the poller's end
	client *net.TCPConn
	stream socket.Stream

	sent    int  // bytes that the feeder must see
	written int  // bytes that the client has not read
	next    byte // of the server's bytes, which count up
	expect  byte // of the client's

	mu       sync.Mutex // guards the fields below, which the feeder writes
	fed      int
	sum      uint64
	open     bool // Feed without FeedEnd
	messages []string
	asm      socket.Assembler
	calls    string // one letter for each call since the last rest, runs of F and E joined
	ended    chan error
	onFeed   func() error
	onEnd    func()
}

func (s *script) Feed(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b { // so that the sum does not depend on how bytes are cut
		s.sum = s.sum*31 + uint64(b[i])
	}
	s.fed += len(b)
	s.open = true
	if !strings.HasSuffix(s.calls, "F") {
		s.calls = strings.TrimSuffix(s.calls, "FE") + "F"
	}
	if err := s.asm.Feed(bytes.Clone(b), (*scriptSink)(s)); err != nil {
		s.messages = append(s.messages, err.Error())
		s.asm.Reset()
		return err
	}
	if s.onFeed != nil {
		return s.onFeed()
	}
	return nil
}

func (s *script) FeedEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.calls += "?" // nothing was fed
	}
	s.open = false
	s.calls += "E"
	if s.onEnd != nil {
		s.onEnd()
	}
}

func (s *script) Closed(err error) {
	s.mu.Lock()
	s.calls += "C"
	s.mu.Unlock()
	s.ended <- err
}

type scriptSink script

func (s *scriptSink) Message(op socket.Opcode, b []byte) error {
	s.messages = append(s.messages, fmt.Sprintf("message %d of %d", op, len(b)))
	return nil
}

func (s *scriptSink) Control(op socket.Opcode, b []byte) error {
	s.messages = append(s.messages, fmt.Sprintf("control %d of %d", op, len(b)))
	return nil
}

// do notes what a step did.
func (s *script) do(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// rest waits until everything that was sent has been fed, and notes what that was.
func (s *script) rest() {
	s.t.Helper()
	await(s.t, "all to be fed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fed >= s.sent && !s.open
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.do("  fed %d, sum %x, %v, calls %s, half read %v", s.fed, s.sum, s.messages, s.calls, s.asm.Partial())
	s.messages, s.calls = nil, ""
}

// end waits for Closed, and notes everything that can be seen then.
func (s *script) end(what string) {
	s.t.Helper()
	select {
	case err := <-s.ended:
		s.do("%s: ended with %v", what, err)
	case <-time.After(patience):
		s.t.Fatalf("%s: Closed was not called after\n\t%s", what, strings.Join(s.log, "\n\t"))
	}
	s.mu.Lock()
	s.do("  %d of %d fed, sum %x, %v, calls %s, turn open %v, half read %v", s.fed, s.sent, s.sum, s.messages, s.calls, s.open, s.asm.Partial())
	s.asm.Reset()
	s.mu.Unlock()
	n, err := s.stream.TryWrite([]byte("x"))
	s.do("  write %d %v", n, err)
	n64, err := s.stream.TryWritev([][]byte{{1}, {2}})
	s.do("  writev %d %v", n64, err)
	called := make(chan struct{})
	s.stream.WhenWritable(func() { close(called) })
	<-called
	s.do("  close %v, abort %v, close write %v", s.stream.Close(), s.stream.Abort(), s.stream.CloseWrite())
	if len(s.ended) > 0 {
		s.do("  ended twice")
	}
}

// send writes bytes of the client's.
func (s *script) send(b []byte) {
	s.t.Helper()
	s.sent += len(b)
	if _, err := s.client.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

// frame is a random masked frame.
func (s *script) frame(most int) []byte {
	op := []socket.Opcode{socket.OpText, socket.OpBinary, socket.OpPing}[s.rng.IntN(3)]
	n := s.rng.IntN(most)
	if op == socket.OpPing {
		n %= 126
	}
	return socket.AppendMaskedFrame(nil, op, bytes.Repeat([]byte("m"), n), key(s.rng))
}

func key(rng *rand.Rand) (k [4]byte) {
	for i := range k {
		k[i] = byte(rng.Uint32())
	}
	return k
}

// bytes are the server's next n.
func (s *script) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = s.next
		s.next++
	}
	return b
}

// drain lets the client read what the server has written.
func (s *script) drain() {
	s.t.Helper()
	b := make([]byte, s.written)
	if _, err := io.ReadFull(s.client, b); err != nil {
		s.t.Fatalf("%v after\n\t%s", err, strings.Join(s.log, "\n\t"))
	}
	for i, c := range b {
		if c != s.expect {
			s.t.Fatalf("byte %d is %d, want %d, after\n\t%s", i, c, s.expect, strings.Join(s.log, "\n\t"))
		}
		s.expect++
	}
	s.written = 0
}

// fin is what the client reads at last.
func (s *script) fin() {
	s.t.Helper()
	b, err := io.ReadAll(s.client)
	if errors.Is(err, syscall.ECONNRESET) {
		s.do("  the client reads a reset")
		return
	}
	s.do("  the client reads %d more, %v", len(b)-s.written, err)
}

// block writes until the kernel takes no more, also after a while in which what was under way
// arrived, and asks to be called when it does.
func (s *script) block() (writable chan struct{}) {
	b := s.bytes(64 << 10)
	for full := 0; full < 3; {
		n, err := s.stream.TryWrite(b)
		if err != nil {
			s.t.Fatal(err)
		}
		if n == 0 {
			full++
			time.Sleep(time.Millisecond)
			continue
		}
		full = 0
		s.written += n
		b = append(b[n:], s.bytes(n)...)
	}
	s.next -= byte(len(b)) // those were not written
	writable = make(chan struct{})
	s.stream.WhenWritable(func() { close(writable) })
	return writable
}

func follow(t *testing.T, k kind, seed uint64) []string {
	rng := rand.New(rand.NewPCG(seed, 0))
	s := &script{t: t, rng: rng, ended: make(chan error, 2)}
	s.asm = socket.NewAssembler(&socket.AssemblerOptions{MaxMessageBytes: 64 << 10})
	p := socket.NewPoller(k.with(socket.PollerOptions{ReadBuffer: []int{512, 4096, 16 << 10}[rng.IntN(3)], SendBuffer: 64 << 10}))
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = p.Run(ctx) })
	defer run.Wait()
	defer cancel()
	s.stop = cancel
	server, client := k.pair(t)
	defer client.Close()
	s.client = client.(*net.TCPConn)
	_ = s.client.SetReadBuffer(64 << 10)
	_ = s.client.SetDeadline(time.Now().Add(patience))
	var initial []byte
	if rng.IntN(2) == 0 {
		initial = s.frame(2000)
		s.sent = len(initial)
	}
	s.mu.Lock()
	var err error
	s.stream, err = p.Add(server, initial, s)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for range rng.IntN(12) {
		s.step()
	}
	s.last()
	run.Wait()
	if p.Len() != 0 {
		s.do("%d streams left", p.Len())
	}
	return s.log
}

// step is one that leaves the connection alive.
func (s *script) step() {
	s.t.Helper()
	switch s.rng.IntN(8) {
	case 0, 1: // a frame in pieces, with rests between some
		b := s.frame(40_000)
		s.do("a frame of %d", len(b))
		for len(b) > 0 {
			n := 1 + s.rng.IntN(len(b))
			s.send(b[:n])
			b = b[n:]
			if s.rng.IntN(3) == 0 {
				s.rest()
			}
		}
		s.rest()
	case 2: // several frames in one write
		var b []byte
		for range 1 + s.rng.IntN(20) {
			b = append(b, s.frame(1500)...)
		}
		s.do("frames of %d together", len(b))
		s.send(b)
		s.rest()
	case 3: // urgent bytes are lost and harm nothing
		s.do("urgent bytes")
		b := s.frame(3000)
		cut := s.rng.IntN(len(b))
		s.send(b[:cut])
		raw, err := s.client.SyscallConn()
		if err != nil {
			s.t.Fatal(err)
		}
		if e := raw.Write(func(fd uintptr) bool {
			err = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil)
			return err != syscall.EAGAIN
		}); e != nil || err != nil {
			s.t.Fatal(e, err)
		}
		s.send(b[cut:])
		s.rest()
	case 4:
		n, err := s.stream.TryWrite(s.bytes(s.rng.IntN(8000)))
		s.written += n
		s.do("write %d %v", n, err)
		s.drain()
	case 5:
		var bufs [][]byte
		for range s.rng.IntN(2000) {
			bufs = append(bufs, s.bytes(s.rng.IntN(10)))
		}
		n, err := s.stream.TryWritev(bufs)
		s.written += int(n)
		s.do("writev %d %v", n, err)
		s.drain()
	case 6:
		s.do("block")
		writable := s.block()
		if s.rng.IntN(2) == 0 { // bytes come meanwhile
			s.send(s.frame(3000))
			s.rest()
		}
		s.drain()
		<-writable
	case 7:
		s.do("an echo from within Feed")
		s.mu.Lock()
		s.onFeed = func() error {
			s.onFeed = nil
			n, err := s.stream.TryWrite(s.bytes(100))
			s.written += n
			if err != nil {
				s.t.Error(err)
			}
			return nil
		}
		s.mu.Unlock()
		s.send(s.frame(300))
		s.rest()
		s.drain()
	}
}

var errRefused = errors.New("refused")

// last is a step after which the connection ends.
func (s *script) last() {
	s.t.Helper()
	within := func(what string, f func() error) {
		s.rest()
		s.mu.Lock()
		s.onFeed = f
		s.mu.Unlock()
		s.send(socket.AppendMaskedFrame(nil, socket.OpText, []byte("now"), key(s.rng)))
		s.end(what)
		s.fin()
	}
	how := s.rng.IntN(18)
	if how%2 == 0 && how < 6 { // leave half a frame behind
		s.send(s.frame(1000)[:1])
		s.rest()
	}
	switch how {
	case 0:
		_ = s.client.CloseWrite()
		s.end("the client shuts down")
		s.fin()
	case 1: // bytes and the end at once
		s.send(s.frame(40_000))
		_ = s.client.CloseWrite()
		s.end("bytes and the end")
		s.fin()
	case 2:
		s.rest()
		_ = s.client.SetLinger(0)
		_ = s.client.Close()
		s.end("the client resets")
	case 3:
		s.rest()
		writable := s.block()
		_ = s.client.SetLinger(0)
		_ = s.client.Close()
		<-writable
		s.end("the client resets while its bytes wait")
	case 4:
		s.rest()
		s.do("close %v", s.stream.Close())
		s.end("the server closes")
		s.fin()
	case 5:
		s.rest()
		writable := s.block()
		s.do("close %v", s.stream.Close())
		<-writable
		s.end("the server closes while bytes wait")
		s.fin()
	case 6:
		s.rest()
		s.do("abort %v", s.stream.Abort())
		s.end("the server aborts")
		s.fin()
	case 7:
		s.rest()
		writable := s.block()
		s.do("abort %v", s.stream.Abort())
		<-writable
		s.end("the server aborts while bytes wait")
		s.fin()
	case 8:
		s.do("close write %v", s.stream.CloseWrite())
		s.fin()
		n, err := s.stream.TryWrite([]byte("x"))
		s.do("  write %d %v", n, err)
		s.send(s.frame(3000))
		s.rest()
		_ = s.client.Close()
		s.end("both shut down")
	case 9:
		within("Close within Feed", func() error { s.do("close %v", s.stream.Close()); return nil })
	case 10:
		within("Abort within Feed", func() error { s.do("abort %v", s.stream.Abort()); return nil })
	case 11:
		within("Feed refuses", func() error { return errRefused })
	case 12:
		within("Close within Feed, which refuses", func() error { _ = s.stream.Close(); return errRefused })
	case 13:
		s.rest()
		s.mu.Lock()
		s.onEnd = func() { s.do("close %v", s.stream.Close()) }
		s.mu.Unlock()
		s.send(socket.AppendMaskedFrame(nil, socket.OpText, []byte("now"), key(s.rng)))
		s.end("Close within FeedEnd")
		s.fin()
	case 14:
		s.rest()
		s.stop()
		s.end("the poller ends")
		s.fin()
	case 15:
		s.rest()
		s.send([]byte{0xff, 0xff})
		s.end("no frame")
		s.fin()
	case 16:
		s.rest()
		writable := s.block()
		_ = s.client.CloseWrite()
		<-writable
		s.end("the client shuts down while bytes wait")
		s.fin()
	case 17:
		s.rest()
		writable := s.block()
		s.mu.Lock()
		s.onFeed = func() error { return errRefused }
		s.mu.Unlock()
		s.send(s.frame(100))
		<-writable
		s.end("Feed refuses while bytes wait")
		s.fin()
	}
	s.stop()
}
