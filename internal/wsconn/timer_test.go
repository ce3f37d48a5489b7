package wsconn_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
	"letshare-server/internal/wsconn"
)

// bubble is one connection over a pipe, in time that a test makes pass.
type bubble struct {
	*peer
	c      *wsconn.Conn
	begin  time.Time
	mu     sync.Mutex
	frames []stamped // what the peer got
	end    *wsconn.End
	ended  time.Duration
	idle   [][2]time.Duration
}

type stamped struct {
	at time.Duration
	frame
}

func (b *bubble) Opened(c *wsconn.Conn)         { b.c = c }
func (b *bubble) Message(socket.Opcode, []byte) {}
func (b *bubble) TurnEnd()                      {}
func (b *bubble) Closed(end wsconn.End) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end, b.ended = &end, time.Since(b.begin)
}
func (b *bubble) Idle(sinceWrite, sinceRead time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = append(b.idle, [2]time.Duration{sinceWrite, sinceRead})
}

// listen reads and notes frames, and answers with what answer says.
func (b *bubble) listen(answer func(f frame) []byte) {
	buf := make([]byte, 4096)
	for {
		n, err := b.conn.Read(buf)
		if err != nil {
			return
		}
		b.got = nil
		if err := b.asm.Feed(buf[:n], b.peer); err != nil {
			b.t.Error(err)
			return
		}
		for _, f := range b.got {
			b.mu.Lock()
			b.frames = append(b.frames, stamped{time.Since(b.begin), f})
			b.mu.Unlock()
			if answer != nil {
				if a := answer(f); a != nil {
					if _, err := b.conn.Write(a); err != nil {
						return
					}
				}
			}
		}
	}
}

func (b *bubble) of(op socket.Opcode) (at []time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.frames {
		if f.op == op {
			at = append(at, f.at)
		}
	}
	return at
}

func inBubble(t *testing.T, settings wsconn.Settings, f func(b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		poller, wheel := socket.NewPoller(socket.PollerOptions{}), socket.NewWheel()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = poller.Run(ctx) })
		wg.Go(func() { _ = wheel.Run(ctx) })
		near, far := net.Pipe()
		b := &bubble{begin: time.Now(), peer: &peer{t: t, conn: far, asm: socket.NewAssembler(&socket.AssemblerOptions{Client: true})}}
		if _, err := wsconn.NewServer(poller, wheel, settings).Serve(&socket.Opening{Conn: near}, b); err != nil {
			t.Fatal(err)
		}
		f(b)
		_ = far.Close()
		cancel()
		wg.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.end == nil {
			t.Error("Closed was not called")
		}
	})
}

func near(got, want, tolerance time.Duration) bool {
	return got >= want-tolerance && got <= want+tolerance
}

