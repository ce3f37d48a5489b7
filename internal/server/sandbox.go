package server

import (
	"context"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/rest"
)

// sandbox makes apps for tests: for this process, or for all nodes of a cluster.
type sandbox interface {
	rest.Sandbox
	Run(ctx context.Context) error
}

func (s *Server) newSandbox() sandbox {
	if s.config.Redis.Clustered() {
		return apps.NewSandbox(apps.SandboxOptions{
			Apps: s.made, InUse: s.appInUse, Added: s.appAdded, Removed: s.appRemoved, Log: s.log,
		})
	}
	return auth.NewSandbox(auth.SandboxOptions{Registry: s.apps, InUse: s.appInUse, Added: s.appAdded, Removed: s.appRemoved})
}

// appInUse reports whether a connection of an app is open.
func (s *Server) appInUse(appID string) bool {
	for _, session := range s.sessions.Sessions() {
		if session.Grant().App == appID {
			return true
		}
	}
	for _, stream := range s.sse.Streams() {
		if stream.Grant().App == appID {
			return true
		}
	}
	return false
}

// appAdded lets the members of a new app's fixtures enter.
func (s *Server) appAdded(app *auth.App) {
	for _, f := range app.Fixtures() {
		if err := s.hub.LoadFixture(context.Background(), app.ID, f.Channel, f.Members); err != nil {
			s.log.Error("members of a fixture have not entered", "app", app.ID, "channel", f.Channel, "error", err)
		}
	}
}

// appRemoved ends the connections of an app that is gone, and the members of its fixtures
// leave. Its credentials are refused by now.
func (s *Server) appRemoved(app *auth.App) {
	for _, f := range app.Fixtures() {
		if err := s.hub.UnloadFixture(context.Background(), app.ID, f.Channel); err != nil {
			s.log.Error("members of a fixture have not left", "app", app.ID, "channel", f.Channel, "error", err)
		}
	}
	s.recheck()
	s.forget(app.ID)
}

// forget drops what is known of an app that is gone.
func (s *Server) forget(app string) {
	if err := s.stats.Forget(context.Background(), app); err != nil {
		s.log.Warn("statistics of a deleted app not dropped", "app", app, "error", err)
	}
}
