package hub

import (
	"encoding/binary"
	"iter"
	"slices"
)

// clientList is some clients and what each of them counts, in an order. It stays as records have it,
// each id as a field with the count behind it as an unsigned varint, since most of a summary is not
// changed by an annotation. What is encoded is shared: a change makes another.
type clientList struct {
	n       int
	quoted  int // bytes of all ids as JSON strings, see quotedSize
	encoded []byte
}

// cutClient returns the first client of an encoded list, and how long that is; 0 if there is none that
// can be read.
func cutClient(encoded []byte) (clientID []byte, count uint64, size int) {
	rest, ok := readFields(encoded, &clientID)
	if !ok {
		return nil, 0, 0
	}
	count, n := binary.Uvarint(rest)
	if n <= 0 {
		return nil, 0, 0
	}
	return clientID, count, len(encoded) - len(rest) + n
}

// all are the clients and their counts.
func (l *clientList) all() iter.Seq2[[]byte, uint64] {
	return func(yield func([]byte, uint64) bool) {
		for b := l.encoded; ; {
			clientID, count, size := cutClient(b)
			if size == 0 || !yield(clientID, count) {
				return
			}
			b = b[size:]
		}
	}
}

// find returns where a client is encoded; begin is end if it is not listed.
func (l *clientList) find(clientID string) (begin, end int, count uint64) {
	for {
		id, count, size := cutClient(l.encoded[begin:])
		if size == 0 {
			return begin, begin, 0
		}
		if string(id) == clientID {
			return begin, begin + size, count
		}
		begin += size
	}
}

// add adds to the count of a client, if that is listed.
func (l *clientList) add(clientID string, more uint64) (listed bool) {
	begin, end, count := l.find(clientID)
	if listed = begin < end; listed {
		l.encoded = slices.Concat(l.encoded[:begin], appendClient(nil, clientID, count+more), l.encoded[end:])
	}
	return listed
}

// append lists one more client.
func (l *clientList) append(clientID string, count uint64) {
	l.n++
	l.quoted += quotedSize(clientID)
	l.encoded = appendClient(slices.Clip(l.encoded), clientID, count)
}

func appendClient(b []byte, clientID string, count uint64) []byte {
	return binary.AppendUvarint(appendField(b, clientID), count)
}

// remove drops a client, if it is listed.
func (l *clientList) remove(clientID string) {
	if begin, end, _ := l.find(clientID); begin < end {
		l.n--
		l.quoted -= quotedSize(clientID)
		l.encoded = slices.Concat(l.encoded[:begin], l.encoded[end:])
	}
}

// cut drops clients from the end until so many are left, or their ids have so many bytes less as JSON
// strings. It returns how many less.
func (l *clientList) cut(keep, enough int) (less int) {
	var sizes []int // of the encoded clients
	for b := l.encoded; ; {
		_, _, size := cutClient(b)
		if size == 0 {
			break
		}
		sizes = append(sizes, size)
		b = b[size:]
	}
	before := l.quoted
	for len(sizes) > keep && before-l.quoted < enough {
		last := len(sizes) - 1
		begin := len(l.encoded) - sizes[last]
		clientID, _, _ := cutClient(l.encoded[begin:])
		l.quoted -= quotedSize(string(clientID))
		l.encoded, sizes = l.encoded[:begin:begin], sizes[:last]
		l.n--
	}
	return before - l.quoted
}
