package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/vcdiff/vcdifftest"
)

// written is a message as a client is told of it.
type written struct {
	ID, Name, Encoding string
	Kind               pubsub.DataKind
	Data               []byte
	Extras             json.RawMessage `json:",omitempty"`
}

// whole is a form that writes all that a client is told of an entry's messages as one line.
type whole struct{ label string }

func (f whole) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	var all []written
	for i, m := range e.Body.Messages {
		id := m.ID
		if id == "" {
			id = pubsub.ItemID(e.Body.ID, i)
		}
		all = append(all, written{id, m.Name, m.Encoding, m.Data.Kind, m.Data.Bytes, m.Extras})
	}
	line, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	dst = append(append(dst, line...), '\n')
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// reader is a receiver that undoes deltas as Ably's SDKs do, and so knows only one base.
type reader struct {
	mu     sync.Mutex
	held   [][]byte // nil: nothing is held back
	got    []string // what the messages say
	full   int
	deltas int
	size   int // bytes of data
	calls  int
	err    error

	id      string // of the last message
	payload []byte // base of the next delta
}

func (r *reader) Receive(frames []byte, _ bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.held != nil {
		r.held = append(r.held, frames)
	} else {
		r.readLocked(frames)
	}
}

func (r *reader) Lost(pubsub.Serial) {}

func (r *reader) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = [][]byte{}
}

// release reads frames, and then what was held back.
func (r *reader) release(frames [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range slices.Concat(frames, r.held) {
		r.readLocked(f)
	}
	r.held = nil
}

func (r *reader) readLocked(frames []byte) {
	for line := range bytes.Lines(frames) {
		var all []written
		if err := json.Unmarshal(line, &all); err != nil {
			r.err = err
			return
		}
		for i, m := range all {
			r.message(i, &m)
		}
		r.id = all[len(all)-1].ID
	}
}

func (r *reader) message(index int, m *written) {
	r.size += len(m.Data)
	var extras map[string]json.RawMessage
	var delta struct{ From, Format string }
	if m.Extras != nil && (json.Unmarshal(m.Extras, &extras) != nil || extras["delta"] != nil && json.Unmarshal(extras["delta"], &delta) != nil) {
		r.err = fmt.Errorf("extras %s", m.Extras)
	}
	payload, encoding, isDelta := m.Data, m.Encoding, strings.HasSuffix(m.Encoding, "vcdiff")
	if isDelta != (delta.From != "") || isDelta && delta.Format != "vcdiff" {
		r.err = fmt.Errorf("encoding %s with extras %s", m.Encoding, m.Extras)
	}
	if isDelta {
		r.deltas++
		if index == 0 && delta.From != r.id {
			r.err = fmt.Errorf("delta to %s after %s", delta.From, r.id)
		}
		var err error
		if payload, err = vcdifftest.Decode(r.payload, m.Data); err != nil {
			r.err = err
		} else if len(m.Data) >= len(payload) {
			r.err = fmt.Errorf("a delta of %d bytes for %d", len(m.Data), len(payload))
		}
		encoding = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(encoding, "vcdiff"), "/"), "utf-8")
		delete(extras, "delta")
	} else {
		r.full++
	}
	if encoding = strings.TrimSuffix(encoding, "/"); encoding == "json" && !json.Valid(payload) || encoding != "" && encoding != "json" {
		// What cannot be decoded is no base.
	} else {
		r.payload = payload
	}
	rest, _ := json.Marshal(extras)
	if len(extras) == 0 {
		rest = nil
	}
	r.got = append(r.got, fmt.Sprintf("%s %s %q %s %s", m.ID, m.Name, encoding, rest, payload))
}

// check fails the test if something could not be read.
func (r *reader) check(t testing.TB) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		t.Fatal(r.err)
	}
}

// reads attaches a reader.
func reads(t testing.TB, h *hub.Hub, a hub.Attach) (*hub.Attachment, *reader) {
	t.Helper()
	r := new(reader)
	a.Receiver = r
	if a.Form == nil {
		a.Form = whole{}
	}
	return attach(t, h, a), r
}

func state(n int) string {
	return fmt.Sprintf(`{"name":"something with a long name","count":%d,"status":"as it was before"}`, n)
}

