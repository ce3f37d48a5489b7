package objects

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"letshare-server/internal/pubsub"
)

const storedFormat = 1

const (
	flagCreated = 1 << iota
	flagDeleted
)

var errStored = errors.New("objects: a stored object is not readable")

// pending stands for the serial of an entry that the engine has not given yet. It comes after all
// that there are.
const pending = pubsub.Serial("~")

// Pending is the serial of the index-th operation of an entry that is about to be made, for Apply.
// An object with such serials is to be stored beside the entry, which gives them.
func Pending(index int) string { return pending.Item(index) }

// Encode makes the stored form of an object.
func (o *Object) Encode() []byte {
	n := 64
	for i := range o.entries {
		n += len(o.entries[i].Key) + len(o.entries[i].Data.Text) + 48
	}
	b := make([]byte, 0, n)
	flags := byte(0)
	if o.Created {
		flags |= flagCreated
	}
	if o.Deleted {
		flags |= flagDeleted
	}
	b = append(b, storedFormat, flags)
	b = binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(b, o.DeletedAt), o.OrphanedAt), o.PutAt)
	b = binary.AppendUvarint(b, uint64(len(o.sites)))
	for _, s := range o.sites {
		b = appendSerial(appendText(b, s.Site), s.Serial)
	}
	if !o.IsMap {
		return appendFloat(b, o.Count)
	}
	b = binary.AppendUvarint(appendSerial(b, o.clearSerial), uint64(len(o.entries)))
	for i := range o.entries {
		e := &o.entries[i]
		b = append(appendText(b, e.Key), byte(e.Data.Type))
		b = appendSerial(b, e.Serial)
		switch e.Data.Type {
		case pubsub.NoValue:
			b = binary.AppendVarint(b, e.Timestamp)
		case pubsub.BooleanValue:
			truth := byte(0)
			if e.Data.True {
				truth = 1
			}
			b = append(b, truth)
		case pubsub.NumberValue:
			b = appendFloat(b, e.Data.Number)
		default:
			b = appendText(b, e.Data.Text)
		}
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSerial(b []byte, s string) []byte {
	return appendText(b, strings.TrimPrefix(s, string(pending)))
}

func appendFloat(b []byte, f float64) []byte {
	return binary.BigEndian.AppendUint64(b, math.Float64bits(f))
}

// Decode reads the stored form of an object. serial and timestamp are those of the entry that it
// was stored beside. It keeps nothing of value.
func Decode(id string, value []byte, serial pubsub.Serial, timestamp int64) (*Object, error) {
	o, err := New(id)
	if err != nil {
		return nil, errStored
	}
	d := decoder{b: value, serial: string(serial)}
	if d.byte() != storedFormat {
		return nil, errStored
	}
	flags := d.byte()
	o.Created, o.Deleted = flags&flagCreated != 0, flags&flagDeleted != 0
	o.DeletedAt, o.OrphanedAt, o.PutAt = d.varint(), d.varint(), d.varint()
	if o.PutAt == 0 {
		o.PutAt = timestamp
	}
	if o.Deleted && o.DeletedAt == 0 {
		o.DeletedAt = timestamp
	}
	for range d.count() {
		o.sites = append(o.sites, pubsub.SiteSerial{Site: d.text(), Serial: d.serialText()})
	}
	if !o.IsMap {
		o.Count = d.float()
	} else {
		o.clearSerial = d.serialText()
		n := d.count()
		o.entries = make([]pubsub.ObjectEntry, 0, n)
		for range n {
			e := pubsub.ObjectEntry{Key: d.text()}
			e.Data.Type = pubsub.DataType(d.byte())
			e.Serial = d.serialText()
			switch e.Data.Type {
			case pubsub.NoValue:
				e.Tombstone = true
				if e.Timestamp = d.varint(); e.Timestamp == 0 {
					e.Timestamp = timestamp
				}
			case pubsub.BooleanValue:
				e.Data.True = d.byte() != 0
			case pubsub.NumberValue:
				e.Data.Number = d.float()
			case pubsub.ObjectValue, pubsub.BytesValue, pubsub.StringValue, pubsub.JSONValue:
				e.Data.Text = d.text()
			default:
				d.fail()
			}
			if i := len(o.entries); i > 0 && o.entries[i-1].Key >= e.Key {
				d.fail()
			}
			if d.failed {
				break
			}
			o.entries = append(o.entries, e)
		}
	}
	if d.failed || len(d.b) > 0 || flags&^(flagCreated|flagDeleted) != 0 {
		return nil, errStored
	}
	return o, nil
}

// decoder reads what Encode has written. After a failure all it reads is zero.
type decoder struct {
	b      []byte
	serial string
	failed bool
}

func (d *decoder) fail() { d.failed, d.b = true, nil }

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) float() float64 {
	if b := d.take(8); b != nil {
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many of something follow, each of which takes two bytes at least.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.b)/2) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) text() string { return string(d.take(d.uvarint())) }

func (d *decoder) serialText() string {
	s := d.text()
	if strings.HasPrefix(s, ":") {
		return d.serial + s
	}
	return s
}
