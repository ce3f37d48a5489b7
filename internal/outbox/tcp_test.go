package outbox_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
	"letshare-server/test/cert"
)

// silent is a Feeder that ignores what comes.
type silent struct{}

func (silent) Feed([]byte) error { return nil }
func (silent) FeedEnd()          {}
func (silent) Closed(error)      {}

// Sockets with small buffers (but not below loopback's MSS of 64 KiB, where the kernel's avoidance of
// small windows makes pauses of 200 ms for everybody), readers that pause at random, several who put: whatever the kernel
// does, every byte arrives in order and no outbox forgets to go on.
func TestRealSocketsThatBlockOftenNeverStall(t *testing.T) {
	t.Run("TCP", func(t *testing.T) { neverStall(t, nil) })
	c, err := cert.New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("TLS", func(t *testing.T) { neverStall(t, c) })
}

// neverStall has TLS if it gets a certificate for it.
func neverStall(t *testing.T, c *cert.Certificate) {
	p := socket.NewPoller(socket.PollerOptions{SendBuffer: 64 << 10})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = p.Run(ctx) })
	defer run.Wait()
	defer cancel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	ln := tcp
	if c != nil {
		ln = socket.ForTLS(tcp)
	}
	opts := &outbox.Options{MaxBytes: 1 << 30, Budget: outbox.NewBudget(1 << 40)}
	const conns, putters, each = 12, 3, 1000
	var wg sync.WaitGroup
	for k := range conns {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_ = client.(*net.TCPConn).SetReadBuffer(128 << 10)
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if c != nil {
			over := tls.Server(server, c.Server())
			inside := tls.Client(client, c.Client())
			done := make(chan error, 1)
			go func() { done <- over.Handshake() }()
			if err := inside.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			server, client = over, inside
		}
		s, err := p.Add(server, nil, silent{})
		if err != nil {
			t.Fatal(err)
		}
		o := outbox.New(s, opts, nil)
		for i := range putters {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(k), uint64(i)))
				for n := range uint32(each) {
					// A length, the putter, its count and padding.
					b := make([]byte, 12+r.IntN(3000))
					binary.BigEndian.PutUint32(b, uint32(len(b)))
					binary.BigEndian.PutUint32(b[4:], uint32(i))
					binary.BigEndian.PutUint32(b[8:], n)
					if r.IntN(3) == 0 {
						o.Queue(b)
					} else {
						o.Put(b)
					}
				}
				o.Flush()
			})
		}
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(k), 99))
			var next [putters]uint32
			buf := make([]byte, 4096)
			for range putters * each {
				if r.IntN(100) == 0 {
					time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond) // a reader's pause
				}
				_ = client.SetReadDeadline(time.Now().Add(time.Minute)) // without any progress
				if _, err := io.ReadFull(client, buf[:12]); err != nil {
					t.Errorf("connection %d: %v after %v", k, err, next)
					return
				}
				i, n := binary.BigEndian.Uint32(buf[4:]), binary.BigEndian.Uint32(buf[8:])
				if i >= putters || n != next[i] {
					t.Errorf("connection %d: putter %d sent %d, want %v", k, i, n, next)
					return
				}
				next[i]++
				if _, err := io.ReadFull(client, buf[:binary.BigEndian.Uint32(buf)-12]); err != nil {
					t.Errorf("connection %d: %v", k, err)
					return
				}
			}
		})
	}
	wg.Wait()
	// Whoever wrote the last bytes may not have come to tell the budget yet.
	for end := time.Now().Add(time.Minute); opts.Budget.Used() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes of the budget used when all is read", opts.Budget.Used())
		}
	}
}
