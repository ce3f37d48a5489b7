package hub_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// mutableRoom is a channel whose messages may be changed.
var mutableRoom = name("mutable:room")

func mutableRule(_, channel string) auth.Namespace {
	return auth.Namespace{MutableMessages: pubsub.Namespace(channel) == "mutable", Persisted: true}
}

func mutableHub(t testing.TB) *hub.Hub {
	return newHub(t, func(o *hub.Options) { o.Namespace = mutableRule })
}

// nodes is several nodes on one store, which learn of each other's Appends at once.
type nodes struct {
	mu   sync.Mutex
	subs map[engine.Subscriber]bool
	hubs []*hub.Hub
}

type clustered struct {
	engine.Engine
	of *nodes
}

func (e clustered) Subscribe(ctx context.Context, id pubsub.ChannelID, s engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	e.of.mu.Lock()
	e.of.subs[s] = true
	e.of.mu.Unlock()
	return e.Engine.Subscribe(ctx, id, s)
}

func (e clustered) Append(a *engine.Append, done func(engine.Result)) {
	e.Engine.Append(a, done)
	e.of.mu.Lock()
	defer e.of.mu.Unlock()
	for s := range e.of.subs {
		s.Flush()
	}
}

func newNodes(t testing.TB, n int) *nodes {
	c := &nodes{subs: make(map[engine.Subscriber]bool)}
	store := enginememory.NewStore(enginememory.Options{})
	dir := directorymemory.NewStore(directorymemory.Options{})
	for i := range n {
		node := directory.Node{Name: fmt.Sprint("n", i), Incarnation: "i"}
		c.hubs = append(c.hubs, newHub(t, func(o *hub.Options) {
			o.Engine, o.Directory, o.Node = clustered{store.Node(node.Name), c}, dir.Node(node), node
			o.Namespace = mutableRule
		}))
	}
	return c
}

// act publishes or changes a message and returns the serial of what came of it.
func act(t testing.TB, h *hub.Hub, p hub.Publish) string {
	t.Helper()
	p.Channel = mutableRoom
	var turn hub.Turn
	out := publish(t, h, &turn, p)
	turn.End()
	return out.Serial.Item(0)
}

func change(action pubsub.MessageAction, serial, data string) []*pubsub.Message {
	return []*pubsub.Message{{Action: action, Serial: serial, Data: pubsub.Text(data)}}
}

