package session

import "letshare-server/internal/limit"

// limits are those of the connection's app, as they are now.
func (s *Session) limits() *limit.Limits { return s.manager.opts.Hub.Limits().For(s.app) }

// Exceeded tells metrics and log that the connection has exceeded a limit.
func (s *Session) Exceeded(n limit.Name) { s.manager.opts.Hub.Limits().Exceeded(n, s.app) }
