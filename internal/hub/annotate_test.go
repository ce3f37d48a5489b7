package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

func identified(id string) *auth.Grant {
	return &auth.Grant{App: "app", ClientRule: auth.ClientIdentified, ClientID: id, Capability: auth.FullCapability}
}

var anonymous = &auth.Grant{App: "app", Capability: auth.FullCapability}

// annotate annotates a message, or takes an annotation back.
func annotate(t testing.TB, h *hub.Hub, g *auth.Grant, serial string, items ...*pubsub.Annotation) hub.Published {
	t.Helper()
	p, err := tryAnnotate(t, h, g, serial, items...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryAnnotate(t testing.TB, h *hub.Hub, g *auth.Grant, serial string, items ...*pubsub.Annotation) (hub.Published, error) {
	for _, a := range items {
		if a.MessageSerial == "" {
			a.MessageSerial = serial
		}
	}
	var turn hub.Turn
	defer turn.End()
	return h.Annotate(t.Context(), &turn, &hub.Annotate{Grant: g, Channel: mutableRoom, Items: items})
}

func create(kind, name string) *pubsub.Annotation {
	return &pubsub.Annotation{Type: kind, Name: name}
}

func takeBack(kind, name string) *pubsub.Annotation {
	return &pubsub.Annotation{Type: kind, Name: name, Action: pubsub.AnnotationDelete}
}

func times(n int64, a *pubsub.Annotation) *pubsub.Annotation {
	a.Count = &n
	return a
}

// TM7b1, TM7b2, TM7b3, TM7b4, TM7b5, TM7c1, TM7d1, TM7e1, TM8a
func TestEachTypeOfAnnotationIsSummedUpInItsOwnWay(t *testing.T) {
	ann, bob, any := identified("ann"), identified("bob"), anonymous
	type step struct {
		by   *auth.Grant
		what *pubsub.Annotation
		want string // the summary then
	}
	for kind, steps := range map[string][]step{
		"x:total.v1": {
			{ann, create("x:total.v1", ""), `{"x:total.v1":{"total":1}}`},
			{ann, create("x:total.v1", "name"), `{"x:total.v1":{"total":2}}`},
			{any, create("x:total.v1", ""), `{"x:total.v1":{"total":3}}`},
			{bob, takeBack("x:total.v1", ""), `{"x:total.v1":{"total":2}}`},
			{bob, takeBack("x:total.v1", ""), `{"x:total.v1":{"total":1}}`},
			{bob, takeBack("x:total.v1", ""), `{}`},
			{bob, takeBack("x:total.v1", ""), `{}`},
		},
		"x:flag.v1": {
			{ann, create("x:flag.v1", ""), `{"x:flag.v1":{"total":1,"clientIds":["ann"],"clipped":false}}`},
			{ann, create("x:flag.v1", "name"), `{"x:flag.v1":{"total":1,"clientIds":["ann"],"clipped":false}}`},
			{bob, create("x:flag.v1", ""), `{"x:flag.v1":{"total":2,"clientIds":["ann","bob"],"clipped":false}}`},
			{ann, takeBack("x:flag.v1", ""), `{"x:flag.v1":{"total":1,"clientIds":["bob"],"clipped":false}}`},
			{ann, takeBack("x:flag.v1", ""), `{"x:flag.v1":{"total":1,"clientIds":["bob"],"clipped":false}}`},
			{bob, takeBack("x:flag.v1", ""), `{}`},
		},
		"x:distinct.v1": {
			{ann, create("x:distinct.v1", "a"), `{"x:distinct.v1":{"a":{"total":1,"clientIds":["ann"],"clipped":false}}}`},
			{ann, create("x:distinct.v1", "b"), `{"x:distinct.v1":{"a":{"total":1,"clientIds":["ann"],"clipped":false},"b":{"total":1,"clientIds":["ann"],"clipped":false}}}`},
			{ann, create("x:distinct.v1", "b"), `{"x:distinct.v1":{"a":{"total":1,"clientIds":["ann"],"clipped":false},"b":{"total":1,"clientIds":["ann"],"clipped":false}}}`},
			{bob, create("x:distinct.v1", "b"), `{"x:distinct.v1":{"a":{"total":1,"clientIds":["ann"],"clipped":false},"b":{"total":2,"clientIds":["ann","bob"],"clipped":false}}}`},
			{ann, takeBack("x:distinct.v1", "a"), `{"x:distinct.v1":{"b":{"total":2,"clientIds":["ann","bob"],"clipped":false}}}`},
			{bob, takeBack("x:distinct.v1", "a"), `{"x:distinct.v1":{"b":{"total":2,"clientIds":["ann","bob"],"clipped":false}}}`},
		},
		"x:unique.v1": {
			{ann, create("x:unique.v1", "a"), `{"x:unique.v1":{"a":{"total":1,"clientIds":["ann"],"clipped":false}}}`},
			{bob, create("x:unique.v1", "a"), `{"x:unique.v1":{"a":{"total":2,"clientIds":["ann","bob"],"clipped":false}}}`},
			{ann, create("x:unique.v1", "b"), `{"x:unique.v1":{"a":{"total":1,"clientIds":["bob"],"clipped":false},"b":{"total":1,"clientIds":["ann"],"clipped":false}}}`},
			{ann, takeBack("x:unique.v1", ""), `{"x:unique.v1":{"a":{"total":1,"clientIds":["bob"],"clipped":false}}}`},
			{bob, takeBack("x:unique.v1", "b"), `{}`},
		},
		"x:multiple.v1": {
			{ann, create("x:multiple.v1", "a"), `{"x:multiple.v1":{"a":{"total":1,"clientIds":{"ann":1},"totalUnidentified":0,"totalClientIds":1,"clipped":false}}}`},
			{ann, times(4, create("x:multiple.v1", "a")), `{"x:multiple.v1":{"a":{"total":5,"clientIds":{"ann":5},"totalUnidentified":0,"totalClientIds":1,"clipped":false}}}`},
			{any, times(2, create("x:multiple.v1", "a")), `{"x:multiple.v1":{"a":{"total":7,"clientIds":{"ann":5},"totalUnidentified":2,"totalClientIds":1,"clipped":false}}}`},
			{bob, create("x:multiple.v1", "a"), `{"x:multiple.v1":{"a":{"total":8,"clientIds":{"ann":5,"bob":1},"totalUnidentified":2,"totalClientIds":2,"clipped":false}}}`},
			{ann, takeBack("x:multiple.v1", "a"), `{"x:multiple.v1":{"a":{"total":3,"clientIds":{"bob":1},"totalUnidentified":2,"totalClientIds":1,"clipped":false}}}`},
			{any, takeBack("x:multiple.v1", "a"), `{"x:multiple.v1":{"a":{"total":2,"clientIds":{"bob":1},"totalUnidentified":1,"totalClientIds":1,"clipped":false}}}`},
		},
		"x:other.v1": {
			{ann, create("x:other.v1", "a"), ``},
		},
	} {
		t.Run(kind, func(t *testing.T) {
			h := mutableHub(t)
			serial := act(t, h, hub.Publish{Messages: message("n", "x")})
			for i, s := range steps {
				p := annotate(t, h, s.by, serial, s.what)
				if p.Serial.Item(0) <= serial || p.Count != 1 {
					t.Errorf("step %d: %+v", i, p)
				}
				if got := string(now(t, h, serial).Summary); got != s.want {
					t.Errorf("step %d: got %s, want %s", i, got, s.want)
				}
			}
			h.Close()
		})
	}
}

func TestAnAnnotationIsRefusedWithTheCodeThatSaysWhy(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: message("n", "x")})
	ann := identified("ann")
	other := strings.Replace(serial, ":000", ":001", 1)
	about := func(serial string) *pubsub.Annotation {
		return &pubsub.Annotation{Type: "x:total.v1", MessageSerial: serial}
	}
	many := make([]*pubsub.Annotation, hub.MaxMessagesPerPublish+1)
	for i := range many {
		many[i] = create("x:total.v1", "")
	}
	for _, c := range []struct {
		what  string
		grant *auth.Grant
		items []*pubsub.Annotation
		want  pubsub.Code
	}{
		{"good", ann, []*pubsub.Annotation{create("x:flag.v1", "")}, 0},
		{"none", ann, nil, 0},
		{"no capability", capability(t, `{"*":["publish","annotation-subscribe"]}`), []*pubsub.Annotation{create("x:total.v1", "")}, pubsub.CodeCapabilityDenied},
		{"no type", ann, []*pubsub.Annotation{create("", "")}, pubsub.CodeInvalidParameterValue},
		{"no name", ann, []*pubsub.Annotation{create("x:distinct.v1", "")}, pubsub.CodeInvalidParameterValue},
		{"no name to take back", ann, []*pubsub.Annotation{takeBack("x:multiple.v1", "")}, pubsub.CodeInvalidParameterValue},
		{"nobody", anonymous, []*pubsub.Annotation{create("x:flag.v1", "")}, pubsub.CodeIdentifiedClientNeeded},
		{"somebody of nobody's choice", anyone, []*pubsub.Annotation{create("x:unique.v1", "a")}, pubsub.CodeIdentifiedClientNeeded},
		{"somebody who was chosen", anyone, []*pubsub.Annotation{{Type: "x:unique.v1", Name: "a", ClientID: "eve"}}, 0},
		{"somebody else", ann, []*pubsub.Annotation{{Type: "x:flag.v1", ClientID: "bob"}}, pubsub.CodeInvalidClientID},
		{"another connection", ann, []*pubsub.Annotation{{Type: "x:flag.v1", ConnectionID: "c"}}, pubsub.CodeInvalidConnectionID},
		{"a count of nothing", ann, []*pubsub.Annotation{times(0, create("x:multiple.v1", "a"))}, pubsub.CodeInvalidParameterValue},
		{"an action that there is not", ann, []*pubsub.Annotation{{Type: "x:flag.v1", Action: 2}}, pubsub.CodeBadRequest},
		{"extras of the server's", ann, []*pubsub.Annotation{{Type: "x:flag.v1", Extras: []byte(`{"userClaim":"x"}`)}}, pubsub.CodeInvalidExtras},
		{"a serial that is none", ann, []*pubsub.Annotation{about("x")}, pubsub.CodeInvalidParameterValue},
		{"a message that is not there", ann, []*pubsub.Annotation{about(other)}, pubsub.CodeNotFound},
		{"one good and one that is not", ann, []*pubsub.Annotation{create("x:total.v1", ""), about(other)}, pubsub.CodeNotFound},
		{"too large", ann, []*pubsub.Annotation{{Type: "x:other.v1", Data: pubsub.Text(strings.Repeat("x", 65536))}}, pubsub.CodeMessageTooLarge},
		{"too many", ann, many, pubsub.CodeTooManyMessages},
	} {
		t.Run(c.what, func(t *testing.T) {
			if _, err := tryAnnotate(t, h, c.grant, serial, c.items...); codeOf(err) != c.want {
				t.Errorf("got %v, want code %d", err, c.want)
			}
		})
	}
	var turn hub.Turn
	_, err := h.Annotate(t.Context(), &turn, &hub.Annotate{Grant: ann, Channel: name("room"), Items: []*pubsub.Annotation{about(serial)}})
	if codeOf(err) != pubsub.CodeMutableRuleMissing {
		t.Errorf("without the rule: %v", err)
	}
	if got := string(now(t, h, serial).Summary); strings.Contains(got, "total.v1") {
		t.Errorf("what was refused counts: %s", got)
	}
}

