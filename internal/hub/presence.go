package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// Presence is a request of a connection to change which of its members are in a channel.
type Presence struct {
	Grant   *auth.Grant
	Channel pubsub.ChannelName

	// Items enter, update or leave, in this order and all or none, for whichever clientIds the
	// grant permits (RTP14a, RTP15a, RTP15f). They are handed over.
	Items []*pubsub.PresenceMessage

	// ConnectionID owns the members. MsgSerial is the number that it gave the request, by
	// which a repeat is recognised (RTN19a).
	ConnectionID string
	MsgSerial    int64

	// Returned says that the connection's members may just be leaving although it lives:
	// it was resumed when its time was over. Who enters again is told to all again.
	Returned bool
}

// Presence applies p, and returns when the outcome is known. What happened is sent when
// turn ends. A connection's requests must come one after the other.
//
// Errors are *pubsub.Error: CodeCapabilityDenied, CodeIdentifiedClientNeeded,
// CodePresenceNoClientID, CodeInvalidClientID, CodeInvalidExtras, CodeTooManyMessages,
// CodeMessageTooLarge, CodeChannelMessageRate, CodeChannelByteRate, CodeTooManyMembers,
// CodePresenceTooLarge, CodeUnavailable, CodeTimeout.
func (h *Hub) Presence(ctx context.Context, turn *Turn, p *Presence) error {
	id := p.Channel.ID(p.Grant.App)
	c := h.lookup(id)
	counts := h.counts(c, id)
	rule := h.opts.Namespace(p.Grant.App, p.Channel.Base)
	limits := h.limitsOf(id.App, &rule)
	if err := h.checkPresence(p, &rule, &limits); err != nil {
		counts.Refused(stats.Realtime, stats.Presence, len(p.Items))
		return err
	}
	if len(p.Items) == 0 {
		return nil
	}
	if limits.messages > 0 || limits.bytes > 0 {
		if err := h.pace(&limits, id, len(p.Items), p.size()); err != nil {
			counts.Refused(stats.Realtime, stats.Presence, len(p.Items))
			return err
		}
	}
	if c != nil && c.crowded() {
		turn.End()
		c.waitForRoom()
	}
	_, err := h.settle(ctx, func(ctx context.Context, deadline time.Time) (*engine.Append, error) {
		members, err := h.membersBefore(ctx, id, p)
		if err != nil {
			return nil, err
		}
		a := p.change(members)
		a.Channel, a.Deadline = id, deadline
		a.Bounds = []engine.Bound{{
			Space: engine.RecordPresence, MaxRecords: limits.presenceMembers, MaxBytes: limits.presenceBytes,
		}}
		return a, nil
	})
	// An engine that delivers within Append has queued the entry by now.
	if c := h.lookup(id); c != nil {
		turn.touch(c)
	}
	h.noteFull(err, id.App)
	p.count(counts, err, rule.Persisted)
	switch {
	case errors.Is(err, engine.ErrTooManyRecords):
		h.opts.Limits.Exceeded(limit.PresenceMembers, id.App)
		return pubsub.Errorf(pubsub.CodeTooManyMembers, "a channel has %d presence members at most", limits.presenceMembers).Because(err)
	case errors.Is(err, engine.ErrRecordsTooLarge):
		h.opts.Limits.Exceeded(limit.PresenceBytes, id.App)
		return pubsub.Errorf(pubsub.CodePresenceTooLarge, "the members of a channel have %d bytes of data at most", limits.presenceBytes).Because(err)
	case err != nil:
		return clientError(err)
	}
	return nil
}

// count counts the items of a request whose outcome is err. What changes nothing counts too.
func (p *Presence) count(counts *stats.App, err error, persisted bool) {
	items, size := len(p.Items), p.size()
	switch {
	case errors.Is(err, engine.ErrTooManyRecords), errors.Is(err, engine.ErrRecordsTooLarge):
		counts.Refused(stats.Realtime, stats.Presence, items)
	case err != nil:
		counts.Failed(stats.Realtime, stats.Presence, items)
	default:
		counts.Published(stats.Realtime, stats.Presence, items, size)
		if persisted {
			counts.Persisted(stats.Presence, items, size)
		}
	}
}

