package redis

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// full reports whether the faults are injected as often as "make chaos" wants, and times are
// held to what is promised.
var full = os.Getenv("CHAOS") != ""

// times is how often a fault is injected.
func times(short, long int) int {
	if full {
		return long
	}
	return short
}

// message is a batch of one message, whose name is text.
func message(text string) *pubsub.Batch {
	return &pubsub.Batch{ID: "b", Messages: []*pubsub.Message{{Name: text, Data: pubsub.Text(strings.Repeat("x", 100))}}}
}

func textOf(e *engine.Entry) string { return e.Body.Messages[0].Name }

// listener is a Subscriber that checks what it is given.
type listener struct {
	t    testing.TB
	name string
	hold atomic.Pointer[chan struct{}] // Deliver waits for it

	mu       sync.Mutex
	position pubsub.Serial
	entries  []*engine.Entry
	lost     int
	lostAt   []int // indices of entries before which some may be missing
}

func (l *listener) Deliver(entries []*engine.Entry) {
	if gate := l.hold.Load(); gate != nil {
		<-*gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if e.Prev != l.position && l.position != "" {
			l.t.Errorf("%s: %q names %q as the one before, but that is %q", l.name, e.Serial, e.Prev, l.position)
		}
		l.position = e.Serial
	}
	l.entries = append(l.entries, entries...)
}

func (l *listener) Flush() {}

func (l *listener) Lost(p pubsub.Serial) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost++
	l.lostAt = append(l.lostAt, len(l.entries))
	l.position = p
}

func (l *listener) has(prefix string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.entries) - 1; i >= 0 && i > len(l.entries)-50; i-- {
		if strings.HasPrefix(textOf(l.entries[i]), prefix) {
			return true
		}
	}
	return false
}

// publisher sends to one channel. A stubborn one sends a message again, with the same id,
// until it is acknowledged; another goes on.
type publisher struct {
	name     string
	stubborn bool

	acked   []string                 // in order
	refused map[string]bool          // certainly not applied
	serials map[string]pubsub.Serial // of what was acknowledged
}

// traffic is publishers and subscribers on some nodes, while faults happen.
type traffic struct {
	t          testing.TB
	nodes      []*Engine
	channels   []pubsub.ChannelID
	publishers map[pubsub.ChannelID][]*publisher
	listeners  map[pubsub.ChannelID][]*listener

	stop    chan struct{}
	stopped sync.Once
	wg      sync.WaitGroup

	acks     atomic.Int64
	refusals atomic.Int64
	unknown  atomic.Int64
	slowest  atomic.Int64 // ns until an answer
	stall    atomic.Int64 // ns that a timer of this process was late, since others had the processors
	lastAck  []atomic.Int64

	goroutines int // before
	most       atomic.Int64
}

const trafficTimeout = DefaultTimeout

func startTraffic(t testing.TB, channels int, nodes ...*Engine) *traffic {
	t.Helper()
	tr := &traffic{t: t, nodes: nodes, stop: make(chan struct{}), publishers: make(map[pubsub.ChannelID][]*publisher),
		listeners: make(map[pubsub.ChannelID][]*listener), lastAck: make([]atomic.Int64, channels)}
	for i := range channels {
		ch := pubsub.ChannelID{App: "app", Name: fmt.Sprintf("kept:%d", i)}
		tr.channels = append(tr.channels, ch)
		for n, e := range nodes {
			l := &listener{t: t, name: fmt.Sprintf("channel %d, node %d", i, n)}
			sub, position, err := e.Subscribe(t.Context(), ch, l)
			if err != nil {
				t.Fatal(err)
			}
			l.mu.Lock()
			if len(l.entries) == 0 {
				l.position = position
			}
			l.mu.Unlock()
			t.Cleanup(sub.Unsubscribe)
			tr.listeners[ch] = append(tr.listeners[ch], l)
		}
	}
	t.Cleanup(tr.quiet)
	tr.goroutines = runtime.NumGoroutine()
	for i, ch := range tr.channels {
		for n, e := range nodes {
			for k := range 2 {
				p := &publisher{name: fmt.Sprintf("%d.%d.%d", i, n, k), stubborn: k == 0, refused: make(map[string]bool), serials: make(map[string]pubsub.Serial)}
				tr.publishers[ch] = append(tr.publishers[ch], p)
				tr.wg.Go(func() { tr.publish(e, i, ch, p) })
			}
		}
	}
	tr.wg.Go(func() {
		for {
			before := time.Now()
			select {
			case <-tr.stop:
				return
			case <-time.After(20 * time.Millisecond):
				tr.stall.Store(max(tr.stall.Load(), int64(time.Since(before)-20*time.Millisecond)))
				tr.most.Store(max(tr.most.Load(), int64(runtime.NumGoroutine())))
			}
		}
	})
	return tr
}

