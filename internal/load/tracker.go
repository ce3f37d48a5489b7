package load

// tracker checks the deliveries of one room: every receiver must get every publisher's messages
// once and in the order of their numbers, which start at 1.
type tracker struct {
	publishers int
	last       []uint32 // newest number, by receiver and publisher
	missing    map[delivery]struct{}

	deliveries uint64 // those that came for the first time
	duplicated uint64
	reordered  uint64 // came after a later one
}

// delivery is one message at one receiver.
type delivery struct {
	at  int // index in last
	seq uint32
}

func newTracker(receivers, publishers int) tracker {
	return tracker{publishers: publishers, last: make([]uint32, receivers*publishers)}
}

// saw notes that a receiver got a publisher's message and reports whether it is the first time.
func (t *tracker) saw(receiver, publisher int, seq uint32) bool {
	at := receiver*t.publishers + publisher
	last := t.last[at]
	if seq == last+1 {
		t.last[at] = seq
		t.deliveries++
		return true
	}
	if seq > last {
		if t.missing == nil {
			t.missing = make(map[delivery]struct{})
		}
		// A number from nowhere must not fill the memory; lost ones are counted by the total.
		for s := last + 1; s < seq && s-last < 1<<16; s++ {
			t.missing[delivery{at, s}] = struct{}{}
		}
		t.last[at] = seq
		t.deliveries++
		return true
	}
	d := delivery{at, seq}
	if _, was := t.missing[d]; was {
		delete(t.missing, d)
		t.reordered++
		t.deliveries++
		return true
	}
	t.duplicated++
	return false
}
