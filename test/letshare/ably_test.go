package letshare_test

import (
	"context"
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// ably is a client of the other door, in the JSON form of Ably's protocol.
type ably struct {
	t      testing.TB
	ws     *websocket.Conn
	frames chan map[string]any
	end    error
	serial int
}

// The actions of Ably's protocol that are used here.
const (
	actionAck          = "1"
	actionNack         = "2"
	actionConnected    = "4"
	actionDisconnected = "6"
	actionError        = "9"
	actionAttached     = "11"
	actionMessage      = "15"
)

// connectAbly connects with the server's key. params are added to the URL.
func (i *instance) connectAbly(t testing.TB, params string) *ably {
	t.Helper()
	a := i.dialAbly(t, "/?key="+url.QueryEscape(ablyKey)+"&v=6&format=json"+params)
	a.next(actionConnected)
	return a
}

func (i *instance) dialAbly(t testing.TB, path string) *ably {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+i.addr+path, nil)
	if err != nil {
		t.Fatalf("connecting to Ably's door: %v", err)
	}
	ws.SetReadLimit(-1)
	a := &ably{t: t, ws: ws, frames: make(chan map[string]any, 1<<12)}
	t.Cleanup(func() { _ = ws.CloseNow() })
	go func() {
		defer close(a.frames)
		for {
			_, b, err := ws.Read(context.Background())
			if err != nil {
				a.end = err
				return
			}
			m := parse(t, string(b))
			if m["action"] != json.Number("0") { // heartbeats
				a.frames <- m
			}
		}
	}()
	return a
}

func (a *ably) send(text string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := a.ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		a.t.Fatal(err)
	}
}

// next waits for the next frame, which must be of an action.
func (a *ably) next(action string) map[string]any {
	a.t.Helper()
	select {
	case m, ok := <-a.frames:
		if !ok {
			a.t.Fatalf("Ably's door ended the connection: %v", a.end)
		}
		if m["action"] != json.Number(action) {
			a.t.Fatalf("got %v, want action %s", m, action)
		}
		return m
	case <-time.After(patience):
		a.t.Fatalf("no frame with action %s for %v", action, patience)
	}
	return nil
}

func (a *ably) attach(channel string) {
	a.t.Helper()
	a.send(`{"action":10,"channel":` + q(channel) + `}`)
	a.next(actionAttached)
}

// publish sends one message, the text of an object, without waiting for its acknowledgement.
func (a *ably) publish(channel, message string) {
	a.t.Helper()
	serial, _ := json.Marshal(a.serial)
	a.serial++
	a.send(`{"action":15,"channel":` + q(channel) + `,"msgSerial":` + string(serial) + `,"messages":[` + message + `]}`)
}

// message waits for a delivery of one message and returns it.
func (a *ably) message() map[string]any {
	a.t.Helper()
	m := a.next(actionMessage)
	all, _ := m["messages"].([]any)
	if len(all) != 1 {
		a.t.Fatalf("got %v, want one message", m)
	}
	one, _ := all[0].(map[string]any)
	return one
}
