package sdk

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
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
)

// cable leads clients to the server over sockets that can be cut.
type cable struct {
	listener net.Listener
	server   string

	mu    sync.Mutex
	plugs map[*net.TCPConn]*net.TCPConn // the client's end and the server's
	cuts  int
	wg    sync.WaitGroup
}

func newCable(t *testing.T, s target) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l, server: net.JoinHostPort(s.host, strconv.Itoa(s.port)), plugs: make(map[*net.TCPConn]*net.TCPConn)}
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for client, server := range c.plugs {
			_, _ = client.Close(), server.Close()
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
		client, server := accepted.(*net.TCPConn), dialled.(*net.TCPConn)
		c.mu.Lock()
		c.plugs[client] = server
		c.mu.Unlock()
		lead := func(to, from *net.TCPConn) {
			_, _ = io.Copy(to, from)
			_, _ = to.Close(), from.Close()
			c.mu.Lock()
			delete(c.plugs, client)
			c.mu.Unlock()
		}
		c.wg.Go(func() { lead(server, client) })
		c.wg.Go(func() { lead(client, server) })
	}
}

// cut takes one client its socket, half of the time in the rude way.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for client, server := range c.plugs { // in no order
		if rand.IntN(2) == 0 {
			_, _ = client.SetLinger(0), server.SetLinger(0)
		}
		_, _ = client.Close(), server.Close()
		delete(c.plugs, client)
		c.cuts++
		return
	}
}

func TestClientsWhoseTransportsAreCutGetEveryMessageOnceAndInOrder(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		c := newCable(t, s)
		through := s
		through.host, through.port = "127.0.0.1", c.listener.Addr().(*net.TCPAddr).Port

		var names []string
		for range unplugChannels {
			names = append(names, unique("unplug"))
		}
		clients := make([]*ably.Realtime, unplugClients/2)
		received := make([]chan *ably.Message, len(clients))
		for i := range clients {
			clients[i] = through.connected(t, "", ably.WithDisconnectedRetryTimeout(100*time.Millisecond))
			received[i] = make(chan *ably.Message, 1<<14)
			_, err := clients[i].Channels.Get(names[i%unplugChannels]).SubscribeAll(deadline(t), func(m *ably.Message) { received[i] <- m })
			if err != nil {
				t.Fatal(err)
			}
		}

		// The first client of each channel publishes, each message when the one before it
		// was acknowledged.
		ctx, stop := context.WithTimeout(t.Context(), unplugTime)
		defer stop()
		published := make([]int, unplugChannels)
		var publishers sync.WaitGroup
		for i := range names {
			publishers.Go(func() {
				channel := clients[i].Channels.Get(names[i])
				for ctx.Err() == nil {
					if err := channel.Publish(deadline(t), strconv.Itoa(published[i]), nil); err != nil {
						t.Errorf("message %d of channel %d: %v", published[i], i, err)
						return
					}
					published[i]++
					pause(ctx, unplugPause)
				}
			})
		}
		for ctx.Err() == nil {
			pause(ctx, unplugCuts)
			c.cut()
		}
		publishers.Wait()
		t.Logf("%d cuts; messages by channel: %v", c.cuts, published)

		for i := range clients {
			for want := range published[i%unplugChannels] {
				select {
				case m := <-received[i]:
					if m.Name != strconv.Itoa(want) {
						t.Fatalf("client %d got message %s instead of %d", i, m.Name, want)
					}
				case <-time.After(patience):
					t.Fatalf("client %d still waits for message %d of %d; it is %v (%v)", i, want, published[i%unplugChannels],
						clients[i].Connection.State(), clients[i].Connection.ErrorReason())
				}
			}
		}
	})
}

// pause lets time pass, as the pace of a test.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
