package socket

import (
	"errors"
	"net"
)

// Stream is a connected socket that is never waited for.
//
// The writing methods (TryWrite, TryWritev, WhenWritable) are for one caller at a time; Close,
// CloseWrite and Abort may be called by anyone, at any time, and do not block either.
type Stream interface {
	// TryWrite gives b to the kernel as far as it takes it now. n < len(b) with a nil error
	// means that it takes no more: ask WhenWritable. b is not kept.
	TryWrite(b []byte) (n int, err error)

	// TryWritev is TryWrite for several buffers in order, in one system call for every 1,024
	// of them. Neither bufs nor what it points to is kept or changed.
	TryWritev(bufs [][]byte) (n int64, err error)

	// WhenWritable arranges one call of f, on another goroutine, once the kernel takes bytes
	// again or the stream has ended. Between WhenWritable and that call nothing may be written.
	WhenWritable(f func())

	// Close ends the stream: what the kernel has taken is still delivered, and the Feeder's
	// Closed follows on a worker. It may be called again.
	Close() error

	// Abort is Close without the courtesy: what the peer has not taken yet is thrown away and
	// the peer sees a reset. It frees the kernel's memory at once, for peers that do not read.
	Abort() error

	// CloseWrite tells the peer that no more bytes follow, while its own are still fed.
	CloseWrite() error
}

// Feeder is what a Stream feeds. Its calls come from a worker, never two at a time.
type Feeder interface {
	// Feed gives the bytes that arrived. They may be changed, and are valid until it returns.
	// An error ends the stream and comes back in Closed.
	Feed(b []byte) error

	// FeedEnd follows when all bytes of one wake-up have been fed, so that what they caused
	// can be sent in one go.
	FeedEnd()

	// Closed is the last call, and comes exactly once for every stream that was added. err is
	// Feed's error, io.EOF when the peer ended, net.ErrClosed when this side closed, or what
	// the socket reported.
	Closed(err error)
}

// ErrPollerClosed is Add's answer after Run's context has ended.
var ErrPollerClosed = errors.New("socket: poller is closed")

// closedError keeps the chain of a local close short: whatever a socket says after this side
// closed it is net.ErrClosed.
func closedError(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}
