package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"letshare-server/internal/pubsub"
)

// Authenticator checks the credentials of Ably's doors. Errors from all its methods are
// *pubsub.Error, with the codes and statuses that the door in question uses.
type Authenticator struct {
	registry *Registry
	now      func() time.Time
	tokens   sealer
	nonces   Nonces // nil: token requests with a nonce are refused

	revocations *Revocations // nil: none

	sync func(context.Context) error // of the registry with what other nodes have recorded; nil: there are none

	requireTLS atomic.Bool
	plaintext  sync.Once    // warns of the first key without TLS
	log        *slog.Logger // never nil
}

// Nonces remembers which token requests were used. A directory.Directory does.
type Nonces interface {
	// UseNonce notes that a nonce was used with a key and keeps that until then. It reports
	// false if the nonce was used before. Of two calls at once only one gets true, on
	// whichever node they are.
	UseNonce(ctx context.Context, keyName, nonce string, until time.Time) (fresh bool, err error)
}

// Option changes how an Authenticator is made.
type Option func(*Authenticator)

// WithTokenSecret sets the secret of the Ably tokens that the authenticator makes and
// accepts. Authenticators with the same secret accept each other's. Without this option
// each has one of its own, which ends with it.
func WithTokenSecret(secret string) Option {
	return func(a *Authenticator) { a.tokens = sealer{[]byte(secret)} }
}

// WithNonces sets where the nonces of token requests are remembered. Authenticators that
// accept the same keys share one, else a request could be used once with each. Without this
// option requests that have a nonce, as all signed ones, are refused.
func WithNonces(n Nonces) Option { return func(a *Authenticator) { a.nonces = n } }

// WithRevocations has the authenticator refuse revoked tokens, and revoke more. Without this
// option no token can be revoked.
func WithRevocations(r *Revocations) Option { return func(a *Authenticator) { a.revocations = r } }

// WithSync has the authenticator call sync, and look again, before it says that there is no such app
// or key: another node may have just made it. Apps of the configuration are not looked for.
//
// If sync fails, so does the authentication, with the error of sync: CodeUnavailable, with which
// clients come back. Nobody knows then whether the credential is good, and "unknown" would be final
// for a client that has it from an application that made it a moment ago; one whose credential is
// wrong is told so when the store is back. A credential that is known is checked without the store, so
// that nobody else notices that it is away.
//
// sync may be called at any rate, by anybody. It must bound what it does, and how long it takes.
func WithSync(sync func(ctx context.Context) error) Option {
	return func(a *Authenticator) { a.sync = sync }
}

// WithLog sets where the authenticator writes what an operator should know. Without this option
// nobody learns it.
func WithLog(log *slog.Logger) Option { return func(a *Authenticator) { a.log = log } }

// NewAuthenticator returns an authenticator for the apps of registry. A nil now means
// time.Now.
func NewAuthenticator(registry *Registry, now func() time.Time, options ...Option) *Authenticator {
	if now == nil {
		now = time.Now
	}
	a := &Authenticator{registry: registry, now: now, log: slog.New(slog.DiscardHandler)}
	for _, option := range options {
		option(a)
	}
	if a.tokens.secret == nil {
		a.tokens = sealer{[]byte(rand.Text() + rand.Text())}
	}
	return a
}

// door is where a credential was presented; a few codes depend on it.
type door int

const (
	realtimeDoor door = iota
	restDoor
)

// Realtime authenticates a realtime connection from its URL's parameters (key,
// access_token or accessToken, clientId, clientType) and its headers (Authorization); see
// RTN2d, RTN2e, RSA3c and RSA7e1.
func (a *Authenticator) Realtime(q url.Values, h http.Header) (*Grant, error) {
	key, token, err := presented(q, h, realtimeDoor)
	if err != nil {
		return nil, err
	}
	claim := clientClaim{id: q.Get("clientId"), present: q.Has("clientId")}
	if key != "" {
		return a.key(key, claim, realtimeDoor)
	}
	return a.token(token, claim, q.Get("clientType"))
}

// RealtimeToken authenticates a token that came over a living connection, in AUTH (RTC8a4).
// clientID is the clientId parameter that the connection was opened with, empty for none.
// Whether the grant fits the connection is for CheckRenewal to say.
func (a *Authenticator) RealtimeToken(token, clientID string) (*Grant, error) {
	if token == "" {
		return nil, noCredentials()
	}
	return a.token(token, clientClaim{id: clientID, present: clientID != ""}, "")
}

// REST authenticates a REST request from its URL's parameters and its headers. With a key,
// the header X-Ably-ClientId or else the parameter clientId names the publisher (RSA7e2).
// With a token only the header is compared: in many requests the parameter is a filter.
func (a *Authenticator) REST(q url.Values, h http.Header) (*Grant, error) {
	key, token, err := presented(q, h, restDoor)
	if err != nil {
		return nil, err
	}
	claim, err := headerClientClaim(h)
	if err != nil {
		return nil, err
	}
	if key == "" {
		return a.token(token, claim, "")
	}
	if id := q.Get("clientId"); !claim.present && id != "" {
		claim = clientClaim{id: id, present: true}
	}
	return a.key(key, claim, restDoor)
}

