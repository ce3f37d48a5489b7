package sse

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
	"letshare-server/internal/stats"
)

// stream is one client's event stream.
type stream struct {
	door          *Door
	id            string // a connectionId
	grant         *auth.Grant
	counts        *stats.App
	style         style
	keepalive     []byte
	channels      int // how many are asked for
	subscriptions []*subscription
	budget        int // bytes of the past that may still be sent, until the stream is open

	conn  socket.Stream
	out   outbox.Outbox
	timer socket.Timer

	opening sync.Mutex    // held until the stream is open, so that its end waits for that
	ended   atomic.Bool   // nothing is scheduled any more
	last    atomic.Uint32 // when the peer must have taken the end; zero before the end
	heard   int           // bytes that came from the peer, which has nothing to say

	// mu guards the fields below and the marks of the subscriptions, and makes a record's id
	// fit what was queued before it. Lock order: mu, then the outbox's. Nothing blocks under
	// it; what the outbox calls back does not take it.
	mu        sync.Mutex
	opened    bool
	early     []delivery // what came before the stream was open
	earlySize int
	prefix    []byte        // what ids of prefixOf begin with
	prefixOf  *subscription // nil if it has to be made anew
	gate      outbox.Gate
	batch     [][]byte // memory of send
}

// delivery is what the hub has given: frames, or the news that some are lost.
type delivery struct {
	to     *subscription
	frames []byte
	lost   pubsub.Serial
}

// What a stream is sent at once when it opens has to fit into its outbox, or it would break
// each time that the client comes back.
func (d *Door) maxBacklogBytes() int { return d.opts.Outbox.MaxBytes / 2 }
func (d *Door) maxEarlyBytes() int   { return d.opts.Outbox.MaxBytes / 4 }

// Reconnecting clients wait this long, each a little different, so that those of a server
// that stops do not all come at once.
const (
	leastRetry = time.Second
	mostRetry  = 3 * time.Second
)

// deadPeer is for how long sent bytes may stay unacknowledged. Nothing else tells of a peer
// that vanished, because it never has anything to say.
const deadPeer = 45 * time.Second

// openSocket takes over the socket and sends all that there is. After an error the request has
// not been answered.
func (s *stream) openSocket(w http.ResponseWriter, p *params) error {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("event stream: %w", err)
	}
	socket.LimitUnacknowledged(conn, deadPeer)
	s.open(conn, s.head(w.Header()), p)
	return nil
}

// openResponse streams over a response, which is one of many on its socket (HTTP/2), and returns
// at the stream's end.
func (s *stream) openResponse(w http.ResponseWriter, request *http.Request, p *params) {
	s.setFields(w.Header())
	w.WriteHeader(http.StatusOK)
	r := newResponse(w, request)
	_ = r.control.Flush() // lines may be long in coming; the peer is gone if this fails
	s.open(r, nil, p)
	r.wait()
}

// open sends head and all that there is.
func (s *stream) open(conn net.Conn, head []byte, p *params) {
	d := s.door
	s.keepalive = s.style.keepalive(p.heartbeats)
	s.opening.Lock()
	defer s.opening.Unlock()
	var err error
	s.conn, err = d.opts.Poller.Add(conn, nil, (*feeder)(s))
	if err != nil { // the server stops, and conn is closed
		s.detach()
		return
	}
	s.out.Init(s.conn, &d.opts.Outbox, (*owner)(s))
	s.begin(head)
	d.mu.Lock()
	d.streams[s] = struct{}{}
	draining := d.draining
	d.mu.Unlock()
	d.opts.Metrics.StreamOpened()
	s.counts.ConnectionOpened()
	d.opts.Wheel.ScheduleSooner(&s.timer, (*expirer)(s), s.untilDue())
	s.recheck() // what was withdrawn while it was not among the streams
	if draining {
		s.end(nil)
	}
}

// head is the head of the answer, with the fields that CORS has set.
func (s *stream) head(fields http.Header) []byte {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n")
	h := fields.Clone()
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	s.setFields(h)
	_ = h.Write(&b) // a Builder does not fail
	b.WriteString("\r\n")
	return []byte(b.String())
}

// setFields sets what all streams have in their heads.
func (s *stream) setFields(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	if s.style.lines {
		h.Set("Content-Type", "application/x-ndjson")
	}
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
}

// begin sends the head, what was missed or asked for of the past, and what came meanwhile.
func (s *stream) begin(head []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.earlySize > s.door.maxEarlyBytes() {
		(*owner)(s).Slow(outbox.TooMuch) // before it could begin; the client tries again
		return
	}
	if !s.style.lines {
		// An id before the first event: who loses the connection until then misses nothing.
		retry := leastRetry + rand.N(mostRetry-leastRetry)
		head = fmt.Appendf(head, "retry: %d\n", retry.Milliseconds())
		head = s.appendID(head, s.subscriptions[0])
		head = append(head, '\n')
	}
	s.out.Queue(head)
	for _, c := range s.subscriptions {
		s.sendBacklog(c)
	}
	for _, d := range s.early {
		if d.frames != nil {
			s.send(d.to, d.frames, true)
		} else {
			s.tellLost(d.to, messagesLost(), positionOf(d.lost))
		}
	}
	s.early = nil
	s.opened = true
	s.out.Flush()
}

// sendBacklog sends what c missed, or tells that it cannot be sent.
func (s *stream) sendBacklog(c *subscription) {
	if c.lost != nil {
		s.tellLost(c, c.lost, positionOf(c.attachment.Position()))
	}
	for _, record := range c.backlog {
		s.send(c, record, true)
	}
	c.position = positionOf(c.attachment.Position())
	s.prefixOf = nil
	c.backlog, c.lost = nil, nil
}

