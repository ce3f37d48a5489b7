package auth

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"letshare-server/internal/pubsub"
)

// Nonces remembers which token requests were used.
type Nonces interface {
	// Use notes that a nonce was used with a key and keeps that until then. It reports false
	// if the nonce was used before. Of two calls at once only one gets true, on whichever
	// node they are. If it cannot tell it returns an error, which is a *pubsub.Error where a
	// client may see why.
	Use(ctx context.Context, keyName, nonce string, until time.Time) (fresh bool, err error)
}

// defaultNonces is how many nonces a MemoryNonces holds: for 5 minutes of 1,700 requests per
// second, in about 30 MiB.
const defaultNonces = 500_000

// MemoryNonces are the Nonces of a single node. It holds a bounded number: when it is full it
// refuses with CodeBusy until some have expired, because forgetting one would let its request
// be used again.
type MemoryNonces struct {
	now func() time.Time
	max int

	// mu guards the fields below. Nothing is called under it.
	mu      sync.Mutex
	minutes map[int64]map[nonceID]struct{} // by the minute in which they expire
	count   int
}

// nonceID is a hash, so that a long nonce costs no more than a short one.
type nonceID [16]byte

// NewMemoryNonces returns an empty store for most nonces; zero means 500,000. A nil now means
// time.Now.
func NewMemoryNonces(most int, now func() time.Time) *MemoryNonces {
	if most == 0 {
		most = defaultNonces
	}
	if now == nil {
		now = time.Now
	}
	return &MemoryNonces{now: now, max: most, minutes: make(map[int64]map[nonceID]struct{})}
}

// Use implements Nonces.
func (n *MemoryNonces) Use(_ context.Context, keyName, nonce string, until time.Time) (bool, error) {
	sum := sha256.Sum256([]byte(keyName + "\x00" + nonce))
	id := nonceID(sum[:16])
	now := n.now().Unix() / 60

	n.mu.Lock()
	defer n.mu.Unlock()
	for minute, used := range n.minutes {
		if minute < now {
			n.count -= len(used)
			delete(n.minutes, minute)
		} else if _, there := used[id]; there {
			return false, nil
		}
	}
	if n.count >= n.max {
		return false, pubsub.NewError(pubsub.CodeBusy, "too many token requests; try again in a few minutes")
	}
	minute := until.Unix() / 60
	if n.minutes[minute] == nil {
		n.minutes[minute] = make(map[nonceID]struct{})
	}
	n.minutes[minute][id] = struct{}{}
	n.count++
	return true, nil
}
