package letshare_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// maxMessage is the size of the largest message that is accepted.
const maxMessage = 512 << 10

// sized makes a publish of exactly so many bytes.
func sized(room string, size int) string {
	head, tail := `{"type":"publish","channel":"`+room+`","data":{"from":"a","x":"`, `"}}`
	return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
}

// fragments cuts a message into masked frames.
func fragments(message string, size int) []byte {
	var b []byte
	first := byte(opText)
	for len(message) > size {
		b = append(b, encode(first, true, message[:size])...)
		message = message[size:]
		first = opContinuation
	}
	return append(b, encode(0x80|first, true, message)...)
}

func TestMessagesOf512KiBAreAcceptedWholeAndInPieces(t *testing.T) {
	t.Parallel()
	room := newRoom()
	p, other := shared.raw(t, "anna"), shared.connect(t, "bert")
	other.subscribe(room)
	p.subscribe(room)
	for name, send := range map[string]func(){
		"whole":         func() { p.send(opText, sized(room, maxMessage)) },
		"binary":        func() { p.send(opBinary, sized(room, maxMessage)) },
		"in 2 pieces":   func() { p.write(fragments(sized(room, maxMessage), maxMessage/2)) },
		"in 512 pieces": func() { p.write(fragments(sized(room, maxMessage), 1<<10)) },
		"in odd pieces": func() { p.write(fragments(sized(room, maxMessage), 65_537)) },
		"one byte less": func() { p.send(opText, sized(room, maxMessage-1)) },
		"with empty ones": func() {
			message := sized(room, maxMessage)
			p.write(encode(opText, true, ""))
			p.write(encode(opContinuation, true, message))
			p.write(encode(0x80|opContinuation, true, ""))
		},
	} {
		send()
		if f := other.frame(); !strings.HasPrefix(f.text, `{"type":"message"`) || len(f.text) < maxMessage-100 {
			t.Errorf("%s: got %d bytes: %.100s", name, len(f.text), f.text)
		}
	}
	p.send(opText, `{"type":"unsubscribe","channel":"nowhere"}`)
	if m := parse(t, p.next().payload); m["type"] != "unsubscribed" {
		t.Errorf("got %v", m)
	}
}

func TestOneByteMoreClosesWith1009(t *testing.T) {
	t.Parallel()
	room := newRoom()
	witness := shared.connect(t, "witness")
	witness.subscribe(room)
	t.Cleanup(witness.works) // nothing of it was delivered
	for name, b := range map[string][]byte{
		"whole":          encode(0x80|opText, true, sized(room, maxMessage+1)),
		"binary":         encode(0x80|opBinary, true, sized(room, maxMessage+1)),
		"in 2 pieces":    fragments(sized(room, maxMessage+1), maxMessage/2+1),
		"in many pieces": fragments(sized(room, maxMessage+1), 1<<12),
		"last byte":      fragments(sized(room, maxMessage+1), maxMessage),
		"only promised":  {0x81, 0xFF, 0, 0, 0, 0, 0, 8, 0, 1, 1, 2, 3, 4},
		"2^63 promised":  {0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4},
		"much more":      encode(0x80|opText, true, sized(room, 8<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := shared.raw(t, "anna")
			p.subscribe(room)
			go func() { _, _ = p.conn.Write(b) }() // may be cut off
			p.expectClose(1009)
		})
	}
}

func TestBreachesOfTheProtocolCloseWith1002(t *testing.T) {
	t.Parallel()
	good := `{"type":"subscribe","channel":"ab"}`
	for name, b := range map[string][]byte{
		"unmasked":                encode(0x80|opText, false, good),
		"unmasked ping":           encode(0x80|opPing, false, ""),
		"unmasked close":          encode(0x80|opClose, false, closeCode(1000, "")),
		"unmasked, empty":         encode(0x80|opText, false, ""),
		"RSV1":                    encode(0xC0|opText, true, good),
		"RSV2":                    encode(0xA0|opText, true, good),
		"RSV3":                    encode(0x90|opText, true, good),
		"opcode 3":                encode(0x83, true, good),
		"opcode 7":                encode(0x87, true, good),
		"opcode 11":               encode(0x8B, true, ""),
		"opcode 15":               encode(0x8F, true, ""),
		"fragmented ping":         encode(opPing, true, ""),
		"fragmented close":        encode(opClose, true, closeCode(1000, "")),
		"ping of 126 bytes":       encode(0x80|opPing, true, strings.Repeat("x", 126)),
		"continuation of nothing": encode(0x80|opContinuation, true, good),
		"message in a message":    append(encode(opText, true, "{"), encode(0x80|opText, true, good)...),
		"close of one byte":       encode(0x80|opClose, true, "\x03"),
		"close with 1005":         encode(0x80|opClose, true, closeCode(1005, "")),
		"close with 999":          encode(0x80|opClose, true, closeCode(999, "")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := shared.raw(t, "anna")
			p.write(b)
			p.expectClose(1002)
		})
	}
}

