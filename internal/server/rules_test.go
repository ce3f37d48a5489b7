package server

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"letshare-server/internal/config"
)

// adopt reloads the configuration with other namespaces.
func (n *node) adopt(namespaces ...config.Namespace) {
	n.t.Helper()
	c := n.config
	c.Namespaces = namespaces
	if restart, err := n.Reload(c, n.secrets); err != nil || len(restart) > 0 {
		n.t.Fatal(restart, err)
	}
}

// says sends a message, and read returns the next.
func (s *client) says(text string) {
	s.t.Helper()
	if err := s.ws.Write(context.Background(), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *client) read() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := s.ws.Read(ctx)
	if err != nil {
		s.t.Fatalf("reading: %v", err)
	}
	return string(text)
}

func (s *client) hears(parts ...string) {
	s.t.Helper()
	got := s.read()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			s.t.Fatalf("got %s, want it with %s", got, part)
		}
	}
}

func TestAChangedRuleReachesEveryDoor(t *testing.T) {
	n := run(t)
	key := "mine.one:" + testSecret
	stream := func(channels string) (next func() string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.addr+"/event-stream?v=1.2&channels="+channels, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("mine.one", testSecret)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v %v", res, err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		lines := bufio.NewReader(res.Body)
		return func() string {
			t.Helper()
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return err.Error()
				}
				if line = strings.TrimSpace(line); line != "" {
					return line
				}
			}
		}
	}
	ably, visitor := n.ably("key="+key), n.dial("/ws?token="+n.visitor("bob"))
	barred, spared := stream("safe,free"), stream("free")
	for _, channel := range []string{"safe", "free"} {
		ably.says(`{"action":10,"channel":"` + channel + `"}`)
		ably.hears(`"action":11`)
		visitor.says(`{"type":"subscribe","channel":"` + channel + `"}`)
		visitor.hears(`"subscribed"`, channel)
	}

	n.adopt(config.Namespace{ID: "safe", TLSOnly: true})
	ably.hears(`"action":9`, `"channel":"safe"`, `"code":40311`)
	visitor.hears(`"type":"error"`, `"reason":"forbidden"`)
	if line := barred(); !strings.Contains(line, `"event":"error"`) || !strings.Contains(line, "40311") {
		t.Errorf("event stream: %s", line)
	}
	if line := barred(); line != "EOF" {
		t.Errorf("the event stream goes on with %s", line)
	}

	// All else goes on.
	if status, answer := n.post("/channels/free/messages", key, `{"name":"signal:all","data":{"x":1}}`); status != 201 {
		t.Fatal(status, answer)
	}
	ably.hears(`"action":15`, `"channel":"free"`)
	visitor.hears(`"x":1`)
	if line := spared(); !strings.Contains(line, "free") {
		t.Errorf("another event stream: %s", line)
	}
	visitor.says(`{"type":"publish","channel":"safe","data":{"x":2}}`)
	visitor.hears(`"reason":"not_subscribed"`)
	visitor.says(`{"type":"subscribe","channel":"safe"}`)
	visitor.hears(`"reason":"forbidden"`)

	n.adopt()
	visitor.says(`{"type":"subscribe","channel":"safe"}`)
	visitor.hears(`"subscribed"`, "safe")
	ably.says(`{"action":10,"channel":"safe"}`)
	ably.hears(`"action":11`, `"channel":"safe"`)
}

func TestARuleThatIsChangedAtRunTimeReachesAttachments(t *testing.T) {
	a := administer(t, nil)
	app, _, key := a.app()
	a.must(201, "POST", "/v1/apps/"+app+"/namespaces", `{"id":"safe"}`)
	c, ours := a.connect(key), a.connect(testKey)
	for _, client := range []*client{c, ours} {
		client.says(`{"action":10,"channel":"safe:a"}`)
		client.hears(`"action":11`)
	}
	a.must(200, "PATCH", "/v1/apps/"+app+"/namespaces/safe", `{"persistLast":true,"mutableMessages":true}`)
	c.works()
	a.must(200, "PATCH", "/v1/apps/"+app+"/namespaces/safe", `{"tlsOnly":true}`)
	c.hears(`"action":9`, `"channel":"safe:a"`, `"code":40311`)
	c.works()
	ours.works() // a channel of the same name, in another app
}
