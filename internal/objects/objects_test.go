package objects_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/objects"
	"letshare-server/internal/pubsub"
)

var now = time.UnixMilli(1_700_000_000_000)

func text(s string) pubsub.ObjectData { return pubsub.ObjectData{Type: pubsub.StringValue, Text: s} }

func reference(id string) pubsub.ObjectData {
	return pubsub.ObjectData{Type: pubsub.ObjectValue, Text: id}
}

func number(f float64) pubsub.ObjectData {
	return pubsub.ObjectData{Type: pubsub.NumberValue, Number: f}
}

func op(action pubsub.ObjectAction, id string) *pubsub.ObjectOperation {
	return &pubsub.ObjectOperation{Action: action, ObjectID: id, Payload: true}
}

func set(id, key string, d pubsub.ObjectData) *pubsub.ObjectOperation {
	o := op(pubsub.MapSet, id)
	o.Key, o.Value = key, d
	return o
}

func remove(id, key string) *pubsub.ObjectOperation {
	o := op(pubsub.MapRemove, id)
	o.Key = key
	return o
}

func inc(id string, by float64) *pubsub.ObjectOperation {
	o := op(pubsub.CounterInc, id)
	o.Number = by
	return o
}

const (
	aMap     = "map:m@1700000000000"
	aCounter = "counter:c@1700000000000"
)

// serial is the n-th of a site, such that those of all sites are in one order.
func serial(site string, n int) string { return fmt.Sprintf("%06d@%s:000", n, site) }

func message(site string, n int, o *pubsub.ObjectOperation) *pubsub.ObjectMessage {
	return &pubsub.ObjectMessage{Operation: o, SiteCode: site, Serial: serial(site, n), SerialTimestamp: int64(n)}
}

// randomOperation is any that there is.
func randomOperation(r *rand.Rand) *pubsub.ObjectOperation {
	keys := []string{"a", "b", "c", ""}
	maps := []string{pubsub.RootObject, aMap}
	id, key := maps[r.IntN(2)], keys[r.IntN(len(keys))]
	switch r.IntN(12) {
	case 0:
		o := op(pubsub.MapCreate, aMap)
		o.Entries = []pubsub.ObjectEntry{{Key: "a", Data: text("begin")}, {Key: "c", Data: reference(aCounter)}}
		return o
	case 1:
		o := op(pubsub.CounterCreate, aCounter)
		o.Number = 10
		return o
	case 2:
		return op(pubsub.MapClear, id)
	case 3:
		if r.IntN(8) == 0 {
			return op(pubsub.ObjectDelete, []string{aMap, aCounter, pubsub.RootObject}[r.IntN(3)])
		}
		return inc(aCounter, -1)
	case 4, 5:
		return inc(aCounter, float64(r.IntN(5)))
	case 6, 7:
		return remove(id, key)
	}
	return set(id, key, []pubsub.ObjectData{text(fmt.Sprint(r.IntN(100))), number(r.Float64()), reference(aMap), reference(aCounter),
		{Type: pubsub.BooleanValue, True: true}, {Type: pubsub.BytesValue, Text: "\xff"}, {Type: pubsub.JSONValue, Text: "[]"}}[r.IntN(7)])
}

// dump is all that there is of a pool, with the serials of sites in order.
func dump(p objects.Pool) map[string]*pubsub.ObjectMessage {
	out := make(map[string]*pubsub.ObjectMessage)
	for id, o := range p {
		m := o.State()
		m.State.Sites = slices.SortedFunc(slices.Values(m.State.Sites), func(a, b pubsub.SiteSerial) int { return strings.Compare(a.Site, b.Site) })
		if m.State.Entries = slices.Clone(m.State.Entries); len(m.State.Entries) == 0 {
			m.State.Entries = nil
		}
		out[id] = m
	}
	return out
}

func TestTheSameOperationsInAnyOrderGiveTheSameObjects(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var sites [3][]*pubsub.ObjectMessage
		for n, created := 0, false; n < 60; n++ {
			o := randomOperation(r)
			if o.Action == pubsub.MapCreate && created {
				continue // an id is that of one creation
			}
			created = created || o.Action == pubsub.MapCreate
			i := r.IntN(3)
			sites[i] = append(sites[i], message(string(rune('a'+i)), n, o))
		}
		var want map[string]*pubsub.ObjectMessage
		for range 4 {
			pool := make(objects.Pool)
			left := sites
			for len(left[0])+len(left[1])+len(left[2]) > 0 {
				if i := r.IntN(3); len(left[i]) > 0 {
					pool.Apply(left[i][0])
					if r.IntN(4) == 0 {
						pool.Apply(left[i][0]) // twice is once
					}
					left[i] = left[i][1:]
				}
			}
			got := dump(pool)
			if want == nil {
				want = got
			}
			// Which of two sites deletes first is seen in the time only, and what becomes of an object
			// after is not seen at all.
			for id, m := range got {
				if m.State.Tombstone && want[id].State.Tombstone {
					m.SerialTimestamp = want[id].SerialTimestamp
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: got %+v, want %+v", seed, got, want)
			}
		}
	}
}

