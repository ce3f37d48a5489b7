package apps_test

import (
	"context"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// inSandbox is a node with a sandbox, and what that has told.
type inSandbox struct {
	*node
	*apps.Sandbox
	inUse          atomic.Bool
	added, removed []string
}

func newSandbox(n *node) *inSandbox {
	s := &inSandbox{node: n}
	s.Sandbox = apps.NewSandbox(apps.SandboxOptions{
		Apps: n.Apps, InUse: func(string) bool { return s.inUse.Load() },
		Added:   func(a *auth.App) { s.added = append(s.added, a.ID) },
		Removed: func(a *auth.App) { s.removed = append(s.removed, a.Fixtures()[0].Channel) },
	})
	return s
}

// opens reports whether a key gets in, which is a use of its app.
func (s *inSandbox) opens(k *auth.Key) bool {
	_, err := s.auth.REST(url.Values{"key": {k.Name() + ":" + k.Secret}}, nil)
	return err == nil
}

func TestAnAppForTestsIsGoodOnAllNodes(t *testing.T) {
	na, nb := twoNodes()
	a, b := newSandbox(na), newSandbox(nb)
	made, err := a.Sandbox.Create(auth.AppSpec{
		Keys:       []auth.KeySpec{{}, {Capability: `{"x":["publish"]}`, Revocable: true}},
		Namespaces: []auth.Namespace{{ID: "persisted", Persisted: true}},
		Fixtures:   []auth.Fixture{{Channel: "full", Members: []*pubsub.PresenceMessage{{ClientID: "anna"}}}},
	})
	if err != nil || !slices.Equal(a.added, []string{made.ID}) || len(made.Fixtures()[0].Members) != 1 {
		t.Fatalf("got %+v, %v, told %q", made, err, a.added)
	}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	there := b.registry.Lookup(made.ID)
	if there == nil || !there.Sandboxed() || !there.Namespace("persisted:x").Persisted || len(b.added) != 0 {
		t.Fatalf("the other node knows %+v, and was told %q", there, b.added)
	}
	for i, k := range made.Keys() {
		other := there.Keys()[i]
		if other.Secret != k.Secret || other.Revocable != k.Revocable || other.Capability.String() != k.Capability.String() || !b.opens(k) {
			t.Errorf("key %d is %+v there", i, other)
		}
	}
	// The control API has nothing to do with it.
	_, err = b.Update(t.Context(), made.ID, addKey("more"))
	code(t, "update", err, pubsub.CodeNotFound, 404)
	code(t, "delete", b.node.Delete(t.Context(), made.ID), pubsub.CodeNotFound, 404)
	if b.Get(made.ID) != nil || len(b.List()) != 0 {
		t.Error("it is listed")
	}
	if ok, err := b.Sandbox.Delete(made.ID); !ok || err != nil || !slices.Equal(b.removed, []string{"full"}) {
		t.Errorf("delete on the other node: %v, %v, told %q", ok, err, b.removed)
	}
	if ok, err := b.Sandbox.Delete(made.ID); ok || err != nil {
		t.Errorf("once more: %v, %v", ok, err)
	}
	if err := a.Refresh(t.Context()); err != nil || a.opens(made.Keys()[0]) || len(a.removed) != 0 {
		t.Errorf("it is still good on the first, or that was told %q: %v", a.removed, err)
	}
	kept, err := a.node.Create(t.Context(), apps.App{Name: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	if ok, _ := a.Sandbox.Delete(kept.ID); ok || a.Get(kept.ID) == nil {
		t.Error("an app of the control API is one of the sandbox")
	}
}

func TestAnAppForTestsEndsWhenNoNodeHasUsedItForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		na, nb := twoNodes()
		a, b := newSandbox(na), newSandbox(nb)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, s := range []*inSandbox{a, b} {
			go s.Sandbox.Run(ctx)
			go s.Apps.Run(ctx)
		}
		made, err := a.Sandbox.Create(auth.AppSpec{Keys: []auth.KeySpec{{}}, Fixtures: []auth.Fixture{{Channel: "full"}}})
		if err != nil {
			t.Fatal(err)
		}
		alive := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			if (a.registry.Lookup(made.ID) != nil) != want || (b.registry.Lookup(made.ID) != nil) != want {
				t.Errorf("%s: known %v and %v, want %v", what, a.registry.Lookup(made.ID) != nil, b.registry.Lookup(made.ID) != nil, want)
			}
		}
		time.Sleep(20 * time.Hour)
		if !b.opens(made.Keys()[0]) {
			t.Error("its key is refused")
		}
		time.Sleep(20 * time.Hour)
		alive("used on one node", true)
		b.inUse.Store(true)
		time.Sleep(40 * time.Hour)
		alive("connected on one node", true)
		b.inUse.Store(false)
		time.Sleep(25 * time.Hour)
		alive("not used", false)
		if len(a.removed)+len(b.removed) != 1 {
			t.Errorf("told %q and %q", a.removed, b.removed)
		}
	})
}
