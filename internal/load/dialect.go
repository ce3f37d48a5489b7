package load

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
	"letshare-server/internal/wire"
)

// dialect is how the tool speaks to a server. All frames it appends are complete.
type dialect interface {
	// target is the request target of connection i's handshake, or "" when there is none.
	target(i int) string
	// opening is sent first: behind the handshake, or instead of it.
	opening(dst []byte, channel string, room int) []byte
	// join is sent when the server has said eventConnected.
	join(dst []byte, channel string) []byte
	// publish sends payload; serial counts this connection's publishes from 0.
	publish(dst []byte, channel string, serial int64, payload []byte) []byte
	// read says what a frame without a marker is.
	read(payload []byte) event
	// leave is sent before the connection is closed.
	leave(dst []byte) []byte
	// answers reports whether each publish is acknowledged.
	answers() bool
	// channel is the name of a room.
	channel(run, room int) string
}

// payloadFor is how many bytes of payload make a publisher's frame of so many bytes, and the
// frame's size with them: it cannot be less than what holds a marker.
func payloadFor(d dialect, channel string, frame int) (payload, size int) {
	payload = leastPayload
	for range 3 { // the header's own length may change on the way
		size = len(d.publish(nil, channel, 0, appendPayload(nil, &marker{}, payload)))
		payload = max(payload+frame-size, leastPayload)
	}
	return payload, len(d.publish(nil, channel, 0, appendPayload(nil, &marker{}, payload)))
}

type event struct {
	kind   eventKind
	serial int64 // of an acknowledgement
	count  int64
	text   string // of an error
}

type eventKind uint8

const (
	eventNothing eventKind = iota
	eventConnected
	eventJoined
	eventAck
	eventLeft
	eventError
)

// clientKey masks the tool's frames. Servers must undo any mask; a fixed one is cheap to apply.
var clientKey = [4]byte{0x5A, 0xC3, 0x1E, 0x96}

type ablyDialect struct {
	format    wire.Format
	key       string
	echo      bool
	namespace string
	scratch   []byte
	pm        wire.ProtocolMessage
	message   pubsub.Message
}

func (d *ablyDialect) target(int) string {
	q := url.Values{"key": {d.key}, "format": {d.format.String()}, "v": {"6"}, "heartbeats": {"false"}}
	if !d.echo {
		q.Set("echo", "false")
	}
	return "/?" + q.Encode()
}

func (d *ablyDialect) channel(run, room int) string {
	name := fmt.Sprintf("load-%04d-%d", run, room)
	if d.namespace != "" {
		return d.namespace + ":" + name
	}
	return name
}

func (d *ablyDialect) opening(dst []byte, _ string, _ int) []byte { return dst }

func (d *ablyDialect) frame(dst []byte, pm *wire.ProtocolMessage) []byte {
	d.scratch = wire.Append(d.scratch[:0], d.format, pm)
	op := socket.OpText
	if d.format == wire.MsgPack {
		op = socket.OpBinary
	}
	return socket.AppendMaskedFrame(dst, op, d.scratch, clientKey)
}

func (d *ablyDialect) join(dst []byte, channel string) []byte {
	return d.frame(dst, &wire.ProtocolMessage{Action: wire.ActionAttach, Channel: channel})
}

func (d *ablyDialect) publish(dst []byte, channel string, serial int64, payload []byte) []byte {
	if d.pm.Messages == nil {
		d.message.Name = "load"
		d.pm = wire.ProtocolMessage{Action: wire.ActionMessage, HasMsgSerial: true, Messages: []*pubsub.Message{&d.message}}
	}
	d.message.Data = pubsub.Data{Kind: pubsub.TextData, Bytes: payload}
	d.pm.Channel, d.pm.MsgSerial = channel, serial
	return d.frame(dst, &d.pm)
}

func (d *ablyDialect) leave(dst []byte) []byte {
	return d.frame(dst, &wire.ProtocolMessage{Action: wire.ActionClose})
}

func (d *ablyDialect) answers() bool { return true }

var (
	ackJSON    = []byte(`{"action":1,"msgSerial":`)
	countJSON  = []byte(`,"count":`)
	ackPacked  = []byte("\xa6action\x01\xa9msgSerial")
	packedSize = []byte("\xa5count")
)

