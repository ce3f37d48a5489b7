package metrics

import (
	"math"
	"runtime"
	"runtime/metrics"
)

// memory is a reading of the run-time's memory statistics, in bytes. Unlike
// runtime.ReadMemStats it does not stop the world.
type memory struct {
	alloc      uint64 // live and not yet swept heap objects
	totalAlloc uint64 // ever allocated
	sys        uint64 // obtained from the system
	heapSys    uint64 // of it for the heap
	cycles     uint64 // of garbage collection
	goroutines uint64 // without those of the run-time itself, of which there are more or less
}

func readMemory() memory {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	v := func(i int) uint64 {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return samples[i].Value.Uint64()
	}
	return memory{
		alloc:      v(0),
		totalAlloc: v(1),
		sys:        v(2),
		heapSys:    v(0) + v(3) + v(4) + v(5),
		cycles:     v(6),
		goroutines: uint64(runtime.NumGoroutine()),
	}
}

// megabytes rounds to two digits, as people read it.
func megabytes(bytes uint64) float64 {
	return math.Round(float64(bytes)/(1<<20)*100) / 100
}
