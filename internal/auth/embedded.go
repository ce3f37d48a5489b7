package auth

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/pubsub"
)

// embeddedClaim names the token inside a JWT that an application made for itself: a parameter
// of its JOSE header, or, if the JWT is not encrypted, a claim.
const embeddedClaim = "x-ably-token"

// embeddedMargin is by how much an outer token may seem to outlive the one inside: issuers
// write whole seconds, and make the outer token a moment after the inner.
const embeddedMargin = time.Minute

// envelope is a token around a token. What it says beside that is its issuer's business; it is
// not signed with a secret of ours, so that it gives no rights.
type envelope struct {
	inner   string
	expires time.Time // zero: encrypted, or not told
}

// embedded returns the envelope that a JWS or JWE is, with ok false if it is none: then it is
// to be judged by itself. Only what stands in clear is read, and no signature is checked.
func embedded(token string) (e envelope, ok bool, err error) {
	parts := strings.Split(token, ".")
	header, _ := openPart(parts[0])
	if e.inner, ok = header[embeddedClaim].(string); !ok && header[embeddedClaim] != nil {
		return envelope{}, false, invalidEnvelope(embeddedClaim + " must be a string")
	}
	if len(parts) == 3 && (ok || mayEmbed(parts[1])) {
		claims, readable := openPart(parts[1])
		if !ok {
			if e.inner, ok = claims[embeddedClaim].(string); !ok {
				return envelope{}, false, nil
			}
		}
		expires, present, valid := timeClaim(claims, "exp")
		if !readable || present && !valid {
			return envelope{}, false, invalidEnvelope("exp must be a time in seconds")
		}
		e.expires = expires
	}
	return e, ok, nil
}

func invalidEnvelope(what string) *pubsub.Error {
	return pubsub.NewError(pubsub.CodeInvalidJWT, "invalid JWT format: "+what)
}

// mayEmbed spares the claims of ordinary JWTs being read twice.
func mayEmbed(part string) bool {
	text, ok := decodeBase64(part)
	return ok && strings.Contains(text, embeddedClaim)
}

// openPart reads one part of a JWS or JWE as a JSON object, in whichever base64 its issuer
// writes.
func openPart(part string) (jwt.MapClaims, bool) {
	text, ok := decodeBase64(part)
	if !ok {
		return nil, false
	}
	var fields jwt.MapClaims
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	err := decoder.Decode(&fields)
	return fields, err == nil
}

// embeddedToken authenticates the token inside an envelope: an Ably token or an Ably JWT, with
// all that it says. The outer token's end is the end of both.
func (a *Authenticator) embeddedToken(e envelope, claim clientClaim, clientType string) (*Grant, error) {
	if !e.expires.IsZero() && !a.now().Before(e.expires) {
		return nil, tokenExpired()
	}
	var g *Grant
	var err error
	switch dots := strings.Count(e.inner, "."); {
	case len(e.inner) > maxTokenBytes || dots == 0:
		return nil, unknownForm()
	case dots == 2:
		g, err = a.jwt(e.inner, claim, clientType)
	default:
		g, err = a.ablyToken(e.inner, claim, clientType)
	}
	switch {
	case err != nil:
		return nil, err
	case e.expires.IsZero():
	case e.expires.After(g.Expires.Add(embeddedMargin)):
		return nil, invalidEnvelope("the token lives longer than the one embedded in it")
	case e.expires.Before(g.Expires):
		g.Expires = e.expires
	}
	return g, nil
}
