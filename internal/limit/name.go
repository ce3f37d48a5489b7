package limit

// Name is a limit as metrics and logs call it.
type Name uint8

// The limits.
const (
	MessageBytes Name = iota
	FrameBytes
	BodyBytes
	PublishMessages

	ConnectionMessages
	ConnectionMessagesFatal // a multiple of it, which ends the connection
	ConnectionOutbound
	ConnectionProtocolMessages
	ConnectionChannels

	TokenMessages // of one client, as its token says
	ChannelMessages
	ChannelBytes
	PresenceMembers
	PresenceBytes
	Objects
	ObjectBytes
	RoomUsers

	AppConnections
	AppConnectionRate
	AppChannels
	AppRequests
	AppTokenRequests

	AddressSockets
	AddressFailures
	HeaderTime
	OpenFiles

	OutboxBytes
	OutboxAge
	OutboxTotalBytes
	LogBytes

	Names // how many there are
)

// names are those of the settings, where there is one.
var names = [Names]string{
	MessageBytes:    "max_message_bytes",
	FrameBytes:      "max_frame_bytes",
	BodyBytes:       "max_body_bytes",
	PublishMessages: "messages_per_publish",

	ConnectionMessages:         "connection_messages_per_second",
	ConnectionMessagesFatal:    "connection_messages_per_second_fatal",
	ConnectionOutbound:         "connection_outbound_messages_per_second",
	ConnectionProtocolMessages: "connection_protocol_messages_per_second",
	ConnectionChannels:         "channels_per_connection",

	TokenMessages:   "token_messages_per_second",
	ChannelMessages: "channel_messages_per_second",
	ChannelBytes:    "channel_bytes_per_second",
	PresenceMembers: "presence_members",
	PresenceBytes:   "presence_bytes",
	Objects:         "objects",
	ObjectBytes:     "object_bytes",
	RoomUsers:       "max_room_users",

	AppConnections:    "app_connections",
	AppConnectionRate: "app_connections_per_second",
	AppChannels:       "app_channels",
	AppRequests:       "app_requests_per_second",
	AppTokenRequests:  "app_token_requests_per_second",

	AddressSockets:  "address_sockets",
	AddressFailures: "address_failures_per_second",
	HeaderTime:      "header_time",
	OpenFiles:       "open_files",

	OutboxBytes:      "outbox_bytes",
	OutboxAge:        "outbox_age",
	OutboxTotalBytes: "outbox_total_bytes",
	LogBytes:         "log_bytes",
}

func (n Name) String() string { return names[n] }
