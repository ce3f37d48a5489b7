package sse

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"

	"letshare-server/internal/pubsub"
)

// position is where a client stands in the order of a channel: after an entry, and after the
// first items of the next.
type position struct {
	ms      int64
	counter int
	epoch   [pubsub.EpochLength]byte
	done    int // items of the entry that follows
}

// positionOf is the position after the entry with a serial of the engine's.
func positionOf(s pubsub.Serial) position {
	ms, counter, epoch, err := pubsub.ParseSerial(string(s))
	if err != nil {
		return position{epoch: [pubsub.EpochLength]byte{'0', '0', '0', '0', '0', '0', '0', '0'}} // that nobody can resume from
	}
	p := position{ms: ms, counter: counter}
	copy(p.epoch[:], epoch)
	return p
}

// serial is the entry that p comes after.
func (p position) serial() pubsub.Serial {
	return pubsub.MakeSerial(p.ms, p.counter, string(p.epoch[:]))
}

// valid reports whether serial makes a serial.
func (p position) valid() bool {
	_, _, _, err := pubsub.ParseSerial(string(p.serial()))
	return err == nil && p.ms <= maxMillis && p.counter <= pubsub.MaxSerialCounter && p.done <= maxDone
}

const (
	maxMillis = 99_999_999_999_999 // that serials have room for
	maxDone   = 1 << 20            // more than any publish has messages
)

// tag names a channel within ids.
type tag [3]byte

// tagOf hashes a channel. Two channels of one stream with the same tag are told apart by
// their order; a position that went to the wrong one is not in its log.
func tagOf(id pubsub.ChannelID) (t tag) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id.String())) // cannot fail
	sum := h.Sum32()
	sum ^= sum >> 24
	return tag{byte(sum >> 16), byte(sum >> 8), byte(sum)}
}

// mark is one channel's part of an id.
type mark struct {
	tag tag
	position
}

const (
	idVersion   = 1
	ownMinBytes = 1 + len(tag{}) + pubsub.EpochLength + 6
	ownMaxBytes = ownMinBytes + 2*binary.MaxVarintLen32

	// What an id of a stream of several channels has, about, and for each of them.
	idChars, idCharsPerChannel = 64, 12

	maxIDChars = 64 << 10 // more than any id has that we made for a thousand channels
)

var encoding = base64.RawURLEncoding.Strict()

// appendOwn appends the part of an id that is about the record's own channel.
func appendOwn(dst []byte, m mark) []byte {
	var buf [ownMaxBytes]byte
	b := append(buf[:0], idVersion)
	b = append(b, m.tag[:]...)
	b = append(b, m.epoch[:]...)
	b = append(b, byte(m.ms>>40), byte(m.ms>>32), byte(m.ms>>24), byte(m.ms>>16), byte(m.ms>>8), byte(m.ms))
	b = binary.AppendUvarint(b, uint64(m.counter))
	b = binary.AppendUvarint(b, uint64(m.done))
	return encoding.AppendEncode(dst, b)
}

// readOwn reads what appendOwn has written.
func readOwn(text []byte) (m mark, ok bool) {
	var buf [ownMaxBytes + 3]byte
	if encoding.DecodedLen(len(text)) > len(buf) {
		return m, false
	}
	n, err := encoding.Decode(buf[:], text)
	b := buf[:n]
	if err != nil || n < ownMinBytes || b[0] != idVersion {
		return m, false
	}
	copy(m.tag[:], b[1:])
	copy(m.epoch[:], b[1+len(m.tag):])
	for _, c := range b[ownMinBytes-6 : ownMinBytes] {
		m.ms = m.ms<<8 | int64(c)
	}
	r := reader{b: b[ownMinBytes:]}
	m.counter, m.done = int(r.uvarint(pubsub.MaxSerialCounter)), int(r.uvarint(maxDone))
	return m, r.end()
}

// appendOthers appends the part of an id that is about the channels beside the one with index
// own. There is at least one.
func appendOthers(dst []byte, own int, all []*subscription) []byte {
	var epochs [][pubsub.EpochLength]byte
	latest := int64(0)
	for i, c := range all {
		if i == own {
			continue
		}
		latest = max(latest, c.position.ms)
		if !slices.Contains(epochs, c.position.epoch) {
			epochs = append(epochs, c.position.epoch)
		}
	}
	b := make([]byte, 0, 16+len(epochs)*pubsub.EpochLength+12*len(all))
	b = binary.AppendUvarint(b, uint64(own))
	b = binary.AppendUvarint(b, uint64(len(epochs)))
	for _, e := range epochs {
		b = append(b, e[:]...)
	}
	b = binary.AppendUvarint(b, uint64(latest))
	for i, c := range all {
		if i == own {
			continue
		}
		p := &c.position
		b = append(b, c.tag[:]...)
		if len(epochs) > 1 {
			b = binary.AppendUvarint(b, uint64(slices.Index(epochs, p.epoch)))
		}
		b = binary.AppendUvarint(b, uint64(latest-p.ms))
		if p.done == 0 {
			b = binary.AppendUvarint(b, uint64(p.counter)*2)
			continue
		}
		b = binary.AppendUvarint(b, uint64(p.counter)*2+1)
		b = binary.AppendUvarint(b, uint64(p.done))
	}
	return encoding.AppendEncode(dst, b)
}

// parseID takes an id apart into the marks of its channels, in the order of the stream that
// it was made for. A text that is no id of ours is CodeInvalidParameterValue.
func parseID(id string) ([]mark, error) {
	if len(id) > maxIDChars {
		return nil, invalidID()
	}
	others, text, several := strings.Cut(id, ".")
	if !several {
		others, text = "", id
	}
	own, ok := readOwn([]byte(text))
	if !ok || !own.valid() {
		return nil, invalidID()
	}
	if !several {
		return []mark{own}, nil
	}
	b, err := encoding.DecodeString(others)
	if err != nil {
		return nil, invalidID()
	}
	r := reader{b: b}
	index := int(r.uvarint(uint64(len(b))))
	epochs := make([][pubsub.EpochLength]byte, r.uvarint(uint64(len(r.b)/pubsub.EpochLength)))
	for i := range epochs {
		copy(epochs[i][:], r.take(pubsub.EpochLength))
	}
	latest := int64(r.uvarint(maxMillis))
	var all []mark
	for !r.end() {
		var m mark
		copy(m.tag[:], r.take(len(m.tag)))
		at := uint64(0)
		if len(epochs) > 1 {
			at = r.uvarint(uint64(len(epochs) - 1))
		}
		m.ms = latest - int64(r.uvarint(uint64(latest)))
		counter := r.uvarint(2*pubsub.MaxSerialCounter + 1)
		m.counter = int(counter / 2)
		if counter%2 == 1 {
			m.done = int(r.uvarint(maxDone))
		}
		if r.bad || len(epochs) == 0 {
			return nil, invalidID()
		}
		m.epoch = epochs[at]
		if !m.valid() {
			return nil, invalidID()
		}
		all = append(all, m)
	}
	if len(all) == 0 || index > len(all) {
		return nil, invalidID()
	}
	return slices.Insert(all, index, own), nil
}

func invalidID() error {
	return pubsub.NewError(pubsub.CodeInvalidParameterValue, "the id to resume from is not one of this server")
}

// reader takes bytes apart. Once it has failed, everything is zero.
type reader struct {
	b   []byte
	bad bool
}

// uvarint reads a number of at most limit.
func (r *reader) uvarint(limit uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > limit {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// end reports whether everything was read, and well.
func (r *reader) end() bool { return !r.bad && len(r.b) == 0 }
