package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/engine"
	"letshare-server/internal/redisclient"
)

// feeds are the connections that live entries come by: one to each shard.
type feeds struct {
	e *Engine

	// mu guards the fields below, and subscription.feed, feed.dirty. Nothing is called
	// under it.
	mu      sync.RWMutex
	subs    map[string]*subscription // by the name that entries are published by
	byShard map[string]*feed
	closed  bool

	running sync.WaitGroup
}

// feed is the connection to one shard.
type feed struct {
	e     *Engine
	shard string

	dirty map[string]bool // names to subscribe or to unsubscribe; guarded by feeds.mu
	wake  chan struct{}   // has one element when dirty is not empty
	stop  context.CancelFunc

	moved []string // names that another shard keeps, it says; of run's goroutine
}

// movedDelay is the time until a channel is tried again at a shard that says that another
// keeps it: who does is not known everywhere at the same time.
const movedDelay = 200 * time.Millisecond

func (f *feeds) add(s *subscription) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return engine.ErrClosed
	case f.subs[s.keys.state] != nil:
		return errSubscribed
	}
	f.subs[s.keys.state] = s
	s.feed = f.of(f.e.shardOf(s.slot))
	s.feed.mark(s.keys.state)
	return nil
}

func (f *feeds) remove(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs[s.keys.state] == s {
		delete(f.subs, s.keys.state)
		s.feed.mark(s.keys.state)
	}
}

// of returns the feed of a shard, and starts it. mu is held.
func (f *feeds) of(shard string) *feed {
	d := f.byShard[shard]
	if d == nil {
		ctx, cancel := context.WithCancel(f.e.life)
		d = &feed{e: f.e, shard: shard, dirty: make(map[string]bool), wake: make(chan struct{}, 1), stop: cancel}
		f.byShard[shard] = d
		f.running.Add(1)
		go func() {
			defer f.running.Done()
			d.run(ctx)
		}()
	}
	return d
}

// mark makes the feed look at a name. feeds.mu is held.
func (d *feed) mark(name string) {
	d.dirty[name] = true
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// move gives every subscription to the feed of the shard that keeps it now, and ends feeds
// that have none and whose shard is gone.
func (f *feeds) move(known map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	used := make(map[*feed]bool)
	for name, s := range f.subs {
		if shard := f.e.shardOf(s.slot); s.feed.shard != shard {
			s.feed.mark(name)
			s.feed = f.of(shard)
			s.feed.mark(name)
		}
		used[s.feed] = true
	}
	for shard, d := range f.byShard {
		if !used[d] && !known[shard] {
			d.stop()
			delete(f.byShard, shard)
		}
	}
}

// markAgain makes a feed look at names again.
func (f *feeds) markAgain(d *feed, names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		d.mark(name)
	}
}

func (f *feeds) find(name string) *subscription {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.subs[name]
}

func (f *feeds) all() []*subscription {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]*subscription, 0, len(f.subs))
	for _, s := range f.subs {
		list = append(list, s)
	}
	return list
}

func (f *feeds) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.running.Wait()
}

var errNoNode = errors.New("engine: no such node of Redis")

// run keeps the connection up until ctx ends.
func (d *feed) run(ctx context.Context) {
	for failed := 0; ctx.Err() == nil; {
		up, err := d.connection(ctx, failed > 0)
		if ctx.Err() != nil {
			return
		}
		if up {
			failed = 0
		}
		if failed == 0 {
			d.e.opts.Log.Warn("live entries do not come from Redis", "shard", d.shard, "error", err)
		}
		d.e.stats.feedBreaks.Add(1)
		d.e.checkTopology()
		redisclient.Pause(ctx, failed)
		failed++
	}
}

// subscribeBatch is how many channels one pipeline subscribes.
const subscribeBatch = 256

// connection is one connection's life: it subscribes whatever belongs to this feed, compares
// positions, and follows the changes. up reports whether it was of any use; again, that the
// one before was not.
func (d *feed) connection(ctx context.Context, again bool) (up bool, err error) {
	node := d.e.node(d.shard)
	if node == nil {
		return false, errNoNode
	}
	c, release := node.Dedicate()
	defer release()
	defer c.Close()
	lost := make(chan string, 64) // names that Redis unsubscribed
	var mu sync.Mutex
	leaving := make(map[string]int) // names that we unsubscribe
	ended := c.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) {
			if s := d.e.feeds.find(m.Channel); s != nil {
				s.receive(m.Message)
			}
		},
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if s.Kind != "sunsubscribe" {
				return
			}
			mu.Lock()
			ours := leaving[s.Channel] > 0
			if ours {
				leaving[s.Channel]--
				if leaving[s.Channel] == 0 {
					delete(leaving, s.Channel)
				}
			}
			mu.Unlock()
			if !ours {
				select {
				case lost <- s.Channel:
				default: // so many that everything is looked at anyway
					select {
					case lost <- "":
					default:
					}
				}
			}
		},
	})
	runID, err := d.runID(ctx, c)
	if err != nil {
		return false, err
	}
	subscribed := make(map[string]bool)
	d.moved = nil
	d.markAll()
	tick := time.NewTicker(d.e.opts.RoleInterval)
	defer tick.Stop()
	for {
		join, leave := d.changes(subscribed)
		mu.Lock()
		for _, name := range leave {
			leaving[name]++
		}
		mu.Unlock()
		if err := d.unsubscribe(ctx, c, leave); err != nil {
			return up, err
		}
		if err := d.subscribe(ctx, c, join, subscribed); err != nil {
			return up, err
		}
		if !up && again {
			d.e.opts.Log.Info("live entries come from Redis again", "shard", d.shard)
		}
		up = true
		var moved <-chan time.Time
		if len(d.moved) > 0 {
			moved = time.After(movedDelay)
		}
		select {
		case <-ctx.Done():
			return up, nil
		case err := <-ended:
			return up, err
		case <-d.wake:
		case name := <-lost:
			d.lose(name, subscribed)
		case <-moved:
			d.e.feeds.markAgain(d, d.moved)
			d.moved = nil
		case <-tick.C:
			// A primary that is none any more keeps its connections.
			if id, err := d.runID(ctx, node); err == nil && id != runID {
				return up, errNotPrimary
			}
		}
	}
}

