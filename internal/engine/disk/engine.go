package disk

import (
	"context"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/memory"
)

// Engine is one node's access to a Store.
type Engine struct {
	*memory.Engine // which asks the Store for what is not in memory
	store          *Store
}

var _ engine.Engine = (*Engine)(nil)

// Node returns the access of one node. The nodes share the process.
func (s *Store) Node(name string) *Engine { return &Engine{s.mem.Node(name), s} }

// Run commits Appends and looks for what is too old, until ctx ends and all that was appended
// has its outcome. Without it no Append to a persisted channel ends. One node's Run is enough.
func (e *Engine) Run(ctx context.Context) error { return e.store.Run(ctx) }

// Ready reports whether the database can be used. A full disk is no reason: all but Appends to
// persisted channels works.
func (e *Engine) Ready(context.Context) error {
	if e.store.db == nil {
		return engine.ErrUnavailable
	}
	if broken := e.store.broken.Load(); broken != nil {
		return *broken
	}
	return nil
}
