package hub_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

var theRoom = pubsub.ChannelID{App: "app", Name: "room"}

func presence(action pubsub.PresenceAction, clientID, data string) *pubsub.PresenceMessage {
	m := &pubsub.PresenceMessage{Action: action, ClientID: clientID}
	if data != "" {
		m.Data = pubsub.Text(data)
	}
	return m
}

func enter(clientID, data string) *pubsub.PresenceMessage {
	return presence(pubsub.PresenceEnter, clientID, data)
}

func update(clientID, data string) *pubsub.PresenceMessage {
	return presence(pubsub.PresenceUpdate, clientID, data)
}

func leave(clientID, data string) *pubsub.PresenceMessage {
	return presence(pubsub.PresenceLeave, clientID, data)
}

// request makes the presence request of a connection with one number.
func request(connectionID string, msgSerial int64, items ...*pubsub.PresenceMessage) *hub.Presence {
	return &hub.Presence{Grant: anyone, Channel: name("room"), Items: items, ConnectionID: connectionID, MsgSerial: msgSerial}
}

func try(t testing.TB, h *hub.Hub, p *hub.Presence) error {
	t.Helper()
	var turn hub.Turn
	defer turn.End()
	return h.Presence(t.Context(), &turn, p)
}

func do(t testing.TB, h *hub.Hub, p *hub.Presence) {
	t.Helper()
	if err := try(t, h, p); err != nil {
		t.Fatal(err)
	}
}

var actionNames = map[pubsub.PresenceAction]string{
	pubsub.PresencePresent: "present", pubsub.PresenceEnter: "enter", pubsub.PresenceLeave: "leave", pubsub.PresenceUpdate: "update",
}

// told writes events or members as "action id client=data".
func told(items []*pubsub.PresenceMessage) string {
	var s []string
	for _, m := range items {
		s = append(s, fmt.Sprintf("%s %s %s=%s", actionNames[m.Action], m.ID, m.ClientID, m.Data.Bytes))
	}
	return strings.Join(s, ", ")
}

func expect(t testing.TB, got []*pubsub.PresenceMessage, want string) {
	t.Helper()
	if s := told(got); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func members(t testing.TB, h *hub.Hub, q hub.Members) *hub.MembersPage {
	t.Helper()
	if q.Grant == nil {
		q.Grant = anyone
	}
	if q.Channel.Base == "" {
		q.Channel = name("room")
	}
	if q.Limit == 0 {
		q.Limit = 1000
	}
	page, err := h.Members(t.Context(), &q)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestPresenceIsToldAsItHappens(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{ConnectionID: "watcher"})
	do(t, h, request("conn", 0, enter("a", "1"), enter("b", "")))
	do(t, h, request("conn", 1, update("a", "2"), update("new", "3")))
	do(t, h, request("conn", 2, enter("a", "4"), leave("b", ""), leave("new", "bye")))
	do(t, h, request("conn", 3, leave("a", "")))
	expect(t, w.catchUp(t), "enter conn:0:0 a=1, enter conn:0:1 b=, "+
		"update conn:1:0 a=2, enter conn:1:1 new=3, "+
		"enter conn:2:0 a=4, leave conn:2:1 b=, leave conn:2:2 new=bye, "+
		"leave conn:3:0 a=4")
	if len(w.known) > 0 {
		t.Errorf("left over: %v", w.set())
	}
}

func TestOneRequestMayChangeAMemberSeveralTimes(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{})
	do(t, h, request("conn", 0, leave("a", ""), enter("a", "1"), update("a", "2"), leave("a", ""), leave("a", ""), enter("a", "3")))
	expect(t, w.catchUp(t), "enter conn:0:1 a=1, update conn:0:2 a=2, leave conn:0:3 a=2, enter conn:0:5 a=3")
	expect(t, members(t, h, hub.Members{}).Members, "present conn:0:5 a=3")
}

// RTP10d
func TestWhoIsNoMemberLeavesSilently(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{})
	do(t, h, request("conn", 0, leave("a", "x")))
	do(t, h, request("conn", 1))
	expect(t, w.catchUp(t), "")
}

