package memory

import (
	"math"
	"slices"
	"strings"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

const (
	// clientWindow is how long an id that a client chose is remembered: two minutes, and
	// some for the client's clock and its retries.
	clientWindow = 150 * time.Second

	// maxResults is how many results of one connection a channel keeps.
	maxResults = 2048

	// maxRanges is how many ranges of older msgSerials it keeps.
	maxRanges = 2048

	// maxForgotten is how many ids one holder forgets at a time for want of room.
	maxForgotten = 256
)

// outcome is a Result in short: the serials of one Append follow one another.
type outcome struct {
	ms      int64
	counter int32  // of the first serial
	count   uint16 // of serials
	epoch   uint16 // index in Store.epochs
}

func (s *Store) result(o outcome) engine.Result {
	r := engine.Result{Timestamp: o.ms, Repeated: true}
	if o.count > 0 {
		epoch := (*s.epochs.Load())[o.epoch]
		r.Serials = make([]pubsub.Serial, o.count)
		var clock pubsub.Clock
		clock.Resume(o.ms, int(o.counter))
		r.Serials[0] = pubsub.MakeSerial(o.ms, int(o.counter), epoch)
		for i := 1; i < len(r.Serials); i++ {
			ms, counter := clock.Next(o.ms)
			r.Serials[i] = pubsub.MakeSerial(ms, counter, epoch)
		}
	}
	return r
}

// recall returns the first result of an Append whose id is known.
func (c *channel) recall(id engine.ID, now int64) (r engine.Result, known bool) {
	if id.ConnectionID != "" {
		if n := c.connections[id.ConnectionID]; n != nil {
			if o, known := n.find(id.MsgSerial); known {
				return c.store.result(o), true
			}
		}
	}
	if id.Client != "" && c.clients != nil {
		if n := c.clients.byID[id.Client]; n != nil && n.noted > now-clientWindow.Milliseconds() {
			if id.ConnectionID != "" {
				// The connection's own publish has this result from now on: it may be sent
				// again when the client's id is forgotten.
				c.note(engine.ID{ConnectionID: id.ConnectionID, MsgSerial: id.MsgSerial}, n.outcome, now)
			}
			return c.store.result(n.outcome), true
		}
	}
	return engine.Result{}, false
}

// note remembers the outcome of an Append.
func (c *channel) note(id engine.ID, o outcome, now int64) {
	if id.ConnectionID != "" {
		n := c.connections[id.ConnectionID]
		if n == nil {
			n = &connectionNotes{id: strings.Clone(id.ConnectionID)}
			n.age = age{channel: c, notes: n, oldest: now, index: notQueued}
			if c.connections == nil {
				c.connections = make(map[string]*connectionNotes)
			}
			c.connections[n.id] = n
			c.store.idBytes.Add(n.cost())
			c.store.notes.push(&n.age)
		}
		before := n.size()
		n.expire(now)
		n.add(result{msgSerial: id.MsgSerial, noted: now, outcome: o})
		c.store.idBytes.Add(n.size() - before)
	}
	if id.Client != "" {
		n := c.clients
		if n == nil {
			n = &clientNotes{byID: make(map[string]*clientNote)}
			n.age = age{channel: c, notes: n, oldest: now, index: notQueued}
			c.clients = n
			c.store.idBytes.Add(n.cost())
			c.store.notes.push(&n.age)
		}
		before := n.size()
		n.expire(now)
		n.add(&clientNote{id: strings.Clone(id.Client), noted: now, outcome: o})
		c.store.idBytes.Add(n.size() - before)
	}
}

// notes are remembered ids, of one kind, in one channel. All methods need the channel's lock.
type notes interface {
	cost() int64           // of its own, without what it holds
	size() int64           // of what it holds
	oldest() (int64, bool) // when the oldest was noted; false if there are none
	expire(now int64)      // forgets what is too old
	shed() (forgotten int) // forgets the oldest
	detach(c *channel)     // takes itself from its channel
}

// settle pushes what was popped back into the queue, or gives it up if it is empty.
func (s *Store) settle(a *age) {
	if oldest, ok := a.notes.oldest(); ok {
		a.oldest = oldest
		s.notes.push(a)
		return
	}
	a.notes.detach(a.channel)
	s.idBytes.Add(-a.notes.cost())
}

// expireIDs forgets what is too old in channels that nobody uses.
func (s *Store) expireIDs(now int64) {
	var old []*age // all are taken out first, since those that stay come back to the head
	for {
		a, _ := s.notes.pop(now - clientWindow.Milliseconds())
		if a == nil {
			break
		}
		old = append(old, a)
	}
	for _, a := range old {
		a.channel.mu.Lock()
		before := a.notes.size()
		a.notes.expire(now)
		s.idBytes.Add(a.notes.size() - before)
		s.settle(a)
		a.channel.mu.Unlock()
	}
}

// shedIDs forgets the oldest ids until the budget is kept. No channel's lock may be held.
func (s *Store) shedIDs() {
	if !s.shedMu.TryLock() {
		return // somebody does it
	}
	defer s.shedMu.Unlock()
	goal := s.opts.IDBytes - s.opts.IDBytes/128
	for s.idBytes.Load() > goal {
		a, until := s.notes.pop(math.MaxInt64)
		if a == nil {
			return
		}
		a.channel.mu.Lock()
		for n := 0; n < maxForgotten && s.idBytes.Load() > goal; n++ {
			oldest, ok := a.notes.oldest()
			if !ok || oldest > until {
				break // another one comes first
			}
			before := a.notes.size()
			s.forgotten.Add(int64(a.notes.shed()))
			s.idBytes.Add(a.notes.size() - before)
		}
		s.settle(a)
		a.channel.mu.Unlock()
	}
}

// connectionNotes are the publishes of one connection to one channel.
type connectionNotes struct {
	age
	id      string
	results results // the newest
	ranges  []span  // those before, by msgSerial; they neither touch nor overlap
}

// span is a range of msgSerials each of which was appended to this channel.
type span struct {
	first, last int64
	noted       int64 // ms; when the newest was
}

func (n *connectionNotes) cost() int64 { return connectionCost + int64(len(n.id)) }

func (n *connectionNotes) size() int64 {
	return int64(n.results.n*resultCost + len(n.ranges)*rangeCost)
}

func (n *connectionNotes) detach(c *channel) { delete(c.connections, n.id) }

func (n *connectionNotes) oldest() (int64, bool) {
	switch {
	case len(n.ranges) > 0 && n.results.n > 0:
		return min(n.ranges[0].noted, n.results.at(0).noted), true
	case len(n.ranges) > 0:
		return n.ranges[0].noted, true
	case n.results.n > 0:
		return n.results.at(0).noted, true
	}
	return 0, false
}

// find reports whether msgSerial was seen; the outcome may be empty.
func (n *connectionNotes) find(msgSerial int64) (o outcome, known bool) {
	if n.results.n > 0 && msgSerial > n.results.newest {
		return outcome{}, false
	}
	if i, found := n.results.search(msgSerial); found {
		return n.results.at(i).outcome, true
	}
	i := n.rangeAfter(msgSerial)
	if i > 0 && n.ranges[i-1].last >= msgSerial {
		return outcome{ms: n.ranges[i-1].noted}, true
	}
	return outcome{}, false
}

// rangeAfter is the index of the first range that begins after msgSerial.
func (n *connectionNotes) rangeAfter(msgSerial int64) int {
	i, _ := slices.BinarySearchFunc(n.ranges, msgSerial, func(s span, m int64) int {
		if s.first <= m {
			return -1
		}
		return 1
	})
	return i
}

func (n *connectionNotes) add(r result) {
	if n.results.n == 0 || r.msgSerial > n.results.newest {
		if n.results.n == maxResults {
			n.forgetResult()
		}
		n.results.push(r)
	} else if i, found := n.results.search(r.msgSerial); !found {
		n.results.insert(i, r)
		if n.results.n > maxResults {
			n.forgetResult()
		}
	}
}

// forgetResult makes a range of the oldest result.
func (n *connectionNotes) forgetResult() {
	old := n.results.pop()
	n.remember(old.msgSerial, old.noted)
	if len(n.ranges) > maxRanges {
		n.ranges = slices.Delete(n.ranges, 0, 1)
	}
}

// remember adds a msgSerial to the ranges.
func (n *connectionNotes) remember(msgSerial, noted int64) {
	i := n.rangeAfter(msgSerial)
	if i > 0 && n.ranges[i-1].last >= msgSerial {
		return
	}
	joinsLeft := i > 0 && n.ranges[i-1].last == msgSerial-1
	joinsRight := i < len(n.ranges) && n.ranges[i].first == msgSerial+1
	switch {
	case joinsLeft && joinsRight:
		left, right := &n.ranges[i-1], n.ranges[i]
		left.last = right.last
		left.noted = max(left.noted, right.noted, noted)
		n.ranges = slices.Delete(n.ranges, i, i+1)
	case joinsLeft:
		n.ranges[i-1].last = msgSerial
		n.ranges[i-1].noted = max(n.ranges[i-1].noted, noted)
	case joinsRight:
		n.ranges[i].first = msgSerial
		n.ranges[i].noted = max(n.ranges[i].noted, noted)
	default:
		n.ranges = slices.Insert(n.ranges, i, span{msgSerial, msgSerial, noted})
	}
}

func (n *connectionNotes) expire(now int64) {
	before := now - engine.LiveWindow.Milliseconds()
	for n.results.n > 0 && n.results.at(0).noted < before {
		n.results.pop()
	}
	for len(n.ranges) > 0 && n.ranges[0].noted < before {
		n.ranges = slices.Delete(n.ranges, 0, 1)
	}
}

// shed makes a range of the oldest result, which costs nothing if it joins the last range;
// the ranges before it are forgotten. When only ranges are left it forgets them.
func (n *connectionNotes) shed() (forgotten int) {
	if n.results.n == 0 {
		forgotten = len(n.ranges)
		n.ranges = nil
		return forgotten
	}
	old := n.results.pop()
	n.remember(old.msgSerial, old.noted)
	if extra := len(n.ranges) - 1; extra > 0 {
		n.ranges = slices.Delete(n.ranges, 0, extra)
		return extra
	}
	return 0
}

// clientNotes are the ids that clients chose, in one channel.
type clientNotes struct {
	age
	byID        map[string]*clientNote
	first, last *clientNote // by time
	bytes       int64
}

type clientNote struct {
	id string
	outcome
	noted int64 // ms
	next  *clientNote
}

func (n *clientNotes) cost() int64       { return clientsCost }
func (n *clientNotes) size() int64       { return n.bytes }
func (n *clientNotes) detach(c *channel) { c.clients = nil }

func (n *clientNotes) oldest() (int64, bool) {
	if n.first == nil {
		return 0, false
	}
	return n.first.noted, true
}

func (n *clientNotes) add(c *clientNote) {
	if n.byID[c.id] != nil {
		return
	}
	n.byID[c.id] = c
	n.bytes += clientCost + int64(len(c.id))
	if n.last == nil {
		n.first = c
	} else {
		n.last.next = c
	}
	n.last = c
}

func (n *clientNotes) expire(now int64) {
	for n.first != nil && n.first.noted <= now-clientWindow.Milliseconds() {
		n.drop()
	}
}

func (n *clientNotes) shed() (forgotten int) {
	n.drop()
	return 1
}

func (n *clientNotes) drop() {
	c := n.first
	n.first = c.next
	if n.first == nil {
		n.last = nil
	}
	delete(n.byID, c.id)
	n.bytes -= clientCost + int64(len(c.id))
}
