package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"letshare-server/test/cluster"
)

// roommate is a client of LetShare's own protocol.
type roommate struct {
	t  *testing.T
	ws *websocket.Conn
}

// frame is one that a roommate sends or gets.
type frame struct {
	Type    string         `json:"type"`
	Channel string         `json:"channel,omitempty"`
	Event   string         `json:"event,omitempty"`
	Data    map[string]any `json:"data,omitempty"`
	Error   *struct {
		Reason string `json:"reason"`
	} `json:"error,omitempty"`
}

// roommateAt connects to /ws of a node.
func roommateAt(t *testing.T, n *cluster.Node, user string) *roommate {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"user_id": user, "exp": time.Now().Unix() + 600}).SignedString([]byte(cluster.JWTSecret))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+n.Addr+"/ws?token="+url.QueryEscape(token), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return &roommate{t, ws}
}

func (r *roommate) send(f frame) {
	r.t.Helper()
	b, _ := json.Marshal(f)
	ctx, cancel := context.WithTimeout(r.t.Context(), cluster.Patience)
	defer cancel()
	if err := r.ws.Write(ctx, websocket.MessageText, b); err != nil {
		r.t.Fatal(err)
	}
}

func (r *roommate) next() (f frame) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), cluster.Patience)
	defer cancel()
	_, b, err := r.ws.Read(ctx)
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// enter subscribes to a room and returns the answer.
func (r *roommate) enter(room string) frame {
	r.t.Helper()
	r.send(frame{Type: "subscribe", Channel: room})
	return r.next()
}

func TestARoomIsOneOnAllNodes(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Environ: []string{"LETSHARE_WEBSOCKET_MAX_ROOM_USERS=9"}})
	const room = "房间 1"
	var in []*roommate
	for i := range 6 {
		r := roommateAt(t, c.Nodes[i%3], fmt.Sprint("user", i))
		if f := r.enter(room); f.Type != "subscribed" {
			t.Fatalf("not in the room: %+v", f)
		}
		in = append(in, r)
	}
	for i, r := range in {
		r.send(frame{Type: "publish", Channel: room, Data: map[string]any{"n": i}})
		for j, other := range in {
			if j == i {
				continue
			}
			if f := other.next(); f.Type != "message" || f.Channel != room || f.Data["n"] != float64(i) || f.Data["from"] != fmt.Sprint("user", i) {
				t.Fatalf("user %d got %+v", j, f)
			}
		}
	}
	// More come than there is room for, to all nodes at the same time: three get in.
	var entered, refused atomic.Int32
	t.Run("crowd", func(t *testing.T) {
		for i := range 12 {
			r := roommateAt(t, c.Nodes[i%3], fmt.Sprint("late", i))
			t.Run("", func(t *testing.T) {
				t.Parallel()
				r.t = t
				switch f := r.enter(room); {
				case f.Type == "subscribed":
					entered.Add(1)
				case f.Error != nil && f.Error.Reason == "room_full":
					refused.Add(1)
				default:
					t.Errorf("got %+v", f)
				}
			})
		}
	})
	if entered.Load() != 3 || refused.Load() != 9 {
		t.Errorf("%d more got in, %d did not", entered.Load(), refused.Load())
	}
}
