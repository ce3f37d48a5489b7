package wsconn_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
	"letshare-server/internal/wsconn"
)

// room is a door that gives every message to everyone.
type room struct {
	mu      sync.Mutex
	members []*roomMember
	ends    chan wsconn.End
}

type roomMember struct {
	r *room
	c *wsconn.Conn
}

func (m *roomMember) Opened(c *wsconn.Conn) {
	m.c = c
	m.r.mu.Lock()
	m.r.members = append(m.r.members, m)
	m.r.mu.Unlock()
}
func (m *roomMember) Message(op socket.Opcode, b []byte) { m.r.publish(socket.AppendFrame(nil, op, b)) }
func (m *roomMember) TurnEnd()                           {}
func (m *roomMember) Closed(end wsconn.End)              { m.r.ends <- end }

func (r *room) publish(frame []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		m.c.Outbox().Put(frame)
	}
}

func (r *room) wait(t *testing.T, n int) {
	t.Helper()
	await(t, "everybody", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.members) == n
	})
}

func TestAPeerThatStopsReadingDelaysNobodyAndIsCutOffAtTheBound(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		budget := outbox.NewBudget(1 << 30)
		stats := new(outbox.Stats)
		r := &room{ends: make(chan wsconn.End, 100)}
		h := serveOn(t, on, wsconn.Settings{Outbox: outbox.Options{MaxBytes: 1 << 20, Budget: budget, Stats: stats}}, func(chan<- wsconn.End) wsconn.Handler {
			return &roomMember{r: r}
		})
		slow := dial(t, h.addr)
		_ = slow.conn.(*net.TCPConn).SetReadBuffer(4096)
		r.wait(t, 1)
		var readers sync.WaitGroup
		const n, each = 10, 2000
		for range n {
			p := dial(t, h.addr)
			readers.Go(func() {
				for want := range uint64(each) {
					f, ok := p.next()
					if !ok || binary.BigEndian.Uint64([]byte(f.payload)) != want {
						t.Errorf("message %d missing", want)
						return
					}
				}
			})
		}
		r.wait(t, 1+n)
		payload := make([]byte, 4096)
		for i := range uint64(each) {
			binary.BigEndian.PutUint64(payload, i)
			began := time.Now()
			r.publish(socket.AppendFrame(nil, socket.OpBinary, payload))
			if d := time.Since(began); d > 20*time.Second {
				t.Fatalf("a publish took %v", d)
			}
			for _, m := range r.members[1:] { // readers on a busy machine are not slow
				await(t, "those who read", func() bool { return m.c.Outbox().Queued() < 256<<10 })
			}
		}
		readers.Wait()
		if e := <-r.ends; e.Cause != wsconn.Slow || e.Slow != outbox.TooMuch {
			t.Fatalf("ended with %+v", e)
		}
		// Whoever wrote the last bytes may not have come to tell the budget yet.
		await(t, "the budget to be free again", func() bool { return budget.Used() == 0 })
		if n := r.members[0].c.Outbox().Queued(); n != 0 || stats.Broken.Load() != 1 {
			t.Fatalf("%d bytes are queued, %d broken", n, stats.Broken.Load())
		}
	})
}

func TestMemoryOfSlowPeersIsFreed(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		r := &room{ends: make(chan wsconn.End, 100)}
		h := serveOn(t, on, wsconn.Settings{Outbox: outbox.Options{MaxBytes: 8 << 20}}, func(chan<- wsconn.End) wsconn.Handler {
			return &roomMember{r: r}
		})
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		const n = 5
		for range n {
			dial(t, h.addr)
		}
		r.wait(t, n)
		before := heap()
		for len(r.ends) < n {
			r.publish(make([]byte, 256<<10))
		}
		await(t, "the memory to be free", func() bool { return heap() <= before+4<<20 })
	})
}

var churn = flag.Int("churn", 1800, "connections that come and go")

