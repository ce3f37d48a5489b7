package hub_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

func capability(t testing.TB, text string) *auth.Grant {
	t.Helper()
	c, err := auth.ParseCapability(text)
	if err != nil {
		t.Fatal(err)
	}
	return &auth.Grant{App: "app", Capability: c}
}

func codeOf(err error) pubsub.Code {
	var e *pubsub.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// An attachment gets what comes after its position, all of it, once and in order, whatever
// is published and whoever comes and goes meanwhile.
func TestAnAttachmentGetsEverythingAfterItsPositionOnceAndInOrder(t *testing.T) {
	for _, residents := range []int{0, 200} { // the publishers send themselves, or a goroutine does
		t.Run(fmt.Sprintf("%d residents", residents), func(t *testing.T) {
			h := newHub(t)
			forms := []lines{newLines("a"), newLines("b"), newLines("c")}
			type visit struct {
				at   *hub.Attachment
				box  *inbox
				left bool
			}
			var (
				mu     sync.Mutex
				visits []visit
			)
			enter := func(form lines) visit {
				v := visit{box: new(inbox)}
				v.at = attach(t, h, hub.Attach{Form: form, Receiver: v.box})
				return v
			}
			keep := func(v visit) {
				mu.Lock()
				defer mu.Unlock()
				visits = append(visits, v)
			}
			for i := range residents {
				keep(enter(forms[i%len(forms)]))
			}
			var publishers, guests sync.WaitGroup
			stop := make(chan struct{})
			for p := range 4 {
				publishers.Go(func() {
					var turn hub.Turn
					for i := range 300 {
						publish(t, h, &turn, hub.Publish{
							Messages: message("n", fmt.Sprintf("%d-%d", p, i)), ConnectionID: strconv.Itoa(p), MsgSerial: int64(i),
						})
						if i%(p+1) == 0 { // turns of different lengths
							turn.End()
						}
					}
					turn.End()
				})
			}
			for g := range 4 {
				guests.Go(func() {
					random := rand.New(rand.NewPCG(uint64(g), 1))
					for i := 0; ; i++ {
						v := enter(forms[random.IntN(len(forms))])
						if random.IntN(3) > 0 {
							v.left = true
							v.at.Detach()
						}
						keep(v)
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
			publishers.Wait()
			close(stop)
			guests.Wait()
			h.Close()

			page, err := h.Messages(t.Context(), &hub.History{Grant: anyone, Channel: name("room"), Limit: 10000, Forwards: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Messages) != 4*300 {
				t.Fatalf("%d messages were published", len(page.Messages))
			}
			log := make([]pubsub.Serial, len(page.Messages))
			for i, m := range page.Messages {
				log[i], _, _ = pubsub.ParseItemSerial(m.Serial)
			}
			for i, v := range visits {
				serials, _ := v.box.got()
				start, _ := slices.BinarySearchFunc(log, v.at.Position(), func(a, b pubsub.Serial) int {
					if a <= b {
						return -1
					}
					return 1
				})
				want := log[start:]
				if v.left {
					want = want[:min(len(want), len(serials))]
				}
				if !slices.Equal(serials, want) {
					t.Fatalf("attachment %d (left: %v), attached after %d of %d entries, got %d of %d: first %v, want %v",
						i, v.left, start, len(log), len(serials), len(want), firstDifference(serials, want), want[:min(2, len(want))])
				}
				if v.box.dangling {
					t.Fatalf("attachment %d was told that more follows, and nothing did", i)
				}
				if !v.left {
					v.at.Detach()
				}
			}
			if n := h.Rooms(); n != 0 {
				t.Errorf("%d rooms are left", n)
			}
		})
	}
}

func firstDifference(a, b []pubsub.Serial) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("difference at %d: %s, want %s", i, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d entries against %d", len(a), len(b))
}

func TestWhatWasPublishedBeforeTheAttachmentIsNotDelivered(t *testing.T) {
	h := newHub(t)
	attach(t, h, hub.Attach{}) // keeps the channel alive
	var turn hub.Turn
	before := publish(t, h, &turn, hub.Publish{Messages: message("n", "before")}) // stored, and not sent yet
	box := new(inbox)
	at := attach(t, h, hub.Attach{Receiver: box})
	if at.Position() != before.Serial {
		t.Errorf("the attachment begins at %s, want %s", at.Position(), before.Serial)
	}
	publish(t, h, &turn, hub.Publish{Messages: message("n", "after")})
	turn.End()
	if got := box.data(); got != "after" {
		t.Errorf("got %q", got)
	}
}

func TestFiltersApplyWithinWhatIsSentTogether(t *testing.T) {
	h := newHub(t)
	items := newLines("items")
	items.items = true
	receivers := []struct {
		what   string
		attach hub.Attach
		want   string
	}{
		{"all", hub.Attach{}, "a1 a2 b1 b2 pair-a a3"},
		{"without echo", hub.Attach{ConnectionID: "A", NoEcho: true}, "b1 b2 pair-a"},
		{"without an echo that there is not", hub.Attach{ConnectionID: "C", NoEcho: true}, "a1 a2 b1 b2 pair-a a3"},
		{"with echo", hub.Attach{ConnectionID: "A"}, "a1 a2 b1 b2 pair-a a3"},
		{"a name", hub.Attach{Names: []string{"y"}}, "a2 b2 pair-a"},
		{"a name, without echo", hub.Attach{Names: []string{"y"}, ConnectionID: "B", NoEcho: true}, "a2"},
		{"two names", hub.Attach{Names: []string{"x", "y"}}, "a1 a2 b1 b2 pair-a a3"},
		{"no names", hub.Attach{Names: []string{}}, ""},
		{"item by item", hub.Attach{Form: items}, "a1 a2 b1 b2 pair-a pair-b a3"},
		{"item by item, a name", hub.Attach{Form: items, Names: []string{"y"}}, "a2 b2 pair-b"},
		{"no messages", hub.Attach{Modes: pubsub.ModePublish | pubsub.ModePresenceSubscribe}, ""},
	}
	boxes := make([]*inbox, len(receivers))
	for i := range receivers {
		boxes[i] = new(inbox)
		receivers[i].attach.Receiver = boxes[i]
		attach(t, h, receivers[i].attach)
	}
	var turn hub.Turn
	for i, p := range []struct{ conn, name, data string }{
		{"A", "x", "a1"}, {"A", "y", "a2"}, {"B", "x", "b1"}, {"B", "y", "b2"}, {"B", "", ""}, {"A", "x", "a3"},
	} {
		messages := message(p.name, p.data)
		if p.name == "" {
			messages = append(message("x", "pair-a"), message("y", "pair-b")...)
		}
		publish(t, h, &turn, hub.Publish{Messages: messages, ConnectionID: p.conn, MsgSerial: int64(i)})
	}
	turn.End()
	for i, r := range receivers {
		if got := boxes[i].data(); got != r.want {
			t.Errorf("%s: got %q, want %q", r.what, got, r.want)
		}
		if boxes[i].dangling {
			t.Errorf("%s: was told that more follows, and nothing did", r.what)
		}
	}
}

func TestNamesCanBeReplaced(t *testing.T) {
	h := newHub(t)
	box := new(inbox)
	at := attach(t, h, hub.Attach{Names: []string{"m"}, Receiver: box})
	say(t, h, "1") // named n
	at.SetNames([]string{"m", "n"})
	if got := at.Names(); !slices.Equal(got, []string{"m", "n"}) {
		t.Errorf("names are %v", got)
	}
	say(t, h, "2")
	if got := box.data(); got != "2" {
		t.Errorf("got %q", got)
	}
}

func TestAnEntryIsEncodedOncePerForm(t *testing.T) {
	for _, members := range []int{10, 150} {
		t.Run(fmt.Sprintf("%d members", members), func(t *testing.T) {
			h := newHub(t)
			count := &encodings{of: make(map[string]int)}
			for i := range members {
				attach(t, h, hub.Attach{
					Form:         lines{label: strconv.Itoa(i % 3), count: count}, // equal forms, not the same
					ConnectionID: strconv.Itoa(i), NoEcho: i%2 == 0,
				})
			}
			var turn hub.Turn
			for i := range 20 {
				publish(t, h, &turn, hub.Publish{Messages: message("n", "x"), ConnectionID: "0", MsgSerial: int64(i)})
				if i%4 == 0 {
					turn.End()
				}
			}
			turn.End()
			h.Close()
			if len(count.of) != 20*3 {
				t.Errorf("%d pairs of entry and form were encoded, want 60", len(count.of))
			}
			for what, n := range count.of {
				if n != 1 {
					t.Errorf("%s was encoded %d times", what, n)
				}
			}
		})
	}
}

// blocking is a receiver that waits, which none may do, so that a test sees who sends.
type blocking struct {
	inbox
	entered chan struct{}
	leave   chan struct{}
}

func newBlocking() *blocking {
	return &blocking{entered: make(chan struct{}, 10000), leave: make(chan struct{})}
}

func (b *blocking) Receive(frames []byte, more bool) {
	b.entered <- struct{}{}
	<-b.leave
	b.inbox.Receive(frames, more)
}

func TestInASmallRoomAllHaveReceivedWhenTheTurnEnds(t *testing.T) {
	h := newHub(t)
	boxes := make([]*inbox, 64)
	for i := range boxes {
		boxes[i] = new(inbox)
		attach(t, h, hub.Attach{Receiver: boxes[i]})
	}
	say(t, h, "hello")
	for i, b := range boxes {
		if got := b.data(); got != "hello" {
			t.Fatalf("receiver %d got %q", i, got)
		}
	}
}

func TestALargeRoomDoesNotHoldUpItsPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		slow := newBlocking()
		attach(t, h, hub.Attach{Receiver: slow})
		boxes := make([]*inbox, 64)
		for i := range boxes {
			boxes[i] = new(inbox)
			attach(t, h, hub.Attach{Receiver: boxes[i]})
		}
		for i := 1; i <= 5; i++ {
			say(t, h, strconv.Itoa(i)) // returns although the first receiver does not
		}
		synctest.Wait()
		if len(slow.entered) != 1 {
			t.Errorf("%d goroutines send to the room", len(slow.entered))
		}
		close(slow.leave)
		h.Close()
		for i, b := range append(boxes, &slow.inbox) {
			if got := b.data(); got != numbers(1, 5) {
				t.Errorf("receiver %d got %q", i, got)
			}
		}
	})
}

func TestPublishersWaitForARoomThatIsFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		slow := newBlocking()
		attach(t, h, hub.Attach{Receiver: slow})
		for range 64 {
			attach(t, h, hub.Attach{})
		}
		const n = 6000
		say(t, h, "1")
		synctest.Wait() // the first is being sent, and stays so
		published := 1
		done := make(chan struct{})
		go func() {
			defer close(done)
			for published < n {
				say(t, h, strconv.Itoa(published+1))
				published++
			}
		}()
		synctest.Wait()
		if published < 4096 || published > 4100 {
			t.Errorf("the publisher was stopped after %d entries", published)
		}
		close(slow.leave)
		<-done
		h.Close()
		if got := slow.data(); got != numbers(1, n) {
			t.Errorf("the slow receiver did not get all in order")
		}
	})
}

