package hub

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/engine"
	"letshare-server/internal/filter"
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
	NoEcho       bool // leave out what this connection published (RTL7f)

	// Since is the position that the client knows, if it knows one, for Resume: what another node
	// has sent it may not have come here yet, and must not be sent again.
	Since pubsub.Serial

	// Beside is another attachment of the connection to the channel, under another name, if
	// there is one: the two count as one connection.
	Beside *Attachment

	// Names restricts messages to those with one of these names; nil means all.
	Names []string

	// MaxMembers refuses the attachment with ErrRoomFull when the channel has as many on
	// all nodes; zero means no limit.
	MaxMembers int

	// Deltas says that messages may be told as deltas to the message before (PC3). It needs a
	// Form that makes one frame of an entry.
	Deltas bool

	// WholeAppends says that appends are received as updates with all of the message.
	WholeAppends bool

	// Limited says that Receiver is a Limiter, which is asked before it is sent anything.
	Limited bool

	Form     Form
	Receiver Receiver
}

// Attachment is a receiver's membership in a channel, from Attach to Detach.
type Attachment struct {
	// What every delivery looks at comes first.
	receiver Receiver
	connID   string
	start    uint64 // entries delivered before it began
	names    atomic.Pointer[[]string]
	modes    atomic.Uint32 // pubsub.Mode, and an OccupancyView in viewBits; changed under channel.mu
	noEcho   bool
	limited  bool // receiver is a Limiter

	wholeAppends bool
	seen         atomic.Pointer[seen] // nil: all that was published since it began, and nothing else

	// What rules ask for, which stays as it is while the attachment lasts.
	plaintext, anonymous bool

	channel  *channel
	form     Form
	filter   *filter.Filter // nil: all messages
	beside   *Attachment    // the next of the connection's own here, in a ring; nil: no other
	position pubsub.Serial  // where it began
}

// Attach makes a.Receiver a member of the channel: it is sent every entry after
// Attachment.Position, as far as the granted modes allow, perhaps before Attach returns.
// The receiver holds them back until it has told its client of the attachment. Position is not
// before Since, if the log has that: Attach waits until this node has been delivered as much.
//
// Errors are *pubsub.Error (RTL14): CodeInvalidChannelName, also for a filter that is no
// expression, CodeCapabilityDenied, CodeIdentifiedClientNeeded, CodeTooManyChannels if the
// channel has too many different filters, CodeChannelLimit, CodeUnavailable; or ErrRoomFull
// in the chain.
func (h *Hub) Attach(ctx context.Context, a *Attach) (*Attachment, error) {
	modes, err := h.grantModes(a.Grant, a.Channel, a.Modes)
	if err != nil {
		return nil, err
	}
	var sieve *filter.Filter
	if a.Channel.Qualifier == "filter" {
		if sieve, err = filter.Decode(a.Channel.Filter); err != nil {
			return nil, err
		}
	}
	id := a.Channel.ID(a.Grant.App)
	var before pubsub.Mode // what the connection has there already
	if a.Beside != nil {
		before = a.Beside.together()
	}
	add := pubsub.OccupancyOf(before | modes).Minus(pubsub.OccupancyOf(before))
	if _, err := h.opts.Directory.Join(ctx, id, h.opts.Node, add, a.MaxMembers); err != nil {
		if errors.Is(err, directory.ErrFull) {
			return nil, pubsub.NewError(pubsub.CodeForbidden, "the room is full").Because(ErrRoomFull)
		}
		return nil, clientError(err)
	}
	c, err := h.acquire(ctx, id)
	if err == nil {
		if err = c.reach(ctx, a.Since); err != nil {
			h.release(c)
		}
	}
	if err != nil {
		h.adjust(id, pubsub.Occupancy{}.Minus(add))
		return nil, clientError(err)
	}
	at := &Attachment{
		channel:  c,
		form:     a.Form,
		receiver: a.Receiver,
		connID:   a.ConnectionID,
		noEcho:   a.NoEcho,
		filter:   sieve,
		limited:  a.Limited,

		wholeAppends: a.WholeAppends,

		plaintext: a.Grant.Plaintext,
		anonymous: !a.Grant.Identified(),
	}
	if a.Deltas {
		at.receiver = &chained{Receiver: a.Receiver}
	}
	at.modes.Store(uint32(modes))
	if a.Names != nil {
		at.SetNames(a.Names) // a pointer into a would keep all of it
	}
	c.mu.Lock()
	at.start, at.position = c.delivered, c.position
	c.newestStart = max(c.newestStart, c.position)
	if at.noEcho || at.wholeAppends {
		c.wary.Store(true)
	}
	added := c.addLocked(at)
	if added && a.Beside != nil {
		at.joinRingLocked(a.Beside)
	}
	c.mu.Unlock()
	if !added {
		h.release(c)
		h.adjust(id, pubsub.Occupancy{}.Minus(add))
		return nil, pubsub.Errorf(pubsub.CodeTooManyChannels, "a channel may be attached to with %d different filters", maxFilters)
	}
	// A rule that has changed meanwhile may not have found the attachment.
	if err := at.Admitted(); err != nil {
		at.Detach()
		return nil, err
	}
	return at, nil
}

