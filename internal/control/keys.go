package control

import (
	"encoding/json"
	"net/http"
	"slices"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

type keyAnswer struct {
	AppID           string          `json:"appId"`
	ID              string          `json:"id"`
	Name            string          `json:"name"`
	RevocableTokens bool            `json:"revocableTokens"`
	Status          int             `json:"status"`        // 0: enabled; a revoked key is not there any more
	Key             string          `json:"key,omitempty"` // all of it; empty for keys of the configuration
	Capability      json.RawMessage `json:"capability"`
	Created         int64           `json:"created"` // ms since the epoch, as Modified; 0 for keys of the configuration
	Modified        int64           `json:"modified"`
}

func answerOfKey(appID string, k *apps.Key) keyAnswer {
	whole := auth.Key{AppID: appID, ID: k.ID}.Name() + ":" + k.Secret
	return keyAnswer{AppID: appID, ID: k.ID, Name: k.Name, RevocableTokens: k.Revocable, Key: whole, Capability: k.Capability, Created: k.Created, Modified: k.Modified}
}

// listKeys answers GET /apps/{id}/keys.
func (a *API) listKeys(c *call) (*answer, error) {
	made, configured, err := a.lookup(c.Context(), c.path[1])
	if err != nil {
		return nil, err
	}
	list := []keyAnswer{}
	if configured != nil {
		for _, k := range configured.Keys() {
			list = append(list, keyAnswer{AppID: k.AppID, ID: k.ID, Name: k.ID, RevocableTokens: k.Revocable, Capability: json.RawMessage(k.Capability.String())})
		}
		return &answer{status: http.StatusOK, body: list}, nil
	}
	for i := range made.Keys {
		list = append(list, answerOfKey(made.ID, &made.Keys[i]))
	}
	return &answer{status: http.StatusOK, body: list}, nil
}

// readKey reads what can be set of a key.
func (f *fields) readKey(k *apps.Key) {
	f.text("name", maxNameBytes, &k.Name)
	f.flag("revocableTokens", &k.Revocable)
	if value := f.take("capability"); value != nil {
		if problem := readCapability(value, &k.Capability); problem != "" {
			f.wrong("capability", problem)
		}
	}
}

// readCapability reads an object of lists of operations, and keeps the order of these.
func readCapability(value json.RawMessage, into *json.RawMessage) (problem string) {
	var lists map[string][]string
	if json.Unmarshal(value, &lists) != nil {
		return "must be an object of lists of operations"
	}
	text, err := json.Marshal(lists)
	if err != nil {
		return "must be an object of lists of operations"
	}
	capability, err := auth.ParseCapability(string(text))
	switch {
	case err != nil:
		return "is not good: " + pubsub.ErrorFor(err).Message
	case capability.Empty():
		return "must allow something"
	}
	*into = text
	return ""
}

// createKey answers POST /apps/{id}/keys.
func (a *API) createKey(c *call) (*answer, error) {
	f, err := c.fields()
	if err != nil {
		return nil, err
	}
	var spec apps.Key
	f.readKey(&spec)
	if spec.Name == "" && f.details["name"] == nil {
		f.wrong("name", "is missing")
	}
	if spec.Capability == nil && f.details["capability"] == nil {
		f.wrong("capability", "is missing")
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	var made apps.Key
	app, err := a.update(c, func(app *apps.App, now int64) error {
		spec.Created, spec.Modified = now, now
		made = *app.AddKey(spec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.log(c, "key made", "key_name", app.ID+"."+made.ID)
	return &answer{status: http.StatusCreated, body: answerOfKey(app.ID, &made)}, nil
}

// updateKey answers PATCH /apps/{id}/keys/{id}: what is not mentioned stays. Tokens and
// connections that there are keep the rights that they were given.
func (a *API) updateKey(c *call) (*answer, error) {
	f, err := c.fields()
	if err != nil {
		return nil, err
	}
	given := f.values
	app, err := a.update(c, func(app *apps.App, now int64) error {
		k := app.Key(c.path[3])
		if k == nil {
			return noKey()
		}
		f := again(given)
		f.fixed("id", k.ID)
		f.readKey(k)
		k.Modified = now
		return f.end()
	})
	if err != nil {
		return nil, err
	}
	a.log(c, "key changed", "key_name", app.ID+"."+c.path[3])
	return &answer{status: http.StatusOK, body: answerOfKey(app.ID, app.Key(c.path[3]))}, nil
}

// revokeKey answers POST /apps/{id}/keys/{id}/revoke: the key is gone, and so is what came of
// it, tokens and connections.
func (a *API) revokeKey(c *call) (*answer, error) {
	app, err := a.update(c, func(app *apps.App, _ int64) error {
		if app.Key(c.path[3]) == nil {
			return noKey()
		}
		app.Keys = slices.DeleteFunc(app.Keys, func(k apps.Key) bool { return k.ID == c.path[3] })
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.log(c, "key revoked", "key_name", app.ID+"."+c.path[3])
	return &answer{status: http.StatusOK}, nil
}

func noKey() error { return pubsub.NewError(pubsub.CodeNotFound, "no such key") }
