package socket_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"letshare-server/internal/socket"
)

// secured does the handshake over two ends of a connection.
func secured(t *testing.T, server, client net.Conn) (*tls.Conn, *tls.Conn) {
	t.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate
	web.Close()
	s := tls.Server(server, web.TLS)
	settings := web.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	settings.ServerName = "example.com"
	c := tls.Client(client, settings)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("!")) // after the session tickets
		}
		done <- err
	}()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestAbortResetsATLSPeerThatDoesNotRead(t *testing.T) {
	p := running(t, socket.PollerOptions{})
	rawServer, rawClient := tcpPair(t)
	server, client := secured(t, rawServer, rawClient)
	r := newRecorder()
	s, err := p.Add(server, nil, r)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	for start := time.Now(); time.Since(start) < 200*time.Millisecond; { // until nothing has been taken for long
		n, err := s.TryWrite(b)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			start = time.Now()
		}
	}
	_ = s.Abort()
	if err := r.end(t); err != net.ErrClosed {
		t.Fatalf("ended with %v", err)
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, client); err == nil {
		t.Fatal("the peer saw an ordinary end")
	}
}

// A goodbye of TLS is written, and here nobody takes it.
func TestNoEndOfATLSStreamWaitsForItsPeer(t *testing.T) {
	for name, end := range map[string]func(socket.Stream) error{
		"Close": socket.Stream.Close, "CloseWrite": socket.Stream.CloseWrite, "Abort": socket.Stream.Abort,
	} {
		t.Run(name, func(t *testing.T) {
			p := running(t, socket.PollerOptions{})
			rawServer, rawClient := net.Pipe() // without buffers
			server, _ := secured(t, rawServer, rawClient)
			r := newRecorder()
			s, err := p.Add(server, nil, r)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_ = end(s)
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
			_ = rawClient.Close()
			_ = r.end(t)
		})
	}
}
