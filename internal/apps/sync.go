package apps

import (
	"context"
	"errors"
	"sync"
	"time"

	"letshare-server/internal/pubsub"
)

const (
	// syncPause is the least time between two questions of a node to the store whether anything
	// has changed, and syncTimeout is how long one may take.
	syncPause   = 100 * time.Millisecond
	syncTimeout = 700 * time.Millisecond
)

// syncing is what calls of Sync share.
type syncing struct {
	// asking holds a token while the store is asked, and while that waits until it may be: a lock
	// of asked and revision. Apps.reading and mu are taken under it.
	asking   chan struct{}
	asked    time.Time // when the last question began
	revision uint64    // of what this node has read, or 0

	// mu guards the fields below. Nothing is called under it.
	mu      sync.Mutex
	next    *question // that has not been asked yet, or nil
	waiting int       // calls of Sync
}

// maxWaiting is how many calls of Sync wait at once. They take goroutines that others need, too.
const maxWaiting = 64

// question is one to the store, for all who came before it was asked.
type question struct {
	answered chan struct{} // closed
	err      error         // set before that
}

// Sync has this node know every change that was recorded before the call, on whichever node. A
// node is told of changes anyway, but a client that was given a new key may be faster than that.
//
// It is for whoever is about to refuse a credential because nothing is known of it, which anybody
// may bring about at any rate. So calls share their questions, of which there is one in 100 ms at
// most, whatever is asked for; and each costs the store next to nothing unless something has
// changed. Nothing is remembered of what was not found: who waits is answered by what is
// recorded now.
//
// If the store cannot be asked in time, or too many wait, the error is CodeUnavailable. A node that
// does not share its store knows everything.
func (a *Apps) Sync(ctx context.Context) error {
	if !a.opts.Shared {
		return nil
	}
	s := &a.sync
	s.mu.Lock()
	if s.waiting >= maxWaiting {
		s.mu.Unlock()
		return unreadable(errManyWait)
	}
	s.waiting++
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting--
	}()
	q := s.next
	if q != nil {
		s.mu.Unlock()
		select {
		case <-q.answered:
			return q.err
		case <-ctx.Done():
			return unreadable(ctx.Err())
		}
	}
	q = &question{answered: make(chan struct{})}
	s.next = q
	s.mu.Unlock()

	s.asking <- struct{}{}
	defer func() { <-s.asking }()
	time.Sleep(time.Until(s.asked.Add(syncPause)))
	s.mu.Lock()
	s.next = nil // who comes from now on may ask for what is recorded from now on
	s.mu.Unlock()
	s.asked = time.Now()
	// The others wait for it, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncTimeout)
	defer cancel()
	if err := a.catchUp(ctx); err != nil {
		q.err = unreadable(err)
	}
	close(q.answered)
	return q.err
}

// catchUp reads the apps if they have changed since it did so last. The caller has the token of syncing.asking.
func (a *Apps) catchUp(ctx context.Context) error {
	revision, err := a.opts.Store.AppsRevision(ctx)
	if err != nil || revision == a.sync.revision {
		return err
	}
	unusable, err := a.refresh(ctx)
	if unusable != nil {
		a.logUnusable(unusable)
	}
	if err == nil {
		a.sync.revision = revision // or a later one was read
	}
	return err
}

var errManyWait = errors.New("too many are looked up at once")

func unreadable(err error) error {
	return pubsub.NewError(pubsub.CodeUnavailable, "applications cannot be looked up now; try again").Because(err)
}
