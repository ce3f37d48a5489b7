package socket

import (
	"encoding/binary"
	"math/bits"
)

// Opcode is a frame's kind (RFC 6455, 5.2).
type Opcode byte

// The opcodes there are; all others are reserved.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xA
)

// Control reports whether frames of this kind may stand between the fragments of a message.
func (o Opcode) Control() bool { return o&0x8 != 0 }

// MaxControlBytes bounds the payload of a control frame.
const MaxControlBytes = 125

// maxHeaderBytes is the longest header: 64-bit length and a mask.
const maxHeaderBytes = 14

const (
	finBit  = 0x80
	rsv1Bit = 0x40
	rsvBits = 0x70
	maskBit = 0x80
)

// Header is what stands before a frame's payload.
type Header struct {
	Opcode Opcode
	Fin    bool
	Rsv    byte // the three reserved bits, RSV1 being 4
	Masked bool
	Key    [4]byte // if Masked
	Length uint64  // of the payload, in bytes
}

// ParseHeader reads the header at the start of b and returns its size in bytes, or zero when b
// does not hold all of it. It judges the length's encoding only: the shortest form is required and
// the top bit must be zero (1002).
func ParseHeader(b []byte) (h Header, size int, err error) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h.Opcode = Opcode(b[0] & 0xF)
	h.Fin = b[0]&finBit != 0
	h.Rsv = b[0] & rsvBits >> 4
	h.Masked = b[1]&maskBit != 0
	size = 2
	switch n := b[1] & 0x7F; n {
	case 126:
		if len(b) < 4 {
			return h, 0, nil
		}
		size = 4
		h.Length = uint64(binary.BigEndian.Uint16(b[2:]))
		if h.Length < 126 {
			return h, 0, protocolError("length not in its shortest form")
		}
	case 127:
		if len(b) < 10 {
			return h, 0, nil
		}
		size = 10
		h.Length = binary.BigEndian.Uint64(b[2:])
		if h.Length < 1<<16 || h.Length >= 1<<63 {
			return h, 0, protocolError("length not in its shortest form")
		}
	default:
		h.Length = uint64(n)
	}
	if h.Masked {
		if len(b) < size+4 {
			return h, 0, nil
		}
		h.Key = [4]byte(b[size:])
		size += 4
	}
	return h, size, nil
}

// HeaderSize is the size in bytes of an unmasked frame's header for n bytes of payload.
func HeaderSize(n int) int {
	switch {
	case n < 126:
		return 2
	case n < 1<<16:
		return 4
	default:
		return 10
	}
}

// AppendHeader appends the header of a server's frame with n bytes of payload.
func AppendHeader(dst []byte, op Opcode, fin, rsv1 bool, n int) []byte {
	return appendHeader(dst, op, fin, rsv1, n, 0)
}

// AppendMaskedHeader appends the header of a client's frame, whose payload follows masked with key.
func AppendMaskedHeader(dst []byte, op Opcode, fin, rsv1 bool, n int, key [4]byte) []byte {
	return append(appendHeader(dst, op, fin, rsv1, n, maskBit), key[:]...)
}

func appendHeader(dst []byte, op Opcode, fin, rsv1 bool, n int, mask byte) []byte {
	first := byte(op)
	if fin {
		first |= finBit
	}
	if rsv1 {
		first |= rsv1Bit
	}
	switch {
	case n < 126:
		return append(dst, first, mask|byte(n))
	case n < 1<<16:
		return append(dst, first, mask|126, byte(n>>8), byte(n))
	default:
		dst = append(dst, first, mask|127)
		return binary.BigEndian.AppendUint64(dst, uint64(n))
	}
}

// AppendFrame appends a server's unfragmented frame.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	return append(AppendHeader(dst, op, true, false, len(payload)), payload...)
}

// AppendMaskedFrame appends a client's unfragmented frame. payload itself is not changed.
func AppendMaskedFrame(dst []byte, op Opcode, payload []byte, key [4]byte) []byte {
	dst = AppendMaskedHeader(dst, op, true, false, len(payload), key)
	start := len(dst)
	dst = append(dst, payload...)
	Mask(dst[start:], key, 0)
	return dst
}

// reservedHeader is what BeginFrame leaves: the header of 126 to 65,535 bytes, the usual size of a
// message. Other sizes cost EndFrame one move of the payload.
const reservedHeader = 4

// BeginFrame appends room for a header, so that the payload can be appended straight behind it:
//
//	start := len(dst)
//	dst = socket.BeginFrame(dst)
//	dst = appendPayload(dst)
//	dst = socket.EndFrame(dst, start, socket.OpText)
//
// Several frames may follow one another in one buffer.
func BeginFrame(dst []byte) []byte {
	return append(dst, make([]byte, reservedHeader)...)
}

// EndFrame completes the frame that was begun when dst was start bytes long: everything behind the
// reserved room is its payload. The frame is dst[start:] of what is returned.
func EndFrame(dst []byte, start int, op Opcode) []byte {
	n := len(dst) - start - reservedHeader
	switch size := HeaderSize(n); {
	case size < reservedHeader:
		copy(dst[start+size:], dst[start+reservedHeader:])
		dst = dst[:start+size+n]
	case size > reservedHeader:
		var more [maxHeaderBytes]byte
		dst = append(dst, more[:size-reservedHeader]...)
		copy(dst[start+size:], dst[start+reservedHeader:start+reservedHeader+n])
	}
	AppendHeader(dst[start:start], op, true, false, n)
	return dst
}

// Mask applies key to b, whose first byte is byte pos of the payload, and returns the position
// behind it. Masking twice gives the original (RFC 6455, 5.3).
func Mask(b []byte, key [4]byte, pos int) int {
	end := pos + len(b)
	k32 := bits.RotateLeft32(binary.LittleEndian.Uint32(key[:]), -8*(pos&3))
	k := uint64(k32)<<32 | uint64(k32)
	for len(b) >= 32 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])^k)
		binary.LittleEndian.PutUint64(b[16:], binary.LittleEndian.Uint64(b[16:])^k)
		binary.LittleEndian.PutUint64(b[24:], binary.LittleEndian.Uint64(b[24:])^k)
		b = b[32:]
	}
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(k >> (8 * i))
	}
	return end
}
