package enginetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var idTests = []test{
	{"ARepeatedIDReturnsTheFirstResultAndDeliversNothing", repeated},
	{"ARepeatedIDIsKnownOnlyInItsChannel", idPerChannel},
	{"AClientsIDNeverMatchesARealtimeID", poisoning},
	{"AnAppendWithoutIDIsNeverARepeat", zeroID},
	{"EitherOfTwoIDsMakesARepeat", bothIDs},
	{"OfConcurrentAppendsOfOneIDOneIsApplied", concurrentID},
	{"AGapOfMsgSerialsIsNotARepeat", gaps},
	{"EveryMsgSerialIsKnownForTheLiveWindow", windowOfMsgSerials},
	{"IDsAreKnownForTheirTime", idAges},
}

func withID(a *engine.Append, id engine.ID) *engine.Append {
	a.ID = id
	return a
}

func repeated(t *testing.T, h Harness) {
	for what, id := range map[string]engine.ID{
		"Realtime":      {ConnectionID: "conn", MsgSerial: 5},
		"RealtimeFirst": {ConnectionID: "conn", MsgSerial: 0},
		"Client":        {Client: "chosen"},
	} {
		t.Run(what, func(t *testing.T) {
			ch := channel(t, "")
			live, _, _ := subscribe(t, h.B, ch)
			first := do(t, h.A, withID(messages(ch, "one", "two"), id))
			if first.Repeated {
				t.Fatal("the first is a repeat")
			}
			do(t, h.A, messages(ch, "between"))
			for _, node := range []engine.Engine{h.A, h.B} {
				a := withID(messages(ch, "again", "and again"), id)
				a.Preconditions = []engine.Precondition{{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: "none"}, Revision: 7}}
				a.Puts = []engine.Put{{RecordKey: engine.RecordKey{Space: engine.RecordObject, Key: "put"}, Value: []byte("v")}}
				again := do(t, node, a)
				if !again.Repeated || !slices.Equal(again.Serials, first.Serials) || again.Timestamp != first.Timestamp {
					t.Errorf("got %+v, want the result of the first: %+v", again, first)
				}
			}
			do(t, h.A, messages(ch, "end"))
			expectTexts(t, "delivered", live.untilText(t, "end"), "one", "two", "between", "end")
			expectTexts(t, "log", all(t, h.A, ch), "one", "two", "between", "end")
			if _, ok, _ := h.A.Record(t.Context(), ch, engine.RecordKey{Space: engine.RecordObject, Key: "put"}); ok {
				t.Error("a repeat put a record")
			}
		})
	}
}

func idPerChannel(t *testing.T, h Harness) {
	one, two := channel(t, ""), channel(t, namespaceKept)
	for _, id := range []engine.ID{{ConnectionID: "conn", MsgSerial: 1}, {Client: "chosen"}} {
		for _, ch := range []pubsub.ChannelID{one, two, {App: "other", Name: one.Name}} {
			if do(t, h.A, withID(messages(ch, "m"), id)).Repeated {
				t.Errorf("%+v is known in %v", id, ch)
			}
		}
	}
	if do(t, h.A, withID(messages(one, "m"), engine.ID{ConnectionID: "other", MsgSerial: 1})).Repeated {
		t.Error("the id of another connection is known")
	}
}

func poisoning(t *testing.T, h Harness) {
	ch := channel(t, "")
	for _, guess := range []string{"conn:5", "conn", "conn/5", "5", "conn:5:0", "conn\x005"} {
		do(t, h.A, withID(messages(ch, "guess"), engine.ID{Client: guess}))
	}
	if do(t, h.B, withID(messages(ch, "victim"), engine.ID{ConnectionID: "conn", MsgSerial: 5})).Repeated {
		t.Error("a client's id swallowed another's publish")
	}
	do(t, h.A, withID(messages(ch, "victim"), engine.ID{ConnectionID: "conn", MsgSerial: 6}))
	if do(t, h.B, withID(messages(ch, "id"), engine.ID{Client: "conn:6"})).Repeated {
		t.Error("a client's id is a repeat of a realtime id")
	}
}

func zeroID(t *testing.T, h Harness) {
	ch := channel(t, "")
	for range 3 {
		if do(t, h.A, messages(ch, "m")).Repeated {
			t.Fatal("the zero id is known")
		}
		if do(t, h.A, withID(messages(ch, "m"), engine.ID{MsgSerial: 4})).Repeated {
			t.Fatal("a msgSerial without a connection is known")
		}
	}
}

