package rest

import (
	"net/http"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/limit"
	"letshare-server/internal/wire"
)

// maxTokenRequestBytes has room for the longest capability.
const maxTokenRequestBytes = 256 << 10

// requestToken answers POST /keys/{keyName}/requestToken (RSA8a): a request that was signed
// with the key, or one with credentials, gets an Ably token.
func (a *API) requestToken(c *call) (*answer, error) {
	keyName := c.path[1]
	if err := a.opts.Auth.CheckKeyName(keyName); err != nil {
		return nil, err
	}
	app, _, _ := strings.Cut(keyName, ".")
	c.counts = a.opts.Stats.App(app)
	body, err := a.readBodyWithin(c, maxTokenRequestBytes)
	if err != nil {
		return nil, err
	}
	decoded, err := wire.DecodeTokenRequest(c.bodyFormat(), body)
	if err != nil {
		return nil, err
	}
	request := auth.TokenRequest(*decoded)
	grant, err := a.opts.Auth.VouchForToken(keyName, &request, c.query, c.Header)
	admit := a.opts.Auth.Admit
	if request.MAC != "" {
		admit = (*auth.Grant).ForPeer // the key was not sent
	}
	if grant, err = a.forPeer(c, grant, err, admit); err != nil {
		return nil, err
	}
	most := a.opts.Hub.Limits().For(grant.App).AppTokenRequests
	if err := a.pace(&a.tokenRequests, grant.App, most, limit.AppTokenRequests); err != nil {
		return nil, err
	}
	issued, err := a.opts.Auth.IssueToken(c.Context(), grant, &request)
	if err != nil {
		return nil, err
	}
	details := wire.TokenDetails(*issued)
	return &answer{status: http.StatusCreated, body: wire.AppendTokenDetails(nil, c.format, &details)}, nil
}

// noToken answers GET on the same path: there is nothing to get.
func (a *API) noToken(c *call) (*answer, error) { return nil, noSuchResource(c) }