func TestASummaryListsSomeClientsAndCountsAll(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: message("n", "x")})
	const clients = 130
	who := func(i int) *auth.Grant { return identified(fmt.Sprintf("client-%03d", i)) }
	for i := range clients {
		annotate(t, h, who(i), serial, create("x:flag.v1", ""))
		annotate(t, h, who(i), serial, create("x:flag.v1", ""))
	}
	read := func() (total int, listed []string, clipped bool) {
		var s map[string]struct {
			Total     int
			ClientIDs []string `json:"clientIds"`
			Clipped   bool
		}
		if err := json.Unmarshal(now(t, h, serial).Summary, &s); err != nil {
			t.Fatal(err)
		}
		f := s["x:flag.v1"]
		return f.Total, f.ClientIDs, f.Clipped
	}
	if total, listed, clipped := read(); total != clients || len(listed) != 100 || !clipped {
		t.Errorf("total %d, %d listed, clipped %t", total, len(listed), clipped)
	}
	// One that is not listed counts all the same, and once.
	last := who(clients - 1)
	annotate(t, h, last, serial, takeBack("x:flag.v1", ""))
	annotate(t, h, last, serial, takeBack("x:flag.v1", ""))
	if total, _, _ := read(); total != clients-1 {
		t.Errorf("total %d", total)
	}
	for i := range clients - 101 {
		annotate(t, h, who(i), serial, takeBack("x:flag.v1", ""))
	}
	if total, listed, clipped := read(); total != 100 || len(listed) != 71 || !clipped || listed[0] != "client-029" {
		t.Errorf("total %d, %d listed, clipped %t", total, len(listed), clipped)
	}
	h.Close()
}