func now(t testing.TB, h *hub.Hub, serial string) *pubsub.Message {
	t.Helper()
	m, err := h.Message(t.Context(), &hub.OneMessage{Grant: anyone, Channel: mutableRoom, Serial: serial})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// frames is a form that writes entries of messages as lines of JSON.
type frames struct{ label string }

func (f frames) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if len(e.Body.Messages) == 0 {
		return dst, units
	}
	dst = wire.AppendMessagePM(dst, wire.JSON, f.label, wire.Entry{Serial: e.Serial, Position: e.Position(), Timestamp: e.Timestamp, Batch: e.Body})
	dst = append(dst, '\n')
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// viewer is a client that puts together what it is sent of messages.
type viewer struct {
	mu       sync.Mutex
	round    int    // of its attachments
	held     []byte // until the attachment has begun
	holding  bool
	lost     int
	position pubsub.Serial
	got      []*pubsub.Message
	text     map[string]string // by serial
	wrong    []string
}

// gate is the way from one attachment to a viewer.
type gate struct {
	*viewer
	round int
}

func (g gate) Receive(b []byte, _ bool) {
	r := g.viewer
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.round != r.round { // of an attachment that has ended
		return
	}
	if r.holding {
		r.held = append(r.held, b...)
		return
	}
	r.read(b)
}

func (g gate) Lost(pubsub.Serial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost++
}

func (r *viewer) read(b []byte) {
	for line := range bytes.Lines(b) {
		pm, err := wire.Decode(wire.JSON, bytes.TrimSpace(line))
		if err != nil {
			r.wrong = append(r.wrong, err.Error())
			continue
		}
		pm.Inherit()
		r.position = pubsub.Serial(pm.ChannelSerial)
		for _, m := range pm.Messages {
			r.got = append(r.got, m)
			before, known := r.text[m.Serial]
			switch {
			case m.Action != pubsub.MessageAppend:
				r.text[m.Serial] = string(m.Data.Bytes)
			case known:
				r.text[m.Serial] = before + string(m.Data.Bytes)
			default:
				r.wrong = append(r.wrong, "a part of a message that was never sent: "+m.Serial)
			}
		}
	}
}

// attach makes r a member, in the way of a session: what is sent of the past comes first.
func (r *viewer) attach(t testing.TB, h *hub.Hub, a hub.Attach, past func(*hub.Attachment) hub.Backlog) *hub.Attachment {
	r.mu.Lock()
	r.holding, r.held = true, nil
	r.round++
	to := gate{r, r.round}
	if r.text == nil {
		r.text = make(map[string]string)
	}
	r.mu.Unlock()
	if a.Form == nil {
		a.Form = frames{"x"}
	}
	a.Channel, a.Receiver = mutableRoom, to
	at := attach(t, h, a)
	var b hub.Backlog
	if past != nil {
		b = past(at)
	}
	if b.Err != nil {
		t.Error(b.Err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.position = at.Position()
	for _, f := range b.Frames {
		r.read(f)
	}
	r.holding = false
	r.read(r.held)
	return at
}

// said returns what was received, as "<action><data>".
func (r *viewer) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, m := range r.got {
		all = append(all, fmt.Sprintf("%d%s", m.Action, m.Data.Bytes))
	}
	return strings.Join(append(all, r.wrong...), " ")
}

// TM5
func TestAChangedMessageKeepsItsSerialAndGetsAVersion(t *testing.T) {
	h := mutableHub(t)
	var r viewer
	r.attach(t, h, hub.Attach{}, nil)
	alice := &auth.Grant{App: "app", ClientRule: auth.ClientIdentified, ClientID: "alice", Capability: auth.FullCapability}
	bob := &auth.Grant{App: "app", ClientRule: auth.ClientIdentified, ClientID: "bob", Capability: auth.FullCapability}
	serial := act(t, h, hub.Publish{Grant: alice, ConnectionID: "c1", Messages: []*pubsub.Message{
		{Name: "n", Data: pubsub.Text("one"), Extras: []byte(`{"headers":{"a":1}}`)},
	}})
	version := act(t, h, hub.Publish{Grant: bob, ConnectionID: "c2", Messages: []*pubsub.Message{{
		Action: pubsub.MessageUpdate, Serial: serial, ID: "c1:0:0", Data: pubsub.Text("two"),
		Version: &pubsub.Version{Description: "why", Metadata: []byte(`{"k":"v"}`)},
	}}})
	if version <= serial {
		t.Errorf("version %s of message %s", version, serial)
	}
	got := r.got[1]
	for what, m := range map[string]*pubsub.Message{"delivered": got, "read": now(t, h, serial)} {
		v := m.Version
		if m.Serial != serial || m.Action != pubsub.MessageUpdate || m.Name != "n" || m.ClientID != "alice" ||
			string(m.Data.Bytes) != "two" || string(m.Extras) != `{"headers":{"a":1}}` || m.Timestamp != r.got[0].Timestamp {
			t.Errorf("%s: %+v", what, m)
		}
		if v == nil || v.Serial != version || v.ClientID != "bob" || v.Description != "why" || string(v.Metadata) != `{"k":"v"}` || v.Timestamp < m.Timestamp {
			t.Errorf("%s: version %+v", what, v)
		}
		if m.ID == "c1:0:0" {
			t.Errorf("%s: has the id of the message that was published", what)
		}
	}
	act(t, h, hub.Publish{Messages: []*pubsub.Message{{Action: pubsub.MessageDelete, Serial: serial}}})
	if m := now(t, h, serial); m.Action != pubsub.MessageDelete || string(m.Data.Bytes) != "two" || m.Name != "n" || m.Version.Description != "" {
		t.Errorf("deleted: %+v", m)
	}
	if got := r.said(); got != "0one 1two 2two" {
		t.Errorf("received %q", got)
	}
}

func TestAChangeIsRefusedWithTheCodeThatSaysWhy(t *testing.T) {
	h := mutableHub(t)
	owner := func(client, ops string) *auth.Grant {
		g := *capability(t, `{"mutable:*":[`+ops+`]}`)
		g.ClientRule, g.ClientID = auth.ClientIdentified, client
		return &g
	}
	alice := owner("alice", `"publish","message-update-own","message-delete-own"`)
	bob := owner("bob", `"message-update-own"`)
	moderator := owner("mod", `"message-delete-any"`)
	nobody := capability(t, `{"mutable:*":["message-update-own"]}`)
	serial := act(t, h, hub.Publish{Grant: alice, Messages: message("n", "x")})
	bytesOf := act(t, h, hub.Publish{Messages: []*pubsub.Message{{Data: pubsub.Binary([]byte{1})}}})
	object := act(t, h, hub.Publish{Messages: []*pubsub.Message{{Data: pubsub.Text(`{"a":1}`), Encoding: "json"}}})
	update, remove, more := pubsub.MessageUpdate, pubsub.MessageDelete, pubsub.MessageAppend
	with := func(m *pubsub.Message, change func(*pubsub.Message)) []*pubsub.Message {
		change(m)
		return []*pubsub.Message{m}
	}
	for _, c := range []struct {
		what     string
		grant    *auth.Grant
		channel  string
		messages []*pubsub.Message
		want     pubsub.Code
	}{
		{"an update of one's own", alice, "", change(update, serial, "y"), 0},
		{"a delete of one's own", alice, "", change(remove, serial, "y"), 0},
		{"an update of another's", bob, "", change(update, serial, "y"), pubsub.CodeCapabilityDenied},
		{"an append to another's", bob, "", change(more, serial, "y"), pubsub.CodeCapabilityDenied},
		{"a delete without the right", bob, "", change(remove, serial, "y"), pubsub.CodeCapabilityDenied},
		{"a delete of any", moderator, "", change(remove, serial, "y"), 0},
		{"an update without the right", moderator, "", change(update, serial, "y"), pubsub.CodeCapabilityDenied},
		{"an update by nobody", nobody, "", change(update, serial, "y"), pubsub.CodeOwnMessagesOnly},
		{"a channel without the rule", anyone, "room", change(update, serial, "y"), pubsub.CodeMutableRuleMissing},
		{"no serial", anyone, "", change(update, "", "y"), pubsub.CodeInvalidParameterValue},
		{"a serial that is none", anyone, "", change(update, "x:000", "y"), pubsub.CodeInvalidParameterValue},
		{"a serial in another form", anyone, "", change(update, strings.Replace(serial, ":000", ":+00", 1), "y"), pubsub.CodeInvalidParameterValue},
		{"a message that is not there", anyone, "", change(update, strings.Replace(serial, ":000", ":001", 1), "y"), pubsub.CodeNotFound},
		{"two at once", anyone, "", append(change(update, serial, "y"), change(update, serial, "y")...), pubsub.CodeBadRequest},
		{"one and a new message", anyone, "", append(change(update, serial, "y"), message("n", "x")...), pubsub.CodeBadRequest},
		{"one in the name of another", bob, "", with(change(update, serial, "y")[0], func(m *pubsub.Message) {
			m.Version = &pubsub.Version{ClientID: "alice"}
		}), pubsub.CodeInvalidClientID},
		{"text to bytes", anyone, "", change(more, bytesOf, "y"), pubsub.CodeInvalidMessageData},
		{"text to an object", anyone, "", change(more, object, "y"), pubsub.CodeInvalidMessageData},
		{"an object to an object", anyone, "", with(change(more, object, "{}")[0], func(m *pubsub.Message) { m.Encoding = "json" }), pubsub.CodeInvalidMessageData},
		{"too much together", anyone, "", change(more, serial, strings.Repeat("y", 65536)), pubsub.CodeMessageTooLarge},
		{"too much of a reason", anyone, "", with(change(update, serial, "y")[0], func(m *pubsub.Message) {
			m.Version = &pubsub.Version{Description: strings.Repeat("y", 65536)}
		}), pubsub.CodeMessageTooLarge},
		{"extras that are not allowed", anyone, "", with(change(update, serial, "y")[0], func(m *pubsub.Message) {
			m.Extras = []byte(`{"userClaim":"root"}`)
		}), pubsub.CodeInvalidExtras},
		{"what cannot be ephemeral", anyone, "", with(change(update, serial, "y")[0], func(m *pubsub.Message) {
			m.Extras = []byte(`{"ephemeral":true}`)
		}), pubsub.CodeBadRequest},
	} {
		t.Run(c.what, func(t *testing.T) {
			called := 0
			channel := mutableRoom
			if c.channel != "" {
				channel = name(c.channel)
			}
			err := h.Publish(new(hub.Turn), &hub.Publish{Grant: c.grant, Channel: channel, Messages: c.messages}, func(hub.Published) { called++ })
			if codeOf(err) != c.want || (err == nil) != (called == 1) {
				t.Errorf("got %v and %d outcomes, want code %d", err, called, c.want)
			}
		})
	}
}

func TestAppendsAreSentAsPartsToThoseWhoHaveTheMessage(t *testing.T) {
	h := mutableHub(t)
	var first, whole, late, quiet viewer
	first.attach(t, h, hub.Attach{ConnectionID: "c1"}, nil)
	whole.attach(t, h, hub.Attach{ConnectionID: "c2", WholeAppends: true}, nil)
	quiet.attach(t, h, hub.Attach{ConnectionID: "c3", NoEcho: true}, nil)
	serial := act(t, h, hub.Publish{Messages: message("n", "a")})
	for _, part := range []string{"b", "c"} {
		act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, serial, part)})
		h.Close()
	}
	late.attach(t, h, hub.Attach{ConnectionID: "c4"}, nil)
	for _, part := range []string{"d", "e"} {
		act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, serial, part)})
		h.Close()
	}
	act(t, h, hub.Publish{ConnectionID: "c3", Messages: change(pubsub.MessageAppend, serial, "f")})
	h.Close()
	act(t, h, hub.Publish{Messages: []*pubsub.Message{{Action: pubsub.MessageAppend, Serial: serial, Name: "other", Data: pubsub.Text("g")}}})
	h.Close()
	act(t, h, hub.Publish{MsgSerial: 1, ConnectionID: "c3", Messages: change(pubsub.MessageAppend, serial, "h")})
	h.Close()
	act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, serial, "i")})
	h.Close()
	for _, c := range []struct {
		what string
		r    *viewer
		want string
	}{
		{"the first", &first, "0a 5b 5c 5d 5e 5f 1abcdefg 5h 5i"},
		{"one that wants all of it", &whole, "0a 1ab 1abc 1abcd 1abcde 1abcdef 1abcdefg 1abcdefgh 1abcdefghi"},
		{"one that came late", &late, "1abcd 5e 5f 1abcdefg 5h 5i"},
		{"one without echo", &quiet, "0a 1ab 5c 5d 5e 1abcdefg 1abcdefghi"},
	} {
		if got := c.r.said(); got != c.want {
			t.Errorf("%s received %q, want %q", c.what, got, c.want)
		}
	}
}

