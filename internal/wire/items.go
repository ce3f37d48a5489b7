package wire

import (
	"fmt"
	"math"
	"unicode/utf8"

	"letshare-server/internal/pubsub"
)

// Reading items. Whatever is wrong with a field of an item is noted, the field is skipped,
// and reading goes on: the frame around it must still be answered.

// place is where the reader is among the items, for the texts of errors.
type place struct {
	array  string
	index  int
	single bool // one item may stand where an array of them does
}

func (p place) String() string { return fmt.Sprintf("%s[%d]", p.array, p.index) }

// badItem notes what is wrong with the item being read.
func (r *reader) badItem(code pubsub.Code, format string, args ...any) {
	if r.itemErr == nil {
		r.itemErr = pubsub.NewError(code, r.item.String()+": "+fmt.Sprintf(format, args...))
	}
}

// bad notes that the field at hand is not what it must be, and skips its value.
func (r *reader) bad(code pubsub.Code, field, what string) {
	r.badItem(code, "%s must be %s", field, what)
	r.skip()
}

// validText reports whether s, which str returned, is UTF-8.
func (r *reader) validText(s []byte) bool {
	return r.format == JSON || utf8.Valid(s)
}

// enterItems goes into an array of items. If there is none it skips the value and returns
// false.
func (r *reader) enterItems(array string) (it iter, ok bool) {
	r.item.array, r.item.index = array, 0
	switch k := r.peek(); {
	case k == kindArray:
		return r.array(), true
	case k == kindObject && r.item.single:
		return iter{single: true}, true
	case k != kindInvalid && r.itemErr == nil:
		r.itemErr = pubsub.Errorf(pubsub.CodeBadRequest, "%s must be an array", array)
	}
	r.skip()
	return iter{}, false
}

// nextItem goes to the next item that is an object and is to be kept, or leaves the array.
func (r *reader) nextItem(it *iter) bool {
	if it.single {
		it.seen++
		return it.seen == 1
	}
	for r.next(it) {
		r.item.index = it.seen - 1
		switch {
		case it.seen > MaxItems:
			if r.itemErr == nil {
				r.itemErr = pubsub.Errorf(pubsub.CodeTooManyMessages, "%s must be no more than %d", r.item.array, MaxItems)
			}
		case r.peek() != kindObject:
			r.badItem(pubsub.CodeBadRequest, "not an object")
		default:
			return true
		}
		r.skip()
	}
	return false
}

// room is how many items to make room for: what is declared, where it is.
func (it iter) room() int { return min(max(it.left, 1), MaxItems) }

// oneMessage is a message and the array of it.
type oneMessage struct {
	all     [1]*pubsub.Message
	message pubsub.Message
}

// The functions below, and state, return nil only if there is no array.

func (r *reader) messages() []*pubsub.Message {
	it, ok := r.enterItems("messages")
	if !ok {
		return nil
	}
	// The usual publish has one message: it and the array are allocated together.
	one := new(oneMessage)
	all, m := one.all[:0], &one.message
	if n := it.room(); n > 1 {
		all = make([]*pubsub.Message, 0, n)
	}
	for r.nextItem(&it) {
		if m == nil {
			m = new(pubsub.Message)
		}
		r.message(m)
		all, m = append(all, m), nil
	}
	return all
}

func (r *reader) presence() []*pubsub.PresenceMessage {
	it, ok := r.enterItems("presence")
	if !ok {
		return nil
	}
	all := make([]*pubsub.PresenceMessage, 0, it.room())
	for r.nextItem(&it) {
		all = append(all, r.presenceMessage())
	}
	return all
}

func (r *reader) annotations() []*pubsub.Annotation {
	it, ok := r.enterItems("annotations")
	if !ok {
		return nil
	}
	all := make([]*pubsub.Annotation, 0, it.room())
	for r.nextItem(&it) {
		all = append(all, r.annotation())
	}
	return all
}

// message reads one into m, which is zero.
func (r *reader) message(m *pubsub.Message) {
	var d payload
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "id":
			m.ID = r.itemID()
		case "name":
			m.Name = r.itemString("name", pubsub.CodeInvalidMessageName)
			m.EmptyName = m.Name == ""
		case "data":
			d = r.payload()
		case "encoding":
			m.Encoding = r.encoding()
		case "clientId":
			m.ClientID = r.itemClientID()
		case "connectionId":
			m.ConnectionID = r.itemString("connectionId", pubsub.CodeInvalidConnectionID)
		case "connectionKey":
			m.ConnectionKey = r.itemString("connectionKey", pubsub.CodeInvalidConnectionID)
		case "timestamp":
			m.Timestamp = r.itemInteger("timestamp")
		case "extras":
			m.Extras = r.itemObject("extras", pubsub.CodeInvalidExtras)
		case "action":
			m.Action = pubsub.MessageAction(r.itemAction())
		case "serial":
			m.Serial = r.itemString("serial", pubsub.CodeInvalidParameterValue)
		case "version":
			m.Version = r.version()
		case "annotations":
			m.Summary = r.summary()
		default:
			r.skip()
		}
	}
	m.Data, m.Encoding = r.resolve(d, m.Encoding)
}

