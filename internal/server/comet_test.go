package server

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

// newServer is a node of which only the doors run, and what it logs.
func newServer(t *testing.T, change func(*config.Config)) (*Server, *bytes.Buffer) {
	t.Helper()
	c := config.Default(config.Local)
	c.DataDir = t.TempDir()
	c.APIKeys = []config.Secret{"app.key:secret-of-no-value"}
	if change != nil {
		change(&c)
	}
	secrets, err := config.ResolveSecrets(c, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey})
	if err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer)
	s, err := New(c, secrets, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var doors sync.WaitGroup
	doors.Go(func() { _ = s.comet.Run(ctx) })
	doors.Go(func() { _ = s.poller.Run(ctx) })
	t.Cleanup(func() {
		stop()
		doors.Wait()
	})
	return s, log
}

// get asks as a page of another origin does.
func (s *Server) get(path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Origin", "https://elsewhere.example")
	w := httptest.NewRecorder()
	s.doors.ServeHTTP(w, r)
	return w
}

const cometKey = "key=app.key:secret-of-no-value"

func TestPagesOfAllOriginsMayUseComet(t *testing.T) {
	s, _ := newServer(t, nil)
	for path, status := range map[string]int{
		"/comet/connect?stream=false&" + cometKey: 200,
		"/comet/connect?key=app.key:wrong":        401,
		"/comet/nonsense/recv?" + cometKey:        410,
	} {
		w := s.get(path)
		if w.Code != status || w.Header().Get("Access-Control-Allow-Origin") != "https://elsewhere.example" ||
			!strings.Contains(w.Header().Get("Access-Control-Expose-Headers"), "X-Ably-Errorcode") {
			t.Errorf("%s: %d %v, want %d", path, w.Code, w.Header(), status)
		}
	}
}

func TestAServerThatIsFullOrStopsTakesNoCometClients(t *testing.T) {
	s, _ := newServer(t, nil)
	connected := s.get("/comet/connect?stream=false&" + cometKey)
	for _, change := range []func(){
		func() { s.maxSockets = 1 },
		func() { s.maxSockets = 100; s.draining.Store(true) },
	} {
		change()
		w := s.get("/comet/connect?stream=false&" + cometKey)
		var body struct {
			Error struct{ Code, StatusCode int }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 503 || body.Error.Code != 50004 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
		}
	}
	// Who is there may go on.
	var pms []struct{ ConnectionKey string }
	if err := json.Unmarshal(connected.Body.Bytes(), &pms); err != nil {
		t.Fatalf("%v in %s", err, connected.Body)
	}
	if w := s.get("/comet/" + pms[0].ConnectionKey + "/close?" + cometKey); w.Code != 204 {
		t.Errorf("close: %d %s", w.Code, w.Body)
	}
}

func TestNoLogHasTheKeyOfAConnection(t *testing.T) {
	s, log := newServer(t, func(c *config.Config) { c.Ably.AllowedOrigins = []string{"https://here.example"} })
	if w := s.get("/comet/very!secret/recv?" + cometKey); w.Code != 403 {
		t.Errorf("%d", w.Code)
	}
	if !strings.Contains(log.String(), "origin refused") || strings.Contains(log.String(), "secret") {
		t.Errorf("the log has %s", log)
	}
}