func TestASummaryStaysWithinTheSizeOfAMessage(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: message("n", "x")})
	refused := 0
	for i := range 200 {
		_, err := tryAnnotate(t, h, identified(strings.Repeat("c", 500)+fmt.Sprint(i)), serial, create("x:distinct.v1", fmt.Sprint(i%3)))
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := len(now(t, h, serial).Summary); n > 65536 {
		t.Errorf("the summary has %d bytes", n)
	}
	for i := range 1000 {
		if _, err := tryAnnotate(t, h, identified("a"), serial, create("x:distinct.v1", fmt.Sprint(i))); err != nil {
			if codeOf(err) != pubsub.CodeMessageTooLarge {
				t.Fatal(err)
			}
			refused++
		}
	}
	if n := len(now(t, h, serial).Summary); refused == 0 || n > 65536 || n < 16384 {
		t.Errorf("%d were refused, the summary has %d bytes", refused, n)
	}
	h.Close()
}

// model is what a summary must be, kept by the simplest means.
type model map[string]map[string]map[string]int64 // by type, name and client ("" for those without)

func (m model) apply(client string, a *pubsub.Annotation) {
	method := a.Type[strings.Index(a.Type, ":")+1:]
	name, n := a.Name, int64(1)
	if method == "total.v1" || method == "flag.v1" {
		name = ""
	}
	if method == "total.v1" {
		client = ""
	}
	if a.Count != nil && method == "multiple.v1" {
		n = *a.Count
	}
	if m[a.Type] == nil {
		m[a.Type] = make(map[string]map[string]int64)
	}
	names := m[a.Type]
	if names[name] == nil {
		names[name] = make(map[string]int64)
	}
	created := a.Action == pubsub.AnnotationCreate
	switch {
	case method == "unique.v1":
		if names[name][client] == 1 && created {
			return
		}
		for _, clients := range names {
			delete(clients, client)
		}
		if created {
			names[name][client] = 1
		}
	case created && (method == "total.v1" || method == "multiple.v1"):
		names[name][client] += n
	case created:
		names[name][client] = 1
	case client == "":
		names[name][client] = max(names[name][client]-n, 0)
	default:
		delete(names[name], client)
	}
}

