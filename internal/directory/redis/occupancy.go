package redis

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// buckets is into how many parts the channels of an app are divided, each on one shard. It is
// part of the format.
const buckets = 32

// bucketOf is the bucket of a channel, by the FNV-1a of its name.
func bucketOf(id pubsub.ChannelID) bucket {
	h := fnv.New32a()
	h.Write([]byte(id.Name))
	return bucket(strconv.Itoa(int(h.Sum32()%buckets)) + ":" + id.App)
}

// bucket is <number>:<app>.
type bucket string

func (k keys) bucket(kind string, b bucket) string { return string(k) + kind + "{b:" + string(b) + "}" }

// The keys of a bucket.
func (k keys) counts(b bucket, name string) string   { return k.bucket("q", b) + ":" + name }
func (k keys) watchers(b bucket, name string) string { return k.bucket("w", b) + ":" + name }
func (k keys) counting(b bucket, node string) string { return k.bucket("y", b) + ":" + node }
func (k keys) occupied(b bucket) string              { return k.bucket("g", b) }
func (k keys) touched(b bucket) []string             { return []string{k.bucket("h", b), k.bucket("t", b)} }

// counts is what this node counts. The store gets each channel's as a whole, with the changes
// since, so that what was lost is repaired with the next call; and every reportInterval.
type counts struct {
	mu       sync.Mutex // guards all below. Nothing is called under it
	channels map[pubsub.ChannelID]*tally
	watched  map[pubsub.ChannelID]struct{}
}

// tally is what this node counts on a channel. One call for it is under way at a time, with
// all changes that came meanwhile; who waits longest makes the next.
type tally struct {
	mine     pubsub.Occupancy // as the store has it, unless dirty
	missed   pubsub.Occupancy // changes that were given up while a call was under way
	dirty    bool
	busy     bool
	reported time.Time
	queue    []*adjustment
}

// adjustment is one change.
type adjustment struct {
	join  bool
	by    pubsub.Occupancy
	max   int
	turn  chan bool // true: make the next call; false: it is done
	total pubsub.Occupancy
	err   error
}

var errAnotherNode = errors.New("directory: a node counts for itself only")

