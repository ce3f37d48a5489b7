package session

import (
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// Evict ends the connection from outside, for instance because its app is gone: the client
// is told err, and its SDK does not come back (RTN15j). What credentials it has must be
// refused by then, or it could resume the connection.
func (s *Session) Evict(err *pubsub.Error) {
	s.evicted.Store(true)
	s.transport.Close(&wire.ProtocolMessage{Action: wire.ActionError, Error: wire.NewErrorInfo(err)})
}
