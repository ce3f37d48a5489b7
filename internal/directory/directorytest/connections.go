package directorytest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/directory"
)

var connectionTests = []test{
	{"AConnectionIsKnownToBothNodes", created},
	{"AnIDIsTakenUntilItsConnectionIsClosed", taken},
	{"AConnectionThatNobodyCreatedIsNotFound", unknown},
	{"AResumeMovesTheConnection", moved},
	{"TheGenerationBeforeResumesUntilTheNewestIsCommitted", generations},
	{"AnOlderGenerationIsSuperseded", older},
	{"TheNodeThatHeldAConnectionIsTold", told},
	{"ADisconnectedConnectionExpires", expires},
	{"AResumedConnectionDoesNotExpire", resumedInTime},
	{"AReapedConnectionMayBeResumed", reaped},
	{"OnlyADisconnectedConnectionIsReaped", reapConnected},
	{"OfConcurrentResumesOneSucceedsOncePerCommit", concurrentResumes},
	{"AResumeKnowsWhetherTheReaperWasFirst", reapAgainstResume},
	{"OfConcurrentCreatesOneSucceeds", concurrentCreates},
	{"AnAppHasSoManyConnections", connectionsOfAnApp},
	{"ConcurrentCreatesNeverExceedTheMaximum", connectionsNeverExceed},
}

