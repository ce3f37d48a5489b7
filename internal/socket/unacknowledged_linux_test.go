package socket_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"letshare-server/internal/socket"
)

func TestUnacknowledgedBytesAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	socket.LimitUnacknowledged(conn, 45*time.Second)
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ms int
	if e := raw.Control(func(fd uintptr) { ms, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); e != nil || err != nil || ms != 45_000 {
		t.Errorf("the kernel gives up after %d ms (%v, %v)", ms, e, err)
	}
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	socket.LimitUnacknowledged(here, time.Second) // is no socket, and stays as it was
}
