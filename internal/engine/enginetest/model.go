package enginetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var modelTests = []test{
	{"RandomSchedulesAgreeWithAModel", randomSchedules},
}

// model is a channel as the contract describes it, in the simplest form.
type model struct {
	id        pubsub.ChannelID
	positions []pubsub.Serial // the first, then those of the logged entries
	log       []string        // texts
	ids       map[engine.ID]engine.Result
	records   map[engine.RecordKey]modelRecord
	revisions map[engine.RecordKey]uint64 // the last that was seen
	live      [2]*modelLive               // per node
}

type modelRecord struct {
	value  string
	serial pubsub.Serial
}

type modelLive struct {
	recorder *recorder
	sub      engine.Subscription
	position pubsub.Serial
	want     []string
}

// randomSchedules does random things on two nodes, one after another, and compares every
// answer with what the model says.
func randomSchedules(t *testing.T, h Harness) {
	for round := range 8 {
		seed := rand.Uint64()
		ok := t.Run(fmt.Sprint("Round", round), func(t *testing.T) {
			t.Logf("seed %d", seed)
			schedule(t, h, rand.New(rand.NewPCG(seed, 3)))
		})
		if !ok {
			return
		}
	}
}

func schedule(t *testing.T, h Harness, rng *rand.Rand) {
	nodes := []engine.Engine{h.A, h.B}
	base := channel(t, "")
	var models []*model
	for i := range 3 {
		m := &model{
			id:        pubsub.ChannelID{App: "app", Name: fmt.Sprint(base.Name, "-", i)},
			ids:       make(map[engine.ID]engine.Result),
			records:   make(map[engine.RecordKey]modelRecord),
			revisions: make(map[engine.RecordKey]uint64),
		}
		m.positions = []pubsub.Serial{read(t, h.A, m.id, engine.Query{Limit: 1}).Tail}
		models = append(models, m)
	}
	for step := range 400 {
		m := models[rng.IntN(len(models))]
		n := rng.IntN(2)
		switch rng.IntN(10) {
		case 0, 1, 2, 3, 4:
			m.append(t, nodes[n], rng, step, h)
		case 5:
			m.toggle(t, nodes[n], n)
		case 6, 7:
			m.read(t, nodes[n], rng)
		case 8:
			m.list(t, nodes[n])
		case 9:
			if h.Advance != nil && step%20 == 0 {
				h.Advance(time.Duration(rng.IntN(2000)) * time.Millisecond)
			}
		}
	}
	for _, m := range models {
		end := fmt.Sprint("end of ", m.id.Name)
		r := do(t, h.A, messages(m.id, end))
		m.log, m.positions = append(m.log, end), append(m.positions, r.Serials[0])
		for i, l := range m.live {
			if l != nil {
				got := l.recorder.untilText(t, end)
				expectTexts(t, fmt.Sprint("delivered to node ", i), got, append(l.want, end)...)
				expectChain(t, fmt.Sprint("delivered to node ", i), got, l.position)
				l.sub.Unsubscribe()
			}
		}
		for _, node := range nodes {
			m.list(t, node)
			log := all(t, node, m.id)
			expectTexts(t, "log", log, m.log...)
			expectChain(t, "log", log, m.positions[0])
		}
	}
}

