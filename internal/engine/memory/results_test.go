package memory

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestResultsAreASortedQueue(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var r results
		var want []int64
		grow := 1 + rnd.IntN(9)
		for range 2000 {
			switch m := rnd.Int64N(3000); {
			case rnd.IntN(10) < grow:
				if len(want) > 0 {
					m += want[len(want)-1] + 1
				}
				r.push(result{msgSerial: m})
				want = append(want, m)
			case len(want) > 0 && rnd.IntN(10) > 0:
				if got := r.pop().msgSerial; got != want[0] {
					t.Fatalf("seed %d: popped %d, want %d", seed, got, want[0])
				}
				want = want[1:]
			default:
				i, found := r.search(m)
				if at, known := slices.BinarySearch(want, m); i != at || found != known {
					t.Fatalf("seed %d: %d is at %d %v, want %d %v", seed, m, i, found, at, known)
				}
				if !found && i < len(want) {
					r.insert(i, result{msgSerial: m})
					want = slices.Insert(want, i, m)
				}
			}
			if r.n != len(want) || len(r.ring) > max(1, 8*len(want)) {
				t.Fatalf("seed %d: %d results in a ring of %d, want %d", seed, r.n, len(r.ring), len(want))
			}
			if len(want) > 0 && r.newest != want[len(want)-1] {
				t.Fatalf("seed %d: %d is the newest, want %d", seed, r.newest, want[len(want)-1])
			}
			for i, m := range want {
				if r.at(i).msgSerial != m {
					t.Fatalf("seed %d: %d is the %d-th, want %d", seed, r.at(i).msgSerial, i, m)
				}
			}
		}
	}
}
