package rest

import (
	"net/http"

	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// publish answers POST /channels/{name}/messages: a message or an array of them (RSL1b-c).
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
		e := pubsub.ErrorFor(err)
		if e.Code == pubsub.CodeTooManyMessages {
			a.opts.Hub.Limits().Exceeded(limit.PublishMessages, grant.App)
		}
		return nil, e
	}
	if len(messages) == 0 {
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "there is no message to publish")
	}

	// Parameters that only hint, such as quickAck, have no effect (RSL1l).
	publish := &hub.Publish{Grant: grant, Channel: name, Messages: messages, Ephemeral: c.query.Get("ephemeral") == "true"}
	if err := a.onBehalf(publish); err != nil {
		return nil, err
	}

	var turn hub.Turn
	done := make(chan hub.Published, 1)
	err = a.opts.Hub.Publish(&turn, publish, func(p hub.Published) { done <- p })
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

// onBehalf finds the connection whose key the messages carry. All must carry the same one,
// and messages for an identified connection have its clientId.
func (a *API) onBehalf(p *hub.Publish) error {
	key := p.Messages[0].ConnectionKey
	for _, m := range p.Messages[1:] {
		if m.ConnectionKey != key {
			return pubsub.NewError(pubsub.CodeInvalidConnectionID, "the messages have different connectionKeys")
		}
	}
	if key == "" {
		return nil
	}
	id, owner, err := a.opts.Connections.Publisher(p.Grant.App, key)
	if err != nil {
		return err
	}
	for _, m := range p.Messages {
		if m.ClientID == "" {
			m.ClientID = owner.ClientID
		} else if owner.Identified() && m.ClientID != owner.ClientID {
			return pubsub.NewError(pubsub.CodeInvalidClientID, "the clientId is not that of the connection")
		}
	}
	p.OnBehalf = id
	return nil
}

// publishedBody is the body of a successful publish: channel, messageId and serials (RSL1n).
func publishedBody(f wire.Format, channel string, p *hub.Published) []byte {
	serials := make([]string, p.Count)
	if p.Serial != "" {
		for i := range serials {
			serials[i] = p.Serial.Item(i)
		}
	}
	return wire.AppendPublished(nil, f, channel, p.BaseID, serials)
}
