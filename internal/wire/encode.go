package wire

import (
	"slices"
	"strconv"
	"time"

	"letshare-server/internal/pubsub"
)

// Append appends pm to dst as one frame.
//
// Items omit what they inherit: an id that is pm.ID and their index, a connectionId and a
// timestamp that equal the frame's. A caller that wants them on the items leaves them empty
// in the frame. JSON texts within (extras, summaries, metadata) must be valid and compact, as
// decoding makes them.
func Append(dst []byte, f Format, pm *ProtocolMessage) []byte {
	w := writer{b: dst, format: f}
	w.protocolMessage(pm)
	return w.b
}

// AppendAll appends frames to dst as the JSON array that comet sends and receives.
func AppendAll(dst []byte, pms ...*ProtocolMessage) []byte {
	w := writer{b: dst, format: JSON}
	array := w.array()
	for _, pm := range pms {
		w.elem()
		w.protocolMessage(pm)
	}
	w.endArray(array)
	return w.b
}

func (w *writer) protocolMessage(pm *ProtocolMessage) {
	object := w.object()
	w.key("action")
	w.uint(uint64(pm.Action))
	if pm.HasChannel || pm.Channel != "" {
		w.key("channel")
		w.str(pm.Channel)
	}
	w.optional("channelSerial", pm.ChannelSerial)
	answer := pm.Action == ActionAck || pm.Action == ActionNack // go and js need both numbers
	if answer || pm.HasMsgSerial || pm.MsgSerial != 0 {
		w.key("msgSerial")
		w.int(pm.MsgSerial)
	}
	if answer || pm.Count != 0 {
		w.key("count")
		w.int(int64(pm.Count))
	}
	w.optional("id", pm.ID)
	w.optional("connectionId", pm.ConnectionID)
	w.optional("connectionKey", pm.ConnectionKey)
	if pm.ConnectionDetails != nil {
		w.key("connectionDetails")
		w.connectionDetails(pm.ConnectionDetails)
	}
	if pm.Auth != nil {
		w.key("auth")
		auth := w.object()
		w.key("accessToken")
		w.str(pm.Auth.AccessToken)
		w.endObject(auth)
	}
	if pm.Error != nil {
		w.key("error")
		w.errorInfo(pm.Error)
	}
	if pm.Action == ActionAttached || pm.Flags != 0 {
		w.key("flags")
		w.uint(uint64(pm.Flags))
	}
	if pm.Params != nil {
		w.key("params")
		w.stringMap(pm.Params)
	}
	w.optionalInt("timestamp", pm.Timestamp)
	in := inherited{id: pm.ID, connectionID: pm.ConnectionID, timestamp: pm.Timestamp}
	if pm.Messages != nil || pm.Action == ActionMessage {
		w.key("messages")
		array := w.arrayOf(len(pm.Messages))
		for i, m := range pm.Messages {
			w.elem()
			v, serial := ownVersion(m)
			w.message(m, in.of(i, m.ID, m.ConnectionID, m.Timestamp, m.Serial), v, serial)
		}
		w.endArray(array)
	}
	// js ignores a SYNC without the array, and never ends it (RTP18b).
	if pm.Presence != nil || pm.Action == ActionPresence || pm.Action == ActionSync {
		w.key("presence")
		array := w.arrayOf(len(pm.Presence))
		for i, m := range pm.Presence {
			w.elem()
			w.presence(m, in.of(i, m.ID, m.ConnectionID, m.Timestamp, ""))
		}
		w.endArray(array)
	}
	if pm.Annotations != nil || pm.Action == ActionAnnotation {
		w.key("annotations")
		array := w.arrayOf(len(pm.Annotations))
		for i, a := range pm.Annotations {
			w.elem()
			w.annotation(a, in.of(i, a.ID, a.ConnectionID, a.Timestamp, a.Serial))
		}
		w.endArray(array)
	}
	if pm.State != nil || pm.Action == ActionObject || pm.Action == ActionObjectSync {
		w.key("state")
		array := w.arrayOf(len(pm.State))
		for i, m := range pm.State {
			w.elem()
			w.objectMessage(m, in.of(i, m.ID, m.ConnectionID, m.Timestamp, m.Serial), pm.Layout)
		}
		w.endArray(array)
	}
	if pm.Res != nil || pm.EntryRes != nil {
		w.key("res")
		w.results(pm.Res, pm.EntryRes)
	}
	w.endObject(object)
}