func TestMembersOfConnectionsAreTheirOwn(t *testing.T) {
	h := newHub(t)
	do(t, h, request("conn1", 0, enter("a", "1")))
	do(t, h, request("conn2", 0, enter("a", "2"), leave("b", "")))
	do(t, h, request("conn", 0, enter("a:b", "3")))
	do(t, h, request("conn1", 1, leave("a", "")))
	got := dataOf(members(t, h, hub.Members{}).Members)
	if want := map[string]string{"conn2:a": "2", "conn:a:b": "3"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// RTP17g
func TestAReEntryWithWhatIsKnownChangesNothing(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{})
	first := enter("a", "1")
	first.Extras = []byte(`{"locks":[{"id":"l"}]}`)
	do(t, h, request("conn", 0, first))
	do(t, h, request("conn", 1, update("a", "2")))
	w.catchUp(t)
	again := func(id, data string) *pubsub.PresenceMessage {
		m := enter("a", data)
		m.ID = id
		return m
	}
	do(t, h, request("conn", 2, again("conn:1:0", "2")))
	do(t, h, request("conn", 3, again("conn:0:0", "older")))
	expect(t, w.catchUp(t), "")
	expect(t, members(t, h, hub.Members{}).Members, "present conn:1:0 a=2")

	// Ids of others, of the future, and what is no id, are replaced.
	do(t, h, request("conn", 4, again("other:0:0", "3")))
	do(t, h, request("conn", 5, again("conn:99:0", "4")))
	do(t, h, request("conn", 6, again("conn:6:1", "5")))
	do(t, h, request("conn", 7, again("conn:x", "6")))
	do(t, h, request("conn", 8, again("conn:-1:0", "7")))
	expect(t, w.catchUp(t), "enter conn:4:0 a=3, enter conn:5:0 a=4, enter conn:6:0 a=5, enter conn:7:0 a=6, enter conn:8:0 a=7")

	// The member is gone: it enters with its id.
	if _, err := h.LeaveAll(t.Context(), "conn", []pubsub.ChannelID{theRoom}); err != nil {
		t.Fatal(err)
	}
	do(t, h, request("conn", 9, again("conn:8:0", "7")))
	events := w.catchUp(t)
	expect(t, events[1:], "enter conn:8:0 a=7")
	if got := w.set(); got["conn:a"] != "7" {
		t.Errorf("the watcher has %v", got)
	}
}

func TestAReEntryKeepsExtras(t *testing.T) {
	h := newHub(t)
	m := enter("a", "1")
	m.Extras = []byte(`{"locks":[]}`)
	do(t, h, request("conn", 0, m))
	again := enter("a", "1")
	again.ID = "conn:0:0"
	p := request("conn", 1, again)
	p.Returned = true
	w := watch(t, h, hub.Attach{})
	do(t, h, p)
	expect(t, w.events(t), "enter conn:0:0 a=1")
	if got := members(t, h, hub.Members{}).Members[0]; string(got.Extras) != `{"locks":[]}` {
		t.Errorf("extras: %s", got.Extras)
	}
}

func TestARequestThatIsSentAgainChangesNothing(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{})
	all := func() []*hub.Presence {
		return []*hub.Presence{
			request("conn", 0, leave("a", "")), // of nobody
			request("conn", 1, enter("a", "1")),
			request("conn", 2, leave("a", "")),
			request("conn", 3, enter("a", "2")),
		}
	}
	for range 3 {
		for _, p := range all() {
			do(t, h, p)
		}
	}
	expect(t, w.catchUp(t), "enter conn:1:0 a=1, leave conn:2:0 a=1, enter conn:3:0 a=2")
}