func (d *ablyDialect) read(payload []byte) event {
	if e, ok := d.ack(payload); ok {
		return e
	}
	pm, err := wire.Decode(d.format, payload)
	if err != nil {
		return event{kind: eventError, text: fmt.Sprintf("unreadable frame: %v: %.100q", err, payload)}
	}
	switch pm.Action {
	case wire.ActionConnected:
		return event{kind: eventConnected}
	case wire.ActionAttached:
		if pm.Error != nil {
			return event{kind: eventError, text: errorText("ATTACHED", pm)}
		}
		return event{kind: eventJoined}
	case wire.ActionAck:
		return event{kind: eventAck, serial: pm.MsgSerial, count: int64(pm.Count)}
	case wire.ActionClosed:
		return event{kind: eventLeft}
	case wire.ActionNack, wire.ActionError, wire.ActionDisconnected, wire.ActionDetached:
		return event{kind: eventError, text: errorText(pm.Action.String(), pm)}
	case wire.ActionMessage:
		return event{kind: eventError, text: fmt.Sprintf("message without a marker: %.200q", payload)}
	}
	return event{}
}

func errorText(what string, pm *wire.ProtocolMessage) string {
	if pm.Channel != "" {
		what += " " + pm.Channel
	}
	if pm.Error == nil {
		return what
	}
	text := fmt.Sprintf("%s: %d (status %d): %s", what, pm.Error.Code, pm.Error.StatusCode, pm.Error.Message)
	if pm.Error.StatusCode == 429 || pm.Error.Code/100 == 429 {
		text += " (raise the server's rate limits for the measurement, or spread the rate over more publishers)"
	}
	return text
}

// ack reads the usual form of an acknowledgement without decoding the serials in it.
func (d *ablyDialect) ack(b []byte) (event, bool) {
	var serial, count int64
	var ok bool
	if d.format == wire.JSON {
		if b, ok = bytes.CutPrefix(b, ackJSON); !ok {
			return event{}, false
		}
		if serial, b, ok = number(b); !ok {
			return event{}, false
		}
		if b, ok = bytes.CutPrefix(b, countJSON); !ok {
			return event{}, false
		}
		count, _, ok = number(b)
		return event{kind: eventAck, serial: serial, count: count}, ok
	}
	if len(b) == 0 || b[0]&0xF0 != 0x80 {
		return event{}, false
	}
	if b, ok = bytes.CutPrefix(b[1:], ackPacked); !ok {
		return event{}, false
	}
	if serial, b, ok = packedNumber(b); !ok {
		return event{}, false
	}
	if b, ok = bytes.CutPrefix(b, packedSize); !ok {
		return event{}, false
	}
	count, _, ok = packedNumber(b)
	return event{kind: eventAck, serial: serial, count: count}, ok
}

func number(b []byte) (v int64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && i < 18 && b[i]-'0' <= 9 {
		v = v*10 + int64(b[i]-'0')
		i++
	}
	return v, b[i:], i > 0 && i < len(b) && (b[i] == ',' || b[i] == '}')
}

func packedNumber(b []byte) (v int64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	if b[0] < 0x80 {
		return int64(b[0]), b[1:], true
	}
	n := 0
	switch b[0] {
	case 0xCC, 0xD0:
		n = 1
	case 0xCD, 0xD1:
		n = 2
	case 0xCE, 0xD2:
		n = 4
	case 0xCF, 0xD3:
		n = 8
	}
	if n == 0 || len(b) < 1+n {
		return 0, nil, false
	}
	for _, c := range b[1 : 1+n] {
		v = v<<8 | int64(c)
	}
	return v, b[1+n:], true
}

type letshareDialect struct {
	tokens  []string
	scratch []byte
}

// newLetshareDialect uses token, or mints tokens for as many users as asked.
func newLetshareDialect(token, secret string, users int, now time.Time) *letshareDialect {
	if token != "" {
		return &letshareDialect{tokens: []string{token}}
	}
	d := &letshareDialect{}
	for u := range users {
		d.tokens = append(d.tokens, mintToken(secret, fmt.Sprintf("load%d", u), now, 24*time.Hour))
	}
	return d
}

func (d *letshareDialect) target(i int) string {
	return "/ws?" + url.Values{"token": {d.tokens[i%len(d.tokens)]}, "userId": {fmt.Sprintf("load:%d", i)}}.Encode()
}

