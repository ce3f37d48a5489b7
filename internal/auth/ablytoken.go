package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"letshare-server/internal/pubsub"
)

// An Ably token is self-contained: the id of its app, a dot, and in base64url without padding
//
//	salt (24 bytes) | AES-256-GCM of the JSON of tokenClaims, with its tag of 16 bytes
//
// The cipher's key is HMAC-SHA256(secret, "letshare ably token" | first half of the salt), its
// nonce the second half: 192 random bits, so that a secret is good for any number of tokens.
// The app's id is authenticated with it. Nobody but who has the secret can make a token or
// read one, and each token has one spelling.

// tokenClaims are what a token says.
type tokenClaims struct {
	KeyID      string          `json:"k"`
	Key        []byte          `json:"f"` // fingerprint of the key's secret: a key with another is another key
	Issued     int64           `json:"i"` // ms since the epoch, as Expires; for a token made with another, when that was
	Expires    int64           `json:"e"`
	ClientID   *string         `json:"c,omitempty"` // nil: anonymous
	Capability json.RawMessage `json:"p"`

	// Of the JWT that this one was made with.
	RevocationKey string                 `json:"r,omitempty"`
	UserClaims    map[string]string      `json:"u,omitempty"`
	PublishRates  map[string]json.Number `json:"l,omitempty"`
}

// sealer makes tokens and opens them.
type sealer struct{ secret []byte }

const tokenSaltBytes = 24

var tokenEncoding = base64.RawURLEncoding.Strict()

// seal returns the token of an app that says c.
func (s sealer) seal(appID string, c tokenClaims) (string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	sealed := make([]byte, tokenSaltBytes, tokenSaltBytes+len(text)+16)
	_, _ = rand.Read(sealed) // never fails
	sealed = s.cipher(sealed).Seal(sealed, sealed[tokenSaltBytes/2:], text, []byte(appID))
	return appID + "." + tokenEncoding.EncodeToString(sealed), nil
}

// open returns what a token says, given its two parts. It reports false if the token is not
// one that seal made.
func (s sealer) open(appID, sealed string) (c tokenClaims, ok bool) {
	if strings.ContainsAny(sealed, "\r\n") { // which the decoder would skip
		return tokenClaims{}, false
	}
	b, err := tokenEncoding.DecodeString(sealed)
	if err != nil || len(b) < tokenSaltBytes {
		return tokenClaims{}, false
	}
	salt, box := b[:tokenSaltBytes:tokenSaltBytes], b[tokenSaltBytes:]
	text, err := s.cipher(salt).Open(nil, salt[tokenSaltBytes/2:], box, []byte(appID))
	if err != nil || json.Unmarshal(text, &c) != nil {
		return tokenClaims{}, false
	}
	return c, true
}

func (s sealer) cipher(salt []byte) cipher.AEAD {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte("letshare ably token"))
	mac.Write(salt[:tokenSaltBytes/2])
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // the key has the size of a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// ablyToken authenticates an Ably token.
func (a *Authenticator) ablyToken(token string, claim clientClaim, clientType string) (*Grant, error) {
	appID, sealed, _ := strings.Cut(token, ".")
	claims, ok := a.tokens.open(appID, sealed)
	if !ok {
		if a.registry.Lookup(appID) == nil {
			return nil, unknownForm()
		}
		return nil, pubsub.NewError(pubsub.CodeInvalidToken, "invalid token: not one of this server")
	}
	app, key, err := a.find(appID, claims.KeyID)
	switch {
	case err != nil:
		return nil, err
	case app == nil:
		return nil, unknownApp(appID)
	case key == nil:
		return nil, pubsub.Errorf(pubsub.CodeKeyUnknown, "no key %s.%s", appID, claims.KeyID)
	}
	if subtle.ConstantTimeCompare(claims.Key, key.fingerprint[:]) != 1 {
		return nil, pubsub.Errorf(pubsub.CodeKeyRevoked, "the token is of an earlier key %s", key.name)
	}
	g := key.grant()
	g.RevocationKey = claims.RevocationKey
	g.Issued, g.Expires = time.UnixMilli(claims.Issued), time.UnixMilli(claims.Expires)
	if end := g.Issued.Add(maxRevocableTokenLife); key.Revocable && g.Expires.After(end) {
		g.Expires = end // made before the key was revocable
	}
	if !a.now().Before(g.Expires) {
		return nil, tokenExpired()
	}
	var id string
	if claims.ClientID != nil {
		id = *claims.ClientID
	}
	if err := claim.applyToToken(g, id, claims.ClientID != nil); err != nil {
		return nil, err
	}
	if clientType == "server" {
		return nil, pubsub.NewError(pubsub.CodeClientTypeRequired, "clientType=server needs a JWT with the claim x-ably-clientType")
	}
	if g.userClaims, err = readUserClaims(claims.UserClaims); err != nil {
		return nil, err
	}
	if g.publishRates, err = readPublishRates(claims.PublishRates); err != nil {
		return nil, err
	}
	// The key may have fewer rights by now than when it vouched.
	if g.Capability, err = narrowed(key.Capability, string(claims.Capability)); err != nil {
		return nil, err
	}
	app.touch(a.now())
	return g, nil
}
