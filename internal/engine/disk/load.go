package disk

import (
	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/memory"
	"letshare-server/internal/pubsub"
)

// maxLoaded is how many frames one transaction reads, of any kind.
const maxLoaded = 4096

// Load says where a channel stands, and which ids were seen in LiveWindow. It implements
// memory.Backing.
func (b *backing) Load(id pubsub.ChannelID) (memory.Loaded, error) {
	s := (*Store)(b)
	var out memory.Loaded
	since := appendClock(nil, max(0, s.nowMillis()-engine.LiveWindow.Milliseconds()), 0)
	since = append(since, make([]byte, pubsub.EpochLength)...)
	for first, more := true, true; more; first = false {
		err := s.view(func(tx *bbolt.Tx) error {
			more = false
			m, ok, err := lookupMeta(tx, id)
			if err != nil || !ok {
				return err
			}
			frames := newFrames(tx, m.id[:])
			var f frame
			if first {
				out.Tail, out.Ms, out.Counter = m.base, m.ms, m.counter
				if k, v := frames.last(); k != nil {
					if err := f.decode(k, v, false); err != nil {
						return err
					}
					if out.Tail, err = f.tail(); err != nil {
						return err
					}
					out.Ms, out.Counter = f.last()
				}
			}
			n := 0
			for k, v := frames.seek(since); k != nil; k, v = frames.next() {
				if n++; n > maxLoaded {
					since, more = append(since[:0], k...), true
					return nil
				}
				if err := f.decode(k, v, true); err != nil {
					return err
				}
				if f.id != (engine.ID{}) {
					out.Notes = append(out.Notes, memory.Note{ID: f.id, Ms: f.ms, Counter: f.counter, Count: f.count, Epoch: f.epoch})
				}
			}
			return nil
		})
		if err != nil {
			return memory.Loaded{}, outcomeOf(err)
		}
	}
	return out, nil
}