func TestCloseFramesAreAnsweredAndTheSocketClosed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, payload, answer string }{
		{"1000", closeCode(1000, ""), closeCode(1000, "")},
		{"1000 with a reason", closeCode(1000, "bye 再见"), closeCode(1000, "")},
		{"1001", closeCode(1001, "leaving"), closeCode(1001, "")},
		{"3000", closeCode(3000, ""), closeCode(3000, "")},
		{"4999", closeCode(4999, ""), closeCode(4999, "")},
	} {
		p := shared.raw(t, "anna")
		p.send(opClose, test.payload)
		if f := p.next(); f.first != 0x80|opClose || !strings.HasPrefix(f.payload, test.answer) {
			t.Errorf("%s is answered with %#x %q", test.name, f.first, f.payload)
		}
		p.expectEnd()
	}
	p := shared.raw(t, "anna")
	p.send(opClose, "")
	if f := p.next(); f.first != 0x80|opClose {
		t.Errorf("a close frame without a code is answered with %#x %q", f.first, f.payload)
	}
	p.expectEnd()
}

func TestNothingAfterACloseFrameCounts(t *testing.T) {
	t.Parallel()
	room := newRoom()
	p, other := shared.raw(t, "anna"), shared.connect(t, "bert")
	other.subscribe(room)
	p.subscribe(room)
	publish := encode(0x80|opText, true, fmt.Sprintf(`{"type":"publish","channel":%q,"data":{"from":"before"}}`, room))
	late := encode(0x80|opText, true, fmt.Sprintf(`{"type":"publish","channel":%q,"data":{"from":"after"}}`, room))
	p.write(append(append(publish, encode(0x80|opClose, true, closeCode(1000, ""))...), late...))
	other.expect(room, "signal:all", `{"from":"before"}`)
	p.expectClose(1000)
	other.works()
}

func TestPingsOfClientsAreAnswered(t *testing.T) {
	t.Parallel()
	p := shared.raw(t, "anna")
	for _, payload := range []string{"", "x", "\x00\xff\xfe", strings.Repeat("p", 125)} {
		p.send(opPing, payload)
		p.expect(opPong, payload)
	}
	p.send(opPong, "unasked")
	// Between the pieces of a message.
	p.write(encode(opText, true, `{"type":"unsubscribe",`))
	p.send(opPing, "between")
	p.expect(opPong, "between")
	p.write(encode(0x80|opContinuation, true, `"channel":"nowhere"}`))
	if m := parse(t, p.next().payload); m["type"] != "unsubscribed" {
		t.Errorf("got %v", m)
	}
}

func TestRequestsThatArriveWithTheHandshakeOrByteByByteWork(t *testing.T) {
	t.Parallel()
	conn := shared.dialTCP(t)
	request := "GET /ws?token=" + tokenFor("anna") + " HTTP/1.1\r\nHost: " + shared.addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	frame := encode(0x80|opText, true, `{"type":"unsubscribe","channel":"nowhere"}`)
	p := &peer{t: t, conn: conn}
	p.write(append([]byte(request), frame...))
	p.in = newReaderBehindHead(t, conn)
	for range 2 {
		if m := parse(t, p.next().payload); m["type"] != "unsubscribed" {
			t.Errorf("got %v", m)
		}
		for i := range frame {
			p.write(frame[i : i+1])
		}
	}
}

func TestASilentPeerIsPingedAndThenClosed(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_WEBSOCKET_PING_INTERVAL=500ms", "LETSHARE_WEBSOCKET_IDLE_TIMEOUT=6s"}})
	began := time.Now()
	p := s.raw(t, "anna")
	p.subscribe("room")
	if f := p.next(); f.op() != opPing {
		t.Fatalf("got frame %#x, want a ping", f.first)
	}
	p.expectClose(1001)
	if took := time.Since(began); took < 5*time.Second || took > patience {
		t.Errorf("a silent peer is closed after %v, want about 6 s", took)
	}
	eventually(t, patience, "the peer is gone", func() bool {
		m := s.metrics(t)
		return m["active_connections"] == 0 && m["total_rooms"] == 0
	})
}

func TestAPeerThatAnswersPingsLives(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_WEBSOCKET_PING_INTERVAL=200ms", "LETSHARE_WEBSOCKET_IDLE_TIMEOUT=10s"}})
	p := s.raw(t, "anna")
	p.subscribe("room")
	began := time.Now()
	pings := 0
	for ; time.Since(began) < 12*time.Second; pings++ {
		f := p.next()
		if f.first != 0x80|opPing {
			t.Fatalf("after %d pings: got frame %#x %q", pings, f.first, f.payload)
		}
		p.send(opPong, f.payload)
	}
	if pings < 5 {
		t.Errorf("%d pings in 12 s, want about 60", pings)
	}
	c := s.connect(t, "bert")
	c.subscribe("room")
	c.publish("room", `{"from":"b"}`)
	for f := p.next(); f.op() != opText; f = p.next() {
	}
}

func TestTheDefaultsPingWithin30SecondsAndGiveUpWithin60To100(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(program, "default-config").Output()
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) time.Duration {
		_, rest, found := strings.Cut(string(out), "\n  "+name+": ")
		line, _, _ := strings.Cut(rest, "\n")
		d, err := time.ParseDuration(strings.Trim(line, `" `))
		if !found || err != nil {
			t.Fatalf("%s in the default configuration: %q %v", name, line, err)
		}
		return d
	}
	if d := value("ping_interval"); d > 29*time.Second {
		t.Errorf("pings come after %v of silence, want less than 30 s", d)
	}
	if d := value("idle_timeout"); d < 60*time.Second || d > 96*time.Second {
		t.Errorf("silent peers are given up after %v, want 60 s to 100 s", d)
	}
}
