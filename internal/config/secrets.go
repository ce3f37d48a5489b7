package config

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Published tells ResolveSecrets what the whole world knows.
type Published struct {
	Contains func(credential string) bool // whether a secret or key is published with this software
	LocalKey string                       // the published key that local mode offers when none is configured
}

// Key is an API key that the server accepts.
type Key struct {
	App        string
	ID         string
	Secret     Secret
	Capability string // JSON; empty means everything
	Revocable  bool
	LocalOnly  bool // its secret is published: for local peers only
}

// name is "appId.keyId".
func (k Key) name() string { return k.App + "." + k.ID }

// reveal is the whole key, secret and all.
func (k Key) reveal() string { return k.name() + ":" + string(k.Secret) }

// Secrets are the secrets and keys that the server works with.
type Secrets struct {
	JWTSecret    Secret
	JWTLocalOnly bool // the secret is published: for local peers only

	DefaultApp string // app of the first key, of LetShare's rooms and of Config.Namespaces
	Keys       []Key  // of all apps; those of the default app come first

	TokenSecret Secret // of Ably tokens

	AdminTokens []AdminToken // of the control API

	Shared map[string]Secret // those of the vault, by name

	Warnings []string // what the operator should change
	Notes    []string // what the operator should know
}

// AdminToken is an access token of the control API.
type AdminToken struct {
	Name   string // which setting it is
	Secret Secret
}

// The files of the data directory, readable for their owner only.
const (
	jwtSecretFile   = "jwt-secret"
	apiKeyFile      = "api-key"
	tokenSecretFile = "token-secret"
	appsFile        = "apps.json"
	revocationsFile = "revocations.jsonl"
	statisticsFile  = "statistics.json"
)

// ResolveSecrets decides which secrets and keys are used.
//
// What is configured and published nowhere is used as it is. What is published works in
// local mode for local peers, and never in production. If that leaves production without a
// secret or without a key, or either mode without a secret for Ably tokens, one is made and
// kept in the data directory, from where the next start takes it; if nothing can be written
// there it lives until the process ends. No text in the result quotes a secret.
func ResolveSecrets(c Config, p Published) (Secrets, error) { return ResolveSharedSecrets(c, p, nil) }

// Vault keeps a secret that all nodes of a cluster work with. It returns the one that is kept
// under name, which is made if there was none.
type Vault func(name, made string) (string, error)

// ResolveSharedSecrets is ResolveSecrets for a node of a cluster: what is made is kept in the
// vault. A nil vault means the data directory.
func ResolveSharedSecrets(c Config, p Published, vault Vault) (Secrets, error) {
	r := resolver{Config: c, published: p, vault: vault}
	if err := errors.Join(r.resolveJWT(), r.resolveDefaultApp(), r.resolveTokenSecret()); err != nil {
		return Secrets{}, err
	}
	if err := r.resolveApps(); err != nil {
		return Secrets{}, err
	}
	r.resolveAdminTokens()
	return r.out, nil
}

type resolver struct {
	Config
	published Published
	vault     Vault
	out       Secrets
}

func (r *resolver) warn(format string, args ...any) {
	r.out.Warnings = append(r.out.Warnings, fmt.Sprintf(format, args...))
}

func (r *resolver) note(format string, args ...any) {
	r.out.Notes = append(r.out.Notes, fmt.Sprintf(format, args...))
}

func (r *resolver) resolveJWT() error {
	secret := strings.TrimSpace(string(r.JWT.Secret))
	if secret == "" && r.Mode == Local {
		secret = string(Default(Local).JWT.Secret)
	}
	published := r.published.Contains(secret)
	switch {
	case secret != "" && !published:
		r.out.JWTSecret = Secret(secret)
		if len(secret) < 16 {
			r.warn("jwt.secret is shorter than 16 characters and can be guessed")
		}
		return nil
	case published && r.Mode == Local:
		r.out.JWTSecret, r.out.JWTLocalOnly = Secret(secret), true
		r.note("jwt.secret is a published one: LetShare tokens work from local addresses only; set your own with LETSHARE_JWT_SECRET")
		return nil
	case published:
		r.warn("jwt.secret is a published one and is not used in production; set your own with LETSHARE_JWT_SECRET")
	}
	made, err := r.keep(jwtSecretFile, "jwt.secret", "LETSHARE_JWT_SECRET", makeSecret, func(s string) bool { return len(s) >= 32 })
	r.out.JWTSecret = Secret(made)
	return err
}

