package wire

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The JSON half of the reader. The document is known to be valid UTF-8 (see newReader); all
// else is checked here, to the letter of RFC 8259.

func (r *reader) space() {
	if r.pos < len(r.b) && r.b[r.pos] > ' ' {
		return
	}
	start := r.pos
	for r.pos < len(r.b) {
		switch r.b[r.pos] {
		case ' ', '\t', '\r', '\n':
			r.pos++
			continue
		}
		break
	}
	if r.pos > start {
		r.spaces++
	}
}

func (r *reader) peekJSON() kind {
	r.space()
	if r.pos >= len(r.b) {
		r.fail("unexpected end")
		return kindInvalid
	}
	switch c := r.b[r.pos]; c {
	case '"':
		return kindString
	case '{':
		return kindObject
	case '[':
		return kindArray
	case 'n':
		return kindNull
	case 't', 'f':
		return kindBool
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return kindNumber
	default:
		r.fail("unexpected %q", c)
		return kindInvalid
	}
}

func (r *reader) skipJSON() {
	switch r.peekJSON() {
	case kindNull:
		r.literal("null")
	case kindBool:
		if r.b[r.pos] == 't' {
			r.literal("true")
		} else {
			r.literal("false")
		}
	case kindNumber:
		r.numberTextJSON()
	case kindString:
		r.stringJSON()
	case kindArray:
		for it := r.array(); r.nextJSON(&it); {
			r.skipJSON()
		}
	case kindObject:
		for it := r.object(); r.commaJSON(&it, '}'); {
			if r.keyStringJSON(); r.err == nil {
				r.skipJSON()
			}
		}
	}
}

func (r *reader) literal(s string) {
	if len(r.b)-r.pos < len(s) || string(r.b[r.pos:r.pos+len(s)]) != s {
		r.fail("invalid literal")
		return
	}
	r.pos += len(s)
}

// commaJSON goes to the next member or element, or past the end and returns false.
func (r *reader) commaJSON(it *iter, end byte) bool {
	r.space()
	if r.err != nil || r.pos >= len(r.b) {
		r.fail("unexpected end")
		return false
	}
	c := r.b[r.pos]
	if c == end {
		r.pos++
		r.depth--
		return false
	}
	if it.seen > 0 {
		if c != ',' {
			r.fail("unexpected %q", c)
			return false
		}
		r.pos++
		r.space()
	}
	it.seen++
	return true
}

func (r *reader) nextJSON(it *iter) bool { return r.commaJSON(it, ']') }

// keyStringJSON reads a member's name and the colon, and leaves the name as written.
func (r *reader) keyStringJSON() (s []byte, escaped bool) {
	if r.pos >= len(r.b) || r.b[r.pos] != '"' {
		r.fail("expected a member's name")
		return nil, false
	}
	s, escaped = r.stringJSON()
	r.space()
	if r.pos >= len(r.b) || r.b[r.pos] != ':' {
		r.fail("expected a colon")
		return nil, false
	}
	r.pos++
	return s, escaped
}

func (r *reader) nextKeyJSON(it *iter) bool {
	if !r.commaJSON(it, '}') {
		return false
	}
	s, escaped := r.keyStringJSON()
	if escaped {
		r.scratch = appendUnescaped(r.scratch[:0], s)
		s = r.scratch
	}
	r.key = s
	return r.err == nil
}

// stringJSON reads a string and returns what is between the quotes, and whether there are
// escapes in it. They are valid.
func (r *reader) stringJSON() (s []byte, escaped bool) {
	start := r.pos + 1
	i := start
	for {
		i += plainPrefix(r.b[i:])
		if i >= len(r.b) {
			r.fail("unterminated string")
			return nil, false
		}
		switch r.b[i] {
		case '"':
			r.pos = i + 1
			return r.b[start:i], escaped
		case '\\':
			escaped = true
			switch {
			case i+1 < len(r.b) && simpleEscapes[r.b[i+1]] != 0:
				i += 2
			case i+6 <= len(r.b) && r.b[i+1] == 'u' && hex4(r.b[i+2:i+6]) >= 0:
				i += 6
			default:
				r.pos = i
				r.fail("invalid escape")
				return nil, false
			}
		default:
			r.pos = i
			r.fail("control character in a string")
			return nil, false
		}
	}
}