func TestASilentPeerThatAnswersPingsLivesForEver(t *testing.T) {
	inBubble(t, wsconn.Settings{}, func(b *bubble) {
		go b.listen(func(f frame) []byte {
			if f.op == socket.OpPing {
				return masked(socket.OpPong, f.payload)
			}
			return nil
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		if b.end != nil {
			t.Fatalf("ended after %v: %+v", b.ended, *b.end)
		}
		pings := b.of(socket.OpPing)
		for i, at := range pings {
			if i > 0 && at-pings[i-1] > 26*time.Second {
				t.Fatalf("%v between pings", at-pings[i-1])
			}
		}
		if n := len(pings); n < 135 || n > 145 {
			t.Fatalf("%d pings in an hour", n)
		}
		if len(b.idle) < 100 {
			t.Fatalf("Idle was called %d times in an hour", len(b.idle))
		}
	})
}

func TestAPeerThatAnswersNothingIsClosed(t *testing.T) {
	inBubble(t, wsconn.Settings{}, func(b *bubble) {
		go b.listen(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if b.end == nil || b.end.Cause != wsconn.Silent || b.ended < 60*time.Second || b.ended > 100*time.Second {
			t.Fatalf("ended after %v: %+v", b.ended, b.end)
		}
		if n := len(b.of(socket.OpPing)); n != 2 {
			t.Errorf("%d pings", n)
		}
		if n := len(b.of(socket.OpClose)); n != 1 {
			t.Errorf("%d close frames", n)
		}
	})
}

func TestTheGapBetweenFramesNeverExceedsTheHeartbeatInterval(t *testing.T) {
	heartbeat := socket.AppendFrame(nil, socket.OpText, []byte("beat"))
	inBubble(t, wsconn.Settings{HeartbeatInterval: 15 * time.Second, Heartbeat: heartbeat, PongTimeout: -1}, func(b *bubble) {
		go b.listen(nil)
		for i := range 200 { // traffic at odd times
			time.Sleep(time.Duration(i*i%37) * time.Second / 2)
			b.c.Outbox().Put(socket.AppendFrame(nil, socket.OpText, []byte("news")))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		last := time.Duration(0)
		texts := b.of(socket.OpText)
		for _, at := range texts {
			if at-last > 15*time.Second {
				t.Fatalf("nothing from %v to %v", last, at)
			}
			last = at
		}
		if time.Since(b.begin)-last > 15*time.Second {
			t.Fatalf("nothing since %v", last)
		}
		beats := 0
		for _, f := range b.frames {
			if f.payload == "beat" {
				beats++
			}
		}
		if beats > int(time.Since(b.begin)/(13*time.Second)) {
			t.Fatalf("%d heartbeats in %v", beats, time.Since(b.begin))
		}
	})
}

func TestAHalfReadMessageHasADeadline(t *testing.T) {
	inBubble(t, wsconn.Settings{}, func(b *bubble) {
		go b.listen(nil)
		time.Sleep(20 * time.Second)
		b.write(masked(socket.OpText, "whole"))
		time.Sleep(20 * time.Second)
		half := masked(socket.OpText, strings.Repeat("x", 1000))
		began := time.Since(b.begin)
		for i := 0; i < 29; i++ { // byte by byte is no excuse
			b.write(half[i : i+1])
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if b.end != nil || len(b.of(socket.OpClose)) != 0 {
			t.Fatalf("ended after %v: %+v", b.ended, b.end)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		closes := b.of(socket.OpClose)
		if len(closes) != 1 || !near(closes[0]-began, 30*time.Second, 500*time.Millisecond) {
			t.Fatalf("closed at %v after %v", closes, began)
		}
		if b.end == nil || b.end.Cause != wsconn.Stalled {
			t.Fatalf("ended with %+v", b.end)
		}
	})
}

func TestAPeerThatTakesNothingForMaxAgeIsCutOff(t *testing.T) {
	inBubble(t, wsconn.Settings{Outbox: outbox.Options{MaxAge: 30 * time.Second}}, func(b *bubble) {
		stop := make(chan struct{})
		go func() { // it sends, but does not read
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
				if _, err := b.conn.Write(masked(socket.OpPong, "")); err != nil {
					return
				}
			}
		}()
		time.Sleep(10 * time.Second)
		began := time.Since(b.begin)
		for range 4 {
			b.c.Outbox().Put(make([]byte, 100<<10))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.end == nil || b.end.Cause != wsconn.Slow || b.end.Slow != outbox.TooLong || !near(b.ended-began, 30*time.Second, 500*time.Millisecond) {
			t.Fatalf("ended after %v: %+v", b.ended-began, b.end)
		}
		close(stop)
	})
}

func TestACloseFrameUnansweredEndsInTime(t *testing.T) {
	inBubble(t, wsconn.Settings{}, func(b *bubble) {
		go b.listen(nil)
		time.Sleep(24 * time.Second)
		began := time.Since(b.begin)
		b.c.Close(1012, "restart")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if b.end == nil || b.end.Cause != wsconn.ServerClosed || !near(b.ended-began, 3*time.Second, 300*time.Millisecond) {
			t.Fatalf("ended after %v: %+v", b.ended-began, b.end)
		}
	})
}

func TestAbortEndsAtOnce(t *testing.T) {
	inBubble(t, wsconn.Settings{}, func(b *bubble) {
		b.c.Abort()
		synctest.Wait()
		if b.end == nil || b.end.Cause != wsconn.ServerClosed || b.ended != 0 {
			t.Fatalf("ended after %v: %+v", b.ended, b.end)
		}
	})
}
