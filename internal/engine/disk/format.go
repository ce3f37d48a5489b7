package disk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/body"
	"letshare-server/internal/pubsub"
)

// formatVersion is the version of everything that doc.go describes, beside those that begin
// single values.
const formatVersion = 1

// The buckets of the file, and the keys of the first.
var (
	bucketStore    = []byte("letshare")
	bucketChannels = []byte("channels")
	bucketIDs      = []byte("ids")
	bucketLog      = []byte("log")
	bucketLast     = []byte("last")
	bucketRecords  = []byte("records")

	keyFormat   = []byte("format")
	keyHigh     = []byte("high")
	keyRevision = []byte("revision")
)

const (
	clockLength  = 8 + 4
	serialLength = clockLength + pubsub.EpochLength
	idLength     = 8

	valueVersion = 1
)

var errMalformed = errors.New("the database holds a value that cannot be read")

// appendClock writes what orders serials.
func appendClock(b []byte, ms int64, counter int) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(ms))
	return binary.BigEndian.AppendUint32(b, uint32(counter))
}

func clockOf(b []byte) (ms int64, counter int) {
	return int64(binary.BigEndian.Uint64(b)), int(binary.BigEndian.Uint32(b[8:]))
}

// appendSerial writes a serial so that bytes sort as serials do. What is no serial sorts
// before all.
func appendSerial(b []byte, s pubsub.Serial) []byte {
	ms, counter, epoch, err := pubsub.ParseSerial(string(s))
	if err != nil {
		return append(b, make([]byte, serialLength)...)
	}
	return append(appendClock(b, ms, counter), epoch...)
}

func serialOf(b []byte) pubsub.Serial {
	ms, counter := clockOf(b)
	return pubsub.MakeSerial(ms, counter, string(b[clockLength:serialLength]))
}

// channelKey is the key of a channel in bucketChannels.
func channelKey(id pubsub.ChannelID) []byte {
	b := make([]byte, 0, 2+len(id.App)+len(id.Name))
	b = binary.AppendUvarint(b, uint64(len(id.App)))
	return append(append(b, id.App...), id.Name...)
}

func channelOf(key []byte) (pubsub.ChannelID, error) {
	n, size := binary.Uvarint(key)
	if size <= 0 || n > uint64(len(key)-size) {
		return pubsub.ChannelID{}, fmt.Errorf("channel: %w", errMalformed)
	}
	end := size + int(n)
	return pubsub.ChannelID{App: string(key[size:end]), Name: string(key[end:])}, nil
}

// meta is what is known of a channel beside its log and its records.
type meta struct {
	id      [idLength]byte
	base    pubsub.Serial // position before the oldest entry
	ms      int64         // clock of the newest serial that is not in the log any more
	counter int
	newest  pubsub.Serial // of the newest message, if the policy has a Last; else empty
}

const metaLength = 1 + idLength + serialLength + clockLength + serialLength

func (m *meta) encode() []byte {
	b := append(make([]byte, 0, metaLength), valueVersion)
	b = append(b, m.id[:]...)
	b = appendSerial(b, m.base)
	b = appendClock(b, m.ms, m.counter)
	return appendSerial(b, m.newest)
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) != metaLength || b[0] != valueVersion {
		return meta{}, fmt.Errorf("channel: %w", errMalformed)
	}
	m := meta{id: [idLength]byte(b[1:])}
	b = b[1+idLength:]
	m.base = serialOf(b)
	b = b[serialLength:]
	m.ms, m.counter = clockOf(b)
	if b = b[clockLength:]; b[clockLength] != 0 {
		m.newest = serialOf(b)
	}
	return m, nil
}

const (
	frameHasConnection = 1 << iota
	frameHasClient
)

const entryUnlogged = 1

// encodeEntries writes what an Append adds to its channel: the end of a frame, for which
// nothing needs to be known of the channel.
func encodeEntries(a *engine.Append) []byte {
	n := 16
	for i := range a.Entries {
		if d := &a.Entries[i]; !d.Unlogged && d.Body != nil {
			n += d.Body.Size() + 80*d.Body.Len() + 64
		}
	}
	b := make([]byte, 0, n)
	b = binary.AppendUvarint(b, uint64(len(a.Entries)))
	for i := range a.Entries {
		b = appendEntry(b, a.Entries[i].Kind, a.Entries[i].Unlogged, a.Entries[i].Body)
	}
	return b
}

