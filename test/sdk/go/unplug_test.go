package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ably/ably-go/ably"
)

// The size of the unplug test; unplugClients is smaller with the race detector, which makes
// the SDK too slow for its own time-outs.
const (
	unplugChannels = 10 // in each format
	unplugTime     = 60 * time.Second
	unplugPause    = 50 * time.Millisecond // of each publisher, between publishes
	unplugLife     = 3 * time.Second       // of a transport, on the average
	unplugCuts     = unplugLife / (unplugClients / 2)

	// unplugSpared is how long a transport is not cut after its client has attached again, and
	// before that it is cut only until the server's first bytes. This SDK deadlocks, version
	// 1.4.1 at least, when a transport breaks while it sends what it had queued: msgQueue.Flush
	// holds the queue's mutex and calls Connection.send, which puts what it cannot send into the
	// same queue. It does so right after CONNECTED, and reads ATTACHED when it has done it.
	unplugSpared = 500 * time.Millisecond
)

// cable leads a client to the server over sockets that can be cut.
type cable struct {
	listener net.Listener
	server   string

	mu       sync.Mutex
	plugs    map[*plug]struct{}
	attached time.Time // when the client was attached last
	wg       sync.WaitGroup
}

// plug is a transport.
type plug struct {
	client, server *net.TCPConn
	answered       time.Time // when the server's first bytes came; guarded by cable.mu
}

func (p *plug) close() { _, _ = p.client.Close(), p.server.Close() }

func newCable(t *testing.T, s target) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l, server: net.JoinHostPort(s.host, strconv.Itoa(s.port)), plugs: make(map[*plug]struct{})}
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for p := range c.plugs {
			p.close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

func (c *cable) accept() {
	for {
		accepted, err := c.listener.Accept()
		if err != nil {
			return
		}
		dialled, err := net.Dial("tcp", c.server)
		if err != nil {
			_ = accepted.Close()
			continue
		}
		p := &plug{client: accepted.(*net.TCPConn), server: dialled.(*net.TCPConn)}
		c.mu.Lock()
		c.plugs[p] = struct{}{}
		c.mu.Unlock()
		c.wg.Go(func() {
			_, _ = io.Copy(p.server, p.client)
			c.end(p)
		})
		c.wg.Go(func() {
			var first [1]byte
			if n, _ := p.server.Read(first[:]); n > 0 {
				c.mu.Lock()
				p.answered = time.Now()
				c.mu.Unlock()
				_, _ = p.client.Write(first[:])
				_, _ = io.Copy(p.client, p.server)
			}
			c.end(p)
		})
	}
}

func (c *cable) end(p *plug) {
	p.close()
	c.mu.Lock()
	delete(c.plugs, p)
	c.mu.Unlock()
}

// isAttached tells that the client is attached.
func (c *cable) isAttached() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attached = time.Now()
}

// cut takes the client its socket, half of the time in the rude way, and reports whether it had
// one that is not spared.
func (c *cable) cut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.plugs {
		if !p.answered.IsZero() && (c.attached.Before(p.answered) || time.Since(c.attached) < unplugSpared) {
			continue
		}
		if rand.IntN(2) == 0 {
			_, _ = p.client.SetLinger(0), p.server.SetLinger(0)
		}
		p.close()
		delete(c.plugs, p)
		return true
	}
	return false
}

// RTN15c6, RTN19a, RTL4c1
func TestClientsWhoseTransportsAreCutLoseNothing(t *testing.T) {
	var before held
	t.Run("cut", func(t *testing.T) {
		before = settled(t, held{goroutines: math.MaxInt64, heap: math.MaxInt64, sessions: math.MaxInt64})
		inBothFormats(t, unplug)
	})
	// Nothing is left of clients and transports that are gone. The log may be: it is the last
	// four minutes of messages. What else there may be more of is less than what a tenth of
	// the transports would have kept.
	after := settled(t, held{sessions: before.sessions, goroutines: before.goroutines, heap: before.heap + int64(len(nodes()))*leftHeap})
	t.Logf("before: %+v; after: %+v", before, after)
}

