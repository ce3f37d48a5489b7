package auth

import "strings"

// LocalKey is the key that a server in local mode offers when none is configured. Everybody
// knows it, so it is good for local peers only.
const LocalKey = "letshr.local0:letshare-local-key-published-do-not-deploy"

// publishedSecrets are all secrets and secrets of keys that stand anywhere in this
// repository: in its code, its configuration files, its documentation and its examples.
var publishedSecrets = map[string]bool{
	"letshare-jwt-secret-key-2024":            true,
	"letshare-jwt-secret-key-2024-local":      true,
	"letshare-jwt-secret-key-2024-production": true,
	"your-secret":     true,
	"your-jwt-secret": true,
	LocalKey[strings.IndexByte(LocalKey, ':')+1:]: true,
}

// IsPublished reports whether a secret, or a key "appId.keyId:secret", is published in this
// repository and therefore protects nothing.
func IsPublished(credential string) bool {
	if _, secret, isKey := strings.Cut(credential, ":"); isKey {
		credential = secret
	}
	return publishedSecrets[strings.TrimSpace(credential)]
}
