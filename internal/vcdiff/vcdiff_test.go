package vcdiff_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	decoder "github.com/ably/vcdiff-go"

	"letshare-server/internal/vcdiff"
	"letshare-server/internal/vcdiff/vcdifftest"
)

const noLimit = 1 << 30

// check fails the test unless the delta makes target of base.
func check(t testing.TB, base, target, delta []byte) {
	t.Helper()
	checkWith(t, vcdifftest.Decode, base, target, delta)
}

func checkWith(t testing.TB, decode func(base, delta []byte) ([]byte, error), base, target, delta []byte) {
	t.Helper()
	got, err := decode(base, delta)
	if err != nil {
		t.Fatalf("delta %x of %.60q to %.60q: %v", delta, base, target, err)
	}
	if !bytes.Equal(got, target) {
		t.Fatalf("delta %x of %.60q decodes to %.60q, want %.60q", delta, base, got, target)
	}
}

func encode(t testing.TB, base, target []byte) []byte {
	t.Helper()
	delta, ok := vcdiff.Encode(base, target, noLimit)
	if !ok {
		t.Fatalf("no delta of %.60q to %.60q", base, target)
	}
	check(t, base, target, delta)
	return delta
}

func TestADeltaIsWhatTheRFCSays(t *testing.T) {
	base := []byte(`{"foo":"bar","count":1,"status":"active"}`)
	target := []byte(`{"foo":"bar","count":2,"status":"inactive"}`)
	got := hex.EncodeToString(encode(t, base, target))
	want := "d6c3c400" + "00" + // version 0, and the header says no more
		"01" + "29" + "00" + // the source segment: there is one, of 41 bytes, from 0 on
		"11" + "2b" + "00" + // the window: 17 bytes make 43, not compressed
		"03" + "06" + "03" + // lengths of the sections
		hex.EncodeToString([]byte("2in")) +
		"1315" + "02" + "1b" + "03" + "18" + // COPY 21, ADD 1, COPY 11, ADD 2, COPY 8
		"00" + "16" + "21" // from 0, 22 and 33
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTheTargetComesBack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 70_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	zeros := make([]byte, 70_000)
	words := bytes.Repeat([]byte("all work and no play makes jack a dull boy. "), 1500)
	for _, c := range []struct {
		name         string
		base, target []byte
		most         int // bytes of the delta
	}{
		{"equal", words, words, 32},
		{"one byte", []byte("a"), []byte("b"), 20},
		{"nothing in common", noise[:30_000], noise[40_000:], 30_030},
		{"the target in the middle of the base", noise, noise[20_000:50_000], 40},
		{"the base in the middle of the target", noise[20_000:50_000], noise, 40_100},
		{"halves changed places", noise, append(bytes.Clone(noise[35_000:]), noise[:35_000]...), 50},
		{"much alike", words, words[:60_000], 60},
		{"zeros", zeros, zeros[:50_000], 40},
		{"zeros with one", zeros, append(append(bytes.Clone(zeros[:40_000]), 1), zeros[:20_000]...), 60},
		{"a byte here and there", words, sprinkle(words, 997), 3 * 66_000 / 997 * 4},
		{"inserted", words, append(append(bytes.Clone(words[:1000]), "something else"...), words[1000:]...), 60},
		{"cut out", words, append(bytes.Clone(words[:1000]), words[3000:]...), 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			delta := encode(t, c.base, c.target)
			if len(delta) > c.most {
				t.Errorf("delta of %d bytes, want %d at most", len(delta), c.most)
			}
			checkWith(t, decoder.Decode, c.base, c.target, delta)
		})
	}
}

// sprinkle returns b with every n-th byte changed.
func sprinkle(b []byte, n int) []byte {
	b = bytes.Clone(b)
	for i := n; i < len(b); i += n {
		b[i] ^= 0x80
	}
	return b
}

func TestADeltaIsSmallerThanItsLimit(t *testing.T) {
	base := []byte(strings.Repeat("some text, ", 20))
	target := append(bytes.Clone(base), "and more"...)
	n := len(encode(t, base, target))
	if _, ok := vcdiff.Encode(base, target, n); ok {
		t.Errorf("a delta of %d bytes was made within the limit %d", n, n)
	}
	delta, ok := vcdiff.Encode(base, target, n+1)
	if !ok || len(delta) != n {
		t.Errorf("limit %d: %d bytes, %v, want %d", n+1, len(delta), ok, n)
	}
}

func TestWithoutABaseOrATargetThereIsNoDelta(t *testing.T) {
	for _, c := range [][2][]byte{{nil, []byte("a")}, {[]byte("a"), nil}, {nil, nil}} {
		if _, ok := vcdiff.Encode(c[0], c[1], noLimit); ok {
			t.Errorf("a delta of %q to %q", c[0], c[1])
		}
	}
}

