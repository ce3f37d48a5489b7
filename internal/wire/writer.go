package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// writer appends one document to b. It keeps the count of the array or object it is in, so
// that JSON gets its commas and MessagePack its lengths.
type writer struct {
	b      []byte
	n      int
	format Format
}

// mark is what must be known again at the end of an array or object.
type mark struct {
	header int // MessagePack: where the header is that must be completed, or -1
	n      int // the count outside
}

func (w *writer) object() mark { return w.begin('{', 0x80) }

func (w *writer) endObject(m mark) { w.end(m, '}', 0x80, 0xde) }

// array begins an array whose length is not known yet.
func (w *writer) array() mark { return w.begin('[', 0x90) }

// arrayOf begins an array of n elements.
func (w *writer) arrayOf(n int) mark {
	if w.format == JSON || n < 16 {
		return w.array()
	}
	m := mark{header: -1, n: w.n}
	w.n = 0
	if n <= math.MaxUint16 {
		w.b = binary.BigEndian.AppendUint16(append(w.b, 0xdc), uint16(n))
	} else {
		w.b = binary.BigEndian.AppendUint32(append(w.b, 0xdd), uint32(n))
	}
	return m
}

func (w *writer) endArray(m mark) { w.end(m, ']', 0x90, 0xdc) }

func (w *writer) begin(json, msgPack byte) mark {
	m := mark{header: len(w.b), n: w.n}
	w.n = 0
	if w.format == JSON {
		w.b = append(w.b, json)
	} else {
		w.b = append(w.b, msgPack)
	}
	return m
}

// end completes a header that was written for fewer than 16 elements. If there are more, the
// elements move to make room.
func (w *writer) end(m mark, json, short, long byte) {
	n := w.n
	w.n = m.n
	switch {
	case w.format == JSON:
		w.b = append(w.b, json)
	case m.header < 0:
	case n < 16:
		w.b[m.header] = short | byte(n)
	case n <= math.MaxUint16:
		w.b = append(w.b, 0, 0)
		copy(w.b[m.header+3:], w.b[m.header+1:])
		w.b[m.header] = long
		binary.BigEndian.PutUint16(w.b[m.header+1:], uint16(n))
	default:
		w.b = append(w.b, 0, 0, 0, 0)
		copy(w.b[m.header+5:], w.b[m.header+1:])
		w.b[m.header] = long + 1
		binary.BigEndian.PutUint32(w.b[m.header+1:], uint32(n))
	}
}

// elem comes before every element of an array.
func (w *writer) elem() {
	if w.format == JSON && w.n > 0 {
		w.b = append(w.b, ',')
	}
	w.n++
}

// key comes before every member of an object. The name is one of ours: short, and without
// anything to escape.
func (w *writer) key(name string) {
	if w.format == JSON {
		if w.n > 0 {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, '"')
		w.b = append(w.b, name...)
		w.b = append(w.b, '"', ':')
	} else {
		w.b = append(w.b, 0xa0|byte(len(name)))
		w.b = append(w.b, name...)
	}
	w.n++
}

// anyKey is key for a name of somebody else's.
func (w *writer) anyKey(name []byte) {
	w.elem()
	w.text(name)
	if w.format == JSON {
		w.b = append(w.b, ':')
	}
}

func (w *writer) null() {
	if w.format == JSON {
		w.b = append(w.b, "null"...)
	} else {
		w.b = append(w.b, 0xc0)
	}
}

func (w *writer) bool(v bool) {
	switch {
	case w.format == JSON:
		w.b = strconv.AppendBool(w.b, v)
	case v:
		w.b = append(w.b, 0xc3)
	default:
		w.b = append(w.b, 0xc2)
	}
}

func (w *writer) int(v int64) {
	switch {
	case w.format == JSON:
		w.b = strconv.AppendInt(w.b, v, 10)
	case v >= 0:
		w.uint(uint64(v))
	case v >= -32:
		w.b = append(w.b, byte(v))
	case v >= math.MinInt8:
		w.b = append(w.b, 0xd0, byte(v))
	case v >= math.MinInt16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, 0xd1), uint16(v))
	case v >= math.MinInt32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, 0xd2), uint32(v))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, 0xd3), uint64(v))
	}
}