// resolveTokenSecret uses no published secret in either mode: there is none that would have to
// work, and whoever knew it could make tokens of every key.
func (r *resolver) resolveTokenSecret() error {
	const setting, variable = "ably.token_secret", "LETSHARE_ABLY_TOKEN_SECRET"
	secret := strings.TrimSpace(string(r.Ably.TokenSecret))
	switch {
	case secret == "":
	case r.published.Contains(secret):
		r.warn("%s is a published one and is not used; set your own with %s", setting, variable)
	default:
		r.out.TokenSecret = Secret(secret)
		if len(secret) < 32 {
			r.warn("%s is shorter than 32 characters and can be guessed", setting)
		}
		return nil
	}
	made, err := r.keep(tokenSecretFile, setting, variable, makeSecret, func(s string) bool { return len(s) >= 32 })
	r.out.TokenSecret = Secret(made)
	return err
}

func (r *resolver) resolveDefaultApp() error {
	for i, text := range r.APIKeys {
		k, ok := splitKey(string(text))
		if !ok {
			return fmt.Errorf("api_keys[%d]: must have the form appId.keyId:secret", i)
		}
		r.addKey(k, fmt.Sprintf("api_keys[%d]", i))
	}
	if len(r.out.Keys) == 0 {
		if err := r.defaultKey(); err != nil {
			return err
		}
	}
	r.out.DefaultApp = r.out.Keys[0].App
	for i := range r.out.Keys {
		k := &r.out.Keys[i]
		k.Revocable = slices.Contains(r.Revocable, k.name())
	}
	return nil
}

// defaultKey is for when no usable key is configured.
func (r *resolver) defaultKey() error {
	if r.Mode == Local {
		k, ok := splitKey(r.published.LocalKey)
		if !ok {
			return errors.New("the key of local mode is malformed")
		}
		r.addKey(k, "api_keys")
		return nil
	}
	text, err := r.keep(apiKeyFile, "api_keys", "LETSHARE_API_KEYS", makeKey, func(s string) bool {
		k, ok := splitKey(s)
		return ok && len(k.Secret) >= 32
	})
	if err != nil {
		return err
	}
	k, _ := splitKey(text)
	r.out.Keys = append(r.out.Keys, k)
	return nil
}

// addKey adds a configured key unless it may not be used. where names the setting.
func (r *resolver) addKey(k Key, where string) {
	if r.published.Contains(k.reveal()) {
		if r.Mode == Production {
			r.warn("%s is a published key and is not used in production; set your own", where)
			return
		}
		k.LocalOnly = true
		r.note("key %s is a published one and works from local addresses only; set your own with LETSHARE_API_KEYS", k.name())
	}
	r.out.Keys = append(r.out.Keys, k)
}

func (r *resolver) resolveApps() error {
	for i, app := range r.Apps {
		if app.ID == r.out.DefaultApp {
			return fmt.Errorf("apps[%d].id: %s is the default app: its keys go into api_keys", i, app.ID)
		}
		for j, key := range app.Keys {
			r.addKey(Key{App: app.ID, ID: key.ID, Secret: key.Secret, Capability: key.Capability, Revocable: key.Revocable},
				fmt.Sprintf("apps[%d].keys[%d]", i, j))
		}
	}
	return nil
}

// resolveAdminTokens uses no published token in either mode.
func (r *resolver) resolveAdminTokens() {
	for i, token := range r.Admin.Tokens {
		name := fmt.Sprintf("admin.tokens[%d]", i)
		if r.published.Contains(string(token)) {
			r.warn("%s is a published one and is not used; set your own with LETSHARE_ADMIN_TOKENS", name)
			continue
		}
		r.out.AdminTokens = append(r.out.AdminTokens, AdminToken{name, token})
	}
}

