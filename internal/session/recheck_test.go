package session_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

// verdicts are credentials with an opinion on grants that were given.
type verdicts struct {
	credentials
	of map[*auth.Grant]*pubsub.Error
}

func (v verdicts) Recheck(g *auth.Grant) *pubsub.Error { return v.of[g] }

func TestConnectionsEndWhenTheirCredentialsAreNotGoodAnyMore(t *testing.T) {
	v := verdicts{of: make(map[*auth.Grant]*pubsub.Error)}
	n := newNode(t, func(o *session.Options, _ *hub.Options) { v.credentials = o.Auth.(credentials); o.Auth = v })
	lines := make(map[string]*line)
	for _, id := range []string{"good", "revoked", "keyless", "appless", "gone"} {
		n.tokens[id] = grant(id, time.Time{})
		lines[id] = n.connect(t, "access_token="+id)
		lines[id].only(t, wire.ActionConnected)
	}
	lines["gone"].session.TransportClosed()
	v.of[n.tokens["revoked"]] = pubsub.NewError(pubsub.CodeTokenRevoked, "token revoked")
	v.of[n.tokens["keyless"]] = pubsub.NewError(pubsub.CodeKeyRevoked, "the key is gone")
	v.of[n.tokens["appless"]] = pubsub.NewError(pubsub.CodeAppDisabled, "the app is gone")
	v.of[n.tokens["gone"]] = v.of[n.tokens["revoked"]]
	n.Recheck()
	for id, want := range map[string]struct {
		action wire.Action
		code   pubsub.Code
	}{
		"revoked": {wire.ActionDisconnected, pubsub.CodeTokenRevoked},
		"keyless": {wire.ActionError, pubsub.CodeKeyRevoked},
		"appless": {wire.ActionError, pubsub.CodeAppDisabled},
	} {
		last := lines[id].only(t, want.action)
		if last.HasChannel || last.Error == nil || pubsub.Code(last.Error.Code) != want.code || last.Error.StatusCode != 401 || !lines[id].isClosed() {
			t.Errorf("%s: got %+v", id, last.Error)
		}
	}
	for _, id := range []string{"good", "gone"} {
		if sent := lines[id].take(); len(sent) != 0 || lines[id].isClosed() {
			t.Errorf("%s: got %v", id, actions(sent))
		}
	}
	for id, kept := range map[string]bool{"revoked": true, "keyless": false, "appless": false} {
		before := n.Kept()
		lines[id].session.TransportClosed()
		if now := n.Kept(); now != before && kept || now != before-1 && !kept {
			t.Errorf("%s: its connection is kept: %v, want %v", id, now == before, kept)
		}
	}
	lines["good"].says(message("a", 0))
	lines["good"].only(t, wire.ActionAck)
}

// withdrawing is credentials of which the token "withdrawn" is revoked right after its check.
type withdrawing struct{ verdicts }

func (w withdrawing) Realtime(q url.Values, h http.Header) (*auth.Grant, error) {
	g, err := w.credentials.Realtime(q, h)
	return w.withdraw(q.Get("access_token"), g), err
}

func (w withdrawing) RealtimeToken(token, id string) (*auth.Grant, error) {
	g, err := w.credentials.RealtimeToken(token, id)
	return w.withdraw(token, g), err
}

func (w withdrawing) withdraw(token string, g *auth.Grant) *auth.Grant {
	if token == "withdrawn" {
		w.of[g] = pubsub.NewError(pubsub.CodeTokenRevoked, "token revoked")
	}
	return g
}

func TestARevocationWhileATokenIsAdoptedIsNotMissed(t *testing.T) {
	v := verdicts{of: make(map[*auth.Grant]*pubsub.Error)}
	n := newNode(t, func(o *session.Options, _ *hub.Options) {
		v.credentials = o.Auth.(credentials)
		o.Auth = withdrawing{v}
	})
	n.tokens["good"], n.tokens["withdrawn"] = grant("bob", time.Time{}), grant("bob", time.Time{})

	connecting := n.connect(t, "access_token=withdrawn")
	sent := connecting.take()
	if len(sent) != 2 || sent[0].Action != wire.ActionConnected || sent[1].Action != wire.ActionDisconnected || !connecting.isClosed() {
		t.Errorf("connecting: got %v", actions(sent))
	}

	delete(v.of, n.tokens["withdrawn"])
	renewing := n.connect(t, "access_token=good")
	renewing.only(t, wire.ActionConnected)
	renewing.says(renew("withdrawn"))
	last := renewing.only(t, wire.ActionError)
	if pubsub.Code(last.Error.Code) != pubsub.CodeTokenRevoked || !renewing.isClosed() {
		t.Errorf("renewing: got %+v", last.Error)
	}
}

func TestClientsAreAskedForNewTokens(t *testing.T) {
	n := newNode(t)
	n.tokens["bob"], n.tokens["eve"], n.tokens["bob2"] = grant("bob", time.Time{}), grant("eve", time.Time{}), grant("bob", time.Time{})
	bob, eve := n.connect(t, "access_token=bob"), n.connect(t, "access_token=eve")
	bob.only(t, wire.ActionConnected)
	eve.only(t, wire.ActionConnected)
	n.Renew(func(g *auth.Grant) bool { return g == n.tokens["bob"] })
	bob.only(t, wire.ActionAuth)
	if sent := eve.take(); len(sent) != 0 {
		t.Errorf("got %v", actions(sent))
	}
	bob.says(renew("bob2"))
	bob.only(t, wire.ActionConnected)
	delete(n.tokens, "bob") // it is revoked
	n.Recheck()
	if sent := bob.take(); len(sent) != 0 || bob.isClosed() {
		t.Errorf("a client that has another token by now: got %v", actions(sent))
	}
}
