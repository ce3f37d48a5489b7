package auth

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"letshare-server/internal/pubsub"
)

// Namespace is the rule of a group of channels: those whose name is ID or begins with ID
// and a colon. The zero value is the rule of channels that no other applies to.
type Namespace struct {
	ID              string
	Persisted       bool // messages and presence events stay in history for the storage period
	PersistLast     bool // the last message stays for much longer
	Identified      bool // anonymous clients are refused
	TLSOnly         bool // plaintext connections are refused
	MutableMessages bool // messages can be updated, deleted and annotated; implies Persisted
	PushEnabled     bool
	Limits          NamespaceLimits
}

// NamespaceLimits are limits of each of the channels, in the place of those that hold for all.
// Zero means those.
type NamespaceLimits struct {
	MessageBytes    int // of one publish
	PresenceMembers int
	PresenceBytes   int

	// Rates per second. Less than 0 means no limit.
	Messages int
	Bytes    int
}

// identifiedID is the namespace that wants identified clients without a rule.
const identifiedID = "identified"

// NewID returns an id for an app or a key: 6 random letters and digits.
func NewID() string { return rand.Text()[:6] }

// NewSecret returns a secret for a key, 52 letters and digits that nobody can guess.
func NewSecret() string { return rand.Text() + rand.Text() }

// App is a set of keys and of rules for channels. It is immutable once it is in a Registry,
// but for the note when it was last used.
type App struct {
	ID string

	Disabled bool // all credentials of it are refused, with CodeAppDisabled
	TLSOnly  bool // peers without TLS are refused, with CodeTLSRequired

	keys       map[string]*appKey
	order      []*Key
	namespaces map[string]Namespace
	rules      []Namespace // as NewApp got them
	fixtures   []Fixture
	sandboxed  bool

	used *atomic.Int64 // ms since the epoch; when a credential of it was last accepted
}

// appKey is a key with what all grants of it share.
type appKey struct {
	*Key
	app         *App
	name        string
	anybody     *Grant   // of those who present the key and claim no clientId
	plaintext   *Grant   // the same without TLS
	fingerprint [16]byte // of the secret, for tokens that it vouches for
}

// NewApp returns an app with the given keys and rules. A key's AppID may be empty or the
// app's own. Ids that are repeated or malformed are errors.
func NewApp(id string, keys []Key, namespaces []Namespace) (*App, error) {
	if !isKeyID(id) {
		return nil, fmt.Errorf("app id %q: must be 1 to %d letters, digits, \"_\" or \"-\"", clip(id), maxKeyIDBytes)
	}
	a := &App{ID: id, used: new(atomic.Int64), keys: make(map[string]*appKey, len(keys)), namespaces: make(map[string]Namespace, len(namespaces))}
	for _, k := range keys {
		if k.AppID == "" {
			k.AppID = id
		}
		if k.Capability == nil {
			k.Capability = FullCapability
		}
		switch {
		case k.AppID != id:
			return nil, fmt.Errorf("app %s: key %s belongs to another app", id, k.Name())
		case !isKeyID(k.ID):
			return nil, fmt.Errorf("app %s: key id %q: must be 1 to %d letters, digits, \"_\" or \"-\"", id, clip(k.ID), maxKeyIDBytes)
		case !isKeySecret(k.Secret):
			return nil, fmt.Errorf("app %s: key %s: the secret must be 1 to %d printable ASCII characters other than space, \":\", \".\" and \",\"",
				id, k.Name(), maxKeySecretBytes)
		case a.keys[k.ID] != nil:
			return nil, fmt.Errorf("app %s: key %s is there twice", id, k.Name())
		}
		key := &appKey{Key: &k, app: a, name: k.Name(), fingerprint: fingerprint(k.Secret)}
		key.anybody = key.grant()
		key.anybody.ClientRule, key.anybody.ByKey = ClientAny, true
		over := *key.anybody
		over.Plaintext = true
		key.plaintext = &over
		a.keys[k.ID] = key
		a.order = append(a.order, &k)
	}
	for _, ns := range namespaces {
		if _, twice := a.namespaces[ns.ID]; twice {
			return nil, fmt.Errorf("app %s: namespace %q is there twice", id, ns.ID)
		}
		if ns.ID == "" || pubsub.Namespace(ns.ID) != ns.ID {
			return nil, fmt.Errorf("app %s: namespace %q: must be a name without a colon", id, ns.ID)
		}
		ns.Persisted = ns.Persisted || ns.MutableMessages
		ns.Identified = ns.Identified || ns.ID == identifiedID
		a.namespaces[ns.ID] = ns
		a.rules = append(a.rules, ns)
	}
	if _, has := a.namespaces[identifiedID]; !has {
		a.namespaces[identifiedID] = Namespace{ID: identifiedID, Identified: true}
	}
	return a, nil
}

