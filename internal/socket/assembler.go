package socket

import (
	"sync"
	"unicode/utf8"
)

// Sink gets what an Assembler found. An error stops the Assembler and is returned by Feed.
type Sink interface {
	// Message is a whole text or binary message, fragments joined. payload is valid until
	// Message returns and may be changed.
	Message(op Opcode, payload []byte) error
	// Control is a close, ping or pong frame; those that arrive between the fragments of a
	// message come at once. payload is valid until Control returns.
	Control(op Opcode, payload []byte) error
}

// AssemblerOptions are shared by all Assemblers of a kind.
type AssemblerOptions struct {
	// MaxMessageBytes bounds a message, all fragments together; zero means 512 KiB.
	MaxMessageBytes int
	// AllowInvalidUTF8 passes text on unchecked, for applications that answer themselves.
	AllowInvalidUTF8 bool
	// Client expects a server's frames, which are not masked.
	Client bool
}

// DefaultMaxMessageBytes bounds a message when nothing else was said.
const DefaultMaxMessageBytes = 512 << 10

// firstGrowth is the most that is allocated for a message because its header promised as much;
// from there the buffer grows as bytes arrive.
const firstGrowth = 4 << 10

// Assembler turns the bytes of one direction of a WebSocket connection into messages. Frames that
// lie in the fed bytes entirely are passed on without a copy; only what is half read is kept, at
// most MaxMessageBytes of it. Between messages it holds nothing.
//
// Errors are *CloseError: 1002 for frames that break the protocol, 1007 for text that is no UTF-8,
// 1009 for a message beyond the bound, as soon as its headers tell. After an error it must not be
// fed again.
type Assembler struct {
	opts *AssemblerOptions
	part *partial // nil between messages
}

// NewAssembler makes an Assembler. opts must not change afterwards.
func NewAssembler(opts *AssemblerOptions) Assembler { return Assembler{opts: opts} }

// partial is a message, or a frame, of which some bytes are missing.
type partial struct {
	head    [maxHeaderBytes]byte // a half-read header
	headLen int

	inFrame bool // header is that of a frame whose payload has not ended
	header  Header
	left    int // payload bytes missing
	pos     int // payload bytes had

	control    [MaxControlBytes]byte // a half-read control frame's payload
	message    []byte                // unmasked payload so far, of all fragments
	op         Opcode                // of the message
	fragmented bool                  // a first fragment came, the last did not
}

var partials = sync.Pool{New: func() any { return new(partial) }}

// keptMessage is the capacity up to which a message buffer is pooled with its partial.
const keptMessage = 4 << 10

func (a *Assembler) max() int {
	if a.opts.MaxMessageBytes > 0 {
		return a.opts.MaxMessageBytes
	}
	return DefaultMaxMessageBytes
}

// Partial reports whether a frame or a fragmented message has begun and not ended.
func (a *Assembler) Partial() bool { return a.part != nil }

// Buffered is the number of bytes allocated for what is half read.
func (a *Assembler) Buffered() int {
	if a.part == nil {
		return 0
	}
	return cap(a.part.message)
}

// Reset forgets what is half read and releases its memory.
func (a *Assembler) Reset() {
	if a.part != nil {
		a.recycle()
	}
}