func (m *model) append(t *testing.T, node engine.Engine, rng *rand.Rand, step int, h Harness) {
	a := &engine.Append{Channel: m.id}
	for i := range rng.IntN(4) {
		a.Entries = append(a.Entries, engine.Draft{
			Kind:     engine.KindMessage,
			Body:     body(fmt.Sprint(step, ".", i)),
			Unlogged: rng.IntN(4) == 0,
		})
	}
	switch rng.IntN(3) {
	case 0:
		a.ID = engine.ID{ConnectionID: fmt.Sprint("conn", rng.IntN(3)), MsgSerial: rng.Int64N(40)}
	case 1:
		a.ID = engine.ID{Client: fmt.Sprint("conn", rng.IntN(3), ":", rng.IntN(40))}
	}
	anyKey := func() engine.RecordKey {
		return key(engine.RecordSpace(1+rng.IntN(2)), fmt.Sprint("k", rng.IntN(6)))
	}
	for range rng.IntN(3) {
		p := engine.Put{RecordKey: anyKey(), Entry: engine.NoEntry}
		if rng.IntN(4) > 0 {
			p.Value = fmt.Append(nil, step, rng.Uint32())
		}
		if n := len(a.Entries); n > 0 && rng.IntN(2) == 0 {
			p.Entry = rng.IntN(n)
		}
		a.Puts = append(a.Puts, p)
	}
	var want error
	for range rng.IntN(3) {
		k := anyKey()
		p := engine.Precondition{RecordKey: k}
		if _, exists := m.records[k]; exists {
			p.Revision = m.revisions[k]
		}
		if rng.IntN(8) == 0 {
			p.Revision++
			want = engine.ErrPrecondition
		}
		a.Preconditions = append(a.Preconditions, p)
	}
	first, known := m.ids[a.ID]
	if known {
		want = nil
	}
	if rng.IntN(10) == 0 {
		a.Deadline = h.Now().Add(-time.Minute)
		want = engine.ErrDeadline
	}

	r := try(t, node, a)
	if !errors.Is(r.Err, want) {
		t.Fatalf("step %d: got %v, want %v", step, r.Err, want)
	}
	if want != nil {
		return
	}
	if known {
		if !r.Repeated || !slices.Equal(r.Serials, first.Serials) || r.Timestamp != first.Timestamp {
			t.Fatalf("step %d: repeat of %+v: got %+v, want %+v", step, a.ID, r, first)
		}
		return
	}
	if r.Repeated || len(r.Serials) != len(a.Entries) {
		t.Fatalf("step %d: %+v: got %+v", step, a.ID, r)
	}
	if a.ID != (engine.ID{}) {
		m.ids[a.ID] = r
	}
	for i, d := range a.Entries {
		for _, l := range m.live {
			if l != nil {
				l.want = append(l.want, d.Body.Messages[0].Name)
			}
		}
		if !d.Unlogged {
			m.log = append(m.log, d.Body.Messages[0].Name)
			m.positions = append(m.positions, r.Serials[i])
		}
	}
	for _, p := range a.Puts {
		if p.Value == nil {
			delete(m.records, p.RecordKey)
			continue
		}
		v := modelRecord{value: string(p.Value)}
		if p.Entry != engine.NoEntry {
			v.serial = r.Serials[p.Entry]
		}
		m.records[p.RecordKey] = v
	}
	for _, p := range a.Puts {
		if want, exists := m.records[p.RecordKey]; exists {
			got, ok := record(t, node, m.id, p.RecordKey)
			if !ok || string(got.Value) != want.value || got.Serial != want.serial || got.Revision < m.revisions[p.RecordKey] {
				t.Fatalf("step %d: record %+v: got %+v, %v", step, p.RecordKey, got, ok)
			}
			m.revisions[p.RecordKey] = got.Revision
		}
	}
}

// toggle subscribes a node, or ends its subscription.
func (m *model) toggle(t *testing.T, node engine.Engine, n int) {
	if l := m.live[n]; l != nil {
		got := l.recorder.until(t, "all deliveries", func(e []*engine.Entry) bool { return len(e) >= len(l.want) })
		l.sub.Unsubscribe()
		expectTexts(t, "delivered", got, l.want...)
		expectChain(t, "delivered", got, l.position)
		m.live[n] = nil
		return
	}
	l := &modelLive{}
	l.recorder, l.position, l.sub = subscribe(t, node, m.id)
	if want := m.positions[len(m.positions)-1]; l.position != want {
		t.Fatalf("position: got %q, want %q", l.position, want)
	}
	m.live[n] = l
}

// read resumes after any position.
func (m *model) read(t *testing.T, node engine.Engine, rng *rand.Rand) {
	i := rng.IntN(len(m.positions))
	limit := 1 + rng.IntN(20)
	p := read(t, node, m.id, engine.Query{After: m.positions[i], Exact: true, Limit: limit})
	want := m.log[i:]
	if p.More != (len(want) > limit) {
		t.Fatalf("%d entries left, limit %d: more is %v", len(want), limit, p.More)
	}
	expectTexts(t, "resumed", p.Entries, want[:min(limit, len(want))]...)
	expectChain(t, "resumed", p.Entries, m.positions[i])
	if tail := m.positions[len(m.positions)-1]; p.Tail != tail {
		t.Fatalf("tail: got %q, want %q", p.Tail, tail)
	}
}

// list compares all records.
func (m *model) list(t *testing.T, node engine.Engine) {
	got := make(map[engine.RecordKey]modelRecord)
	for space := engine.RecordPresence; space <= engine.RecordObject; space++ {
		page, err := node.Records(t.Context(), m.id, space, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			got[r.RecordKey] = modelRecord{string(r.Value), r.Serial}
			if r.Revision != m.revisions[r.RecordKey] {
				t.Fatalf("record %+v: revision %d, was %d", r.RecordKey, r.Revision, m.revisions[r.RecordKey])
			}
		}
	}
	if !maps.Equal(got, m.records) {
		t.Fatalf("records: got %v, want %v", got, m.records)
	}
}
