package apps_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is one of several that share a store.
type node struct {
	*apps.Apps
	registry *auth.Registry
	auth     *auth.Authenticator
	gone     []string // as Changed told
}

func newNode(store apps.Store, configured ...*auth.App) *node {
	n := &node{registry: auth.NewRegistry(configured...)}
	n.auth = auth.NewAuthenticator(n.registry, nil)
	n.Apps = apps.New(apps.Options{Store: store, Registry: n.registry, Changed: func(gone []string) { n.gone = append(n.gone, gone...) }})
	return n
}

// enters reports whether a key gets in.
func (n *node) enters(app string, k *apps.Key) bool {
	_, err := n.auth.REST(url.Values{"key": {app + "." + k.ID + ":" + k.Secret}}, nil)
	return err == nil
}

func twoNodes() (a, b *node) {
	store := directorymemory.NewStore(directorymemory.Options{})
	return newNode(store.Node(directory.Node{Name: "a"})), newNode(store.Node(directory.Node{Name: "b"}))
}

func code(t *testing.T, what string, err error, want pubsub.Code, status int) {
	t.Helper()
	var e *pubsub.Error
	if !errors.As(err, &e) || e.Code != want || e.StatusCode != status {
		t.Errorf("%s: got %v, want %d/%d", what, err, want, status)
	}
}

var everything = json.RawMessage(`{"*":["*"]}`)

// addKey is a change that adds a key.
func addKey(name string) func(*apps.App, int64) error {
	return func(app *apps.App, now int64) error {
		app.AddKey(apps.Key{Name: name, Capability: everything, Created: now})
		return nil
	}
}

func TestAnAppThatIsMadeOnOneNodeIsGoodOnAnother(t *testing.T) {
	a, b := twoNodes()
	made, err := a.Create(t.Context(), apps.App{Name: "first"})
	if err != nil || len(made.ID) != 6 || made.Created == 0 || made.Modified != made.Created {
		t.Fatalf("got %+v, %v", made, err)
	}
	if made, err = a.Update(t.Context(), made.ID, addKey("root")); err != nil {
		t.Fatal(err)
	}
	key := made.Key(made.Keys[0].ID)
	if len(key.ID) != 6 || len(key.Secret) < 32 || !a.enters(made.ID, key) {
		t.Errorf("on the node that made it: %s", key)
	}
	if b.Get(made.ID) != nil || b.enters(made.ID, key) {
		t.Error("the other node knows it without having read it")
	}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.Get(made.ID); got == nil || got.Name != "first" || len(b.List()) != 1 || !b.enters(made.ID, key) {
		t.Errorf("on the other node: %+v", got)
	}

	// The other node knows nothing of this and changes what it knows.
	if _, err := a.Update(t.Context(), made.ID, addKey("second")); err != nil {
		t.Fatal(err)
	}
	if made, err = b.Update(t.Context(), made.ID, addKey("third")); err != nil || len(made.Keys) != 3 {
		t.Fatalf("got %+v, %v", made, err)
	}
	if err := a.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if a.enters(made.ID, key) || !slices.Equal(a.gone, []string{made.ID}) {
		t.Errorf("after it was deleted: gone %v", a.gone)
	}
	if _, err := b.Update(t.Context(), made.ID, addKey("fourth")); err == nil || b.enters(made.ID, key) || !slices.Equal(b.gone, []string{made.ID}) {
		t.Errorf("a deleted app was changed: %v", err)
	}
	code(t, "again", b.Delete(t.Context(), made.ID), pubsub.CodeNotFound, 404)
}

