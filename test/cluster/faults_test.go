package cluster_test

import (
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/redisclient/redistest"
	"letshare-server/test/cluster"
)

// full says that the faults are to be injected as often and as long as `make chaos` promises,
// and their times to be kept.
var full = os.Getenv("CHAOS") != ""

// times is how often a fault is injected.
func times(short, long int) int {
	if full {
		return long
	}
	return short
}

// retryable are codes with which a client may publish again.
var retryable = []int{50000, 50001, 50003, 50005}

// lateness begins to measure by how much a timer of this process is late at most, and returns a function
// that tells it. Others that take the processor are no fault of the server's.
func lateness(t *testing.T) (most func() time.Duration) {
	var late atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		const every = 10 * time.Millisecond
		for {
			began := time.Now()
			select {
			case <-stop:
				return
			case <-time.After(every):
				late.Store(max(late.Load(), int64(time.Since(began)-every)))
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
	return func() time.Duration { return time.Duration(late.Load()) }
}

// faults injects a fault of Redis again and again while clients on all nodes publish, and checks
// what they feel of it. During the fault publishes are refused in time; clients stay connected;
// nothing that was acknowledged is lost, unless Redis lost it, which is told.
func faults(t *testing.T, c *cluster.Cluster, n int, forgets bool, fault func(l *load)) {
	t.Helper()
	l := startLoad(t, c, 6, "room")
	late := lateness(t)
	slowest := time.Duration(0)
	for range n {
		l.flows()
		fault(l)
		slowest = max(slowest, l.flows())
	}
	acked, refused := l.end()
	l.verifyBut(forgets)
	lost, waited := 0, time.Duration(0)
	for i, s := range l.clients {
		ids, losses := s.Connections()
		lost += len(losses)
		if len(ids) != 1 || s.Transports() != 1 {
			t.Errorf("client %d had the connections %q by %d transports", i, ids, s.Transports())
		}
		if !forgets && len(losses) > 0 {
			t.Errorf("client %d was told of the loss of %q", i, losses)
		}
		waited = max(waited, s.Slowest())
	}
	for _, err := range refused {
		if !slices.Contains(retryable, err.Code) || err.StatusCode < 500 {
			t.Errorf("refused: %v", err)
		}
	}
	// Client, node and Redis may each be kept waiting for the processor.
	if spare := 3 * late(); full && (waited > time.Second+spare || slowest > 5*time.Second+spare) {
		t.Errorf("too slow on a machine whose timers are late by %v", late())
	}
	if !t.Failed() {
		t.Log("lost without a word: 0, twice: 0")
	}
	t.Logf("%d faults; %d publishes acknowledged, %d refused or of unknown outcome after %v at most; told of a loss %d times; normal again after %v at most",
		n, acked, len(refused), waited.Round(time.Millisecond), lost, slowest.Round(time.Millisecond))
}

func TestRedisStandsStill(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	faults(t, c, times(1, 10), false, func(*load) {
		c.Redis.Stop()
		time.Sleep(time.Duration(times(1500, 3000)) * time.Millisecond)
		c.Redis.Continue()
	})
}

func TestRedisIsRestartedEmpty(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	faults(t, c, times(1, 10), true, func(*load) {
		c.Redis.Kill()
		time.Sleep(500 * time.Millisecond)
		c.Redis.Restart()
	})
}

func TestRedisIsRestartedWithItsData(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Redis: redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")})
	faults(t, c, times(1, 10), false, func(*load) {
		c.Redis.Kill()
		c.Redis.Restart()
	})
}

func TestRedisEndsTheSubscriptions(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	faults(t, c, times(5, 100), false, func(*load) {
		c.Redis.Must("CLIENT", "KILL", "TYPE", "pubsub")
	})
}

func TestANodeIsCutOffFromRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	var proxies []*redistest.Proxy
	for range 3 {
		proxies = append(proxies, redistest.StartProxy(t, redis.Addr))
	}
	c := start(t, cluster.Options{Redis: redis, Address: func(i int) string { return proxies[i].Addr }})
	i := 0
	faults(t, c, times(3, 60), false, func(*load) {
		p := proxies[i%3]
		i++
		p.Refuse(true)
		p.Cut()
		time.Sleep(time.Duration(times(300, 1000)) * time.Millisecond)
		p.Refuse(false)
	})
}

func TestReadinessAndMetricsTellThatRedisIsAway(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Nodes: 1})
	n := c.Nodes[0]
	ready := func() int {
		status, _ := n.Do("GET", "/health/ready", nil)
		return status
	}
	if got := ready(); got != 200 || n.Metric("letshare_redis_up") != 1 {
		t.Errorf("ready with %d, up %v", got, n.Metric("letshare_redis_up"))
	}
	c.Redis.Stop()
	cluster.Eventually(t, "the metric to tell", func() bool { return n.Metric("letshare_redis_up") == 0 })
	if got := ready(); got != 503 {
		t.Errorf("ready with %d", got)
	}
	if status, _ := n.Do("GET", "/health/live", nil); status != 200 {
		t.Errorf("alive with %d", status)
	}
	c.Redis.Continue()
	cluster.Eventually(t, "the metric to tell", func() bool { return n.Metric("letshare_redis_up") == 1 })
	if got := ready(); got != 200 {
		t.Errorf("ready with %s", strconv.Itoa(got))
	}
}
