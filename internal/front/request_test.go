package front

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

const (
	sdk = "GET /?key=app.id:secret&format=msgpack&v=4&heartbeats=true HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\n" +
		"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	browser = "GET /ws?token=a.b.c HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: keep-alive, Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nUpgrade: websocket\r\nOrigin: http://localhost\r\nAccept-Encoding: gzip, deflate\r\n" +
		"X-Forwarded-For: 10.0.0.1\r\nx-forwarded-for:\t10.0.0.2 \r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

// netHTTP is what net/http makes of the same bytes.
func netHTTP(b []byte) (r *http.Request, rest []byte, err error) {
	in := bufio.NewReader(bytes.NewReader(b))
	if r, err = http.ReadRequest(in); err != nil {
		return nil, nil, err
	}
	delete(r.Header, "Host") // as its server does
	rest, err = io.ReadAll(in)
	return r, rest, err
}

// sameAsNetHTTP fails if parse takes what net/http takes for something else.
func sameAsNetHTTP(t *testing.T, b []byte) (ok bool) {
	t.Helper()
	r, rest, ok := parse(bytes.Clone(b))
	if !ok {
		return false
	}
	want, wantRest, err := netHTTP(b)
	if err != nil {
		t.Fatalf("%q: net/http refuses it: %v", b, err)
	}
	if !bytes.Equal(rest, wantRest) {
		t.Fatalf("%q: %q follows, want %q", b, rest, wantRest)
	}
	type facts struct {
		Method, Proto, Host, URI string
		Major, Minor             int
		URL                      any
		Header                   http.Header
		Length                   int64
		Encoding                 []string
		Close                    bool
		Trailer                  http.Header
	}
	of := func(r *http.Request) facts {
		return facts{r.Method, r.Proto, r.Host, r.RequestURI, r.ProtoMajor, r.ProtoMinor, *r.URL, r.Header, r.ContentLength, r.TransferEncoding, r.Close, r.Trailer}
	}
	if got, want := of(r), of(want); !reflect.DeepEqual(got, want) {
		t.Fatalf("%q:\n%+v, want\n%+v", b, got, want)
	}
	return true
}

func TestWhatClientsSendIsReadAsByNetHTTP(t *testing.T) {
	for _, request := range []string{sdk, browser, sdk + "\x81\x85....", strings.ReplaceAll(sdk, "Upgrade: websocket", "uPGRADE:  WebSocket\t")} {
		if !sameAsNetHTTP(t, []byte(request)) {
			t.Errorf("%q is left to net/http", request)
		}
	}
}

func TestWhatIsUnusualIsLeftToNetHTTP(t *testing.T) {
	field := func(line string) string { return strings.Replace(sdk, "\r\nHost", "\r\n"+line+"\r\nHost", 1) }
	without := func(name string) string {
		before, after, found := strings.Cut(sdk, name+":")
		if !found {
			t.Fatal(name)
		}
		_, after, _ = strings.Cut(after, "\r\n")
		return before + after
	}
	replaced := func(old, with string) string {
		if !strings.Contains(sdk, old) {
			t.Fatal(old)
		}
		return strings.Replace(sdk, old, with, 1)
	}
	for name, request := range map[string]string{
		"nothing":                "",
		"half a head":            sdk[:len(sdk)-1],
		"another method":         replaced("GET", "POST"),
		"a method in small":      replaced("GET", "get"),
		"an absolute target":     replaced("GET /", "GET http://a/"),
		"another version":        replaced("HTTP/1.1", "HTTP/1.0"),
		"a later version":        replaced("HTTP/1.1", "HTTP/1.2"),
		"a target with a space":  replaced("GET /", "GET / "),
		"a fragment":             replaced("GET /", "GET /#"),
		"bytes beyond ASCII":     replaced("GET /", "GET /\xc3\xa9"),
		"a bad escape":           replaced("GET /", "GET /%zz"),
		"no host":                without("Host"),
		"two hosts":              field("Host: b"),
		"an empty host":          field("Host:"),
		"a strange host":         replaced("Host: localhost", "Host: local/host"),
		"no upgrade":             without("Upgrade"),
		"two upgrades":           field("Upgrade: websocket"),
		"another upgrade":        replaced("websocket", "h2c"),
		"several upgrades":       replaced("websocket", "websocket, h2c"),
		"no connection":          without("Connection"),
		"a connection to close":  replaced("Connection: Upgrade", "Connection: Upgrade, close"),
		"two connections":        field("Connection: Upgrade"),
		"a length":               field("Content-Length: 0"),
		"two lengths":            field("Content-Length: 0\r\nContent-Length: 5"),
		"chunks":                 field("Transfer-Encoding: chunked"),
		"chunks in small":        field("transfer-encoding: chunked"),
		"a trailer":              field("Trailer: X"),
		"an expectation":         field("Expect: 100-continue"),
		"a pragma alone":         field("Pragma: no-cache"),
		"a folded line":          field("X: a\r\n b"),
		"a line without a colon": field("X"),
		"a space before a colon": field("X : a"),
		"a space before a name":  field(" X: a"),
		"an empty name":          field(": a"),
		"a strange name":         field("X_Y: a"),
		"a zero in a value":      field("X: \x00"),
		"a bare line feed":       field("X: a\nY: b"),
		"a bare return":          field("X: a\rY: b"),
		"text beyond ASCII":      field("X: \xe9"),
		"many fields":            field(strings.Repeat("X: a\r\n", 64) + "X: b"),
		"line feeds alone":       strings.ReplaceAll(sdk, "\r\n", "\n"),
		"an empty line first":    "\r\n" + sdk,
	} {
		if _, _, ok := parse([]byte(request)); ok {
			t.Errorf("%s is not left to net/http", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sdk))
	f.Add([]byte(browser))
	f.Add([]byte(sdk + sdk))
	f.Fuzz(func(t *testing.T, b []byte) { sameAsNetHTTP(t, b) })
}
