package letshare_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// client is a user of LetShare's door.
type client struct {
	t      testing.TB
	ws     *websocket.Conn
	frames chan frame // what came, closed at the end
	end    error      // why it ended, once frames is closed
}

// frame is one message from the server.
type frame struct {
	op   websocket.MessageType
	text string
}

// connect connects a user whose instance has the same name, with the default URL of the
// front-end.
func (i *instance) connect(t testing.TB, user string) *client {
	t.Helper()
	return i.dial(t, "/ws?token="+tokenFor(user)+"&userId="+user)
}

// dial connects to a path. Headers are name, value pairs.
func (i *instance) dial(t testing.TB, path string, headers ...string) *client {
	t.Helper()
	c, answer, err := i.tryDial(t, path, headers...)
	if err != nil {
		status := 0
		if answer != nil {
			status = answer.StatusCode
		}
		t.Fatalf("connecting to %.40s…: status %d, %v", path, status, err)
	}
	return c
}

// tryDial connects or says why not.
func (i *instance) tryDial(t testing.TB, path string, headers ...string) (*client, *http.Response, error) {
	header := http.Header{}
	for n := 0; n < len(headers); n += 2 {
		header.Set(headers[n], headers[n+1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, answer, err := websocket.Dial(ctx, "ws://"+i.addr+path, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		return nil, answer, err
	}
	ws.SetReadLimit(-1)
	c := &client{t: t, ws: ws, frames: make(chan frame, 1<<14)}
	go c.read()
	t.Cleanup(func() { _ = ws.CloseNow() })
	return c, answer, nil
}

// read takes everything off the socket, so that no test makes its client a slow one, and
// pings are answered.
func (c *client) read() {
	defer close(c.frames)
	for {
		op, b, err := c.ws.Read(context.Background())
		if err != nil {
			c.end = err
			return
		}
		c.frames <- frame{op, string(b)}
	}
}

// send sends a text frame.
func (c *client) send(text string) {
	c.t.Helper()
	c.write(websocket.MessageText, []byte(text))
}

func (c *client) write(op websocket.MessageType, b []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.ws.Write(ctx, op, b); err != nil {
		c.t.Fatalf("sending %.80q: %v", b, err)
	}
}

// frame waits for the next message.
func (c *client) frame() frame {
	c.t.Helper()
	select {
	case f, ok := <-c.frames:
		if !ok {
			c.t.Fatalf("the connection ended instead of answering: %v", c.end)
		}
		return f
	case <-time.After(patience):
		c.t.Fatalf("nothing came for %v", patience)
	}
	return frame{}
}

// next waits for the next message and parses it; numbers stay as they are written.
func (c *client) next() map[string]any {
	c.t.Helper()
	f := c.frame()
	if f.op != websocket.MessageText {
		c.t.Fatalf("a frame that is not text: %.200q", f.text)
	}
	return parse(c.t, f.text)
}

// parse reads one JSON object.
func parse(t testing.TB, text string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || d.More() {
		t.Fatalf("not one JSON object: %.300q (%v)", text, err)
	}
	return m
}

// keys are the names in an object, sorted and joined.
func keys(v any) string {
	m, is := v.(map[string]any)
	if !is {
		return fmt.Sprintf("no object: %v", v)
	}
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// isNow reports whether a value is the present time in milliseconds, as a whole number.
func isNow(v any) bool {
	n, is := v.(json.Number)
	if !is {
		return false
	}
	ms, err := n.Int64()
	return err == nil && time.Since(time.UnixMilli(ms)).Abs() < time.Minute
}

// q writes a JSON string.
func q(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// expectStatus waits for the acknowledgement of a subscribe or an unsubscribe and checks
// its whole shape.
func (c *client) expectStatus(status, room, event string) {
	c.t.Helper()
	m := c.next()
	data, _ := m["data"].(map[string]any)
	if keys(m) != "channel data event timestamp type" || keys(m["data"]) != "event room status" ||
		m["type"] != status || m["channel"] != room || m["event"] != event || !isNow(m["timestamp"]) ||
		data["room"] != room || data["event"] != event || data["status"] != status {
		c.t.Fatalf("got %v, want %s of %s in %s", m, status, event, room)
	}
}

// subscribe subscribes to events of a room, or to the default one if none is given.
func (c *client) subscribe(room string, events ...string) {
	c.t.Helper()
	if len(events) == 0 {
		c.send(`{"type":"subscribe","channel":` + q(room) + `}`)
		c.expectStatus("subscribed", room, "signal:all")
	}
	for _, event := range events {
		c.send(`{"type":"subscribe","channel":` + q(room) + `,"event":` + q(event) + `}`)
		c.expectStatus("subscribed", room, event)
	}
}

// leave leaves a room.
func (c *client) leave(room string) {
	c.t.Helper()
	c.send(`{"type":"unsubscribe","channel":` + q(room) + `}`)
	c.expectStatus("unsubscribed", room, "signal:all")
}

// publish sends data, the text of an object, to signal:all of a room.
func (c *client) publish(room, data string) { c.t.Helper(); c.publishTo(room, "signal:all", data) }

// publishTo sends data to an event of a room.
func (c *client) publishTo(room, event, data string) {
	c.t.Helper()
	c.send(`{"type":"publish","channel":` + q(room) + `,"event":` + q(event) + `,"data":` + data + `}`)
}

// expect waits for a message and checks its whole shape; data is compared byte by byte. It
// fails if anything else comes before.
func (c *client) expect(room, event, data string) {
	c.t.Helper()
	f := c.frame()
	m := parse(c.t, f.text)
	if keys(m) != "channel data event timestamp type" || m["type"] != "message" || m["channel"] != room ||
		m["event"] != event || !isNow(m["timestamp"]) || rawData(c.t, f.text) != data {
		c.t.Fatalf("got %.300s, want event %s of %s with data %.300s", f.text, event, room, data)
	}
}

// rawData is the data of a frame as it is written.
func rawData(t testing.TB, text string) string {
	t.Helper()
	var m struct{ Data json.RawMessage }
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%.200q: %v", text, err)
	}
	return string(m.Data)
}

// expectError waits for an error, checks its shape and returns its code and text.
func (c *client) expectError() (code, message string) {
	c.t.Helper()
	m := c.next()
	e, _ := m["error"].(map[string]any)
	number, _ := e["code"].(json.Number)
	message, _ = e["message"].(string)
	if m["type"] != "error" || keys(m) != "error timestamp type" || !isNow(m["timestamp"]) || number == "" || message == "" {
		c.t.Fatalf("got %v, want an error", m)
	}
	for name := range e {
		if name != "code" && name != "message" && name != "reason" {
			c.t.Fatalf("an error with %q: %v", name, m)
		}
	}
	return number.String(), message
}

// refused sends a request and expects an error with code 400 and a text.
func (c *client) refused(request, text string) {
	c.t.Helper()
	c.send(request)
	if code, message := c.expectError(); code != "400" || message != text {
		c.t.Fatalf("%.100s is refused with %s %q, want 400 %q", request, code, message, text)
	}
}

// works checks that requests are still answered, and that nothing else is waiting.
func (c *client) works() {
	c.t.Helper()
	room := newRoom()
	c.send(`{"type":"unsubscribe","channel":` + q(room) + `}`)
	c.expectStatus("unsubscribed", room, "signal:all")
}

// expectEnd reads up to the end of the connection and checks the code of its close frame.
func (c *client) expectEnd(code websocket.StatusCode) {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case _, ok := <-c.frames:
			if ok {
				continue
			}
			if got := websocket.CloseStatus(c.end); got != code {
				c.t.Fatalf("ended with %v, want close code %d", c.end, code)
			}
			return
		case <-timeout:
			c.t.Fatalf("the connection does not end; want close code %d", code)
		}
	}
}

// close closes the connection in the proper way.
func (c *client) close() {
	c.t.Helper()
	if err := c.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		var closed websocket.CloseError
		if !errors.As(err, &closed) {
			c.t.Fatalf("closing: %v", err)
		}
	}
}

// newRoom makes up the name of a room that nobody else is in.
func newRoom() string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, 12)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b)
}
