package session

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/directory"
)

const (
	// orphansInterval is the time between two looks for connections whose node is gone,
	// orphansPage how many are taken at a time, and orphansAtOnce how many are looked after at
	// once.
	orphansInterval = 2 * time.Second
	orphansPage     = 100
	orphansAtOnce   = 16

	// reclaimRetry is after how long connections are reclaimed again that could not be.
	reclaimRetry = time.Second
)

// RunOrphans lets the members of connections leave whose node is gone, and takes the connections of
// this node back when others took it for gone, until ctx ends.
func (m *Manager) RunOrphans(ctx context.Context) error {
	tick := time.NewTicker(orphansInterval)
	defer tick.Stop()
	var again <-chan time.Time
	retried := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for m.buryOrphans(ctx) {
				continue
			}
			continue
		case <-m.opts.Directory.Returned():
		case <-again:
		}
		again = nil
		failed := m.reclaim(ctx, retried)
		if retried++; failed == 0 {
			retried = 0
		} else {
			again = time.After(reclaimRetry)
		}
	}
}

// buryOrphans looks after some connections whose node is gone, and reports whether there may be
// more.
func (m *Manager) buryOrphans(ctx context.Context) (more bool) {
	ctx, cancel := context.WithTimeout(ctx, persistTimeout)
	defer cancel()
	orphans, err := m.opts.Directory.Orphans(ctx, orphansPage)
	if err != nil {
		return false // it comes again
	}
	var failed atomic.Bool
	atOnce(orphans, func(o directory.Orphan) {
		if err := m.bury(ctx, &o); err != nil && !failed.Swap(true) {
			m.opts.Log.Warn("members of a connection whose node is gone have not left; trying again", "connection", o.ID, "error", err)
		}
	})
	return len(orphans) == orphansPage && !failed.Load() && ctx.Err() == nil
}

// bury lets the members of a connection whose node is gone leave, as reap does.
func (m *Manager) bury(ctx context.Context, o *directory.Orphan) error {
	leaving, err := m.opts.Hub.Leaving(ctx, o.ID, o.Channels)
	if err != nil {
		return err
	}
	if o.Generation > 0 { // else the record has expired, and nobody can resume it
		err = m.opts.Directory.Reap(ctx, o.ID, o.Generation)
	}
	switch {
	case err == nil, errors.Is(err, directory.ErrNotFound):
		if err := leaving.Leave(ctx); err != nil {
			return err
		}
	case !errors.Is(err, directory.ErrSuperseded):
		return err
	}
	return m.opts.Directory.Settle(ctx, o.ID)
}

// reclaim makes the directory know the connections of this node again, and returns of how many it could
// not. It says so the first time, and when it has done all.
func (m *Manager) reclaim(ctx context.Context, retried int) (failed int64) {
	m.mu.Lock()
	sessions := slices.Collect(maps.Values(m.sessions))
	m.mu.Unlock()
	var failures atomic.Int64
	atOnce(sessions, func(s *Session) {
		ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
		defer cancel()
		if err := s.reclaim(ctx); err != nil {
			failures.Add(1)
		}
	})
	if failed = failures.Load(); retried == 0 || failed == 0 {
		m.opts.Log.Warn("connections recorded anew: others took this node for gone, or the store has lost their records",
			"connections", len(sessions), "failed", failed, "retried", retried)
	}
	return failed
}

func (s *Session) reclaim(ctx context.Context) error {
	m := s.manager
	committed := s.generation
	if !s.committed.Load() {
		committed--
	}
	reaped, err := m.opts.Directory.Reclaim(ctx, directory.Connection{
		ID: s.id, App: *s.app, Generation: s.generation, Committed: committed,
		Owner: m.opts.Node, State: directory.Connected, GrantDigest: grantDigest(s.Grant()), Grace: s.grace(),
	})
	if errors.Is(err, directory.ErrSuperseded) {
		m.dismiss(s)
		s.supersede()
		return nil
	}
	if err != nil {
		return err
	}
	if reaped {
		s.transport.Soon(func() { s.returned = true })
	}
	if channels := s.members.all(); len(channels) > 0 {
		if err := m.opts.Directory.Inhabit(ctx, s.id, channels...); err != nil {
			return err
		}
	}
	// It may have ended meanwhile, which was noted then, and is not any more.
	m.mu.Lock()
	current := m.sessions[s.id] == s
	m.mu.Unlock()
	switch {
	case !current && !s.superseded.Load():
		return s.closeRecord(ctx)
	case s.gone.Load():
		return settled(m.opts.Directory.Disconnect(ctx, s.id, s.generation, time.Now().Add(m.opts.Limits.ConnectionStateTTL)))
	}
	return nil
}

// atOnce calls f for each item, of several at once, and returns when all have returned.
func atOnce[T any](items []T, f func(T)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(orphansAtOnce, len(items)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(items)); i = next.Add(1) - 1 {
				f(items[i])
			}
		})
	}
	wg.Wait()
}
