package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"strings"

	"letshare-server/internal/pubsub"
)

// The longest parts of a key.
const (
	maxKeyIDBytes     = 64
	maxKeySecretBytes = 256
)

// Key is an API key of an app. It is immutable once it belongs to an App. However it is
// printed, its secret is left out.
type Key struct {
	AppID  string
	ID     string
	Secret string

	Capability *Capability // nil means FullCapability
	Revocable  bool        // its tokens can be revoked, and live for at most an hour
	LocalOnly  bool        // good for local peers only, since its secret is published
}

// ParseKey takes "appId.keyId:secret" apart. Ids are made of letters, digits, "_" and "-",
// the secret of printable ASCII without ":", ".", "," and space. An error is an
// *pubsub.Error with CodeInvalidCredential, and quotes nothing of s.
func ParseKey(s string) (Key, error) {
	name, secret, hasSecret := strings.Cut(s, ":")
	app, id, hasID := strings.Cut(name, ".")
	if !hasSecret || !hasID || !isKeyID(app) || !isKeyID(id) || !isKeySecret(secret) {
		return Key{}, pubsub.NewError(pubsub.CodeInvalidCredential,
			"invalid key: it must have the form appId.keyId:secret")
	}
	return Key{AppID: app, ID: id, Secret: secret}, nil
}

func isKeyID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxKeyIDBytes
}

func isKeySecret(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ':' || c == '.' || c == ',' {
			return false
		}
	}
	return s != "" && len(s) <= maxKeySecretBytes
}

// Name is "appId.keyId", which is no secret.
func (k Key) Name() string { return k.AppID + "." + k.ID }

func (k Key) String() string { return k.Name() }

// GoString keeps the secret out of %#v.
func (k Key) GoString() string { return "auth.Key(" + k.Name() + ")" }

// LogValue is the key's name.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.Name()) }

// hasSecret compares secrets in a time that depends on neither.
func (k *Key) hasSecret(secret string) bool {
	ours, theirs := sha256.Sum256([]byte(k.Secret)), sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(ours[:], theirs[:]) == 1
}

// fingerprint tells secrets apart without revealing them.
func fingerprint(secret string) [16]byte {
	sum := sha256.Sum256([]byte("letshare key fingerprint\x00" + secret))
	return [16]byte(sum[:16])
}
