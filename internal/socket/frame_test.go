package socket_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"letshare-server/internal/socket"
)

func TestHeadersHaveTheShortestForm(t *testing.T) {
	cases := []struct {
		name string
		n    int
		want []byte
	}{
		{"empty", 0, []byte{0x81, 0}},
		{"longest of the short", 125, []byte{0x81, 125}},
		{"shortest of the middle", 126, []byte{0x81, 126, 0, 126}},
		{"longest of the middle", 65535, []byte{0x81, 126, 0xff, 0xff}},
		{"shortest of the long", 65536, []byte{0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got := socket.AppendHeader(nil, socket.OpText, true, false, tc.n)
			if !bytes.Equal(got, tc.want) || socket.HeaderSize(tc.n) != len(got) {
				t.Fatalf("% x, want % x", got, tc.want)
			}
			h, size, err := socket.ParseHeader(got)
			if err != nil || size != len(got) || h.Length != uint64(tc.n) || !h.Fin || h.Opcode != socket.OpText || h.Masked || h.Rsv != 0 {
				t.Fatalf("%+v %d %v", h, size, err)
			}
			for i := range got {
				if _, size, err := socket.ParseHeader(got[:i]); size != 0 || err != nil {
					t.Fatalf("%d bytes: size %d, %v", i, size, err)
				}
			}
		})
	}
}

func TestLengthsNotInTheirShortestFormAreRefused(t *testing.T) {
	for _, b := range [][]byte{
		{0x81, 126, 0, 125},
		{0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff},
		{0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0},
	} {
		var ce *socket.CloseError
		if _, _, err := socket.ParseHeader(b); !errors.As(err, &ce) || ce.Code != socket.CloseProtocolError {
			t.Errorf("% x: %v", b, err)
		}
	}
}

func TestFramesBuiltInPlaceEqualAppendedOnes(t *testing.T) {
	var dst, want []byte
	for _, n := range []int{0, 1, 125, 126, 300, 65535, 65536, 100_000, 5} {
		payload := bytes.Repeat([]byte{byte(n)}, n)
		start := len(dst)
		dst = socket.BeginFrame(dst)
		dst = append(dst, payload...)
		dst = socket.EndFrame(dst, start, socket.OpBinary)
		frame := socket.AppendFrame(nil, socket.OpBinary, payload)
		if !bytes.Equal(dst[start:], frame) {
			t.Fatalf("frame of %d bytes differs", n)
		}
		want = append(want, frame...)
	}
	if !bytes.Equal(dst, want) {
		t.Fatal("joined frames differ")
	}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		b := append(socket.BeginFrame(buf), "hello"...)
		socket.EndFrame(b, 0, socket.OpText)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestClosePayloads(t *testing.T) {
	cases := []struct {
		name    string
		payload string
		code    int
		reason  string
		err     int
	}{
		{"none", "", socket.CloseNoStatus, "", 0},
		{"normal", "\x03\xe8", 1000, "", 0},
		{"with a reason", "\x0f\xa0bye", 4000, "bye", 0},
		{"half a code", "\x03", 0, "", 1002},
		{"reserved 1004", "\x03\xec", 0, "", 1002},
		{"never sent 1005", "\x03\xed", 0, "", 1002},
		{"never sent 1006", "\x03\xee", 0, "", 1002},
		{"never sent 1015", "\x03\xf7", 0, "", 1002},
		{"below 1000", "\x00\x00", 0, "", 1002},
		{"unassigned 2000", "\x07\xd0", 0, "", 1002},
		{"beyond 4999", "\x13\x88", 0, "", 1002},
		{"reason not UTF-8", "\x03\xe8\xff", 0, "", 1007},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			code, reason, err := socket.ParseClose([]byte(tc.payload))
			var ce *socket.CloseError
			if tc.err != 0 {
				if !errors.As(err, &ce) || ce.Code != tc.err {
					t.Fatalf("%v, want code %d", err, tc.err)
				}
				return
			}
			if err != nil || code != tc.code || reason != tc.reason {
				t.Fatalf("%d %q %v", code, reason, err)
			}
		})
	}
}

func TestCloseReasonsAreCutAfterAWholeCharacter(t *testing.T) {
	frame := socket.AppendClose(nil, 1000, "x"+strings.Repeat("\u4f60", 60))
	code, reason, err := socket.ParseClose(frame[2:])
	if err != nil || code != 1000 || len(reason) != 1+3*40 || len(frame) != 2+2+121 {
		t.Fatalf("%d %q %v, frame of %d", code, reason, err, len(frame))
	}
	if frame := socket.AppendClose(nil, socket.CloseNoStatus, "x"); !bytes.Equal(frame, []byte{0x88, 0}) {
		t.Fatalf("% x", frame)
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("some bytes to mask, more than thirty-two of them"), uint32(0x12345678), 3, 10)
	f.Fuzz(func(t *testing.T, b []byte, k uint32, pos, cut int) {
		if pos < 0 || len(b) == 0 {
			return
		}
		pos %= 1 << 20
		cut = int(uint(cut) % uint(len(b)))
		var key [4]byte
		binary.BigEndian.PutUint32(key[:], k)
		want := make([]byte, len(b))
		for i := range b {
			want[i] = b[i] ^ key[(pos+i)&3]
		}
		got := bytes.Clone(b)
		mid := socket.Mask(got[:cut], key, pos)
		if end := socket.Mask(got[cut:], key, mid); end != pos+len(b) || !bytes.Equal(got, want) {
			t.Fatalf("cut at %d: % x, want % x", cut, got, want)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x81, 0x85, 1, 2, 3, 4})
	f.Add([]byte{0x82, 126, 1, 0})
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 9, 9, 9, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, size, err := socket.ParseHeader(b)
		if err != nil || size == 0 || h.Rsv&3 != 0 || h.Length > 1<<40 {
			return
		}
		var again []byte
		if h.Masked {
			again = socket.AppendMaskedHeader(nil, h.Opcode, h.Fin, h.Rsv != 0, int(h.Length), h.Key)
		} else {
			again = socket.AppendHeader(nil, h.Opcode, h.Fin, h.Rsv != 0, int(h.Length))
		}
		if !bytes.Equal(again, b[:size]) {
			t.Fatalf("% x became % x", b[:size], again)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	buf := make([]byte, 300)
	b.SetBytes(300)
	for b.Loop() {
		socket.Mask(buf, [4]byte{1, 2, 3, 4}, 0)
	}
}
