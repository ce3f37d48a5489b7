package server

import (
	"testing"
	"time"
)

func TestMemoryIsGivenBackInQuietTimesAndIfThereIsAny(t *testing.T) {
	const mib = 1 << 20
	start := time.Unix(1_700_000_000, 0)
	type tick struct {
		allocates uint64 // since the tick before
		kept      int64
		want      bool
	}
	for name, ticks := range map[string][]tick{
		"busy":                    {{9 * mib, 0, false}, {9 * mib, 0, false}, {9 * mib, 0, false}, {9 * mib, 0, false}},
		"quiet after a burst":     {{9 * mib, 0, false}, {0, 0, false}, {0, 0, true}, {0, 0, false}, {0, 0, false}},
		"nothing to give":         {{1 * mib, 0, false}, {0, 0, false}, {0, 0, false}, {0, 0, false}},
		"what was kept goes":      {{0, 50 * mib, false}, {0, 50 * mib, false}, {0, 10 * mib, true}, {0, 10 * mib, false}},
		"little of it goes":       {{0, 50 * mib, false}, {0, 49 * mib, false}, {0, 48 * mib, false}, {0, 47 * mib, false}},
		"it goes bit by bit":      {{0, 8 * mib, false}, {0, 6 * mib, false}, {0, 5 * mib, false}, {0, 3 * mib, true}, {0, 3 * mib, false}},
		"it goes while all talks": {{9 * mib, 50 * mib, false}, {9 * mib, 0, false}, {9 * mib, 0, false}},
	} {
		var m idleness
		allocated := uint64(0)
		for i, c := range ticks {
			allocated += c.allocates
			if got := m.worthwhile(allocated, c.kept, start.Add(time.Duration(i)*memoryTick)); got != c.want {
				t.Errorf("%s: tick %d: %v, want %v", name, i, got, c.want)
			}
		}
		// Not again within the interval, but then.
		if !m.last.IsZero() {
			allocated += 2 * leastBytes
			m.worthwhile(allocated, 0, start.Add(5*time.Second))
			if m.worthwhile(allocated, 0, start.Add(6*time.Second)) || m.worthwhile(allocated, 0, start.Add(7*time.Second)) {
				t.Errorf("%s: twice in a few seconds", name)
			}
			if !m.worthwhile(allocated, 0, start.Add(time.Minute)) {
				t.Errorf("%s: not again later", name)
			}
		}
	}
}
