package server

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
	"letshare-server/internal/outbox"
)

// patience bounds waiting for what must happen; nothing waits for it when all is well.
const patience = time.Minute

const testKey = "limits.key1:a-secret-of-the-tests-of-limits"

// running is a server whose clients have the address that it claims for them.
type running struct {
	*Server
	addr    string
	claimed atomic.Value // string; "" for their own
	config  config.Config
	stop    func() // at the end of the test, if not before
}

// claiming is a listener on whose connections peers have another address.
type claiming struct {
	net.Listener
	s *running
}

func (l claiming) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if claimed := l.s.claimed.Load().(string); err == nil && claimed != "" {
		conn = from{conn, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(claimed), 1))}
	}
	return conn, err
}

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// start runs a server with limits until the test ends.
func start(t *testing.T, change func(*config.Config)) *running {
	t.Helper()
	return startBuilt(t, change, New)
}

// startBuilt is start for a server that build makes.
func startBuilt(t *testing.T, change func(*config.Config), build func(config.Config, config.Secrets, *slog.Logger) (*Server, error)) *running {
	t.Helper()
	cfg := config.Default(config.Local)
	cfg.DataDir = t.TempDir()
	cfg.Server.Host, cfg.Server.Port, cfg.Server.ShutdownGrace = "127.0.0.1", "0", 0
	cfg.APIKeys = []config.Secret{testKey}
	if change != nil {
		change(&cfg)
	}
	secrets, err := config.ResolveSecrets(cfg, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey})
	if err != nil {
		t.Fatal(err)
	}
	s, err := build(cfg, secrets, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: s, addr: l.Addr().String(), config: cfg}
	r.claimed.Store("")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, claiming{l, r}) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// reload adopts changed settings.
func (s *running) reload(t *testing.T, change func(*config.Limits)) []string {
	t.Helper()
	c := s.config
	change(&c.Limits)
	needRestart, err := s.Reload(c, s.secrets)
	if err != nil {
		t.Fatal(err)
	}
	return needRestart
}

// ask sends a request on a socket of its own. key is user:password, or empty.
func (s *running) ask(t *testing.T, method, path, key, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if name, secret, ok := strings.Cut(key, ":"); ok {
		r.SetBasicAuth(name, secret)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	answer.Body = io.NopCloser(strings.NewReader(string(b)))
	return answer
}

// expect checks status and error code of an answer.
func expect(t *testing.T, answer *http.Response, status, code int) {
	t.Helper()
	var body struct {
		Error struct{ Code, StatusCode int }
	}
	text, _ := io.ReadAll(answer.Body)
	_ = json.Unmarshal(text, &body)
	if answer.StatusCode != status || body.Error.Code != code {
		t.Errorf("got %d %s, want %d with code %d", answer.StatusCode, text, status, code)
	}
	if code == 0 {
		return
	}
	if header := answer.Header.Get("X-Ably-Errorcode"); header != strconv.Itoa(code) || body.Error.StatusCode != status {
		t.Errorf("X-Ably-Errorcode is %q, the body says %s", header, text)
	}
	if retry := answer.Header.Get("Retry-After"); (status == 429) != (retry == "1") {
		t.Errorf("Retry-After is %q", retry)
	}
}

// exceeded is how often a limit was, as a scraper is told.
func (s *running) exceeded(t *testing.T, limit string) int {
	t.Helper()
	s.claimed.Store("")
	text, _ := io.ReadAll(s.ask(t, "GET", "/metrics?format=prometheus", "", "").Body)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, `letshare_limit_exceeded_total{limit="`+limit+`"} `); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no metric for %s", limit)
	return 0
}

// realtime connects an Ably client and returns what it is told first.
func (s *running) realtime(t *testing.T, params string) (*websocket.Conn, map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ws, _, err := websocket.Dial(ctx, "ws://"+s.addr+"/?v=6&"+params, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	ws.SetReadLimit(4 << 20)
	return ws, receive(t, ws)
}

func receive(t *testing.T, ws *websocket.Conn) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, b, err := ws.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var pm map[string]any
	if err := json.Unmarshal(b, &pm); err != nil {
		t.Fatal(err)
	}
	return pm
}

