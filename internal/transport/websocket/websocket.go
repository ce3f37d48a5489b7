package websocket

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/socket"
	"letshare-server/internal/throttle"
	"letshare-server/internal/wire"
	"letshare-server/internal/wsconn"
)

// Options configure a Door. Manager, Poller and Wheel are required.
type Options struct {
	Manager *session.Manager
	Poller  *socket.Poller
	Wheel   *socket.Wheel
	Outbox  outbox.Options
	Proxies auth.TrustedProxies

	// MaxFrameBytes bounds a client's message (TO3l9); a longer one closes the connection with 1009
	// after a DISCONNECTED that says why. Zero means 512 KiB.
	MaxFrameBytes int

	Log *slog.Logger // nil discards

	// Ended is told of every connection that ended; nil means nobody is.
	Ended func(wsconn.End)
}

// Door is the Ably protocol's WebSocket endpoint.
type Door struct {
	opts    Options
	noisy   *throttle.Warnings // about clients' mistakes
	servers sync.Map           // keepAlive to *wsconn.Server
}

// keepAlive is how a connection is shown to live, and how often at least. There are a few
// thousand of them, since intervals are whole seconds.
type keepAlive struct {
	liveness
	interval time.Duration
}

// liveness is how the client notices that the connection lives (RTN23b).
type liveness int

const (
	jsonHeartbeats liveness = iota
	msgpackHeartbeats
	pings // heartbeats=false: WebSocket pings suffice
)

// mostPingInterval is how long a dead peer may go unnoticed, whatever the client asked for.
const mostPingInterval = 25 * time.Second

// heartbeatMargin makes heartbeats leave in time for the interval that clients are told
// (RTN23a).
const heartbeatMargin = time.Second

// New returns the endpoint. It starts nothing.
func New(opts Options) *Door {
	if opts.MaxFrameBytes == 0 {
		opts.MaxFrameBytes = 512 << 10
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Door{opts: opts, noisy: throttle.New(opts.Log)}
}

// server returns the server for connections that are kept alive in one way.
func (d *Door) server(k keepAlive) *wsconn.Server {
	if s, ok := d.servers.Load(k); ok {
		return s.(*wsconn.Server)
	}
	settings := wsconn.Settings{
		Assembler: socket.AssemblerOptions{MaxMessageBytes: d.opts.MaxFrameBytes},
		Outbox:    d.opts.Outbox,
	}
	if k.liveness == pings {
		settings.PingInterval = min(k.interval-heartbeatMargin, mostPingInterval)
	} else {
		settings.HeartbeatInterval = k.interval - heartbeatMargin
		settings.Heartbeat = frame(wire.Format(k.liveness-jsonHeartbeats), &wire.ProtocolMessage{Action: wire.ActionHeartbeat})
	}
	s, _ := d.servers.LoadOrStore(k, wsconn.NewServer(d.opts.Poller, d.opts.Wheel, settings))
	return s.(*wsconn.Server)
}

// ServeHTTP upgrades the request and opens a session on it.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	c := &conn{door: d, format: requestedFormat(query)}
	c.opening = &session.Request{Query: query, Header: r.Header, Peer: d.opts.Proxies.PageAware(r)}
	opening, err := socket.Upgrade(w, r)
	if err != nil {
		d.opts.Log.Debug("upgrade refused", "error", err)
		return
	}
	live := liveness(c.format)
	if query.Get("heartbeats") == "false" {
		live = pings
	}
	if _, err := d.server(keepAlive{live, d.opts.Manager.MaxIdleInterval(query)}).Serve(opening, c); err != nil {
		d.opts.Log.Warn("connection not served", "error", err)
	}
}

// requestedFormat is that of the parameter format (RTN2a).
func requestedFormat(q url.Values) wire.Format {
	if q.Get("format") == "msgpack" {
		return wire.MsgPack
	}
	return wire.JSON
}

// frame encodes pm with the header of its frame.
func frame(f wire.Format, pm *wire.ProtocolMessage) []byte {
	return appendFrame(make([]byte, 0, 256), f, pm)
}

// appendFrame appends pm with the header of its frame to dst.
func appendFrame(dst []byte, f wire.Format, pm *wire.ProtocolMessage) []byte {
	start := len(dst)
	return socket.EndFrame(wire.Append(socket.BeginFrame(dst), f, pm), start, opcode(f))
}

func opcode(f wire.Format) socket.Opcode {
	if f == wire.MsgPack {
		return socket.OpBinary
	}
	return socket.OpText
}

// conn is one WebSocket that carries a session. It implements wsconn.Handler and
// session.Transport.
type conn struct {
	door    *Door
	ws      *wsconn.Conn
	session *session.Session // nil if it was refused
	format  wire.Format
	turn    hub.Turn
	opening *session.Request // until Opened
}

