package comet_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/coder/websocket"

	"letshare-server/internal/outbox"
	"letshare-server/internal/transport/comet"
)

func TestWhatIsPublishedArrivesInOrder(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, nil)
		p, other := s.connect(t, stream, ""), s.connect(t, !stream, "")
		for _, p := range []*peer{p, other} {
			p.send(attach("room"))
			if f := p.expect(11); f.Channel != "room" || f.ChannelSerial == "" {
				t.Fatalf("ATTACHED %+v", f)
			}
		}
		const count = 200
		for i := 0; i < count; i += 2 {
			p.send(publish("room", i, fmt.Sprint(i)), publish("room", i+1, fmt.Sprint(i+1)))
		}
		next, acked := 0, 0
		for next < count || acked < count {
			switch f, _ := p.read(); f.Action {
			case 1:
				if f.MsgSerial != int64(acked) {
					t.Fatalf("an ACK of %d, want %d", f.MsgSerial, acked)
				}
				acked += f.Count
			case 15:
				if f.Messages[0].Data != fmt.Sprint(next) {
					t.Fatalf("message %s, want %d", f.Messages[0].Data, next)
				}
				next++
			default:
				t.Fatalf("got %+v", f)
			}
		}
		for i := range count {
			if f := other.expect(15); f.Messages[0].Data != fmt.Sprint(i) {
				t.Fatalf("the other got %s, want %d", f.Messages[0].Data, i)
			}
		}
	})
}

func TestAPollBringsTheAcknowledgementTogetherWithTheEcho(t *testing.T) {
	p := serve(t, nil).connect(t, false, "")
	if len(p.waiting) > 0 {
		t.Fatalf("with CONNECTED came %+v", p.waiting)
	}
	p.send(attach("room"), publish("room", 0, "x"))
	p.recv()
	var got []int
	for _, f := range p.waiting {
		got = append(got, f.Action)
	}
	if fmt.Sprint(got) != "[11 1 15]" {
		t.Errorf("one answer has %v, want ATTACHED, ACK and MESSAGE", got)
	}
}

func TestAnIdleAnswerHasAHeartbeat(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, func(o *comet.Options, _ *http.Server) { o.MaxIdleInterval = 1100 * time.Millisecond })
		p := s.connect(t, stream, "")
		for range 3 {
			if f := p.expect(0); f.ID != "" {
				t.Errorf("a heartbeat with id %q", f.ID)
			}
		}
	})
}

// The bounds on the times of requests are not for answers that stay open.
func TestAnAnswerStaysOpenLongerThanARequestMayTake(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, stream bool) {
		const most = 3 * time.Second
		s := serve(t, func(o *comet.Options, web *http.Server) {
			o.MaxIdleInterval = 4 * most
			web.ReadTimeout = most
		})
		p := s.connect(t, stream, "")
		if !stream {
			p.recv()
		}
		begun := time.Now()
		p.expect(0)
		if took := time.Since(begun); stream && took < 2*most {
			t.Errorf("a heartbeat after %v", took)
		}
		p.send(attach("room"))
		p.expect(11)
	})
}

func TestANewRecvTakesThePlaceOfTheOneBefore(t *testing.T) {
	t.Run("streaming", func(t *testing.T) {
		p := serve(t, nil).connect(t, true, "")
		p.send(attach("room"))
		p.expect(11)
		connect := p.lines
		p.recv()
		if line, err := connect.ReadBytes('\n'); err != io.EOF || len(line) > 0 {
			t.Errorf("the answer to connect went on with %q (%v)", line, err)
		}
		p.send(publish("room", 0, "x"))
		p.expect(1)
		p.expect(15)
	})
	t.Run("polling", func(t *testing.T) {
		p := serve(t, nil).connect(t, false, "")
		p.send(attach("room"))
		p.expect(11)
		answers := make(chan string, 2)
		for range 2 {
			go func() { answers <- p.poll() }()
		}
		if first := <-answers; first != "204 No Content" {
			t.Errorf("the first was answered with %s", first)
		}
		p.send(publish("room", 0, "x"))
		if second := <-answers; !strings.Contains(second, `"action":1,`) || !strings.Contains(second, `"action":15,`) {
			t.Errorf("the second was answered with %s", second)
		}
	})
}

