package comet

import (
	"context"
	"net/http"
	"sync"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/socket"
	"letshare-server/internal/wire"
)

// conn is one session's transport. It implements session.Transport.
type conn struct {
	door    *Door
	stream  bool // answers stay open
	maxIdle time.Duration
	out     outbox.Outbox
	timer   socket.Timer
	done    chan struct{} // closed when the transport has ended
	sending chan struct{} // holds the turn to send: one request at a time, in order of arrival

	// turn is held while the session's code runs, and guards the fields below. Lock order:
	// turn, then mu. Those who put into the outbox never take it, nor does the wheel.
	turn    sync.Mutex
	session *session.Session // nil if it was refused
	touched hub.Turn
	over    bool // the session was told of the end

	// mu guards the fields below. Nothing under it blocks.
	mu         sync.Mutex
	reader     *response // takes what there is to say; nil between two requests
	writer     *response // is being written to
	batch      [][]byte  // taken from the outbox, and not yet written
	batchBytes int
	writable   func()       // the outbox has more
	finished   bool         // the outbox has given all
	broken     bool         // an answer was not taken in full: there will be no other
	leaving    bool         // the client asks for no more answers
	ended      bool         // done is closed
	away       socket.Ticks // since when there is no reader
	deadline   socket.Ticks // when the transport ends at the latest; zero unless it closes
}

// open opens the session: CONNECTED is what the first answer begins with.
func (c *conn) open(ctx context.Context, request *session.Request) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	var err error
	c.session, err = c.door.opts.Manager.Open(ctx, request, c)
	return err
}

// frame encodes pm with the comma that joins it with the next.
func frame(pm *wire.ProtocolMessage) []byte {
	return append(wire.Append(make([]byte, 0, 256), wire.JSON, pm), ',')
}

// Send implements session.Transport.
func (c *conn) Send(pm *wire.ProtocolMessage, more bool) {
	if more {
		c.out.Queue(frame(pm))
	} else {
		c.out.Put(frame(pm))
	}
}

// Deliver implements session.Transport.
func (c *conn) Deliver(gate *outbox.Gate, frames []byte, more bool) {
	c.out.PutGate(gate, frames, more)
}

// Encode implements session.Transport.
func (c *conn) Encode(pm *wire.ProtocolMessage) []byte { return frame(pm) }

// Hold implements session.Transport.
func (c *conn) Hold(gate *outbox.Gate) { c.out.Hold(gate) }

// Pause implements session.Transport.
func (c *conn) Pause(gate *outbox.Gate) bool { return c.out.Pause(gate) }

// Release implements session.Transport.
func (c *conn) Release(gate *outbox.Gate, first ...[]byte) { c.out.Release(gate, first...) }

// End implements session.Transport.
func (c *conn) End(gate *outbox.Gate, last *wire.ProtocolMessage) { c.out.End(gate, frame(last)) }

// Mute implements session.Transport.
func (c *conn) Mute(gate *outbox.Gate) { c.out.End(gate, nil) }

// Soon implements session.Transport.
func (c *conn) Soon(f func()) {
	c.door.opts.Workers.Go(socket.TaskFunc(func() {
		c.turn.Lock()
		defer c.endTurnUnlock()
		if !c.over {
			f()
		}
	}))
}

// Close implements session.Transport: an answer that is open ends with last, or else the
// next one that is asked for in time.
func (c *conn) Close(last *wire.ProtocolMessage) {
	var b []byte
	if last != nil {
		b = frame(last)
	}
	c.mu.Lock()
	if last == nil && c.aloneLocked() {
		c.mu.Unlock()
		c.end()
		return
	}
	c.closeSoonLocked()
	c.mu.Unlock()
	c.out.Finish(b, outbox.ThenClose)
}

// closeSoonLocked has the timer end the transport, if nothing does before.
func (c *conn) closeSoonLocked() {
	wheel := c.door.opts.Wheel
	if c.deadline == 0 {
		c.deadline = wheel.Now() + socket.Ticks(closeTimeout/socket.TickLength)
		wheel.ScheduleSooner(&c.timer, c, closeTimeout)
	}
}

// aloneLocked reports whether no answer is open.
func (c *conn) aloneLocked() bool { return c.reader == nil && c.writer == nil }

// Form implements session.Transport.
func (c *conn) Form(name string, layout wire.Layout) hub.Form { return form{layout, name} }

// form is how deliveries are encoded for the attachments under one name.
type form struct {
	layout  wire.Layout
	channel string
}

// AppendFrames implements hub.Form.
func (f form) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	start := len(dst)
	if dst = session.AppendEntry(dst, wire.JSON, f.channel, f.layout, e); len(dst) == start {
		return dst, units
	}
	dst = append(dst, ',')
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

