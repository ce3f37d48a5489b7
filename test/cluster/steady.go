package cluster

import (
	"encoding/json"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Steady is a client that keeps its connection as Ably's SDKs do: when a transport ends it resumes
// the connection on the next node, attaches where it was, and sends again what was not
// acknowledged. It stands on one channel.
type Steady struct {
	t       testing.TB
	nodes   []*Node
	channel string

	mu          sync.Mutex
	next        int // of nodes
	id, key     string
	serial      string // where it stands in the channel
	got         []string
	events      []string
	pending     []Frame // not yet acknowledged
	msgSerial   int64
	acked       int
	refused     []*Error
	connections []string // all that it had
	transports  int
	sent        map[int64]time.Time // when what waits was sent, unless it was sent again
	slowest     time.Duration       // from sending to the outcome
	lost        []string            // said when continuity was lost
	conn        *Client
	closed      bool

	done chan struct{}
}

// Steady starts such a client, on the at-th node first.
func (c *Cluster) Steady(t testing.TB, at int, channel string) *Steady {
	t.Helper()
	s := &Steady{t: t, nodes: c.Nodes, next: at, channel: channel, sent: make(map[int64]time.Time), done: make(chan struct{})}
	go s.run()
	t.Cleanup(s.Close)
	return s
}

// Close ends the client.
func (s *Steady) Close() {
	s.mu.Lock()
	s.closed = true
	if s.conn != nil {
		s.conn.Drop()
	}
	s.mu.Unlock()
	<-s.done
}

// Ready waits until the client is attached.
func (s *Steady) Ready() {
	s.t.Helper()
	Eventually(s.t, "a client to be attached", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.conn != nil
	})
}

// Publish publishes data, now or when it is connected again. It does not wait.
func (s *Steady) Publish(data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	serial := s.msgSerial
	s.msgSerial++
	f := Frame{Action: Message, Channel: s.channel, MsgSerial: &serial, Messages: []map[string]any{{"data": data}}}
	s.pending = append(s.pending, f)
	if s.conn != nil {
		s.sent[serial] = time.Now()
		s.conn.Send(f)
	}
}

// Outcomes are how many publishes were acknowledged, how many wait, and what the others were
// refused with.
func (s *Steady) Outcomes() (acked, waiting int, refused []*Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked, len(s.pending), append([]*Error{}, s.refused...)
}

// Got is the data of all messages, in order.
func (s *Steady) Got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.got...)
}

// Connections are the connectionIds that it had, and Lost what it was told when continuity was lost.
func (s *Steady) Connections() (ids, lost []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.connections...), append([]string{}, s.lost...)
}

// Transports is how often it has connected.
func (s *Steady) Transports() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transports
}

// Slowest is how long the outcome of a publish took that was sent once.
func (s *Steady) Slowest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slowest
}

func (s *Steady) run() {
	defer close(s.done)
	for wait := time.Duration(0); ; wait = min(2*wait+10*time.Millisecond, time.Second) {
		time.Sleep(wait)
		s.mu.Lock()
		closed, node := s.closed, s.nodes[s.next%len(s.nodes)]
		params := "x=1"
		if s.key != "" {
			params = "resume=" + url.QueryEscape(s.key)
		}
		s.next++
		s.mu.Unlock()
		if closed {
			return
		}
		c, err := node.TryConnect(params)
		if err != nil {
			continue
		}
		if s.live(c) {
			wait = 0
		}
	}
}

// live is one transport's life. It reports whether it was attached.
func (s *Steady) live(c *Client) (attached bool) {
	defer c.Drop()
	s.mu.Lock()
	if c.ID != s.id {
		if s.id != "" {
			// What waits is sent again as the new connection's (RTN19a2).
			s.lost = append(s.lost, "connection")
			s.msgSerial = 0
			for i := range s.pending {
				serial := s.msgSerial
				s.pending[i].MsgSerial = &serial
				s.msgSerial++
			}
		}
		s.connections = append(s.connections, c.ID)
	}
	s.id, s.key = c.ID, c.Key
	s.transports++
	clear(s.sent)
	attach := Frame{Action: Attach, Channel: s.channel, ChannelSerial: s.serial}
	c.Send(attach)
	s.mu.Unlock()
	for {
		f, ok := c.Find(func(*Frame) bool { return true })
		if !ok || f.Action == Disconnected || f.Action == ActionError {
			s.mu.Lock()
			s.conn = nil
			s.mu.Unlock()
			return attached
		}
		s.mu.Lock()
		switch f.Action {
		case Attached:
			if f.Flags&Resumed == 0 && s.serial != "" {
				s.lost = append(s.lost, fmt.Sprintf("channel: %+v", f.Error))
			}
			s.serial = f.ChannelSerial
			if !attached {
				attached = true
				for _, p := range s.pending {
					c.Send(p)
				}
				s.conn = c
				if s.closed {
					c.Drop()
				}
			}
		case Detached:
			time.AfterFunc(100*time.Millisecond, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				c.Send(Frame{Action: Attach, Channel: s.channel, ChannelSerial: s.serial})
			})
		case Message:
			if f.ChannelSerial != "" {
				s.serial = f.ChannelSerial
			}
			for _, m := range f.Messages {
				s.got = append(s.got, fmt.Sprint(m["data"]))
			}
		case Presence:
			if f.ChannelSerial != "" {
				s.serial = f.ChannelSerial
			}
			for _, m := range f.Presence {
				s.events = append(s.events, fmt.Sprint(m["action"], " ", m["clientId"]))
			}
		case Ack, Nack:
			for n := *f.MsgSerial; n < *f.MsgSerial+int64(f.Count); n++ {
				if len(s.pending) == 0 || *s.pending[0].MsgSerial != n {
					continue // again
				}
				if at, is := s.sent[n]; is {
					s.slowest = max(s.slowest, time.Since(at))
					delete(s.sent, n)
				}
				if s.pending = s.pending[1:]; f.Action == Ack {
					s.acked++
				} else {
					s.refused = append(s.refused, f.Error)
				}
			}
		}
		s.mu.Unlock()
	}
}

// String is for the messages of tests.
func (e *Error) String() string {
	b, _ := json.Marshal(e)
	return string(b)
}
