package transcripts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// transcript is one file.
type transcript struct {
	path    string
	name    string
	lines   []line // all of the file, in order
	clients map[int]string

	// The server's settings: limits as "name=value" with spaces between, namespaces as in its file.
	limits, namespaces string

	tokens map[string]tokenSpec
}

// line is one line of a file.
type line struct {
	text   string // as it stands in the file
	kind   kind
	client int
	body   string // what follows the kind
}

type kind byte

const (
	comment  kind = '#'
	sends    kind = 'C'
	joined   kind = '+'
	raw      kind = '~'
	receives kind = 'S'
	closes   kind = 'X'
	happens  kind = '!'
)

// tokenSpec is what a token line asks for.
type tokenSpec struct {
	TTL        int             `json:"ttl"` // seconds; negative: expired
	ClientID   *string         `json:"clientId"`
	Capability json.RawMessage `json:"capability"`
	Claims     map[string]any  `json:"claims"` // further ones
	Key        string          `json:"key"`    // name; empty: the server's
	Secret     string          `json:"secret"` // empty: the key's
}

var lineForm = regexp.MustCompile(`^([CSX!])([2-9]?)([+~]?)\s+(.*)$`)

// parse reads a transcript from its text.
func parse(path string, text []byte) (*transcript, error) {
	t := &transcript{path: path, clients: make(map[int]string), tokens: make(map[string]tokenSpec)}
	name := strings.TrimSuffix(filepath.Base(path), ".txt")
	for i, s := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		where := fmt.Sprintf("%s:%d", filepath.Base(path), i+1)
		l := line{text: s, kind: comment}
		switch {
		case strings.TrimSpace(s) == "":
		case strings.HasPrefix(s, "#"):
			if err := t.header(strings.TrimSpace(s[1:]), i == 0, name); err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
		default:
			m := lineForm.FindStringSubmatch(s)
			if m == nil {
				return nil, fmt.Errorf("%s: neither C, S, X, ! nor #: %q", where, s)
			}
			l.kind, l.client, l.body = kind(m[1][0]), 1, m[4]
			if m[2] != "" {
				l.client, _ = strconv.Atoi(m[2])
			}
			if m[3] != "" {
				l.kind = kind(m[3][0])
			}
			if _, known := t.clients[l.client]; !known {
				return nil, fmt.Errorf("%s: client %d has no connect line", where, l.client)
			}
		}
		t.lines = append(t.lines, l)
	}
	if t.name == "" {
		return nil, fmt.Errorf("%s: the first line must be \"# %s: what it is about; connect: parameters\"", filepath.Base(path), name)
	}
	return t, nil
}

func (t *transcript) header(s string, first bool, name string) error {
	if first {
		rest, ok := strings.CutPrefix(s, name+": ")
		if !ok {
			return fmt.Errorf("the first line must begin with \"# %s: \"", name)
		}
		t.name = name
		_, params, _ := strings.Cut(rest, "; connect:")
		t.clients[1] = strings.TrimSpace(params)
		return nil
	}
	head, rest, _ := strings.Cut(s, ":")
	if number, err := strconv.Atoi(head); err == nil {
		params, ok := strings.CutPrefix(strings.TrimSpace(rest), "connect:")
		if !ok {
			return fmt.Errorf("client %d: \"connect:\" is missing", number)
		}
		t.clients[number] = strings.TrimSpace(params)
		return nil
	}
	if head == "limits" {
		t.limits = strings.TrimSpace(rest)
		return nil
	}
	if head == "namespaces" {
		t.namespaces = strings.TrimSpace(rest)
		return nil
	}
	if token, ok := strings.CutPrefix(head, "token "); ok {
		d := json.NewDecoder(strings.NewReader(rest))
		d.DisallowUnknownFields()
		var spec tokenSpec
		if err := d.Decode(&spec); err != nil {
			return fmt.Errorf("token %s: %w", token, err)
		}
		t.tokens[token] = spec
	}
	return nil // a remark
}

// silent reports whether a client is connected without its CONNECTED being told.
func (t *transcript) silent(client int) bool {
	for _, l := range t.lines {
		if l.client == client && l.kind != comment {
			return l.kind != receives && l.kind != closes
		}
	}
	return true
}

