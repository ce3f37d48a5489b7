package vcdiff

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

const (
	// seed is the length of what is looked up in the index, and so the shortest piece of the
	// base that is found, unless it follows what was found before.
	seed = 4

	// maxIndexed bounds the places of the base that are in the index: of a longer base, it
	// has every second one, every third, and so on.
	maxIndexed = 32 << 10

	// maxTried bounds the places that are compared with one place of the target, so that the
	// time is linear in the lengths even if everything is alike.
	maxTried = 4

	// plenty is the length of a piece that no better one is looked for.
	plenty = 32

	// maxReplaced is how many bytes may be different where base and target go on alike, place
	// by place, for that to be found without the index.
	maxReplaced = 16
)

// maxLength bounds base and target, so that places and lengths are 32 bits.
const maxLength = 1 << 30

// Encode returns a delta of less than limit bytes that makes target of base. ok is false if
// there is none, or finding it would take more than time linear in the lengths. The delta is
// the caller's. Encode keeps neither of its arguments, and needs 256 KiB of shared memory at
// most beside them and the delta. It may be called from any goroutine.
func Encode(base, target []byte, limit int) (delta []byte, ok bool) {
	if len(base) == 0 || len(target) == 0 || len(base) > maxLength || len(target) > maxLength {
		return nil, false
	}
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.reset(base, target, limit)
	if !e.compare() {
		return nil, false
	}
	return e.delta()
}

var encoders = sync.Pool{New: func() any { return new(encoder) }}

// encoder makes one delta at a time.
type encoder struct {
	base, target []byte
	limit        int

	added     []byte // the window's three sections
	ops       []byte
	addresses []byte

	done int // bytes of the target that the sections make
	near [nearSlots]int
	slot int // the next of near to be replaced

	index index
}

func (e *encoder) reset(base, target []byte, limit int) {
	e.base, e.target, e.limit = base, target, limit
	e.added, e.ops, e.addresses = e.added[:0], e.ops[:0], e.addresses[:0]
	e.done, e.slot = 0, 0
	e.near = [nearSlots]int{}
}

// compare fills the sections. It gives up, and returns false, as soon as the delta is as long
// as the limit.
func (e *encoder) compare() bool {
	head := common(e.base, e.target)
	tail := commonEnd(e.base[head:], e.target[head:])
	e.copy(0, head)
	if middle := e.target[:len(e.target)-tail]; len(middle) > head {
		if !e.search(len(middle)) {
			return false
		}
	}
	e.copy(len(e.base)-tail, tail)
	return e.size() < e.limit
}

// search makes what of the target is before end, from pieces of the base wherever they are.
func (e *encoder) search(end int) bool {
	indexed := false
	next := e.done // of the base: what comes there if bytes were only replaced
	for at := e.done; at+seed <= end && len(e.base) >= seed; {
		from, back, n := 0, 0, 0
		if at == e.done {
			from, n = e.replaced(at, end, next)
			back = -(from - next) // begins there, and what is before it is new
		}
		if n == 0 {
			if !indexed {
				e.index.fill(e.base)
				indexed = true
			}
			from, back, n = e.match(at, end, next)
		}
		if n == 0 {
			step := 1 + (at-e.done)>>6 // where much is new, much is likely to be
			at, next = at+step, next+step
			continue
		}
		e.add(at - back)
		e.copy(from, n)
		at, next = e.done, from+n
		if e.size() >= e.limit {
			return false
		}
	}
	e.add(end)
	return e.size() < e.limit
}

// replaced returns where in the base, shortly after next, it goes on like the target at as many
// bytes after at, and how long. n is zero if it does not, up to end.
func (e *encoder) replaced(at, end, next int) (from, n int) {
	for d := range maxReplaced {
		if at+d+plenty > end || next+d+plenty > len(e.base) {
			break
		}
		if n = common(e.base[next+d:], e.target[at+d:end]); n >= plenty {
			return next + d, n
		}
	}
	return next, 0
}

// match returns the best piece of the base for the target at at: where it is, how much of it is
// before at (and not made yet), and its length, which is not beyond end. n is zero if there is
// none that would make the delta shorter.
func (e *encoder) match(at, end, next int) (from, back, n int) {
	best := 0
	try := func(place int) {
		k := common(e.base[place:], e.target[at:end])
		if k < seed {
			return
		}
		b := commonEnd(e.base[:place], e.target[e.done:at])
		if gain := b + k - e.cost(place-b, at-b); gain > best {
			best, from, back, n = gain, place-b, b, b+k
		}
	}
	if next+seed <= len(e.base) {
		try(next)
	}
	place := e.index.first(binary.LittleEndian.Uint32(e.target[at:]))
	for tried := 0; place >= 0 && tried < maxTried && n < plenty; tried++ {
		try(place)
		place = e.index.next(place)
	}
	return from, back, n
}

