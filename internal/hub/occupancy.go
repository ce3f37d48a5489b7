package hub

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// OccupancyEvent is the name of the messages that tell of a channel's occupancy.
const OccupancyEvent = "[meta]occupancy"

const (
	// occupancyInterval is the least time between two events of a channel, unless a metric
	// becomes zero or ceases to be zero. Ably says 15 s at most.
	occupancyInterval = 2 * time.Second

	// occupancyPause is the least time between two looks at a channel's occupancy, and
	// occupancyDelay that between a change and the look at it, which joins changes that come
	// together.
	occupancyPause = 100 * time.Millisecond
	occupancyDelay = 20 * time.Millisecond

	// occupancyRepair is the longest time between two looks, for notices that got lost.
	occupancyRepair = 15 * time.Second

	// occupancyTimeout bounds a look.
	occupancyTimeout = 5 * time.Second
)

// OccupancyView is what an attachment is told of its channel's occupancy.
type OccupancyView uint8

// The views, beside those of one metric, which ParseOccupancyView makes.
const (
	NoOccupancy  OccupancyView = iota
	AllOccupancy               // all metrics
	oneMetric                  // the first metric; the others follow

	occupancyViews = oneMetric + OccupancyView(pubsub.Metrics)
)

// ParseOccupancyView reads the channel parameter "occupancy": "metrics", or
// "metrics.<category>".
func ParseOccupancyView(s string) (view OccupancyView, ok bool) {
	if s == "metrics" {
		return AllOccupancy, true
	}
	name, found := strings.CutPrefix(s, "metrics.")
	m, known := pubsub.ParseMetric(name)
	return oneMetric + OccupancyView(m), found && known
}

// differ reports whether the view tells anything else of a than of b.
func (v OccupancyView) differ(a, b pubsub.Occupancy) bool {
	if v < oneMetric {
		return a != b
	}
	return a[v-oneMetric] != b[v-oneMetric]
}

// event is the entry that tells those with the view of an occupancy, at a position.
func (v OccupancyView) event(o pubsub.Occupancy, position pubsub.Serial) *engine.Entry {
	data := []byte(`{"metrics":`)
	if v < oneMetric {
		data = o.AppendJSON(data)
	} else {
		data = o.AppendJSON(data, pubsub.Metric(v-oneMetric))
	}
	return &engine.Entry{
		Kind:      engine.KindMeta + engine.Kind(v),
		Unlogged:  true,
		Prev:      position,
		Timestamp: time.Now().UnixMilli(),
		Body: &pubsub.Batch{ID: randomID() + ":0", Messages: []*pubsub.Message{{
			Name: OccupancyEvent, Action: pubsub.MessageMeta, Encoding: "json", Data: pubsub.Data{Kind: pubsub.TextData, Bytes: append(data, '}')},
		}}},
	}
}

// Status asks for a channel's occupancy.
type Status struct {
	Grant   *auth.Grant
	Channel pubsub.ChannelName
}

// Occupancy returns the occupancy of a channel over all nodes (RSL8). Errors are
// *pubsub.Error: CodeCapabilityDenied, CodeUnavailable.
func (h *Hub) Occupancy(ctx context.Context, q *Status) (pubsub.Occupancy, error) {
	if !q.Grant.Allows(auth.OpChannelMetadata, q.Channel.Resource()) {
		return pubsub.Occupancy{}, denied("read the metadata of", q.Channel)
	}
	id := q.Channel.ID(q.Grant.App)
	o, err := h.opts.Directory.Occupancy(ctx, id)
	if err == nil {
		o[pubsub.MetricPresenceMembers], err = h.countMembers(ctx, id)
	}
	if err != nil {
		return pubsub.Occupancy{}, clientError(err)
	}
	return o, nil
}

func (h *Hub) countMembers(ctx context.Context, id pubsub.ChannelID) (n int32, err error) {
	err = h.eachMember(ctx, id, "", "", func(*engine.Record) (bool, error) {
		n++
		return true, nil
	})
	return n, err
}