// grown makes objects that have everything.
func grown(r *rand.Rand, n int) objects.Pool {
	pool := make(objects.Pool)
	for i := range n {
		pool.Apply(message("s", i, randomOperation(r)))
	}
	return pool
}

func TestAStoredObjectReadsBackAsItWas(t *testing.T) {
	for seed := range uint64(300) {
		pool := grown(rand.New(rand.NewPCG(seed, 2)), 40)
		again := make(objects.Pool)
		for id, o := range pool {
			o.OrphanedAt = int64(seed)
			var err error
			if again[id], err = objects.Decode(id, o.Encode(), "", 0); err != nil {
				t.Fatal(err)
			}
			if again[id].OrphanedAt != o.OrphanedAt {
				t.Errorf("orphaned at %d, not %d", again[id].OrphanedAt, o.OrphanedAt)
			}
		}
		if got, want := dump(again), dump(pool); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: got %+v, want %+v", seed, got, want)
		}
	}
}

func TestWhatClientsAreToldOfAnObjectIsAllThereIs(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		pool, copied := make(objects.Pool), make(objects.Pool)
		var all []*pubsub.ObjectMessage
		for n := range 60 {
			all = append(all, message("s", n, randomOperation(r)))
		}
		for _, m := range all[:40] {
			pool.Apply(m)
		}
		for id, o := range pool {
			var err error
			if copied[id], err = objects.Restore(o.State()); err != nil {
				t.Fatal(err)
			}
		}
		// What came before the copy was made has no effect on it, and what comes after has the same.
		for n, m := range all {
			if n >= 40 {
				pool.Apply(m)
			}
			copied.Apply(m)
		}
		if got, want := dump(copied), dump(pool); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: got %+v, want %+v", seed, got, want)
		}
	}
}

func TestSerialsThatAreNotGivenYetAreThoseOfTheRecord(t *testing.T) {
	pool := make(objects.Pool)
	pool.Apply(message("s", 1, set(pubsub.RootObject, "old", text("x"))))
	for i, o := range []*pubsub.ObjectOperation{set(pubsub.RootObject, "k", text("y")), remove(pubsub.RootObject, "old"), op(pubsub.MapClear, aMap), op(pubsub.ObjectDelete, aCounter)} {
		if m := (&pubsub.ObjectMessage{Operation: o, SiteCode: "s", Serial: objects.Pending(i)}); !pool.Apply(m) {
			t.Errorf("%+v has no effect", o)
		}
	}
	read := func(id string) *pubsub.ObjectMessage {
		o, err := objects.Decode(id, pool[id].Encode(), "S", 7)
		if err != nil {
			t.Fatal(err)
		}
		return o.State()
	}
	root := read(pubsub.RootObject).State
	want := []pubsub.ObjectEntry{{Key: "k", Data: text("y"), Serial: "S:000"}, {Key: "old", Tombstone: true, Serial: "S:001", Timestamp: 7}}
	if !reflect.DeepEqual(root.Entries, want) || root.Sites[0].Serial != "S:001" {
		t.Errorf("got %+v", root)
	}
	if s := read(aMap).State; s.ClearSerial != "S:002" {
		t.Errorf("got %+v", s)
	}
	if m := read(aCounter); !m.State.Tombstone || m.SerialTimestamp != 7 {
		t.Errorf("got %+v", m)
	}
}

func TestWhatIsNoStoredObjectIsRefused(t *testing.T) {
	pool := grown(rand.New(rand.NewPCG(9, 9)), 60)
	for id, o := range pool {
		whole := o.Encode()
		for n := range whole {
			if _, err := objects.Decode(id, whole[:n], "", 0); err == nil {
				t.Errorf("the first %d of %d bytes of %s are accepted", n, len(whole), id)
			}
		}
		if _, err := objects.Decode(id, append(whole, 0), "", 0); err == nil {
			t.Error("more than all is accepted")
		}
		whole[0] = 2
		if _, err := objects.Decode(id, whole, "", 0); err == nil {
			t.Error("a later format is accepted")
		}
	}
}

