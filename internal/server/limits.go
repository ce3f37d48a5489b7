package server

import (
	"letshare-server/internal/config"
	"letshare-server/internal/limit"
	"letshare-server/internal/outbox"
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
		Objects:            l.Objects,
		ObjectBytes:        int64(l.ObjectBytes),
		AppConnections:     l.AppConnections,
		AppChannels:        l.AppChannels,
		AddressSockets:     l.AddressSockets,

		ConnectionProtocolMessages: l.ConnectionProtocolsPerSecond,
		AddressFailures:            l.AddressFailuresPerSecond,
		Burst:                      l.Burst,
		Rates: limit.Rates{
			ConnectionMessages: l.ConnectionMessagesPerSecond,
			ConnectionOutbound: l.ConnectionOutboundMessagesPerSecond,
			ChannelMessages:    l.ChannelMessagesPerSecond,
			ChannelBytes:       l.ChannelBytesPerSecond,
			AppNewConnections:  l.AppConnectionsPerSecond,
			AppRequests:        l.AppRequestsPerSecond,
			AppTokenRequests:   l.AppTokenRequestsPerSecond,
		},
	}
}

// slowLimits are the limits of those who do not keep up.
var slowLimits = map[outbox.Reason]limit.Name{
	outbox.TooMuch: limit.OutboxBytes, outbox.TooLong: limit.OutboxAge, outbox.OverBudget: limit.OutboxTotalBytes,
}

// isSandboxed reports whether an app was made for tests, which have no rates.
func (s *Server) isSandboxed(app string) bool {
	a := s.apps.Lookup(app)
	return a != nil && a.Sandboxed()
}