// Key returns the key with the given id, or nil.
func (a *App) Key(id string) *Key {
	if k := a.keys[id]; k != nil {
		return k.Key
	}
	return nil
}

// Keys returns all keys in the order in which NewApp got them. The caller changes nothing.
func (a *App) Keys() []*Key { return a.order }

// Namespace returns the rule for a channel, given its name without qualifier.
func (a *App) Namespace(channel string) Namespace { return a.namespaces[pubsub.Namespace(channel)] }

// Namespaces returns all rules in the order in which NewApp got them. The caller changes
// nothing.
func (a *App) Namespaces() []Namespace { return a.rules }

// Sandboxed reports whether a Sandbox made the app.
func (a *App) Sandboxed() bool { return a.sandboxed }

// InSandbox makes an app that is in no Registry yet one of a sandbox.
func (a *App) InSandbox(fixtures []Fixture) { a.fixtures, a.sandboxed = fixtures, true }

// Used is when a credential of the app was last accepted by this process, which is 1970 if none
// was.
func (a *App) Used() time.Time { return time.UnixMilli(a.used.Load()) }

// touch notes that the app is in use.
func (a *App) touch(now time.Time) { a.used.Store(now.UnixMilli()) }

// Registry holds the apps of this process: those of the configuration, which Replace
// exchanges, those that were made at run time and are kept, which Provide exchanges, and those
// for tests, which Add adds. Readers see one consistent set. Of apps with the same id the one
// of the configuration counts, and then the one that is kept.
type Registry struct {
	apps atomic.Pointer[map[string]*App] // all of them

	// mu guards the fields below, and the making of apps from them. No other lock is taken
	// under it.
	mu         sync.Mutex
	configured map[string]*App
	provided   map[string]*App
	added      map[string]*App
}

// NewRegistry returns a registry of the given apps.
func NewRegistry(apps ...*App) *Registry {
	r := &Registry{added: make(map[string]*App)}
	r.Replace(apps...)
	return r
}

// Replace exchanges all apps of the configuration at once; others stay. Grants that were
// given before keep what they had, and which of them are good no more is for
// Authenticator.Recheck to say. Of apps with the same id the last counts.
func (r *Registry) Replace(apps ...*App) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configured = byID(apps)
	r.publishLocked()
}

// Provide is Replace for the apps that were made at run time and are kept.
func (r *Registry) Provide(apps ...*App) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.provided = byID(apps)
	r.publishLocked()
}

func byID(apps []*App) map[string]*App {
	m := make(map[string]*App, len(apps))
	for _, a := range apps {
		m[a.ID] = a
	}
	return m
}

// Add adds an app for tests. It reports false, and adds nothing, if there is one with the
// same id.
func (r *Registry) Add(a *App) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (*r.apps.Load())[a.ID] != nil {
		return false
	}
	r.added[a.ID] = a
	r.publishLocked()
	return true
}

// Remove takes away an app that was added. It returns nil if there is none: others are not
// removed.
func (r *Registry) Remove(appID string) *App {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.added[appID]
	if a != nil {
		delete(r.added, appID)
		r.publishLocked()
	}
	return a
}

func (r *Registry) publishLocked() {
	all := make(map[string]*App, len(r.configured)+len(r.provided)+len(r.added))
	maps.Copy(all, r.added)
	maps.Copy(all, r.provided)
	maps.Copy(all, r.configured)
	r.apps.Store(&all)
}

// Configured returns the apps of the configuration, ordered by id.
func (r *Registry) Configured() []*App {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.configured), func(a, b *App) int { return strings.Compare(a.ID, b.ID) })
}

// IsConfigured reports whether the configuration has an app.
func (r *Registry) IsConfigured(appID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.configured[appID] != nil
}

// Lookup returns the app with the given id, or nil.
func (r *Registry) Lookup(appID string) *App { return (*r.apps.Load())[appID] }