func TestDeltasAreToTheMessageBefore(t *testing.T) {
	h := newHub(t)
	_, plain := reads(t, h, hub.Attach{})
	_, r := reads(t, h, hub.Attach{Deltas: true})
	for i := range 5 {
		say(t, h, state(i))
	}
	r.check(t)
	if r.full != 1 || r.deltas != 4 {
		t.Errorf("%d full messages and %d deltas", r.full, r.deltas)
	}
	if plain.deltas != 0 || !slices.Equal(r.got, plain.got) || len(r.got) != 5 {
		t.Errorf("got %q, want %q", r.got, plain.got)
	}
}

func TestADeltaIsMadeOnceForAll(t *testing.T) {
	h := newHub(t)
	counting := newLines("counted")
	for range 10 {
		attach(t, h, hub.Attach{Deltas: true, Form: counting})
	}
	first, second := say(t, h, state(1)), say(t, h, state(2))
	for _, p := range []hub.Published{first, second} {
		if n := counting.count.of["counted "+string(p.Serial)]; n != 1 {
			t.Errorf("%s was encoded %d times", p.Serial, n)
		}
	}
	attach(t, h, hub.Attach{Deltas: true, Form: counting})
	attach(t, h, hub.Attach{Deltas: true, Form: counting})
	third := say(t, h, state(3))
	if n := counting.count.of["counted "+string(third.Serial)]; n != 2 {
		t.Errorf("encoded %d times, want once as a delta and once in full", n)
	}
}

func TestWhoComesLaterBeginsWithAFullMessage(t *testing.T) {
	h := newHub(t)
	_, early := reads(t, h, hub.Attach{Deltas: true})
	say(t, h, state(1))
	at, late := reads(t, h, hub.Attach{Deltas: true})
	say(t, h, state(2))
	say(t, h, state(3))
	at.Mark(nil, func() {}) // its client is told that it is attached
	say(t, h, state(4))
	say(t, h, state(5))
	early.check(t)
	late.check(t)
	if early.full != 1 || early.deltas != 4 {
		t.Errorf("the early one: %d full, %d deltas", early.full, early.deltas)
	}
	if late.full != 2 || late.deltas != 2 {
		t.Errorf("the late one: %d full, %d deltas", late.full, late.deltas)
	}
}

func TestDeltasGoOnFromABacklog(t *testing.T) {
	for what, begin := range map[string]func(*hub.Attachment, pubsub.Serial) hub.Backlog{
		"resumed": func(a *hub.Attachment, since pubsub.Serial) hub.Backlog { return a.Resume(t.Context(), since) },
		"rewound": func(a *hub.Attachment, _ pubsub.Serial) hub.Backlog {
			return a.Rewind(t.Context(), hub.Rewind{Limit: 2})
		},
	} {
		h := newHub(t)
		reads(t, h, hub.Attach{Deltas: true})
		since := say(t, h, state(1)).Serial
		say(t, h, state(2))
		say(t, h, state(3))
		at, late := reads(t, h, hub.Attach{Deltas: true})
		late.hold()
		late.release(begin(at, since).Frames)
		if late.full != 2 || late.deltas != 0 {
			t.Errorf("%s: %d full, %d deltas, want the backlog in full", what, late.full, late.deltas)
		}
		say(t, h, state(4))
		late.check(t)
		if late.deltas != 1 {
			t.Errorf("%s: no delta to the last message of the backlog", what)
		}
	}
}

func TestWhatWasSentBeforeTheBacklogWasReadComesInFull(t *testing.T) {
	h := newHub(t)
	reads(t, h, hub.Attach{Deltas: true})
	since := say(t, h, state(1)).Serial
	say(t, h, state(2))
	at, late := reads(t, h, hub.Attach{Deltas: true})
	late.hold()
	say(t, h, state(3)) // behind the backlog, whose last message nobody knows yet
	late.release(at.Resume(t.Context(), since).Frames)
	say(t, h, state(4))
	late.check(t)
	if late.full != 2 || late.deltas != 1 || len(late.got) != 3 {
		t.Errorf("%d full, %d deltas: %q", late.full, late.deltas, late.got)
	}
}