// RTP8h, RTP8i, RTP15f
func TestPresenceIsRefusedForReasons(t *testing.T) {
	restricted := capability(t, `{"room":["subscribe"],"mine":["presence"]}`)
	me := &auth.Grant{App: "app", ClientRule: auth.ClientIdentified, ClientID: "me", Capability: auth.FullCapability}
	anonymous := &auth.Grant{App: "app", ClientRule: auth.ClientAnonymous, Capability: auth.FullCapability}
	h := newHub(t, func(o *hub.Options) {
		o.Limits = limit.NewSet(limit.Limits{MessageBytes: 100}, limit.Options{})
		o.Namespace = func(_, channel string) auth.Namespace { return auth.Namespace{Identified: channel == "strict"} }
	})
	w := watch(t, h, hub.Attach{})
	extras := func(text string) *pubsub.PresenceMessage {
		m := enter("a", "")
		m.Extras = []byte(text)
		return m
	}
	other := enter("a", "")
	other.ConnectionID = "other"
	many := make([]*pubsub.PresenceMessage, 1001)
	for i := range many {
		many[i] = enter("a", "")
	}
	tests := []struct {
		name  string
		code  pubsub.Code
		edit  func(*hub.Presence)
		items []*pubsub.PresenceMessage
	}{
		{"no capability", pubsub.CodeCapabilityDenied, func(p *hub.Presence) { p.Grant = restricted }, nil},
		{"no capability, and nothing to do", pubsub.CodeCapabilityDenied, func(p *hub.Presence) { p.Grant = restricted; p.Items = nil }, nil},
		{"a metachannel", pubsub.CodeCapabilityDenied, func(p *hub.Presence) { p.Channel = name("[meta]log") }, nil},
		{"an identified channel", pubsub.CodeIdentifiedClientNeeded, func(p *hub.Presence) { p.Channel = name("strict") }, nil},
		{"no clientId", pubsub.CodePresenceNoClientID, nil, []*pubsub.PresenceMessage{enter("", "")}},
		{"no clientId, anonymous", pubsub.CodePresenceNoClientID, func(p *hub.Presence) { p.Grant = anonymous }, []*pubsub.PresenceMessage{enter("", "")}},
		{"a clientId of an anonymous one", pubsub.CodeInvalidClientID, func(p *hub.Presence) { p.Grant = anonymous }, nil},
		{"another clientId", pubsub.CodeInvalidClientID, func(p *hub.Presence) { p.Grant = me }, nil},
		{"the wildcard", pubsub.CodeInvalidClientID, nil, []*pubsub.PresenceMessage{enter("*", "")}},
		{"an action of the server's", pubsub.CodeBadRequest, nil, []*pubsub.PresenceMessage{presence(pubsub.PresencePresent, "a", "")}},
		{"another connection", pubsub.CodeInvalidConnectionID, nil, []*pubsub.PresenceMessage{other}},
		{"too many", pubsub.CodeTooManyMessages, nil, many},
		{"too large", pubsub.CodeMessageTooLarge, nil, []*pubsub.PresenceMessage{enter("a", strings.Repeat("x", 50)), enter("b", strings.Repeat("x", 50))}},
		{"extras that are no object", pubsub.CodeInvalidExtras, nil, []*pubsub.PresenceMessage{extras(`[]`)}},
		{"extras of the server's", pubsub.CodeInvalidExtras, nil, []*pubsub.PresenceMessage{extras(`{"userClaim":"x"}`)}},
		{"deep headers", pubsub.CodeInvalidExtras, nil, []*pubsub.PresenceMessage{extras(`{"headers":{"a":{}}}`)}},
		{"one of two", pubsub.CodePresenceNoClientID, nil, []*pubsub.PresenceMessage{enter("a", ""), enter("", "")}},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := request("conn", int64(i), enter("a", ""))
			if test.items != nil {
				p.Items = test.items
			}
			if test.edit != nil {
				test.edit(p)
			}
			var e *pubsub.Error
			if err := try(t, h, p); !errors.As(err, &e) || e.Code != test.code {
				t.Errorf("got %v, want %d", err, test.code)
			}
		})
	}
	expect(t, w.catchUp(t), "")
	do(t, h, request("conn", 100, extras(`{"locks":[{"id":"x"}],"headers":{"a":null}}`)))
	p := request("conn", 101, enter("", ""))
	p.Grant = me
	do(t, h, p)
	expect(t, members(t, h, hub.Members{}).Members, "present conn:100:0 a=, present conn:101:0 me=")
}

func TestAChannelHasRoomForSoManyMembers(t *testing.T) {
	h, _, exceeded := limited(t, limit.Limits{PresenceMembers: 3, PresenceBytes: 300})
	w := watch(t, h, hub.Attach{})
	do(t, h, request("conn", 0, enter("a", "1"), enter("b", "1")))
	refused := func(code pubsub.Code, p *hub.Presence) {
		t.Helper()
		var e *pubsub.Error
		if err := try(t, h, p); !errors.As(err, &e) || e.Code != code {
			t.Errorf("got %v, want %d", err, code)
		}
	}
	refused(pubsub.CodeTooManyMembers, request("conn2", 0, enter("c", ""), enter("d", "")))
	refused(pubsub.CodePresenceTooLarge, request("conn2", 1, enter("c", strings.Repeat("x", 300))))
	exceeded.expect(t, limit.PresenceMembers, 1)
	exceeded.expect(t, limit.PresenceBytes, 1)
	do(t, h, request("conn2", 2, enter("c", "")))
	do(t, h, request("conn", 1, update("a", "2")))
	do(t, h, request("conn", 2, leave("a", ""), enter("d", "3")))
	refused(pubsub.CodeTooManyMembers, request("conn", 3, enter("e", "")))
	w.catchUp(t)
	if got := slices.Sorted(maps.Keys(w.set())); !slices.Equal(got, []string{"conn2:c", "conn:b", "conn:d"}) {
		t.Errorf("got %v", got)
	}
}