// write puts new lines in place of the file's.
// later reports whether a client connects only when a line says so.
func (t *transcript) later(client int) bool {
	return slices.ContainsFunc(t.lines, func(l line) bool {
		what, number := l.event()
		return what == "connect" && number == client
	})
}

// event takes a line about what happens apart: "cut 2" is cut and 2.
func (l line) event() (what string, client int) {
	if l.kind != happens {
		return "", 0
	}
	what, number, _ := strings.Cut(l.body, " ")
	client, _ = strconv.Atoi(number)
	return what, client
}

func (t *transcript) write(lines []string) error {
	return os.WriteFile(t.path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// names are the values that words in angle brackets stand for.
type names map[string]any

var wordForm = regexp.MustCompile(`<([A-Za-z][A-Za-z0-9_]*|pad \d+)>`)

// fill replaces the words in what is sent, which must be known. escape is applied to each
// value.
func (n names) fill(s string, escape func(string) string) (string, error) {
	var err error
	s = wordForm.ReplaceAllStringFunc(s, func(word string) string {
		word = word[1 : len(word)-1]
		if count, ok := strings.CutPrefix(word, "pad "); ok {
			k, _ := strconv.Atoi(count)
			return strings.Repeat("x", k)
		}
		v, ok := n[word].(string)
		if !ok {
			err = fmt.Errorf("<%s> stands for nothing yet", word)
		}
		return escape(v)
	})
	return s, err
}

// parameters are the URL parameters of a connect line.
func (n names) parameters(s string) (url.Values, error) {
	filled, err := n.fill(s, url.QueryEscape)
	if err != nil {
		return nil, err
	}
	return url.ParseQuery(filled)
}

// match compares what was received with what is expected, and binds words on first sight.
func (n names) match(want, got any, at string) error {
	if pattern, ok := want.(string); ok {
		return n.matchText(pattern, got, at)
	}
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: got %s, want an object", at, show(got))
		}
		for k := range got {
			if _, ok := want[k]; !ok {
				return fmt.Errorf("%s: unexpected key %q with %s", at, k, show(got[k]))
			}
		}
		for k, w := range want {
			g, ok := got[k]
			if !ok {
				return fmt.Errorf("%s: key %q is missing", at, k)
			}
			if err := n.match(w, g, at+"."+k); err != nil {
				return err
			}
		}
		return nil
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return fmt.Errorf("%s: got %s, want an array of %d", at, show(got), len(want))
		}
		for i := range want {
			if err := n.match(want[i], got[i], fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if want != got {
		return fmt.Errorf("%s: got %s, want %s", at, show(got), show(want))
	}
	return nil
}

func (n names) matchText(pattern string, got any, at string) error {
	if m := wordForm.FindStringSubmatch(pattern); m != nil && m[0] == pattern { // a whole value of any type
		if m[1] == "any" {
			return nil
		}
		bound, known := n[m[1]]
		if !known {
			n[m[1]] = got
			return nil
		}
		if bound != got {
			return fmt.Errorf("%s: got %s, but <%s> is %s", at, show(got), m[1], show(bound))
		}
		return nil
	}
	text, ok := got.(string)
	if !ok {
		return fmt.Errorf("%s: got %s, want %q", at, show(got), pattern)
	}
	var (
		expr  strings.Builder
		words []string
		last  int
	)
	expr.WriteString(`(?s)^`)
	for _, m := range wordForm.FindAllStringSubmatchIndex(pattern, -1) {
		expr.WriteString(regexp.QuoteMeta(pattern[last:m[0]]))
		word := pattern[m[2]:m[3]]
		last = m[1]
		if bound, known := n[word]; known {
			expr.WriteString(regexp.QuoteMeta(fmt.Sprint(bound)))
			continue
		}
		expr.WriteString(`(.+?)`)
		words = append(words, word)
	}
	expr.WriteString(regexp.QuoteMeta(pattern[last:]) + `$`)
	found := regexp.MustCompile(expr.String()).FindStringSubmatch(text)
	if found == nil {
		return fmt.Errorf("%s: got %q, want %q", at, text, pattern)
	}
	for i, word := range words {
		if word != "any" {
			n[word] = found[i+1]
		}
	}
	return nil
}

// decodeJSON reads one JSON value, with its numbers as they are written.
func decodeJSON(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one value")
	}
	return v, nil
}

func show(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(b.String())
}
