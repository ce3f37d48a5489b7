package letshare_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestAPublishOfThisDoorReachesSDKClients(t *testing.T) {
	t.Parallel()
	room := newRoom()
	sdk := shared.connectAbly(t, "")
	sdk.attach(room)
	c := shared.dial(t, "/ws?token="+tokenFor("the user")+"&userId=inst:1")
	c.subscribe(room)
	c.publishTo(room, "signal:other", `{"type":"offer","n":9007199254740993,"from":"inst:1"}`)
	m := sdk.message()
	if m["name"] != "signal:other" || m["clientId"] != "the user" || m["encoding"] != "json" ||
		m["data"] != `{"type":"offer","n":9007199254740993,"from":"inst:1"}` {
		t.Errorf("the SDK gets %v", m)
	}
	c.publish(room, `{}`)
	if m := sdk.message(); m["name"] != "signal:all" || m["data"] != `{"from":"inst:1"}` {
		t.Errorf("the SDK gets %v", m)
	}
}

func TestAPublishOfAnSDKReachesThisDoor(t *testing.T) {
	t.Parallel()
	room := newRoom()
	sdk := shared.connectAbly(t, "&clientId=sdk-client")
	sdk.attach(room)
	c := shared.connect(t, "anna")
	c.subscribe(room, "signal:all", "signal:anna")
	// What the SDK makes of an object.
	sdk.publish(room, `{"name":"signal:anna","data":"{\"type\":\"answer\",\"from\":\"sdk\"}","encoding":"json"}`)
	c.expect(room, "signal:anna", `{"type":"answer","from":"sdk"}`)
	sdk.next(actionAck)
	sdk.message() // Ably's echo
	// Text that is JSON.
	sdk.publish(room, `{"name":"signal:all","data":"{\"a\":1}"}`)
	c.expect(room, "signal:all", `{"a":1}`) // nothing is filled in for others
	// An object as it stands.
	sdk.publish(room, `{"name":"signal:all","data":{"b":[1,2]}}`)
	c.expect(room, "signal:all", `{"b":[1,2]}`)
	sdk.publish(room, `{"name":"signal:all","data":" {\"c\" : 1} ","encoding":"json"}`)
	if got := strings.Join(strings.Fields(rawData(t, c.frame().text)), ""); got != `{"c":1}` {
		t.Errorf("got %s", got)
	}
	// Another event.
	sdk.publish(room, `{"name":"signal:bert","data":"{}"}`)
	sdk.publish(room, `{"data":"{}"}`)
	c.works()
}

func TestMessagesOfSDKsThatAreNoObjectsAreNotDeliveredHere(t *testing.T) {
	t.Parallel()
	room := newRoom()
	sdk, reader := shared.connectAbly(t, ""), shared.connectAbly(t, "")
	sdk.attach(room)
	reader.attach(room)
	c := shared.connect(t, "anna")
	c.subscribe(room)
	others := []string{
		`"data":"hello"`, `"data":""`, `"data":"[1]","encoding":"json"`, `"data":"5"`, `"data":"null","encoding":"json"`, `"data":"{"`, `"data":"{}x"`,
		`"data":"{\"a\":}"`, `"data":"` + base64.StdEncoding.EncodeToString([]byte(`{"a":1}`)) + `","encoding":"base64"`,
		`"data":"e30=","encoding":"json/utf-8/base64"`, `"data":"e30=","encoding":"json/cipher+aes-128-cbc/base64"`, `"encoding":"json"`, `"data":null`,
		`"data":[{"a":1}]`, `"data":"{}","encoding":"custom"`,
	}
	for _, data := range others {
		sdk.publish(room, `{"name":"signal:all",`+data+`}`)
	}
	sdk.publish(room, `{"name":"signal:all","data":"{\"from\":\"last\"}","encoding":"json"}`)
	// Whoever decodes base64 finds an object in two of these; no encoding is undone here.
	for f := c.frame(); rawData(t, f.text) != `{"from":"last"}`; f = c.frame() {
		t.Errorf("got %.200s", f.text)
	}
	c.publish(room, `{"from":"anna"}`)
	for m := reader.message(); m["data"] != `{"from":"anna"}`; m = reader.message() {
	}
}