// grantModes checks that the grant may attach and returns the modes it gets: those asked
// for that its capability covers (RTL4m).
func (h *Hub) grantModes(g *auth.Grant, name pubsub.ChannelName, asked pubsub.Mode) (pubsub.Mode, error) {
	rule := h.opts.Namespace(g.App, name.Base)
	if err := admit(&rule, g); err != nil {
		return 0, err
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

// Allowed is which of the modes asked for a grant allows, for Mark (RTC8a1). It is an error
// when nothing is left of them, the same as of Attach.
func (a *Attachment) Allowed(g *auth.Grant, name pubsub.ChannelName, asked pubsub.Mode) (pubsub.Mode, error) {
	return a.channel.hub.grantModes(g, name, asked)
}

// together is what a connection may do under all the names that it is attached to the channel
// by.
func (a *Attachment) together() pubsub.Mode {
	a.channel.mu.Lock()
	defer a.channel.mu.Unlock()
	return a.togetherLocked()
}

func (a *Attachment) togetherLocked() pubsub.Mode {
	modes := a.Modes()
	for other := a.beside; other != nil && other != a; other = other.beside {
		modes |= other.Modes()
	}
	return modes
}

// joinRingLocked makes a one of the attachments of other's connection.
func (a *Attachment) joinRingLocked(other *Attachment) {
	if a.beside = other.beside; a.beside == nil {
		a.beside = other
	}
	other.beside = a
}

// leaveRingLocked makes a the only one of its ring, and returns another one of it, if there
// is any.
func (a *Attachment) leaveRingLocked() (rest *Attachment) {
	if a.beside == nil {
		return nil
	}
	rest = a.beside
	last := rest
	for last.beside != a {
		last = last.beside
	}
	if last.beside = a.beside; last == rest {
		last.beside = nil // alone
	}
	a.beside = nil
	return rest
}

// Position is the channel's position when the attachment began: everything after it was or
// will be received.
func (a *Attachment) Position() pubsub.Serial { return a.position }

// Change is what can become of an attachment while it lasts.
type Change struct {
	Modes        pubsub.Mode // as Allowed has returned them
	NoEcho       bool        // as in Attach
	WholeAppends bool        // likewise
	Deltas       bool        // likewise
}

// Mark calls f between two deliveries and returns the position there: everything up to it
// was handed to the receiver, as far as the modes allow, and nothing after it. Clients keep
// the position of every ATTACHED, so that one sent later must take them neither back nor past
// anything. From there on the attachment is as change says, unless that is nil. f runs with
// the channel locked; it must not block. Mark may wait for one fan-out.
func (a *Attachment) Mark(change *Change, f func()) pubsub.Serial {
	c := a.channel
	m := mark{done: make(chan struct{})}
	var more pubsub.Occupancy
	m.f = func() {
		if change != nil {
			before := pubsub.OccupancyOf(a.togetherLocked())
			if change.Modes&^a.Modes()&pubsub.ModeSubscribe != 0 || change.NoEcho || change.WholeAppends {
				a.forget(c.position)
			}
			a.modes.Store(uint32(change.Modes) | a.modes.Load()&viewBits)
			more = pubsub.OccupancyOf(a.togetherLocked()).Minus(before)
			a.noEcho, a.wholeAppends = change.NoEcho, change.WholeAppends
		}
		a.chainLocked(change != nil && change.Deltas || change == nil && a.chained() != nil)
		f()
		m.sent = c.sent
		close(m.done)
	}
	c.mu.Lock()
	if c.flushing {
		c.marks = append(c.marks, &m)
	} else {
		m.f()
	}
	c.mu.Unlock()
	<-m.done
	c.hub.adjust(c.id, more)
	return max(a.position, m.sent)
}

// Modes are the granted modes.
func (a *Attachment) Modes() pubsub.Mode { return pubsub.Mode(a.modes.Load()) & pubsub.AllModes }

// viewBits are bits that no mode has.
const viewBits = 0xf

func (a *Attachment) occupancy() OccupancyView { return OccupancyView(a.modes.Load() & viewBits) }

func (a *Attachment) setOccupancy(view OccupancyView) {
	a.channel.mu.Lock()
	defer a.channel.mu.Unlock()
	a.modes.Store(a.modes.Load()&^viewBits | uint32(view))
}

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
	a.endOccupancy()
	c := a.channel
	c.mu.Lock()
	c.removeLocked(a)
	before := pubsub.OccupancyOf(a.togetherLocked())
	var after pubsub.Occupancy
	if rest := a.leaveRingLocked(); rest != nil {
		after = pubsub.OccupancyOf(rest.togetherLocked())
	}
	c.mu.Unlock()
	if c.hub.release(c) {
		c.hub.touch(c.id, time.Now())
	}
	c.hub.adjust(c.id, after.Minus(before))
}

// adjust changes what this node counts on a channel. A directory that cannot be reached
// learns it from the node's next report.
func (h *Hub) adjust(id pubsub.ChannelID, by pubsub.Occupancy) {
	if by == (pubsub.Occupancy{}) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.opts.AppendTimeout)
	defer cancel()
	_ = h.opts.Directory.Adjust(ctx, id, h.opts.Node, by)
}

