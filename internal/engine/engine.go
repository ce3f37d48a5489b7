package engine

import (
	"context"
	"errors"
	"time"

	"letshare-server/internal/pubsub"
)

// LiveWindow is how long the backlog of every channel and the ids of realtime publishes
// are kept: connectionStateTtl (120 s), 60 s to notice a loss, and a margin, since a
// client re-sends and resumes that late.
const LiveWindow = 240 * time.Second

// Errors of an engine. A caller asks with errors.Is.
var (
	// ErrUnavailable: the store cannot be reached; nothing happened; try again.
	ErrUnavailable = errors.New("engine: store unavailable")

	// ErrDeadline: the store got the Append after its deadline and refused it.
	ErrDeadline = errors.New("engine: deadline passed before the store applied it")

	// ErrUnknownOutcome: the Append may or may not have been applied. Appending the same
	// ID again finds out.
	ErrUnknownOutcome = errors.New("engine: outcome unknown")

	// ErrPrecondition: a record had another revision than the Append was made for;
	// nothing happened. Read the record again and make a new Append.
	ErrPrecondition = errors.New("engine: precondition failed")

	// ErrTooManyRecords: the Append would add records to a space that has as many as its
	// Bound allows; nothing happened.
	ErrTooManyRecords = errors.New("engine: too many records")

	// ErrRecordsTooLarge: the Append would make the records of a space larger than its Bound
	// allows; nothing happened.
	ErrRecordsTooLarge = errors.New("engine: records too large")

	// ErrFull: the byte budget is used up and nothing may be evicted; nothing happened.
	ErrFull = errors.New("engine: storage budget used up")

	// ErrGone: the position asked for is not in the log any more (it was trimmed).
	ErrGone = errors.New("engine: position is no longer in the log")

	// ErrForeign: the position was given by another incarnation of the store, whose log
	// is not at hand.
	ErrForeign = errors.New("engine: position of another epoch")

	// ErrClosed: the engine is closed.
	ErrClosed = errors.New("engine: closed")
)

// Kind says what the body of an entry is.
type Kind uint8

// The kinds of entries.
const (
	KindMessage Kind = 1 + iota
	KindPresence
	KindAnnotation
	KindObject
	KindUpdate // a message of before as it is after an update or a delete
	KindAppend // what was appended to a message of before

	// KindSummary and all above it are no kinds for Append. It is how a message is annotated by
	// now, which each node tells those who receive messages.
	KindSummary Kind = 15

	// KindMeta and all above it are what a node tells of the channel itself, in messages, to
	// those of its receivers who asked for it.
	KindMeta Kind = 16
)

// OfMessages reports whether entries of k are for those who receive messages.
func (k Kind) OfMessages() bool {
	return k == KindMessage || k == KindUpdate || k == KindAppend || k == KindSummary
}

// Entry is one place in a channel's order: an envelope, all of whose values the engine
// gives, around an immutable body. Entries are shared and never changed after Append.
type Entry struct {
	Kind      Kind
	Unlogged  bool // delivered live only: its Serial is no position
	Serial    pubsub.Serial
	Prev      pubsub.Serial // position of the entry before it in the channel's order, or the channel's first
	Timestamp int64         // ms since the epoch; never less than that of an entry before
	Body      *pubsub.Batch
}

// Position is where a subscriber stands in the channel's order after e.
func (e *Entry) Position() pubsub.Serial {
	if e.Unlogged {
		return e.Prev
	}
	return e.Serial
}

// ID names an Append, so that appending it again returns the first result and delivers
// nothing. The two spaces never meet: a client-supplied id cannot match a realtime one.
// The zero ID is never recognised. An Append may have both, when a realtime publish carries
// an id of the client's: then each of them alone makes a repeat.
type ID struct {
	// ConnectionID and MsgSerial identify a realtime publish. They are remembered for
	// LiveWindow.
	ConnectionID string
	MsgSerial    int64

	// Client is an id base that a client chose. It is remembered for at least 2 minutes.
	Client string
}

// RecordSpace separates the records of a channel by what they are.
type RecordSpace uint8

