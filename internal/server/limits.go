package server

import (
	"letshare-server/internal/config"
	"letshare-server/internal/limit"
)

// limitsOf is what of a configuration can change while the server runs.
func limitsOf(c config.Config) limit.Limits {
	l := c.Limits
	return limit.Limits{
		MessageBytes: min(l.MaxMessageBytes, l.MaxFrameBytes),
		BodyBytes:    l.MaxBodyBytes,

		ConnectionChannels: l.ChannelsPerConnection,
		PresenceMembers:    l.PresenceMembers,
		PresenceBytes:      int64(l.PresenceBytes),

		ConnectionProtocolMessages: l.ConnectionProtocolsPerSecond,
	}
}

// isSandboxed reports whether an app was made for tests, which have no rates.
func (s *Server) isSandboxed(app string) bool {
	a := s.apps.Lookup(app)
	return a != nil && a.Sandboxed()
}
