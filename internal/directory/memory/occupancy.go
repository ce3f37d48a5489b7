package memory

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

type countShard struct {
	mu       sync.Mutex // guards the maps and what they hold
	channels map[pubsub.ChannelID]*count
	touched  map[pubsub.ChannelID]int64 // until when, in ms since the epoch
}

// count is the connections of one channel, and who wants to know of them. There is none with
// neither.
type count struct {
	nodes    []nodeCount
	watchers []watcher
}

type nodeCount struct {
	node *node
	n    pubsub.Occupancy // not all zero
}

type watcher struct {
	node *node
	told bool // of a change that it has not looked at yet
}

func (s *Store) countShard(id pubsub.ChannelID) *countShard {
	return &s.counts[maphash.String(s.seed, id.Name)%shardCount]
}

// at returns the count of a channel, a new one if there was none.
func (sh *countShard) at(s *Store, id pubsub.ChannelID) *count {
	c := sh.channels[id]
	if c == nil {
		id = pubsub.ChannelID{App: s.app(id.App).name, Name: strings.Clone(id.Name)}
		c = &count{}
		sh.channels[id] = c
	}
	return c
}

// settle removes a count that is of no use any more.
func (sh *countShard) settle(id pubsub.ChannelID, c *count) {
	if len(c.nodes) == 0 && len(c.watchers) == 0 {
		delete(sh.channels, id)
	}
}

// total is the occupancy over all nodes.
func (c *count) total() (sum pubsub.Occupancy) {
	if c != nil {
		for i := range c.nodes {
			sum = sum.Plus(c.nodes[i].n)
		}
	}
	return sum
}

// index returns where a node is, or -1.
func (c *count) index(n *node) int {
	return slices.IndexFunc(c.nodes, func(c nodeCount) bool { return c.node == n })
}

// set makes n what the i-th node counts on channel id, and tells the watchers.
func (c *count) set(id pubsub.ChannelID, i int, n pubsub.Occupancy) {
	if c.nodes[i].n == n {
		return
	}
	if c.nodes[i].n = n; n == (pubsub.Occupancy{}) {
		c.nodes = slices.Delete(c.nodes, i, i+1)
	}
	for i := range c.watchers {
		if w := &c.watchers[i]; !w.told {
			select {
			case w.node.changed <- id:
				w.told = true
			default: // the next change is told, or this one found by whoever looks
			}
		}
	}
}

// Join counts a connection of the node.
func (d *Directory) Join(_ context.Context, id pubsub.ChannelID, n directory.Node, add pubsub.Occupancy, max int) (pubsub.Occupancy, error) {
	node := d.store.node(n)
	sh := d.store.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	before := sh.channels[id].total()
	if more := add[pubsub.MetricConnections]; max > 0 && more > 0 && int(before[pubsub.MetricConnections]+more) > max {
		return before, directory.ErrFull
	}
	if add == (pubsub.Occupancy{}) {
		return before, nil
	}
	c := sh.at(d.store, id)
	i := c.index(node)
	if i < 0 {
		i = len(c.nodes)
		c.nodes = append(c.nodes, nodeCount{node: node})
	}
	c.set(id, i, c.nodes[i].n.Plus(add))
	return before.Plus(add), nil
}

// Adjust changes what the node counts; if it counts nothing, nothing changes.
func (d *Directory) Adjust(_ context.Context, id pubsub.ChannelID, n directory.Node, by pubsub.Occupancy) error {
	node := d.store.node(n)
	sh := d.store.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.channels[id]
	if c == nil {
		return nil
	}
	i := c.index(node)
	if i < 0 {
		return nil
	}
	sum := c.nodes[i].n.Plus(by)
	for m := range sum {
		sum[m] = max(sum[m], 0)
	}
	c.set(id, i, sum)
	sh.settle(id, c)
	return nil
}

// Occupancy returns the channel's occupancy over all nodes.
func (d *Directory) Occupancy(_ context.Context, id pubsub.ChannelID) (pubsub.Occupancy, error) {
	sh := d.store.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.channels[id]
	if c != nil {
		if i := c.watching(d.node); i >= 0 {
			c.watchers[i].told = false
		}
	}
	return c.total(), nil
}

// watching returns where a node is among the watchers, or -1.
func (c *count) watching(n *node) int {
	return slices.IndexFunc(c.watchers, func(w watcher) bool { return w.node == n })
}

// Watch begins or ends that this node is told of changes.
func (d *Directory) Watch(_ context.Context, id pubsub.ChannelID, on bool) error {
	sh := d.store.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.at(d.store, id)
	switch i := c.watching(d.node); {
	case on && i < 0:
		c.watchers = append(c.watchers, watcher{node: d.node})
	case !on && i >= 0:
		c.watchers = slices.Delete(c.watchers, i, i+1)
	}
	sh.settle(id, c)
	return nil
}

// uncount takes all that a node counts and watches off.
func (s *Store) uncount(n *node) {
	for i := range s.counts {
		sh := &s.counts[i]
		sh.mu.Lock()
		for id, c := range sh.channels {
			if i := c.watching(n); i >= 0 {
				c.watchers = slices.Delete(c.watchers, i, i+1)
			}
			if i := c.index(n); i >= 0 {
				c.set(id, i, pubsub.Occupancy{})
			}
			sh.settle(id, c)
		}
		sh.mu.Unlock()
	}
}
