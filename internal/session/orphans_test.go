package session_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

// forgetful is a directory whose store has forgotten this node when the test says so.
type forgetful struct {
	*directorymemory.Directory
	returned chan struct{}
	failures atomic.Int64 // of Reclaim, which several call at once
}

func (f *forgetful) Returned() <-chan struct{} { return f.returned }

func (f *forgetful) Reclaim(ctx context.Context, c directory.Connection) (bool, error) {
	if f.failures.Add(-1) >= 0 {
		return false, directory.ErrUnavailable
	}
	return f.Directory.Reclaim(ctx, c)
}

// cluster is nodes that share their stores.
type cluster struct {
	records *directorymemory.Store
	engine  *enginememory.Store

	mu          sync.Mutex
	subscribers []engine.Subscriber
}

func newCluster() *cluster {
	return &cluster{records: directorymemory.NewStore(directorymemory.Options{}), engine: enginememory.NewStore(enginememory.Options{})}
}

// flushing is the engine of a node that shares it, which has to be told when to send.
type flushing struct {
	engine.Engine
	cluster *cluster
}

func (f flushing) Subscribe(ctx context.Context, id pubsub.ChannelID, s engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	f.cluster.mu.Lock()
	f.cluster.subscribers = append(f.cluster.subscribers, s)
	f.cluster.mu.Unlock()
	return f.Engine.Subscribe(ctx, id, s)
}

func (f flushing) Append(a *engine.Append, done func(engine.Result)) {
	f.Engine.Append(a, func(r engine.Result) {
		done(r)
		f.cluster.mu.Lock()
		defer f.cluster.mu.Unlock()
		for _, s := range f.cluster.subscribers {
			go s.Flush()
		}
	})
}

// node starts a node.
func (c *cluster) node(t *testing.T, name string) (*node, directory.Node, *forgetful) {
	t.Helper()
	me := directory.Node{Name: name, Incarnation: name}
	d := &forgetful{Directory: c.records.Node(me), returned: make(chan struct{}, 1)}
	n := newNode(t, func(o *session.Options, h *hub.Options) {
		o.Node, h.Node, o.Directory, h.Directory, h.Engine = me, me, d, d, flushing{c.engine.Node(name), c}
	})
	n.directory = d.Directory
	n.run(t)
	go func() { _ = n.RunOrphans(t.Context()) }()
	return n, me, d
}

// told is tells for what comes from other nodes.
func told(t *testing.T, l *line, want string) {
	t.Helper()
	synctest.Wait()
	l.tells(t, want)
}

func TestMembersOfANodeThatIsGoneLeaveWhenNobodyResumesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		a, gone, _ := c.node(t, "a")
		b, _, _ := c.node(t, "b")
		w := b.watcher(t, "x")
		enter := func(clientID, params string) *wire.ProtocolMessage {
			l := a.connect(t, params)
			connected := l.only(t, wire.ActionConnected)
			l.says(attach("x"), present("x", 0, pubsub.PresenceEnter, clientID, "1"))
			return connected
		}
		enter("anna", "remainPresentFor=5000")
		ben := enter("ben", "remainPresentFor=5000")
		cleo := enter("cleo", "remainPresentFor=200000") // longer than its record lives
		told(t, w, "PRESENCE enter anna=1, PRESENCE enter ben=1, PRESENCE enter cleo=1")

		c.records.Bury(gone)
		time.Sleep(4 * time.Second)
		resumed := b.connect(t, "resume="+ben.ConnectionKey)
		if is := resumed.only(t, wire.ActionConnected); is.ConnectionID != ben.ConnectionID {
			t.Fatalf("not resumed: %+v", is)
		}
		told(t, w, "")
		time.Sleep(4 * time.Second)
		told(t, w, "PRESENCE leave anna=1")
		time.Sleep(180 * time.Second)
		told(t, w, "")
		time.Sleep(20 * time.Second)
		told(t, w, "PRESENCE leave cleo=1")
		if is := b.connect(t, "resume="+cleo.ConnectionKey).only(t, wire.ActionConnected); is.ConnectionID == cleo.ConnectionID {
			t.Error("it is resumed after its record has expired")
		}
		// It has not attached since, and leaves nevertheless.
		resumed.says(&wire.ProtocolMessage{Action: wire.ActionClose})
		told(t, w, "PRESENCE leave ben=1")
	})
}

func TestANodeThatWasTakenForGoneHasItsConnectionsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		a, me, forgetting := c.node(t, "a")
		b, _, _ := c.node(t, "b")
		w := b.watcher(t, "x")
		l := a.connect(t, "remainPresentFor=1000")
		l.only(t, wire.ActionConnected)
		l.says(attach("x"), present("x", 0, pubsub.PresenceEnter, "anna", "1"))
		lost := a.connect(t, "remainPresentFor=30000")
		of := lost.only(t, wire.ActionConnected)
		lost.session.TransportClosed()
		moved := a.connect(t, "")
		elsewhere := b.connect(t, "resume="+moved.only(t, wire.ActionConnected).ConnectionKey)
		elsewhere.only(t, wire.ActionConnected)
		told(t, w, "PRESENCE enter anna=1")

		c.records.Bury(me)
		time.Sleep(5 * time.Second)
		told(t, w, "PRESENCE leave anna=1")
		forgetting.failures.Store(1)
		forgetting.returned <- struct{}{}
		time.Sleep(5 * time.Second)
		for id, want := range map[string]directory.State{
			l.session.ID(): directory.Connected, of.ConnectionID: directory.Disconnected, elsewhere.session.ID(): directory.Connected,
		} {
			r, err := b.directory.Lookup(t.Context(), id)
			if err != nil || r.State != want || (r.Owner == me) != (id != elsewhere.session.ID()) {
				t.Errorf("got %+v, %v", r, err)
			}
		}
		if !moved.isClosed() || l.isClosed() {
			t.Errorf("closed: what was taken over %v, what was not %v", moved.isClosed(), l.isClosed())
		}
		// What left is told to all when it enters again, though for its client it never left.
		l.says(&wire.ProtocolMessage{Action: wire.ActionPresence, Channel: "x", HasChannel: true, MsgSerial: 1,
			Presence: []*pubsub.PresenceMessage{{Action: pubsub.PresenceEnter, ClientID: "anna", ID: l.session.ID() + ":0:0", Data: pubsub.Text("1")}}})
		told(t, w, "PRESENCE enter anna=1")
		l.session.TransportClosed()
		time.Sleep(2 * time.Second)
		told(t, w, "PRESENCE leave anna=1")
		time.Sleep(2 * time.Minute)
		if r, err := b.directory.Lookup(t.Context(), of.ConnectionID); err == nil {
			t.Errorf("the record stays: %+v", r)
		}
	})
}
