package session

import "slices"

// received is the msgSerials that came over one transport, as ranges. What a client sends
// again it sends again once over each transport (RTN19a).
type received struct {
	ranges []serialRange // ascending; they neither touch nor overlap
}

type serialRange struct{ first, last int64 }

// maxReceivedRanges bounds the gaps that are remembered; the oldest go first.
const maxReceivedRanges = 64

// add notes a msgSerial and reports whether it is new.
func (r *received) add(serial int64) bool {
	if n := len(r.ranges); n > 0 && r.ranges[n-1].last+1 == serial { // the usual case
		r.ranges[n-1].last = serial
		return true
	}
	i, found := slices.BinarySearchFunc(r.ranges, serial, func(x serialRange, s int64) int {
		switch {
		case x.last < s:
			return -1
		case x.first > s:
			return 1
		}
		return 0
	})
	if found {
		return false
	}
	joinsBefore := i > 0 && r.ranges[i-1].last+1 == serial
	joinsAfter := i < len(r.ranges) && serial+1 == r.ranges[i].first
	switch {
	case joinsBefore && joinsAfter:
		r.ranges[i-1].last = r.ranges[i].last
		r.ranges = slices.Delete(r.ranges, i, i+1)
	case joinsBefore:
		r.ranges[i-1].last = serial
	case joinsAfter:
		r.ranges[i].first = serial
	default:
		r.ranges = slices.Insert(r.ranges, i, serialRange{serial, serial})
		if len(r.ranges) > maxReceivedRanges {
			r.ranges = slices.Delete(r.ranges, 0, 1)
		}
	}
	return true
}
