package apps_test

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/pubsub"
)

// counted is a store that counts questions, and can be away.
type counted struct {
	apps.Store
	revisions, lists atomic.Int64
	away             atomic.Bool
	delay            time.Duration // of AppsRevision
}

func (c *counted) AppsRevision(ctx context.Context) (uint64, error) {
	c.revisions.Add(1)
	select {
	case <-time.After(c.delay):
	case <-ctx.Done():
	}
	if c.away.Load() || ctx.Err() != nil {
		return 0, directory.ErrUnavailable
	}
	return c.Store.AppsRevision(ctx)
}

func (c *counted) Apps(ctx context.Context) ([]directory.App, error) {
	c.lists.Add(1)
	return c.Store.Apps(ctx)
}

// sharedNodes are two nodes whose authenticators look for what they do not know, and the store of
// the second as it sees it.
func sharedNodes(configured ...*auth.App) (a, b *node, store *counted) {
	all := directorymemory.NewStore(directorymemory.Options{})
	newShared := func(store apps.Store) *node {
		n := &node{registry: auth.NewRegistry(configured...)}
		n.Apps = apps.New(apps.Options{Store: store, Registry: n.registry, Shared: true})
		n.auth = auth.NewAuthenticator(n.registry, nil, auth.WithSync(n.Sync))
		return n
	}
	store = &counted{Store: all.Node(directory.Node{Name: "b"})}
	return newShared(all.Node(directory.Node{Name: "a"})), newShared(store), store
}

// refused is how a node refuses a key, nil if it does not.
func (n *node) refused(key string) error {
	_, err := n.auth.Realtime(url.Values{"key": {key}}, nil)
	return err
}

func TestAKeyThatAnotherNodeHasJustMadeIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := sharedNodes()
		made, err := a.Create(t.Context(), apps.App{Name: "app"})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if made, err = a.Update(t.Context(), made.ID, addKey("key")); err != nil {
				t.Fatal(err)
			}
			key := &made.Keys[len(made.Keys)-1]
			if !b.enters(made.ID, key) {
				t.Errorf("%s is not known to the other node", key)
			}
			code(t, "a wrong secret", b.refused(made.ID+"."+key.ID+":wrong"), pubsub.CodeInvalidCredentials, 401)
		}
		if n := store.revisions.Load(); n != 3 {
			t.Errorf("%d questions, want one for each key", n)
		}
		// What is gone stays refused.
		if err := a.Delete(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Update(t.Context(), made.ID, addKey("key")); err == nil {
			t.Error("an app that is gone was changed")
		}
		code(t, "an app that is gone", b.refused(made.ID+"."+made.Keys[0].ID+":x"), pubsub.CodeInvalidCredentials, 401)
	})
}

func TestAFloodOfWrongKeysAsksTheStoreTenTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := sharedNodes()
		store.delay = 3 * time.Millisecond
		var flood sync.WaitGroup
		var busy atomic.Int64
		began := time.Now()
		for i := range 3000 { // in 3 s
			flood.Go(func() {
				sent := time.Now()
				switch e := pubsub.ErrorFor(b.refused(fmt.Sprintf("app%03d.key001:wrong", i))); e.Code {
				case pubsub.CodeInvalidCredentials:
				case pubsub.CodeUnavailable:
					busy.Add(1)
				default:
					t.Error(e)
				}
				if took := time.Since(sent); took > 250*time.Millisecond {
					t.Errorf("a wrong key is refused after %v", took)
				}
			})
			time.Sleep(time.Millisecond)
		}
		flood.Wait()
		if n, most := store.revisions.Load(), int64(time.Since(began)/(100*time.Millisecond))+1; n > most || n < 10 {
			t.Errorf("%d questions, want at most %d", n, most)
		}
		if n := store.lists.Load(); n > 1 {
			t.Errorf("everything was read %d times although nothing had changed", n)
		}
		if busy.Load() == 0 {
			t.Error("nobody was sent away, however many waited")
		}

		// In a smaller one a good key is found as soon as it is there.
		stop := make(chan struct{})
		for range 20 {
			flood.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						code(t, "a wrong key", b.refused("app000.key001:wrong"), pubsub.CodeInvalidCredentials, 401)
					}
				}
			})
		}
		time.Sleep(time.Second)
		made, err := a.Create(t.Context(), apps.App{Name: "app"})
		if err == nil {
			made, err = a.Update(t.Context(), made.ID, addKey("key"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if !b.enters(made.ID, &made.Keys[0]) {
			t.Error("a good key is refused during a flood of others")
		}
		close(stop)
		flood.Wait()
	})
}

func TestAnUnknownKeyIsNotRefusedForGoodWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		configured, err := auth.NewApp("app001", []auth.Key{{ID: "key001", Secret: "secret"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, b, store := sharedNodes(configured)
		made, err := a.Create(t.Context(), apps.App{Name: "app"})
		if err == nil {
			made, err = a.Update(t.Context(), made.ID, addKey("key"))
		}
		if err != nil || !b.enters(made.ID, &made.Keys[0]) {
			t.Fatal("the node does not know the key", err)
		}
		store.away.Store(true)
		for what, key := range map[string]string{"app": "nobody.knows0:it", "key": made.ID + ".another:secret"} {
			code(t, "an unknown "+what, b.refused(key), pubsub.CodeUnavailable, 503)
		}
		if !b.enters(made.ID, &made.Keys[0]) {
			t.Error("a key that is known is refused")
		}
		code(t, "a wrong secret", b.refused(made.ID+"."+made.Keys[0].ID+":wrong"), pubsub.CodeInvalidCredentials, 401)
		code(t, "an unknown key of a configured app", b.refused("app001.another:secret"), pubsub.CodeInvalidCredentials, 401)
		store.delay = time.Hour
		began := time.Now()
		code(t, "a store that does not answer", b.refused("nobody.knows0:it"), pubsub.CodeUnavailable, 503)
		if took := time.Since(began); took > time.Second {
			t.Errorf("refused after %v", took)
		}
		store.delay = 0
		store.away.Store(false)
		code(t, "when the store is back", b.refused("nobody.knows0:it"), pubsub.CodeInvalidCredentials, 401)
	})
}
