package rest

import (
	"encoding/base64"
	"maps"
	"net/http"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

// presence answers GET /channels/{name}/presence (RSP3a1-3).
func (a *API) presence(c *call) (*answer, error) {
	// The clientId is whom to look for; elsewhere it would be the caller's.
	params := c.query
	c.query = maps.Clone(params)
	c.query.Del("clientId")
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	c.query = params
	q := &hub.Members{Grant: grant, ClientID: c.query.Get("clientId"), ConnectionID: c.query.Get("connectionId")}
	if q.Channel, err = pubsub.ParseChannelName(c.path[1]); err != nil {
		return nil, err
	}
	if q.Limit, err = limitParam(c.query); err != nil {
		return nil, err
	}
	cursor, err := base64.RawURLEncoding.DecodeString(c.query.Get("cursor"))
	if err != nil {
		return nil, invalidParam("Invalid cursor param")
	}
	q.Cursor = string(cursor)
	page, err := a.opts.Hub.Members(c.Context(), q)
	if err != nil {
		return nil, err
	}
	retrieved(c, stats.Presence, page.Members)
	return &answer{
		status: http.StatusOK,
		body:   wire.AppendPresence(nil, c.format, page.Members),
		links:  pageLinks("presence", c.query, base64.RawURLEncoding.EncodeToString([]byte(page.Next))),
	}, nil
}

// presenceHistory answers GET /channels/{name}/presence/history (RSP4a).
func (a *API) presenceHistory(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	q := &hub.History{Grant: grant}
	if q.Channel, err = pubsub.ParseChannelName(c.path[1]); err != nil {
		return nil, err
	}
	if err := historyParams(c.query, q); err != nil {
		return nil, err
	}
	page, err := a.opts.Hub.PresenceHistory(c.Context(), q)
	if err != nil {
		return nil, err
	}
	retrieved(c, stats.Presence, page.Events)
	return &answer{
		status: http.StatusOK,
		body:   wire.AppendPresence(nil, c.format, page.Events),
		links:  pageLinks("history", c.query, page.Next),
	}, nil
}
