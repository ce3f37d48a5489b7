package cluster_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"letshare-server/test/cluster"
)

// load is clients that publish to each other, spread over all nodes.
type load struct {
	t       *testing.T
	clients []*cluster.Steady
	names   []string

	acked, refused []int // publishes of each, at the end

	stop chan struct{}
	wg   sync.WaitGroup
}

// startLoad starts n clients on a channel, each of which publishes every few milliseconds.
func startLoad(t *testing.T, c *cluster.Cluster, n int, channel string) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{})}
	for i := range n {
		l.clients = append(l.clients, c.Steady(t, i, channel))
	}
	for _, s := range l.clients {
		s.Ready() // all, before the first message
	}
	for i, s := range l.clients {
		name := string(rune('a' + i))
		l.names = append(l.names, name)
		l.wg.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for k := 0; ; k++ {
				select {
				case <-l.stop:
					return
				case <-tick.C:
					s.Publish(fmt.Sprint(name, " ", k))
				}
			}
		})
	}
	return l
}

// flows waits until publishes of every client are acknowledged that began after the call, and
// returns how long that took.
func (l *load) flows() time.Duration {
	l.t.Helper()
	began := time.Now()
	for _, s := range l.clients {
		before, waiting, _ := s.Outcomes()
		cluster.Eventually(l.t, "publishes to be acknowledged", func() bool {
			now, _, _ := s.Outcomes()
			return now > before+waiting+3
		})
	}
	return time.Since(began)
}

// end ends the publishing, waits until all is known, and returns how many publishes were
// acknowledged and refused.
func (l *load) end() (acked int, refused []*cluster.Error) {
	l.t.Helper()
	close(l.stop)
	l.wg.Wait()
	for _, s := range l.clients {
		cluster.Eventually(l.t, "the outcome of all publishes", func() bool {
			_, waiting, _ := s.Outcomes()
			return waiting == 0
		})
		n, _, errs := s.Outcomes()
		l.acked, l.refused = append(l.acked, n), append(l.refused, len(errs))
		acked += n
		refused = append(refused, errs...)
	}
	return acked, refused
}

// verify checks that every client got each publish that was acknowledged once, and those of each
// publisher in order. Some that were refused may be there once, since their outcome was unknown.
func (l *load) verify() {
	l.t.Helper()
	l.verifyBut(false)
}

// verifyBut is verify; with told set, clients may miss something that were told of a loss.
func (l *load) verifyBut(told bool) {
	l.t.Helper()
	l.clients[0].Publish(last) // behind all others in the channel's order
	for i, s := range l.clients {
		cluster.Eventually(l.t, fmt.Sprintf("client %d to get what was published last", i), func() bool { return slices.Contains(s.Got(), last) })
		newest := make(map[string]int)
		seen := make(map[string]int)
		for _, text := range s.Got() {
			var name string
			var k int
			if text == last {
				continue
			}
			if _, err := fmt.Sscan(text, &name, &k); err != nil {
				l.t.Fatal(err)
			}
			if before, any := newest[name]; any && k <= before {
				l.t.Errorf("client %d got %q after %d", i, text, before)
			}
			newest[name] = k
			seen[name]++
		}
		_, lost := s.Connections()
		for j, name := range l.names {
			acked, refused := l.acked[j], l.refused[j]
			if n := seen[name]; n < acked && (!told || len(lost) == 0) || n > acked+refused {
				l.t.Errorf("client %d got %d of client %d, of which %d were acknowledged and %d refused; it was told of the loss of %q", i, n, j, acked, refused, lost)
			}
		}
	}
}

// last is what is published when everything else has been.
const last = "last"

// untold checks that no client was told of a loss, or had another connection.
func (l *load) untold() {
	l.t.Helper()
	for i, s := range l.clients {
		if ids, lost := s.Connections(); len(ids) != 1 || len(lost) > 0 {
			l.t.Errorf("client %d had the connections %q, and was told of the loss of %q", i, ids, lost)
		}
	}
}

func TestARollingRestartUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	l := startLoad(t, c, 6, "room")
	for _, n := range c.Nodes {
		l.flows()
		n.Stop()
		n.Start()
	}
	l.flows()
	acked, refused := l.end()
	l.verify()
	l.untold()
	for i, s := range l.clients {
		if n := s.Transports(); n < 2 {
			t.Errorf("client %d had %d transport", i, n)
		}
	}
	for _, err := range refused {
		// A machine that is busy for as long as publishers wait is no restart's fault.
		if full || !slices.Contains(retryable, err.Code) {
			t.Errorf("refused: %v", err)
		}
	}
	t.Logf("%d publishes, each of which 6 clients got, and %d refused", acked, len(refused))
}