// watch is a channel's attachments that are told of its occupancy. A channel has one from the
// first of them on; it costs nothing but its memory while there are none.
type watch struct {
	channel *channel
	wanted  atomic.Bool // there are such attachments
	entered atomic.Bool // presence members may have changed since they were counted

	// mu guards the fields below. It is held while the directory and the engine are asked, so
	// that what is told grows old in one order, and comes before channel.mu.
	mu      sync.Mutex
	views   [occupancyViews]int // attachments by view
	told    pubsub.Occupancy    // what they know; unsure where they may know different things
	members int32               // as counted last
	looked  time.Time           // when the occupancy was asked for last
	sent    time.Time           // when all were told last
	timer   *time.Timer         // until the next look; nil before the first
	soon    bool                // which comes because of a change
}

// unsure is a told count that equals none.
const unsure = -1

// watch returns the channel's watch, a new one if it had none.
func (c *channel) watch() *watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched == nil {
		c.watched = &watch{channel: c}
	}
	return c.watched
}

// ShowOccupancy makes the attachment's client be told of the channel's occupancy from now on,
// as far as view says, and returns the frames that tell of it now, to be sent before what is
// received from now on. at is where the client stands in the channel's order. With the view
// that it has nothing changes, and with NoOccupancy it is told no more. The caller checks the
// right to know. Errors are *pubsub.Error: CodeUnavailable, and nothing has changed.
//
// Events are no entries of the channel: they are not kept, and leave the client where it
// stands. Only those with SUBSCRIBE get them.
func (a *Attachment) ShowOccupancy(ctx context.Context, view OccupancyView, at pubsub.Serial) ([][]byte, error) {
	before := a.occupancy()
	if view == before {
		return nil, nil
	}
	w := a.channel.watch()
	w.mu.Lock()
	defer w.mu.Unlock()
	if view == NoOccupancy {
		w.removeLocked(ctx, a)
		return nil, nil
	}
	c := a.channel
	first := !w.wanted.Load()
	if first {
		// Whoever is told of a change from now on asks for what is then.
		if err := c.hub.opts.Directory.Watch(ctx, c.id, true); err != nil {
			return nil, clientError(err)
		}
		w.entered.Store(true)
		w.wanted.Store(true)
	}
	now, err := w.lookLocked(ctx)
	if err != nil {
		if first {
			w.stopLocked(ctx)
		} else {
			w.againLocked(occupancyInterval)
		}
		return nil, clientError(err)
	}
	if first {
		w.told, w.sent = now, w.looked
		w.againLocked(occupancyRepair)
	} else if now != w.told {
		// The others are told soon, and then a must be too, even if by then all is again
		// as they know it.
		for m := range now {
			if now[m] != w.told[m] {
				w.told[m] = unsure
			}
		}
		w.againLocked(occupancyPause)
		w.soon = true
	}
	if before != NoOccupancy {
		w.views[before]--
	}
	w.views[view]++
	a.setOccupancy(view)
	frames, last := a.render([]*engine.Entry{view.event(now, at)}, new(tally))
	a.follow(last)
	return frames, nil
}

// removeLocked makes a one of those that are told nothing.
func (w *watch) removeLocked(ctx context.Context, a *Attachment) {
	w.views[a.occupancy()]--
	a.setOccupancy(NoOccupancy)
	if w.views == [occupancyViews]int{} {
		w.stopLocked(ctx)
	}
}

// stopLocked ends the watch: nobody is left.
func (w *watch) stopLocked(ctx context.Context) {
	w.wanted.Store(false)
	w.soon = false
	if w.timer != nil {
		w.timer.Stop()
	}
	// A notice that comes nevertheless finds that nobody wants it.
	_ = w.channel.hub.opts.Directory.Watch(ctx, w.channel.id, false)
}

// endOccupancy takes a detached attachment off the watch.
func (a *Attachment) endOccupancy() {
	if a.occupancy() == NoOccupancy {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), occupancyTimeout)
	defer cancel()
	w := a.channel.watch()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeLocked(ctx, a)
}

