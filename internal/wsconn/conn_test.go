package wsconn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
	"letshare-server/internal/wsconn"
)

var sizes = []int{0, 1, 125, 126, 127, 65535, 65536, 500_000}

func TestMessagesOfAllSizesComeBackToAnotherImplementation(t *testing.T) {
	for _, on := range layers {
		t.Run(on.name, func(t *testing.T) { testMessagesOfAllSizes(t, serveEchoOn(t, on, wsconn.Settings{})) })
	}
}

func testMessagesOfAllSizes(t *testing.T, h *host) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, h.url, &websocket.DialOptions{HTTPClient: h.client})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		for _, n := range sizes {
			want := bytes.Repeat([]byte("x"), n)
			if err := c.Write(ctx, kind, want); err != nil {
				t.Fatal(err)
			}
			got, b, err := c.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got != kind || !bytes.Equal(b, want) {
				t.Fatalf("sent %v of %d bytes, got %v of %d", kind, n, got, len(b))
			}
		}
	}
	// A streamed message arrives in fragments.
	w, err := c.Writer(ctx, websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		fmt.Fprint(w, strings.Repeat("y", 10_000))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(ctx); err != nil || len(b) != 100_000 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	c.CloseRead(ctx)
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(4321, "bye"); err != nil {
		t.Fatal(err)
	}
	if e := h.end(t); e.Cause != wsconn.PeerClosed || e.Code != 4321 || e.Reason != "bye" {
		t.Fatalf("ended with %+v", e)
	}
}

func TestServerCloseReachesAnotherImplementation(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		h := serveOn(t, on, wsconn.Settings{}, func(ends chan<- wsconn.End) wsconn.Handler { return &closer{echo{ended: ends}} })
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, _, err := websocket.Dial(ctx, h.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		_ = c.Write(ctx, websocket.MessageText, []byte("go"))
		if _, b, err := c.Read(ctx); err != nil || string(b) != "last" {
			t.Fatalf("%q %v", b, err)
		}
		_, _, err = c.Read(ctx)
		var ce websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != 4000 || ce.Reason != "enough" {
			t.Fatalf("closed with %v", err)
		}
		if e := h.end(t); e.Cause != wsconn.ServerClosed || e.Code != 4000 {
			t.Fatalf("ended with %+v", e)
		}
	})
}

// closer ends the connection at the first message.
type closer struct{ echo }

func (e *closer) Message(socket.Opcode, []byte) {
	e.c.Outbox().Put(socket.AppendFrame(nil, socket.OpText, []byte("last")))
	e.c.Close(4000, "enough")
	e.c.Outbox().Put(socket.AppendFrame(nil, socket.OpText, []byte("too late")))
}

func TestBreachesOfTheProtocolAreToldWithACloseFrame(t *testing.T) {
	big := strings.Repeat("z", 512<<10)
	rsv := masked(socket.OpText, "x")
	rsv[0] |= 0x40
	cases := []struct {
		name string
		send []byte
		code int
	}{
		{"unmasked frame", socket.AppendFrame(nil, socket.OpText, []byte("hi")), 1002},
		{"reserved bit", rsv, 1002},
		{"reserved opcode", masked(3, "x"), 1002},
		{"reserved control opcode", masked(0xB, "x"), 1002},
		{"fragmented ping", fragment(socket.OpPing, false, "x"), 1002},
		{"long ping", masked(socket.OpPing, big[:126]), 1002},
		{"continuation of nothing", fragment(socket.OpContinuation, true, "x"), 1002},
		{"text inside a message", append(fragment(socket.OpText, false, "x"), masked(socket.OpText, "y")...), 1002},
		{"half a close code", masked(socket.OpClose, "\x03"), 1002},
		{"close code 1005", masked(socket.OpClose, "\x03\xed"), 1002},
		{"close reason not UTF-8", masked(socket.OpClose, "\x03\xe8\xff"), 1007},
		{"text not UTF-8", masked(socket.OpText, "a\xff"), 1007},
		{"text cut inside a character", append(fragment(socket.OpText, false, "\xe4\xbd"), fragment(socket.OpContinuation, true, "x")...), 1007},
		{"one byte too many", masked(socket.OpText, big+"!"), 1009},
		{"one byte too many in fragments", append(fragment(socket.OpText, false, big), fragment(socket.OpContinuation, true, "!")...), 1009},
		{"many bytes too many", masked(socket.OpBinary, strings.Repeat(big, 8)), 1009},
	}
	for _, on := range layers {
		h := serveEchoOn(t, on, wsconn.Settings{})
		for _, tc := range cases {
			t.Run(on.name+"/"+tc.name, func(t *testing.T) {
				p := h.dial(t)
				p.write(tc.send)
				p.expectClose(tc.code)
				_ = p.conn.Close()
				if e := h.end(t); e.Cause != wsconn.ProtocolError || e.Code != tc.code {
					t.Fatalf("ended with %+v", e)
				}
			})
		}
	}
}