func TestWhatIsLeftOutIsNoBase(t *testing.T) {
	h := newHub(t)
	_, all := reads(t, h, hub.Attach{Deltas: true, ConnectionID: "a"})
	_, quiet := reads(t, h, hub.Attach{Deltas: true, ConnectionID: "b", NoEcho: true})
	_, named := reads(t, h, hub.Attach{Deltas: true, Names: []string{"n"}})
	var turn hub.Turn
	for i, m := range []struct{ connection, name string }{{"a", "n"}, {"b", "n"}, {"a", "x"}, {"a", "n"}, {"a", "n"}, {"b", "n"}, {"a", "n"}} {
		publish(t, h, &turn, hub.Publish{ConnectionID: m.connection, MsgSerial: int64(i), Messages: message(m.name, state(i))})
		if i%2 == 0 {
			turn.End()
		}
	}
	turn.End()
	for _, c := range []struct {
		r            *reader
		full, deltas int
	}{{all, 1, 6}, {quiet, 1, 4}, {named, 1, 5}} {
		c.r.check(t)
		if c.r.full != c.full || c.r.deltas != c.deltas {
			t.Errorf("%d full, %d deltas, want %d and %d", c.r.full, c.r.deltas, c.full, c.deltas)
		}
	}
}

func TestMembersWithManyBasesAreSentAFewDeltas(t *testing.T) {
	h := newHub(t)
	counting := newLines("counted")
	for i := range 20 {
		attach(t, h, hub.Attach{Deltas: true, Form: counting, Names: []string{"all", fmt.Sprint(i)}})
	}
	var turn hub.Turn
	for i := range 20 {
		publish(t, h, &turn, hub.Publish{Messages: message(fmt.Sprint(i), state(i))})
		turn.End()
	}
	last := publish(t, h, &turn, hub.Publish{Messages: message("all", state(100))})
	turn.End()
	if n := counting.count.of["counted "+string(last.Serial)]; n != 6 {
		t.Errorf("encoded %d times, want 5 as a delta and once in full", n)
	}
}

func TestDeltasCanBeTurnedOnAndOff(t *testing.T) {
	h := newHub(t)
	at, r := reads(t, h, hub.Attach{})
	say(t, h, state(1))
	change := hub.Change{Modes: at.Modes(), Deltas: true}
	at.Mark(&change, func() {})
	say(t, h, state(2))
	say(t, h, state(3))
	if r.full != 2 || r.deltas != 1 {
		t.Errorf("on: %d full, %d deltas", r.full, r.deltas)
	}
	change.Deltas = false
	at.Mark(&change, func() {})
	say(t, h, state(4))
	say(t, h, state(5))
	r.check(t)
	if r.full != 4 || r.deltas != 1 {
		t.Errorf("off: %d full, %d deltas", r.full, r.deltas)
	}
}

func TestAnOccupancyEventIsNoBase(t *testing.T) {
	h := newHub(t)
	at, r := reads(t, h, hub.Attach{Deltas: true})
	say(t, h, state(1))
	since := at.Position()
	late, watching := reads(t, h, hub.Attach{Deltas: true})
	watching.hold()
	event, err := late.ShowOccupancy(t.Context(), hub.AllOccupancy, late.Position())
	if err != nil || len(event) != 1 {
		t.Fatal(event, err)
	}
	watching.release(append(late.Resume(t.Context(), since).Frames, event...))
	say(t, h, state(2))
	say(t, h, state(3))
	r.check(t)
	watching.check(t)
	if watching.full != 3 || watching.deltas != 1 { // the event, one of the backlog, and the first after the event
		t.Errorf("%d full, %d deltas: %q", watching.full, watching.deltas, watching.got)
	}
}

func TestALiveOccupancyEventIsNoBase(t *testing.T) {
	withCluster(t, func(t *testing.T, c *cluster) {
		h := c.hubs[0]
		at, watching := reads(t, h, hub.Attach{Deltas: true, ConnectionID: "a"})
		_, other := reads(t, h, hub.Attach{Deltas: true, ConnectionID: "b"})
		if _, err := at.ShowOccupancy(t.Context(), hub.AllOccupancy, at.Position()); err != nil {
			t.Fatal(err)
		}
		say(t, h, state(1))
		say(t, h, state(2))
		reads(t, h, hub.Attach{ConnectionID: "c"})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		say(t, h, state(3))
		say(t, h, state(4))
		watching.check(t)
		other.check(t)
		if watching.full != 3 || watching.deltas != 2 { // the first, the event, the one after it
			t.Errorf("%d full, %d deltas: %q", watching.full, watching.deltas, watching.got)
		}
		if other.full != 1 || other.deltas != 3 {
			t.Errorf("who is told no occupancy: %d full, %d deltas", other.full, other.deltas)
		}
	})
}

