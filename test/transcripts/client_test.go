package transcripts

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"
	"github.com/vmihailenco/msgpack/v5"
)

// client is one connection to the server.
type client struct {
	line   carrier
	format string
	closed bool // the end has been seen
	early  []early
}

// early is a frame that came before the ACK that the transcript has in front of it.
type early struct {
	v    any
	text string
}

// next is receive, but first there is what came early.
func (c *client) next(ctx context.Context) (v any, text string, code int, err error) {
	if len(c.early) > 0 {
		first := c.early[0]
		c.early = c.early[1:]
		return first.v, first.text, 0, nil
	}
	return c.receive(ctx)
}

// carrier carries frames.
type carrier interface {
	write(ctx context.Context, frame []byte) error
	read(ctx context.Context) (frame []byte, code int, err error) // code: of the server's close

	hold() // keeps what is written, until release sends all of it at once
	release(ctx context.Context) error
	cut()   // ends it as a failing network does
	leave() // ends it for good, so that the server need not wait
}

// dial connects with the given parameters: over a WebSocket, or over comet if over says
// so.
func dial(ctx context.Context, address, over, format string, params url.Values) (*client, error) {
	c := &client{format: format}
	var err error
	switch over {
	case overWebSocket:
		c.line, err = dialWebSocket(ctx, address, format, params)
	default:
		c.line, err = dialComet(ctx, address, over == overPolling, params)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// webSocket is a carrier.
type webSocket struct {
	ws   *websocket.Conn
	cork *corkedConn
	kind websocket.MessageType
}

// corkedConn can keep what is written back, to send several frames in one write.
type corkedConn struct {
	net.Conn
	mu     sync.Mutex
	corked bool
	kept   []byte
}

func (c *corkedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked {
		c.kept = append(c.kept, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func dialWebSocket(ctx context.Context, address, format string, params url.Values) (*webSocket, error) {
	w := &webSocket{kind: websocket.MessageText}
	if format == "msgpack" {
		w.kind = websocket.MessageBinary
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		w.cork = &corkedConn{Conn: conn}
		return w.cork, err
	}}
	ws, _, err := websocket.Dial(ctx, "ws://"+address+"/?"+params.Encode(),
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(4 << 20)
	w.ws = ws
	return w, nil
}

func (w *webSocket) write(ctx context.Context, frame []byte) error {
	return w.ws.Write(ctx, w.kind, frame)
}

func (w *webSocket) read(ctx context.Context) (frame []byte, code int, err error) {
	kind, b, err := w.ws.Read(ctx)
	if err != nil {
		if code := websocket.CloseStatus(err); code >= 0 {
			return nil, int(code), nil
		}
		return nil, 0, err
	}
	if kind != w.kind {
		return nil, 0, fmt.Errorf("a frame of type %v instead of %v", kind, w.kind)
	}
	return b, 0, nil
}

func (w *webSocket) cut() { _ = w.ws.CloseNow() }

func (w *webSocket) leave() { w.cut() }

func (w *webSocket) hold() {
	w.cork.mu.Lock()
	defer w.cork.mu.Unlock()
	w.cork.corked = true
}

func (w *webSocket) release(context.Context) error {
	c := w.cork
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	if len(c.kept) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.kept)
	c.kept = nil
	return err
}

// send sends a ProtocolMessage that is written as JSON.
func (c *client) send(ctx context.Context, text string) error {
	b := []byte(text)
	if c.format == "msgpack" {
		v, err := decodeJSON(b)
		if err != nil {
			return fmt.Errorf("%w in %s", err, text)
		}
		var out bytes.Buffer
		e := msgpack.NewEncoder(&out)
		e.SetSortMapKeys(true)
		if err := e.Encode(binary(v)); err != nil {
			return err
		}
		b = out.Bytes()
	}
	return c.line.write(ctx, b)
}

// receive reads one frame. It returns it as a value and as JSON text. After the server's
// close it returns the close code instead.
func (c *client) receive(ctx context.Context) (v any, text string, code int, err error) {
	if c.closed {
		return nil, "", 0, fmt.Errorf("the connection has ended already")
	}
	b, code, err := c.line.read(ctx)
	if err != nil || code != 0 {
		c.closed = code != 0
		return nil, "", code, err
	}
	if c.format != "msgpack" {
		v, err = decodeJSON(b)
		return v, string(b), 0, err
	}
	d := msgpack.NewDecoder(bytes.NewReader(b))
	decoded, err := d.DecodeInterface()
	if err != nil {
		return nil, "", 0, err
	}
	if d.Buffered().(*bytes.Reader).Len() != 0 {
		return nil, "", 0, fmt.Errorf("bytes after the frame's value")
	}
	v = textual(decoded)
	return v, show(v), 0, nil
}

// binary turns a JSON value into what MessagePack says for it: numbers as numbers, and data
// in base64 as bytes.
func binary(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = binary(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = binary(x)
		}
		if encoding, ok := v["encoding"].(string); ok {
			if rest, ok := cutBase64(encoding); ok {
				if text, ok := v["data"].(string); ok {
					if b, err := base64.StdEncoding.DecodeString(text); err == nil {
						out["data"], out["encoding"] = b, rest
						if rest == "" {
							delete(out, "encoding")
						}
					}
				}
			}
		}
		return out
	}
	return v
}

func cutBase64(encoding string) (rest string, ok bool) {
	if encoding == "base64" {
		return "", true
	}
	return strings.CutSuffix(encoding, "/base64")
}

// textual is the reverse of binary.
func textual(v any) any {
	switch v := v.(type) {
	case int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64:
		return json.Number(fmt.Sprint(v))
	case []any:
		for i := range v {
			v[i] = textual(v[i])
		}
		return v
	case map[string]any:
		for k, x := range v {
			if b, ok := x.([]byte); ok && k == "data" {
				v["data"] = base64.StdEncoding.EncodeToString(b)
				if encoding, _ := v["encoding"].(string); encoding != "" {
					v["encoding"] = encoding + "/base64"
				} else {
					v["encoding"] = "base64"
				}
			}
		}
		for k, x := range v {
			v[k] = textual(x)
		}
		return v
	}
	return v
}