// Feed takes bytes as they arrived, which it changes, and gives sink what is complete with them.
func (a *Assembler) Feed(b []byte, sink Sink) error {
	for len(b) > 0 {
		var err error
		switch {
		case a.part != nil && a.part.inFrame:
			b, err = a.feedPayload(b, sink)
		case a.part != nil && a.part.headLen > 0:
			b, err = a.feedHeader(b, sink)
		default:
			b, err = a.feedFrame(b, sink)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// feedFrame takes a frame that starts with b.
func (a *Assembler) feedFrame(b []byte, sink Sink) ([]byte, error) {
	h, size, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		if err := a.checkStart(b); err != nil {
			return nil, err
		}
		p := a.partial()
		p.headLen = copy(p.head[:], b)
		return nil, nil
	}
	if err := a.checkHeader(h); err != nil {
		return nil, err
	}
	b = b[size:]
	if uint64(len(b)) < h.Length || a.part != nil && !h.Opcode.Control() {
		a.beginFrame(h)
		if h.Length == 0 {
			return b, a.endFrame(sink)
		}
		return b, nil
	}
	payload := b[:h.Length:h.Length]
	rest := b[h.Length:]
	if h.Masked {
		Mask(payload, h.Key, 0)
	}
	if h.Opcode.Control() {
		return rest, sink.Control(h.Opcode, payload)
	}
	if !h.Fin {
		a.beginFrame(h)
		p := a.part
		a.grow(len(payload))
		p.message = append(p.message, payload...)
		p.left = 0
		return rest, a.endFrame(sink)
	}
	return rest, a.emit(h.Opcode, payload, sink)
}

// feedHeader completes a half-read header.
func (a *Assembler) feedHeader(b []byte, sink Sink) ([]byte, error) {
	p := a.part
	had := p.headLen
	n := had + copy(p.head[had:], b)
	h, size, err := ParseHeader(p.head[:n])
	if err != nil {
		return nil, err
	}
	if size == 0 {
		p.headLen = n
		return nil, a.checkStart(p.head[:n])
	}
	if err := a.checkHeader(h); err != nil {
		return nil, err
	}
	p.headLen = 0
	a.beginFrame(h)
	b = b[size-had:]
	if h.Length == 0 {
		return b, a.endFrame(sink)
	}
	return b, nil
}

// feedPayload takes bytes of a frame whose header was read.
func (a *Assembler) feedPayload(b []byte, sink Sink) ([]byte, error) {
	p := a.part
	n := min(len(b), p.left)
	piece := b[:n]
	if p.header.Masked {
		Mask(piece, p.header.Key, p.pos)
	}
	if p.header.Opcode.Control() {
		copy(p.control[p.pos:], piece)
	} else {
		a.grow(n)
		p.message = append(p.message, piece...)
	}
	p.pos += n
	p.left -= n
	if p.left == 0 {
		return b[n:], a.endFrame(sink)
	}
	return nil, nil
}

// grow makes room for n more bytes of the message: twice what there is, but never beyond what the
// current frame still brings, so that neither a promise nor doubling passes the bound.
func (a *Assembler) grow(n int) {
	p := a.part
	have := len(p.message)
	if cap(p.message)-have >= n {
		return
	}
	room := max(have+n, min(max(2*cap(p.message), firstGrowth), have+p.left))
	bigger := make([]byte, have, room)
	copy(bigger, p.message)
	p.message = bigger
}

// checkStart judges what is known of a header that has not arrived in full.
func (a *Assembler) checkStart(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	h := Header{Opcode: Opcode(b[0] & 0xF), Fin: b[0]&finBit != 0, Rsv: b[0] & rsvBits >> 4, Masked: !a.opts.Client}
	if len(b) > 1 {
		h.Masked = b[1]&maskBit != 0
		if h.Opcode.Control() {
			h.Length = uint64(b[1] & 0x7F)
		}
	}
	return a.checkHeader(h)
}

// checkHeader holds a frame against the rules, given what came before.
func (a *Assembler) checkHeader(h Header) error {
	if h.Rsv != 0 {
		return protocolError("reserved bits set")
	}
	if h.Masked == a.opts.Client {
		if a.opts.Client {
			return protocolError("masked frame from a server")
		}
		return protocolError("unmasked frame")
	}
	fragmented := a.part != nil && a.part.fragmented
	switch h.Opcode {
	case OpClose, OpPing, OpPong:
		if !h.Fin {
			return protocolError("fragmented control frame")
		}
		if h.Length > MaxControlBytes {
			return protocolError("control frame too long")
		}
		return nil
	case OpText, OpBinary:
		if fragmented {
			return protocolError("message inside a fragmented message")
		}
	case OpContinuation:
		if !fragmented {
			return protocolError("continuation of nothing")
		}
	default:
		return protocolError("reserved opcode")
	}
	had := 0
	if fragmented {
		had = len(a.part.message)
	}
	if h.Length > uint64(a.max()-had) {
		return &CloseError{Code: CloseTooBig, Reason: "message too big"}
	}
	return nil
}

// partial returns the half-read state, made if there is none.
func (a *Assembler) partial() *partial {
	if a.part == nil {
		a.part = partials.Get().(*partial)
	}
	return a.part
}

func (a *Assembler) beginFrame(h Header) {
	p := a.partial()
	p.inFrame = true
	p.header = h
	p.left = int(h.Length)
	p.pos = 0
	if h.Opcode == OpText || h.Opcode == OpBinary {
		p.op = h.Opcode
		p.message = p.message[:0]
	}
}

// endFrame passes on what is complete with the current frame.
func (a *Assembler) endFrame(sink Sink) error {
	p := a.part
	p.inFrame = false
	h := p.header
	if h.Opcode.Control() {
		payload := p.control[:p.pos]
		if p.fragmented {
			return sink.Control(h.Opcode, payload)
		}
		a.part = nil
		err := sink.Control(h.Opcode, payload)
		recycle(p)
		return err
	}
	if !h.Fin {
		p.fragmented = true
		return nil
	}
	a.part = nil
	err := a.emit(p.op, p.message, sink)
	recycle(p)
	return err
}

func (a *Assembler) emit(op Opcode, payload []byte, sink Sink) error {
	if op == OpText && !a.opts.AllowInvalidUTF8 && !utf8.Valid(payload) {
		return &CloseError{Code: CloseInvalidPayload, Reason: "text is not UTF-8"}
	}
	return sink.Message(op, payload)
}

func (a *Assembler) recycle() {
	recycle(a.part)
	a.part = nil
}

func recycle(p *partial) {
	message := p.message[:0]
	if cap(message) > keptMessage {
		message = nil
	}
	*p = partial{message: message}
	partials.Put(p)
}
