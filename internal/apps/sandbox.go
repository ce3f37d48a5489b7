package apps

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// forTests is what is recorded of an app that a Sandbox made.
type forTests struct {
	Used     int64    `json:"used"`     // ms; about when it was last used on any node
	Channels []string `json:"channels"` // that have members from the start
}

const (
	// sandboxIdle is after how long without use an app for tests is removed, usedInterval how
	// often its use is recorded, and sandboxSweep the time between two looks at both.
	sandboxIdle  = 24 * time.Hour
	usedInterval = time.Hour
	sandboxSweep = 10 * time.Minute
)

// SandboxOptions configure a Sandbox. Apps is required.
type SandboxOptions struct {
	Apps *Apps

	// InUse, Added and Removed are those of auth.SandboxOptions. Added and Removed are called on
	// one node only, that which makes or deletes the app.
	InUse          func(appID string) bool
	Added, Removed func(*auth.App)

	Log *slog.Logger // nil discards
}

// Sandbox makes apps for tests that every node of a cluster knows: auth.Sandbox for several
// nodes. They count for MaxApps.
type Sandbox struct{ opts SandboxOptions }

// NewSandbox returns a sandbox. It starts nothing.
func NewSandbox(opts SandboxOptions) *Sandbox {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Sandbox{opts}
}

// Create makes an app. Errors are those of auth.Sandbox, and CodeUnavailable.
func (s *Sandbox) Create(spec auth.AppSpec) (*auth.App, error) {
	made, err := spec.NewApp()
	if err != nil {
		return nil, err
	}
	a := s.opts.Apps
	now := a.opts.Now().UnixMilli()
	app := &App{ID: made.ID, Name: "sandbox", Created: now, Modified: now, ForTests: &forTests{Used: now}}
	for _, k := range made.Keys() {
		app.Keys = append(app.Keys, Key{
			ID: k.ID, Secret: k.Secret, Capability: []byte(k.Capability.String()), Revocable: k.Revocable, Created: now, Modified: now,
		})
	}
	for _, n := range made.Namespaces() {
		app.Namespaces = append(app.Namespaces, Namespace{
			ID: n.ID, Persisted: n.Persisted, PersistLast: n.PersistLast, Identified: n.Identified, TLSOnly: n.TLSOnly,
			MutableMessages: n.MutableMessages, PushEnabled: n.PushEnabled, Created: now, Modified: now,
		})
	}
	for _, f := range made.Fixtures() {
		app.ForTests.Channels = append(app.ForTests.Channels, f.Channel)
	}
	if err := s.record(app); err != nil {
		return nil, err
	}
	s.opts.Added(made)
	return made, nil
}

// record makes a new app known to all nodes.
func (s *Sandbox) record(app *App) error {
	a := s.opts.Apps
	a.changing.Lock()
	defer a.changing.Unlock()
	data, err := app.check()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), sandboxTimeout)
	defer cancel()
	_, err = a.opts.Store.PutApp(ctx, app.ID, 0, data, MaxApps)
	switch {
	case errors.Is(err, directory.ErrTooMany):
		return pubsub.Errorf(pubsub.CodeRateLimited, "there are %d apps already; delete those that are not needed", MaxApps)
	case errors.Is(err, directory.ErrConflict): // 30 bits of the id are those of another app's
		return busy()
	}
	_, err = a.outcome(ctx, app, err)
	return err
}

// sandboxTimeout is how long it may take to record a change.
const sandboxTimeout = 5 * time.Second

// Delete removes an app that a Sandbox made. It reports false if there is none.
func (s *Sandbox) Delete(appID string) (bool, error) {
	a := s.opts.Apps
	ctx, cancel := context.WithTimeout(context.Background(), sandboxTimeout)
	defer cancel()
	k, err := a.find(ctx, appID)
	if err != nil {
		return false, err
	}
	if k.app == nil || k.app.ForTests == nil {
		return false, nil
	}
	if err := a.remove(ctx, appID, true); err != nil {
		return false, err
	}
	s.opts.Removed(k.built)
	return true, nil
}

// Sweep records which apps are used on this node, and removes those that nobody has used for long.
func (s *Sandbox) Sweep() {
	a := s.opts.Apps
	now := a.opts.Now()
	for id, k := range *a.known.Load() {
		if k.app == nil || k.app.ForTests == nil {
			continue
		}
		recorded := time.UnixMilli(k.app.ForTests.Used)
		used := k.built.Used()
		if s.opts.InUse(id) {
			used = now
		}
		var err error
		switch {
		case used.Sub(recorded) >= usedInterval:
			ctx, cancel := context.WithTimeout(context.Background(), sandboxTimeout)
			_, err = a.update(ctx, id, true, func(app *App, _ int64) error {
				app.ForTests.Used = max(app.ForTests.Used, used.UnixMilli())
				return nil
			})
			cancel()
		case now.Sub(recorded) >= sandboxIdle:
			_, err = s.Delete(id)
		}
		if err != nil {
			s.opts.Log.Warn("app of the sandbox not looked after; trying again", "app", id, "error", err)
		}
	}
}

// Run sweeps now and then until ctx ends.
func (s *Sandbox) Run(ctx context.Context) error {
	tick := time.NewTicker(sandboxSweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.Sweep()
		}
	}
}
