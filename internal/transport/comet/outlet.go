package comet

import (
	"net"

	"letshare-server/internal/socket"
)

// outlet is conn as its outbox sees it: bytes are taken while an answer is open and has
// room. Unlike a socket it takes whole buffers only, and keeps them until they are written;
// what is put into an outbox never changes.
type outlet conn

var _ socket.Stream = (*outlet)(nil)

// TryWrite implements socket.Stream.
func (o *outlet) TryWrite(b []byte) (int, error) {
	c := (*conn)(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acceptLocked(b)
}

// TryWritev implements socket.Stream.
func (o *outlet) TryWritev(bufs [][]byte) (total int64, err error) {
	c := (*conn)(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range bufs {
		n, err := c.acceptLocked(b)
		total += int64(n)
		if n < len(b) || err != nil {
			return total, err
		}
	}
	return total, nil
}

func (c *conn) acceptLocked(b []byte) (int, error) {
	switch {
	case c.ended:
		return 0, net.ErrClosed
	case c.reader == nil || c.broken || c.batchBytes >= maxBatchBytes:
		return 0, nil
	}
	c.batch = append(c.batch, b)
	c.batchBytes += len(b)
	c.reader.alert()
	return len(b), nil
}

// WhenWritable implements socket.Stream: f is called by the answer that has room, or at the
// end.
func (o *outlet) WhenWritable(f func()) {
	c := (*conn)(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		c.door.opts.Workers.Go(socket.TaskFunc(f))
		return
	}
	c.writable = f
	if c.reader != nil {
		c.reader.alert()
	}
}

// Close implements socket.Stream: the transport ends when the batch is written.
func (o *outlet) Close() error {
	c := (*conn)(o)
	c.mu.Lock()
	c.finished = true
	if c.reader != nil {
		c.reader.alert()
	}
	said := c.aloneLocked() && len(c.batch) == 0
	c.mu.Unlock()
	if said {
		c.end()
	}
	return nil
}

// Abort implements socket.Stream.
func (o *outlet) Abort() error {
	(*conn)(o).end()
	return nil
}

// CloseWrite implements socket.Stream.
func (o *outlet) CloseWrite() error { return o.Close() }