var protocolMessages = sync.Pool{New: func() any { return new(wire.ProtocolMessage) }}

// send hands the client's messages to the session as they arrive. What one reading of the
// body finds is one turn; bodies of usual size are read in one.
func (c *conn) send(w http.ResponseWriter, r *http.Request) {
	select {
	case c.sending <- struct{}{}:
		defer func() { <-c.sending }()
	case <-c.done:
		fail(w, errEnded)
		return
	case <-r.Context().Done():
		return
	}
	body := newElements(r.Body, c.door.opts.MaxFrameBytes)
	defer body.release()
	for {
		over := body.read()
		switch err := c.handle(body); {
		case err == errEnded:
			fail(w, errEnded)
			return
		case err != nil:
			// As with a WebSocket: what was lost the client sends again after it has resumed.
			e := pubsub.ErrorFor(err)
			last := disconnected(e)
			c.Close(last)
			answer(w, e, append(wire.AppendAll(nil, last), '\n'))
			return
		case over:
			noContent(w)
			return
		}
	}
}

// handle acts on the messages that were read, in one turn.
func (c *conn) handle(body *elements) error {
	pm := protocolMessages.Get().(*wire.ProtocolMessage)
	defer func() {
		pm.Reset()
		protocolMessages.Put(pm)
	}()
	c.turn.Lock()
	defer c.endTurnUnlock()
	for !c.over {
		b, err := body.next()
		if err != nil || b == nil {
			return err
		}
		if err := wire.DecodeInto(pm, wire.JSON, b); err != nil {
			return err
		}
		c.session.Handle(&c.touched, pm)
	}
	return errEnded
}

// endTurnUnlock ends the turn.
func (c *conn) endTurnUnlock() {
	if c.over {
		c.touched.End()
	} else {
		c.session.EndTurn(&c.touched)
	}
	c.turn.Unlock()
	c.out.Flush()
}

func (c *conn) close(w http.ResponseWriter, _ *http.Request) { c.finish(w, wire.ActionClose) }

func (c *conn) disconnect(w http.ResponseWriter, _ *http.Request) {
	c.finish(w, wire.ActionDisconnect)
}

// finish has the session close. An answer that is open tells the outcome; the client does
// not ask for another.
func (c *conn) finish(w http.ResponseWriter, action wire.Action) {
	c.turn.Lock()
	if !c.over {
		c.session.Handle(&c.touched, &wire.ProtocolMessage{Action: action})
	}
	c.endTurnUnlock()
	c.mu.Lock()
	c.leaving = true
	alone := c.aloneLocked()
	c.mu.Unlock()
	if alone {
		c.end()
	}
	noContent(w)
}

func disconnected(e *pubsub.Error) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionDisconnected, Error: wire.NewErrorInfo(e)}
}

var errEnded = pubsub.NewError(pubsub.CodeConnectionNotFound, "the transport has ended")

// Expire implements socket.Expirer: it ends a transport whose client stays away, or does not
// fetch the last words.
func (c *conn) Expire() {
	wheel := c.door.opts.Wheel
	now := wheel.Now()
	c.mu.Lock()
	var left time.Duration
	switch {
	case c.ended:
		c.mu.Unlock()
		return
	case c.deadline != 0:
		left = c.deadline.Sub(now)
	case !c.aloneLocked():
		c.mu.Unlock()
		return // awaited again when it has gone
	default:
		left = max(c.door.opts.MaxAbsence-now.Sub(c.away), 0)
	}
	c.mu.Unlock()
	if left > 0 {
		wheel.ScheduleSooner(&c.timer, c, left)
		return
	}
	c.end()
}

// end ends the transport, if it has not ended. What waits is dropped.
func (c *conn) end() {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended = true
	close(c.done)
	c.batch = nil
	if c.writer != nil {
		c.writer.interrupt()
	}
	c.mu.Unlock()
	c.door.opts.Wheel.Stop(&c.timer)
	c.out.Close()
	c.door.opts.Workers.Go((*closer)(c))
}

// closer is conn as the task that tells the session of the end.
type closer conn

// Run implements socket.Task.
func (t *closer) Run() {
	c := (*conn)(t)
	defer c.door.leave(c)
	c.mu.Lock()
	writable := c.writable
	c.writable = nil
	c.mu.Unlock()
	if writable != nil {
		writable()
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	c.over = true
	c.touched.End()
	if c.session != nil {
		c.session.TransportClosed()
	}
}

// owner is conn as its outbox sees it.
type owner conn

// Slow ends the transport of a client that does not keep up; it resumes.
func (o *owner) Slow(outbox.Reason) {
	c := (*conn)(o)
	c.door.opts.Metrics.SlowConsumerClosed()
	c.end()
}

// Failed comes after the end.
func (o *owner) Failed(error) {}
