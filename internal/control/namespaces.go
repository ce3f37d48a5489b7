package control

import (
	"net/http"
	"slices"

	"letshare-server/internal/apps"
	"letshare-server/internal/pubsub"
)

type namespaceAnswer struct {
	AppID                   string `json:"appId"`
	ID                      string `json:"id"`
	Authenticated           bool   `json:"authenticated"`
	Identified              bool   `json:"identified"` // another name for it
	Persisted               bool   `json:"persisted"`
	PersistLast             bool   `json:"persistLast"`
	PushEnabled             bool   `json:"pushEnabled"`
	TLSOnly                 bool   `json:"tlsOnly"`
	MutableMessages         bool   `json:"mutableMessages"`
	ExposeTimeserial        bool   `json:"exposeTimeserial"`
	PopulateChannelRegistry bool   `json:"populateChannelRegistry"`
	BatchingEnabled         bool   `json:"batchingEnabled"`
	ConflationEnabled       bool   `json:"conflationEnabled"`
	Created                 int64  `json:"created"` // ms since the epoch, as Modified; 0 for those of the configuration
	Modified                int64  `json:"modified"`
}

func answerOfNamespace(appID string, n *apps.Namespace) namespaceAnswer {
	return namespaceAnswer{
		AppID: appID, ID: n.ID, Authenticated: n.Identified, Identified: n.Identified,
		Persisted: n.Persisted, PersistLast: n.PersistLast, PushEnabled: n.PushEnabled, TLSOnly: n.TLSOnly,
		MutableMessages: n.MutableMessages, ExposeTimeserial: n.ExposeTimeserial, PopulateChannelRegistry: n.PopulateChannelRegistry,
		Created: n.Created, Modified: n.Modified,
	}
}

// listNamespaces answers GET /apps/{id}/namespaces.
func (a *API) listNamespaces(c *call) (*answer, error) {
	made, configured, err := a.lookup(c.Context(), c.path[1])
	if err != nil {
		return nil, err
	}
	list := []namespaceAnswer{}
	if configured != nil {
		for _, rule := range configured.Namespaces() {
			list = append(list, answerOfNamespace(configured.ID, &apps.Namespace{
				ID: rule.ID, Persisted: rule.Persisted, PersistLast: rule.PersistLast, Identified: rule.Identified,
				TLSOnly: rule.TLSOnly, MutableMessages: rule.MutableMessages, PushEnabled: rule.PushEnabled,
			}))
		}
		return &answer{status: http.StatusOK, body: list}, nil
	}
	for i := range made.Namespaces {
		list = append(list, answerOfNamespace(made.ID, &made.Namespaces[i]))
	}
	return &answer{status: http.StatusOK, body: list}, nil
}

// readNamespace reads what can be set of a namespace.
func (f *fields) readNamespace(n *apps.Namespace) {
	authenticated, identified := n.Identified, n.Identified
	one, other := f.flag("authenticated", &authenticated), f.flag("identified", &identified)
	switch {
	case one && other && authenticated != identified:
		f.wrong("identified", "must be what authenticated is, of which it is another name")
	case one:
		n.Identified = authenticated
	case other:
		n.Identified = identified
	}
	f.flag("persisted", &n.Persisted)
	f.flag("persistLast", &n.PersistLast)
	f.flag("pushEnabled", &n.PushEnabled)
	f.flag("tlsOnly", &n.TLSOnly)
	f.flag("mutableMessages", &n.MutableMessages)
	f.flag("exposeTimeserial", &n.ExposeTimeserial)
	f.flag("exposeTimeSerial", &n.ExposeTimeserial) // as the Ably CLI writes it
	f.flag("populateChannelRegistry", &n.PopulateChannelRegistry)
	f.unsupported("batchingEnabled", "batchingInterval", "conflationEnabled", "conflationInterval", "conflationKey")
}

// createNamespace answers POST /apps/{id}/namespaces.
func (a *API) createNamespace(c *call) (*answer, error) {
	f, err := c.fields()
	if err != nil {
		return nil, err
	}
	var spec apps.Namespace
	switch there := f.text("id", maxNamespaceBytes, &spec.ID); {
	case !there:
		f.wrong("id", "is missing")
	case spec.ID == "": // which was told
	case pubsub.Namespace(spec.ID) != spec.ID:
		f.wrong("id", "must have no colon: it is the part of the channels' name before it")
	}
	f.readNamespace(&spec)
	if err := f.end(); err != nil {
		return nil, err
	}
	app, err := a.update(c, func(app *apps.App, now int64) error {
		if app.Namespace(spec.ID) != nil {
			return &invalid{map[string][]string{"id": {"is there already"}}}
		}
		spec.Created, spec.Modified = now, now
		app.Namespaces = append(app.Namespaces, spec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.log(c, "namespace made", "app", app.ID, "namespace", spec.ID)
	return &answer{status: http.StatusCreated, body: answerOfNamespace(app.ID, app.Namespace(spec.ID))}, nil
}

// updateNamespace answers PATCH /apps/{id}/namespaces/{id}: what is not mentioned stays.
func (a *API) updateNamespace(c *call) (*answer, error) {
	f, err := c.fields()
	if err != nil {
		return nil, err
	}
	given := f.values
	app, err := a.update(c, func(app *apps.App, now int64) error {
		n := app.Namespace(c.path[3])
		if n == nil {
			return noNamespace()
		}
		f := again(given)
		f.fixed("id", n.ID)
		f.readNamespace(n)
		n.Modified = now
		return f.end()
	})
	if err != nil {
		return nil, err
	}
	a.log(c, "namespace changed", "app", app.ID, "namespace", c.path[3])
	return &answer{status: http.StatusOK, body: answerOfNamespace(app.ID, app.Namespace(c.path[3]))}, nil
}

// deleteNamespace answers DELETE /apps/{id}/namespaces/{id}.
func (a *API) deleteNamespace(c *call) (*answer, error) {
	app, err := a.update(c, func(app *apps.App, _ int64) error {
		if app.Namespace(c.path[3]) == nil {
			return noNamespace()
		}
		app.Namespaces = slices.DeleteFunc(app.Namespaces, func(n apps.Namespace) bool { return n.ID == c.path[3] })
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.log(c, "namespace deleted", "app", app.ID, "namespace", c.path[3])
	return &answer{status: http.StatusNoContent}, nil
}

func noNamespace() error { return pubsub.NewError(pubsub.CodeNotFound, "no such namespace") }
