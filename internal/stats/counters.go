package stats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// collectEvery is how often what was counted goes to the store, and so how old the figures
// are that other nodes read.
const collectEvery = 5 * time.Second

// Options configure Counters. Store is required.
type Options struct {
	Store Store
	Now   func() time.Time // nil means time.Now
	Log   *slog.Logger     // nil discards
}

// Counters counts what happens on this node. A nil *Counters counts nothing.
type Counters struct {
	opts Options

	// mu guards apps. Nothing is called under it.
	mu   sync.RWMutex
	apps map[string]*App
}

// New returns Counters without any app. It starts nothing.
func New(opts Options) *Counters {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Counters{opts: opts, apps: make(map[string]*App)}
}

// App returns what counts for an app. It is the same each time until the app is forgotten:
// callers that count often keep it. Only name apps that exist, since each takes memory.
func (c *Counters) App(id string) *App {
	if c == nil {
		return nil
	}
	c.mu.RLock()
	a := c.apps[id]
	c.mu.RUnlock()
	if a != nil {
		return a
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.apps[id]; a != nil {
		return a
	}
	now := c.opts.Now()
	a = &App{id: id, since: now}
	for _, g := range []*gauge{&a.connections, &a.channels} {
		g.clock, g.changed = c.opts.Now, now
	}
	c.apps[id] = a
	return a
}

// Run moves what was counted to the store every few seconds and at the end of each minute,
// until ctx ends, and then once more.
func (c *Counters) Run(ctx context.Context) error {
	for saved := c.opts.Now(); ; {
		now := c.opts.Now()
		wait := min(collectEvery, At(Minute, now).End().Sub(now))
		select {
		case <-time.After(wait):
			c.collect(ctx)
			if now = c.opts.Now(); now.Sub(saved) >= saveEvery {
				saved = now
				c.save()
			}
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), collectEvery)
			defer cancel()
			c.collect(ctx)
			c.save()
			return nil
		}
	}
}

// saver is a Store that keeps what it has when it is asked to.
type saver interface{ Save() error }

// saveEvery is how often Run asks for that.
const saveEvery = time.Minute

func (c *Counters) save() {
	s, ok := c.opts.Store.(saver)
	if !ok {
		return
	}
	if err := s.Save(); err != nil {
		c.opts.Log.Warn("statistics not kept; the next minute tries again", "error", err)
	}
}

func (c *Counters) collect(ctx context.Context) {
	if err := c.Collect(ctx); err != nil {
		c.opts.Log.Warn("statistics not stored; they are kept for the next time", "error", err)
	}
}

// Collect moves what was counted to the store. What was counted since the collection before
// belongs to the minute of that one. What the store does not take is kept.
func (c *Counters) Collect(ctx context.Context) error {
	c.mu.RLock()
	apps := make([]*App, 0, len(c.apps))
	for _, a := range c.apps {
		apps = append(apps, a)
	}
	c.mu.RUnlock()
	var errs []error
	for _, a := range apps {
		errs = append(errs, c.collectOf(ctx, a))
	}
	return errors.Join(errs...)
}

func (c *Counters) collectOf(ctx context.Context, a *App) error {
	a.collecting.Lock()
	defer a.collecting.Unlock()
	now := c.opts.Now()
	if !now.After(a.since) {
		return nil
	}
	t, minute := a.take(a.since, now), At(Minute, a.since)
	a.since = now
	if a.unsaved != nil {
		if t != nil {
			a.unsaved.follow(t)
		}
		t, minute = a.unsaved, a.minute
	}
	if t == nil {
		return nil
	}
	a.unsaved, a.minute = nil, minute
	if err := c.opts.Store.Add(ctx, a.id, minute, t); err != nil {
		a.unsaved = t
		return fmt.Errorf("statistics of app %s: %w", a.id, err)
	}
	return nil
}

// Read returns the intervals of an app that q selects, up to now.
func (c *Counters) Read(ctx context.Context, app string, q Query) (Page, error) {
	if c == nil {
		return Page{}, nil
	}
	if err := c.collectOf(ctx, c.App(app)); err != nil {
		return Page{}, err
	}
	return c.opts.Store.Read(ctx, app, q)
}

// Replace puts fixtures in place of all that is known of their intervals.
func (c *Counters) Replace(ctx context.Context, app string, fixtures []Fixture) error {
	if c == nil || len(fixtures) == 0 {
		return nil
	}
	// What was counted before must not be added to a fixture of the minute afterwards.
	if err := c.collectOf(ctx, c.App(app)); err != nil {
		return err
	}
	return c.opts.Store.Replace(ctx, app, fixtures)
}

// Forget drops an app that is gone, and all that is known of it.
func (c *Counters) Forget(ctx context.Context, app string) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	delete(c.apps, app)
	c.mu.Unlock()
	return c.opts.Store.Forget(ctx, app)
}
