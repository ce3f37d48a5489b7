package session

import (
	"context"
	"maps"
	"net/url"

	"letshare-server/internal/pubsub"
)

// Carrier returns the transport whose CONNECTED gave a connectionKey, for a request that
// belongs to it but came by itself, as those of comet do. The request must carry credentials
// of the connection, by the rules of a resume; a token that is about to be adopted with AUTH
// keeps to them too.
//
// Errors are *pubsub.Error: what is wrong with the credentials, CodeConnectionSuperseded if
// another transport carries the connection now, CodeConnectionNotFound if nothing does.
func (m *Manager) Carrier(ctx context.Context, r *Request, key string) (Transport, error) {
	id, generation, form := m.keys.parse(key)
	var s *Session
	if form == genuineKey {
		m.mu.Lock()
		s = m.sessions[id]
		m.mu.Unlock()
	}
	query := r.Query
	if s != nil && s.clientID != "" && !query.Has("clientId") {
		// Clients name themselves when they connect, and not again.
		query = make(url.Values, len(r.Query)+1)
		maps.Copy(query, r.Query)
		query.Set("clientId", s.clientID)
	}
	grant, err := m.opts.Auth.Realtime(query, r.Header)
	m.opts.Guard.Authenticated(ctx, r.Peer.Addr, err)
	if err != nil {
		return nil, pubsub.ErrorFor(err)
	}
	if _, err := m.opts.Auth.Admit(grant, r.Peer); err != nil {
		return nil, err
	}
	if s == nil {
		return nil, pubsub.NewError(pubsub.CodeConnectionNotFound, "no such connection")
	}
	own := s.Grant()
	if err := own.CheckRenewal(grant); err != nil {
		return nil, err
	}
	if !r.Peer.Secure && !own.Plaintext {
		return nil, pubsub.NewError(pubsub.CodeTLSRequired, "the connection was opened with TLS")
	}
	switch {
	case s.generation != generation:
		return nil, pubsub.NewError(pubsub.CodeConnectionSuperseded, "another transport carries the connection")
	case s.gone.Load():
		return nil, pubsub.NewError(pubsub.CodeConnectionNotFound, "the transport has ended")
	}
	return s.transport, nil
}
