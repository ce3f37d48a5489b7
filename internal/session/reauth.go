package session

import (
	"context"
	"maps"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// reauthorize adopts the token of an AUTH (RTC8a): CONNECTED with the same connection, or an
// ERROR that ends it (RTC8a3). What the token no longer permits is taken away channel by channel.
func (s *Session) reauthorize(pm *wire.ProtocolMessage) {
	if pm.Auth == nil || pm.Auth.AccessToken == "" {
		s.fail(pubsub.NewError(pubsub.CodeInvalidCredentials, "AUTH without an access token"))
		return
	}
	old := s.Grant()
	grant, err := s.manager.opts.Auth.RealtimeToken(pm.Auth.AccessToken, s.clientID)
	if err != nil {
		s.fail(notRenewable(pubsub.ErrorFor(err)))
		return
	}
	if err := old.CheckRenewal(grant); err != nil {
		s.fail(err)
		return
	}
	if old.Plaintext {
		grant = grant.OverPlaintext()
	}
	s.mu.Lock()
	s.grant = grant
	s.mu.Unlock()
	// What was revoked while the token was checked found the grant of before.
	if err := s.manager.opts.Auth.Recheck(grant); err != nil {
		s.fail(err)
		return
	}
	s.watchExpiry()
	s.transport.Send(s.connected(), true)

	var mayLeave []string
	kept := s.attachments[:0]
	for _, a := range s.attachments {
		before := a.hub.Modes()
		modes, err := a.allowed(grant, a.asked)
		if err != nil || before&^modes&pubsub.ModePresence != 0 {
			mayLeave = append(mayLeave, a.channel)
		}
		switch {
		case err != nil:
			a.hub.Detach()
			s.transport.End(&a.gate, channelError(a.channel, pubsub.ErrorFor(err)))
			continue
		case a.withhold(grant) || modes != before:
			if err := a.announce(a.change(modes), a.changed, false, nil); err != nil {
				a.hub.Detach()
				s.transport.End(&a.gate, a.unavailable(err))
				continue
			}
		}
		kept = append(kept, a)
	}
	clear(s.attachments[len(kept):])
	s.attachments = kept
	for _, channel := range mayLeave {
		s.leaveChannel(channel)
	}
}

// withhold takes the occupancy away if the grant does not allow it, and reports whether it did.
func (a *attachment) withhold(grant *auth.Grant) bool {
	name, err := pubsub.ParseChannelName(a.channel)
	if a.params["occupancy"] == "" || err != nil || grant.Allows(auth.OpChannelMetadata, name.Resource()) {
		return false
	}
	a.params = maps.Clone(a.params) // others may be reading them
	delete(a.params, "occupancy")
	ctx, cancel := context.WithTimeout(context.Background(), directoryTimeout)
	defer cancel()
	_, _ = a.hub.ShowOccupancy(ctx, hub.NoOccupancy, "") // which cannot fail
	return true
}

// notRenewable is err as an answer to AUTH. SDKs answer a token error with another renewal,
// which helps only if the token was good once: any other is told as bad credentials, which
// ends the connection (RTC8a2).
func notRenewable(err *pubsub.Error) *pubsub.Error {
	if !err.Code.IsTokenError() || err.Code == pubsub.CodeTokenExpired || err.Code == pubsub.CodeTokenRevoked {
		return err
	}
	return pubsub.NewError(pubsub.CodeInvalidCredentials, err.Message).Because(err)
}

// promptMargin is how long before the end of its token a client is asked for a new one. A
// token that has less left when it is adopted is not worth a prompt: the client would renew
// in a loop.
const promptMargin = 30 * time.Second

// watchExpiry arranges for the client to be asked for a new token in time (RTN22), and to be
// told, and the transport closed, when the credential expires (RTN22a, RTN15h). The client
// renews its token and resumes.
func (s *Session) watchExpiry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
	if s.grant.Expires.IsZero() {
		return
	}
	grant, after := s.grant, s.manager.opts.After
	left := time.Until(grant.Expires)
	stopPrompt := func() {}
	if left > promptMargin {
		stopPrompt = after(left-promptMargin, func() {
			if s.Grant() == grant {
				s.transport.Send(&wire.ProtocolMessage{Action: wire.ActionAuth}, false)
			}
		})
	}
	stopEnd := after(left, func() {
		if s.Grant() != grant {
			return // renewed meanwhile
		}
		s.disconnect(pubsub.NewError(pubsub.CodeTokenExpired, "token expired"))
	})
	s.stop = func() { stopPrompt(); stopEnd() }
}