func TestARewindShowsMessagesAsTheyAreNow(t *testing.T) {
	h := mutableHub(t)
	one := act(t, h, hub.Publish{Messages: message("n", "1")})
	act(t, h, hub.Publish{Messages: message("n", "2")})
	three := act(t, h, hub.Publish{Messages: message("n", "3")})
	act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, one, "+")})
	act(t, h, hub.Publish{Messages: change(pubsub.MessageDelete, three, "gone")})
	var r viewer
	r.attach(t, h, hub.Attach{}, func(a *hub.Attachment) hub.Backlog {
		return a.Rewind(t.Context(), hub.Rewind{Limit: 100})
	})
	act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, one, "+")})
	act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, three, "!")})
	h.Close()
	if got, want := r.said(), "11+ 02 2gone 5+ 5!"; got != want {
		t.Errorf("received %q, want %q", got, want)
	}
	page, err := h.Messages(t.Context(), &hub.History{Grant: anyone, Channel: mutableRoom, Limit: 10, Forwards: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range page.Messages {
		all = append(all, fmt.Sprintf("%d%s", m.Action, m.Data.Bytes))
	}
	if got, want := strings.Join(all, " "), "11++ 02 1gone!"; got != want {
		t.Errorf("the history is %q, want %q", got, want)
	}
}

func TestTheVersionsOfAMessageAreItsCreationUpdatesAndWhatItIs(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: message("n", "1")})
	other := act(t, h, hub.Publish{Messages: message("n", "other")})
	for i, data := range []string{"2", "3", "4"} {
		act(t, h, hub.Publish{Messages: change(pubsub.MessageUpdate, serial, data)})
		act(t, h, hub.Publish{Messages: change(pubsub.MessageUpdate, other, fmt.Sprint("other ", i))})
	}
	act(t, h, hub.Publish{Messages: change(pubsub.MessageDelete, serial, "5")})
	act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, serial, "6")})
	act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, serial, "7")})
	for _, backwards := range []bool{false, true} {
		want := "01 12 13 14 25 1567"
		if backwards {
			want = "1567 25 14 13 12 01"
		}
		for _, limit := range []int{1, 2, 4, 6, 100} {
			q := hub.Versions{OneMessage: hub.OneMessage{Grant: anyone, Channel: mutableRoom, Serial: serial}, Limit: limit, Backwards: backwards}
			var all []string
			for pages := 1; ; pages++ {
				page, err := h.MessageVersions(t.Context(), &q)
				if err != nil || len(page.Messages) > limit || pages > 6 {
					t.Fatal(err, len(page.Messages), pages)
				}
				for _, m := range page.Messages {
					if m.Serial != serial {
						t.Errorf("got a version of %s", m.Serial)
					}
					all = append(all, fmt.Sprintf("%d%s", m.Action, m.Data.Bytes))
				}
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
			}
			if got := strings.Join(all, " "); got != want {
				t.Errorf("by %d, backwards %t: got %q, want %q", limit, backwards, got, want)
			}
		}
	}
}