// interfering is an engine in whose Appends something comes in between.
type interfering struct {
	engine.Engine
	before func()
	times  int
}

func (e *interfering) Append(a *engine.Append, done func(engine.Result)) {
	if len(a.Preconditions) > 0 && e.times > 0 {
		e.times--
		e.before()
	}
	e.Engine.Append(a, done)
}

func TestAChangeIsMadeAnewIfItsMembersChangedMeanwhile(t *testing.T) {
	e := &interfering{Engine: enginememory.NewStore(enginememory.Options{}).Node("n1")}
	h := newHub(t, func(o *hub.Options) { o.Engine = e })
	reaper := newHub(t, func(o *hub.Options) { o.Engine = e.Engine })
	w := watch(t, h, hub.Attach{})
	e.before = func() {
		if _, err := reaper.LeaveAll(context.Background(), "conn", []pubsub.ChannelID{theRoom}); err != nil {
			t.Error(err)
		}
	}
	do(t, h, request("conn", 0, enter("a", "1")))
	e.times = 1
	do(t, h, request("conn", 1, update("a", "2")))
	w.catchUp(t)
	expect(t, members(t, h, hub.Members{}).Members, "present conn:1:0 a=2")
	if got := w.set(); got["conn:a"] != "2" {
		t.Errorf("the watcher has %v", got)
	}

	// A leave finds that nobody is there any more.
	e.times = 1
	do(t, h, request("conn", 2, leave("a", "late")))
	events := w.catchUp(t)
	if len(events) != 1 || events[0].Action != pubsub.PresenceLeave || string(events[0].Data.Bytes) != "2" {
		t.Errorf("got %s", told(events))
	}

	// It is not tried for ever.
	n := 0
	e.times = 1000
	e.before = func() {
		n++
		put := engine.Put{RecordKey: engine.RecordKey{Space: engine.RecordPresence, Key: "conn:a"}, Value: []byte{1, 0, 0, 0, 0, 0}, Entry: engine.NoEntry}
		e.Engine.Append(&engine.Append{Channel: theRoom, Puts: []engine.Put{put}}, func(engine.Result) {})
	}
	var refused *pubsub.Error
	if err := try(t, h, request("conn", 3, enter("a", "3"))); !errors.As(err, &refused) || refused.Code != pubsub.CodeUnavailable || n > 20 {
		t.Errorf("got %v after %d tries", err, n)
	}
}

func TestMembersThatEnteredAgainDoNotLeave(t *testing.T) {
	h := newHub(t)
	do(t, h, request("conn", 0, enter("a", "1"), enter("b", "1")))
	lost, err := h.Leaving(t.Context(), "conn", []pubsub.ChannelID{theRoom, {App: "app", Name: "nowhere"}})
	if err != nil {
		t.Fatal(err)
	}
	again := enter("a", "1")
	again.ID = "conn:0:0"
	p := request("conn", 1, again)
	p.Returned = true
	do(t, h, p)
	w := watch(t, h, hub.Attach{})
	for range 2 {
		if err := lost.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	events := w.catchUp(t)
	if len(events) != 1 || events[0].ClientID != "b" || strings.HasPrefix(events[0].ID, "conn") {
		t.Errorf("got %s", told(events))
	}
	expect(t, members(t, h, hub.Members{}).Members, "present conn:0:0 a=1")
}

func TestManyMembersLeaveInSeveralEntries(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{})
	var items []*pubsub.PresenceMessage
	for i := range 250 {
		items = append(items, enter(fmt.Sprintf("client%03d", i), strings.Repeat("x", 100)))
	}
	do(t, h, request("conn", 0, items...))
	do(t, h, request("other", 0, enter("a", "")))
	w.catchUp(t)
	failed, err := h.LeaveAll(t.Context(), "conn", []pubsub.ChannelID{theRoom})
	if err != nil || len(failed) > 0 {
		t.Fatal(failed, err)
	}
	ids := make(map[string]bool)
	for _, m := range w.catchUp(t) {
		ids[m.ID] = true
		if m.Action != pubsub.PresenceLeave || m.ConnectionID != "conn" || strings.HasPrefix(m.ID, "conn") || len(m.Data.Bytes) != 100 {
			t.Fatalf("got %+v", m)
		}
	}
	if len(ids) != 250 || len(w.known) != 1 {
		t.Errorf("%d left, %v stay", len(ids), w.set())
	}
	entries, err := h.PresenceHistory(t.Context(), &hub.History{Grant: anyone, Channel: name("room"), Limit: 1000})
	if err != nil || len(entries.Events) != 501 {
		t.Errorf("history has %d events, %v", len(entries.Events), err)
	}
}

