package wire

import (
	"encoding/base64"
	"math"

	"letshare-server/internal/pubsub"
)

// Reading ObjectMessages. Both layouts are understood at once: that of protocol version 6, which has
// a field of its own for each action, and the one before, which has mapOp, counterOp, map and
// counter.

func (r *reader) state() []*pubsub.ObjectMessage {
	it, ok := r.enterItems("state")
	if !ok {
		return nil
	}
	all := make([]*pubsub.ObjectMessage, 0, it.room())
	for r.nextItem(&it) {
		all = append(all, r.objectMessage())
	}
	return all
}

func (r *reader) objectMessage() *pubsub.ObjectMessage {
	m := new(pubsub.ObjectMessage)
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "id":
			m.ID = r.itemID()
		case "clientId":
			m.ClientID = r.itemClientID()
		case "connectionId":
			m.ConnectionID = r.itemString("connectionId", pubsub.CodeInvalidConnectionID)
		case "timestamp":
			m.Timestamp = r.itemInteger("timestamp")
		case "extras":
			m.Extras = r.itemObject("extras", pubsub.CodeInvalidExtras)
		case "operation":
			if r.isObject("operation") {
				m.Operation = r.objectOperation()
			}
		case "object":
			if r.isObject("object") {
				m.State = r.objectState()
			}
		case "serial":
			m.Serial = r.objectString("serial")
		case "serialTimestamp":
			m.SerialTimestamp = r.itemInteger("serialTimestamp")
		case "siteCode":
			m.SiteCode = r.objectString("siteCode")
		default:
			r.skip()
		}
	}
	return m
}

// isObject reports whether the next value is an object, and skips it if it is not.
func (r *reader) isObject(field string) bool {
	if r.peek() == kindObject {
		return true
	}
	r.bad(pubsub.CodeInvalidObject, field, "an object")
	return false
}

func (r *reader) objectString(field string) string {
	return r.itemString(field, pubsub.CodeInvalidObject)
}

func (r *reader) objectBool(field string) bool {
	if r.peek() != kindBool {
		r.bad(pubsub.CodeInvalidObject, field, "a boolean")
		return false
	}
	return r.bool()
}

// objectNumber reads a number that is finite as a float64.
func (r *reader) objectNumber(field string) float64 {
	if r.peek() != kindNumber {
		r.bad(pubsub.CodeInvalidObject, field, "a number")
		return 0
	}
	f := r.number().float64()
	if math.IsNaN(f) || math.IsInf(f, 0) {
		r.badItem(pubsub.CodeInvalidObject, "%s must be a finite number", field)
		return 0
	}
	return f + 0 // there is no -0
}

// payloads is what an operation has for each kind of action, whichever it is for.
type payloads struct {
	create, created      bool // mapCreate; counterCreate
	semantics            uint8
	entries              []pubsub.ObjectEntry
	count                float64
	set, remove, op, inc bool // mapSet; mapRemove; mapOp; counterInc or counterOp
	key, removed, opKey  string
	value, opValue       pubsub.ObjectData
	number               float64
	initialValue, nonce  string
}

// objectOperation reads an operation, of which the caller knows that it is an object.
func (r *reader) objectOperation() *pubsub.ObjectOperation {
	op := new(pubsub.ObjectOperation)
	var p payloads
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "action":
			op.Action = pubsub.ObjectUnknown
			if n := r.itemInteger("operation.action"); n >= 0 && n < int64(pubsub.ObjectUnknown) {
				op.Action = pubsub.ObjectAction(n)
			}
		case "objectId":
			op.ObjectID = r.objectString("objectId")
		default:
			r.operationPart(&p)
		}
	}
	p.give(op)
	return op
}