// The spaces of records.
const (
	RecordPresence   RecordSpace = 1 + iota // a member; key "connectionId:clientId"
	RecordVersion                           // a message's latest version; key its serial
	RecordAnnotation                        // a message's annotation state; key its serial
	RecordObject                            // an object's state; key its id
)

// RecordKey names a record within its channel.
type RecordKey struct {
	Space RecordSpace
	Key   string
}

// Record is a value that is replaced, not appended to.
type Record struct {
	RecordKey
	Value     []byte        // immutable; its first byte is the format version
	Revision  uint64        // grows with each put; at least 1, and never the same again for a key
	Serial    pubsub.Serial // of the entry that the put referred to; else empty
	Timestamp int64         // of that entry
}

// Precondition holds when the record has this revision; 0 means that it does not exist.
type Precondition struct {
	RecordKey
	Revision uint64
}

// Bound limits what the records of a space may grow to. An Append that does not make them
// more, or not larger, is never refused for it.
type Bound struct {
	Space      RecordSpace
	MaxRecords int   // 0: no bound
	MaxBytes   int64 // of keys and values; 0: no bound
}

// NoEntry is the Put.Entry of a put that refers to no entry.
const NoEntry = -1

// Put replaces or deletes a record as part of an Append.
type Put struct {
	RecordKey
	Value  []byte // nil deletes
	Entry  int    // index of the entry whose serial and timestamp are kept beside it, or NoEntry
	Expire time.Duration

	// Transient says that the record tells of a connection, such as a presence member. A
	// store that this process alone uses, and whose connections so end with the process, does
	// not keep it for longer, whatever the channel's Policy.
	Transient bool
}

// Append is one atomic step on one channel: its preconditions and bounds are checked, its entries
// added in order, its records put, its id noted, and its entries delivered to every
// subscribed node. A failed Append leaves nothing behind.
type Append struct {
	Channel       pubsub.ChannelID
	ID            ID
	Entries       []Draft
	Preconditions []Precondition
	Puts          []Put
	Bounds        []Bound

	// Deadline is when the store refuses the Append with ErrDeadline. Zero means none.
	Deadline time.Time
}

// Draft is an entry to add.
type Draft struct {
	Kind Kind
	Body *pubsub.Batch // handed over: immutable from now on

	// Unlogged entries are delivered to live subscribers only. They have a serial of
	// their own but are no position: the next entry's Prev skips them.
	Unlogged bool
}

// Result is the outcome of an Append.
type Result struct {
	// Serials has one serial per entry. It is empty when a repeated ID is so old that
	// only the fact of its being a repeat is remembered.
	Serials   []pubsub.Serial
	Timestamp int64 // ms since the epoch, common to all entries
	Repeated  bool  // the ID was known: this is the first result, and nothing was done
	Err       error
}

// Subscriber receives a channel's live entries on one node.
type Subscriber interface {
	// Deliver hands over entries in the channel's order, each exactly once while the
	// store is healthy. It is called with locks of the engine held, so it must only queue
	// and return: it must not block, do I/O or call the engine. The slice is the engine's,
	// the entries are shared.
	Deliver(entries []*Entry)

	// Flush is called after Deliver, without locks, when the engine delivers on a
	// goroutine of its own; what was queued should be sent now. An engine that delivers
	// within Append does not call it: whoever called Append knows that it is time.
	Flush()

	// Lost says that entries may be missing and cannot be read any more; delivery goes on
	// after position. It obeys the rules of Deliver, and a Flush follows it.
	Lost(position pubsub.Serial)
}

// Subscription ends live delivery.
type Subscription interface {
	// Unsubscribe returns after the last Deliver has returned. A second call does nothing.
	Unsubscribe()
}

// Late is implemented by a Subscription whose entries come by another way than those of Read, and
// so perhaps later.
type Late interface {
	// CatchUp makes what the log has be delivered soon, whatever becomes of the other way. It
	// returns at once.
	CatchUp()
}

