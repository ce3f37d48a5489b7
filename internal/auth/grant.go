package auth

import (
	"log/slog"
	"time"

	"letshare-server/internal/pubsub"
)

// ClientRule says which clientIds a party may act under.
type ClientRule uint8

// The rules for clientIds.
const (
	ClientAnonymous  ClientRule = iota // none
	ClientIdentified                   // Grant.ClientID and no other
	ClientAny                          // any, chosen for each message, or none
)

func (r ClientRule) String() string {
	switch r {
	case ClientIdentified:
		return "identified"
	case ClientAny:
		return "any"
	}
	return "anonymous"
}

// wildcardClientID is how tokens and connectionDetails write ClientAny.
const wildcardClientID = "*"

// Grant is what an authenticated party may do. It is immutable, holds no secret, and stays
// as it is when keys or rules are changed afterwards.
type Grant struct {
	App     string // app id
	KeyName string // "appId.keyId" of the key that vouches for it; empty for LetShare tokens

	ClientRule ClientRule
	ClientID   string // set exactly if ClientRule is ClientIdentified

	Capability *Capability
	Expires    time.Time // zero means never

	// Issued is when the token was made, and RevocationKey a name by which it can be revoked
	// with others. A grant of a key has neither.
	Issued        time.Time
	RevocationKey string

	// ByKey says that the party presented the key itself and not a token of it.
	ByKey bool

	// LocalOnly says that the credential is published with this software, so that only
	// local peers may use it: ForPeer.
	LocalOnly bool

	// Plaintext says that the party's connection has no TLS, as far as ForPeer was told.
	Plaintext bool

	key          *appKey // that vouches for it; nil if KeyName is empty
	userClaims   []userClaim
	publishRates []publishRate
}

// Ops returns the operations that g allows on a resource, see Capability.Ops.
func (g *Grant) Ops(resource string) OpSet { return g.Capability.Ops(resource) }

// Allows reports whether g allows op on a resource.
func (g *Grant) Allows(op Operation, resource string) bool { return g.Capability.Allows(op, resource) }

// Identified reports whether the party has a clientId of its own.
func (g *Grant) Identified() bool { return g.ClientRule == ClientIdentified }

// ReportedClientID is the clientId for connectionDetails: the party's own, "*" if it may
// use any, empty if it is anonymous (CD2a, RSA7b3-4).
func (g *Grant) ReportedClientID() string {
	if g.ClientRule == ClientAny {
		return wildcardClientID
	}
	return g.ClientID
}

// CheckClientID decides under which clientId an item is published, given the one that it
// carries; present is false if it carries none. An empty result means none. A clientId that
// the party may not use, an empty one and "*" are CodeInvalidClientID (RSA7a1, RSA8f1-4,
// RSL1m1-4, RTL6e1, RTL6g1b, RTL6g2-4).
func (g *Grant) CheckClientID(itemClientID string, present bool) (effective string, err *pubsub.Error) {
	if !present {
		return g.ClientID, nil
	}
	if itemClientID == "" || itemClientID == wildcardClientID {
		return "", pubsub.Errorf(pubsub.CodeInvalidClientID, "invalid clientId: %q", itemClientID)
	}
	switch {
	case g.ClientRule == ClientAny:
		return itemClientID, nil
	case g.ClientRule == ClientIdentified && g.ClientID == itemClientID:
		return g.ClientID, nil
	}
	return "", pubsub.Errorf(pubsub.CodeInvalidClientID,
		"invalid clientId: %q does not match the credentials of the publisher", clip(itemClientID))
}

// CheckRenewal reports whether next may replace g on a living connection, or take over the
// connection's state: same app, same key, same identity. If not it returns
// CodeIncompatibleCredential, which SDKs do not answer with another renewal (RTC8a2).
func (g *Grant) CheckRenewal(next *Grant) *pubsub.Error {
	switch {
	case g.App != next.App || g.KeyName != next.KeyName:
		return pubsub.NewError(pubsub.CodeIncompatibleCredential, "incompatible credentials: they belong to another app or key")
	case g.ClientRule != next.ClientRule || g.ClientID != next.ClientID:
		return pubsub.NewError(pubsub.CodeIncompatibleCredential, "incompatible credentials: they are for another clientId")
	}
	return nil
}

// ForPeer is g for a peer to whose requests it is given: it knows whether the connection has
// TLS. A published credential is CodeForbidden to a peer that is not local, and one of an app
// that wants TLS is CodeTLSRequired to a peer without.
func (g *Grant) ForPeer(p Peer) (*Grant, *pubsub.Error) {
	if g.key != nil && g.key.app.TLSOnly && !p.Secure {
		return nil, appNeedsTLS(g.App)
	}
	if g.LocalOnly && !p.Local {
		return nil, pubsub.NewError(pubsub.CodeForbidden,
			"this credential is published with the server and works from local addresses only; configure your own")
	}
	if p.Secure {
		return g, nil
	}
	return g.OverPlaintext(), nil
}

// OverPlaintext is g on a connection without TLS.
func (g *Grant) OverPlaintext() *Grant {
	if g.Plaintext {
		return g
	}
	if g.key != nil && g == g.key.anybody {
		return g.key.plaintext
	}
	over := *g
	over.Plaintext = true
	return &over
}

// LogValue tells who it is and what for.
func (g *Grant) LogValue() slog.Value {
	if g == nil {
		return slog.StringValue("none")
	}
	attrs := []slog.Attr{slog.String("app", g.App), slog.String("client", g.ClientRule.String())}
	if g.KeyName != "" {
		attrs = append(attrs, slog.String("key_name", g.KeyName))
	}
	if g.ClientID != "" {
		attrs = append(attrs, slog.String("client_id", g.ClientID))
	}
	if !g.Expires.IsZero() {
		attrs = append(attrs, slog.Time("expires", g.Expires))
	}
	return slog.GroupValue(attrs...)
}