// send hands the attachment its part of p, unless that is above its rate, and notes in p what
// it was.
func (a *Attachment) send(p *parcel) {
	if a.limited {
		if n := a.itemsOf(p); n > 0 && !a.receiver.(Limiter).Allow(n) {
			a.forget(p.end)
			return
		}
	}
	wantsAll := a.start <= p.first && !p.mixed && (!p.changes || a.seesAll(p.oldest)) && a.names.Load() == nil && a.wantsKinds(p) &&
		!(a.noEcho && p.kinds.OfMessages() && p.publishedBy(a.connID))
	switch {
	case p.links != nil:
		a.sendChained(p, wantsAll)
		return
	case p.unlinked:
		a.chained().last.Store(nowhere)
	}
	if wantsAll {
		a.receiver.Receive(p.bytes, false)
		p.whole++
		return
	}
	a.sendSome(p, a.receiver)
}

// itemsOf is how many items of p are for a.
func (a *Attachment) itemsOf(p *parcel) (n int) {
	names := a.Names()
	for i := range p.units {
		if u := &p.units[i]; a.wants(p, u, names) {
			if body := p.batch[u.Entry].Body; u.Item == AllItems {
				n += body.Len()
			} else {
				n++
			}
		}
	}
	return n
}

// sendSome hands the frames that pass the attachment's filters to a receiver, as few runs
// of adjacent frames as possible.
func (a *Attachment) sendSome(p *parcel, to Receiver) {
	names := a.Names()
	var last []byte // not yet handed over
	hand := func(next []byte) {
		if len(last) > 0 {
			to.Receive(last, len(next) > 0)
		}
		last = next
	}
	begin, end := 0, 0 // the run at hand
	at := 0            // where the unit begins
	for i := range p.units {
		u := &p.units[i]
		wanted := a.wants(p, u, names)
		if p.changes && !p.settled && isChange(p.batch[u.Entry].Kind) {
			var whole []byte
			if wanted, whole = a.changed(p, u, wanted); len(whole) > 0 {
				if end > begin {
					hand(p.bytes[begin:end:end])
				}
				begin, end = u.End, u.End
				hand(whole)
			}
		}
		if wanted {
			p.receivers[i]++
			if at != end {
				if end > begin {
					hand(p.bytes[begin:end:end])
				}
				begin = at
			}
			end = u.End
		}
		at = u.End
	}
	if end > begin {
		hand(p.bytes[begin:end:end])
	}
	hand(nil)
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
	if !e.Kind.OfMessages() {
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
	return p.mixed || a.wantsKinds(p) || p.kinds == engine.KindPresence && a.connID != ""
}

func (a *Attachment) wantsKind(k engine.Kind) bool {
	if mode := modeFor(k); mode != 0 {
		return a.Modes()&mode != 0
	}
	return k > engine.KindMeta && OccupancyView(k-engine.KindMeta) == a.occupancy() && a.Modes()&pubsub.ModeSubscribe != 0
}

// wantsKinds is wantsKind for the kind of all entries of a parcel that is not mixed.
func (a *Attachment) wantsKinds(p *parcel) bool {
	if p.needs != 0 {
		return a.Modes()&p.needs != 0
	}
	return a.wantsKind(p.kinds)
}

// modeFor is the mode that an attachment needs to be sent entries of a kind; 0 if more decides.
func modeFor(k engine.Kind) pubsub.Mode {
	switch {
	case k.OfMessages():
		return pubsub.ModeSubscribe
	case k == engine.KindPresence:
		return pubsub.ModePresenceSubscribe
	case k == engine.KindAnnotation:
		return pubsub.ModeAnnotationSubscribe
	case k == engine.KindObject:
		return pubsub.ModeObjectSubscribe
	}
	return 0
}

func (p *parcel) publishedBy(connID string) bool {
	for _, e := range p.batch {
		if e != nil && e.Body.ConnectionID == connID {
			return true
		}
	}
	return false
}
