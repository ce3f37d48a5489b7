package letshare_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

func TestSubscribeIsAcknowledgedWithItsRoomAndEvent(t *testing.T) {
	t.Parallel()
	c := shared.connect(t, "anna")
	room := newRoom()
	c.subscribe(room, "signal:anna", "signal:all", "signal:anna", "自定义 \"事件\" <&>")
	c.subscribe(room)
}

func TestTheEventOfARequestDefaultsToSignalAll(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	for _, event := range []string{"", `,"event":null`, `,"event":""`, `,"event":"signal:all"`} {
		c.send(`{"type":"subscribe","channel":` + q(room) + event + `}`)
		c.expectStatus("subscribed", room, "signal:all")
		other.subscribe(room)
		other.send(`{"type":"publish","channel":` + q(room) + event + `,"data":{"from":"x"}}`)
		c.expect(room, "signal:all", `{"from":"x"}`)
		c.send(`{"type":"unsubscribe","channel":` + q(room) + event + `}`)
		c.expectStatus("unsubscribed", room, "signal:all")
		c.refused(`{"type":"publish","channel":`+q(room)+`,"data":{}}`, "客户端未订阅房间: "+room)
	}
}

func TestSubscribingAgainAddsEvents(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	c.subscribe(room, "a", "b", "c")
	other.subscribe(room, "x")
	for _, event := range []string{"c", "d", "a", "b"} {
		other.publishTo(room, event, `{"from":"`+event+`"}`)
	}
	for _, event := range []string{"c", "a", "b"} {
		c.expect(room, event, `{"from":"`+event+`"}`)
	}
}

func TestSubscribingTwiceToAnEventDeliversItOnce(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	c.subscribe(room, "a", "a", "a")
	other.subscribe(room)
	other.publishTo(room, "a", `{"from":1}`)
	other.publishTo(room, "a", `{"from":2}`)
	c.expect(room, "a", `{"from":1}`)
	c.expect(room, "a", `{"from":2}`)
}

func TestUnsubscribingFromAnEventDropsThatEventOnly(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	c.subscribe(room, "a", "b", "signal:all")
	other.subscribe(room)
	c.send(`{"type":"unsubscribe","channel":` + q(room) + `,"event":"a"}`)
	c.expectStatus("unsubscribed", room, "a")
	for _, event := range []string{"a", "b", "signal:all"} {
		other.publishTo(room, event, `{"from":"`+event+`"}`)
	}
	c.expect(room, "b", `{"from":"b"}`)
	c.expect(room, "signal:all", `{"from":"signal:all"}`)
	c.publish(room, `{"from":"still a member"}`)
	other.expect(room, "signal:all", `{"from":"still a member"}`)
	c.subscribe(room, "a")
	other.publishTo(room, "a", `{"from":"again"}`)
	c.expect(room, "a", `{"from":"again"}`)
}

func TestUnsubscribingFromAnEventThatOneDoesNotHaveIsAcknowledged(t *testing.T) {
	t.Parallel()
	c := shared.connect(t, "anna")
	room := newRoom()
	c.subscribe(room)
	c.send(`{"type":"unsubscribe","channel":` + q(room) + `,"event":"never"}`)
	c.expectStatus("unsubscribed", room, "never")
	c.publish(room, `{}`)
	c.works() // and the publish was accepted
}

func TestUnsubscribingFromSignalAllOrFromNoneLeavesTheRoom(t *testing.T) {
	t.Parallel()
	other := shared.connect(t, "bert")
	room, fence := newRoom(), newRoom()
	other.subscribe(room)
	other.subscribe(fence)
	for _, event := range []string{"", `,"event":"signal:all"`} {
		c := shared.connect(t, "anna")
		c.subscribe(room, "signal:anna", "signal:all")
		c.subscribe(fence)
		c.send(`{"type":"unsubscribe","channel":` + q(room) + event + `}`)
		c.expectStatus("unsubscribed", room, "signal:all")
		other.publishTo(room, "signal:anna", `{}`)
		other.publishTo(room, "signal:all", `{}`)
		other.publish(fence, `{"from":"fence"}`)
		c.expect(fence, "signal:all", `{"from":"fence"}`)
		c.refused(`{"type":"publish","channel":`+q(room)+`,"data":{}}`, "客户端未订阅房间: "+room)
	}
}

