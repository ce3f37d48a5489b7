package wire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"letshare-server/internal/pubsub"
)

// MaxItems is the largest number of items in one frame or REST body. Items beyond it are not
// kept, and are an item error with CodeTooManyMessages.
const MaxItems = 1000

// Decode reads one frame. The result does not refer to b.
//
// An error says that the frame is not a ProtocolMessage; it is a *pubsub.Error with
// CodeProtocolError. A frame with a wrong item is returned without error, but with ItemErr.
// JSON must be valid UTF-8; Decode checks that, so a transport need not.
func Decode(f Format, b []byte) (*ProtocolMessage, error) {
	pm := new(ProtocolMessage)
	if err := DecodeInto(pm, f, b); err != nil {
		return nil, err
	}
	return pm, nil
}

// DecodeInto is Decode into a ProtocolMessage of the caller's, which is reset first. On error
// its content is unspecified. Items and maps are new each time, so that they may be kept.
func DecodeInto(pm *ProtocolMessage, f Format, b []byte) error {
	pm.Reset()
	r := newReader(f, b)
	r.protocolMessage(pm)
	return frameError(r.finish())
}

func frameError(err error) error {
	if err == nil {
		return nil
	}
	return pubsub.Errorf(pubsub.CodeProtocolError, "Invalid protocol message: %v", err)
}

func (r *reader) protocolMessage(pm *ProtocolMessage) {
	if r.err != nil {
		return
	}
	if r.peek() != kindObject {
		r.fail("not an object")
		return
	}
	r.itemErr = nil
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "action":
			pm.Action = ActionUnknown
			if n := r.integer("action"); n >= 0 && n < int64(ActionUnknown) {
				pm.Action = Action(n)
			}
		case "id":
			pm.ID = r.string("id")
		case "auth":
			pm.Auth = r.auth()
		case "channel":
			pm.Channel, pm.HasChannel = r.string("channel"), true
		case "channelSerial":
			pm.ChannelSerial = r.string("channelSerial")
		case "msgSerial":
			pm.MsgSerial, pm.HasMsgSerial = r.within("msgSerial", math.MaxInt64), true
		case "count":
			pm.Count = int(r.within("count", math.MaxInt32))
		case "connectionId":
			pm.ConnectionID = r.string("connectionId")
		case "connectionKey":
			pm.ConnectionKey = r.string("connectionKey")
		case "connectionDetails":
			pm.ConnectionDetails = r.connectionDetails()
		case "error":
			pm.Error = r.errorInfo()
		case "flags":
			pm.Flags = Flags(r.integer("flags")) // unknown bits beyond the 32nd are ignored
		case "params":
			pm.Params = r.stringMap("params")
		case "timestamp":
			pm.Timestamp = r.integer("timestamp")
		case "messages":
			pm.Messages = r.messages()
		case "presence":
			pm.Presence = r.presence()
		case "annotations":
			pm.Annotations = r.annotations()
		case "state":
			pm.State = r.state()
		case "res":
			pm.Res = r.results()
		default:
			r.skip()
		}
	}
	pm.ItemErr = r.itemErr
}

// expect fails unless the next value is of kind k.
func (r *reader) expect(field string, k kind, what string) bool {
	if r.peek() == k {
		return true
	}
	r.fail("%s is not %s", field, what)
	return false
}

func (r *reader) string(field string) string {
	if !r.expect(field, kindString, "a string") {
		return ""
	}
	s := r.str()
	if !r.validText(s) {
		r.fail("%s is not valid UTF-8", field)
	}
	return string(s)
}

func (r *reader) integer(field string) int64 {
	if !r.expect(field, kindNumber, "a number") {
		return 0
	}
	if n, ok := r.smallJSON(); ok {
		return n
	}
	n, ok := r.number().int64()
	if !ok {
		r.fail("%s is not an integer", field)
	}
	return n
}

// within reads an integer from 0 to limit.
func (r *reader) within(field string, limit int64) int64 {
	n := r.integer(field)
	if n < 0 || n > limit {
		r.fail("%s is out of range", field)
	}
	return n
}