func headerClientClaim(h http.Header) (clientClaim, error) {
	encoded := h.Get("X-Ably-ClientId")
	if encoded == "" {
		return clientClaim{}, nil
	}
	id, ok := decodeBase64(encoded)
	if !ok {
		return clientClaim{}, pubsub.NewError(pubsub.CodeInvalidHeader, "invalid header X-Ably-ClientId: not base64 of a clientId")
	}
	return clientClaim{id: id, present: true}, nil
}

// presented finds the key (RSA11) or the token (RSA3a) of a request: in the Authorization
// header, else in access_token or accessToken, else in key. Exactly one of the two comes back.
func presented(q url.Values, h http.Header, d door) (key, token string, err error) {
	if header := strings.TrimSpace(h.Get("Authorization")); header != "" {
		scheme, value, _ := strings.Cut(header, " ")
		value = strings.TrimSpace(value)
		switch {
		case value == "":
		case strings.EqualFold(scheme, "Basic"):
			if key, ok := decodeBase64(value); ok {
				return key, "", nil
			}
			return "", "", unreadableKey(d)
		case strings.EqualFold(scheme, "Bearer"):
			return "", bearerToken(value), nil
		}
		return "", "", pubsub.NewError(pubsub.CodeInvalidCredentials,
			"invalid Authorization header: it must carry Basic or Bearer credentials")
	}
	for _, name := range []string{"access_token", "accessToken"} {
		if token := q.Get(name); token != "" {
			return "", token, nil
		}
	}
	if key := q.Get("key"); key != "" {
		return key, "", nil
	}
	return "", "", noCredentials()
}

func noCredentials() *pubsub.Error {
	return pubsub.NewError(pubsub.CodeInvalidCredentials, "no authentication credentials given")
}

// bearerToken undoes the base64 that SDKs put around tokens, JWTs too (RSA3b). What has
// the dots of a JWT or JWE was not wrapped, and neither was what does not decode.
func bearerToken(value string) string {
	if dots := strings.Count(value, "."); dots == 2 || dots == 4 {
		return value
	}
	if token, ok := decodeBase64(value); ok {
		return token
	}
	return value
}

// decodeBase64 decodes either alphabet, padded or not, to a non-empty text.
func decodeBase64(s string) (string, bool) {
	s = strings.TrimRight(s, "=")
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	b, err := encoding.DecodeString(s)
	return string(b), err == nil && len(b) > 0 && utf8.Valid(b)
}

func unreadableKey(d door) *pubsub.Error {
	if d == restDoor {
		return pubsub.NewError(pubsub.CodeInvalidCredential, "invalid key: it must have the form appId.keyId:secret")
	}
	return pubsub.NewError(pubsub.CodeInvalidCredentials, "invalid key: it must have the form appId.keyId:secret")
}

// key authenticates "appId.keyId:secret".
func (a *Authenticator) key(text string, claim clientClaim, d door) (*Grant, error) {
	given, err := ParseKey(text)
	if err != nil {
		return nil, unreadableKey(d)
	}
	app, key, err := a.find(given.AppID, given.ID)
	if err != nil {
		return nil, err
	}
	if app == nil {
		if d == restDoor {
			return nil, unknownApp(given.AppID)
		}
		return nil, pubsub.Errorf(pubsub.CodeInvalidCredentials, "invalid credentials: no application %s", given.AppID)
	}
	if key == nil {
		if d == restDoor {
			return nil, pubsub.Errorf(pubsub.CodeNotFound, "no key %s", given.Name()).WithStatus(http.StatusUnauthorized)
		}
		return nil, pubsub.Errorf(pubsub.CodeInvalidCredentials, "invalid credentials: no key %s", given.Name())
	}
	if !key.hasSecret(given.Secret) {
		return nil, pubsub.Errorf(pubsub.CodeInvalidCredentials, "invalid credentials: wrong secret for key %s", key.name)
	}
	if app.Disabled {
		return nil, appDisabled(app.ID)
	}
	if !claim.present {
		app.touch(a.now())
		return key.anybody, nil
	}
	g := key.grant()
	g.ByKey = true
	if err := claim.applyToKey(g); err != nil {
		return nil, err
	}
	app.touch(a.now())
	return g, nil
}

// find returns an app and its key, each nil if there is none on any node.
func (a *Authenticator) find(appID, keyID string) (*App, *appKey, error) {
	app, key := a.lookup(appID, keyID)
	if key != nil || a.sync == nil || !isKeyID(appID) || !isKeyID(keyID) || a.registry.IsConfigured(appID) {
		return app, key, nil
	}
	if err := a.sync(context.Background()); err != nil {
		return nil, nil, err
	}
	app, key = a.lookup(appID, keyID)
	return app, key, nil
}

