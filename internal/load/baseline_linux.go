package load

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// The baseline's server: one thread that holds sockets in rooms and, for each message, does one
// write of the same bytes for each member. It is the least that fan-out over TCP can cost, and is
// not to be tuned: results of years are compared with it.

// baselineCounts is what the server reports when it ends.
type baselineCounts struct {
	Messages uint64 `json:"messages"` // published to it
	Reads    uint64 `json:"reads"`
	Writes   uint64 `json:"writes"`  // system calls that carried messages
	Answers  uint64 `json:"answers"` // system calls that answered a hello
}

type baselineConn struct {
	fd   int
	room uint32
	in   []byte
	from int // index in the room
}

// serveBaseline listens on a free port of 127.0.0.1, says which on stdout, and serves until
// stdin (fd 0) ends; then it prints its counts. frame is the size in bytes of every message, batch
// how many are written at a time, and echo says that publishers receive too.
func serveBaseline(stdout io.Writer, frame, batch int, echo bool) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(listener, 4096); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return fmt.Errorf("ask for the port: %w", err)
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make an epoll set: %w", err)
	}
	for _, fd := range []int{0, listener} {
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return fmt.Errorf("watch %d: %w", fd, err)
		}
	}
	if _, err := fmt.Fprintf(stdout, "%d\n", name.(*unix.SockaddrInet4).Port); err != nil {
		return err
	}

	var counts baselineCounts
	conns := make(map[int]*baselineConn)
	rooms := make(map[uint32][]*baselineConn)
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, 64<<10)
	unit := frame * batch
	hello := []byte{0x81, 2, 'o', 'k'}
	for {
		n, err := unix.EpollWait(poll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for events: %w", err)
		}
		for _, ev := range events[:max(n, 0)] {
			fd := int(ev.Fd)
			switch fd {
			case 0:
				return json.NewEncoder(stdout).Encode(counts)
			case listener:
				fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
				if err != nil {
					return fmt.Errorf("accept: %w", err)
				}
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
				if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
					return fmt.Errorf("watch a connection: %w", err)
				}
				conns[fd] = &baselineConn{fd: fd, from: -1}
				continue
			}
			c := conns[fd]
			n, err := unix.Read(fd, buf)
			counts.Reads++
			if err != nil || n <= 0 {
				unix.Close(fd)
				delete(conns, fd)
				if c.from >= 0 {
					rooms[c.room][c.from] = nil
				}
				continue
			}
			data := buf[:n]
			if len(c.in) > 0 {
				c.in = append(c.in, data...)
				data = c.in
			}
			if c.from < 0 && len(data) >= bareHelloBytes {
				if binary.BigEndian.Uint32(data) != bareHello {
					return errors.New("a stranger connected")
				}
				c.room = binary.BigEndian.Uint32(data[4:])
				c.from = len(rooms[c.room])
				rooms[c.room] = append(rooms[c.room], c)
				data = data[bareHelloBytes:]
				if _, err := unix.Write(fd, hello); err != nil {
					return fmt.Errorf("answer: %w", err)
				}
				counts.Answers++
			}
			for c.from >= 0 && len(data) >= unit {
				for _, to := range rooms[c.room] {
					if to == nil || to == c && !echo {
						continue
					}
					// The sockets block, so a write takes everything.
					if n, err := unix.Write(to.fd, data[:unit]); err == nil && n != unit {
						return fmt.Errorf("a write took %d of %d bytes", n, unit)
					}
					counts.Writes++
				}
				counts.Messages += uint64(batch)
				data = data[unit:]
			}
			c.in = append(c.in[:0], data...)
		}
	}
}

// baselineServer is a running child.
type baselineServer struct {
	pid     int
	address *net.TCPAddr
	// end stops the child and returns what it counted.
	end func() (baselineCounts, error)
}