func (tr *traffic) publish(e *Engine, i int, ch pubsub.ChannelID, p *publisher) {
	results := make(chan engine.Result, 1)
	for n := 0; ; n++ {
		text := fmt.Sprintf("%s/%d", p.name, n)
		for again := true; again; {
			select {
			case <-tr.stop:
				return
			default:
			}
			a := &engine.Append{Channel: ch, Entries: []engine.Draft{{Kind: engine.KindMessage, Body: message(text)}}}
			if p.stubborn {
				a.ID = engine.ID{ConnectionID: "c" + p.name, MsgSerial: int64(n)}
			}
			start := time.Now()
			e.Append(a, func(r engine.Result) { results <- r })
			r := <-results
			took := time.Since(start)
			tr.slowest.Store(max(tr.slowest.Load(), int64(took)))
			again = p.stubborn && r.Err != nil
			switch {
			case r.Err == nil:
				tr.acks.Add(1)
				tr.lastAck[i].Store(time.Now().UnixNano())
				p.acked = append(p.acked, text)
				if len(r.Serials) == 1 {
					p.serials[text] = r.Serials[0]
				} else {
					tr.t.Errorf("%s: acknowledged without a serial", text)
				}
			case errors.Is(r.Err, engine.ErrUnknownOutcome):
				tr.unknown.Add(1)
			case errors.Is(r.Err, engine.ErrUnavailable), errors.Is(r.Err, engine.ErrDeadline):
				tr.refusals.Add(1)
				if !p.stubborn {
					p.refused[text] = true
				}
			default:
				tr.t.Errorf("%s: %v", text, r.Err)
			}
			if r.Err != nil {
				time.Sleep(20 * time.Millisecond) // as a client does
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// flowing waits until every channel acknowledges again, and returns how long that took.
func (tr *traffic) flowing() time.Duration {
	tr.t.Helper()
	start := time.Now()
	for i := range tr.channels {
		for tr.lastAck[i].Load() < start.UnixNano() {
			if time.Since(start) > 60*time.Second {
				tr.t.Fatalf("channel %d acknowledges nothing", i)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return time.Since(start)
}

// run lets traffic flow for a while.
func (tr *traffic) run(d time.Duration) { time.Sleep(d) }

// quiet stops the publishers.
func (tr *traffic) quiet() {
	tr.stopped.Do(func() { close(tr.stop) })
	tr.wg.Wait()
}

// kept says what may have become of what was acknowledged.
type kept int

const (
	keptAll  kept = iota // Redis has all of it
	keptSome             // Redis lost the end of its log, and said so to nobody
)

// end stops the publishers, waits until all is delivered, and checks what everybody saw.
func (tr *traffic) end(what kept) {
	t := tr.t
	t.Helper()
	tr.quiet()
	lost := 0
	for i, ch := range tr.channels {
		// Who is told of a loss only now does not get what was there before.
		tr.append(ch, "end 0")
		for _, l := range tr.listeners[ch] {
			start := time.Now()
			for n := 1; !l.has("end "); n++ {
				if time.Since(start) > 40*time.Second {
					t.Fatalf("%s: the last message does not come: silence; %s", l.name, describe(tr, l, ch))
				}
				if what == keptSome && n%100 == 0 {
					tr.append(ch, fmt.Sprint("end ", n))
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		for _, l := range tr.listeners[ch] {
			tr.settle(ch, l)
		}
		log := tr.log(ch)
		at := make(map[string]int)
		for k, e := range log {
			if old, twice := at[textOf(e)]; twice {
				t.Errorf("channel %d: %s is in the log twice, at %d and %d", i, textOf(e), old, k)
			}
			at[textOf(e)] = k
		}
		for _, p := range tr.publishers[ch] {
			before := -1
			for _, text := range p.acked {
				k, there := at[text]
				if !there {
					if what == keptAll {
						t.Errorf("channel %d: %s was acknowledged and is lost", i, text)
					}
					continue
				}
				if k <= before {
					t.Errorf("channel %d: %s is not in its order", i, text)
				}
				if log[k].Serial != p.serials[text] && what == keptAll {
					t.Errorf("channel %d: %s has serial %q, was acknowledged with %q", i, text, log[k].Serial, p.serials[text])
				}
				before = k
			}
			for text := range p.refused {
				if _, there := at[text]; there {
					t.Errorf("channel %d: %s was refused and is there", i, text)
				}
			}
		}
		for _, l := range tr.listeners[ch] {
			l.mu.Lock()
			lost += l.lost
			if what == keptAll {
				if l.lost > 0 {
					t.Errorf("%s: told of a loss that was none", l.name)
				}
				first := slices.IndexFunc(log, func(e *engine.Entry) bool { return e.Serial == l.entries[0].Serial })
				if first < 0 || len(log)-first != len(l.entries) {
					t.Errorf("%s: %d entries delivered, the log has %d", l.name, len(l.entries), len(log))
				}
			} else {
				from := 0
				if n := len(l.lostAt); n > 0 {
					from = l.lostAt[n-1]
				}
				tail := l.entries[from:]
				if len(tail) > len(log) {
					t.Errorf("%s: %d entries since the last loss, the log has %d", l.name, len(tail), len(log))
				} else if !slices.EqualFunc(tail, log[len(log)-len(tail):], func(a, b *engine.Entry) bool { return a.Serial == b.Serial }) {
					t.Errorf("%s: what came since the last loss is not what the log has", l.name)
				}
			}
			l.mu.Unlock()
		}
	}
	slowest, stall := time.Duration(tr.slowest.Load()), time.Duration(tr.stall.Load())
	if full && slowest > time.Second+stall || slowest > 10*time.Second {
		t.Errorf("an answer took %v; the process stood still for up to %v", slowest, stall)
	}
	if most := int(tr.most.Load()); most > tr.goroutines+500 { // other tests run meanwhile
		t.Errorf("%d goroutines, %d before", most, tr.goroutines)
	}
	t.Logf("%d acknowledged, %d refused, %d unknown, slowest answer %v, longest stall %v, goroutines %d then %d, told of loss %d", tr.acks.Load(), tr.refusals.Load(),
		tr.unknown.Load(), slowest.Round(time.Millisecond), stall.Round(time.Millisecond), tr.goroutines, tr.most.Load(), lost)
	for i, e := range tr.nodes {
		t.Logf("node %d: %+v", i, e.Stats())
	}
}

// append appends a message, whatever it takes.
func (tr *traffic) append(ch pubsub.ChannelID, text string) {
	tr.t.Helper()
	for n := 0; ; n++ {
		results := make(chan engine.Result, 1)
		tr.nodes[0].Append(&engine.Append{Channel: ch, ID: engine.ID{Client: text},
			Entries: []engine.Draft{{Kind: engine.KindMessage, Body: message(text)}}}, func(r engine.Result) { results <- r })
		if r := <-results; r.Err == nil {
			return
		} else if n == 100 {
			tr.t.Fatal(r.Err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (tr *traffic) log(ch pubsub.ChannelID) []*engine.Entry {
	tr.t.Helper()
	var log []*engine.Entry
	q := engine.Query{Limit: 1000}
	for {
		page, err := tr.nodes[0].Read(tr.t.Context(), ch, q)
		if err != nil {
			tr.t.Fatal(err)
		}
		log = append(log, page.Entries...)
		if !page.More {
			return log
		}
		q.After = log[len(log)-1].Serial
	}
}

// settle waits until l has what the log has.
func (tr *traffic) settle(ch pubsub.ChannelID, l *listener) {
	tr.t.Helper()
	log := tr.log(ch)
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		position := l.position
		l.mu.Unlock()
		if position == log[len(log)-1].Serial {
			return
		}
		if time.Since(start) > 40*time.Second {
			tr.t.Fatalf("%s: it stays behind: %s", l.name, describe(tr, l, ch))
		}
	}
}

// describe says where a subscription stands.
func describe(tr *traffic, l *listener, ch pubsub.ChannelID) string {
	var out strings.Builder
	for i, e := range tr.nodes {
		if tr.listeners[ch][i] != l {
			continue
		}
		s := e.feeds.find(e.keys(ch).state)
		s.mu.Lock()
		fmt.Fprintf(&out, "live %v, catching %v, position %v, newest %v, held %d; %+v", s.live, s.catching, s.position, s.newest, len(s.held), e.Stats())
		s.mu.Unlock()
		page, err := e.Read(tr.t.Context(), ch, engine.Query{Limit: 1, Backwards: true})
		fmt.Fprintf(&out, "; the log ends at %q, %v", page.Tail, err)
	}
	return out.String()
}