func appendEntry(b []byte, kind engine.Kind, unlogged bool, of *pubsub.Batch) []byte {
	if unlogged {
		return append(b, byte(kind), entryUnlogged)
	}
	b = append(b, byte(kind), 0)
	if of == nil {
		return binary.AppendUvarint(b, 0)
	}
	// The length stands before the body and is known after it. Bodies of up to 16 KiB less
	// one have two bytes of it.
	const room = 2
	at := len(b)
	b = body.Append(append(b, make([]byte, room)...), of)
	size := len(b) - at - room
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(size))
	if n != room {
		b = append(b, length[:n]...)
		copy(b[at+n:at+n+size], b[at+room:at+room+size])
		b = b[:at+n+size]
	}
	copy(b[at:], length[:n])
	return b
}

// appendFrame writes a frame, whose key is the serial of its first entry.
func appendFrame(b []byte, prev pubsub.Serial, id engine.ID, entries []byte) []byte {
	flags := byte(0)
	if id.ConnectionID != "" {
		flags |= frameHasConnection
	}
	if id.Client != "" {
		flags |= frameHasClient
	}
	b = appendSerial(append(b, valueVersion, flags), prev)
	if id.ConnectionID != "" {
		b = append(binary.AppendUvarint(b, uint64(len(id.ConnectionID))), id.ConnectionID...)
		b = binary.AppendVarint(b, id.MsgSerial)
	}
	if id.Client != "" {
		b = append(binary.AppendUvarint(b, uint64(len(id.Client))), id.Client...)
	}
	return append(b, entries...)
}

// frame is an Append as the log keeps it, on its way out. It points into what it was read from.
type frame struct {
	key     []byte
	ms      int64 // of the first serial; the timestamp of all entries
	counter int
	epoch   string
	prev    pubsub.Serial
	id      engine.ID // only if it was asked for
	entries []byte
	count   int
}

func (f *frame) decode(key, value []byte, withID bool) error {
	bad := fmt.Errorf("log: %w", errMalformed)
	if len(key) != serialLength || len(value) < 2+serialLength || value[0] != valueVersion {
		return bad
	}
	*f = frame{key: key, epoch: string(key[clockLength:])}
	f.ms, f.counter = clockOf(key)
	flags := value[1]
	f.prev = serialOf(value[2:])
	r := fields{b: value[2+serialLength:]}
	if flags&frameHasConnection != 0 {
		connection, msgSerial := r.bytes(), r.varint()
		if withID {
			f.id.ConnectionID, f.id.MsgSerial = string(connection), msgSerial
		}
	}
	if flags&frameHasClient != 0 {
		if client := r.bytes(); withID {
			f.id.Client = string(client)
		}
	}
	count := r.uvarint()
	if r.bad || count > uint64(len(r.b)) {
		return bad
	}
	f.count, f.entries = int(count), r.b
	return nil
}

// noKinds selects nothing, unlike an empty set.
const noKinds engine.KindSet = 1 << 7

// each calls yield for every logged entry, until it returns false. Bodies are read for the
// kinds that are wanted; entries of others have none.
func (f *frame) each(kinds engine.KindSet, yield func(*engine.Entry) bool) error {
	var clock pubsub.Clock
	clock.Resume(f.ms, f.counter)
	ms, counter, prev := f.ms, f.counter, f.prev
	r := fields{b: f.entries}
	for i := range f.count {
		if i > 0 {
			ms, counter = clock.Next(f.ms)
		}
		kind, flags := engine.Kind(r.byte()), r.byte()
		if flags&entryUnlogged != 0 {
			continue
		}
		text := r.bytes()
		if r.bad {
			break
		}
		e := &engine.Entry{Kind: kind, Serial: pubsub.MakeSerial(ms, counter, f.epoch), Prev: prev, Timestamp: f.ms}
		prev = e.Serial
		if len(text) > 0 && kinds.Has(kind) {
			of, err := body.Decode(text)
			if err != nil {
				return fmt.Errorf("log: entry %s: %w", e.Serial, err)
			}
			e.Body = of
		}
		if !yield(e) {
			return nil
		}
	}
	if r.bad {
		return fmt.Errorf("log: %w", errMalformed)
	}
	return nil
}

// tail is the position after the frame.
func (f *frame) tail() (pubsub.Serial, error) {
	tail := f.prev
	err := f.each(noKinds, func(e *engine.Entry) bool {
		tail = e.Serial
		return true
	})
	return tail, err
}

// last is the clock of the newest serial of the frame.
func (f *frame) last() (ms int64, counter int) {
	var clock pubsub.Clock
	clock.Resume(f.ms, f.counter)
	ms, counter = f.ms, f.counter
	for range f.count - 1 {
		ms, counter = clock.Next(f.ms)
	}
	return ms, counter
}

// fields reads values one after another. After a fault all that it returns is zero.
type fields struct {
	b   []byte
	bad bool
}

func (r *fields) fail() {
	r.b, r.bad = nil, true
}

func (r *fields) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *fields) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *fields) varint() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *fields) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *fields) take(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return make([]byte, n)
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}
