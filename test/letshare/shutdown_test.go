package letshare_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestAStoppingServerSaysGoodbyeToEverybody(t *testing.T) {
	t.Parallel()
	const grace = 4 * time.Second
	s := start(t, settings{env: []string{"LETSHARE_SERVER_SHUTDOWN_GRACE=" + grace.String()}})
	const each = 5
	var (
		sdks    []*ably
		members []*client
		ends    = make(chan time.Duration, 2*each)
	)
	for n := range each {
		a, c := s.connectAbly(t, ""), s.connect(t, fmt.Sprint("user", n))
		a.attach("room")
		c.subscribe("room")
		sdks, members = append(sdks, a), append(members, c)
	}
	began := time.Now()
	s.signal(syscall.SIGTERM)
	for _, a := range sdks {
		go func() {
			code := any(nil)
			for m := range a.frames {
				if m["action"] == json.Number(actionDisconnected) {
					e, _ := m["error"].(map[string]any)
					code = e["code"]
				}
			}
			if code != json.Number("80003") {
				t.Errorf("an SDK client is disconnected with %v (%v), want 80003", code, a.end)
			}
			ends <- time.Since(began)
		}()
	}
	for _, c := range members {
		go func() {
			for range c.frames {
			}
			if code := websocket.CloseStatus(c.end); code != websocket.StatusGoingAway {
				t.Errorf("a member is closed with %v, want 1001", c.end)
			}
			ends <- time.Since(began)
		}()
	}
	eventually(t, patience, "the server has begun to stop", func() bool { return strings.Contains(s.output(), `"stopping"`) })
	if _, answer, err := s.tryDial(t, "/ws?token="+tokenFor("late")); err == nil || answer != nil && answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("an upgrade while stopping: %v %v", answer, err)
	}
	first, last := grace*100, time.Duration(0)
	for range 2 * each {
		select {
		case at := <-ends:
			first, last = min(first, at), max(last, at)
		case <-time.After(patience):
			t.Fatal("somebody was not told")
		}
	}
	if last-first < grace/4 {
		t.Errorf("all were told within %v of a grace period of %v: they come back all at once", last-first, grace)
	}
	if last > grace+patience/2 {
		t.Errorf("the last was told after %v", last)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		t.Fatal("the server does not end")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0\n%s", code, s.errors())
	}
	if took := time.Since(began); took > grace+patience/2 {
		t.Errorf("stopping took %v", took)
	}
	if _, err := web.Get("http://" + s.addr + "/health"); err == nil {
		t.Error("somebody answers still")
	}
}

func TestMessagesOnTheirWayAreDeliveredBeforeTheEnd(t *testing.T) {
	t.Parallel()
	s := start(t, settings{})
	c, other := s.connect(t, "anna"), s.connect(t, "bert")
	c.subscribe("room")
	other.subscribe("room")
	for n := range 100 {
		c.publish("room", fmt.Sprintf(`{"from":%d}`, n))
	}
	c.works() // the server has taken them all
	s.signal(syscall.SIGTERM)
	for n := range 100 {
		other.expect("room", "signal:all", fmt.Sprintf(`{"from":%d}`, n))
	}
	other.expectEnd(websocket.StatusGoingAway)
}

func TestAStoppingServerDoesNotWaitForASilentPeerForEver(t *testing.T) {
	t.Parallel()
	s := start(t, settings{})
	p := s.raw(t, "anna")
	p.subscribe("room") // and never reads or answers again
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("stopping took %v with a grace period of 500 ms", took)
	}
}

func TestAnInterruptStopsTheServerToo(t *testing.T) {
	t.Parallel()
	s := start(t, settings{})
	c := s.connect(t, "anna")
	s.signal(syscall.SIGINT)
	c.expectEnd(websocket.StatusGoingAway)
	<-s.exited
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestAPortThatIsTakenIsAnErrorThatNamesTheSetting(t *testing.T) {
	t.Parallel()
	_, port, _ := strings.Cut(shared.addr, ":")
	s, err := launch(t.TempDir(), settings{env: []string{"LETSHARE_SERVER_PORT=" + port}, without: []string{"LETSHARE_SERVER_PORT"}})
	if err == nil {
		_ = s.stop()
		t.Fatal("two servers listen on one port")
	}
	if !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "LETSHARE_SERVER_PORT") {
		t.Errorf("got %v", err)
	}
}
