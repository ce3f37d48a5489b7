package hub

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// ErrRoomFull is the reason of an Attach that would exceed Attach.MaxMembers.
var ErrRoomFull = errors.New("hub: room is full")

// Attach is a request to receive a channel's entries.
type Attach struct {
	Grant   *auth.Grant
	Channel pubsub.ChannelName

	// Modes are the modes asked for (RTL4l). Zero means pubsub.DefaultModes.
	Modes pubsub.Mode

	ConnectionID string
	NoEcho       bool // leave out what this connection published

	// Names restricts messages to those with one of these names; nil means all.
	Names []string

	// MaxMembers refuses the attachment with ErrRoomFull when the channel has as many on
	// all nodes; zero means no limit.
	MaxMembers int

	Form     Form
	Receiver Receiver
}

// Attachment is a receiver's membership in a channel, from Attach to Detach.
type Attachment struct {
	channel  *channel
	form     Form
	receiver Receiver
	connID   string
	noEcho   bool
	modes    atomic.Uint32 // pubsub.Mode
	names    atomic.Pointer[[]string]
	start    uint64        // entries delivered before it began
	position pubsub.Serial // where it began
}

// Attach makes a.Receiver a member of the channel: it is sent every entry after
// Attachment.Position, as far as the granted modes allow, perhaps before Attach returns.
// The receiver holds them back until it has told its client of the attachment.
//
// Errors are *pubsub.Error (RTL4e): CodeInvalidChannelName, CodeCapabilityDenied,
// CodeIdentifiedClientNeeded, CodeUnavailable; or ErrRoomFull in the chain.
func (h *Hub) Attach(ctx context.Context, a *Attach) (*Attachment, error) {
	modes, err := h.grantModes(a.Grant, a.Channel, a.Modes)
	if err != nil {
		return nil, err
	}
	id := a.Channel.ID(a.Grant.App)
	if _, err := h.opts.Directory.Join(ctx, id, h.opts.Node, a.MaxMembers); err != nil {
		if errors.Is(err, directory.ErrFull) {
			return nil, pubsub.NewError(pubsub.CodeForbidden, "the room is full").Because(ErrRoomFull)
		}
		return nil, clientError(err)
	}
	c, err := h.acquire(ctx, id)
	if err != nil {
		h.leave(id)
		return nil, clientError(err)
	}
	at := &Attachment{
		channel:  c,
		form:     a.Form,
		receiver: a.Receiver,
		connID:   a.ConnectionID,
		noEcho:   a.NoEcho,
	}
	at.modes.Store(uint32(modes))
	if a.Names != nil {
		at.SetNames(a.Names) // a pointer into a would keep all of it
	}
	c.mu.Lock()
	at.start, at.position = c.delivered, c.position
	c.addLocked(at)
	c.mu.Unlock()
	return at, nil
}

// grantModes checks that the grant may attach and returns the modes it gets: those asked
// for that its capability covers (RTL4m).
func (h *Hub) grantModes(g *auth.Grant, name pubsub.ChannelName, asked pubsub.Mode) (pubsub.Mode, error) {
	if name.Qualifier == "filter" {
		return 0, pubsub.NewError(pubsub.CodeInvalidChannelName, "this server does not support filtered channels")
	}
	if h.opts.Namespace(g.App, name.Base).Identified && !g.Identified() {
		return 0, pubsub.NewError(pubsub.CodeIdentifiedClientNeeded, "the channel requires an identified client")
	}
	if asked == 0 {
		asked = pubsub.DefaultModes
	}
	modes := asked & modesOf(g.Ops(name.Resource()))
	if name.Qualifier != "" {
		modes &= pubsub.ModeSubscribe
	}
	if modes == 0 {
		return 0, denied("attach to", name)
	}
	return modes, nil
}

func denied(verb string, name pubsub.ChannelName) *pubsub.Error {
	return pubsub.Errorf(pubsub.CodeCapabilityDenied, "Channel denied access based on given capability: may not %s %s", verb, name.Attached)
}

// modesOf returns the modes that operations give (TB2d).
func modesOf(ops auth.OpSet) pubsub.Mode {
	var m pubsub.Mode
	for _, pair := range [...]struct {
		op   auth.Operation
		mode pubsub.Mode
	}{
		{auth.OpPresence, pubsub.ModePresence},
		{auth.OpPublish, pubsub.ModePublish},
		{auth.OpSubscribe, pubsub.ModeSubscribe | pubsub.ModePresenceSubscribe | pubsub.ModeObjectSubscribe},
		{auth.OpAnnotationPublish, pubsub.ModeAnnotationPublish},
		{auth.OpAnnotationSubscribe, pubsub.ModeAnnotationSubscribe},
		{auth.OpObjectSubscribe, pubsub.ModeObjectSubscribe},
		{auth.OpObjectPublish, pubsub.ModeObjectPublish},
	} {
		if ops.Has(pair.op) {
			m |= pair.mode
		}
	}
	return m
}

