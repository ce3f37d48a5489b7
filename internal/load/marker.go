package load

import (
	"bytes"
	"encoding/binary"
)

const (
	markerStart = "#LS:"
	markerEnd   = '#'
	payloadEnd  = "$LS"

	markerDigits = 48
	markerBytes  = len(markerStart) + markerDigits + 1
)

// marker is what a payload says of itself.
type marker struct {
	run       uint32
	room      uint32
	publisher uint32 // within the room
	slot      uint32 // among the room's messages in flight, in a closed loop
	seq       uint32 // from 1, for each publisher
	intended  int64  // ns since the engine's base
}

// noSlot stands in messages of open loops.
const noSlot = 99_999_999

// appendPayload appends a payload of size bytes, or of the least that holds a marker.
func appendPayload(dst []byte, m *marker, size int) []byte {
	start := len(dst)
	dst = append(dst, markerStart...)
	dst = appendDigits(dst, uint64(m.run), 4)
	dst = appendDigits(dst, uint64(m.publisher), 4)
	dst = appendDigits(dst, uint64(m.slot), 8)
	dst = appendDigits(dst, uint64(m.room), 8)
	dst = appendDigits(dst, uint64(m.seq), 8)
	dst = appendDigits(dst, uint64(m.intended), 16)
	dst = append(dst, markerEnd)
	for len(dst)-start < size-len(payloadEnd) {
		dst = append(dst, padding[:min(len(padding), size-len(payloadEnd)-(len(dst)-start))]...)
	}
	return append(dst, payloadEnd...)
}

const leastPayload = markerBytes + len(payloadEnd)

const padding = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.."

func appendDigits(dst []byte, v uint64, n int) []byte {
	dst = append(dst, "0000000000000000"[:n]...)
	for i := len(dst) - 1; v > 0 && n > 0; i, n = i-1, n-1 {
		dst[i] = '0' + byte(v%10)
		v /= 10
	}
	return dst
}

// findMarker returns the first marker of b and what follows it. found without ok is a marker
// that cannot be read.
func findMarker(b []byte) (m marker, rest []byte, found, ok bool) {
	i := bytes.Index(b, []byte(markerStart))
	if i < 0 {
		return m, nil, false, false
	}
	b = b[i:]
	if len(b) < markerBytes || b[markerBytes-1] != markerEnd {
		return m, b[len(markerStart):], true, false
	}
	d := b[len(markerStart):markerBytes]
	who, ok0 := eightDigits(d)
	slot, ok1 := eightDigits(d[8:])
	room, ok2 := eightDigits(d[16:])
	seq, ok3 := eightDigits(d[24:])
	high, ok4 := eightDigits(d[32:])
	low, ok5 := eightDigits(d[40:])
	m.run, m.publisher = who/1e4, who%1e4
	m.slot, m.room, m.seq = slot, room, seq
	m.intended = int64(high)*1e8 + int64(low)
	return m, b[markerBytes:], true, ok0 && ok1 && ok2 && ok3 && ok4 && ok5
}

// eightDigits reads a number of exactly eight digits from the start of b, all at once: neighbours
// are joined to pairs, then pairs to fours, then those.
func eightDigits(b []byte) (v uint32, ok bool) {
	x := binary.LittleEndian.Uint64(b) - 0x3030303030303030
	// A byte above 9 shows in its top bit, by itself or with 118 added.
	ok = (x|(x+0x7676767676767676))&0x8080808080808080 == 0
	x = (x*10 + x>>8) & 0x00FF00FF00FF00FF
	x = (x*100 + x>>16) & 0x0000FFFF0000FFFF
	return uint32(x*10_000 + x>>32), ok
}

// complete reports whether the payload that goes on with rest after its marker has its end where
// it belongs.
func complete(rest []byte, payloadSize int) bool {
	at := max(payloadSize, leastPayload) - leastPayload
	return len(rest) >= at+len(payloadEnd) && string(rest[at:at+len(payloadEnd)]) == payloadEnd
}
