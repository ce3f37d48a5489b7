package control

import (
	"context"
	"encoding/json"
	"net/http"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// The longest names.
const (
	maxNameBytes      = 255
	maxNamespaceBytes = 255
)

type appAnswer struct {
	AccountID string `json:"accountId"`
	ID        string `json:"id"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	TLSOnly   bool   `json:"tlsOnly"`
	Created   int64  `json:"created"` // ms since the epoch, as Modified; 0 for apps of the configuration
	Modified  int64  `json:"modified"`

	// Push is not there yet.
	APNSUseSandboxEndpoint      bool `json:"apnsUseSandboxEndpoint"`
	APNSCertificateConfigured   bool `json:"apnsCertificateConfigured"`
	APNSSigningKeyConfigured    bool `json:"apnsSigningKeyConfigured"`
	FCMServiceAccountConfigured bool `json:"fcmServiceAccountConfigured"`
}

// The states of an app.
const (
	statusEnabled  = "enabled"
	statusDisabled = "disabled"
)

func answerOf(app *apps.App) appAnswer {
	status := statusEnabled
	if app.Disabled {
		status = statusDisabled
	}
	return appAnswer{AccountID: account, ID: app.ID, Name: app.Name, Status: status, TLSOnly: app.TLSOnly, APNSUseSandboxEndpoint: app.APNSSandbox, Created: app.Created, Modified: app.Modified}
}

// changeable refuses apps that are not to be changed here.
func (a *API) changeable(id string) error {
	if a.opts.Registry.IsConfigured(id) {
		return pubsub.Errorf(pubsub.CodeForbidden, "application %s is one of the configuration: it is changed there, and not here", id)
	}
	return nil
}

// lookup returns an app that was made at run time, or one of the configuration.
func (a *API) lookup(ctx context.Context, id string) (made *apps.App, configured *auth.App, err error) {
	if a.opts.Registry.IsConfigured(id) {
		if configured = a.opts.Registry.Lookup(id); configured != nil {
			return nil, configured, nil
		}
	}
	err = a.opts.Apps.Sync(ctx)
	if made = a.opts.Apps.Get(id); made != nil {
		return made, nil, nil // as it was known last, if it cannot be read now
	}
	if err != nil {
		return nil, nil, err
	}
	return nil, nil, pubsub.NewError(pubsub.CodeNotFound, "no such application")
}

// listApps answers GET /accounts/{id}/apps: those of the configuration first.
func (a *API) listApps(c *call) (*answer, error) {
	_ = a.opts.Apps.Sync(c.Context()) // those that are known, if they cannot be read now
	list := []appAnswer{}
	for _, app := range a.opts.Registry.Configured() {
		list = append(list, answerOf(&apps.App{ID: app.ID, Name: app.ID}))
	}
	for _, app := range a.opts.Apps.List() {
		if !a.opts.Registry.IsConfigured(app.ID) {
			list = append(list, answerOf(app))
		}
	}
	return &answer{status: http.StatusOK, body: list}, nil
}

// readApp reads what can be set of an app.
func (f *fields) readApp(app *apps.App) {
	f.text("name", maxNameBytes, &app.Name)
	status := ""
	if f.text("status", maxNameBytes, &status) && status != "" {
		if status != statusEnabled && status != statusDisabled {
			f.wrong("status", "must be enabled or disabled")
		}
		app.Disabled = status == statusDisabled
	}
	f.flag("tlsOnly", &app.TLSOnly)
	f.flag("apnsUseSandboxEndpoint", &app.APNSSandbox)
	f.unsupported("fcmKey", "fcmServiceAccount", "fcmProjectId", "apnsCertificate", "apnsPrivateKey",
		"apnsAuthType", "apnsSigningKey", "apnsSigningKeyId", "apnsIssuerKey", "apnsTopicHeader")
}

// createApp answers POST /accounts/{id}/apps.
func (a *API) createApp(c *call) (*answer, error) {
	f, err := c.fields()
	if err != nil {
		return nil, err
	}
	var spec apps.App
	f.readApp(&spec)
	if spec.Name == "" && f.details["name"] == nil {
		f.wrong("name", "is missing")
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	app, err := a.opts.Apps.Create(c.Context(), spec)
	if err != nil {
		return nil, err
	}
	a.log(c, "app made", "app", app.ID)
	return &answer{status: http.StatusCreated, body: answerOf(app)}, nil
}

// update changes an app that was made at run time.
func (a *API) update(c *call, change func(app *apps.App, now int64) error) (*apps.App, error) {
	if err := a.changeable(c.path[1]); err != nil {
		return nil, err
	}
	return a.opts.Apps.Update(c.Context(), c.path[1], change)
}

// updateApp answers PATCH /apps/{id}: what is not mentioned stays.
func (a *API) updateApp(c *call) (*answer, error) {
	f, err := c.fields()
	if err != nil {
		return nil, err
	}
	given := f.values
	app, err := a.update(c, func(app *apps.App, now int64) error {
		f := again(given)
		f.fixed("id", app.ID)
		f.readApp(app)
		app.Modified = now
		return f.end()
	})
	if err != nil {
		return nil, err
	}
	a.log(c, "app changed", "app", app.ID)
	return &answer{status: http.StatusOK, body: answerOf(app)}, nil
}

// deleteApp answers DELETE /apps/{id}, and ends its connections.
func (a *API) deleteApp(c *call) (*answer, error) {
	if err := a.changeable(c.path[1]); err != nil {
		return nil, err
	}
	if err := a.opts.Apps.Delete(c.Context(), c.path[1]); err != nil {
		return nil, err
	}
	a.log(c, "app deleted", "app", c.path[1])
	return &answer{status: http.StatusNoContent}, nil
}

// stats answers GET /apps/{id}/stats.
func (a *API) stats(c *call) (*answer, error) {
	if _, _, err := a.lookup(c.Context(), c.path[1]); err != nil {
		return nil, err
	}
	body, links, err := a.opts.Stats(c.Request, c.path[1])
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: json.RawMessage(body), links: links}, nil
}
