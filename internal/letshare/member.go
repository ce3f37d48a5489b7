package letshare

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
	"letshare-server/internal/wsconn"
)

// member is one connection. Its fields belong to the connection's worker.
type member struct {
	door      *Door
	ws        *wsconn.Conn
	grant     *auth.Grant
	id        string
	instance  string // what peers address, and the default of a message's sender
	onlyRoom  string // the room that the token is for; empty: any
	rooms     []*room
	published int64  // messages so far, which number them
	lastRoom  string // that the latest publish went to
	turn      hub.Turn
	rate      limit.Bucket // of what it publishes
	left      bool         // its places are given up
}

// room is a member's place in a room. It is the hub's Receiver.
type room struct {
	member     *member
	name       string
	events     []string
	attachment *hub.Attachment
	gate       outbox.Gate
}

// maxEvents bounds the events that a member subscribes to in one room.
const maxEvents = 256

// Opened implements wsconn.Handler.
func (m *member) Opened(ws *wsconn.Conn) {
	m.ws = ws
	m.door.mu.Lock()
	m.door.members[m] = struct{}{}
	m.door.mu.Unlock()
	m.door.opts.Metrics.LetShareOpened()
	m.recheck() // what was revoked before the door knew the member has not reached it
}

// recheck closes the connection if its token is revoked.
func (m *member) recheck() {
	if m.door.opts.Auth.Recheck(m.grant) != nil {
		m.ws.Close(socket.ClosePolicyViolation, "token revoked")
	}
}

// Drain implements Member.
func (m *member) Drain() { m.ws.Close(socket.CloseGoingAway, "server is stopping") }

// Message implements wsconn.Handler.
func (m *member) Message(_ socket.Opcode, payload []byte) {
	r, failed := parseRequest(payload)
	if failed == nil {
		failed = m.handle(r)
	}
	if failed != nil {
		m.door.noisy.Warn("request refused", "reason", failed.Reason, "client", m.grant.ClientID)
		m.ws.Outbox().Queue(errorFrame(failed))
	}
}

// TurnEnd implements wsconn.Handler.
func (m *member) TurnEnd() { m.turn.End() }

// Oversize implements wsconn.OversizeHandler.
func (m *member) Oversize() {
	m.exceeded(limit.FrameBytes)
	m.ws.Outbox().Queue(errorFrame(fail("message_too_large", fmt.Sprintf("消息太大，最多 %d KB", maxMessageBytes>>10))))
}

// Leaving implements wsconn.LeaveHandler: whoever has the answer to its close frame has left.
func (m *member) Leaving(end wsconn.End) { m.leave(end) }

// Closed implements wsconn.Handler. The member's places are free when it returns.
func (m *member) Closed(end wsconn.End) { m.leave(end) }

// leave gives up the member's places. Only the first call counts.
func (m *member) leave(end wsconn.End) {
	if m.left {
		return
	}
	m.left = true
	m.turn.End()
	for _, r := range m.rooms {
		r.attachment.Detach()
	}
	m.rooms = nil
	m.door.mu.Lock()
	delete(m.door.members, m)
	m.door.mu.Unlock()
	m.door.opts.Metrics.LetShareClosed(end)
}

func (m *member) handle(r *request) *failure {
	switch r.Type {
	case "subscribe":
		return m.subscribe(r)
	case "unsubscribe":
		return m.unsubscribe(r)
	case "publish":
		return m.publish(r)
	}
	return fail("unsupported_type", "不支持的消息类型: "+clip(r.Type))
}

func (m *member) find(name string) *room {
	for _, r := range m.rooms {
		if r.name == name {
			return r
		}
	}
	return nil
}

// subscribe enters a room, or adds an event to those of a room that the member is in.
func (m *member) subscribe(r *request) *failure {
	if r.Channel == "" {
		return errNoChannel
	}
	if failed := checkRoomName(r.Channel); failed != nil {
		return failed
	}
	place := m.find(r.Channel)
	if place == nil {
		return m.enter(r)
	}
	if !slices.Contains(place.events, r.Event) {
		if len(place.events) >= maxEvents {
			return fail("too_many_events", fmt.Sprintf("一个房间最多订阅 %d 个事件", maxEvents))
		}
		place.events = append(slices.Clone(place.events), r.Event)
		place.attachment.SetNames(m.names(place.events))
	}
	m.ws.Outbox().Queue(statusFrame("subscribed", r))
	return nil
}

// enter makes the member one of the room. Nothing of the room is sent to it before the
// acknowledgement.
func (m *member) enter(r *request) *failure {
	opts := &m.door.opts
	if m.onlyRoom != "" && m.onlyRoom != r.Channel {
		return &failure{403, "room_not_allowed", "该token只能进入房间: " + clip(m.onlyRoom)}
	}
	if most := m.limits().ConnectionChannels; len(m.rooms) >= most {
		m.exceeded(limit.ConnectionChannels)
		return fail("too_many_rooms", fmt.Sprintf("最多同时进入 %d 个房间", most))
	}
	place := &room{member: m, name: r.Channel, events: []string{r.Event}}
	m.ws.Outbox().Hold(&place.gate)
	ctx, cancel := context.WithTimeout(context.Background(), enterTimeout)
	defer cancel()
	var err error
	place.attachment, err = opts.Hub.Attach(ctx, &hub.Attach{
		Grant:        m.grant,
		Channel:      pubsub.ChannelName{Attached: r.Channel, Base: r.Channel},
		Modes:        pubsub.ModeSubscribe | pubsub.ModePublish,
		ConnectionID: m.id,
		NoEcho:       true,
		Names:        m.names(place.events),
		MaxMembers:   opts.MaxRoomUsers,
		Form:         form{r.Channel},
		Receiver:     place,
	})
	if errors.Is(err, hub.ErrRoomFull) {
		m.exceeded(limit.RoomUsers)
		return fail("room_full", fmt.Sprintf("房间已满，最多支持%d个用户", opts.MaxRoomUsers))
	}
	if err != nil {
		return m.failureFor(err)
	}
	m.rooms = append(m.rooms, place)
	m.ws.Outbox().Release(&place.gate, statusFrame("subscribed", r))
	return nil
}