func FuzzDecode(f *testing.F) {
	for id, o := range grown(rand.New(rand.NewPCG(1, 1)), 60) {
		f.Add(id == aCounter, o.Encode())
	}
	f.Fuzz(func(t *testing.T, counter bool, in []byte) {
		id := aMap
		if counter {
			id = aCounter
		}
		o, err := objects.Decode(id, in, "S", 1)
		if err != nil {
			return
		}
		out := o.Encode()
		again, err := objects.Decode(id, out, "S", 1)
		if err != nil {
			t.Fatalf("what was written anew: %v", err)
		}
		if !slices.Equal(again.Encode(), out) {
			t.Fatal("it reads back as something else")
		}
	})
}

func TestRemovedEntriesAreForgottenAfterAWhile(t *testing.T) {
	o, _ := objects.New(pubsub.RootObject)
	o.Apply(message("s", 1, set(o.ID, "stays", text("x"))))
	o.Apply(message("s", 2, remove(o.ID, "a")))
	o.Apply(message("s", 3, remove(o.ID, "b")))
	if !o.Trim(3) || o.Trim(3) {
		t.Error("not once")
	}
	if got := len(o.Entries()); got != 2 {
		t.Errorf("%d entries", got)
	}
}

func code(err error) pubsub.Code {
	var e *pubsub.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// created is an operation that creates an object, as clients send it.
func created(isMap bool, initialValue string) *pubsub.ObjectOperation {
	action := pubsub.CounterCreate
	if isMap {
		action = pubsub.MapCreate
	}
	o := op(action, objects.MakeID(isMap, initialValue, "nonce", now.UnixMilli()))
	o.InitialValue, o.Nonce = initialValue, "nonce"
	return o
}

func TestWhatClientsMayNotAskForIsRefused(t *testing.T) {
	changed := func(o *pubsub.ObjectOperation, f func(*pubsub.ObjectOperation)) *pubsub.ObjectOperation {
		f(o)
		return o
	}
	for _, c := range []struct {
		what string
		op   *pubsub.ObjectOperation
		ok   bool
	}{
		{"nothing", nil, false},
		{"a value", set(pubsub.RootObject, "k", text("")), true},
		{"a value for the empty key", set(pubsub.RootObject, "", number(0)), true},
		{"no value", set(pubsub.RootObject, "k", pubsub.ObjectData{}), false},
		{"a reference", set(aMap, "k", reference(aCounter)), true},
		{"a reference to nothing that can be", set(aMap, "k", reference("x")), false},
		{"a removal", remove(aMap, "k"), true},
		{"a removal of nothing", &pubsub.ObjectOperation{Action: pubsub.MapRemove, ObjectID: aMap}, false},
		{"an increment", inc(aCounter, -1), true},
		{"an increment of nothing", &pubsub.ObjectOperation{Action: pubsub.CounterInc, ObjectID: aCounter}, false},
		{"an increment of a map", inc(aMap, 1), false},
		{"a value in a counter", set(aCounter, "k", text("")), false},
		{"all of a map removed", &pubsub.ObjectOperation{Action: pubsub.MapClear, ObjectID: pubsub.RootObject}, true},
		{"all of a counter removed", &pubsub.ObjectOperation{Action: pubsub.MapClear, ObjectID: aCounter}, false},
		{"a deletion", op(pubsub.ObjectDelete, aMap), false},
		{"an action that is none", op(pubsub.MapClear+1, aMap), false},
		{"an id of no type", remove("list:a@1", "k"), false},
		{"an id without a hash", remove("map:@1", "k"), false},
		{"an id without a time", remove("map:a", "k"), false},
		{"an id with a time that is none", remove("map:a@b", "k"), false},
		{"no id", remove("", "k"), false},
		{"a new map", created(true, `{}`), true},
		{"a new counter", created(false, `{"count":1}`), true},
		{"a new root", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) { o.ObjectID = pubsub.RootObject }), false},
		{"a new map with another's id", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) { o.Nonce = "other" }), false},
		{"a new map without a nonce", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) { o.Nonce = "" }), false},
		{"a new map without its origin", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) { o.InitialValue = "" }), false},
		{"a new counter with a map's id", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) { o.Action = pubsub.CounterCreate }), false},
		{"a new map of long ago", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) {
			o.ObjectID = objects.MakeID(true, `{}`, "nonce", now.Add(-25*time.Hour).UnixMilli())
		}), false},
		{"a new map of unknown semantics", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) { o.Semantics = 1 }), false},
		{"a new map with a key twice", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) {
			o.Entries = []pubsub.ObjectEntry{{Key: "k", Data: text("1")}, {Key: "j", Data: text("1")}, {Key: "k", Data: text("2")}}
		}), false},
		{"a new map with a key without a value", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) { o.Entries = []pubsub.ObjectEntry{{Key: "k"}} }), false},
		{"a new map with a removed key", changed(created(true, `{}`), func(o *pubsub.ObjectOperation) {
			o.Entries = []pubsub.ObjectEntry{{Key: "k", Data: text("1"), Tombstone: true}}
		}), false},
	} {
		err := objects.Check(&pubsub.ObjectMessage{Operation: c.op}, now)
		if c.ok && err != nil || !c.ok && code(err) != pubsub.CodeInvalidObject {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.ok && (c.op.InitialValue != "" || c.op.Nonce != "" || !c.op.Payload && c.op.Action != pubsub.MapClear) {
			t.Errorf("%s is not complete: %+v", c.what, c.op)
		}
	}
}

