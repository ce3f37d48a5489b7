//go:build !linux

package socket

import (
	"net"
	"time"
)

// LimitUnacknowledged does nothing on this system.
func LimitUnacknowledged(net.Conn, time.Duration) {}
