package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// arrival is a position that somebody waits for.
type arrival struct {
	at   pubsub.Serial
	here chan struct{} // closed when the channel is there
}

// reach waits until what the log has up to a position has been delivered here. Reads of the log
// may know more than live delivery has brought: a client that another node has sent an entry may
// come here before the entry does. A position that the log does not have is not waited for.
func (c *channel) reach(ctx context.Context, position pubsub.Serial) error {
	c.mu.Lock()
	here := position <= c.position
	c.mu.Unlock()
	if here {
		return nil
	}
	_, err := c.hub.opts.Engine.Read(ctx, c.id, engine.Query{After: position, UpTo: position, Limit: 1, Exact: true})
	switch {
	case errors.Is(err, engine.ErrGone), errors.Is(err, engine.ErrForeign):
		return nil
	case err != nil:
		return err
	}
	a := arrival{at: position, here: make(chan struct{})}
	c.mu.Lock()
	if position <= c.position {
		c.mu.Unlock()
		return nil
	}
	c.awaited = append(c.awaited, a)
	c.mu.Unlock()

	c.subscribing.Lock()
	if late, ok := c.subscription.(engine.Late); ok {
		late.CatchUp()
	}
	c.subscribing.Unlock()
	select {
	case <-a.here:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		c.awaited = slices.DeleteFunc(c.awaited, func(other arrival) bool { return other == a })
		c.mu.Unlock()
		return fmt.Errorf("%w: live entries are late: %w", engine.ErrUnavailable, ctx.Err())
	}
}

// arriveLocked ends the waiting for all positions up to the given one.
func (c *channel) arriveLocked(position pubsub.Serial) {
	c.awaited = slices.DeleteFunc(c.awaited, func(a arrival) bool {
		if a.at > position {
			return false
		}
		close(a.here)
		return true
	})
}