// Opened implements wsconn.Handler: the first thing that is sent is CONNECTED, or the ERROR
// that says why not (RTN14a, RTN14b, RTN14g).
func (c *conn) Opened(ws *wsconn.Conn) {
	c.ws = ws
	request := c.opening
	c.opening = nil
	s, err := c.door.opts.Manager.Open(context.Background(), request, c)
	if err != nil {
		e := pubsub.ErrorFor(err)
		c.door.noisy.Warn("connection refused", "code", int(e.Code), "error", e, "peer", request.Peer.Addr.String())
		c.Close(session.Refusal(e))
		return
	}
	c.session = s
}

var protocolMessages = sync.Pool{New: func() any { return new(wire.ProtocolMessage) }}

// Message implements wsconn.Handler. Frames are decoded by their type, whatever format was
// asked for.
func (c *conn) Message(op socket.Opcode, payload []byte) {
	if c.session == nil {
		return
	}
	format := wire.JSON
	if op == socket.OpBinary {
		format = wire.MsgPack
	}
	pm := protocolMessages.Get().(*wire.ProtocolMessage)
	if err := wire.DecodeInto(pm, format, payload); err != nil {
		c.session.EndTurn(&c.turn) // what came before it is acknowledged
		c.Close(disconnected(pubsub.ErrorFor(err)))
		return
	}
	c.session.Handle(&c.turn, pm)
	pm.Reset()
	protocolMessages.Put(pm)
}

// TurnEnd implements wsconn.Handler.
func (c *conn) TurnEnd() {
	if c.session != nil {
		c.session.EndTurn(&c.turn)
	}
}

// Oversize implements wsconn.OversizeHandler.
func (c *conn) Oversize() {
	if c.session != nil {
		c.session.Exceeded(limit.FrameBytes)
	}
	c.Send(disconnected(pubsub.Errorf(pubsub.CodeMessageTooLarge, "a frame exceeds %d bytes", c.door.opts.MaxFrameBytes)), true)
}

// Closed implements wsconn.Handler.
func (c *conn) Closed(end wsconn.End) {
	c.turn.End()
	if c.session != nil {
		c.session.TransportClosed()
	}
	if c.door.opts.Ended != nil {
		c.door.opts.Ended(end)
	}
}

func disconnected(e *pubsub.Error) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionDisconnected, Error: wire.NewErrorInfo(e)}
}

// Send implements session.Transport.
func (c *conn) Send(pm *wire.ProtocolMessage, more bool) {
	s := scratches.Get().(*[]byte)
	b := appendFrame((*s)[:0], c.format, pm)
	if more {
		c.ws.Outbox().QueueCopy(b)
	} else {
		c.ws.Outbox().PutCopy(b)
	}
	if cap(b) <= keptScratch {
		*s = b
	}
	scratches.Put(s)
}

// scratches are buffers for frames on their way into an outbox.
var scratches = sync.Pool{New: func() any { return new(make([]byte, 0, 512)) }}

// keptScratch is the capacity up to which such a buffer is used again.
const keptScratch = 8 << 10

// Deliver implements session.Transport.
func (c *conn) Deliver(gate *outbox.Gate, frames []byte, more bool) {
	c.ws.Outbox().PutGate(gate, frames, more)
}

// Hold implements session.Transport.
func (c *conn) Hold(gate *outbox.Gate) { c.ws.Outbox().Hold(gate) }

// Pause implements session.Transport.
func (c *conn) Pause(gate *outbox.Gate) bool { return c.ws.Outbox().Pause(gate) }

// Encode implements session.Transport.
func (c *conn) Encode(pm *wire.ProtocolMessage) []byte { return frame(c.format, pm) }

// Release implements session.Transport.
func (c *conn) Release(gate *outbox.Gate, first ...[]byte) { c.ws.Outbox().Release(gate, first...) }

// End implements session.Transport.
func (c *conn) End(gate *outbox.Gate, last *wire.ProtocolMessage) {
	c.ws.Outbox().End(gate, frame(c.format, last))
}

// Mute implements session.Transport.
func (c *conn) Mute(gate *outbox.Gate) { c.ws.Outbox().End(gate, nil) }

// Soon implements session.Transport.
func (c *conn) Soon(f func()) { c.ws.Soon(f) }

// Close implements session.Transport.
func (c *conn) Close(last *wire.ProtocolMessage) {
	if last != nil {
		c.Send(last, true)
	}
	c.ws.Close(socket.CloseNormal, "")
}

// Form implements session.Transport.
func (c *conn) Form(name string, layout wire.Layout) hub.Form { return form{c.format, layout, name} }

// form is how deliveries are encoded for the attachments under one name in one format.
type form struct {
	format  wire.Format
	layout  wire.Layout
	channel string
}

// AppendFrames implements hub.Form.
func (f form) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	start := len(dst)
	dst = socket.BeginFrame(dst)
	payload := len(dst)
	if dst = session.AppendEntry(dst, f.format, f.channel, f.layout, e); len(dst) == payload {
		return dst[:start], units
	}
	dst = socket.EndFrame(dst, start, opcode(f.format))
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}
