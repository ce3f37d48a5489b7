package wsconn

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
)

// Handler is a door's side of one connection. Its calls come one at a time and in order, from
// workers; they may block for milliseconds.
type Handler interface {
	// Opened is the first call, on the goroutine of Serve and before it returns.
	Opened(c *Conn)
	// Message is a whole message. payload is valid until Message returns.
	Message(op socket.Opcode, payload []byte)
	// TurnEnd follows when all messages found in one read have been given; what was queued in
	// the outbox is flushed after it.
	TurnEnd()
	// Closed is the last call, and comes exactly once.
	Closed(end End)
}

// OversizeHandler is a Handler that wants to send something before the connection is closed
// because a message was too big (1009).
type OversizeHandler interface{ Oversize() }

// LeaveHandler is a Handler that wants to know of the peer's close frame before it is answered, so
// that a peer which has its answer is gone for everybody else too. Closed follows.
type LeaveHandler interface{ Leaving(end End) }

// IdleHandler is a Handler that is told, every 25 s or oftener, for how long there was no traffic.
// Quiet frames (pings, pongs) are not counted as writing.
type IdleHandler interface {
	Idle(sinceWrite, sinceRead time.Duration)
}

// Cause is what ended a connection.
type Cause uint8

// The causes there are.
const (
	PeerGone      Cause = iota + 1 // the socket ended without a close frame
	PeerClosed                     // the peer's close frame
	ServerClosed                   // Close, Abort or the poller's end
	ProtocolError                  // the peer broke the protocol, or a bound of it
	Silent                         // no byte for PongTimeout
	Stalled                        // a message took longer than FrameTimeout
	Slow                           // the outbox broke
)

func (c Cause) String() string {
	switch c {
	case PeerGone:
		return "peer gone"
	case PeerClosed:
		return "peer closed"
	case ServerClosed:
		return "server closed"
	case ProtocolError:
		return "protocol error"
	case Silent:
		return "peer silent"
	case Stalled:
		return "message stalled"
	case Slow:
		return "peer slow"
	}
	return "none"
}

// End tells how a connection ended.
type End struct {
	Cause  Cause
	Code   int           // of the first close frame, the peer's or ours; 1006 if there was none
	Reason string        // that came with it
	Slow   outbox.Reason // if Cause is Slow
	Err    error         // what the socket said, if anything
}

// phase is how far a connection is on its way to the end.
type phase uint8

const (
	running   phase = iota
	closeSent       // our close frame is on its way, the peer's is awaited
	lingering       // the peer broke the protocol: input is discarded until it has gone
	ending          // only the socket's end is awaited
)

// pingFrame is a ping without payload.
var pingFrame = []byte{0x89, 0x00}

// Conn is one WebSocket connection. All exported methods may be called from any goroutine, those of
// its Handler included.
type Conn struct {
	server  *Server
	handler Handler
	out     outbox.Outbox
	timer   socket.Timer

	lastRead atomic.Uint32 // coarse time of the last byte from the peer
	partial  atomic.Uint32 // coarse time since which a message is half read; zero if none is

	// turn is held while application code of this connection runs, and guards the fields
	// below. Lock order: turn, then mu. It is never taken by the wheel or by those who put.
	turn      sync.Mutex
	assembler socket.Assembler
	seldom    *seldom // nil while there is nothing in it
	gave      bool    // messages were given, and TurnEnd not yet

	// mu guards the fields below.
	mu       sync.Mutex
	phase    phase
	closed   bool         // Closed has been called, or is about to be
	pinged   socket.Ticks // when the last ping was put
	deadline socket.Ticks // when the socket is closed at the latest; zero unless on the way
	end      *End         // nil while running
}

// seldom is what most connections do without most of the time. It is guarded by turn.
type seldom struct {
	pong      []byte // the answer to the latest ping, until the next message or the end of the turn
	discarded int    // bytes read while lingering
}

// Server holds what all connections of a door share.
type Server struct {
	poller *socket.Poller
	wheel  *socket.Wheel
	set    Settings
}

