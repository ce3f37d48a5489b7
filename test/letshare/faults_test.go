package letshare_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Each of these killed or crippled the server that this one succeeds.

func TestManyWritersToOneSocketHarmNobody(t *testing.T) {
	t.Parallel()
	room := newRoom()
	const writers, each = 8, 150
	members := shared.fill(t, room, writers)
	var wg sync.WaitGroup
	for n, m := range members {
		wg.Go(func() {
			for i := range each {
				m.send(fmt.Sprintf(`{"type":"publish","channel":%q,"data":{"from":%d,"n":%d}}`, room, n, i))
				m.send(`{"type":"dance"}`) // answers and messages meet in one socket
			}
		})
	}
	wg.Wait()
	for n, m := range members {
		next := make([]int, writers) // of each sender, in its order
		errors := 0
		for range (writers-1)*each + each {
			f := m.frame()
			if strings.HasPrefix(f.text, `{"type":"error"`) {
				errors++
				continue
			}
			var from, i int
			if _, err := fmt.Sscanf(rawData(t, f.text), `{"from":%d,"n":%d}`, &from, &i); err != nil || i != next[from] || from == n {
				t.Fatalf("member %d got %s, want number %d of that sender (%v)", n, f.text, next[from], err)
			}
			next[from]++
		}
		if errors != each {
			t.Errorf("member %d got %d errors, want %d", n, errors, each)
		}
		m.works()
	}
}

func TestDataNullIsAnError(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	c.subscribe(room)
	other.subscribe(room)
	for range 20 {
		c.refused(`{"type":"publish","channel":`+q(room)+`,"event":"signal:all","data":null}`, "缺少消息数据")
	}
	c.publish(room, `{"from":"alive"}`)
	other.expect(room, "signal:all", `{"from":"alive"}`)
}

func TestMembersMayComeAndGoWhileOthersPublish(t *testing.T) {
	t.Parallel()
	room := newRoom()
	one, two := shared.connect(t, "anna"), shared.connect(t, "bert")
	one.subscribe(room)
	two.subscribe(room)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for range 15 {
				c := shared.connect(t, fmt.Sprint("guest", n))
				c.send(`{"type":"subscribe","channel":` + q(room) + `}`)
				for c.next()["type"] != "subscribed" {
				}
				c.publish(room, `{"from":"guest"}`)
				if n%2 == 0 {
					_ = c.ws.CloseNow()
				} else {
					c.close()
				}
			}
		})
	}
	const count = 500
	wg.Go(func() {
		for i := range count {
			one.publish(room, fmt.Sprintf(`{"from":"one","n":%d}`, i))
		}
	})
	for want := 0; want < count; {
		m := two.next()
		data, _ := m["data"].(map[string]any)
		if data["from"] == "one" {
			if fmt.Sprint(data["n"]) != fmt.Sprint(want) {
				t.Fatalf("got number %v, want %d", data["n"], want)
			}
			want++
		}
	}
	wg.Wait()
	for n := range 48 { // beside the two, if nobody else is there
		c := shared.connect(t, fmt.Sprint("user", n))
		eventually(t, patience, "the guests have left the room", func() bool {
			c.send(`{"type":"subscribe","channel":` + q(room) + `}`)
			return c.next()["type"] == "subscribed"
		})
	}
}

func TestMalformedJSONLeavesNoZombie(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_WEBSOCKET_MAX_ROOM_USERS=2"}})
	c, other := s.connect(t, "anna"), s.connect(t, "bert")
	c.subscribe("room")
	other.subscribe("room")
	c.send(`{"type":"publish","channel":"room","data":{`)
	c.expectError()
	other.publish("room", `{"from":"b"}`)
	c.expect("room", "signal:all", `{"from":"b"}`)
	c.publish("room", `{"from":"a"}`) // it does not only hear
	other.expect("room", "signal:all", `{"from":"a"}`)
	c.close()
	eventually(t, patience, "it has left", func() bool { return s.metrics(t)["active_connections"] == 1 })
	s.connect(t, "carl").subscribe("room")
}

func TestAMemberThatStopsReadingDelaysNobodyAndIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t, settings{})
	stuck := s.raw(t, "stuck")
	if err := stuck.conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	stuck.subscribe("room")
	c, other := s.connect(t, "anna"), s.connect(t, "bert")
	c.subscribe("room")
	other.subscribe("room")
	text := strings.Repeat("x", 100_000)
	var slowest time.Duration
	for n := range 200 { // 20 MB, of which the stuck one reads nothing
		began := time.Now()
		c.publish("room", fmt.Sprintf(`{"from":%d,"x":"%s"}`, n, text))
		if f := other.frame(); !strings.HasPrefix(rawData(t, f.text), fmt.Sprintf(`{"from":%d,`, n)) {
			t.Fatalf("got %.100s", f.text)
		}
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 10*time.Second {
		t.Errorf("a publish took %v while a member did not read", slowest)
	}
	eventually(t, patience, "the stuck member is closed", func() bool {
		m := s.metrics(t)
		return m["slow_consumers_closed"] == 1 && m["active_connections"] == 2
	})
}

func TestAFailedPublisherHarmsNobody(t *testing.T) {
	t.Parallel()
	room := newRoom()
	other := shared.connect(t, "bert")
	other.subscribe(room)
	for range 20 {
		p := shared.raw(t, "anna")
		p.subscribe(room)
		p.send(opText, `{"type":"publish","channel":"`+room+`","data":{"from":"last words"}}`)
		p.reset()
	}
	c := shared.connect(t, "carl")
	c.subscribe(room)
	c.publish(room, `{"from":"fence"}`)
	for f := other.frame(); rawData(t, f.text) != `{"from":"fence"}`; f = other.frame() {
		if rawData(t, f.text) != `{"from":"last words"}` {
			t.Fatalf("got %s", f.text)
		}
	}
}