func TestARoomThatIsFullRefusesOthersUntilSomebodyLeaves(t *testing.T) {
	h := newHub(t)
	limited := hub.Attach{MaxMembers: 2}
	first := attach(t, h, limited)
	attach(t, h, limited)
	_, err := h.Attach(t.Context(), complete(&limited))
	if !errors.Is(err, hub.ErrRoomFull) {
		t.Fatalf("the third got %v", err)
	}
	attach(t, h, hub.Attach{}) // without a limit one comes in, and counts
	first.Detach()
	if _, err := h.Attach(t.Context(), complete(&limited)); !errors.Is(err, hub.ErrRoomFull) {
		t.Fatalf("with two inside the next got %v", err)
	}
	attach(t, h, hub.Attach{Channel: name("another"), MaxMembers: 1})
}

// RTL4l, RTL4m, TB2d
func TestModesAreThoseAskedForThatTheCapabilityCovers(t *testing.T) {
	h := newHub(t)
	for _, c := range []struct {
		capability string
		channel    string
		asked      pubsub.Mode
		want       pubsub.Mode // 0: refused with 40160
	}{
		{`{"*":["*"]}`, "room", 0, pubsub.DefaultModes},
		{`{"*":["*"]}`, "room", pubsub.AllModes, pubsub.AllModes},
		{`{"*":["*"]}`, "room", pubsub.ModeSubscribe, pubsub.ModeSubscribe},
		{`{"room":["subscribe"]}`, "room", 0, pubsub.ModeSubscribe | pubsub.ModePresenceSubscribe},
		{`{"room":["subscribe"]}`, "room", pubsub.AllModes, pubsub.ModeSubscribe | pubsub.ModePresenceSubscribe | pubsub.ModeObjectSubscribe},
		{`{"room":["publish"]}`, "room", 0, pubsub.ModePublish},
		{`{"room":["presence"]}`, "room", 0, pubsub.ModePresence},
		{`{"room":["annotation-publish","annotation-subscribe"]}`, "room", pubsub.AllModes, pubsub.ModeAnnotationPublish | pubsub.ModeAnnotationSubscribe},
		{`{"room":["object-subscribe","object-publish"]}`, "room", pubsub.AllModes, pubsub.ModeObjectSubscribe | pubsub.ModeObjectPublish},
		{`{"room":["publish"]}`, "room", pubsub.ModeSubscribe, 0},
		{`{"room":["history"]}`, "room", 0, 0},
		{`{"other":["*"]}`, "room", 0, 0},
		{`{"*":["*"]}`, "[meta]log", 0, 0},
		{`{"[*]*":["*"]}`, "[meta]log", 0, pubsub.ModeSubscribe},
	} {
		at, err := h.Attach(t.Context(), complete(&hub.Attach{Grant: capability(t, c.capability), Channel: name(c.channel), Modes: c.asked}))
		if c.want == 0 {
			if codeOf(err) != pubsub.CodeCapabilityDenied {
				t.Errorf("%s asking %x of %s: got %v", c.capability, c.asked, c.channel, err)
			}
			continue
		}
		if err != nil || at.Modes() != c.want {
			t.Errorf("%s asking %x of %s: got %v (%v), want %x", c.capability, c.asked, c.channel, at, err, c.want)
			continue
		}
		at.Detach()
	}
	if n := h.Rooms(); n != 0 {
		t.Errorf("%d rooms are left", n)
	}
}

