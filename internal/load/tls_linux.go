package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"letshare-server/internal/socket"
)

// secured is a connection's TLS. The handshake waits for the server, and with it the whole loop;
// afterwards nothing waits: readings end with socket.ErrAgain, and what is written is in out.
type secured struct {
	tls  *tls.Conn
	link link
}

// link is the socket as its TLS sees it.
type link struct {
	fd       int
	blocking bool
	deadline time.Time // of the handshake
	out      []byte    // encrypted, and not with the kernel yet
}

// secure does the handshake on a connected socket.
func secure(fd int, config *tls.Config, timeout time.Duration) (*secured, error) {
	s := &secured{link: link{fd: fd, blocking: true, deadline: time.Now().Add(timeout)}}
	s.tls = tls.Client(&s.link, config)
	if err := s.tls.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	s.link.blocking = false
	return s, nil
}

// Read implements net.Conn.
func (k *link) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(k.fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return 0, os.NewSyscallError("read", err)
		case !k.blocking:
			return 0, socket.ErrAgain
		default:
			if err := k.wait(unix.POLLIN); err != nil {
				return 0, err
			}
		}
	}
}

// Write implements net.Conn.
func (k *link) Write(b []byte) (int, error) {
	if !k.blocking {
		k.out = append(k.out, b...)
		return len(b), nil
	}
	for done := 0; done < len(b); {
		n, err := unix.Write(k.fd, b[done:])
		switch {
		case err == nil:
			done += n
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := k.wait(unix.POLLOUT); err != nil {
				return done, err
			}
		default:
			return done, os.NewSyscallError("write", err)
		}
	}
	return len(b), nil
}

func (k *link) wait(events int16) error {
	left := time.Until(k.deadline)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: events}}, int(left/time.Millisecond)+1)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// The rest of net.Conn, of which TLS uses nothing: the loop owns the socket.

func (k *link) Close() error                     { return nil }
func (k *link) LocalAddr() net.Addr              { return nil }
func (k *link) RemoteAddr() net.Addr             { return nil }
func (k *link) SetDeadline(time.Time) error      { return nil }
func (k *link) SetReadDeadline(time.Time) error  { return nil }
func (k *link) SetWriteDeadline(time.Time) error { return nil }