func send(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// errorCode is the code of the error in a ProtocolMessage, or 0.
func errorCode(pm map[string]any) int {
	e, _ := pm["error"].(map[string]any)
	n, _ := e["code"].(float64)
	return int(n)
}

const messages = "/channels/room/messages"

// aMinuteful checks that a rate of 1 per second with a burst of a minute allows as many as it
// should: try returns the status of one more request.
func aMinuteful(t *testing.T, what string, try func() int) {
	t.Helper()
	began, allowed := time.Now(), 0
	for try() != http.StatusTooManyRequests {
		if allowed++; allowed > 60+int(time.Since(began)/time.Second)+1 {
			t.Fatalf("%s: %d were allowed in %v", what, allowed, time.Since(began))
		}
	}
	if allowed < 60 {
		t.Errorf("%s: %d were allowed", what, allowed)
	}
}

func TestRequestsOfAnAppHaveARate(t *testing.T) {
	s := start(t, func(c *config.Config) {
		c.Sandbox.Enabled = true
		c.Limits.Burst = time.Minute
		c.Limits.AppRequestsPerSecond = 1
		c.Limits.AppTokenRequestsPerSecond = 1
	})
	const tokens = "/keys/limits.key1/requestToken"
	for _, r := range []struct{ method, path, body string }{
		{"GET", messages, ""}, {"POST", tokens, "{}"},
	} {
		aMinuteful(t, r.path, func() int {
			answer := s.ask(t, r.method, r.path, testKey, r.body)
			if answer.StatusCode == 429 {
				expect(t, answer, 429, 42918)
			}
			return answer.StatusCode
		})
	}
	expect(t, s.ask(t, "GET", "/time", "", ""), 200, 0)
	if a, b := s.exceeded(t, "app_requests_per_second"), s.exceeded(t, "app_token_requests_per_second"); a != 1 || b != 1 {
		t.Errorf("counted %d and %d", a, b)
	}
	var app struct {
		Keys []struct{ KeyStr string }
	}
	if err := json.NewDecoder(s.ask(t, "POST", "/apps", "", `{"keys":[{}]}`).Body).Decode(&app); err != nil || len(app.Keys) != 1 {
		t.Fatal(err)
	}
	for range 100 {
		expect(t, s.ask(t, "GET", messages, app.Keys[0].KeyStr, ""), 200, 0) // made for tests
	}
}

func TestNewConnectionsOfAnAppHaveARate(t *testing.T) {
	s := start(t, func(c *config.Config) {
		c.Limits.Burst = time.Minute
		c.Limits.AppConnectionsPerSecond = 1
	})
	aMinuteful(t, "an app", func() int {
		_, pm := s.realtime(t, "key="+testKey)
		switch code := errorCode(pm); {
		case pm["action"] == 4.0 && code == 0:
			return 200
		case pm["action"] == 6.0 && code == 80021: // SDKs try again
			return 429
		}
		t.Fatalf("got %v", pm)
		return 0
	})
	if n := s.exceeded(t, "app_connections_per_second"); n != 1 {
		t.Errorf("counted %d", n)
	}
}

func TestPublishesOverRESTKeepTheLimits(t *testing.T) {
	s := start(t, func(c *config.Config) {
		c.Limits.Burst = time.Minute
		c.Limits.ChannelMessagesPerSecond = 1
		c.Limits.MaxMessageBytes = 1000
		c.Limits.MaxBodyBytes = 200_000
	})
	publish := func(channel, body string) *http.Response {
		return s.ask(t, "POST", "/channels/"+channel+"/messages", testKey, body)
	}
	text := func(n int) string { return `{"data":"` + strings.Repeat("x", n) + `"}` }
	many := func(n int) string { return "[" + strings.Repeat(`{"data":"x"},`, n-1) + `{"data":"x"}]` }
	expect(t, publish("size", text(1000)), 201, 0)
	expect(t, publish("size", text(1001)), 413, 40009)
	expect(t, publish("number", many(1000)), 201, 0)
	expect(t, publish("number", many(1001)), 400, 40034)
	expect(t, publish("body", text(200_000-len(text(0))+1)), 413, 40009)
	aMinuteful(t, "a channel", func() int {
		answer := publish("rate", many(1))
		if answer.StatusCode == 429 {
			expect(t, answer, 429, 42913)
		}
		return answer.StatusCode
	})
	expect(t, publish(strings.Repeat("n", 2048), text(1)), 201, 0)
	expect(t, publish(strings.Repeat("n", 2049), text(1)), 400, 40010)
	for path, status := range map[string]int{"?limit=1000": 200, "?limit=1001": 400, "?limit=0": 400, "/a/b?limit=1001": 404} {
		if got := s.ask(t, "GET", messages+path, testKey, ""); got.StatusCode != status {
			t.Errorf("%s: got %d, want %d", path, got.StatusCode, status)
		}
	}
	for name, want := range map[string]int{"max_message_bytes": 1, "max_body_bytes": 1, "messages_per_publish": 1, "channel_messages_per_second": 1} {
		if got := s.exceeded(t, name); got != want {
			t.Errorf("%s was exceeded %d times, want %d", name, got, want)
		}
	}
}

func TestWrongCredentialsShutTheDoorsForTheirAddress(t *testing.T) {
	s := start(t, func(c *config.Config) {
		c.Server.TrustedProxies = []string{"127.0.0.1"}
		c.Limits.Burst = time.Minute
		c.Limits.AddressFailuresPerSecond = 1
	})
	from := func(addr, method, path, key string, headers ...string) *http.Response {
		return s.ask(t, method, path, key, "", append(headers, "X-Forwarded-For", addr)...)
	}
	const wrong = "limits.key1:a-secret-that-is-wrong"
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	began := time.Now()
	s.claimed.Store("203.0.113.1") // all doors count
	for range 20 {
		if _, pm := s.realtime(t, "key="+wrong); errorCode(pm) != 40101 {
			t.Errorf("got %v", pm)
		}
	}
	s.claimed.Store("")
	for range 20 {
		if got := from("203.0.113.1", "GET", "/ws?token=nonsense", "", upgrade...); got.StatusCode != 401 {
			t.Errorf("got %d", got.StatusCode)
		}
	}
	failed := 40
	for shut := false; !shut; {
		answer := from("203.0.113.1", "GET", messages, wrong)
		if shut = answer.StatusCode == 429; !shut {
			expect(t, answer, 401, 40101)
			if failed++; failed > 60+int(time.Since(began)/time.Second)+2 {
				t.Fatalf("the doors are open after %d failures", failed)
			}
		}
	}
	if failed < 60 {
		t.Errorf("the doors are shut after %d failures", failed)
	}
	set := func(l *config.Limits) { l.Burst, l.AddressFailuresPerSecond = time.Second, 1 }
	s.reload(t, set) // a minute's failures take a minute to forget, whatever comes
	for _, path := range []string{messages, "/time", "/keys/limits.key1/requestToken"} {
		expect(t, from("203.0.113.1", "GET", path, testKey), 429, 42922)
	}
	for _, path := range []string{"/?key=" + testKey, "/ws?token=any"} {
		expect(t, from("203.0.113.1", "GET", path, "", upgrade...), 429, 42922)
	}
	if got := from("203.0.113.1", "GET", "/health", ""); got.StatusCode != 200 {
		t.Errorf("health: got %d", got.StatusCode)
	}
	expect(t, from("203.0.113.2", "GET", messages, testKey), 200, 0)
	for range 100 {
		expect(t, s.ask(t, "GET", messages, wrong, ""), 401, 40101) // from this machine
	}
	if n := s.exceeded(t, "address_failures_per_second"); n != 6 {
		t.Errorf("counted %d", n)
	}
}

func TestSocketsOfStrangersAreBoundedByAddress(t *testing.T) {
	s := start(t, func(c *config.Config) { c.Limits.AddressSockets = 2 })
	s.claimed.Store("203.0.113.1")
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		return conn
	}
	// answers reports whether the server answers a request on a socket.
	answers := func(conn net.Conn, header string) bool {
		t.Helper()
		_, _ = conn.Write([]byte("GET " + messages + " HTTP/1.1\r\nHost: x\r\n" + header + "\r\n"))
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Fatal(err)
		}
		return n > 0
	}
	one, two := dial(), dial()
	if !answers(one, "") || !answers(two, "") { // with 401, and they stay open
		t.Fatal("two of two are not served")
	}
	if answers(dial(), "") {
		t.Error("a third was served")
	}
	if !answers(one, "Authorization: Basic "+basic(testKey)+"\r\n") {
		t.Fatal("a good request was not served")
	}
	three := dial()
	if !answers(three, "") {
		t.Error("who has authenticated is counted still")
	}
	if answers(dial(), "") {
		t.Error("one too many was served")
	}
	_ = two.Close()
	deadline := time.Now().Add(patience)
	for served := false; !served; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a closed socket is counted still")
		}
		conn := dial()
		if served = answers(conn, ""); !served {
			_ = conn.Close()
		}
	}
	if n := s.exceeded(t, "address_sockets"); n < 2 {
		t.Errorf("counted %d", n)
	}
}