// RTC8a1
func TestANewGrantChangesModesOrEndsThem(t *testing.T) {
	h := newHub(t)
	box := new(inbox)
	at := attach(t, h, hub.Attach{Receiver: box})
	say(t, h, "1")
	if err := regrant(at, capability(t, `{"room":["publish"]}`), name("room"), 0); err != nil || at.Modes() != pubsub.ModePublish {
		t.Fatalf("modes %x, %v", at.Modes(), err)
	}
	say(t, h, "2")
	if err := regrant(at, capability(t, `{"other":["*"]}`), name("room"), 0); codeOf(err) != pubsub.CodeCapabilityDenied {
		t.Fatalf("got %v", err)
	}
	if err := regrant(at, anyone, name("room"), 0); err != nil {
		t.Fatal(err)
	}
	say(t, h, "3")
	if got := box.data(); got != "1 3" {
		t.Errorf("got %q", got)
	}
}

func TestANamespaceMayRequireIdentifiedClients(t *testing.T) {
	h := newHub(t, func(o *hub.Options) {
		o.Namespace = func(_, channel string) auth.Namespace {
			return auth.Namespace{Identified: pubsub.Namespace(channel) == "members"}
		}
	})
	bob := &auth.Grant{App: "app", ClientRule: auth.ClientIdentified, ClientID: "bob", Capability: auth.FullCapability}
	members := name("members:lounge")
	if _, err := h.Attach(t.Context(), complete(&hub.Attach{Channel: members})); codeOf(err) != pubsub.CodeIdentifiedClientNeeded {
		t.Errorf("attach: %v", err)
	}
	err := h.Publish(new(hub.Turn), &hub.Publish{Grant: anyone, Channel: members, Messages: message("n", "x")}, nil)
	if codeOf(err) != pubsub.CodeIdentifiedClientNeeded {
		t.Errorf("publish: %v", err)
	}
	attach(t, h, hub.Attach{Grant: bob, Channel: members})
	publish(t, h, new(hub.Turn), hub.Publish{Grant: bob, Channel: members, Messages: message("n", "x")})
}

