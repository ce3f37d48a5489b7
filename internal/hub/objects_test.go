package hub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

func operation(action pubsub.ObjectAction, id string) *pubsub.ObjectOperation {
	return &pubsub.ObjectOperation{Action: action, ObjectID: id, Payload: true}
}

func setKey(id, key, value string) *pubsub.ObjectOperation {
	op := operation(pubsub.MapSet, id)
	op.Key, op.Value = key, pubsub.ObjectData{Type: pubsub.StringValue, Text: value}
	return op
}

func refer(id, key, to string) *pubsub.ObjectOperation {
	op := operation(pubsub.MapSet, id)
	op.Key, op.Value = key, pubsub.ObjectData{Type: pubsub.ObjectValue, Text: to}
	return op
}

func removeKey(id, key string) *pubsub.ObjectOperation {
	op := operation(pubsub.MapRemove, id)
	op.Key = key
	return op
}

func increase(id string, by float64) *pubsub.ObjectOperation {
	op := operation(pubsub.CounterInc, id)
	op.Number = by
	return op
}

var everything = &auth.Grant{App: "app", ClientRule: auth.ClientAny, Capability: auth.FullCapability}

// objectChange is a request to do operations on the channel's objects.
func objectChange(operations ...*pubsub.ObjectOperation) *hub.PublishObjects {
	q := &hub.PublishObjects{Grant: everything, Channel: name("room")}
	for _, op := range operations {
		q.Items = append(q.Items, &pubsub.ObjectMessage{Operation: op})
	}
	return q
}

func tryOperate(t testing.TB, h *hub.Hub, q *hub.PublishObjects) (hub.PublishedObjects, error) {
	t.Helper()
	var turn hub.Turn
	defer turn.End()
	return h.PublishObjects(context.Background(), &turn, q)
}

func operate(t testing.TB, h *hub.Hub, operations ...*pubsub.ObjectOperation) hub.PublishedObjects {
	t.Helper()
	out, err := tryOperate(t, h, objectChange(operations...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tree writes what the root of the channel leads to.
func tree(t testing.TB, h *hub.Hub) string {
	t.Helper()
	v, err := h.ReadObject(context.Background(), &hub.ReadObject{Grant: everything, Channel: name("room")})
	if err != nil {
		t.Fatal(err)
	}
	return shown(v)
}

func shown(v *pubsub.ObjectView) string {
	switch {
	case v.ID == "" && v.Data.Type == pubsub.NumberValue:
		return fmt.Sprint(v.Data.Number)
	case v.ID == "":
		return v.Data.Text
	case !v.IsMap:
		return fmt.Sprint(v.Count)
	}
	var all []string
	for _, e := range v.Entries {
		all = append(all, e.Key+":"+shown(e.Value))
	}
	return "{" + strings.Join(all, " ") + "}"
}

func TestAChannelHasRoomForSoManyObjects(t *testing.T) {
	h, _, exceeded := limited(t, limit.Limits{Objects: 2, ObjectBytes: 400})
	refused := func(operations ...*pubsub.ObjectOperation) {
		t.Helper()
		var e *pubsub.Error
		if _, err := tryOperate(t, h, objectChange(operations...)); !errors.As(err, &e) || e.Code != pubsub.CodeObjectsTooLarge {
			t.Errorf("got %v", err)
		}
	}
	operate(t, h, setKey("root", "a", "1"), increase("counter:a@1", 1))
	refused(increase("counter:b@1", 1))
	exceeded.expect(t, limit.Objects, 1)
	refused(setKey("root", "b", strings.Repeat("x", 400)))
	exceeded.expect(t, limit.ObjectBytes, 1)
	operate(t, h, setKey("root", "b", strings.Repeat("x", 100)), increase("counter:a@1", 1), refer("root", "c", "counter:a@1"))
	operate(t, h, removeKey("root", "b"))
	if got := tree(t, h); got != "{a:1 c:2}" {
		t.Errorf("got %s", got)
	}
}

func TestAnOperationIsRefusedWithTheCodeThatSaysWhy(t *testing.T) {
	h := newHub(t)
	grant := func(capability string) *auth.Grant {
		c, err := auth.ParseCapability(capability)
		if err != nil {
			t.Fatal(err)
		}
		return &auth.Grant{App: "app", ClientRule: auth.ClientAny, Capability: c}
	}
	for _, tt := range []struct {
		name   string
		change func(*hub.PublishObjects)
		code   pubsub.Code
	}{
		{"no right", func(q *hub.PublishObjects) { q.Grant = grant(`{"*":["object-subscribe","publish"]}`) }, pubsub.CodeCapabilityDenied},
		{"a channel of events", func(q *hub.PublishObjects) { q.Channel.Qualifier = "meta" }, pubsub.CodeCapabilityDenied},
		{"a clientId of another", func(q *hub.PublishObjects) { q.Grant, q.Items[0].ClientID = identified("bob"), "eve" }, pubsub.CodeInvalidClientID},
		{"a connection of another", func(q *hub.PublishObjects) { q.Items[0].ConnectionID = "x" }, pubsub.CodeInvalidConnectionID},
		{"extras of the server", func(q *hub.PublishObjects) { q.Items[0].Extras = []byte(`{"userClaim":"x"}`) }, pubsub.CodeInvalidExtras},
		{"an id that is none", func(q *hub.PublishObjects) { q.Items[0].Operation.ObjectID = "x" }, pubsub.CodeInvalidObject},
		{"one that is the server's", func(q *hub.PublishObjects) { q.Items[0].Operation = operation(pubsub.ObjectDelete, "counter:a@1") }, pubsub.CodeInvalidObject},
		{"the second of two", func(q *hub.PublishObjects) {
			q.Items = append(q.Items, &pubsub.ObjectMessage{Operation: increase("root", 1)})
		}, pubsub.CodeInvalidObject},
	} {
		q := objectChange(setKey("root", "k", "v"))
		tt.change(q)
		var e *pubsub.Error
		if _, err := tryOperate(t, h, q); !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%s: got %v, want %d", tt.name, err, tt.code)
		}
	}
	if got := tree(t, h); got != "{}" {
		t.Errorf("got %s", got)
	}
	_, err := h.ReadObject(context.Background(), &hub.ReadObject{Grant: grant(`{"*":["subscribe","object-publish"]}`), Channel: name("room")})
	if e := (*pubsub.Error)(nil); !errors.As(err, &e) || e.Code != pubsub.CodeCapabilityDenied {
		t.Errorf("reading: got %v", err)
	}
}

func TestOperationsThatAreSentAgainAreDoneOnce(t *testing.T) {
	h := newHub(t)
	for range 2 {
		q := objectChange(increase("counter:a@1", 1), refer("root", "a", "counter:a@1"))
		q.ConnectionID, q.MsgSerial = "c", 7
		if _, err := tryOperate(t, h, q); err != nil {
			t.Fatal(err)
		}
		rest := &hub.PublishObjects{Grant: everything, Channel: name("room"), Requests: []*pubsub.ObjectRequest{
			{ID: "x", ObjectID: "counter:a@1", Operation: increase("", 1)},
		}}
		out, err := tryOperate(t, h, rest)
		if err != nil || fmt.Sprint(out.Objects) != "[counter:a@1]" {
			t.Fatalf("got %v, %v", out.Objects, err)
		}
	}
	if got := tree(t, h); got != "{a:2}" {
		t.Errorf("got %s", got)
	}
}