func TestFragmentsAreJoinedAndControlFramesBetweenThemAnsweredAtOnce(t *testing.T) {
	for _, on := range layers {
		t.Run(on.name, func(t *testing.T) { testFragments(t, serveEchoOn(t, on, wsconn.Settings{})) })
	}
}

func testFragments(t *testing.T, h *host) {
	// The first frames come in the same packet as the handshake.
	p := h.dial(t, append(fragment(socket.OpText, false, "\xe4\xbd"), masked(socket.OpPing, "are you there")...)...)
	p.expect(socket.OpPong, "are you there")
	p.write(fragment(socket.OpContinuation, false, "\xa0"))
	p.write(fragment(socket.OpContinuation, true, "!"))
	p.expect(socket.OpText, "\u4f60!")
	max := strings.Repeat("m", 512<<10)
	p.write(fragment(socket.OpBinary, false, max[:100]))
	p.write(fragment(socket.OpContinuation, true, max[100:]))
	p.expect(socket.OpBinary, max)
	p.write(masked(socket.OpClose, ""))
	f, _ := p.next()
	if f.op != socket.OpClose || f.payload != "" {
		t.Fatalf("got %v", f)
	}
	if _, ok := p.next(); ok {
		t.Fatal("the server did not close")
	}
	if e := h.end(t); e.Cause != wsconn.PeerClosed || e.Code != socket.CloseNoStatus {
		t.Fatalf("ended with %+v", e)
	}
}

func TestOfSeveralPingsInOneReadTheLatestIsAnswered(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		h := serveEchoOn(t, on, wsconn.Settings{})
		var many []byte
		for i := range 50 {
			many = append(many, masked(socket.OpPing, fmt.Sprint(i))...)
		}
		p := dial(t, h.addr)
		p.write(append(many, masked(socket.OpText, "end")...))
		pongs := 0
		for last := ""; ; {
			f, ok := p.next()
			if !ok {
				t.Fatal("ended")
			}
			if f.op == socket.OpPong {
				pongs, last = pongs+1, f.payload
			}
			if last == "49" {
				break
			}
		}
		if pongs > 25 {
			t.Fatalf("%d pongs for 50 pings", pongs)
		}
	})
}

func TestInvalidTextIsTheApplicationsToAnswerIfAllowed(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		h := serveEchoOn(t, on, wsconn.Settings{Assembler: socket.AssemblerOptions{AllowInvalidUTF8: true}})
		p := dial(t, h.addr)
		p.write(masked(socket.OpText, "a\xff"))
		p.expect(socket.OpText, "a\xff")
	})
}

func TestTheHandlerMaySayWhyBeforeAnOversizedMessageClosesTheConnection(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		h := serveOn(t, on, wsconn.Settings{Assembler: socket.AssemblerOptions{MaxMessageBytes: 100}}, func(ends chan<- wsconn.End) wsconn.Handler {
			return &explainer{echo{ended: ends}}
		})
		p := dial(t, h.addr)
		p.write(masked(socket.OpText, strings.Repeat("x", 101)))
		p.expect(socket.OpText, "too big")
		p.expectClose(1009)
	})
}

type explainer struct{ echo }

func (e *explainer) Oversize() {
	e.c.Outbox().Queue(socket.AppendFrame(nil, socket.OpText, []byte("too big")))
}

func TestACloseThatThePeerDoesNotAnswerEndsAfterCloseTimeout(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		h := serveOn(t, on, wsconn.Settings{CloseTimeout: 300 * time.Millisecond}, func(ends chan<- wsconn.End) wsconn.Handler { return &closer{echo{ended: ends}} })
		p := dial(t, h.addr)
		p.write(masked(socket.OpText, "go"))
		p.expect(socket.OpText, "last")
		p.expectClose(4000) // and the stream's end, although no close frame was sent
		if e := h.end(t); e.Cause != wsconn.ServerClosed {
			t.Fatalf("ended with %+v", e)
		}
	})
}

// greeter has something to say as soon as there is a connection.
type greeter struct{ echo }

func (g *greeter) Opened(c *wsconn.Conn) {
	g.echo.Opened(c)
	c.Outbox().Put(socket.AppendFrame(nil, socket.OpText, []byte("hello")))
}

func TestTheHandshakesAnswerLeavesWithTheFirstFrame(t *testing.T) {
	for _, on := range layers {
		t.Run(on.name, func(t *testing.T) {
			stats := new(outbox.Stats)
			h := serveOn(t, on, wsconn.Settings{Outbox: outbox.Options{Stats: stats}}, func(ends chan<- wsconn.End) wsconn.Handler {
				return &greeter{echo{ended: ends}}
			})
			h.dial(t).expect(socket.OpText, "hello")
			await(t, "two buffers to be written", func() bool { return stats.Buffers.Load() == 2 })
			if n := stats.Writes.Load(); n != 1 {
				t.Errorf("in %d writes", n)
			}
		})
	}
}