func TestEncodingAllocatesTheDeltaOnly(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops what is pooled")
	}
	base := []byte(strings.Repeat(`{"id":17,"price":"31.05","at":"12:30"},`, 100))
	target := bytes.Replace(base, []byte("31.05"), []byte("30.99"), 50)
	if n := testing.AllocsPerRun(100, func() { vcdiff.Encode(base, target, len(target)) }); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

// mutate returns b after a few random edits.
func mutate(random *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range random.IntN(6) {
		at := 0
		if len(b) > 0 {
			at = random.IntN(len(b))
		}
		n := random.IntN(min(len(b)-at, 40) + 1)
		switch random.IntN(4) {
		case 0: // cut
			b = append(b[:at:at], b[at+n:]...)
		case 1: // insert
			b = append(b[:at:at], append([]byte(fmt.Sprint(random.Uint64())), b[at:]...)...)
		case 2: // repeat
			b = append(b[:at:at], append(bytes.Clone(b[at:at+n]), b[at:]...)...)
		case 3: // move to the end
			b = append(append(b[:at:at], b[at+n:]...), b[at:at+n]...)
		}
	}
	return b
}

func TestRandomEditsComeBack(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	b := []byte(strings.Repeat(`{"key":"value"},`, 4))
	for i := range 2000 {
		next := mutate(random, b)
		if len(next) > 5000 {
			next = next[:50]
		}
		if delta, ok := vcdiff.Encode(b, next, noLimit); ok {
			check(t, b, next, delta)
			if i%200 == 0 { // the decoder of ably-go is slow
				checkWith(t, decoder.Decode, b, next, delta)
			}
		} else if len(b) > 0 && len(next) > 0 {
			t.Fatalf("no delta of %q to %q", b, next)
		}
		b = next
	}
}

func FuzzEncode(f *testing.F) {
	f.Add([]byte("abcdefgh"), []byte("abcdxefgh"))
	f.Add([]byte(`{"a":1,"b":[1,2,3]}`), []byte(`{"a":2,"b":[1,2,3,4]}`))
	f.Add(bytes.Repeat([]byte("ab"), 300), bytes.Repeat([]byte("ba"), 200))
	f.Fuzz(func(t *testing.T, base, target []byte) {
		delta, ok := vcdiff.Encode(base, target, noLimit)
		if ok != (len(base) > 0 && len(target) > 0) {
			t.Fatalf("ok is %v", ok)
		}
		if !ok {
			return
		}
		check(t, base, target, delta)
		if len(delta) > len(target)+32+2*len(target)/seedLength {
			t.Errorf("%d bytes became %d", len(target), len(delta))
		}
		if _, ok := vcdiff.Encode(base, target, len(delta)); ok {
			t.Error("the limit was reached")
		}
	})
}

const seedLength = 4

func BenchmarkEncode(b *testing.B) {
	state := []byte("{")
	for i := range 2000 {
		state = fmt.Appendf(state, `"item-%d":{"price":%d.%02d,"volume":%d},`, i, i*7919%1000, i%100, i*104729%100000)
	}
	random := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for _, c := range []struct {
		name         string
		base, target []byte
	}{
		{"40 bytes of JSON", []byte(`{"foo":"bar","count":1,"status":"active"}`), []byte(`{"foo":"bar","count":2,"status":"inactive"}`)},
		{"1 KiB, one number changed", state[:1024], bytes.Replace(state[:1024], []byte("price"), []byte("Price"), 1)},
		{"1 KiB, ten places changed", state[:1024], sprinkle(state[:1024], 100)},
		{"64 KiB, ten places changed", state[:64<<10], sprinkle(state[:64<<10], 6500)},
		{"64 KiB, a thousand places changed", state[:64<<10], sprinkle(state[:64<<10], 65)},
		{"64 KiB, other items", state[:64<<10], bytes.ReplaceAll(state[20<<10:][:64<<10], []byte("7"), []byte("seven"))[:64<<10]},
		{"64 KiB, nothing in common", noise, bytes.Repeat(state[:1<<10], 64)},
		{"64 KiB, all alike", bytes.Repeat([]byte("ab"), 32<<10), bytes.Repeat([]byte("abc"), 20<<10)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.target)))
			b.ReportAllocs()
			n := len(c.target)
			for b.Loop() {
				if delta, ok := vcdiff.Encode(c.base, c.target, len(c.target)); ok {
					n = len(delta)
				}
			}
			b.ReportMetric(float64(n)/float64(len(c.target)), "ratio")
		})
	}
}