func bothIDs(t *testing.T, h Harness) {
	ch := channel(t, "")
	first := do(t, h.A, withID(messages(ch, "m"), engine.ID{ConnectionID: "conn", MsgSerial: 3, Client: "chosen"}))
	for _, id := range []engine.ID{
		{ConnectionID: "conn", MsgSerial: 3},
		{Client: "chosen"},
		{ConnectionID: "conn", MsgSerial: 3, Client: "another"},
		{ConnectionID: "conn", MsgSerial: 4, Client: "chosen"},
	} {
		if r := do(t, h.B, withID(messages(ch, "again"), id)); !r.Repeated || !slices.Equal(r.Serials, first.Serials) {
			t.Errorf("%+v: got %+v, want %+v", id, r, first)
		}
	}
}

func concurrentID(t *testing.T, h Harness) {
	for _, id := range []engine.ID{{ConnectionID: "conn", MsgSerial: 1}, {Client: "chosen"}} {
		ch := channel(t, "")
		ch.Name += id.Client
		for range 50 {
			id.MsgSerial++
			if id.Client != "" {
				id = engine.ID{Client: fmt.Sprint("chosen", rand.Uint64())}
			}
			results := make([]engine.Result, 4)
			var wg sync.WaitGroup
			for i := range results {
				wg.Go(func() {
					results[i] = do(t, []engine.Engine{h.A, h.B}[i%2], withID(messages(ch, "m", "n"), id))
				})
			}
			wg.Wait()
			applied := 0
			for _, r := range results {
				if !r.Repeated {
					applied++
				}
				if !slices.Equal(r.Serials, results[0].Serials) {
					t.Fatalf("results differ: %+v, %+v", r, results[0])
				}
			}
			if applied != 1 {
				t.Fatalf("applied %d times", applied)
			}
		}
		if n := len(all(t, h.A, ch)); n != 100 {
			t.Fatalf("the log has %d entries, want 100", n)
		}
	}
}

// gaps: the msgSerials of a connection are spread over its channels, and some never come.
func gaps(t *testing.T, h Harness) {
	ch := channel(t, "")
	for i := range int64(3000) {
		do(t, h.A, withID(messages(ch, "m"), engine.ID{ConnectionID: "conn", MsgSerial: i * 3}))
	}
	live, _, _ := subscribe(t, h.A, ch)
	for _, i := range []int64{1, 2, 1000, 4499, 7000, 8996, 9001} {
		if do(t, h.B, withID(messages(ch, fmt.Sprint("gap", i)), engine.ID{ConnectionID: "conn", MsgSerial: i})).Repeated {
			t.Errorf("msgSerial %d, which never came here, was swallowed", i)
		}
	}
	live.untilText(t, "gap9001")
}

func windowOfMsgSerials(t *testing.T, h Harness) {
	ch := channel(t, "")
	const n = 5000
	first := make([]engine.Result, n)
	for i := range first {
		first[i] = do(t, h.A, withID(messages(ch, "m"), engine.ID{ConnectionID: "conn", MsgSerial: int64(i)}))
	}
	size := len(all(t, h.A, ch))
	exact := 0
	for i := n - 1; i >= 0; i -= 13 {
		r := do(t, h.B, withID(messages(ch, "again"), engine.ID{ConnectionID: "conn", MsgSerial: int64(i)}))
		switch {
		case !r.Repeated:
			t.Fatalf("msgSerial %d of %d is not known", i, n)
		case slices.Equal(r.Serials, first[i].Serials):
			exact++
		case len(r.Serials) != 0:
			t.Fatalf("msgSerial %d: got serials %q, had %q", i, r.Serials, first[i].Serials)
		case i >= n-1000:
			t.Fatalf("the result of msgSerial %d of %d is forgotten", i, n)
		}
	}
	if got := len(all(t, h.A, ch)); got != size {
		t.Errorf("repeats added %d entries", got-size)
	}
}

func idAges(t *testing.T, h Harness) {
	if h.Advance == nil {
		t.Skip("the clock cannot be moved")
	}
	ch := channel(t, "")
	realtime, client := engine.ID{ConnectionID: "conn", MsgSerial: 1}, engine.ID{Client: "chosen"}
	do(t, h.A, withID(messages(ch, "r"), realtime))
	do(t, h.A, withID(messages(ch, "c"), client))
	step := func(d time.Duration) {
		h.Advance(d)
		h.Trim()
	}
	step(2*time.Minute - slack)
	if !do(t, h.A, withID(messages(ch, "again"), client)).Repeated {
		t.Error("a client's id is forgotten within 2 minutes")
	}
	do(t, h.A, withID(messages(ch, "other"), engine.ID{ConnectionID: "conn", MsgSerial: 2}))
	step(engine.LiveWindow - 2*time.Minute)
	if !do(t, h.A, withID(messages(ch, "again"), realtime)).Repeated {
		t.Error("a realtime id is forgotten within LiveWindow")
	}
	step(10 * engine.LiveWindow)
	if do(t, h.A, withID(messages(ch, "c"), client)).Repeated {
		t.Error("a client's id is never forgotten")
	}
	// A realtime id may be known for ever: no connection uses it twice.
}