// channel makes a name of at most 12 letters, the most that a room may have.
func (d *letshareDialect) channel(run, room int) string { return fmt.Sprintf("L%04d-%06d", run, room) }

func (d *letshareDialect) opening(dst []byte, channel string, _ int) []byte {
	d.scratch = append(append(append(d.scratch[:0], `{"type":"subscribe","channel":"`...), channel...), `","event":"signal:all"}`...)
	return socket.AppendMaskedFrame(dst, socket.OpText, d.scratch, clientKey)
}

func (d *letshareDialect) join(dst []byte, _ string) []byte { return dst }

func (d *letshareDialect) publish(dst []byte, channel string, _ int64, payload []byte) []byte {
	b := append(append(append(d.scratch[:0], `{"type":"publish","channel":"`...), channel...), `","event":"signal:all","data":{"m":"`...)
	d.scratch = append(append(b, payload...), `"}}`...)
	return socket.AppendMaskedFrame(dst, socket.OpText, d.scratch, clientKey)
}

func (d *letshareDialect) leave(dst []byte) []byte { return dst }

func (d *letshareDialect) answers() bool { return false }

func (d *letshareDialect) read(payload []byte) event {
	var frame struct {
		Type  string `json:"type"`
		Error struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(payload, &frame); err != nil {
		return event{kind: eventError, text: fmt.Sprintf("unreadable frame: %v: %.100q", err, payload)}
	}
	switch frame.Type {
	case "subscribed":
		return event{kind: eventJoined}
	case "error":
		return event{kind: eventError, text: "error " + strconv.Itoa(frame.Error.Code) + ": " + frame.Error.Message}
	case "message":
		return event{kind: eventError, text: fmt.Sprintf("message without a marker: %.200q", payload)}
	}
	return event{}
}

// bareDialect speaks to the baseline's server: eight bytes name the room, one frame answers them,
// and from then on a published frame comes back to the room's members byte for byte. Published
// frames are those of a server, so that receiving is the same as in the other dialects.
type bareDialect struct{}

const (
	bareHelloBytes = 8
	bareHello      = 0x4C53424C // in front of the room, so that strangers are noticed
)

func (bareDialect) target(int) string              { return "" }
func (bareDialect) channel(_, room int) string     { return strconv.Itoa(room) }
func (bareDialect) join(b []byte, _ string) []byte { return b }
func (bareDialect) leave(b []byte) []byte          { return b }
func (bareDialect) answers() bool                  { return false }

func (bareDialect) opening(dst []byte, _ string, room int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, bareHello)
	return binary.BigEndian.AppendUint32(dst, uint32(room))
}

func (bareDialect) publish(dst []byte, _ string, _ int64, payload []byte) []byte {
	return socket.AppendFrame(dst, socket.OpText, payload)
}

func (bareDialect) read([]byte) event { return event{kind: eventJoined} }

// floorDialect speaks to the floor.
type floorDialect struct {
	echo    bool
	scratch []byte
}

func (d *floorDialect) target(int) string { return "/" }

func (d *floorDialect) opening(dst []byte, channel string, _ int) []byte {
	return socket.AppendMaskedFrame(dst, socket.OpText, []byte(channel), clientKey)
}

func (d *floorDialect) join(dst []byte, _ string) []byte { return dst }

func (d *floorDialect) publish(dst []byte, _ string, _ int64, payload []byte) []byte {
	kind := byte('p')
	if !d.echo {
		kind = 'q'
	}
	d.scratch = append(append(d.scratch[:0], kind), payload...)
	return socket.AppendMaskedFrame(dst, socket.OpText, d.scratch, clientKey)
}

func (d *floorDialect) read(payload []byte) event {
	if string(payload) == "j" {
		return event{kind: eventJoined}
	}
	if len(payload) > 1 && payload[0] == 'a' {
		if serial, err := strconv.ParseInt(string(payload[1:]), 10, 64); err == nil {
			return event{kind: eventAck, serial: serial, count: 1}
		}
	}
	return event{kind: eventError, text: fmt.Sprintf("unreadable frame %.100q", payload)}
}

func (d *floorDialect) leave(dst []byte) []byte { return dst }

func (d *floorDialect) answers() bool { return true }

func (d *floorDialect) channel(_, room int) string { return strconv.Itoa(room) }
