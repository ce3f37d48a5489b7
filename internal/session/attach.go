package session

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// attachment is the session's side of a channel it is attached to. It is the hub's
// Receiver.
type attachment struct {
	session *Session
	hub     *hub.Attachment
	channel string // the name exactly as the client wrote it
	asked   pubsub.Mode
	noEcho  bool
	layout  wire.Layout       // of objects; never changes
	params  map[string]string // the effective ones (RTL4k1)
	gate    outbox.Gate

	announcing sync.Mutex  // held while the gate is paused, and while the attachment begins
	over       atomic.Bool // the client was told that it ended, and has to attach anew
	starved    atomic.Bool // something was dropped, and the client has not been told
}

// Receive implements hub.Receiver.
func (a *attachment) Receive(frames []byte, more bool) {
	a.session.transport.Deliver(&a.gate, frames, more)
}

// Lost tells the client that messages were missed (RTL12). It implements hub.Receiver.
func (a *attachment) Lost(position pubsub.Serial) {
	a.session.manager.later(func() {
		a.tellLost(func(at pubsub.Serial) *wire.ProtocolMessage {
			pm := a.attached(0)
			pm.ChannelSerial = string(max(position, at))
			pm.Error = wire.NewErrorInfo(pubsub.NewError(pubsub.CodeMessagesExpired, "messages may have been missed"))
			return pm
		})
	})
}

// Barred ends the attachment, which the channel's rule has come to forbid. It implements
// hub.Barred.
func (a *attachment) Barred(*pubsub.Error) {
	s := a.session
	s.transport.Soon(func() {
		// By now it may have ended, and the rule may have changed again.
		if _, now := s.find(a.channel); now != a || s.closed {
			return
		}
		if err := a.hub.Admitted(); err != nil {
			s.expel(a, err)
		}
	})
}

// expel ends an attachment that is not allowed any more: the client is told, its SDK does not
// attach again by itself (RTL14), and its members leave.
func (s *Session) expel(a *attachment, err error) {
	s.drop(a.channel)
	s.transport.End(&a.gate, channelError(a.channel, pubsub.ErrorFor(err)))
	s.leaveChannel(a.channel)
}

// tellLost announces an ATTACHED from another goroutine than the turn's.
func (a *attachment) tellLost(attached func(at pubsub.Serial) *wire.ProtocolMessage) {
	if err := a.announce(nil, attached, false, nil); err != nil {
		a.over.Store(true)
		a.session.transport.End(&a.gate, a.unavailable(err))
	}
}

// changed is the ATTACHED that tells of new modes or parameters while a goes on (RTL12).
func (a *attachment) changed(at pubsub.Serial) *wire.ProtocolMessage {
	pm := a.attached(wire.FlagResumed)
	pm.ChannelSerial = string(at)
	return pm
}

// attached is an ATTACHED for a with its granted modes and the given other flags, at the
// position where a began (RTL15c).
func (a *attachment) attached(flags wire.Flags) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{
		Action:        wire.ActionAttached,
		Channel:       a.channel,
		HasChannel:    true,
		ChannelSerial: string(a.hub.Position()),
		Flags:         flags | wire.Flags(a.hub.Modes()),
		Params:        a.params,
	}
}

// deltas reports whether the client asked for deltas.
func (a *attachment) deltas() bool { return a.params["delta"] == "vcdiff" }

// wholeAppends reports whether the client wants appends as updates with all of the message.
func (a *attachment) wholeAppends() bool { return a.params["appendMode"] == "full" }

// change is what the hub is told of modes that were allowed, and of what the client asks for now.
func (a *attachment) change(modes pubsub.Mode) *hub.Change {
	return &hub.Change{Modes: modes, NoEcho: a.noEcho, WholeAppends: a.wholeAppends(), Deltas: a.deltas()}
}