func TestThereIsOnlySoMuchOfEverything(t *testing.T) {
	store := directorymemory.NewStore(directorymemory.Options{}).Node(directory.Node{})
	a := newNode(store)
	made, err := a.Create(t.Context(), apps.App{Name: "app"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Update(t.Context(), made.ID, func(app *apps.App, _ int64) error {
		for range apps.MaxKeys {
			app.AddKey(apps.Key{Capability: everything})
		}
		for i := range apps.MaxNamespaces {
			app.Namespaces = append(app.Namespaces, apps.Namespace{ID: fmt.Sprint(i)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*apps.App, int64) error{
		"a key too many": addKey("more"),
		"a namespace too many": func(app *apps.App, _ int64) error {
			app.Namespaces = append(app.Namespaces, apps.Namespace{ID: "more"})
			return nil
		},
		"too large a key": func(app *apps.App, _ int64) error { app.Keys[0].Name = strings.Repeat("x", 256<<10); return nil },
	} {
		_, err := a.Update(t.Context(), made.ID, change)
		code(t, what, err, pubsub.CodeInvalidParameterValue, 422)
	}
	for what, change := range map[string]func(*apps.App, int64) error{
		"a capability that is none": func(app *apps.App, _ int64) error {
			app.Keys[0].Capability = json.RawMessage(`{"*":["fly"]}`)
			return nil
		},
		"a namespace twice":        func(app *apps.App, _ int64) error { app.Namespaces[1].ID = "0"; return nil },
		"a namespace with a colon": func(app *apps.App, _ int64) error { app.Namespaces[1].ID = "a:b"; return nil },
	} {
		_, err := a.Update(t.Context(), made.ID, change)
		code(t, what, err, pubsub.CodeBadRequest, 422)
	}
	if got := a.Get(made.ID); len(got.Keys) != apps.MaxKeys || got.Keys[0].Name != "" || got.Namespaces[1].ID != "1" {
		t.Error("something has changed nevertheless")
	}
	for i := range apps.MaxApps - 1 {
		if _, err := store.PutApp(t.Context(), fmt.Sprint("app", i), 0, json.RawMessage(`{"format":1}`), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Refresh(t.Context()); err != nil || len(a.List()) != apps.MaxApps {
		t.Fatalf("%d apps, %v", len(a.List()), err)
	}
	_, err = a.Create(t.Context(), apps.App{Name: "app"})
	code(t, "an app too many", err, pubsub.CodeInvalidParameterValue, 422)
}

func TestNoChangeIsLostAmongWritersOfSeveralNodes(t *testing.T) {
	a, b := twoNodes()
	made, err := a.Create(t.Context(), apps.App{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 20
	var wg sync.WaitGroup
	for w := range writers {
		n := []*node{a, b}[w%2]
		wg.Go(func() {
			for i := range each {
				if _, err := n.Update(t.Context(), made.ID, addKey(fmt.Sprint(w, ".", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := a.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, k := range a.Get(made.ID).Keys {
		names[k.Name] = true
		if !a.enters(made.ID, &k) {
			t.Errorf("%s does not get in", k.Name)
		}
	}
	if len(names) != writers*each {
		t.Errorf("%d keys of %d are there", len(names), writers*each)
	}
}

// deaf is a store that tells its node nothing, and cannot be read when it is broken.
type deaf struct {
	directory.Directory
	broken, reads atomic.Int32
}

func (d *deaf) AppsChanged() <-chan struct{} { return nil }

func (d *deaf) Apps(ctx context.Context) ([]directory.App, error) {
	d.reads.Add(1)
	if d.broken.Load() > 0 {
		return nil, directory.ErrUnavailable
	}
	return d.Directory.Apps(ctx)
}

func TestANodeHearsOfChangesAndFindsThoseThatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := directorymemory.NewStore(directorymemory.Options{})
		lost := &deaf{Directory: store.Node(directory.Node{Name: "c"})}
		a, b, c := newNode(store.Node(directory.Node{Name: "a"})), newNode(store.Node(directory.Node{Name: "b"})), newNode(lost)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, n := range []*node{a, b, c} {
			wg.Go(func() { _ = n.Run(ctx) })
		}
		made, err := a.Create(ctx, apps.App{Name: "first"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.Get(made.ID) == nil || c.Get(made.ID) != nil {
			t.Error("without waiting: who is told knows it, and who is not does not")
		}
		time.Sleep(30*time.Second - time.Millisecond)
		synctest.Wait()
		if c.Get(made.ID) != nil {
			t.Error("it was read too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if c.Get(made.ID) == nil {
			t.Error("it was not read after 30 s")
		}

		// A store that cannot be read is tried again soon, and what was known counts meanwhile.
		lost.broken.Store(1)
		if err := a.Delete(ctx, made.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * time.Second)
		if c.Get(made.ID) == nil {
			t.Error("it is gone although nobody could know")
		}
		lost.broken.Store(0)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c.Get(made.ID) != nil || len(c.gone) != 1 {
			t.Error("it is there still")
		}
		stop()
		wg.Wait()
	})
}

func TestARecordThatCannotBeUsedHarmsNoOther(t *testing.T) {
	store := directorymemory.NewStore(directorymemory.Options{}).Node(directory.Node{})
	a, b := newNode(store), newNode(store)
	good, err := a.Create(t.Context(), apps.App{Name: "good"})
	if err != nil {
		t.Fatal(err)
	}
	if good, err = a.Update(t.Context(), good.ID, addKey("root")); err != nil {
		t.Fatal(err)
	}
	const secret = "this-is-a-secret"
	for id, data := range map[string]string{
		"newer":   `{"format":2,"name":"` + secret + `"}`,
		"damaged": `{"format":1,"keys":"` + secret + `"}`,
		"other":   `"` + secret + `"`,
		"wrong":   `{"format":1,"keys":[{"id":"a","secret":"` + secret + ` with spaces","capability":{"*":["*"]}}]}`,
	} {
		if _, err := store.PutApp(t.Context(), id, 0, json.RawMessage(data), 0); err != nil {
			t.Fatal(err)
		}
		b = newNode(store)
		err := b.Refresh(t.Context())
		if err == nil || !strings.Contains(err.Error(), id) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v", id, err)
		}
		if b.Get(id) != nil || b.registry.Lookup(id) != nil || !b.enters(good.ID, &good.Keys[0]) {
			t.Errorf("%s: it is used, or another is not", id)
		}
	}
	if _, err := b.Update(t.Context(), good.ID, addKey("more")); err != nil {
		t.Errorf("another cannot be changed: %v", err)
	}
}

// refusing is a store that fails.
type refusing struct {
	directory.Directory
	err error
}

func (r *refusing) PutApp(ctx context.Context, id string, revision uint64, data json.RawMessage, max int) (uint64, error) {
	switch {
	case r.err == nil, !errors.Is(r.err, directory.ErrUnavailable):
		next, err := r.Directory.PutApp(ctx, id, revision, data, max)
		return next, errors.Join(err, r.err)
	}
	return 0, r.err
}

func TestAStoreThatFails(t *testing.T) {
	store := &refusing{Directory: directorymemory.NewStore(directorymemory.Options{}).Node(directory.Node{})}
	a := newNode(store)
	made, err := a.Create(t.Context(), apps.App{Name: "app"})
	if err != nil {
		t.Fatal(err)
	}
	store.err = fmt.Errorf("no place: %w", directory.ErrUnavailable)
	_, err = a.Update(t.Context(), made.ID, addKey("lost"))
	code(t, "nothing has happened", err, pubsub.CodeUnavailable, 503)
	if len(a.Get(made.ID).Keys) != 0 {
		t.Error("there is a key")
	}
	store.err = errors.New("perhaps")
	_, err = a.Update(t.Context(), made.ID, addKey("perhaps"))
	code(t, "it has perhaps happened", err, pubsub.CodeInternalError, 500)
	if len(a.Get(made.ID).Keys) != 1 {
		t.Error("the node does not go by what is there")
	}
}

// Random changes on two nodes agree with a model, as soon as both have read.
func TestRandomChangesAgreeWithAModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	a, b := twoNodes()
	model := make(map[string]map[string]bool) // the names of the keys of each app
	ids := func() []string {
		var list []string
		for id := range model {
			list = append(list, id)
		}
		slices.Sort(list)
		return list
	}
	for step := range 400 {
		n := []*node{a, b}[rng.IntN(2)]
		id := "nobody"
		if list := ids(); len(list) > 0 && rng.IntN(10) > 0 {
			id = list[rng.IntN(len(list))]
		}
		_, there := model[id]
		known := n.Get(id) != nil
		var err error
		switch rng.IntN(6) {
		case 0:
			var made *apps.App
			if made, err = n.Create(t.Context(), apps.App{Name: fmt.Sprint(step)}); err != nil {
				t.Fatal(err)
			}
			model[made.ID] = make(map[string]bool)
			continue
		case 1:
			if err = n.Delete(t.Context(), id); there && known {
				delete(model, id)
			}
		case 2:
			_, err = n.Update(t.Context(), id, func(app *apps.App, _ int64) error {
				if len(app.Keys) > 0 {
					app.Keys = app.Keys[1:]
				}
				return nil
			})
			if there && known && err == nil {
				left := make(map[string]bool)
				for _, k := range n.Get(id).Keys {
					if left[k.Name] = true; !model[id][k.Name] {
						t.Fatalf("step %d: key %s has come back", step, k.Name)
					}
				}
				if len(left) != max(0, len(model[id])-1) {
					t.Fatalf("step %d: %d keys after %d", step, len(left), len(model[id]))
				}
				model[id] = left
			}
		default:
			name := fmt.Sprint(step)
			if _, err = n.Update(t.Context(), id, addKey(name)); there && known {
				model[id][name] = true
			}
		}
		if wanted := there && known; (err == nil) != wanted {
			t.Fatalf("step %d: got %v of an app that is there: %v, and known: %v", step, err, there, known)
		}
		if rng.IntN(3) > 0 {
			continue
		}
		for _, n := range []*node{a, b} {
			if err := n.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(n.List()) != len(model) {
				t.Fatalf("step %d: %d apps, want %d", step, len(n.List()), len(model))
			}
			for id, keys := range model {
				if app := n.Get(id); app == nil || len(app.Keys) != len(keys) || len(n.registry.Lookup(id).Keys()) != len(keys) {
					t.Fatalf("step %d: app %s is %+v, want keys %v", step, id, app, keys)
				}
			}
		}
	}
}

func TestAKeyIsPrintedWithoutItsSecret(t *testing.T) {
	app := apps.App{}
	k := app.AddKey(apps.Key{})
	for _, text := range []string{fmt.Sprint(*k), fmt.Sprintf("%+v", app), fmt.Sprintf("%#v", app), fmt.Sprint(k)} {
		if strings.Contains(text, k.Secret) {
			t.Errorf("%s", text)
		}
	}
}
