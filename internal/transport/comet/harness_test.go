package comet_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/session"
	"letshare-server/internal/socket"
	"letshare-server/internal/transport/comet"
	"letshare-server/internal/transport/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waiting for what must happen; nothing waits for it when all is well.
const patience = time.Minute

// host is a server with nothing but comet and WebSockets.
type host struct {
	url      string
	door     *comet.Door
	sessions *session.Manager
	counts   *counts
	stop     func() // ends the doors
}

func serve(t *testing.T, change func(*comet.Options, *http.Server)) *host {
	t.Helper()
	me := directory.Node{Name: "n1", Incarnation: "i1"}
	d := directorymemory.NewStore(directorymemory.Options{}).Node(me)
	h := hub.New(hub.Options{Engine: enginememory.NewStore(enginememory.Options{}).Node(me.Name), Directory: d, Node: me})
	app, err := auth.NewApp("app", []auth.Key{{ID: "key", Secret: "secret"}, {ID: "other", Secret: "secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &host{counts: &counts{slow: make(chan struct{}, 100)}}
	s.sessions = session.NewManager(session.Options{
		Hub: h, Directory: d, Node: me, Auth: auth.NewAuthenticator(auth.NewRegistry(app), nil), KeySecret: []byte("secret"),
		After: func(d time.Duration, f func()) func() {
			timer := time.AfterFunc(d, f)
			return func() { timer.Stop() }
		},
	})
	poller, wheel := socket.NewPoller(socket.PollerOptions{}), socket.NewWheel()
	o := comet.Options{
		Manager: s.sessions, Workers: poller.Workers(), Wheel: wheel,
		Metrics: s.counts,
	}
	web := httptest.NewUnstartedServer(nil)
	if change != nil {
		change(&o, web.Config)
	}
	s.door = comet.New(o)
	mux := http.NewServeMux()
	mux.Handle("/comet/", s.door)
	mux.Handle("/", websocket.New(websocket.Options{Manager: s.sessions, Poller: poller, Wheel: wheel}))
	web.Config.Handler = mux
	web.Start()
	s.url = web.URL

	timing, stopTime := context.WithCancel(context.Background())
	serving, stop := context.WithCancel(timing)
	var wheels, doors sync.WaitGroup
	wheels.Go(func() { _ = wheel.Run(timing) })
	doors.Go(func() { _ = s.door.Run(serving) })
	doors.Go(func() { _ = poller.Run(serving) })
	s.stop = func() {
		stop()
		doors.Wait()
	}
	t.Cleanup(func() {
		s.stop()
		web.Close()
		stopTime()
		wheels.Wait()
		h.Close()
	})
	return s
}

// counts is what the door reports.
type counts struct {
	open atomic.Int64
	slow chan struct{} // a value for each client that did not keep up
}

func (c *counts) CometOpened()        { c.open.Add(1) }
func (c *counts) CometClosed()        { c.open.Add(-1) }
func (c *counts) SlowConsumerClosed() { c.slow <- struct{}{} }

// peer is a client with a session.
type peer struct {
	t           testing.TB
	host        *host
	ctx         context.Context
	http        *http.Client
	credentials string
	stream      bool
	id, key     string

	answer  io.ReadCloser // of the connect or recv that streams
	lines   *bufio.Reader
	waiting []frame // read, and not yet asked for
}

// frame is a part of a ProtocolMessage.
type frame struct {
	Action        int
	Channel       string
	ChannelSerial string
	ConnectionID  string
	MsgSerial     int64
	Count         int
	ID            string
	Flags         int
	Error         *errorInfo
	Messages      []struct{ Data string }
	Details       struct{ ConnectionKey string } `json:"connectionDetails"`
}

type errorInfo struct{ Code, StatusCode int }

// plain are the characters that a connectionKey may have: it is put into URLs as it is.
const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!-_"

const credentials = "key=app.key:secret"

// newPeer is a client that has not connected.
func (s *host) newPeer(t testing.TB, stream bool) *peer {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	transport := &http.Transport{MaxConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &peer{t: t, host: s, ctx: ctx, http: &http.Client{Transport: transport}, credentials: credentials, stream: stream}
}

// connect opens a session and reads CONNECTED.
func (s *host) connect(t testing.TB, stream bool, params string) *peer {
	t.Helper()
	p := s.newPeer(t, stream)
	p.connect(params)
	return p
}

func (p *peer) connect(params string) frame {
	p.t.Helper()
	if !p.stream {
		params += "&stream=false"
	}
	p.open("connect?" + p.credentials + "&" + params)
	f := p.expect(4)
	p.id, p.key = f.ConnectionID, f.Details.ConnectionKey
	if strings.Trim(p.key, plain) != "" || p.key == "" {
		p.t.Fatalf("connectionKey %q", p.key)
	}
	return f
}

// request makes a request; path begins behind /comet/.
func (p *peer) request(method, path string, body io.Reader) *http.Response {
	p.t.Helper()
	r, err := p.try(method, path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *peer) try(method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(p.ctx, method, p.host.url+"/comet/"+path, body)
	if err != nil {
		return nil, err
	}
	return p.http.Do(r)
}

// open makes a connect or recv, and reads what does not stream.
func (p *peer) open(path string) {
	p.t.Helper()
	r := p.request(http.MethodGet, path, nil)
	if r.StatusCode != http.StatusOK && r.StatusCode != http.StatusNoContent {
		b, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		p.t.Fatalf("GET %s: %s %s", path, r.Status, b)
	}
	if cache := r.Header.Get("Cache-Control"); cache != "no-cache, no-transform" || r.Header.Get("X-Accel-Buffering") != "no" {
		p.t.Errorf("GET %s: headers %v", path, r.Header)
	}
	if p.stream {
		p.answer, p.lines = r.Body, bufio.NewReader(r.Body)
		p.t.Cleanup(func() { _ = r.Body.Close() })
		return
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	switch {
	case r.StatusCode == http.StatusNoContent && len(b) == 0:
	case r.StatusCode == http.StatusOK && strings.HasSuffix(string(b), "\n") && r.ContentLength == int64(len(b)):
		p.take(b)
	default:
		p.t.Fatalf("GET %s: %s %q", path, r.Status, b)
	}
}

// take keeps the frames of an array.
func (p *peer) take(array []byte) {
	p.t.Helper()
	var frames []frame
	if err := json.Unmarshal(array, &frames); err != nil || len(frames) == 0 {
		p.t.Fatalf("got %q: %v", array, err)
	}
	p.waiting = append(p.waiting, frames...)
}

// recv makes a recv.
func (p *peer) recv() {
	p.t.Helper()
	p.open(p.key + "/recv?" + p.credentials)
}

// read returns the next frame, and asks for more when there is none. At the end of a stream
// ok is false.
func (p *peer) read() (f frame, ok bool) {
	p.t.Helper()
	for len(p.waiting) == 0 {
		switch {
		case !p.stream:
			p.recv()
		case p.lines == nil:
			p.recv()
		default:
			line, err := p.lines.ReadBytes('\n')
			if err == io.EOF && len(line) == 0 {
				p.lines = nil
				return f, false
			}
			if err != nil {
				p.t.Fatalf("the stream broke off: %q, %v", line, err)
			}
			p.take(line)
		}
	}
	f = p.waiting[0]
	p.waiting = p.waiting[1:]
	return f, true
}

func (p *peer) expect(action int) frame {
	p.t.Helper()
	f, ok := p.read()
	if !ok || f.Action != action {
		p.t.Fatalf("got %+v (%v), want action %d", f, ok, action)
	}
	return f
}

// expectEnd reads the end of a stream; a client that polls is told 410.
func (p *peer) expectEnd() {
	p.t.Helper()
	if len(p.waiting) > 0 {
		p.t.Fatalf("got %+v, want the end", p.waiting)
	}
	if p.stream {
		if f, ok := p.read(); ok {
			p.t.Fatalf("got %+v, want the end", f)
		}
	}
	for { // a recv that waited when the transport ended gets 204
		r := p.request(http.MethodGet, p.key+"/recv?"+p.credentials, nil)
		if r.StatusCode != http.StatusNoContent {
			p.expectError(r, http.StatusGone, 80022)
			return
		}
		_ = r.Body.Close()
	}
}

// post makes a send, and returns its status and answer.
func (p *peer) post(body string) (int, string) {
	p.t.Helper()
	r := p.request(http.MethodPost, p.key+"/send?"+p.credentials, strings.NewReader(body))
	b, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// send sends frames, which must be accepted.
func (p *peer) send(frames ...string) {
	p.t.Helper()
	if status, body := p.post("[" + strings.Join(frames, ",") + "]"); status != http.StatusNoContent || body != "" {
		p.t.Fatalf("sent %s: %d %s", clip(strings.Join(frames, ",")), status, clip(body))
	}
}

// do makes a GET of a verb, which must be accepted.
func (p *peer) do(verb string) {
	p.t.Helper()
	r := p.request(http.MethodGet, p.key+"/"+verb+"?"+p.credentials, nil)
	_ = r.Body.Close()
	if r.StatusCode != http.StatusNoContent {
		p.t.Fatalf("%s: %s", verb, r.Status)
	}
}

// expectError checks an answer that is an error, in its body and its headers.
func (p *peer) expectError(r *http.Response, status, code int) {
	p.t.Helper()
	var body struct{ Error errorInfo }
	b, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		p.t.Fatal(err)
	}
	if r.StatusCode != status || json.Unmarshal(b, &body) != nil || body.Error != (errorInfo{code, status}) ||
		r.Header.Get("X-Ably-Errorcode") != fmt.Sprint(code) || r.Header.Get("Content-Type") != "application/json" {
		p.t.Fatalf("%s %s: %s %s %v, want %d and %d", r.Request.Method, r.Request.URL.Path, r.Status, b, r.Header, status, code)
	}
}

func clip(s string) string { return s[:min(len(s), 200)] }

func attach(channel string) string { return fmt.Sprintf(`{"action":10,"channel":%q}`, channel) }
func publish(channel string, msgSerial int, data string) string {
	return fmt.Sprintf(`{"action":15,"channel":%q,"msgSerial":%d,"messages":[{"data":%q}]}`, channel, msgSerial, data)
}

// bothWays runs a test with a client that streams and with one that polls.
func bothWays(t *testing.T, test func(t *testing.T, stream bool)) {
	t.Run("streaming", func(t *testing.T) { test(t, true) })
	t.Run("polling", func(t *testing.T) { test(t, false) })
}

// await waits until a condition holds that something else brings about soon.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// rawDial opens a TCP connection to the server.
func (s *host) rawDial(t *testing.T) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