func (r *reader) millis(field string) time.Duration {
	return time.Duration(r.within(field, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// stringMap reads an object of strings. Numbers and booleans, which some write where a string
// is meant, are taken for their text.
func (r *reader) stringMap(field string) map[string]string {
	if !r.expect(field, kindObject, "an object") {
		return nil
	}
	m := make(map[string]string)
	for it := r.object(); r.nextKey(&it); {
		if !r.validText(r.key) {
			r.fail("%s is not valid UTF-8", field)
			break
		}
		key := string(r.key)
		switch r.peek() {
		case kindNull:
			r.skip()
		case kindNumber:
			m[key] = r.number().String()
		case kindBool:
			m[key] = fmt.Sprint(r.bool())
		default:
			m[key] = r.string(field + "." + key)
		}
	}
	return m
}

func (r *reader) auth() *Auth {
	if !r.expect("auth", kindObject, "an object") {
		return nil
	}
	a := new(Auth)
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		if string(r.key) == "accessToken" {
			a.AccessToken = r.string("accessToken")
		} else {
			r.skip()
		}
	}
	return a
}

func (r *reader) connectionDetails() *ConnectionDetails {
	if !r.expect("connectionDetails", kindObject, "an object") {
		return nil
	}
	d := new(ConnectionDetails)
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "clientId":
			d.ClientID = r.string("clientId")
		case "connectionKey":
			d.ConnectionKey = r.string("connectionKey")
		case "connectionStateTtl":
			d.ConnectionStateTTL = r.millis("connectionStateTtl")
		case "maxIdleInterval":
			d.MaxIdleInterval = r.millis("maxIdleInterval")
		case "maxMessageSize":
			d.MaxMessageSize = int(r.within("maxMessageSize", math.MaxInt))
		case "maxFrameSize":
			d.MaxFrameSize = int(r.within("maxFrameSize", math.MaxInt))
		case "maxInboundRate":
			d.MaxInboundRate = int(r.within("maxInboundRate", math.MaxInt))
		case "serverId":
			d.ServerID = r.string("serverId")
		case "siteCode":
			d.SiteCode = r.string("siteCode")
		case "objectsGCGracePeriod":
			d.ObjectsGCGracePeriod = r.millis("objectsGCGracePeriod")
		default:
			r.skip()
		}
	}
	return d
}

func (r *reader) errorInfo() *ErrorInfo {
	if !r.expect("error", kindObject, "an object") {
		return nil
	}
	e := new(ErrorInfo)
	for it := r.object(); r.nextKey(&it); {
		if r.null() {
			continue
		}
		switch string(r.key) {
		case "code":
			e.Code = int(r.integer("code"))
		case "statusCode":
			e.StatusCode = int(r.integer("statusCode"))
		case "message":
			e.Message = r.string("message")
		case "href":
			e.Href = r.string("href")
		case "cause":
			e.Cause = r.errorInfo()
		case "serverId":
			e.ServerID = r.string("serverId")
		case "detail":
			e.Detail = r.stringMap("detail")
		default:
			r.skip()
		}
	}
	return e
}

func (r *reader) results() []PublishResult {
	if !r.expect("res", kindArray, "an array") {
		return nil
	}
	it := r.array()
	res := make([]PublishResult, 0, it.left)
	for r.next(&it) {
		if !r.expect("res", kindObject, "an array of objects") {
			break
		}
		var p PublishResult
		for it := r.object(); r.nextKey(&it); {
			if r.null() {
				continue
			}
			if string(r.key) == "serials" {
				p.Serials = r.serials()
			} else {
				r.skip()
			}
		}
		res = append(res, p)
	}
	return res
}

func (r *reader) serials() []string {
	if !r.expect("serials", kindArray, "an array") {
		return nil
	}
	it := r.array()
	serials := make([]string, 0, it.left)
	for r.next(&it) {
		if r.null() {
			serials = append(serials, "")
		} else {
			serials = append(serials, r.string("serials"))
		}
	}
	return serials
}

// DecodeMessages reads a REST body of one message or an array of them. The results do not
// refer to b. Every error is a *pubsub.Error: CodeInvalidRequestBody, or that of the first
// wrong item.
func DecodeMessages(f Format, b []byte) ([]*pubsub.Message, error) {
	return decodeItems(f, b, (*reader).messages)
}

// DecodePresence is DecodeMessages for presence messages.
func DecodePresence(f Format, b []byte) ([]*pubsub.PresenceMessage, error) {
	return decodeItems(f, b, (*reader).presence)
}

// DecodeAnnotations is DecodeMessages for annotations.
func DecodeAnnotations(f Format, b []byte) ([]*pubsub.Annotation, error) {
	return decodeItems(f, b, (*reader).annotations)
}

func decodeItems[T any](f Format, b []byte, read func(*reader) []T) ([]T, error) {
	r := newReader(f, b)
	r.item.single = true
	var items []T
	if r.err == nil {
		items = read(&r)
	}
	if err := r.finish(); err != nil {
		return nil, pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid request body: %v", err)
	}
	if r.itemErr != nil {
		return nil, r.itemErr
	}
	return items, nil
}

// DecodeError reads the body of a REST error, {"error":{…}}.
func DecodeError(f Format, b []byte) (*ErrorInfo, error) {
	r := newReader(f, b)
	var e *ErrorInfo
	if r.err == nil && r.expect("the body", kindObject, "an object") {
		for it := r.object(); r.nextKey(&it); {
			if string(r.key) == "error" && !r.null() {
				e = r.errorInfo()
			} else {
				r.skip()
			}
		}
	}
	err := r.finish()
	if err == nil && e == nil {
		err = errors.New("it holds no error")
	}
	if err != nil {
		return nil, pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid error body: %v", err)
	}
	return e, nil
}
