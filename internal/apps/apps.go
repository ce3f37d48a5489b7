package apps

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// Store is what nodes know together of such apps. A directory.Directory is one.
type Store interface {
	PutApp(ctx context.Context, id string, revision uint64, data json.RawMessage, max int) (uint64, error)
	DeleteApp(ctx context.Context, id string, revision uint64) error
	Apps(ctx context.Context) ([]directory.App, error)
	AppsRevision(ctx context.Context) (uint64, error)
	AppsChanged() <-chan struct{}
}

// Options configure Apps. Store and Registry are required.
type Options struct {
	Store    Store
	Registry *auth.Registry // which Apps provides with the apps

	// Shared says that other nodes change the store, too; see Sync.
	Shared bool

	// Changed is called after the registry has changed, with the ids of apps that are gone. It
	// runs on the goroutine of who noticed the change, one call at a time; until it returns,
	// changes wait. It may not call methods of Apps. Nil means that nobody wants to know.
	Changed func(gone []string)

	Log *slog.Logger     // nil discards
	Now func() time.Time // nil means time.Now
}

// Apps are the apps that were made at run time.
type Apps struct {
	opts Options

	// changing is held while one change is made, so that those of a node do not meet each
	// other; reading is taken under it.
	changing sync.Mutex

	// reading is held while the store is read and the registry is changed, Options.Changed
	// included.
	reading sync.Mutex

	known atomic.Pointer[map[string]known] // as it was read last; never changed

	sync syncing
}

// known is one app as this node knows it.
type known struct {
	directory.App
	app   *App      // nil: the record cannot be used
	built *auth.App // nil with it
}

