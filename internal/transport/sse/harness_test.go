package sse_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
	"letshare-server/internal/transport/sse"
)

const (
	key = "app.key:secret"

	// patience bounds waiting for what must happen; nothing waits for it when all is well.
	patience = time.Minute

	// streamPatience bounds a whole answer, which lasts for as long as its test has a use for it.
	streamPatience = 2 * time.Minute
)

// anyone is a grant to do everything in the app.
var anyone = &auth.Grant{App: "app", KeyName: "app.key", ClientRule: auth.ClientAny, Capability: auth.FullCapability}

// kit is a door with all that is behind it, and a server in front.
type kit struct {
	apps  *auth.Registry
	door  *sse.Door
	hub   *hub.Hub
	auth  *auth.Authenticator
	url   string
	pipes bool
	http2 bool
	dial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil: the usual
	count counts
}

// counts implements sse.Metrics.
type counts struct{ opened, closed, slow atomic.Int64 }

func (c *counts) StreamOpened()             { c.opened.Add(1) }
func (c *counts) StreamClosed()             { c.closed.Add(1) }
func (c *counts) StreamRefused(pubsub.Code) {}
func (c *counts) SlowConsumerClosed()       { c.slow.Add(1) }

// settings are what tests choose.
type settings struct {
	door   sse.Options
	store  enginememory.Options
	poller socket.PollerOptions
	limits limit.Limits
	pipes  bool // no network, so that time may be a test's
	http2  bool
	spy    *spy // on the engine; nil: none
}

func newKit(t testing.TB, choose ...func(*settings)) *kit {
	t.Helper()
	var set settings
	for _, f := range choose {
		f(&set)
	}
	me := directory.Node{Name: "n1", Incarnation: "i1"}
	capability := func(text string) *auth.Capability {
		c, err := auth.ParseCapability(text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	app, err := auth.NewApp("app", []auth.Key{
		{ID: "key", Secret: "secret"},
		{ID: "wide", Secret: "secret", Capability: capability(`{"[*]*":["*"]}`)},
		{ID: "some", Secret: "secret", Capability: capability(`{"open":["subscribe"],"writable":["publish","history"]}`)},
	}, []auth.Namespace{{ID: "known", Identified: true}})
	if err != nil {
		t.Fatal(err)
	}
	store := engine.Engine(enginememory.NewStore(set.store).Node(me.Name))
	if set.spy != nil {
		set.spy.Engine, store = store, set.spy
	}
	dir := directorymemory.NewStore(directorymemory.Options{}).Node(me)
	k := &kit{pipes: set.pipes, http2: set.http2, hub: hub.New(hub.Options{
		Engine:    store,
		Directory: dir, Node: me,
		Namespace: func(_, channel string) auth.Namespace { return app.Namespace(channel) },
		Limits:    limit.NewSet(set.limits, limit.Options{}),
	})}
	k.apps = auth.NewRegistry(app)
	k.auth = auth.NewAuthenticator(k.apps, nil, auth.WithNonces(dir))
	wheel, poller := socket.NewWheel(), socket.NewPoller(set.poller)
	o := set.door
	o.Hub, o.Wheel, o.Poller, o.Metrics = k.hub, wheel, poller, &k.count
	if o.Auth == nil {
		o.Auth = k.auth
	}
	k.door = sse.New(o)

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = wheel.Run(ctx) })
	wg.Go(func() { _ = poller.Run(ctx) })
	server := &http.Server{Handler: k.door, Protocols: k.protocols()}
	l := net.Listener(newPipes())
	k.url, k.dial = "http://pipes", l.(*pipes).dial
	if !set.pipes {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		k.url, k.dial = "http://"+l.Addr().String(), nil
	}
	wg.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		cancel()
		wg.Wait()
		k.hub.Close()
		if opened, closed := k.count.opened.Load(), k.count.closed.Load(); opened != closed {
			t.Errorf("%d streams were opened, and %d closed", opened, closed)
		}
		if n := k.hub.Rooms(); n != 0 {
			t.Errorf("%d channels are still attached", n)
		}
	})
	return k
}

// spy is an engine whose subscriber a test gets at, and whose reading it may hold up.
type spy struct {
	engine.Engine

	mu         sync.Mutex
	subscriber engine.Subscriber // of the channel that was attached last
	onRead     func() error
}

// reading makes f what comes before each Read; nil: nothing.
func (s *spy) reading(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onRead = f
}

// lose makes the engine say that it lost something.
func (s *spy) lose(before pubsub.Serial) {
	s.mu.Lock()
	sub := s.subscriber
	s.mu.Unlock()
	sub.Lost(before)
	sub.Flush()
}

func (s *spy) Subscribe(ctx context.Context, id pubsub.ChannelID, sub engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	s.mu.Lock()
	s.subscriber = sub
	s.mu.Unlock()
	return s.Engine.Subscribe(ctx, id, sub)
}

func (s *spy) Read(ctx context.Context, id pubsub.ChannelID, q engine.Query) (engine.Page, error) {
	s.mu.Lock()
	onRead := s.onRead
	s.mu.Unlock()
	if onRead != nil {
		if err := onRead(); err != nil {
			return engine.Page{}, err
		}
	}
	return s.Engine.Read(ctx, id, q)
}

