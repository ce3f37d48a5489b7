package rest

import (
	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// updateMessage answers PATCH /channels/{name}/messages/{serial}.
func (a *API) updateMessage(c *call) (*answer, error) { return a.refuseMutation(c, hub.MutateOps) }

// noMessage answers GET on the same path: single messages cannot be got.
func (a *API) noMessage(c *call) (*answer, error) { return nil, noSuchResource(c) }

// annotate answers POST /channels/{name}/messages/{serial}/annotations.
func (a *API) annotate(c *call) (*answer, error) {
	return a.refuseMutation(c, auth.Ops(auth.OpAnnotationPublish))
}

// annotations answers GET /channels/{name}/messages/{serial}/annotations.
func (a *API) annotations(c *call) (*answer, error) {
	return a.refuseMutation(c, auth.Ops(auth.OpAnnotationSubscribe))
}

// refuseMutation tells why nothing can be done to a message, for which one of the given
// operations is needed.
func (a *API) refuseMutation(c *call, needed auth.OpSet) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	name, err := pubsub.ParseChannelName(c.path[1])
	if err != nil {
		return nil, err
	}
	return nil, a.opts.Hub.RefuseMutation(grant, name, needed)
}