func TestAStoreThatFailsIsTold(t *testing.T) {
	s := &spied{Engine: enginememory.NewStore(enginememory.Options{}).Node("n1")}
	h := newHub(t, func(o *hub.Options) { o.Engine = s })
	do(t, h, request("conn", 0, enter("a", "")))
	for _, test := range []struct {
		err  error
		code pubsub.Code
	}{
		{engine.ErrUnavailable, pubsub.CodeUnavailable},
		{engine.ErrUnknownOutcome, pubsub.CodeTimeout},
		{engine.ErrFull, pubsub.CodeBusy},
	} {
		s.appendErr = test.err
		var e *pubsub.Error
		if err := try(t, h, request("conn", 1, enter("b", ""))); !errors.As(err, &e) || e.Code != test.code {
			t.Errorf("got %v, want %d", err, test.code)
		}
		failed, err := h.LeaveAll(t.Context(), "conn", []pubsub.ChannelID{{App: "app", Name: "nowhere"}, theRoom})
		if !errors.Is(err, test.err) || !slices.Equal(failed, []pubsub.ChannelID{theRoom}) {
			t.Errorf("got %v, %v", failed, err)
		}
	}
	s.appendErr = nil
	if failed, err := h.LeaveAll(t.Context(), "conn", []pubsub.ChannelID{theRoom}); err != nil || failed != nil {
		t.Errorf("got %v, %v", failed, err)
	}
}

// RTP17a
func TestWithoutPresenceSubscribeAConnectionSeesItself(t *testing.T) {
	h := newHub(t)
	do(t, h, request("self", 0, enter("a", "1")))
	do(t, h, request("other", 0, enter("a", "1")))
	blind := watch(t, h, hub.Attach{ConnectionID: "self", Modes: pubsub.ModeSubscribe | pubsub.ModePresence, NoEcho: true})
	silent := watch(t, h, hub.Attach{ConnectionID: "self", NoEcho: true})
	nobody := watch(t, h, hub.Attach{Modes: pubsub.ModeSubscribe})
	if got := blind.set(); !maps.Equal(got, map[string]string{"self:a": "1"}) {
		t.Errorf("got %v", got)
	}
	do(t, h, request("other", 1, update("a", "2")))
	do(t, h, request("self", 1, update("a", "3")))
	say(t, h, "between")
	if _, err := h.LeaveAll(t.Context(), "self", []pubsub.ChannelID{theRoom}); err != nil {
		t.Fatal(err)
	}
	if events := blind.catchUp(t); len(events) != 2 || events[0].ID != "self:1:0" || events[1].Action != pubsub.PresenceLeave {
		t.Errorf("got %s", told(events))
	}
	if events := silent.catchUp(t); len(events) != 3 {
		t.Errorf("with echo off: got %s", told(events))
	}
	if len(nobody.catchUp(t)) > 0 || len(nobody.known) > 0 {
		t.Error("somebody without a connection was told")
	}
	if got := silent.set(); !maps.Equal(got, map[string]string{"other:a": "2"}) {
		t.Errorf("got %v", got)
	}
}

