package server

import "time"

// recheck ends the connections whose app or key is gone or whose token is revoked. It is to be
// called after a change of keys that changes no rules.
func (s *Server) recheck() {
	s.sessions.Recheck()
	s.letshare.Recheck()
	s.sse.Recheck()
}

// rulesChanged ends what the apps' keys and rules do not allow any more: connections, as recheck
// does, and attachments whose channel's rule keeps their party out. It is to be called after a
// change of apps: of the configuration's, or of those that are made at run time.
func (s *Server) rulesChanged() {
	s.recheck()
	s.hub.RulesChanged()
}

// tokenLife is how long tokens of an app live that can be revoked: those of the default app's
// rooms may be older than an hour.
func (s *Server) tokenLife(app string) time.Duration {
	if app == s.secrets.DefaultApp {
		return time.Duration(s.config.JWT.ExpirationHours) * time.Hour
	}
	return 0
}