func (r *reader) presenceMessage() *pubsub.PresenceMessage {
	m := new(pubsub.PresenceMessage)
	var d payload
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "id":
			m.ID = r.itemID()
		case "action":
			m.Action = pubsub.PresenceAction(r.itemAction())
		case "data":
			d = r.payload()
		case "encoding":
			m.Encoding = r.encoding()
		case "clientId":
			m.ClientID = r.itemClientID()
		case "connectionId":
			m.ConnectionID = r.itemString("connectionId", pubsub.CodeInvalidConnectionID)
		case "timestamp":
			m.Timestamp = r.itemInteger("timestamp")
		case "extras":
			m.Extras = r.itemObject("extras", pubsub.CodeInvalidExtras)
		default:
			r.skip()
		}
	}
	m.Data, m.Encoding = r.resolve(d, m.Encoding)
	return m
}

func (r *reader) annotation() *pubsub.Annotation {
	a := new(pubsub.Annotation)
	var d payload
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "id":
			a.ID = r.itemID()
		case "action":
			a.Action = pubsub.AnnotationAction(r.itemAction())
		case "type":
			a.Type = r.itemString("type", pubsub.CodeInvalidParameterValue)
		case "name":
			a.Name = r.itemString("name", pubsub.CodeInvalidParameterValue)
		case "clientId":
			a.ClientID = r.itemClientID()
		case "connectionId":
			a.ConnectionID = r.itemString("connectionId", pubsub.CodeInvalidConnectionID)
		case "count":
			n := r.itemInteger("count")
			a.Count = &n
		case "data":
			d = r.payload()
		case "encoding":
			a.Encoding = r.encoding()
		case "messageSerial":
			a.MessageSerial = r.itemString("messageSerial", pubsub.CodeInvalidParameterValue)
		case "serial":
			a.Serial = r.itemString("serial", pubsub.CodeInvalidParameterValue)
		case "timestamp":
			a.Timestamp = r.itemInteger("timestamp")
		case "extras":
			a.Extras = r.itemObject("extras", pubsub.CodeInvalidExtras)
		default:
			r.skip()
		}
	}
	a.Data, a.Encoding = r.resolve(d, a.Encoding)
	return a
}

func (r *reader) itemString(field string, code pubsub.Code) string {
	if r.peek() != kindString {
		r.bad(code, field, "a string")
		return ""
	}
	s := r.str()
	if !r.validText(s) {
		r.badItem(code, "%s must be valid UTF-8", field)
		return ""
	}
	return string(s)
}

// itemID reads an id. One that is there must not be empty, which absent ones are here.
func (r *reader) itemID() string {
	id := r.itemString("id", pubsub.CodeInvalidMessageID)
	if id == "" {
		r.badItem(pubsub.CodeInvalidMessageID, "id must not be empty")
	}
	return id
}

// itemClientID reads a clientId, which must not be empty either.
func (r *reader) itemClientID() string {
	id := r.itemString("clientId", pubsub.CodeInvalidClientID)
	if id == "" {
		r.badItem(pubsub.CodeInvalidClientID, "clientId must not be empty")
	}
	return id
}

func (r *reader) itemInteger(field string) int64 {
	if r.peek() == kindNumber {
		if n, ok := r.smallJSON(); ok {
			return n
		}
		if n, ok := r.number().int64(); ok {
			return n
		}
		r.badItem(pubsub.CodeBadRequest, "%s must be an integer", field)
		return 0
	}
	r.bad(pubsub.CodeBadRequest, field, "a number")
	return 0
}

// itemAction reads an action. Which of them are known is not decided here.
func (r *reader) itemAction() uint8 {
	n := r.itemInteger("action")
	if n < 0 || n > math.MaxUint8 {
		r.badItem(pubsub.CodeBadRequest, "action is out of range")
		return 0
	}
	return uint8(n)
}

// itemObject reads an object that is kept as JSON.
func (r *reader) itemObject(field string, code pubsub.Code) []byte {
	if r.peek() != kindObject {
		r.bad(code, field, "an object")
		return nil
	}
	return r.jsonText()
}

func (r *reader) version() *pubsub.Version {
	if r.peek() != kindObject {
		r.bad(pubsub.CodeInvalidParameterValue, "version", "an object")
		return nil
	}
	v := new(pubsub.Version)
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "serial":
			v.Serial = r.itemString("version.serial", pubsub.CodeInvalidParameterValue)
		case "timestamp":
			v.Timestamp = r.itemInteger("version.timestamp")
		case "clientId":
			v.ClientID = r.itemString("version.clientId", pubsub.CodeInvalidClientID)
		case "description":
			v.Description = r.itemString("version.description", pubsub.CodeInvalidParameterValue)
		case "metadata":
			v.Metadata = r.itemObject("version.metadata", pubsub.CodeInvalidParameterValue)
		default:
			r.skip()
		}
	}
	return v
}

// summary reads a message's annotations, of which only the summary is known.
func (r *reader) summary() (text []byte) {
	if r.peek() != kindObject {
		r.bad(pubsub.CodeBadRequest, "annotations", "an object")
		return nil
	}
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		if string(r.key) == "summary" {
			text = r.itemObject("annotations.summary", pubsub.CodeBadRequest)
		} else {
			r.skip()
		}
	}
	return text
}
