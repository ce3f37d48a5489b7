package load

import (
	"math"
	"math/bits"
	"time"
)

// subBits gives each power of two 128 buckets: a value is known to better than 1 %.
const subBits = 7

// histogram counts durations in buckets that grow with the value. The zero value is empty.
// Negative durations count as zero.
type histogram struct {
	counts [(65 - subBits) << subBits]uint32
	total  uint64
	max    time.Duration
}

func bucketOf(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits // v>>shift has subBits+1 bits, the first being 1
	return shift<<subBits + int(v>>shift)
}

// bucketTop is the largest value that falls into bucket i.
func bucketTop(i int) uint64 {
	if i < 2<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i-shift<<subBits)+1)<<shift - 1
}

func (h *histogram) record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

func (h *histogram) add(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// percentile is the value that p percent of the recorded ones do not exceed, rounded up to its
// bucket's end, and never more than the largest one. It is zero for an empty histogram.
func (h *histogram) percentile(p float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	want := max(uint64(math.Ceil(p/100*float64(h.total))), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= want {
			return min(time.Duration(bucketTop(i)), h.max)
		}
	}
	return h.max
}

func (h *histogram) latency() Latency {
	return Latency{
		P50:  micros(h.percentile(50)),
		P99:  micros(h.percentile(99)),
		P999: micros(h.percentile(99.9)),
		Max:  micros(h.max),
	}
}

// curve is the distribution as points to draw, closer to each other the nearer they are to its end.
func (h *histogram) curve() (points []Percentile) {
	if h.total == 0 {
		return nil
	}
	for missing := 100.; missing*float64(h.total) >= 100; missing *= 0.8 {
		points = append(points, Percentile{100 - missing, micros(h.percentile(100 - missing))})
	}
	return append(points, Percentile{100, micros(h.max)})
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }
