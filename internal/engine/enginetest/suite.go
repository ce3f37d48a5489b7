package enginetest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// Harness is a store with two nodes on it, ready to be used: where an implementation needs
// Run for its deliveries, open has started it. All funcs but Now are optional.
type Harness struct {
	A, B engine.Engine

	// Now is the store's clock. It may go by itself: no test relies on less than slack of it.
	Now func() time.Time

	// Advance moves the store's clock on. It is nil if the clock cannot be moved.
	Advance func(time.Duration)

	// Shared says that other processes use the store too: transient records outlive one.
	Shared bool

	// Trim drops what is too old, as Run does from time to time. It is there whenever Advance is.
	Trim func()

	// Reopen closes the store and both nodes and opens them again. It is nil for a store that ends
	// with its process.
	Reopen func(t *testing.T) Harness

	// Limited opens another store that keeps no more than some bytes, as it counts them. It is nil
	// for a store without a budget of its own.
	Limited func(t *testing.T, logBytes int64) Harness
}

// The namespaces with a policy of their own.
const (
	namespaceKept  = "kept"  // for an hour
	namespaceFew   = "few"   // for an hour, ten entries at most
	namespaceSmall = "small" // for an hour, ten kilobytes at most
	namespaceLast  = "last"  // the last message for a day
	namespaceBoth  = "both"  // for an hour, and the last message for a day
)

// Policy is what the store must be opened with.
func Policy(id pubsub.ChannelID) engine.Policy {
	switch pubsub.Namespace(id.Name) {
	case namespaceKept:
		return engine.Policy{Retention: time.Hour}
	case namespaceFew:
		return engine.Policy{Retention: time.Hour, MaxEntries: 10}
	case namespaceSmall:
		return engine.Policy{Retention: time.Hour, MaxBytes: 10_000}
	case namespaceLast:
		return engine.Policy{Last: 24 * time.Hour}
	case namespaceBoth:
		return engine.Policy{Retention: time.Hour, Last: 24 * time.Hour}
	}
	return engine.Policy{}
}

// Run runs all tests; open is called once for each.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	runAll(t, open, slices.Concat(appendTests, subscribeTests, readTests, idTests, recordTests, retentionTests, reopenTests, modelTests))
}

// RunShort runs those that use each method of an engine, and take little time: for another way to a store
// on which Run has run.
func RunShort(t *testing.T, open func(t *testing.T) Harness) {
	runAll(t, open, slices.Concat(appendTests, subscribeTests, readTests, recordTests))
}

func runAll(t *testing.T, open func(t *testing.T) Harness, tests []test) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

type test struct {
	name string
	run  func(t *testing.T, h Harness)
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// slack is for how long a test may take without its clock being moved.
const slack = 30 * time.Second

// channel names a channel of this test, in the default namespace or the given one.
func channel(t *testing.T, namespace string) pubsub.ChannelID {
	name := strings.NewReplacer("/", ".", ":", ".").Replace(t.Name())
	if namespace != "" {
		name = namespace + ":" + name
	}
	return pubsub.ChannelID{App: "app", Name: name}
}

// body is a batch of one message whose name is text.
func body(text string) *pubsub.Batch {
	return &pubsub.Batch{ID: "b", Messages: []*pubsub.Message{{Name: text}}}
}

func text(e *engine.Entry) string {
	switch {
	case e == nil || e.Body == nil:
		return "<nil>"
	case len(e.Body.Messages) == 1:
		return e.Body.Messages[0].Name
	case len(e.Body.Presence) == 1:
		return e.Body.Presence[0].ClientID
	}
	return fmt.Sprintf("<%d items>", e.Body.Len())
}

func texts(entries []*engine.Entry) []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = text(e)
	}
	return out
}

func drafts(texts ...string) []engine.Draft {
	out := make([]engine.Draft, len(texts))
	for i, s := range texts {
		out[i] = engine.Draft{Kind: engine.KindMessage, Body: body(s)}
	}
	return out
}

// messages is an Append of messages.
func messages(ch pubsub.ChannelID, texts ...string) *engine.Append {
	return &engine.Append{Channel: ch, Entries: drafts(texts...)}
}

