package hub

import "encoding/binary"

// Values of records are made of fields, each with its length before it as an unsigned varint.

func appendField[T ~string | ~[]byte](b []byte, field T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

// readFields takes fields from the front of b, which they refer to; ok is false if it does
// not have as many.
func readFields(b []byte, fields ...*[]byte) (rest []byte, ok bool) {
	for _, f := range fields {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, false
		}
		end := size + int(n)
		*f, b = b[size:end:end], b[end:]
	}
	return b, true
}