func TestWhatSomeClientCannotDecodeIsNoBaseAndNoDelta(t *testing.T) {
	long := strings.Repeat("the same again, ", 10)
	for _, m := range []pubsub.Message{
		{Data: pubsub.Text(long), Encoding: "json"}, // is none
		{Data: pubsub.Text(long), Encoding: "base64"},
		{Data: pubsub.Text(long), Encoding: "utf-8"},
		{Data: pubsub.Binary([]byte(long)), Encoding: "utf-8/cipher+aes-256-cbc"},
		{Data: pubsub.Binary([]byte(long)), Encoding: "vcdiff"},
		{Data: pubsub.Text(long), Encoding: "some/thing"},
		{Data: pubsub.Text("")},
		{},
	} {
		h := newHub(t)
		_, r := reads(t, h, hub.Attach{Deltas: true})
		say(t, h, long+"1")
		say(t, h, long+"2")
		var turn hub.Turn
		odd := m
		publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{&odd}})
		turn.End()
		say(t, h, long+"3")
		say(t, h, long+"4")
		if odd.Encoding != "vcdiff" { // which the reader takes for ours
			r.check(t)
		}
		if got := r.deltas; got != 2 && !(odd.Encoding == "vcdiff" && got == 3) {
			t.Errorf("%q of kind %d: %d deltas, want 2", m.Encoding, m.Data.Kind, got)
		}
	}
}

func TestAPublisherCannotSayWhatADeltaRefersTo(t *testing.T) {
	h := newHub(t)
	_, r := reads(t, h, hub.Attach{})
	var turn hub.Turn
	for _, extras := range []string{`{"delta":{"from":"x","format":"vcdiff"}}`, `{"d\u0065lta":1,"headers":{"a":1}}`} {
		publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{{Extras: []byte(extras), Data: pubsub.Text("t")}}})
	}
	turn.End()
	r.check(t)
	if len(r.got) != 2 || strings.Contains(r.got[0], "delta") || !strings.Contains(r.got[1], `{"headers":{"a":1}}`) {
		t.Errorf("got %q", r.got)
	}
}

// pair is two attachments that differ in nothing but deltas.
type pair struct {
	at            [2]*hub.Attachment
	plain, deltas *reader
	options       hub.Attach
}

func (p *pair) join(t testing.TB, h *hub.Hub) {
	o := p.options
	p.at[0], p.plain = reads(t, h, o)
	o.Deltas = true
	p.at[1], p.deltas = reads(t, h, o)
}

func (p *pair) check(t testing.TB) {
	t.Helper()
	p.deltas.check(t)
	if p.plain.deltas > 0 {
		t.Fatal("deltas for one who did not ask")
	}
	if !slices.Equal(p.plain.got, p.deltas.got) {
		t.Fatalf("with deltas:    %q\nwithout deltas: %q", p.deltas.got, p.plain.got)
	}
}

// randomMessage makes a message that is much like the one before it, or not at all.
func randomMessage(random *rand.Rand, before *string) *pubsub.Message {
	m := &pubsub.Message{Name: string("abc"[random.IntN(3)])}
	if *before == "" || random.IntN(10) == 0 {
		*before = strings.Repeat(fmt.Sprintf("%x, ", random.Uint64()), random.IntN(100))
	} else {
		at := random.IntN(len(*before))
		*before = (*before)[:at] + fmt.Sprint(random.IntN(1000)) + (*before)[at+random.IntN(len(*before)-at):]
	}
	switch text := *before; random.IntN(8) {
	case 0, 1, 2:
		m.Data = pubsub.Text(text)
	case 3, 4, 5:
		quoted, _ := json.Marshal([]string{text})
		m.Data, m.Encoding = pubsub.Data{Kind: pubsub.TextData, Bytes: quoted}, "json"
	case 6:
		m.Data = pubsub.Binary([]byte(text))
	case 7:
		m.Data, m.Encoding = pubsub.Text(text), "json" // not really
	}
	if random.IntN(4) == 0 {
		m.Extras = []byte(`{"headers":{"k":1}}`)
	}
	return m
}

