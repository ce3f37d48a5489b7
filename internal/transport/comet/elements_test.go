package comet

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"letshare-server/internal/pubsub"
)

// elementsOf reads a whole body.
func elementsOf(body io.Reader, maxBytes int) (list []string, err error) {
	e := newElements(body, maxBytes)
	defer e.release()
	for {
		over := e.read()
		for {
			b, err := e.next()
			if err != nil {
				return list, err
			}
			if b == nil {
				break
			}
			list = append(list, string(b))
		}
		if over {
			return list, nil
		}
	}
}

func TestElementsAreFoundWhereverTheBodyIsCut(t *testing.T) {
	long := `{"data":"` + strings.Repeat(`x\"}`, 50_000) + `"}`
	want := []string{`{}`, `{"a":[{"b":"]}"}],"c":"\\"}`, long, `{"d":"\"{["}`, long}
	body := " [ " + strings.Join(want, " ,\n") + "\t]\r\n"
	for name, r := range map[string]io.Reader{
		"whole":     strings.NewReader(body),
		"halves":    iotest.HalfReader(strings.NewReader(body)),
		"one byte":  iotest.OneByteReader(strings.NewReader(body)),
		"data, EOF": iotest.DataErrReader(strings.NewReader(body)),
	} {
		got, err := elementsOf(r, len(long))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %d elements (%v), want %d", name, len(got), err, len(want))
		}
	}
	if got, err := elementsOf(strings.NewReader("[]"), 10); err != nil || len(got) != 0 {
		t.Errorf("of an empty array: %q, %v", got, err)
	}
}

func TestOnlyAnArrayOfObjectsHasElements(t *testing.T) {
	for _, body := range []string{
		"", " ", "{}", "[", "[{}", "[{},", "[{},]", "[,{}]", "[{}{}]", "[{}]]", "[{}] x", "[1]", "[null]", `["{}"]`, "[[{}]]",
		`[{"a":"]`, "[{}}]", "null", "[{}],[{}]",
	} {
		var e *pubsub.Error
		if got, err := elementsOf(strings.NewReader(body), 100); !errors.As(err, &e) || e.Code != pubsub.CodeProtocolError {
			t.Errorf("%s has elements %q (%v)", body, got, err)
		}
	}
}

func TestAnElementIsBoundedAndABodyIsNot(t *testing.T) {
	const most = 300_000
	fits := `{"a":"` + strings.Repeat("x", most-8) + `"}`
	body := "[" + strings.Repeat(fits+",", 9) + fits + "]"
	if got, err := elementsOf(strings.NewReader(body), most); err != nil || len(got) != 10 {
		t.Errorf("%d elements of the greatest length (%v), want 10", len(got), err)
	}
	for _, long := range []string{`{"a":"` + strings.Repeat("x", most-7) + `"}`, `{"a":"` + strings.Repeat("x", 10*most)} {
		var e *pubsub.Error
		got, err := elementsOf(strings.NewReader("[{},"+long), most)
		if !errors.As(err, &e) || e.Code != pubsub.CodeMessageTooLarge || len(got) != 1 {
			t.Errorf("%d elements and %v, want one and %d", len(got), err, pubsub.CodeMessageTooLarge)
		}
	}
	// How much is kept does not grow with the body.
	e := newElements(iotest.HalfReader(strings.NewReader(body+"]")), most)
	for !e.read() {
		for b, err := e.next(); b != nil || err != nil; b, err = e.next() {
			if err != nil {
				t.Fatal(err)
			}
		}
		if cap(e.buf) > most+1 {
			t.Fatalf("a buffer of %d bytes for elements of %d", cap(e.buf), most)
		}
	}
}

func TestABodyThatBreaksOffIsAnError(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("[{}"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if got, err := elementsOf(broken, 100); err == nil || len(got) != 1 {
		t.Errorf("got %q, %v", got, err)
	}
}

// What is found in valid arrays of objects is what encoding/json finds, and what it finds
// invalid outside of the objects has an error.
func FuzzElements(f *testing.F) {
	for _, s := range []string{`[{"a":[1,{"b":"}\""}]},{}]`, `[]`, ` [ {} , {} ] `, `[{}`, `{"a":1}`, `[{"\\":"["}]`} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, body []byte, piece int) {
		got, err := elementsOf(&pieces{body, max(piece, 1)}, len(body)+1)
		var want []json.RawMessage
		if json.Unmarshal(body, &want) != nil || want == nil {
			valid := err == nil
			for _, g := range got {
				valid = valid && json.Valid([]byte(g))
			}
			if valid {
				t.Errorf("%q is no array, and has elements %q", body, got)
			}
			return
		}
		objects := !slices.ContainsFunc(want, func(m json.RawMessage) bool { return m[0] != '{' })
		if objects != (err == nil) {
			t.Fatalf("%q: %v", body, err)
		}
		if objects && !slices.EqualFunc(got, want, func(g string, w json.RawMessage) bool { return g == string(bytes.TrimSpace(w)) }) {
			t.Errorf("%q has %q, want %q", body, got, want)
		}
	})
}

// pieces is a reader that gives n bytes at a time.
type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(p.n, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}
