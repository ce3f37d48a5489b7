package redis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

// full reports whether times are judged as on a machine that does nothing else.
var full = os.Getenv("CHAOS") != ""

// faultOptions have leases that are over soon.
func faultOptions(prefix string) Options {
	o := testOptions(prefix)
	o.Lease, o.heartbeat, o.tending = 2*time.Second, 100*time.Millisecond, 100*time.Millisecond
	return o
}

// judgingOptions are faultOptions for a test that fails if a node that lives is taken for gone: a
// machine may pause for as long as a lease.
func judgingOptions() Options {
	o := faultOptions("")
	o.Lease = 6 * time.Second
	return o
}

// impatient is a context of an operation that takes as long as one of a server may.
func impatient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), DefaultTimeout)
	t.Cleanup(cancel)
	return ctx
}

// soon judges a time of which the limits are those of a machine that does nothing else.
func soon(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	t.Logf("%s: %v", what, took.Round(time.Millisecond))
	if full && took > limit || took > 10*limit {
		t.Errorf("%s: %v, and %v are promised", what, took, limit)
	}
}

// works does with a node what clients make it do, each on records of its own.
func works(d *directories, node *Directory) error {
	ctx := context.Background()
	n := d.next()
	id, ch := "works"+n, pubsub.ChannelID{App: "works", Name: n}
	for _, f := range operations(node, id, ch) {
		if err := f(ctx); err != nil {
			return err
		}
	}
	return nil
}

// operations are one of each.
func operations(d *Directory, id string, ch pubsub.ChannelID) map[string]func(context.Context) error {
	one := pubsub.OccupancyOf(pubsub.ModeSubscribe)
	now := time.Now()
	return map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error {
			return d.Create(ctx, directory.Connection{ID: id, App: ch.App}, 0)
		},
		"Lookup": func(ctx context.Context) error { return found(d.Lookup(ctx, id)) },
		"Resume": func(ctx context.Context) error {
			_, _, err := d.Resume(ctx, id+"none", 1, d.node)
			return found(0, err)
		},
		"Disconnect": func(ctx context.Context) error { return found(0, d.Disconnect(ctx, id+"none", 1, now)) },
		"Inhabit":    func(ctx context.Context) error { return d.Inhabit(ctx, id, ch) },
		"Orphans":    func(ctx context.Context) error { _, err := d.Orphans(ctx, 1); return err },
		"Join":       func(ctx context.Context) error { _, err := d.Join(ctx, ch, d.node, one, 0); return err },
		"Occupancy":  func(ctx context.Context) error { _, err := d.Occupancy(ctx, ch); return err },
		"Watch":      func(ctx context.Context) error { return d.Watch(ctx, ch, true) },
		"Channels": func(ctx context.Context) error {
			_, _, err := d.Channels(ctx, directory.ChannelQuery{App: ch.App, Limit: 10})
			return err
		},
		"UseNonce": func(ctx context.Context) error {
			_, err := d.UseNonce(ctx, "key", id, now.Add(time.Minute))
			return err
		},
		"Revoke": func(ctx context.Context) error {
			return d.Revoke(ctx, []directory.Revocation{{App: ch.App, Key: "key", Target: id, IssuedBefore: now, AppliesAt: now, Expires: now.Add(time.Hour)}})
		},
		"Revocations": func(ctx context.Context) error { _, _, err := d.Revocations(ctx, ""); return err },
		"Apps":        func(ctx context.Context) error { _, err := d.Apps(ctx); return err },
	}
}

// found is err, unless it says that there is no such record.
func found(_ any, err error) error {
	if errors.Is(err, directory.ErrNotFound) {
		return nil
	}
	return err
}

// directories are two nodes on one store.
type directories struct {
	a, b         *Directory
	killA, killB func()

	mu sync.Mutex
	n  int
}

func (d *directories) next() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	return strconv.Itoa(d.n)
}

func two(t *testing.T, toA, toB redisclient.Options, opts Options) *directories {
	d := new(directories)
	d.a, d.killA = node(t, toA, "a", opts)
	d.b, d.killB = node(t, toB, "b", opts)
	return d
}

