package wsconn

import (
	"time"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
)

// Settings are shared by all connections of a door and do not change once in use.
type Settings struct {
	// Assembler bounds messages and says whether text is checked for UTF-8.
	Assembler socket.AssemblerOptions
	// Outbox bounds what waits for the peer. Its Wheel is set by NewServer.
	Outbox outbox.Options

	// PingInterval is how long the peer may be silent before it is sent a ping, and again
	// between pings; zero means 25 s, less than zero no pings.
	PingInterval time.Duration
	// PongTimeout is how long the peer may be silent before the connection is closed; zero
	// means 70 s, less than zero for ever.
	PongTimeout time.Duration
	// HeartbeatInterval is the longest time without anything that an application at the other
	// end sees; before it is over, Heartbeat is sent. Pings and pongs do not count. Zero means
	// no heartbeats.
	HeartbeatInterval time.Duration
	// Heartbeat is the whole frame of a heartbeat.
	Heartbeat []byte
	// FrameTimeout is how long a message may take from its first byte to its last; zero
	// means 30 s, less than zero for ever.
	FrameTimeout time.Duration
	// CloseTimeout is how long the peer may take to answer a close frame, or to read it after
	// it broke the protocol; zero means 3 s.
	CloseTimeout time.Duration
	// LingerBytes is how many bytes are discarded while a peer that broke the protocol reads
	// its close frame; zero means 16 MiB.
	LingerBytes int
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func (s Settings) withDefaults() Settings {
	s.PingInterval = orDefault(s.PingInterval, 25*time.Second)
	s.PongTimeout = orDefault(s.PongTimeout, 70*time.Second)
	s.FrameTimeout = orDefault(s.FrameTimeout, 30*time.Second)
	s.CloseTimeout = orDefault(s.CloseTimeout, 3*time.Second)
	if s.LingerBytes == 0 {
		s.LingerBytes = 16 << 20
	}
	return s
}

// lookInterval is the longest time between two looks of a connection's timer. It is shorter than
// every timeout that begins unannounced (a stuck outbox, a half-read frame), so that each is seen
// begun before it is over and then met exactly.
const lookInterval = 25 * time.Second