// leftHeap is what a node's heap may have grown by beyond the log: pools, and tables that keep
// their size.
const leftHeap = 4 << 20

// nodes are the ports of the server, or of all nodes of a cluster.
func nodes() []string { return strings.Split(os.Getenv("LETSHARE_TEST_NODE_PORTS"), ",") }

// held is what the server keeps.
type held struct {
	connections, sessions, channels, outbox int64
	goroutines                              int64
	heap                                    int64 // beyond the log and the ids of messages
}

// settled waits until no client is connected to the server, and it keeps at most what is
// given. Other tests' connections may wait to be resumed.
func settled(t *testing.T, most held) held {
	t.Helper()
	if os.Getenv("LETSHARE_TEST_HOST") == "" {
		return held{} // inBothFormats says so
	}
	until := time.Now().Add(3 * patience)
	for {
		var h held // by all nodes
		for _, port := range nodes() {
			n := readHeld(t, "http://"+net.JoinHostPort(os.Getenv("LETSHARE_TEST_HOST"), port)+"/metrics?format=prometheus")
			h.connections += n.connections
			h.sessions += n.sessions
			h.channels += n.channels
			h.outbox += n.outbox
			h.goroutines += n.goroutines
			h.heap += n.heap
		}
		if h.connections == 0 && h.sessions <= most.sessions && h.channels == 0 && h.outbox == 0 && h.goroutines <= most.goroutines && h.heap <= most.heap {
			return h
		}
		if time.Now().After(until) {
			t.Fatalf("the server keeps %+v; want no connection, and at most %+v", h, most)
		}
		pause(t.Context(), time.Second)
	}
}

func readHeld(t *testing.T, url string) held {
	t.Helper()
	http.DefaultClient.CloseIdleConnections() // each is a goroutine of the server's
	answer, err := http.Get(url)
	must(t, err)
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	must(t, answer.Body.Close())
	value := func(name string) int64 {
		m := regexp.MustCompile(`(?m)^letshare_` + regexp.QuoteMeta(name) + ` (\S+)$`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("the server has no metric %s:\n%s", name, text)
		}
		v, err := strconv.ParseFloat(string(m[1]), 64)
		must(t, err)
		return int64(v)
	}
	return held{
		connections: value(`connections{door="ably"}`), sessions: value("sessions"), channels: value("channels"),
		outbox: value("outbox_bytes"), goroutines: value("goroutines"),
		heap: value("memory_heap_bytes") - value("log_bytes") - value("id_bytes"),
	}
}

