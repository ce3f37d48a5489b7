package directory

import (
	"context"
	"errors"
	"time"

	"letshare-server/internal/pubsub"
)

// Errors of a directory. A caller asks with errors.Is.
var (
	// ErrUnavailable: the store cannot be reached; nothing happened; try again.
	ErrUnavailable = errors.New("directory: store unavailable")

	// ErrNotFound: there is no such record; it expired or was closed.
	ErrNotFound = errors.New("directory: no such connection")

	// ErrSuperseded: the record has a newer generation than the caller's.
	ErrSuperseded = errors.New("directory: superseded by a newer generation")

	// ErrExists: a record with that id exists.
	ErrExists = errors.New("directory: connection exists")

	// ErrFull: the channel has as many connections, or the app as many connections, as the
	// caller allows.
	ErrFull = errors.New("directory: full")
)

// Node names one process: a node that restarts is another Node with the same Name.
type Node struct {
	Name        string
	Incarnation string
}

// State says where a connection is in its life.
type State uint8

// The states of a connection.
const (
	Connected    State = 1 + iota // a transport is open
	Disconnected                  // no transport; may be resumed until the deadline
	Reaped                        // as Disconnected, and its presence members have left
)

// Connection is the record of one connection (the spec's Connection, which outlives its
// transports).
//
// Generation counts its transports, starting at 1; the connectionKey carries it. Resume
// makes generation g+1 from g. Until Commit(g+1), a resume from g is possible again,
// because the CONNECTED that carried the new key may have been lost, and so may the next.
type Connection struct {
	ID          string
	App         string
	Generation  uint64
	Committed   uint64 // the newest generation whose key is known to have arrived
	Owner       Node
	State       State
	Deadline    time.Time // when a Disconnected or Reaped record expires; else zero
	GrantDigest string    // what a resume must match: key lineage and clientId
}

// Directory is one node's access to the shared records.
type Directory interface {
	// Create records a new connection of this node with generation 1, committed.
	// It fails with ErrExists when the id is taken. With max > 0 it fails with ErrFull when
	// max connections of the app are Connected, on all nodes. A Resume is never refused for
	// that: the connection was admitted before.
	Create(ctx context.Context, c Connection, max int) error

	// Lookup returns the record, or ErrNotFound.
	Lookup(ctx context.Context, id string) (Connection, error)

	// Resume moves the connection to owner by compare-and-swap: it succeeds when from is
	// the record's generation, or one before it that is not older than Committed. The
	// returned record has the new generation, owner as its Owner, is Connected, and keeps
	// in reaped whether its members had already left. The node that held it, be it owner
	// itself, is told through Superseded. Errors: ErrNotFound, also for a generation that
	// never was; ErrSuperseded.
	Resume(ctx context.Context, id string, from uint64, owner Node) (c Connection, reaped bool, err error)

	// Commit notes that the client uses generation: older keys are dead from now on. If
	// there is a newer generation it fails with ErrSuperseded and changes nothing.
	Commit(ctx context.Context, id string, generation uint64) error

	// Disconnect notes that the transport of generation is gone; the record expires at
	// deadline. It fails with ErrSuperseded when a newer generation exists.
	Disconnect(ctx context.Context, id string, generation uint64, deadline time.Time) error

	// Reap marks a Disconnected connection as Reaped, if generation is still the newest:
	// the caller may then let its members leave. It may be repeated, since a caller may
	// have ended before they left. It fails with ErrSuperseded if the connection was
	// resumed meanwhile, or is Connected for another reason.
	Reap(ctx context.Context, id string, generation uint64) error

	// Close removes the record, if generation is still the newest.
	Close(ctx context.Context, id string, generation uint64) error

	// Join counts a connection of the node that attaches to a channel: add is what its modes
	// make it, or, if it is attached already, what they make it more. It returns the channel's
	// occupancy over all nodes. With max > 0 it fails with ErrFull, and changes nothing, when
	// there would be more than max connections.
	Join(ctx context.Context, channel pubsub.ChannelID, node Node, add pubsub.Occupancy, max int) (pubsub.Occupancy, error)

	// Adjust changes what the node counts on a channel, when one of its connections leaves it
	// or changes its modes. Adjustments commute. No count of a node falls below zero, and a
	// node that counts nothing there, for instance because a later life of it has begun,
	// changes nothing.
	Adjust(ctx context.Context, channel pubsub.ChannelID, node Node, by pubsub.Occupancy) error

	// Occupancy returns a channel's occupancy over all nodes, without the presence members:
	// they are records of the engine. After it this node is told of the next change again, if
	// it watches the channel.
	Occupancy(ctx context.Context, channel pubsub.ChannelID) (pubsub.Occupancy, error)

	// Watch begins or ends that this node is told, through Changed, when the occupancy of a
	// channel changes, be it by itself. Beginning or ending twice does nothing.
	Watch(ctx context.Context, channel pubsub.ChannelID, on bool) error

	// Changed yields the channels that this node watches whose occupancy has changed. A
	// channel that was told of is not told of again until Occupancy was called for it, so
	// that it can be late but not many. The channel is never closed; it is bounded, and a
	// notice that does not fit comes with the next change.
	Changed() <-chan pubsub.ChannelID

	// Superseded yields the connections of this node that another generation took over.
	// The caller closes their transports silently. The channel is never closed; it is
	// bounded, and what does not fit is repaired by the next operation on that
	// connection, which fails with ErrSuperseded.
	Superseded() <-chan Supersession

	// Run does the background work (expiry of records) until ctx ends.
	Run(ctx context.Context) error
}

// Supersession tells a node that it no longer owns a connection.
type Supersession struct {
	ID         string
	Generation uint64 // the generation that was replaced
}
