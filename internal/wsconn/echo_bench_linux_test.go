package wsconn_test

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"letshare-server/internal/socket"
	"letshare-server/internal/wsconn"
)

// BenchmarkEcho is a message in and one out on 64 connections, and the same bytes through a
// goroutine per connection without any protocol, which is the floor. cpu-ns/op includes the client.
func BenchmarkEcho(b *testing.B) {
	const n = 64
	hello := masked(socket.OpText, strings.Repeat("h", 200))
	drive := func(b *testing.B, fds []int) {
		buf := make([]byte, 4096)
		b.ReportAllocs()
		b.ResetTimer()
		begin := cpu()
		for range b.N {
			for _, fd := range fds {
				if _, err := syscall.Write(fd, hello); err != nil {
					b.Fatal(err)
				}
			}
			for _, fd := range fds {
				if n, err := syscall.Read(fd, buf); n == 0 || err != nil {
					b.Fatal(n, err)
				}
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(cpu()-begin)/float64(b.N*n), "cpu-ns/message")
		b.ReportMetric(float64(b.Elapsed()/time.Nanosecond)/float64(b.N*n), "ns/message")
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
	}
	b.Run("wsconn", func(b *testing.B) {
		h := serveEchoOn(b, benchmarked(b), wsconn.Settings{})
		fds := make([]int, n)
		for i := range fds {
			fds[i] = rawClient(b, h.addr)
		}
		drive(b, fds)
		for range n {
			h.end(b)
		}
	})
	b.Run("floor", func(b *testing.B) {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		fds := make([]int, n)
		done := make(chan struct{}, n)
		for i := range fds {
			tcp := ln.Addr().(*net.TCPAddr)
			fds[i], err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
			if err != nil {
				b.Fatal(err)
			}
			if err := syscall.Connect(fds[i], &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}); err != nil {
				b.Fatal(err)
			}
			c, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				defer func() { _ = c.Close(); done <- struct{}{} }()
				for buf := make([]byte, 4096); ; {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					_, _ = c.Write(buf[:n])
				}
			}()
		}
		drive(b, fds)
		for range n {
			<-done
		}
	})
}
