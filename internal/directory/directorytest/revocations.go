package directorytest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/directory"
)

var revocationTests = []test{
	{"RevocationsAreReadOnBothNodesInTheirOrder", revocationsInOrder},
	{"EveryNodeIsToldOfRevocations", revocationNotices},
	{"AWeakerRevocationTakesNothingFromAStronger", strongerRevocation},
	{"AnExpiredRevocationIsForgotten", expiredRevocation},
	{"ConcurrentRevocationsAreAllRead", concurrentRevocations},
}

// revoked is a revocation of tokens of one client, made now.
func revoked(h Harness, client string) directory.Revocation {
	now := time.UnixMilli(h.Now().UnixMilli())
	return directory.Revocation{App: "app", Key: "app.key", Target: "clientId:" + client,
		IssuedBefore: now, AppliesAt: now, Expires: now.Add(time.Hour)}
}

func revoke(t *testing.T, d directory.Directory, list ...directory.Revocation) {
	t.Helper()
	expectError(t, "Revoke", d.Revoke(t.Context(), list), nil)
}

func expectRevocations(t *testing.T, d directory.Directory, after string, want ...directory.Revocation) (position string) {
	t.Helper()
	got, position, err := d.Revocations(t.Context(), after)
	expectError(t, "Revocations", err, nil)
	if !slices.EqualFunc(got, want, sameRevocation) {
		t.Fatalf("after %q: got %+v, want %+v", after, got, want)
	}
	return position
}

func sameRevocation(a, b directory.Revocation) bool {
	return a.App == b.App && a.Key == b.Key && a.Target == b.Target &&
		a.IssuedBefore.Equal(b.IssuedBefore) && a.AppliesAt.Equal(b.AppliesAt) && a.Expires.Equal(b.Expires)
}

func revocationsInOrder(t *testing.T, h Harness) {
	_, start, err := h.A.Revocations(t.Context(), "")
	expectError(t, "Revocations", err, nil)
	expectRevocations(t, h.A, start)
	a, b, c := revoked(h, name(t)+"a"), revoked(h, name(t)+"b"), revoked(h, name(t)+"c")
	b.Key, c.App, c.Key = "app.other", "app2", "app2.key"
	c.AppliesAt, c.IssuedBefore = c.AppliesAt.Add(30*time.Second), c.IssuedBefore.Add(-10*time.Minute)
	revoke(t, h.A, a, b)
	middle := expectRevocations(t, h.B, start, a, b)
	expectRevocations(t, h.B, middle)
	revoke(t, h.B, c)
	end := expectRevocations(t, h.A, middle, c)
	expectRevocations(t, h.A, start, a, b, c)
	expectRevocations(t, h.A, end)
	// Whoever comes new reads them, too.
	all, _, err := h.B.Revocations(t.Context(), "")
	expectError(t, "Revocations", err, nil)
	for _, want := range []directory.Revocation{a, b, c} {
		if !slices.ContainsFunc(all, func(r directory.Revocation) bool { return sameRevocation(r, want) }) {
			t.Errorf("%+v is not in %+v", want, all)
		}
	}
}

func revocationNotices(t *testing.T, h Harness) {
	for i := range 3 {
		revoke(t, h.A, revoked(h, fmt.Sprint(name(t), i)))
		for _, d := range []directory.Directory{h.A, h.B} {
			select {
			case <-d.Revoked():
			case <-time.After(patience):
				t.Fatalf("a node got no notice of revocation %d", i)
			}
		}
	}
	// Notices that nobody reads hinder nobody.
	for i := range 100 {
		revoke(t, h.B, revoked(h, fmt.Sprint(name(t), i)))
	}
}

func strongerRevocation(t *testing.T, h Harness) {
	_, start, err := h.A.Revocations(t.Context(), "")
	expectError(t, "Revocations", err, nil)
	first := revoked(h, name(t))
	for what, later := range map[string]func(*directory.Revocation){
		"of older tokens":  func(r *directory.Revocation) { r.IssuedBefore = r.IssuedBefore.Add(-time.Minute) },
		"applies later":    func(r *directory.Revocation) { r.AppliesAt = r.AppliesAt.Add(30 * time.Second) },
		"of another key":   func(r *directory.Revocation) { r.Key = "app.other" },
		"is sooner over":   func(r *directory.Revocation) { r.Expires = r.Expires.Add(-time.Minute) },
		"of other clients": func(r *directory.Revocation) { r.Target += "x" },
	} {
		next := first
		later(&next)
		revoke(t, h.A, first)
		revoke(t, h.B, next)
		got, _, err := h.A.Revocations(t.Context(), start)
		expectError(t, "Revocations", err, nil)
		if !slices.ContainsFunc(got, func(r directory.Revocation) bool { return sameRevocation(r, first) }) {
			t.Errorf("%s: the first one is gone: %+v", what, got)
		}
	}
}

func expiredRevocation(t *testing.T, h Harness) {
	_, start, err := h.A.Revocations(t.Context(), "")
	expectError(t, "Revocations", err, nil)
	short, long := revoked(h, name(t)+"short"), revoked(h, name(t)+"long")
	long.Expires = long.Expires.Add(time.Hour)
	revoke(t, h.A, short, long)
	h.Advance(time.Hour - time.Minute) // the clock may go by itself, too
	expectRevocations(t, h.B, start, short, long)
	h.Advance(time.Minute)
	expectRevocations(t, h.B, start, long)
	h.Advance(time.Hour)
	expectRevocations(t, h.A, start)
}

func concurrentRevocations(t *testing.T, h Harness) {
	_, position, err := h.A.Revocations(t.Context(), "")
	expectError(t, "Revocations", err, nil)
	const writers, each = 4, 50
	var wg sync.WaitGroup
	for w := range writers {
		d := h.A
		if w%2 == 1 {
			d = h.B
		}
		wg.Go(func() {
			for i := range each {
				if err := d.Revoke(t.Context(), []directory.Revocation{revoked(h, fmt.Sprint(name(t), w, ".", i))}); err != nil {
					t.Errorf("Revoke: %v", err)
				}
			}
		})
	}
	// One node reads on and on: it misses none and gets none twice.
	read := make(map[string]int)
	deadline := time.Now().Add(patience)
	for len(read) < writers*each && time.Now().Before(deadline) {
		var list []directory.Revocation
		if list, position, err = h.B.Revocations(t.Context(), position); err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			read[r.Target]++
		}
	}
	wg.Wait()
	if len(read) != writers*each {
		t.Errorf("%d were read", len(read))
	}
	for target, n := range read {
		if n != 1 {
			t.Errorf("%s was read %d times", target, n)
		}
	}
}
