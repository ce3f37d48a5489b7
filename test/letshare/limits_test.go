package letshare_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// expectReason expects an error with a reason.
func (c *client) expectReason(reason string) {
	c.t.Helper()
	m := c.next()
	if e, _ := m["error"].(map[string]any); m["type"] != "error" || e["reason"] != reason {
		c.t.Fatalf("got %v, want an error with reason %s", m, reason)
	}
}

// aMinuteful checks that a rate of 1 per second with a burst of a minute allows as many as it
// should: try reports whether it was allowed once more.
func aMinuteful(t *testing.T, what string, try func() bool) {
	t.Helper()
	began, allowed := time.Now(), 0
	for try() {
		if allowed++; allowed > 60+int(time.Since(began)/time.Second)+1 {
			t.Fatalf("%s: %d were allowed in %v", what, allowed, time.Since(began))
		}
	}
	if allowed < 60 {
		t.Errorf("%s: %d were allowed", what, allowed)
	}
}

// exceeded reports whether a limit was exceeded so many times.
func (i *instance) exceeded(t testing.TB, limit, times string) bool {
	t.Helper()
	return strings.Contains(i.request(t, "GET", "/metrics?format=prometheus").body, `letshare_limit_exceeded_total{limit="`+limit+`"} `+times+"\n")
}

func TestWhatIsSentTooFastIsRefused(t *testing.T) {
	t.Parallel()
	for setting, name := range map[string]string{
		"LETSHARE_LIMITS_CONNECTION_MESSAGES_PER_SECOND=1": "connection_messages_per_second",
		"LETSHARE_LIMITS_CHANNEL_MESSAGES_PER_SECOND=1":    "channel_messages_per_second",
	} {
		s := start(t, settings{env: []string{setting, "LETSHARE_LIMITS_BURST=1m"}})
		c, other := s.connect(t, "anna"), s.connect(t, "bert")
		c.subscribe("room")
		other.subscribe("room")
		aMinuteful(t, name, func() bool {
			c.publish("room", `{"from":"a"}`)
			c.send(`{"type":"unsubscribe","channel":"nowhere"}`) // which is answered in any case
			m := c.next()
			if m["type"] != "error" {
				other.expect("room", "signal:all", `{"from":"a"}`)
				return true
			}
			if e, _ := m["error"].(map[string]any); e["reason"] != "rate_limited" {
				t.Fatalf("got %v", m)
			}
			c.next()
			return false
		})
		if !s.exceeded(t, name, "1") {
			t.Errorf("%s is not counted", name)
		}
		c.subscribe("room", "other") // it goes on
	}
}

func TestAServerHasSoManyRooms(t *testing.T) {
	t.Parallel()
	s := start(t, settings{env: []string{"LETSHARE_LIMITS_APP_CHANNELS=2", "LETSHARE_WEBSOCKET_MAX_ROOM_USERS=1"}})
	c, other := s.connect(t, "anna"), s.connect(t, "bert")
	c.subscribe("room one")
	c.subscribe("room two")
	other.send(`{"type":"subscribe","channel":"room 3"}`)
	other.expectReason("server_full")
	other.send(`{"type":"subscribe","channel":"room one"}`)
	other.expectReason("room_full")
	c.leave("room two")
	other.subscribe("room 3")
	if !s.exceeded(t, "app_channels", "1") || !s.exceeded(t, "max_room_users", "1") {
		t.Error("not counted")
	}
}

func TestAHangupChangesLimitsAndDropsNobody(t *testing.T) {
	t.Parallel()
	s := start(t, settings{file: "limits: {channels_per_connection: 1}\n"})
	c, a := s.connect(t, "anna"), s.connectAbly(t, "")
	c.subscribe("room one")
	c.send(`{"type":"subscribe","channel":"room two"}`)
	c.expectReason("too_many_rooms")
	// A profile gives what the file does not say.
	text := "limits: {profile: ably, channels_per_connection: 2, outbox_bytes: 5000000, burst: 1m, connection_messages_per_second: 1}\n"
	if err := os.WriteFile(filepath.Join(s.dir, "configs", "local.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the configuration is reloaded", func() bool { return strings.Contains(s.output(), "configuration reloaded") })
	if !strings.Contains(s.output(), `"setting":"limits.outbox_bytes"`) {
		t.Error("nobody is told that outbox_bytes needs a restart")
	}
	c.subscribe("room two")
	c.send(`{"type":"subscribe","channel":"room 3"}`)
	c.expectReason("too_many_rooms")
	aMinuteful(t, "after the hangup", func() bool {
		a.publish("room one", `{"data":"x"}`)
		m := <-a.frames
		if e, _ := m["error"].(map[string]any); m["action"] == json.Number(actionNack) && e["code"] != json.Number("42911") {
			t.Fatalf("got %v", m)
		}
		return m["action"] == json.Number(actionAck)
	})
}
