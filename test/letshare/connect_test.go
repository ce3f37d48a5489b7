package letshare_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// instanceName publishes without a sender and returns the one that the server put in.
func instanceName(t *testing.T, c *client) string {
	t.Helper()
	room := newRoom()
	witness := shared.connect(t, "witness")
	witness.subscribe(room)
	c.subscribe(room)
	c.publish(room, `{}`)
	var data struct{ From string }
	if err := json.Unmarshal([]byte(rawData(t, witness.frame().text)), &data); err != nil {
		t.Fatal(err)
	}
	return data.From
}

func TestAConnectionNeedsATokenAndNothingElse(t *testing.T) {
	t.Parallel()
	c := shared.dial(t, "/ws?token="+tokenFor("anna"))
	c.works()
	if name := instanceName(t, c); name != "anna" {
		t.Errorf("without userId the instance is %q, want the token's user", name)
	}
}

func TestTheDefaultURLWithoutAPathLeadsToTheDoor(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"/?token=" + tokenFor("anna") + "&userId=anna:1b2c3d",
		"/?userId=anna:1b2c3d&pro_token=abc&token=" + tokenFor("anna"),
		"/ws?token=" + tokenFor("anna") + "&userId=anna:1b2c3d",
	} {
		if name := instanceName(t, shared.dial(t, target)); name != "anna:1b2c3d" {
			t.Errorf("%.20s…: the instance is %q", target, name)
		}
	}
}

func TestAnUpgradeOnTheRootWithParametersOfAblyIsNotForThisDoor(t *testing.T) {
	t.Parallel()
	for _, params := range []string{
		"key=" + url.QueryEscape(ablyKey) + "&token=" + tokenFor("anna"),
		"access_token=none&token=" + tokenFor("anna"),
		"v=6&token=" + tokenFor("anna"),
		"v=6",
	} {
		a := shared.dialAbly(t, "/?format=json&"+params)
		m, ok := <-a.frames
		if !ok || m["action"] == nil {
			t.Errorf("%.20s…: got %v (%v), want a frame of Ably's protocol", params, m, a.end)
		}
	}
}

func TestARootUpgradeWithABadTokenIsRefusedByThisDoor(t *testing.T) {
	t.Parallel()
	for target, text := range map[string]string{"/?token=": "缺少认证token", "/?token=x&userId=a": "token验证失败: "} {
		r := shared.request(t, "GET", target, handshake...)
		if r.status != http.StatusUnauthorized || !strings.Contains(r.body, text) {
			t.Errorf("%s: %d %s", target, r.status, r.body)
		}
	}
}

func TestTheUserIDMayHoldAnythingUnescaped(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ sent, name string }{
		{"王小明:x7k2p9", "王小明:x7k2p9"},
		{"Zoë🦊:a1b2c3", "Zoë🦊:a1b2c3"},
		{"50%:a1b2c3", "50%:a1b2c3"},
		{"100%done:a1b2c3", "100%done:a1b2c3"},
		{"a;b:a1b2c3", "a;b:a1b2c3"},
		{"a/b?c@d:a1b2c3", "a/b?c@d:a1b2c3"},
		{"a'b\"c<d>:a1b2c3", "a'b\"c<d>:a1b2c3"},
		{"%E7%8E%8B%3Ax7k2p9", "王:x7k2p9"},
		{"two%20words%3Aabcdef", "two words:abcdef"},
		{"a=b:a1b2c3", "a=b:a1b2c3"},
	} {
		p := shared.rawTarget(t, "/ws?token="+tokenFor("u")+"&userId="+test.sent)
		room := newRoom()
		witness := shared.connect(t, "witness")
		witness.subscribe(room, "signal:"+test.name)
		p.subscribe(room)
		p.send(opText, `{"type":"publish","channel":`+q(room)+`,"event":`+q("signal:"+test.name)+`,"data":{}}`)
		data := parse(t, rawData(t, witness.frame().text))
		if data["from"] != test.name {
			t.Errorf("userId=%s: from is %q", test.sent, data["from"])
		}
	}
}