func TestEverybodyReadsTheSameWithAndWithoutDeltas(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 7))
		h := newHub(t)
		var pairs []*pair
		var serials [4]int64
		var before string
		var turn hub.Turn
		deltas := 0
		for range 150 {
			switch n := random.IntN(12); {
			case n < 7:
				from := random.IntN(len(serials))
				var messages []*pubsub.Message
				for range 1 + random.IntN(3)*random.IntN(2) {
					messages = append(messages, randomMessage(random, &before))
				}
				publish(t, h, &turn, hub.Publish{
					ConnectionID: fmt.Sprint(from), MsgSerial: serials[from], Messages: messages, Ephemeral: random.IntN(8) == 0,
				})
				serials[from]++
				if random.IntN(2) == 0 {
					turn.End()
				}
			case n < 9 && len(pairs) < 10:
				p := &pair{options: hub.Attach{
					Grant: wide, ConnectionID: fmt.Sprint(random.IntN(len(serials))), NoEcho: random.IntN(2) == 0,
					Form: whole{fmt.Sprint(random.IntN(2))},
				}}
				switch random.IntN(5) {
				case 0:
					p.options.Names = []string{"a", "b"}
				case 1:
					p.options.Channel = filtered("name == 'a'")
				}
				p.join(t, h)
				pairs = append(pairs, p)
			case n < 10 && len(pairs) > 0: // leave
				i := random.IntN(len(pairs))
				pairs[i].at[0].Detach()
				pairs[i].at[1].Detach()
				pairs[i].check(t)
				deltas += pairs[i].deltas.deltas
				pairs = slices.Delete(pairs, i, i+1)
			case n < 11 && len(pairs) > 0: // come back, or rewind
				p := pairs[random.IntN(len(pairs))]
				turn.End()
				since := p.at[0].Mark(nil, func() {})
				p.at[0].Detach()
				p.at[1].Detach()
				missed := randomMessage(random, &before)
				publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{missed}})
				turn.End()
				p.check(t)
				deltas += p.deltas.deltas
				p.join(t, h)
				p.plain.hold()
				p.deltas.hold()
				if random.IntN(2) == 0 {
					publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{randomMessage(random, &before)}})
					turn.End()
				}
				rewind := random.IntN(2) == 0
				for i, r := range []*reader{p.plain, p.deltas} {
					var b hub.Backlog
					if rewind {
						b = p.at[i].Rewind(t.Context(), hub.Rewind{Limit: 3})
					} else {
						b = p.at[i].Resume(t.Context(), since)
					}
					if b.Err != nil {
						t.Fatal(b.Err)
					}
					r.release(b.Frames)
				}
			case len(pairs) > 0: // change
				p := pairs[random.IntN(len(pairs))]
				quiet := random.IntN(2) == 0
				turn.End()
				for i, at := range p.at {
					at.Mark(&hub.Change{Modes: at.Modes(), NoEcho: quiet, Deltas: i == 1}, func() {})
				}
			}
		}
		turn.End()
		for _, p := range pairs {
			p.check(t)
			deltas += p.deltas.deltas
		}
		if deltas < 50 {
			t.Errorf("seed %d: %d deltas only", seed, deltas)
		}
	}
}

