package memory

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

func channelID(i int) pubsub.ChannelID {
	return pubsub.ChannelID{App: "app", Name: fmt.Sprint("channel", i)}
}

func message(id pubsub.ChannelID, data string) *engine.Append {
	return &engine.Append{Channel: id, Entries: []engine.Draft{{
		Kind: engine.KindMessage,
		Body: &pubsub.Batch{ID: "base", Messages: []*pubsub.Message{{Name: "name", Data: pubsub.Text(data)}}},
	}}}
}

// counted is what Stats should say, found by looking at everything.
func counted(s *Store) (st Stats) {
	for i := range s.shards {
		for _, c := range s.shards[i].channels {
			st.Channels++
			st.Bytes += c.cost()
			for i := range c.log.n {
				st.Entries++
				st.Bytes += c.log.at(i).cost
			}
			if c.last != nil {
				st.Bytes += c.last.cost
			}
			for _, chunk := range c.records.chunks {
				for _, r := range chunk {
					st.Bytes += r.cost()
				}
			}
			for _, n := range c.connections {
				st.IDBytes += n.cost() + n.size()
			}
			if n := c.clients; n != nil {
				st.IDBytes += n.cost()
				for id := range n.byID {
					st.IDBytes += clientCost + int64(len(id))
				}
			}
		}
	}
	return st
}

func expectStats(t *testing.T, s *Store, want Stats) {
	t.Helper()
	got := s.Stats()
	got.Evicted, got.Forgotten = 0, 0
	if got != want {
		t.Errorf("the store says it holds %+v, it holds %+v", got, want)
	}
}

// random is an Append of any kind.
func random(rng *rand.Rand, channels int) *engine.Append {
	a := message(channelID(rng.IntN(channels)), strings.Repeat("x", rng.IntN(500)))
	switch rng.IntN(4) {
	case 0:
		a.Entries = append(a.Entries, a.Entries[0])
	case 1:
		a.Entries[0].Unlogged = true
	}
	switch rng.IntN(3) {
	case 0:
		a.ID = engine.ID{ConnectionID: fmt.Sprint("conn", rng.IntN(5)), MsgSerial: rng.Int64N(100_000)}
	case 1:
		a.ID = engine.ID{Client: fmt.Sprint(rng.Uint64())}
	}
	if rng.IntN(3) == 0 {
		p := engine.Put{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: fmt.Sprint(rng.IntN(20))}}
		if rng.IntN(2) == 0 {
			p.Value = make([]byte, rng.IntN(300))
			p.Expire = time.Duration(1+rng.IntN(100)) * time.Second
		}
		a.Puts = append(a.Puts, p)
	}
	return a
}

func TestStatsCountWhatIsThere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newClock()
	s := NewStore(Options{LogBytes: 200_000, IDBytes: 30_000, Now: c.Now, Policy: func(id pubsub.ChannelID) (p engine.Policy) {
		if strings.HasSuffix(id.Name, "1") || strings.HasSuffix(id.Name, "3") {
			p.Last = 2 * engine.LiveWindow
		}
		return p
	}})
	for i := range 5000 {
		if r := s.append(random(rng, 20)); r.Err != nil && !errors.Is(r.Err, engine.ErrFull) {
			t.Fatal(r.Err)
		}
		if got := s.Stats(); got.Bytes > 200_000 || got.IDBytes > 30_000 {
			t.Fatalf("over the budget: %+v", got)
		}
		if i%50 == 0 {
			c.Advance(time.Duration(rng.IntN(20)) * time.Second)
		}
		if i%200 == 0 {
			s.sweep()
			expectStats(t, s, counted(s))
		}
	}
	if got := s.Stats(); got.Evicted == 0 || got.Forgotten == 0 {
		t.Errorf("nothing had to go: %+v", got)
	}
	for range 3 {
		c.Advance(engine.LiveWindow + time.Second)
		s.sweep()
	}
	expectStats(t, s, Stats{})
	if len(s.logs.heap) != 0 || len(s.notes.heap) != 0 {
		t.Errorf("%d logs and %d notes in the queues of an empty store", len(s.logs.heap), len(s.notes.heap))
	}
}

// TestEverythingAtOnce is for the race detector: a small store under pressure from all sides.
func TestEverythingAtOnce(t *testing.T) {
	c := newClock()
	s := NewStore(Options{LogBytes: 100_000, IDBytes: 20_000, Now: c.Now})
	nodes := []*Engine{s.Node("a"), s.Node("b")}
	stop := make(chan struct{})
	var wg, others sync.WaitGroup
	for i := range 4 {
		rng := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
		wg.Go(func() {
			for range 2000 {
				s.append(random(rng, 8))
			}
		})
	}
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.Advance(3 * time.Second)
				s.sweep()
			}
		}
	})
	for n, node := range nodes {
		rng := rand.New(rand.NewPCG(rand.Uint64(), uint64(n)))
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				live := &chain{t: t}
				sub, position, _ := node.Subscribe(t.Context(), channelID(rng.IntN(8)), live)
				live.start(position)
				for range rng.IntN(20) {
					page, err := node.Read(t.Context(), channelID(rng.IntN(8)), engine.Query{Limit: 50, Backwards: rng.IntN(2) == 0})
					if err != nil {
						t.Error(err)
					}
					for _, e := range page.Entries {
						_ = e.Body.Size()
					}
				}
				sub.Unsubscribe()
			}
		})
	}
	wg.Wait()
	close(stop)
	others.Wait()
	expectStats(t, s, counted(s))
}

