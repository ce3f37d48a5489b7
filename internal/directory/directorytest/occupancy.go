package directorytest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

var occupancyTests = []test{
	{"ConnectionsOfAllNodesAreCounted", counts},
	{"EachMetricIsCountedByItself", metrics},
	{"AFullChannelAdmitsNobodyUntilOneLeaves", full},
	{"AConnectionThatIsThereAlreadyIsAdmitted", fullAgain},
	{"LeavingWithoutHavingJoinedChangesNothing", leaveTwice},
	{"TheCountNeverExceedsTheMaximum", neverExceeds},
	{"ConcurrentJoinsAndLeavesLoseNothing", concurrentCounts},
	{"WhoWatchesIsToldOfEveryNodesChanges", watched},
	{"AChangeIsToldOnceUntilItIsLookedAt", toldOnce},
	{"NobodyElseIsTold", notTold},
	{"AWatcherNeverMissesTheLastChange", lastChange},
}

// one is a connection that subscribes only.
var one = pubsub.OccupancyOf(pubsub.ModeSubscribe)

// connections is an occupancy of n such.
func connections(n int) (o pubsub.Occupancy) {
	for range n {
		o = o.Plus(one)
	}
	return o
}

func occupancy(t *testing.T, h Harness, ch pubsub.ChannelID, want pubsub.Occupancy) {
	t.Helper()
	for _, d := range []directory.Directory{h.A, h.B} {
		got, err := d.Occupancy(t.Context(), ch)
		expectError(t, "Occupancy", err, nil)
		if got != want {
			t.Fatalf("occupancy: got %v, want %v", got, want)
		}
	}
}

func join(t *testing.T, d directory.Directory, ch pubsub.ChannelID, n directory.Node, want int) {
	t.Helper()
	got, err := d.Join(t.Context(), ch, n, one, 0)
	expectError(t, "Join", err, nil)
	if got != connections(want) {
		t.Fatalf("Join: got %v, want %v", got, connections(want))
	}
}

func leave(t *testing.T, d directory.Directory, ch pubsub.ChannelID, n directory.Node) {
	t.Helper()
	expectError(t, "Adjust", d.Adjust(t.Context(), ch, n, pubsub.Occupancy{}.Minus(one)), nil)
}

func counts(t *testing.T, h Harness) {
	ch := channel(t)
	occupancy(t, h, ch, connections(0))
	join(t, h.A, ch, h.NodeA, 1)
	join(t, h.B, ch, h.NodeB, 2)
	join(t, h.A, ch, h.NodeA, 3)
	occupancy(t, h, ch, connections(3))
	occupancy(t, h, pubsub.ChannelID{App: "other", Name: ch.Name}, connections(0))
	leave(t, h.A, ch, h.NodeA)
	leave(t, h.B, ch, h.NodeB)
	occupancy(t, h, ch, connections(1))
	leave(t, h.A, ch, h.NodeA)
	occupancy(t, h, ch, connections(0))
}

