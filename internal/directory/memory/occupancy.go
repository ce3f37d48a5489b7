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
	mu       sync.Mutex // guards channels and what they hold
	channels map[pubsub.ChannelID]*count
}

// count is the attachments of one channel; there is none without attachments.
type count struct {
	total int
	nodes []nodeCount
}

type nodeCount struct {
	node *node
	n    int
}

func (s *Store) countShard(id pubsub.ChannelID) *countShard {
	return &s.counts[maphash.String(s.seed, id.Name)%shardCount]
}

// Join adds one attachment of the node.
func (d *Directory) Join(_ context.Context, id pubsub.ChannelID, n directory.Node, max int) (int, error) {
	node := d.store.node(n)
	sh := d.store.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.channels[id]
	switch {
	case max > 0 && c != nil && c.total >= max:
		return c.total, directory.ErrFull
	case c == nil:
		c = &count{}
		id = pubsub.ChannelID{App: d.store.app(id.App).name, Name: strings.Clone(id.Name)}
		sh.channels[id] = c
	}
	c.total++
	if i := c.index(node); i >= 0 {
		c.nodes[i].n++
	} else {
		c.nodes = append(c.nodes, nodeCount{node, 1})
	}
	return c.total, nil
}

func (c *count) index(n *node) int {
	return slices.IndexFunc(c.nodes, func(c nodeCount) bool { return c.node == n })
}

// Leave takes one attachment of the node off; if it has none, nothing changes.
func (d *Directory) Leave(_ context.Context, id pubsub.ChannelID, n directory.Node) error {
	node := d.store.node(n)
	sh := d.store.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c := sh.channels[id]; c != nil {
		if i := c.index(node); i >= 0 {
			sh.take(id, c, i, 1)
		}
	}
	return nil
}

// take removes n attachments of the i-th node.
func (sh *countShard) take(id pubsub.ChannelID, c *count, i, n int) {
	c.total -= n
	if c.nodes[i].n -= n; c.nodes[i].n == 0 {
		c.nodes = slices.Delete(c.nodes, i, i+1)
	}
	if c.total == 0 {
		delete(sh.channels, id)
	}
}

// Occupancy returns the channel's count over all nodes.
func (d *Directory) Occupancy(_ context.Context, id pubsub.ChannelID) (int, error) {
	sh := d.store.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c := sh.channels[id]; c != nil {
		return c.total, nil
	}
	return 0, nil
}

// uncount takes all attachments of a node off.
func (s *Store) uncount(n *node) {
	for i := range s.counts {
		sh := &s.counts[i]
		sh.mu.Lock()
		for id, c := range sh.channels {
			if i := c.index(n); i >= 0 {
				sh.take(id, c, i, c.nodes[i].n)
			}
		}
		sh.mu.Unlock()
	}
}