// operationPart reads the value of a key that is none of an operation's own.
func (r *reader) operationPart(p *payloads) {
	switch string(r.key) {
	case "mapCreate", "map":
		if r.isObject("mapCreate") {
			p.create = true
			r.mapCreate(p)
		}
	case "counterCreate", "counter":
		if r.isObject("counterCreate") {
			p.created = true
			r.counterCreate(p)
		}
	case "mapCreateWithObjectId":
		if r.isObject("mapCreateWithObjectId") {
			r.createWithID(p)
		}
	case "counterCreateWithObjectId":
		if r.isObject("counterCreateWithObjectId") {
			r.createWithID(p)
		}
	case "initialValue":
		p.initialValue = r.objectString("initialValue")
		r.readInitialValue(p)
	case "nonce":
		p.nonce = r.objectString("nonce")
	case "mapSet":
		if r.isObject("mapSet") {
			p.set = true
			r.keyAndValue(&p.key, &p.value)
		}
	case "mapRemove":
		if r.isObject("mapRemove") {
			p.remove = true
			r.keyAndValue(&p.removed, nil)
		}
	case "mapOp":
		if r.isObject("mapOp") {
			p.op = true
			r.keyAndValue(&p.opKey, &p.opValue)
		}
	case "counterInc":
		if r.isObject("counterInc") {
			p.inc = true
			p.number = r.numberIn("number")
		}
	case "counterOp":
		if r.isObject("counterOp") {
			p.inc = true
			p.number = r.numberIn("amount")
		}
	default:
		r.skip()
	}
}

// give completes an operation with what belongs to its action.
func (p *payloads) give(op *pubsub.ObjectOperation) {
	switch op.Action {
	case pubsub.MapCreate:
		op.Payload, op.Semantics, op.Entries = p.create, p.semantics, p.entries
		op.InitialValue, op.Nonce = p.initialValue, p.nonce
	case pubsub.CounterCreate:
		op.Payload, op.Number = p.created, p.count
		op.InitialValue, op.Nonce = p.initialValue, p.nonce
	case pubsub.MapSet:
		if op.Payload = p.set || p.op; p.set {
			op.Key, op.Value = p.key, p.value
		} else {
			op.Key, op.Value = p.opKey, p.opValue
		}
	case pubsub.MapRemove:
		if op.Payload = p.remove || p.op; p.remove {
			op.Key = p.removed
		} else {
			op.Key = p.opKey
		}
	case pubsub.CounterInc:
		op.Payload, op.Number = p.inc, p.number
	}
}

func (r *reader) mapCreate(p *payloads) {
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "semantics":
			p.semantics = r.semantics()
		case "entries":
			if r.isObject("entries") {
				p.entries = r.objectEntries()
			}
		default:
			r.skip()
		}
	}
}

// unknownSemantics stands for all that are not known.
const unknownSemantics = 255

// semantics reads those of a map, as a number or by their name.
func (r *reader) semantics() uint8 {
	if r.peek() == kindString {
		if s := string(r.str()); s == "LWW" || s == "lww" {
			return 0
		}
		return unknownSemantics
	}
	if n := r.itemInteger("semantics"); n >= 0 && n < unknownSemantics {
		return uint8(n)
	}
	return unknownSemantics
}

func (r *reader) counterCreate(p *payloads) { p.count = r.numberIn("count") }

// numberIn reads an object of one number, which is 0 if it is absent.
func (r *reader) numberIn(field string) (f float64) {
	for it := r.object(); r.nextKey(&it); {
		switch {
		case r.null():
		case string(r.key) == field:
			f = r.objectNumber(field)
		default:
			r.skip()
		}
	}
	return f
}

// keyAndValue reads an object of a key and, as value or as data, a value.
func (r *reader) keyAndValue(key *string, value *pubsub.ObjectData) {
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch name := string(r.key); {
		case name == "key":
			*key = r.objectString("key")
		case (name == "value" || name == "data") && value != nil:
			if r.isObject("value") {
				*value = r.objectData()
			}
		default:
			r.skip()
		}
	}
}

func (r *reader) createWithID(p *payloads) {
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "initialValue":
			p.initialValue = r.objectString("initialValue")
			r.readInitialValue(p)
		case "nonce":
			p.nonce = r.objectString("nonce")
		default:
			r.skip()
		}
	}
}

// readInitialValue reads what an object begins with out of the JSON text that its id was made from:
// that of its mapCreate or counterCreate, or before version 6 of an operation that has it (RTO11, RTO12).
func (r *reader) readInitialValue(p *payloads) {
	in := newReader(JSON, []byte(p.initialValue))
	in.item = r.item
	if in.err == nil && in.peek() == kindObject {
		p.create, p.created = true, true
		for it := in.object(); in.nextKey(&it); {
			if in.null() {
				continue
			}
			switch string(in.key) {
			case "semantics":
				p.semantics = in.semantics()
			case "entries":
				if in.isObject("entries") {
					p.entries = in.objectEntries()
				}
			case "count":
				p.count = in.objectNumber("count")
			default:
				in.operationPart(p)
			}
		}
	} else if in.err == nil {
		in.fail("not an object")
	}
	if err := in.finish(); err != nil {
		r.badItem(pubsub.CodeInvalidObject, "initialValue must be a JSON object: %v", err)
	}
	if r.itemErr == nil {
		r.itemErr = in.itemErr
	}
}

