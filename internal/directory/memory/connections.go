package memory

import (
	"context"
	"hash/maphash"
	"math"
	"strings"
	"time"

	"letshare-server/internal/directory"
)

// record is a Connection in 64 bytes. The id is the key of its map.
type record struct {
	app        *app
	owner      *node
	digest     string
	generation uint64
	committed  uint64
	deadline   int64  // ms since the epoch; 0: none
	grace      uint32 // ms
	state      directory.State
}

func (r *record) expired(now int64) bool { return r.deadline != 0 && now >= r.deadline }

func (r *record) connection(id string) directory.Connection {
	c := directory.Connection{
		ID:          id,
		App:         r.app.name,
		Generation:  r.generation,
		Committed:   r.committed,
		Owner:       r.owner.Node,
		State:       r.state,
		GrantDigest: r.digest,
		Grace:       time.Duration(r.grace) * time.Millisecond,
	}
	if r.deadline != 0 {
		c.Deadline = time.UnixMilli(r.deadline)
	}
	return c
}

func (s *Store) connectionShard(id string) *connectionShard {
	return &s.connections[maphash.String(s.seed, id)%shardCount]
}

// find returns the record, unless it has expired. The shard's lock must be held.
func (s *Store) find(sh *connectionShard, id string) *record {
	r := sh.records[id]
	if r == nil {
		return nil
	}
	if r.deadline != 0 && r.expired(s.opts.Now().UnixMilli()) {
		delete(sh.records, id)
		return nil
	}
	return r
}

// graceOf is the grace time of a connection as a record has it.
func graceOf(c *directory.Connection) uint32 {
	return uint32(min(max(c.Grace.Milliseconds(), 0), math.MaxUint32))
}

// Create records a new connection of this node.
func (d *Directory) Create(_ context.Context, c directory.Connection, max int) error {
	s := d.store
	r := &record{
		app:        s.app(c.App),
		owner:      d.node,
		digest:     strings.Clone(c.GrantDigest),
		generation: 1,
		committed:  1,
		grace:      graceOf(&c),
		state:      directory.Connected,
	}
	sh := s.connectionShard(c.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.find(sh, c.ID) != nil {
		return directory.ErrExists
	}
	if !r.app.connect(max) {
		return directory.ErrFull
	}
	id := strings.Clone(c.ID)
	sh.records[id] = r
	delete(sh.inhabited, id)
	return nil
}

// Lookup returns the record.
func (d *Directory) Lookup(_ context.Context, id string) (directory.Connection, error) {
	sh := d.store.connectionShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := d.store.find(sh, id)
	if r == nil {
		return directory.Connection{}, directory.ErrNotFound
	}
	return r.connection(id), nil
}

// Resume makes the next generation, owned by owner, from a generation that is not older
// than the newest committed one.
func (d *Directory) Resume(_ context.Context, id string, from uint64, owner directory.Node) (directory.Connection, bool, error) {
	s := d.store
	next := s.node(owner)
	sh := s.connectionShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := s.find(sh, id)
	switch {
	case r == nil || from > r.generation:
		return directory.Connection{}, false, directory.ErrNotFound
	case from < r.committed:
		return directory.Connection{}, false, directory.ErrSuperseded
	}
	reaped := r.state == directory.Reaped
	if r.state != directory.Connected {
		r.app.connect(0)
	}
	select {
	case r.owner.superseded <- directory.Supersession{ID: id, Generation: r.generation}:
	default: // its next operation fails with ErrSuperseded
	}
	r.generation++
	r.owner = next
	r.state = directory.Connected
	r.deadline = 0
	return r.connection(id), reaped, nil
}

// newest does f to the record if generation is the newest.
func (d *Directory) newest(id string, generation uint64, f func(sh *connectionShard, r *record) error) error {
	sh := d.store.connectionShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := d.store.find(sh, id)
	switch {
	case r == nil || generation > r.generation:
		return directory.ErrNotFound
	case generation < r.generation:
		return directory.ErrSuperseded
	}
	return f(sh, r)
}

// Commit notes that the client uses generation.
func (d *Directory) Commit(_ context.Context, id string, generation uint64) error {
	return d.newest(id, generation, func(_ *connectionShard, r *record) error {
		r.committed = generation
		return nil
	})
}

// Disconnect notes that the transport of generation is gone.
func (d *Directory) Disconnect(_ context.Context, id string, generation uint64, deadline time.Time) error {
	return d.newest(id, generation, func(_ *connectionShard, r *record) error {
		if r.state == directory.Connected {
			r.app.connected.Add(-1)
		}
		if r.state != directory.Reaped {
			r.state = directory.Disconnected
		}
		r.deadline = max(deadline.UnixMilli(), 1)
		return nil
	})
}

// Reap marks a Disconnected connection as Reaped.
func (d *Directory) Reap(_ context.Context, id string, generation uint64) error {
	return d.newest(id, generation, func(_ *connectionShard, r *record) error {
		if r.state == directory.Connected {
			return directory.ErrSuperseded
		}
		r.state = directory.Reaped
		return nil
	})
}

// Close removes the record.
func (d *Directory) Close(_ context.Context, id string, generation uint64) error {
	return d.newest(id, generation, func(sh *connectionShard, r *record) error {
		if r.state == directory.Connected {
			r.app.connected.Add(-1)
		}
		delete(sh.records, id)
		delete(sh.inhabited, id)
		return nil
	})
}
