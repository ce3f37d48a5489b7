package apps

import (
	"encoding/json"
	"fmt"
	"slices"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// What there may be. More of it is refused.
const (
	MaxApps       = 1000
	MaxKeys       = 100 // of one app
	MaxNamespaces = 100 // of one app

	maxRecordBytes = 256 << 10 // all that is kept of one app
)

// App is an app that was made at run time. Times are in ms since the epoch.
type App struct {
	ID          string      `json:"-"`
	Name        string      `json:"name"`
	Disabled    bool        `json:"disabled"`
	TLSOnly     bool        `json:"tlsOnly"`
	APNSSandbox bool        `json:"apnsUseSandboxEndpoint"` // changes nothing: there is no push
	Created     int64       `json:"created"`
	Modified    int64       `json:"modified"` // app, not its keys and namespaces
	Keys        []Key       `json:"keys"`
	Namespaces  []Namespace `json:"namespaces"`

	ForTests *forTests `json:"forTests,omitempty"` // nil: no Sandbox made it
}

// Key is a key of it. However it is logged, its secret is left out with it.
type Key struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Secret     string          `json:"secret"`
	Capability json.RawMessage `json:"capability"` // an object
	Revocable  bool            `json:"revocable"`
	Created    int64           `json:"created"`
	Modified   int64           `json:"modified"`
}

// String keeps the secret out of what is printed.
func (k Key) String() string { return "key " + k.ID }

// GoString keeps the secret out of %#v.
func (k Key) GoString() string { return "apps.Key(" + k.ID + ")" }

// Namespace is a rule for channels of it.
type Namespace struct {
	ID              string `json:"id"`
	Persisted       bool   `json:"persisted"`
	PersistLast     bool   `json:"persistLast"`
	Identified      bool   `json:"identified"`
	TLSOnly         bool   `json:"tlsOnly"`
	MutableMessages bool   `json:"mutableMessages"`
	PushEnabled     bool   `json:"pushEnabled"`

	// These change nothing: messages have a serial, and channels are listed, in any case.
	ExposeTimeserial        bool `json:"exposeTimeserial"`
	PopulateChannelRegistry bool `json:"populateChannelRegistry"`

	Created  int64 `json:"created"`
	Modified int64 `json:"modified"`
}

// Rule is what the namespace means for channels.
func (n *Namespace) Rule() auth.Namespace {
	return auth.Namespace{
		ID: n.ID, Persisted: n.Persisted, PersistLast: n.PersistLast, Identified: n.Identified,
		TLSOnly: n.TLSOnly, MutableMessages: n.MutableMessages, PushEnabled: n.PushEnabled,
	}
}

// Key returns the key with an id, or nil.
func (a *App) Key(id string) *Key {
	if i := slices.IndexFunc(a.Keys, func(k Key) bool { return k.ID == id }); i >= 0 {
		return &a.Keys[i]
	}
	return nil
}

// Namespace returns the namespace with an id, or nil.
func (a *App) Namespace(id string) *Namespace {
	if i := slices.IndexFunc(a.Namespaces, func(n Namespace) bool { return n.ID == id }); i >= 0 {
		return &a.Namespaces[i]
	}
	return nil
}

// AddKey gives a key an id that no other has, and a secret, and adds it.
func (a *App) AddKey(k Key) *Key {
	k.ID, k.Secret = auth.NewID(), auth.NewSecret()
	for a.Key(k.ID) != nil {
		k.ID = auth.NewID()
	}
	a.Keys = append(a.Keys, k)
	return &a.Keys[len(a.Keys)-1]
}

// format is the version of the form in which apps are recorded.
const format = 1

// record is an App as the directory has it.
type record struct {
	Format int `json:"format"`
	*App
}

func (a *App) encode() (json.RawMessage, error) {
	return json.Marshal(record{format, a})
}

// decode is the other way. Its errors quote nothing of what it reads.
func decode(id string, data json.RawMessage) (*App, error) {
	var head struct{ Format int }
	if json.Unmarshal(data, &head) != nil {
		return nil, fmt.Errorf("the record of app %s is damaged", id)
	}
	if head.Format != format {
		return nil, fmt.Errorf("the record of app %s has format %d, and this version knows format %d", id, head.Format, format)
	}
	a := &App{}
	if json.Unmarshal(data, a) != nil {
		return nil, fmt.Errorf("the record of app %s is damaged", id)
	}
	a.ID = id
	return a, nil
}

// build makes what credentials are checked against.
func (a *App) build() (*auth.App, error) {
	keys := make([]auth.Key, 0, len(a.Keys))
	for _, k := range a.Keys {
		capability, err := auth.ParseCapability(string(k.Capability))
		if err != nil {
			return nil, fmt.Errorf("app %s: key %s: %w", a.ID, k.ID, err)
		}
		keys = append(keys, auth.Key{ID: k.ID, Secret: k.Secret, Capability: capability, Revocable: k.Revocable})
	}
	rules := make([]auth.Namespace, 0, len(a.Namespaces))
	for i := range a.Namespaces {
		rules = append(rules, a.Namespaces[i].Rule())
	}
	app, err := auth.NewApp(a.ID, keys, rules)
	if err != nil {
		return nil, err
	}
	app.Disabled, app.TLSOnly = a.Disabled, a.TLSOnly
	if a.ForTests != nil {
		fixtures := make([]auth.Fixture, 0, len(a.ForTests.Channels))
		for _, name := range a.ForTests.Channels {
			fixtures = append(fixtures, auth.Fixture{Channel: name})
		}
		app.InSandbox(fixtures)
	}
	return app, nil
}

// check refuses more than there may be, and returns what is to be recorded. Errors are
// *pubsub.Error.
func (a *App) check() (json.RawMessage, error) {
	switch {
	case len(a.Keys) > MaxKeys:
		return nil, tooMany("an app has at most %d keys", MaxKeys)
	case len(a.Namespaces) > MaxNamespaces:
		return nil, tooMany("an app has at most %d namespaces", MaxNamespaces)
	}
	if _, err := a.build(); err != nil {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid app: %v", err).WithStatus(statusInvalid)
	}
	data, err := a.encode()
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecordBytes {
		return nil, tooMany("keys and namespaces of an app take at most %d bytes", maxRecordBytes)
	}
	return data, nil
}

// statusInvalid is the status of requests that are understood and ask for what there cannot
// be: Unprocessable Content.
const statusInvalid = 422

func tooMany(format string, most int) error {
	return pubsub.Errorf(pubsub.CodeInvalidParameterValue, format, most).WithStatus(statusInvalid)
}
