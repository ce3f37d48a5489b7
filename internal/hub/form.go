package hub

import (
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// Form turns entries into the bytes of one kind of receiver: a codec, the channel's name as
// it was attached, and the frame around it. Forms are compared with ==, so that equal forms
// share their bytes: make it a small comparable struct.
type Form interface {
	// AppendFrames appends the frames of e to dst and one Unit per frame to units, with
	// Entry set to index. It may append nothing. It must be callable from any goroutine.
	AppendFrames(dst []byte, units []Unit, e *engine.Entry, index int) ([]byte, []Unit)
}

// AllItems is the Unit.Item of a frame that carries all items of its entry.
const AllItems = -1

// Unit is one frame within the joined frames of several entries.
type Unit struct {
	Entry int // index of the entry that it was made from
	Item  int // index of the item in the entry's body, or AllItems
	End   int // where the frame ends in the buffer; it begins at the End before it
}

// Receiver is where an attachment's frames go.
type Receiver interface {
	// Receive takes shared, immutable bytes of whole frames. With more set, further bytes
	// follow at once, and the receiver may wait with sending. It must not block.
	Receive(frames []byte, more bool)

	// Lost says that entries may be missing and that delivery goes on after position. The
	// receiver tells its client (RTL12). It must not block.
	Lost(position pubsub.Serial)
}

// Limiter is a Receiver that may refuse what it would be sent.
type Limiter interface {
	Receiver

	// Allow is asked before items (messages and the like) are handed over, with no lock
	// held. They are dropped if it says no; it sees to it that the client is told.
	Allow(items int) bool
}