// lookLocked returns the occupancy of now.
func (w *watch) lookLocked(ctx context.Context) (pubsub.Occupancy, error) {
	h, id := w.channel.hub, w.channel.id
	w.looked = time.Now()
	now, err := h.opts.Directory.Occupancy(ctx, id)
	if err != nil {
		return now, err
	}
	if w.entered.Swap(false) {
		if w.members, err = h.countMembers(ctx, id); err != nil {
			w.entered.Store(true)
			return now, err
		}
	}
	now[pubsub.MetricPresenceMembers] = w.members
	return now, nil
}

// changed has check called soon.
func (w *watch) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted.Load() && !w.soon {
		w.againLocked(max(occupancyDelay, occupancyPause-time.Since(w.looked)))
		w.soon = true
	}
}

// check looks whether there is something to tell, and tells it: at once if a metric became
// zero or is zero no more, and otherwise not too often.
func (w *watch) check(ctx context.Context) {
	if w.checkNow(ctx) {
		w.channel.Flush()
	}
}

// checkNow is check without the sending. It reports whether there is something to send.
func (w *watch) checkNow(ctx context.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.soon = false
	if !w.wanted.Load() {
		return false
	}
	if time.Since(w.looked) >= occupancyRepair {
		w.entered.Store(true)
	}
	ctx, cancel := context.WithTimeout(ctx, occupancyTimeout)
	defer cancel()
	now, err := w.lookLocked(ctx)
	switch wait := occupancyInterval - time.Since(w.sent); {
	case err != nil:
		w.againLocked(occupancyInterval)
	case now == w.told:
		w.againLocked(occupancyRepair)
	case wait > 0 && !turned(w.told, now):
		w.againLocked(wait)
	default:
		w.againLocked(occupancyRepair)
		return w.tellLocked(now)
	}
	return false
}

// turned reports whether a metric became zero, or is zero no more.
func turned(before, now pubsub.Occupancy) bool {
	for m := range now {
		if before[m] != unsure && (before[m] == 0) != (now[m] == 0) {
			return true
		}
	}
	return false
}

// tellLocked queues for each view what is new to it, and reports whether anything is.
func (w *watch) tellLocked(now pubsub.Occupancy) bool {
	var events []*engine.Entry
	for view := AllOccupancy; view < occupancyViews; view++ {
		if w.views[view] > 0 && view.differ(w.told, now) {
			events = append(events, view.event(now, ""))
		}
	}
	w.told = now
	if len(events) == 0 {
		return false
	}
	w.sent = w.looked
	w.channel.insert(events)
	return true
}

// againLocked has check called after d.
func (w *watch) againLocked(d time.Duration) {
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.due)
		return
	}
	w.timer.Reset(d)
}

// due has Run check the channel. It is called by the timer.
func (w *watch) due() {
	h := w.channel.hub
	h.dueMu.Lock()
	h.due = append(h.due, w)
	h.dueMu.Unlock()
	h.awake()
}

func (h *Hub) awake() {
	select {
	case h.wake <- struct{}{}:
	default: // it is awake
	}
}

// entriesSeen notes whether presence members may have changed. It never blocks.
func (w *watch) entriesSeen(entries []*engine.Entry) {
	if w.wanted.Load() && slices.ContainsFunc(entries, func(e *engine.Entry) bool { return e.Kind == engine.KindPresence }) {
		if !w.entered.Swap(true) {
			h := w.channel.hub
			h.dueMu.Lock()
			h.entered = append(h.entered, w)
			h.dueMu.Unlock()
			h.awake()
		}
	}
}

// insert queues entries that are no part of the channel's order, in their place in it: they
// leave a client where what came before left it.
func (c *channel) insert(entries []*engine.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		e.Prev = c.position
		c.pendingBytes += e.Body.Size()
	}
	c.pending = append(c.pending, entries...)
	c.delivered += uint64(len(entries))
}

// Run tells of the occupancy of channels, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case id := <-h.opts.Directory.Changed():
			if c := h.lookup(id); c != nil {
				c.watch().changed()
			}
		case <-h.wake:
			h.dueMu.Lock()
			due, entered := h.due, h.entered
			h.due, h.entered = nil, nil
			h.dueMu.Unlock()
			for _, w := range entered {
				w.changed()
			}
			for _, w := range due {
				w.check(ctx)
			}
		}
	}
}