// allowed is which of the modes asked for a grant allows.
func (a *attachment) allowed(grant *auth.Grant, asked pubsub.Mode) (pubsub.Mode, error) {
	name, err := pubsub.ParseChannelName(a.channel)
	if err != nil {
		return 0, err
	}
	return a.hub.Allowed(grant, name, asked)
}

func (s *Session) find(channel string) (index int, a *attachment) {
	for i, a := range s.attachments {
		if a.channel == channel {
			return i, a
		}
	}
	return -1, nil
}

// beside returns an attachment to the channel of that name under another one, or nil.
func (s *Session) beside(name pubsub.ChannelName) *hub.Attachment {
	id := name.ID(s.Grant().App)
	for _, a := range s.attachments {
		if a.hub.Channel() == id {
			return a.hub
		}
	}
	return nil
}

// attach answers an ATTACH with ATTACHED or a channel's ERROR (RTL4).
func (s *Session) attach(pm *wire.ProtocolMessage) {
	name, err := pubsub.ParseChannelName(pm.Channel)
	if err != nil {
		s.channelFailed(pm.Channel, err)
		return
	}
	params, err := readParams(name, pm.Params)
	if err != nil {
		s.channelFailed(pm.Channel, err)
		return
	}
	params.withhold(s.Grant(), name)
	asked := pm.Flags.Modes()
	if modes, ok := params.effective["modes"]; ok {
		asked = pubsub.ParseModes(modes)
	}
	if _, a := s.find(pm.Channel); a != nil {
		// The same options again come from a client that lost its way, such as one whose
		// delta did not decode: it drops what it is sent until it is attached anew (RTL18c).
		// Any others change those of the attachment (RTL16a).
		sameForm := s.layout(asked) == a.layout
		if !a.over.Load() && sameForm && (pm.ChannelSerial == "" || asked != a.asked || !maps.Equal(params.effective, a.params)) {
			s.reattach(a, asked, &params)
			return
		}
		s.drop(pm.Channel)
		s.transport.Mute(&a.gate)
	}
	if most := s.limits().ConnectionChannels; len(s.attachments) >= most {
		s.Exceeded(limit.ConnectionChannels)
		s.channelFailed(pm.Channel, pubsub.Errorf(pubsub.CodeTooManyChannels, "a connection may attach to %d channels", most))
		return
	}
	a := &attachment{
		session: s, channel: pm.Channel, asked: asked, params: params.effective,
		noEcho: !s.echo || params.noEcho, layout: s.layout(asked),
	}
	a.announcing.Lock()
	defer a.announcing.Unlock()
	s.transport.Hold(&a.gate)
	ctx, cancel := withTimeout(context.Background(), directoryTimeout)
	defer cancel()
	request := &hub.Attach{
		Grant:        s.Grant(),
		Channel:      name,
		Modes:        asked,
		ConnectionID: s.id,
		NoEcho:       a.noEcho,
		Since:        pubsub.Serial(pm.ChannelSerial),
		WholeAppends: a.wholeAppends(),
		Beside:       s.beside(name),
		Deltas:       a.deltas(),
		Form:         s.transport.Form(pm.Channel, a.layout),
		Receiver:     a,
	}
	s.deltas = s.deltas || request.Deltas
	if s.limits().ConnectionOutbound > 0 {
		s.rated() // before others ask for it
		request.Limited = true
	}
	a.hub, err = s.manager.opts.Hub.Attach(ctx, request)
	if err != nil {
		s.channelFailed(pm.Channel, err)
		return
	}
	s.attachments = append(s.attachments, a)
	occupancy, err := a.hub.ShowOccupancy(ctx, params.occupancy, a.hub.Position())
	attached, backlog := a.begin(ctx, pm, &params) // after that, for it is sent before
	var frames [][]byte
	if err == nil {
		frames, err = a.withState(ctx, attached, false, append(backlog, occupancy...)...)
	}
	if err != nil {
		s.interrupt(a, err)
		return
	}
	s.transport.Release(&a.gate, frames...)
}

