package session

import (
	"slices"
	"sync"
	"time"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// The bounds of what waits behind a change of a connection; then its reading waits.
const (
	maxWaiting      = 64
	maxWaitingBytes = 256 << 10 // as messages count
)

// waiting are requests of one connection, in their order, that wait for what a store answers to
// those before them: it makes changes of a message one after the other. A goroutine does them while
// there are any, so that neither the connection's turn nor other channels wait.
type waiting struct {
	mu      sync.Mutex
	room    sync.Cond // on mu
	queue   []request // the first is being done
	bytes   int
	running bool
}

// request is something to be done to a channel, away from the connection's turn.
type request struct {
	channel string
	bytes   int
	since   time.Time // when it came
	do      func(turn *hub.Turn, since time.Time)
}

// mustWait reports whether something on a channel has to go behind what waits there, or, because
// it is a change, is not to be done in the connection's turn.
func (s *Session) mustWait(channel *pubsub.ChannelName, change bool) bool {
	if s.waiting != nil && s.waiting.has(channel.Base) {
		return true
	}
	return change && !s.manager.opts.Hub.Prompt(channel.ID(*s.app))
}

// later does something that must wait, as soon as it can be done. It waits itself until there is
// room, which is when the store has answered or had its time; what the turn has done so far is sent
// before.
func (s *Session) later(turn *hub.Turn, channel *pubsub.ChannelName, bytes int, do func(turn *hub.Turn, since time.Time)) {
	if s.waiting == nil {
		s.waiting = new(waiting)
		s.waiting.room.L = &s.waiting.mu
	}
	r := request{channel.Base, bytes, time.Now(), do}
	if !s.waiting.add(s.manager, r, false) {
		s.EndTurn(turn)
		s.waiting.add(s.manager, r, true)
	}
}

// has reports whether something on a channel waits.
func (w *waiting) has(channel string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.queue, func(r request) bool { return r.channel == channel })
}

// add adds r, when there is room or if there is.
func (w *waiting) add(m *Manager, r request, wait bool) (added bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) >= maxWaiting || len(w.queue) > 0 && w.bytes+r.bytes > maxWaitingBytes {
		if !wait {
			return false
		}
		w.room.Wait()
	}
	w.queue = append(w.queue, r)
	w.bytes += r.bytes
	if !w.running {
		w.running = true
		m.changing.Go(w.run)
	}
	return true
}

// run does what waits.
func (w *waiting) run() {
	var turn hub.Turn
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		r := w.queue[0]
		w.mu.Unlock()
		r.do(&turn, r.since)
		turn.End()
		w.mu.Lock()
		w.bytes -= r.bytes
		w.queue[0] = request{}
		w.queue = w.queue[1:]
		w.room.Signal()
	}
	w.queue, w.running = nil, false // an idle connection keeps little
}