// Connections come, talk and go in every way there is; each must end once, and nothing be left.
func TestConnectionsStandChurn(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		h := serveOn(t, on, wsconn.Settings{CloseTimeout: 300 * time.Millisecond, Assembler: socket.AssemblerOptions{MaxMessageBytes: 2000}}, func(ends chan<- wsconn.End) wsconn.Handler {
			return &visitor{echo: echo{ended: ends}}
		})
		const drivers = 6
		each := *churn / drivers
		if testing.Short() {
			each = min(each, 50)
		}
		var wg sync.WaitGroup
		var opened atomic.Int64
		for d := range drivers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(d), 3))
				for range each {
					visit(t, h, rng)
					opened.Add(1)
				}
			})
		}
		wg.Wait()
		for range opened.Load() {
			h.end(t)
		}
		await(t, "an empty poller", func() bool { return h.poller.Len() == 0 })
		if n := h.wheel.Len(); n != 0 {
			t.Fatalf("%d timers left", n)
		}
		if len(h.ends) != 0 {
			t.Fatalf("%d connections ended twice", len(h.ends))
		}
	})
}

// visitor echoes, and does what its messages ask.
type visitor struct{ echo }

func (v *visitor) Message(op socket.Opcode, b []byte) {
	switch {
	case bytes.HasPrefix(b, []byte("close")):
		v.c.Close(4001, "as you wish")
	case bytes.HasPrefix(b, []byte("abort")):
		go v.c.Abort()
	default:
		v.echo.Message(op, b)
	}
}

func visit(t *testing.T, h *host, rng *rand.Rand) {
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	b := []byte(handshake)
	text := bytes.Repeat([]byte("t"), rng.IntN(1500))
	for range rng.IntN(4) {
		b = append(b, masked(socket.OpText, string(text))...)
	}
	how := rng.IntN(7)
	switch how {
	case 0: // goes in the midst of a frame
		b = append(b, masked(socket.OpText, "half")[:7]...)
	case 1:
		b = append(b, masked(socket.OpClose, "\x03\xe8")...)
	case 2:
		b = append(b, masked(socket.OpText, "close")...)
		b = append(b, masked(socket.OpClose, "\x0f\xa1")...)
	case 3:
		b = append(b, masked(socket.OpText, "abort")...)
	case 4:
		b = append(b, 0xff, 0xff)
	case 5:
		b = append(b, masked(socket.OpText, string(make([]byte, 3000)))...)
	}
	if rng.IntN(2) == 0 {
		_, _ = conn.Write(b)
	} else {
		cut := len(handshake) + rng.IntN(len(b)-len(handshake)+1)
		_, _ = conn.Write(b[:cut])
		_, _ = conn.Write(b[cut:])
	}
	switch how {
	case 0, 6: // wait for the answer to the handshake, then go
		if _, err := conn.Read(make([]byte, 64)); err != nil {
			t.Error(err)
		}
	default:
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("way %d: %v", how, err)
		}
	}
}

func TestManyTalkInOneRoomAtOnce(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		r := &room{ends: make(chan wsconn.End, 100)}
		h := serveOn(t, on, wsconn.Settings{}, func(chan<- wsconn.End) wsconn.Handler {
			return &roomMember{r: r}
		})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		const n, each = 20, 50
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				c, _, err := websocket.Dial(ctx, h.url, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.CloseNow()
				r.wait(t, n)
				wg.Go(func() {
					for k := range each {
						_ = c.Write(ctx, websocket.MessageBinary, []byte{byte(i), byte(k)})
					}
				})
				var next [n]byte
				for range n * each {
					_, b, err := c.Read(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					if b[1] != next[b[0]] {
						t.Errorf("member %d: %d from %d, want %d", i, b[1], b[0], next[b[0]])
						return
					}
					next[b[0]]++
				}
				_ = c.Close(websocket.StatusNormalClosure, "")
			})
		}
		wg.Wait()
	})
}
