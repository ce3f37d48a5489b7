package vcdiff

import (
	"encoding/binary"
	"math/bits"
)

// index finds places of a base by the seed bytes that are there.
type index struct {
	heads []int32 // by hash: 1 + the number of the first place that has it
	links []int32 // by number: 1 + the number of the next place with the same hash
	step  int     // the place of a number is number times step
	shift int
}

// fill makes x the index of base, which must have seed bytes.
func (x *index) fill(base []byte) {
	places := len(base) - seed + 1
	x.step = (places + maxIndexed - 1) / maxIndexed
	n := (places + x.step - 1) / x.step
	width := max(bits.Len(uint(n-1)), 4)
	x.shift = 32 - width
	x.heads = resize(x.heads, 1<<width)
	clear(x.heads)
	x.links = resize(x.links, n)
	for i := n - 1; i >= 0; i-- { // so that the first is found first
		h := x.hash(binary.LittleEndian.Uint32(base[i*x.step:]))
		x.links[i] = x.heads[h]
		x.heads[h] = int32(i + 1)
	}
}

func resize(s []int32, n int) []int32 {
	if cap(s) < n {
		return make([]int32, n)
	}
	return s[:n]
}

func (x *index) hash(v uint32) uint32 { return v * 2654435761 >> x.shift }

// first returns the first place whose seed may be v, or -1.
func (x *index) first(v uint32) int { return (int(x.heads[x.hash(v)]) - 1) * x.step }

// next returns the place after one that first or next returned, or -1 or less.
func (x *index) next(place int) int { return (int(x.links[place/x.step]) - 1) * x.step }
