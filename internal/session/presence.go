package session

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// whereabouts is the set of channels where a connection may have presence members. All
// sessions of the connection on this node share it.
type whereabouts struct {
	mu       sync.Mutex
	channels []pubsub.ChannelID
}

// add adds a channel and reports whether it was not there.
func (w *whereabouts) add(id pubsub.ChannelID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Contains(w.channels, id) {
		return false
	}
	w.channels = append(w.channels, id)
	return true
}

// take removes a channel and reports whether it was there.
func (w *whereabouts) take(id pubsub.ChannelID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.channels, id)
	if i >= 0 {
		w.channels = slices.Delete(w.channels, i, i+1)
	}
	return i >= 0
}

func (w *whereabouts) all() []pubsub.ChannelID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.channels)
}

func (w *whereabouts) takeAll() []pubsub.ChannelID {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.channels
	w.channels = nil
	return all
}

// presence hands a PRESENCE to the hub. It is acknowledged as a publish is, in its turn.
func (s *Session) presence(turn *hub.Turn, pm *wire.ProtocolMessage) {
	number := s.acks.expect(pm.MsgSerial)
	err := s.present(turn, pm)
	s.acks.resolve(s, number, hub.Published{Err: pubsub.ErrorFor(err)})
}

func (s *Session) present(turn *hub.Turn, pm *wire.ProtocolMessage) error {
	name, err := pubsub.ParseChannelName(pm.Channel)
	if err != nil {
		return err
	}
	if pm.ItemErr != nil {
		return s.itemError(pm)
	}
	if pm.Presence == nil { // as against an empty array, which is acknowledged
		return pubsub.NewError(pubsub.CodeBadRequest, "there are no presence messages")
	}
	grant := s.Grant()
	if grant.Allows(auth.OpPresence, name.Resource()) { // otherwise the hub says what is missing
		switch _, a := s.find(pm.Channel); {
		case a == nil:
			return pubsub.Errorf(pubsub.CodeNotAttached, "Unable to perform operation on channel: %s (not currently attached)", name.Attached)
		case a.hub.Modes()&pubsub.ModePresence == 0 && name.Qualifier == "":
			return pubsub.NewError(pubsub.CodeModeNotGranted, "the channel was attached without the presence mode")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), directoryTimeout)
	defer cancel()
	enters := slices.ContainsFunc(pm.Presence, func(m *pubsub.PresenceMessage) bool { return m.Action != pubsub.PresenceLeave })
	if enters && grant.Allows(auth.OpPresence, name.Resource()) {
		if err := s.inhabit(ctx, name.ID(grant.App)); err != nil {
			return err
		}
	}
	return s.manager.opts.Hub.Presence(ctx, turn, &hub.Presence{
		Grant:        grant,
		Channel:      name,
		Items:        pm.Presence,
		ConnectionID: s.id,
		MsgSerial:    pm.MsgSerial,
		Returned:     s.returned,
	})
}

// inhabit notes that the connection is about to have members in a channel, so that they can be
// found when it has ended, with its node perhaps.
func (s *Session) inhabit(ctx context.Context, channel pubsub.ChannelID) error {
	if !s.members.add(channel) {
		return nil
	}
	if err := s.manager.opts.Directory.Inhabit(ctx, s.id, channel); err != nil {
		s.members.take(channel)
		return pubsub.NewError(pubsub.CodeUnavailable, "the members of the connection cannot be recorded; try again").Because(err)
	}
	return nil
}

// inherit takes over the presence members of the session that had the connection before.
func (s *Session) inherit(old *Session) { s.members = old.members }

// leaveChannel lets the connection's members leave a channel to which it is not attached
// any more, under no name.
func (s *Session) leaveChannel(channel string) {
	name, err := pubsub.ParseChannelName(channel)
	if err != nil {
		return
	}
	for _, a := range s.attachments {
		if other, err := pubsub.ParseChannelName(a.channel); err == nil && other.Base == name.Base && a.hub.Modes()&pubsub.ModePresence != 0 {
			return
		}
	}
	id := name.ID(s.Grant().App)
	if !s.members.take(id) {
		return
	}
	s.manager.persist("members of a connection have not left", s.id, 0, func(ctx context.Context) error {
		if _, err := s.manager.opts.Hub.LeaveAll(ctx, s.id, []pubsub.ChannelID{id}); err != nil {
			return err
		}
		return s.manager.opts.Directory.Vacate(ctx, s.id, id)
	})
}

// leaveAll lets all members of the connection leave: it has ended.
func (s *Session) leaveAll() {
	channels := s.members.takeAll()
	if len(channels) == 0 {
		return
	}
	s.manager.persist("members of a connection have not left", s.id, 0, func(ctx context.Context) (err error) {
		channels, err = s.manager.opts.Hub.LeaveAll(ctx, s.id, channels)
		return err
	})
}

// leaving reads the members that leave if the connection is lost. lost lets them leave, when
// nobody can resume the connection any more without learning of it.
func (s *Session) leaving(ctx context.Context) (lost func(), err error) {
	channels := s.members.all()
	if len(channels) == 0 {
		return func() {}, nil
	}
	members, err := s.manager.opts.Hub.Leaving(ctx, s.id, channels)
	if err != nil {
		return nil, err
	}
	return func() { s.manager.persist("members of a lost connection have not left", s.id, 0, members.Leave) }, nil
}

// How long one try of persist takes at most, and when the next comes, which doubles.
const (
	persistTimeout = 10 * time.Second
	persistPause   = time.Second
	persistTries   = 8
)

