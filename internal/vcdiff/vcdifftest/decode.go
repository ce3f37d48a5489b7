// Package vcdifftest reads deltas in tests, strictly and quickly. It knows what package vcdiff
// writes; the decoders of Ably's SDKs have the last word in tests of their own.
package vcdifftest

import (
	"bytes"
	"errors"
	"fmt"
)

// Decode returns what delta makes of base. Anything that package vcdiff does not write is an
// error, and so is a section or the target that is longer or shorter than was said.
func Decode(base, delta []byte) (target []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("delta ends too early: %v", r)
		}
	}()
	rest, ok := bytes.CutPrefix(delta, []byte("\xd6\xc3\xc4\x00\x00\x01"))
	if !ok {
		return nil, errors.New("bad head")
	}
	if integer(&rest) != len(base) || integer(&rest) != 0 {
		return nil, errors.New("the segment is not the base")
	}
	if integer(&rest) != len(rest) {
		return nil, errors.New("bad length of the window")
	}
	length := integer(&rest)
	if cut(&rest, 1)[0] != 0 {
		return nil, errors.New("a section is compressed")
	}
	added, ops, addresses := integer(&rest), integer(&rest), integer(&rest)
	data, code, places := cut(&rest, added), cut(&rest, ops), cut(&rest, addresses)
	var near [4]int
	for copies := 0; len(code) > 0; {
		op := int(cut(&code, 1)[0])
		if op == 0 || op > 18+6*16 {
			return nil, fmt.Errorf("instruction %d", op)
		}
		if op <= 18 {
			n := op - 1
			if n == 0 {
				n = integer(&code)
			}
			target = append(target, cut(&data, n)...)
			continue
		}
		mode, n := (op-19)/16, (op-19)%16
		if n > 0 {
			n += 3
		} else {
			n = integer(&code)
		}
		place := integer(&places)
		switch {
		case mode == 1:
			place = len(base) + len(target) - place
		case mode > 1 && near[mode-2] == 0:
			return nil, errors.New("a place near none")
		case mode > 1:
			place += near[mode-2]
		}
		near[copies%4] = place
		copies++
		target = append(target, base[place:][:n]...)
	}
	if len(target) != length || len(rest) > 0 || len(data) > 0 || len(places) > 0 {
		return nil, errors.New("bad length of the target or of a section")
	}
	return target, nil
}

func cut(b *[]byte, n int) []byte {
	head := (*b)[:n]
	*b = (*b)[n:]
	return head
}

func integer(b *[]byte) (n int) {
	for {
		c := cut(b, 1)[0]
		n = n<<7 | int(c&0x7f)
		if c&0x80 == 0 {
			return n
		}
	}
}
