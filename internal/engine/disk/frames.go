package disk

import (
	"bytes"

	"go.etcd.io/bbolt"
)

// frames walks through the log of one channel, over its segments, within one transaction.
type frames struct {
	log     *bbolt.Bucket
	id      []byte
	segs    *bbolt.Cursor
	segment []byte // key of the segment that in is in
	in      *bbolt.Cursor
}

func newFrames(tx *bbolt.Tx, id []byte) *frames {
	log := tx.Bucket(bucketLog)
	return &frames{log: log, id: id, segs: log.Cursor()}
}

// enter goes into the segment with a key that segs has found. It reports false if that is
// none of the channel's.
func (f *frames) enter(key []byte) bool {
	if key == nil || !bytes.HasPrefix(key, f.id) {
		return false
	}
	f.segment, f.in = key, f.log.Bucket(key).Cursor()
	return true
}

// lastSegment goes into the newest segment.
func (f *frames) lastSegment() bool {
	after := append(append(make([]byte, 0, idLength+clockLength), f.id...), 0xff)
	key, _ := f.segs.Seek(after)
	if key == nil {
		key, _ = f.segs.Last()
	} else {
		key, _ = f.segs.Prev()
	}
	return f.enter(key)
}

// seek returns the first frame whose key is not before the given one, or nil.
func (f *frames) seek(from []byte) (key, value []byte) {
	// The frame may be in the segment that begins before it.
	start := append(append(make([]byte, 0, idLength+clockLength), f.id...), from[:clockLength]...)
	k, _ := f.segs.Seek(start)
	switch {
	case k == nil:
		k, _ = f.segs.Last()
	case !bytes.Equal(k, start):
		k, _ = f.segs.Prev()
	}
	if f.enter(k) {
		if key, value = f.in.Seek(from); key != nil {
			return key, value
		}
		k, _ = f.segs.Next()
	} else {
		k, _ = f.segs.Seek(f.id)
	}
	if !f.enter(k) {
		return nil, nil
	}
	return f.in.First()
}

// next returns the frame after the one returned last, which was not nil.
func (f *frames) next() (key, value []byte) {
	if key, value = f.in.Next(); key != nil {
		return key, value
	}
	if k, _ := f.segs.Next(); f.enter(k) {
		return f.in.First()
	}
	return nil, nil
}

// prev returns the frame before the one returned last, which was not nil.
func (f *frames) prev() (key, value []byte) {
	if key, value = f.in.Prev(); key != nil {
		return key, value
	}
	if k, _ := f.segs.Prev(); f.enter(k) {
		return f.in.Last()
	}
	return nil, nil
}

// last returns the newest frame, or nil.
func (f *frames) last() (key, value []byte) {
	if !f.lastSegment() {
		return nil, nil
	}
	return f.in.Last()
}

// before returns the last frame whose key is before the given one, or nil.
func (f *frames) before(limit []byte) (key, value []byte) {
	if key, _ := f.seek(limit); key == nil {
		return f.last()
	}
	return f.prev()
}
