package hub_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anyone is a grant to do everything.
var anyone = &auth.Grant{App: "app", KeyName: "app.key", ClientRule: auth.ClientAny, Capability: auth.FullCapability}

// spied is an engine whose subscriber and Appends a test gets at.
type spied struct {
	engine.Engine
	subscriber engine.Subscriber
	appendErr  error // instead of appending
	readErr    error // instead of reading
}

func (s *spied) Subscribe(ctx context.Context, id pubsub.ChannelID, sub engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	s.subscriber = sub
	return s.Engine.Subscribe(ctx, id, sub)
}

func (s *spied) Append(a *engine.Append, done func(engine.Result)) {
	if s.appendErr != nil {
		done(engine.Result{Err: s.appendErr})
		return
	}
	s.Engine.Append(a, done)
}

func (s *spied) Read(ctx context.Context, id pubsub.ChannelID, q engine.Query) (engine.Page, error) {
	if s.readErr != nil {
		return engine.Page{}, s.readErr
	}
	return s.Engine.Read(ctx, id, q)
}

func newHub(t testing.TB, options ...func(*hub.Options)) *hub.Hub {
	t.Helper()
	node := directory.Node{Name: "n1", Incarnation: "i1"}
	o := hub.Options{
		Engine:    enginememory.NewStore(enginememory.Options{}).Node(node.Name),
		Directory: directorymemory.NewStore(directorymemory.Options{}).Node(node),
		Node:      node,
	}
	for _, option := range options {
		option(&o)
	}
	h := hub.New(o)
	t.Cleanup(h.Close)
	return h
}

// name parses a channel's name.
func name(s string) pubsub.ChannelName {
	n, err := pubsub.ParseChannelName(s)
	if err != nil {
		panic(err)
	}
	return n
}

// lines is a form that writes an entry as lines "<serial> <data of its first message>". It
// counts what it encodes.
type lines struct {
	label string
	items bool // one frame per message
	count *encodings
}

type encodings struct {
	mu sync.Mutex
	of map[string]int // by label and serial
}

func newLines(label string) lines {
	return lines{label: label, count: &encodings{of: make(map[string]int)}}
}

func (f lines) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	f.count.mu.Lock()
	f.count.of[f.label+" "+string(e.Serial)]++
	f.count.mu.Unlock()
	for i, m := range e.Body.Messages {
		if i > 0 && !f.items {
			break
		}
		dst = append(dst, e.Serial...)
		dst = append(dst, ' ')
		dst = append(dst, m.Data.Bytes...)
		dst = append(dst, '\n')
		item := hub.AllItems
		if f.items {
			item = i
		}
		units = append(units, hub.Unit{Entry: index, Item: item, End: len(dst)})
	}
	return dst, units
}

// inbox is a receiver that keeps everything.
type inbox struct {
	mu       sync.Mutex
	text     []byte
	parcels  int
	lost     []pubsub.Serial
	dangling bool // the last Receive said that more follows
}

func (b *inbox) Receive(frames []byte, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, frames...)
	b.parcels++
	b.dangling = more
}

func (b *inbox) Lost(position pubsub.Serial) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost = append(b.lost, position)
}

// got returns the serials and the data that arrived.
func (b *inbox) got() (serials []pubsub.Serial, data []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(string(b.text)) {
		serial, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		serials = append(serials, pubsub.Serial(serial))
		data = append(data, text)
	}
	return serials, data
}

func (b *inbox) data() string {
	_, data := b.got()
	return strings.Join(data, " ")
}

func attach(t testing.TB, h *hub.Hub, a hub.Attach) *hub.Attachment {
	t.Helper()
	at, err := h.Attach(t.Context(), complete(&a))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func complete(a *hub.Attach) *hub.Attach {
	if a.Grant == nil {
		a.Grant = anyone
	}
	if a.Channel.Base == "" {
		a.Channel = name("room")
	}
	if a.Form == nil {
		a.Form = sharedLines
	}
	if a.Receiver == nil {
		a.Receiver = new(inbox)
	}
	return a
}

var sharedLines = newLines("shared")

// message makes one message.
// regrant gives an attachment the modes that a grant allows.
func regrant(a *hub.Attachment, g *auth.Grant, name pubsub.ChannelName, asked pubsub.Mode) error {
	modes, err := a.Allowed(g, name, asked)
	if err == nil {
		a.Mark(&hub.Change{Modes: modes}, func() {})
	}
	return err
}

func message(name, data string) []*pubsub.Message {
	return []*pubsub.Message{{Name: name, Data: pubsub.Text(data)}}
}

// publish publishes within a turn, and fails the test if it is refused.
func publish(t testing.TB, h *hub.Hub, turn *hub.Turn, p hub.Publish) hub.Published {
	t.Helper()
	if p.Grant == nil {
		p.Grant = anyone
	}
	if p.Channel.Base == "" {
		p.Channel = name("room")
	}
	var out hub.Published
	if err := h.Publish(turn, &p, func(r hub.Published) { out = r }); err != nil {
		t.Fatal(err)
	}
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	return out
}

// say publishes one text and ends the turn.
func say(t testing.TB, h *hub.Hub, text string) hub.Published {
	t.Helper()
	var turn hub.Turn
	p := publish(t, h, &turn, hub.Publish{Messages: message("n", text)})
	turn.End()
	return p
}

func numbers(from, to int) string {
	var s []string
	for i := from; i <= to; i++ {
		s = append(s, strconv.Itoa(i))
	}
	return strings.Join(s, " ")
}