// RSP3a
func TestMembersComeInPages(t *testing.T) {
	h := newHub(t)
	var items []*pubsub.PresenceMessage
	want := make(map[string]string)
	for i := range 450 {
		items = append(items, enter(fmt.Sprintf("client%d", i%225), fmt.Sprint(i)))
		want[fmt.Sprintf("conn%d:client%d", i/225, i%225)] = fmt.Sprint(i)
	}
	do(t, h, request("conn0", 0, items[:225]...))
	do(t, h, request("conn1", 0, items[225:]...))
	collect := func(q hub.Members) map[string]string {
		var all []*pubsub.PresenceMessage
		for {
			page := members(t, h, q)
			all = append(all, page.Members...)
			if len(page.Members) > q.Limit {
				t.Fatalf("%d members", len(page.Members))
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		got := dataOf(all)
		if len(got) != len(all) {
			t.Error("a member twice")
		}
		return got
	}
	for _, limit := range []int{1, 7, 199, 200, 225, 450, 1000} {
		if got := collect(hub.Members{Limit: limit}); !maps.Equal(got, want) {
			t.Errorf("by %d: got %d members", limit, len(got))
		}
		if got := collect(hub.Members{Limit: limit, ConnectionID: "conn1"}); len(got) != 225 || got["conn1:client3"] != "228" {
			t.Errorf("by %d: got %d members", limit, len(got))
		}
		if got := collect(hub.Members{Limit: limit, ClientID: "client7"}); !maps.Equal(got, map[string]string{"conn0:client7": "7", "conn1:client7": "232"}) {
			t.Errorf("by %d: got %v", limit, got)
		}
	}
	if page := members(t, h, hub.Members{Limit: 450}); page.Next != "" {
		t.Error("a next page after the last")
	}
	if got := collect(hub.Members{Limit: 5, ConnectionID: "conn"}); len(got) > 0 {
		t.Errorf("the prefix of a connection is none: %v", got)
	}
	var e *pubsub.Error
	nobody := capability(t, `{"room":["presence","history"]}`)
	if _, err := h.Members(t.Context(), &hub.Members{Grant: nobody, Channel: name("room"), Limit: 1}); !errors.As(err, &e) || e.Code != pubsub.CodeCapabilityDenied {
		t.Errorf("got %v", err)
	}
}

func TestPresenceHistoryIsWhatWasTold(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{})
	for i := range 10 {
		do(t, h, request("conn", int64(i), enter("a", fmt.Sprint(i)), update("b", ""), leave("b", "x")))
		say(t, h, "a message")
	}
	want := told(w.catchUp(t))
	for _, limit := range []int{1, 2, 3, 4, 29, 30, 100} {
		for _, forwards := range []bool{true, false} {
			q := &hub.History{Grant: anyone, Channel: name("room"), Limit: limit, Forwards: forwards}
			var all []*pubsub.PresenceMessage
			for {
				page, err := h.PresenceHistory(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, page.Events...)
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
			}
			if !forwards {
				slices.Reverse(all)
			}
			if got := told(all); got != want {
				t.Errorf("by %d: got %s\nwant %s", limit, got, want)
			}
			for _, m := range all {
				if m.Timestamp == 0 || m.ConnectionID != "conn" {
					t.Fatalf("incomplete: %+v", m)
				}
			}
		}
	}
}

func TestFixturesArePermanentMembers(t *testing.T) {
	h := newHub(t)
	w := watch(t, h, hub.Attach{})
	load := func() {
		t.Helper()
		binary := &pubsub.PresenceMessage{ClientID: "binary", Data: pubsub.Binary([]byte{0, 255}), Encoding: "cipher+aes-128-cbc"}
		if err := h.LoadFixture(t.Context(), "app", "room", []*pubsub.PresenceMessage{enter("text", "x"), binary, enter("none", "")}); err != nil {
			t.Fatal(err)
		}
	}
	load()
	w.catchUp(t)
	if len(w.known) != 3 {
		t.Errorf("told: %v", w.set())
	}
	load()
	page := members(t, h, hub.Members{})
	expect(t, page.Members, "present fixture:0:1 binary=\x00\xff, present fixture:0:2 none=, present fixture:0:0 text=x")
	if m := page.Members[0]; m.Data.Kind != pubsub.BinaryData || m.Encoding != "cipher+aes-128-cbc" || m.ConnectionID != "fixture" || m.Timestamp == 0 {
		t.Errorf("got %+v", m)
	}
	if page.Members[1].Data.Kind != pubsub.NoData {
		t.Errorf("got %+v", page.Members[1])
	}
	w.catchUp(t)
	if err := h.UnloadFixture(t.Context(), "app", "room"); err != nil || len(members(t, h, hub.Members{}).Members) > 0 {
		t.Errorf("unloaded: %v", err)
	}
	if w.catchUp(t); len(w.known) > 0 {
		t.Errorf("the watcher has %v", w.set())
	}
	if h.LoadFixture(t.Context(), "app", ":bad", nil) == nil || h.UnloadFixture(t.Context(), "app", ":bad") == nil {
		t.Error("a bad name was taken")
	}
}