// chain is a Subscriber that checks that no entry is missing.
type chain struct {
	t        *testing.T
	mu       sync.Mutex
	early    []*engine.Entry
	position pubsub.Serial
}

func (c *chain) start(p pubsub.Serial) {
	c.mu.Lock()
	c.position = p
	early := c.early
	c.mu.Unlock()
	c.Deliver(early)
}

func (c *chain) Deliver(entries []*engine.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.position == "" {
		c.early = append(c.early, entries...)
		return
	}
	for _, e := range entries {
		if e.Serial <= c.position {
			continue // start takes what came early after what came since
		}
		if e.Prev != c.position {
			c.t.Errorf("an entry names %q as the position before it, which is %q", e.Prev, c.position)
		}
		c.position = e.Position()
	}
}

func (c *chain) Flush()             {}
func (c *chain) Lost(pubsub.Serial) {}

func TestOldestIDsAreForgottenFirst(t *testing.T) {
	c := newClock()
	s := NewStore(Options{IDBytes: 100_000, Now: c.Now})
	const n = 3000
	ids := func(i int) (a, b *engine.Append) {
		a, b = message(channelID(i%7), "x"), message(channelID(i%5), "x")
		a.ID = engine.ID{ConnectionID: fmt.Sprint("conn", i%3), MsgSerial: int64(i * 2)}
		b.ID = engine.ID{Client: fmt.Sprint("id", i)}
		return a, b
	}
	for i := range n {
		c.Advance(time.Millisecond)
		a, b := ids(i)
		s.append(a)
		s.append(b)
	}
	if got := s.Stats(); got.IDBytes > 100_000 || got.Forgotten < n {
		t.Errorf("got %+v", got)
	}
	for i := n - 1; i > n-200; i-- {
		a, b := ids(i)
		if ra, rb := s.append(a), s.append(b); !ra.Repeated || !rb.Repeated {
			t.Fatalf("%d of %d is forgotten", i, n)
		}
	}
	if _, b := ids(0); s.append(b).Repeated {
		t.Error("the oldest is still known")
	}
}

func TestAFullStoreLetsRecordsGo(t *testing.T) {
	c := newClock()
	s := NewStore(Options{LogBytes: 50_000, Now: c.Now})
	n := 0
	member := func(i int) *engine.Append {
		a := message(channelID(0), "enter")
		a.Puts = []engine.Put{{RecordKey: engine.RecordKey{Space: engine.RecordPresence, Key: fmt.Sprint(i)}, Value: make([]byte, 100)}}
		return a
	}
	for ; ; n++ {
		if r := s.append(member(n)); errors.Is(r.Err, engine.ErrFull) {
			break
		} else if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for i := range n {
		leave := member(i)
		leave.Puts[0].Value = nil
		if r := s.append(leave); r.Err != nil {
			t.Fatalf("member %d of %d cannot leave: %v", i, n, r.Err)
		}
	}
	if r := s.append(member(n)); r.Err != nil {
		t.Errorf("nobody is there, and still: %v", r.Err)
	}
	expectStats(t, s, counted(s))
}

func TestAFullStoreForgetsEmptyChannels(t *testing.T) {
	c := newClock()
	s := NewStore(Options{LogBytes: 50_000, Now: c.Now})
	for i := range 200 {
		if _, err := s.Node("a").Read(t.Context(), channelID(i), engine.Query{Limit: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Stats(); got.Channels > 150 {
		t.Errorf("got %+v", got)
	}
	c.Advance(pressureInterval * time.Millisecond)
	if r := s.append(message(channelID(0), strings.Repeat("x", 45_000))); r.Err != nil {
		t.Fatal(r.Err)
	}
	expectStats(t, s, counted(s))
}

// TestCostsAreHonest compares the estimates with what the garbage collector sees.
func TestCostsAreHonest(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some memory")
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for name, fill := range map[string]func(s *Store, i int){
		"entries in few channels": func(s *Store, i int) {
			s.append(message(channelID(i%10), strings.Repeat("x", 100)))
		},
		"a channel each": func(s *Store, i int) {
			s.append(message(channelID(i), "x"))
		},
		"records": func(s *Store, i int) {
			s.append(&engine.Append{Channel: channelID(0), Puts: []engine.Put{{
				RecordKey: engine.RecordKey{Space: engine.RecordPresence, Key: fmt.Sprintf("%d.connection:client", (i*7919)%40_000)},
				Value:     make([]byte, 64), Entry: engine.NoEntry}}})
		},
		"msgSerials": func(s *Store, i int) {
			s.append(&engine.Append{Channel: channelID(0), ID: engine.ID{ConnectionID: fmt.Sprint("connection", i%40), MsgSerial: int64(i)}})
		},
		"connections": func(s *Store, i int) {
			s.append(&engine.Append{Channel: channelID(0), ID: engine.ID{ConnectionID: fmt.Sprint("connection", i), MsgSerial: int64(i)}})
		},
		"ids of clients": func(s *Store, i int) {
			s.append(&engine.Append{Channel: channelID(0), ID: engine.ID{Client: fmt.Sprint("0123456789ab", i)}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			s := NewStore(Options{LogBytes: 1 << 40, IDBytes: 1 << 40})
			for i := range 40_000 {
				fill(s, i)
			}
			used := heap() - before
			st := s.Stats()
			said := st.Bytes + st.IDBytes
			t.Logf("used %d bytes each, counted %d", used/40_000, said/40_000)
			if used > said*5/4 || used < said/2 {
				t.Errorf("used %d bytes, counted %d", used, said)
			}
			runtime.KeepAlive(s)
		})
	}
}
