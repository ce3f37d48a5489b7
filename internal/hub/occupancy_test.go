package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// cluster is two hubs on one store, which run.
type cluster struct {
	t    *testing.T
	hubs [2]*hub.Hub
	dirs [2]directory.Directory
}

// withCluster runs f in a bubble.
func withCluster(t *testing.T, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		entries, records := enginememory.NewStore(enginememory.Options{}), directorymemory.NewStore(directorymemory.Options{})
		c := &cluster{t: t}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for i := range c.hubs {
			node := directory.Node{Name: fmt.Sprint("n", i), Incarnation: "1"}
			c.dirs[i] = records.Node(node)
			c.hubs[i] = hub.New(hub.Options{Engine: entries.Node(node.Name), Directory: c.dirs[i], Node: node})
			wg.Go(func() { _ = c.hubs[i].Run(ctx) })
		}
		f(t, c)
		cancel()
		wg.Wait()
		for _, h := range c.hubs {
			h.Close()
		}
	})
}

// occupancies is a form that has words for nothing but occupancy: lines "<position> <data>".
type occupancies struct{}

func (occupancies) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if e.Kind < engine.KindMeta {
		return dst, units
	}
	m := e.Body.Messages[0]
	if m.Name != hub.OccupancyEvent || m.Action != pubsub.MessageMeta || m.Encoding != "json" || e.Body.ID == "" || e.Timestamp == 0 || !e.Unlogged || m.ClientID != "" {
		panic(fmt.Sprintf("%+v", m))
	}
	dst = fmt.Appendf(dst, "%s %s\n", e.Position(), m.Data.Bytes)
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// observer is a connection that is told of the occupancy.
type observer struct {
	inbox
	at *hub.Attachment
}

// observe attaches an observer with a view such as "metrics".
func (c *cluster) observe(node int, connectionID, view string) *observer {
	o := &observer{}
	o.at = attach(c.t, c.hubs[node], hub.Attach{Modes: pubsub.ModeSubscribe, ConnectionID: connectionID, Form: occupancies{}, Receiver: o})
	o.show(c.t, view)
	return o
}

func (o *observer) show(t *testing.T, view string) {
	t.Helper()
	v := hub.NoOccupancy
	if view != "" {
		var ok bool
		if v, ok = hub.ParseOccupancyView(view); !ok {
			t.Fatal(view)
		}
	}
	frames, err := o.at.ShowOccupancy(t.Context(), v, o.at.Position())
	if err != nil {
		t.Fatal(err)
	}
	// What is received meanwhile is held back by a gate; here nothing is.
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, slices.Concat(frames...)...)
}

// events returns what it was told, as objects of metrics.
func (o *observer) events(t *testing.T) (all []map[string]int) {
	t.Helper()
	_, data := o.got()
	for _, text := range data {
		var event struct{ Metrics map[string]int }
		if err := json.Unmarshal([]byte(text), &event); err != nil {
			t.Fatal(err)
		}
		all = append(all, event.Metrics)
	}
	return all
}

func (o *observer) last(t *testing.T) map[string]int {
	t.Helper()
	all := o.events(t)
	return all[len(all)-1]
}

