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
	leastBytes     = 4 << 20          // allocated since the last time: worth the effort
)

// returnMemory gives free memory back whenever the process has been quiet, until ctx ends.
func returnMemory(ctx context.Context) error {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	var (
		allocated uint64 // at the last tick
		returned  uint64 // of it when memory was last given back
		last      time.Time
		quiet     int
	)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(samples)
		now := samples[0].Value.Uint64()
		if quiet++; now-allocated > quietBytes {
			quiet = 0
		}
		allocated = now
		if quiet >= quietTicks && now-returned > leastBytes && time.Since(last) >= memoryInterval {
			debug.FreeOSMemory()
			returned, last = now, time.Now()
		}
	}
}
