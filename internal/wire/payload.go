package wire

import (
	"bytes"
	"encoding/base64"
	"strings"

	"letshare-server/internal/pubsub"
)

// payload is an item's data as it was read. What it means depends on the encoding, which may
// come after it.
type payload struct {
	kind payloadKind
	b    []byte // refers to the document unless own
	own  bool
}

type payloadKind uint8

const (
	payloadNone payloadKind = iota
	payloadText
	payloadBytes
	payloadJSON // an object or array, as JSON text
)

func (r *reader) payload() payload {
	switch r.peek() {
	case kindString:
		if r.format == JSON {
			s, escaped := r.stringJSON()
			if escaped {
				return payload{payloadText, unescaped(s), true}
			}
			return payload{payloadText, s, false}
		}
		return payload{payloadText, r.bytesMsgPack(), false}
	case kindBytes:
		return payload{payloadBytes, r.bytesMsgPack(), false}
	case kindObject, kindArray:
		if r.format == JSON {
			return payload{payloadJSON, r.raw(), false} // as written: numbers, order, spaces
		}
		return payload{payloadJSON, r.jsonText(), true}
	}
	r.bad(pubsub.CodeInvalidMessageData, "data", "a string, an object, an array or binary")
	return payload{}
}

// unescaped returns the inside of a JSON string as a text of its own, with little to spare.
func unescaped(s []byte) []byte {
	b := appendUnescaped(make([]byte, 0, len(s)), s)
	if cap(b)-len(b) > len(b)/4+16 {
		return bytes.Clone(b)
	}
	return b
}

// encoding reads an item's encoding. The frequent ones cost no allocation.
func (r *reader) encoding() string {
	if r.peek() == kindString {
		pos := r.pos
		switch string(r.str()) {
		case "json":
			return "json"
		case "base64":
			return "base64"
		case "utf-8/cipher+aes-128-cbc":
			return "utf-8/cipher+aes-128-cbc"
		case "utf-8/cipher+aes-256-cbc":
			return "utf-8/cipher+aes-256-cbc"
		}
		r.pos = pos
	}
	return r.itemString("encoding", pubsub.CodeInvalidMessageData)
}

const base64Step = "base64"

// resolve gives an item its data and encoding (RSL4a). A base64 step at the end of the
// encoding is undone if the data is text that permits it (RSL6b).
func (r *reader) resolve(p payload, encoding string) (pubsub.Data, string) {
	if r.err != nil {
		return pubsub.Data{}, ""
	}
	switch p.kind {
	case payloadText:
		if lastStep(encoding) == base64Step {
			if b, ok := decodeBase64(p.b); ok {
				return pubsub.Binary(b), withoutLastStep(encoding)
			}
		}
		if !r.validText(p.b) {
			// Some clients send ciphertext as str instead of bin.
			if strings.HasPrefix(lastStep(encoding), "cipher+") {
				return pubsub.Binary(p.keep()), encoding
			}
			r.badItem(pubsub.CodeInvalidMessageData, "data must be valid UTF-8 or binary")
			return pubsub.Data{}, encoding
		}
		return pubsub.Data{Kind: pubsub.TextData, Bytes: p.keep()}, encoding
	case payloadBytes:
		return pubsub.Binary(p.keep()), encoding
	case payloadJSON:
		switch {
		case encoding == "":
			encoding = "json"
		case lastStep(encoding) != "json":
			r.badItem(pubsub.CodeInvalidMessageData, "data must be a string or binary with encoding %q", encoding)
		}
		return pubsub.Data{Kind: pubsub.TextData, Bytes: p.keep()}, encoding
	}
	return pubsub.Data{}, encoding
}

func (p payload) keep() []byte {
	if p.own {
		return p.b
	}
	return append(make([]byte, 0, len(p.b)), p.b...)
}

// lastStep is the step of an encoding that is undone first.
func lastStep(encoding string) string {
	return encoding[strings.LastIndexByte(encoding, '/')+1:]
}

func withoutLastStep(encoding string) string {
	return encoding[:max(strings.LastIndexByte(encoding, '/'), 0)]
}

// decodeBase64 decodes standard base64 with or without padding.
func decodeBase64(s []byte) ([]byte, bool) {
	enc := base64.StdEncoding
	if len(s)%4 != 0 {
		enc = base64.RawStdEncoding
	}
	b := make([]byte, enc.DecodedLen(len(s)))
	n, err := enc.Decode(b, s)
	return b[:n], err == nil
}

// data writes an item's data and encoding. Absent data is not written, empty data is.
func (w *writer) data(d pubsub.Data, encoding string) {
	switch {
	case d.Kind == pubsub.TextData:
		w.key("data")
		w.text(d.Bytes)
	case d.Kind == pubsub.BinaryData:
		w.key("data")
		w.bytes(d.Bytes)
		if w.format == JSON {
			w.key("encoding")
			w.suffixed(encoding, base64Step)
			return
		}
	}
	w.optional("encoding", encoding)
}

// suffixed writes an encoding with one step more, as JSON.
func (w *writer) suffixed(encoding, step string) {
	if encoding == "" {
		w.str(step)
		return
	}
	w.str(encoding)
	w.b[len(w.b)-1] = '/' // in place of the closing quote
	w.b = append(w.b, step...)
	w.b = append(w.b, '"')
}
