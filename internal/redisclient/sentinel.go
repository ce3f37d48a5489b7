package redisclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// watchInterval is the time between two questions to the Sentinels.
const watchInterval = 500 * time.Millisecond

// sentinels knows who the primary is. The client for the primary dials through it, and loses
// its connections when another server becomes the primary.
//
// The client of rueidis for Sentinel is not used: while there is no primary, version 1.0.79
// starts ever more goroutines that ask for one.
type sentinels struct {
	opts Options

	mu      sync.Mutex
	clients map[string]rueidis.Client // to Sentinels that answered once
	conns   map[net.Conn]string       // to servers, by their address
	closed  bool
}

// ErrNoSentinel is that the Sentinels, not the servers, could not be reached, refuse this client, or
// do not know the name.
var ErrNoSentinel = errors.New("no Sentinel knows the primary")

// openSentinel returns a client for the primary that the Sentinels name.
func openSentinel(opts Options, o rueidis.ClientOption) (rueidis.Client, error) {
	s := &sentinels{opts: opts, clients: make(map[string]rueidis.Client), conns: make(map[net.Conn]string)}
	o.InitAddress = []string{opts.MasterName}
	o.ForceSingleClient = true
	o.TLSConfig = nil // dial does it
	o.DialCtxFn = s.dial
	client, err := rueidis.NewClient(o)
	if err != nil {
		s.close()
		return nil, err
	}
	w := &watched{Client: client, sentinels: s}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.watching.Go(func() { s.watch(ctx) })
	return w, nil
}

// watched is a client that ends its sentinels too.
type watched struct {
	rueidis.Client
	sentinels *sentinels
	stop      context.CancelFunc
	watching  sync.WaitGroup
}

func (w *watched) Close() {
	w.stop()
	w.watching.Wait()
	w.Client.Close()
	w.sentinels.close()
}

// Nodes returns the primary's client under its own name.
func (w *watched) Nodes() map[string]rueidis.Client {
	return map[string]rueidis.Client{w.sentinels.opts.MasterName: w.Client}
}

// dial connects to the primary.
func (s *sentinels) dial(ctx context.Context, _ string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
	addr, err := s.ask(ctx)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	var conn net.Conn
	if s.opts.TLS != nil {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: s.opts.TLS}).DialContext(ctx, "tcp", addr)
	} else {
		conn, err = dialer.DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	conn = &watchedConn{conn, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	s.conns[conn] = addr
	return conn, nil
}

type watchedConn struct {
	net.Conn
	sentinels *sentinels
}

func (c *watchedConn) Close() error {
	go c.sentinels.forget(c) // its lock may be held by who closes
	return c.Conn.Close()
}

func (s *sentinels) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// watch closes the connections to what is not the primary any more, until ctx ends.
func (s *sentinels) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		addr, err := s.ask(ctx)
		if err != nil {
			continue
		}
		s.mu.Lock()
		var old []net.Conn
		for c, to := range s.conns {
			if to != addr {
				old = append(old, c)
				delete(s.conns, c)
			}
		}
		s.mu.Unlock()
		for _, c := range old {
			_ = c.Close()
		}
	}
}

// ask asks all Sentinels at once for the primary, and believes the one whose view is newest.
func (s *sentinels) ask(ctx context.Context) (addr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(s.opts.timeout()/4, 250*time.Millisecond))
	defer cancel()
	type view struct {
		addr  string
		epoch int64
		err   error
	}
	views := make(chan view, len(s.opts.Addresses))
	for _, sentinel := range s.opts.Addresses {
		go func() {
			addr, epoch, err := s.askOne(ctx, sentinel)
			views <- view{addr, epoch, err}
		}()
	}
	newest := int64(-1)
	for range s.opts.Addresses {
		v := <-views
		if v.err != nil {
			err = v.err
		} else if v.epoch > newest {
			addr, newest = v.addr, v.epoch
		}
	}
	if newest < 0 {
		return "", fmt.Errorf("%w %q: %w", ErrNoSentinel, s.opts.MasterName, err)
	}
	return addr, nil
}

func (s *sentinels) askOne(ctx context.Context, sentinel string) (addr string, epoch int64, err error) {
	client, err := s.client(ctx, sentinel)
	if err != nil {
		return "", 0, err
	}
	m, err := client.Do(ctx, client.B().Arbitrary("SENTINEL", "MASTER", s.opts.MasterName).Build()).AsStrMap()
	if err != nil {
		return "", 0, err
	}
	epoch, err = strconv.ParseInt(m["config-epoch"], 10, 64)
	return net.JoinHostPort(m["ip"], m["port"]), epoch, err
}

// client returns the client for one Sentinel. It connects when it is first needed.
func (s *sentinels) client(ctx context.Context, sentinel string) (rueidis.Client, error) {
	s.mu.Lock()
	client, closed := s.clients[sentinel], s.closed
	s.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	if client != nil {
		return client, nil
	}
	o := clientOption(s.opts)
	o.InitAddress = []string{sentinel}
	o.ForceSingleClient = true
	o.Username, o.Password = s.opts.SentinelUsername, s.opts.SentinelPassword
	if deadline, ok := ctx.Deadline(); ok {
		o.Dialer.Timeout = min(o.Dialer.Timeout, max(time.Until(deadline), time.Millisecond))
	}
	client, err := rueidis.NewClient(o)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch other := s.clients[sentinel]; {
	case s.closed:
		client.Close()
		return nil, net.ErrClosed
	case other != nil:
		client.Close()
		return other, nil
	}
	s.clients[sentinel] = client
	return client, nil
}

func (s *sentinels) close() {
	s.mu.Lock()
	s.closed = true
	clients := slices.Collect(maps.Values(s.clients))
	s.mu.Unlock()
	for _, c := range clients {
		c.Close()
	}
}
