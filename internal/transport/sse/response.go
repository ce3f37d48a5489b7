package sse

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// response is the body of an answer as the connection that a socket.Stream writes to. The
// handler of the request calls wait before it returns; nothing touches the answer after that.
type response struct {
	w       http.ResponseWriter
	control *http.ResponseController
	gone    <-chan struct{} // the peer is
	deaf    chan struct{}   // closed when Read shall end
	closed  chan struct{}

	writing sync.Mutex // held while w is written to; taken before mu

	// mu guards the fields below and the deadline of w. Nothing under it waits for the peer.
	mu               sync.Mutex
	isDeaf, isClosed bool
	cut              bool // Close is no ordinary end
	over             bool // the handler returns
}

func newResponse(w http.ResponseWriter, r *http.Request) *response {
	return &response{
		w: w, control: http.NewResponseController(w),
		gone: r.Context().Done(), deaf: make(chan struct{}), closed: make(chan struct{}),
	}
}

// wait returns when the response is closed and nothing is written any more. If it was to be cut
// off, wait panics with http.ErrAbortHandler instead, which is how a handler asks for that.
func (r *response) wait() {
	<-r.closed
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	if r.cut {
		panic(http.ErrAbortHandler)
	}
}

// Read waits for the end: the peer has said all with its request.
func (r *response) Read([]byte) (int, error) {
	select {
	case <-r.gone:
		return 0, io.EOF
	case <-r.deaf:
	case <-r.closed:
	}
	return 0, net.ErrClosed
}

// Write implements net.Conn. What is written leaves at once.
func (r *response) Write(b []byte) (int, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	select {
	case <-r.closed:
		return 0, net.ErrClosed
	default:
	}
	n, err := r.w.Write(b)
	if err == nil {
		err = r.control.Flush()
	}
	return n, err
}

// Close implements net.Conn. If a write waits for the peer it fails, and so the peer sees that
// the answer is cut off.
func (r *response) Close() error {
	r.mu.Lock()
	first := !r.isClosed
	if first {
		r.isClosed = true
		close(r.closed)
	}
	r.mu.Unlock()
	if first && !r.writing.TryLock() {
		return r.SetWriteDeadline(time.Unix(1, 0))
	} else if first {
		r.writing.Unlock()
	}
	return nil
}

// SetLinger is what (*net.TCPConn).SetLinger(0) is: Close will cut the answer off, whether a write
// waits for the peer or not.
func (r *response) SetLinger(int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	return nil
}

// CloseWrite closes: when the answer has ended there is nothing more to hear.
func (r *response) CloseWrite() error { return r.Close() }

// SetWriteDeadline implements net.Conn.
func (r *response) SetWriteDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return net.ErrClosed
	}
	return r.control.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn, for deadlines that have passed only.
func (r *response) SetReadDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isDeaf && !t.IsZero() {
		r.isDeaf = true
		close(r.deaf)
	}
	return nil
}

// SetDeadline implements net.Conn.
func (r *response) SetDeadline(t time.Time) error {
	_ = r.SetReadDeadline(t) // it does not fail
	return r.SetWriteDeadline(t)
}

// LocalAddr implements net.Conn. A response has no socket of its own.
func (r *response) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (r *response) RemoteAddr() net.Addr { return nil }
