package memory

import "sort"

// result is what became of one publish of a connection.
type result struct {
	msgSerial int64
	noted     int64 // ms
	outcome
}

// results are results by msgSerial, in a ring: the oldest go when new ones come, and nothing is moved
// for it. The zero value is empty.
type results struct {
	ring   []result // its length is a power of two, or zero
	head   int
	n      int
	newest int64 // msgSerial of the last, if n is not 0: mostly all that is asked for
}

// leastResults is the smallest ring.
const leastResults = 1

func (r *results) at(i int) *result { return &r.ring[(r.head+i)&(len(r.ring)-1)] }

func (r *results) push(x result) {
	if r.n == len(r.ring) {
		r.resize(max(leastResults, 2*r.n))
	}
	r.n++
	*r.at(r.n - 1) = x
	r.newest = x.msgSerial
}

func (r *results) pop() result {
	x := *r.at(0)
	r.head = (r.head + 1) & (len(r.ring) - 1)
	r.n--
	switch {
	case r.n == 0:
		*r = results{}
	case r.n <= len(r.ring)/4 && len(r.ring) > leastResults:
		r.resize(len(r.ring) / 2)
	}
	return x
}

func (r *results) resize(size int) {
	ring := make([]result, size)
	for i := range r.n {
		ring[i] = *r.at(i)
	}
	r.ring, r.head = ring, 0
}

// insert makes x the i-th, which is not behind the last.
func (r *results) insert(i int, x result) {
	newest := r.newest
	r.push(x)
	r.newest = newest
	for k := r.n - 1; k > i; k-- {
		*r.at(k) = *r.at(k - 1)
	}
	*r.at(i) = x
}

// search returns where msgSerial is, or where it would be.
func (r *results) search(msgSerial int64) (i int, found bool) {
	i = sort.Search(r.n, func(i int) bool { return r.at(i).msgSerial >= msgSerial })
	return i, i < r.n && r.at(i).msgSerial == msgSerial
}