func TestUnknownParametersAreIgnored(t *testing.T) {
	t.Parallel()
	for _, params := range []string{"&pro_token=eyJ.abc.def", "&a=1&b[]=2&c", "&userType=mobile&pro_token=%zz&x=;"} {
		c := shared.dial(t, "/ws?token="+tokenFor("anna")+"&userId=i1"+params)
		if name := instanceName(t, c); name != "i1" {
			t.Errorf("%s: the instance is %q", params, name)
		}
	}
}

func TestNoSubprotocolAndNoExtensionIsChosen(t *testing.T) {
	t.Parallel()
	_, answer := shared.rawRequest(t, "/ws?token="+tokenFor("anna"),
		"Sec-WebSocket-Protocol", "chat, letshare", "Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
	if answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("the upgrade is answered with %s %v", answer.Status, answer.Header)
	}
	for _, name := range []string{"Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
		if v := answer.Header.Get(name); v != "" {
			t.Errorf("%s: %s", name, v)
		}
	}
}

func TestOriginIsCheckedBeforeTokenBeforeUpgrade(t *testing.T) {
	t.Parallel()
	good := "/ws?token=" + tokenFor("anna")
	for _, test := range []struct {
		name, target string
		headers      []string
		status       int
	}{
		{"bad origin, no token, no upgrade", "/ws", []string{"Origin", "https://evil.example"}, 403},
		{"bad origin, no token", "/ws", append([]string{"Origin", "https://evil.example"}, handshake...), 403},
		{"bad origin, bad token", "/ws?token=x", append([]string{"Origin", "https://evil.example"}, handshake...), 403},
		{"bad origin, good token", good, append([]string{"Origin", "https://evil.example"}, handshake...), 403},
		{"bad origin on the root", good[3:], append([]string{"Origin", "https://evil.example"}, handshake...), 403},
		{"null origin", good, append([]string{"Origin", "null"}, handshake...), 403},
		{"origin with a slash", good, append([]string{"Origin", "http://localhost:3000/"}, handshake...), 403},
		{"good origin, no token, no upgrade", "/ws", []string{"Origin", "http://localhost:3000"}, 401},
		{"good origin, bad token", "/ws?token=x", append([]string{"Origin", "http://localhost:3000"}, handshake...), 401},
		{"no token, no upgrade", "/ws", nil, 401},
		{"bad token, no upgrade", "/ws?token=x", nil, 401},
		{"bad token, upgrade", "/ws?token=x", handshake, 401},
		{"good token, no upgrade", good, nil, 400},
		{"good origin and token, no upgrade", good, []string{"Origin", "http://localhost:3000"}, 400},
		{"no key", good, handshake[:6], 400},
		{"an impossible key", good, append(handshake[:6:6], "Sec-WebSocket-Key", "short"), 400},
		{"another version", good, []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}, 400},
		{"no Connection", good, handshake[2:], 400},
	} {
		target := test.target
		if strings.HasPrefix(target, "?") {
			target = "/" + target
		}
		r := shared.request(t, "GET", target, test.headers...)
		if r.status != test.status {
			t.Errorf("%s: status %d, want %d (%.80s)", test.name, r.status, test.status, r.body)
		}
		switch r.status {
		case 403:
			if r.body != "" {
				t.Errorf("%s: a body with 403: %q", test.name, r.body)
			}
			if r.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: the origin is allowed by a header", test.name)
			}
		case 401:
			m := parse(t, r.body)
			if text, _ := m["error"].(string); keys(m) != "error" || text == "" || !strings.HasPrefix(r.header.Get("Content-Type"), "application/json") {
				t.Errorf("%s: body %q of type %q", test.name, r.body, r.header.Get("Content-Type"))
			}
		}
	}
}

