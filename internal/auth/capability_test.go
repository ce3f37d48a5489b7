package auth_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

func capability(t testing.TB, text string) *auth.Capability {
	t.Helper()
	c, err := auth.ParseCapability(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

func TestResourcesMatchChannelsByTheRulesOfWildcards(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"*", []string{"a", "a:b", "a:b:c", "*", "房间"}, []string{"[meta]log", "[filter]a", ""}},
		{"a", []string{"a"}, []string{"b", "a:b", "A", "[meta]a"}},
		{"a:*", []string{"a:b", "a:b:c", "a:"}, []string{"a", "b:a", "ab:c"}},
		{"*:b", []string{"a:b", "x:b"}, []string{"b", "a:x:b", "a:b:c"}},
		{"a:*:c", []string{"a:b:c", "a::c", "a:x:c"}, []string{"a:c", "a:b:b:c", "a:b:c:d"}},
		{"a:*:*", []string{"a:b:c", "a:b:c:d"}, []string{"a:b"}},
		{"foo*", []string{"foo*"}, []string{"foobar", "foo"}},
		{"a:b*", []string{"a:b*"}, []string{"a:bc"}},
		{"[meta]*", []string{"[meta]log", "[meta]stats:minute"}, []string{"log", "[filter]log"}},
		{"[meta]stats:*", []string{"[meta]stats:minute"}, []string{"[meta]log", "stats:minute"}},
		{"[filter]news", []string{"[filter]news"}, []string{"news", "[meta]news"}},
		{"[*]*", []string{"a", "a:b", "[meta]log", "[filter]news:x"}, nil},
		{"[*]news", []string{"news", "[filter]news", "[meta]news"}, []string{"other", "[filter]other"}},
		{"[queue]q", nil, []string{"q", "[meta]q"}},
		{"room", []string{"room::$chat", "room::$cursors", "[filter]room"[8:]}, []string{"room::chat", "room:$chat", "room::$", "other::$chat", "room::$chat:x"}},
		{"dms:*", []string{"dms:x::$chat", "dms:x"}, []string{"dms"}},
		{"[meta]room", []string{"[meta]room::$chat"}, []string{"room::$chat"}},
		{"room::$chat", []string{"room::$chat"}, []string{"room", "room::$space"}},
	} {
		text, _ := json.Marshal(map[string][]string{c.pattern: {"publish"}})
		capability := capability(t, string(text))
		for _, name := range c.yes {
			if !capability.Allows(auth.OpPublish, name) {
				t.Errorf("%s does not cover %s", c.pattern, name)
			}
		}
		for _, name := range c.no {
			if capability.Allows(auth.OpPublish, name) {
				t.Errorf("%s covers %s", c.pattern, name)
			}
		}
	}
}

