package letshare_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestHealthHasItsKeys(t *testing.T) {
	t.Parallel()
	r := shared.request(t, "GET", "/health")
	m := parse(t, r.body)
	if r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "application/json") {
		t.Errorf("status %d, type %s", r.status, r.header.Get("Content-Type"))
	}
	if m["status"] != "healthy" {
		t.Errorf("status is %v", m["status"])
	}
	wantTime(t, m["timestamp"])
	wantUptime(t, m["uptime"])
	wantNumbers(t, m["memory"], "alloc_mb", "total_alloc_mb", "sys_mb", "num_gc")
	wantNumbers(t, m, "goroutines")
}

func wantTime(t *testing.T, v any) {
	t.Helper()
	text, _ := v.(string)
	if at, err := time.Parse(time.RFC3339, text); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("timestamp is %v (%v), want the present time as RFC 3339", v, err)
	}
}

func wantUptime(t *testing.T, v any) {
	t.Helper()
	text, _ := v.(string)
	if d, err := time.ParseDuration(text); err != nil || d < 0 || d > time.Hour || strings.Contains(text, ".") {
		t.Errorf("uptime is %v (%v), want one like 1h2m3s", v, err)
	}
}

func wantNumbers(t *testing.T, v any, names ...string) {
	t.Helper()
	m, is := v.(map[string]any)
	if !is {
		t.Errorf("%v is no object", v)
		return
	}
	for _, name := range names {
		if n, is := m[name].(json.Number); !is {
			t.Errorf("%s is %v, want a number", name, m[name])
		} else if f, err := n.Float64(); err != nil || f < 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
}

func TestSDKsCanAskWhetherThereIsANetwork(t *testing.T) {
	t.Parallel()
	r := shared.request(t, "GET", "/is-the-internet-up.txt")
	if r.status != 200 || r.header.Get("Content-Type") != "text/plain" || string(r.body) != "yes\n" {
		t.Errorf("status %d, type %s, body %q", r.status, r.header.Get("Content-Type"), r.body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+shared.addr+"/ws-up", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the WebSocket ends with %v", err)
	}
}

func TestMetricsHasItsKeys(t *testing.T) {
	t.Parallel()
	r := shared.request(t, "GET", "/metrics")
	m := parse(t, r.body)
	if r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "application/json") {
		t.Errorf("status %d, type %s", r.status, r.header.Get("Content-Type"))
	}
	server, _ := m["server"].(map[string]any)
	wantTime(t, server["timestamp"])
	wantUptime(t, server["uptime"])
	wantNumbers(t, m["server"], "uptime_seconds")
	wantNumbers(t, m["websocket"], "total_connections", "active_connections", "total_messages", "total_rooms", "messages_per_second")
	system, _ := m["system"].(map[string]any)
	wantNumbers(t, system["memory"], "alloc_mb", "total_alloc_mb", "sys_mb", "heap_alloc_mb", "heap_sys_mb", "num_gc")
	wantNumbers(t, m["system"], "goroutines", "cpu_count")
	if system["cpu_count"] != json.Number(fmt.Sprint(runtime.NumCPU())) || system["go_version"] != runtime.Version() {
		t.Errorf("cpu_count %v, go_version %v", system["cpu_count"], system["go_version"])
	}
}

func TestHeadWorks(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/health", "/metrics", "/health/live", "/health/ready", "/"} {
		if r := shared.request(t, "HEAD", path); r.status != 200 || r.body != "" || r.header.Get("Content-Type") == "" {
			t.Errorf("HEAD %s: %d %q %v", path, r.status, r.body, r.header)
		}
	}
}

func TestTheCountersOfMetricsAreTrue(t *testing.T) {
	t.Parallel()
	s := start(t, settings{})
	right := func(total, active, rooms, messages float64) bool {
		m := s.metrics(t)
		return m["total_connections"] == total && m["active_connections"] == active && m["total_rooms"] == rooms && m["total_messages"] == messages
	}
	check := func(what string, total, active, rooms, messages float64) {
		t.Helper()
		eventually(t, patience, "the counters are right: "+what, func() bool { return right(total, active, rooms, messages) })
	}
	checkAtOnce := func(what string, total, active, rooms, messages float64) {
		t.Helper()
		if !right(total, active, rooms, messages) {
			t.Errorf("the counters are not right at once: %s: %v", what, s.metrics(t))
		}
	}
	check("at first", 0, 0, 0, 0)
	one := s.connect(t, "anna")
	check("a connection", 1, 1, 0, 0)
	one.subscribe("room")
	one.subscribe("room", "signal:x")
	one.subscribe("other")
	check("two rooms", 1, 1, 2, 0)
	two := s.connect(t, "bert")
	two.subscribe("room")
	two.publish("room", `{"from":1}`)
	one.expect("room", "signal:all", `{"from":1}`)
	check("a message", 2, 2, 2, 1)
	for _, bad := range []string{`{"type":"publish","channel":"room","data":5}`, `nonsense`, `{"type":"publish","channel":"elsewhere","data":{}}`} {
		two.send(bad)
		two.expectError()
	}
	s.request(t, "GET", "/ws?token=x", handshake...)
	check("what was refused is not counted", 2, 2, 2, 1)
	one.leave("other")
	check("a room less", 2, 2, 1, 1)
	one.close()
	checkAtOnce("a peer has left", 2, 1, 1, 1)
	two.close()
	checkAtOnce("all have left", 2, 0, 0, 1)
	p := s.raw(t, "carl")
	p.subscribe("room")
	check("one more", 3, 1, 1, 1)
	p.reset()
	check("a reset", 3, 0, 0, 1)
}

