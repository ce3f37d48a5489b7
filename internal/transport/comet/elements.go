package comet

import (
	"io"
	"sync"

	"letshare-server/internal/pubsub"
)

// elements reads the objects of a JSON array as they arrive, so that an array of any length
// takes no more memory than its longest element may. It looks at no more than it must to
// find where they end; what is in them is for others to check.
//
// read and next take turns: next gives the elements that were read in full, and nil when
// there are no more of them.
type elements struct {
	body   io.Reader
	max    int // bytes of one element
	over   bool
	broken error // why the body ended too early

	buf   []byte // read; what was given stays until next has no more
	at    int    // buf[:at] was looked at
	place place
	start int // where the element begins
	depth int // of nesting in it

	quoted  bool // in a string
	escaped bool // behind a backslash
}

// place is what is expected next.
type place uint8

const (
	beforeArray place = iota
	beforeFirst       // an element or the end
	beforeNext        // an element
	inElement
	afterElement // a comma or the end
	afterArray
)

// readBytes is how much of a body is read before what is in it is handled, if it is there.
const readBytes = 64 << 10

var buffers = sync.Pool{New: func() any { return new([readBytes]byte) }}

func newElements(body io.Reader, maxBytes int) *elements {
	return &elements{body: body, max: maxBytes, buf: buffers.Get().(*[readBytes]byte)[:0]}
}

// release ends the use of e.
func (e *elements) release() {
	if cap(e.buf) == readBytes {
		buffers.Put((*[readBytes]byte)(e.buf[:readBytes]))
	}
	e.buf = nil
}

// read reads until the buffer is full or the body ends, and reports whether it ended.
func (e *elements) read() (over bool) {
	if len(e.buf) == cap(e.buf) {
		// Twice as much, but no more than shows that the element is too long.
		grown := make([]byte, len(e.buf), max(min(2*cap(e.buf), e.max+1), len(e.buf)+1))
		copy(grown, e.buf)
		e.release()
		e.buf = grown
	}
	for len(e.buf) < cap(e.buf) {
		n, err := e.body.Read(e.buf[len(e.buf):cap(e.buf)])
		e.buf = e.buf[:len(e.buf)+n]
		if err != nil {
			if err != io.EOF {
				e.broken = err
			}
			e.over = true
			return true
		}
	}
	return false
}

// next returns the next element that was read in full, valid until the next call of e, or
// nil if there is none yet. An error is a *pubsub.Error, and final.
func (e *elements) next() ([]byte, error) {
	for ; e.at < len(e.buf); e.at++ {
		b := e.buf[e.at]
		if e.place == inElement {
			if e.within(b) {
				continue
			}
			e.place = afterElement
			e.at++
			if e.at-e.start > e.max {
				return nil, e.tooLong()
			}
			return e.buf[e.start:e.at], nil
		}
		switch b {
		case ' ', '\t', '\r', '\n':
			continue
		}
		switch {
		case e.place == beforeArray && b == '[':
			e.place = beforeFirst
		case (e.place == beforeFirst || e.place == beforeNext) && b == '{':
			e.place, e.start, e.depth = inElement, e.at, 1
		case e.place == afterElement && b == ',':
			e.place = beforeNext
		case (e.place == beforeFirst || e.place == afterElement) && b == ']':
			e.place = afterArray
		default:
			return nil, invalid("unexpected %q", b)
		}
	}
	if e.place != inElement {
		e.start = e.at
	}
	if len(e.buf)-e.start > e.max {
		return nil, e.tooLong()
	}
	e.buf = e.buf[:copy(e.buf, e.buf[e.start:])]
	e.at -= e.start
	e.start = 0
	switch {
	case e.broken != nil:
		return nil, pubsub.NewError(pubsub.CodeProtocolError, "the body could not be read").Because(e.broken)
	case e.over && e.place != afterArray:
		return nil, invalid("unexpected end")
	}
	return nil, nil
}

// within looks at one byte of an element, and reports whether the element goes on behind it.
func (e *elements) within(b byte) bool {
	switch {
	case e.escaped:
		e.escaped = false
	case e.quoted:
		e.escaped = b == '\\'
		e.quoted = b != '"'
	case b == '"':
		e.quoted = true
	case b == '{' || b == '[':
		e.depth++
	case b == '}' || b == ']':
		e.depth--
	}
	return e.depth > 0
}

func invalid(format string, args ...any) error {
	return pubsub.Errorf(pubsub.CodeProtocolError, "the body is not an array of protocol messages: "+format, args...)
}

func (e *elements) tooLong() error {
	return pubsub.Errorf(pubsub.CodeMessageTooLarge, "a frame exceeds %d bytes", e.max)
}