// layout is how objects are told an attachment that asked for modes. What it does not matter to is
// encoded like others.
func (s *Session) layout(asked pubsub.Mode) wire.Layout {
	if s.oldObjects && asked&pubsub.ModeObjectSubscribe != 0 {
		return wire.OldObjects
	}
	return wire.NewObjects
}

// begin decides where the attachment goes on from: where the client says that it was
// (RTL4c1), some way back if it asked for a rewind, or here. Flags say so (RTL2f, RTL2i).
func (a *attachment) begin(ctx context.Context, pm *wire.ProtocolMessage, params *channelParams) (attached *wire.ProtocolMessage, frames [][]byte) {
	var flags wire.Flags
	var backlog hub.Backlog
	position := a.hub.Position()
	switch {
	case pm.ChannelSerial != "":
		since := pubsub.Serial(pm.ChannelSerial)
		if backlog = a.hub.Resume(ctx, since); backlog.Err == nil {
			flags |= wire.FlagResumed
			if len(backlog.Frames) > 0 {
				position = since // each of the frames takes the client a step on
			}
		}
	case params.rewind.Limit > 0 && !pm.Flags.Has(wire.FlagAttachResume):
		backlog = a.hub.Rewind(ctx, params.rewind)
	}
	if len(backlog.Frames) > 0 {
		flags |= wire.FlagHasBacklog
	}
	attached = a.attached(flags)
	attached.ChannelSerial = string(position)
	attached.Error = wire.NewErrorInfo(backlog.Err)
	return attached, backlog.Frames
}

// reattach changes the options of an attachment in place: it goes on from where it is, so
// that nothing in flight is sent twice.
func (s *Session) reattach(a *attachment, asked pubsub.Mode, params *channelParams) {
	modes, err := a.allowed(s.Grant(), asked)
	if err != nil {
		s.expel(a, err)
		return
	}
	a.asked, a.params = asked, params.effective
	a.noEcho = !s.echo || params.noEcho
	s.deltas = s.deltas || a.deltas()
	err = a.announce(a.change(modes), a.changed, false, func(ctx context.Context, at pubsub.Serial) ([][]byte, error) {
		return a.hub.ShowOccupancy(ctx, params.occupancy, at)
	})
	if err != nil {
		s.interrupt(a, err)
	}
}

// detach answers a DETACH, also of a channel that is not attached (RTL5d, RTL5k, RTN19b).
func (s *Session) detach(pm *wire.ProtocolMessage) {
	detached := &wire.ProtocolMessage{Action: wire.ActionDetached, Channel: pm.Channel, HasChannel: true}
	if a := s.drop(pm.Channel); a != nil {
		s.leaveChannel(a.channel)
		s.transport.End(&a.gate, detached)
		return
	}
	s.leaveChannel(pm.Channel) // entered over the transport before (RTN19b)
	s.transport.Send(detached, true)
}

// drop ends an attachment, without telling the client, and returns it.
func (s *Session) drop(channel string) *attachment {
	i, a := s.find(channel)
	if a == nil {
		return nil
	}
	last := len(s.attachments) - 1
	s.attachments[i] = s.attachments[last]
	s.attachments[last] = nil
	s.attachments = s.attachments[:last]
	a.hub.Detach()
	return a
}

// channelFailed answers with a channel's ERROR (RTL14); the connection is unharmed. What may
// pass is a DETACHED, after which the client tries again by itself (RTL13b).
func (s *Session) channelFailed(channel string, err error) {
	pm := channelError(channel, pubsub.ErrorFor(err))
	if pubsub.ErrorFor(err).Code.MayPass() {
		pm.Action = wire.ActionDetached
	}
	s.transport.Send(pm, true)
}

func channelError(channel string, err *pubsub.Error) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{
		Action: wire.ActionError, Channel: channel, HasChannel: true, Error: wire.NewErrorInfo(err),
	}
}
