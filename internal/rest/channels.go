package rest

import (
	"encoding/base64"
	"net/http"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// maxDetailedChannels is how many channels a page has at most when it tells their occupancy, which
// the stores are asked for one by one.
const maxDetailedChannels = 100

// channels answers GET /channels: the active channels, in pages. One call of an app is answered
// at a time, since each may look at all channels.
func (a *API) channels(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	q := &hub.Channels{Grant: grant, Prefix: c.query.Get("prefix")}
	detailed, err := c.wantsDetails()
	if err != nil {
		return nil, err
	}
	if q.Limit, err = limitParam(c.query); err != nil {
		return nil, err
	}
	if detailed {
		q.Limit = min(q.Limit, maxDetailedChannels)
	}
	after, err := base64.RawURLEncoding.DecodeString(c.query.Get("cursor"))
	if err != nil {
		return nil, pubsub.NewError(pubsub.CodeInvalidEnumerationCursor, "the cursor is not valid; begin with the first page")
	}
	q.After = string(after)

	if _, running := a.enumerating.LoadOrStore(grant.App, nil); running {
		return nil, pubsub.NewError(pubsub.CodeEnumerationRunning, "the channels of the application are being listed already; one call at a time")
	}
	defer a.enumerating.Delete(grant.App)
	names, more, err := a.opts.Hub.Channels(c.Context(), q)
	if err != nil {
		return nil, err
	}
	next := ""
	if more {
		next = base64.RawURLEncoding.EncodeToString([]byte(names[len(names)-1]))
	}
	elem := func(dst []byte, i int) []byte { return wire.AppendString(dst, c.format, []byte(names[i])) }
	if detailed {
		if elem, err = a.channelDetails(c, grant, names); err != nil {
			return nil, err
		}
	}
	return &answer{
		status: http.StatusOK,
		body:   wire.AppendArray(nil, c.format, len(names), elem),
		links:  pageLinks("channels", c.query, next),
	}, nil
}

// wantsDetails reads the parameter by: id for names alone, or value for names and occupancy,
// which is what versions before 3 get unless they ask.
func (c *call) wantsDetails() (bool, error) {
	switch c.query.Get("by") {
	case "id":
		return false, nil
	case "value":
		return true, nil
	case "":
		version, err := c.version()
		return version < namesVersion, err
	}
	return false, invalidParam("Invalid by param: must be id or value")
}

// channelDetails returns what appends the details of channels.
func (a *API) channelDetails(c *call, grant *auth.Grant, names []string) (elem func(dst []byte, i int) []byte, err error) {
	all := make([]pubsub.Occupancy, len(names))
	for i, name := range names {
		channel := pubsub.ChannelName{Attached: name, Base: name}
		if all[i], err = a.opts.Hub.Occupancy(c.Context(), &hub.Status{Grant: grant, Channel: channel}); err != nil {
			return nil, err
		}
	}
	return func(dst []byte, i int) []byte { return wire.AppendChannelDetails(dst, c.format, names[i], all[i]) }, nil
}