// checkPresence validates a request, rights first (RTP8h) and contents after (RTP8i), and
// completes its items with their clientIds (RTP8c, RTP9d, RTP10c).
func (h *Hub) checkPresence(p *Presence, rule *auth.Namespace, limits *channelLimits) error {
	if p.Channel.Qualifier != "" || !p.Grant.Allows(auth.OpPresence, p.Channel.Resource()) {
		return denied("be present on", p.Channel)
	}
	if err := admit(rule, p.Grant); err != nil {
		return err
	}
	if len(p.Items) > MaxMessagesPerPublish {
		h.opts.Limits.Exceeded(limit.PublishMessages, p.Grant.App)
		return pubsub.Errorf(pubsub.CodeTooManyMessages, "a request has %d presence messages at most, got %d", MaxMessagesPerPublish, len(p.Items))
	}
	size := p.size()
	if most := limits.messageBytes; size > most {
		return h.tooLarge(p.Grant.App, size, most)
	}
	claim, claimed := p.Grant.UserClaim(p.Channel.Resource())
	for _, m := range p.Items {
		switch m.Action {
		case pubsub.PresenceEnter, pubsub.PresenceUpdate, pubsub.PresenceLeave:
		default:
			return pubsub.Errorf(pubsub.CodeBadRequest, "presence action %d is not for clients", m.Action)
		}
		clientID, err := p.Grant.CheckClientID(m.ClientID, m.ClientID != "")
		if err != nil {
			return err
		}
		if clientID == "" {
			return pubsub.NewError(pubsub.CodePresenceNoClientID, "presence needs a clientId, of the connection or of the message")
		}
		if m.ConnectionID != "" && m.ConnectionID != p.ConnectionID {
			return pubsub.NewError(pubsub.CodeInvalidConnectionID, "presence message has the connectionId of another connection")
		}
		if err := checkPresenceExtras(m.Extras); err != nil {
			return err
		}
		// A LEAVE without extras will have those of the member.
		if claimed && (m.Action != pubsub.PresenceLeave || m.Extras != nil) {
			m.Extras = withUserClaim(m.Extras, claim)
		}
		m.ClientID, m.ConnectionID, m.Timestamp = clientID, p.ConnectionID, 0
	}
	return nil
}

// size is the sum of the sizes of the items.
func (p *Presence) size() (n int) {
	for _, m := range p.Items {
		n += m.Size()
	}
	return n
}

// change makes the Append that applies p to the members as they were read. What changes
// nothing leaves no trace in it but the request's own id, so that a repeat of the request
// after later ones changes nothing either.
func (p *Presence) change(members membersOf) *engine.Append {
	base := pubsub.RealtimeID(p.ConnectionID, p.MsgSerial)
	batch := &pubsub.Batch{ID: base, ConnectionID: p.ConnectionID, ClientID: p.Grant.ClientID}
	for i, given := range p.Items {
		m := members.get(given.ClientID)
		item := *given
		item.ID = p.itemID(given.ID, i)
		switch {
		case item.Action == pubsub.PresenceLeave:
			if m.now == nil {
				continue // (RTP10d)
			}
			completeLeave(&item, m.now)
			m.now = nil
		case item.Action == pubsub.PresenceEnter && m.now != nil && item.ID == given.ID && !newer(item.ID, m.now.ID):
			// A re-entry with what is known already (RTP17g). It comes without extras.
			if !p.Returned {
				continue
			}
			item = *m.now
			item.Action, item.Timestamp = pubsub.PresenceEnter, 0
		default:
			if m.now == nil {
				item.Action = pubsub.PresenceEnter // (RTP9b)
			}
			m.now = &item // (RTP9a)
		}
		m.changed = true
		batch.Presence = append(batch.Presence, &item)
	}
	a := &engine.Append{ID: engine.ID{ConnectionID: p.ConnectionID, MsgSerial: p.MsgSerial}}
	if len(batch.Presence) > 0 {
		a.Entries = []engine.Draft{{Kind: engine.KindPresence, Body: batch}}
		members.put(a)
	}
	return a
}

