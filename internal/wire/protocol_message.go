package wire

import (
	"strconv"
	"time"

	"letshare-server/internal/pubsub"
)

// Format is an encoding of ProtocolMessages and of REST bodies.
type Format uint8

// The formats. The names are those of the format parameter.
const (
	JSON Format = iota
	MsgPack
)

func (f Format) String() string {
	if f == MsgPack {
		return "msgpack"
	}
	return "json"
}

// Action says what a ProtocolMessage is (TR2).
type Action uint8

// The actions, with the numbers of the wire.
const (
	ActionHeartbeat Action = iota
	ActionAck
	ActionNack
	ActionConnect
	ActionConnected
	ActionDisconnect
	ActionDisconnected
	ActionClose
	ActionClosed
	ActionError
	ActionAttach
	ActionAttached
	ActionDetach
	ActionDetached
	ActionPresence
	ActionMessage
	ActionSync
	ActionAuth
	ActionActivate
	ActionObject
	ActionObjectSync
	ActionAnnotation

	// ActionUnknown stands for every number that does not fit an Action. Like the unnamed
	// ones below it, it is to be ignored (RTF1).
	ActionUnknown Action = 255
)

var actionNames = [...]string{
	"HEARTBEAT", "ACK", "NACK", "CONNECT", "CONNECTED", "DISCONNECT", "DISCONNECTED", "CLOSE",
	"CLOSED", "ERROR", "ATTACH", "ATTACHED", "DETACH", "DETACHED", "PRESENCE", "MESSAGE", "SYNC",
	"AUTH", "ACTIVATE", "OBJECT", "OBJECT_SYNC", "ANNOTATION",
}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "action " + strconv.Itoa(int(a))
}

// Flags is the flags field of ATTACH and ATTACHED (TR3a-h): the flags below, and the bits of
// pubsub.Mode.
type Flags uint32

// The flags that are not modes.
const (
	FlagHasPresence  Flags = 1 << 0
	FlagHasBacklog   Flags = 1 << 1
	FlagResumed      Flags = 1 << 2
	FlagTransient    Flags = 1 << 4
	FlagAttachResume Flags = 1 << 5
	FlagHasObjects   Flags = 1 << 7
)

// Has reports whether all bits of x are set.
func (f Flags) Has(x Flags) bool { return f&x == x }

// Modes returns the bits of f that are modes.
func (f Flags) Modes() pubsub.Mode { return pubsub.Mode(f) & pubsub.AllModes }

// ProtocolMessage is one frame of the protocol (TR4a-s). Absent strings are empty, absent
// numbers 0; where an absent field differs from a zero one there is a field that says so.
type ProtocolMessage struct {
	Action Action
	ID     string
	Auth   *Auth

	// HasChannel says that the key is there. The answer to a frame for the channel "" must
	// have it set, or the client takes it for one about the connection.
	Channel    string
	HasChannel bool

	ChannelSerial string

	// MsgSerial is never negative. It is written when it is not 0, when HasMsgSerial is set,
	// and always in an ACK or a NACK.
	MsgSerial    int64
	HasMsgSerial bool
	Count        int // frames covered by an ACK or a NACK, where it is always written

	ConnectionID      string
	ConnectionKey     string
	ConnectionDetails *ConnectionDetails
	Error             *ErrorInfo
	Flags             Flags
	Params            map[string]string
	Timestamp         int64 // ms since the epoch

	// The items. A nil slice is an absent key, but the array that belongs to the action
	// (presence in a SYNC, for example) is written even if it is nil.
	Messages    []*pubsub.Message
	Presence    []*pubsub.PresenceMessage
	Annotations []*pubsub.Annotation
	State       []*pubsub.ObjectMessage

	// Layout is how State is written. Reading understands all.
	Layout Layout

	// Res is what an ACK says of each frame that it covers. EntryRes is written as such, too,
	// behind it; decoding leaves it empty.
	Res      []PublishResult
	EntryRes []EntryResult

	// ItemErr is the first thing found wrong with an item. It is set by decoding only; the
	// frame is to be answered with a NACK that carries it, and its items are incomplete.
	ItemErr *pubsub.Error
}

// Reset makes pm as good as new, for DecodeInto.
func (pm *ProtocolMessage) Reset() { *pm = ProtocolMessage{} }

// Inherit completes the items with what they inherit from their frame: id, connectionId and
// timestamp (TM2a, TM2c, TM2f, TP3a, TP3d, TP3g). It is for those who receive deliveries; a
// server must see what its client said.
func (pm *ProtocolMessage) Inherit() {
	for i, m := range pm.Messages {
		pm.inherit(i, &m.ID, &m.ConnectionID, &m.Timestamp)
	}
	for i, m := range pm.Presence {
		pm.inherit(i, &m.ID, &m.ConnectionID, &m.Timestamp)
	}
	for i, a := range pm.Annotations {
		pm.inherit(i, &a.ID, &a.ConnectionID, &a.Timestamp)
	}
	for i, m := range pm.State {
		pm.inherit(i, &m.ID, &m.ConnectionID, &m.Timestamp)
	}
}

func (pm *ProtocolMessage) inherit(i int, id, connectionID *string, timestamp *int64) {
	if *id == "" && pm.ID != "" {
		*id = pubsub.ItemID(pm.ID, i)
	}
	if *connectionID == "" {
		*connectionID = pm.ConnectionID
	}
	if *timestamp == 0 {
		*timestamp = pm.Timestamp
	}
}

// Auth is what an AUTH frame carries (AD1, AD2).
type Auth struct {
	AccessToken string
}

// ConnectionDetails is what a client must know of its connection (CD2a-j). ClientID,
// ConnectionKey, ServerID and SiteCode are written when they are not empty, the others
// always. Durations are whole milliseconds on the wire.
type ConnectionDetails struct {
	ClientID             string
	ConnectionKey        string
	ConnectionStateTTL   time.Duration
	MaxIdleInterval      time.Duration
	MaxMessageSize       int // bytes
	MaxFrameSize         int // bytes
	MaxInboundRate       int // messages per second
	ServerID             string
	SiteCode             string
	ObjectsGCGracePeriod time.Duration
}

// PublishResult holds the serials of the items of one acknowledged frame (TR4s). An empty
// serial stands for null: that item was discarded by a conflation rule (PBR2a).
type PublishResult struct {
	Serials []string
}

// EntryResult is the PublishResult of a whole entry, without its serials being built: Entry.Item(i)
// for each i below Items, or null for each of them if Entry is empty.
type EntryResult struct {
	Entry pubsub.Serial
	Items int
}
