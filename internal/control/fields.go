package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"letshare-server/internal/pubsub"
)

// fields reads a request's body field by field, and collects what is wrong with them. A field
// that is null counts as one that is not there.
type fields struct {
	values map[string]json.RawMessage
	invalid
}

// invalid is an error that tells of each field what is wrong with it.
type invalid struct{ details map[string][]string }

func (i *invalid) Error() string { return i.asError().Error() }

// asError names the fields in the order of the alphabet.
func (i *invalid) asError() *pubsub.Error {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(i.details)) {
		list = append(list, name+" "+strings.Join(i.details[name], " and "))
	}
	return pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid request: "+strings.Join(list, "; ")).WithStatus(422)
}

func readFields(body []byte) (*fields, error) {
	f := &fields{}
	if !utf8.Valid(body) || json.Unmarshal(body, &f.values) != nil || f.values == nil {
		return nil, pubsub.NewError(pubsub.CodeInvalidRequestBody, "invalid request body: it must be a JSON object")
	}
	return f, nil
}

// wrong notes what is wrong with a field.
func (f *fields) wrong(name, problem string) {
	if f.details == nil {
		f.details = make(map[string][]string)
	}
	f.details[name] = append(f.details[name], problem)
}

// take returns a field, which is read with that; nil if it is not there.
func (f *fields) take(name string) json.RawMessage {
	value := f.values[name]
	delete(f.values, name)
	if string(value) == "null" {
		return nil
	}
	return value
}

// text reads a text of 1 to most bytes, without control characters. It reports whether it is
// there.
func (f *fields) text(name string, most int, into *string) bool {
	value := f.take(name)
	if value == nil {
		return false
	}
	var s string
	switch {
	case json.Unmarshal(value, &s) != nil:
		f.wrong(name, "must be a text")
	case s == "" || len(s) > most:
		f.wrong(name, fmt.Sprintf("must have 1 to %d bytes", most))
	case strings.ContainsFunc(s, unicode.IsControl):
		f.wrong(name, "must have no control characters")
	default:
		*into = s
	}
	return true
}

// flag reads a yes or no. It reports whether it is there.
func (f *fields) flag(name string, into *bool) bool {
	value := f.take(name)
	if value == nil {
		return false
	}
	if json.Unmarshal(value, into) != nil {
		f.wrong(name, "must be true or false")
	}
	return true
}

// unsupported refuses fields that are there and say something.
func (f *fields) unsupported(names ...string) {
	for _, name := range names {
		switch value := f.take(name); string(bytes.TrimSpace(value)) {
		case "", "false", `""`, "0":
		default:
			f.wrong(name, "is not supported by this server")
		}
	}
}

// again returns fields of the same values, to be read once more: a change is made again when
// somebody else was faster.
func again(values map[string]json.RawMessage) *fields { return &fields{values: maps.Clone(values)} }

// fixed refuses a field that is there and is not what it is.
func (f *fields) fixed(name, is string) {
	var s string
	if value := f.take(name); value != nil && (json.Unmarshal(value, &s) != nil || s != is) {
		f.wrong(name, "cannot be changed")
	}
}

// end returns what was wrong, which is also a field that nobody has read.
func (f *fields) end() error {
	for name := range f.values {
		if len(name) > 64 {
			name = strings.ToValidUTF8(name[:64], "")
		}
		f.wrong(name, "is unknown")
	}
	if f.details == nil {
		return nil
	}
	return &f.invalid
}