// objectEntries reads the entries of a map, of which the caller knows that they are an object.
func (r *reader) objectEntries() []pubsub.ObjectEntry {
	it := r.object()
	var entries []pubsub.ObjectEntry
	if it.left > 0 {
		entries = make([]pubsub.ObjectEntry, 0, it.left)
	}
	for r.nextKey(&it) {
		if !r.validText(r.key) {
			r.badItem(pubsub.CodeInvalidObject, "keys must be valid UTF-8")
		}
		e := pubsub.ObjectEntry{Key: string(r.key)}
		if r.isObject("an entry") {
			r.objectEntry(&e)
		}
		entries = append(entries, e)
	}
	return entries
}

func (r *reader) objectEntry(e *pubsub.ObjectEntry) {
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "data":
			if r.isObject("data") {
				e.Data = r.objectData()
			}
		case "tombstone":
			e.Tombstone = r.objectBool("tombstone")
		case "timeserial":
			e.Serial = r.objectString("timeserial")
		case "serialTimestamp":
			e.Timestamp = r.itemInteger("serialTimestamp")
		default:
			r.skip()
		}
	}
	if !e.Tombstone {
		e.Timestamp = 0
	}
}

// objectData reads a value, of which the caller knows that it is an object (OD2, OD5).
func (r *reader) objectData() (d pubsub.ObjectData) {
	asJSON := false
	is := func(t pubsub.DataType) {
		if d.Type != pubsub.NoValue {
			r.badItem(pubsub.CodeInvalidObject, "a value must be of one type")
		}
		d.Type = t
	}
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "objectId":
			is(pubsub.ObjectValue)
			d.Text = r.objectString("objectId")
		case "boolean":
			is(pubsub.BooleanValue)
			d.True = r.objectBool("boolean")
		case "bytes":
			is(pubsub.BytesValue)
			d.Text = r.objectBytes()
		case "number":
			is(pubsub.NumberValue)
			d.Number = r.objectNumber("number")
		case "string":
			is(pubsub.StringValue)
			d.Text = r.objectString("string")
		case "json":
			is(pubsub.JSONValue)
			d.Text = r.objectJSON()
		case "encoding":
			asJSON = r.objectString("encoding") == "json"
		default:
			r.skip()
		}
	}
	if asJSON && d.Type == pubsub.StringValue {
		d.Type = pubsub.JSONValue
	}
	if d.Type == pubsub.JSONValue && !validJSON(d.Text) {
		r.badItem(pubsub.CodeInvalidObject, "json must be a JSON text")
	}
	return d
}

// objectJSON reads a JSON text in a string, or the value that it says.
func (r *reader) objectJSON() string {
	if r.peek() == kindString {
		return r.objectString("json")
	}
	return string(r.jsonText())
}

// validJSON reports whether text is a JSON value.
func validJSON(text string) bool {
	r := newReader(JSON, []byte(text))
	if r.err == nil {
		r.skip()
	}
	return r.finish() == nil
}

// objectBytes reads bytes: as they are, or as base64.
func (r *reader) objectBytes() string {
	switch r.peek() {
	case kindBytes:
		return string(r.bytesMsgPack())
	case kindString:
		text := r.str()
		b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(b, text)
		if err != nil {
			r.badItem(pubsub.CodeInvalidObject, "bytes must be base64")
		}
		return string(b[:n])
	}
	r.bad(pubsub.CodeInvalidObject, "bytes", "bytes or base64")
	return ""
}