// receive takes what the hub delivers.
func (s *stream) receive(c *subscription, frames []byte, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened {
		s.send(c, frames, more)
		return
	}
	if s.earlySize += len(frames); s.earlySize > s.door.maxEarlyBytes() {
		s.early = nil // the stream will not open
		return
	}
	s.early = append(s.early, delivery{to: c, frames: frames})
}

// lost takes the hub's word that entries are missing before a position.
func (s *stream) lost(c *subscription, p pubsub.Serial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened {
		s.tellLost(c, messagesLost(), positionOf(p))
		s.out.Flush()
		return
	}
	s.early = append(s.early, delivery{to: c, lost: p})
}

func messagesLost() *pubsub.Error {
	return pubsub.NewError(pubsub.CodeMessagesExpired, "messages may have been missed")
}

// send queues records of c, and writes unless more follows. s.mu is held.
func (s *stream) send(c *subscription, frames []byte, more bool) {
	if c.form.alone {
		if more {
			s.out.Queue(frames)
		} else {
			s.out.Put(frames)
		}
		return
	}
	prefix := s.prefixFor(c)
	if !s.opened {
		c.form.records(frames, func(record []byte) {
			s.out.Queue(prefix)
			s.out.Queue(record)
			c.position = c.form.own(record).position
		})
		return
	}
	batch := s.batch[:0]
	var last []byte
	c.form.records(frames, func(record []byte) {
		batch = append(batch, prefix, record)
		last = record
	})
	c.position = c.form.own(last).position
	s.out.Release(&s.gate, batch...) // in one step: nothing may come between an id's parts
	clear(batch)
	if cap(batch) <= 256 {
		s.batch = batch
	}
}

// prefixFor is what comes before the records of c. It stays the same until another channel
// moves on.
func (s *stream) prefixFor(c *subscription) []byte {
	if s.prefixOf != c {
		s.prefix = append(appendOthers([]byte(s.style.beforeID()), c.index, s.subscriptions), '.')
		s.prefixOf = c
	}
	return s.prefix
}

// appendID appends the beginning of a record with an id of where the client stands, written
// from the side of c.
func (s *stream) appendID(dst []byte, c *subscription) []byte {
	if c.form.alone {
		dst = append(dst, s.style.beforeID()...)
	} else {
		dst = append(dst, s.prefixFor(c)...)
	}
	dst = appendOwn(dst, c.mark)
	return append(dst, s.style.afterID()...)
}

// tellLost queues the event that tells that c goes on at p, and what was before is lost.
// s.mu is held.
func (s *stream) tellLost(c *subscription, err *pubsub.Error, p position) {
	c.position = p
	b := s.appendID(nil, c)
	s.out.Queue(s.style.appendError(b, c.form.channel, err))
}

// end sends last, if it is not nil, after what is queued, and closes the socket once the peer
// has taken it.
func (s *stream) end(last []byte) {
	wheel := s.door.opts.Wheel
	deadline := wheel.Now() + socket.Ticks(endTimeout/socket.TickLength)
	if !s.last.CompareAndSwap(0, uint32(deadline)) {
		return
	}
	s.out.Finish(last, outbox.ThenClose)
	s.schedule(endTimeout)
}

// endTimeout is how long the peer may take to read what is queued at the end.
const endTimeout = 3 * time.Second

// Grant implements Stream.
func (s *stream) Grant() *auth.Grant { return s.grant }

// recheck ends the stream if its credentials are not good any more, or a channel's rule keeps
// it out.
func (s *stream) recheck() {
	err := s.door.opts.Auth.Recheck(s.grant)
	for _, c := range s.subscriptions {
		if err == nil {
			err = c.attachment.Admitted()
		}
	}
	if err != nil {
		s.Evict(err)
	}
}

// Evict implements Stream.
func (s *stream) Evict(err *pubsub.Error) { s.end(s.style.lastError(err)) }

// detach leaves the channels.
func (s *stream) detach() {
	for _, c := range s.subscriptions {
		c.attachment.Detach()
	}
}

// forget takes the stream off the door's list.
func (s *stream) forget() {
	d := s.door
	d.mu.Lock()
	delete(d.streams, s)
	d.mu.Unlock()
	s.counts.ConnectionClosed()
	d.opts.Metrics.StreamClosed()
}

// feeder is stream as its socket sees it.
type feeder stream

// maxHeard is how many bytes a peer may send that has nothing to say.
const maxHeard = 64 << 10

// Feed implements socket.Feeder. What the peer sends is thrown away.
func (f *feeder) Feed(b []byte) error {
	if f.heard += len(b); f.heard > maxHeard {
		return fmt.Errorf("the peer of an event stream sent more than %d bytes", maxHeard)
	}
	return nil
}

// FeedEnd implements socket.Feeder.
func (f *feeder) FeedEnd() {}

// Closed implements socket.Feeder.
func (f *feeder) Closed(error) {
	s := (*stream)(f)
	s.opening.Lock() // it is open by now
	defer s.opening.Unlock()
	s.ended.Store(true)
	s.door.opts.Wheel.Stop(&s.timer)
	s.out.Close()
	s.detach()
	s.forget()
}

// owner is stream as its outbox sees it.
type owner stream

// Slow implements outbox.Owner: whoever does not keep up comes back with its last id.
func (o *owner) Slow(outbox.Reason) {
	o.door.opts.Metrics.SlowConsumerClosed()
	_ = o.conn.Abort()
}

// Failed implements outbox.Owner. The socket's end follows.
func (o *owner) Failed(error) {}
