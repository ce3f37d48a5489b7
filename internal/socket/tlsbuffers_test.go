package socket

import (
	"bytes"
	"crypto/tls"
	"testing"
	"unsafe"
)

// If this fails with a new release of Go: look what became of the two fields, and of their use
// after the handshake.
func TestTheBuffersOfTLSAreFound(t *testing.T) {
	conn := tls.Server(nil, nil)
	for name, at := range map[string]int{"rawInput": rawInputAt, "hand": handAt} {
		if at < 0 {
			t.Errorf("a tls.Conn has no bytes.Buffer called %s", name)
			continue
		}
		b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(conn), at))
		b.Grow(5000)
		b.WriteByte('x')
		releaseBuffers(conn, keptInput)
		if b.Len() != 1 {
			t.Errorf("%s was let go while something was in it", name)
		}
		_, _ = b.ReadByte()
		releaseBuffers(conn, 6000)
		if b.Cap() < 5000 {
			t.Errorf("%s was let go although it is small", name)
		}
		releaseBuffers(conn, keptInput)
		if b.Cap() != 0 {
			t.Errorf("%s keeps %d bytes", name, b.Cap())
		}
	}
}

// A peer that makes TLS answer, and reads no answer, is not answered without end.
func TestWhatTLSSaysByItselfIsBounded(t *testing.T) {
	s := &secured{poller: NewPoller(PollerOptions{}), waiting: true}
	answer := make([]byte, 1000)
	for range maxSealed / len(answer) {
		if n, err := s.push(answer); n != len(answer) || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := s.push(answer); err != errNotRead {
		t.Errorf("got %v", err)
	}
	if err := s.send(); err != errNotRead { // which Feed returns
		t.Errorf("got %v", err)
	}
}