// lookup is find on this node.
func (a *Authenticator) lookup(appID, keyID string) (*App, *appKey) {
	app := a.registry.Lookup(appID)
	if app == nil {
		return nil, nil
	}
	return app, app.keys[keyID]
}

// grant is what a key allows by itself.
func (k *appKey) grant() *Grant {
	return &Grant{App: k.AppID, KeyName: k.name, Capability: k.Capability, LocalOnly: k.LocalOnly, key: k}
}

// Recheck reports why a grant that was given would not be given any more, nil if it would:
// its app is gone or disabled (CodeAppDisabled), or wants TLS by now (CodeTLSRequired), its key is
// gone or has another secret (CodeKeyRevoked), or its token is revoked (CodeTokenRevoked). Rights
// that a key has gained or lost are no reason, and neither is the grant's end.
func (a *Authenticator) Recheck(g *Grant) *pubsub.Error {
	if g.KeyName != "" {
		app := a.registry.Lookup(g.App)
		if app == nil {
			return pubsub.Errorf(pubsub.CodeAppDisabled, "application %s is gone", g.App)
		}
		if app.Disabled {
			return appDisabled(app.ID)
		}
		key := app.keys[strings.TrimPrefix(g.KeyName, g.App+".")]
		if key == nil || g.key != nil && key.fingerprint != g.key.fingerprint {
			return pubsub.Errorf(pubsub.CodeKeyRevoked, "key %s is revoked", g.KeyName)
		}
		if app.TLSOnly && g.Plaintext {
			return appNeedsTLS(app.ID)
		}
	}
	return a.revocations.Check(g)
}

func appDisabled(id string) *pubsub.Error {
	return pubsub.Errorf(pubsub.CodeAppDisabled, "application %s is disabled", id)
}

func appNeedsTLS(id string) *pubsub.Error {
	return pubsub.Errorf(pubsub.CodeTLSRequired, "application %s needs a connection with TLS", id)
}

func unknownApp(id string) *pubsub.Error {
	return pubsub.Errorf(pubsub.CodeNotFound, "no application %s", clip(id))
}

// token authenticates a token string of any kind (TN2, TN3).
func (a *Authenticator) token(token string, claim clientClaim, clientType string) (*Grant, error) {
	g, err := a.readToken(token, claim, clientType)
	if err != nil {
		return nil, err
	}
	if g.key.app.Disabled {
		return nil, appDisabled(g.App)
	}
	if err := a.revocations.Check(g); err != nil {
		return nil, err
	}
	return g, nil
}

func (a *Authenticator) readToken(token string, claim clientClaim, clientType string) (*Grant, error) {
	if len(token) <= maxTokenBytes {
		dots := strings.Count(token, ".")
		if dots == 2 || dots == 4 {
			e, is, err := embedded(token)
			switch {
			case err != nil:
				return nil, err
			case is:
				return a.embeddedToken(e, claim, clientType)
			}
		}
		switch dots {
		case 2:
			return a.jwt(token, claim, clientType)
		case 4:
			return nil, invalidEnvelope("an encrypted token must have a token of this server in its header, as " + embeddedClaim)
		case 0:
		default:
			return a.ablyToken(token, claim, clientType)
		}
	}
	return nil, unknownForm()
}

func unknownForm() *pubsub.Error {
	return pubsub.NewError(pubsub.CodeInvalidCredentials, "invalid token: its form is unknown")
}

// clientClaim is the clientId that a party asks for beside its credential.
type clientClaim struct {
	id      string
	present bool
}

// applyToKey settles the identity of a party that has a key: any, unless it chose one, which
// is not "*" (RSA7c).
func (c clientClaim) applyToKey(g *Grant) error {
	switch {
	case !c.present:
		g.ClientRule = ClientAny
	case c.id == "" || c.id == wildcardClientID || !utf8.ValidString(c.id):
		return pubsub.Errorf(pubsub.CodeInvalidClientID, "invalid clientId: %q", clip(c.id))
	default:
		// A copy, since a parameter's value would keep the whole URL alive.
		g.ClientRule, g.ClientID = ClientIdentified, strings.Clone(c.id)
	}
	return nil
}

// applyToToken settles the identity of a party whose token names tokenID, "*" or nobody
// (RSA7a, RSA12a, RSA15a-c).
func (c clientClaim) applyToToken(g *Grant, tokenID string, named bool) error {
	switch {
	case named && tokenID == "":
		return pubsub.NewError(pubsub.CodeInvalidClientID, `invalid clientId: "" in the token`)
	case named && tokenID == wildcardClientID:
		if !c.present || c.id == wildcardClientID {
			g.ClientRule = ClientAny
			return nil
		}
		return c.applyToKey(g)
	case !c.present || named && c.id == tokenID:
		if named {
			g.ClientRule, g.ClientID = ClientIdentified, tokenID
		}
		return nil
	case c.id == "":
		return pubsub.NewError(pubsub.CodeInvalidClientID, `invalid clientId: ""`)
	}
	return pubsub.Errorf(pubsub.CodeIncompatibleCredential,
		"incompatible credentials: the token is not for clientId %q", clip(c.id))
}