// completeLeave gives a LEAVE without data the last data of the member (RTP8e, RTP10a).
func completeLeave(leave, member *pubsub.PresenceMessage) {
	if leave.Data.Kind == pubsub.NoData {
		leave.Data, leave.Encoding = member.Data, member.Encoding
	}
	if leave.Extras == nil {
		leave.Extras = member.Extras
	}
}

// itemID is the id of the index-th item. An id that the client gave is kept if it is that of
// an earlier event of the same connection, as re-entries have (RTP17g1); with any other the
// member would look as if somebody else had made it, or be newer than what comes next.
func (p *Presence) itemID(given string, index int) string {
	if serial, at, ok := parseItemID(given, p.ConnectionID); ok &&
		(serial < p.MsgSerial || serial == p.MsgSerial && at <= int64(index)) {
		return given
	}
	return pubsub.RealtimeID(p.ConnectionID, p.MsgSerial) + ":" + strconv.Itoa(index)
}

// parseItemID takes the id of an event of a connection apart.
func parseItemID(id, connectionID string) (msgSerial, index int64, ok bool) {
	rest, ok := strings.CutPrefix(id, connectionID+":")
	if !ok {
		return 0, 0, false
	}
	head, tail, ok := strings.Cut(rest, ":")
	if !ok {
		return 0, 0, false
	}
	msgSerial, err1 := strconv.ParseInt(head, 10, 64)
	index, err2 := strconv.ParseInt(tail, 10, 64)
	ok = err1 == nil && err2 == nil && msgSerial >= 0 && index >= 0
	return msgSerial, index, ok
}

// newer compares two ids of one connection's events as clients do (RTP2b2).
func newer(id, than string) bool {
	connectionID, _, _ := strings.Cut(id, ":")
	serial, index, ok1 := parseItemID(id, connectionID)
	thanSerial, thanIndex, ok2 := parseItemID(than, connectionID)
	if !ok1 || !ok2 {
		return true
	}
	return serial > thanSerial || serial == thanSerial && index > thanIndex
}

// settleAttempts bounds how often a change is tried whose records change meanwhile.
const settleAttempts = 20

// planner makes an Append from what the records are now. With nothing to do it makes none.
type planner func(ctx context.Context, deadline time.Time) (*engine.Append, error)

// settle appends what plan makes, until no precondition fails, and returns the outcome. It
// returns the engine's errors.
func (h *Hub) settle(ctx context.Context, plan planner) (engine.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, h.opts.AppendTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	return h.attempt(ctx, deadline, plan)
}

// attempt is settle with a deadline that ctx has, too, if the channel is not Prompt.
func (h *Hub) attempt(ctx context.Context, deadline time.Time, plan planner) (engine.Result, error) {
	for attempt := range settleAttempts {
		a, err := plan(ctx, deadline)
		if err != nil || a == nil {
			return engine.Result{}, err
		}
		r := h.appendAndWait(a)
		if !errors.Is(r.Err, engine.ErrPrecondition) {
			return r, r.Err
		}
		if err := pause(ctx, rand.N(time.Millisecond<<min(attempt, 7))); err != nil {
			return engine.Result{}, err
		}
	}
	return engine.Result{}, engine.ErrUnavailable
}

// outcome is that of an Append, for one who waits.
type outcome struct {
	result engine.Result
	known  sync.WaitGroup
}

func (o *outcome) done(r engine.Result) {
	o.result = r
	o.known.Done()
}

// appendAndWait returns the outcome of an Append. The engine gives it in any case.
func (h *Hub) appendAndWait(a *engine.Append) engine.Result {
	o := new(outcome)
	o.known.Add(1)
	h.opts.Engine.Append(a, o.done)
	o.known.Wait()
	return o.result
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