// RTN19a
func TestAChangeThatIsSentAgainIsDoneOnce(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: message("n", "a")})
	first := act(t, h, hub.Publish{ConnectionID: "c1", MsgSerial: 7, Messages: change(pubsub.MessageAppend, serial, "b")})
	again := act(t, h, hub.Publish{ConnectionID: "c1", MsgSerial: 7, Messages: change(pubsub.MessageAppend, serial, "b")})
	if m := now(t, h, serial); first != again || string(m.Data.Bytes) != "ab" {
		t.Errorf("versions %s and %s, data %q", first, again, m.Data.Bytes)
	}
}

// Two nodes append to one message as fast as they can, each part once, and everybody ends with
// the same text.
func TestAppendsFromTwoNodesEndInOneText(t *testing.T) {
	c := newNodes(t, 2)
	viewers := make([]*viewer, 4)
	for i := range viewers {
		viewers[i] = new(viewer)
		viewers[i].attach(t, c.hubs[i%2], hub.Attach{ConnectionID: fmt.Sprint("r", i), WholeAppends: i >= 2}, nil)
	}
	serial := act(t, c.hubs[0], hub.Publish{Messages: message("n", ".")})
	const each = 200
	var wg sync.WaitGroup
	for node, h := range c.hubs {
		wg.Go(func() {
			for i := range each {
				act(t, h, hub.Publish{ConnectionID: fmt.Sprint("w", node), MsgSerial: int64(i), Messages: change(pubsub.MessageAppend, serial, fmt.Sprintf("%d:%d;", node, i))})
			}
		})
	}
	wg.Wait()
	for _, h := range c.hubs {
		h.Close()
	}
	want := string(now(t, c.hubs[0], serial).Data.Bytes)
	for node := range c.hubs {
		at := 0
		for i := range each {
			part := fmt.Sprintf("%d:%d;", node, i)
			if strings.Count(want, part) != 1 || strings.Index(want, part) < at {
				t.Fatalf("%q is not once and in order in %s", part, want)
			}
			at = strings.Index(want, part)
		}
	}
	for i, r := range viewers {
		if r.text[serial] != want || len(r.wrong) > 0 || r.lost > 0 {
			t.Errorf("viewer %d has %q, wants %q; %v, lost %d", i, r.text[serial], want, r.wrong, r.lost)
		}
	}
}