func TestLeavingForgetsTheEventsOfTheRoom(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	other.subscribe(room)
	c.subscribe(room, "a", "b")
	c.leave(room)
	c.subscribe(room, "b")
	other.publishTo(room, "a", `{"from":"a"}`)
	other.publishTo(room, "signal:all", `{"from":"all"}`)
	other.publishTo(room, "b", `{"from":"b"}`)
	c.expect(room, "b", `{"from":"b"}`)
}

func TestUnsubscribeIsAcknowledgedForAnyRoom(t *testing.T) {
	t.Parallel()
	c := shared.connect(t, "anna")
	for _, room := range []string{newRoom(), "x", "a name that is much too long", "😀😀", "a/b", " ", "\t\n", `"\`, "㐀㐀"} {
		c.leave(room)
		c.send(`{"type":"unsubscribe","channel":` + q(room) + `,"event":"signal:me"}`)
		c.expectStatus("unsubscribed", room, "signal:me")
	}
}

func TestAGoodPublishHasNoAnswerAndReachesTheOthers(t *testing.T) {
	t.Parallel()
	c, other, third := shared.connect(t, "anna"), shared.connect(t, "bert"), shared.connect(t, "carl")
	room := newRoom()
	for _, m := range []*client{c, other, third} {
		m.subscribe(room)
	}
	c.publish(room, `{"type":"discover","from":"anna","userType":"desktop"}`)
	other.expect(room, "signal:all", `{"type":"discover","from":"anna","userType":"desktop"}`)
	third.expect(room, "signal:all", `{"type":"discover","from":"anna","userType":"desktop"}`)
	c.works() // the next thing that it is sent
}

func TestTheTextsOfErrorsAreTheOriginals(t *testing.T) {
	t.Parallel()
	c := shared.connect(t, "anna")
	room, elsewhere := newRoom(), newRoom()
	c.subscribe(room)
	in, out := `"channel":`+q(room), `"channel":`+q(elsewhere)
	for _, test := range []struct{ request, text string }{
		{`{"type":"dance"}`, "不支持的消息类型: dance"},
		{`{"type":"Subscribe",` + in + `}`, "不支持的消息类型: Subscribe"},
		{`{"type":"message",` + in + `,"data":{}}`, "不支持的消息类型: message"},
		{`{"type":"ping"}`, "不支持的消息类型: ping"},
		{`{"type":"跳舞"}`, "不支持的消息类型: 跳舞"},
		{`{}`, "不支持的消息类型: "},
		{`{"type":""}`, "不支持的消息类型: "},
		{`{"TYPE":"subscribe",` + in + `}`, "不支持的消息类型: "},

		{`{"type":"subscribe"}`, "缺少频道名称"},
		{`{"type":"subscribe","channel":""}`, "缺少频道名称"},
		{`{"type":"subscribe","channel":null}`, "缺少频道名称"},
		{`{"type":"subscribe","Channel":"ab"}`, "缺少频道名称"},
		{`{"type":"unsubscribe"}`, "缺少频道名称"},
		{`{"type":"unsubscribe","channel":""}`, "缺少频道名称"},

		// A publish is checked for its channel, its data, their kind, and membership, in this order.
		{`{"type":"publish"}`, "缺少频道名称"},
		{`{"type":"publish","data":{}}`, "缺少频道名称"},
		{`{"type":"publish","channel":"","data":5}`, "缺少频道名称"},
		{`{"type":"publish",` + in + `}`, "缺少消息数据"},
		{`{"type":"publish",` + in + `,"data":null}`, "缺少消息数据"},
		{`{"type":"publish",` + out + `}`, "缺少消息数据"},
		{`{"type":"publish",` + out + `,"data":null}`, "缺少消息数据"},
		{`{"type":"publish",` + in + `,"Data":{}}`, "缺少消息数据"},
		{`{"type":"publish",` + in + `,"data":5}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":0}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":"text"}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":""}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":"{}"}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":[]}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":[{}]}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":true}`, "消息数据格式错误"},
		{`{"type":"publish",` + in + `,"data":false}`, "消息数据格式错误"},
		{`{"type":"publish",` + out + `,"data":5}`, "消息数据格式错误"},
		{`{"type":"publish",` + out + `,"data":{}}`, "客户端未订阅房间: " + elsewhere},
		{`{"type":"publish","channel":"x","data":{}}`, "客户端未订阅房间: x"},
		{`{"type":"publish","channel":"a name that is much too long","data":{}}`, "客户端未订阅房间: a name that is much too long"},
		{`{"type":"publish","channel":"😀","data":{}}`, "客户端未订阅房间: 😀"},

		{`{"type":"subscribe","channel":"a"}`, "房间名太短啦，至少两个字符"},
		{`{"type":"subscribe","channel":"王"}`, "房间名太短啦，至少两个字符"},
		{`{"type":"subscribe","channel":"😀"}`, "房间名太短啦，至少两个字符"},
		{`{"type":"subscribe","channel":"abcdefghijklm"}`, "房间名最多 12 个字符"},
		{`{"type":"subscribe","channel":"一二三四五六七八九十一二三"}`, "房间名最多 12 个字符"},
		{`{"type":"subscribe","channel":"😀😀"}`, "房间名只能包含中文、字母、数字、空格、下划线和中划线"},
		{`{"type":"subscribe","channel":"a.b"}`, "房间名只能包含中文、字母、数字、空格、下划线和中划线"},
	} {
		c.refused(test.request, test.text)
	}
	c.works()
}

