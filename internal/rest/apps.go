package rest

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// appRequest is the body of POST /apps, as the SDKs' suites send it (G2). Other fields are
// ignored.
type appRequest struct {
	Keys       []keyRequest      `json:"keys"`
	Namespaces []json.RawMessage `json:"namespaces"`
	Channels   []json.RawMessage `json:"channels"`
}

type keyRequest struct {
	Capability      json.RawMessage `json:"capability"` // JSON in a string, or as it is
	RevocableTokens bool            `json:"revocableTokens"`
}

type namespaceRequest struct {
	ID              string `json:"id"`
	Persisted       bool   `json:"persisted"`
	PersistLast     bool   `json:"persistLast"`
	Authenticated   bool   `json:"authenticated"`
	Identified      bool   `json:"identified"` // another name for authenticated
	TLSOnly         bool   `json:"tlsOnly"`
	MutableMessages bool   `json:"mutableMessages"`
	PushEnabled     bool   `json:"pushEnabled"`
}

type channelRequest struct {
	Name     string          `json:"name"`
	Presence json.RawMessage `json:"presence"`
}

// appAnswer is the app that was made, and where its clients find it.
type appAnswer struct {
	AccountID   string            `json:"accountId"`
	AppID       string            `json:"appId"`
	ID          string            `json:"id"`
	Status      int               `json:"status"`
	Keys        []keyAnswer       `json:"keys"`
	Namespaces  []json.RawMessage `json:"namespaces"`  // as they came
	Channels    []json.RawMessage `json:"channels"`    // as they came
	Connections []struct{}        `json:"connections"` // none
	Endpoint    string            `json:"endpoint"`
	Port        int               `json:"port"`
	TLS         bool              `json:"tls"`
}

// keyAnswer has each part under every name that a suite reads it by.
type keyAnswer struct {
	ID              string `json:"id"`
	Value           string `json:"value"`
	KeyName         string `json:"keyName"`
	KeySecret       string `json:"keySecret"`
	KeyStr          string `json:"keyStr"`
	Capability      string `json:"capability"`
	RevocableTokens bool   `json:"revocableTokens"`
	Status          int    `json:"status"`
	Expires         int64  `json:"expires"` // 0: never
}

// sandboxAccount is the account of all apps that were made at run time.
const sandboxAccount = "sandbox"

// maxAppBytes bounds what anybody can make the server keep for one app.
const maxAppBytes = 64 << 10

// createApp answers POST /apps: an app for tests. It needs no credentials.
func (a *API) createApp(c *call) (*answer, error) {
	body, err := a.readBodyWithin(c, maxAppBytes)
	if err != nil {
		return nil, err
	}
	text, err := wire.Transcode(nil, wire.JSON, c.bodyFormat(), body)
	if err != nil {
		return nil, pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid request body: %v", err)
	}
	var request appRequest
	if err := decodeJSON(text, &request); err != nil {
		return nil, err
	}
	spec, err := request.spec()
	if err != nil {
		return nil, err
	}
	app, err := a.opts.Sandbox.Create(spec)
	if err != nil {
		return nil, err
	}
	a.opts.Log.Info("app made", "app", app.ID)
	text, err = json.Marshal(request.answer(app, c.Request))
	if err != nil {
		return nil, err
	}
	if text, err = wire.Transcode(nil, c.format, wire.JSON, text); err != nil {
		return nil, err
	}
	return &answer{status: http.StatusCreated, body: text}, nil
}

func decodeJSON(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid request body: %v", err)
	}
	return nil
}

