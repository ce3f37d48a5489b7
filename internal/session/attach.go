package session

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
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
	params  map[string]string // the effective ones (RTL4k1)
	gate    outbox.Gate

	announcing sync.Mutex  // held while the gate is paused
	over       atomic.Bool // the client was told that it ended, and has to attach anew
}

// Receive implements hub.Receiver.
func (a *attachment) Receive(frames []byte, more bool) {
	a.session.transport.Deliver(&a.gate, frames, more)
}

// Lost tells the client that messages were missed (RTL12). It implements hub.Receiver.
func (a *attachment) Lost(position pubsub.Serial) {
	a.session.manager.later(func() {
		pm := a.attached(0)
		pm.ChannelSerial = string(max(position, a.hub.Reached()))
		pm.Error = wire.NewErrorInfo(pubsub.NewError(pubsub.CodeMessagesExpired, "messages may have been missed"))
		if err := a.announce(pm, false); err != nil {
			a.over.Store(true)
			a.session.transport.End(&a.gate, a.unavailable(err))
		}
	})
}

// changed is the ATTACHED that tells of new modes or parameters while a goes on (RTL12).
func (a *attachment) changed() *wire.ProtocolMessage {
	pm := a.attached(wire.FlagResumed)
	pm.ChannelSerial = string(a.hub.Reached())
	return pm
}

// attached is an ATTACHED for a with its granted modes and the given other flags.
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

// regrant recomputes the granted modes.
func (a *attachment) regrant(grant *auth.Grant, asked pubsub.Mode) (pubsub.Mode, error) {
	name, err := pubsub.ParseChannelName(a.channel)
	if err != nil {
		return 0, err
	}
	return a.hub.Regrant(grant, name, asked)
}

func (s *Session) find(channel string) (index int, a *attachment) {
	for i, a := range s.attachments {
		if a.channel == channel {
			return i, a
		}
	}
	return -1, nil
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
	asked := pm.Flags.Modes()
	if modes, ok := params.effective["modes"]; ok {
		asked = pubsub.ParseModes(modes)
	}
	if _, a := s.find(pm.Channel); a != nil {
		// The same options again come from a client that lost its way, such as one whose
		// delta did not decode: it drops what it is sent until it is attached anew (RTL18).
		if !a.over.Load() && (pm.ChannelSerial == "" || asked != a.asked || !maps.Equal(params.effective, a.params)) {
			s.reattach(a, asked, params.effective)
			return
		}
		s.drop(pm.Channel)
		s.transport.Mute(&a.gate)
	}
	if len(s.attachments) >= s.manager.opts.Limits.MaxChannels {
		s.channelFailed(pm.Channel, pubsub.Errorf(pubsub.CodeTooManyChannels, "a connection may attach to %d channels", s.manager.opts.Limits.MaxChannels))
		return
	}
	a := &attachment{session: s, channel: pm.Channel, asked: asked, params: params.effective}
	s.transport.Hold(&a.gate)
	ctx, cancel := context.WithTimeout(context.Background(), directoryTimeout)
	defer cancel()
	a.hub, err = s.manager.opts.Hub.Attach(ctx, &hub.Attach{
		Grant:        s.Grant(),
		Channel:      name,
		Modes:        asked,
		ConnectionID: s.id,
		NoEcho:       !s.echo || params.noEcho,
		Form:         s.transport.Form(pm.Channel),
		Receiver:     a,
	})
	if err != nil {
		s.channelFailed(pm.Channel, err)
		return
	}
	s.attachments = append(s.attachments, a)
	attached, backlog := a.begin(ctx, pm, &params)
	frames, err := a.withMembers(ctx, attached, false, backlog...)
	if err != nil {
		s.interrupt(a, err)
		return
	}
	s.transport.Release(&a.gate, frames...)
}

// begin decides where the attachment goes on from: where the client says that it was
// (RTL4c1), some way back if it asked for a rewind, or here.
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
func (s *Session) reattach(a *attachment, asked pubsub.Mode, params map[string]string) {
	if _, err := a.regrant(s.Grant(), asked); err != nil {
		s.drop(a.channel)
		s.transport.End(&a.gate, channelError(a.channel, pubsub.ErrorFor(err)))
		return
	}
	a.asked, a.params = asked, params
	if err := a.announce(a.changed(), false); err != nil {
		s.interrupt(a, err)
	}
}

// detach answers a DETACH, also of a channel that is not attached (RTL5).
func (s *Session) detach(pm *wire.ProtocolMessage) {
	detached := &wire.ProtocolMessage{Action: wire.ActionDetached, Channel: pm.Channel, HasChannel: true}
	if a := s.drop(pm.Channel); a != nil {
		s.leaveChannel(a.channel)
		s.transport.End(&a.gate, detached)
		return
	}
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

// channelFailed answers with a channel's ERROR (RTL14); the connection is unharmed.
func (s *Session) channelFailed(channel string, err error) {
	s.transport.Send(channelError(channel, pubsub.ErrorFor(err)), true)
}

func channelError(channel string, err *pubsub.Error) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{
		Action: wire.ActionError, Channel: channel, HasChannel: true, Error: wire.NewErrorInfo(err),
	}
}