// occupancyNow is what REST tells.
func occupancyNow(t *testing.T, h *hub.Hub) pubsub.Occupancy {
	t.Helper()
	o, err := h.Occupancy(t.Context(), &hub.Status{Grant: anyone, Channel: name("room")})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// only is the metric of a view, or empty.
func only(view string) string {
	_, metric, _ := strings.Cut(view, ".")
	return metric
}

// asMap is o as events tell it.
func asMap(o pubsub.Occupancy, only string) map[string]int {
	m := make(map[string]int)
	for metric := range pubsub.Metrics {
		if only == "" || only == metric.String() {
			m[metric.String()] = int(o[metric])
		}
	}
	return m
}

// actor is a connection as the model sees it.
type actor struct {
	id          string
	node        int
	attachments map[string]*hub.Attachment // by name
	members     map[string]bool
	serial      int64
}

func (a *actor) occupancy() pubsub.Occupancy {
	var modes pubsub.Mode
	for _, at := range a.attachments {
		modes |= at.Modes()
	}
	o := pubsub.OccupancyOf(modes)
	o[pubsub.MetricPresenceMembers] = int32(len(a.members))
	return o
}

// act does something at random.
func (a *actor) act(t *testing.T, c *cluster, rng *rand.Rand) {
	ctx := context.Background() // a connection's end is no reason not to go on
	h := c.hubs[a.node]
	names := []string{"room", "[?a=1]room", "[?b=1]room"}
	which := names[rng.IntN(len(names))]
	at := a.attachments[which]
	modes := pubsub.Mode(rng.Uint32()) & pubsub.AllModes &^ pubsub.ModeSubscribe // who subscribes is for the observers
	if modes == 0 {
		modes = pubsub.ModePublish
	}
	switch op := rng.IntN(10); {
	case at == nil && op < 6:
		attach := &hub.Attach{Grant: rights, Channel: name(which), Modes: modes, ConnectionID: a.id, Form: occupancies{}, Receiver: new(inbox)}
		for _, other := range a.attachments {
			attach.Beside = other
		}
		at, err := h.Attach(ctx, attach)
		if err != nil {
			t.Error(err)
			return
		}
		a.attachments[which] = at
	case at != nil && op < 3:
		at.Detach()
		delete(a.attachments, which)
	case at != nil && op < 6:
		if err := regrant(at, rights, name(which), modes); err != nil {
			t.Error(err)
		}
	case op < 9:
		clientID := fmt.Sprint("client", rng.IntN(2))
		item := &pubsub.PresenceMessage{Action: pubsub.PresenceEnter, ClientID: clientID}
		if a.members[clientID] {
			item.Action = pubsub.PresenceLeave
		}
		var turn hub.Turn
		err := h.Presence(ctx, &turn, &hub.Presence{Grant: rights, Channel: name("room"), ConnectionID: a.id, MsgSerial: a.serial, Items: []*pubsub.PresenceMessage{item}})
		turn.End()
		a.serial++
		if err != nil {
			t.Error(err)
			return
		}
		if a.members[clientID] = !a.members[clientID]; !a.members[clientID] {
			delete(a.members, clientID)
		}
	default: // the transport is lost: attachments end at once, members later
		for _, at := range a.attachments {
			at.Detach()
		}
		clear(a.attachments)
		leaving, err := h.Leaving(ctx, a.id, []pubsub.ChannelID{name("room").ID("app")})
		if err == nil {
			err = leaving.Leave(ctx)
		}
		if err != nil {
			t.Error(err)
			return
		}
		clear(a.members)
	}
}

// rights is a grant to all modes.
var rights = &auth.Grant{App: "app", KeyName: "app.key", ClientRule: auth.ClientAny, Capability: auth.FullCapability}

func (c *cluster) actors(n int) (all []*actor) {
	for i := range n {
		all = append(all, &actor{id: fmt.Sprint("connection", i), node: i % 2, attachments: make(map[string]*hub.Attachment), members: make(map[string]bool)})
	}
	return all
}

// TestOccupancyAgreesWithAModel has connections of two nodes attach under several names,
// change their modes, enter, leave and get lost, while others watch, come and go.
func TestOccupancyAgreesWithAModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	withCluster(t, func(t *testing.T, c *cluster) {
		rng := rand.New(rand.NewPCG(seed, 1))
		actors := c.actors(6)
		views := []string{"metrics", "metrics.presenceMembers", "metrics.publishers", "metrics"}
		observers := make([]*observer, len(views))
		model := func() (o pubsub.Occupancy) {
			for _, a := range actors {
				o = o.Plus(a.occupancy())
			}
			for _, ob := range observers {
				if ob != nil {
					o = o.Plus(pubsub.OccupancyOf(pubsub.ModeSubscribe))
				}
			}
			return o
		}
		for step := range 1500 {
			if i := rng.IntN(40); i < len(observers) {
				if observers[i] != nil {
					observers[i].at.Detach()
					observers[i] = nil
				} else {
					observers[i] = c.observe(i%2, fmt.Sprint("observer", i), views[i])
					if want := asMap(model(), only(views[i])); fmt.Sprint(observers[i].last(t)) != fmt.Sprint(want) {
						t.Fatalf("step %d: the first event is %v, want %v", step, observers[i].last(t), want)
					}
				}
			} else {
				actors[rng.IntN(len(actors))].act(t, c, rng)
			}
			if rng.IntN(10) == 0 {
				time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			}
			for _, h := range c.hubs {
				if got, want := occupancyNow(t, h), model(); got != want {
					t.Fatalf("step %d: got %v, want %v", step, got, want)
				}
			}
			if rng.IntN(50) == 0 {
				c.expectTold(t, observers, views, model())
			}
		}
		for i := range observers {
			if observers[i] == nil {
				observers[i] = c.observe(i%2, fmt.Sprint("observer", i), views[i])
			}
		}
		c.expectTold(t, observers, views, model())
		c.leave(actors, observers)
	})
}

// expectTold waits for as long as an event may be late, and compares each observer's last.
func (c *cluster) expectTold(t *testing.T, observers []*observer, views []string, want pubsub.Occupancy) {
	t.Helper()
	time.Sleep(3 * time.Second)
	synctest.Wait()
	for i, o := range observers {
		if o == nil {
			continue
		}
		if want := asMap(want, only(views[i])); fmt.Sprint(o.last(t)) != fmt.Sprint(want) {
			t.Fatalf("observer %d was told %v last, and there are %v", i, o.last(t), want)
		}
	}
}

