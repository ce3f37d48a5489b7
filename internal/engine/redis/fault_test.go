package redis

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/engine/enginetest"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

func faultOptions() Options {
	return Options{Policy: enginetest.Policy, Timeout: trafficTimeout, CompareInterval: 2 * time.Second, RoleInterval: 500 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler)}
}

// recovered checks how long a fault is felt after it ended.
func recovered(t *testing.T, tr *traffic) {
	t.Helper()
	took := tr.flowing()
	if full && took > 5*time.Second {
		t.Errorf("normal again after %v", took)
	}
	t.Logf("normal again after %v", took.Round(time.Millisecond))
}

func TestFaultsOfOneServer(t *testing.T) {
	t.Parallel()
	t.Run("Stopped", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		to := redisclient.Options{Addresses: []string{s.Addr}}
		tr := startTraffic(t, 8, node(t, to, faultOptions()), node(t, to, faultOptions()))
		for range times(1, 10) {
			tr.flowing()
			s.Stop()
			tr.run(1500 * time.Millisecond)
			s.Continue()
			recovered(t, tr)
			s.Stop()
			tr.run(time.Duration(times(100, 5000)) * time.Millisecond)
			s.Continue()
			recovered(t, tr)
		}
		tr.end(keptAll)
	})
	t.Run("RestartedEmpty", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		to := redisclient.Options{Addresses: []string{s.Addr}}
		tr := startTraffic(t, 8, node(t, to, faultOptions()), node(t, to, faultOptions()))
		for range times(1, 10) {
			tr.flowing()
			s.Kill()
			tr.run(500 * time.Millisecond)
			s.Restart()
			recovered(t, tr)
		}
		tr.end(keptSome)
	})
	t.Run("RestartedWithItsData", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
		to := redisclient.Options{Addresses: []string{s.Addr}}
		tr := startTraffic(t, 4, node(t, to, faultOptions()), node(t, to, faultOptions()))
		for range times(1, 10) {
			tr.flowing()
			s.Kill()
			s.Restart()
			recovered(t, tr)
		}
		tr.end(keptAll)
	})
	t.Run("PubSubKilled", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		to := redisclient.Options{Addresses: []string{s.Addr}}
		tr := startTraffic(t, 8, node(t, to, faultOptions()), node(t, to, faultOptions()))
		for range times(5, 100) {
			tr.flowing()
			s.Must("CLIENT", "KILL", "TYPE", "pubsub")
			tr.run(50 * time.Millisecond)
		}
		tr.end(keptAll)
	})
	t.Run("OutputBufferOverflows", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		to := redisclient.Options{Addresses: []string{s.Addr}}
		tr := startTraffic(t, 8, node(t, to, faultOptions()), node(t, to, faultOptions()))
		s.Must("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 32kb 1")
		slow := tr.listeners[tr.channels[0]][1]
		for range times(1, 10) {
			tr.flowing()
			breaks := tr.nodes[1].Stats().FeedBreaks
			gate := make(chan struct{})
			slow.hold.Store(&gate)
			for i := 0; tr.nodes[1].Stats().FeedBreaks == breaks; i++ {
				// What Redis has to keep for the slow node is more than sockets hold.
				s.Must("SPUBLISH", tr.nodes[1].keys(tr.channels[0]).state, string(make([]byte, 256<<10)))
				if i == 40 {
					slow.hold.Store(nil)
					close(gate)
				}
				if i > 400 {
					t.Fatal("the connection does not break")
				}
			}
			slow.hold.Store(nil)
			select {
			case <-gate:
			default:
				close(gate)
			}
			recovered(t, tr)
		}
		tr.end(keptAll)
	})
	t.Run("FarAway", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		p := redistest.StartProxy(t, s.Addr)
		to := redisclient.Options{Addresses: []string{p.Addr}}
		tr := startTraffic(t, 8, node(t, to, faultOptions()), node(t, redisclient.Options{Addresses: []string{s.Addr}}, faultOptions()))
		tr.flowing()
		p.Delay(100 * time.Millisecond)
		recovered(t, tr)
		tr.run(time.Duration(times(1, 20)) * time.Second)
		p.Delay(0)
		recovered(t, tr)
		tr.end(keptAll)
	})
	t.Run("Cut", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		p := redistest.StartProxy(t, s.Addr)
		to := redisclient.Options{Addresses: []string{p.Addr}}
		tr := startTraffic(t, 8, node(t, to, faultOptions()), node(t, redisclient.Options{Addresses: []string{s.Addr}}, faultOptions()))
		for i := range times(20, 300) {
			tr.flowing()
			if i%5 == 4 {
				p.Refuse(true)
				p.Cut()
				tr.run(100 * time.Millisecond)
				p.Refuse(false)
			} else {
				p.Cut()
			}
		}
		recovered(t, tr)
		tr.end(keptAll)
	})
}

func TestFaultsOfACluster(t *testing.T) {
	t.Parallel()
	t.Run("SlotsMove", func(t *testing.T) {
		t.Parallel()
		c := redistest.StartCluster(t, 3)
		to := redisclient.Options{Addresses: c.Addresses()}
		tr := startTraffic(t, 6, node(t, to, faultOptions()), node(t, to, faultOptions()))
		for i := range times(3, 40) {
			tr.flowing()
			key := tr.nodes[0].keys(tr.channels[i%len(tr.channels)]).state
			from := c.Owner(key)
			target := c.Servers[i%3]
			if target == from {
				target = c.Servers[(i+1)%3]
			}
			c.MoveSlot(key, target, func() { tr.run(20 * time.Millisecond) })
			recovered(t, tr)
		}
		tr.end(keptAll)
	})
	t.Run("PrimaryKilled", func(t *testing.T) {
		t.Parallel()
		c := redistest.StartCluster(t, 3)
		to := redisclient.Options{Addresses: c.Addresses()}
		tr := startTraffic(t, 6, node(t, to, faultOptions()), node(t, to, faultOptions()))
		for i := range times(1, 10) {
			tr.flowing()
			key := tr.nodes[0].keys(tr.channels[i%len(tr.channels)]).state
			primary := c.Owner(key)
			primary.Kill()
			c.WaitOwner(key, primary)
			recovered(t, tr)
			if full {
				primary.Restart()
				c.WaitReady()
			}
		}
		tr.end(keptSome)
	})
}

func TestFaultsBehindSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	to := redisclient.Options{Addresses: s.Addresses(), MasterName: redistest.MasterName}
	tr := startTraffic(t, 6, node(t, to, faultOptions()), node(t, to, faultOptions()))
	for i := range times(1, 5) {
		tr.flowing()
		primary := s.Primary()
		replica := s.Servers[0]
		if replica == primary {
			replica = s.Servers[1]
		}
		if i%2 == 0 {
			// The replica lags: what comes now it will not have.
			replica.Stop()
			for n := range 4 { // more than the sockets between them hold
				primary.Must("SET", fmt.Sprint("ballast", n), strings.Repeat("x", 8<<20))
			}
			tr.run(200 * time.Millisecond)
			primary.Kill()
			replica.Continue()
		} else {
			primary.Kill()
		}
		s.WaitPrimary(primary)
		recovered(t, tr)
		if full {
			primary.Restart()
			s.WaitReady()
		}
	}
	tr.end(keptSome)
}
