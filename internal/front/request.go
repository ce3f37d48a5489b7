package front

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// maxFields is how many fields a head may have.
const maxFields = 64

var headEnd = []byte("\r\n\r\n")

// parse reads a request that opens a WebSocket, and returns the bytes behind it. ok is false for every
// other, and for those that are not written as usual.
func parse(b []byte) (r *http.Request, rest []byte, ok bool) {
	end := bytes.Index(b, headEnd)
	if end < 0 || !bytes.HasPrefix(b, []byte("GET /")) {
		return nil, nil, false
	}
	first, fields, found := bytes.Cut(b[:end+2], []byte("\r\n"))
	const version = " HTTP/1.1"
	if !found || !bytes.HasSuffix(first, []byte(version)) {
		return nil, nil, false
	}
	// The session may keep a part of the target. It shall not keep the fields, too.
	target := string(first[len("GET ") : len(first)-len(version)])
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c > '~' || c == '#' {
			return nil, nil, false
		}
	}
	r = &http.Request{
		Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		RequestURI: target, Body: http.NoBody,
	}
	if r.Header, r.Host, ok = parseFields(string(fields)); !ok {
		return nil, nil, false
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, nil, false
	}
	r.URL = u
	return r, b[end+len(headEnd):], true
}

// parseFields reads the lines of a head, each with its end.
func parseFields(s string) (h http.Header, host string, ok bool) {
	n := strings.Count(s, "\r\n")
	if n > maxFields {
		return nil, "", false
	}
	h = make(http.Header, n)
	values := make([]string, 0, n)
	for s != "" {
		var line string
		line, s, _ = strings.Cut(s, "\r\n")
		name, value, found := strings.Cut(line, ":")
		if !found || !isName(name) {
			return nil, "", false
		}
		value = strings.Trim(value, " \t")
		if !isValue(value) {
			return nil, "", false
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if name == "Host" {
			if host != "" || !isHost(value) {
				return nil, "", false
			}
			host = value
			continue
		}
		if has := h[name]; has != nil {
			h[name] = append(has, value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if host == "" || !opensWebSocket(h) {
		return nil, "", false
	}
	for _, name := range [...]string{"Content-Length", "Transfer-Encoding", "Trailer", "Expect"} {
		if h[name] != nil {
			return nil, "", false
		}
	}
	if h["Pragma"] != nil && h["Cache-Control"] == nil {
		return nil, "", false // net/http completes them
	}
	return h, host, true
}

// opensWebSocket reports whether the fields ask for a WebSocket, once.
func opensWebSocket(h http.Header) bool {
	upgrade, connection := h["Upgrade"], h["Connection"]
	if len(upgrade) != 1 || len(connection) != 1 || !strings.EqualFold(upgrade[0], "websocket") {
		return false
	}
	upgrades := false
	for token := range strings.SplitSeq(connection[0], ",") {
		switch token = strings.Trim(token, " \t"); {
		case strings.EqualFold(token, "upgrade"):
			upgrades = true
		case !strings.EqualFold(token, "keep-alive"):
			return false
		}
	}
	return upgrades
}

// isName reports whether s is the name of a field, of the characters that names have.
func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != ""
}

// isValue reports whether s is a value in ASCII.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' || c > '~') && c != '\t' {
			return false
		}
	}
	return true
}

// isHost reports whether s is a name or an address, perhaps with a port.
func isHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != ':' && c != '[' && c != ']' && c != '_' {
			return false
		}
	}
	return s != ""
}
