package comet

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"letshare-server/internal/wire"
)

const (
	// maxBatchBytes is how much an answer takes from the outbox before it is written. The
	// last buffer may exceed it.
	maxBatchBytes = 256 << 10

	// writePiece is how much of a batch has to be taken by the kernel within the outbox's
	// MaxAge.
	writePiece = 32 << 10

	// streamLife is how long an answer streams. A client that lives then asks for the next
	// one; nothing else tells it from one whose network is gone.
	streamLife = time.Minute

	// endTimeout bounds the writing of the end of an answer.
	endTimeout = 5 * time.Second
)

var heartbeat = [][]byte{frame(&wire.ProtocolMessage{Action: wire.ActionHeartbeat})}

// recv answers with what there is to say, and takes the place of the recv before.
func (c *conn) recv(w http.ResponseWriter, r *http.Request) {
	a := &response{
		w: w, control: http.NewResponseController(w), stream: c.stream, stuck: c.door.opts.Outbox.MaxAge,
		wake: make(chan struct{}, 1),
	}
	c.mu.Lock()
	if c.ended || c.broken {
		c.mu.Unlock()
		fail(w, errEnded)
		return
	}
	if c.reader != nil {
		c.reader.alert()
	}
	c.reader = a
	c.mu.Unlock()
	a.begin()
	defer a.end()
	c.answer(r.Context(), a)
}

// answer writes what there is to say until a has no more part in it.
func (c *conn) answer(ctx context.Context, a *response) {
	interval := c.maxIdle - heartbeatMargin
	idle, life := time.NewTimer(interval), time.NewTimer(streamLife)
	defer idle.Stop()
	defer life.Stop()
	due := false
	for {
		frames, ok := c.take(a, due)
		if !ok {
			return
		}
		if frames != nil {
			due = false
			if !c.wrote(a, a.write(frames)) {
				return
			}
			idle.Reset(interval)
			continue
		}
		select {
		case <-a.wake:
		case <-c.done:
		case <-idle.C:
			due = true
		case <-life.C:
			c.detach(a)
			return
		case <-ctx.Done():
			if c.detach(a) && a.stream {
				// How much of it the client has seen is unknown. Before anything was
				// written nothing is lost.
				c.lose()
			}
			return
		}
	}
}

// take returns what a has to write now, if anything; a HEARTBEAT if one is due. ok is false
// if a has no more part in it. After frames were returned wrote must be called.
func (c *conn) take(a *response, due bool) (frames [][]byte, ok bool) {
	c.mu.Lock()
	for c.writable != nil && c.batchBytes < maxBatchBytes && !c.ended && !c.broken && c.reader == a && c.writer == nil {
		more := c.writable
		c.writable = nil
		c.mu.Unlock()
		more()
		c.mu.Lock()
	}
	switch {
	case c.ended || c.broken || c.reader != a:
		c.mu.Unlock()
		return nil, false
	case c.writer != nil: // the answer before this one, which alerts this one afterwards
		c.mu.Unlock()
		return nil, true
	case len(c.batch) > 0:
		frames = c.batch
		c.batch, c.batchBytes = nil, 0
	case c.finished:
		c.mu.Unlock()
		c.end()
		return nil, false
	case due:
		frames = heartbeat
	default:
		c.mu.Unlock()
		return nil, true
	}
	c.writer = a
	if !a.stream {
		c.reader = nil
	}
	c.mu.Unlock()
	return frames, true
}

// wrote notes that a has written what it took, and reports whether it goes on. What was not
// written in full is lost, and the transport with it.
func (c *conn) wrote(a *response, err error) bool {
	c.mu.Lock()
	c.writer = nil
	next := c.reader
	if next == nil {
		c.away = c.door.opts.Wheel.Now()
	}
	said := next == nil && (c.leaving || c.finished && len(c.batch) == 0)
	c.mu.Unlock()
	switch {
	case err != nil:
		c.lose()
		return false
	case said:
		c.end()
		return false
	case next == nil:
		c.awaitRecv()
		return false
	case next != a:
		next.alert()
		return false
	}
	return true
}

// detach ends a's part, unless another answer has taken its place, and reports whether it
// did.
func (c *conn) detach(a *response) bool {
	c.mu.Lock()
	mine := c.reader == a
	if mine {
		c.reader = nil
		c.away = c.door.opts.Wheel.Now()
	}
	c.mu.Unlock()
	if mine {
		c.awaitRecv()
	}
	return mine
}

// lose notes that the client may have missed something, so that it has to resume. The end
// follows soon: SDKs that close drop their answers first, and say so afterwards.
func (c *conn) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = true
	c.batch = nil
	if c.reader != nil {
		c.reader.alert()
	}
	c.closeSoonLocked()
}

// awaitRecv has the timer see to it that a recv comes.
func (c *conn) awaitRecv() {
	c.door.opts.Wheel.ScheduleSooner(&c.timer, c, c.door.opts.MaxAbsence)
}

// response is the answer to a connect or recv.
type response struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stream  bool
	stuck   time.Duration // how long one piece may take
	begun   bool          // the status was sent
	wake    chan struct{} // a token when there may be something to do
}

// alert has the answer's goroutine look again.
func (a *response) alert() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// interrupt lets a write under way fail.
func (a *response) interrupt() { _ = a.control.SetWriteDeadline(time.Unix(1, 0)) }

// begin sends the head of a stream. net/http lifts its bounds on the time of reading before
// the handler is called, so that the answer may stay open.
func (a *response) begin() {
	setHeaders(a.w)
	if a.stream {
		a.begun = true
		a.w.WriteHeader(http.StatusOK)
		_ = a.control.Flush() // a failure comes back with the first write
	}
}

// write sends frames as one array.
func (a *response) write(frames [][]byte) error {
	if !a.begun {
		n := len("[") + len("]\n") - len(",")
		for _, b := range frames {
			n += len(b)
		}
		a.begun = true
		a.w.Header().Set("Content-Length", strconv.Itoa(n))
		a.w.WriteHeader(http.StatusOK)
	}
	piece := 0
	put := func(b []byte) (err error) {
		for len(b) > 0 && err == nil {
			if piece == 0 {
				_ = a.control.SetWriteDeadline(time.Now().Add(a.stuck))
			}
			n := min(len(b), writePiece-piece)
			_, err = a.w.Write(b[:n])
			b = b[n:]
			piece = (piece + n) % writePiece
		}
		return err
	}
	if err := put([]byte{'['}); err != nil {
		return err
	}
	last := len(frames) - 1
	for _, b := range frames[:last] {
		if err := put(b); err != nil {
			return err
		}
	}
	if err := put(frames[last][:len(frames[last])-1]); err != nil {
		return err
	}
	if err := put([]byte("]\n")); err != nil {
		return err
	}
	return a.control.Flush()
}

// end ends the answer. The deadline is for what net/http still writes, which lifts it
// afterwards.
func (a *response) end() {
	if !a.begun {
		noContent(a.w)
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(endTimeout))
}