func (w *writer) uint(v uint64) {
	switch {
	case w.format == JSON:
		w.b = strconv.AppendUint(w.b, v, 10)
	case v <= 0x7f:
		w.b = append(w.b, byte(v))
	case v <= math.MaxUint8:
		w.b = append(w.b, 0xcc, byte(v))
	case v <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, 0xcd), uint16(v))
	case v <= math.MaxUint32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, 0xce), uint32(v))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, 0xcf), v)
	}
}

// maxExactFloat bounds the integers that a float64 tells apart.
const maxExactFloat = 1 << 53

// number writes a number as it was read: in MessagePack integers as integers, also those
// written as 1.0 or 1e3, so that a way there and back changes nothing more; all others as
// float64. JSON numbers beyond a float64 become the nearest that there is.
func (w *writer) number(n number) {
	switch {
	case w.format == JSON:
		w.b = n.append(w.b)
	case n.form == formInt:
		w.int(n.neg)
	case n.form == formUint:
		w.uint(n.pos)
	case n.f == math.Trunc(n.f) && math.Abs(n.f) <= maxExactFloat && (n.f != 0 || !math.Signbit(n.f)):
		w.int(int64(n.f))
	default:
		f := n.f
		if n.text != nil && math.IsInf(f, 0) {
			f = math.Copysign(math.MaxFloat64, f)
		}
		w.b = binary.BigEndian.AppendUint64(append(w.b, 0xcb), math.Float64bits(f))
	}
}

// float writes a float64, which is finite.
func (w *writer) float(f float64) {
	if w.format == JSON {
		w.b = number{form: formFloat, f: f, bits: 64}.append(w.b)
		return
	}
	w.b = binary.BigEndian.AppendUint64(append(w.b, 0xcb), math.Float64bits(f))
}

func (w *writer) str(s string) {
	w.text(unsafe.Slice(unsafe.StringData(s), len(s))) // text only reads
}

// text writes a string. What is not UTF-8 in it is replaced.
func (w *writer) text(s []byte) {
	if !utf8.Valid(s) {
		s = bytes.ToValidUTF8(s, []byte("\uFFFD"))
	}
	if w.format == JSON {
		w.b = append(w.b, '"')
		w.b = appendEscaped(w.b, s)
		w.b = append(w.b, '"')
		return
	}
	w.strHeader(len(s))
	w.b = append(w.b, s...)
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends s, which is valid UTF-8, as the inside of a JSON string.
func appendEscaped(dst, s []byte) []byte {
	for {
		n := plainPrefix(s)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return dst
		}
		switch c := s[n]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		s = s[n+1:]
	}
}

// escaped writes a string that is given as the inside of a valid JSON string.
func (w *writer) escaped(s []byte) {
	if w.format == JSON {
		w.b = append(w.b, '"')
		w.b = append(w.b, s...)
		w.b = append(w.b, '"')
		return
	}
	// The length without escapes is known only afterwards, and is not larger.
	header := len(w.b)
	w.strHeader(len(s))
	start := len(w.b)
	w.b = appendUnescaped(w.b, s)
	n := len(w.b) - start
	if size := strHeaderSize(n); size < start-header {
		copy(w.b[header+size:], w.b[start:])
		start = header + size
	}
	w.b = w.b[:header]
	w.strHeader(n)
	w.b = w.b[:start+n]
}

// strHeaderSize is the size of the header of a string of n bytes.
func strHeaderSize(n int) int {
	switch {
	case n < 32:
		return 1
	case n <= math.MaxUint8:
		return 2
	case n <= math.MaxUint16:
		return 3
	}
	return 5
}

func (w *writer) strHeader(n int) {
	switch {
	case n < 32:
		w.b = append(w.b, 0xa0|byte(n))
	case n <= math.MaxUint8:
		w.b = append(w.b, 0xd9, byte(n))
	case n <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, 0xda), uint16(n))
	default:
		w.b = binary.BigEndian.AppendUint32(append(w.b, 0xdb), uint32(n))
	}
}

// bytes writes a bin, or base64 in a string.
func (w *writer) bytes(b []byte) {
	if w.format == JSON {
		w.b = append(w.b, '"')
		w.b = base64.StdEncoding.AppendEncode(w.b, b)
		w.b = append(w.b, '"')
		return
	}
	switch n := len(b); {
	case n <= math.MaxUint8:
		w.b = append(w.b, 0xc4, byte(n))
	case n <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, 0xc5), uint16(n))
	default:
		w.b = binary.BigEndian.AppendUint32(append(w.b, 0xc6), uint32(n))
	}
	w.b = append(w.b, b...)
}
