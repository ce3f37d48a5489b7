package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var _ engine.Late = (*subscription)(nil)

var errSubscribed = errors.New("engine: the channel has a subscriber on this node")

// maxHeld is how many bytes of deliveries a channel holds back while it reads what is
// missing. What comes when they are used up is read from the log, too.
const maxHeld = 2 << 20

// subscription is this node's live delivery of one channel.
type subscription struct {
	e    *Engine
	id   pubsub.ChannelID
	keys keys
	slot uint16
	to   engine.Subscriber

	// Guarded by feeds.mu.
	feed *feed

	confirmed chan struct{} // closed when Redis first confirmed it

	// mu guards the fields below. Deliver and Lost are called under it.
	mu        sync.Mutex
	closed    bool
	live      bool     // entries go straight to the subscriber
	catching  bool     // a catch-up is under way, or waits for its turn
	position  position // of the last entry delivered, or where delivery begins
	newest    position // of the last entry delivered, unlogged ones too
	heard     time.Time
	held      []heldEntry
	heldBytes int
	dropped   bool // held was full: the log has what is missing
}

type heldEntry struct {
	*engine.Entry
	at, prev position
	bytes    int
}

// Subscribe begins live delivery of a channel to s. It waits for Redis until ctx ends.
func (e *Engine) Subscribe(ctx context.Context, id pubsub.ChannelID, to engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	s := &subscription{e: e, id: id, keys: e.keys(id), to: to, confirmed: make(chan struct{})}
	s.slot = slot(s.keys.state)
	if err := e.feeds.add(s); err != nil {
		return nil, "", err
	}
	select {
	case <-s.confirmed:
	case <-ctx.Done():
		s.Unsubscribe()
		return nil, "", fmt.Errorf("%w: subscribe: %w", engine.ErrUnavailable, ctx.Err())
	case <-e.life.Done():
		s.Unsubscribe()
		return nil, "", engine.ErrClosed
	}
	tail, newest, err := e.tail(ctx, s)
	if err != nil {
		s.Unsubscribe()
		return nil, "", err
	}
	s.mu.Lock()
	s.position, s.newest, s.heard = tail, newest, time.Now()
	behind := !s.release()
	s.mu.Unlock()
	if behind {
		e.catchUp(s)
	} else {
		to.Flush()
	}
	return s, tail.serial(), nil
}

// Unsubscribe waits for mu, under which Deliver runs.
func (s *subscription) Unsubscribe() {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.held, s.heldBytes = nil, 0
	s.mu.Unlock()
	if !closed {
		s.e.feeds.remove(s)
	}
}

// CatchUp implements engine.Late.
func (s *subscription) CatchUp() { s.e.catchUp(s) }

// tail asks for the positions of the last logged entry and of the last of all.
func (e *Engine) tail(ctx context.Context, s *subscription) (tail, newest position, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.ReadTimeout)
	defer cancel()
	m, err := e.eval(ctx, scriptTail, s.keys.state, []string{s.keys.state, s.keys.log()}, []string{e.retention(s.id)})
	if err != nil {
		return position{}, position{}, err
	}
	text, err := m.ToString()
	if err != nil {
		return position{}, position{}, err
	}
	return parseTail(text)
}

func parseTail(text string) (tail, newest position, err error) {
	r := reader{b: text}
	r.take(6)
	tail = r.position()
	newest = position{ms: int64(r.uint(6)), counter: r.int(3), epoch: tail.epoch}
	return tail, newest, r.err
}

// receive takes what was published: the entries of one call of the append script. It runs
// on the goroutine that reads from Redis.
func (s *subscription) receive(payload string) {
	r := reader{b: payload}
	if v := r.uint(1); v != 1 {
		s.e.opts.Log.Error("live entries of an unknown version", "channel", s.id, "version", v)
		s.e.catchUp(s)
		return
	}
	delivered, behind := false, false
	s.mu.Lock()
	s.heard = time.Now()
	for len(r.b) > 0 && r.err == nil && !s.closed {
		n := r.int(4)
		at := position{ms: int64(r.uint(6)), counter: r.int(3)}
		one := reader{b: r.take(n)}
		h := heldEntry{at: at, bytes: n}
		h.Entry, h.prev = one.entry(at.ms, at.counter)
		if one.err != nil {
			r.err = one.err
			break
		}
		h.at.epoch = h.Serial.Epoch()
		if s.live {
			if s.next(h) {
				delivered = true
				continue
			}
			if s.old(h) {
				continue
			}
			s.live, behind = false, true
			s.e.stats.gaps.Add(1)
		}
		s.hold(h)
	}
	s.mu.Unlock()
	if r.err != nil {
		s.e.opts.Log.Error("malformed live entries", "channel", s.id, "error", r.err)
		behind = true
	}
	if delivered {
		s.to.Flush()
	}
	if behind {
		s.e.catchUp(s)
	}
}

// next delivers h if it comes right after what was delivered. mu is held.
func (s *subscription) next(h heldEntry) bool {
	if h.prev != s.position || !h.at.after(s.newest) {
		return false
	}
	s.to.Deliver([]*engine.Entry{h.Entry})
	s.newest = h.at
	if !h.Unlogged {
		s.position = h.at
	}
	return true
}

// old reports whether h was delivered, or is of before the subscription. mu is held.
func (s *subscription) old(h heldEntry) bool {
	return h.at.epoch == s.newest.epoch && !h.at.after(s.newest)
}

func (s *subscription) hold(h heldEntry) {
	if s.heldBytes+h.bytes > maxHeld {
		s.held, s.heldBytes, s.dropped = nil, 0, true
	}
	s.held = append(s.held, h)
	s.heldBytes += h.bytes
}

// release delivers what was held back. It reports false if something is missing before it;
// else the subscription is live. mu is held.
func (s *subscription) release() bool {
	for i, h := range s.held {
		if s.old(h) || s.next(h) {
			continue
		}
		if h.Unlogged && s.position.after(h.prev) {
			continue // its place has passed
		}
		s.held = append(s.held[:0], s.held[i:]...)
		return false
	}
	s.held, s.heldBytes = nil, 0
	if s.dropped {
		s.dropped = false
		return false
	}
	s.live = true
	return true
}
