//go:build race

package socket

import (
	"errors"
	"syscall"
)

// The race detector takes a read for what happens after a write, which it knows from Go's own calls
// alone.

func receive(fd int, b []byte) (int, syscall.Errno) { return outcomeOf(syscall.Read(fd, b)) }

func send(fd int, b []byte) (int, syscall.Errno) { return outcomeOf(syscall.Write(fd, b)) }

func outcomeOf(n int, err error) (int, syscall.Errno) {
	var errno syscall.Errno
	errors.As(err, &errno)
	return n, errno
}
