package letshare_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// peer writes and reads frames byte by byte, for what no library would send.
type peer struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// The opcodes of frames.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// wireFrame is a frame as it is on the wire.
type wireFrame struct {
	first   byte // FIN, reserved bits and opcode
	payload string
}

func (f wireFrame) op() byte { return f.first & 0xF }

// raw connects a user without any library.
func (i *instance) raw(t testing.TB, user string, headers ...string) *peer {
	t.Helper()
	return i.rawTarget(t, "/ws?token="+tokenFor(user)+"&userId="+user, headers...)
}

// rawTarget connects with a request target that is sent as it is.
func (i *instance) rawTarget(t testing.TB, target string, headers ...string) *peer {
	t.Helper()
	p, answer := i.rawRequest(t, target, headers...)
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the upgrade is answered with %s", answer.Status)
	}
	return p
}

func (i *instance) rawRequest(t testing.TB, target string, headers ...string) (*peer, *http.Response) {
	t.Helper()
	conn := i.dialTCP(t)
	var b strings.Builder
	b.WriteString("GET " + target + " HTTP/1.1\r\nHost: " + i.addr + "\r\n")
	for _, pairs := range [][]string{handshake, headers} {
		for n := 0; n < len(pairs); n += 2 {
			b.WriteString(pairs[n] + ": " + pairs[n+1] + "\r\n")
		}
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("no answer to the upgrade: %v", err)
	}
	return &peer{t, conn, in}, answer
}

// encode makes a frame. first holds FIN, reserved bits and opcode.
func encode(first byte, mask bool, payload string) []byte {
	b := []byte{first}
	bit := byte(0)
	if mask {
		bit = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, bit|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), uint64(n))
	}
	if !mask {
		return append(b, payload...)
	}
	key := [4]byte{0xA1, 0x07, 0x5C, 0xF3}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatalf("writing: %v", err)
	}
}

// send sends a whole masked frame.
func (p *peer) send(op byte, payload string) { p.t.Helper(); p.write(encode(0x80|op, true, payload)) }

// next reads a frame; it fails at the end of the stream.
func (p *peer) next() wireFrame {
	p.t.Helper()
	f, err := p.read()
	if err != nil {
		p.t.Fatalf("reading a frame: %v", err)
	}
	return f
}

func (p *peer) read() (wireFrame, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(p.in, head); err != nil {
		return wireFrame{}, err
	}
	if head[1]&0x80 != 0 {
		return wireFrame{}, errors.New("a masked frame from the server")
	}
	n := uint64(head[1])
	if n >= 126 {
		ext := make([]byte, map[uint64]int{126: 2, 127: 8}[n])
		if _, err := io.ReadFull(p.in, ext); err != nil {
			return wireFrame{}, err
		}
		n = 0
		for _, c := range ext {
			n = n<<8 | uint64(c)
		}
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(p.in, payload)
	return wireFrame{head[0], string(payload)}, err
}

// expect reads a frame and compares it.
func (p *peer) expect(op byte, payload string) {
	p.t.Helper()
	if f := p.next(); f.first != 0x80|op || f.payload != payload {
		p.t.Fatalf("got frame %#x %.200q, want %#x %.200q", f.first, f.payload, 0x80|op, payload)
	}
}

// subscribe enters a room.
func (p *peer) subscribe(room string) {
	p.t.Helper()
	p.send(opText, `{"type":"subscribe","channel":`+q(room)+`}`)
	if f := p.next(); !strings.HasPrefix(f.payload, `{"type":"subscribed"`) {
		p.t.Fatalf("got %q, want the acknowledgement", f.payload)
	}
}

// expectClose reads up to a close frame, checks its code, and then expects the end of the
// stream. What else is sent before it is skipped.
func (p *peer) expectClose(code int) {
	p.t.Helper()
	for {
		f := p.next()
		if f.op() != opClose {
			continue
		}
		if len(f.payload) < 2 || int(binary.BigEndian.Uint16([]byte(f.payload))) != code {
			p.t.Fatalf("closed with %q, want %d", f.payload, code)
		}
		break
	}
	p.expectEnd()
}

// expectEnd expects the end of the TCP stream, and then that nothing takes what is sent.
func (p *peer) expectEnd() {
	p.t.Helper()
	if f, err := p.read(); err == nil {
		p.t.Fatalf("frame %#x %.100q where the stream should end", f.first, f.payload)
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("the stream should end: %v", err)
	}
	eventually(p.t, patience, "TCP is closed in both directions", func() bool {
		_, err := p.conn.Write([]byte{0x8A, 0x80, 0, 0, 0, 0})
		return err != nil
	})
}

// closeCode makes the payload of a close frame.
func closeCode(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// reset ends the connection with a TCP reset.
func (p *peer) reset() {
	p.t.Helper()
	if err := p.conn.(*net.TCPConn).SetLinger(0); err != nil {
		p.t.Fatal(err)
	}
	_ = p.conn.Close()
}

// newReaderBehindHead reads the answer to an upgrade and returns what comes after it.
func newReaderBehindHead(t testing.TB, conn net.Conn) *bufio.Reader {
	t.Helper()
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the upgrade is answered with %v, %v", answer, err)
	}
	return in
}
