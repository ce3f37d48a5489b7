package metrics

import (
	"encoding/json"
	"math"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"letshare-server/internal/limit"
)

// Health is the body of /health.
type Health struct {
	Status     string       `json:"status"`
	Timestamp  string       `json:"timestamp"`
	Uptime     string       `json:"uptime"`
	Memory     HealthMemory `json:"memory"`
	Goroutines uint64       `json:"goroutines"`
}

// HealthMemory is the part of Health about memory.
type HealthMemory struct {
	AllocMB      float64 `json:"alloc_mb"`
	TotalAllocMB float64 `json:"total_alloc_mb"`
	SysMB        float64 `json:"sys_mb"`
	NumGC        uint64  `json:"num_gc"`
}

// Health reports how the process does. status is "healthy", or why it is not.
func (m *Metrics) Health(status string) Health {
	now, mem := time.Now(), readMemory()
	return Health{
		Status:     status,
		Timestamp:  now.Format(time.RFC3339),
		Uptime:     now.Sub(m.started).Truncate(time.Second).String(),
		Memory:     HealthMemory{megabytes(mem.alloc), megabytes(mem.totalAlloc), megabytes(mem.sys), mem.cycles},
		Goroutines: mem.goroutines,
	}
}

// report is the JSON form of /metrics.
type report struct {
	Server struct {
		Timestamp     string  `json:"timestamp"`
		Uptime        string  `json:"uptime"`
		UptimeSeconds float64 `json:"uptime_seconds"`
	} `json:"server"`
	WebSocket struct {
		TotalConnections  int64            `json:"total_connections"`
		ActiveConnections int64            `json:"active_connections"`
		TotalMessages     int64            `json:"total_messages"`
		TotalDeliveries   int64            `json:"total_deliveries"`
		TotalRooms        int64            `json:"total_rooms"`
		MessagesPerSecond float64          `json:"messages_per_second"`
		ByDoor            map[string]int64 `json:"active_connections_by_door"`
		Comet             int64            `json:"comet_transports"`
		SlowClosed        int64            `json:"slow_consumers_closed"`
		Refused           map[string]int64 `json:"refused"`
	} `json:"websocket"`
	System struct {
		Memory struct {
			HealthMemory
			HeapAllocMB float64 `json:"heap_alloc_mb"`
			HeapSysMB   float64 `json:"heap_sys_mb"`
		} `json:"memory"`
		Goroutines uint64 `json:"goroutines"`
		CPUCount   int    `json:"cpu_count"`
		GoVersion  string `json:"go_version"`
	} `json:"system"`
}

func (m *Metrics) report() *report {
	r, now, mem := new(report), time.Now(), readMemory()
	uptime := now.Sub(m.started)
	r.Server.Timestamp = now.Format(time.RFC3339)
	r.Server.Uptime = uptime.Truncate(time.Second).String()
	r.Server.UptimeSeconds = math.Floor(uptime.Seconds())
	r.WebSocket.ByDoor = make(map[string]int64)
	for d := range doors {
		r.WebSocket.TotalConnections += m.opened[d].Load()
		r.WebSocket.ActiveConnections += m.active[d].Load()
		r.WebSocket.ByDoor[d.String()] = m.active[d].Load()
	}
	r.WebSocket.TotalMessages = m.published.Load()
	r.WebSocket.TotalDeliveries = m.delivered.Load()
	r.WebSocket.TotalRooms = m.rooms.Load()
	r.WebSocket.MessagesPerSecond = math.Round(m.rate.perSecond()*100) / 100
	r.WebSocket.Comet = m.comet.Load()
	r.WebSocket.SlowClosed = m.slowClosed.Load()
	r.WebSocket.Refused = m.refusals()
	r.System.Memory.HealthMemory = HealthMemory{megabytes(mem.alloc), megabytes(mem.totalAlloc), megabytes(mem.sys), mem.cycles}
	r.System.Memory.HeapAllocMB = megabytes(mem.alloc)
	r.System.Memory.HeapSysMB = megabytes(mem.heapSys)
	r.System.Goroutines = mem.goroutines
	r.System.CPUCount = runtime.NumCPU()
	r.System.GoVersion = runtime.Version()
	return r
}

func (m *Metrics) refusals() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]int64, len(m.refused))
	for reason, n := range m.refused {
		all[reason] = n
	}
	return all
}

