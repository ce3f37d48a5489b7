package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/objects"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
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

// objectLines is the form of an objectWatcher.
type objectLines struct{}

func (objectLines) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if e.Kind != engine.KindObject {
		return dst, units
	}
	dst = wire.AppendObjectPM(dst, wire.JSON, "room", wire.Entry{Serial: e.Serial, Position: e.Position(), Timestamp: e.Timestamp, Batch: e.Body}, wire.NewObjects)
	dst = append(dst, '\n')
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// objectInbox receives for one attachment.
type objectInbox struct {
	mu   sync.Mutex
	text []byte
}

func (b *objectInbox) Receive(frames []byte, _ bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, frames...)
}

func (b *objectInbox) Lost(pubsub.Serial) {}

func (b *objectInbox) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.text
	b.text = nil
	return text
}

// objectWatcher is a client that applies what it is told of objects.
type objectWatcher struct {
	at   *hub.Attachment
	in   *objectInbox
	pool objects.Pool
}

// watchObjects attaches, and takes what there is.
func watchObjects(t testing.TB, h *hub.Hub) *objectWatcher {
	t.Helper()
	w := &objectWatcher{pool: make(objects.Pool)}
	w.attach(t, h)
	return w
}

// attach attaches on a node, as one who was cut off does: what was under way is not for it any more.
func (w *objectWatcher) attach(t testing.TB, h *hub.Hub) {
	t.Helper()
	if w.at != nil {
		w.at.Detach()
	}
	w.in = new(objectInbox)
	w.at = attach(t, h, hub.Attach{Modes: pubsub.ModeObjectSubscribe, Form: objectLines{}, Receiver: w.in})
	w.sync(t)
}

// sync takes all there is.
func (w *objectWatcher) sync(t testing.TB) {
	t.Helper()
	all, err := w.at.Objects(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w.pool = make(objects.Pool)
	for _, m := range all {
		pm := &wire.ProtocolMessage{Action: wire.ActionObjectSync, State: []*pubsub.ObjectMessage{m}}
		read, err := wire.Decode(wire.JSON, wire.Append(nil, wire.JSON, pm))
		if err != nil || read.ItemErr != nil {
			t.Fatal(err, read.ItemErr)
		}
		o, err := objects.Restore(read.State[0])
		if err != nil {
			t.Fatal(err)
		}
		w.pool[o.ID] = o
	}
}

// catchUp applies what was received, and returns the actions.
func (w *objectWatcher) catchUp(t testing.TB) (actions []pubsub.ObjectAction) {
	t.Helper()
	for line := range bytes.Lines(w.in.take()) {
		pm, err := wire.Decode(wire.JSON, bytes.TrimSpace(line))
		if err != nil || pm.ItemErr != nil {
			t.Fatalf("%v, %v in %s", err, pm.ItemErr, line)
		}
		for _, m := range pm.State {
			w.pool.Apply(m)
			actions = append(actions, m.Operation.Action)
		}
	}
	return actions
}

func (w *objectWatcher) tree(t testing.TB) string {
	t.Helper()
	v, err := w.pool.View(pubsub.RootObject, "")
	if err != nil {
		t.Fatal(err)
	}
	return shown(v)
}

func TestEverybodyEndsWithTheSameObjects(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { everybodyHasTheSameObjects(t, seed) })
	}
}

