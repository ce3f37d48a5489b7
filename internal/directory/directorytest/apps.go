package directorytest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/directory"
)

var appTests = []test{
	{"AnAppIsReadOnBothNodes", appOnBothNodes},
	{"AnAppIsChangedByWhoHasReadItLast", appCompareAndSwap},
	{"ARevisionNeverComesAgain", appRevisions},
	{"TheNewestRevisionChangesWithEveryChange", appsRevision},
	{"ThereAreOnlySoManyApps", appBound},
	{"EveryNodeIsToldOfChangesOfApps", appNotices},
	{"NoChangeOfAnAppIsLostAmongWriters", appWriters},
	{"RandomChangesOfAppsAgreeWithAModel", appModel},
}

func data(v any) json.RawMessage {
	text, _ := json.Marshal(v) // texts and numbers only
	return text
}

func putApp(t *testing.T, d directory.Directory, id string, revision uint64, v any) uint64 {
	t.Helper()
	next, err := d.PutApp(t.Context(), id, revision, data(v), 0)
	expectError(t, "PutApp", err, nil)
	if next <= revision {
		t.Fatalf("the revision after %d is %d", revision, next)
	}
	return next
}

func appsRevision(t *testing.T, h Harness) {
	last := func() uint64 {
		t.Helper()
		a, err := h.A.AppsRevision(t.Context())
		expectError(t, "AppsRevision", err, nil)
		b, err := h.B.AppsRevision(t.Context())
		expectError(t, "AppsRevision", err, nil)
		if a != b {
			t.Fatalf("A has revision %d, B %d", a, b)
		}
		return a
	}
	before := last()
	made := putApp(t, h.A, name(t), 0, 1)
	if before == made || last() != made {
		t.Errorf("the newest revision was %d, and is %d after one was made with %d", before, last(), made)
	}
	changed := putApp(t, h.B, name(t), made, 2)
	if last() != changed {
		t.Errorf("the newest revision is %d after one was changed to %d", last(), changed)
	}
	_, err := h.A.PutApp(t.Context(), name(t), made, data(3), 0)
	expectError(t, "PutApp of an old revision", err, directory.ErrConflict)
	if last() != changed {
		t.Errorf("the newest revision is %d after what changed nothing", last())
	}
	expectError(t, "DeleteApp", h.A.DeleteApp(t.Context(), name(t), changed), nil)
	if last() <= changed {
		t.Errorf("the newest revision is %d after one with %d was deleted", last(), changed)
	}
}

// readApps returns the apps whose ids begin with the test's name.
func readApps(t *testing.T, d directory.Directory) []directory.App {
	t.Helper()
	all, err := d.Apps(t.Context())
	expectError(t, "Apps", err, nil)
	if !slices.IsSortedFunc(all, func(a, b directory.App) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("not ordered by id: %v", all)
	}
	return slices.DeleteFunc(all, func(a directory.App) bool { return !strings.HasPrefix(a.ID, name(t)) })
}

func expectApps(t *testing.T, h Harness, want ...directory.App) {
	t.Helper()
	for what, d := range map[string]directory.Directory{"A": h.A, "B": h.B} {
		if got := readApps(t, d); !slices.EqualFunc(got, want, sameApp) {
			t.Fatalf("%s has %+v, want %+v", what, got, want)
		}
	}
}

func sameApp(a, b directory.App) bool {
	return a.ID == b.ID && a.Revision == b.Revision && string(a.Data) == string(b.Data)
}

func appOnBothNodes(t *testing.T, h Harness) {
	a, b := name(t)+"a", name(t)+"b"
	expectApps(t, h)
	revB := putApp(t, h.A, b, 0, "second")
	revA := putApp(t, h.B, a, 0, map[string]string{"name": "first", "secret": "<é>"})
	expectApps(t, h,
		directory.App{ID: a, Revision: revA, Data: data(map[string]string{"name": "first", "secret": "<é>"})},
		directory.App{ID: b, Revision: revB, Data: data("second")})
	next := putApp(t, h.A, a, revA, 1)
	expectApps(t, h, directory.App{ID: a, Revision: next, Data: data(1)}, directory.App{ID: b, Revision: revB, Data: data("second")})
	expectError(t, "DeleteApp", h.B.DeleteApp(t.Context(), b, revB), nil)
	expectApps(t, h, directory.App{ID: a, Revision: next, Data: data(1)})
}

func appCompareAndSwap(t *testing.T, h Harness) {
	id := name(t)
	first := putApp(t, h.A, id, 0, "first")
	second := putApp(t, h.B, id, first, "second")
	is := directory.App{ID: id, Revision: second, Data: data("second")}
	for what, revision := range map[string]uint64{"none": 0, "an old one": first, "one that never was": second + 100} {
		_, err := h.A.PutApp(t.Context(), id, revision, data("lost"), 0)
		expectError(t, "PutApp with "+what, err, directory.ErrConflict)
		expectError(t, "DeleteApp with "+what, h.B.DeleteApp(t.Context(), id, revision), directory.ErrConflict)
		expectApps(t, h, is)
	}
	expectError(t, "DeleteApp", h.A.DeleteApp(t.Context(), id, second), nil)
	_, err := h.B.PutApp(t.Context(), id, second, data("back"), 0)
	expectError(t, "PutApp of what was deleted", err, directory.ErrConflict)
	expectError(t, "DeleteApp of what was deleted", h.B.DeleteApp(t.Context(), id, second), directory.ErrConflict)
	expectError(t, "DeleteApp of what was deleted", h.B.DeleteApp(t.Context(), id, 0), directory.ErrConflict)
	expectApps(t, h)
}

