package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Frame is a ProtocolMessage in its JSON form.
type Frame struct {
	Action        int               `json:"action"`
	Channel       string            `json:"channel,omitempty"`
	ChannelSerial string            `json:"channelSerial,omitempty"`
	Flags         int               `json:"flags,omitempty"`
	MsgSerial     *int64            `json:"msgSerial,omitempty"`
	Count         int               `json:"count,omitempty"`
	ConnectionID  string            `json:"connectionId,omitempty"`
	Details       *Details          `json:"connectionDetails,omitempty"`
	Error         *Error            `json:"error,omitempty"`
	Messages      []map[string]any  `json:"messages,omitempty"`
	Presence      []map[string]any  `json:"presence,omitempty"`
	Annotations   []map[string]any  `json:"annotations,omitempty"`
	Params        map[string]string `json:"params,omitempty"`
	Res           []struct {
		Serials []string `json:"serials"`
	} `json:"res,omitempty"`
}

// Details are the connectionDetails of a CONNECTED.
type Details struct {
	ConnectionKey string `json:"connectionKey"`
	ServerID      string `json:"serverId"`
}

// Error is an ErrorInfo.
type Error struct {
	Code       int    `json:"code"`
	StatusCode int    `json:"statusCode"`
	Message    string `json:"message"`
}

// Actions of a ProtocolMessage.
const (
	Heartbeat = iota
	Ack
	Nack
	Connect
	Connected
	Disconnect
	Disconnected
	Close
	Closed
	ActionError
	Attach
	Attached
	Detach
	Detached
	Presence
	Message
	Sync
	Auth
	Activate
	Object
	ObjectSync
	Annotation
)

// Flags of a ProtocolMessage.
const (
	HasPresence = 1 << 0
	Resumed     = 1 << 2
)

// Actions of presence.
const (
	Present = 1 + iota
	Enter
	Leave
	Update
)

// Client is one connection to a node. It keeps all that it is sent, in order.
type Client struct {
	ID  string // the connectionId
	Key string // the connectionKey

	t      testing.TB
	ws     *websocket.Conn
	params string

	mu     sync.Mutex
	frames []Frame
	read   int // of frames
	ended  bool
	more   chan struct{}
	serial int64
}