func TestAMarkIsWhereEverythingBeforeWasSent(t *testing.T) {
	h := newHub(t)
	reached := func(at *hub.Attachment) pubsub.Serial { return at.Mark(nil, func() {}) }
	at := attach(t, h, hub.Attach{})
	if reached(at) != at.Position() {
		t.Errorf("at the beginning it is %s, want %s", reached(at), at.Position())
	}
	first := say(t, h, "1")
	if reached(at) != first.Serial {
		t.Errorf("after one entry it is %s, want %s", reached(at), first.Serial)
	}
	var turn hub.Turn
	second := publish(t, h, &turn, hub.Publish{Messages: message("n", "2")})
	if reached(at) != first.Serial {
		t.Errorf("before the turn's end it is %s, want %s", reached(at), first.Serial)
	}
	later := attach(t, h, hub.Attach{})
	if reached(later) != second.Serial {
		t.Errorf("of one that came later it is %s, want %s", reached(later), second.Serial)
	}
	turn.End()
	if reached(at) != second.Serial {
		t.Errorf("after the turn's end it is %s, want %s", reached(at), second.Serial)
	}
}

// However much is under way, a mark is exactly behind what was received.
func TestAMarkIsBetweenTwoDeliveries(t *testing.T) {
	for _, members := range []int{1, 100} { // sent by the publisher, and by a goroutine of the room
		h := newHub(t)
		in := &inbox{}
		for range members - 1 {
			attach(t, h, hub.Attach{Receiver: new(inbox)})
		}
		at := attach(t, h, hub.Attach{Receiver: in})
		var publisher sync.WaitGroup
		publisher.Go(func() {
			for i := range 2000 {
				say(t, h, strconv.Itoa(i))
			}
		})
		for range 500 {
			var last pubsub.Serial
			position := at.Mark(nil, func() {
				if serials, _ := in.got(); len(serials) > 0 {
					last = serials[len(serials)-1]
				}
			})
			if last == "" {
				last = at.Position()
			}
			if position != last {
				t.Fatalf("the mark is at %s, and %s was received", position, last)
			}
		}
		publisher.Wait()
	}
}

