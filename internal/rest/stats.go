package rest

import (
	"net/http"
	"strconv"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// stats answers GET /stats (RSC6a, RSC6b3): no statistics are kept yet, so that every page is empty.
func (a *API) stats(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	if !grant.Allows(auth.OpStats, "*") {
		return nil, pubsub.NewError(pubsub.CodeCapabilityDenied, "statistics need the operation stats on every channel")
	}
	if s := c.query.Get("limit"); s != "" {
		if n, err := strconv.Atoi(s); err != nil || n < 1 || n > maxLimit {
			return nil, invalidParam("Invalid limit param: must be a number from 1 to 1000")
		}
	}
	none := func(dst []byte, _ int) []byte { return dst }
	return &answer{
		status: http.StatusOK,
		body:   wire.AppendArray(nil, c.format, 0, none),
		links:  pageLinks("stats", c.query, ""),
	}, nil
}

// postStats answers POST /stats (G3), by which test suites provide statistics for GET /stats. They
// are taken, and not kept yet. Servers without a sandbox have no such resource.
func (a *API) postStats(c *call) (*answer, error) {
	if a.opts.Sandbox == nil {
		return nil, pubsub.Errorf(pubsub.CodeMethodNotAllowed, "method %s is not allowed here", c.Method)
	}
	if _, err := a.authenticateKey(c); err != nil {
		return nil, err
	}
	if _, err := a.readBody(c); err != nil {
		return nil, err
	}
	return &answer{status: http.StatusCreated, body: wire.AppendArray(nil, c.format, 0, nil)}, nil
}

// authenticateKey is authenticate for what a token is not enough for.
func (a *API) authenticateKey(c *call) (*auth.Grant, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	if !grant.ByKey {
		return nil, pubsub.NewError(pubsub.CodeBasicAuthRequired, "this needs a key, not a token")
	}
	return grant, nil
}