var errNotPrimary = errors.New("engine: another process is the primary")

func (d *feed) runID(ctx context.Context, c rueidis.CoreClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.e.opts.ReadTimeout)
	defer cancel()
	return runID(ctx, c)
}

// markAll makes the feed subscribe all that belongs to it.
func (d *feed) markAll() {
	f := &d.e.feeds
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, s := range f.subs {
		if s.feed == d {
			d.mark(name)
		}
	}
}

// changes returns the names to subscribe and to unsubscribe.
func (d *feed) changes(subscribed map[string]bool) (join []*subscription, leave []string) {
	f := &d.e.feeds
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range d.dirty {
		s := f.subs[name]
		switch mine := s != nil && s.feed == d; {
		case mine:
			join = append(join, s)
		case subscribed[name]:
			leave = append(leave, name)
			delete(subscribed, name)
		}
	}
	clear(d.dirty)
	return join, leave
}

func (d *feed) unsubscribe(ctx context.Context, c rueidis.DedicatedClient, names []string) error {
	for len(names) > 0 {
		part := names[:min(len(names), subscribeBatch)]
		names = names[len(part):]
		commands := make(rueidis.Commands, len(part))
		for i, name := range part {
			commands[i] = c.B().Sunsubscribe().Channel(name).Build()
		}
		if err := d.do(ctx, c, commands, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// subscribe subscribes the channels and then compares positions: what was published before
// is in the log.
func (d *feed) subscribe(ctx context.Context, c rueidis.DedicatedClient, subs []*subscription, subscribed map[string]bool) error {
	for len(subs) > 0 {
		part := subs[:min(len(subs), subscribeBatch)]
		subs = subs[len(part):]
		commands := make(rueidis.Commands, 0, len(part))
		joined := make([]*subscription, 0, len(part))
		for _, s := range part {
			if subscribed[s.keys.state] {
				s.confirm()
				continue
			}
			commands = append(commands, c.B().Ssubscribe().Channel(s.keys.state).Build())
			joined = append(joined, s)
		}
		again := joined[:0]
		names := make([]string, len(joined))
		for i, s := range joined {
			names[i] = s.keys.state
		}
		err := d.do(ctx, c, commands, names, func(i int) {
			s := joined[i]
			subscribed[s.keys.state] = true
			if !s.confirm() {
				again = append(again, s)
			}
		})
		if err != nil {
			return err
		}
		if len(again) > 0 && !d.e.compare(ctx, again) {
			for _, s := range again {
				d.e.catchUp(s) // which tries until Redis answers
			}
		}
	}
	return nil
}

// do sends commands, each for one of the names; ok is called for each that succeeded. A
// channel that moved to another shard is no error of the connection.
func (d *feed) do(ctx context.Context, c rueidis.DedicatedClient, commands rueidis.Commands, names []string, ok func(int)) error {
	if len(commands) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.e.opts.ReadTimeout)
	defer cancel()
	for i, r := range c.DoMulti(ctx, commands...) {
		err := r.Error()
		if re, isRedis := rueidis.IsRedisErr(err); isRedis {
			if _, moved := re.IsMoved(); moved {
				d.e.checkTopology()
				if names != nil {
					d.moved = append(d.moved, names[i])
				}
				continue
			}
		}
		if err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
		if ok != nil {
			ok(i)
		}
	}
	return nil
}

// lose deals with channels that Redis does not send any more, since their slot moved.
func (d *feed) lose(name string, subscribed map[string]bool) {
	if name == "" {
		clear(subscribed)
		d.markAll()
	} else if subscribed[name] {
		delete(subscribed, name)
		d.moved = append(d.moved, name)
	}
	d.e.checkTopology()
}

// confirm tells Subscribe that Redis sends the entries. It reports false if it was told.
func (s *subscription) confirm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.confirmed:
		return false
	default:
		close(s.confirmed)
		return true
	}
}