// NewServer makes a Server. It starts nothing: poller and wheel are run by the caller, and the
// connections end with the poller's Run.
func NewServer(poller *socket.Poller, wheel *socket.Wheel, settings Settings) *Server {
	s := &Server{poller: poller, wheel: wheel, set: settings.withDefaults()}
	s.set.Outbox.Wheel = wheel
	return s
}

// Serve takes over what Upgrade returned, and gives the messages to h. The handshake's answer leaves
// with what Opened sends, in one write. After an error the connection is closed and h is never
// called.
func (s *Server) Serve(o *socket.Opening, h Handler) (*Conn, error) {
	c := &Conn{server: s, handler: h}
	c.assembler = socket.NewAssembler(&s.set.Assembler)
	c.lastRead.Store(uint32(s.wheel.Now()))
	// The stream may begin to feed before Add returns; it waits here until Opened has.
	c.turn.Lock()
	defer c.turn.Unlock()
	stream, err := s.poller.Add(o.Conn, o.Buffered, (*feeder)(c))
	if err != nil {
		return nil, err
	}
	c.out.Init(stream, &s.set.Outbox, (*owner)(c))
	c.out.QueueQuiet(o.Answer)
	h.Opened(c)
	c.out.Flush()
	s.wheel.ScheduleSooner(&c.timer, (*expirer)(c), c.untilDue())
	return c, nil
}

// Outbox is where everything for the peer is put, as whole frames.
func (c *Conn) Outbox() *outbox.Outbox { return &c.out }

// Soon has f run as the handler's calls do, between two of them, and TurnEnd follows it. It is not
// called if the connection is on its way to the end by then.
func (c *Conn) Soon(f func()) {
	c.server.poller.Workers().Go(socket.TaskFunc(func() {
		c.turn.Lock()
		defer c.turn.Unlock()
		if c.currentPhase() != running {
			return
		}
		f()
		c.gave = true
		c.endTurn()
		c.out.Flush()
	}))
}

// Close sends what is queued and a close frame, waits for the peer's for CloseTimeout and closes
// the socket. Messages that arrive meanwhile are discarded. Only the first call counts.
func (c *Conn) Close(code int, reason string) {
	c.sendClose(End{Cause: ServerClosed, Code: code, Reason: reason}, closeSent, outbox.ThenNothing)
}

// Abort closes the socket at once; what is queued is lost.
func (c *Conn) Abort() {
	c.begin(End{Cause: ServerClosed, Code: socket.CloseAbnormal}, ending)
	c.out.Abort()
}

// begin enters a phase on the way to the end and notes its cause. It returns false, and does
// nothing, if the connection was on the way already.
func (c *Conn) begin(end End, to phase) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != running {
		c.phase = max(c.phase, to)
		return false
	}
	c.phase = to
	c.end = &end
	wheel, timeout := c.server.wheel, c.server.set.CloseTimeout
	c.deadline = wheel.Now() + socket.Ticks((timeout+socket.TickLength-1)/socket.TickLength)
	if !c.closed {
		wheel.ScheduleSooner(&c.timer, (*expirer)(c), timeout)
	}
	return true
}

// sendClose sends the close frame of end after what is queued.
func (c *Conn) sendClose(end End, to phase, then outbox.Then) {
	if !c.begin(end, to) {
		return
	}
	c.out.Finish(socket.AppendClose(nil, end.Code, end.Reason), then)
}

func (c *Conn) currentPhase() phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase
}

// feeder is Conn as the stream sees it.
type feeder Conn

// errLingered ends a stream whose peer kept sending after it broke the protocol.
var errLingered = errors.New("wsconn: peer sends on after a protocol error")

func (f *feeder) Feed(b []byte) error {
	c := (*Conn)(f)
	c.lastRead.Store(uint32(c.server.wheel.Now()))
	c.turn.Lock()
	defer c.turn.Unlock()
	switch c.currentPhase() {
	case lingering, ending:
		if c.seldom == nil {
			c.seldom = new(seldom)
		}
		c.seldom.discarded += len(b)
		if c.seldom.discarded > c.server.set.LingerBytes {
			return errLingered
		}
		return nil
	}
	err := c.assembler.Feed(b, (*sink)(c))
	if err == nil {
		return nil
	}
	c.assembler.Reset()
	var breach *socket.CloseError
	if !errors.As(err, &breach) {
		return nil // errEnding: the close handshake is under way
	}
	c.endTurn()
	if h, ok := c.handler.(OversizeHandler); ok && breach.Code == socket.CloseTooBig {
		h.Oversize()
	}
	c.sendClose(End{Cause: ProtocolError, Code: breach.Code, Reason: breach.Reason, Err: breach}, lingering, outbox.ThenCloseWrite)
	return nil
}