// Connect connects with the key, or with the credential of params, which are added to the URL, and
// waits until it is connected.
func (n *Node) Connect(params string) *Client {
	n.t.Helper()
	c, err := n.TryConnect(params)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// Resume connects as the connection of c, with what c was connected with, and goes on with its
// msgSerials. It must be given the connection.
func (n *Node) Resume(c *Client) *Client {
	n.t.Helper()
	r := n.Connect(c.params + "&resume=" + url.QueryEscape(c.Key))
	if r.ID != c.ID {
		n.t.Fatalf("the connection is %s, and was %s: %+v", r.ID, c.ID, r.All())
	}
	c.mu.Lock()
	r.params, r.serial = c.params, c.serial
	c.mu.Unlock()
	return r
}

// TryConnect is Connect for a node that may refuse.
func (n *Node) TryConnect(params string) (*Client, error) {
	c, err := n.Dial(params)
	if err != nil {
		return nil, err
	}
	f, ok := c.Next(Connected, ActionError, Disconnected)
	if !ok || f.Action != Connected {
		_ = c.ws.CloseNow()
		return nil, fmt.Errorf("%s does not connect: %+v", n.name, f.Error)
	}
	c.ID, c.Key = f.ConnectionID, f.Details.ConnectionKey
	return c, nil
}

// Dial opens the connection and waits for nothing.
func (n *Node) Dial(params string) (*Client, error) {
	query := "?v=6&format=json&heartbeats=true&" + params
	if !strings.Contains(params, "key=") && !strings.Contains(params, "access_token=") {
		query += "&key=" + url.QueryEscape(Key)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+n.Addr+"/"+query, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	c := &Client{t: n.t, ws: ws, params: params, more: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.receive()
	}()
	n.t.Cleanup(func() {
		_ = ws.CloseNow()
		<-done
	})
	return c, nil
}

func (c *Client) receive() {
	for {
		_, b, err := c.ws.Read(context.Background())
		var f Frame
		if err == nil {
			err = json.Unmarshal(b, &f)
		}
		c.mu.Lock()
		if err != nil {
			c.ended = true
		} else if f.Action != Heartbeat {
			c.frames = append(c.frames, f)
		}
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Send sends a frame. It reports false if the connection has ended.
func (c *Client) Send(f any) bool {
	b, err := json.Marshal(f)
	if err != nil {
		c.t.Error(err)
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, b) == nil
}

// Next waits for the next frame with one of the actions, and skips others. ok is false if
// the connection has ended before it came, or if patience has.
func (c *Client) Next(actions ...int) (f Frame, ok bool) {
	return c.Find(func(f *Frame) bool {
		for _, a := range actions {
			if f.Action == a {
				return true
			}
		}
		return false
	})
}

// Find is Next for frames of any kind.
func (c *Client) Find(wanted func(*Frame) bool) (f Frame, ok bool) {
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		for c.read < len(c.frames) {
			f := c.frames[c.read]
			c.read++
			if wanted(&f) {
				c.mu.Unlock()
				return f, true
			}
		}
		ended, more := c.ended, c.more
		c.mu.Unlock()
		if ended {
			return Frame{}, false
		}
		select {
		case <-more:
		case <-timeout.C:
			return Frame{}, false
		}
	}
}

// Expect is Next for a frame that must come.
func (c *Client) Expect(actions ...int) Frame {
	c.t.Helper()
	f, ok := c.Next(actions...)
	if !ok {
		c.t.Fatalf("no frame with action %v came; in all there were %+v", actions, c.All())
	}
	return f
}

// All is everything that came so far.
func (c *Client) All() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Frame{}, c.frames...)
}

// Ended reports whether the connection has ended.
func (c *Client) Ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Drop ends the connection without a word.
func (c *Client) Drop() { _ = c.ws.CloseNow() }

// Attach attaches, and returns the ATTACHED.
func (c *Client) Attach(channel string, more ...func(*Frame)) Frame {
	c.t.Helper()
	f := Frame{Action: Attach, Channel: channel}
	for _, change := range more {
		change(&f)
	}
	c.Send(f)
	attached, ok := c.Find(func(f *Frame) bool {
		return f.Channel == channel && (f.Action == Attached || f.Action == Detached || f.Action == ActionError)
	})
	if !ok || attached.Action != Attached {
		c.t.Fatalf("attach to %s: %+v", channel, attached)
	}
	return attached
}

// Post sends a MESSAGE or what else is acknowledged, with the next msgSerial, which it returns.
func (c *Client) Post(f Frame) int64 {
	c.mu.Lock()
	serial := c.serial
	c.serial++
	c.mu.Unlock()
	f.MsgSerial = &serial
	c.Send(f)
	return serial
}

// Publish publishes one message and waits for its ACK.
func (c *Client) Publish(channel, data string) Frame {
	c.t.Helper()
	return c.Acked(c.Post(Frame{Action: Message, Channel: channel, Messages: []map[string]any{{"data": data}}}))
}

// Present changes a presence member and waits for the ACK.
func (c *Client) Present(channel string, action int, clientID, data string) Frame {
	c.t.Helper()
	return c.Acked(c.Post(Frame{Action: Presence, Channel: channel, Presence: []map[string]any{{"action": action, "clientId": clientID, "data": data}}}))
}

// Outcome waits for the ACK or NACK of a msgSerial, whatever else comes before. ok is false if
// the connection ends first.
func (c *Client) Outcome(serial int64) (f Frame, ok bool) {
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		for _, f := range c.frames {
			if (f.Action == Ack || f.Action == Nack) && f.MsgSerial != nil && *f.MsgSerial <= serial && serial < *f.MsgSerial+int64(f.Count) {
				c.mu.Unlock()
				return f, true
			}
		}
		ended, more := c.ended, c.more
		c.mu.Unlock()
		if ended {
			return Frame{}, false
		}
		select {
		case <-more:
		case <-timeout.C:
			return Frame{}, false
		}
	}
}

// Acked is Outcome for what must be acknowledged.
func (c *Client) Acked(serial int64) Frame {
	c.t.Helper()
	f, ok := c.Outcome(serial)
	if !ok || f.Action != Ack {
		c.t.Fatalf("msgSerial %d is not acknowledged: %+v", serial, f)
	}
	return f
}

// Data is the data of all messages of a channel that came so far, in order.
func (c *Client) Data(channel string) (all []string) {
	for _, f := range c.All() {
		if f.Action != Message || f.Channel != channel {
			continue
		}
		for _, m := range f.Messages {
			all = append(all, fmt.Sprint(m["data"]))
		}
	}
	return all
}

// Events are what happened to members of a channel as far as the client was told live, each
// "action clientId", in order.
func (c *Client) Events(channel string) (all []string) {
	for _, f := range c.All() {
		if f.Action != Presence || f.Channel != channel {
			continue
		}
		for _, m := range f.Presence {
			all = append(all, fmt.Sprint(m["action"], " ", m["clientId"]))
		}
	}
	return all
}
