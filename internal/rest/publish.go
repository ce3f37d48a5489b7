package rest

import (
	"context"
	"net/http"

	"letshare-server/internal/auth"
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

	var turn hub.Turn
	done, err := a.submit(c, &turn, grant, name, messages)
	turn.End()
	if err != nil {
		return nil, err
	}
	p, err := published(c.Context(), done)
	if err != nil {
		return nil, err
	}
	if p.Err != nil {
		return nil, p.Err
	}
	return &answer{status: http.StatusCreated, body: publishedBody(c.format, name.Attached, &p)}, nil
}

// submit hands messages to the hub, and tells their outcome when it is known; they are sent
// when turn ends. Parameters that only hint, such as quickAck, have no effect (RSL1l).
func (a *API) submit(c *call, turn *hub.Turn, grant *auth.Grant, name pubsub.ChannelName, messages []*pubsub.Message) (<-chan hub.Published, error) {
	publish := &hub.Publish{Grant: grant, Channel: name, Messages: messages, Ephemeral: c.query.Get("ephemeral") == "true"}
	if err := a.onBehalf(c.Context(), publish); err != nil {
		return nil, err
	}
	done := make(chan hub.Published, 1)
	if err := a.opts.Hub.Publish(turn, publish, func(p hub.Published) { done <- p }); err != nil {
		return nil, err
	}
	return done, nil
}

// published waits for the outcome of a publish. The error is that the client has left.
func published(ctx context.Context, done <-chan hub.Published) (hub.Published, error) {
	select {
	case p := <-done:
		return p, nil
	case <-ctx.Done():
		return hub.Published{}, clientLeft(ctx)
	}
}

func clientLeft(ctx context.Context) error {
	return pubsub.NewError(pubsub.CodeTimeout, "the client did not wait for the outcome").Because(ctx.Err())
}

// onBehalf finds the connection whose key the messages carry. All must carry the same one,
// and messages for an identified connection have its clientId.
func (a *API) onBehalf(ctx context.Context, p *hub.Publish) error {
	key := p.Messages[0].ConnectionKey
	for _, m := range p.Messages[1:] {
		if m.ConnectionKey != key {
			return pubsub.NewError(pubsub.CodeInvalidConnectionID, "the messages have different connectionKeys")
		}
	}
	if key == "" {
		return nil
	}
	id, clientID, err := a.opts.Connections.Publisher(ctx, p.Grant.App, key)
	if err != nil {
		return err
	}
	for _, m := range p.Messages {
		if m.ClientID == "" {
			m.ClientID = clientID
		} else if clientID != "" && m.ClientID != clientID {
			return pubsub.NewError(pubsub.CodeInvalidClientID, "the clientId is not that of the connection")
		}
	}
	p.OnBehalf = id
	return nil
}

// publishedBody is the body of a successful publish: channel, messageId and serials (RSL1n, BPR2a-c).
func publishedBody(f wire.Format, channel string, p *hub.Published) []byte {
	serials := make([]string, p.Count)
	if p.Serial != "" {
		for i := range serials {
			serials[i] = p.Serial.Item(i)
		}
	}
	return wire.AppendPublished(nil, f, channel, p.BaseID, serials)
}