// totals is what model and summary have in common: the totals by type and name.
func (m model) totals() string {
	var all []string
	for kind, names := range m {
		for name, clients := range names {
			total := int64(0)
			for _, n := range clients {
				total += n
			}
			if total > 0 {
				all = append(all, fmt.Sprintf("%s/%s=%d", kind, name, total))
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func totalsOf(t *testing.T, summary []byte) string {
	t.Helper()
	var types map[string]map[string]any
	if len(summary) > 0 {
		if err := json.Unmarshal(summary, &types); err != nil {
			t.Fatalf("%v in %s", err, summary)
		}
	}
	var all []string
	for kind, names := range types {
		if total, is := names["total"].(float64); is {
			all = append(all, fmt.Sprintf("%s/=%.0f", kind, total))
			continue
		}
		for name, v := range names {
			all = append(all, fmt.Sprintf("%s/%s=%.0f", kind, name, v.(map[string]any)["total"]))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// What is annotated on two nodes at once comes to one summary, which everybody is told in the
// end.
func TestAnnotationsFromTwoNodesEndInOneSummary(t *testing.T) {
	c := newNodes(t, 2)
	readers := []*viewer{new(viewer), new(viewer)}
	for i, r := range readers {
		r.attach(t, c.hubs[i], hub.Attach{}, nil)
	}
	serial := act(t, c.hubs[0], hub.Publish{Messages: message("n", "x")})
	kinds := []string{"x:total.v1", "x:flag.v1", "x:distinct.v1", "x:unique.v1", "x:multiple.v1"}
	var mu sync.Mutex
	var wg sync.WaitGroup
	want := make(model)
	// Each client is on one node, so that the order of what it does is known.
	for node, h := range c.hubs {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(node)))
			for range 300 {
				who := fmt.Sprint(node, "-", rng.IntN(4))
				a := create(kinds[rng.IntN(len(kinds))], fmt.Sprint("n", rng.IntN(3)))
				if rng.IntN(3) == 0 && a.Type != "x:total.v1" { // which never ends below zero, in whatever order
					a.Action = pubsub.AnnotationDelete
				} else if rng.IntN(2) == 0 {
					times(int64(1+rng.IntN(5)), a)
				}
				annotate(t, h, identified(who), serial, a)
				mu.Lock()
				want.apply(who, a)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, h := range c.hubs {
		h.Close()
	}
	m := now(t, c.hubs[1], serial)
	if got := totalsOf(t, m.Summary); got != want.totals() {
		t.Errorf("got %s, want %s", got, want.totals())
	}
	for i, r := range readers {
		r.mu.Lock()
		last := r.got[len(r.got)-1]
		if last.Action != pubsub.MessageSummary || last.Serial != serial || totalsOf(t, last.Summary) != want.totals() || last.Name != "n" {
			t.Errorf("reader %d was told %+v last", i, last)
		}
		r.mu.Unlock()
	}
}

func TestSummariesAreToldNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mutableHub(t)
		var r viewer
		r.attach(t, h, hub.Attach{}, nil)
		serial := act(t, h, hub.Publish{Messages: message("n", "x")})
		for range 1000 {
			annotate(t, h, anonymous, serial, create("x:total.v1", ""))
			time.Sleep(time.Millisecond)
		}
		h.Close()
		told := 0
		for _, m := range r.got {
			if m.Action == pubsub.MessageSummary {
				told++
			}
		}
		if told < 5 || told > 15 {
			t.Errorf("%d summaries in a second", told)
		}
		if got := string(r.got[len(r.got)-1].Summary); got != `{"x:total.v1":{"total":1000}}` {
			t.Errorf("the last is %s", got)
		}
	})
}

// annotations is a form that writes annotations.
type annotations struct{}

func (annotations) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	if e.Kind != engine.KindAnnotation {
		return dst, units
	}
	for i, a := range e.Body.Annotations {
		dst = fmt.Appendf(dst, "%s %s:%d%s\n", e.Serial.Item(i), a.ClientID, a.Action, a.Name)
	}
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

// RTAN4b, RTAN4e
func TestOnlyThoseWhoAskForThemReceiveAnnotations(t *testing.T) {
	h := mutableHub(t)
	var asked, not inbox
	attach(t, h, hub.Attach{Channel: mutableRoom, Form: annotations{}, Receiver: &asked, NoEcho: true, ConnectionID: "c", Modes: pubsub.ModeSubscribe | pubsub.ModeAnnotationSubscribe})
	attach(t, h, hub.Attach{Channel: mutableRoom, Form: annotations{}, Receiver: &not})
	serial := act(t, h, hub.Publish{Messages: message("n", "x")})
	annotate(t, h, identified("ann"), serial, create("x:distinct.v1", "a"), create("x:distinct.v1", "b"))
	annotate(t, h, identified("bob"), serial, takeBack("x:distinct.v1", "a"))
	h.Close()
	if got := asked.data(); got != "ann:0a ann:0b bob:1a" {
		t.Errorf("received %q", got)
	}
	if got := not.data(); got != "" {
		t.Errorf("without being asked for: %q", got)
	}
}

func TestTheAnnotationsOfAMessageCanBeReadInPages(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: message("n", "x")})
	other := act(t, h, hub.Publish{Messages: message("n", "y")})
	var want []string
	for i := range 5 {
		annotate(t, h, identified("ann"), "", &pubsub.Annotation{Type: "x:total.v1", MessageSerial: other},
			&pubsub.Annotation{Type: "x:multiple.v1", Name: fmt.Sprint(2 * i), MessageSerial: serial},
			&pubsub.Annotation{Type: "x:multiple.v1", Name: fmt.Sprint(2*i + 1), MessageSerial: serial})
		want = append(want, fmt.Sprint(2*i), fmt.Sprint(2*i+1))
	}
	for _, limit := range []int{1, 2, 3, 7, 10, 100} {
		q := hub.Annotations{OneMessage: hub.OneMessage{Grant: capability(t, `{"*":["annotation-subscribe"]}`), Channel: mutableRoom, Serial: serial}, Limit: limit}
		var got []string
		for pages := 0; pages < 12; pages++ {
			page, err := h.Annotations(t.Context(), &q)
			if err != nil || len(page.Annotations) > limit {
				t.Fatal(err, len(page.Annotations))
			}
			for _, a := range page.Annotations {
				if a.MessageSerial != serial || a.ClientID != "ann" || a.Serial <= serial || a.ID == "" || a.Timestamp == 0 {
					t.Errorf("%+v", a)
				}
				got = append(got, a.Name)
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %v", limit, got)
		}
	}
	h.Close()
}

// RSAN1c4
func TestAnAnnotationThatIsSentAgainIsDoneOnce(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: []*pubsub.Message{{ID: "id:0", Data: pubsub.Text("x")}}})
	first := annotate(t, h, anonymous, serial, &pubsub.Annotation{ID: "id:0", Type: "x:total.v1"})
	again := annotate(t, h, anonymous, serial, &pubsub.Annotation{ID: "id:0", Type: "x:total.v1"})
	if got := string(now(t, h, serial).Summary); first.Serial != again.Serial || got != `{"x:total.v1":{"total":1}}` {
		t.Errorf("%+v, %+v: %s", first, again, got)
	}
	h.Close()
}

func TestAClientCanAskForItsPartOfASummary(t *testing.T) {
	h := mutableHub(t)
	serial := act(t, h, hub.Publish{Messages: message("n", "x")})
	for _, who := range []string{"ann", "bob"} {
		annotate(t, h, identified(who), serial, create("x:flag.v1", ""), create("x:distinct.v1", "both"), create("x:distinct.v1", who), times(3, create("x:multiple.v1", "m")), create("x:total.v1", ""))
	}
	q := &hub.OneMessage{Grant: anyone, Channel: mutableRoom, Serial: serial}
	for who, want := range map[string]string{
		"ann": `{"x:flag.v1":{"total":2,"clientIds":["ann"],"clipped":true},"x:distinct.v1":{"both":{"total":2,"clientIds":["ann"],"clipped":true},"ann":{"total":1,"clientIds":["ann"],"clipped":false}},"x:multiple.v1":{"m":{"total":6,"clientIds":{"ann":3},"totalUnidentified":0,"totalClientIds":2,"clipped":true}},"x:total.v1":{"total":2}}`,
		"eve": `{"x:flag.v1":{"total":2,"clientIds":[],"clipped":true},"x:total.v1":{"total":2}}`,
	} {
		got, err := h.ClientSummary(t.Context(), q, who)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", who, got, err)
		}
	}
	h.Close()
}

