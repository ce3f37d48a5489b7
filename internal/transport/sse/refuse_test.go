package sse_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/transport/sse"
)

func TestRefusalsAreOrdinaryAnswers(t *testing.T) {
	k := newKit(t, func(s *settings) { s.limits.ConnectionChannels = 5 })
	const some = "app.some:secret"
	for _, c := range []struct {
		what, path   string
		status, code int
	}{
		{"no version", "/sse?channels=a", 400, 40017},
		{"a version that is none", "/sse?channels=a&v=new", 400, 40017},
		{"version 0", "/sse?channels=a&v=0.8", 400, 40017},
		{"no channels", "/sse?v=1.2", 400, 40000},
		{"an empty name", "/sse?v=1.2&channels=", 400, 40010},
		{"an empty name among others", "/sse?v=1.2&channels=a,,b", 400, 40010},
		{"a bad name", "/event-stream?v=1.2&channels=a,:b", 400, 40010},
		{"an unknown qualifier", "/sse?v=1.2&channels=[what]a", 400, 40010},
		{"a filter that is none", "/sse?v=1.2&channels=[filter=KA]a&key=app.wide:secret", 400, 40010},
		{"a filter without the right to it", "/sse?v=1.2&channels=[filter=bmFtZQ]a", 401, 40160},
		{"too many channels", "/sse?v=1.2&channels=a,b,c,d,e,f", 400, 90010},
		{"a bad rewind", "/sse?v=1.2&channels=a&rewind=often", 400, 40003},
		{"a bad rewind of one channel", "/sse?v=1.2&channels=b,[?rewind=x]a", 400, 40003},
		{"a bad limit", "/sse?v=1.2&channels=a&rewind=1m&rewindLimit=0", 400, 40003},
		{"a bad delta", "/sse?v=1.2&channels=a&delta=xdelta", 400, 40003},
		{"modes that leave nothing", "/sse?v=1.2&channels=a&modes=publish", 400, 40003},
		{"an id of another server", "/sse?v=1.2&channels=a&lastEvent=" + url.QueryEscape("cbfKayrzgAXDWM@1556806691343-0"), 400, 40003},
		{"an id that was cut off", "/sse?v=1.2&channels=a&lastEventId=AXc", 400, 40003},
		{"a wrong secret", "/sse?v=1.2&channels=a&key=app.key:wrong", 401, 40101},
		{"a key that is none", "/sse?v=1.2&channels=a&key=nonsense", 400, 40005},
		{"an unknown app", "/sse?v=1.2&channels=a&key=no.key:secret", 404, 40400},
		{"a token that is none", "/sse?v=1.2&channels=a&accessToken=a.b.c", 401, 40144},
		{"no right", "/sse?v=1.2&channels=closed&key=" + some, 401, 40160},
		{"no right to read", "/sse?v=1.2&channels=writable&key=" + some, 401, 40160},
		{"no right on one of several", "/sse?v=1.2&channels=open,closed&key=" + some, 401, 40160},
		{"nobody where somebody is wanted", "/sse?v=1.2&channels=known:x&key=" + key, 401, 40161},
	} {
		res := k.get(t, c.path)
		var body struct{ Error message }
		if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if res.StatusCode != c.status || body.Error.Code != c.code || body.Error.StatusCode != c.status || body.Error.Message == "" ||
			res.Header.Get("X-Ably-Errorcode") != strconv.Itoa(c.code) || res.Header.Get("X-Ably-Errormessage") == "" ||
			res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %v %+v", c.what, res.Status, res.Header, body.Error)
		}
	}
	if n := k.hub.Rooms(); n != 0 {
		t.Errorf("%d channels are attached by nobody", n)
	}
}

func TestNoCredentialsAreRefused(t *testing.T) {
	k := newKit(t)
	res, err := http.Get(k.url + "/sse?v=1.2&channels=a")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != 401 || res.Header.Get("X-Ably-Errorcode") != "40101" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAFullServerSaysWhenToComeBack(t *testing.T) {
	k := newKit(t, func(s *settings) { s.door = sse.Options{Overloaded: func() bool { return true }} })
	res := k.get(t, "/sse"+params("channels", "a"))
	if res.StatusCode != 503 || res.Header.Get("X-Ably-Errorcode") != "50004" || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

func TestCredentialsMayStandWhereRESTHasThem(t *testing.T) {
	k := newKit(t)
	token := func(capability, clientID string) string {
		details, err := k.auth.IssueToken(t.Context(), anyone, &auth.TokenRequest{
			KeyName: "app.key", Capability: capability, ClientID: clientID, HasClientID: clientID != "",
			Timestamp: strconv.FormatInt(time.Now().UnixMilli(), 10), Nonce: rand.Text(),
		})
		if err != nil {
			t.Fatal(err)
		}
		return details.Token
	}
	full := token("", "")
	for _, c := range []struct {
		what, query string
		header      []string
	}{
		{"key", "&key=" + key, nil},
		{"accessToken", "&accessToken=" + url.QueryEscape(full), nil},
		{"access_token", "&access_token=" + url.QueryEscape(full), nil},
		{"Basic", "", []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(key))}},
		{"Bearer", "", []string{"Authorization", "Bearer " + full}},
		{"Bearer in base64", "", []string{"Authorization", "Bearer " + base64.StdEncoding.EncodeToString([]byte(full))}},
	} {
		stream := k.open(t, "/sse?v=1.2&channels=a"+c.query, c.header...)
		k.say(t, "a", c.what)
		if got := stream.texts(1); got != c.what {
			t.Errorf("%s: %s", c.what, got)
		}
		stream.close()
	}
	stream := k.open(t, "/sse?v=1.2&channels=known:x&key="+key+"&clientId=anna")
	stream.close()
	identified := k.open(t, "/sse?v=1.2&channels=known:x&accessToken="+url.QueryEscape(token(`{"known:x":["subscribe"]}`, "anna")))
	identified.close()
}

func TestAFullIDOfATooLongURLIsNotRead(t *testing.T) {
	k := newKit(t)
	res := k.get(t, "/sse?v=1.2&channels=a&lastEvent="+strings.Repeat("A", 100_000))
	if res.StatusCode != 400 || res.Header.Get("X-Ably-Errorcode") != "40003" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

func TestAStreamMayHaveAsManyChannelsAsAConnection(t *testing.T) {
	k := newKit(t)
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("c%d", i))
	}
	list := strings.Join(names, ",")
	c := k.open(t, "/sse"+params("channels", list))
	k.say(t, "c999", "1")
	k.say(t, "c0", "2")
	if got := c.texts(2); got != "1 2" {
		t.Error(got)
	}
	if len(c.lastID) > 16<<10 {
		t.Errorf("an id of %d characters", len(c.lastID))
	}
	c.close()
	k.say(t, "c500", "3")
	again := k.open(t, "/sse"+params("channels", list), "Last-Event-ID", c.lastID)
	if got := again.texts(1); got != "3" {
		t.Error(got)
	}
	refused := k.get(t, "/sse"+params("channels", list+",more"))
	if code := refused.Header.Get("X-Ably-Errorcode"); code != strconv.Itoa(int(pubsub.CodeTooManyChannels)) {
		t.Errorf("%s %s", refused.Status, code)
	}
}
