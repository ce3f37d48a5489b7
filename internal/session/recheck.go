package session

import (
	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// Recheck ends the connections of this node whose credentials are not good any more, because
// their app or key is gone or their token is revoked. New ones with such credentials must be
// refused by then.
func (m *Manager) Recheck() {
	for _, s := range m.Sessions() {
		s.recheck()
	}
}

// Renew asks the clients of some grants for new tokens (RTN22).
func (m *Manager) Renew(which func(*auth.Grant) bool) {
	for _, s := range m.Sessions() {
		if which(s.Grant()) {
			s.transport.Send(&wire.ProtocolMessage{Action: wire.ActionAuth}, false)
		}
	}
}

// recheck ends the connection if its credentials are not good any more: a client whose token
// is revoked is told to come back with another (RTN15h), others have no reason to come back.
func (s *Session) recheck() {
	grant := s.Grant()
	err := s.manager.opts.Auth.Recheck(grant)
	switch {
	case err == nil, s.Grant() != grant: // it has a new token by now, which was checked
	case err.Code.IsTokenError():
		s.disconnect(err)
	default:
		s.Evict(err)
	}
}

// disconnect closes the transport; the client may come back and resume.
func (s *Session) disconnect(err *pubsub.Error) {
	s.transport.Close(&wire.ProtocolMessage{Action: wire.ActionDisconnected, Error: wire.NewErrorInfo(err)})
}
