package directorytest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/directory"
)

var nonceTests = []test{
	{"ANonceIsFreshOnceOnWhicheverNode", nonceOnce},
	{"OfConcurrentUsesOfANonceOneIsFresh", concurrentNonces},
	{"AnExpiredNonceIsForgotten", expiredNonce},
}

func useNonce(t *testing.T, d directory.Directory, key, nonce string, until time.Time, want bool) {
	t.Helper()
	fresh, err := d.UseNonce(t.Context(), key, nonce, until)
	expectError(t, "UseNonce", err, nil)
	if fresh != want {
		t.Fatalf("nonce %s of %s: fresh is %v, want %v", nonce, key, fresh, want)
	}
}

func nonceOnce(t *testing.T, h Harness) {
	nonce, until := name(t), h.Now().Add(5*time.Minute)
	useNonce(t, h.A, "app.key", nonce, until, true)
	useNonce(t, h.A, "app.key", nonce, until, false)
	useNonce(t, h.B, "app.key", nonce, until.Add(time.Hour), false)
	useNonce(t, h.B, "app.other", nonce, until, true)
	useNonce(t, h.A, "app.other", nonce, until, false)
	useNonce(t, h.B, "app.key", nonce+"2", until, true)
	// What stands before and after the dot of a name must not run together.
	useNonce(t, h.A, "app.key2", nonce, until, true)
}

func concurrentNonces(t *testing.T, h Harness) {
	until := h.Now().Add(5 * time.Minute)
	for round := range 50 {
		var fresh atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			d := h.A
			if i%2 == 1 {
				d = h.B
			}
			wg.Go(func() {
				ok, err := d.UseNonce(t.Context(), "app.key", fmt.Sprint(name(t), round), until)
				if err != nil {
					t.Errorf("UseNonce: %v", err)
				}
				if ok {
					fresh.Add(1)
				}
			})
		}
		wg.Wait()
		if n := fresh.Load(); n != 1 {
			t.Fatalf("round %d: %d were fresh", round, n)
		}
	}
}

func expiredNonce(t *testing.T, h Harness) {
	nonce := name(t)
	useNonce(t, h.A, "app.key", nonce, h.Now().Add(5*time.Minute), true)
	h.Advance(4 * time.Minute)
	useNonce(t, h.B, "app.key", nonce, h.Now().Add(time.Minute), false)
	h.Advance(3 * time.Minute)
	useNonce(t, h.B, "app.key", nonce, h.Now().Add(5*time.Minute), true)
	useNonce(t, h.A, "app.key", nonce, h.Now().Add(5*time.Minute), false)
}