// The summary is part of what is told of a message anyway: of the past, of changes, and with what
// a client has missed.
func TestASummaryComesWithTheMessage(t *testing.T) {
	h := mutableHub(t)
	var early, resumed, rewound viewer
	at := early.attach(t, h, hub.Attach{}, nil)
	serial := act(t, h, hub.Publish{Messages: message("n", "x")})
	since := early.position
	at.Detach()
	annotate(t, h, anonymous, serial, create("x:total.v1", ""))
	h.Close()
	const want = `{"x:total.v1":{"total":1}}`
	resumed.attach(t, h, hub.Attach{}, func(a *hub.Attachment) hub.Backlog { return a.Resume(t.Context(), since) })
	rewound.attach(t, h, hub.Attach{}, func(a *hub.Attachment) hub.Backlog { return a.Rewind(t.Context(), hub.Rewind{Limit: 1}) })
	act(t, h, hub.Publish{Messages: change(pubsub.MessageUpdate, serial, "y")})
	h.Close()
	if got := resumed.said(); got != "4 1y" || string(resumed.got[0].Summary) != want || string(resumed.got[1].Summary) != want {
		t.Errorf("resumed: %s, %s", got, resumed.got[0].Summary)
	}
	if got := rewound.said(); got != "1x 1y" && got != "0x 1y" || string(rewound.got[0].Summary) != want {
		t.Errorf("rewound: %s, %s", got, rewound.got[0].Summary)
	}
	page, err := h.Messages(t.Context(), &hub.History{Grant: anyone, Channel: mutableRoom, Limit: 1})
	if err != nil || string(page.Messages[0].Summary) != want {
		t.Errorf("history: %+v, %v", page, err)
	}
}