func TestRightsAreTheUnionOverAllResourcesThatMatch(t *testing.T) {
	c := capability(t, `{"canpublish:*":["publish"],"canpublish:andpresence":["presence","publish"],"*":["history"]}`)
	for name, want := range map[string]string{
		"canpublish:x": "history,publish", "canpublish:andpresence": "history,presence,publish", "x": "history", "[meta]x": "",
	} {
		if got := c.Ops(name).String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if ops := auth.FullCapability.Ops("x"); ops != auth.AllOps || !ops.Has(auth.OpStats) || ops.String() != "*" {
		t.Errorf("full: %v", ops)
	}
	var none *auth.Capability
	if none.Ops("x") != 0 || !none.Empty() || none.String() != "{}" {
		t.Error("the nil capability allows something")
	}
}

func TestACapabilityThatCannotBeUnderstoodIsRefused(t *testing.T) {
	for _, text := range []string{
		``, `null`, `[]`, `"x"`, `{`, `{}x`, `{"a":"publish"}`, `{"a":null}`, `{"a":[]}`, `{"a":["publish_"]}`, `{"a":["*","publish"]}`,
		`{"a":["publish","*"]}`, `{"a":[1]}`, `{"a":["Publish"]}`, `{"":["publish"]}`, `{"[meta]":["publish"]}`, `{"[meta":["publish"]}`,
		"{\"a\xff\":[\"publish\"]}", `{"a":["publish",null]}`, `{"` + strings.Repeat("a", auth.MaxCapabilityBytes) + `":["publish"]}`,
	} {
		_, err := auth.ParseCapability(text)
		var e *pubsub.Error
		if !errors.As(err, &e) || e.Code != pubsub.CodeBadRequest || e.StatusCode != 400 || !strings.Contains(e.Message, "invalid capability") {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	if c := capability(t, `{}`); !c.Empty() || c.Allows(auth.OpPublish, "a") {
		t.Error("{} allows something")
	}
}

func TestCanonicalFormIsSortedAndTight(t *testing.T) {
	for in, want := range map[string]string{
		` { "b" : [ "subscribe", "publish" ], "a":["*"] } `: `{"a":["*"],"b":["publish","subscribe"]}`,
		`{"<&>\"房":["publish","publish"]}`:                  `{"<&>\"房":["publish"]}`,
		`{}`:                                                `{}`,
	} {
		if got := capability(t, in).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestIntersectionKeepsTheNarrowerResourceAndCommonOperations(t *testing.T) {
	const key1 = `{"cansubscribe:*":["subscribe"],"canpublish:*":["publish"],"canpublish:andpresence":["presence","publish"],` +
		`"pushenabled:*":["publish","subscribe","push-subscribe"],"pushenabled:admin:*":["publish","subscribe","push-subscribe","push-admin"]}`
	const key2 = `{"channel0":["publish"],"channel2":["publish","subscribe"],"channel4":["presence","publish","subscribe"],"channel6":["*"]}`
	for _, c := range []struct{ name, key, asked, want string }{
		{"the whole key", key1, key1, capability(t, key1).String()},
		{"no common operation", key1, `{"canpublish:test":["subscribe"]}`, `{}`},
		{"no common resource", key2, `{"channelx":["publish"]}`, `{}`},
		{"some operations", key2, `{"channel2":["presence","subscribe"]}`, `{"channel2":["subscribe"]}`},
		{"some resources", key2, `{"channel2":["presence","subscribe"],"channelx":["presence"]}`, `{"channel2":["subscribe"]}`},
		{"all operations of a limited key", key2, `{"channel2":["*"]}`, `{"channel2":["publish","subscribe"]}`},
		{"some operations of a full key", key2, `{"channel6":["publish","subscribe"]}`, `{"channel6":["publish","subscribe"]}`},
		{"a name below a wildcard", `{"*":["subscribe"]}`, `{"cansubscribe":["subscribe"]}`, `{"cansubscribe":["subscribe"]}`},
		{"a name in a namespace", key1, `{"canpublish:check":["publish"]}`, `{"canpublish:check":["publish"]}`},
		{"a namespace below a wildcard", `{"*":["subscribe"]}`, `{"cansubscribe:*":["subscribe"]}`, `{"cansubscribe:*":["subscribe"]}`},
		{"a wildcard above the key", key2, `{"*":["publish"]}`, `{"channel0":["publish"],"channel2":["publish"],"channel4":["publish"],"channel6":["publish"]}`},
		{"a segment below the rest", `{"a:*":["*"]}`, `{"a:*:c":["publish"]}`, `{"a:*:c":["publish"]}`},
		{"neither covers the other", `{"a:*:c":["*"]}`, `{"a:b:*":["*"]}`, `{}`},
		{"a metachannel needs its own right", `{"*":["*"]}`, `{"[meta]*":["subscribe"]}`, `{}`},
		{"a class below all classes", `{"[*]*":["*"]}`, `{"[meta]log":["subscribe"],"x":["publish"]}`, `{"[meta]log":["subscribe"],"x":["publish"]}`},
		{"all classes below one", `{"[meta]*":["*"]}`, `{"[*]log":["subscribe"]}`, `{}`},
		{"two ways to one resource", `{"a:*":["publish"],"*":["subscribe"]}`, `{"a:b":["*"]}`, `{"a:b":["publish","subscribe"]}`},
	} {
		key, asked := capability(t, c.key), capability(t, c.asked)
		if got := asked.Intersect(key).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := key.Intersect(asked); got.String() != c.want || !got.Equal(capability(t, c.want)) {
			t.Errorf("%s, the other way round: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAskingForRightsAllocatesNothing(t *testing.T) {
	c := capability(t, `{"a:*:c":["publish"],"[meta]*":["subscribe"],"room":["*"]}`)
	if n := testing.AllocsPerRun(100, func() { c.Ops("room::$chat"); c.Ops("a:b:c"); c.Ops("[meta]log") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzCapability(f *testing.F) {
	for _, text := range []string{
		`{"*":["*"]}`, `{"a:*:c":["publish"],"[*]*":["history"]}`, `{"room":["subscribe","presence"],"[meta]log":["*"]}`,
		`{"a":["publish"],"a":["*"]}`, `{"[filter]x:*":["subscribe"]}`, `{"a:b:*":["*"]}`,
	} {
		f.Add(text, `{"a:*":["publish","subscribe"],"*":["history"]}`, "a:b:c")
		f.Add(text, `{"room::$chat":["*"]}`, "room::$chat::$chat")
	}
	f.Fuzz(func(t *testing.T, first, second, resource string) {
		a, err := auth.ParseCapability(first)
		if err != nil {
			return
		}
		again, err := auth.ParseCapability(a.String())
		if err != nil || !again.Equal(a) || again.String() != a.String() {
			t.Fatalf("canonical form %s of %s: %v", a, first, err)
		}
		if self := a.Intersect(a); self.Ops(resource) != a.Ops(resource) {
			t.Errorf("%s with itself gives %s, different for %q", a, self, resource)
		}
		b, err := auth.ParseCapability(second)
		if err != nil {
			return
		}
		ab, ba := a.Intersect(b), b.Intersect(a)
		if ab.Ops(resource) != ba.Ops(resource) {
			t.Errorf("%s and %s: the order matters for %q", a, b, resource)
		}
		if extra := ab.Ops(resource) &^ (a.Ops(resource) & b.Ops(resource)); extra != 0 {
			t.Errorf("%s and %s give %s, which allows %v on %q", a, b, ab, extra, resource)
		}
	})
}

func BenchmarkOps(b *testing.B) {
	c := capability(b, `{"*":["*"]}`)
	b.ReportAllocs()
	for b.Loop() {
		c.Ops("room-name")
	}
}

func TestTheOlderNameOfStatsIsRead(t *testing.T) {
	c := capability(t, `{"*":["statistics","publish"]}`)
	if !c.Allows(auth.OpStats, "*") || c.String() != `{"*":["publish","stats"]}` {
		t.Errorf("got %s", c)
	}
}
