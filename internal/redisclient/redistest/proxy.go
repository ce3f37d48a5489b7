package redistest

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and a server.
type Proxy struct {
	Addr string

	to string
	l  net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	moves   sync.Cond     // on mu: stops, holds or closed has changed
	delay   time.Duration // of all bytes, in each direction
	conns   map[net.Conn]bool
	feeds   map[net.Conn]bool // clients that have subscribed something
	holds   bool              // what is for feeds
	stops   bool              // everything
	stopped []byte            // what has come since then
	refuses bool
	closed  bool
}

// StartProxy starts a proxy to an address; it ends with the test.
func StartProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), to: to, l: l, conns: make(map[net.Conn]bool), feeds: make(map[net.Conn]bool)}
	p.moves.L = &p.mu
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.moves.Broadcast()
		p.mu.Unlock()
		l.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Delay makes every byte that comes from now on late, in each direction.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// HoldFeeds keeps what the server sends to clients that have subscribed something, or sends it
// and keeps no more. All other clients are served.
func (p *Proxy) HoldFeeds(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds = on
	p.moves.Broadcast()
}

// Hold keeps everything, in both directions, or sends it and keeps no more.
func (p *Proxy) Hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stops, p.stopped = on, nil
	p.moves.Broadcast()
}

// Holds reports whether a text is among what Hold keeps.
func (p *Proxy) Holds(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.stopped, []byte(text))
}

// pass notes whether from subscribes something, and waits while what is for to is kept.
func (p *Proxy) pass(to, from net.Conn, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Contains(data, []byte("SSUBSCRIBE")) {
		p.feeds[from] = true
	}
	for (p.stops || p.holds && p.feeds[to]) && !p.closed {
		p.moves.Wait()
	}
}

// Refuse makes the proxy close new connections at once, or no more.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = on
}

// Cut closes all connections, whatever is on its way.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// add reports false if the connection is not wanted.
func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses || p.closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) remove(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	delete(p.feeds, c)
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		if !p.add(c) {
			c.Close()
			continue
		}
		p.wg.Go(func() {
			defer p.remove(c)
			s, err := net.Dial("tcp", p.to)
			if err != nil {
				return
			}
			if !p.add(s) {
				s.Close()
				return
			}
			defer p.remove(s)
			var both sync.WaitGroup
			both.Go(func() { p.pipe(s, c) })
			both.Go(func() { p.pipe(c, s) })
			both.Wait()
		})
	}
}

type chunk struct {
	at   time.Time
	data []byte
}

// pipe carries bytes from one to the other, each after the delay.
func (p *Proxy) pipe(to, from net.Conn) {
	chunks := make(chan chunk, 1024)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(chunks)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				p.mu.Lock()
				at := time.Now().Add(p.delay)
				if p.stops {
					p.stopped = append(p.stopped, buf[:n]...)
				}
				p.mu.Unlock()
				chunks <- chunk{at, buf[:n]}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range chunks {
		time.Sleep(time.Until(c.at))
		p.pass(to, from, c.data)
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	from.Close()
	to.Close()
	for range chunks {
		continue
	}
	reader.Wait()
}