func basic(key string) string {
	r := &http.Request{Header: make(http.Header)}
	name, secret, _ := strings.Cut(key, ":")
	r.SetBasicAuth(name, secret)
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")
}

func TestWithoutFilesLeftUpgradesAreRefused(t *testing.T) {
	s := startBuilt(t, nil, func(c config.Config, secrets config.Secrets, log *slog.Logger) (*Server, error) {
		s, err := New(c, secrets, log)
		if err == nil {
			s.maxSockets = 1
		}
		return s, err
	})
	s.realtime(t, "key="+testKey)
	_, answer, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/?key="+testKey, nil)
	if err == nil || answer == nil || answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" {
		t.Fatalf("got %v, %v", answer, err)
	}
	expect(t, s.ask(t, "GET", messages, testKey, ""), 200, 0)
	if n := s.exceeded(t, "open_files"); n != 1 {
		t.Errorf("counted %d", n)
	}
}

func TestLimitsChangeWhileConnectionsGoOn(t *testing.T) {
	s := start(t, func(c *config.Config) { c.Limits.Burst = time.Minute })
	ws, connected := s.realtime(t, "key="+testKey)
	details, _ := connected["connectionDetails"].(map[string]any)
	if details["maxInboundRate"] != 20000.0 || details["maxMessageSize"] != 65536.0 || details["maxFrameSize"] != 524288.0 {
		t.Errorf("told %v", details)
	}
	serial := 0
	publish := func(size, count int) int {
		t.Helper()
		items := strings.Repeat(`{"data":"`+strings.Repeat("x", size)+`"},`, count)
		send(t, ws, `{"action":15,"channel":"room","msgSerial":`+strconv.Itoa(serial)+`,"messages":[`+strings.TrimSuffix(items, ",")+`]}`)
		pm := receive(t, ws)
		if pm["msgSerial"] != float64(serial) {
			t.Fatalf("got %v", pm)
		}
		serial++
		return errorCode(pm)
	}
	if code := publish(1, 1000); code != 0 {
		t.Fatal(code)
	}
	need := s.reload(t, func(l *config.Limits) { l.MaxMessageBytes, l.MaxFrameBytes = 600<<10, 700<<10 })
	if len(need) != 1 || need[0] != "limits.max_frame_bytes" {
		t.Errorf("need a restart: %v", need)
	}
	if code := publish(100_000, 1); code != 0 {
		t.Errorf("a larger message: %d", code)
	}
	s.reload(t, func(l *config.Limits) {
		l.ConnectionMessagesPerSecond, l.MaxMessageBytes, l.MaxFrameBytes = 1, 600<<10, 700<<10
	})
	aMinuteful(t, "a connection", func() int { return publish(1, 1) / 100 })
	_, connected = s.realtime(t, "key="+testKey)
	details, _ = connected["connectionDetails"].(map[string]any)
	if details["maxInboundRate"] != 1.0 || details["maxMessageSize"] != 524288.0 || details["maxFrameSize"] != 524288.0 {
		t.Errorf("told %v", details)
	}
	s.reload(t, func(*config.Limits) {})
	if code := publish(1, 1000); code != 0 {
		t.Errorf("without the limit: %d", code)
	}
	if code := publish(100_000, 1); code != 40009 {
		t.Errorf("with the old size: %d", code)
	}
	if n := s.exceeded(t, "connection_messages_per_second"); n != 1 {
		t.Errorf("counted %d", n)
	}
}