// Clients come, go, resume and rewind while messages are changed on two nodes. What each of
// them has put together of a message is what the message is.
func TestWhateverAClientSeesOfAppendsAddsUp(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newNodes(t, 2)
			var mu sync.Mutex
			var serials []string
			var wg sync.WaitGroup
			for node, h := range c.hubs {
				rng := rand.New(rand.NewPCG(seed, uint64(node)))
				wg.Go(func() {
					for i := range 150 {
						connection := fmt.Sprint("c", rng.IntN(6))
						p := hub.Publish{ConnectionID: connection, MsgSerial: int64(i*2 + node), Final: true}
						mu.Lock()
						if len(serials) == 0 || rng.IntN(8) == 0 {
							mu.Unlock()
							p.Messages = message("n", fmt.Sprint("<", node, i))
							serial := act(t, h, p)
							mu.Lock()
							serials = append(serials, serial)
							mu.Unlock()
							continue
						}
						serial := serials[rng.IntN(len(serials))]
						mu.Unlock()
						action := pubsub.MessageAppend
						if rng.IntN(10) == 0 {
							action = pubsub.MessageUpdate
						}
						p.Messages = change(action, serial, fmt.Sprint(".", node, i))
						act(t, h, p)
					}
				})
			}
			viewers := make([]*viewer, 6)
			for i := range viewers {
				r := new(viewer)
				viewers[i] = r
				rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
				h := c.hubs[i%2]
				a := hub.Attach{ConnectionID: fmt.Sprint("c", i), NoEcho: i == 4, WholeAppends: i == 5}
				wg.Go(func() {
					var at *hub.Attachment
					for round := range 30 {
						how := rng.IntN(3)
						if round == 0 {
							how = rng.IntN(2)
						}
						if at != nil {
							at.Detach()
						}
						r.mu.Lock()
						r.round++
						if how < 2 {
							r.text = nil
						}
						r.mu.Unlock()
						switch how {
						case 0:
							at = r.attach(t, h, a, nil)
						case 1:
							at = r.attach(t, h, a, func(at *hub.Attachment) hub.Backlog { return at.Rewind(t.Context(), hub.Rewind{Limit: rng.IntN(8)}) })
						default:
							r.mu.Lock()
							since := r.position
							r.mu.Unlock()
							at = r.attach(t, h, a, func(at *hub.Attachment) hub.Backlog { return at.Resume(t.Context(), since) })
						}
						for range rng.IntN(20) {
							if _, err := h.Message(t.Context(), &hub.OneMessage{Grant: anyone, Channel: mutableRoom, Serial: "x"}); err == nil {
								t.Error("there is a message x")
							}
						}
					}
				})
			}
			wg.Wait()
			// Those without echo learn of what they have missed with the next change.
			for _, serial := range serials {
				act(t, c.hubs[0], hub.Publish{Messages: change(pubsub.MessageAppend, serial, "!")})
			}
			for _, h := range c.hubs {
				h.Close()
			}
			for i, r := range viewers {
				if len(r.wrong) > 0 || r.lost > 0 {
					t.Errorf("viewer %d: %v, lost %d", i, r.wrong, r.lost)
				}
				if len(r.text) < len(serials) {
					t.Errorf("viewer %d has %d messages of %d", i, len(r.text), len(serials))
				}
				for serial, text := range r.text {
					if want := string(now(t, c.hubs[0], serial).Data.Bytes); text != want {
						t.Errorf("viewer %d has %q of %s, which is %q", i, text, serial, want)
					}
				}
			}
		})
	}
}

// The log keeps what was appended, and not for each append all that the message was then.
func TestTheLogOfAppendsIsAsLongAsTheMessage(t *testing.T) {
	h := mutableHub(t)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	serial := act(t, h, hub.Publish{Messages: []*pubsub.Message{{Data: pubsub.Text(strings.Repeat("x", 40<<10)), Extras: []byte(`{"headers":{"a":1}}`)}}})
	before := heap()
	const count = 500
	for range count {
		act(t, h, hub.Publish{Messages: change(pubsub.MessageAppend, serial, "y")})
	}
	if grown := heap() - before; grown > count*10<<10 {
		t.Errorf("%d appends to a message of 40 KiB keep %d KiB", count, grown>>10)
	}
	if m := now(t, h, serial); string(m.Extras) != `{"headers":{"a":1}}` || len(m.Data.Bytes) != 40<<10+count {
		t.Errorf("%s, %d bytes", m.Extras, len(m.Data.Bytes))
	}
}
