package load

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
	"letshare-server/internal/wire"
)

// fault is what a testServer does wrong.
type fault string

const (
	none     fault = ""
	lose     fault = "lose"
	repeat   fault = "repeat"
	exchange fault = "exchange"
	damage   fault = "damage"
	misroute fault = "misroute"
	nack     fault = "nack"
	hangUp   fault = "hang up"
	stall    fault = "stall" // nothing is delivered for a while
	twoAcks  fault = "two acks"
	noAck    fault = "no ack"
	split    fault = "split" // right, but in fragments, which come in pieces
)

const stallTime = 300 * time.Millisecond

// testServer speaks the least of both dialects, and may do wrong.
type testServer struct {
	fault fault
	pongs atomic.Int64

	wg sync.WaitGroup

	mu        sync.Mutex // guards the fields below, and room and held of the connections
	closed    bool       // a handler may end after its server was closed: a connection that was taken over is not waited for
	conns     map[*testConn]struct{}
	published map[string]int
	hosts     map[string]int // connections by their source address
}

type testConn struct {
	s        *testServer
	conn     net.Conn
	letshare bool
	echo     bool
	format   wire.Format
	room     string
	held     []byte // a delivery that the next one overtakes

	writing sync.Mutex
}

// startServer returns the server and its URL.
func startServer(t *testing.T, f fault) (*testServer, string) {
	s, h := newServer(t, f)
	h.Start()
	return s, "ws" + h.URL[len("http"):]
}

// startTLSServer returns a server with TLS too, as arguments of the tool.
func startTLSServer(t *testing.T) []string {
	_, h := newServer(t, none)
	h.StartTLS()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--url", "wss" + h.URL[len("https"):], "--ca", ca}
}

func newServer(t *testing.T, f fault) (*testServer, *httptest.Server) {
	s := &testServer{fault: f, conns: make(map[*testConn]struct{}), published: make(map[string]int), hosts: make(map[string]int)}
	h := httptest.NewUnstartedServer(s)
	t.Cleanup(func() {
		s.mu.Lock()
		s.closed = true
		for c := range s.conns {
			c.conn.Close()
		}
		s.mu.Unlock()
		h.Close()
		s.wg.Wait()
	})
	return s, h
}

func (s *testServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c := &testConn{s: s, letshare: r.URL.Path == "/ws", echo: q.Get("echo") != "false"}
	if q.Get("format") == "msgpack" {
		c.format = wire.MsgPack
	}
	if q.Get("key") != "app.key:secret" && q.Get("token") == "" {
		http.Error(w, `{"error":"who?"}`, http.StatusUnauthorized)
		return
	}
	o, err := socket.Upgrade(w, r)
	if err != nil {
		return
	}
	c.conn = o.Conn
	_, _ = c.conn.Write(o.Answer) // a tool that has left is no concern here
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.conn.Close()
		return
	}
	s.conns[c] = struct{}{}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.hosts[host]++
	s.wg.Go(func() { c.serve(o.Buffered) })
}

