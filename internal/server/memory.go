package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// When free memory is given back to the system: after a burst of connections the run-time
// keeps for its next garbage what it needed for theirs, which would nearly double what an
// idle connection costs. Doing it costs a garbage collection, so it waits for quiet.
const (
	memoryTick     = time.Second
	memoryInterval = 10 * time.Second // between two times
	quietTicks     = 2                // in a row
	quietBytes     = 1 << 20          // allocated in one tick at most
	leastBytes     = 4 << 20          // allocated or forgotten since the last time: worth the effort
)

// returnMemory gives free memory back whenever the process has been quiet, until ctx ends. kept is how
// many bytes of messages and ids are remembered: what is forgotten is garbage that nobody's
// allocations would have collected.
func returnMemory(ctx context.Context, kept func() int64) error {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	var m idleness
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(samples)
		if m.worthwhile(samples[0].Value.Uint64(), kept(), time.Now()) {
			debug.FreeOSMemory()
		}
	}
}

// idleness finds the times at which it is worth to give memory back.
type idleness struct {
	allocated uint64 // at the last tick
	returned  uint64 // of it when memory was last given back
	kept      int64  // the most since then
	last      time.Time
	quiet     int
}

// worthwhile is asked at each tick, with the bytes that were allocated since the process began and those
// that are kept now.
func (m *idleness) worthwhile(allocated uint64, kept int64, now time.Time) bool {
	if m.quiet++; allocated-m.allocated > quietBytes {
		m.quiet = 0
	}
	m.allocated, m.kept = allocated, max(m.kept, kept)
	if m.quiet < quietTicks || now.Sub(m.last) < memoryInterval ||
		allocated-m.returned <= leastBytes && m.kept-kept <= leastBytes {
		return false
	}
	m.returned, m.kept, m.last = allocated, kept, now
	return true
}
