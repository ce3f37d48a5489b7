package wire

import (
	"encoding/binary"
	"math"
	"strconv"
)

// The MessagePack half of the reader. Whatever a header declares is compared with the bytes
// that follow it before it is believed.

// msgPackKinds are the kinds of value by their first byte.
var msgPackKinds = func() (t [256]kind) {
	for c := range t {
		switch {
		case c <= 0x7f, c >= 0xe0, c >= 0xca && c <= 0xd3:
			t[c] = kindNumber
		case c <= 0x8f, c == 0xde, c == 0xdf:
			t[c] = kindObject
		case c <= 0x9f, c == 0xdc, c == 0xdd:
			t[c] = kindArray
		case c <= 0xbf, c >= 0xd9 && c <= 0xdb:
			t[c] = kindString
		case c == 0xc2, c == 0xc3:
			t[c] = kindBool
		case c >= 0xc4 && c <= 0xc6:
			t[c] = kindBytes
		case c == 0xc0, c >= 0xc7 && c <= 0xc9, c >= 0xd4 && c <= 0xd8:
			t[c] = kindNull
		}
	}
	return t
}()

func (r *reader) peekMsgPack() kind {
	if r.pos >= len(r.b) {
		r.fail("unexpected end")
		return kindInvalid
	}
	k := msgPackKinds[r.b[r.pos]]
	if k == kindInvalid {
		r.fail("unexpected 0x%02x", r.b[r.pos])
	}
	return k
}

// take goes past n bytes and returns them, or nil if there are fewer.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)-r.pos) {
		r.fail("unexpected end")
		return nil
	}
	b := r.b[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

// uint reads a big-endian integer of size bytes.
func (r *reader) uint(size int) uint64 {
	b := r.take(uint64(size))
	if b == nil {
		return 0
	}
	switch size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	}
	return binary.BigEndian.Uint64(b)
}

func (r *reader) skipMsgPack() {
	switch r.peekMsgPack() {
	case kindNull:
		r.skipExt()
	case kindBool:
		r.pos++
	case kindNumber:
		r.numberMsgPack()
	case kindString, kindBytes:
		r.bytesMsgPack()
	case kindArray:
		for it := r.array(); r.next(&it); {
			r.skipMsgPack()
		}
	case kindObject:
		for it := r.object(); r.next(&it); {
			r.skipMsgPack()
			r.skipMsgPack()
		}
	}
}

// skipExt goes past nil or an extension type.
func (r *reader) skipExt() {
	c := r.b[r.pos]
	r.pos++
	switch c {
	case 0xc7, 0xc8, 0xc9:
		r.take(r.uint(1<<(c-0xc7)) + 1)
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		r.take(1<<(c-0xd4) + 1)
	}
}

// containerMsgPack reads the header of an array or an object, whose elements are of the given
// number of values, and returns how many there are. A value has one byte at least.
func (r *reader) containerMsgPack(values int) int {
	if r.err != nil {
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	var n uint64
	switch c {
	case 0xdc, 0xde:
		n = r.uint(2)
	case 0xdd, 0xdf:
		n = r.uint(4)
	default:
		n = uint64(c & 0x0f)
	}
	if n*uint64(values) > uint64(len(r.b)-r.pos) {
		r.fail("unexpected end")
		return 0
	}
	return int(n)
}

// nextKeyMsgPack accepts integers as names of members, too, and leaves out members that are
// named by anything else.
func (r *reader) nextKeyMsgPack(it *iter) bool {
	for r.next(it) {
		switch r.peekMsgPack() {
		case kindString, kindBytes:
			r.key = r.bytesMsgPack()
			return r.err == nil
		case kindNumber:
			n := r.numberMsgPack()
			if n.form == formFloat {
				r.skipMsgPack()
				continue
			}
			r.scratch = n.append(r.scratch[:0])
			r.key = r.scratch
			return r.err == nil
		default:
			r.skipMsgPack()
			r.skipMsgPack()
		}
	}
	return false
}

// bytesMsgPack reads a str or a bin.
func (r *reader) bytesMsgPack() []byte {
	c := r.b[r.pos]
	r.pos++
	switch c {
	case 0xc4, 0xd9:
		return r.take(r.uint(1))
	case 0xc5, 0xda:
		return r.take(r.uint(2))
	case 0xc6, 0xdb:
		return r.take(r.uint(4))
	}
	return r.take(uint64(c & 0x1f))
}

func (r *reader) numberMsgPack() number {
	c := r.b[r.pos]
	r.pos++
	switch {
	case c <= 0x7f:
		return number{form: formUint, pos: uint64(c)}
	case c >= 0xe0:
		return signed(int64(int8(c)))
	case c == 0xca:
		return number{form: formFloat, f: float64(math.Float32frombits(uint32(r.uint(4)))), bits: 32}
	case c == 0xcb:
		return number{form: formFloat, f: math.Float64frombits(r.uint(8)), bits: 64}
	case c <= 0xcf:
		return number{form: formUint, pos: r.uint(1 << (c - 0xcc))}
	case c == 0xd0:
		return signed(int64(int8(r.uint(1))))
	case c == 0xd1:
		return signed(int64(int16(r.uint(2))))
	case c == 0xd2:
		return signed(int64(int32(r.uint(4))))
	}
	return signed(int64(r.uint(8)))
}

func signed(v int64) number {
	if v < 0 {
		return number{form: formInt, neg: v}
	}
	return number{form: formUint, pos: uint64(v)}
}

// String is the number as a text of its own, for places where a string is expected.
func (n number) String() string {
	if n.form == formFloat && n.text == nil && (math.IsNaN(n.f) || math.IsInf(n.f, 0)) {
		return strconv.FormatFloat(n.f, 'g', -1, 64)
	}
	return string(n.append(nil))
}
