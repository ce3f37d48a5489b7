package memory

import (
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// logged is an entry in a log.
type logged struct {
	engine.Entry
	cost int64
}

// segmentSize is how many entries are moved at most when a log grows.
const segmentSize = 256

// entryLog is a queue of entries in the order of their serials. All segments but the last
// are full; the first may be empty up to head.
type entryLog struct {
	segments [][]*logged
	head     int
	n        int
	bytes    int64 // the sum of the costs
	oldest   int64 // Timestamp of the first, if n is not 0: asked for at each Append
}

func (l *entryLog) at(i int) *logged {
	i += l.head
	return l.segments[i/segmentSize][i%segmentSize]
}

func (l *entryLog) push(e *logged) {
	last := len(l.segments) - 1
	switch {
	case last < 0:
		l.segments = append(l.segments, make([]*logged, 0, 2))
		last = 0
	case len(l.segments[last]) == segmentSize:
		l.segments = append(l.segments, make([]*logged, 0, segmentSize))
		last++
	case last == 0 && len(l.segments[0]) == cap(l.segments[0]) && l.head > l.n:
		// Rather use the room of what was trimmed.
		first := l.segments[0]
		copy(first, first[l.head:])
		clear(first[l.n:])
		l.segments[0], l.head = first[:l.n], 0
	}
	l.segments[last] = append(l.segments[last], e)
	if l.n == 0 {
		l.oldest = e.Timestamp
	}
	l.n++
	l.bytes += e.cost
}

func (l *entryLog) pop() *logged {
	e := l.segments[0][l.head]
	l.segments[0][l.head] = nil
	l.head++
	l.n--
	l.bytes -= e.cost
	switch {
	case l.n == 0:
		// What is left is at most one segment, which is the first.
		l.segments[0], l.head = l.segments[0][:0], 0
	case l.head == segmentSize:
		l.segments[0], l.head = nil, 0
		l.segments = l.segments[1:]
	}
	if l.n > 0 {
		l.oldest = l.at(0).Timestamp
	}
	return e
}

// release gives back the room of an empty log.
func (l *entryLog) release() {
	if l.n == 0 {
		*l = entryLog{}
	}
}

// after returns the index of the first entry later than p.
func (l *entryLog) after(p pubsub.Serial) int {
	return l.search(func(e *logged) bool { return e.Serial > p })
}

// search returns the index of the first entry for which f holds, as it does for all later.
func (l *entryLog) search(f func(*logged) bool) int {
	lo, hi := 0, l.n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if f(l.at(mid)) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}