// Regrant recomputes the modes after the connection's grant changed (RTC8a1). It returns
// the new modes, or an error when nothing is left of them.
func (a *Attachment) Regrant(g *auth.Grant, name pubsub.ChannelName, asked pubsub.Mode) (pubsub.Mode, error) {
	modes, err := a.channel.hub.grantModes(g, name, asked)
	if err != nil {
		return 0, err
	}
	a.modes.Store(uint32(modes))
	return modes, nil
}

// Position is the channel's position when the attachment began: everything after it was or
// will be received.
func (a *Attachment) Position() pubsub.Serial { return a.position }

// Reached is a position up to which everything was handed to the receiver, as far as the
// modes allow. What is being sent right now may be beyond it. Clients keep the position of
// every ATTACHED, so that one sent later must not take them back to the beginning.
func (a *Attachment) Reached() pubsub.Serial {
	a.channel.mu.Lock()
	defer a.channel.mu.Unlock()
	return max(a.position, a.channel.sent)
}

// Modes are the granted modes.
func (a *Attachment) Modes() pubsub.Mode { return pubsub.Mode(a.modes.Load()) }

// Names returns the names that messages are restricted to; nil means all.
func (a *Attachment) Names() []string {
	if p := a.names.Load(); p != nil {
		return *p
	}
	return nil
}

// SetNames replaces the names that messages are restricted to. It keeps names.
func (a *Attachment) SetNames(names []string) { a.names.Store(&names) }

// Detach ends the membership. A fan-out that was under way may still call the receiver.
func (a *Attachment) Detach() {
	c := a.channel
	c.mu.Lock()
	c.removeLocked(a)
	c.mu.Unlock()
	c.hub.release(c)
	c.hub.leave(c.id)
}

// leave takes one attachment off the shared count. A directory that cannot be reached
// learns it from the node's next report.
func (h *Hub) leave(id pubsub.ChannelID) {
	ctx, cancel := context.WithTimeout(context.Background(), h.opts.AppendTimeout)
	defer cancel()
	_ = h.opts.Directory.Leave(ctx, id, h.opts.Node)
}

// send hands the attachment its part of p, and notes in p what it was.
func (a *Attachment) send(p *parcel) {
	if a.start <= p.first && !p.mixed && a.names.Load() == nil && a.wantsKind(p.kinds) &&
		!(a.noEcho && p.kinds == engine.KindMessage && p.publishedBy(a.connID)) {
		a.receiver.Receive(p.bytes, false)
		p.whole++
		return
	}
	a.sendSome(p, a.receiver)
}

// sendSome hands the frames that pass the attachment's filters to a receiver, as few runs
// of adjacent frames as possible.
func (a *Attachment) sendSome(p *parcel, to Receiver) {
	names := a.Names()
	begin, end := 0, 0 // the run not yet handed over
	at := 0            // where the unit begins
	for i := range p.units {
		u := &p.units[i]
		if a.wants(p, u, names) {
			p.receivers[i]++
			if at != end {
				if end > begin {
					to.Receive(p.bytes[begin:end:end], true)
				}
				begin = at
			}
			end = u.End
		}
		at = u.End
	}
	if end > begin {
		to.Receive(p.bytes[begin:end:end], false)
	}
}

func (a *Attachment) wants(p *parcel, u *Unit, names []string) bool {
	e := p.batch[u.Entry]
	if p.first+uint64(u.Entry) < a.start {
		return false
	}
	if !a.wantsKind(e.Kind) {
		// What becomes of its own members a connection is told in any case (RTP17a).
		return e.Kind == engine.KindPresence && a.connID != "" && e.Body.ConnectionID == a.connID
	}
	if e.Kind != engine.KindMessage {
		return true
	}
	if a.noEcho && e.Body.ConnectionID == a.connID {
		return false
	}
	if names == nil {
		return true
	}
	if u.Item != AllItems {
		return slices.Contains(names, e.Body.Messages[u.Item].Name)
	}
	return slices.ContainsFunc(e.Body.Messages, func(m *pubsub.Message) bool { return slices.Contains(names, m.Name) })
}

// wantsAny reports whether something of p may be for a: with false, nothing is.
func (a *Attachment) wantsAny(p *parcel) bool {
	return p.mixed || a.wantsKind(p.kinds) || p.kinds == engine.KindPresence && a.connID != ""
}

func (a *Attachment) wantsKind(k engine.Kind) bool {
	modes := a.Modes()
	switch k {
	case engine.KindMessage:
		return modes&pubsub.ModeSubscribe != 0
	case engine.KindPresence:
		return modes&pubsub.ModePresenceSubscribe != 0
	case engine.KindAnnotation:
		return modes&pubsub.ModeAnnotationSubscribe != 0
	case engine.KindObject:
		return modes&pubsub.ModeObjectSubscribe != 0
	}
	return false
}

func (p *parcel) publishedBy(connID string) bool {
	for _, e := range p.batch {
		if e.Body.ConnectionID == connID {
			return true
		}
	}
	return false
}
