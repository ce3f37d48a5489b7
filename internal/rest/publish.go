package rest

import (
	"net/http"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// publish answers POST /channels/{name}/messages (RSL1): a message or an array of them.
func (a *API) publish(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	name, err := pubsub.ParseChannelName(c.path[1])
	if err != nil {
		return nil, err
	}
	if c.query.Get("_forceNack") == "true" { // a hook of the SDKs' tests (RSL1l1)
		return nil, pubsub.NewError(pubsub.CodeForcedNack, "the publish was refused because it asked for that")
	}
	body, err := a.readBody(c)
	if err != nil {
		return nil, err
	}
	messages, err := wire.DecodeMessages(c.bodyFormat(), body)
	if err != nil {
		return nil, pubsub.ErrorFor(err)
	}
	if len(messages) == 0 {
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "there is no message to publish")
	}

	var turn hub.Turn
	done := make(chan hub.Published, 1)
	err = a.opts.Hub.Publish(&turn, &hub.Publish{Grant: grant, Channel: name, Messages: messages},
		func(p hub.Published) { done <- p })
	turn.End()
	if err != nil {
		return nil, err
	}
	select {
	case p := <-done:
		if p.Err != nil {
			return nil, p.Err
		}
		return &answer{status: http.StatusCreated, body: publishedBody(c.format, name.Attached, &p)}, nil
	case <-c.Context().Done():
		return nil, pubsub.NewError(pubsub.CodeTimeout, "the client did not wait for the outcome").Because(c.Context().Err())
	}
}

// publishedBody is the body of a successful publish: channel, messageId and serials.
func publishedBody(f wire.Format, channel string, p *hub.Published) []byte {
	serials := make([]string, p.Count)
	if p.Serial != "" {
		for i := range serials {
			serials[i] = p.Serial.Item(i)
		}
	}
	return wire.AppendPublished(nil, f, channel, p.BaseID, serials)
}