// failing is an engine whose records cannot be read, as often as said, after the next Append of
// an annotation.
type failing struct {
	engine.Engine
	next  int32
	times atomic.Int32
}

func (f *failing) Append(a *engine.Append, done func(engine.Result)) {
	if a.Entries[0].Kind == engine.KindAnnotation {
		f.times.Store(f.next)
	}
	f.Engine.Append(a, done)
}

func (f *failing) Record(ctx context.Context, id pubsub.ChannelID, key engine.RecordKey) (engine.Record, bool, error) {
	if f.times.Add(-1) >= 0 {
		return engine.Record{}, false, engine.ErrUnavailable
	}
	return f.Engine.Record(ctx, id, key)
}

func TestSummariesAreToldWhenTheStoreCanBeReadAgain(t *testing.T) {
	for _, c := range []struct {
		times int32
		lost  int
	}{{3, 0}, {8, 1}} {
		synctest.Test(t, func(t *testing.T) {
			var store failing
			h := newHub(t, func(o *hub.Options) {
				o.Namespace = mutableRule
				store.Engine = o.Engine
				o.Engine = &store
			})
			var r viewer
			r.attach(t, h, hub.Attach{}, nil)
			serial := act(t, h, hub.Publish{Messages: message("n", "x")})
			store.next = c.times
			annotate(t, h, anonymous, serial, create("x:total.v1", ""))
			h.Close()
			if c.lost > 0 { // who was told so may have asked for the past
				store.next = 0
				store.times.Store(0)
				annotate(t, h, anonymous, serial, create("x:total.v1", ""))
				h.Close()
			}
			last := r.got[len(r.got)-1]
			if want := fmt.Sprintf(`{"x:total.v1":{"total":%d}}`, 1+c.lost); r.lost != c.lost || string(last.Summary) != want {
				t.Errorf("after %d failures: lost %d, told %s", c.times, r.lost, last.Summary)
			}
		})
	}
}

