package socket

import (
	"io"
	"net"
)

// Begun is a TCP connection of which something was read that is to be read again. Whoever takes it over
// may give it to a Poller.
type Begun struct {
	*net.TCPConn
	Early []byte // read first; the reader's
}

// Read reads Early first.
func (c *Begun) Read(b []byte) (int, error) {
	if len(c.Early) > 0 {
		n := copy(b, c.Early)
		if c.Early = c.Early[n:]; len(c.Early) == 0 {
			c.Early = nil
		}
		return n, nil
	}
	return c.TCPConn.Read(b)
}

// WriteTo goes through Read, too, which the TCPConn's own would pass by.
func (c *Begun) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// NetConn is the connection underneath.
func (c *Begun) NetConn() net.Conn { return c.TCPConn }

// Taker is an http.ResponseWriter whose connection Upgrade takes over more directly than net/http's. All
// that was read is read from the connection again.
type Taker interface{ Take() (net.Conn, error) }