func TestTheRoomNameRule(t *testing.T) {
	t.Parallel()
	c := shared.connect(t, "anna")
	good := []string{
		"ab", "AB", "09", "a b", "  ", "__", "--", "-_ ", "王小", "一龥", "一二三四五六七八九十一二",
		"abcdefghijkl", " ab", "ab ", "room-1_x 王", "A1", "0 ", "一a",
	}
	bad := []string{
		"㐀㐀", "ab㐀", "龦龦", "a龦", "\u4dff\u4e00", "é1", "ä1", "e\u0301a", "ａｂ", "１２", "ab\n", "ab\t", "a\u00a0b",
		"a\u3000b", "a\u200bb", "ab!", "a/b", "a:b", "[ab", "a*b", "<a>", "a+b", "a=b", "a@b", "a'b", "a\"b", "a\\b",
		"ab\u0000", "あい", "한국", "🦊a", "ñn", "a—b", "a–b", "，，", "𠀀𠀀",
	}
	for _, room := range good {
		c.subscribe(room)
		c.leave(room)
	}
	for _, room := range bad {
		c.refused(`{"type":"subscribe","channel":`+q(room)+`}`, "房间名只能包含中文、字母、数字、空格、下划线和中划线")
	}
	// A half of a surrogate pair is no character at all.
	for _, room := range []string{`"ab\ud800"`, `"\udc00\udc00"`, `"a\ud83db"`} {
		c.refused(`{"type":"subscribe","channel":`+room+`}`, "房间名只能包含中文、字母、数字、空格、下划线和中划线")
	}
	// An escaped name is the name.
	c.send(`{"type":"subscribe","channel":"\u738b\u5c0f"}`)
	c.expectStatus("subscribed", "王小", "signal:all")
}

