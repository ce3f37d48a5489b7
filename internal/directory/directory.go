package directory

import (
	"context"
	"encoding/json"
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

	// ErrTooMany: the store holds as many nonces, revocations or apps as it may; nothing was
	// kept.
	ErrTooMany = errors.New("directory: too many records")

	// ErrConflict: the record of an app has another revision than the caller's, or is gone.
	ErrConflict = errors.New("directory: changed by somebody else")
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

	// Grace is for how long its presence members stay when its node is gone, in whole
	// milliseconds below 2^32.
	Grace time.Duration
}

// Orphan is a connection whose node is gone. Its members have not left, and their grace time
// is over. If the record has expired since, only ID is known of the Connection.
type Orphan struct {
	Connection
	Channels []pubsub.ChannelID // where it may have members
}

// Revocation says that tokens of a key which were issued before some time are not to be
// accepted any more. Times are in whole milliseconds.
type Revocation struct {
	App          string // app id
	Key          string // name of the key, "appId.keyId"
	Target       string // which of its tokens: "clientId:bob", "revocationKey:group", "channel:name"
	IssuedBefore time.Time
	AppliesAt    time.Time // from when on
	Expires      time.Time // when no such token can be alive any more
}

// ChannelQuery selects active channels of an app.
type ChannelQuery struct {
	App    string
	Prefix string // only those whose names begin so
	After  string // only those whose names are greater
	Limit  int    // channels, at least 1
}

// App is the record of an app that was made at run time.
type App struct {
	ID string

	// Revision is another after each change, and greater than all that the app ever had: also
	// than those of an app with the same id that was deleted.
	Revision uint64

	// Data is a JSON value, into which the directory does not look. Nobody changes it.
	Data json.RawMessage
}

// OrphanClaim is for how long who got an orphan from Orphans is trusted to settle it.
const OrphanClaim = 30 * time.Second

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

	// Inhabit notes that a connection is about to have presence members in channels, so that
	// others can let them leave when its node is gone; Vacate that it has none there any more.
	// Noting twice does nothing. What is noted ends with Close, and some time after the record
	// has expired.
	Inhabit(ctx context.Context, id string, channels ...pubsub.ChannelID) error
	Vacate(ctx context.Context, id string, channels ...pubsub.ChannelID) error

	// Inhabited returns the channels of Inhabit, in any order.
	Inhabited(ctx context.Context, id string) ([]pubsub.ChannelID, error)

	// Orphans returns at most limit connections whose members are to leave, because their node
	// has been gone for their grace time and nobody has resumed them. Their records, if they were
	// Connected, are Disconnected since it was found, and may be resumed for as long as others
	// are. Each is given to one caller, which calls Reap, lets the members leave, and calls
	// Settle; if it does not for OrphanClaim, another gets it. With an error some may be returned
	// nevertheless.
	Orphans(ctx context.Context, limit int) ([]Orphan, error)

	// Settle ends that a connection is an orphan.
	Settle(ctx context.Context, id string) error

	// Returned yields when the others took this node for gone although it is not, or when the
	// store has lost what it knew of it: its connections have become orphans, or have no
	// records. The caller calls Reclaim for each that it has. What the node counts on channels is
	// known again by itself. The channel is never closed, and holds one notice.
	Returned() <-chan struct{}

	// Reclaim makes the record say again that this node owns a connection, with the caller's
	// Generation, Committed, App, GrantDigest and Grace, whatever has become of it: unless there
	// is a newer generation, which is ErrSuperseded. It reports whether its members had been
	// let go. It may be repeated.
	Reclaim(ctx context.Context, c Connection) (reaped bool, err error)

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

	// Touch notes that there was traffic on a channel, so that Channels lists it until then. It
	// never waits. A note may be lost, when too many are kept or the store cannot be reached,
	// and does not outlive the store.
	Touch(channel pubsub.ChannelID, until time.Time)

	// Channels returns the names of active channels, in the order of their bytes, and whether
	// there are more than q.Limit. Active is where a node counts something, and what was
	// touched. Metachannels, whose names begin with a bracket, are not listed.
	Channels(ctx context.Context, q ChannelQuery) (names []string, more bool, err error)

	// UseNonce notes that a nonce was used with a key, and keeps that until then or up to two
	// minutes longer. It reports false if the nonce was used with the key before. Of calls at
	// once only one gets true, on whichever node they are. It fails with ErrTooMany when the
	// store is full, since to forget one would let its request be used again.
	UseNonce(ctx context.Context, key, nonce string, until time.Time) (fresh bool, err error)

	// Revoke records revocations, all or none, and tells every node through Revoked. It fails
	// with ErrTooMany when there are too many that have not expired, of one app or of all.
	Revoke(ctx context.Context, revocations []Revocation) error

	// Revocations returns what was recorded after a position, in the order of recording, and
	// the position to go on from; an empty one is the beginning. What has expired, or says
	// less than what was recorded later, may be left out.
	Revocations(ctx context.Context, after string) (list []Revocation, position string, err error)

	// Revoked yields when there may be new revocations, however many. The channel is never
	// closed. A notice may be lost, so that whoever waits for it asks from time to time, too.
	Revoked() <-chan struct{}

	// PutApp records an app and returns its new revision. With revision 0 there must be none
	// with this id yet, otherwise the record is replaced if it has that revision: else it fails
	// with ErrConflict. With max > 0 it fails with ErrTooMany when a new one would be more than
	// max apps. Every node is told through AppsChanged. After ErrConflict, ErrTooMany and
	// ErrUnavailable nothing has changed; after another error that is unknown.
	PutApp(ctx context.Context, id string, revision uint64, data json.RawMessage, max int) (uint64, error)

	// DeleteApp removes the record of an app if it has this revision; errors and notices are
	// those of PutApp.
	DeleteApp(ctx context.Context, id string, revision uint64) error

	// Apps returns all records of apps, ordered by id.
	Apps(ctx context.Context) ([]App, error)

	// AppsRevision returns the newest revision that a record of an app has or had. It is another
	// after each change and each deletion, and asking for it costs little.
	AppsRevision(ctx context.Context) (uint64, error)

	// AppsChanged yields when records of apps may have changed, however many. The channel is
	// never closed. A notice may be lost, so that whoever waits for it asks from time to time,
	// too.
	AppsChanged() <-chan struct{}

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