func (r *reader) objectState() *pubsub.ObjectState {
	s := new(pubsub.ObjectState)
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "objectId":
			s.ObjectID = r.objectString("objectId")
		case "siteTimeserials":
			if r.isObject("siteTimeserials") {
				for it := r.object(); r.nextKey(&it); {
					if !r.validText(r.key) {
						r.badItem(pubsub.CodeInvalidObject, "siteTimeserials must be valid UTF-8")
					}
					site := string(r.key)
					s.Sites = append(s.Sites, pubsub.SiteSerial{Site: site, Serial: r.objectString("siteTimeserials")})
				}
			}
		case "tombstone":
			s.Tombstone = r.objectBool("tombstone")
		case "createOp":
			s.Created = true
			r.skip()
		case "map":
			s.IsMap = true
			if r.isObject("map") {
				r.objectMap(s)
			}
		case "counter":
			if r.isObject("counter") {
				s.Count = r.numberIn("count")
			}
		default:
			r.skip()
		}
	}
	if s.IsMap {
		s.Count = 0
	}
	return s
}

func (r *reader) objectMap(s *pubsub.ObjectState) {
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "entries":
			if r.isObject("entries") {
				s.Entries = r.objectEntries()
			}
		case "clearTimeserial":
			s.ClearSerial = r.objectString("clearTimeserial")
		default:
			r.skip()
		}
	}
}

// Layout is how objects are written.
type Layout uint8

// The layouts.
const (
	NewObjects Layout = iota // of protocol version 6 and later
	OldObjects               // of those before
)

// objectMessage writes m (OM2).
func (w *writer) objectMessage(m *pubsub.ObjectMessage, x identity, layout Layout) {
	object := w.object()
	w.id(x.id)
	w.optional("clientId", m.ClientID)
	w.optional("connectionId", x.connectionID)
	w.optionalInt("timestamp", x.timestamp)
	w.optionalJSON("extras", m.Extras)
	if m.Operation != nil {
		w.key("operation")
		w.objectOperation(m.Operation, x.serial, layout)
	}
	if m.State != nil {
		w.key("object")
		w.objectState(m.State, layout)
	}
	if x.serial.s != "" {
		w.key("serial")
		w.joined(x.serial, serialIndexDigits)
	}
	w.optionalInt("serialTimestamp", m.SerialTimestamp)
	w.optional("siteCode", m.SiteCode)
	w.endObject(object)
}

// objectOperation writes an operation (OOP3). Entries without a serial get that of the operation, if it
// has one (RTLM23).
func (w *writer) objectOperation(op *pubsub.ObjectOperation, serial ref, layout Layout) {
	object := w.object()
	w.key("action")
	w.uint(uint64(op.Action))
	w.key("objectId")
	w.str(op.ObjectID)
	if op.InitialValue != "" && layout == OldObjects {
		w.key("initialValue")
		w.str(op.InitialValue)
		w.key("nonce")
		w.str(op.Nonce)
	} else if op.InitialValue != "" {
		if op.Action == pubsub.MapCreate {
			w.key("mapCreateWithObjectId")
		} else {
			w.key("counterCreateWithObjectId")
		}
		create := w.object()
		w.key("initialValue")
		w.str(op.InitialValue)
		w.key("nonce")
		w.str(op.Nonce)
		w.endObject(create)
	} else if op.Payload || op.Action > pubsub.CounterInc {
		w.objectPayload(op, serial, layout)
	}
	w.endObject(object)
}

// named is the name that something has in a layout.
func (l Layout) named(now, before string) string {
	if l == OldObjects {
		return before
	}
	return now
}

func (w *writer) objectPayload(op *pubsub.ObjectOperation, serial ref, layout Layout) {
	switch op.Action {
	case pubsub.MapCreate:
		w.key(layout.named("mapCreate", "map"))
		object := w.object()
		w.key("semantics")
		w.uint(uint64(op.Semantics))
		w.key("entries")
		w.objectEntries(op.Entries, serial, layout)
		w.endObject(object)
	case pubsub.MapSet:
		w.key(layout.named("mapSet", "mapOp"))
		object := w.object()
		w.key("key")
		w.str(op.Key)
		w.key(layout.named("value", "data"))
		w.objectData(op.Value, layout)
		w.endObject(object)
	case pubsub.MapRemove:
		w.key(layout.named("mapRemove", "mapOp"))
		object := w.object()
		w.key("key")
		w.str(op.Key)
		w.endObject(object)
	case pubsub.CounterCreate:
		w.key(layout.named("counterCreate", "counter"))
		w.numberAs("count", op.Number)
	case pubsub.CounterInc:
		w.key(layout.named("counterInc", "counterOp"))
		w.numberAs(layout.named("number", "amount"), op.Number)
	case pubsub.ObjectDelete:
		if layout == NewObjects {
			w.key("objectDelete")
			w.endObject(w.object())
		}
	case pubsub.MapClear:
		w.key("mapClear")
		w.endObject(w.object())
	}
}