func TestDeltasAreRightWhileAllHappensAtOnce(t *testing.T) {
	h := newHub(t)
	_, steady := reads(t, h, hub.Attach{Deltas: true})
	const publishers, each = 4, 60
	var wg sync.WaitGroup
	for i := range publishers {
		wg.Go(func() {
			var turn hub.Turn
			for k := range each {
				publish(t, h, &turn, hub.Publish{ConnectionID: fmt.Sprint(i), MsgSerial: int64(k), Messages: message("n", state(k))})
				if k%3 == 0 {
					turn.End()
				}
			}
			turn.End()
		})
	}
	for i := range 4 {
		wg.Go(func() {
			for k := range 10 {
				at, r := reads(t, h, hub.Attach{Deltas: true, ConnectionID: fmt.Sprint(i), NoEcho: k%2 == 0})
				r.hold()
				r.release(at.Rewind(t.Context(), hub.Rewind{Limit: 2}).Frames)
				if k%5 == 0 {
					at.Mark(&hub.Change{Modes: at.Modes(), Deltas: k%10 == 0}, func() {})
				}
				at.Detach()
				r.check(t)
			}
		})
	}
	wg.Wait() // a small room is sent to by those who publish, and they have ended
	steady.check(t)
	if len(steady.got) != publishers*each {
		t.Fatalf("%d messages arrived", len(steady.got))
	}
	if steady.full != 1 {
		t.Errorf("%d full messages, %d deltas", steady.full, steady.deltas)
	}
}

// payloads is a form that allocates nothing.
type payloads struct{}

func (payloads) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	for _, m := range e.Body.Messages {
		dst = append(dst, m.Data.Bytes...)
	}
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// BenchmarkFanOutOfDeltas is a fan-out of JSON of 1 KiB to members who take deltas, or do not.
func BenchmarkFanOutOfDeltas(b *testing.B) {
	var versions [20][]byte
	for n := range versions {
		text := []byte("[")
		for i := range 20 {
			price := i
			if i == n {
				price = 100 + n
			}
			text = fmt.Appendf(text, `{"id":%d,"price":"%d.25","at":"12:30","by":"x"},`, i, price)
		}
		versions[n] = append(text, "0]"...)
	}
	for _, members := range []int{1, 50, 1000} {
		for _, deltas := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/deltas=%v", members, deltas), func(b *testing.B) {
				h := newHub(b)
				for range members {
					attach(b, h, hub.Attach{Deltas: deltas, Receiver: discard{}, Form: payloads{}})
				}
				var turn hub.Turn
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					m := &pubsub.Message{Data: pubsub.Data{Kind: pubsub.TextData, Bytes: versions[i%20]}, Encoding: "json"}
					publish(b, h, &turn, hub.Publish{Messages: []*pubsub.Message{m}, Final: true})
					turn.End()
					h.Close() // waits for what is sent
				}
			})
		}
	}
}

func TestAChangedMessageIsNoBase(t *testing.T) {
	h := mutableHub(t)
	_, r := reads(t, h, hub.Attach{Grant: anyone, Channel: mutableRoom, Deltas: true})
	say := func(messages []*pubsub.Message) string {
		return act(t, h, hub.Publish{Grant: anyone, Messages: messages})
	}
	serial := say(message("", state(1)))
	say(message("", state(2)))
	say(change(pubsub.MessageUpdate, serial, state(100)))
	say(message("", state(3)))
	say(message("", state(4)))
	r.check(t)
	if r.full != 3 || r.deltas != 2 { // the first, the update, and the one after it
		t.Errorf("%d full, %d deltas: %q", r.full, r.deltas, r.got)
	}
}

// forgetful is an engine that keeps nothing of what it delivers, as if it came from elsewhere.
type forgetful struct{ engine.Engine }

func (f forgetful) Subscribe(ctx context.Context, id pubsub.ChannelID, sub engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	return f.Engine.Subscribe(ctx, id, copying{sub})
}

type copying struct{ engine.Subscriber }

func (c copying) Deliver(entries []*engine.Entry) {
	own := make([]*engine.Entry, len(entries))
	for i, e := range entries {
		entry, body := *e, *e.Body
		entry.Body, body.Messages = &body, nil
		for _, m := range e.Body.Messages {
			message := *m
			body.Messages = append(body.Messages, &message)
		}
		own[i] = &entry
	}
	c.Subscriber.Deliver(own)
}

func TestADeltaRefersToWhatTheEngineDoesNotKeep(t *testing.T) {
	h := newHub(t, func(o *hub.Options) { o.Engine = forgetful{o.Engine} })
	_, r := reads(t, h, hub.Attach{Deltas: true})
	for i := range 5 {
		say(t, h, state(i))
		runtime.GC()
	}
	r.check(t)
	if r.full != 1 || r.deltas != 4 {
		t.Errorf("%d full messages and %d deltas", r.full, r.deltas)
	}
}
