package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"letshare-server/internal/directory"
)

// revocations are those that have not expired, in the order of recording.
type revocations struct {
	// mu guards the fields below. The file is written under it, which takes as long as the disk
	// does; nothing else is called.
	mu      sync.Mutex
	log     []revocation
	last    uint64 // number of the newest
	apps    map[string]int
	targets map[target]uint64 // the newest of each target
	file    *revocationsFile  // nil: they end with the process
}

type revocation struct {
	number uint64
	directory.Revocation
}

// target is what a revocation is about.
type target struct{ key, target string }

func (r *revocation) expired(now int64) bool { return now >= r.Expires.UnixMilli() }

// replaces reports whether from now on, in ms since the epoch, r says all that old does.
func (r *revocation) replaces(old *revocation, now int64) bool {
	return !r.IssuedBefore.Before(old.IssuedBefore) && !r.Expires.Before(old.Expires) &&
		r.AppliesAt.UnixMilli() <= max(old.AppliesAt.UnixMilli(), now)
}

// Revoke records revocations.
func (d *Directory) Revoke(_ context.Context, list []directory.Revocation) error {
	s := d.store
	err := s.revocations.add(list, s.opts, s.opts.Now().UnixMilli())
	if errors.Is(err, directory.ErrTooMany) || errors.Is(err, directory.ErrUnavailable) {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range s.nodes {
		select {
		case n.revoked <- struct{}{}:
		default: // it has a notice that it has not read yet
		}
	}
	return err
}

func (r *revocations) add(list []directory.Revocation, opts Options, now int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fitsLocked(list, opts, now) {
		r.sweepLocked(now)
		if !r.fitsLocked(list, opts, now) {
			return directory.ErrTooMany
		}
	}
	kept, err := true, error(nil)
	if r.file != nil {
		kept, err = r.file.add(list, func() []directory.Revocation { return r.liveLocked(now) })
	}
	if !kept {
		return fmt.Errorf("%w: %w", directory.ErrUnavailable, err)
	}
	for _, given := range list {
		r.putLocked(given, now)
	}
	return err
}

// liveLocked is what has not expired, in the order of recording.
func (r *revocations) liveLocked(now int64) (list []directory.Revocation) {
	for i := range r.log {
		if !r.log[i].expired(now) {
			list = append(list, r.log[i].Revocation)
		}
	}
	return list
}

// putLocked records one revocation; now is in ms since the epoch.
func (r *revocations) putLocked(given directory.Revocation, now int64) {
	if r.apps == nil {
		r.apps, r.targets = make(map[string]int), make(map[target]uint64)
	}
	given.App, given.Key, given.Target = strings.Clone(given.App), strings.Clone(given.Key), strings.Clone(given.Target)
	r.last++
	next := revocation{r.last, given}
	if i := r.replacedLocked(&next, now); i >= 0 {
		r.forgetLocked(&r.log[i])
		r.log = slices.Delete(r.log, i, i+1)
	}
	r.log = append(r.log, next)
	r.targets[target{given.Key, given.Target}] = next.number
	r.apps[given.App]++
}

// fitsLocked reports whether there is room for what does not take another's place.
func (r *revocations) fitsLocked(list []directory.Revocation, opts Options, now int64) bool {
	all, apps := len(r.log), make(map[string]int, 1)
	for _, given := range list {
		if r.replacedLocked(&revocation{Revocation: given}, now) >= 0 {
			continue
		}
		all++
		apps[given.App]++
		if all > opts.Revocations || r.apps[given.App]+apps[given.App] > opts.AppRevocations {
			return false
		}
	}
	return true
}

// replacedLocked is where the one stands that next makes superfluous, or -1.
func (r *revocations) replacedLocked(next *revocation, now int64) int {
	if number, there := r.targets[target{next.Key, next.Target}]; there {
		if i := r.indexLocked(number); next.replaces(&r.log[i], now) {
			return i
		}
	}
	return -1
}

// indexLocked is where a revocation stands in the log, or the first one after it.
func (r *revocations) indexLocked(number uint64) int {
	i, _ := slices.BinarySearchFunc(r.log, number, func(r revocation, n uint64) int {
		switch {
		case r.number < n:
			return -1
		case r.number > n:
			return 1
		}
		return 0
	})
	return i
}

func (r *revocations) forgetLocked(old *revocation) {
	if about := (target{old.Key, old.Target}); r.targets[about] == old.number {
		delete(r.targets, about)
	}
	if r.apps[old.App]--; r.apps[old.App] == 0 {
		delete(r.apps, old.App)
	}
}

// sweep forgets what has expired; now is in ms since the epoch.
func (r *revocations) sweep(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweepLocked(now)
}

func (r *revocations) sweepLocked(now int64) {
	r.log = slices.DeleteFunc(r.log, func(old revocation) bool {
		if !old.expired(now) {
			return false
		}
		r.forgetLocked(&old)
		return true
	})
}

// Revocations returns what was recorded after a position, which is a number.
func (d *Directory) Revocations(_ context.Context, after string) ([]directory.Revocation, string, error) {
	number, _ := strconv.ParseUint(after, 10, 64) // what is none is the beginning
	now := d.store.opts.Now().UnixMilli()
	r := &d.store.revocations
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []directory.Revocation
	for i := r.indexLocked(number + 1); i < len(r.log); i++ {
		if !r.log[i].expired(now) {
			list = append(list, r.log[i].Revocation)
		}
	}
	return list, strconv.FormatUint(r.last, 10), nil
}

// Revoked yields when there may be new revocations.
func (d *Directory) Revoked() <-chan struct{} { return d.node.revoked }
