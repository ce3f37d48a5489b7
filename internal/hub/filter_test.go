package hub_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// wide is a grant to do everything, on filtered channels too.
var wide = func() *auth.Grant {
	capability, err := auth.ParseCapability(`{"[*]*":["*"]}`)
	if err != nil {
		panic(err)
	}
	return &auth.Grant{App: "app", KeyName: "app.key", ClientRule: auth.ClientAny, Capability: capability}
}()

// filtered is the name of the room with a filter.
func filtered(expression string) pubsub.ChannelName {
	return name("[filter=" + base64.StdEncoding.EncodeToString([]byte(expression)) + "]room")
}

// identities is a form that writes each message of an entry as a line "<id> <serial> <data>".
type identities struct{ label string }

func (f identities) AppendFrames(dst []byte, units []hub.Unit, e *engine.Entry, index int) ([]byte, []hub.Unit) {
	for i, m := range e.Body.Messages {
		id, serial := m.ID, m.Serial
		if e.Body.ID != "" {
			id, serial = pubsub.ItemID(e.Body.ID, i), e.Serial.Item(i)
		}
		dst = fmt.Appendf(dst, "%s %s %s\n", id, serial, m.Data.Bytes)
	}
	return dst, append(units, hub.Unit{Entry: index, Item: hub.AllItems, End: len(dst)})
}

func named(names string) []*pubsub.Message {
	var all []*pubsub.Message
	for i, n := range strings.Split(names, "") {
		all = append(all, &pubsub.Message{Name: n, Data: pubsub.Text(fmt.Sprint(n, i))})
	}
	return all
}

func TestAFilteredChannelDeliversWhatPasses(t *testing.T) {
	h := newHub(t)
	var all, some, none inbox
	attach(t, h, hub.Attach{Receiver: &all})
	attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'a'"), Form: identities{"f"}, Receiver: &some})
	attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'z'"), Receiver: &none}) // of the same form as all
	var turn hub.Turn
	for i, names := range []string{"a", "b", "aba", "bb"} {
		publish(t, h, &turn, hub.Publish{Messages: named(names), ConnectionID: "c", MsgSerial: int64(i)})
	}
	turn.End()
	if got := all.data(); got != "a0 b0 a0 b0" { // the first of each entry
		t.Errorf("without a filter: got %q", got)
	}
	serials, _ := all.got()
	want := fmt.Sprintf("c:0:0 %s:000 a0\nc:2:0 %s:000 a0\nc:2:2 %s:002 a2\n", serials[0], serials[2], serials[2])
	if got := string(some.text); got != want {
		t.Errorf("with a filter:\n got %s\nwant %s", got, want)
	}
	if len(none.text) > 0 || none.parcels > 0 {
		t.Errorf("got %q in %d parcels", none.text, none.parcels)
	}
}

func TestAFilterAppliesToWhatWasMissed(t *testing.T) {
	h := newHub(t)
	at := attach(t, h, hub.Attach{})
	for _, names := range []string{"a", "b", "ab"} {
		var turn hub.Turn
		publish(t, h, &turn, hub.Publish{Messages: named(names)})
		turn.End()
	}
	late := attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'b'"), Form: identities{"f"}})
	b := late.Resume(t.Context(), at.Position())
	if b.Err != nil || backlogData(b) != "b0 b1" {
		t.Errorf("resume: got %q, %v", backlogData(b), b.Err)
	}
}

// TestAFilteredRewindCountsWhatPasses has the message that passes far behind others.
func TestAFilteredRewindCountsWhatPasses(t *testing.T) {
	h := newHub(t)
	var turn hub.Turn
	for i := range 900 {
		n := "b"
		if i%300 == 0 {
			n = "a"
		}
		publish(t, h, &turn, hub.Publish{Messages: message(n, fmt.Sprint(i))})
	}
	turn.End()
	at := attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'a'"), Form: identities{"f"}})
	for _, test := range []struct {
		window time.Duration
		limit  int
		want   string
		cut    bool
	}{
		{0, 1, "600", false},
		{0, 2, "300 600", false},
		{0, 50, "0 300 600", false},
		{time.Minute, 50, "0 300 600", false},
		{time.Minute, 2, "300 600", true},
	} {
		b := at.Rewind(t.Context(), hub.Rewind{Window: test.window, Limit: test.limit})
		if got := backlogData(b); got != test.want || (b.Err != nil) != test.cut {
			t.Errorf("%+v: got %q, %v", test, got, b.Err)
		}
	}
	// It does not look through the whole log.
	for range 200 {
		publish(t, h, &turn, hub.Publish{Messages: message("b", "")})
	}
	turn.End()
	at = attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == 'nothing'"), Form: identities{"f"}})
	if b := at.Rewind(t.Context(), hub.Rewind{Window: time.Minute, Limit: 50}); b.Err == nil || b.Err.Code != pubsub.CodeBacklogTooLong || len(b.Frames) > 0 {
		t.Errorf("got %+v", b)
	}
}

func backlogData(b hub.Backlog) string {
	var data []string
	for _, frames := range b.Frames {
		for line := range strings.Lines(string(frames)) {
			data = append(data, strings.Fields(line)[2])
		}
	}
	return strings.Join(data, " ")
}

func TestAFilteredChannelIsForSubscribersOnly(t *testing.T) {
	h := newHub(t)
	at := attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name"), ConnectionID: "c"})
	if got := at.Modes(); got != pubsub.ModeSubscribe {
		t.Errorf("modes %x", got)
	}
	// Presence of the own connection under the plain name is not told of under this one.
	var turn hub.Turn
	err := h.Presence(t.Context(), &turn, &hub.Presence{Grant: wide, Channel: name("room"), ConnectionID: "c",
		Items: []*pubsub.PresenceMessage{{Action: pubsub.PresenceEnter, ClientID: "bob"}}})
	turn.End()
	if err != nil {
		t.Fatal(err)
	}
	if members, err := at.Members(t.Context()); err != nil || len(members) > 0 {
		t.Errorf("members: %v, %v", members, err)
	}
	if got := at.Modes(); got != pubsub.ModeSubscribe {
		t.Errorf("modes %x", got)
	}
}

func TestADifferentFilterTooManyIsRefused(t *testing.T) {
	h := newHub(t)
	var last *hub.Attachment
	for i := range 100 {
		last = attach(t, h, hub.Attach{Grant: wide, Channel: filtered(fmt.Sprintf("name == '%d'", i))})
	}
	more := &hub.Attach{Grant: wide, Channel: filtered("name == 'more'")}
	_, err := h.Attach(t.Context(), complete(more))
	var e *pubsub.Error
	if !errors.As(err, &e) || e.Code != pubsub.CodeTooManyChannels {
		t.Fatalf("got %v", err)
	}
	attach(t, h, hub.Attach{Grant: wide, Channel: filtered("name == '7'")}) // is there already
	attach(t, h, hub.Attach{})                                              // has none
	last.Detach()
	attach(t, h, *more)
}
