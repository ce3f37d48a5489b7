package comet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/session"
	"letshare-server/internal/socket"
	"letshare-server/internal/transport/comet"
)

// What depends on time runs in a bubble, where no sockets are.

// bubble is a door whose clients are function calls.
type bubble struct {
	t        *testing.T
	door     *comet.Door
	sessions *session.Manager
	key      string
}

// inBubble runs a test with a client that has connected and polls.
func inBubble(t *testing.T, test func(*bubble), options ...func(*comet.Options)) {
	synctest.Test(t, func(t *testing.T) {
		me := directory.Node{Name: "n1", Incarnation: "i1"}
		d := directorymemory.NewStore(directorymemory.Options{}).Node(me)
		h := hub.New(hub.Options{Engine: enginememory.NewStore(enginememory.Options{}).Node(me.Name), Directory: d, Node: me})
		app, err := auth.NewApp("app", []auth.Key{{ID: "key", Secret: "secret"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b := &bubble{t: t}
		b.sessions = session.NewManager(session.Options{
			Hub: h, Directory: d, Node: me, Auth: auth.NewAuthenticator(auth.NewRegistry(app), nil), KeySecret: []byte("secret"),
			After: func(time.Duration, func()) func() { return func() {} },
		})
		workers, wheel := socket.NewWorkers(socket.WorkersOptions{}), socket.NewWheel()
		o := comet.Options{Manager: b.sessions, Workers: workers, Wheel: wheel}
		for _, option := range options {
			option(&o)
		}
		b.door = comet.New(o)
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		for _, run := range []func(context.Context) error{b.door.Run, workers.Run, wheel.Run} {
			running.Go(func() { _ = run(ctx) })
		}
		connected := b.request(http.MethodGet, "connect?stream=false", "").frames()
		if len(connected) != 1 || connected[0].Action != 4 {
			t.Fatalf("got %+v", connected)
		}
		b.key = connected[0].Details.ConnectionKey
		test(b)
		stop()
		running.Wait()
		h.Close()
	})
}

// reply is what a request is answered with, a http.ResponseWriter that may be made slow.
type reply struct {
	t      *testing.T
	header http.Header
	gate   chan struct{} // closed: what is written passes

	mu     sync.Mutex
	status int
	body   bytes.Buffer
}

func (r *reply) Header() http.Header              { return r.header }
func (r *reply) WriteHeader(status int)           { r.status = status }
func (r *reply) Flush()                           {}
func (r *reply) SetWriteDeadline(time.Time) error { return nil }

func (r *reply) Write(b []byte) (int, error) {
	<-r.gate
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.Write(b)
}

// text is what was written so far.
func (r *reply) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.String()
}

func (r *reply) frames() (list []frame) {
	if err := json.Unmarshal([]byte(r.text()), &list); err != nil {
		r.t.Errorf("%d %q: %v", r.status, r.text(), err)
	}
	return list
}

// request makes a request, and returns its answer.
func (b *bubble) request(method, path, body string) *reply {
	gate := make(chan struct{})
	close(gate)
	r, done := b.begin(b.t.Context(), method, path, body, gate)
	<-done
	return r
}

// begin makes a request whose answer is not taken before the gate is closed.
func (b *bubble) begin(ctx context.Context, method, path, body string, gate chan struct{}) (r *reply, done chan struct{}) {
	u, err := url.Parse("/comet/" + path)
	if err != nil {
		b.t.Fatal(err)
	}
	u.RawQuery += "&" + credentials
	request := (&http.Request{Method: method, URL: u, Header: make(http.Header), RemoteAddr: "127.0.0.1:1",
		Body: http.NoBody, Host: "x"}).WithContext(ctx)
	if body != "" {
		request.Body = readCloser{strings.NewReader(body)}
	}
	r = &reply{t: b.t, header: make(http.Header), gate: gate}
	done = make(chan struct{})
	go func() {
		defer close(done)
		b.door.ServeHTTP(r, request)
	}()
	return r, done
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func (b *bubble) send(frames ...string) {
	b.t.Helper()
	if r := b.request(http.MethodPost, b.key+"/send?", "["+strings.Join(frames, ",")+"]"); r.status != http.StatusNoContent {
		b.t.Fatalf("send: %d %s", r.status, r.text())
	}
}

// Heartbeats are counted from the beginning of each request.
func TestAPollIsAnsweredBeforeTheClientGivesUp(t *testing.T) {
	inBubble(t, func(b *bubble) {
		for range 3 {
			time.Sleep(5 * time.Second)
			begun := time.Now()
			got := b.request(http.MethodGet, b.key+"/recv?", "").frames()
			if len(got) != 1 || got[0].Action != 0 {
				t.Errorf("got %+v", got)
			}
			if took := time.Since(begun); took != 14*time.Second {
				t.Errorf("after %v", took)
			}
		}
	})
}

func TestAClientMayStayAwayForAsLongAsItWouldWait(t *testing.T) {
	inBubble(t, func(b *bubble) {
		time.Sleep(24 * time.Second)
		b.request(http.MethodGet, b.key+"/recv?", "")
		begun := time.Now()
		time.Sleep(24 * time.Second)
		b.send(publish("room", 0, "x")) // only a recv counts
		if b.sessions.Count() != 1 {
			t.Fatalf("the transport ended within %v", time.Since(begun))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b.sessions.Count() != 0 || b.door.Len() != 0 {
			t.Errorf("the transport lives on after %v", time.Since(begun))
		}
	})
}

func TestAClientThatWaitsIsNotAbsent(t *testing.T) {
	inBubble(t, func(b *bubble) {
		begun := time.Now()
		got := b.request(http.MethodGet, b.key+"/recv?", "").frames()
		if took := time.Since(begun); len(got) != 1 || got[0].Action != 0 || took < 12*time.Second {
			t.Fatalf("got %+v after %v", got, took)
		}
		time.Sleep(4 * time.Second)
		b.send(attach("room"))
		if got := b.request(http.MethodGet, b.key+"/recv?", "").frames(); len(got) != 1 || got[0].Action != 11 {
			t.Errorf("got %+v", got)
		}
	}, func(o *comet.Options) { o.MaxAbsence = 5 * time.Second })
}

func TestAClientThatDoesNotAskForMoreLosesItsTransport(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.send(attach("room"))
		if got := b.request(http.MethodGet, b.key+"/recv?", "").frames(); len(got) != 1 || got[0].Action != 11 {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.sessions.Count() != 0 || b.door.Len() != 0 {
			t.Fatal("the transport lives on")
		}
		if r := b.request(http.MethodGet, b.key+"/recv?", ""); r.status != http.StatusGone {
			t.Errorf("a recv was answered with %d %s", r.status, r.text())
		}
		if r := b.request(http.MethodPost, b.key+"/send?", "["+publish("room", 0, "x")+"]"); r.status != http.StatusGone {
			t.Errorf("a send was answered with %d %s", r.status, r.text())
		}
		resumed := b.request(http.MethodGet, "connect?stream=false&resume="+b.key, "").frames()
		if len(resumed) != 1 || resumed[0].ConnectionID == "" || !strings.HasPrefix(b.key, resumed[0].ConnectionID) || resumed[0].Error != nil {
			t.Errorf("resumed as %+v", resumed)
		}
	})
}

// A stream whose client is silently gone is noticed, since streams end and a client that
// lives comes back.
func TestAStreamEndsAfterAMinuteAndTheClientIsAwaited(t *testing.T) {
	inBubble(t, func(b *bubble) {
		begun := time.Now()
		stream := b.request(http.MethodGet, "connect?", "")
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("a stream of %v", took)
		}
		lines := strings.Split(strings.TrimSuffix(stream.text(), "\n"), "\n")
		if len(lines) != 5 || !strings.Contains(lines[0], `"action":4`) || lines[4] != `[{"action":0}]` {
			t.Errorf("got %q", lines)
		}
		time.Sleep(20 * time.Second) // the client of inBubble is gone by now
		synctest.Wait()
		if b.door.Len() != 1 {
			t.Errorf("%d transports within the time that a client has", b.door.Len())
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if b.door.Len() != 0 || b.sessions.Count() != 0 {
			t.Errorf("%d transports afterwards", b.door.Len())
		}
	})
}

func TestTheLastWordsWaitForARecvAndNotForLong(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{2 * time.Second, http.StatusOK}, {4 * time.Second, http.StatusGone}} {
		inBubble(t, func(b *bubble) {
			for _, s := range b.sessions.Sessions() {
				s.Drain()
			}
			time.Sleep(c.after)
			r := b.request(http.MethodGet, b.key+"/recv?", "")
			if r.status != c.want || strings.Contains(r.text(), `"action":6`) != (c.want == http.StatusOK) {
				t.Errorf("after %v: %d %s", c.after, r.status, r.text())
			}
			synctest.Wait()
			if b.door.Len() != 0 {
				t.Errorf("the transport lives on after %v", c.after)
			}
		})
	}
}

func TestAnAnswerBeginsWhenTheOneBeforeIsWritten(t *testing.T) {
	inBubble(t, func(b *bubble) {
		slow := make(chan struct{})
		first, firstDone := b.begin(b.t.Context(), http.MethodGet, b.key+"/recv?", "", slow)
		b.send(publish("room", 0, "x")) // its ACK is what the first writes
		synctest.Wait()
		open := make(chan struct{})
		close(open)
		second, secondDone := b.begin(b.t.Context(), http.MethodGet, b.key+"/recv?", "", open)
		synctest.Wait()
		b.send(publish("room", 1, "x"))
		synctest.Wait()
		if text := second.text(); text != "" {
			t.Errorf("%s overtook the answer before it", text)
		}
		close(slow)
		<-firstDone
		<-secondDone
		for i, r := range []*reply{first, second} {
			if got := r.frames(); len(got) != 1 || got[0].Action != 1 || got[0].MsgSerial != int64(i) {
				t.Errorf("answer %d has %+v", i, got)
			}
		}
	})
}

func TestAPollThatIsCutBeforeItsAnswerLosesNothing(t *testing.T) {
	inBubble(t, func(b *bubble) {
		open := make(chan struct{})
		close(open)
		ctx, cut := context.WithCancel(b.t.Context())
		_, done := b.begin(ctx, http.MethodGet, b.key+"/recv?", "", open)
		synctest.Wait()
		cut()
		<-done
		b.send(publish("room", 0, "x"))
		if got := b.request(http.MethodGet, b.key+"/recv?", "").frames(); len(got) != 1 || got[0].Action != 1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAClientThatClosesWhileItsLastAnswerIsWrittenIsGoneAtOnce(t *testing.T) {
	inBubble(t, func(b *bubble) {
		slow := make(chan struct{})
		_, done := b.begin(b.t.Context(), http.MethodGet, b.key+"/recv?", "", slow)
		b.send(publish("room", 0, "x"))
		synctest.Wait()
		if r := b.request(http.MethodGet, b.key+"/close?", ""); r.status != http.StatusNoContent {
			t.Errorf("close: %d %s", r.status, r.text())
		}
		close(slow)
		<-done
		synctest.Wait()
		if b.door.Len() != 0 {
			t.Error("the transport lives on")
		}
	})
}

func TestAHeartbeatThatCouldNotBeSentIsSentLater(t *testing.T) {
	inBubble(t, func(b *bubble) {
		slow, open := make(chan struct{}), make(chan struct{})
		close(open)
		_, firstDone := b.begin(b.t.Context(), http.MethodGet, b.key+"/recv?", "", slow)
		b.send(publish("room", 0, "x"))
		synctest.Wait() // the first is being written
		second, secondDone := b.begin(b.t.Context(), http.MethodGet, b.key+"/recv?", "", open)
		time.Sleep(20 * time.Second)
		close(slow)
		<-firstDone
		<-secondDone
		if got := second.frames(); len(got) != 1 || got[0].Action != 0 {
			t.Errorf("got %+v", got)
		}
	})
}