func (c *testConn) serve(rest []byte) {
	defer func() {
		c.s.mu.Lock()
		delete(c.s.conns, c)
		c.s.mu.Unlock()
		c.conn.Close()
	}()
	c.write(socket.AppendFrame(nil, socket.OpPing, []byte("are you there")))
	if !c.letshare {
		c.send(&wire.ProtocolMessage{Action: wire.ActionConnected, ConnectionID: "c"})
	}
	a := socket.NewAssembler(&socket.AssemblerOptions{})
	buf := append(make([]byte, 0, 64<<10), rest...)
	for {
		if err := a.Feed(buf, c); err != nil {
			return
		}
		n, err := c.conn.Read(buf[:cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:n]
	}
}

func (c *testConn) Control(op socket.Opcode, payload []byte) error {
	if op == socket.OpPong && string(payload) == "are you there" {
		c.s.pongs.Add(1)
	}
	if op == socket.OpClose {
		c.conn.Close()
	}
	return nil
}

func (c *testConn) Message(_ socket.Opcode, payload []byte) error {
	if c.letshare {
		var f struct {
			Type, Channel string
			Data          json.RawMessage
		}
		if err := json.Unmarshal(payload, &f); err != nil {
			return err
		}
		if f.Type == "subscribe" {
			c.join(f.Channel)
			c.frame([]byte(`{"type":"subscribed","channel":"` + f.Channel + `"}`))
			return nil
		}
		c.publish(f.Channel, func(*testConn) []byte {
			return []byte(`{"type":"message","channel":"` + f.Channel + `","data":` + string(f.Data) + `}`)
		})
		return nil
	}
	pm, err := wire.Decode(c.format, payload)
	if err != nil {
		return err
	}
	switch pm.Action {
	case wire.ActionAttach:
		c.join(pm.Channel)
		c.send(&wire.ProtocolMessage{Action: wire.ActionAttached, Channel: pm.Channel})
	case wire.ActionMessage:
		if c.s.fault == nack && pm.MsgSerial == 9 {
			c.send(&wire.ProtocolMessage{Action: wire.ActionNack, MsgSerial: 9, Count: 1,
				Error: wire.NewErrorInfo(&pubsub.Error{Code: 42911, Message: "too fast"})})
			return nil
		}
		batch := &pubsub.Batch{ID: "x", Messages: pm.Messages}
		c.publish(pm.Channel, func(to *testConn) []byte {
			return wire.AppendMessagePM(nil, to.format, pm.Channel, wire.Entry{Serial: "01-0", Position: "01-0", Timestamp: 1, Batch: batch})
		})
		if c.s.fault == noAck && pm.MsgSerial == 9 {
			return nil
		}
		ack := &wire.ProtocolMessage{Action: wire.ActionAck, MsgSerial: pm.MsgSerial, Count: 1}
		c.send(ack)
		if c.s.fault == twoAcks && pm.MsgSerial == 9 {
			c.send(ack)
		}
	case wire.ActionClose:
		c.send(&wire.ProtocolMessage{Action: wire.ActionClosed})
	}
	return nil
}

func (c *testConn) join(room string) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.room = room
}

// publish delivers to the room. At the fifteenth message of a room its fault strikes, at one receiver.
func (c *testConn) publish(room string, encode func(*testConn) []byte) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.published[room]++
	strike := c.s.published[room] == 15
	for to := range c.s.conns {
		if strike && c.s.fault == misroute && to.room != "" && to.room != room {
			strike = false
			to.frame(encode(to))
		}
		if to.room != room || to == c && (c.letshare || !c.echo) {
			continue
		}
		f := none
		if strike && to != c && c.s.fault != misroute {
			f, strike = c.s.fault, false
		}
		to.deliver(encode(to), f)
	}
}

func (c *testConn) deliver(payload []byte, f fault) {
	switch f {
	case lose:
		return
	case repeat:
		c.frame(payload)
	case exchange:
		c.held = payload
		return
	case damage:
		payload = bytes.Replace(payload, []byte(payloadEnd), []byte("$"), 1)
	case hangUp:
		c.conn.Close()
	case stall:
		time.Sleep(stallTime)
	}
	c.frame(payload)
	if c.held != nil {
		c.frame(c.held)
		c.held = nil
	}
}

func (c *testConn) send(pm *wire.ProtocolMessage) { c.frame(wire.Append(nil, c.format, pm)) }

func (c *testConn) frame(payload []byte) {
	op := socket.OpText
	if c.format == wire.MsgPack {
		op = socket.OpBinary
	}
	if c.s.fault != split || len(payload) < 2 {
		c.write(socket.AppendFrame(nil, op, payload))
		return
	}
	half := len(payload) / 2
	b := append(socket.AppendHeader(nil, op, false, false, half), payload[:half]...)
	b = socket.AppendFrame(b, socket.OpContinuation, payload[half:])
	c.write(b[:3], b[3:half+5], b[half+5:])
}

func (c *testConn) write(pieces ...[]byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for _, b := range pieces {
		_, _ = c.conn.Write(b) // a tool that has left is no concern here
	}
}
