package auth

import (
	"context"
	"sync"
	"time"

	"letshare-server/internal/pubsub"
)

// The bounds of a sandbox, and of one app in it.
const (
	defaultSandboxApps = 1000
	defaultSandboxIdle = 24 * time.Hour
	sandboxSweep       = 10 * time.Minute

	maxSandboxItems = 100 // keys, namespaces, and channels with fixtures, each
)

// SandboxOptions configure a Sandbox. Registry is required.
type SandboxOptions struct {
	Registry *Registry

	MaxApps int           // zero means 1000; then no more are made
	Idle    time.Duration // zero means 24 h; an app that was not used for so long is removed

	// InUse reports whether something goes on in an app that needs no further authentication,
	// such as a connection. Nil means never.
	InUse func(appID string) bool

	// Added is told of each new app before anybody knows its keys, Removed of each that is
	// gone, when its credentials are refused already. They run on the goroutine of who creates
	// or deletes, with no lock held. Nil means that nobody wants to know.
	Added, Removed func(*App)

	Now func() time.Time // nil means time.Now
}

// Sandbox makes apps at run time, and removes them.
type Sandbox struct {
	opts SandboxOptions

	// mu guards apps. The registry's lock is taken under it, nothing else is called.
	mu   sync.Mutex
	apps map[string]*App
}

// NewSandbox returns a sandbox without apps. It starts nothing.
func NewSandbox(opts SandboxOptions) *Sandbox {
	if opts.MaxApps == 0 {
		opts.MaxApps = defaultSandboxApps
	}
	if opts.Idle == 0 {
		opts.Idle = defaultSandboxIdle
	}
	if opts.InUse == nil {
		opts.InUse = func(string) bool { return false }
	}
	if opts.Added == nil {
		opts.Added = func(*App) {}
	}
	if opts.Removed == nil {
		opts.Removed = func(*App) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Sandbox{opts: opts, apps: make(map[string]*App)}
}

// AppSpec is what an app of the sandbox is made of.
type AppSpec struct {
	Keys       []KeySpec // their order is kept
	Namespaces []Namespace
	Fixtures   []Fixture
}

// KeySpec is what a key of it is made of; id and secret are the sandbox's to choose.
type KeySpec struct {
	Capability string // JSON; "" and "{}" mean everything
	Revocable  bool
}

// Create makes an app with ids of 6 characters and secrets that nobody can guess. What is
// wrong with the spec is CodeBadRequest; too many apps are CodeRateLimited.
func (s *Sandbox) Create(spec AppSpec) (*App, error) {
	for {
		app, err := spec.NewApp()
		if err != nil {
			return nil, err
		}
		app.touch(s.opts.Now())
		added, err := s.add(app)
		if err != nil {
			return nil, err
		}
		if added {
			s.opts.Added(app)
			return app, nil
		}
	}
}

// add reports false if there is an app with the same id.
func (s *Sandbox) add(app *App) (bool, error) {
	s.Sweep()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.apps) >= s.opts.MaxApps {
		return false, pubsub.Errorf(pubsub.CodeRateLimited, "there are %d apps already; delete those that are not needed", len(s.apps))
	}
	if !s.opts.Registry.Add(app) {
		return false, nil
	}
	s.apps[app.ID] = app
	return true, nil
}

// NewApp makes an app of the spec, for a sandbox to add. Errors are those of Create.
func (spec *AppSpec) NewApp() (*App, error) {
	if len(spec.Keys) > maxSandboxItems || len(spec.Namespaces) > maxSandboxItems || len(spec.Fixtures) > maxSandboxItems {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid app: more than %d keys, namespaces or channels", maxSandboxItems)
	}
	ids := make(map[string]bool)
	keys := make([]Key, 0, len(spec.Keys))
	for i, k := range spec.Keys {
		key := Key{ID: NewID(), Secret: NewSecret(), Revocable: k.Revocable}
		for ids[key.ID] {
			key.ID = NewID()
		}
		ids[key.ID] = true
		if k.Capability != "" {
			capability, err := ParseCapability(k.Capability)
			if err != nil {
				return nil, pubsub.Errorf(pubsub.CodeBadRequest, "keys[%d]: %s", i, pubsub.ErrorFor(err).Message)
			}
			if !capability.Empty() {
				key.Capability = capability
			}
		}
		keys = append(keys, key)
	}
	app, err := NewApp(NewID(), keys, spec.Namespaces)
	if err != nil {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid app: %v", err)
	}
	app.InSandbox(spec.Fixtures)
	return app, nil
}

// Delete removes an app that Create made. It reports false if there is none, and has no error.
func (s *Sandbox) Delete(appID string) (bool, error) {
	s.mu.Lock()
	app := s.apps[appID]
	if app != nil {
		delete(s.apps, appID)
		s.opts.Registry.Remove(appID)
	}
	s.mu.Unlock()
	if app == nil {
		return false, nil
	}
	s.opts.Removed(app)
	return true, nil
}

// Sweep removes the apps that were not used for long.
func (s *Sandbox) Sweep() {
	before := s.opts.Now().Add(-s.opts.Idle).UnixMilli()
	var idle []string
	s.mu.Lock()
	for id, app := range s.apps {
		if app.used.Load() <= before {
			idle = append(idle, id)
		}
	}
	s.mu.Unlock()
	for _, id := range idle {
		if !s.opts.InUse(id) {
			_, _ = s.Delete(id) // without an error
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
