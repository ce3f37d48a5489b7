package directorytest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

var occupancyTests = []test{
	{"AttachmentsOfAllNodesAreCounted", counts},
	{"AFullChannelAdmitsNobodyUntilOneLeaves", full},
	{"LeavingWithoutHavingJoinedChangesNothing", leaveTwice},
	{"TheCountNeverExceedsTheMaximum", neverExceeds},
	{"ConcurrentJoinsAndLeavesLoseNothing", concurrentCounts},
}

func occupancy(t *testing.T, h Harness, ch pubsub.ChannelID, want int) {
	t.Helper()
	for _, d := range []directory.Directory{h.A, h.B} {
		got, err := d.Occupancy(t.Context(), ch)
		expectError(t, "Occupancy", err, nil)
		if got != want {
			t.Fatalf("occupancy: got %d, want %d", got, want)
		}
	}
}

func join(t *testing.T, d directory.Directory, ch pubsub.ChannelID, n directory.Node, want int) {
	t.Helper()
	got, err := d.Join(t.Context(), ch, n, 0)
	expectError(t, "Join", err, nil)
	if got != want {
		t.Fatalf("Join: got %d, want %d", got, want)
	}
}

func counts(t *testing.T, h Harness) {
	ch := channel(t)
	occupancy(t, h, ch, 0)
	join(t, h.A, ch, h.NodeA, 1)
	join(t, h.B, ch, h.NodeB, 2)
	join(t, h.A, ch, h.NodeA, 3)
	occupancy(t, h, ch, 3)
	occupancy(t, h, pubsub.ChannelID{App: "other", Name: ch.Name}, 0)
	expectError(t, "Leave", h.A.Leave(t.Context(), ch, h.NodeA), nil)
	expectError(t, "Leave", h.B.Leave(t.Context(), ch, h.NodeB), nil)
	occupancy(t, h, ch, 1)
	expectError(t, "Leave", h.A.Leave(t.Context(), ch, h.NodeA), nil)
	occupancy(t, h, ch, 0)
}

func full(t *testing.T, h Harness) {
	ch := channel(t)
	for i := range 3 {
		n, err := h.A.Join(t.Context(), ch, h.NodeA, 3)
		expectError(t, "Join", err, nil)
		if n != i+1 {
			t.Fatalf("got %d, want %d", n, i+1)
		}
	}
	_, err := h.B.Join(t.Context(), ch, h.NodeB, 3)
	expectError(t, "Join", err, directory.ErrFull)
	_, err = h.B.Join(t.Context(), ch, h.NodeB, 2) // a limit may have been lowered
	expectError(t, "Join", err, directory.ErrFull)
	occupancy(t, h, ch, 3)
	join(t, h.B, ch, h.NodeB, 4) // one that does not limit
	expectError(t, "Leave", h.A.Leave(t.Context(), ch, h.NodeA), nil)
	expectError(t, "Leave", h.A.Leave(t.Context(), ch, h.NodeA), nil)
	_, err = h.B.Join(t.Context(), ch, h.NodeB, 3)
	expectError(t, "Join", err, nil)
	occupancy(t, h, ch, 3)
}

func leaveTwice(t *testing.T, h Harness) {
	ch := channel(t)
	expectError(t, "Leave", h.A.Leave(t.Context(), ch, h.NodeA), nil)
	occupancy(t, h, ch, 0)
	join(t, h.A, ch, h.NodeA, 1)
	expectError(t, "Leave", h.B.Leave(t.Context(), ch, h.NodeB), nil)
	occupancy(t, h, ch, 1)
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
				count, err := d.Join(t.Context(), ch, n, most)
				if errors.Is(err, directory.ErrFull) {
					continue
				}
				if err != nil || count < 1 || count > most {
					t.Errorf("Join: got %d, %v", count, err)
					return
				}
				if now := inside.Add(1); now > most {
					t.Errorf("%d are inside", now)
				}
				inside.Add(-1)
				if err := d.Leave(t.Context(), ch, n); err != nil {
					t.Errorf("Leave: %v", err)
				}
			}
		})
	}
	wg.Wait()
	occupancy(t, h, ch, 0)
}

func concurrentCounts(t *testing.T, h Harness) {
	ch := channel(t)
	var wg sync.WaitGroup
	for i := range 4 {
		d, n := h.A, h.NodeA
		if i%2 == 1 {
			d, n = h.B, h.NodeB
		}
		wg.Go(func() {
			for k := range 200 {
				if _, err := d.Join(t.Context(), ch, n, 0); err != nil {
					t.Errorf("Join: %v", err)
				}
				if k%4 != 0 {
					if err := d.Leave(t.Context(), ch, n); err != nil {
						t.Errorf("Leave: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	occupancy(t, h, ch, 4*50)
}
