package metrics

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"letshare-server/internal/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheRateIsAveragedOverTheLatestSeconds(t *testing.T) {
	var r rate
	for _, test := range []struct {
		counter int64
		want    float64
	}{
		{0, 0}, // one reading is no rate
		{10, 10}, {10, 5}, {40, 40.0 / 3}, {40, 10}, {40, 8}, {40, 40.0 / 6}, {40, 40.0 / 7}, {40, 5}, {40, 40.0 / 9}, {40, 4},
		{40, 3}, // the readings of 0 and then of 10 are too old
		{40, 3}, {40, 0}, {140, 10},
	} {
		r.sample(test.counter)
		if got := r.perSecond(); got != test.want {
			t.Errorf("after a reading of %d: %v, want %v", test.counter, got, test.want)
		}
	}
}

func TestRunTakesAReadingEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		for range 5 {
			synctest.Wait()
			m.Published(30)
			time.Sleep(time.Second) // of the test's clock
		}
		synctest.Wait()
		if got := m.report().WebSocket.MessagesPerSecond; got != 30 {
			t.Errorf("%v messages per second, want 30", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := m.report().WebSocket.MessagesPerSecond; got != 0 {
			t.Errorf("%v messages per second after a minute of silence", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// busy has counted something of everything.
func busy() *Metrics {
	m := New()
	m.ConnectionOpened(LetShare)
	m.ConnectionOpened(LetShare)
	m.ConnectionClosed(LetShare)
	m.SessionOpened()
	m.SessionOpened()
	m.SessionClosed()
	m.StreamOpened()
	m.StreamOpened()
	m.StreamOpened()
	m.StreamClosed()
	m.Published(3)
	m.Delivered(7)
	m.ChannelOpened()
	m.ChannelOpened()
	m.ChannelClosed()
	m.CometOpened()
	m.CometOpened()
	m.CometClosed()
	m.SlowConsumerClosed()
	m.LimitExceeded(limit.MessageBytes)
	m.Refused("token")
	m.Refused("token")
	m.SessionRefused(40101)
	m.Watch(func() Held {
		return Held{Sessions: 1, OutboxBytes: 2, LogBytes: 3, IDBytes: 4, Evicted: 5, Storage: &Storage{6, 7, 8}}
	})
	m.Committed(3, 3*time.Millisecond)
	m.Committed(5000, time.Minute)
	m.CommitFailed()
	m.StreamRefused(40160)
	return m
}

func TestTheJSONFormHasTheKeysThatAreDocumented(t *testing.T) {
	w := httptest.NewRecorder()
	busy().Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("type %s", got)
	}
	var all map[string]map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	for part, names := range map[string][]string{
		"server":    {"timestamp", "uptime", "uptime_seconds"},
		"websocket": {"total_connections", "active_connections", "total_messages", "total_rooms", "messages_per_second"},
		"system":    {"memory", "goroutines", "cpu_count", "go_version"},
	} {
		for _, name := range names {
			if _, has := all[part][name]; !has {
				t.Errorf("%s has no %s: %v", part, name, all[part])
			}
		}
	}
	memory, _ := all["system"]["memory"].(map[string]any)
	for _, name := range []string{"alloc_mb", "total_alloc_mb", "sys_mb", "heap_alloc_mb", "heap_sys_mb", "num_gc"} {
		if v, is := memory[name].(float64); !is || v < 0 || name != "num_gc" && v == 0 {
			t.Errorf("memory.%s is %v", name, memory[name])
		}
	}
	for name, want := range map[string]float64{
		"total_connections": 7, "active_connections": 4, "total_messages": 3, "total_deliveries": 7, "total_rooms": 1,
		"messages_per_second": 0, "comet_transports": 1, "slow_consumers_closed": 1,
	} {
		if got := all["websocket"][name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if refused, _ := all["websocket"]["refused"].(map[string]any); refused["token"] != 2.0 || refused["40101"] != 1.0 {
		t.Errorf("refused is %v", refused)
	}
}

func TestHealthTellsTheStateAndTheTime(t *testing.T) {
	m := New()
	m.started = time.Now().Add(-(time.Hour + 2*time.Minute + 3*time.Second + 400*time.Millisecond))
	h := m.Health("healthy")
	if h.Status != "healthy" || h.Uptime != "1h2m3s" || h.Goroutines < 1 || h.Memory.AllocMB <= 0 {
		t.Errorf("got %+v", h)
	}
	if at, err := time.Parse(time.RFC3339, h.Timestamp); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("timestamp %s (%v)", h.Timestamp, err)
	}
}

// scrape parses the text form, as a scraper does.
func scrape(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/metrics?format=prometheus", nil)
	m.Handler().ServeHTTP(w, r)
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("status %d, type %s", w.Code, w.Header().Get("Content-Type"))
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func TestTheTextFormIsWhatScrapersExpect(t *testing.T) {
	families := scrape(t, busy())
	for name, f := range families {
		counter := f.GetType() == dto.MetricType_COUNTER
		if !strings.HasPrefix(name, "letshare_") || f.GetHelp() == "" || counter != strings.HasSuffix(name, "_total") {
			t.Errorf("%s: type %s, help %q", name, f.GetType(), f.GetHelp())
		}
	}
	value := func(name string, labels ...string) float64 {
		for _, m := range families[name].GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName()+"="+l.GetValue())
			}
			if slices.Equal(has, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		t.Errorf("there is no %s %v", name, labels)
		return -1
	}
	for _, test := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"letshare_connections_total", []string{"door=letshare"}, 2},
		{"letshare_connections_total", []string{"door=ably"}, 2},
		{"letshare_connections", []string{"door=letshare"}, 1},
		{"letshare_connections", []string{"door=ably"}, 1},
		{"letshare_connections_total", []string{"door=sse"}, 3},
		{"letshare_connections", []string{"door=sse"}, 2},
		{"letshare_connections_refused_total", []string{"reason=40160"}, 1},
		{"letshare_connections_refused_total", []string{"reason=token"}, 2},
		{"letshare_connections_refused_total", []string{"reason=40101"}, 1},
		{"letshare_messages_published_total", nil, 3},
		{"letshare_frames_delivered_total", nil, 7},
		{"letshare_channels", nil, 1},
		{"letshare_comet_transports", nil, 1},
		{"letshare_slow_consumers_closed_total", nil, 1},
		{"letshare_sessions", nil, 1},
		{"letshare_outbox_bytes", nil, 2},
		{"letshare_log_bytes", nil, 3},
		{"letshare_id_bytes", nil, 4},
		{"letshare_messages_evicted_total", nil, 5},
		{"letshare_storage_commits_failed_total", nil, 1},
		{"letshare_storage_file_bytes", nil, 6},
		{"letshare_storage_free_bytes", nil, 7},
		{"letshare_storage_waiting_bytes", nil, 8},
		{"letshare_limit_exceeded_total", []string{"limit=max_message_bytes"}, 1},
		{"letshare_limit_exceeded_total", []string{"limit=channel_messages_per_second"}, 0},
	} {
		if got := value(test.name, test.labels...); got != test.want {
			t.Errorf("%s %v is %v, want %v", test.name, test.labels, got, test.want)
		}
	}
	for _, name := range []string{"letshare_memory_heap_bytes", "letshare_memory_system_bytes", "letshare_goroutines"} {
		if value(name) <= 0 {
			t.Errorf("%s is not positive", name)
		}
	}
	for name, want := range map[string]struct {
		sum    float64
		within map[float64]uint64
	}{
		"letshare_storage_commit_seconds":   {60.003, map[float64]uint64{.002: 0, .005: 1, 5: 1}},
		"letshare_storage_commit_publishes": {5003, map[float64]uint64{2: 0, 4: 1, 4096: 1}},
	} {
		h := families[name].GetMetric()[0].GetHistogram()
		if h.GetSampleCount() != 2 || h.GetSampleSum() != want.sum {
			t.Errorf("%s: got %v", name, h)
		}
		for _, b := range h.GetBucket() {
			if n, asked := want.within[b.GetUpperBound()]; asked && n != b.GetCumulativeCount() {
				t.Errorf("%s: %d up to %v, want %d", name, b.GetCumulativeCount(), b.GetUpperBound(), n)
			}
		}
	}
	value("letshare_uptime_seconds")
	value("letshare_gc_cycles_total")
}

func TestANewServerCanBeScraped(t *testing.T) {
	if families := scrape(t, New()); families["letshare_connections"] == nil {
		t.Errorf("got %v", families)
	}
}

func TestWhoGetsWhichForm(t *testing.T) {
	for _, test := range []struct {
		target, accept string
		text           bool
	}{
		{"/metrics", "", false},
		{"/metrics", "*/*", false},
		{"/metrics", "application/json", false},
		{"/metrics", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false},
		{"/metrics", "text/plain", true},
		{"/metrics", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true},
		{"/metrics", "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5", true},
		{"/metrics?format=prometheus", "application/json", true},
		{"/metrics?format=json", "text/plain", false},
		{"/metrics?format=else", "", false},
	} {
		r := httptest.NewRequest("GET", test.target, nil)
		r.Header.Set("Accept", test.accept)
		w := httptest.NewRecorder()
		New().Handler().ServeHTTP(w, r)
		if text := strings.HasPrefix(w.Body.String(), "# HELP"); text != test.text || w.Code != 200 {
			t.Errorf("%s with Accept %q: text is %v (%d %.60s)", test.target, test.accept, text, w.Code, w.Body)
		}
	}
}
