package auth_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

func TestASandboxMakesAppsAndRemovesThem(t *testing.T) {
	registry := auth.NewRegistry(newApp(t))
	a := auth.NewAuthenticator(registry, nil, auth.WithNonces(store(time.Now)))
	var told []string
	s := auth.NewSandbox(auth.SandboxOptions{
		Registry: registry,
		Added:    func(app *auth.App) { told = append(told, "+"+app.ID) },
		Removed:  func(app *auth.App) { told = append(told, "-"+app.ID) },
	})
	fixtures := []auth.Fixture{{Channel: "c", Members: []*pubsub.PresenceMessage{{ClientID: "m"}}}}
	app, err := s.Create(auth.AppSpec{
		Keys: []auth.KeySpec{{}, {Capability: `{"b":["publish"],"a":["*"]}`}, {Capability: "{}"}, {Revocable: true}, {Capability: `{"[*]*":["*"]}`}},
		Namespaces: []auth.Namespace{
			{ID: "persisted", Persisted: true}, {ID: "pushenabled", PushEnabled: true}, {ID: "mutable", MutableMessages: true},
		},
		Fixtures: fixtures,
	})
	if err != nil {
		t.Fatal(err)
	}
	var capabilities []string
	for _, k := range app.Keys() {
		capabilities = append(capabilities, k.Capability.String())
		if k.AppID != app.ID || len(k.ID) != 6 || len(k.Secret) < 32 {
			t.Errorf("key %s", k)
		}
		if _, err := a.REST(nil, http.Header{"Authorization": {basic(k.Name() + ":" + k.Secret)}}); err != nil {
			t.Error(err)
		}
	}
	want := []string{`{"*":["*"]}`, `{"a":["*"],"b":["publish"]}`, `{"*":["*"]}`, `{"*":["*"]}`, `{"[*]*":["*"]}`}
	if len(app.ID) != 6 || !slices.Equal(capabilities, want) || !app.Keys()[3].Revocable || app.Keys()[0].Revocable {
		t.Errorf("app %s with %q", app.ID, capabilities)
	}
	if !app.Namespace("persisted:x").Persisted || !app.Namespace("pushenabled").PushEnabled || !app.Namespace("mutable").MutableMessages {
		t.Error("the rules are not there")
	}
	if len(app.Fixtures()) != 1 || app.Fixtures()[0].Members[0].ClientID != "m" {
		t.Errorf("fixtures %+v", app.Fixtures())
	}

	registry.Replace() // a reload that removes the configured app
	if registry.Lookup("app001") != nil || registry.Lookup(app.ID) != app {
		t.Error("a reload took the wrong app away")
	}
	registry.Replace(newApp(t))
	deleted := func(id string) bool {
		ok, err := s.Delete(id)
		return ok && err == nil
	}
	if !deleted(app.ID) || deleted(app.ID) || deleted("app001") || registry.Lookup("app001") == nil {
		t.Error("the wrong app was deleted")
	}
	key := app.Keys()[0]
	_, err = a.REST(nil, http.Header{"Authorization": {basic(key.Name() + ":" + key.Secret)}})
	code(t, err, pubsub.CodeNotFound, 404)
	if !slices.Equal(told, []string{"+" + app.ID, "-" + app.ID}) {
		t.Errorf("told %q", told)
	}
}

func TestASandboxRefusesWhatCannotBe(t *testing.T) {
	s := auth.NewSandbox(auth.SandboxOptions{Registry: auth.NewRegistry(), MaxApps: 2})
	for name, spec := range map[string]auth.AppSpec{
		"capability": {Keys: []auth.KeySpec{{}, {Capability: `{"a":["fly"]}`}}},
		"namespace":  {Namespaces: []auth.Namespace{{ID: "a:b"}}},
		"twice":      {Namespaces: []auth.Namespace{{ID: "a"}, {ID: "a"}}},
		"too many":   {Keys: make([]auth.KeySpec, 101)},
	} {
		_, err := s.Create(spec)
		if text := code(t, err, pubsub.CodeBadRequest, 400); name == "capability" && !strings.HasPrefix(text, "keys[1]: ") {
			t.Errorf("told %q", text)
		}
	}
	for range 2 {
		if _, err := s.Create(auth.AppSpec{}); err != nil {
			t.Error(err)
		}
	}
	_, err := s.Create(auth.AppSpec{})
	code(t, err, pubsub.CodeRateLimited, 429)
}

func TestAppsThatAreNotUsedExpire(t *testing.T) {
	clock := now
	registry := auth.NewRegistry()
	tick := func() time.Time { return clock }
	a := auth.NewAuthenticator(registry, tick, auth.WithNonces(store(tick)))
	busy := ""
	var gone []string
	s := auth.NewSandbox(auth.SandboxOptions{
		Registry: registry, Idle: time.Hour, Now: tick,
		InUse: func(id string) bool { return id == busy }, Removed: func(app *auth.App) { gone = append(gone, app.ID) },
	})
	var apps []*auth.App
	for range 5 {
		app, err := s.Create(auth.AppSpec{Keys: []auth.KeySpec{{}}})
		if err != nil {
			t.Fatal(err)
		}
		apps = append(apps, app)
	}
	busy = apps[0].ID
	key := func(i int) *auth.Key { return apps[i].Keys()[0] }
	clock = clock.Add(59 * time.Minute)
	if _, err := a.REST(nil, http.Header{"Authorization": {basic(key(1).Name() + ":" + key(1).Secret)}}); err != nil {
		t.Error(err)
	}
	r := &auth.TokenRequest{KeyName: key(2).Name(), Timestamp: fmt.Sprint(clock.UnixMilli()), Nonce: "nonce-of-the-app-3"}
	if _, err := ask(a, r.KeyName, signed(r, key(2).Secret), ""); err != nil {
		t.Error(err)
	}
	// A wrong secret is no use.
	_, _ = a.REST(nil, http.Header{"Authorization": {basic(key(3).Name() + ":wrong")}})
	clock = clock.Add(time.Minute)
	s.Sweep()
	slices.Sort(gone)
	want := []string{apps[3].ID, apps[4].ID}
	slices.Sort(want)
	if !slices.Equal(gone, want) {
		t.Errorf("gone are %q, not %q", gone, want)
	}
}

func TestASandboxSweepsWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := auth.NewRegistry()
		s := auth.NewSandbox(auth.SandboxOptions{Registry: registry})
		app, err := s.Create(auth.AppSpec{})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Run(t.Context()) }()
		time.Sleep(23 * time.Hour)
		if registry.Lookup(app.ID) == nil {
			t.Error("gone too early")
		}
		time.Sleep(2 * time.Hour)
		if registry.Lookup(app.ID) != nil {
			t.Error("still there")
		}
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

func TestAppsComeAndGoWhileOthersAreUsed(t *testing.T) {
	registry := auth.NewRegistry(newApp(t))
	a := auth.NewAuthenticator(registry, func() time.Time { return now })
	s := auth.NewSandbox(auth.SandboxOptions{Registry: registry})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				app, err := s.Create(auth.AppSpec{Keys: []auth.KeySpec{{}}})
				if err != nil {
					t.Error(err)
					return
				}
				known := registry.Lookup(app.ID) == app
				if deleted, err := s.Delete(app.ID); !known || !deleted || err != nil || registry.Lookup(app.ID) != nil {
					t.Error("lost")
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				registry.Replace(newApp(t))
				if _, err := a.REST(nil, http.Header{"Authorization": {basic(key1)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