func everybodyHasTheSameObjects(t *testing.T, seed uint64) {
	c := newNodes(t, 2)
	var watchers []*objectWatcher
	var all sync.WaitGroup
	for i := range 4 {
		w := watchObjects(t, c.hubs[i%2])
		watchers = append(watchers, w)
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for range 20 {
				switch r.IntN(6) {
				case 0:
					w.attach(t, c.hubs[r.IntN(2)])
				case 1:
					w.catchUp(t)
					w.sync(t) // which tells more than what has been received by now
				default:
					w.catchUp(t)
				}
				runtime.Gosched()
			}
		})
	}
	var mu sync.Mutex
	sums := make(map[string]float64) // nothing is subtracted by others
	for i := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := range 40 {
				var operations []*pubsub.ObjectOperation
				for range 1 + r.IntN(3) {
					operations = append(operations, randomChange(r, fmt.Sprint(i, "-", n)))
				}
				q := objectChange(operations...)
				q.ConnectionID, q.MsgSerial = fmt.Sprint("conn", i), int64(n)
				for range 1 + r.IntN(5)/4 { // a client that was cut off sends it again, perhaps elsewhere
					again := *q
					again.Items = nil
					for _, m := range q.Items {
						same := *m
						again.Items = append(again.Items, &same)
					}
					if _, err := tryOperate(t, c.hubs[r.IntN(2)], &again); err != nil {
						t.Errorf("got %v", err)
					}
				}
				mu.Lock()
				for _, op := range operations {
					sums[op.ObjectID] += op.Number
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for _, h := range c.hubs {
		h.Close()
	}
	want := tree(t, c.hubs[0])
	for i, w := range watchers {
		w.catchUp(t)
		if got := w.tree(t); got != want {
			t.Errorf("watcher %d has\n%s\nand the server\n%s", i, got, want)
		}
		if len(w.pool) < 5 {
			t.Errorf("watcher %d knows only %v", i, w.pool)
		}
		for id, sum := range sums {
			if o := w.pool[id]; strings.HasPrefix(id, "counter:") && (o == nil || o.Count != sum) {
				t.Errorf("watcher %d has %v at %s, want %v", i, o, id, sum)
			}
		}
		w.at.Detach()
	}
}

// randomChange is an operation on one of a few objects, which refer to each other.
func randomChange(r *rand.Rand, value string) *pubsub.ObjectOperation {
	maps := []string{"root", "map:a@1", "map:b@1", "map:c@1"}
	counters := []string{"counter:a@1", "counter:b@1"}
	id, key := maps[r.IntN(len(maps))], string(rune('a'+r.IntN(5)))
	switch n := r.IntN(20); {
	case n < 5:
		return increase(counters[r.IntN(2)], float64(r.IntN(9)-4))
	case n < 8:
		return removeKey(id, key)
	case n == 8:
		return operation(pubsub.MapClear, maps[1+r.IntN(3)])
	case n < 13:
		return refer(id, key, slices.Concat(maps[1:], counters)[r.IntN(5)])
	}
	return setKey(id, key, value)
}

// What nothing leads to is deleted after a day, and forgotten after another. What finds its way back is
// not.
func TestObjectsToWhichNothingLeadsAreDeletedAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		w := watchObjects(t, h)
		defer func() { w.at.Detach() }()
		look := func() []pubsub.ObjectAction {
			t.Helper()
			w.attach(t, h) // as somebody does now and then
			synctest.Wait()
			return w.catchUp(t)
		}
		operate(t, h, refer("map:a@1", "in", "map:b@1"), refer("map:b@1", "back", "map:a@1"), increase("counter:c@1", 1), increase("counter:d@1", 1),
			refer("root", "d", "counter:d@1"), setKey("root", "gone", "x"))
		operate(t, h, removeKey("root", "gone"))
		synctest.Wait()
		time.Sleep(23 * time.Hour)
		if actions := look(); len(actions) > 2 {
			t.Errorf("too early: %v", actions)
		}
		operate(t, h, refer("root", "c", "counter:c@1"))
		operate(t, h, removeKey("root", "d"))
		time.Sleep(2 * time.Hour)
		if got := fmt.Sprint(look()); got != "[5 5]" {
			t.Errorf("got %v", got)
		}
		for id, deleted := range map[string]bool{"map:a@1": true, "map:b@1": true, "counter:c@1": false, "counter:d@1": false, "root": false} {
			if o := w.pool[id]; o == nil || o.Deleted != deleted {
				t.Errorf("%s is %+v", id, o)
			}
		}
		var e *pubsub.Error
		if _, err := tryOperate(t, h, objectChange(setKey("map:a@1", "x", "y"))); !errors.As(err, &e) || e.Code != pubsub.CodeObjectDeleted {
			t.Errorf("got %v", err)
		}
		time.Sleep(26 * time.Hour)
		if got := fmt.Sprint(look()); got != "[5]" {
			t.Errorf("got %v", got)
		}
		time.Sleep(2 * time.Hour)
		look()
		w.sync(t)
		if w.pool["map:a@1"] != nil || w.pool["counter:d@1"] == nil || tree(t, h) != "{c:1}" {
			t.Errorf("there is %v", w.pool)
		}
	})
}

// Objects of a channel that is used last as long as those that change.
func TestObjectsExpireTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		operate(t, h, increase("counter:a@1", 1), refer("root", "a", "counter:a@1"))
		synctest.Wait()
		for range 80 {
			time.Sleep(48 * time.Hour)
			operate(t, h, setKey("root", "k", "v"))
			synctest.Wait()
		}
		if got := tree(t, h); got != "{a:1 k:v}" {
			t.Errorf("got %s", got)
		}
		time.Sleep(93 * 24 * time.Hour)
		if got := tree(t, h); got != "{}" {
			t.Errorf("got %s", got)
		}
	})
}