// normal waits until both nodes work, and says how long that took.
func (d *directories) normal(t *testing.T, what string) {
	t.Helper()
	start := time.Now()
	eventually(t, what, func() bool { return works(d, d.a) == nil && works(d, d.b) == nil })
	soon(t, what, time.Since(start), 5*time.Second)
}

// away expects every operation to fail with ErrUnavailable within a second.
func (d *directories) away(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for _, node := range []*Directory{d.a, d.b} {
		n := d.next()
		for name, f := range operations(node, "away"+n, pubsub.ChannelID{App: "away", Name: n}) {
			wg.Go(func() {
				start := time.Now()
				if err := f(impatient(t)); !errors.Is(err, directory.ErrUnavailable) {
					t.Errorf("%s: got %v", name, err)
				}
				soon(t, name+" fails", time.Since(start), time.Second)
			})
		}
		// Without an answer nobody knows.
		wg.Go(func() {
			if _, err := node.PutApp(impatient(t), "away"+n, 0, []byte("1"), 0); err == nil || errors.Is(err, directory.ErrConflict) {
				t.Errorf("PutApp: got %v", err)
			}
		})
	}
	wg.Wait()
}

func TestFaultsOfOneServer(t *testing.T) {
	t.Parallel()
	t.Run("Stopped", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		to := redisclient.Options{Addresses: []string{s.Addr}}
		d := two(t, to, to, judgingOptions())
		ch := pubsub.ChannelID{App: "app", Name: "ch"}
		must(t, d.a.Create(t.Context(), directory.Connection{ID: "c", App: "app"}, 0))
		for range 3 {
			_, err := d.a.Join(t.Context(), ch, d.a.node, pubsub.OccupancyOf(pubsub.ModeSubscribe), 0)
			must(t, err)
		}
		time.Sleep(d.a.opts.Lease) // both have given signs of life for so long that they may judge
		s.Stop()
		stopped := time.Now()
		d.away(t)
		// Many wait, and none of them stays.
		goroutines := runtime.NumGoroutine()
		var wg sync.WaitGroup
		for i := range 2000 {
			wg.Go(func() {
				id := fmt.Sprint("many", i)
				for _, f := range operations(d.b, id, pubsub.ChannelID{App: "many", Name: id}) {
					_ = f(impatient(t))
					return // one of them, at random
				}
			})
		}
		wg.Wait()
		// A node that left meanwhile left, and nothing else has changed when Redis is back.
		if err := d.a.Adjust(impatient(t), ch, d.a.node, pubsub.Occupancy{}.Minus(pubsub.OccupancyOf(pubsub.ModeSubscribe))); !errors.Is(err, directory.ErrUnavailable) {
			t.Errorf("Adjust: got %v", err)
		}
		time.Sleep(time.Until(stopped.Add(d.a.opts.Lease + time.Second/2))) // longer than a lease: nobody is taken for gone
		s.Continue()
		d.normal(t, "normal after it was stopped")
		eventually(t, "no goroutine stays", func() bool { return runtime.NumGoroutine() <= goroutines+1000 }) // other tests have some
		eventually(t, "who left is not counted", func() bool {
			o, err := d.b.Occupancy(t.Context(), ch)
			return err == nil && o[pubsub.MetricConnections] == 2
		})
		if c, err := d.b.Lookup(t.Context(), "c"); err != nil || c.State != directory.Connected {
			t.Errorf("the connection of a node that lives: %+v, %v", c, err)
		}
		for _, node := range []*Directory{d.a, d.b} {
			if len(node.Returned()) > 0 {
				t.Error("a node that lives was taken for gone")
			}
		}
	})
	t.Run("RestartedEmpty", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		to := redisclient.Options{Addresses: []string{s.Addr}}
		d := two(t, to, to, faultOptions(""))
		ch := pubsub.ChannelID{App: "app", Name: "ch"}
		c := directory.Connection{ID: "c", App: "app", Generation: 1, Committed: 1}
		must(t, d.a.Create(t.Context(), c, 0))
		for _, node := range []*Directory{d.a, d.b} {
			_, err := node.Join(t.Context(), ch, node.node, pubsub.OccupancyOf(pubsub.ModeSubscribe), 0)
			must(t, err)
		}
		must(t, d.b.Watch(t.Context(), ch, true))
		must(t, operations(d.a, "before", ch)["Revoke"](t.Context()))
		_, position, err := d.b.Revocations(t.Context(), "")
		must(t, err)
		s.Kill()
		d.away(t)
		s.Restart()
		for _, node := range []*Directory{d.a, d.b} {
			select {
			case <-node.Returned():
			case <-time.After(time.Minute):
				t.Fatal("a node is not told that the store has forgotten it")
			}
		}
		d.normal(t, "normal after a restart")
		eventually(t, "both nodes count again", func() bool {
			o, err := d.b.Occupancy(t.Context(), ch)
			return err == nil && o[pubsub.MetricConnections] == 2
		})
		for len(d.b.Changed()) > 0 {
			<-d.b.Changed()
		}
		_, err = d.b.Occupancy(t.Context(), ch)
		must(t, err)
		_, err = d.a.Join(t.Context(), ch, d.a.node, pubsub.OccupancyOf(pubsub.ModeSubscribe), 0)
		must(t, err)
		eventually(t, "who watches is told again", func() bool {
			select {
			case got := <-d.b.Changed():
				return got == ch
			default:
				return false
			}
		})
		reaped, err := d.a.Reclaim(t.Context(), c)
		if err != nil || reaped {
			t.Errorf("Reclaim: %v, %v", reaped, err)
		}
		if got, err := d.b.Lookup(t.Context(), "c"); err != nil || got.State != directory.Connected || got.Owner != d.a.node {
			t.Errorf("got %+v, %v", got, err)
		}
		must(t, operations(d.a, "after", ch)["Revoke"](t.Context()))
		list, _, err := d.b.Revocations(t.Context(), position)
		if err != nil || len(list) == 0 || list[len(list)-1].Target != "after" {
			t.Errorf("after the position before the restart: %+v, %v", list, err)
		}
	})
	t.Run("CutOff", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		p := redistest.StartProxy(t, s.Addr)
		d := two(t, redisclient.Options{Addresses: []string{p.Addr}}, redisclient.Options{Addresses: []string{s.Addr}}, judgingOptions())
		ch := pubsub.ChannelID{App: "app", Name: "ch"}
		stays, moves := directory.Connection{ID: "stays", App: "app", Generation: 1, Committed: 1}, directory.Connection{ID: "moves", App: "app", Generation: 1, Committed: 1}
		must(t, d.a.Create(t.Context(), stays, 0))
		must(t, d.a.Create(t.Context(), moves, 0))
		_, err := d.a.Join(t.Context(), ch, d.a.node, pubsub.OccupancyOf(pubsub.ModeSubscribe), 0)
		must(t, err)
		p.Refuse(true)
		p.Cut()
		counted := func() int32 {
			o, err := d.b.Occupancy(t.Context(), ch)
			must(t, err)
			return o[pubsub.MetricConnections]
		}
		eventually(t, "the other node takes it for gone", func() bool { return counted() == 0 })
		eventually(t, "its connections may be resumed", func() bool {
			c, err := d.b.Lookup(t.Context(), "stays")
			must(t, err)
			return c.State == directory.Disconnected
		})
		_, _, err = d.b.Resume(t.Context(), "moves", 1, d.b.node)
		must(t, err)
		p.Refuse(false)
		select {
		case <-d.a.Returned():
		case <-time.After(time.Minute):
			t.Fatal("the node is not told that it was taken for gone")
		}
		if reaped, err := d.a.Reclaim(t.Context(), stays); reaped || err != nil {
			t.Errorf("Reclaim: %v, %v", reaped, err)
		}
		if _, err := d.a.Reclaim(t.Context(), moves); !errors.Is(err, directory.ErrSuperseded) {
			t.Errorf("Reclaim of what moved: %v", err)
		}
		eventually(t, "it counts again", func() bool { return counted() == 1 })
		if c, err := d.b.Lookup(t.Context(), "stays"); err != nil || c.State != directory.Connected || c.Owner != d.a.node {
			t.Errorf("got %+v, %v", c, err)
		}
		d.normal(t, "normal")
		if a, b := d.a.Stats(), d.b.Stats(); a.Returned != 1 || b.Buried != 1 || a.Buried+b.Returned != 0 || a.Watched == 0 || time.Since(a.Heard) > time.Minute {
			t.Errorf("figures: %+v, %+v", a, b)
		}
		eventually(t, "nothing waits", func() bool { return d.a.Stats().Waiting == 0 })
	})
	t.Run("Late", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		p := redistest.StartProxy(t, s.Addr)
		d := two(t, redisclient.Options{Addresses: []string{p.Addr}}, redisclient.Options{Addresses: []string{s.Addr}}, faultOptions(""))
		must(t, works(d, d.a))
		p.Delay(1200 * time.Millisecond)
		c := directory.Connection{ID: "late", App: "late"}
		if err := d.a.Create(impatient(t), c, 1); !errors.Is(err, directory.ErrUnavailable) {
			t.Errorf("Create: got %v", err)
		}
		p.Delay(0)
		time.Sleep(1200 * time.Millisecond) // until it is there, at the latest
		if c, err := d.b.Lookup(t.Context(), "late"); !errors.Is(err, directory.ErrNotFound) {
			t.Errorf("what came late was done: %+v, %v", c, err)
		}
		eventually(t, "there is room", func() bool {
			return d.b.Create(t.Context(), directory.Connection{ID: "other", App: "late"}, 1) == nil
		})
	})
	t.Run("InDoubt", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		to := redisclient.Options{Addresses: []string{s.Addr}}
		d := two(t, to, to, faultOptions(""))
		c := directory.Connection{ID: "c", App: "app"}
		must(t, d.a.Create(t.Context(), c, 1))
		d.a.doubt(c) // as if no answer had come
		eventually(t, "it becomes an orphan", func() bool {
			list, err := d.b.Orphans(t.Context(), 1)
			return err == nil && len(list) == 1 && list[0].ID == "c" && list[0].State == directory.Disconnected
		})
		must(t, d.b.Create(t.Context(), directory.Connection{ID: "d", App: "app"}, 1))
		_, _, err := d.a.Resume(t.Context(), "c", 1, d.a.node)
		must(t, err)
		d.a.mu.Lock()
		defer d.a.mu.Unlock()
		if len(d.a.doubtful) > 0 {
			t.Errorf("in doubt: %v", d.a.doubtful)
		}
	})
}