// Join counts a connection of this node.
func (d *Directory) Join(ctx context.Context, id pubsub.ChannelID, n directory.Node, add pubsub.Occupancy, max int) (pubsub.Occupancy, error) {
	if n != d.node {
		return pubsub.Occupancy{}, errAnotherNode
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	if err := d.use(ctx, usedBucket+string(bucketOf(id))); err != nil {
		return pubsub.Occupancy{}, err
	}
	a := &adjustment{join: true, by: add, max: max, turn: make(chan bool, 1)}
	d.adjust(ctx, id, a)
	return a.total, a.err
}

// Adjust changes what this node counts. After an error it is made known later.
func (d *Directory) Adjust(ctx context.Context, id pubsub.ChannelID, n directory.Node, by pubsub.Occupancy) error {
	if n != d.node {
		return errAnotherNode
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	a := &adjustment{by: by, turn: make(chan bool, 1)}
	d.adjust(ctx, id, a)
	return a.err
}

// adjust makes a change, in its turn.
func (d *Directory) adjust(ctx context.Context, id pubsub.ChannelID, a *adjustment) {
	c := &d.counts
	c.mu.Lock()
	t := c.channels[id]
	if t == nil {
		if !a.join {
			c.mu.Unlock()
			return // it counts nothing there
		}
		t = new(tally)
		id = pubsub.ChannelID{App: strings.Clone(id.App), Name: strings.Clone(id.Name)}
		c.channels[id] = t
	}
	t.queue = append(t.queue, a)
	if t.busy {
		c.mu.Unlock()
		if !c.await(ctx, t, a) {
			return
		}
	} else {
		t.busy = true
		c.mu.Unlock()
	}
	// Others, who are still there, depend on it.
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	d.settleCounts(ctx, map[pubsub.ChannelID]*tally{id: t})
}

// await waits until a change is done, which is false, or it is its turn to make the call.
func (c *counts) await(ctx context.Context, t *tally, a *adjustment) bool {
	select {
	case lead := <-a.turn:
		return lead
	case <-ctx.Done():
	}
	c.mu.Lock()
	i := slices.Index(t.queue, a)
	if i < 0 { // it is under way, or done
		c.mu.Unlock()
		return <-a.turn
	}
	defer c.mu.Unlock()
	t.queue = slices.Delete(t.queue, i, i+1)
	t.fail(a, fmt.Errorf("%w: %w", directory.ErrUnavailable, ctx.Err()))
	select {
	case <-a.turn: // to make the next call: there is no time left to make it
		t.passLocked()
	default:
	}
	return false
}

// passLocked has who waits longest make the next call.
func (t *tally) passLocked() {
	if t.busy = len(t.queue) > 0; t.busy {
		t.queue[0].turn <- true
	}
}

// fail ends a change that was not made: who has left has left nevertheless.
func (t *tally) fail(a *adjustment, err error) {
	a.err = err
	if !a.join {
		t.missed = t.missed.Plus(a.by)
	}
}

// adopt takes what the store has, or nil if it is not known, and what it does not know yet.
func (t *tally) adopt(is *pubsub.Occupancy) {
	t.dirty = is == nil || t.missed != pubsub.Occupancy{}
	if is != nil {
		t.mine, t.reported = *is, time.Now()
	}
	t.mine = t.mine.Plus(t.missed)
	for m := range t.mine {
		t.mine[m] = max(t.mine[m], 0)
	}
	t.missed = pubsub.Occupancy{}
}

// settleCounts makes the store know some tallies, which the caller has made busy.
func (d *Directory) settleCounts(ctx context.Context, some map[pubsub.ChannelID]*tally) {
	c := &d.counts
	type settled struct {
		id    pubsub.ChannelID
		t     *tally
		queue []*adjustment
		told  []string
		err   error
	}
	list, calls := make([]settled, 0, len(some)), make([]call, 0, len(some))
	c.mu.Lock()
	for id, t := range some {
		s := settled{id: id, t: t, queue: t.queue}
		t.queue = nil
		list = append(list, s)
		calls = append(calls, d.countCall(id, d.id, t.mine, s.queue))
	}
	c.mu.Unlock()
	answers, errs := d.evalEach(ctx, calls)
	after := make([]pubsub.Occupancy, len(list))
	var notices []call
	for i := range list {
		s := &list[i]
		if s.err = errs[i]; s.err == nil {
			after[i], s.told, s.err = readCounts(answers[i], s.queue)
		}
		for _, node := range s.told {
			notices = append(notices, d.changeNotice(node, s.id))
		}
	}
	if _, err := d.evalAll(ctx, notices); err != nil {
		d.opts.Log.Debug("a change of occupancy is not told", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range list {
		t := s.t
		is := &after[i]
		if s.err != nil {
			is = nil
		}
		for _, a := range s.queue {
			if s.err != nil {
				t.fail(a, s.err)
			}
			a.turn <- false
		}
		t.adopt(is)
		if t.passLocked(); !t.busy && !t.dirty && t.mine == (pubsub.Occupancy{}) {
			delete(c.channels, s.id)
		}
	}
}

func (d *Directory) changeNotice(node string, id pubsub.ChannelID) call {
	return call{scriptNotify, []string{d.keys.notices(node)}, []string{string(encodeChannel(notice(noticeChanged), id))}}
}

// countCall says what a node counts on a channel, with changes.
func (d *Directory) countCall(id pubsub.ChannelID, node string, mine pubsub.Occupancy, queue []*adjustment) call {
	b := bucketOf(id)
	listed := "1"
	if strings.HasPrefix(id.Name, "[") {
		listed = "0"
	}
	args := make([]string, 0, 4+3*len(queue))
	args = append(args, node, id.Name, listed, encodeOccupancy(mine))
	for _, a := range queue {
		kind := "a"
		if a.join {
			kind = "j"
		}
		args = append(args, kind, encodeOccupancy(a.by), strconv.Itoa(max(a.max, 0)))
	}
	return call{scriptCount, []string{d.keys.counts(b, id.Name), d.keys.watchers(b, id.Name), d.keys.counting(b, node), d.keys.occupied(b)}, args}
}

func encodeOccupancy(o pubsub.Occupancy) string {
	b := make([]byte, 0, 4*len(o))
	for _, n := range o {
		b = appendUint(b, uint64(uint32(n)), 4)
	}
	return string(b)
}

func (r *reader) occupancy() (o pubsub.Occupancy) {
	for m := range o {
		o[m] = int32(r.uint(4))
	}
	return o
}

// readCounts reads what countCall answers.
func readCounts(m rueidis.RedisMessage, queue []*adjustment) (mine pubsub.Occupancy, told []string, err error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) != 3 {
		return mine, nil, errMalformed
	}
	results, err1 := parts[0].ToString()
	is, err2 := parts[1].ToString()
	told, err3 := parts[2].AsStrSlice()
	if errors.Join(err1, err2, err3) != nil {
		return mine, nil, errMalformed
	}
	r := reader{b: results}
	for _, a := range queue {
		if r.uint(1) == 0 {
			a.err = directory.ErrFull
		}
		a.total = r.occupancy()
	}
	last := reader{b: is}
	mine = last.occupancy()
	if r.broken || last.broken {
		err = errMalformed
	}
	return mine, told, err
}

const (
	// reportInterval is how often what this node counts on a channel is told again, though
	// nothing changed. The store keeps it for three times as long.
	reportInterval = 5 * time.Minute

	// reportBatch is how many channels are told of in one go.
	reportBatch = 256
)

// report tells the store what it may not know: that of dirty tallies, and, if all is set, that
// of those that it was not told of for long.
func (d *Directory) report(ctx context.Context, all bool) {
	c := &d.counts
	var due []pubsub.ChannelID
	now := time.Now()
	c.mu.Lock()
	for id, t := range c.channels {
		if t.dirty || all && now.Sub(t.reported) >= reportInterval {
			due = append(due, id)
		}
	}
	c.mu.Unlock()
	for batch := range slices.Chunk(due, reportBatch) {
		if ctx.Err() != nil {
			return
		}
		once, cancel := d.bounded(ctx)
		if d.useBuckets(once, batch) == nil {
			some := make(map[pubsub.ChannelID]*tally, len(batch))
			c.mu.Lock()
			for _, id := range batch {
				if t := c.channels[id]; t != nil && !t.busy {
					t.busy = true
					some[id] = t
				}
			}
			c.mu.Unlock()
			d.settleCounts(once, some)
		}
		cancel()
	}
}

func (d *Directory) useBuckets(ctx context.Context, ids []pubsub.ChannelID) error {
	for _, id := range ids {
		if err := d.use(ctx, usedBucket+string(bucketOf(id))); err != nil {
			return err
		}
	}
	return nil
}

// recount has all that this node counts and watches told again.
func (d *Directory) recount() {
	c := &d.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.channels {
		t.dirty = true
	}
	for id := range c.watched {
		d.repair(func(ctx context.Context) error { return d.arm(ctx, id) })
	}
}

// buryCounts ends what a node that is gone counts on some channels of a bucket, and returns on
// how many.
func (d *Directory) buryCounts(ctx context.Context, node string, b bucket) (int, error) {
	m, err := d.do(ctx, func() rueidis.Completed {
		return d.client.B().Srandmember().Key(d.keys.counting(b, node)).Count(buryPage).Build()
	})
	if err != nil {
		return 0, err
	}
	names, err := m.AsStrSlice()
	if err != nil {
		return 0, errMalformed
	}
	_, app, _ := strings.Cut(string(b), ":")
	calls := make([]call, len(names))
	for i, name := range names {
		calls[i] = d.countCall(pubsub.ChannelID{App: app, Name: name}, node, pubsub.Occupancy{}, nil)
	}
	answers, err := d.evalAll(ctx, calls)
	if err != nil {
		return 0, err
	}
	var notices []call
	for i, name := range names {
		_, told, err := readCounts(answers[i], nil)
		if err != nil {
			return 0, err
		}
		for _, watcher := range told {
			notices = append(notices, d.changeNotice(watcher, pubsub.ChannelID{App: app, Name: name}))
		}
	}
	_, err = d.evalAll(ctx, notices)
	return len(names), err
}

// Occupancy returns the channel's occupancy over all nodes.
func (d *Directory) Occupancy(ctx context.Context, id pubsub.ChannelID) (o pubsub.Occupancy, err error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	d.counts.mu.Lock()
	_, watched := d.counts.watched[id]
	d.counts.mu.Unlock()
	return d.look(ctx, id, watched)
}

func (d *Directory) look(ctx context.Context, id pubsub.ChannelID, watched bool) (o pubsub.Occupancy, err error) {
	b, node := bucketOf(id), ""
	if watched {
		node = d.id
	}
	m, _, err := d.eval(ctx, scriptOccupancy, []string{d.keys.counts(b, id.Name), d.keys.watchers(b, id.Name)}, node)
	if err != nil {
		return o, err
	}
	text, err := m.ToString()
	r := reader{b: text}
	o = r.occupancy()
	if err != nil || r.broken {
		return pubsub.Occupancy{}, errMalformed
	}
	return o, nil
}

// arm asks to be told of the next change of a channel, if it is still watched.
func (d *Directory) arm(ctx context.Context, id pubsub.ChannelID) error {
	d.counts.mu.Lock()
	_, watched := d.counts.watched[id]
	d.counts.mu.Unlock()
	if !watched {
		return nil
	}
	_, err := d.look(ctx, id, true)
	return err
}

// Watch begins or ends that this node is told of changes.
func (d *Directory) Watch(ctx context.Context, id pubsub.ChannelID, on bool) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	c := &d.counts
	c.mu.Lock()
	_, before := c.watched[id]
	if on && !before {
		c.watched[pubsub.ChannelID{App: strings.Clone(id.App), Name: strings.Clone(id.Name)}] = struct{}{}
	} else if !on {
		delete(c.watched, id)
	}
	c.mu.Unlock()
	switch {
	case on == before:
		return nil
	case on:
		_, err := d.look(ctx, id, true)
		if err != nil {
			c.mu.Lock()
			delete(c.watched, id)
			c.mu.Unlock()
		}
		return err
	}
	_, err := d.do(ctx, func() rueidis.Completed {
		return d.client.B().Srem().Key(d.keys.watchers(bucketOf(id), id.Name)).Member(d.id).Build()
	})
	return err
}

// occupancyChanged leaves the notice of a change.
func (d *Directory) occupancyChanged(id pubsub.ChannelID) {
	d.counts.mu.Lock()
	_, watched := d.counts.watched[id]
	d.counts.mu.Unlock()
	if !watched {
		return
	}
	select {
	case d.changed <- id:
	default: // it comes with the next change
		d.repair(func(ctx context.Context) error { return d.arm(ctx, id) })
	}
}