// numberAs writes an object of one number.
func (w *writer) numberAs(name string, f float64) {
	object := w.object()
	w.key(name)
	w.float(f)
	w.endObject(object)
}

func (w *writer) objectEntries(entries []pubsub.ObjectEntry, serial ref, layout Layout) {
	object := w.object()
	for i := range entries {
		e := &entries[i]
		w.anyKey([]byte(e.Key))
		w.objectEntry(e, serial, layout)
	}
	w.endObject(object)
}

func (w *writer) objectEntry(e *pubsub.ObjectEntry, serial ref, layout Layout) {
	object := w.object()
	if e.Tombstone {
		w.key("tombstone")
		w.bool(true)
		w.optionalInt("serialTimestamp", e.Timestamp)
	}
	if e.Serial != "" {
		serial = whole(e.Serial)
	}
	if serial.s != "" {
		w.key("timeserial")
		w.joined(serial, serialIndexDigits)
	}
	if e.Data.Type != pubsub.NoValue {
		w.key("data")
		w.objectData(e.Data, layout)
	}
	w.endObject(object)
}

// objectData writes a value (OD4).
func (w *writer) objectData(d pubsub.ObjectData, layout Layout) {
	object := w.object()
	switch d.Type {
	case pubsub.ObjectValue:
		w.key("objectId")
		w.str(d.Text)
	case pubsub.BooleanValue:
		w.key("boolean")
		w.bool(d.True)
	case pubsub.BytesValue:
		w.key("bytes")
		w.bytes([]byte(d.Text))
	case pubsub.NumberValue:
		w.key("number")
		w.float(d.Number)
	case pubsub.StringValue:
		w.key("string")
		w.str(d.Text)
	case pubsub.JSONValue:
		w.key(layout.named("json", "string"))
		w.str(d.Text)
		if layout == OldObjects {
			w.key("encoding")
			w.str("json")
		}
	}
	w.endObject(object)
}

func (w *writer) objectState(s *pubsub.ObjectState, layout Layout) {
	object := w.object()
	w.key("objectId")
	w.str(s.ObjectID)
	w.key("siteTimeserials")
	sites := w.object()
	for _, site := range s.Sites {
		w.anyKey([]byte(site.Site))
		w.str(site.Serial)
	}
	w.endObject(sites)
	w.key("tombstone")
	w.bool(s.Tombstone)
	if s.Created {
		op := pubsub.ObjectOperation{Action: pubsub.CounterCreate, ObjectID: s.ObjectID, Payload: true}
		if s.IsMap {
			op.Action = pubsub.MapCreate
		}
		w.key("createOp")
		w.objectOperation(&op, ref{}, layout)
	}
	if s.IsMap {
		w.key("map")
		m := w.object()
		w.key("semantics")
		w.uint(0)
		w.key("entries")
		w.objectEntries(s.Entries, ref{}, layout)
		w.optional("clearTimeserial", s.ClearSerial)
		w.endObject(m)
	} else {
		w.key("counter")
		w.numberAs("count", s.Count)
	}
	w.endObject(object)
}

// AppendObjectPM appends the OBJECT frame that delivers an entry, as AppendMessagePM does (RTO8).
func AppendObjectPM(dst []byte, f Format, channel string, x Entry, layout Layout) []byte {
	e := entry{x, true}
	w := writer{b: dst, format: f}
	object := e.begin(&w, ActionObject, channel)
	w.key("state")
	array := w.arrayOf(len(x.Batch.Objects))
	for i, m := range x.Batch.Objects {
		w.elem()
		own := *m
		own.SerialTimestamp = x.Timestamp
		w.objectMessage(&own, e.identity(i, m.ID, m.ConnectionID, m.Timestamp, ""), layout)
	}
	w.endArray(array)
	w.endObject(object)
	return w.b
}

// DecodeObjectRequests is DecodeMessages for operations on objects. Which operation it is says the
// field that there is; the action, which others write as well, is not needed.
func DecodeObjectRequests(f Format, b []byte) ([]*pubsub.ObjectRequest, error) {
	return decodeItems(f, b, (*reader).objectRequests)
}