// RTL12
func TestAllAreToldWhenEntriesAreLost(t *testing.T) {
	spy := new(spied)
	h := newHub(t, func(o *hub.Options) { spy.Engine = o.Engine; o.Engine = spy })
	boxes := []*inbox{new(inbox), new(inbox)}
	for i, b := range boxes {
		attach(t, h, hub.Attach{Receiver: b, Form: newLines(strconv.Itoa(i))})
	}
	const position = pubsub.Serial("01726585978590-000000@abcdefgh")
	spy.subscriber.Lost(position)
	spy.subscriber.Flush()
	for i, b := range boxes {
		if !slices.Equal(b.lost, []pubsub.Serial{position}) {
			t.Errorf("receiver %d was told %v", i, b.lost)
		}
	}
}

func TestTheLastToLeaveEndsDeliveryAndTheNextBeginsItAnew(t *testing.T) {
	h := newHub(t)
	for i := range 50 {
		box := new(inbox)
		at := attach(t, h, hub.Attach{Receiver: box})
		say(t, h, strconv.Itoa(i))
		at.Detach()
		say(t, h, "nobody hears this")
		if got := box.data(); got != strconv.Itoa(i) {
			t.Fatalf("round %d: got %q", i, got)
		}
		if n := h.Rooms(); n != 0 {
			t.Fatalf("round %d: %d rooms", i, n)
		}
	}
}