// limits are those of the member's app, as they are now.
func (m *member) limits() *limit.Limits { return m.door.opts.Hub.Limits().For(m.grant.App) }

// exceeded tells of an excess.
func (m *member) exceeded(n limit.Name) { m.door.opts.Hub.Limits().Exceeded(n, m.grant.App) }

// enterTimeout bounds the entry into a room.
const enterTimeout = 5 * time.Second

var errNoChannel = fail("missing_channel", "缺少频道名称")

// names are the names of messages that a member is sent; nil means all.
func (m *member) names(events []string) []string {
	if m.door.opts.WildcardEvents && slices.Contains(events, defaultEvent) {
		return nil
	}
	return events
}

// unsubscribe drops one event, or leaves the room. It is acknowledged whatever the room.
func (m *member) unsubscribe(r *request) *failure {
	if r.Channel == "" {
		return errNoChannel
	}
	place := m.find(r.Channel)
	switch {
	case place == nil:
	case r.explicitEvent:
		place.events = slices.DeleteFunc(slices.Clone(place.events), func(e string) bool { return e == r.Event })
		place.attachment.SetNames(m.names(place.events))
	default:
		m.drop(place)
		m.ws.Outbox().End(&place.gate, statusFrame("unsubscribed", r))
		return nil
	}
	m.ws.Outbox().Queue(statusFrame("unsubscribed", r))
	return nil
}

// drop takes the member out of a room, without telling it.
func (m *member) drop(place *room) {
	m.rooms = slices.DeleteFunc(m.rooms, func(other *room) bool { return other == place })
	place.attachment.Detach()
}

// publish sends to the others of a room. A good one has no answer.
func (m *member) publish(r *request) *failure {
	if r.Channel == "" {
		return errNoChannel
	}
	data, failed := dataOf(r, m.instance)
	if failed != nil {
		return failed
	}
	if m.find(r.Channel) == nil {
		return fail("not_subscribed", "客户端未订阅房间: "+clip(r.Channel))
	}
	if most := m.limits().ConnectionMessages; !m.door.opts.Hub.Limits().Allow(&m.rate, most, 1) {
		m.exceeded(limit.ConnectionMessages)
		return errTooFast
	}
	if m.lastRoom != r.Channel {
		// A turn sends room by room; this one's messages to another room come before.
		m.turn.End()
		m.lastRoom = r.Channel
	}
	err := m.door.opts.Hub.Publish(&m.turn, &hub.Publish{
		Grant:        m.grant,
		Channel:      pubsub.ChannelName{Attached: r.Channel, Base: r.Channel},
		Messages:     []*pubsub.Message{{Name: r.Event, Data: pubsub.Data{Kind: pubsub.TextData, Bytes: data}, Encoding: "json"}},
		ConnectionID: m.id,
		MsgSerial:    m.published,
		Final:        true,
		MaxBytes:     maxMessageBytes + maxAddedBytes,
	}, m.outcome)
	m.published++
	if err != nil {
		return m.failureFor(err)
	}
	return nil
}

var errTooFast = fail("rate_limited", "发送太频繁，请稍后重试")

// maxAddedBytes is room for what the door adds to a message, and for its names.
const maxAddedBytes = 64 << 10

// outcome tells the member of a publish that failed in the engine.
func (m *member) outcome(p hub.Published) {
	if p.Err != nil {
		m.ws.Outbox().Put(errorFrame(m.failureFor(p.Err)))
	}
}

// failureFor is what the app's user is told of an error behind the door.
func (m *member) failureFor(err error) *failure {
	e := pubsub.ErrorFor(err)
	switch e.Code {
	case pubsub.CodeCapabilityDenied, pubsub.CodeIdentifiedClientNeeded, pubsub.CodeTLSRequired:
		return &failure{403, "forbidden", "没有权限访问该房间"}
	case pubsub.CodeMessageTooLarge: // than the room's namespace allows
		return fail("message_too_large", "消息太大")
	case pubsub.CodeChannelMessageRate, pubsub.CodeChannelByteRate:
		return errTooFast
	case pubsub.CodeChannelLimit:
		return fail("server_full", "服务器上的房间太多，请稍后重试")
	}
	m.door.opts.Log.Error("request failed", "code", int(e.Code), "error", e)
	return fail("unavailable", "服务器繁忙，请稍后重试")
}

// Receive implements hub.Receiver.
func (r *room) Receive(frames []byte, more bool) {
	r.member.ws.Outbox().PutGate(&r.gate, frames, more)
}

// Barred implements hub.Barred: the member leaves the room, and is told so.
func (r *room) Barred(*pubsub.Error) {
	m := r.member
	m.ws.Soon(func() {
		if m.find(r.name) != r {
			return
		}
		if err := r.attachment.Admitted(); err != nil {
			m.drop(r)
			m.ws.Outbox().End(&r.gate, errorFrame(m.failureFor(err)))
		}
	})
}

// Lost implements hub.Receiver. The protocol has no word for it: peers repeat their signals.
func (r *room) Lost(pubsub.Serial) {}

func clip(s string) string {
	if r := []rune(s); len(r) > 64 {
		return string(r[:64]) + "…"
	}
	return s
}
