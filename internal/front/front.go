package front

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"letshare-server/internal/socket"
)

// Options configure a Listener. Handler, Paths and Workers are required.
type Options struct {
	// Handler serves what opens a WebSocket. It answers at once or takes the connection over with
	// socket.Upgrade; an answer is sent when it has returned.
	Handler http.Handler

	// Paths are those at which WebSockets are opened.
	Paths []string

	Workers *socket.Workers

	// HeaderTime is how long a client may be silent at first; zero means 10 s.
	HeaderTime time.Duration

	// ConnContext and ConnState are those of the http.Server. A connection that goes to
	// net/http is told of there again, from the beginning, and ended here for none of them.
	ConnContext func(context.Context, net.Conn) context.Context
	ConnState   func(net.Conn, http.ConnState)

	Log *slog.Logger // nil discards
}

// Listener is what net/http is to serve on: it gives the connections that are not served here.
type Listener struct {
	net.Listener
	opts  Options
	rest  chan *socket.Begun
	ended chan struct{} // Run has ended
	fatal error         // why; before ended

	// mu guards the fields below. Nothing is called under it.
	mu      sync.Mutex
	closed  bool
	waiting map[*socket.Begun]struct{} // for their first bytes
}

// New returns a Listener over l, which it closes. It starts nothing.
func New(l net.Listener, opts Options) *Listener {
	if opts.HeaderTime == 0 {
		opts.HeaderTime = 10 * time.Second
	}
	if opts.ConnContext == nil {
		opts.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return ctx }
	}
	if opts.ConnState == nil {
		opts.ConnState = func(net.Conn, http.ConnState) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Listener{
		Listener: l, opts: opts,
		rest: make(chan *socket.Begun), ended: make(chan struct{}), waiting: make(map[*socket.Begun]struct{}),
	}
}

// Accept gives the next connection that is net/http's. After the end of Run it returns why Run ended, or
// net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.rest:
		return c, nil
	case <-l.ended:
		return nil, l.fatal
	}
}

// Close ends Run, and the connections that nobody has served.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	err := l.Listener.Close()
	for c := range waiting {
		_ = c.Close()
	}
	return err
}

// mostPause is the longest pause after a connection could not be accepted, for want of descriptors
// for instance.
const mostPause = time.Second

// Run accepts until Close, and returns when each connection is served or net/http's. Accept gives nothing
// before. Contexts of requests are made from ctx, whose end is not looked at.
func (l *Listener) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	l.fatal = l.accept(ctx, &serving)
	close(l.ended)
	serving.Wait()
	if errors.Is(l.fatal, net.ErrClosed) {
		return nil
	}
	return l.fatal
}

func (l *Listener) accept(ctx context.Context, serving *sync.WaitGroup) error {
	pause := time.Duration(0)
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			var passing interface{ Temporary() bool }
			if !errors.As(err, &passing) || !passing.Temporary() {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), mostPause)
			l.opts.Log.Debug("connection not accepted", "error", err, "again_in", pause.String())
			time.Sleep(pause)
			continue
		}
		pause = 0
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			_ = conn.Close()
			return errors.New("front: not a TCP listener")
		}
		c := &socket.Begun{TCPConn: tcp}
		if !l.await(c) {
			_ = c.Close()
			continue
		}
		serving.Add(1)
		go l.read(ctx, c, serving)
	}
}

// await notes a connection whose first bytes are waited for. It returns false after Close.
func (l *Listener) await(c *socket.Begun) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.waiting[c] = struct{}{}
	return true
}

// come takes it back. It returns false after Close.
func (l *Listener) come(c *socket.Begun) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, c)
	return !l.closed
}

// headBytes is how long a head may be that is served here.
const headBytes = 4 << 10

var heads = sync.Pool{New: func() any { return new([headBytes]byte) }}

// arrival is a connection whose first bytes have come, as a task.
type arrival struct {
	listener *Listener
	conn     *socket.Begun
	ctx      context.Context
	head     *[headBytes]byte
	n        int
	serving  *sync.WaitGroup
}

// read waits for the first bytes.
func (l *Listener) read(ctx context.Context, c *socket.Begun, serving *sync.WaitGroup) {
	ctx = l.opts.ConnContext(ctx, c)
	head := heads.Get().(*[headBytes]byte)
	err := c.SetReadDeadline(time.Now().Add(l.opts.HeaderTime))
	n := 0
	if err == nil {
		n, err = c.TCPConn.Read(head[:])
	}
	if err == nil && !l.come(c) {
		err = net.ErrClosed
	}
	if err != nil {
		l.come(c)
		heads.Put(head)
		_ = c.Close()
		l.opts.ConnState(c, http.StateClosed)
		serving.Done()
		return
	}
	l.opts.Workers.Go(&arrival{l, c, ctx, head, n, serving})
}

// Run serves the connection, or gives it to net/http.
func (a *arrival) Run() {
	l, c := a.listener, a.conn
	r, rest, ok := parse(a.head[:a.n])
	if ok = ok && slices.Contains(l.opts.Paths, r.URL.Path); ok {
		c.Early = append([]byte(nil), rest...)
	} else {
		c.Early = append([]byte(nil), a.head[:a.n]...)
	}
	heads.Put(a.head)
	if !ok {
		go a.pass()
		return
	}
	r.RemoteAddr = c.RemoteAddr().String()
	w := &response{conn: c, header: make(http.Header)}
	defer func() {
		if p := recover(); p != nil {
			l.opts.Log.Error("panic while a request was served", "panic", p)
			_ = c.Close()
			l.opts.ConnState(c, http.StateClosed)
			a.serving.Done()
			return
		}
		if w.taken {
			l.opts.ConnState(c, http.StateHijacked)
			a.serving.Done()
			return
		}
		go func() { // the client may be slow
			defer a.serving.Done()
			w.send()
			l.opts.ConnState(c, http.StateClosed)
		}()
	}()
	l.opts.Handler.ServeHTTP(w, r.WithContext(a.ctx))
}

// pass gives the connection to net/http.
func (a *arrival) pass() {
	defer a.serving.Done()
	select {
	case a.listener.rest <- a.conn:
	case <-a.listener.ended:
		_ = a.conn.Close()
		a.listener.opts.ConnState(a.conn, http.StateClosed)
	}
}