// poll makes a recv on any goroutine, and returns its body or else its status.
func (p *peer) poll() string {
	r, err := p.try(http.MethodGet, p.key+"/recv?"+p.credentials, nil)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != http.StatusOK {
		return r.Status
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestNothingIsLostOrSentTwiceWhileRecvsTakeEachOthersPlace(t *testing.T) {
	s := serve(t, nil)
	p := s.connect(t, false, "echo=false")
	p.send(attach("room"))
	p.expect(11)
	const count, pollers = 500, 4
	var (
		mu      sync.Mutex
		seen    = make(map[string]int)
		polling sync.WaitGroup
		all     = make(chan struct{})
	)
	for range pollers {
		polling.Go(func() {
			for {
				answer := p.poll()
				if answer == "204 No Content" {
					continue
				}
				var frames []frame
				if json.Unmarshal([]byte(answer), &frames) != nil {
					select {
					case <-all:
					default:
						t.Errorf("a recv was answered with %s", answer)
					}
					return
				}
				mu.Lock()
				for _, f := range frames {
					if f.Action == 15 {
						seen[f.Messages[0].Data]++
						if len(seen) == count {
							close(all)
						}
					}
				}
				mu.Unlock()
			}
		})
	}
	publisher := s.connect(t, true, "")
	for i := range count {
		publisher.send(publish("room", i, fmt.Sprint(i)))
	}
	select {
	case <-all:
	case <-p.ctx.Done():
		t.Error("messages are missing")
	}
	p.do("close")
	polling.Wait()
	for data, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", data, times)
		}
	}
}

func TestAStreamThatIsCutIsNotGoneOnWith(t *testing.T) {
	s := serve(t, nil)
	p := s.connect(t, true, "")
	p.cut()
	if status, body := p.post("[]"); status != http.StatusNoContent { // it ends soon, but has not yet
		t.Errorf("a send was answered with %d %s", status, body)
	}
	id := p.id
	if f := p.connect("resume=" + p.key); f.ConnectionID != id || f.Error != nil {
		t.Errorf("resumed as %+v, want connection %s", f, id)
	}
}

// cut has the stream break off, and waits until the server knows.
func (p *peer) cut() {
	p.t.Helper()
	_ = p.answer.Close()
	await(p.t, "the stream to be lost", func() bool {
		r := p.request(http.MethodGet, p.key+"/recv?"+p.credentials, nil)
		_ = r.Body.Close()
		return r.StatusCode == http.StatusGone
	})
}

// SDKs that close drop their stream first.
func TestCloseIsHeardAfterTheStreamIsCut(t *testing.T) {
	s := serve(t, nil)
	p := s.connect(t, true, "")
	p.cut()
	p.do("close")
	await(t, "the end of the transport", func() bool { return s.door.Len() == 0 })
	if f := p.connect("resume=" + p.key); f.Error == nil || f.Error.Code != 80008 {
		t.Errorf("a closed connection was resumed: %+v", f)
	}
}

func TestMessagesOfOneConnectionAreHandledOneSendAfterTheOther(t *testing.T) {
	s := serve(t, nil)
	p := s.connect(t, true, "")
	const sends, each = 30, 20
	var sending sync.WaitGroup
	for i := range sends {
		sending.Go(func() {
			var pms []string
			for j := range each {
				pms = append(pms, publish("room", i*each+j, "x"))
			}
			r, err := p.try(http.MethodPost, p.key+"/send?"+credentials, strings.NewReader("["+strings.Join(pms, ",")+"]"))
			if err != nil {
				t.Error(err)
				return
			}
			_ = r.Body.Close()
			if r.StatusCode != http.StatusNoContent {
				t.Errorf("send: %s", r.Status)
			}
		})
	}
	acked := make(map[int64]bool)
	for len(acked) < sends*each {
		f := p.expect(1)
		for i := range f.Count {
			acked[f.MsgSerial+int64(i)] = true
		}
	}
	sending.Wait()
}