// Query selects logged entries.
type Query struct {
	Kinds     KindSet       // empty: all
	Backwards bool          // newest first
	Limit     int           // entries at most; must be positive
	After     pubsub.Serial // exclusive; empty: from the oldest
	UpTo      pubsub.Serial // inclusive; empty: to the newest
	Before    pubsub.Serial // exclusive; empty: no bound; pages backwards use it
	Start     int64         // ms, inclusive; 0: no bound
	End       int64         // ms, inclusive; 0: no bound

	// Exact demands that the log is complete after After, that is, After is in the log or
	// is the boundary to which it was trimmed. Otherwise, also if it is empty or no serial
	// at all, Read fails with ErrGone, or with ErrForeign if After is of an epoch that the
	// log does not hold.
	Exact bool
}

// KindSet is a set of kinds.
type KindSet uint8

// Kinds returns the set of the given kinds.
func Kinds(kinds ...Kind) KindSet {
	var s KindSet
	for _, k := range kinds {
		s |= 1 << k
	}
	return s
}

// Has reports whether k is selected; an empty set selects all.
func (s KindSet) Has(k Kind) bool { return s == 0 || s&(1<<k) != 0 }

// Page is what Read found.
type Page struct {
	Entries []*Entry
	More    bool          // the limit cut the page; go on after (or before) the last entry
	Tail    pubsub.Serial // the channel's newest position at the time of reading
}

// Engine is one node's access to the store. All methods may be called at once from any
// goroutine.
type Engine interface {
	// Append submits a and returns; done is called exactly once, on any goroutine and
	// perhaps before Append returns, never with a lock held. Submissions of this node to
	// one channel apply in the order of the calls, and their done calls keep that order: if
	// one Append returned before another was called, it is applied first, and its done
	// returns before the other's is called. Calls that overlap have no order, and their
	// done calls may overlap too.
	Append(a *Append, done func(Result))

	// Subscribe begins live delivery of channel to s, starting after the returned
	// position: every logged entry up to it can be read, every later one arrives through
	// Deliver, none twice. A channel without entries gets a position too, which is valid
	// for Query.After from then on. One Subscriber per channel and node.
	//
	// If the store cannot be reached before ctx ends it returns ErrUnavailable, and no
	// delivery begins.
	Subscribe(ctx context.Context, channel pubsub.ChannelID, s Subscriber) (Subscription, pubsub.Serial, error)

	// Read returns logged entries.
	Read(ctx context.Context, channel pubsub.ChannelID, q Query) (Page, error)

	// Records returns the records of one space of a channel in the order of their keys,
	// starting after the given key, limit at most.
	Records(ctx context.Context, channel pubsub.ChannelID, space RecordSpace, after string, limit int) ([]Record, error)

	// Record returns one record; ok is false when there is none.
	Record(ctx context.Context, channel pubsub.ChannelID, key RecordKey) (r Record, ok bool, err error)

	// Run does the engine's background work (trimming, expiry) until ctx ends.
	Run(ctx context.Context) error

	// Ready reports whether the store can be used now.
	Ready(ctx context.Context) error
}

// Prompt is implemented by an Engine that has the outcome of an Append to some channels before
// Append returns, and their records without waiting.
type Prompt interface {
	Prompt(channel pubsub.ChannelID) bool
}

// Policy says how much of a channel's log is kept. LiveWindow is kept in any case, as far
// as the engine's budget allows.
type Policy struct {
	Retention  time.Duration // 0: LiveWindow only
	MaxEntries int           // 0: no bound
	MaxBytes   int64         // as the engine counts them, overheads included; 0: no bound

	// Last is for how long the channel's newest message is kept: the entry of KindMessage
	// that was logged last, with all that its batch has. 0: as long as any other. When the
	// log has dropped it Read finds it nevertheless, before the oldest entry of the log. It
	// is no position then: entries between it and the log are gone, so that nothing before
	// the log can be read with Exact.
	//
	// It counts against the budget, and is not dropped to make room for others. When there is
	// no room it may still be replaced by one that is not larger.
	Last time.Duration
}

// Persisted reports whether more is kept than resuming needs: an engine that outlives the
// process keeps the channel, and what it acknowledged is there after a restart.
func (p Policy) Persisted() bool { return p.Retention > 0 || p.Last > 0 }
