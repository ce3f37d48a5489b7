package server

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// noticing passes on what a log says of an attribute.
type noticing struct {
	slog.Handler
	name string
	said chan string
}

func (n noticing) Enabled(context.Context, slog.Level) bool { return true }

func (n noticing) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == n.name {
			n.said <- a.Value.String()
		}
		return true
	})
	return nil
}

func TestProfilesAreServedToThisMachineByItsAddress(t *testing.T) {
	said := make(chan string, 1)
	s := &Server{log: slog.New(noticing{slog.DiscardHandler, "pprof_address", said})}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.serveProfiles(ctx, "127.0.0.1:0"); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	address := <-said
	for _, c := range []struct {
		host, path string
		want       int
	}{
		{address, "/debug/pprof/heap?debug=1", http.StatusOK},
		{address, "/debug/pprof/", http.StatusOK},
		{address, "/debug/pprof/cmdline", http.StatusNotFound}, // it may quote a key
		{address, "/", http.StatusNotFound},
		{"rebound.example:80", "/debug/pprof/", http.StatusForbidden},
		{"localhost:80", "/debug/pprof/", http.StatusForbidden},
		{"192.0.2.1:80", "/debug/pprof/", http.StatusForbidden},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != c.want {
			t.Errorf("%s%s: %d, want %d", c.host, c.path, answer.StatusCode, c.want)
		}
	}
}

func TestAnAddressOfProfilesThatIsTakenEndsTheServer(t *testing.T) {
	n := start(t, nil)
	s := &Server{log: slog.New(slog.DiscardHandler)}
	if err := s.serveProfiles(t.Context(), n.addr); err == nil || !strings.Contains(err.Error(), "debug.pprof_address") {
		t.Error(err)
	}
}
