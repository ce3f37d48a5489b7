package socket

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// LimitUnacknowledged ends a TCP connection, with an error, when bytes that were sent stay
// unacknowledged for d, which is in whole milliseconds. The kernel itself would try for some
// 15 minutes. On a connection that is no TCP socket, with TLS or without, and on other systems, it does nothing.
func LimitUnacknowledged(conn net.Conn, d time.Duration) {
	tcp, ok := underneath(conn).(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // without it the peer is noticed later
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d/time.Millisecond))
	})
}
