package server

import (
	"letshare-server/internal/config"
	"letshare-server/internal/control"
)

func controlTokens(secrets config.Secrets) []control.Token {
	var tokens []control.Token
	for _, t := range secrets.AdminTokens {
		tokens = append(tokens, control.Token{Name: t.Name, Secret: string(t.Secret)})
	}
	return tokens
}

// madeChanged is told that apps that were made at run time have changed; some may be gone.
func (s *Server) madeChanged(gone []string) {
	s.rulesChanged()
	for _, app := range gone {
		s.forget(app)
	}
}

// warnOfHidden tells the operator which apps that were made at run time the configuration hides.
func (s *Server) warnOfHidden() {
	for _, app := range s.made.List() {
		if s.apps.IsConfigured(app.ID) {
			s.log.Warn("an app of the configuration takes the place of one that was made at run time, which comes back when the configuration drops it", "app", app.ID)
		}
	}
}
