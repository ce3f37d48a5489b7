package letshare_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// fill lets connections enter a room and returns them.
func (i *instance) fill(t testing.TB, room string, count int) []*client {
	t.Helper()
	members := make([]*client, count)
	for n := range members {
		members[n] = i.connect(t, fmt.Sprintf("user%d", n))
		members[n].subscribe(room)
	}
	return members
}

func TestARoomHolds50ConnectionsAndTellsThe51st(t *testing.T) {
	t.Parallel()
	room := newRoom()
	members := shared.fill(t, room, 50)
	late := shared.connect(t, "late")
	full := "房间已满，最多支持50个用户"
	late.refused(`{"type":"subscribe","channel":`+q(room)+`}`, full)
	late.refused(`{"type":"publish","channel":`+q(room)+`,"data":{}}`, "客户端未订阅房间: "+room)
	late.subscribe(newRoom()) // the others have room

	// A member may subscribe again, to the same event and to others.
	members[7].subscribe(room)
	members[7].subscribe(room, "signal:user7")
	late.refused(`{"type":"subscribe","channel":`+q(room)+`,"event":"signal:late"}`, full)

	// Dropping an event frees no place, and neither does what is refused.
	members[7].send(`{"type":"unsubscribe","channel":` + q(room) + `,"event":"signal:user7"}`)
	members[7].expectStatus("unsubscribed", room, "signal:user7")
	late.refused(`{"type":"subscribe","channel":`+q(room)+`}`, full)

	// All 50 hear one of them.
	members[0].publish(room, `{"from":"zero"}`)
	for _, m := range members[1:] {
		m.expect(room, "signal:all", `{"from":"zero"}`)
	}

	members[3].leave(room)
	late.subscribe(room)
	members[3].refused(`{"type":"subscribe","channel":`+q(room)+`}`, full)
}

func TestTheSizeOfARoomIsConfigured(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_WEBSOCKET_MAX_ROOM_USERS=2"}})
	s.fill(t, "room", 2)
	s.connect(t, "late").refused(`{"type":"subscribe","channel":"room"}`, "房间已满，最多支持2个用户")
}

func TestAClosedPeerFreesItsPlaceAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_WEBSOCKET_MAX_ROOM_USERS=1"}})
	next := s.connect(t, "bert")
	for range 30 {
		c := s.connect(t, "anna")
		c.subscribe("room")
		next.refused(`{"type":"subscribe","channel":"room"}`, "房间已满，最多支持1个用户")
		c.close()
		next.subscribe("room") // at once: the answer to the close frame said that anna has left
		next.leave("room")
	}
}

func TestAPeerThatEndsItsTCPStreamFreesItsPlace(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_WEBSOCKET_MAX_ROOM_USERS=1"}})
	for name, end := range map[string]func(p *peer){
		"FIN":                    func(p *peer) { _ = p.conn.Close() },
		"RST":                    func(p *peer) { p.reset() },
		"RST in a half message":  func(p *peer) { p.write([]byte{0x81, 0xFE, 0x10, 0x00, 1, 2, 3, 4, 5}); p.reset() },
		"a breach of protocol":   func(p *peer) { p.write([]byte{0x81, 0x02, 'h', 'i'}) },
		"a close frame and away": func(p *peer) { p.send(opClose, ""); _ = p.conn.Close() },
	} {
		p := s.raw(t, "anna")
		p.subscribe("room")
		end(p)
		c := s.connect(t, "bert")
		eventually(t, 20*time.Second, "the place is free after "+name, func() bool {
			c.send(`{"type":"subscribe","channel":"room"}`)
			m := c.next()
			return m["type"] == "subscribed"
		})
		c.close()
		eventually(t, 20*time.Second, "the place is free after a close", func() bool { return s.metrics(t)["total_rooms"] == 0 })
	}
}

func TestTheMembersOfARoomAreCountedThroughBothDoors(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_WEBSOCKET_MAX_ROOM_USERS=2"}})
	sdk := s.connectAbly(t, "")
	sdk.attach("room")
	s.connect(t, "anna").subscribe("room")
	late := s.connect(t, "late")
	late.refused(`{"type":"subscribe","channel":"room"}`, "房间已满，最多支持2个用户")
	another := s.connectAbly(t, "")
	another.attach("room") // the limit is this door's
	sdk.send(`{"action":12,"channel":"room"}`)
	sdk.next("13")
	late.refused(`{"type":"subscribe","channel":"room"}`, "房间已满，最多支持2个用户")
	another.send(`{"action":12,"channel":"room"}`)
	another.next("13")
	late.subscribe("room")
}

func TestALateMemberGetsNothingOfWhatWasBefore(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	other.subscribe(room)
	other.publish(room, `{"from":"before"}`)
	other.works()
	c.subscribe(room)
	other.publish(room, `{"from":"after"}`)
	c.expect(room, "signal:all", `{"from":"after"}`)
}

func TestNothingOfARoomComesBeforeItsAcknowledgementOrAfterItsEnd(t *testing.T) {
	t.Parallel()
	room := newRoom()
	other := shared.connect(t, "bert")
	other.subscribe(room)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				other.publish(room, fmt.Sprintf(`{"from":%d}`, n))
				time.Sleep(100 * time.Microsecond) // a steady stream, not a flood
			}
		}
	}()
	c := shared.connect(t, "anna")
	for range 100 {
		c.send(`{"type":"subscribe","channel":` + q(room) + `}`)
		c.expectStatus("subscribed", room, "signal:all") // the first thing
		for range 3 {
			if m := c.next(); m["type"] != "message" {
				t.Fatalf("got %v, want messages", m)
			}
		}
		c.send(`{"type":"unsubscribe","channel":` + q(room) + `}`)
		for m := c.next(); m["type"] != "unsubscribed"; m = c.next() {
			if m["type"] != "message" {
				t.Fatalf("got %v, want messages and then the acknowledgement", m)
			}
		}
		c.works() // the next thing
	}
	close(stop)
	<-stopped
}

func TestLongEventNamesWork(t *testing.T) {
	t.Parallel()
	room, event := newRoom(), "signal:"+strings.Repeat("王", 64)+":abc123"
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	c.subscribe(room, event)
	other.subscribe(room)
	other.publishTo(room, event, `{"from":1}`)
	c.expect(room, event, `{"from":1}`)
}

func TestOneConnectionCannotHoardEventsOrRooms(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_LIMITS_CHANNELS_PER_CONNECTION=3"}})
	c := s.connect(t, "anna")
	c.subscribe("room 0")
	for n := 1; n < 256; n++ {
		c.subscribe("room 0", fmt.Sprint("event", n))
	}
	for name, request := range map[string]string{
		"a 257th event": `{"type":"subscribe","channel":"room 0","event":"one more"}`,
		"a long event":  `{"type":"subscribe","channel":"room 0","event":"` + strings.Repeat("x", 513) + `"}`,
	} {
		c.send(request)
		if code, message := c.expectError(); code != "400" || !hasChinese(message) {
			t.Errorf("%s is answered with %s %q", name, code, message)
		}
	}
	c.subscribe("room 0", "event7")
	c.subscribe("room 1")
	c.subscribe("room 2")
	c.send(`{"type":"subscribe","channel":"room 3"}`)
	if code, message := c.expectError(); code != "400" || !hasChinese(message) {
		t.Errorf("a 4th room is answered with %s %q", code, message)
	}
	c.leave("room 1")
	c.subscribe("room 3")
}