func TestEchoFollowsTheRulesOfEachDoor(t *testing.T) {
	t.Parallel()
	room := newRoom()
	loud, quiet := shared.connectAbly(t, ""), shared.connectAbly(t, "&echo=false")
	loud.attach(room)
	quiet.attach(room)
	c := shared.connect(t, "anna")
	c.subscribe(room)
	object := func(from string) string {
		return `{"name":"signal:all","data":"{\"from\":\"` + from + `\"}","encoding":"json"}`
	}
	loud.publish(room, object("loud"))
	c.expect(room, "signal:all", `{"from":"loud"}`)
	quiet.publish(room, object("quiet"))
	c.expect(room, "signal:all", `{"from":"quiet"}`)
	c.publish(room, `{"from":"anna"}`)
	from := func(a *ably) (names []string) {
		for len(names) == 0 || names[len(names)-1] != `{"from":"anna"}` {
			m := <-a.frames
			if m == nil {
				t.Fatalf("Ably's door ended the connection: %v", a.end)
			}
			if m["action"] == json.Number(actionMessage) {
				names = append(names, m["messages"].([]any)[0].(map[string]any)["data"].(string))
			}
		}
		return names
	}
	if got := strings.Join(from(loud), " "); got != `{"from":"loud"} {"from":"quiet"} {"from":"anna"}` {
		t.Errorf("with echo: %s", got)
	}
	if got := strings.Join(from(quiet), " "); got != `{"from":"loud"} {"from":"anna"}` {
		t.Errorf("without echo: %s", got)
	}
	c.works()
}

func TestAPublishOverRESTReachesThisDoor(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c := shared.connect(t, "anna")
	c.subscribe(room)
	for _, test := range []struct{ body, data string }{
		{`{"name":"signal:all","data":{"type":"discover","n":9007199254740993}}`, `{"type":"discover","n":9007199254740993}`},
		{`{"name":"signal:all","data":"{\"a\":1}"}`, `{"a":1}`},
	} {
		r, err := http.NewRequest("POST", "http://"+shared.addr+"/channels/"+room+"/messages", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		name, secret, _ := strings.Cut(ablyKey, ":")
		r.SetBasicAuth(name, secret)
		r.Header.Set("Content-Type", "application/json")
		answer, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != 201 {
			t.Fatalf("publishing over REST: %d %s", answer.StatusCode, body)
		}
		c.expect(room, "signal:all", test.data)
	}
}

func TestInvalidUTF8OfAnSDKReachesNobodyHere(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c := shared.connect(t, "anna")
	c.subscribe(room)
	str := func(s string) string { return string([]byte{0xD9, byte(len(s))}) + s }
	publish := func(p *peer, serial byte, name, data string) {
		p.send(opBinary, "\x84"+str("action")+"\x0F"+str("channel")+str(room)+str("msgSerial")+string([]byte{serial})+
			str("messages")+"\x91\x82"+str("name")+str(name)+str("data")+str(data))
	}
	target := "/?key=" + strings.ReplaceAll(ablyKey, ":", "%3A") + "&v=6&format=msgpack"
	for _, bad := range []struct{ name, data string }{{"signal:all", "{\"x\":\"\xff\"}"}, {"signal:\xff", `{"x":1}`}} {
		p := shared.rawTarget(t, target)
		publish(p, 0, bad.name, bad.data)
		for f := p.next(); f.op() != opClose && !strings.Contains(f.payload, "count"); f = p.next() { // refused, one way or the other
		}
	}
	p := shared.rawTarget(t, target)
	publish(p, 0, "signal:all", `{"from":"good"}`)
	c.expect(room, "signal:all", `{"from":"good"}`)
}