// Handler answers /metrics: JSON for people, Prometheus' text when the Accept header asks
// for it or with ?format=prometheus.
func (m *Metrics) Handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{m})
	text := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wantsPrometheus(r) {
			text.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m.report()) // the peer is gone if this fails
	})
}

func wantsPrometheus(r *http.Request) bool {
	switch r.URL.Query().Get("format") {
	case "prometheus":
		return true
	case "json":
		return false
	}
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/openmetrics-text") || strings.Contains(accept, "version=0.0.4") ||
		strings.HasPrefix(accept, "text/plain")
}

// collector gives Prometheus what Metrics has counted.
type collector struct{ m *Metrics }

var (
	connectionsTotal = desc("connections_total", "Connections that got in since the start.", "door")
	connections      = desc("connections", "Connections that are open now.", "door")
	refusedTotal     = desc("connections_refused_total", "Connections that did not get in, by reason or error code.", "reason")
	publishedTotal   = desc("messages_published_total", "Messages accepted from publishers of all doors.")
	deliveredTotal   = desc("frames_delivered_total", "Frames handed to the queues of subscribers.")
	roomsNow         = desc("channels", "Channels with at least one attachment on this node.")
	cometNow         = desc("comet_transports", "Ably connections that HTTP requests carry instead of a WebSocket.")
	slowClosedTotal  = desc("slow_consumers_closed_total", "Transports closed because their client did not keep up.")
	sessionsNow      = desc("sessions", "Ably connections whose state is kept, those that wait to be resumed included.")
	outboxBytes      = desc("outbox_bytes", "Bytes that wait for slow sockets.")
	logBytes         = desc("log_bytes", "Bytes of limits.log_bytes in use: messages, presence members and overheads.")
	idBytes          = desc("id_bytes", "Bytes of the ids by which what is sent again is known.")
	evictedTotal     = desc("messages_evicted_total", "Messages dropped before their time for want of room.")
	commitSeconds    = desc("storage_commit_seconds", "Seconds that transactions of the database took, until they were durable.")
	commitAppends    = desc("storage_commit_publishes", "Publishes that one transaction of the database made durable.")
	failedTotal      = desc("storage_commits_failed_total", "Transactions of the database that failed; their publishes were refused.")
	storageBytes     = desc("storage_file_bytes", "Bytes of the database's pages, used and free.")
	storageFree      = desc("storage_free_bytes", "Bytes of the database's pages that are free.")
	storageWaiting   = desc("storage_waiting_bytes", "Bytes of publishes that wait to be committed.")
	redisUp          = desc("redis_up", "Whether Redis has answered at the last look: 1 or 0.")
	redisSeconds     = desc("redis_answer_seconds", "Seconds until Redis answered, or was given up, at the last look.")
	redisAppends     = desc("redis_appends_total", "Appends sent to Redis, those that were sent again included.")
	redisCalls       = desc("redis_calls_total", "Calls of the script that does Appends; one may do many.")
	redisAmbiguous   = desc("redis_ambiguous_calls_total", "Calls whose outcome was not known at once.")
	redisGaps        = desc("redis_gaps_total", "Live entries that did not follow on the one before.")
	redisCaughtUp    = desc("redis_entries_caught_up_total", "Entries read from the log because they had not come live.")
	redisLost        = desc("redis_continuity_lost_total", "Times that the log did not have what was missing; clients were told.")
	redisFeedBreaks  = desc("redis_feed_breaks_total", "Connections for live entries that have ended.")
	redisQueued      = desc("redis_queued_bytes", "Bytes of Appends that wait for Redis.")
	redisChannels    = desc("redis_subscribed_channels", "Channels whose live entries this node gets from Redis.")
	redisHeard       = desc("redis_lease_age_seconds", "Seconds since Redis last heard that this node lives; after 10 the others take it for gone.")
	redisReturned    = desc("redis_node_returned_total", "Times that the others took this node for gone although it was not, or that Redis had forgotten it.")
	redisBuried      = desc("redis_nodes_buried_total", "Nodes that were gone, of whose connections this one took care.")
	redisWaiting     = desc("redis_directory_waiting", "Changes of counts and connections that Redis does not know yet.")
	redisCounted     = desc("redis_counted_channels", "Channels whose attachments this node counts in Redis.")
	redisWatched     = desc("redis_watched_channels", "Channels of whose occupancy this node is told by Redis.")
	redisDiffering   = desc("redis_differing_settings", "Settings of this node that differ from those of other nodes.")
	exceededTotal    = desc("limit_exceeded_total", "Times that a limit has refused, dropped or ended something.", "limit")
	certificateFails = desc("certificate_failures_total", "Certificates that could not be read, ordered or renewed.")
	certificateEnds  = desc("certificate_not_after_seconds", "When the first certificate ends, in seconds since 1970; 0 without one.")
	uptimeSeconds    = desc("uptime_seconds", "Seconds since the start.")
	heapBytes        = desc("memory_heap_bytes", "Bytes of heap objects.")
	sysBytes         = desc("memory_system_bytes", "Bytes of memory obtained from the system.")
	gcTotal          = desc("gc_cycles_total", "Completed garbage collections.")
	goroutinesNow    = desc("goroutines", "Goroutines that exist now.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("letshare_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	m, mem := c.m, readMemory()
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for d := range doors {
		counter(connectionsTotal, float64(m.opened[d].Load()), d.String())
		gauge(connections, float64(m.active[d].Load()), d.String())
	}
	for reason, n := range m.refusals() {
		counter(refusedTotal, float64(n), reason)
	}
	counter(publishedTotal, float64(m.published.Load()))
	counter(deliveredTotal, float64(m.delivered.Load()))
	gauge(roomsNow, float64(m.rooms.Load()))
	gauge(cometNow, float64(m.comet.Load()))
	counter(slowClosedTotal, float64(m.slowClosed.Load()))
	counter(certificateFails, float64(m.certificateFailures.Load()))
	gauge(certificateEnds, float64(m.certificateEnds.Load()))
	held := m.held()
	gauge(sessionsNow, float64(held.Sessions))
	gauge(outboxBytes, float64(held.OutboxBytes))
	gauge(logBytes, float64(held.LogBytes))
	gauge(idBytes, float64(held.IDBytes))
	counter(evictedTotal, float64(held.Evicted))
	if st := held.Storage; st != nil {
		histogram := func(d *prometheus.Desc, h *histogram) {
			count, sum, buckets := h.cumulative()
			out <- prometheus.MustNewConstHistogram(d, count, sum, buckets)
		}
		histogram(commitSeconds, &m.commitSeconds)
		histogram(commitAppends, &m.commitAppends)
		counter(failedTotal, float64(m.commitsFailed.Load()))
		gauge(storageBytes, float64(st.FileBytes))
		gauge(storageFree, float64(st.FreeBytes))
		gauge(storageWaiting, float64(st.WaitingBytes))
	}
	if r := held.Redis; r != nil {
		up := 0.0
		if m.redisUp.Load() {
			up = 1
		}
		gauge(redisUp, up)
		gauge(redisSeconds, time.Duration(m.redisAnswered.Load()).Seconds())
		counter(redisAppends, float64(r.Appends))
		counter(redisCalls, float64(r.Calls))
		counter(redisAmbiguous, float64(r.Ambiguous))
		counter(redisGaps, float64(r.Gaps))
		counter(redisCaughtUp, float64(r.CaughtUp))
		counter(redisLost, float64(r.Lost))
		counter(redisFeedBreaks, float64(r.FeedBreaks))
		gauge(redisQueued, float64(r.QueuedBytes))
		gauge(redisChannels, float64(r.Channels))
		gauge(redisHeard, r.HeardSeconds)
		counter(redisReturned, float64(r.Returned))
		counter(redisBuried, float64(r.Buried))
		gauge(redisWaiting, float64(r.Waiting))
		gauge(redisCounted, float64(r.Counted))
		gauge(redisWatched, float64(r.Watched))
		gauge(redisDiffering, float64(m.settings.Load()))
	}
	for n := range limit.Names {
		counter(exceededTotal, float64(m.exceeded[n].Load()), n.String())
	}
	gauge(uptimeSeconds, time.Since(m.started).Seconds())
	gauge(heapBytes, float64(mem.alloc))
	gauge(sysBytes, float64(mem.sys))
	counter(gcTotal, float64(mem.cycles))
	gauge(goroutinesNow, float64(mem.goroutines))
}
