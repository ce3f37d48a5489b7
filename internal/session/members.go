package session

// inherit takes over the presence members of the session that had the connection before.
func (s *Session) inherit(*Session) {}

// left lets all presence members of the connection leave.
func (s *Session) left() {}
