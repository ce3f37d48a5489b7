package session

import (
	"context"
	"sync"
	"time"
)

// withTimeout is context.WithTimeout for calls that hardly ever wait: there is no timer before somebody
// asks for Done.
func withTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c := &timeout{Context: parent, deadline: time.Now().Add(d)}
	if earlier, ok := parent.Deadline(); ok && earlier.Before(c.deadline) {
		c.deadline = earlier
	}
	return c, c.end
}

// timeout is a context whose timer is made when it is needed. Values are its parent's.
type timeout struct {
	context.Context
	deadline time.Time

	// mu guards the fields below.
	mu     sync.Mutex
	over   bool
	timed  context.Context // nil until Done was asked for
	cancel context.CancelFunc
}

// Deadline implements context.Context.
func (c *timeout) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *timeout) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.timed != nil:
	case c.over: // whatever has happened since
		c.timed, c.cancel = context.WithCancel(context.WithoutCancel(c.Context))
		c.cancel()
	default:
		c.timed, c.cancel = context.WithDeadline(c.Context, c.deadline)
	}
	return c.timed.Done()
}

// Err implements context.Context.
func (c *timeout) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.timed != nil:
		return c.timed.Err()
	case c.over:
		return context.Canceled
	case c.Context.Err() != nil:
		return c.Context.Err()
	case !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

func (c *timeout) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.cancel != nil {
		c.cancel()
	}
}