// splitKey takes "appId.keyId:secret" apart, without looking at the characters.
func splitKey(text string) (Key, bool) {
	name, secret, hasSecret := strings.Cut(text, ":")
	app, id, hasID := strings.Cut(name, ".")
	ok := hasSecret && hasID && app != "" && id != "" && secret != ""
	return Key{App: app, ID: id, Secret: Secret(secret)}, ok
}

// makeSecret returns 52 letters and digits that nobody can guess.
func makeSecret() string { return rand.Text() + rand.Text() }

func makeKey() string { return NewKey("") }

// NewKey returns a key, appId.keyId:secret, that nobody can guess. Ids have six characters; an
// empty app means a new one.
func NewKey(app string) string {
	if app == "" {
		app = rand.Text()[:6]
	}
	return app + "." + rand.Text()[:6] + ":" + makeSecret()
}

// dataDir is where secrets are kept.
func (c Config) dataDir() string {
	switch {
	case c.DataDir != "":
		return c.DataDir
	case c.Storage.Dir != "":
		return c.Storage.Dir
	}
	return "data"
}

// AppsFile is where apps that are made at run time are kept, or "" if they end with the process:
// in local mode without a directory of its own, or live in Redis.
func (c Config) AppsFile() string { return c.kept(appsFile) }

// RevocationsFile is where revocations of tokens are kept, or "" as for AppsFile.
func (c Config) RevocationsFile() string { return c.kept(revocationsFile) }

// StatisticsFile is where statistics are kept, or "" as for AppsFile.
func (c Config) StatisticsFile() string { return c.kept(statisticsFile) }

func (c Config) kept(file string) string {
	if c.Redis.Clustered() {
		return "" // it is in Redis
	}
	if c.Mode == Local && c.DataDir == "" && c.Storage.Dir == "" {
		return ""
	}
	return filepath.Join(c.dataDir(), file)
}

// ACMEDir is where the account's key and the certificates of tls.acme are kept.
func (c Config) ACMEDir() string {
	if dir := c.TLS.ACME.CacheDir; dir != "" {
		return dir
	}
	return filepath.Join(c.dataDir(), "acme")
}

// keep returns the secret in the vault or in a file of the data directory, which it makes if it is not
// there. setting and variable tell the operator how to configure one instead.
func (r *resolver) keep(file, setting, variable string, generate func() string, valid func(string) bool) (string, error) {
	made := generate()
	if r.vault != nil {
		secret, err := r.vault(file, made)
		switch {
		case err != nil:
			return "", fmt.Errorf("%s is not configured, and the one that the cluster has made cannot be read: %w", setting, err)
		case !valid(secret) || r.published.Contains(secret):
			return "", fmt.Errorf("the cluster keeps nothing usable for %s; set it with %s", setting, variable)
		}
		if r.out.Shared == nil {
			r.out.Shared = make(map[string]Secret)
		}
		r.out.Shared[file] = Secret(secret)
		r.note("%s is not configured: using what was made for this cluster, in Redis; set your own with %s", setting, variable)
		return secret, nil
	}
	path := filepath.Join(r.dataDir(), file)
	writeErr := writeNew(path, made)
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		secret := string(bytes.TrimSpace(text))
		if !valid(secret) || r.published.Contains(secret) {
			return "", fmt.Errorf("%s: holds nothing usable for %s; remove it, and the next start makes another", path, setting)
		}
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			r.warn("%s can be read by others; restrict it to its owner (chmod 600)", path)
		}
		r.note("%s is not configured: using what was made for this installation, in %s; set your own with %s", setting, path, variable)
		return secret, nil
	case writeErr != nil && !errors.Is(writeErr, fs.ErrExist):
		r.warn("%s is not configured, and none can be kept (%v): the one made now ends with this process; set %s, or data_dir to a place that can be written",
			setting, writeErr, variable)
		return made, nil
	}
	return "", fmt.Errorf("%s is not configured, and the one that was made before cannot be read: %w", setting, err)
}

// writeNew writes a file for its owner only, whole or not at all. If the file is there
// already it is left alone, and the error is fs.ErrExist.
func writeNew(path, text string) error {
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(text + "\n")
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, leaves the file of a process that was faster.
	if err := os.Link(temp.Name(), path); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Rename(temp.Name(), path) // a file system without links
}
