package auth

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"letshare-server/internal/pubsub"
)

// The longest lives of JWTs, from iat to exp.
const (
	maxJWTLife          = maxTokenLife
	maxRevocableJWTLife = maxRevocableTokenLife
)

// jwt authenticates an Ably JWT: signed with the secret of the key that its header names,
// with iat and exp, perhaps with a capability that narrows the key's, and a clientId.
//
// Errors of tokens that a new one would cure are in the range that SDKs renew on; see
// pubsub.Code.IsTokenError.
func (a *Authenticator) jwt(token string, claim clientClaim, clientType string) (*Grant, error) {
	var key *appKey
	claims, err := parseJWT(token, func(header map[string]any) (secret []byte, err error) {
		if key, err = a.signingKey(header); err != nil {
			return nil, err
		}
		return []byte(key.Secret), nil
	})
	if err != nil {
		var known *pubsub.Error
		if errors.As(err, &known) {
			return nil, known
		}
		return nil, pubsub.Errorf(pubsub.CodeInvalidJWT, "invalid JWT format: %v", err)
	}

	g := key.grant()
	if g.Issued, g.Expires, err = a.checkTimes(claims, key); err != nil {
		return nil, err
	}
	var ok bool
	if g.RevocationKey, _, ok = stringClaim(claims, "x-ably-revocation-key"); !ok || len(g.RevocationKey) > maxTargetBytes {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid token: x-ably-revocation-key must be a string of %d bytes at most", maxTargetBytes)
	}
	id, named, ok := stringClaim(claims, "x-ably-clientId")
	if !ok {
		return nil, pubsub.NewError(pubsub.CodeInvalidClientID, "invalid clientId: x-ably-clientId must be a string")
	}
	if err := claim.applyToToken(g, id, named); err != nil {
		return nil, err
	}
	if clientType == "server" && claims["x-ably-clientType"] != "server" {
		return nil, pubsub.NewError(pubsub.CodeClientTypeRequired, "clientType=server needs a token with the claim x-ably-clientType")
	}
	if g.userClaims, err = readUserClaims(claims); err != nil {
		return nil, err
	}
	if g.publishRates, err = readPublishRates(claims); err != nil {
		return nil, err
	}
	text, _, ok := stringClaim(claims, "x-ably-capability")
	if !ok {
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "invalid capability: x-ably-capability must be a string of JSON")
	}
	if g.Capability, err = narrowed(key.Capability, text); err != nil {
		return nil, err
	}
	key.app.touch(a.now())
	return g, nil
}

// signingKey finds the key that a token's header names in kid.
func (a *Authenticator) signingKey(header map[string]any) (*appKey, error) {
	kid, _ := header["kid"].(string)
	appID, keyID, dotted := strings.Cut(kid, ".")
	if !dotted || !isKeyID(appID) || !isKeyID(keyID) {
		return nil, pubsub.NewError(pubsub.CodeInvalidJWT, "invalid JWT format: kid must be the name of a key, appId.keyId")
	}
	app, key, err := a.find(appID, keyID)
	switch {
	case err != nil:
		return nil, err
	case app == nil:
		return nil, unknownApp(appID)
	case key == nil:
		return nil, pubsub.Errorf(pubsub.CodeKeyUnknown, "no key %s.%s", appID, keyID)
	}
	return key, nil
}

// checkTimes checks and returns iat and exp.
func (a *Authenticator) checkTimes(claims map[string]any, key *appKey) (issued, expires time.Time, err error) {
	never := time.Time{}
	times := make(map[string]time.Time, 2)
	for _, name := range []string{"iat", "exp"} {
		t, present, ok := timeClaim(claims, name)
		switch {
		case !present:
			return never, never, pubsub.Errorf(pubsub.CodeInvalidJWT, "invalid JWT format: %s must be specified", name).
				WithStatus(http.StatusBadRequest)
		case !ok:
			return never, never, pubsub.Errorf(pubsub.CodeInvalidJWT, "invalid JWT format: %s must be a time in seconds", name).
				WithStatus(http.StatusBadRequest)
		}
		times[name] = t
	}
	now := a.now()
	issued, expires = times["iat"], times["exp"]
	longest := maxJWTLife
	if key.Revocable {
		longest = maxRevocableJWTLife
	}
	switch {
	case !now.Before(expires):
		return never, never, tokenExpired()
	case issued.After(now.Add(clockSkew)):
		return never, never, pubsub.NewError(pubsub.CodeInvalidJWT, "invalid JWT format: iat is in the future")
	case expires.Sub(issued) > longest:
		return never, never, pubsub.Errorf(pubsub.CodeInvalidParameterValue,
			"invalid token: it lives for %v, and the longest life is %v", expires.Sub(issued), longest)
	}
	if t, present, ok := timeClaim(claims, "nbf"); present && (!ok || t.After(now.Add(clockSkew))) {
		return never, never, pubsub.NewError(pubsub.CodeInvalidJWT, "invalid JWT format: not valid yet")
	}
	return issued, expires, nil
}

// tokenExpired has the text that SDKs' tests look for.
func tokenExpired() *pubsub.Error { return pubsub.NewError(pubsub.CodeTokenExpired, "token expired") }

// narrowed returns the capability of a token: the key's, or what the token's own, if text is
// not empty, and the key's both allow. It is the key's own value where they are equal, so
// that connections share it.
func narrowed(key *Capability, text string) (*Capability, error) {
	if text == "" {
		return key, nil
	}
	asked, err := ParseCapability(text)
	if err != nil {
		return nil, err
	}
	both := asked.Intersect(key)
	switch {
	case both.Empty():
		return nil, pubsub.NewError(pubsub.CodeCapabilityDenied, "the token's capability and its key's have nothing in common")
	case both.Equal(key):
		return key, nil
	}
	return both, nil
}