// metrics has connections come, change their modes and go, against a model.
func metrics(t *testing.T, h Harness) {
	ch := channel(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	dirs, nodes := []directory.Directory{h.A, h.B}, []directory.Node{h.NodeA, h.NodeB}
	var here [2][]pubsub.Mode
	var want pubsub.Occupancy
	for range 500 {
		n := rng.IntN(2)
		modes := pubsub.Mode(rng.Uint32()) & pubsub.AllModes
		switch at := len(here[n]); {
		case rng.IntN(3) == 0 && modes != 0:
			add := pubsub.OccupancyOf(modes)
			want = want.Plus(add)
			here[n] = append(here[n], modes)
			got, err := dirs[n].Join(t.Context(), ch, nodes[n], add, 0)
			expectError(t, "Join", err, nil)
			if got != want {
				t.Fatalf("Join: got %v, want %v", got, want)
			}
		case at > 0:
			i := rng.IntN(at)
			by := pubsub.OccupancyOf(modes).Minus(pubsub.OccupancyOf(here[n][i]))
			want = want.Plus(by)
			if here[n][i] = modes; modes == 0 {
				here[n] = append(here[n][:i], here[n][i+1:]...)
			}
			expectError(t, "Adjust", dirs[n].Adjust(t.Context(), ch, nodes[n], by), nil)
		}
		occupancy(t, h, ch, want)
	}
}

func full(t *testing.T, h Harness) {
	ch := channel(t)
	for i := range 3 {
		got, err := h.A.Join(t.Context(), ch, h.NodeA, one, 3)
		expectError(t, "Join", err, nil)
		if got != connections(i+1) {
			t.Fatalf("got %v, want %d", got, i+1)
		}
	}
	_, err := h.B.Join(t.Context(), ch, h.NodeB, one, 3)
	expectError(t, "Join", err, directory.ErrFull)
	_, err = h.B.Join(t.Context(), ch, h.NodeB, one, 2) // a limit may have been lowered
	expectError(t, "Join", err, directory.ErrFull)
	occupancy(t, h, ch, connections(3))
	join(t, h.B, ch, h.NodeB, 4) // one that does not limit
	leave(t, h.A, ch, h.NodeA)
	leave(t, h.A, ch, h.NodeA)
	_, err = h.B.Join(t.Context(), ch, h.NodeB, one, 3)
	expectError(t, "Join", err, nil)
	occupancy(t, h, ch, connections(3))
}

// fullAgain: a second attachment of a connection adds modes, and not a connection.
func fullAgain(t *testing.T, h Harness) {
	ch := channel(t)
	_, err := h.A.Join(t.Context(), ch, h.NodeA, one, 1)
	expectError(t, "Join", err, nil)
	both := pubsub.OccupancyOf(pubsub.ModeSubscribe | pubsub.ModePublish)
	for range 2 {
		got, err := h.A.Join(t.Context(), ch, h.NodeA, both.Minus(one), 1)
		expectError(t, "Join", err, nil)
		if got[pubsub.MetricConnections] != 1 {
			t.Fatalf("got %v", got)
		}
		expectError(t, "Adjust", h.A.Adjust(t.Context(), ch, h.NodeA, one.Minus(both)), nil)
	}
	got, err := h.B.Join(t.Context(), ch, h.NodeB, pubsub.Occupancy{}, 1)
	expectError(t, "Join", err, nil)
	if got != one {
		t.Fatalf("got %v", got)
	}
	occupancy(t, h, ch, one)
}

func leaveTwice(t *testing.T, h Harness) {
	ch := channel(t)
	leave(t, h.A, ch, h.NodeA)
	occupancy(t, h, ch, connections(0))
	join(t, h.A, ch, h.NodeA, 1)
	leave(t, h.B, ch, h.NodeB)
	occupancy(t, h, ch, connections(1))
	expectError(t, "Adjust", h.A.Adjust(t.Context(), ch, h.NodeA, connections(0).Minus(connections(2))), nil)
	occupancy(t, h, ch, connections(0))
	join(t, h.A, ch, h.NodeA, 1)
}

func neverExceeds(t *testing.T, h Harness) {
	ch := channel(t)
	const most = 5
	var inside atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		d, n := h.A, h.NodeA
		if i%2 == 1 {
			d, n = h.B, h.NodeB
		}
		wg.Go(func() {
			for range 200 {
				count, err := d.Join(t.Context(), ch, n, one, most)
				if errors.Is(err, directory.ErrFull) {
					continue
				}
				if c := count[pubsub.MetricConnections]; err != nil || c < 1 || c > most {
					t.Errorf("Join: got %v, %v", count, err)
					return
				}
				if now := inside.Add(1); now > most {
					t.Errorf("%d are inside", now)
				}
				inside.Add(-1)
				if err := d.Adjust(t.Context(), ch, n, pubsub.Occupancy{}.Minus(one)); err != nil {
					t.Errorf("Adjust: %v", err)
				}
			}
		})
	}
	wg.Wait()
	occupancy(t, h, ch, connections(0))
}