// optional writes a string unless it is empty.
func (w *writer) optional(name, s string) {
	if s != "" {
		w.key(name)
		w.str(s)
	}
}

// optionalInt writes an integer unless it is 0.
func (w *writer) optionalInt(name string, v int64) {
	if v != 0 {
		w.key(name)
		w.int(v)
	}
}

func (w *writer) millis(name string, d time.Duration) {
	w.key(name)
	w.int(d.Milliseconds())
}

func (w *writer) connectionDetails(d *ConnectionDetails) {
	object := w.object()
	w.optional("clientId", d.ClientID)
	w.optional("connectionKey", d.ConnectionKey)
	w.key("maxMessageSize")
	w.int(int64(d.MaxMessageSize))
	w.key("maxFrameSize")
	w.int(int64(d.MaxFrameSize))
	w.key("maxInboundRate")
	w.int(int64(d.MaxInboundRate))
	w.millis("connectionStateTtl", d.ConnectionStateTTL)
	w.millis("maxIdleInterval", d.MaxIdleInterval)
	w.optional("serverId", d.ServerID)
	w.optional("siteCode", d.SiteCode)
	w.millis("objectsGCGracePeriod", d.ObjectsGCGracePeriod)
	w.endObject(object)
}

func (w *writer) errorInfo(e *ErrorInfo) {
	object := w.object()
	w.key("code")
	w.int(int64(e.Code))
	w.key("statusCode")
	w.int(int64(e.StatusCode))
	w.key("message")
	w.str(e.Message)
	w.optional("href", e.Href)
	if e.Cause != nil {
		w.key("cause")
		w.errorInfo(e.Cause)
	}
	w.optional("serverId", e.ServerID)
	if e.Detail != nil {
		w.key("detail")
		w.stringMap(e.Detail)
	}
	w.endObject(object)
}

// stringMap writes the members in the order of their names, so that equal frames have equal
// bytes.
func (w *writer) stringMap(m map[string]string) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	object := w.object()
	for _, name := range names {
		w.anyKey([]byte(name))
		w.str(m[name])
	}
	w.endObject(object)
}

func (w *writer) results(res []PublishResult, entries []EntryResult) {
	array := w.arrayOf(len(res) + len(entries))
	for _, p := range res {
		w.elem()
		object := w.object()
		w.key("serials")
		serials := w.arrayOf(len(p.Serials))
		for _, s := range p.Serials {
			w.elem()
			if s == "" {
				w.null()
			} else {
				w.str(s)
			}
		}
		w.endArray(serials)
		w.endObject(object)
	}
	for _, p := range entries {
		w.elem()
		object := w.object()
		w.key("serials")
		serials := w.arrayOf(p.Items)
		for i := range p.Items {
			w.elem()
			if p.Entry == "" {
				w.null()
			} else {
				w.joined(ref{string(p.Entry), i}, serialIndexDigits)
			}
		}
		w.endArray(serials)
		w.endObject(object)
	}
	w.endArray(array)
}

// inherited is what a frame says for all of its items.
type inherited struct {
	id           string
	connectionID string
	timestamp    int64
}

// identity is what an item says of itself, be it its own or what its place gives it.
type identity struct {
	id           ref
	connectionID string
	timestamp    int64
	serial       ref
}

// ref is a string, or a base and an index that are joined when they are written.
type ref struct {
	s     string
	index int // negative: s is all
}

func whole(s string) ref { return ref{s, -1} }

