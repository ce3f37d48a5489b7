package session

import (
	"time"

	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// limits are those of the connection's app, as they are now.
func (s *Session) limits() *limit.Limits { return s.manager.opts.Hub.Limits().For(s.app) }

// Exceeded tells metrics and log that the connection has exceeded a limit.
func (s *Session) Exceeded(n limit.Name) { s.manager.opts.Hub.Limits().Exceeded(n, s.app) }

// pace counts the items of pm against the rate of the connection. Above it they are refused
// with CodeConnectionRateExceeded; CodeConnectionFlood, far above it, ends the connection.
func (s *Session) pace(pm *wire.ProtocolMessage) *pubsub.Error {
	most := s.limits().ConnectionMessages
	if most == 0 {
		return nil
	}
	items := max(len(pm.Messages)+len(pm.Presence)+len(pm.Annotations)+len(pm.State), 1)
	switch set := s.manager.opts.Hub.Limits(); {
	case !set.Allow(&s.flood, most*limit.FatalFactor, items):
		s.Exceeded(limit.ConnectionMessagesFatal)
		return pubsub.Errorf(pubsub.CodeConnectionFlood, "connection terminated: more than %d times its rate limit of %d messages per second", limit.FatalFactor, most)
	case !set.Allow(&s.inbound, most, items):
		s.Exceeded(limit.ConnectionMessages)
		return pubsub.Errorf(pubsub.CodeConnectionRateExceeded, "rate limit exceeded: %d messages per second on one connection", most)
	}
	return nil
}

// itemError is what is wrong with an item of pm.
func (s *Session) itemError(pm *wire.ProtocolMessage) error {
	if pm.ItemErr.Code == pubsub.CodeTooManyMessages {
		s.Exceeded(limit.PublishMessages)
	}
	return pm.ItemErr
}

// lossPause is how long nothing is sent on a channel once something was dropped.
const lossPause = time.Second

// allow is asked before items are sent, and drops them above the outbound rate of the
// connection. From then on all are dropped until announce has told the client, since what
// it is sent behind a gap would take it past the gap without its knowing.
func (a *attachment) allow(items int) bool {
	if a.starved.Load() {
		return false
	}
	s := a.session
	if s.manager.opts.Hub.Limits().Allow(&s.outbound, s.limits().ConnectionOutbound, items) {
		return true
	}
	if !a.starved.Swap(true) {
		s.Exceeded(limit.ConnectionOutbound)
		s.manager.opts.After(lossPause, func() { s.manager.later(a.tellStarved) })
	}
	return false
}

// tellStarved tells the client of what was dropped, unless another ATTACHED has done so.
func (a *attachment) tellStarved() {
	if a.starved.Load() {
		a.tellLost(a.changed)
	}
}

// confess makes an ATTACHED tell of what was dropped: it has no RESUMED, and goes on behind
// the gap (RTL12).
func (a *attachment) confess(attached *wire.ProtocolMessage) {
	attached.Flags &^= wire.FlagResumed
	attached.Error = wire.NewErrorInfo(pubsub.Errorf(pubsub.CodeContinuityLostByRate,
		"continuity lost: more than %d messages per second for one connection", a.session.limits().ConnectionOutbound))
}

// Refusal is what a client is told whose connection Open has refused: that it may try again,
// or that this is final (RTN14d, RTN14g).
func Refusal(e *pubsub.Error) *wire.ProtocolMessage {
	pm := &wire.ProtocolMessage{Action: wire.ActionError, Error: wire.NewErrorInfo(e)}
	if e.Code.MayPass() {
		pm.Action = wire.ActionDisconnected
	}
	return pm
}