// New returns Apps that knows none yet: Refresh reads them. It starts nothing.
func New(opts Options) *Apps {
	if opts.Changed == nil {
		opts.Changed = func([]string) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	a := &Apps{opts: opts}
	a.sync.asking = make(chan struct{}, 1)
	a.known.Store(&map[string]known{})
	return a
}

// Refresh reads the store and goes by what is there. A record that cannot be used is an error,
// and an app that credentials are refused for, but changes nothing for others.
func (a *Apps) Refresh(ctx context.Context) error {
	unusable, err := a.refresh(ctx)
	return errors.Join(unusable, err)
}

// refresh tells records that are new and cannot be used from a store that cannot be read.
func (a *Apps) refresh(ctx context.Context) (unusable, err error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	list, err := a.opts.Store.Apps(ctx)
	if err != nil {
		return nil, err
	}
	before, next := *a.known.Load(), make(map[string]known, len(list))
	changed := len(list) != len(before)
	provided := make([]*auth.App, 0, len(list))
	for _, r := range list {
		k, has := before[r.ID]
		if !has || k.Revision != r.Revision {
			changed = true
			k, err = know(r)
			unusable = errors.Join(unusable, err)
		}
		next[r.ID] = k
		if k.built != nil {
			provided = append(provided, k.built)
		}
	}
	if !changed {
		return nil, nil
	}
	var gone []string
	for id := range before {
		if _, has := next[id]; !has {
			gone = append(gone, id)
		}
	}
	a.known.Store(&next)
	a.opts.Registry.Provide(provided...)
	a.opts.Changed(gone)
	return unusable, nil
}

// know reads a record. With an error it cannot be used.
func know(r directory.App) (known, error) {
	app, err := decode(r.ID, r.Data)
	if err != nil {
		return known{App: r}, err
	}
	built, err := app.build()
	if err != nil {
		return known{App: r}, err
	}
	return known{r, app, built}, nil
}

const (
	// refreshInterval is after how long the store is read although no notice came, and
	// retryInterval when it could not be read.
	refreshInterval = 30 * time.Second
	retryInterval   = 2 * time.Second
)

// Run keeps the node's copy up to date until ctx ends.
func (a *Apps) Run(ctx context.Context) error {
	next := refreshInterval
	for {
		wake := time.NewTimer(next)
		select {
		case <-ctx.Done():
			wake.Stop()
			return nil
		case <-a.opts.Store.AppsChanged():
		case <-wake.C:
		}
		wake.Stop()
		unusable, err := a.refresh(ctx)
		if unusable != nil {
			a.logUnusable(unusable)
		}
		if err != nil && next == refreshInterval && ctx.Err() == nil {
			a.opts.Log.Error("apps that were made at run time cannot be read; the last known ones are used meanwhile", "error", err)
		}
		if next = refreshInterval; err != nil {
			next = retryInterval
		}
	}
}

func (a *Apps) logUnusable(err error) {
	a.opts.Log.Error("apps that were made at run time cannot be used; their credentials are refused", "error", err)
}

// List returns all apps as this node knows them but those for tests, in the order in which they
// were made. The caller changes nothing.
func (a *Apps) List() []*App {
	var list []*App
	for _, k := range *a.known.Load() {
		if k.app != nil && k.app.ForTests == nil {
			list = append(list, k.app)
		}
	}
	slices.SortFunc(list, func(a, b *App) int { return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Get returns the app with an id as this node knows it, or nil: also for one for tests. The
// caller changes nothing.
func (a *Apps) Get(id string) *App {
	if app := (*a.known.Load())[id].app; app != nil && app.ForTests == nil {
		return app
	}
	return nil
}

// Create makes an app of spec, of which ID, Created and Modified are chosen here. Errors are
// *pubsub.Error, or the server's own.
func (a *Apps) Create(ctx context.Context, spec App) (*App, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	for range attempts {
		spec.ID = auth.NewID()
		if a.opts.Registry.Lookup(spec.ID) != nil {
			continue
		}
		spec.Created = a.opts.Now().UnixMilli()
		spec.Modified = spec.Created
		data, err := spec.check()
		if err != nil {
			return nil, err
		}
		_, err = a.opts.Store.PutApp(ctx, spec.ID, 0, data, MaxApps)
		if errors.Is(err, directory.ErrConflict) {
			continue
		}
		return a.outcome(ctx, &spec, err)
	}
	return nil, busy()
}

// attempts is how often a change is tried when other nodes change the same app.
const attempts = 50

// Update has change change the app with an id, and records it. change is called again if
// another node was faster; what it returns is returned. Without such an app the error is
// CodeNotFound. Errors are *pubsub.Error, or the server's own.
func (a *Apps) Update(ctx context.Context, id string, change func(app *App, now int64) error) (*App, error) {
	return a.update(ctx, id, false, change)
}

// update is Update for apps that a Sandbox made, or for others.
func (a *Apps) update(ctx context.Context, id string, forTests bool, change func(app *App, now int64) error) (*App, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	for range attempts {
		k, err := a.find(ctx, id)
		if err != nil {
			return nil, err
		}
		if k.app == nil || (k.app.ForTests != nil) != forTests {
			return nil, noApp(id)
		}
		app, err := decode(id, k.Data) // a copy
		if err != nil {
			return nil, err
		}
		if err := change(app, a.opts.Now().UnixMilli()); err != nil {
			return nil, err
		}
		data, err := app.check()
		if err != nil {
			return nil, err
		}
		_, err = a.opts.Store.PutApp(ctx, id, k.Revision, data, 0)
		if !errors.Is(err, directory.ErrConflict) {
			return a.outcome(ctx, app, err)
		}
		if _, err := a.refresh(ctx); err != nil {
			return nil, unavailable(err)
		}
	}
	return nil, busy()
}

// Delete removes the app with an id. Errors are those of Update.
func (a *Apps) Delete(ctx context.Context, id string) error { return a.remove(ctx, id, false) }

// remove is Delete for apps that a Sandbox made, or for others.
func (a *Apps) remove(ctx context.Context, id string, forTests bool) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	for range attempts {
		k, err := a.find(ctx, id)
		if err != nil {
			return err
		}
		if k.ID == "" || (k.app != nil && k.app.ForTests != nil) != forTests {
			return noApp(id)
		}
		err = a.opts.Store.DeleteApp(ctx, id, k.Revision)
		if !errors.Is(err, directory.ErrConflict) {
			_, err = a.outcome(ctx, nil, err)
			return err
		}
		if _, err := a.refresh(ctx); err != nil {
			return unavailable(err)
		}
	}
	return busy()
}

// find returns what is known of an app, nothing if there is none on any node.
func (a *Apps) find(ctx context.Context, id string) (known, error) {
	if k, has := (*a.known.Load())[id]; has {
		return k, nil
	}
	err := a.Sync(ctx)
	return (*a.known.Load())[id], err
}

// outcome is what a change ends with whose recording ended with err. Unless nothing has
// changed, this node goes by it.
func (a *Apps) outcome(ctx context.Context, app *App, err error) (*App, error) {
	switch {
	case errors.Is(err, directory.ErrTooMany):
		return nil, tooMany("there are at most %d apps", MaxApps)
	case errors.Is(err, directory.ErrUnavailable):
		return nil, unavailable(err)
	}
	// The change has happened, whether its caller is still there or not.
	if failed := a.Refresh(context.WithoutCancel(ctx)); failed != nil {
		a.opts.Log.Warn("apps that were made at run time have changed, but cannot be read; trying again", "error", failed)
	}
	if err != nil {
		return nil, pubsub.NewError(pubsub.CodeInternalError, "whether this has happened is unknown: read it again").Because(err)
	}
	return app, nil
}

func noApp(id string) error {
	if len(id) > 64 {
		id = id[:64]
	}
	return pubsub.Errorf(pubsub.CodeNotFound, "no application %q", id)
}

func unavailable(err error) error {
	return pubsub.NewError(pubsub.CodeUnavailable, "apps cannot be recorded now; nothing has changed").Because(err)
}

func busy() error {
	return pubsub.NewError(pubsub.CodeBusy, "too many changes at once; nothing has changed; try again")
}
