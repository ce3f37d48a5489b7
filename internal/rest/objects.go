package rest

import (
	"context"
	"net/http"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// object answers GET /channels/{name}/object and /channels/{name}/object/{id}: an object, or
// what the parameter path leads to from it, with all that is in it; ids and types are there only
// with compact=false.
func (a *API) object(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	q := &hub.ReadObject{Grant: grant, Channel: name, Path: c.query.Get("path")}
	if len(c.path) > 3 {
		q.ObjectID = c.path[3]
	}
	compact := true
	switch c.query.Get("compact") {
	case "", "true":
	case "false":
		compact = false
	default:
		return nil, invalidParam("Invalid compact param: true or false")
	}
	view, err := a.opts.Hub.ReadObject(c.Context(), q)
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: wire.AppendObjectView(nil, c.format, view, compact)}, nil
}

// changeObjects answers POST /channels/{name}/object: an operation or an array of them, which are
// done together or not at all.
func (a *API) changeObjects(c *call) (*answer, error) {
	grant, name, err := a.onChannel(c)
	if err != nil {
		return nil, err
	}
	body, err := a.readBody(c)
	if err != nil {
		return nil, err
	}
	requests, err := wire.DecodeObjectRequests(c.bodyFormat(), body)
	if err != nil {
		return nil, err
	}
	if len(requests) == 0 {
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "there is no operation to publish")
	}
	var turn hub.Turn
	out, err := a.opts.Hub.PublishObjects(context.WithoutCancel(c.Context()), &turn, &hub.PublishObjects{Grant: grant, Channel: name, Requests: requests})
	turn.End()
	if err != nil {
		return nil, err
	}
	return &answer{
		status: http.StatusCreated,
		body:   wire.AppendPublishedObjects(nil, c.format, name.Attached, out.BaseID, out.Objects),
	}, nil
}