// persist does what needs the store, again and again if the store cannot be reached.
func (m *Manager) persist(failure, connectionID string, tries int, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), persistTimeout)
	defer cancel()
	err := f(ctx)
	if err == nil {
		return
	}
	m.opts.Log.Warn(failure, "connection", connectionID, "error", err)
	if tries++; tries < persistTries {
		m.opts.After(persistPause<<tries, func() {
			m.later(func() { m.persist(failure, connectionID, tries, f) })
		})
	}
}

// sync answers a client's SYNC with the members as they are now (RTP19). Whatever it asked to
// continue begins anew (RTP18).
func (s *Session) sync(pm *wire.ProtocolMessage) {
	if _, a := s.find(pm.Channel); a != nil {
		if err := a.announce(nil, nil, true, nil); err != nil {
			s.interrupt(a, err)
		}
	}
}

// announce sends an ATTACHED, or nothing if attached is nil, and what the members are, in one
// step, from which on the attachment is as change says, unless that is nil; the frames that between returns, for where the client stands then, come before the
// members. What happens meanwhile is sent after, so that no event is older than the members
// it changes. On an error nothing was sent, and the attachment has to end.
func (a *attachment) announce(change *hub.Change, attached func(at pubsub.Serial) *wire.ProtocolMessage, always bool, between func(context.Context, pubsub.Serial) ([][]byte, error)) error {
	a.announcing.Lock()
	defer a.announcing.Unlock()
	transport := a.session.transport
	paused, starved := false, false
	at := a.hub.Mark(change, func() {
		paused = transport.Pause(&a.gate)
		if attached != nil {
			starved = a.starved.Swap(false)
		}
	})
	if !paused {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), directoryTimeout)
	defer cancel()
	var pm *wire.ProtocolMessage
	if attached != nil {
		pm = attached(at)
		if starved {
			a.confess(pm)
		}
	}
	var more [][]byte
	var err error
	if between != nil {
		more, err = between(ctx, at)
	}
	if err != nil {
		return err
	}
	frames, err := a.withState(ctx, pm, always, more...)
	if err == nil {
		transport.Release(&a.gate, frames...)
	}
	return err
}

// interrupt ends an attachment for which the store is needed and cannot be reached. The
// client attaches again by itself (RTL13a).
func (s *Session) interrupt(a *attachment, err error) {
	s.drop(a.channel)
	s.transport.End(&a.gate, a.unavailable(err))
}

// withState returns an ATTACHED, if there is one, and behind it the given frames, the SYNC that
// tells of the members (RTP1) and, with an ATTACHED, the OBJECT_SYNC that tells of the objects
// (RTO4). Without members there is no SYNC, unless always is set, and nobody is there (RTP19a);
// without objects there is no OBJECT_SYNC.
func (a *attachment) withState(ctx context.Context, attached *wire.ProtocolMessage, always bool, between ...[]byte) ([][]byte, error) {
	members, err := a.hub.Members(ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(members, func(m *pubsub.PresenceMessage) bool { return m.ConnectionID == a.session.id }) {
		_ = a.session.inhabit(ctx, a.hub.Channel()) // it is noted already, unless the note was lost
	}
	sync := len(members) > 0 || always
	transport := a.session.transport
	var frames [][]byte
	var objects []*pubsub.ObjectMessage
	if attached != nil {
		if sync {
			attached.Flags |= wire.FlagHasPresence
		}
		if objects, err = a.hub.Objects(ctx); err != nil {
			return nil, err
		}
		if len(objects) > 0 {
			attached.Flags |= wire.FlagHasObjects
		}
		frames = append(frames, transport.Encode(attached))
	}
	frames = append(frames, between...)
	if sync {
		for _, pm := range a.syncPages(members) {
			frames = append(frames, transport.Encode(pm))
		}
	}
	for _, pm := range a.objectPages(objects) {
		frames = append(frames, transport.Encode(pm))
	}
	return frames, nil
}

// The bounds of one page of a SYNC: members, and bytes of them as limits count. JSON and
// base64 may make them larger.
const (
	syncPageMembers = 100
	syncPageBytes   = 32 << 10
)

// syncPages makes the pages of a new SYNC (RTP18a), of which the last has an empty cursor
// (RTP18b).
func (a *attachment) syncPages(members []*pubsub.PresenceMessage) []*wire.ProtocolMessage {
	sequence := a.session.newSequence()
	var pages []*wire.ProtocolMessage
	for first := true; first || len(members) > 0; first = false {
		n, bytes := 0, 0
		for n < len(members) && n < syncPageMembers && (n == 0 || bytes+memberSize(members[n]) <= syncPageBytes) {
			bytes += memberSize(members[n])
			n++
		}
		cursor := ""
		if n < len(members) {
			cursor = strconv.Itoa(len(pages) + 1)
		}
		pages = append(pages, &wire.ProtocolMessage{
			Action: wire.ActionSync, Channel: a.channel, HasChannel: true,
			ChannelSerial: sequence + ":" + cursor, Presence: members[:n:n],
		})
		members = members[n:]
	}
	return pages
}

// newSequence names a SYNC or OBJECT_SYNC among those of the connection.
func (s *Session) newSequence() string {
	return strconv.FormatUint(s.generation, 36) + "-" + strconv.FormatUint(uint64(s.syncs.Add(1)), 36)
}

func memberSize(m *pubsub.PresenceMessage) int {
	return m.Size() + len(m.ID) + len(m.ConnectionID) + len(m.Encoding)
}

// unavailable is the DETACHED by which a client is asked to attach again (RTL13a).
func (a *attachment) unavailable(err error) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{
		Action: wire.ActionDetached, Channel: a.channel, HasChannel: true, Error: wire.NewErrorInfo(pubsub.ErrorFor(err)),
	}
}