// Summaries come after the annotations, and so may be missing although there is no gap.
func TestAResumeTellsSummariesThatMayNotHaveBeenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mutableHub(t)
		serial := act(t, h, hub.Publish{Messages: message("n", "x")})
		annotate(t, h, anonymous, serial, create("x:total.v1", ""))
		from := attach(t, h, hub.Attach{Channel: mutableRoom, Form: frames{}, Receiver: new(inbox)}).Position()
		resume := func(at *hub.Attachment) hub.Backlog { return at.Resume(t.Context(), from) }
		var r viewer
		r.attach(t, h, hub.Attach{}, resume)
		if r.said() != "4" || string(r.got[0].Summary) != `{"x:total.v1":{"total":1}}` {
			t.Errorf("was sent %q", r.said())
		}
		act(t, h, hub.Publish{Messages: message("n", "much later")})
		time.Sleep(time.Minute)
		from = pubsub.Serial(act(t, h, hub.Publish{Messages: message("n", "later still")}))
		from, _, _ = pubsub.ParseItemSerial(string(from))
		var late viewer
		late.attach(t, h, hub.Attach{}, resume)
		if late.said() != "" {
			t.Errorf("was sent %q", late.said())
		}
		h.Close()
	})
}

func TestAResumeDoesNotMakeMoreOfSummariesThanOfMessages(t *testing.T) {
	h := mutableHub(t)
	at := attach(t, h, hub.Attach{Channel: mutableRoom, Form: frames{}, Receiver: new(inbox)})
	for i := range 60 {
		serial := act(t, h, hub.Publish{Messages: message("n", "x")})
		annotate(t, h, anonymous, serial, create("x:multiple.v1", fmt.Sprint(i, strings.Repeat("n", 40<<10))))
	}
	since := at.Position()
	b := attach(t, h, hub.Attach{Channel: mutableRoom, Form: frames{}, Receiver: new(inbox)}).Resume(t.Context(), since)
	if b.Err == nil || b.Err.Code != pubsub.CodeBacklogTooLong || len(b.Frames) > 0 {
		t.Errorf("%d frames, %v", len(b.Frames), b.Err)
	}
	h.Close()
}