func TestNothingIsDoneToWhatWasDeleted(t *testing.T) {
	o, _ := objects.New(aMap)
	o.Apply(message("s", 1, op(pubsub.ObjectDelete, aMap)))
	if got := code(o.Allows(set(aMap, "k", text("x")))); got != pubsub.CodeObjectDeleted {
		t.Errorf("code %d", got)
	}
	if o.Apply(message("s", 2, set(aMap, "k", text("x")))) {
		t.Error("it has an effect")
	}
}

// tree is a pool with a map of posts, each with votes, and things of other types beside them.
func tree() objects.Pool {
	pool := make(objects.Pool)
	n := 0
	do := func(o *pubsub.ObjectOperation) {
		n++
		pool.Apply(message("s", n, o))
	}
	ids := map[string]string{}
	for _, name := range []string{"posts", "p1", "p2"} {
		ids[name] = "map:" + name + "@1"
		do(op(pubsub.MapCreate, ids[name]))
	}
	do(set(pubsub.RootObject, "posts", reference(ids["posts"])))
	do(set(ids["posts"], "p.1", reference(ids["p1"])))
	do(set(ids["posts"], "p2", reference(ids["p2"])))
	do(set(ids["posts"], "*", text("star")))
	for _, name := range []string{"p1", "p2"} {
		do(inc("counter:"+name+"@1", 5))
		do(set(ids[name], "up", reference("counter:"+name+"@1")))
		do(set(ids[name], "home", reference(pubsub.RootObject)))
	}
	do(set(ids["p2"], "gone", reference("counter:never@1")))
	do(set(ids["p2"], "dead", reference("counter:dead@1")))
	do(op(pubsub.ObjectDelete, "counter:dead@1"))
	do(set(pubsub.RootObject, "removed", text("x")))
	do(remove(pubsub.RootObject, "removed"))
	return pool
}

