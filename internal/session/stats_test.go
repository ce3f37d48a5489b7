package session_test

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

// A connection is one, over as many transports as it comes.
func TestConnectionsAreCountedAndNotTheirTransports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
		n := newNode(t, func(o *session.Options, _ *hub.Options) { o.Stats = c })
		n.run(t)
		ctx := t.Context()
		go func() { _ = c.Run(ctx) }()
		expect := func(when string, want map[string]float64) {
			t.Helper()
			time.Sleep(time.Second)
			page, err := c.Read(t.Context(), "app", stats.Query{Unit: stats.Minute, Limit: 1})
			if err != nil || len(page.Items) != 1 {
				t.Fatal(when, page, err)
			}
			got, err := page.Items[0].Flat()
			if err != nil {
				t.Fatal(err)
			}
			picked := maps.Collect(got)
			delete(picked, "connections.all.mean")
			if !maps.Equal(picked, want) {
				t.Errorf("%s: %v, want %v", when, picked, want)
			}
		}
		first := n.connect(t, "")
		key := first.only(t, wire.ActionConnected).ConnectionKey
		other := n.connect(t, "")
		expect("two connections", map[string]float64{"connections.all.opened": 2, "connections.all.peak": 2})

		// The transport before still seems to live.
		second := n.connect(t, "resume="+key)
		key = second.only(t, wire.ActionConnected).ConnectionKey
		first.session.TransportClosed()
		expect("after a resume", map[string]float64{"connections.all.opened": 2, "connections.all.peak": 2})

		time.Sleep(time.Minute)
		expect("a minute later", map[string]float64{"connections.all.peak": 2, "connections.all.min": 2})
		second.session.TransportClosed()
		expect("without a transport", map[string]float64{"connections.all.peak": 2, "connections.all.min": 1})
		third := n.connect(t, "resume="+key)
		third.take()
		expect("after a resume of what was lost", map[string]float64{"connections.all.peak": 2, "connections.all.min": 1})

		third.session.TransportClosed()
		other.session.TransportClosed()
		time.Sleep(time.Minute)
		n.connect(t, "").session.TransportClosed()
		expect("one that comes and goes", map[string]float64{"connections.all.opened": 1, "connections.all.peak": 1})

		n.tokens["other"] = &auth.Grant{App: "app", KeyName: "app.other", Capability: auth.FullCapability}
		if _, err := n.tryConnect(t, "access_token=other&resume="+key); err == nil {
			t.Error("was let in")
		}
		expect("one that is refused", map[string]float64{"connections.all.opened": 1, "connections.all.peak": 1, "connections.all.refused": 1})
	})
}

// hasty is a directory that tells the node of a resume before Resume returns.
type hasty struct{ *directorymemory.Directory }

func (d hasty) Resume(ctx context.Context, id string, from uint64, owner directory.Node) (directory.Connection, bool, error) {
	c, reaped, err := d.Directory.Resume(ctx, id, from, owner)
	synctest.Wait()
	return c, reaped, err
}

func TestAResumeOfWhichTheNodeIsToldEarlyIsNotAConnectionMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
		n := newNode(t, func(o *session.Options, _ *hub.Options) {
			o.Stats, o.Directory = c, hasty{o.Directory.(*directorymemory.Directory)}
		})
		n.run(t)
		ctx := t.Context()
		go func() { _ = c.Run(ctx) }()
		first := n.connect(t, "")
		second := n.connect(t, "resume="+first.only(t, wire.ActionConnected).ConnectionKey)
		if !first.isClosed() || second.isClosed() {
			t.Fatal("the transport before lives on")
		}
		first.session.TransportClosed()
		time.Sleep(time.Second)
		page, err := c.Read(t.Context(), "app", stats.Query{Unit: stats.Minute, Limit: 1})
		if err != nil || len(page.Items) != 1 {
			t.Fatal(page, err)
		}
		got, err := page.Items[0].Flat()
		if err != nil {
			t.Fatal(err)
		}
		if counts := maps.Collect(got); counts["connections.all.peak"] != 1 || counts["connections.all.opened"] != 1 {
			t.Errorf("%v, want one connection", counts)
		}
	})
}

// Transports that come and go in any order, several of one connection at a time.
func TestTheNumberOfConnectionsIsRightAfterManyResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
		n := newNode(t, func(o *session.Options, _ *hub.Options) { o.Stats = c })
		n.run(t)
		ctx := t.Context()
		go func() { _ = c.Run(ctx) }()
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() {
				l := n.connect(t, "")
				key := l.only(t, wire.ActionConnected).ConnectionKey
				for range 20 {
					var both sync.WaitGroup
					lines := make([]*line, 3)
					for i := range lines {
						both.Go(func() { lines[i] = n.connect(t, "resume="+key) })
					}
					both.Go(l.session.TransportClosed)
					both.Wait()
					for _, other := range lines[1:] {
						both.Go(other.session.TransportClosed)
					}
					both.Wait()
					l = lines[0]
					if told := l.take(); len(told) > 0 { // otherwise it came too late
						key = told[0].ConnectionKey
					}
				}
				l.session.TransportClosed()
			})
		}
		clients.Wait()
		time.Sleep(2 * time.Minute)
		last := n.connect(t, "")
		time.Sleep(10 * time.Second)
		page, err := c.Read(t.Context(), "app", stats.Query{Unit: stats.Minute, Limit: 1})
		if err != nil || len(page.Items) != 1 {
			t.Fatal(page, err)
		}
		got, err := page.Items[0].Flat()
		if err != nil {
			t.Fatal(err)
		}
		if peak := maps.Collect(got)["connections.all.peak"]; peak != 1 {
			t.Errorf("%v connections where there is one", peak)
		}
		last.session.TransportClosed()
	})
}

// What a connection's own rate refuses never gets to the hub.
func TestWhatTheRateOfAConnectionRefusesIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := stats.New(stats.Options{Store: stats.NewMemory(stats.MemoryOptions{})})
		n := newNode(t, func(o *session.Options, h *hub.Options) {
			o.Stats, h.Stats = c, c
			h.Limits = limit.NewSet(limit.Limits{Burst: time.Second, Rates: limit.Rates{ConnectionMessages: 4}}, limit.Options{})
		})
		l := n.connect(t, "")
		l.says(several("room", 0, 3), several("room", 1, 2), &wire.ProtocolMessage{
			Action: wire.ActionPresence, Channel: "room", HasChannel: true, MsgSerial: 2,
			Presence: []*pubsub.PresenceMessage{{ClientID: "a"}, {ClientID: "b"}, {ClientID: "c"}},
		})
		time.Sleep(time.Second)
		page, err := c.Read(t.Context(), "app", stats.Query{Unit: stats.Minute, Limit: 1})
		if err != nil || len(page.Items) != 1 {
			t.Fatal(page, err)
		}
		entries, err := page.Items[0].Flat()
		if err != nil {
			t.Fatal(err)
		}
		got := maps.Collect(entries)
		for name, want := range map[string]float64{"messages.count": 3, "messages.refused": 2, "presence.count": 0, "presence.refused": 3} {
			if got["messages.inbound.realtime."+name] != want {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
	})
}
