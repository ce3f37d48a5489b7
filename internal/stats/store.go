package stats

import (
	"context"
	"time"
)

// Store keeps what was counted, by app and interval. Its methods may be called from any
// goroutine. They fail only if the store cannot be reached, and may be repeated then.
type Store interface {
	// Add adds what was counted in a part of a minute, after the parts that were added
	// before.
	Add(ctx context.Context, app string, minute Interval, t *Totals) error

	// Replace puts fixtures in place of all that is known of their intervals.
	Replace(ctx context.Context, app string, fixtures []Fixture) error

	// Read returns the intervals that q selects and in which something was counted.
	Read(ctx context.Context, app string, q Query) (Page, error)

	// Forget drops all that is known of an app.
	Forget(ctx context.Context, app string) error
}

// Query selects intervals of one unit.
type Query struct {
	Unit     Unit
	Start    time.Time // intervals that end after it; zero: no bound (RSC6b1)
	End      time.Time // intervals that begin at it or before; zero: now
	Forwards bool      // oldest first (RSC6b2)
	Limit    int       // at least 1 (RSC6b3)

	// After goes on behind this interval, in the direction of reading. It is the last one of
	// the page before; the zero value is none.
	After Interval
}

// Page is a part of what a Query selects.
type Page struct {
	Items []Item
	More  bool
}

// Fixture is an interval as a test suite wants it to be.
type Fixture struct {
	Interval Interval
	Totals   *Totals
}