// pipes is a listener without a network.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// protocols are those of both sides; nil means HTTP/1.1.
func (k *kit) protocols() *http.Protocols {
	if !k.http2 {
		return nil
	}
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// get makes a request. The path has the parameters; the key is that of the app unless the
// request has credentials.
func (k *kit) get(t testing.TB, path string, header ...string) *http.Response {
	t.Helper()
	return k.do(t, http.MethodGet, path, header...)
}

func (k *kit) do(t testing.TB, method, path string, header ...string) *http.Response {
	t.Helper()
	wait := streamPatience
	if k.pipes {
		wait = time.Hour // of the test's clock
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	req, err := http.NewRequestWithContext(ctx, method, k.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	q := req.URL.Query()
	if !q.Has("key") && !q.Has("access_token") && !q.Has("accessToken") && req.Header.Get("Authorization") == "" {
		user, password, _ := strings.Cut(key, ":")
		req.SetBasicAuth(user, password)
	}
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, DialContext: k.dial, Protocols: k.protocols(),
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 256 << 10},
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close(); cancel() })
	return res
}

// event is one event as an EventSource tells it, or one line.
type event struct {
	id, name, data string
	comment        bool // a keepalive
}

// message reads the data as an enveloped message.
func (e event) message(t testing.TB) (m message) {
	t.Helper()
	if err := json.Unmarshal([]byte(e.data), &m); err != nil {
		t.Fatalf("%v in %q", err, e.data)
	}
	return m
}

// message is a message, a presence message or an error.
type message struct {
	ID, Name, Data, Encoding, Channel, ClientID, ConnectionID string
	Serial, Message                                           string
	Action, Code, StatusCode                                  int
	Timestamp                                                 int64
}

// client reads a stream as the standard says that an EventSource does.
type client struct {
	t        testing.TB
	response *http.Response
	r        *bufio.Reader
	lines    bool
	lastID   string
	retry    string
	comments bool // keepalives are told too
}

// open opens a stream and fails the test if it cannot.
func (k *kit) open(t testing.TB, path string, header ...string) *client {
	t.Helper()
	c := &client{t: t, response: k.get(t, path, header...)}
	c.r = bufio.NewReader(c.response.Body)
	switch ct := c.response.Header.Get("Content-Type"); {
	case c.response.StatusCode != http.StatusOK:
		body, _ := io.ReadAll(c.response.Body)
		t.Fatalf("%s: %s %s", path, c.response.Status, body)
	case ct == "application/x-ndjson":
		c.lines = true
	case ct != "text/event-stream":
		t.Fatalf("%s: Content-Type is %q", path, ct)
	}
	return c
}

func (c *client) close() { _ = c.response.Body.Close() }

// read returns the next event, or the error that ended the stream.
func (c *client) read() (event, error) {
	if c.lines {
		return c.readLine()
	}
	var e event
	var data []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return e, err // what is incomplete does not count
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if e.id != "" {
				c.lastID = e.id
			}
			if data != nil {
				e.data = strings.Join(data, "\n")
				return e, nil
			}
			e = event{}
		case field == "":
			if c.comments {
				return event{comment: true, data: value}, nil
			}
		case field == "id":
			e.id = value
		case field == "event":
			e.name = value
		case field == "data":
			data = append(data, value)
		case field == "retry":
			c.retry = value
		default:
			c.t.Errorf("unknown field in %q", line)
		}
	}
}

func (c *client) readLine() (event, error) {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return event{}, err
		}
		if line == "\n" {
			if c.comments {
				return event{comment: true}, nil
			}
			continue
		}
		var object struct{ ID, Event, Data string }
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			c.t.Errorf("%v in %q", err, line)
		}
		if object.ID != "" {
			c.lastID = object.ID
		}
		return event{id: object.ID, name: object.Event, data: object.Data}, nil
	}
}

// next returns the next event.
func (c *client) next() event {
	c.t.Helper()
	e, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for an event: %v", err)
	}
	return e
}

// ends fails the test unless the stream ends without another event.
func (c *client) ends() {
	c.t.Helper()
	if e, err := c.read(); !errors.Is(err, io.EOF) {
		c.t.Errorf("instead of the end: %+v %v", e, err)
	}
}

// texts returns the data of the next n messages.
func (c *client) texts(n int) string {
	c.t.Helper()
	var all []string
	for range n {
		e := c.next()
		if e.name != "message" {
			c.t.Fatalf("%+v instead of a message", e)
		}
		all = append(all, e.message(c.t).Data)
	}
	return strings.Join(all, " ")
}

func name(s string) pubsub.ChannelName {
	n, err := pubsub.ParseChannelName(s)
	if err != nil {
		panic(err)
	}
	return n
}

// publish publishes messages together.
func (k *kit) publish(t testing.TB, channel string, messages ...*pubsub.Message) {
	t.Helper()
	var turn hub.Turn
	err := k.hub.Publish(&turn, &hub.Publish{Grant: anyone, Channel: name(channel), Messages: messages}, func(p hub.Published) {
		if p.Err != nil {
			t.Error(p.Err)
		}
	})
	turn.End()
	if err != nil {
		t.Error(err)
	}
}

// say publishes texts together.
func (k *kit) say(t testing.TB, channel string, texts ...string) {
	t.Helper()
	var all []*pubsub.Message
	for _, s := range texts {
		all = append(all, &pubsub.Message{Name: "n", Data: pubsub.Text(s)})
	}
	k.publish(t, channel, all...)
}

// present changes who is present.
func (k *kit) present(t testing.TB, channel string, msgSerial int64, items ...*pubsub.PresenceMessage) {
	t.Helper()
	var turn hub.Turn
	err := k.hub.Presence(t.Context(), &turn, &hub.Presence{
		Grant: anyone, Channel: name(channel), Items: items, ConnectionID: "conn", MsgSerial: msgSerial,
	})
	turn.End()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting for %s", what)
		}
	}
}

func params(pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return "?v=1.2&" + q.Encode()
}

// smallOutbox makes queues of so many bytes.
func smallOutbox(bytes int) func(*settings) {
	return func(s *settings) { s.door.Outbox = outbox.Options{MaxBytes: bytes} }
}