// simpleEscapes are what the escapes of one character stand for.
var simpleEscapes = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// hex4 is the value of four hexadecimal digits, or negative if they are none.
func hex4(b []byte) rune {
	var v rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		v = v<<4 | rune(c)
	}
	return v
}

// appendUnescaped appends s, the inside of a valid JSON string. Half a surrogate pair becomes
// U+FFFD.
func appendUnescaped(dst, s []byte) []byte {
	for {
		n := plainPrefix(s)
		dst = append(dst, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			return dst
		}
		if c := simpleEscapes[s[1]]; c != 0 {
			dst = append(dst, c)
			s = s[2:]
			continue
		}
		c := hex4(s[2:6])
		if utf16.IsSurrogate(c) {
			low := rune(utf8.RuneError)
			if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
				low = hex4(s[8:12])
			}
			if c = utf16.DecodeRune(c, low); c != utf8.RuneError {
				s = s[6:]
			}
		}
		dst = utf8.AppendRune(dst, c)
		s = s[6:]
	}
}

// plainPrefix is the number of bytes at the start of b that stand for themselves in a JSON
// string: no control characters, quotes or backslashes. It looks at eight bytes at a time; of
// the flags in m the lowest is always right, those above it need not be.
func plainPrefix(b []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote := x ^ ones*'"'
		slash := x ^ ones*'\\'
		m := (x-ones*' ')&^x | (quote-ones)&^quote | (slash-ones)&^slash
		if m &= tops; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < ' ' || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// numberTextJSON goes past a number. Plain says that it has neither fraction nor exponent.
func (r *reader) numberTextJSON() (text []byte, plain bool) {
	start := r.pos
	if r.b[r.pos] == '-' {
		r.pos++
	}
	if r.pos < len(r.b) && r.b[r.pos] == '0' {
		r.pos++
	} else {
		r.digits()
	}
	plain = true
	if r.pos < len(r.b) && r.b[r.pos] == '.' {
		plain = false
		r.pos++
		r.digits()
	}
	if r.pos < len(r.b) && r.b[r.pos]|0x20 == 'e' {
		plain = false
		r.pos++
		if r.pos < len(r.b) && (r.b[r.pos] == '+' || r.b[r.pos] == '-') {
			r.pos++
		}
		r.digits()
	}
	if r.err != nil {
		return nil, false
	}
	return r.b[start:r.pos], plain
}

// digits goes past one digit or more.
func (r *reader) digits() {
	start := r.pos
	for r.pos < len(r.b) && r.b[r.pos]-'0' <= 9 {
		r.pos++
	}
	if r.pos == start {
		r.fail("expected a digit")
	}
}

// smallJSON reads the next value if it is a number of JSON that is as most are: a few digits. Otherwise
// it stays before it.
func (r *reader) smallJSON() (n int64, ok bool) {
	if r.format != JSON {
		return 0, false
	}
	const digits = 15
	for i := r.pos; i < len(r.b) && i-r.pos <= digits; i++ {
		switch c := r.b[i]; {
		case c >= '0' && c <= '9':
			n = n*10 + int64(c-'0')
		case i > r.pos && (c == ',' || c == '}') && (r.b[r.pos] != '0' || i == r.pos+1):
			r.pos = i
			return n, true
		default:
			return 0, false
		}
	}
	return 0, false
}

func (r *reader) numberJSON() number {
	text, plain := r.numberTextJSON()
	n := number{form: formFloat, text: text, bits: 64}
	if r.err != nil {
		return n
	}
	if plain && len(text) <= 20 {
		if text[0] != '-' {
			if v, ok := parseUint(text); ok {
				n.form, n.pos = formUint, v
				return n
			}
		} else if v, ok := parseUint(text[1:]); ok && v > 0 && v <= 1<<63 { // -0 is a float
			n.form, n.neg = formInt, -int64(v)
			return n
		}
	}
	// A number too large for a float64 is an infinity here, which is integral but fits nothing.
	n.f, _ = strconv.ParseFloat(string(text), 64)
	return n
}

func parseUint(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		hi, lo := bits.Mul64(v, 10)
		d := uint64(c - '0')
		if hi != 0 || lo > math.MaxUint64-d {
			return 0, false
		}
		v = lo + d
	}
	return v, true
}
