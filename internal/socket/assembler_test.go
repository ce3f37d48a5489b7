package socket_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"letshare-server/internal/socket"
)

// found is what an Assembler passed on, as lines.
type found struct {
	lines []string
	max   int
}

func (f *found) Message(op socket.Opcode, b []byte) error {
	f.lines = append(f.lines, fmt.Sprintf("message %d %x", op, b))
	f.max = max(f.max, len(b))
	return nil
}

func (f *found) Control(op socket.Opcode, b []byte) error {
	f.lines = append(f.lines, fmt.Sprintf("control %d %x", op, b))
	return nil
}

// codeOf is the close code of an Assembler's error; zero for none.
func codeOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var ce *socket.CloseError
	if !errors.As(err, &ce) {
		t.Fatalf("not a CloseError: %v", err)
	}
	return ce.Code
}

var someKey = [4]byte{9, 8, 7, 6}

func frame(op socket.Opcode, fin bool, payload string) []byte {
	b := socket.AppendMaskedHeader(nil, op, fin, false, len(payload), someKey)
	n := len(b)
	b = append(b, payload...)
	socket.Mask(b[n:], someKey, 0)
	return b
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// conversations are inputs with what must come of them: seeds of the fuzzer, too.
var conversations = []struct {
	name  string
	bytes []byte
	lines []string
	code  int
}{
	{"nothing", nil, nil, 0},
	{"one text", frame(1, true, "hi"), []string{"message 1 6869"}, 0},
	{"empty text", frame(1, true, ""), []string{"message 1 "}, 0},
	{"empty fragments", join(frame(1, false, ""), frame(0, false, ""), frame(0, true, "")), []string{"message 1 "}, 0},
	{"two texts", join(frame(1, true, "a"), frame(2, true, "b")), []string{"message 1 61", "message 2 62"}, 0},
	{"fragments with a ping between", join(frame(1, false, "a"), frame(9, true, "p"), frame(0, true, "b")), []string{"control 9 70", "message 1 6162"}, 0},
	{"empty ping between", join(frame(2, false, "a"), frame(9, true, ""), frame(0, true, "b")), []string{"control 9 ", "message 2 6162"}, 0},
	{"character across fragments", join(frame(1, false, "\xe4\xbd"), frame(0, true, "\xa0")), []string{"message 1 e4bda0"}, 0},
	{"character cut off", join(frame(1, false, "\xe4\xbd"), frame(0, true, "")), nil, 1007},
	{"binary needs no UTF-8", frame(2, true, "\xff"), []string{"message 2 ff"}, 0},
	{"at the bound", frame(2, true, strings.Repeat("x", 1000)), []string{"message 2 " + strings.Repeat("78", 1000)}, 0},
	{"beyond the bound", frame(2, true, strings.Repeat("x", 1001)), nil, 1009},
	{"beyond the bound in fragments", join(frame(2, false, strings.Repeat("x", 600)), frame(0, false, strings.Repeat("x", 401))), nil, 1009},
	{"beyond the bound by its header alone", socket.AppendMaskedHeader(nil, 2, true, false, 1<<40, someKey), nil, 1009},
	{"unmasked", []byte{0x81, 0x01, 'x'}, nil, 1002},
	{"reserved bit", []byte{0xC1}, nil, 1002},
	{"reserved opcode", []byte{0x83}, nil, 1002},
	{"fragmented control", []byte{0x09}, nil, 1002},
	{"long control", []byte{0x89, 0xFE}, nil, 1002},
	{"continuation of nothing", frame(0, true, "x"), nil, 1002},
	{"continuation after the end", join(frame(1, false, "x"), frame(0, true, "y"), frame(0, true, "z")), []string{"message 1 7879"}, 1002},
	{"text inside a message", join(frame(1, false, "x"), frame(1, true, "y")), nil, 1002},
	{"half a message", frame(1, true, "hello")[:8], nil, 0},
	{"length not in its shortest form", []byte{0x82, 0xFE, 0, 1, 1, 2, 3, 4, 5}, nil, 1002},
	{"close", frame(8, true, "\x03\xe8"), []string{"control 8 03e8"}, 0},
}

var boundedTo1000 = socket.AssemblerOptions{MaxMessageBytes: 1000}

// assemble feeds b in pieces that cut chooses.
func assemble(t *testing.T, opts *socket.AssemblerOptions, b []byte, cut func(left int) int) (*found, int) {
	t.Helper()
	f := &found{}
	a := socket.NewAssembler(opts)
	defer a.Reset()
	b = bytes.Clone(b) // Feed changes it
	for len(b) > 0 {
		n := cut(len(b))
		err := a.Feed(b[:n:n], f)
		if a.Buffered() > max(opts.MaxMessageBytes, 4<<10) { // a pooled buffer has up to 4 KiB
			t.Fatalf("%d bytes allocated for messages of %d", a.Buffered(), opts.MaxMessageBytes)
		}
		if err != nil {
			return f, codeOf(t, err)
		}
		b = b[n:]
	}
	return f, 0
}

func whole(n int) int { return n }
func single(int) int  { return 1 }

func TestAssemblerFollowsTheRulesHoweverTheBytesArrive(t *testing.T) {
	for _, tc := range conversations {
		t.Run(tc.name, func(t *testing.T) {
			for _, cut := range []func(int) int{whole, single, func(n int) int { return min(n, 3) }} {
				f, code := assemble(t, &boundedTo1000, tc.bytes, cut)
				if code != tc.code || strings.Join(f.lines, "\n") != strings.Join(tc.lines, "\n") {
					t.Fatalf("code %d, %q; want %d, %q", code, f.lines, tc.code, tc.lines)
				}
			}
		})
	}
}

func TestHeadersTellOfATooBigMessageBeforeItsPayload(t *testing.T) {
	a := socket.NewAssembler(&boundedTo1000)
	if err := a.Feed(socket.AppendMaskedHeader(nil, 1, true, false, 1001, someKey), &found{}); codeOf(t, err) != 1009 {
		t.Fatal(err)
	}
	a = socket.NewAssembler(&boundedTo1000)
	first := frame(1, false, strings.Repeat("x", 1000))
	if err := a.Feed(append(first, socket.AppendMaskedHeader(nil, 0, true, false, 1, someKey)...), &found{}); codeOf(t, err) != 1009 {
		t.Fatal(err)
	}
}

func TestAPromisedMessageIsNotAllocatedBeforeItArrives(t *testing.T) {
	a := socket.NewAssembler(&socket.AssemblerOptions{MaxMessageBytes: 512 << 10})
	b := frame(2, true, strings.Repeat("x", 512<<10))
	last := 0
	for had := 0; had < len(b); {
		n := min(len(b)-had, 1000)
		if err := a.Feed(b[had:had+n:had+n], &found{}); err != nil {
			t.Fatal(err)
		}
		had += n
		if got := a.Buffered(); got > max(4<<10, 2*had) || got > 512<<10 {
			t.Fatalf("%d bytes allocated after %d arrived", got, had)
		}
		last = max(last, a.Buffered())
	}
	if a.Partial() || a.Buffered() != 0 || last != 512<<10 {
		t.Fatalf("partial %v, %d bytes kept, at most %d", a.Partial(), a.Buffered(), last)
	}
}

func TestAWholeFrameIsPassedOnWithoutACopy(t *testing.T) {
	b := frame(2, true, "payload")
	a := socket.NewAssembler(&boundedTo1000)
	s := &inside{buf: b}
	if err := a.Feed(b, s); err != nil || !s.yes {
		t.Fatalf("%v, inside %v", err, s.yes)
	}
	if n := testing.AllocsPerRun(100, func() {
		copy(b, frame2)
		_ = a.Feed(b, s)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

var frame2 = frame(2, true, "payload")

type inside struct {
	buf []byte
	yes bool
}

func (s *inside) Message(_ socket.Opcode, p []byte) error {
	s.yes = &p[len(p)-1] == &s.buf[len(s.buf)-1]
	return nil
}
func (s *inside) Control(socket.Opcode, []byte) error { return nil }

func TestInvalidTextPassesIfAllowed(t *testing.T) {
	f, code := assemble(t, &socket.AssemblerOptions{MaxMessageBytes: 10, AllowInvalidUTF8: true}, frame(1, true, "\xff"), single)
	if code != 0 || len(f.lines) != 1 {
		t.Fatalf("%d %q", code, f.lines)
	}
}

func TestAClientRefusesMaskedFrames(t *testing.T) {
	client := &socket.AssemblerOptions{MaxMessageBytes: 100, Client: true}
	if _, code := assemble(t, client, frame(1, true, "x"), whole); code != 1002 {
		t.Fatalf("code %d", code)
	}
	f, code := assemble(t, client, socket.AppendFrame(nil, 1, []byte("x")), single)
	if code != 0 || len(f.lines) != 1 {
		t.Fatalf("%d %q", code, f.lines)
	}
}

// FuzzAssembler: however the same bytes are split, the same comes of them, and never is more
// allocated than a message may have.
func FuzzAssembler(f *testing.F) {
	for i, tc := range conversations {
		f.Add(tc.bytes, uint64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		want, wantCode := assemble(t, &boundedTo1000, b, whole)
		if want.max > 1000 {
			t.Fatalf("message of %d bytes", want.max)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		random := func(n int) int { return 1 + r.IntN(min(n, 1+r.IntN(40))) }
		for _, cut := range []func(int) int{single, random} {
			got, code := assemble(t, &boundedTo1000, b, cut)
			if code != wantCode || strings.Join(got.lines, "\n") != strings.Join(want.lines, "\n") {
				t.Fatalf("split: %d %q\nwhole: %d %q", code, got.lines, wantCode, want.lines)
			}
		}
	})
}

// FuzzRoundTrip: frames we make are understood, whatever they carry.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("payload"), uint64(3))
	f.Fuzz(func(t *testing.T, payload []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		var b []byte
		op := socket.OpBinary
		for rest := payload; ; {
			n := min(len(rest), r.IntN(400))
			last := n == len(rest) && r.IntN(2) == 0
			b = append(b, frame(op, last, string(rest[:n]))...)
			rest, op = rest[n:], socket.OpContinuation
			if last {
				break
			}
		}
		opts := &socket.AssemblerOptions{MaxMessageBytes: max(len(payload), 1)}
		got, code := assemble(t, opts, b, func(n int) int { return 1 + r.IntN(n) })
		if want := fmt.Sprintf("message 2 %x", payload); code != 0 || len(got.lines) != 1 || got.lines[0] != want {
			t.Fatalf("%d %q", code, got.lines)
		}
	})
}

func BenchmarkAssembler(b *testing.B) {
	one := frame(1, true, strings.Repeat("x", 300))
	buf := make([]byte, len(one))
	a := socket.NewAssembler(&boundedTo1000)
	s := &inside{buf: buf}
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, one)
		if err := a.Feed(buf, s); err != nil {
			b.Fatal(err)
		}
	}
}
