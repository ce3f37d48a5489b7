package auth

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxTokenBytes is the longest token that is looked at.
const maxTokenBytes = 128 << 10

// clockSkew is how far the issuer's clock may be ahead of ours.
const clockSkew = 5 * time.Minute

// What can be wrong with the form of a JWT, before its claims are looked at.
var (
	errJWTMalformed = errors.New("malformed")
	errJWTAlgorithm = errors.New("algorithm is not HS256")
	errJWTSignature = errors.New("signature does not match")
)

// jwtParser verifies HS256 signatures and leaves the claims to us: the codes of errors are
// fixed, and the clock is injected. Strict decoding leaves each token one spelling only.
var jwtParser = jwt.NewParser(
	jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
	jwt.WithoutClaimsValidation(),
	jwt.WithJSONNumber(),
	jwt.WithStrictDecoding(),
)

// parseJWT verifies the signature of a token and returns its claims. secret gives the
// secret for a token's header; an error from it comes back in the chain of ours. All other
// errors are one of the three above.
func parseJWT(token string, secret func(header map[string]any) ([]byte, error)) (jwt.MapClaims, error) {
	// Base64 decoders skip line ends, so that a token could be spelled in many ways.
	if !isJWTText(token) {
		return nil, errJWTMalformed
	}
	claims := jwt.MapClaims{}
	var refused error // from secret
	t, err := jwtParser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if _, has := t.Header["crit"]; has {
			refused = errJWTMalformed // we understand no extension that must be understood
			return nil, refused
		}
		var key []byte
		if key, refused = secret(t.Header); refused != nil {
			return nil, refused
		}
		return key, nil
	})
	switch {
	case err == nil:
		return claims, nil
	case refused != nil:
		return nil, refused
	case t != nil && t.Header != nil && t.Header["alg"] != jwt.SigningMethodHS256.Alg():
		return nil, errJWTAlgorithm
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, errJWTMalformed
	}
	return nil, errJWTSignature
}

// isJWTText reports whether s has three parts of base64url characters.
func isJWTText(s string) bool {
	if len(s) > maxTokenBytes || strings.Count(s, ".") != 2 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// maxClaimSeconds is the end of the year 9999, the last that RFC 3339 can write.
const maxClaimSeconds = 253402300799

// timeClaim reads a time in seconds. present is false if there is no such claim; ok is
// false if it is anything but a number between 1970 and 9999.
func timeClaim(claims jwt.MapClaims, name string) (t time.Time, present, ok bool) {
	v, present := claims[name]
	if !present {
		return time.Time{}, false, false
	}
	number, isNumber := v.(json.Number)
	if !isNumber {
		return time.Time{}, true, false
	}
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > maxClaimSeconds {
		return time.Time{}, true, false
	}
	return time.UnixMilli(int64(math.Floor(seconds * 1000))), true, true
}

// stringClaim reads a string. present is false if there is no such claim or it is null; ok
// is false if it is of another type.
func stringClaim(claims jwt.MapClaims, name string) (s string, present, ok bool) {
	v := claims[name]
	if v == nil {
		return "", false, true
	}
	s, ok = v.(string)
	return s, true, ok
}