func TestPathsLeadToObjects(t *testing.T) {
	pool := tree()
	look := func(id string) (*objects.Object, error) {
		if o := pool[id]; o != nil {
			return o, nil
		}
		return objects.New(id)
	}
	request := func(path string, o *pubsub.ObjectOperation) *pubsub.ObjectRequest {
		o.ObjectID = ""
		return &pubsub.ObjectRequest{Path: path, HasPath: true, Operation: o}
	}
	one, up := inc("", 1), "up"
	for _, c := range []struct {
		what string
		r    *pubsub.ObjectRequest
		want string // what is done to which, or the code
	}{
		{"a path", request(`posts.p2.up`, one), "4 counter:p2@1"},
		{"an escaped dot", request(`posts.p\.1.up`, one), "4 counter:p1@1"},
		{"the root", request(``, set("", "k", text("x"))), "1 root"},
		{"any", request(`posts.*.up`, one), "4 counter:p1@1, 4 counter:p2@1"},
		{"any, of which some are of another type", request(`posts.p2.*`, one), "4 counter:never@1, 4 counter:p2@1"},
		{"any, and back", request(`posts.*.home`, set("", "k", text("x"))), "1 root"},
		{"an escaped star", request(`posts.\*`, one), "92007"},
		{"nothing", request(`posts.p3`, one), "92005"},
		{"nothing under any", request(`posts.*.down`, one), "92005"},
		{"what was removed", request(`removed`, one), "92005"},
		{"what was deleted", request(`posts.p2.dead`, one), "92005"},
		{"another type", request(`posts`, one), "92007"},
		{"an id", &pubsub.ObjectRequest{ObjectID: aCounter, Operation: one}, "4 " + aCounter},
		{"an id and a path", &pubsub.ObjectRequest{ObjectID: "map:p2@1", Path: up, HasPath: true, Operation: one}, "4 counter:p2@1"},
		{"an id of another type", &pubsub.ObjectRequest{ObjectID: aMap, Operation: one}, "92000"},
		{"neither", &pubsub.ObjectRequest{Operation: one}, "92006"},
		{"a new object", &pubsub.ObjectRequest{Operation: op(pubsub.CounterCreate, "")}, "3 counter:new@1"},
		{"a new object at a path", request(`posts.p4`, op(pubsub.MapCreate, "")), "0 map:new@1, 1 map:posts@1 p4"},
		{"a new object at an escaped path", request(`a\.b\*`, op(pubsub.CounterCreate, "")), "3 counter:new@1, 1 root a.b*"},
		{"a new object at the root's place", request(``, op(pubsub.MapCreate, "")), "92007"},
		{"new objects", request(`posts.*.down`, op(pubsub.CounterCreate, "")), "92007"},
		{"a new object in a counter", request(`posts.p2.up.x`, op(pubsub.CounterCreate, "")), "92007"},
		{"a new object in nothing", request(`no.x`, op(pubsub.CounterCreate, "")), "92005"},
		{"a new object with an id", &pubsub.ObjectRequest{ObjectID: aMap, Operation: op(pubsub.MapCreate, "")}, "92000"},
		{"a value that is none", request(``, set("", "k", reference("x"))), "92000"},
	} {
		all, err := objects.Expand(c.r, look, func(isMap bool) string {
			if isMap {
				return "map:new@1"
			}
			return "counter:new@1"
		})
		var got []string
		for _, o := range all {
			s := fmt.Sprint(o.Action, " ", o.ObjectID)
			if o.Value.Type == pubsub.ObjectValue {
				s += " " + o.Key
			}
			got = append(got, s)
		}
		if err != nil {
			got = []string{fmt.Sprint(code(err))}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: got %v (%v), want %s", c.what, got, err, c.want)
		}
	}
}

func TestAViewHasEachMapOnce(t *testing.T) {
	pool := tree()
	v, err := pool.View(pubsub.RootObject, "posts")
	if err != nil {
		t.Fatal(err)
	}
	var show func(v *pubsub.ObjectView) string
	show = func(v *pubsub.ObjectView) string {
		switch {
		case v.ID == "":
			return v.Data.Text
		case !v.IsMap:
			return fmt.Sprint(v.Count)
		}
		var parts []string
		for _, e := range v.Entries {
			parts = append(parts, e.Key+"="+show(e.Value))
		}
		return v.ID + "{" + strings.Join(parts, " ") + "}"
	}
	// A counter that is referred to, and of which nothing is known, is not there.
	want := "map:posts@1{*=star p.1=map:p1@1{home=root{posts=map:posts@1} up=5} p2=map:p2@1{home=root up=5}}"
	if got := show(v); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, c := range []struct {
		from, path string
		code       pubsub.Code
	}{
		{aMap, "", pubsub.CodeObjectNotFound},
		{"x", "", pubsub.CodeObjectNotFound},
		{"counter:dead@1", "", pubsub.CodeObjectUnreadable},
		{pubsub.RootObject, "posts.p2.dead", pubsub.CodeObjectPathUnmatched},
		{pubsub.RootObject, "posts.p2.gone", pubsub.CodeObjectPathUnmatched},
		{pubsub.RootObject, "posts.p2.up.x", pubsub.CodeObjectPathUnmatched},
		{pubsub.RootObject, "posts.*", pubsub.CodeObjectNotProcessable},
	} {
		if _, err := pool.View(c.from, c.path); code(err) != c.code {
			t.Errorf("%s %s: %v", c.from, c.path, err)
		}
	}
}

func TestWhatTheRootLeadsToIsReachable(t *testing.T) {
	pool := tree()
	pool.Apply(message("s", 900, inc(aCounter, 1)))
	got := slices.Sorted(maps.Keys(pool.Reachable()))
	want := []string{"counter:dead@1", "counter:never@1", "counter:p1@1", "counter:p2@1", "map:p1@1", "map:p2@1", "map:posts@1", "root"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
