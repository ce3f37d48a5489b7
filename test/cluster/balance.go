package cluster

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Balance leads connections to addresses, each to the next one, as a load balancer does that
// knows nothing of who connects. It ends with the test, and its connections with it. It returns
// its own address.
func Balance(t testing.TB, addresses []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{open: make(map[net.Conn]bool)}
	b.wg.Go(func() {
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.lead(c, addresses[i%len(addresses)]) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.mu.Lock()
		b.ended = true
		for c := range b.open {
			_ = c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return l.Addr().String()
}

type balancer struct {
	wg sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	open  map[net.Conn]bool
	ended bool
}

// add reports false if a connection comes too late.
func (b *balancer) add(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[c] = true
	return !b.ended
}

func (b *balancer) remove(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, c)
	_ = c.Close()
}

// lead leads one connection until either side has ended it.
func (b *balancer) lead(c net.Conn, address string) {
	defer b.remove(c)
	if !b.add(c) {
		return
	}
	n, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer b.remove(n)
	if !b.add(n) {
		return
	}
	ended := make(chan struct{}, 2)
	copyAll := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		ended <- struct{}{}
	}
	b.wg.Go(func() { copyAll(n, c) })
	b.wg.Go(func() { copyAll(c, n) })
	<-ended
}
