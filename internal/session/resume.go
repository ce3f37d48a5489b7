package session

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

// grantDigest is what a resume must match: the lineage of the credential and the identity.
func grantDigest(g *auth.Grant) string {
	return g.KeyName + "\x00" + g.ClientRule.String() + "\x00" + g.ClientID
}

// clientOf is the clientId in a grantDigest.
func clientOf(digest string) string {
	_, rest, _ := strings.Cut(digest, "\x00")
	_, clientID, _ := strings.Cut(rest, "\x00") // it may have more of them
	return clientID
}

// establish makes s the connection that the client asks to continue (RTN15b1, RTN16k), or a
// new one. lost says why it is a new one although another was asked for (RTN15c7, RTN16l).
// An error is final (RTN15c4), as is that of a bad credential, which comes before (RTN15c5).
func (s *Session) establish(ctx context.Context, q url.Values) (lost *pubsub.Error, err error) {
	key := q.Get("resume")
	recovering := key == ""
	if recovering {
		key = q.Get("recover")
	}
	if key != "" {
		if lost, err = s.resume(ctx, key, recovering); err != nil || lost == nil {
			return nil, err
		}
	}
	l, set := s.limits(), s.manager.opts.Hub.Limits()
	if !limit.AllowOf(set, &s.manager.opening, *s.app, l.AppNewConnections, 1) {
		s.Exceeded(limit.AppConnectionRate)
		return nil, pubsub.Errorf(pubsub.CodeNewConnectionRate, "rate limit exceeded: %d new connections per second of one application", l.AppNewConnections)
	}
	s.id, s.generation = newConnectionID(), 1
	s.committed.Store(true)
	err = s.manager.opts.Directory.Create(ctx, directory.Connection{
		ID: s.id, App: s.grant.App, Generation: s.generation, Committed: s.generation,
		Owner: s.manager.opts.Node, State: directory.Connected, GrantDigest: grantDigest(s.grant), Grace: s.grace(),
	}, l.AppConnections)
	if errors.Is(err, directory.ErrFull) {
		s.Exceeded(limit.AppConnections)
		return nil, pubsub.Errorf(pubsub.CodeConnectionLimit, "the application has %d connections already", l.AppConnections)
	}
	if err != nil {
		return nil, directoryError(err)
	}
	return lost, nil
}

// resume takes over the connection that a key names (RTN15c6). The key of the transport before stays
// good until the client has used the new one, since the CONNECTED that tells it may be lost;
// but after a recover it is dead at once (RTN16d), or the client that was left behind would take the
// connection back.
func (s *Session) resume(ctx context.Context, key string, recovering bool) (lost *pubsub.Error, err error) {
	id, generation, form := s.manager.keys.parse(key)
	switch form {
	case malformedKey:
		return pubsub.NewError(pubsub.CodeInvalidConnectionKey, "invalid connection key"), nil
	case strangeKey:
		return connectionExpired(), nil
	}
	dir := s.manager.opts.Directory
	record, err := dir.Lookup(ctx, id)
	if errors.Is(err, directory.ErrNotFound) {
		return connectionExpired(), nil
	}
	if err != nil {
		return nil, directoryError(err)
	}
	if record.App != s.grant.App || record.GrantDigest != grantDigest(s.grant) {
		return nil, pubsub.NewError(pubsub.CodeIncompatibleCredential, "the connection to resume belongs to other credentials")
	}
	record, s.returned, err = dir.Resume(ctx, id, generation, s.manager.opts.Node)
	if errors.Is(err, directory.ErrNotFound) || errors.Is(err, directory.ErrSuperseded) {
		return connectionExpired(), nil
	}
	if err != nil {
		return nil, directoryError(err)
	}
	s.id, s.generation = id, record.Generation
	if recovering {
		if err := dir.Commit(ctx, s.id, s.generation); err != nil {
			return nil, directoryError(err)
		}
		s.committed.Store(true)
	}
	return nil, s.findMembers(ctx)
}

// findMembers learns where the connection has members, unless a session of this node, which is about
// to hand it over, knows.
func (s *Session) findMembers(ctx context.Context) error {
	s.manager.mu.Lock()
	old := s.manager.sessions[s.id]
	if old != nil {
		s.inherit(old) // now: Run may forget it before s is enrolled
	}
	s.manager.mu.Unlock()
	if old != nil {
		return nil
	}
	channels, err := s.manager.opts.Directory.Inhabited(ctx, s.id)
	if err != nil {
		return directoryError(err)
	}
	s.members.channels = channels
	return nil
}

// grace is for how long the members stay when the transport is lost.
func (s *Session) grace() time.Duration { return time.Duration(s.remainPresent) * time.Millisecond }

func connectionExpired() *pubsub.Error {
	return pubsub.NewError(pubsub.CodeConnectionExpired, "the connection to resume has expired")
}

func directoryError(err error) *pubsub.Error {
	return pubsub.NewError(pubsub.CodeUnavailable, "the connection cannot be recorded; try again").Because(err)
}

// commit makes the transport's key the only one, at the first frame from the client. It
// reports whether the session still owns the connection.
func (s *Session) commit() bool {
	if s.committed.Load() {
		return true
	}
	ctx, cancel := withTimeout(context.Background(), directoryTimeout)
	defer cancel()
	err := s.manager.opts.Directory.Commit(ctx, s.id, s.generation)
	switch {
	case err == nil:
		s.committed.Store(true)
	case errors.Is(err, directory.ErrSuperseded), errors.Is(err, directory.ErrNotFound):
		s.supersede()
		return false
	default:
		s.manager.opts.Log.Warn("generation not committed", "connection", s.id, "error", err)
	}
	return true
}