// unplug lets clients publish, receive and be present while their transports are cut.
func unplug(t *testing.T, s target) {
	var names []string
	for range unplugChannels {
		names = append(names, unique("unplug"))
	}
	clients := make([]*ably.Realtime, unplugClients/2)
	cables := make([]*cable, len(clients))
	received := make([]chan *ably.Message, len(clients))
	channel := func(i int) *ably.RealtimeChannel { return clients[i].Channels.Get(names[i%unplugChannels]) }
	for i := range clients {
		c := newCable(t, s)
		cables[i] = c
		through := s
		through.host, through.port = "127.0.0.1", c.listener.Addr().(*net.TCPAddr).Port
		clients[i] = through.connected(t, "", ably.WithClientID("client"+strconv.Itoa(i)), ably.WithDisconnectedRetryTimeout(100*time.Millisecond),
			ably.WithRealtimeRequestTimeout(10*time.Second)) // which is the SDK's own: some requests are cut
		received[i] = make(chan *ably.Message, 1<<14)
		channel(i).On(ably.ChannelEventAttached, func(ably.ChannelStateChange) { c.isAttached() })
		_, err := channel(i).SubscribeAll(deadline(t), func(m *ably.Message) { received[i] <- m })
		must(t, err)
	}

	// The first client of each channel publishes, each message when the one before it was
	// acknowledged. All are present, and change their data.
	ctx, stop := context.WithTimeout(t.Context(), unplugTime)
	defer stop()
	published := make([]int, unplugChannels)
	present := make([]int, len(clients))
	var busy sync.WaitGroup
	for i := range names {
		busy.Go(func() {
			for ctx.Err() == nil {
				if err := channel(i).Publish(deadline(t), strconv.Itoa(published[i]), nil); err != nil {
					t.Errorf("message %d of channel %d: %v", published[i], i, err)
					return
				}
				published[i]++
				pause(ctx, unplugPause)
			}
		})
	}
	for i := range clients {
		busy.Go(func() {
			for ctx.Err() == nil {
				err := channel(i).Presence.Update(deadline(t), strconv.Itoa(present[i]+1))
				var info *ably.ErrorInfo
				switch {
				case err == nil:
					present[i]++
				case errors.As(err, &info) && info.Code == 90001:
					// The SDK calls itself connected before it attaches again, and then
					// sends this first.
				default:
					t.Errorf("data %d of member %d: %v", present[i]+1, i, err)
					return
				}
				pause(ctx, unplugLife)
			}
		})
	}
	cuts := 0
	for ctx.Err() == nil {
		pause(ctx, unplugCuts)
		if slices.ContainsFunc(rand.Perm(len(cables)), func(i int) bool { return cables[i].cut() }) {
			cuts++
		}
	}
	busy.Wait()
	t.Logf("%d cuts; messages by channel: %v; changes of members: %v", cuts, published, present)

	for i := range clients {
		for want := range published[i%unplugChannels] {
			select {
			case m := <-received[i]:
				if m.Name != strconv.Itoa(want) {
					t.Fatalf("client %d got message %s (%s) instead of %d", i, m.Name, m.ID, want)
				}
			case <-time.After(patience):
				t.Fatalf("client %d still waits for message %d of %d; it is %v (%v)", i, want, published[i%unplugChannels],
					clients[i].Connection.State(), clients[i].Connection.ErrorReason())
			}
		}
		select {
		case m := <-received[i]:
			t.Fatalf("client %d got message %s (%s), which is one too many", i, m.Name, m.ID)
		default:
		}
	}

	want := make([]map[string]string, unplugChannels) // who is present, with which data
	for i := range clients {
		if want[i%unplugChannels] == nil {
			want[i%unplugChannels] = make(map[string]string)
		}
		want[i%unplugChannels]["client"+strconv.Itoa(i)] = strconv.Itoa(present[i])
	}
	for i := range clients {
		agrees(t, fmt.Sprintf("client %d", i), want[i%unplugChannels], func() ([]*ably.PresenceMessage, error) {
			return channel(i).Presence.Get(deadline(t))
		})
	}
	rest := s.rest(t, "", ably.WithHTTPClient(http.DefaultClient))
	for i, name := range names {
		agrees(t, "REST", want[i], func() (members []*ably.PresenceMessage, err error) {
			items, err := rest.Channels.Get(name).Presence.Get().Items(deadline(t))
			if err != nil {
				return nil, err
			}
			for items.Next(deadline(t)) {
				members = append(members, items.Item())
			}
			return members, items.Err()
		})
	}
}

// agrees waits until the members are those that are wanted.
func agrees(t *testing.T, who string, want map[string]string, get func() ([]*ably.PresenceMessage, error)) {
	t.Helper()
	until := time.Now().Add(patience)
	for {
		members, err := get()
		must(t, err)
		got := make(map[string]string)
		for _, m := range members {
			got[m.ClientID] = fmt.Sprint(m.Data)
		}
		if maps.Equal(got, want) && len(members) == len(got) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s has members %v, want %v", who, got, want)
		}
		pause(t.Context(), 100*time.Millisecond)
	}
}

// pause lets time pass, as the pace of a test.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
