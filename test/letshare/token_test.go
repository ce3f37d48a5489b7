package letshare_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"hash"
	"time"
)

// claims are what a token says, by name. A nil value stands for null.
type claims map[string]any

// userClaims are those of a good token.
func userClaims(user string) claims {
	return claims{
		"user_id": user, "user_type": "desktop", "room_id": "",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
}

// with returns a copy in which one claim has another value.
func (c claims) with(name string, value any) claims {
	changed := c.without(name)
	changed[name] = value
	return changed
}

// without returns a copy that lacks one claim.
func (c claims) without(name string) claims {
	changed := claims{}
	for n, v := range c {
		if n != name {
			changed[n] = v
		}
	}
	return changed
}

// token signs claims as the server expects it.
func token(c claims) string { return sign("HS256", jwtSecret, c) }

// tokenFor is a good token for a user.
func tokenFor(user string) string { return token(userClaims(user)) }

// sign makes a JWT by hand, of any algorithm; one that it cannot compute gets the signature
// of HS256.
func sign(alg, secret string, payload any) string {
	encode := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := encode(map[string]string{"alg": alg, "typ": "JWT"}) + "." + encode(payload)
	var h func() hash.Hash
	switch alg {
	case "HS384":
		h = sha512.New384
	case "HS512":
		h = sha512.New
	default:
		h = sha256.New
	}
	mac := hmac.New(h, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