// cost is about what a COPY from a place takes that makes the target from at on.
func (e *encoder) cost(place, at int) int {
	_, _, n := e.address(place, len(e.base)+at)
	if at > e.done {
		n++ // the ADD before it ends for it
	}
	return 2 + n // the ADD after it begins
}

// add makes the target up to end of bytes that are in the delta.
func (e *encoder) add(end int) {
	n := end - e.done
	if n <= 0 {
		return
	}
	if n <= maxShortAdd {
		e.ops = append(e.ops, byte(opAdd+n))
	} else {
		e.ops = appendInt(append(e.ops, opAdd), n)
	}
	e.added = append(e.added, e.target[e.done:end]...)
	e.done = end
}

// copy makes the next n bytes of the target of those in the base at from.
func (e *encoder) copy(from, n int) {
	if n == 0 {
		return
	}
	mode, value, _ := e.address(from, len(e.base)+e.done)
	op := opCopy + mode*copiesPerMode
	if minShortCopy <= n && n <= maxShortCopy {
		e.ops = append(e.ops, byte(op+n-minShortCopy+1))
	} else {
		e.ops = appendInt(append(e.ops, byte(op)), n)
	}
	e.addresses = appendInt(e.addresses, value)
	e.near[e.slot] = from
	e.slot = (e.slot + 1) % nearSlots
	e.done += n
}

// The default code table: an opcode without its length is followed by it.
const (
	opAdd         = 1 // then ADD of 1 to 17 bytes
	maxShortAdd   = 17
	opCopy        = 19 // then COPY of 4 to 18 bytes; the same again for each mode
	minShortCopy  = 4
	maxShortCopy  = 18
	copiesPerMode = 16
)

// The modes of addresses that are used. Of those that refer to one of the last addresses there
// is one for each slot. The modes after them, of the "same" cache, are not used: the decoder of
// ably-go 1.4 takes addresses from 768 on for others there, and its user gets wrong data.
const (
	modeSelf  = 0
	modeHere  = 1
	modeNear  = 2
	nearSlots = 4
)

// address returns the shortest form of an address of the base, when the window has made
// everything before here, and its length.
func (e *encoder) address(place, here int) (mode, value, size int) {
	mode, value, size = modeSelf, place, intSize(place)
	if n := intSize(here - place); n < size {
		mode, value, size = modeHere, here-place, n
	}
	for i, a := range e.near {
		// A slot with 0 is never shorter than the address itself. Decoders refuse it, too.
		if n := intSize(place - a); place >= a && n < size {
			mode, value, size = modeNear+i, place-a, n
		}
	}
	return mode, value, size
}

// The fixed parts of a delta.
const (
	magic     = "\xd6\xc3\xc4\x00"
	noHeader  = 0 // neither secondary compression nor a code table of its own
	vcdSource = 1 // the window has a segment of the base
	noDelta   = 0 // no section is compressed
)

// size is how long the delta of what is in the sections is.
func (e *encoder) size() int {
	encoding := e.encodingSize()
	return len(magic) + 2 + intSize(len(e.base)) + intSize(0) + intSize(encoding) + encoding
}

// encodingSize is the length of what the window's head calls the delta encoding.
func (e *encoder) encodingSize() int {
	return intSize(len(e.target)) + 1 +
		intSize(len(e.added)) + intSize(len(e.ops)) + intSize(len(e.addresses)) +
		len(e.added) + len(e.ops) + len(e.addresses)
}

func (e *encoder) delta() ([]byte, bool) {
	b := make([]byte, 0, e.size())
	b = append(b, magic...)
	b = append(b, noHeader, vcdSource)
	b = appendInt(b, len(e.base))
	b = appendInt(b, 0) // where the segment begins
	b = appendInt(b, e.encodingSize())
	b = appendInt(b, len(e.target))
	b = append(b, noDelta)
	b = appendInt(b, len(e.added))
	b = appendInt(b, len(e.ops))
	b = appendInt(b, len(e.addresses))
	b = append(b, e.added...)
	b = append(b, e.ops...)
	b = append(b, e.addresses...)
	return b, true
}

// appendInt appends n in groups of seven bits, the highest first.
func appendInt(b []byte, n int) []byte {
	for shift := (intSize(n) - 1) * 7; shift > 0; shift -= 7 {
		b = append(b, byte(n>>shift)|0x80)
	}
	return append(b, byte(n)&0x7f)
}

// intSize is the number of bytes that appendInt appends.
func intSize(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

// common is how many bytes a and b begin with in common.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// commonEnd is how many bytes a and b end with in common.
func commonEnd(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[len(a)-i-8:]) ^ binary.LittleEndian.Uint64(b[len(b)-i-8:]); x != 0 {
			return i + bits.LeadingZeros64(x)/8
		}
	}
	for i < n && a[len(a)-1-i] == b[len(b)-1-i] {
		i++
	}
	return i
}