func TestABodyMayBeLargerThanAMessage(t *testing.T) {
	s := serve(t, func(o *comet.Options, _ *http.Server) { o.MaxFrameBytes = 10_000 })
	p := s.connect(t, true, "")
	var pms []string
	for i := range 100 {
		pms = append(pms, publish("room", i, strings.Repeat("x", 9000)))
	}
	p.send(pms...)
	for acked := 0; acked < 100; {
		acked += p.expect(1).Count
	}
}

// A body with something wrong in it is answered with DISCONNECTED, as a wrong frame of a
// WebSocket is: what was lost the client sends again after it has resumed.
func TestABadBodyEndsTheTransportAndHarmsNobodyElse(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, func(o *comet.Options, _ *http.Server) { o.MaxFrameBytes = 5000 })
		other := s.connect(t, stream, "")
		other.send(attach("room"))
		other.expect(11)
		for _, c := range []struct {
			what, body   string
			status, code int
		}{
			{"no JSON", "[" + publish("room", 0, "x") + ",{]", 400, 80013},
			{"no array", publish("room", 0, "x"), 400, 80013},
			{"cut short", "[" + publish("room", 0, "x"), 400, 80013},
			{"no message", "[" + publish("room", 0, "x") + `,{"action":15,"channel":7}]`, 400, 80013},
			{"nothing", "", 400, 80013},
			{"too long", "[" + publish("room", 0, "x") + "," + publish("room", 1, strings.Repeat("x", 5000)) + "]", 413, 40009},
		} {
			p := s.connect(t, stream, "")
			status, body := p.post(c.body)
			var pms []frame
			if json.Unmarshal([]byte(body), &pms) != nil || len(pms) != 1 || pms[0].Action != 6 || pms[0].Error == nil ||
				*pms[0].Error != (errorInfo{c.code, c.status}) || status != c.status {
				t.Errorf("%s: %d %s, want DISCONNECTED with %d", c.what, status, body, c.code)
			}
			if strings.HasPrefix(c.body, "[") { // what came before is acknowledged
				p.expect(1)
				other.expect(15)
			}
			p.expect(6)
			p.expectEnd()
		}
		other.send(publish("room", 0, "x"))
		other.expect(1)
		other.expect(15)
	})
}

func TestEveryRequestNeedsTheCredentialsOfTheConnection(t *testing.T) {
	s := serve(t, nil)
	p := s.connect(t, true, "clientId=anna")
	for _, verb := range []string{"recv", "send", "close", "disconnect"} {
		for _, c := range []struct {
			what, credentials string
			status, code      int
		}{
			{"none", "", 401, 40101},
			{"a wrong secret", "key=app.key:wrong", 401, 40101},
			{"another key", "key=app.other:secret", 401, 40102},
			{"another client", "key=app.key:secret&clientId=ben", 401, 40102},
		} {
			method := http.MethodGet
			if verb == "send" {
				method = http.MethodPost
			}
			p.t = t
			t.Logf("%s with %s", verb, c.what)
			p.expectError(p.request(method, p.key+"/"+verb+"?"+c.credentials, strings.NewReader(`[{"action":7}]`)), c.status, c.code)
		}
	}
	p.send(attach("room"))
	p.expect(11)
}

func TestAKeyThatNamesNoTransportIsGone(t *testing.T) {
	s := serve(t, nil)
	p := s.connect(t, true, "")
	forged := p.key[:len(p.key)-4] + "AAAA"
	for _, key := range []string{"nonsense", forged, p.id, p.id + "!", "a%20b!c", "%ff"} {
		for _, verb := range []string{"recv", "send", "close", "disconnect"} {
			method := http.MethodGet
			if verb == "send" {
				method = http.MethodPost
			}
			p.expectError(p.request(method, key+"/"+verb+"?"+credentials, nil), 410, 80022)
		}
	}
	for _, path := range []string{"", "x", p.key, p.key + "/", p.key + "/x", p.key + "/recv/x", "connect/x"} {
		p.expectError(p.request(http.MethodGet, path+"?"+credentials, nil), 404, 40400)
	}
	p.expectError(p.request(http.MethodGet, p.key+"/send?"+credentials, nil), 405, 40500)
	p.expectError(p.request(http.MethodPost, "connect?"+credentials, nil), 405, 40500)
	p.send(attach("room"))
	p.expect(11)
}

func TestARefusedConnectOpensNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, nil)
		p := s.newPeer(t, stream)
		p.expectError(p.request(http.MethodGet, "connect?key=app.key:wrong", nil), 401, 40101)
		p.expectError(p.request(http.MethodGet, "connect?v=1.2&"+credentials, nil), 400, 80024)
		await(t, "nothing to be left", func() bool { return s.sessions.Count() == 0 && s.door.Len() == 0 })
	})
}

func TestCloseEndsTheConnection(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, nil)
		for _, inBand := range []bool{true, false} {
			p := s.connect(t, stream, "")
			p.send(attach("room"), `{"action":14,"channel":"room","msgSerial":0,"presence":[{"action":2,"clientId":"anna"}]}`)
			p.expect(11)
			p.expect(1)
			p.expect(14)
			if inBand {
				p.send(`{"action":7}`)
			} else {
				p.do("close")
			}
			if inBand || stream { // a client that polls does not ask again
				p.expect(14) // its member leaves
				p.expect(8)
			}
			p.expectEnd()
			await(t, "the end of the connection", func() bool { return s.door.Len() == 0 })
			id := p.id
			if f := p.connect("resume=" + p.key); f.ConnectionID == id || f.Error == nil || f.Error.Code != 80008 {
				t.Errorf("a closed connection was resumed: %+v", f)
			}
			p.send(attach("room"))
			if f := p.expect(11); f.Flags&1 != 0 {
				t.Error("its member is still present")
			}
			p.do("close")
		}
	})
}

func TestADisconnectedConnectionIsResumed(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, nil)
		publisher := s.connect(t, !stream, "")
		for i, inBand := range []bool{true, false} {
			p := s.connect(t, stream, "")
			p.send(attach("room"))
			at := p.expect(11).ChannelSerial
			if inBand {
				p.send(`{"action":5}`)
			} else {
				p.do("disconnect")
			}
			p.expectEnd()
			publisher.send(publish("room", i, "missed"), `{"action":0,"id":"done"}`)
			for f, _ := publisher.read(); f.ID != "done"; f, _ = publisher.read() {
			}
			id, old := p.id, p.key
			if f := p.connect("resume=" + p.key); f.ConnectionID != id || f.Error != nil || p.key == old {
				t.Fatalf("resumed as %+v, want connection %s with another key", f, id)
			}
			p.send(fmt.Sprintf(`{"action":10,"channel":"room","channelSerial":%q}`, at))
			if f := p.expect(11); f.Flags&4 == 0 {
				t.Errorf("ATTACHED without RESUMED: %+v", f)
			}
			if f := p.expect(15); f.Messages[0].Data != "missed" {
				t.Errorf("got %+v", f)
			}
			p.expectError(p.request(http.MethodGet, old+"/recv?"+credentials, nil), 410, 80016)
			p.do("close")
		}
	})
}

// ws is a client on a WebSocket.
type ws struct {
	p    *peer
	conn *client.Conn
}

func (p *peer) dialWebSocket(params string) *ws {
	p.t.Helper()
	conn, _, err := client.Dial(p.ctx, "ws"+strings.TrimPrefix(p.host.url, "http")+"/?"+credentials+"&"+params, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.CloseNow() })
	return &ws{p, conn}
}

func (w *ws) expect(action int) (f frame) {
	w.p.t.Helper()
	_, b, err := w.conn.Read(w.p.ctx)
	if err != nil || json.Unmarshal(b, &f) != nil || f.Action != action {
		w.p.t.Fatalf("got %s (%v), want action %d", b, err, action)
	}
	return f
}