// leave ends all attachments; no count and no watch is left.
func (c *cluster) leave(actors []*actor, observers []*observer) {
	for _, a := range actors {
		for _, at := range a.attachments {
			at.Detach()
		}
	}
	for _, o := range observers {
		o.at.Detach()
	}
	for _, d := range c.dirs {
		if o, err := d.Occupancy(c.t.Context(), name("room").ID("app")); err != nil || o != (pubsub.Occupancy{}) {
			c.t.Errorf("left: %v, %v", o, err)
		}
	}
}

// TestOccupancyIsRightInTheEndWhateverHappensAtOnce is the same, all at once.
func TestOccupancyIsRightInTheEndWhateverHappensAtOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	withCluster(t, func(t *testing.T, c *cluster) {
		actors := c.actors(6)
		var wg sync.WaitGroup
		for i, a := range actors {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for range 300 {
					a.act(t, c, rng)
					if rng.IntN(5) == 0 {
						time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
					}
				}
			})
		}
		views := []string{"metrics", "metrics.presenceMembers", "metrics.connections", "metrics"}
		observers := make([]*observer, len(views))
		for i := range views {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
				observers[i] = c.observe(i%2, fmt.Sprint("observer", i), views[i])
				for range 50 {
					time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
					observers[i].show(t, "")
					observers[i].show(t, views[i])
				}
			})
		}
		wg.Wait()
		want := pubsub.Occupancy{}
		for _, a := range actors {
			want = want.Plus(a.occupancy())
		}
		for range observers {
			want = want.Plus(pubsub.OccupancyOf(pubsub.ModeSubscribe))
		}
		for _, h := range c.hubs {
			if got := occupancyNow(t, h); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		c.expectTold(t, observers, views, want)
		c.leave(actors, observers)
	})
}

func TestAnEventComesSoonIfAMetricBecomesZeroAndNotOftenOtherwise(t *testing.T) {
	withCluster(t, func(t *testing.T, c *cluster) {
		o := c.observe(0, "observer", "metrics")
		come := func(modes pubsub.Mode) *hub.Attachment {
			return attach(t, c.hubs[1], hub.Attach{Modes: modes, Form: occupancies{}})
		}
		time.Sleep(150 * time.Millisecond)
		publisher := come(pubsub.ModePublish)
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if got := o.last(t)["publishers"]; got != 1 {
			t.Fatalf("a publisher came: got %v", o.events(t))
		}
		for range 100 {
			come(pubsub.ModePublish)
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(o.events(t)); n != 2 {
			t.Errorf("%d events in the first second", n)
		}
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if got := o.events(t); len(got) != 3 || got[2]["publishers"] != 101 || got[2]["connections"] != 102 {
			t.Errorf("then: %v", got)
		}
		publisher.Detach()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := o.events(t); len(got) != 4 || got[3]["publishers"] != 100 {
			t.Errorf("in the end: %v", got)
		}
	})
}

// TestEventsKeepTheirPlaceInTheChannelsOrder: they leave a client where what it was sent
// before left it, and are in nobody's history.
func TestEventsKeepTheirPlaceInTheChannelsOrder(t *testing.T) {
	withCluster(t, func(t *testing.T, c *cluster) {
		o := c.observe(0, "observer", "metrics")
		start := o.at.Position()
		p := say(t, c.hubs[0], "x")
		attach(t, c.hubs[1], hub.Attach{Modes: pubsub.ModeObjectPublish, Form: occupancies{}})
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		serials, _ := o.got()
		if !slices.Equal(serials, []pubsub.Serial{start, p.Serial}) {
			t.Errorf("got positions %v, want %v and %v", serials, start, p.Serial)
		}
		late := attach(t, c.hubs[0], hub.Attach{})
		if b := late.Resume(t.Context(), start); b.Err != nil || len(b.Frames) != 1 {
			t.Errorf("resume: %+v", b)
		}
		page, err := c.hubs[0].Messages(t.Context(), &hub.History{Grant: anyone, Channel: name("room"), Limit: 10})
		if err != nil || len(page.Messages) != 1 {
			t.Errorf("history: %+v, %v", page, err)
		}
	})
}

func TestOccupancyViewsAreThoseOfTheParameter(t *testing.T) {
	for _, good := range []string{"metrics", "metrics.connections", "metrics.objectSubscribers"} {
		if v, ok := hub.ParseOccupancyView(good); !ok || v == hub.NoOccupancy {
			t.Error(good)
		}
	}
	for _, bad := range []string{"", "metric", "metrics.", "metrics.Connections", "connections", "metrics.connections.x", "metrics,metrics"} {
		if _, ok := hub.ParseOccupancyView(bad); ok {
			t.Error(bad)
		}
	}
}
