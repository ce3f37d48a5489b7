package memory

import (
	"context"
	"slices"
	"strings"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// Inhabit notes channels where a connection is about to have members.
func (d *Directory) Inhabit(_ context.Context, id string, channels ...pubsub.ChannelID) error {
	sh := d.store.connectionShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	noted := sh.inhabited[id]
	for _, ch := range channels {
		if !slices.Contains(noted, ch) {
			noted = append(noted, pubsub.ChannelID{App: d.store.app(ch.App).name, Name: strings.Clone(ch.Name)})
		}
	}
	if len(noted) > 0 {
		sh.inhabited[strings.Clone(id)] = noted
	}
	return nil
}

// Vacate notes channels where a connection has no members any more.
func (d *Directory) Vacate(_ context.Context, id string, channels ...pubsub.ChannelID) error {
	sh := d.store.connectionShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	noted := slices.DeleteFunc(sh.inhabited[id], func(ch pubsub.ChannelID) bool { return slices.Contains(channels, ch) })
	if len(noted) == 0 {
		delete(sh.inhabited, id)
	} else {
		sh.inhabited[id] = noted
	}
	return nil
}

// Inhabited returns the channels where a connection may have members.
func (d *Directory) Inhabited(_ context.Context, id string) ([]pubsub.ChannelID, error) {
	sh := d.store.connectionShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return slices.Clone(sh.inhabited[id]), nil
}

// Bury takes a node for gone, as the others of a cluster do when one ends: see bury.
func (s *Store) Bury(n directory.Node) { s.bury(s.node(n)) }

// bury ends what a node has that is gone: connections become orphans, what it counts on channels
// is counted no more.
func (s *Store) bury(n *node) {
	s.uncount(n)
	now := s.opts.Now().UnixMilli()
	for i := range s.connections {
		sh := &s.connections[i]
		sh.mu.Lock()
		for id, r := range sh.records {
			if r.owner != n || r.expired(now) {
				continue
			}
			if r.state == directory.Connected {
				r.app.connected.Add(-1)
				r.state, r.deadline = directory.Disconnected, now+s.opts.StateTTL.Milliseconds()
			}
			if _, there := sh.orphans[id]; !there {
				sh.orphans[id] = now + int64(r.grace)
			}
		}
		sh.mu.Unlock()
	}
}

// Orphans returns connections whose members are to leave.
func (d *Directory) Orphans(_ context.Context, limit int) (list []directory.Orphan, _ error) {
	s := d.store
	now := s.opts.Now().UnixMilli()
	for i := range s.connections {
		sh := &s.connections[i]
		sh.mu.Lock()
		for id, due := range sh.orphans {
			if now < due || len(list) >= limit {
				continue
			}
			o := directory.Orphan{Connection: directory.Connection{ID: id}, Channels: slices.Clone(sh.inhabited[id])}
			if r := s.find(sh, id); r != nil {
				if r.state == directory.Connected { // who resumed it answers for it
					delete(sh.orphans, id)
					continue
				}
				o.Connection = r.connection(id)
			}
			sh.orphans[id] = now + directory.OrphanClaim.Milliseconds()
			list = append(list, o)
		}
		sh.mu.Unlock()
	}
	return list, nil
}

// Settle ends that a connection is an orphan.
func (d *Directory) Settle(_ context.Context, id string) error {
	sh := d.store.connectionShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.orphans, id)
	return nil
}

// Returned yields nothing: nobody takes a node of this process for gone.
func (d *Directory) Returned() <-chan struct{} { return d.node.returned }

// Reclaim makes the record say that this node owns a connection.
func (d *Directory) Reclaim(_ context.Context, c directory.Connection) (reaped bool, err error) {
	s := d.store
	sh := s.connectionShard(c.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := s.find(sh, c.ID)
	if r != nil && r.generation > c.Generation {
		return false, directory.ErrSuperseded
	}
	next := &record{
		app: s.app(c.App), owner: d.node, digest: strings.Clone(c.GrantDigest),
		generation: c.Generation, committed: c.Committed, grace: graceOf(&c), state: directory.Connected,
	}
	if r == nil || r.state != directory.Connected {
		next.app.connect(0)
	}
	if r != nil {
		reaped = r.state == directory.Reaped
		if r.generation == c.Generation {
			next.committed = max(next.committed, r.committed)
		}
	}
	sh.records[strings.Clone(c.ID)] = next
	delete(sh.orphans, c.ID)
	return reaped, nil
}