func primaryOfAShardKilled(t *testing.T, c *redistest.Cluster, to redisclient.Options) {
	d := two(t, to, to, faultOptions(""))
	must(t, works(d, d.a))
	from := c.Owner(d.b.keys.notices(d.b.id))
	for _, to := range c.Servers[:3] {
		if to != from {
			c.MoveSlot(d.b.keys.notices(d.b.id), to, nil)
			break
		}
	}
	d.normal(t, "normal after a slot moved")
	for i, key := range []string{d.b.keys.notices(d.b.id), d.a.keys.connection("c")[0]} {
		if i > 0 && !full {
			break
		}
		primary := c.Owner(key)
		eventually(t, "the replica is in step", func() bool { return primary.Must("WAIT", "1", "100") == "1" })
		primary.Kill()
		c.WaitOwner(key, primary)
		d.normal(t, "normal after a failover")
		id := "moved" + strconv.Itoa(i)
		eventually(t, "a connection is made", func() bool {
			err := d.b.Create(t.Context(), directory.Connection{ID: id, App: "app"}, 0)
			return err == nil || errors.Is(err, directory.ErrExists)
		})
		eventually(t, "it moves", func() bool {
			_, _, err := d.a.Resume(t.Context(), id, 1, d.a.node)
			return err == nil
		})
		eventually(t, "notices come", func() bool {
			select {
			case got := <-d.b.Superseded():
				return got.ID == id
			default:
				return false
			}
		})
	}
}

func primaryKilled(t *testing.T, s *redistest.Sentinels, to redisclient.Options) {
	d := two(t, to, to, faultOptions(""))
	must(t, works(d, d.a))
	primary := s.Primary()
	primary.Kill()
	s.WaitPrimary(primary)
	d.normal(t, "normal after a failover")
	must(t, d.b.Revoke(t.Context(), []directory.Revocation{{App: "app", Key: "key", Target: "t", Expires: time.Now().Add(time.Hour)}}))
	select {
	case <-d.a.Revoked():
	case <-time.After(time.Minute):
		t.Error("notices do not come")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