func appRevisions(t *testing.T, h Harness) {
	id := name(t)
	var newest uint64
	for i := range 5 {
		revision := putApp(t, h.A, id, 0, i)
		if revision <= newest {
			t.Fatalf("revision %d after %d", revision, newest)
		}
		newest = putApp(t, h.B, id, revision, -i)
		expectError(t, "DeleteApp", h.A.DeleteApp(t.Context(), id, newest), nil)
	}
}

func appBound(t *testing.T, h Harness) {
	all, err := h.A.Apps(t.Context())
	expectError(t, "Apps", err, nil)
	most := len(all) + 2
	a, err := h.A.PutApp(t.Context(), name(t)+"a", 0, data(1), most)
	expectError(t, "PutApp", err, nil)
	b, err := h.B.PutApp(t.Context(), name(t)+"b", 0, data(1), most)
	expectError(t, "PutApp", err, nil)
	_, err = h.A.PutApp(t.Context(), name(t)+"c", 0, data(1), most)
	expectError(t, "PutApp of one too many", err, directory.ErrTooMany)
	_, err = h.A.PutApp(t.Context(), name(t)+"a", a, data(2), 1)
	expectError(t, "PutApp of one that is there", err, nil)
	expectError(t, "DeleteApp", h.A.DeleteApp(t.Context(), name(t)+"b", b), nil)
	_, err = h.B.PutApp(t.Context(), name(t)+"c", 0, data(1), most)
	expectError(t, "PutApp in the place of another", err, nil)
}

func appNotices(t *testing.T, h Harness) {
	id := name(t)
	told := func(what string) {
		t.Helper()
		for _, d := range []directory.Directory{h.A, h.B} {
			select {
			case <-d.AppsChanged():
			case <-time.After(patience):
				t.Fatalf("a node got no notice: %s", what)
			}
		}
	}
	first := putApp(t, h.A, id, 0, 1)
	told("an app was made")
	second := putApp(t, h.B, id, first, 2)
	told("an app was changed")
	expectError(t, "DeleteApp", h.B.DeleteApp(t.Context(), id, second), nil)
	told("an app was deleted")
	// Notices that nobody reads hinder nobody.
	var revision uint64
	for i := range 20 {
		revision = putApp(t, h.A, id, revision, i)
	}
}

// appWriters has several add to one app until all they wanted is in it.
func appWriters(t *testing.T, h Harness) {
	id := name(t)
	putApp(t, h.A, id, 0, []string{})
	const writers, each = 4, 20
	var wg sync.WaitGroup
	for w := range writers {
		d := h.A
		if w%2 == 1 {
			d = h.B
		}
		wg.Go(func() {
			for i := range each {
				for {
					app := readApps(t, d)[0]
					var list []string
					if err := json.Unmarshal(app.Data, &list); err != nil {
						t.Error(err)
						return
					}
					_, err := d.PutApp(t.Context(), id, app.Revision, data(append(list, fmt.Sprint(w, ".", i))), 0)
					if err == nil {
						break
					}
					if !errors.Is(err, directory.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	var list []string
	if err := json.Unmarshal(readApps(t, h.B)[0].Data, &list); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	if n := len(slices.Compact(list)); n != writers*each {
		t.Errorf("%d of %d are there", n, writers*each)
	}
}

func appModel(t *testing.T, h Harness) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dirs := []directory.Directory{h.A, h.B}
	model := make(map[string]directory.App)
	var newest uint64
	for step := range 300 {
		id, n := fmt.Sprint(name(t), rng.IntN(4)), rng.IntN(2)
		is, there := model[id]
		revision := is.Revision
		if rng.IntN(3) == 0 {
			revision = rng.Uint64N(newest + 2)
		}
		if rng.IntN(3) == 0 {
			want := directory.ErrConflict
			if there && revision == is.Revision {
				want = nil
				delete(model, id)
			}
			expectError(t, fmt.Sprint("step ", step, ": DeleteApp"), dirs[n].DeleteApp(t.Context(), id, revision), want)
		} else {
			next, err := dirs[n].PutApp(t.Context(), id, revision, data(step), 0)
			want := directory.ErrConflict
			if revision == is.Revision { // 0 if it is not there
				want = nil
				model[id] = directory.App{ID: id, Revision: next, Data: data(step)}
				if next <= newest {
					t.Fatalf("step %d: revision %d after %d", step, next, newest)
				}
				newest = next
			}
			expectError(t, fmt.Sprint("step ", step, ": PutApp"), err, want)
		}
		got := readApps(t, dirs[1-n])
		if len(got) != len(model) {
			t.Fatalf("step %d: got %+v, want %+v", step, got, model)
		}
		for _, a := range got {
			if !sameApp(a, model[a.ID]) {
				t.Fatalf("step %d: got %+v, want %+v", step, got, model)
			}
		}
	}
}
