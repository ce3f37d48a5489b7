package rest

import (
	"context"
	"net/http"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

// updateMessage answers PATCH /channels/{name}/messages/{serial}: an update, a delete or an
// append, as the action in the body says (RSL15b, RSL15b1), with the serial of the version that it
// makes (RSL15e). Parameters have no effect (RSL15f).
func (a *API) updateMessage(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	body, err := a.readBody(c)
	if err != nil {
		return nil, err
	}
	messages, err := wire.DecodeMessages(c.bodyFormat(), body)
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "the body must be one message")
	}
	m := messages[0]
	switch m.Action {
	case pubsub.MessageUpdate, pubsub.MessageDelete, pubsub.MessageAppend:
	default:
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "the action of the message must be that of an update, a delete or an append")
	}
	m.Serial = c.path[3]
	var turn hub.Turn
	var out hub.Published
	err = a.opts.Hub.Publish(&turn, &hub.Publish{Grant: grant, Channel: name, Messages: messages}, func(p hub.Published) { out = p })
	turn.End()
	if err != nil {
		return nil, err
	}
	version := ""
	if out.Serial != "" {
		version = out.Serial.Item(0)
	}
	return &answer{status: http.StatusOK, body: wire.AppendVersionSerial(nil, c.format, version)}, nil
}

// onChannel returns the call's grant and the channel that it is about.
func (a *API) onChannel(c *call) (*auth.Grant, pubsub.ChannelName, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, pubsub.ChannelName{}, err
	}
	name, err := pubsub.ParseChannelName(c.path[1])
	return grant, name, err
}

// message answers GET /channels/{name}/messages/{serial} (RSL11b-c).
func (a *API) message(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	m, err := a.opts.Hub.Message(c.Context(), &hub.OneMessage{Grant: grant, Channel: name, Serial: c.path[3]})
	if err != nil {
		return nil, err
	}
	retrieved(c, stats.Messages, []*pubsub.Message{m})
	return &answer{status: http.StatusOK, body: wire.AppendMessage(nil, c.format, m)}, nil
}

// versions answers GET /channels/{name}/messages/{serial}/versions, oldest first unless the
// parameter direction says otherwise (RSL14b-c).
func (a *API) versions(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	q := &hub.Versions{OneMessage: hub.OneMessage{Grant: grant, Channel: name, Serial: c.path[3]}}
	if q.Limit, err = limitParam(c.query); err != nil {
		return nil, err
	}
	if c.query.Get("direction") != "" {
		forwards, err := forwardsParam(c.query)
		if err != nil {
			return nil, err
		}
		q.Backwards = !forwards
	}
	if q.Cursor, err = cursorParam(c.query); err != nil {
		return nil, err
	}
	page, err := a.opts.Hub.MessageVersions(c.Context(), q)
	if err != nil {
		return nil, err
	}
	retrieved(c, stats.Messages, page.Messages)
	return &answer{
		status: http.StatusOK,
		body:   wire.AppendMessages(nil, c.format, page.Messages),
		links:  pageLinks("versions", c.query, page.Next),
	}, nil
}

// annotate answers POST /channels/{name}/messages/{serial}/annotations: an annotation or an array
// of them, each added or taken back as its action says (RSAN1c6).
func (a *API) annotate(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	body, err := a.readBody(c)
	if err != nil {
		return nil, err
	}
	items, err := wire.DecodeAnnotations(c.bodyFormat(), body)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "there is no annotation to publish")
	}
	for _, item := range items {
		item.MessageSerial = c.path[3]
	}
	var turn hub.Turn
	out, err := a.opts.Hub.Annotate(context.WithoutCancel(c.Context()), &turn, &hub.Annotate{Grant: grant, Channel: name, Items: items})
	turn.End()
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusCreated, body: publishedBody(c.format, name.Attached, &out)}, nil
}

// annotations answers GET /channels/{name}/messages/{serial}/annotations, oldest first (RSAN3b-c).
func (a *API) annotations(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	q := &hub.Annotations{OneMessage: hub.OneMessage{Grant: grant, Channel: name, Serial: c.path[3]}}
	if q.Limit, err = limitParam(c.query); err != nil {
		return nil, err
	}
	if q.Cursor, err = cursorParam(c.query); err != nil {
		return nil, err
	}
	page, err := a.opts.Hub.Annotations(c.Context(), q)
	if err != nil {
		return nil, err
	}
	retrieved(c, stats.Messages, page.Annotations)
	return &answer{
		status: http.StatusOK,
		body:   wire.AppendAnnotations(nil, c.format, page.Annotations),
		links:  pageLinks("annotations", c.query, page.Next),
	}, nil
}

// clientSummary answers GET /channels/{name}/messages/{serial}/client-summary: the summary with
// what one client has done, by default the caller.
func (a *API) clientSummary(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	clientID := c.query.Get("forClientId")
	if clientID == "" {
		clientID = grant.ClientID
	}
	if clientID == "" {
		return nil, invalidParam("Invalid forClientId param: an anonymous caller must say whom it asks for")
	}
	text, err := a.opts.Hub.ClientSummary(c.Context(), &hub.OneMessage{Grant: grant, Channel: name, Serial: c.path[3]}, clientID)
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: wire.AppendJSON(nil, c.format, text)}, nil
}
