package rest

import (
	"net/http"
	"net/url"
	"strconv"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

// The size of a page (RSL2b3, RSP3a1, RSP4b3).
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// history answers GET /channels/{name}/messages (RSL2a).
func (a *API) history(c *call) (*answer, error) {
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
	page, err := a.opts.Hub.Messages(c.Context(), q)
	if err != nil {
		return nil, err
	}
	retrieved(c, stats.Messages, page.Messages)
	return &answer{
		status: http.StatusOK,
		body:   wire.AppendMessages(nil, c.format, page.Messages),
		links:  pageLinks(c.path[2], c.query, page.Next),
	}, nil
}

// historyParams reads what both histories are asked with (RSL2b1-3, RSP4b1-3, RTL10b).
func historyParams(params url.Values, q *hub.History) error {
	var err error
	if q.Limit, err = limitParam(params); err != nil {
		return err
	}
	if q.Forwards, err = forwardsParam(params); err != nil {
		return err
	}
	for _, bound := range []struct {
		name string
		into *int64
	}{{"start", &q.Start}, {"end", &q.End}} {
		if s := params.Get(bound.name); s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				return invalidParam("Invalid " + bound.name + " param: must be milliseconds since the epoch")
			}
			*bound.into = n
		}
	}
	if q.End != 0 && q.Start > q.End {
		return invalidParam("Invalid start param: start is after end")
	}
	from := params.Get("from_serial")
	if from == "" {
		from = params.Get("fromSerial")
	}
	if from != "" {
		if _, _, _, err := pubsub.ParseSerial(from); err != nil {
			return pubsub.NewError(pubsub.CodeAttachPointNotFound, "Invalid from_serial param: unknown attach point")
		}
		q.UpTo = pubsub.Serial(from)
	}
	q.Cursor, err = cursorParam(params)
	return err
}

// cursorParam reads a cursor that is the serial of an item.
func cursorParam(params url.Values) (string, error) {
	cursor := params.Get("cursor")
	if cursor != "" {
		if _, _, err := pubsub.ParseItemSerial(cursor); err != nil {
			return "", invalidParam("Invalid cursor param")
		}
	}
	return cursor, nil
}

func limitParam(params url.Values) (int, error) {
	s := params.Get("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, invalidParam("Invalid limit param: must be a number from 1 to 1000")
	}
	return n, nil
}

// forwardsParam reads the parameter direction.
func forwardsParam(params url.Values) (bool, error) {
	switch params.Get("direction") {
	case "", "backwards":
		return false, nil
	case "forwards":
		return true, nil
	}
	return false, invalidParam("Invalid direction param: must be forwards or backwards")
}

func invalidParam(message string) error {
	return pubsub.NewError(pubsub.CodeInvalidParameterValue, message)
}

// pageLinks are the Link headers of a page, one relation each, relative to the request
// (TG4-6). Without a next page there is no such link.
func pageLinks(resource string, params url.Values, next string) []string {
	link := func(cursor, rel string) string {
		q := url.Values{}
		for _, name := range []string{"start", "end", "direction", "limit", "from_serial", "fromSerial", "clientId", "connectionId", "unit", "by", "prefix", "v", "format", "envelope"} {
			if v := params.Get(name); v != "" {
				q.Set(name, v)
			}
		}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		return "<./" + resource + "?" + q.Encode() + ">; rel=\"" + rel + "\""
	}
	links := []string{link("", "first"), link(params.Get("cursor"), "current")}
	if next != "" {
		links = append(links, link(next, "next"))
	}
	return links
}