func TestAMissingTokenIsCalledMissing(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/ws", "/ws?token=", "/ws?userId=a", "/ws?Token=" + tokenFor("a"), "/?token="} {
		r := shared.request(t, "GET", target, handshake...)
		if want := `{"error":"缺少认证token"}`; r.status != 401 || strings.TrimSpace(r.body) != want {
			t.Errorf("%s: %d %s, want 401 %s", target, r.status, r.body, want)
		}
	}
}

// badTokens are tokens that must be refused, by what is wrong with them.
func badTokens() map[string]string {
	c := userClaims("anna")
	good := token(c)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	other, _, _ := strings.Cut(strings.TrimPrefix(token(c.with("user_id", "root")), header+"."), ".")
	flipped := []byte(signature)
	flipped[5] ^= 1
	bad := map[string]string{
		"garbage":                  "garbage",
		"two dots":                 "..",
		"two parts":                header + "." + payload,
		"four parts":               good + ".x",
		"no signature":             header + "." + payload + ".",
		"payload of another":       header + "." + other + "." + signature,
		"signature changed":        header + "." + payload + "." + string(flipped),
		"signature cut":            good[:len(good)-2],
		"another secret":           sign("HS256", "another secret", c),
		"empty secret":             sign("HS256", "", c),
		"published secret":         sign("HS256", "letshare-jwt-secret-key-2024", c),
		"published local secret":   sign("HS256", "letshare-jwt-secret-key-2024-local", c),
		"alg none":                 sign("none", jwtSecret, c),
		"alg None":                 sign("None", jwtSecret, c),
		"alg none, no signature":   strings.TrimRight(sign("none", jwtSecret, c), "-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
		"alg hs256":                sign("hs256", jwtSecret, c),
		"alg empty":                sign("", jwtSecret, c),
		"alg HS384":                sign("HS384", jwtSecret, c),
		"alg HS512":                sign("HS512", jwtSecret, c),
		"alg RS256":                sign("RS256", jwtSecret, c),
		"alg ES256":                sign("ES256", jwtSecret, c),
		"alg PS256":                sign("PS256", jwtSecret, c),
		"alg EdDSA":                sign("EdDSA", jwtSecret, c),
		"expired":                  token(c.with("exp", time.Now().Add(-time.Minute).Unix())),
		"expired just now":         token(c.with("exp", time.Now().Add(-time.Second).Unix())),
		"expires at 0":             token(c.with("exp", 0)),
		"expires before 1970":      token(c.with("exp", -1)),
		"no exp":                   token(c.without("exp")),
		"exp is null":              token(c.with("exp", nil)),
		"exp is text":              token(c.with("exp", "9999999999")),
		"exp is a list":            token(c.with("exp", []int{9999999999})),
		"exp is true":              token(c.with("exp", true)),
		"no user_id":               token(c.without("user_id")),
		"user_id is empty":         token(c.with("user_id", "")),
		"user_id is null":          token(c.with("user_id", nil)),
		"user_id is a number":      token(c.with("user_id", 7)),
		"user_id is a list":        token(c.with("user_id", []string{"a"})),
		"user_id is an object":     token(c.with("user_id", map[string]string{"a": "b"})),
		"user_type is a number":    token(c.with("user_type", 7)),
		"room_id is a number":      token(c.with("room_id", 7)),
		"room_id is an object":     token(c.with("room_id", map[string]string{})),
		"iat is text":              token(c.with("iat", "now")),
		"claims are a list":        sign("HS256", jwtSecret, []string{"a"}),
		"claims are text":          sign("HS256", jwtSecret, "a"),
		"claims are null":          sign("HS256", jwtSecret, nil),
		"signed header is no JSON": "e30x." + payload + "." + signature,
	}
	return bad
}

func TestEveryBadTokenIsRefusedWithACause(t *testing.T) {
	t.Parallel()
	for name, bad := range badTokens() {
		r := shared.request(t, "GET", "/ws?token="+bad, handshake...)
		if r.status != 401 {
			t.Errorf("%s: status %d %.60s", name, r.status, r.body)
			continue
		}
		text, _ := parse(t, r.body)["error"].(string)
		if cause, ok := strings.CutPrefix(text, "token验证失败: "); !ok || cause == "" {
			t.Errorf("%s: refused with %q", name, text)
		}
	}
}

func TestEveryGoodTokenIsAccepted(t *testing.T) {
	t.Parallel()
	c := userClaims("anna")
	for name, good := range map[string]claims{
		"all claims":          c,
		"nothing to spare":    {"user_id": "anna", "exp": time.Now().Add(time.Minute).Unix()},
		"room_id is null":     c.with("room_id", nil),
		"more claims":         c.with("pro", true).with("sub", "x").with("aud", []string{"a"}),
		"exp with a fraction": c.with("exp", float64(time.Now().UnixMilli()+3_600_500)/1000),
		"Unicode":             c.with("user_id", "王小明:x7k2p9"),
		"30 days":             c.with("exp", time.Now().AddDate(0, 0, 30).Unix()),
	} {
		if _, answer, err := shared.tryDial(t, "/ws?token="+token(good)); err != nil {
			t.Errorf("%s: %v (%v)", name, err, answer)
		}
	}
}

func TestNoTokenReachesALog(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_LOG_LEVEL=debug"}})
	secrets := []string{tokenFor("anna"), "pro-secret-0123456789"}
	s.dial(t, "/ws?token="+secrets[0]+"&pro_token="+secrets[1]).works()
	for name, bad := range badTokens() {
		if strings.Contains(name, "garbage") || len(bad) < 20 {
			continue
		}
		secrets = append(secrets, bad)
		s.request(t, "GET", "/ws?token="+bad, handshake...)
		s.request(t, "GET", "/ws?token="+bad, "Origin", "https://evil.example")
		s.request(t, "GET", "/?token="+bad)
		s.request(t, "GET", "/nowhere?token="+bad)
	}
	// A request that HTTP itself refuses.
	conn := s.dialTCP(t)
	_, _ = conn.Write([]byte("GET /ws?token=" + secrets[0] + " HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n"))
	_, _ = conn.Read(make([]byte, 1024))
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if s.errorLog() == "" {
		t.Error("errors.log is empty after refused connections")
	}
	for _, log := range []string{s.output(), s.errorLog()} {
		for _, secret := range secrets {
			_, rest, _ := strings.Cut(secret, ".")
			if strings.Contains(log, secret) || rest != "" && strings.Contains(log, rest) {
				t.Errorf("a log holds the token %.30s…", secret)
			}
		}
	}
}

func TestATokenForARoomIsGoodForThatRoomOnly(t *testing.T) {
	t.Parallel()
	room := newRoom()
	c := shared.dial(t, "/ws?token="+token(userClaims("anna").with("room_id", room)))
	elsewhere := newRoom()
	c.send(`{"type":"subscribe","channel":` + q(elsewhere) + `}`)
	if code, message := c.expectError(); code != "403" || !hasChinese(message) {
		t.Errorf("subscribing elsewhere is refused with %s %q", code, message)
	}
	c.refused(`{"type":"publish","channel":`+q(elsewhere)+`,"data":{}}`, "客户端未订阅房间: "+elsewhere)
	c.subscribe(room)
	other := shared.connect(t, "bert")
	other.subscribe(room)
	c.publish(room, `{"from":"a"}`)
	other.expect(room, "signal:all", `{"from":"a"}`)
}

func TestATokenForARoomIsGoodEverywhereWhenThatIsConfigured(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_JWT_ENFORCE_ROOM=false"}})
	c := s.dial(t, "/ws?token="+token(userClaims("anna").with("room_id", "myroom")))
	c.subscribe("elsewhere")
	c.subscribe("myroom")
}

func hasChinese(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r >= 0x4e00 && r <= 0x9fa5 })
}
