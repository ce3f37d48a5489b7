package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ofEachNode are the settings that a node of a cluster has for itself: those that are named, and
// those of the sections that end with a dot.
var ofEachNode = []string{
	"server.", "log.", "data_dir", "storage.", "redis.", "tls.", "debug.",
	"limits.profile", "limits.outbox_bytes", "limits.outbox_total_bytes", "limits.log_bytes",
	"limits.address_sockets", "limits.address_failures_per_second",
}

// secretSettings are those of which Secrets says what the server works with.
var secretSettings = []string{"jwt.secret", "ably.token_secret", "api_keys", "revocable_keys", "apps", "admin.tokens"}

// Shared returns the settings that are to be the same on all nodes of a cluster, by name, each as a
// short text that is the same where the setting is. started is the configuration of the start and
// c the one that was loaded last; of both only what a server goes by counts.
//
// Texts may be shown to whoever may read a cluster's messages. Those of secrets have 16 bits, so that
// nobody can find out a secret by trying: of 65,536 differences one is overlooked.
func Shared(started, c Config, s Secrets) map[string]string {
	all := make(map[string]string)
	loaded := settings(&c)
	for i, setting := range settings(&started) {
		own := func(name string) bool {
			return setting.path == name || strings.HasSuffix(name, ".") && strings.HasPrefix(setting.path, name)
		}
		if slices.ContainsFunc(ofEachNode, own) || slices.Contains(secretSettings, setting.path) {
			continue
		}
		if setting.field.Tag.Get("reload") != "" {
			setting = loaded[i]
		}
		all[setting.path] = digest(8, setting.path, setting.value.Interface())
	}
	all["MODE"] = digest(8, "MODE", started.Mode)

	all["jwt.secret"] = digest(2, "jwt.secret", string(s.JWTSecret))
	all["ably.token_secret"] = digest(2, "ably.token_secret", string(s.TokenSecret))
	keys := slices.SortedFunc(slices.Values(s.Keys), func(a, b Key) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.ID, b.ID)) })
	var ofDefault, ofApps []any
	for _, k := range keys {
		key := []any{k.App, k.ID, string(k.Secret), k.Capability, k.Revocable}
		if k.App == s.DefaultApp {
			ofDefault = append(ofDefault, key)
		} else {
			ofApps = append(ofApps, key)
		}
	}
	for _, a := range c.Apps {
		ofApps = append(ofApps, []any{a.ID, a.Namespaces})
	}
	all["api_keys"] = digest(2, "api_keys", ofDefault)
	all["apps"] = digest(2, "apps", ofApps)
	var tokens []string
	for _, t := range s.AdminTokens {
		tokens = append(tokens, string(t.Secret))
	}
	slices.Sort(tokens)
	all["admin.tokens"] = digest(2, "admin.tokens", tokens)
	return all
}

// digest is the first bytes of what stands for a value of a setting, in hexadecimal.
func digest(bytes int, name string, value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("config: %s cannot be told: %v", name, err)) // it is made of what can be
	}
	sum := sha256.Sum256(append([]byte("letshare setting\x00"+name+"\x00"), text...))
	return hex.EncodeToString(sum[:bytes])
}
