package session_test

import (
	"bytes"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// credentials is an Authenticator whose tokens are named by a test. Without a token one may
// do everything.
type credentials map[string]*auth.Grant

func (c credentials) Realtime(q url.Values, _ http.Header) (*auth.Grant, error) {
	if token := q.Get("access_token"); token != "" {
		return c.RealtimeToken(token, "")
	}
	return &auth.Grant{App: "app", KeyName: "app.key", ClientRule: auth.ClientAny, Capability: auth.FullCapability}, nil
}

func (c credentials) RealtimeToken(token, _ string) (*auth.Grant, error) {
	if g := c[token]; g != nil {
		return g, nil
	}
	return nil, pubsub.NewError(pubsub.CodeInvalidJWT, "invalid JWT format")
}

// Admit implements Authenticator.
func (c credentials) Admit(g *auth.Grant, p auth.Peer) (*auth.Grant, *pubsub.Error) {
	return g.ForPeer(p)
}

// Recheck implements Authenticator: a token without a grant is revoked, a key never.
func (c credentials) Recheck(g *auth.Grant) *pubsub.Error {
	for _, known := range c {
		if known == g {
			return nil
		}
	}
	if g.KeyName == "app.key" && g.ClientRule == auth.ClientAny {
		return nil
	}
	return pubsub.NewError(pubsub.CodeTokenRevoked, "token revoked")
}

// deferring is an engine that answers Appends when the test says so.
type deferring struct {
	engine.Engine
	mu      sync.Mutex
	waiting []func()
	fail    func(n int) error // outcome of the n-th Append; nil: as the engine says
	count   int
}

func (d *deferring) Append(a *engine.Append, done func(engine.Result)) {
	d.Engine.Append(a, func(r engine.Result) {
		d.mu.Lock()
		defer d.mu.Unlock()
		n := d.count
		d.count++
		if d.fail != nil {
			if err := d.fail(n); err != nil {
				r = engine.Result{Err: err}
			}
		}
		d.waiting = append(d.waiting, func() { done(r) })
	})
}

// take removes and returns the i-th answer that is held back.
func (d *deferring) take(i int) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := d.waiting[i]
	d.waiting = append(d.waiting[:i:i], d.waiting[i+1:]...)
	return answer
}

func (d *deferring) held() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

// node is a session manager with all that it needs.
type node struct {
	*session.Manager
	directory *directorymemory.Directory
	engine    engine.Engine
	hub       *hub.Hub
	tokens    credentials
}

func newNode(t *testing.T, options ...func(*session.Options, *hub.Options)) *node {
	t.Helper()
	me := directory.Node{Name: "n1", Incarnation: "i1"}
	n := &node{directory: directorymemory.NewStore(directorymemory.Options{}).Node(me), tokens: make(credentials)}
	h := hub.Options{Engine: enginememory.NewStore(enginememory.Options{}).Node(me.Name), Directory: n.directory, Node: me}
	o := session.Options{
		Directory: n.directory, Node: me, Auth: n.tokens, KeySecret: []byte("secret"),
		After: func(d time.Duration, f func()) func() {
			timer := time.AfterFunc(d, f)
			return func() { timer.Stop() }
		},
	}
	for _, option := range options {
		option(&o, &h)
	}
	n.engine = h.Engine
	o.Hub = hub.New(h)
	n.hub = o.Hub
	t.Cleanup(o.Hub.Close)
	n.Manager = session.NewManager(o)
	return n
}

// limits is an option of newNode.
func limits(l limit.Limits) func(*session.Options, *hub.Options) {
	return func(_ *session.Options, o *hub.Options) { o.Limits = limit.NewSet(l, limit.Options{}) }
}

// line is a transport that keeps what is sent, in order.
type line struct {
	mu     sync.Mutex
	sent   []*wire.ProtocolMessage
	held   map[*outbox.Gate][]*wire.ProtocolMessage
	ended  map[*outbox.Gate]bool
	closed bool

	releasing func()    // called when an attachment is about to begin
	postpone  *[]func() // takes what is to be done soon; nil: it is done at once

	session *session.Session
	turn    hub.Turn
}

