package auth

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// AblyJWT is what a token says that SignAblyJWT makes.
type AblyJWT struct {
	Life       time.Duration // zero means one hour; 24 hours at most, one for a revocable key
	ClientID   string        // "*": any; empty: anonymous
	Capability string        // JSON; empty: all that the key allows
}

// SignAblyJWT makes an Ably JWT of a key, as of now. An error says which part cannot be.
func SignAblyJWT(k Key, t AblyJWT, now time.Time) (string, error) {
	if t.Life == 0 {
		t.Life = defaultTokenLife
	}
	longest := maxJWTLife
	if k.Revocable {
		longest = maxRevocableJWTLife
	}
	if t.Life < time.Second || t.Life > longest {
		return "", fmt.Errorf("make a token: it must live for a second to %v", longest)
	}
	claims := jwt.MapClaims{"iat": now.Unix(), "exp": now.Unix() + int64(t.Life/time.Second)}
	if t.ClientID != "" {
		if !utf8.ValidString(t.ClientID) {
			return "", errors.New("make a token: the clientId is not UTF-8")
		}
		claims["x-ably-clientId"] = t.ClientID
	}
	if t.Capability != "" {
		c, err := ParseCapability(t.Capability)
		if err != nil {
			return "", fmt.Errorf("make a token: %w", err)
		}
		claims["x-ably-capability"] = c.String()
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = k.Name()
	return token.SignedString([]byte(k.Secret))
}