func TestRoomNamesAreCaseSensitiveAndNotTrimmed(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()[:8] + "ab"
	c.subscribe(room)
	c.subscribe("fence-" + room[:4])
	for _, like := range []string{room[:8] + "AB", room[:8] + "Ab", room + " ", " " + room} {
		other.subscribe(like)
		other.publish(like, `{}`)
		c.refused(`{"type":"publish","channel":`+q(like)+`,"data":{}}`, "客户端未订阅房间: "+like)
	}
	other.subscribe("fence-" + room[:4])
	other.publish("fence-"+room[:4], `{"from":"fence"}`)
	c.expect("fence-"+room[:4], "signal:all", `{"from":"fence"}`)
}

func TestEverythingElseIsAnErrorAndTheConnectionWorksOn(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	c.subscribe(room)
	other.subscribe(room)
	n := 0
	for _, bad := range []string{
		"", " ", "{", "}", "[", "[]", "[{}]", "null", "true", "0", `"text"`, "hello", "{]", `{"type"}`, `{"type":}`,
		`{"type":"subscribe","channel":"ab"`, `{"type":"subscribe","channel":"ab"}}`, `{}{}`, `{"type":"subscribe",}`,
		`{type:"subscribe",channel:"ab"}`, `{'type':'subscribe'}`, "\ufeff{}", "\x00", `{"type":"subscribe","channel":"ab"} x`,
		`{"type":5}`, `{"type":{}}`, `{"type":["subscribe"],"channel":"ab"}`, `{"type":true}`, `{"type":null}`,
		`{"type":"subscribe","channel":5}`, `{"type":"subscribe","channel":["ab"]}`, `{"type":"subscribe","channel":{"a":1}}`,
		`{"type":"subscribe","channel":true}`, `{"type":"subscribe","channel":"ab","event":5}`,
		`{"type":"subscribe","channel":"ab","event":["signal:all"]}`, `{"type":"subscribe","channel":"ab","event":{}}`,
		`{"type":"unsubscribe","channel":5}`, `{"type":"unsubscribe","channel":"ab","event":5}`,
		`{"type":"publish","channel":5,"data":{}}`, `{"type":"publish","channel":` + q(room) + `,"event":5,"data":{}}`,
		`{"type":"publish","channel":` + q(room) + `,"event":{},"data":{}}`,
		strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 50_000),
		`{"type":"publish","channel":` + q(room) + `,"data":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000) + `}`,
	} {
		for _, op := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			c.write(op, []byte(bad))
			if code, message := c.expectError(); code != "400" || !hasChinese(message) {
				t.Errorf("%.60q is answered with %s %q", bad, code, message)
			}
			n++
			c.publish(room, fmt.Sprintf(`{"from":%d}`, n))
			other.expect(room, "signal:all", fmt.Sprintf(`{"from":%d}`, n))
		}
	}
	other.publish(room, `{"from":"b"}`)
	c.expect(room, "signal:all", `{"from":"b"}`)
	c.works()
}

func TestBinaryFramesMayHoldRequests(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	c.write(websocket.MessageBinary, []byte(`{"type":"subscribe","channel":`+q(room)+`}`))
	c.expectStatus("subscribed", room, "signal:all") // a text frame: next checks it
	other.subscribe(room)
	c.write(websocket.MessageBinary, []byte(`{"type":"publish","channel":`+q(room)+`,"data":{"from":"b"}}`))
	other.expect(room, "signal:all", `{"from":"b"}`)
	c.write(websocket.MessageBinary, []byte{0, 1, 2, 3, 0xff})
	c.expectError()
	c.write(websocket.MessageBinary, []byte(`{"type":"unsubscribe","channel":`+q(room)+`}`))
	c.expectStatus("unsubscribed", room, "signal:all")
}

func TestUnknownKeysAreIgnored(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	c.send(`{"id":7,"type":"subscribe","x":{"type":"dance"},"channel":` + q(room) + `,"data":5,"Event":"other","timestamp":"never"}`)
	c.expectStatus("subscribed", room, "signal:all")
	other.subscribe(room)
	other.send(` {"clientId":"root","Channel":"zz","channel":` + q(room) + `,"type":"publish","from":"root","data":{"from":"x"},"encoding":[]} ` + "\r\n\t")
	c.expect(room, "signal:all", `{"from":"x"}`)
	c.send(`{"type":"unsubscribe","channel":` + q(room) + `,"data":null,"y":[]}`)
	c.expectStatus("unsubscribed", room, "signal:all")
}

func TestRequestsOfOneConnectionAreHandledInOrder(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	other.subscribe(room)
	const rounds = 100
	for i := range rounds {
		c.send(`{"type":"subscribe","channel":` + q(room) + `}`)
		c.publish(room, fmt.Sprintf(`{"from":%d}`, i))
		c.send(`{"type":"unsubscribe","channel":` + q(room) + `}`)
		c.publish(room, `{"from":"too late"}`)
		c.send(`{"type":"dance"}`)
	}
	for i := range rounds {
		c.expectStatus("subscribed", room, "signal:all")
		c.expectStatus("unsubscribed", room, "signal:all")
		if _, text := c.expectError(); text != "客户端未订阅房间: "+room {
			t.Fatalf("round %d: got the error %q", i, text)
		}
		if _, text := c.expectError(); text != "不支持的消息类型: dance" {
			t.Fatalf("round %d: got the error %q", i, text)
		}
		other.expect(room, "signal:all", fmt.Sprintf(`{"from":%d}`, i))
	}
}

func TestEveryAnswerIsOneTextFrame(t *testing.T) {
	t.Parallel()
	p, other := shared.raw(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	other.subscribe(room)
	p.send(opText, `{"type":"subscribe","channel":`+q(room)+`}`)
	p.send(opBinary, `{"type":"unsubscribe","channel":"nowhere"}`)
	p.send(opText, `{"type":"dance"}`)
	for _, kind := range []string{"subscribed", "unsubscribed", "error"} {
		if f := p.next(); f.first != 0x80|opText || parse(t, f.payload)["type"] != kind {
			t.Errorf("got frame %#x %q, want %s in one text frame", f.first, f.payload, kind)
		}
	}
	other.publish(room, `{"text":"`+strings.Repeat("x", 100_000)+`"}`)
	if f := p.next(); f.first != 0x80|opText || parse(t, f.payload)["type"] != "message" {
		t.Errorf("got frame %#x of %d bytes, want a message in one text frame", f.first, len(f.payload))
	}
}

func TestTheSenderIsFilledInOnlyIfItIsAbsent(t *testing.T) {
	t.Parallel()
	c := shared.dial(t, "/ws?token="+tokenFor("anna")+"&userId=anna:1b2c3d")
	plain := shared.dial(t, "/ws?token="+tokenFor("the user"))
	other := shared.connect(t, "bert")
	room := newRoom()
	for _, m := range []*client{c, plain, other} {
		m.subscribe(room)
	}
	parties := []struct {
		c    *client
		name string
	}{{c, "anna:1b2c3d"}, {plain, "the user"}}
	for _, p := range parties {
		for _, present := range []string{
			`{"from":"somebody"}`, `{"from":null}`, `{"from":""}`, `{"from":0}`, `{"from":7,"x":1}`, `{"from":{"a":[1]}}`,
			`{"from":[]}`, `{"from":false}`, `{"x":1,"from":"last"}`, `{ "from" : "spaced" }`, `{"\u0066rom":"escaped"}`,
		} {
			p.c.publish(room, present)
			other.expect(room, "signal:all", present)
		}
		for _, absent := range []string{`{}`, `{"x":1}`, `{ }`, `{"From":"x"}`, `{"x":{"from":"inner"}}`, `{"a":"}"}`} {
			p.c.publish(room, absent)
			data := parse(t, rawData(t, other.frame().text))
			if data["from"] != p.name {
				t.Errorf("%s from %s: from is %v", absent, p.name, data["from"])
			}
			delete(data, "from")
			if want := parse(t, absent); keys(data) != keys(want) {
				t.Errorf("%s has become %v", absent, data)
			}
		}
		for _, m := range parties {
			if m.c != p.c {
				for range 17 {
					m.c.frame()
				}
			}
		}
	}
}

func TestDataIsPassedThroughAsItIs(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	room := newRoom()
	c.subscribe(room)
	other.subscribe(room)
	for _, inner := range []string{
		`"n":9007199254740993`, `"n":123456789012345678901234567890`, `"n":1.0,"m":1e2,"o":-0,"p":0.10,"q":1E+400`,
		`"z":1,"a":2,"m":3,"B":4`, `"a":1,"a":2`, `"t":"<b>&amp;\u003c\/\u0000\ud83d\ude00😀"`, `"t":"\u2028\u2029"`, `"t":"` + "\u2028" + `"`,
		`"nested":{"z":[1,2.50,{"y":null,"x":true}],"a":{}}`, `"":""`, `"half":"\ud800"`, `"from ":1`, `"sdp":"v=0\r\no=- 46117 2"`,
		`"type":"offer","target":"x","data":{"data":{}}`,
	} {
		data := `{` + inner + `,"from":"a"}`
		c.publish(room, data)
		other.expect(room, "signal:all", data)
		c.publish(room, `{`+inner+`}`)
		got := rawData(t, other.frame().text)
		if !strings.HasPrefix(got, `{`+inner) {
			t.Errorf("%s has become %s", inner, got)
		}
	}
	// White space between the parts means nothing, but the parts keep their order.
	c.publish(room, "{ \"z\" : 1 ,\n\t\"a\" : [ 1 , 2 ] , \"from\" : \"x\" }")
	got := strings.Join(strings.Fields(rawData(t, other.frame().text)), "")
	if got != `{"z":1,"a":[1,2],"from":"x"}` {
		t.Errorf("got %s", got)
	}
}

func TestAnEventReachesExactlyItsSubscribers(t *testing.T) {
	t.Parallel()
	room := newRoom()
	anna, bert, carl := shared.connect(t, "anna"), shared.connect(t, "bert"), shared.connect(t, "carl")
	for name, c := range map[string]*client{"anna": anna, "bert": bert, "carl": carl} {
		c.subscribe(room, "signal:"+name, "signal:all")
	}
	anna.publishTo(room, "signal:bert", `{"from":"anna"}`)
	anna.publishTo(room, "signal:Bert", `{"from":"nobody"}`)
	anna.publishTo(room, "signal:", `{"from":"nobody"}`)
	anna.publishTo(room, "signal:al", `{"from":"nobody"}`)
	anna.publishTo(room, "signal:all", `{"from":"all"}`)
	bert.expect(room, "signal:bert", `{"from":"anna"}`)
	bert.expect(room, "signal:all", `{"from":"all"}`)
	carl.expect(room, "signal:all", `{"from":"all"}`)
	carl.publishTo(room, "signal:anna", `{"from":"carl"}`)
	anna.expect(room, "signal:anna", `{"from":"carl"}`)
	bert.works()
}

func TestASubscriberOfOneEventDoesNotGetSignalAll(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	c.subscribe(room, "signal:anna")
	other.subscribe(room)
	other.publish(room, `{}`)
	other.publishTo(room, "signal:anna", `{"from":"b"}`)
	c.expect(room, "signal:anna", `{"from":"b"}`)
}

func TestEventsBelongToTheirRoom(t *testing.T) {
	t.Parallel()
	one, two := newRoom(), newRoom()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	c.subscribe(one, "a")
	c.subscribe(two, "b")
	other.subscribe(one)
	other.subscribe(two)
	other.publishTo(one, "b", `{"from":1}`)
	other.publishTo(two, "a", `{"from":2}`)
	other.publishTo(one, "a", `{"from":3}`)
	other.publishTo(two, "b", `{"from":4}`)
	c.expect(one, "a", `{"from":3}`)
	c.expect(two, "b", `{"from":4}`)
	c.leave(one)
	other.publishTo(one, "a", `{"from":5}`)
	other.publishTo(two, "b", `{"from":6}`)
	c.expect(two, "b", `{"from":6}`)
}

func TestMessagesStayInTheirRoom(t *testing.T) {
	t.Parallel()
	one, two := newRoom(), newRoom()
	anna, bert, carl := shared.connect(t, "anna"), shared.connect(t, "bert"), shared.connect(t, "carl")
	anna.subscribe(one)
	bert.subscribe(two)
	carl.subscribe(one)
	carl.subscribe(two)
	carl.publish(two, `{"from":2}`)
	carl.publish(one, `{"from":1}`)
	anna.expect(one, "signal:all", `{"from":1}`)
	bert.expect(two, "signal:all", `{"from":2}`)
	anna.works()
	bert.works()
}

func TestWildcardEventsReachWhoeverSubscribedToSignalAll(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_LETSHARE_DIRECTED_EVENTS=wildcard"}})
	anna, bert, carl := s.connect(t, "anna"), s.connect(t, "bert"), s.connect(t, "carl")
	anna.subscribe("room", "signal:all", "signal:anna")
	bert.subscribe("room", "signal:bert")
	carl.subscribe("room", "signal:carl")
	carl.publishTo("room", "signal:bert", `{"from":1}`)
	carl.publishTo("room", "signal:anna", `{"from":2}`)
	carl.publishTo("room", "signal:all", `{"from":3}`)
	carl.publishTo("room", "signal:bert", `{"from":4}`)
	anna.expect("room", "signal:bert", `{"from":1}`)
	anna.expect("room", "signal:anna", `{"from":2}`) // once, although two of its events match
	anna.expect("room", "signal:all", `{"from":3}`)
	anna.expect("room", "signal:bert", `{"from":4}`)
	bert.expect("room", "signal:bert", `{"from":1}`)
	bert.expect("room", "signal:bert", `{"from":4}`)
	bert.subscribe("room", "signal:all")
	carl.publishTo("room", "signal:else", `{"from":5}`)
	bert.expect("room", "signal:else", `{"from":5}`)
}

func TestThePublisherHasNoEchoButItsUsersOtherConnectionHas(t *testing.T) {
	t.Parallel()
	room := newRoom()
	one, two := shared.connect(t, "anna"), shared.connect(t, "anna")
	one.subscribe(room)
	two.subscribe(room)
	one.publish(room, `{"from":1}`)
	two.expect(room, "signal:all", `{"from":1}`)
	two.publish(room, `{"from":2}`)
	one.expect(room, "signal:all", `{"from":2}`) // and nothing before it
	two.works()
}

func TestTheOrderOfASenderIsKept(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	c.subscribe(room)
	other.subscribe(room, "signal:all", "signal:bert")
	const count = 1000
	go func() {
		for i := range count {
			event := "signal:all"
			if i%3 == 0 {
				event = "signal:bert"
			}
			c.publishTo(room, event, fmt.Sprintf(`{"from":%d}`, i))
		}
	}()
	for i := range count {
		event := "signal:all"
		if i%3 == 0 {
			event = "signal:bert"
		}
		other.expect(room, event, fmt.Sprintf(`{"from":%d}`, i))
	}
}

func TestOneConnectionMayBeInManyRooms(t *testing.T) {
	t.Parallel()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	rooms := make([]string, 60)
	for i := range rooms {
		rooms[i] = newRoom()
		c.subscribe(rooms[i])
		other.subscribe(rooms[i])
	}
	for i, room := range rooms {
		other.publish(room, fmt.Sprintf(`{"from":%d}`, i))
	}
	for i, room := range rooms {
		c.expect(room, "signal:all", fmt.Sprintf(`{"from":%d}`, i))
	}
}

func TestInvalidUTF8IsRefusedAndReachesNobody(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c, other := shared.connect(t, "anna"), shared.connect(t, "bert")
	c.subscribe(room)
	other.subscribe(room)
	p := shared.raw(t, "carl")
	p.subscribe(room)
	for n, bad := range []string{"\xff", "\xc3\x28", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "\xe4\xb8"} {
		for _, request := range []string{
			`{"type":"publish","channel":"` + room + `","data":{"x":"` + bad + `"}}`,
			`{"type":"publish","channel":"` + room + `","event":"` + bad + `","data":{}}`,
			`{"type":"publish","channel":"` + room + `","data":{"` + bad + `":1}}`,
			`{"type":"subscribe","channel":"ab` + bad + `"}`,
			`{"x":"` + bad + `","type":"subscribe","channel":"abc"}`,
		} {
			for _, op := range []byte{opText, opBinary} {
				p.send(op, request)
				if m := parse(t, p.next().payload); m["type"] != "error" {
					t.Fatalf("%q is answered with %v", request, m)
				}
			}
		}
		p.send(opText, fmt.Sprintf(`{"type":"publish","channel":%q,"data":{"from":%d}}`, room, n))
		c.expect(room, "signal:all", fmt.Sprintf(`{"from":%d}`, n))
		other.expect(room, "signal:all", fmt.Sprintf(`{"from":%d}`, n))
	}
	// An invalid sequence that is split between fragments, and a valid one.
	whole := `{"type":"publish","channel":"` + room + `","data":{"from":"王"}}`
	cut := strings.Index(whole, "王") + 1
	p.write(encode(opText, true, whole[:cut]))
	p.write(encode(0x80|opContinuation, true, whole[cut:]))
	c.expect(room, "signal:all", `{"from":"王"}`)
	p.write(encode(opText, true, whole[:cut]))
	p.write(encode(0x80|opContinuation, true, whole[cut+1:]))
	if m := parse(t, p.next().payload); m["type"] != "error" {
		t.Fatalf("got %v, want an error", m)
	}
}

func TestTheBurstOfARoomChangeIsAnsweredInOrder(t *testing.T) {
	t.Parallel()
	p, other := shared.raw(t, "anna"), shared.connect(t, "bert")
	from, to := newRoom(), newRoom()
	other.subscribe(from)
	other.subscribe(to)
	var burst []byte
	add := func(kind, room, event string) {
		burst = append(burst, encode(0x80|opText, true, fmt.Sprintf(`{"type":%q,"channel":%q,"event":%q}`, kind, room, event))...)
	}
	expect := func(kind, room, event string) {
		t.Helper()
		m := parse(t, p.next().payload)
		if m["type"] != kind || m["channel"] != room || m["event"] != event {
			t.Fatalf("got %v, want %s %s %s", m, kind, room, event)
		}
	}
	add("subscribe", from, "signal:anna")
	add("subscribe", from, "signal:all")
	p.write(burst)
	expect("subscribed", from, "signal:anna")
	expect("subscribed", from, "signal:all")
	for i := range 20 {
		burst = nil
		add("unsubscribe", from, "signal:anna")
		add("unsubscribe", from, "signal:all")
		add("subscribe", to, "signal:anna")
		add("subscribe", to, "signal:all")
		p.write(burst)
		expect("unsubscribed", from, "signal:anna")
		expect("unsubscribed", from, "signal:all")
		expect("subscribed", to, "signal:anna")
		// Right behind the first acknowledgement the front-end looks for peers, twice.
		discover := encode(0x80|opText, true, fmt.Sprintf(`{"type":"publish","channel":%q,"event":"signal:all","data":{"type":"discover","from":"anna"}}`, to))
		p.write(append(discover, discover...))
		expect("subscribed", to, "signal:all")
		other.expect(to, "signal:all", `{"type":"discover","from":"anna"}`)
		other.expect(to, "signal:all", `{"type":"discover","from":"anna"}`)
		other.publishTo(to, "signal:anna", `{"from":"bert"}`)
		if m := parse(t, p.next().payload); m["type"] != "message" || m["event"] != "signal:anna" {
			t.Fatalf("round %d: got %v, want the answer of the other", i, m)
		}
		from, to = to, from
	}
}
