package socket

import "sync"

// buffers is a freelist of read buffers of one size. A mutex and a slice rather than a sync.Pool:
// the frames of a parked goroutine must stay small, and the list keeps a bounded number.
type buffers struct {
	size int
	keep int // at most this many lie idle

	mu   sync.Mutex
	free [][]byte
}

func (p *buffers) get() []byte {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return b
	}
	p.mu.Unlock()
	return make([]byte, p.size)
}

func (p *buffers) put(b []byte) {
	p.mu.Lock()
	if len(p.free) < p.keep {
		p.free = append(p.free, b)
	}
	p.mu.Unlock()
}