// supersede ends the transport silently: another one carries the connection now, and the
// client of this one, if it still lives, must not be told to come back.
func (s *Session) supersede() {
	if !s.superseded.Swap(true) {
		s.stopTimers()
		s.transport.Close(nil)
	}
}

// enroll makes s the session of its connection on this node, in place of the one that had
// it before. If another resume was faster, s is superseded already.
func (m *Manager) enroll(s *Session) {
	m.mu.Lock()
	old := m.sessions[s.id]
	if old != nil && old.generation > s.generation {
		m.mu.Unlock()
		s.supersede()
		return
	}
	m.sessions[s.id] = s
	if old != nil {
		s.inherit(old) // before the next one inherits from s
	}
	m.mu.Unlock()
	s.join(old)
	if old != nil {
		old.supersede()
	}
}

// join counts the connection, which old has carried until now, if it is not nil and Run has not
// been told of its end already.
func (s *Session) join(old *Session) {
	s.counted.Store(true)
	switch {
	case old != nil && old.counted.Swap(false): // it is counted already
	case s.generation == 1:
		s.counts.ConnectionOpened()
	default:
		s.counts.ConnectionResumed()
	}
}

// uncount has the connection counted no more, unless another session carries it already.
func (s *Session) uncount() {
	if s.counted.Swap(false) {
		s.counts.ConnectionClosed()
	}
}

// dismiss forgets s, unless another session has its connection already.
func (m *Manager) dismiss(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[s.id] == s {
		delete(m.sessions, s.id)
	}
}

// TransportClosed tells the session that its transport is gone. Attachments end with it, and
// clients attach anew (RTL3d); the connection lives on for connectionStateTtl (CD2f), to be
// resumed, unless it was closed.
func (s *Session) TransportClosed() {
	s.gone.Store(true)
	s.uncount()
	s.stopTimers()
	for _, a := range s.attachments {
		a.hub.Detach()
	}
	s.attachments = nil
	m := s.manager
	m.open.Add(-1)
	m.opts.Metrics.SessionClosed()
	if s.superseded.Load() {
		return
	}
	if s.ended || s.evicted.Load() {
		m.dismiss(s)
		s.leaveAll()
		m.persist("connection record not closed", s.id, 0, s.closeRecord)
		return
	}
	ttl := m.opts.Limits.ConnectionStateTTL
	deadline := time.Now().Add(ttl)
	m.persist("connection record not kept for a resume", s.id, 0, func(ctx context.Context) error {
		return settled(m.opts.Directory.Disconnect(ctx, s.id, s.generation, deadline))
	})
	s.awaitResume(ttl)
}

// closeRecord removes the connection's record.
func (s *Session) closeRecord(ctx context.Context) error {
	return settled(s.manager.opts.Directory.Close(ctx, s.id, s.generation))
}

// settled is err unless it says that the record is somebody else's by now, or nobody's.
func settled(err error) error {
	if errors.Is(err, directory.ErrSuperseded) || errors.Is(err, directory.ErrNotFound) {
		return nil
	}
	return err
}

// awaitResume lets the presence members leave after their grace time, and forgets the
// session when the connection cannot be resumed any more.
func (s *Session) awaitResume(ttl time.Duration) {
	m := s.manager
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.superseded.Load() {
		return
	}
	stopGrace := m.opts.After(s.grace(), func() { m.later(s.reap) })
	stopTTL := m.opts.After(ttl, func() { m.dismiss(s) })
	s.stop = func() { stopGrace(); stopTTL() }
}

// reap lets the members leave, unless the connection was resumed meanwhile. They are read
// before the record is marked: those that a later resume enters again have changed then.
func (s *Session) reap() {
	s.manager.persist("members of a lost connection not reaped", s.id, 0, func(ctx context.Context) error {
		leave, err := s.leaving(ctx)
		if err != nil {
			return err
		}
		err = s.manager.opts.Directory.Reap(ctx, s.id, s.generation)
		switch {
		case err == nil, errors.Is(err, directory.ErrNotFound): // nobody can resume what has no record
			leave()
		case !errors.Is(err, directory.ErrSuperseded):
			return err
		}
		return nil
	})
}

// later has f run by Run soon: for what must not be done on the timer's goroutine.
func (m *Manager) later(f func()) {
	m.mu.Lock()
	m.tasks = append(m.tasks, f)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run closes the transports of connections that another transport took over, mostly of another
// node, and does what timers ask for, until ctx ends and the changes under way have ended. No transport may call Handle
// any more then.
func (m *Manager) Run(ctx context.Context) error {
	defer m.changing.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case taken := <-m.opts.Directory.Superseded():
			m.mu.Lock()
			s := m.sessions[taken.ID]
			m.mu.Unlock()
			if s != nil && s.generation <= taken.Generation {
				m.dismiss(s)
				s.uncount() // before the session that takes over counts itself
				s.supersede()
			}
		case <-m.wake:
			m.mu.Lock()
			tasks := m.tasks
			m.tasks = nil
			m.mu.Unlock()
			for _, f := range tasks {
				f()
			}
		}
	}
}
