package config

// ablyProfile is the name of the only profile of limits.
const ablyProfile = "ably"

// adoptProfile gives the limits the values of their profile.
func (l *Limits) adoptProfile() {
	if l.Profile != ablyProfile {
		return
	}
	l.MaxMessageBytes = 64 << 10
	l.MaxFrameBytes = 512 << 10
	l.MaxBodyBytes = 2 << 20
	l.ConnectionMessagesPerSecond = 50
	l.ConnectionOutboundMessagesPerSecond = 50
	l.ConnectionProtocolsPerSecond = 2000
	l.ChannelsPerConnection = 200
	l.ChannelMessagesPerSecond = 50
	l.ChannelBytesPerSecond = 1 << 20
	l.PresenceMembers = 200
	l.AppConnections = 200
	l.AppChannels = 200
	l.AppRequestsPerSecond = 50
	l.AppTokenRequestsPerSecond = 50
}