func TestCORS(t *testing.T) {
	t.Parallel()
	own := "http://" + shared.addr
	good := "/ws?token=" + tokenFor("anna")
	for _, path := range []string{"/health", "/metrics", good} {
		for _, test := range []struct {
			origin  string
			allowed bool
		}{
			{"", true},
			{"http://localhost:3000", true},
			{"http://localhost:5173", true},
			{"https://letshare.fun", true},
			{own, true},
			{"null", false},
			{"http://localhost:3000/", false},
			{own + "/", false},
			{"https://letshare.fun/", false},
			{"http://letshare.fun", false},
			{"https://LETSHARE.FUN", false},
			{"https://letshare.fun.evil.example", false},
			{"https://evil.example", false},
			{"https://sub.letshare.fun", false},
			{"http://localhost:3001", false},
			{"http://localhost", false},
			{"https://localhost:3000", false},
			{"letshare.fun", false},
			{"*", false},
			{"file://", false},
			{"https://letshare.fun, https://evil.example", false},
			{"https://letshare.fun@evil.example", false},
		} {
			headers := []string{}
			if test.origin != "" {
				headers = append(headers, "Origin", test.origin)
			}
			r := shared.request(t, "GET", path, headers...)
			want := map[bool]int{true: 200, false: 403}[test.allowed]
			if strings.HasPrefix(path, "/ws") && test.allowed {
				want = 400 // no upgrade
			}
			if r.status != want {
				t.Errorf("%.8s from %q: status %d, want %d", path, test.origin, r.status, want)
			}
			h := r.header
			switch {
			case !test.allowed:
				if r.body != "" || h.Get("Access-Control-Allow-Origin") != "" || h.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("%.8s from %q: body %q, headers %v", path, test.origin, r.body, h)
				}
			case test.origin == "":
				if h.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%.8s without Origin: headers %v", path, h)
				}
			default:
				if h.Get("Access-Control-Allow-Origin") != test.origin || h.Get("Access-Control-Allow-Credentials") != "true" ||
					!strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
					t.Errorf("%.8s from %q: headers %v", path, test.origin, h)
				}
			}
			// The same for the upgrade and for a preflight.
			if strings.HasPrefix(path, "/ws") {
				_, answer := shared.rawRequest(t, path, headers...)
				if want := map[bool]int{true: 101, false: 403}[test.allowed]; answer.StatusCode != want {
					t.Errorf("the upgrade from %q: status %d, want %d", test.origin, answer.StatusCode, want)
				}
			}
			r = shared.request(t, "OPTIONS", path, append(headers, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "content-type")...)
			if want := map[bool]int{true: 204, false: 403}[test.allowed]; r.status != want || r.body != "" {
				t.Errorf("preflight of %.8s from %q: %d %q, want %d", path, test.origin, r.status, r.body, want)
			}
			if test.allowed && test.origin != "" {
				h := r.header
				if h.Get("Access-Control-Allow-Origin") != test.origin || h.Get("Access-Control-Allow-Credentials") != "true" ||
					!strings.Contains(h.Get("Access-Control-Allow-Methods"), "GET") || !strings.Contains(strings.ToLower(h.Get("Access-Control-Allow-Headers")), "content-type") {
					t.Errorf("preflight of %.8s from %q: headers %v", path, test.origin, h)
				}
			}
		}
	}
}

func TestRefusalsOfAnAllowedOriginCanBeReadByItsPage(t *testing.T) {
	t.Parallel()
	r := shared.request(t, "GET", "/ws?token=x", "Origin", "http://localhost:5173")
	if r.status != 401 || r.header.Get("Access-Control-Allow-Origin") != "http://localhost:5173" {
		t.Errorf("status %d, headers %v", r.status, r.header)
	}
}

func TestMetricsSpeaksPrometheusWhenAsked(t *testing.T) {
	t.Parallel()
	for _, r := range []reply{
		shared.request(t, "GET", "/metrics?format=prometheus"),
		shared.request(t, "GET", "/metrics", "Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"),
	} {
		if r.status != 200 || !strings.Contains(r.body, "# TYPE letshare_connections gauge") {
			t.Errorf("status %d: %.200s", r.status, r.body)
		}
	}
	if r := shared.request(t, "GET", "/metrics", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8"); !strings.HasPrefix(r.body, "{") {
		t.Errorf("a browser gets %.100s", r.body)
	}
}
