package auth

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// RevocationStore is what nodes know together of revoked tokens. A directory.Directory is one.
type RevocationStore interface {
	Revoke(ctx context.Context, revocations []directory.Revocation) error
	Revocations(ctx context.Context, after string) (list []directory.Revocation, position string, err error)
	Revoked() <-chan struct{}
}

// RevocationOptions configure Revocations. Store is required.
type RevocationOptions struct {
	Store RevocationStore

	// Life is how long tokens of an app may live that can be revoked. Zero, or a nil function,
	// means an hour: the longest life of tokens of revocable keys.
	Life func(app string) time.Duration

	Log *slog.Logger     // nil discards
	Now func() time.Time // nil means time.Now
}

// Revocations are the revoked tokens of all apps as this node knows them: a copy of what is
// in the store, so that authentication asks nobody. Run keeps it up to date. The nil
// *Revocations has none.
type Revocations struct {
	opts RevocationOptions

	// reading is held while the store is read; mu is taken under it.
	reading  sync.Mutex
	position string // in the store

	// mu guards the fields below. Nothing is called under it.
	mu      sync.RWMutex
	known   revoked
	untold  []directory.Revocation // which Run has not told of
	pending []time.Time            // when others begin to apply
}

// NewRevocations returns an empty copy. It starts nothing, and reads nothing.
func NewRevocations(opts RevocationOptions) *Revocations {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Revocations{opts: opts, known: make(revoked)}
}

// revoked is revocations by app, key and target.
type revoked map[string]map[string]map[target][]directory.Revocation

// target is which tokens of a key are meant.
type target struct{ kind, value string }

// The kinds of targets.
const (
	targetClientID      = "clientId"
	targetRevocationKey = "revocationKey"
	targetChannel       = "channel" // tokens whose capability has exactly this resource
)

func (x revoked) add(r directory.Revocation) {
	kind, value, _ := strings.Cut(r.Target, ":")
	if x[r.App] == nil {
		x[r.App] = make(map[string]map[target][]directory.Revocation)
	}
	if x[r.App][r.Key] == nil {
		x[r.App][r.Key] = make(map[target][]directory.Revocation)
	}
	about := target{kind, value}
	x[r.App][r.Key][about] = append(x[r.App][r.Key][about], r)
}

// forget drops what has expired.
func (x revoked) forget(now time.Time) {
	for app, keys := range x {
		for key, targets := range keys {
			for about, list := range targets {
				kept := list[:0]
				for _, r := range list {
					if now.Before(r.Expires) {
						kept = append(kept, r)
					}
				}
				clear(list[len(kept):])
				if targets[about] = kept; len(kept) == 0 {
					delete(targets, about)
				}
			}
			if len(targets) == 0 {
				delete(keys, key)
			}
		}
		if len(keys) == 0 {
			delete(x, app)
		}
	}
}

// has reports whether the token behind g is revoked, or will be by at.
func (x revoked) has(g *Grant, at time.Time) bool {
	switch {
	case g.ByKey:
		return false
	case g.KeyName != "":
		return has(x[g.App][g.KeyName], g, at)
	}
	// A LetShare token belongs to no key, so that every key of the app revokes it.
	for _, targets := range x[g.App] {
		if has(targets, g, at) {
			return true
		}
	}
	return false
}

func has(targets map[target][]directory.Revocation, g *Grant, at time.Time) bool {
	if len(targets) == 0 {
		return false
	}
	hit := func(kind, value string) bool {
		if value == "" {
			return false
		}
		for _, r := range targets[target{kind, value}] {
			if g.Issued.Before(r.IssuedBefore) && !at.Before(r.AppliesAt) {
				return true
			}
		}
		return false
	}
	if hit(targetClientID, g.ReportedClientID()) || hit(targetRevocationKey, g.RevocationKey) {
		return true
	}
	if g.Capability != nil {
		for i := range g.Capability.rights {
			if hit(targetChannel, g.Capability.rights[i].resource) {
				return true
			}
		}
	}
	return false
}

// Check refuses a grant whose token is revoked, with CodeTokenRevoked.
func (r *Revocations) Check(g *Grant) *pubsub.Error {
	if r == nil {
		return nil
	}
	now := r.opts.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.known.has(g, now) {
		return nil
	}
	return pubsub.NewError(pubsub.CodeTokenRevoked, "token revoked")
}

// Refresh reads what is new in the store. On an error nothing has changed.
func (r *Revocations) Refresh(ctx context.Context) error {
	r.reading.Lock()
	defer r.reading.Unlock()
	list, position, err := r.opts.Store.Revocations(ctx, r.position)
	if err != nil {
		return err
	}
	r.position = position
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known.forget(now)
	for _, revocation := range list {
		r.known.add(revocation)
	}
	r.untold = append(r.untold, list...)
	return nil
}

const (
	// refreshInterval is after how long the store is read although no notice came, and
	// retryInterval when it could not be read.
	refreshInterval = 30 * time.Second
	retryInterval   = 2 * time.Second
)

// Run keeps r up to date until ctx ends. When tokens that were good are revoked it calls
// ended; when some are going to be it calls ending, with a function that tells which. Both run
// on Run's goroutine and with no lock held.
func (r *Revocations) Run(ctx context.Context, ended func(), ending func(revoked func(*Grant) bool)) error {
	var failed bool
	for {
		next := r.tell(ended, ending)
		if failed {
			next = min(next, retryInterval)
		}
		wake := time.NewTimer(next)
		select {
		case <-ctx.Done():
			wake.Stop()
			return nil
		case <-r.opts.Store.Revoked():
		case <-wake.C:
		}
		wake.Stop()
		err := r.Refresh(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			r.opts.Log.Error("revocations cannot be read; revoked tokens are accepted meanwhile", "error", err)
		}
		failed = err != nil
	}
}

// tell calls what Run was given, and returns after how long something else is due.
func (r *Revocations) tell(ended func(), ending func(func(*Grant) bool)) (next time.Duration) {
	now := r.opts.Now()
	var due bool
	soon := make(revoked)
	next = refreshInterval

	r.mu.Lock()
	for _, revocation := range r.untold {
		if now.Before(revocation.AppliesAt) {
			soon.add(revocation)
			r.pending = append(r.pending, revocation.AppliesAt)
		} else {
			due = true
		}
	}
	r.untold = nil
	later := r.pending[:0]
	for _, at := range r.pending {
		if now.Before(at) {
			later = append(later, at)
			next = min(next, at.Sub(now))
		} else {
			due = true
		}
	}
	r.pending = later
	r.mu.Unlock()

	if due {
		ended()
	}
	if len(soon) > 0 {
		ending(func(g *Grant) bool { return soon.has(g, time.Unix(maxClaimSeconds, 0)) }) // when all of them apply
	}
	return next
}
