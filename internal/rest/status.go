package rest

import (
	"net/http"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// status answers GET /channels/{name} (RSL8, RSL8a): the channel's occupancy. The channel is always
// active, since it is asked for.
func (a *API) status(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	name, err := pubsub.ParseChannelName(c.path[1])
	if err != nil {
		return nil, err
	}
	occupancy, err := a.opts.Hub.Occupancy(c.Context(), &hub.Status{Grant: grant, Channel: name})
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: wire.AppendChannelDetails(nil, c.format, name.Attached, occupancy)}, nil
}