func TestAFrameThatIsTooLargeIsCounted(t *testing.T) {
	s := start(t, func(c *config.Config) { c.Limits.MaxMessageBytes, c.Limits.MaxFrameBytes = 1000, 2000 })
	ws, _ := s.realtime(t, "key="+testKey)
	send(t, ws, `{"action":0,"id":"`+strings.Repeat("x", 2000-len(`{"action":0,"id":""}`))+`"}`)
	if pm := receive(t, ws); pm["id"] == nil {
		t.Errorf("a frame of exactly the limit: got %v", pm)
	}
	send(t, ws, strings.Repeat(" ", 2001))
	if pm := receive(t, ws); pm["action"] != 6.0 || errorCode(pm) != 40009 {
		t.Errorf("got %v", pm)
	}
	if n := s.exceeded(t, "max_frame_bytes"); n != 1 {
		t.Errorf("counted %d", n)
	}
}

func TestSlowReceiversAreCountedByTheirLimit(t *testing.T) {
	s := start(t, func(c *config.Config) {
		c.Limits.MaxFrameBytes = 64 << 10
		c.Limits.OutboxBytes = 64 << 10
	})
	slow, _ := s.realtime(t, "key="+testKey)
	send(t, slow, `{"action":10,"channel":"room"}`)
	receive(t, slow)
	deadline := time.Now().Add(patience)
	for s.exceeded(t, "outbox_bytes") == 0 { // it reads no more
		if time.Now().After(deadline) {
			t.Fatal("not counted")
		}
		for range 50 {
			expect(t, s.ask(t, "POST", messages, testKey, `{"data":"`+strings.Repeat("x", 60_000)+`"}`), 201, 0)
		}
	}
}

func TestEveryWayToBeSlowHasItsLimit(t *testing.T) {
	for reason, want := range map[outbox.Reason]string{
		outbox.TooMuch: "outbox_bytes", outbox.TooLong: "outbox_age", outbox.OverBudget: "outbox_total_bytes",
	} {
		if got := slowLimits[reason].String(); got != want {
			t.Errorf("%v is counted as %s", reason, got)
		}
	}
}