func (n *node) connect(t *testing.T, query string) *line {
	t.Helper()
	l, err := n.tryConnect(t, query)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (n *node) tryConnect(t *testing.T, query string) (*line, error) {
	t.Helper()
	q, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{held: make(map[*outbox.Gate][]*wire.ProtocolMessage), ended: make(map[*outbox.Gate]bool)}
	l.session, err = n.Open(t.Context(), &session.Request{Query: q, Header: make(http.Header), Peer: auth.Peer{Secure: true}}, l)
	return l, err
}

func (l *line) Send(pm *wire.ProtocolMessage, _ bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		if pm.Action == wire.ActionAck { // as others see it
			pm, _ = wire.Decode(wire.JSON, wire.Append(nil, wire.JSON, pm))
		}
		l.sent = append(l.sent, pm)
	}
}

func (l *line) Form(name string, _ wire.Layout) hub.Form { return form(name) }

func (l *line) Deliver(gate *outbox.Gate, frames []byte, _ bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pms []*wire.ProtocolMessage
	for frame := range bytes.Lines(frames) {
		pm, err := wire.Decode(wire.JSON, bytes.TrimSpace(frame))
		if err != nil { // a message in our own form
			pm = &wire.ProtocolMessage{Action: wire.ActionMessage, Channel: string(frame)}
		}
		pms = append(pms, pm)
	}
	if held, holding := l.held[gate]; holding {
		l.held[gate] = append(held, pms...)
	} else if !l.closed && !l.ended[gate] {
		l.sent = append(l.sent, pms...)
	}
}

func (l *line) Hold(gate *outbox.Gate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[gate] = nil
	delete(l.ended, gate)
}

func (l *line) Pause(gate *outbox.Gate) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended[gate] {
		return false
	}
	if _, holding := l.held[gate]; !holding {
		l.held[gate] = nil
	}
	return true
}

func (l *line) Encode(pm *wire.ProtocolMessage) []byte { return wire.Append(nil, wire.JSON, pm) }

func (l *line) Release(gate *outbox.Gate, first ...[]byte) {
	if l.releasing != nil {
		l.releasing()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended[gate] {
		return
	}
	for _, frame := range first {
		pm, err := wire.Decode(wire.JSON, frame)
		if err != nil { // a delivery in our own form
			pm = &wire.ProtocolMessage{Action: wire.ActionMessage, Channel: string(frame)}
		}
		l.sent = append(l.sent, pm)
	}
	l.sent = append(l.sent, l.held[gate]...)
	delete(l.held, gate)
}

func (l *line) End(gate *outbox.Gate, last *wire.ProtocolMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, gate)
	l.ended[gate] = true
	if last != nil && !l.closed {
		l.sent = append(l.sent, last)
	}
}

func (l *line) Mute(gate *outbox.Gate) { l.End(gate, nil) }

func (l *line) Soon(f func()) {
	if l.postpone != nil {
		*l.postpone = append(*l.postpone, f)
		return
	}
	f()
}

func (l *line) Close(last *wire.ProtocolMessage) {
	if last != nil {
		l.Send(last, true)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// form writes the name under which a channel was attached, and presence as it is.
type form string

func (f form) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if e.Kind == engine.KindPresence {
		dst = wire.AppendPresencePM(dst, wire.JSON, string(f), wire.Entry{
			Serial: e.Serial, Position: e.Position(), Timestamp: e.Timestamp, Batch: e.Body,
		})
		dst = append(dst, '\n')
	} else {
		dst = append(dst, f...)
	}
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// take returns what was sent since the last time.
func (l *line) take() []*wire.ProtocolMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

func (l *line) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// says hands messages to the session as one turn.
func (l *line) says(pms ...*wire.ProtocolMessage) {
	for _, pm := range pms {
		l.session.Handle(&l.turn, pm)
	}
	l.session.EndTurn(&l.turn)
}

// only returns the one message that was sent.
func (l *line) only(t *testing.T, action wire.Action) *wire.ProtocolMessage {
	t.Helper()
	sent := l.take()
	if len(sent) != 1 || sent[0].Action != action {
		t.Fatalf("got %v, want one %v", actions(sent), action)
	}
	return sent[0]
}

func actions(pms []*wire.ProtocolMessage) (list []wire.Action) {
	for _, pm := range pms {
		list = append(list, pm.Action)
	}
	return list
}

func message(channel string, msgSerial int64) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionMessage, Channel: channel, HasChannel: true, MsgSerial: msgSerial,
		Messages: []*pubsub.Message{{Data: pubsub.Text("x")}}}
}

func attach(channel string) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionAttach, Channel: channel, HasChannel: true}
}