// crowd has connections of both nodes come, and three of four go, all at once.
func crowd(t *testing.T, h Harness, ch pubsub.ChannelID) (left pubsub.Occupancy) {
	var wg sync.WaitGroup
	for i := range 4 {
		d, n := h.A, h.NodeA
		if i%2 == 1 {
			d, n = h.B, h.NodeB
		}
		wg.Go(func() {
			for k := range 200 {
				if _, err := d.Join(t.Context(), ch, n, one, 0); err != nil {
					t.Errorf("Join: %v", err)
				}
				if k%4 != 0 {
					if err := d.Adjust(t.Context(), ch, n, pubsub.Occupancy{}.Minus(one)); err != nil {
						t.Errorf("Adjust: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	return connections(4 * 50)
}

func concurrentCounts(t *testing.T, h Harness) {
	ch := channel(t)
	occupancy(t, h, ch, crowd(t, h, ch))
}

func watch(t *testing.T, d directory.Directory, ch pubsub.ChannelID, on bool) {
	t.Helper()
	expectError(t, "Watch", d.Watch(t.Context(), ch, on), nil)
}

// expectChanged waits for a notice of ch, and looks.
func expectChanged(t *testing.T, d directory.Directory, ch pubsub.ChannelID, want pubsub.Occupancy) {
	t.Helper()
	select {
	case got := <-d.Changed():
		if got != ch {
			t.Fatalf("changed: got %v, want %v", got, ch)
		}
	case <-time.After(patience):
		t.Fatalf("changed: got nothing, want %v", ch)
	}
	got, err := d.Occupancy(t.Context(), ch)
	expectError(t, "Occupancy", err, nil)
	if got != want {
		t.Fatalf("occupancy: got %v, want %v", got, want)
	}
}

func watched(t *testing.T, h Harness) {
	ch := channel(t)
	watch(t, h.A, ch, true)
	watch(t, h.A, ch, true)
	join(t, h.A, ch, h.NodeA, 1)
	expectChanged(t, h.A, ch, connections(1))
	join(t, h.B, ch, h.NodeB, 2)
	expectChanged(t, h.A, ch, connections(2))
	leave(t, h.B, ch, h.NodeB)
	expectChanged(t, h.A, ch, connections(1))
	leave(t, h.A, ch, h.NodeA)
	expectChanged(t, h.A, ch, connections(0))
	join(t, h.B, ch, h.NodeB, 1)
	expectChanged(t, h.A, ch, connections(1))
}

// mark makes a change that d is told of after whatever it was told of before.
func mark(t *testing.T, h Harness, d directory.Directory, name string) pubsub.ChannelID {
	t.Helper()
	ch := pubsub.ChannelID{App: "app", Name: name}
	watch(t, d, ch, true)
	join(t, h.A, ch, h.NodeA, 1)
	return ch
}

func toldOnce(t *testing.T, h Harness) {
	ch := channel(t)
	watch(t, h.A, ch, true)
	for i := range 3 {
		join(t, h.B, ch, h.NodeB, i+1)
	}
	last := mark(t, h, h.A, name(t)+" mark")
	expectChanged(t, h.A, ch, connections(3))
	expectChanged(t, h.A, last, connections(1))
	join(t, h.B, ch, h.NodeB, 4)
	expectChanged(t, h.A, ch, connections(4))
}

func notTold(t *testing.T, h Harness) {
	ch := channel(t)
	watch(t, h.B, ch, true) // another node
	watch(t, h.A, ch, true)
	watch(t, h.A, ch, false) // not any more
	watch(t, h.A, ch, false)
	join(t, h.A, ch, h.NodeA, 1)
	leave(t, h.B, ch, h.NodeB) // changes nothing
	_, err := h.B.Join(t.Context(), ch, h.NodeB, pubsub.Occupancy{}, 0)
	expectError(t, "Join", err, nil)
	last := mark(t, h, h.A, name(t)+" mark")
	expectChanged(t, h.A, last, connections(1))
	expectChanged(t, h.B, ch, connections(1))
}

// lastChange: who looks after each notice knows the truth in the end.
func lastChange(t *testing.T, h Harness) {
	ch := channel(t)
	watch(t, h.A, ch, true)
	done := make(chan pubsub.Occupancy)
	go func() { done <- crowd(t, h, ch) }()
	var seen, want pubsub.Occupancy
	for over := false; !over || seen != want; {
		select {
		case <-h.A.Changed():
			var err error
			if seen, err = h.A.Occupancy(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
		case want = <-done:
			over, done = true, nil
		case <-time.After(patience):
			t.Fatalf("%v was seen last, and there are %v", seen, want)
		}
	}
}
