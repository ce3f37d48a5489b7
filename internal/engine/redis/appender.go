package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/redisclient"
)

const (
	maxCallAppends = 256       // Appends in one call of the script
	maxCallBytes   = 512 << 10 // of their arguments; one Append may have more
	maxBatchCalls  = 128       // calls in one pipeline
	maxBatchBytes  = 4 << 20
	lanesPerShard  = 2
)

// appender sends Appends. Those of a channel go one call after another, as many in a call
// as have come meanwhile, so that their order is theirs whatever becomes of a connection.
// The channels of a shard share a few lanes, each with one pipeline of calls in flight: a
// shard that does not answer holds up no other.
type appender struct {
	e *Engine

	// mu guards the fields below and all queues and lanes. Nothing is called under it.
	mu     sync.Mutex
	queues map[pubsub.ChannelID]*queue
	lanes  map[laneKey]*lane
	bytes  int  // of all items
	closed bool // no new items

	running sync.WaitGroup // lanes
}

type laneKey struct {
	shard string
	n     uint16
}

// queue is the Appends of one channel that have no answer yet. It exists while there are any.
type queue struct {
	id     pubsub.ChannelID
	keys   keys
	slot   uint16
	lane   *lane
	items  []*item // in order; the first inflight of them are being sent
	flying int
	ready  bool // in lane.ready

	finished []*item // answered, done to be called
	draining bool    // somebody calls done
}

// lane is what is sent to a part of the channels.
type lane struct {
	ready   []*queue // with items, and none of them in flight
	running bool
	failed  int // pipelines without any success, one after another
}

func (ap *appender) submit(id pubsub.ChannelID, it *item) {
	ap.mu.Lock()
	if err := ap.refusal(it); err != nil {
		ap.mu.Unlock()
		it.done(engine.Result{Err: err})
		return
	}
	q := ap.queues[id]
	if q == nil {
		q = &queue{id: id, keys: ap.e.keys(id)}
		q.slot = slot(q.keys.state)
		q.lane = ap.laneOf(q.slot)
		ap.queues[id] = q
	}
	ap.bytes += it.bytes
	q.items = append(q.items, it)
	ap.wake(q)
	ap.mu.Unlock()
}

func (ap *appender) refusal(it *item) error {
	switch {
	case ap.closed:
		return engine.ErrClosed
	case ap.bytes+it.bytes > ap.e.opts.QueueBytes && ap.bytes > 0:
		return engine.ErrUnavailable
	}
	return nil
}

func (ap *appender) laneOf(slot uint16) *lane {
	key := laneKey{ap.e.shardOf(slot), slot % lanesPerShard}
	l := ap.lanes[key]
	if l == nil {
		l = &lane{}
		ap.lanes[key] = l
	}
	return l
}

// wake lets q's lane send. mu is held.
func (ap *appender) wake(q *queue) {
	if q.ready || q.flying > 0 || len(q.items) == 0 {
		return
	}
	q.ready = true
	q.lane.ready = append(q.lane.ready, q)
	if !q.lane.running {
		q.lane.running = true
		ap.running.Add(1)
		go ap.send(q.lane)
	}
}

// send sends what is ready in a lane until there is nothing.
func (ap *appender) send(l *lane) {
	defer ap.running.Done()
	for {
		ap.mu.Lock()
		if ap.e.life.Err() != nil {
			l.running = false
			ap.mu.Unlock()
			return // close answers what is left
		}
		calls := ap.take(l)
		if len(calls) == 0 {
			l.ready = nil
			l.running = false
			ap.mu.Unlock()
			return
		}
		failed := l.failed
		ap.mu.Unlock()
		if failed > 0 {
			redisclient.Pause(ap.e.life, failed)
		}
		if ap.deliver(calls) {
			l.failed = 0
		} else {
			l.failed++
			ap.e.checkTopology()
		}
	}
}

// take makes the calls of the next pipeline. mu is held.
func (ap *appender) take(l *lane) []*call {
	var calls []*call
	bytes := 0
	for len(l.ready) > 0 && len(calls) < maxBatchCalls && bytes < maxBatchBytes {
		q := l.ready[0]
		l.ready = l.ready[1:]
		q.ready = false
		c := &call{queue: q}
		n := 0
		for _, it := range q.items {
			if len(c.items) == maxCallAppends || n > 0 && n+it.bytes > maxCallBytes {
				break
			}
			c.items, c.again = append(c.items, it), append(c.again, it.sent)
			n += it.bytes
		}
		if len(c.items) == 0 {
			continue
		}
		q.flying = len(c.items)
		bytes += n
		calls = append(calls, c)
	}
	return calls
}

// deliver sends the calls and deals with the answers. It reports whether there was any.
func (ap *appender) deliver(calls []*call) (any bool) {
	e := ap.e
	ctx, cancel := context.WithTimeout(e.life, e.opts.Timeout)
	defer cancel()
	commands := make(rueidis.Commands, 0, len(calls))
	sent := make([]*call, 0, len(calls))
	for _, c := range calls {
		r, err := e.currentRun(ctx, c.queue.keys.state, c.queue.slot, c.run)
		if err != nil {
			ap.failed(c, redisclient.RefusedNow, err)
			continue
		}
		c.run = r
		c.prepare(e, c.queue.id)
		commands = append(commands, e.client.B().Evalsha().Sha1(r.sha[scriptAppend]).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build())
		sent = append(sent, c)
		e.stats.calls.Add(1)
		e.stats.appends.Add(int64(len(c.items)))
	}
	if len(commands) == 0 {
		return false
	}
	start := time.Now()
	answers := e.client.DoMulti(ctx, commands...)
	elapsed := time.Since(start)
	for i, c := range sent {
		text, err := answers[i].ToString()
		switch f := redisclient.Classify(err); f {
		case redisclient.NotFailed:
			any = true
			ap.answer(c, text, start, elapsed)
		case redisclient.NoScript:
			any = true // it is there, at least
			e.wrongRun(c.queue.slot, c.run)
			ap.failed(c, redisclient.RefusedNow, err)
		default:
			ap.failed(c, f, err)
		}
	}
	return any
}

