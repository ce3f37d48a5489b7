package websocket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/coder/websocket"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/outbox"
	"letshare-server/internal/session"
	"letshare-server/internal/socket"
	"letshare-server/internal/transport/websocket"
	"letshare-server/internal/wire"
	"letshare-server/internal/wsconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waiting for what must happen; nothing waits for it when all is well.
const patience = time.Minute

// host is a server with nothing but the door.
type host struct {
	url      string
	sessions *session.Manager
	ends     chan wsconn.End
}

func serve(t *testing.T, change func(*websocket.Options)) *host {
	t.Helper()
	me := directory.Node{Name: "n1", Incarnation: "i1"}
	d := directorymemory.NewStore(directorymemory.Options{}).Node(me)
	h := hub.New(hub.Options{Engine: enginememory.NewStore(enginememory.Options{}).Node(me.Name), Directory: d, Node: me})
	app, err := auth.NewApp("app", []auth.Key{{ID: "key", Secret: "secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &host{ends: make(chan wsconn.End, 100)}
	s.sessions = session.NewManager(session.Options{
		Hub: h, Directory: d, Node: me, Auth: auth.NewAuthenticator(auth.NewRegistry(app), nil), KeySecret: []byte("secret"),
		After: func(d time.Duration, f func()) func() {
			timer := time.AfterFunc(d, f)
			return func() { timer.Stop() }
		},
	})
	o := websocket.Options{
		Manager: s.sessions, Poller: socket.NewPoller(socket.PollerOptions{}), Wheel: socket.NewWheel(),
		Ended: func(e wsconn.End) { s.ends <- e },
	}
	if change != nil {
		change(&o)
	}
	o.Outbox.Wheel = o.Wheel
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = o.Poller.Run(ctx) })
	wg.Go(func() { _ = o.Wheel.Run(ctx) })
	web := httptest.NewServer(websocket.New(o))
	s.url = "ws" + strings.TrimPrefix(web.URL, "http")
	t.Cleanup(func() {
		web.Close()
		cancel()
		wg.Wait()
		h.Close()
	})
	return s
}

// peer is a client in one format.
type peer struct {
	t      testing.TB
	ws     *client.Conn
	tcp    net.Conn
	format wire.Format
	ctx    context.Context
	pings  chan struct{}
}

func (s *host) dial(t *testing.T, format wire.Format, params string) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	p := &peer{t: t, format: format, ctx: ctx, pings: make(chan struct{}, 100)}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		p.tcp, err = new(net.Dialer).DialContext(ctx, network, addr)
		return p.tcp, err
	}}
	q, err := url.ParseQuery(params)
	if err != nil {
		t.Fatal(err)
	}
	q.Set("format", format.String())
	if !q.Has("key") {
		q.Set("key", "app.key:secret")
	}
	p.ws, _, err = client.Dial(ctx, s.url+"/?"+q.Encode(), &client.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
		OnPingReceived: func(context.Context, []byte) bool {
			p.pings <- struct{}{}
			return true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.ws.SetReadLimit(8 << 20)
	t.Cleanup(func() { _ = p.ws.CloseNow() })
	return p
}

// connect dials and reads CONNECTED.
func (s *host) connect(t *testing.T, format wire.Format, params string) *peer {
	t.Helper()
	p := s.dial(t, format, params)
	p.expect(4)
	return p
}

func (p *peer) messageType(f wire.Format) client.MessageType {
	if f == wire.MsgPack {
		return client.MessageBinary
	}
	return client.MessageText
}

func (p *peer) send(pm map[string]any) { p.sendAs(p.format, pm) }

func (p *peer) sendAs(f wire.Format, pm map[string]any) {
	p.t.Helper()
	if err := p.write(f, pm); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) write(f wire.Format, pm map[string]any) error {
	b, err := encode(f, pm)
	if err != nil {
		return err
	}
	return p.ws.Write(p.ctx, p.messageType(f), b)
}

func encode(f wire.Format, pm map[string]any) ([]byte, error) {
	if f == wire.MsgPack {
		return msgpack.Marshal(pm)
	}
	return json.Marshal(pm)
}

// frame is a part of a ProtocolMessage.
type frame struct {
	Action        int
	Channel       string
	ChannelSerial string
	MsgSerial     int64
	Count         int
	ID            string
	Error         *struct{ Code, StatusCode int }
}

func (p *peer) read() (f frame, err error) {
	kind, b, err := p.ws.Read(p.ctx)
	if err != nil {
		return f, err
	}
	if kind != p.messageType(p.format) {
		return f, fmt.Errorf("a frame of type %v in %v", kind, p.format)
	}
	if p.format == wire.MsgPack {
		d := msgpack.NewDecoder(bytes.NewReader(b))
		var raw map[string]any
		if raw, err = d.DecodeMap(); err == nil {
			b, err = json.Marshal(raw)
		}
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	return f, err
}

func (p *peer) expect(action int) frame {
	p.t.Helper()
	f, err := p.read()
	if err != nil || f.Action != action {
		p.t.Fatalf("got %+v (%v), want action %d", f, err, action)
	}
	return f
}

// expectClose reads the close frame.
func (p *peer) expectClose(code client.StatusCode) {
	p.t.Helper()
	f, err := p.read()
	if client.CloseStatus(err) != code {
		p.t.Fatalf("got %+v (%v), want close code %d", f, err, code)
	}
}

func inBothFormats(t *testing.T, test func(*testing.T, wire.Format)) {
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		t.Run(f.String(), func(t *testing.T) { test(t, f) })
	}
}

func attach(channel string) map[string]any { return map[string]any{"action": 10, "channel": channel} }
func detach(channel string) map[string]any { return map[string]any{"action": 12, "channel": channel} }
func publish(channel string, msgSerial int, data any) map[string]any {
	return map[string]any{"action": 15, "channel": channel, "msgSerial": msgSerial, "messages": []any{map[string]any{"data": data}}}
}

// While others publish, a client attaches and detaches: between ATTACHED and DETACHED it
// gets everything from the position it was told, without a gap, and outside nothing. (RTL17)
func TestNothingComesBeforeAttachedOrAfterDetachedAndNothingIsMissingBetween(t *testing.T) {
	inBothFormats(t, func(t *testing.T, format wire.Format) {
		s := serve(t, nil)
		const publishers, visits = 3, 40
		watcher := s.connect(t, format, "") // sees all, and tells the order
		watcher.send(attach("room"))
		order := []string{watcher.expect(11).ChannelSerial}
		watched := make(chan string, 1<<16)
		var watching sync.WaitGroup
		watching.Go(func() {
			for {
				f, err := watcher.read()
				if err != nil {
					return // closed below
				}
				watched <- f.ChannelSerial
			}
		})
		defer watching.Wait()
		defer func() { _ = watcher.ws.CloseNow() }()

		// Members that hear nothing make the room large, and its sending slow.
		crowd := s.connect(t, format, "")
		for i := range 70 {
			crowd.send(map[string]any{"action": 10, "channel": fmt.Sprintf("[?n=%d]room", i), "flags": 131072})
			crowd.expect(11)
		}

		var (
			writing   sync.WaitGroup
			published atomic.Int64
			stop      atomic.Bool
		)
		for range publishers {
			p := s.connect(t, format, "")
			writing.Go(func() {
				for i := 0; !stop.Load(); i++ {
					if err := p.write(format, publish("room", i, "x")); err != nil {
						t.Errorf("publisher: %v", err)
						return
					}
					if f, err := p.read(); err != nil || f.Action != 1 || f.MsgSerial != int64(i) || f.Count != 1 {
						t.Errorf("publisher: %+v (%v) after %d", f, err, i)
						return
					}
					published.Add(1)
				}
			})
		}
		defer writing.Wait()
		defer stop.Store(true)
		guest := s.connect(t, format, "")
		type visit struct {
			from string
			got  []string
		}
		var seen []visit
		total := 0
		for len(seen) < visits || total == 0 { // the context bounds it
			guest.send(attach("room"))
			at := guest.expect(11).ChannelSerial
			v := visit{from: at}
			guest.send(map[string]any{"action": 0, "id": "look around"}) // stay for a moment
			for {
				f, err := guest.read()
				if err != nil {
					t.Fatal(err)
				}
				if f.Action == 0 {
					guest.send(detach("room"))
					continue
				}
				if f.Action == 13 {
					break
				}
				if f.Action != 15 || f.Channel != "room" {
					t.Fatalf("got %+v while attached", f)
				}
				v.got = append(v.got, f.ChannelSerial)
			}
			seen = append(seen, v)
			total += len(v.got)
			guest.send(map[string]any{"action": 0, "id": "outside"})
			if f, err := guest.read(); err != nil || f.Action != 0 {
				t.Fatalf("after DETACHED came %+v (%v), in visit %d, with %d messages seen", f, err, len(seen), total)
			}
		}
		stop.Store(true)
		writing.Wait()
		for range published.Load() {
			select {
			case serial := <-watched:
				order = append(order, serial)
			case <-watcher.ctx.Done():
				t.Fatalf("the watcher saw %d of %d messages", len(order)-1, published.Load())
			}
		}
		for i, v := range seen {
			start := slices.Index(order, v.from)
			if start < 0 {
				t.Fatalf("visit %d began at %s, which is no position of the channel", i, v.from)
			}
			if want := order[start+1 : min(start+1+len(v.got), len(order))]; !slices.Equal(v.got, want) {
				t.Fatalf("visit %d from entry %d got %v, want %v", i, start, v.got, want)
			}
		}
	})
}

// RTN2a
func TestFramesAreReadByTheirTypeAndAnsweredInTheFormatAskedFor(t *testing.T) {
	inBothFormats(t, func(t *testing.T, format wire.Format) {
		p := serve(t, nil).connect(t, format, "")
		p.sendAs(wire.JSON, attach("a"))
		p.expect(11)
		p.sendAs(wire.MsgPack, attach("b"))
		p.expect(11)
	})
}

func TestWhatCameBeforeAnUndecodableFrameIsAcknowledged(t *testing.T) {
	inBothFormats(t, func(t *testing.T, format wire.Format) {
		p := serve(t, nil).connect(t, format, "")
		good, err := encode(format, publish("room", 0, "x"))
		if err != nil {
			t.Fatal(err)
		}
		op := socket.OpText
		if format == wire.MsgPack {
			op = socket.OpBinary
		}
		// Both in one write, so that they are read together.
		key := [4]byte{1, 2, 3, 4}
		both := socket.AppendMaskedFrame(socket.AppendMaskedFrame(nil, op, good, key), op, []byte("{"), key)
		if _, err := p.tcp.Write(both); err != nil {
			t.Fatal(err)
		}
		p.expect(1)
		if f := p.expect(6); f.Error == nil || f.Error.Code != 80013 {
			t.Errorf("DISCONNECTED with %+v", f.Error)
		}
		p.expectClose(client.StatusNormalClosure)
	})
}

// TO3l9
func TestAFrameThatIsTooLongEndsTheTransportAndSaysWhy(t *testing.T) {
	inBothFormats(t, func(t *testing.T, format wire.Format) {
		s := serve(t, func(o *websocket.Options) { o.MaxFrameBytes = 5000 })
		p := s.connect(t, format, "")
		p.send(publish("room", 0, strings.Repeat("x", 4800)))
		p.expect(1)
		p.send(publish("room", 1, strings.Repeat("x", 5001)))
		if f := p.expect(6); f.Error == nil || f.Error.Code != 40009 || f.Error.StatusCode != 413 {
			t.Errorf("DISCONNECTED with %+v", f.Error)
		}
		p.expectClose(client.StatusMessageTooBig)
	})
}

// RTN14g
func TestARefusedClientGetsOneErrorAndIsNotListenedTo(t *testing.T) {
	inBothFormats(t, func(t *testing.T, format wire.Format) {
		s := serve(t, nil)
		p := s.dial(t, format, "key=app.key:wrong")
		if f := p.expect(9); f.Error == nil || f.Error.Code != 40101 {
			t.Errorf("ERROR with %+v", f.Error)
		}
		p.expectClose(client.StatusNormalClosure)
		if n := s.sessions.Count(); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
}

// RTN23a-b
func TestAnIdleClientGetsHeartbeatsOrPingsAsItAskedFor(t *testing.T) {
	inBothFormats(t, func(t *testing.T, format wire.Format) {
		s := serve(t, nil)
		started := time.Now()
		p := s.connect(t, format, "heartbeatInterval=1000&heartbeats=false") // 5 s at least
		var others []*peer
		for _, params := range []string{"", "&heartbeats=true"} {
			others = append(others, s.connect(t, format, "heartbeatInterval=5000"+params))
		}
		for _, other := range others {
			shortest := time.Hour // of a few, since a machine may pause; unasked it is 15 s
			for last := started; shortest > 12*time.Second && time.Since(started) < time.Minute; last = time.Now() {
				if f := other.expect(0); f.ID != "" {
					t.Errorf("a heartbeat with id %q", f.ID)
				}
				shortest = min(shortest, time.Since(last))
			}
			if took := time.Since(started); took < 2*time.Second || shortest > 12*time.Second {
				t.Errorf("heartbeats after %v, the shortest %v", took, shortest)
			}
		}
		unread := make(chan frame, 1)
		go func() { // pings are seen while reading
			f, err := p.read()
			if err == nil {
				unread <- f
			}
			close(unread)
		}()
		select {
		case <-p.pings:
		case f := <-unread:
			t.Errorf("got %+v instead of a ping", f)
		case <-time.After(patience):
			t.Error("no ping")
		}
		_ = p.ws.CloseNow()
		<-unread
	})
}

func TestAClientThatDoesNotReadIsClosedAndHoldsUpNobody(t *testing.T) {
	s := serve(t, func(o *websocket.Options) { o.Outbox = outbox.Options{MaxBytes: 256 << 10} })
	stuck := s.connect(t, wire.JSON, "")
	stuck.send(attach("room"))
	stuck.expect(11)
	good := s.connect(t, wire.MsgPack, "")
	good.send(attach("room"))
	good.expect(11)
	publisher := s.connect(t, wire.JSON, "echo=false")
	data := strings.Repeat("x", 60_000)
	sent := 0
	for closed := false; !closed; sent++ {
		if sent > 2000 {
			t.Fatal("the client that does not read is still there")
		}
		publisher.send(publish("room", sent, data))
		publisher.expect(1)
		good.expect(15)
		select {
		case end := <-s.ends:
			if end.Cause != wsconn.Slow || end.Slow != outbox.TooMuch {
				t.Fatalf("ended because of %v (%v)", end.Cause, end.Slow)
			}
			closed = true
		default:
		}
	}
	publisher.send(publish("room", sent, "last"))
	publisher.expect(1)
	good.expect(15)
	if n := s.sessions.Count(); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
}

func TestASessionEndsWithItsSocket(t *testing.T) {
	s := serve(t, nil)
	for _, leave := range []func(*peer){
		func(p *peer) { _ = p.tcp.Close() },
		func(p *peer) { _ = p.ws.Close(client.StatusNormalClosure, "") },
		func(p *peer) {
			p.send(map[string]any{"action": 7})
			p.expect(8)
			p.expectClose(client.StatusNormalClosure)
		},
		func(p *peer) {
			p.send(map[string]any{"action": 5})
			p.expectClose(client.StatusNormalClosure)
		},
	} {
		p := s.connect(t, wire.JSON, "")
		p.send(attach("room"))
		p.expect(11)
		leave(p)
		select {
		case <-s.ends:
		case <-time.After(patience):
			t.Fatal("the connection does not end")
		}
		if n := s.sessions.Count(); n != 0 {
			t.Fatalf("%d sessions are left", n)
		}
	}
}