// spec is what the sandbox is asked for.
func (r *appRequest) spec() (auth.AppSpec, error) {
	var spec auth.AppSpec
	for _, k := range r.Keys {
		capability := string(k.Capability)
		switch {
		case capability == "null":
			capability = ""
		case strings.HasPrefix(capability, `"`):
			if err := decodeJSON(k.Capability, &capability); err != nil {
				return spec, err
			}
		}
		spec.Keys = append(spec.Keys, auth.KeySpec{Capability: capability, Revocable: k.RevocableTokens})
	}
	for _, text := range r.Namespaces {
		var ns namespaceRequest
		if err := decodeJSON(text, &ns); err != nil {
			return spec, err
		}
		spec.Namespaces = append(spec.Namespaces, auth.Namespace{
			ID: ns.ID, Persisted: ns.Persisted, PersistLast: ns.PersistLast, Identified: ns.Authenticated || ns.Identified,
			TLSOnly: ns.TLSOnly, MutableMessages: ns.MutableMessages, PushEnabled: ns.PushEnabled,
		})
	}
	for _, text := range r.Channels {
		var ch channelRequest
		if err := decodeJSON(text, &ch); err != nil {
			return spec, err
		}
		if _, err := pubsub.ParseChannelName(ch.Name); err != nil {
			return spec, err
		}
		fixture := auth.Fixture{Channel: ch.Name}
		if text := string(ch.Presence); text != "" && text != "null" {
			var err error
			if fixture.Members, err = wire.DecodePresence(wire.JSON, ch.Presence); err != nil {
				return spec, err
			}
		}
		for _, m := range fixture.Members {
			if m.ClientID == "" || m.ClientID == "*" {
				return spec, pubsub.Errorf(pubsub.CodeInvalidClientID, "Invalid clientId of a member of %s", clip(ch.Name))
			}
		}
		spec.Fixtures = append(spec.Fixtures, fixture)
	}
	return spec, nil
}

// answer describes an app that was made of r.
func (r *appRequest) answer(app *auth.App, request *http.Request) appAnswer {
	ans := appAnswer{
		AccountID: sandboxAccount, AppID: app.ID, ID: app.ID,
		Keys: []keyAnswer{}, Namespaces: orEmpty(r.Namespaces), Channels: orEmpty(r.Channels), Connections: []struct{}{},
	}
	for _, k := range app.Keys() {
		ans.Keys = append(ans.Keys, keyAnswer{
			ID: k.ID, Value: k.Secret, KeyName: k.Name(), KeySecret: k.Secret, KeyStr: k.Name() + ":" + k.Secret,
			Capability: k.Capability.String(), RevocableTokens: k.Revocable,
		})
	}
	ans.Endpoint, ans.Port, ans.TLS = sentTo(request)
	return ans
}

// orEmpty makes null an empty array.
func orEmpty(list []json.RawMessage) []json.RawMessage {
	if list == nil {
		return []json.RawMessage{}
	}
	return list
}

// sentTo is where the request was sent to, so that the app's clients reach the same server.
func sentTo(r *http.Request) (host string, port int, tls bool) {
	tls = r.TLS != nil
	port = 80
	if tls {
		port = 443
	}
	host, portText, err := net.SplitHostPort(r.Host)
	if err != nil {
		return strings.Trim(r.Host, "[]"), port, tls
	}
	if n, err := strconv.Atoi(portText); err == nil {
		port = n
	}
	return host, port, tls
}

// deleteApp answers DELETE /apps/{id}, which takes any key of the app.
func (a *API) deleteApp(c *call) (*answer, error) {
	grant, err := a.authenticateKey(c)
	if err != nil {
		return nil, err
	}
	if grant.App != c.path[1] {
		return nil, pubsub.Errorf(pubsub.CodeUnauthorized, "the key is not of app %s", clip(c.path[1]))
	}
	deleted, err := a.opts.Sandbox.Delete(grant.App)
	if err != nil {
		return nil, err
	}
	if !deleted {
		return nil, pubsub.Errorf(pubsub.CodeForbidden, "app %s was not made by POST /apps", grant.App)
	}
	a.opts.Log.Info("app deleted", "app", grant.App)
	return &answer{status: http.StatusNoContent}, nil
}