func (w *ws) send(frame string) {
	w.p.t.Helper()
	if err := w.conn.Write(w.p.ctx, client.MessageText, []byte(frame)); err != nil {
		w.p.t.Fatal(err)
	}
}

func TestAConnectionMovesToAWebSocketAndBack(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, nil)
		p := s.connect(t, stream, "")
		p.send(attach("room"), publish("room", 0, "a"))
		at := p.expect(11).ChannelSerial
		p.expect(1)
		p.expect(15)
		id, old := p.id, p.key

		w := p.dialWebSocket("resume=" + p.key)
		f := w.expect(4)
		if f.ConnectionID != id || f.Error != nil {
			t.Fatalf("resumed as %+v, want connection %s", f, id)
		}
		if stream { // ended silently
			if f, ok := p.read(); ok {
				t.Errorf("the old transport got %+v", f)
			}
		}
		p.expectError(p.request(http.MethodGet, old+"/recv?"+credentials, nil), 410, 80016)
		// The WebSocket's key is no good here.
		p.expectError(p.request(http.MethodGet, f.Details.ConnectionKey+"/recv?"+credentials, nil), 410, 80016)
		w.send(fmt.Sprintf(`{"action":10,"channel":"room","channelSerial":%q}`, at))
		w.expect(11)
		if f := w.expect(15); f.Messages[0].Data != "a" {
			t.Errorf("got %+v", f)
		}
		w.send(publish("room", 1, "b"))
		w.expect(1)
		at = w.expect(15).ChannelSerial

		if f := p.connect("resume=" + f.Details.ConnectionKey); f.ConnectionID != id || f.Error != nil {
			t.Fatalf("resumed as %+v, want connection %s", f, id)
		}
		if _, b, err := w.conn.Read(p.ctx); client.CloseStatus(err) != client.StatusNormalClosure {
			t.Errorf("the WebSocket got %s (%v)", b, err)
		}
		// A publish that is sent again is known by its number.
		p.send(publish("room", 1, "b"), fmt.Sprintf(`{"action":10,"channel":"room","channelSerial":%q}`, at), publish("room", 2, "c"))
		p.expect(11)
		if f := p.expect(1); f.MsgSerial != 1 || f.Count != 2 {
			t.Errorf("ACK %+v, want of 1 and 2", f)
		}
		if f := p.expect(15); f.Messages[0].Data != "c" {
			t.Errorf("got %+v", f)
		}
	})
}

func TestAClientThatDoesNotReadItsStreamIsClosedAndHoldsUpNobody(t *testing.T) {
	s := serve(t, func(o *comet.Options, _ *http.Server) { o.Outbox = outbox.Options{MaxBytes: 256 << 10} })
	stuck := s.connect(t, true, "")
	stuck.send(attach("room"))
	stuck.expect(11)
	good := s.connect(t, true, "")
	good.send(attach("room"))
	good.expect(11)
	publisher := s.connect(t, true, "echo=false")
	s.floodUntilSlow(publisher, good)
	await(t, "the end of the transport", func() bool { return s.sessions.Count() == 2 && s.counts.open.Load() == 2 && s.door.Len() == 2 })
}

func TestWhatWaitsForAnAbsentClientIsBounded(t *testing.T) {
	s := serve(t, func(o *comet.Options, _ *http.Server) { o.Outbox = outbox.Options{MaxBytes: 256 << 10} })
	absent := s.connect(t, false, "")
	absent.send(attach("room"))
	absent.expect(11)
	publisher := s.connect(t, true, "echo=false")
	if sent := s.floodUntilSlow(publisher, nil); sent > 6 {
		t.Errorf("it took %d messages of 60 kB", sent)
	}
	absent.expectEnd()
	if f := absent.connect("resume=" + absent.key); f.Error != nil {
		t.Errorf("resumed with %+v", f)
	}
}

