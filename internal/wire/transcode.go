package wire

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Transcode appends the document b to dst in another format, or in the same one but compact.
// Integers stay integers and numbers of JSON that are no integers become float64; bytes of
// MessagePack become base64 in JSON; extension types become null. It lets a REST handler
// build its answer as JSON and send it as MessagePack.
func Transcode(dst []byte, to, from Format, b []byte) ([]byte, error) {
	r := newReader(from, b)
	w := writer{b: dst, format: to}
	w.value(&r)
	if err := r.finish(); err != nil {
		return dst, fmt.Errorf("transcode %s to %s: %w", from, to, err)
	}
	return w.b, nil
}

// value writes the next value of r, which is consumed.
func (w *writer) value(r *reader) {
	switch r.peek() {
	case kindNull:
		r.skip()
		w.null()
	case kindBool:
		w.bool(r.bool())
	case kindNumber:
		w.number(r.number())
	case kindString:
		if r.format == JSON {
			s, _ := r.stringJSON()
			w.escaped(s)
			return
		}
		// Some clients send bytes as str. In MessagePack they stay what they are.
		s := r.str()
		if w.format == MsgPack && !utf8.Valid(s) {
			w.bytes(s)
		} else {
			w.text(s)
		}
	case kindBytes:
		w.bytes(r.bytesMsgPack())
	case kindArray:
		m := w.array()
		for it := r.array(); r.next(&it); {
			w.elem()
			w.value(r)
		}
		w.endArray(m)
	case kindObject:
		m := w.object()
		for it := r.object(); r.nextKey(&it); {
			w.anyKey(r.key)
			w.value(r)
		}
		w.endObject(m)
	}
}

// jsonText reads the next value and returns it as compact JSON text of its own.
func (r *reader) jsonText() []byte {
	if r.format == JSON {
		spaces := r.spaces
		if src := r.raw(); r.spaces == spaces {
			return bytes.Clone(src)
		} else {
			return compact(src)
		}
	}
	w := writer{format: JSON}
	w.value(r)
	return bytes.Clone(w.b)
}

// compact removes the whitespace from a valid JSON text.
func compact(src []byte) []byte {
	r := reader{b: src, format: JSON}
	w := writer{format: JSON, b: make([]byte, 0, len(src))}
	w.value(&r)
	return w.b
}

// json writes an object given as JSON text. A text that is none of JSON becomes an empty
// object in MessagePack; in JSON it is the caller's duty that it is valid.
func (w *writer) json(text []byte) {
	if w.format == JSON {
		w.b = append(w.b, text...)
		return
	}
	start := len(w.b)
	r := reader{b: text, format: JSON}
	w.value(&r)
	if r.err != nil {
		w.b = append(w.b[:start], 0x80)
	}
}