func (f *feeder) FeedEnd() {
	c := (*Conn)(f)
	c.turn.Lock()
	defer c.turn.Unlock()
	half := uint32(0)
	if c.assembler.Partial() {
		if half = c.partial.Load(); half == 0 {
			half = max(uint32(c.server.wheel.Now()), 1)
		}
	}
	if c.partial.Load() != half {
		c.partial.Store(half)
	}
	c.answerPing()
	c.endTurn()
	c.out.Flush()
}

// answerPing queues the answer to the latest ping. turn is held.
func (c *Conn) answerPing() {
	if c.seldom != nil && c.seldom.pong != nil {
		c.out.QueueQuiet(c.seldom.pong)
		if c.seldom.pong = nil; c.seldom.discarded == 0 {
			c.seldom = nil
		}
	}
}

// endTurn tells the handler, if it was given anything. turn is held.
func (c *Conn) endTurn() {
	if c.gave {
		c.gave = false
		c.handler.TurnEnd()
	}
}

func (f *feeder) Closed(err error) {
	c := (*Conn)(f)
	c.turn.Lock()
	defer c.turn.Unlock()
	c.mu.Lock()
	c.closed = true
	if c.phase == running {
		c.end = &End{Cause: PeerGone, Code: socket.CloseAbnormal}
		if errors.Is(err, net.ErrClosed) {
			c.end.Cause = ServerClosed
		}
	}
	if c.end.Err == nil && err != io.EOF && !errors.Is(err, net.ErrClosed) {
		c.end.Err = err
	}
	c.phase = ending
	end := *c.end
	c.mu.Unlock()
	c.server.wheel.Stop(&c.timer)
	c.assembler.Reset()
	c.out.Close()
	c.handler.Closed(end)
}

// sink is Conn as the assembler sees it.
type sink Conn

// errEnding stops the assembler: nothing behind a close frame counts.
var errEnding = errors.New("wsconn: closing")

func (s *sink) Message(op socket.Opcode, payload []byte) error {
	c := (*Conn)(s)
	if c.currentPhase() == running {
		c.answerPing() // before what the message brings about
		c.gave = true
		c.handler.Message(op, payload)
	}
	return nil
}

func (s *sink) Control(op socket.Opcode, payload []byte) error {
	c := (*Conn)(s)
	switch op {
	case socket.OpPing:
		// Only the latest of several needs an answer (RFC 6455, 5.5.3).
		c.seldom = &seldom{pong: socket.AppendFrame(nil, socket.OpPong, payload)}
	case socket.OpClose:
		code, reason, err := socket.ParseClose(payload)
		if err != nil {
			return err
		}
		c.seldom = nil
		c.endTurn()
		end := End{Cause: PeerClosed, Code: code, Reason: reason}
		if c.begin(end, ending) {
			if h, ok := c.handler.(LeaveHandler); ok {
				h.Leaving(end)
			}
			c.out.Finish(socket.AppendClose(nil, code, ""), outbox.ThenClose)
		} else {
			c.out.Finish(nil, outbox.ThenClose) // the answer to ours
		}
		return errEnding
	}
	return nil
}

// owner is Conn as the outbox sees it.
type owner Conn

// Slow closes the socket of a peer that does not keep up. A close frame would not get through.
func (o *owner) Slow(r outbox.Reason) {
	c := (*Conn)(o)
	c.begin(End{Cause: Slow, Code: socket.CloseAbnormal, Slow: r}, ending)
	c.out.Abort()
}

// Failed notes why the stream is about to close.
func (o *owner) Failed(err error) {
	c := (*Conn)(o)
	if errors.Is(err, net.ErrClosed) {
		return // this side closed it, and has noted why
	}
	c.begin(End{Cause: PeerGone, Code: socket.CloseAbnormal, Err: err}, ending)
}
