package socket_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/socket"
)

// request is a handshake with fields replaced; "-" leaves one out.
func request(method string, replace map[string]string) string {
	fields := map[string]string{
		"Host": "x", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
		"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}
	for k, v := range replace {
		fields[k] = v
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s / HTTP/1.1\r\n", method)
	for k, v := range fields {
		if v != "-" {
			fmt.Fprintf(&b, "%s: %s\r\n", k, v)
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

func TestHandshakesAreAnsweredAsTheRFCSays(t *testing.T) {
	type result struct {
		*socket.Opening
		err error
	}
	results := make(chan result, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Node", "a\r\nb")
		w.Header().Set("Content-Length", "5")
		o, err := socket.Upgrade(w, r)
		if err == nil {
			_, _ = o.Conn.Write(o.Answer)
		}
		results <- result{o, err}
	}))
	defer web.Close()
	cases := []struct {
		name   string
		method string
		fields map[string]string
		status int
	}{
		{"as browsers send it", "GET", nil, 101},
		{"other cases", "GET", map[string]string{"Upgrade": "WebSocket", "Connection": "UPGRADE"}, 101},
		{"extensions are declined", "GET", map[string]string{"Sec-WebSocket-Extensions": "permessage-deflate"}, 101},
		{"not GET", "POST", nil, 405},
		{"no Upgrade", "GET", map[string]string{"Upgrade": "-"}, 400},
		{"another Upgrade", "GET", map[string]string{"Upgrade": "h2c"}, 400},
		{"no Connection", "GET", map[string]string{"Connection": "keep-alive"}, 400},
		{"no version", "GET", map[string]string{"Sec-WebSocket-Version": "-"}, 426},
		{"old version", "GET", map[string]string{"Sec-WebSocket-Version": "8"}, 426},
		{"no key", "GET", map[string]string{"Sec-WebSocket-Key": "-"}, 400},
		{"short key", "GET", map[string]string{"Sec-WebSocket-Key": "AAAA"}, 400},
		{"key of 17 bytes", "GET", map[string]string{"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAA="}, 400},
		{"key not base64", "GET", map[string]string{"Sec-WebSocket-Key": "!!!!!!!!!!!!!!!!!!!!!!=="}, 400},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c, err := net.Dial("tcp", strings.TrimPrefix(web.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write([]byte(request(tc.method, tc.fields) + "more")); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := <-results
			if resp.StatusCode != tc.status {
				t.Fatalf("status %d, want %d", resp.StatusCode, tc.status)
			}
			if tc.status == 426 && resp.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Error("the right version is not named")
			}
			if tc.status != 101 {
				if !errors.Is(got.err, socket.ErrNotWebSocket) || got.Opening != nil {
					t.Fatalf("%+v", got)
				}
				return
			}
			if got.err != nil {
				t.Fatal(got.err)
			}
			defer got.Conn.Close()
			h := resp.Header
			if h.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || h.Get("Upgrade") != "websocket" ||
				h.Get("Connection") != "Upgrade" || h.Get("Content-Length") != "" || h.Get("Sec-WebSocket-Extensions") != "" || h.Get("X-Node") != "a  b" {
				t.Fatalf("answered %v", h)
			}
			if string(got.Buffered) != "more" && len(got.Buffered) != 0 {
				t.Fatalf("buffered %q", got.Buffered)
			}
			if cap(got.Buffered) > 8 {
				t.Fatalf("buffered bytes pin %d", cap(got.Buffered))
			}
		})
	}
}

func TestAConnectionThatCannotBeTakenOverIsAnswered500(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	w := httptest.NewRecorder()
	if _, err := socket.Upgrade(w, r); err == nil || errors.Is(err, socket.ErrNotWebSocket) || w.Code != 500 {
		t.Fatalf("%v, status %d", err, w.Code)
	}
}
