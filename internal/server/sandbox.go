package server

import (
	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// appInUse reports whether a connection of an app is open.
func (s *Server) appInUse(appID string) bool {
	for _, session := range s.sessions.Sessions() {
		if session.Grant().App == appID {
			return true
		}
	}
	return false
}

// appRemoved ends the connections of an app that is gone. Its credentials are refused by now.
func (s *Server) appRemoved(app *auth.App) {
	gone := pubsub.Errorf(pubsub.CodeNotFound, "application %s was deleted", app.ID)
	for _, session := range s.sessions.Sessions() {
		if session.Grant().App == app.ID {
			session.Evict(gone)
		}
	}
}