// of returns what the index-th item says of itself: its own, except what it inherits.
func (in inherited) of(index int, id, connectionID string, timestamp int64, serial string) identity {
	x := identity{whole(id), connectionID, timestamp, whole(serial)}
	if isItemID(id, in.id, index) {
		x.id.s = ""
	}
	if connectionID == in.connectionID {
		x.connectionID = ""
	}
	if timestamp == in.timestamp {
		x.timestamp = 0
	}
	return x
}

// isItemID reports whether id is pubsub.ItemID(base, index), without building it.
func isItemID(id, base string, index int) bool {
	n := len(base)
	if base == "" || len(id) <= n || id[n] != ':' || id[:n] != base {
		return false
	}
	var digits [20]byte
	return id[n+1:] == string(strconv.AppendInt(digits[:0], int64(index), 10))
}

// id writes an item's id.
func (w *writer) id(x ref) {
	if x.s == "" {
		return
	}
	w.key("id")
	w.joined(x, 1)
}

// joined writes a reference with an index of so many digits at least.
func (w *writer) joined(x ref, digits int) {
	if x.index < 0 {
		w.str(x.s)
		return
	}
	var buf [128]byte
	b := append(append(buf[:0], x.s...), ':')
	for limit := 10; digits > 1; digits-- {
		if x.index < limit {
			b = append(b, "00"[:digits-1]...)
			break
		}
		limit *= 10
	}
	w.text(strconv.AppendInt(b, int64(x.index), 10))
}

// message writes m. Its version is v, with versionSerial instead of its own serial; there is
// none if v is nil.
func (w *writer) message(m *pubsub.Message, x identity, v *pubsub.Version, versionSerial ref) {
	object := w.object()
	w.id(x.id)
	if m.Name != "" || m.EmptyName {
		w.key("name")
		w.str(m.Name)
	}
	w.data(m.Data, m.Encoding)
	w.optional("clientId", m.ClientID)
	w.optional("connectionId", x.connectionID)
	w.optionalInt("timestamp", x.timestamp)
	w.optionalJSON("extras", m.Extras)
	w.key("action")
	w.uint(uint64(m.Action))
	if x.serial.s != "" {
		w.key("serial")
		w.joined(x.serial, serialIndexDigits)
	}
	if v != nil {
		w.key("version")
		w.version(v, versionSerial)
	}
	if m.Summary != nil {
		w.key("annotations")
		annotations := w.object()
		w.key("summary")
		w.json(m.Summary)
		w.endObject(annotations)
	}
	w.endObject(object)
}

// ownVersion is the version of m as it stands, for message.
func ownVersion(m *pubsub.Message) (*pubsub.Version, ref) {
	if m.Version == nil {
		return nil, ref{}
	}
	return m.Version, whole(m.Version.Serial)
}

func (w *writer) version(v *pubsub.Version, serial ref) {
	object := w.object()
	if serial.s != "" {
		w.key("serial")
		w.joined(serial, serialIndexDigits)
	}
	w.optionalInt("timestamp", v.Timestamp)
	w.optional("clientId", v.ClientID)
	w.optional("description", v.Description)
	w.optionalJSON("metadata", v.Metadata)
	w.endObject(object)
}

// optionalJSON writes an object that is kept as JSON text, unless there is none.
func (w *writer) optionalJSON(name string, text []byte) {
	if text != nil {
		w.key(name)
		w.json(text)
	}
}

func (w *writer) presence(m *pubsub.PresenceMessage, x identity) {
	object := w.object()
	w.key("action")
	w.uint(uint64(m.Action))
	w.id(x.id)
	w.optional("clientId", m.ClientID)
	w.optional("connectionId", x.connectionID)
	w.data(m.Data, m.Encoding)
	w.optionalInt("timestamp", x.timestamp)
	w.optionalJSON("extras", m.Extras)
	w.endObject(object)
}

