package memory

import (
	"context"

	"letshare-server/internal/engine"
)

// Engine is one node's access to a Store.
type Engine struct {
	store *Store
	name  string
}

var _ engine.Engine = (*Engine)(nil)

// Name is the name that the node was given.
func (e *Engine) Name() string { return e.name }

// Ready returns nil: this store can always be used.
func (e *Engine) Ready(context.Context) error { return nil }
