package memory

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"letshare-server/internal/directory"
)

// nonces are the used ones.
type nonces struct {
	mu      sync.Mutex                     // guards the fields below; nothing is called under it
	minutes map[int64]map[nonceID]struct{} // by the minute since the epoch in which they expire
	count   int
}

// nonceID is a hash, so that a long nonce costs no more than a short one.
type nonceID [16]byte

const msPerMinute = 60_000

// UseNonce notes that a nonce was used with a key.
func (d *Directory) UseNonce(_ context.Context, key, nonce string, until time.Time) (bool, error) {
	sum := sha256.Sum256([]byte(key + "\x00" + nonce))
	id, now := nonceID(sum[:16]), d.store.opts.Now().UnixMilli()
	n := &d.store.nonces
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sweepLocked(now)
	for _, used := range n.minutes {
		if _, there := used[id]; there {
			return false, nil
		}
	}
	if n.count >= d.store.opts.Nonces {
		return false, directory.ErrTooMany
	}
	minute := until.UnixMilli() / msPerMinute
	if n.minutes == nil {
		n.minutes = make(map[int64]map[nonceID]struct{})
	}
	if n.minutes[minute] == nil {
		n.minutes[minute] = make(map[nonceID]struct{})
	}
	n.minutes[minute][id] = struct{}{}
	n.count++
	return true, nil
}

// sweep forgets what has expired; now is in ms since the epoch.
func (n *nonces) sweep(now int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sweepLocked(now)
}

func (n *nonces) sweepLocked(now int64) {
	for minute, used := range n.minutes {
		if minute < now/msPerMinute {
			n.count -= len(used)
			delete(n.minutes, minute)
		}
	}
}