// answer gives the items of a call their results.
func (ap *appender) answer(c *call, text string, start time.Time, elapsed time.Duration) {
	r := reader{b: text}
	ap.e.runs.shard(ap.e.shardOf(c.queue.slot)).clock.learn(int64(r.uint(6))-ap.e.skew.Load(), start, elapsed)
	for range r.int(1) {
		if n := r.int(2); n > 0 && n <= len(c.keys) {
			ap.e.long.add(c.keys[n-1])
		}
	}
	results := make([]engine.Result, len(c.items))
	for i := range c.items {
		results[i] = r.result()
		if c.again[i] {
			results[i].Repeated = false // it was we who appended it before
		}
	}
	if r.err != nil || len(r.b) > 0 {
		ap.failed(c, redisclient.Broken, errMalformed)
		return
	}
	ap.mu.Lock()
	q := c.queue
	for i, it := range c.items {
		if !it.answered {
			it.answered, it.result = true, results[i]
			q.finished = append(q.finished, it)
		}
	}
	ap.remove(q, len(c.items))
	ap.finish(q)
}

// failed deals with a call that has no results.
func (ap *appender) failed(c *call, f redisclient.Failure, err error) {
	q := c.queue
	switch f {
	case redisclient.NoMemory:
		err = engine.ErrFull
	case redisclient.Broken:
		ap.e.opts.Log.Error("append to Redis", "channel", q.id, "error", err)
	}
	ap.mu.Lock()
	switch f {
	case redisclient.NoMemory, redisclient.Broken:
		for _, it := range c.items {
			if !it.answered {
				it.answered, it.result = true, engine.Result{Err: err}
				q.finished = append(q.finished, it)
			}
		}
		ap.remove(q, len(c.items))
	case redisclient.Ambiguous:
		ap.e.stats.ambiguous.Add(1)
		for _, it := range c.items {
			it.sent = true
		}
		fallthrough
	default:
		q.flying = 0
		ap.expire(q, time.Now())
	}
	ap.finish(q)
}

// remove drops the first n items, which were in flight. mu is held.
func (ap *appender) remove(q *queue, n int) {
	for _, it := range q.items[:n] {
		ap.bytes -= it.bytes
	}
	clear(q.items[:n])
	q.items = q.items[n:]
	q.flying = 0
}

// ghost is how long an Append stays, after its caller was told that its outcome is unknown,
// for those behind it to wait until it is known. Then its deadline has passed in the store's
// time too, and it is applied no more.
const ghost = 5 * time.Second

// expire answers the first items, if their time is over. mu is held.
func (ap *appender) expire(q *queue, now time.Time) {
	kept := q.items[:0]
	for i, it := range q.items {
		late := !it.expiry.After(now)
		flying := i < q.flying
		if late && !it.answered {
			it.answered, it.result = true, engine.Result{Err: engine.ErrUnavailable}
			if it.sent || flying {
				it.result.Err = engine.ErrUnknownOutcome
			}
			q.finished = append(q.finished, it)
		}
		if late && !flying && (!it.sent || it.expiry.Add(ghost).Before(now)) {
			ap.bytes -= it.bytes
			continue
		}
		kept = append(kept, it)
	}
	clear(q.items[len(kept):])
	q.items = kept
}

// finish calls done of what is finished, sends what is left, and drops q if that is nothing.
// It is called with mu held, and releases it.
func (ap *appender) finish(q *queue) {
	ap.wake(q)
	if q.draining {
		ap.mu.Unlock()
		return
	}
	q.draining = true
	for len(q.finished) > 0 {
		finished := q.finished
		q.finished = nil
		ap.mu.Unlock()
		for _, it := range finished {
			it.done(it.result)
		}
		ap.mu.Lock()
	}
	q.draining = false
	if len(q.items) == 0 && ap.queues[q.id] == q {
		delete(ap.queues, q.id)
	}
	ap.mu.Unlock()
}

// sweep answers all whose time is over.
func (ap *appender) sweep(now time.Time) {
	ap.mu.Lock()
	var late []*queue
	for _, q := range ap.queues {
		if len(q.items) > 0 && !q.items[0].expiry.After(now) {
			late = append(late, q)
		}
	}
	ap.mu.Unlock()
	for _, q := range late {
		ap.mu.Lock()
		ap.expire(q, now)
		ap.finish(q)
	}
}

// close refuses new Appends, waits for the lanes, and answers what is left.
func (ap *appender) close() {
	ap.mu.Lock()
	ap.closed = true
	ap.mu.Unlock()
	ap.running.Wait()
	ap.mu.Lock()
	var left []*queue
	for _, q := range ap.queues {
		left = append(left, q)
	}
	ap.mu.Unlock()
	for _, q := range left {
		ap.mu.Lock()
		for _, it := range q.items {
			if it.answered {
				continue
			}
			it.answered, it.result = true, engine.Result{Err: engine.ErrClosed}
			if it.sent {
				it.result.Err = engine.ErrUnknownOutcome
			}
			q.finished = append(q.finished, it)
		}
		ap.remove(q, len(q.items))
		ap.finish(q)
	}
}
