package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/body"
	"letshare-server/internal/pubsub"
)

// position is a serial in three parts.
type position struct {
	ms      int64
	counter int
	epoch   string
}

func (p position) serial() pubsub.Serial { return pubsub.MakeSerial(p.ms, p.counter, p.epoch) }

// after reports whether p comes after q; the epochs do not count.
func (p position) after(q position) bool {
	return p.ms > q.ms || p.ms == q.ms && p.counter > q.counter
}

func (p position) streamID() string {
	return strconv.FormatInt(p.ms, 10) + "-" + strconv.Itoa(p.counter)
}

func parsePosition(s pubsub.Serial) (position, error) {
	ms, counter, epoch, err := pubsub.ParseSerial(string(s))
	return position{ms, counter, epoch}, err
}

var errMalformed = errors.New("engine: malformed data in Redis")

// reader takes binary data apart. After an error all it returns is zero.
type reader struct {
	b   string
	err error
}

func (r *reader) take(n int) string {
	if len(r.b) < n {
		r.err = errMalformed
		r.b = ""
		return ""
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) uint(size int) (n uint64) {
	s := r.take(size)
	for i := range len(s) {
		n = n<<8 | uint64(s[i])
	}
	return n
}

func (r *reader) int(size int) int { return int(r.uint(size)) }

func (r *reader) position() (p position) {
	p.ms = int64(r.uint(6))
	p.counter = r.int(3)
	p.epoch = r.take(pubsub.EpochLength)
	return p
}

// entryHeader is the bytes before an entry's body.
const entryHeader = 1 + 8 + 17 + 1 + 1

// entry reads the value of an entry of the log.
func (r *reader) entry(ms int64, counter int) (e *engine.Entry, prev position) {
	if v := r.uint(1); r.err == nil && v != 1 {
		r.err = fmt.Errorf("engine: an entry in Redis has version %d, known is 1", v)
	}
	epoch := r.take(pubsub.EpochLength)
	prev = r.position()
	unlogged := r.uint(1) == 1
	kind := engine.Kind(r.uint(1))
	if r.err != nil {
		return nil, prev
	}
	batch, err := body.Decode([]byte(r.b))
	if err != nil {
		r.err = err
		return nil, prev
	}
	r.b = ""
	return &engine.Entry{
		Kind:      kind,
		Unlogged:  unlogged,
		Serial:    pubsub.MakeSerial(ms, counter, epoch),
		Prev:      prev.serial(),
		Timestamp: ms,
		Body:      batch,
	}, prev
}

// draft is what the script gets of an entry.
func draft(d *engine.Draft) string {
	b := make([]byte, 2, 256)
	if d.Unlogged {
		b[0] = 1
	}
	b[1] = byte(d.Kind)
	return string(body.Append(b, d.Body))
}

// The integers of the scripts have as many bytes as they need, the highest first.

func appendUint(b []byte, n int64, size int) []byte {
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

const maxMillis = 1<<48 - 1

// millis is t for a script; 0 means never, and nothing is later than maxMillis.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return min(max(t.UnixMilli(), 1), maxMillis)
}

// callHeader is the first argument of the append script.
type callHeader struct {
	plain      bool // nothing but entries, and ids of connections or none
	policy     engine.Policy
	appends    int
	clientKeys int
	recordKeys [4]int
	expiryKey  int
	lastKey    int
}

func (h *callHeader) bytes() string {
	b := make([]byte, 1, 48)
	if h.plain {
		b[0] = 1
	}
	b = appendUint(b, h.policy.Retention.Milliseconds(), 6)
	b = appendUint(b, int64(min(h.policy.MaxEntries, math.MaxUint32)), 4)
	b = appendUint(b, min(h.policy.MaxBytes, maxMillis), 6)
	b = appendUint(b, h.policy.Last.Milliseconds(), 6)
	b = binary.BigEndian.AppendUint16(b, uint16(h.appends))
	b = binary.BigEndian.AppendUint16(b, uint16(h.clientKeys))
	for _, k := range h.recordKeys {
		b = binary.BigEndian.AppendUint16(b, uint16(k))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(h.expiryKey))
	return string(binary.BigEndian.AppendUint16(b, uint16(h.lastKey)))
}

// The flags of an Append in a call.
const (
	flagAgain  = 1 // it may have been applied before
	flagOwn    = 2 // its id is the engine's own
	flagClient = 4 // a client's id follows
)

// The states of an Append in the script's answer.
const (
	statusApplied = iota
	statusRepeated
	statusDeadline
	statusPrecondition
	statusTooMany
	statusTooLarge
)

// result reads the outcome of one Append.
func (r *reader) result() (out engine.Result) {
	status := r.uint(1)
	ms, counter, count := int64(r.uint(6)), r.int(3), r.int(2)
	epoch := r.take(pubsub.EpochLength)
	switch status {
	case statusApplied, statusRepeated:
		out.Timestamp, out.Repeated = ms, status == statusRepeated
		if count > 0 {
			out.Serials = make([]pubsub.Serial, count)
			for i := range out.Serials {
				out.Serials[i] = pubsub.MakeSerial(ms, counter+i, epoch)
			}
		}
	case statusDeadline:
		out.Err = engine.ErrDeadline
	case statusPrecondition:
		out.Err = engine.ErrPrecondition
	case statusTooMany:
		out.Err = engine.ErrTooManyRecords
	case statusTooLarge:
		out.Err = engine.ErrRecordsTooLarge
	default:
		out.Err = errMalformed
	}
	return out
}

// record reads the value of a record.
func (r *reader) record(key engine.RecordKey) (rec engine.Record) {
	if v := r.uint(1); r.err == nil && v != 1 {
		r.err = fmt.Errorf("engine: a record in Redis has version %d, known is 1", v)
	}
	rec.RecordKey = key
	rec.Revision = r.uint(8)
	r.take(6)
	if p := r.position(); p.ms != 0 {
		rec.Serial, rec.Timestamp = p.serial(), p.ms
	}
	rec.Value = []byte(r.b)
	return rec
}