// try appends and waits.
func try(t *testing.T, e engine.Engine, a *engine.Append) engine.Result {
	t.Helper()
	got := make(chan engine.Result, 2)
	e.Append(a, func(r engine.Result) { got <- r })
	select {
	case r := <-got:
		return r
	case <-time.After(patience):
		t.Error("done was not called")
		runtime.Goexit()
		panic("unreachable")
	}
}

// do appends, waits and expects success.
func do(t *testing.T, e engine.Engine, a *engine.Append) engine.Result {
	t.Helper()
	r := try(t, e, a)
	if r.Err != nil {
		t.Errorf("Append: %v", r.Err)
		runtime.Goexit()
	}
	if !r.Repeated && len(r.Serials) != len(a.Entries) {
		t.Errorf("Append of %d entries returned %d serials", len(a.Entries), len(r.Serials))
		runtime.Goexit()
	}
	return r
}

func read(t *testing.T, e engine.Engine, ch pubsub.ChannelID, q engine.Query) engine.Page {
	t.Helper()
	p, err := e.Read(t.Context(), ch, q)
	if err != nil {
		t.Fatalf("Read(%+v): %v", q, err)
	}
	return p
}

// all is the whole log.
func all(t *testing.T, e engine.Engine, ch pubsub.ChannelID) []*engine.Entry {
	t.Helper()
	return upTo(t, e, ch, "")
}

// upTo is the log up to a position, read page by page.
func upTo(t *testing.T, e engine.Engine, ch pubsub.ChannelID, position pubsub.Serial) []*engine.Entry {
	t.Helper()
	var entries []*engine.Entry
	q := engine.Query{UpTo: position, Limit: 1000}
	for {
		p, err := e.Read(t.Context(), ch, q)
		if err != nil {
			t.Errorf("Read(%+v): %v", q, err)
			return entries
		}
		entries = append(entries, p.Entries...)
		if !p.More {
			return entries
		}
		q.After = entries[len(entries)-1].Serial
	}
}

// recorder is a Subscriber that keeps what it is given.
type recorder struct {
	mu      sync.Mutex
	entries []*engine.Entry
	lost    []pubsub.Serial
	changed chan struct{} // closed and replaced at every delivery
}

func (r *recorder) Deliver(entries []*engine.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, entries...)
	r.wake()
}

func (r *recorder) Flush() {}

func (r *recorder) Lost(p pubsub.Serial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = append(r.lost, p)
	r.wake()
}

func (r *recorder) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// until waits until ok holds of what was delivered, and returns that.
func (r *recorder) until(t *testing.T, what string, ok func([]*engine.Entry) bool) []*engine.Entry {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		entries, lost := slices.Clone(r.entries), len(r.lost)
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if lost > 0 {
			t.Fatal("the engine says that it lost entries")
		}
		if ok(entries) {
			return entries
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waited for %s; got %d entries", what, len(entries))
		}
	}
}

// untilText waits for the entry with that text and returns all up to now.
func (r *recorder) untilText(t *testing.T, last string) []*engine.Entry {
	t.Helper()
	return r.until(t, last, func(entries []*engine.Entry) bool {
		return slices.ContainsFunc(entries, func(e *engine.Entry) bool { return text(e) == last })
	})
}

// subscribe ends with the test.
func subscribe(t *testing.T, e engine.Engine, ch pubsub.ChannelID) (*recorder, pubsub.Serial, engine.Subscription) {
	t.Helper()
	r := &recorder{}
	sub, position, err := e.Subscribe(t.Context(), ch, r)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	t.Cleanup(sub.Unsubscribe)
	return r, position, sub
}

func expectTexts(t *testing.T, what string, got []*engine.Entry, want ...string) {
	t.Helper()
	if !slices.Equal(texts(got), want) {
		t.Fatalf("%s: got %q, want %q", what, texts(got), want)
	}
}

// expectChain checks that each entry names the position before it.
func expectChain(t *testing.T, what string, entries []*engine.Entry, position pubsub.Serial) {
	t.Helper()
	for i, e := range entries {
		if e.Prev != position {
			t.Fatalf("%s: entry %d (%s) comes after %q, but names %q", what, i, text(e), position, e.Prev)
		}
		if e.Serial <= position {
			t.Fatalf("%s: entry %d has serial %q, not after %q", what, i, e.Serial, position)
		}
		position = e.Position()
	}
}

// numbered is the texts of n entries.
func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return out
}
