package wire

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"letshare-server/internal/pubsub"
)

// maxDepth bounds the nesting of arrays and objects in what is decoded.
const maxDepth = 100

// kind says what the next value is.
type kind uint8

const (
	kindInvalid kind = iota
	kindNull         // also any extension type of MessagePack
	kindBool
	kindNumber
	kindString
	kindBytes // MessagePack only
	kindArray
	kindObject
)

// reader walks over one document. The first error sticks and ends every loop; after it all
// results are meaningless. The slices that it returns refer to the document, or to scratch
// until the next call.
type reader struct {
	b       []byte
	pos     int
	depth   int
	format  Format
	key     []byte // set by nextKey
	scratch []byte
	spaces  int // JSON: how often whitespace was skipped
	err     error

	item    place         // the item being read
	itemErr *pubsub.Error // the first error in an item
}

// iter is the place in one array or object.
type iter struct {
	left   int // MessagePack: elements to come
	seen   int
	single bool // one item, without an array around it
}

func newReader(f Format, b []byte) reader {
	r := reader{b: b, format: f}
	if f == JSON && !utf8.Valid(b) {
		r.fail("invalid UTF-8")
	}
	return r
}

// finish checks that the document is over, and returns the error, if any.
func (r *reader) finish() error {
	if r.err == nil {
		if r.format == JSON {
			r.space()
		}
		if r.pos < len(r.b) {
			r.fail("unexpected data after the end")
		}
	}
	return r.err
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s at byte %d", fmt.Sprintf(format, args...), r.pos)
	}
	r.pos = len(r.b)
}

// peek returns the kind of the next value and stays before it.
func (r *reader) peek() kind {
	if r.format == MsgPack {
		return r.peekMsgPack()
	}
	return r.peekJSON()
}

// null skips the next value if it is null, and reports whether it was.
func (r *reader) null() bool {
	if r.peek() != kindNull {
		return false
	}
	r.skip()
	return true
}

// skip goes past the next value, of whatever kind.
func (r *reader) skip() {
	if r.format == MsgPack {
		r.skipMsgPack()
	} else {
		r.skipJSON()
	}
}

// raw goes past the next value and returns its source.
func (r *reader) raw() []byte {
	r.peek()
	start := r.pos
	r.skip()
	if r.err != nil {
		return nil
	}
	return r.b[start:r.pos]
}

// object enters the next value, which is an object.
func (r *reader) object() iter {
	if r.depth++; r.depth > maxDepth {
		r.fail("nested too deeply")
		return iter{}
	}
	if r.format == MsgPack {
		return iter{left: r.containerMsgPack(2)}
	}
	r.pos++
	return iter{}
}

// nextKey goes to the next member of the object and sets r.key, or leaves the object and
// returns false. The member's value must be consumed before the next call.
func (r *reader) nextKey(it *iter) bool {
	if r.format == MsgPack {
		return r.nextKeyMsgPack(it)
	}
	return r.nextKeyJSON(it)
}

// array enters the next value, which is an array.
func (r *reader) array() iter {
	if r.depth++; r.depth > maxDepth {
		r.fail("nested too deeply")
		return iter{}
	}
	if r.format == MsgPack {
		return iter{left: r.containerMsgPack(1)}
	}
	r.pos++
	return iter{}
}

// next goes to the next element of the array, or leaves the array and returns false.
func (r *reader) next(it *iter) bool {
	if r.format == MsgPack {
		if r.err != nil || it.left == 0 {
			r.depth--
			return false
		}
		it.left--
		it.seen++
		return true
	}
	return r.nextJSON(it)
}

// str reads the next value, which is a string. In MessagePack it may be invalid UTF-8.
func (r *reader) str() []byte {
	if r.format == MsgPack {
		return r.bytesMsgPack()
	}
	s, escaped := r.stringJSON()
	if escaped {
		r.scratch = appendUnescaped(r.scratch[:0], s)
		return r.scratch
	}
	return s
}

// bool reads the next value, which is a bool.
func (r *reader) bool() bool {
	c := r.b[r.pos]
	r.skip()
	return c == 't' || c == 0xc3
}

// number is a number in one of its three forms.
type number struct {
	form numberForm
	neg  int64   // formInt: a negative integer
	pos  uint64  // formUint: an integer that is not negative
	f    float64 // formFloat
	bits int     // formFloat: 32 or 64
	text []byte  // JSON: the source
}

type numberForm uint8

const (
	formInt numberForm = iota
	formUint
	formFloat
)

// number reads the next value, which is a number.
func (r *reader) number() number {
	if r.format == MsgPack {
		return r.numberMsgPack()
	}
	return r.numberJSON()
}

// int64 returns the number's value if it is integral and fits.
func (n number) int64() (int64, bool) {
	switch n.form {
	case formInt:
		return n.neg, true
	case formUint:
		return int64(n.pos), n.pos <= math.MaxInt64
	}
	if n.f != math.Trunc(n.f) || n.f < -1<<63 || n.f >= 1<<63 { // NaN is not equal to itself
		return 0, false
	}
	return int64(n.f), true
}

// float64 returns the nearest that there is, which may be infinite.
func (n number) float64() float64 {
	switch n.form {
	case formInt:
		return float64(n.neg)
	case formUint:
		return float64(n.pos)
	}
	return n.f
}

// append appends the number as JSON text. What JSON cannot say is null.
func (n number) append(dst []byte) []byte {
	switch {
	case n.text != nil:
		return append(dst, n.text...)
	case n.form == formInt:
		return strconv.AppendInt(dst, n.neg, 10)
	case n.form == formUint:
		return strconv.AppendUint(dst, n.pos, 10)
	case math.IsNaN(n.f) || math.IsInf(n.f, 0):
		return append(dst, "null"...)
	}
	// As in ECMAScript: an exponent only where the digits would be mostly zeros.
	format := byte('f')
	if a := math.Abs(n.f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, n.f, format, -1, n.bits)
}