// floodUntilSlow publishes until a client is told to be slow, and returns how often. Another
// one gets everything meanwhile.
func (s *host) floodUntilSlow(publisher, good *peer) (sent int) {
	publisher.t.Helper()
	data := strings.Repeat("x", 60_000)
	for ; ; sent++ {
		if sent > 2000 {
			publisher.t.Fatal("the client that does not read is still there")
		}
		publisher.send(publish("room", sent, data))
		publisher.expect(1)
		if good != nil {
			good.expect(15)
		}
		select {
		case <-s.counts.slow:
			return sent
		default:
		}
	}
}

func TestAnAnswerThatIsNotTakenEndsTheTransport(t *testing.T) {
	t.Parallel()
	s := serve(t, func(o *comet.Options, _ *http.Server) {
		o.Outbox = outbox.Options{MaxAge: 3 * time.Second, MaxBytes: 64 << 20}
	})
	stuck := s.connect(t, true, "")
	stuck.send(attach("room"))
	stuck.expect(11)
	publisher := s.connect(t, true, "echo=false")
	data := strings.Repeat("x", 60_000)
	for i := range 500 { // more than sockets hold, and less than MaxBytes
		publisher.send(publish("room", i, data))
		publisher.expect(1)
	}
	await(t, "the end of the client that does not read", func() bool { return s.sessions.Count() == 1 })
	publisher.send(publish("room", 500, "x"))
	publisher.expect(1)
}

func TestADrainedClientIsToldWhereverItIs(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, nil)
		waits := s.connect(t, stream, "")
		answer := make(chan string, 1)
		if !stream {
			go func() { answer <- waits.poll() }()
		}
		absent := s.connect(t, false, "")
		for _, session := range s.sessions.Sessions() {
			session.Drain()
		}
		if stream {
			if f := waits.expect(6); f.Error == nil || f.Error.Code != 80003 {
				t.Errorf("DISCONNECTED with %+v", f.Error)
			}
			waits.expectEnd()
		} else if a := <-answer; !strings.Contains(a, `"action":6,`) || !strings.Contains(a, "80003") {
			t.Errorf("the poll was answered with %s", a)
		}
		if f := absent.expect(6); f.Error == nil || f.Error.Code != 80003 {
			t.Errorf("DISCONNECTED with %+v", f.Error)
		}
		absent.expectEnd()
		await(t, "everybody to be gone", func() bool { return s.door.Len() == 0 })
	})
}

func TestTheDoorStopsWithAnswersOpen(t *testing.T) {
	bothWays(t, func(t *testing.T, stream bool) {
		s := serve(t, nil)
		p := s.connect(t, stream, "")
		answer := make(chan string, 1)
		if !stream {
			go func() { answer <- p.poll() }()
		}
		slow := s.rawDial(t) // a send whose body does not come
		if _, err := fmt.Fprintf(slow, "POST /comet/%s/send?%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[", p.key, credentials); err != nil {
			t.Fatal(err)
		}
		_ = slow.(*net.TCPConn).CloseWrite()
		s.stop()
		if n := s.sessions.Count(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		if !stream {
			<-answer
		}
		p.expectError(p.request(http.MethodGet, "connect?"+credentials, nil), 503, 50005)
	})
}

// Requests that come after one another on one connection do not inherit its time bounds.
func TestAConnectionIsUsedAgainAfterAPoll(t *testing.T) {
	t.Parallel()
	const most = 2 * time.Second
	s := serve(t, func(o *comet.Options, _ *http.Server) { o.Outbox = outbox.Options{MaxAge: most} })
	p := s.connect(t, false, "")
	raw := s.rawDial(t)
	answers := bufio.NewReader(raw)
	for i := range 2 {
		p.send(publish("room", i, "x"))
		if _, err := fmt.Fprintf(raw, "GET /comet/%s/recv?%s HTTP/1.1\r\nHost: x\r\n\r\n", p.key, credentials); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK || r.Close {
			t.Fatalf("%s %s (%v)", r.Status, b, err)
		}
		_ = r.Body.Close()
		await(t, "the bound to be over", func() func() bool {
			over := time.Now().Add(most + 100*time.Millisecond)
			return func() bool { return time.Now().After(over) }
		}())
	}
}