func created(t *testing.T, h Harness) {
	id := name(t)
	err := h.A.Create(t.Context(), directory.Connection{ID: id, App: "app", GrantDigest: "digest",
		// All others are not the caller's to say.
		Generation: 7, Committed: 6, Owner: h.NodeB, State: directory.Reaped, Deadline: h.Now()}, 0)
	expectError(t, "Create", err, nil)
	want := directory.Connection{ID: id, App: "app", Generation: 1, Committed: 1,
		Owner: h.NodeA, State: directory.Connected, GrantDigest: "digest"}
	for _, d := range []directory.Directory{h.A, h.B} {
		if got := lookup(t, d, id); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func taken(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	for _, d := range []directory.Directory{h.A, h.B} {
		expectError(t, "Create", d.Create(t.Context(), directory.Connection{ID: id}, 0), directory.ErrExists)
	}
	if got := lookup(t, h.A, id); got.App != "app" {
		t.Errorf("a refused Create changed the record: %+v", got)
	}
	expectError(t, "Close", h.B.Close(t.Context(), id, 1), nil)
	_, err := h.A.Lookup(t.Context(), id)
	expectError(t, "Lookup", err, directory.ErrNotFound)
	expectError(t, "Close", h.A.Close(t.Context(), id, 1), directory.ErrNotFound)
	create(t, h, id)
}

func unknown(t *testing.T, h Harness) {
	id := name(t)
	everything := func(what string, generation uint64) {
		_, _, err := h.B.Resume(t.Context(), id, generation, h.NodeB)
		expectError(t, what+"Resume", err, directory.ErrNotFound)
		expectError(t, what+"Commit", h.A.Commit(t.Context(), id, generation), directory.ErrNotFound)
		expectError(t, what+"Disconnect", h.A.Disconnect(t.Context(), id, generation, h.Now().Add(time.Minute)), directory.ErrNotFound)
		expectError(t, what+"Reap", h.A.Reap(t.Context(), id, generation), directory.ErrNotFound)
		expectError(t, what+"Close", h.A.Close(t.Context(), id, generation), directory.ErrNotFound)
	}
	everything("never created: ", 1)
	create(t, h, id)
	before := lookup(t, h.A, id)
	everything("a generation that never was: ", 2)
	if got := lookup(t, h.A, id); got != before {
		t.Errorf("got %+v, want %+v", got, before)
	}
}

func moved(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	got, reaped := resume(t, h.B, id, 1, h.NodeB)
	want := directory.Connection{ID: id, App: "app", Generation: 2, Committed: 1,
		Owner: h.NodeB, State: directory.Connected, GrantDigest: "digest of " + id}
	if got != want || reaped {
		t.Errorf("got %+v, reaped %v; want %+v", got, reaped, want)
	}
	if got := lookup(t, h.A, id); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// A node may do it for another one.
	if got, _ := resume(t, h.B, id, 2, h.NodeA); got.Owner != h.NodeA || got.Generation != 3 {
		t.Errorf("got %+v", got)
	}
}

// generations: the CONNECTED that carries a new key may get lost, again and again.
func generations(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	for want := uint64(2); want <= 5; want++ {
		if c, _ := resume(t, h.B, id, 1, h.NodeB); c.Generation != want || c.Committed != 1 {
			t.Fatalf("got %+v, want generation %d", c, want)
		}
	}
	if c, _ := resume(t, h.A, id, 3, h.NodeA); c.Generation != 6 {
		t.Fatalf("got %+v", c)
	}
	expectError(t, "Commit", h.A.Commit(t.Context(), id, 6), nil)
	expectError(t, "Commit", h.A.Commit(t.Context(), id, 6), nil)
	if c := lookup(t, h.B, id); c.Committed != 6 || c.Generation != 6 {
		t.Fatalf("got %+v", c)
	}
	for from := range uint64(6) {
		_, _, err := h.B.Resume(t.Context(), id, from, h.NodeB)
		expectError(t, fmt.Sprint("Resume from ", from), err, directory.ErrSuperseded)
	}
	if c, _ := resume(t, h.B, id, 6, h.NodeB); c.Generation != 7 {
		t.Fatalf("got %+v", c)
	}
}

func older(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	resume(t, h.B, id, 1, h.NodeB)
	before := lookup(t, h.A, id)
	expectError(t, "Commit", h.A.Commit(t.Context(), id, 1), directory.ErrSuperseded)
	expectError(t, "Disconnect", h.A.Disconnect(t.Context(), id, 1, h.Now().Add(time.Minute)), directory.ErrSuperseded)
	expectError(t, "Reap", h.A.Reap(t.Context(), id, 1), directory.ErrSuperseded)
	expectError(t, "Close", h.A.Close(t.Context(), id, 1), directory.ErrSuperseded)
	if got := lookup(t, h.A, id); got != before {
		t.Errorf("got %+v, want %+v", got, before)
	}
}

func told(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	resume(t, h.B, id, 1, h.NodeB)
	expectSuperseded(t, h.A, directory.Supersession{ID: id, Generation: 1})
	resume(t, h.A, id, 1, h.NodeA)
	expectSuperseded(t, h.B, directory.Supersession{ID: id, Generation: 2})
	resume(t, h.A, id, 3, h.NodeA)
	expectSuperseded(t, h.A, directory.Supersession{ID: id, Generation: 3})
	// A resume that fails tells nobody.
	expectError(t, "Commit", h.A.Commit(t.Context(), id, 4), nil)
	_, _, err := h.B.Resume(t.Context(), id, 3, h.NodeB)
	expectError(t, "Resume", err, directory.ErrSuperseded)
	resume(t, h.B, id, 4, h.NodeB)
	expectSuperseded(t, h.A, directory.Supersession{ID: id, Generation: 4})
}

func expires(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	deadline := h.Now().Add(2 * time.Minute)
	expectError(t, "Disconnect", h.A.Disconnect(t.Context(), id, 1, deadline), nil)
	c := lookup(t, h.B, id)
	if c.State != directory.Disconnected || c.Deadline.UnixMilli() != deadline.UnixMilli() {
		t.Fatalf("got %+v, want deadline %v", c, deadline)
	}
	h.Advance(time.Minute)
	lookup(t, h.A, id)
	h.Advance(time.Minute)
	_, err := h.B.Lookup(t.Context(), id)
	expectError(t, "Lookup", err, directory.ErrNotFound)
	_, _, err = h.B.Resume(t.Context(), id, 1, h.NodeB)
	expectError(t, "Resume", err, directory.ErrNotFound)
	expectError(t, "Reap", h.A.Reap(t.Context(), id, 1), directory.ErrNotFound)
	create(t, h, id)
	h.Advance(time.Hour)
	lookup(t, h.B, id) // a new life, without a deadline
}

func resumedInTime(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	expectError(t, "Disconnect", h.A.Disconnect(t.Context(), id, 1, h.Now().Add(time.Minute)), nil)
	if c, reaped := resume(t, h.B, id, 1, h.NodeB); !c.Deadline.IsZero() || c.State != directory.Connected || reaped {
		t.Fatalf("got %+v, reaped %v", c, reaped)
	}
	expectError(t, "the old transport's Disconnect", h.A.Disconnect(t.Context(), id, 1, h.Now().Add(time.Second)), directory.ErrSuperseded)
	h.Advance(time.Hour)
	if c := lookup(t, h.A, id); c.State != directory.Connected || !c.Deadline.IsZero() {
		t.Errorf("got %+v", c)
	}
}

func reaped(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	deadline := h.Now().Add(time.Minute)
	expectError(t, "Disconnect", h.A.Disconnect(t.Context(), id, 1, deadline), nil)
	for _, d := range []directory.Directory{h.B, h.A} { // the first may have ended at once
		expectError(t, "Reap", d.Reap(t.Context(), id, 1), nil)
	}
	if c := lookup(t, h.A, id); c.State != directory.Reaped || c.Deadline.UnixMilli() != deadline.UnixMilli() {
		t.Fatalf("got %+v", c)
	}
	c, was := resume(t, h.B, id, 1, h.NodeB)
	if !was || c.State != directory.Connected || c.ID != id || c.Generation != 2 {
		t.Fatalf("got %+v, reaped %v", c, was)
	}
	if _, was := resume(t, h.B, id, 2, h.NodeB); was {
		t.Error("reaped twice")
	}
}

func reapConnected(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	expectError(t, "Reap", h.A.Reap(t.Context(), id, 1), directory.ErrSuperseded)
	if c := lookup(t, h.A, id); c.State != directory.Connected {
		t.Errorf("got %+v", c)
	}
}

func concurrentResumes(t *testing.T, h Harness) {
	id := name(t)
	create(t, h, id)
	generation := uint64(1)
	for range 50 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		won := make(map[uint64]directory.Node)
		for i := range 4 {
			d, owner := h.A, h.NodeA
			if i%2 == 1 {
				d, owner = h.B, h.NodeB
			}
			wg.Go(func() {
				c, _, err := d.Resume(t.Context(), id, generation, owner)
				if errors.Is(err, directory.ErrSuperseded) {
					return // another one committed
				}
				if err != nil {
					t.Errorf("Resume: %v", err)
					return
				}
				// As a recover does: the key arrived, or this one was superseded meanwhile.
				if err := d.Commit(t.Context(), id, c.Generation); err != nil {
					if !errors.Is(err, directory.ErrSuperseded) {
						t.Errorf("Commit: %v", err)
					}
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if _, twice := won[c.Generation]; twice {
					t.Errorf("generation %d was given twice", c.Generation)
				}
				won[c.Generation] = owner
			})
		}
		wg.Wait()
		c := lookup(t, h.A, id)
		if c.Committed != c.Generation || won[c.Generation] != c.Owner || c.Generation <= generation {
			t.Fatalf("got %+v; these won: %v", c, won)
		}
		if len(won) != 1 {
			t.Fatalf("%d resumes of one generation were committed", len(won))
		}
		generation = c.Generation
	}
}

func reapAgainstResume(t *testing.T, h Harness) {
	for i := range 200 {
		id := fmt.Sprint(name(t), i)
		create(t, h, id)
		expectError(t, "Disconnect", h.A.Disconnect(t.Context(), id, 1, h.Now().Add(time.Minute)), nil)
		var wg sync.WaitGroup
		var reapErr, resumeErr error
		var was bool
		wg.Go(func() { reapErr = h.A.Reap(t.Context(), id, 1) })
		wg.Go(func() { _, was, resumeErr = h.B.Resume(t.Context(), id, 1, h.NodeB) })
		wg.Wait()
		expectError(t, "Resume", resumeErr, nil)
		if reapErr != nil {
			expectError(t, "Reap", reapErr, directory.ErrSuperseded)
		}
		if was != (reapErr == nil) {
			t.Fatalf("the reaper got %v, the resume was told %v", reapErr, was)
		}
		if c := lookup(t, h.A, id); c.State != directory.Connected || c.Generation != 2 {
			t.Fatalf("got %+v", c)
		}
	}
}

func concurrentCreates(t *testing.T, h Harness) {
	for i := range 50 {
		id := fmt.Sprint(name(t), i)
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for k := range errs {
			wg.Go(func() {
				errs[k] = []directory.Directory{h.A, h.B}[k%2].Create(t.Context(), directory.Connection{ID: id}, 0)
			})
		}
		wg.Wait()
		ok := 0
		for _, err := range errs {
			if err == nil {
				ok++
			} else {
				expectError(t, "Create", err, directory.ErrExists)
			}
		}
		if ok != 1 {
			t.Fatalf("%d succeeded", ok)
		}
	}
}

func connectionsOfAnApp(t *testing.T, h Harness) {
	open := func(d directory.Directory, id string, max int, want error) {
		t.Helper()
		err := d.Create(t.Context(), directory.Connection{ID: name(t) + id, App: name(t)}, max)
		expectError(t, "Create "+id, err, want)
	}
	open(h.A, "1", 2, nil)
	open(h.B, "2", 2, nil)
	open(h.A, "3", 2, directory.ErrFull)
	if _, err := h.A.Lookup(t.Context(), name(t)+"3"); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("what was refused is there: %v", err)
	}
	open(h.B, "2", 3, directory.ErrExists)
	open(h.B, "3", 3, nil) // a limit may be raised
	open(h.B, "4", 2, directory.ErrFull)
	open(h.B, "4", 0, nil) // one that does not limit
	expectError(t, "Create in another app", h.A.Create(t.Context(), directory.Connection{ID: name(t) + "other", App: name(t) + "other"}, 1), nil)

	// Four are connected. Those without a transport are not counted, and come back however
	// many there are.
	deadline := h.Now().Add(time.Minute)
	for range 2 {
		expectError(t, "Disconnect", h.A.Disconnect(t.Context(), name(t)+"1", 1, deadline), nil)
	}
	expectError(t, "Disconnect", h.B.Disconnect(t.Context(), name(t)+"2", 1, deadline), nil)
	expectError(t, "Reap", h.B.Reap(t.Context(), name(t)+"2", 1), nil)
	expectError(t, "Disconnect", h.B.Disconnect(t.Context(), name(t)+"2", 1, deadline), nil)
	open(h.A, "5", 3, nil)
	open(h.A, "6", 3, directory.ErrFull)
	resume(t, h.B, name(t)+"1", 1, h.NodeB)
	resume(t, h.A, name(t)+"1", 2, h.NodeA)
	resume(t, h.A, name(t)+"2", 1, h.NodeA)
	open(h.A, "6", 5, directory.ErrFull)
	expectError(t, "Close", h.A.Close(t.Context(), name(t)+"2", 2), nil)
	open(h.A, "6", 5, nil)

	// What is closed while it waits was not counted.
	expectError(t, "Disconnect", h.A.Disconnect(t.Context(), name(t)+"1", 3, deadline), nil)
	expectError(t, "Close", h.A.Close(t.Context(), name(t)+"1", 3), nil)
	open(h.A, "7", 5, nil)
	open(h.A, "8", 5, directory.ErrFull)
}

func connectionsNeverExceed(t *testing.T, h Harness) {
	const most = 3
	var open atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		d := []directory.Directory{h.A, h.B}[i%2]
		wg.Go(func() {
			for k := range 100 {
				id := fmt.Sprint(name(t), i, "-", k)
				err := d.Create(t.Context(), directory.Connection{ID: id, App: name(t)}, most)
				if errors.Is(err, directory.ErrFull) {
					continue
				}
				if err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				if n := open.Add(1); n > most {
					t.Errorf("%d are open", n)
				}
				open.Add(-1)
				if err := d.Close(t.Context(), id, 1); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for i := range most {
		expectError(t, "Create", h.A.Create(t.Context(), directory.Connection{ID: fmt.Sprint(name(t), "after", i), App: name(t)}, most), nil)
	}
}
