package directorytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"letshare-server/internal/directory"
)

var modelTests = []test{
	{"RandomSchedulesAgreeWithAModel", randomSchedules},
}

// randomSchedules does random things to a few connections, one after another, and compares
// every answer with what the rules of generations say.
func randomSchedules(t *testing.T, h Harness) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	model := make(map[string]*directory.Connection)
	dirs, nodes := []directory.Directory{h.A, h.B}, []directory.Node{h.NodeA, h.NodeB}
	for step := range 1500 {
		id := fmt.Sprint(name(t), rng.IntN(5))
		n := rng.IntN(2)
		m := model[id]
		if m != nil && !m.Deadline.IsZero() && m.Deadline.Sub(h.Now()) < 30*time.Second {
			h.Advance(30 * time.Second) // so that it does not come by itself while it is used
			delete(model, id)
			m = nil
		}
		generation := uint64(1)
		if m != nil {
			generation = m.Generation + 1 - uint64(rng.IntN(int(min(m.Generation, 3)+1)))
		}
		// newest is the error that all but Create and Resume give.
		var newest error
		switch {
		case m == nil || generation > m.Generation:
			newest = directory.ErrNotFound
		case generation < m.Generation:
			newest = directory.ErrSuperseded
		}
		var got, want error
		op := []string{"Create", "Resume", "Resume", "Commit", "Disconnect", "Disconnect", "Reap", "Close", "Advance"}[rng.IntN(9)]
		switch op {
		case "Create":
			got = dirs[n].Create(t.Context(), directory.Connection{ID: id, App: "app", GrantDigest: fmt.Sprint(step)}, 0)
			if m != nil {
				want = directory.ErrExists
			} else {
				model[id] = &directory.Connection{ID: id, App: "app", Generation: 1, Committed: 1,
					Owner: nodes[n], State: directory.Connected, GrantDigest: fmt.Sprint(step)}
			}
		case "Resume":
			c, reaped, err := dirs[n].Resume(t.Context(), id, generation, nodes[1-n])
			got = err
			switch {
			case m == nil || generation > m.Generation:
				want = directory.ErrNotFound
			case generation < m.Committed:
				want = directory.ErrSuperseded
			default:
				was := m.State == directory.Reaped
				m.Generation++
				m.Owner, m.State, m.Deadline = nodes[1-n], directory.Connected, time.Time{}
				if c != *m || reaped != was {
					t.Fatalf("step %d: got %+v, reaped %v; want %+v, %v", step, c, reaped, *m, was)
				}
			}
		case "Commit":
			got, want = dirs[n].Commit(t.Context(), id, generation), newest
			if want == nil {
				m.Committed = generation
			}
		case "Disconnect":
			deadline := time.UnixMilli(h.Now().Add(time.Duration(rng.IntN(60)+1) * time.Minute).UnixMilli())
			got, want = dirs[n].Disconnect(t.Context(), id, generation, deadline), newest
			if want == nil {
				m.Deadline = deadline
				if m.State == directory.Connected {
					m.State = directory.Disconnected
				}
			}
		case "Reap":
			got, want = dirs[n].Reap(t.Context(), id, generation), newest
			switch {
			case want == nil && m.State == directory.Connected:
				want = directory.ErrSuperseded
			case want == nil:
				m.State = directory.Reaped
			}
		case "Close":
			got, want = dirs[n].Close(t.Context(), id, generation), newest
			if want == nil {
				delete(model, id)
			}
		case "Advance":
			h.Advance(time.Duration(rng.IntN(5)) * time.Minute)
			continue
		}
		if !errors.Is(got, want) {
			t.Fatalf("step %d: %s of generation %d: got %v, want %v; the record is %+v", step, op, generation, got, want, m)
		}
		c, err := dirs[1-n].Lookup(t.Context(), id)
		switch m := model[id]; {
		case m == nil:
			expectError(t, "Lookup", err, directory.ErrNotFound)
		case err != nil:
			t.Fatalf("step %d: Lookup after %s: %v", step, op, err)
		case c != *m:
			t.Fatalf("step %d: %s: got %+v, want %+v", step, op, c, *m)
		}
	}
}