func (w *writer) annotation(a *pubsub.Annotation, x identity) {
	object := w.object()
	w.key("action")
	w.uint(uint64(a.Action))
	w.id(x.id)
	w.optional("type", a.Type)
	w.optional("name", a.Name)
	w.optional("clientId", a.ClientID)
	w.optional("connectionId", x.connectionID)
	if a.Count != nil {
		w.key("count")
		w.int(*a.Count)
	}
	w.data(a.Data, a.Encoding)
	w.optional("messageSerial", a.MessageSerial)
	if x.serial.s != "" {
		w.key("serial")
		w.joined(x.serial, serialIndexDigits)
	}
	w.optionalInt("timestamp", x.timestamp)
	w.optionalJSON("extras", a.Extras)
	w.endObject(object)
}

// AppendMessage appends m with all of its fields, as REST shows it.
func AppendMessage(dst []byte, f Format, m *pubsub.Message) []byte {
	w := writer{b: dst, format: f}
	v, serial := ownVersion(m)
	w.message(m, inherited{}.of(0, m.ID, m.ConnectionID, m.Timestamp, m.Serial), v, serial)
	return w.b
}

// AppendMessages appends an array of messages with all of their fields.
func AppendMessages(dst []byte, f Format, messages []*pubsub.Message) []byte {
	return AppendArray(dst, f, len(messages), func(dst []byte, i int) []byte {
		return AppendMessage(dst, f, messages[i])
	})
}

// AppendPresenceMessage appends m with all of its fields (RSP5).
func AppendPresenceMessage(dst []byte, f Format, m *pubsub.PresenceMessage) []byte {
	w := writer{b: dst, format: f}
	w.presence(m, inherited{}.of(0, m.ID, m.ConnectionID, m.Timestamp, ""))
	return w.b
}

// AppendPresence appends an array of presence messages with all of their fields.
func AppendPresence(dst []byte, f Format, messages []*pubsub.PresenceMessage) []byte {
	return AppendArray(dst, f, len(messages), func(dst []byte, i int) []byte {
		return AppendPresenceMessage(dst, f, messages[i])
	})
}

// AppendAnnotation appends a with all of its fields.
func AppendAnnotation(dst []byte, f Format, a *pubsub.Annotation) []byte {
	w := writer{b: dst, format: f}
	w.annotation(a, inherited{}.of(0, a.ID, a.ConnectionID, a.Timestamp, a.Serial))
	return w.b
}

// AppendAnnotations appends an array of annotations with all of their fields.
func AppendAnnotations(dst []byte, f Format, annotations []*pubsub.Annotation) []byte {
	return AppendArray(dst, f, len(annotations), func(dst []byte, i int) []byte {
		return AppendAnnotation(dst, f, annotations[i])
	})
}

// AppendArray appends an array of n elements, each appended by elem.
func AppendArray(dst []byte, f Format, n int, elem func(dst []byte, i int) []byte) []byte {
	w := writer{b: dst, format: f}
	array := w.arrayOf(n)
	for i := range n {
		w.elem()
		w.b = elem(w.b, i)
	}
	w.endArray(array)
	return w.b
}

// AppendString appends s as a string. What is not UTF-8 in it is replaced.
func AppendString(dst []byte, f Format, s []byte) []byte {
	w := writer{b: dst, format: f}
	w.text(s)
	return w.b
}

// AppendJSON appends what a JSON text says, which must be valid and compact.
func AppendJSON(dst []byte, f Format, text []byte) []byte {
	w := writer{b: dst, format: f}
	w.json(text)
	return w.b
}

// AppendErrorInfo appends e itself, as it stands in a frame.
func AppendErrorInfo(dst []byte, f Format, e *ErrorInfo) []byte {
	w := writer{b: dst, format: f}
	w.errorInfo(e)
	return w.b
}

// AppendError appends the body of a REST error, {"error":{…}}.
func AppendError(dst []byte, f Format, e *ErrorInfo) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("error")
	w.errorInfo(e)
	w.endObject(object)
	return w.b
}