func (r *reader) objectRequests() []*pubsub.ObjectRequest {
	it, ok := r.enterItems("operations")
	if !ok {
		return nil
	}
	all := make([]*pubsub.ObjectRequest, 0, it.room())
	for r.nextItem(&it) {
		all = append(all, r.objectRequest())
	}
	return all
}

func (r *reader) objectRequest() *pubsub.ObjectRequest {
	q := new(pubsub.ObjectRequest)
	op := &pubsub.ObjectOperation{Action: pubsub.ObjectUnknown}
	q.Operation = op
	var p payloads
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		action := pubsub.ObjectUnknown
		switch string(r.key) {
		case "id":
			q.ID = r.itemID()
			continue
		case "objectId":
			q.ObjectID = r.objectString("objectId")
			continue
		case "path":
			q.Path, q.HasPath = r.objectString("path"), true
			continue
		case "mapCreate", "mapCreateWithObjectId":
			action = pubsub.MapCreate
		case "counterCreate", "counterCreateWithObjectId":
			action = pubsub.CounterCreate
		case "mapSet":
			action = pubsub.MapSet
		case "mapRemove":
			action = pubsub.MapRemove
		case "counterInc":
			action = pubsub.CounterInc
		}
		if action != pubsub.ObjectUnknown && op.Action != pubsub.ObjectUnknown {
			r.badItem(pubsub.CodeInvalidObject, "there must be one operation")
		}
		if action != pubsub.ObjectUnknown {
			op.Action = action
		}
		r.operationPart(&p)
	}
	if op.Action == pubsub.ObjectUnknown {
		r.badItem(pubsub.CodeInvalidObject, "an operation is needed")
	}
	p.give(op)
	return q
}

// AppendObjectView appends an object as REST shows it: with ids and types, or, if it is compact, as
// the values alone.
func AppendObjectView(dst []byte, f Format, v *pubsub.ObjectView, compact bool) []byte {
	w := writer{b: dst, format: f}
	if compact {
		w.compactView(v)
	} else {
		w.fullView(v)
	}
	return w.b
}

func (w *writer) compactView(v *pubsub.ObjectView) {
	switch {
	case v.ID == "" && v.Data.Type == pubsub.ObjectValue:
		w.objectData(v.Data, NewObjects)
	case v.ID == "":
		w.plainData(v.Data)
	case !v.IsMap:
		w.float(v.Count)
	default:
		object := w.object()
		for _, e := range v.Entries {
			w.anyKey([]byte(e.Key))
			w.compactView(e.Value)
		}
		w.endObject(object)
	}
}

// plainData writes a value without its type.
func (w *writer) plainData(d pubsub.ObjectData) {
	switch d.Type {
	case pubsub.BooleanValue:
		w.bool(d.True)
	case pubsub.BytesValue:
		w.bytes([]byte(d.Text))
	case pubsub.NumberValue:
		w.float(d.Number)
	default:
		w.str(d.Text)
	}
}

func (w *writer) fullView(v *pubsub.ObjectView) {
	if v.ID == "" {
		w.objectData(v.Data, NewObjects)
		return
	}
	object := w.object()
	w.key("objectId")
	w.str(v.ID)
	if v.IsMap {
		w.key("map")
		m := w.object()
		w.key("semantics")
		w.str("LWW")
		w.key("entries")
		entries := w.object()
		for _, e := range v.Entries {
			w.anyKey([]byte(e.Key))
			entry := w.object()
			w.key("data")
			w.fullView(e.Value)
			w.endObject(entry)
		}
		w.endObject(entries)
		w.endObject(m)
	} else {
		w.key("counter")
		counter := w.object()
		w.key("data")
		w.numberAs("number", v.Count)
		w.endObject(counter)
	}
	w.endObject(object)
}

// AppendPublishedObjects appends the body that answers a REST request to change objects: the id
// of the first operation, the channel, and the objects that it was about.
func AppendPublishedObjects(dst []byte, f Format, channel, messageID string, objectIDs []string) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("messageId")
	w.str(messageID)
	w.key("channel")
	w.str(channel)
	w.key("objectIds")
	array := w.arrayOf(len(objectIDs))
	for _, id := range objectIDs {
		w.elem()
		w.str(id)
	}
	w.endArray(array)
	w.endObject(object)
	return w.b
}
