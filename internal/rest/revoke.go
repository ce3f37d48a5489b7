package rest

import (
	"encoding/json"
	"net/http"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// maxRevocationBytes has room for 100 targets of 1 KiB.
const maxRevocationBytes = 256 << 10

// revocationRequest is the body of POST /keys/{keyName}/revokeTokens.
type revocationRequest struct {
	Targets           []string     `json:"targets"`
	IssuedBefore      *json.Number `json:"issuedBefore"`
	AllowReauthMargin bool         `json:"allowReauthMargin"`
}

// revocationResult is what became of one target (TRS2a-c, TRF2a-b).
type revocationResult struct {
	Target       string          `json:"target"`
	IssuedBefore int64           `json:"issuedBefore,omitempty"`
	AppliesAt    int64           `json:"appliesAt,omitempty"`
	Error        json.RawMessage `json:"error,omitempty"`
}

// batchResult is the outcome of several requests in one.
type batchResult struct {
	SuccessCount int                `json:"successCount"`
	FailureCount int                `json:"failureCount"`
	Results      []revocationResult `json:"results"`
}

// revokeTokens answers POST /keys/{keyName}/revokeTokens (RSA17b-g), which takes the key itself.
// Versions before 3 get the bare list of results.
func (a *API) revokeTokens(c *call) (*answer, error) {
	grant, err := a.authenticateKey(c)
	if err != nil {
		return nil, err
	}
	version, err := c.version()
	if err != nil {
		return nil, err
	}
	body, err := a.readBodyWithin(c, maxRevocationBytes)
	if err != nil {
		return nil, err
	}
	text, err := wire.Transcode(nil, wire.JSON, c.bodyFormat(), body)
	if err != nil {
		return nil, pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid request body: %v", err)
	}
	var request revocationRequest
	if err := decodeJSON(text, &request); err != nil {
		return nil, err
	}
	asked := auth.RevocationRequest{Targets: request.Targets, AllowReauthMargin: request.AllowReauthMargin}
	if request.IssuedBefore != nil {
		ms, err := request.IssuedBefore.Int64()
		if err != nil {
			return nil, invalidParam("invalid issuedBefore: must be a whole number of milliseconds")
		}
		asked.IssuedBefore = &ms
	}
	revoked, err := a.opts.Auth.RevokeTokens(c.Context(), grant, c.path[1], &asked)
	if err != nil {
		return nil, err
	}
	a.opts.Log.Info("tokens revoked", "key_name", grant.KeyName, "targets", len(request.Targets))

	out := batchResult{Results: make([]revocationResult, len(revoked))}
	for i, r := range revoked {
		out.Results[i] = revocationResult{Target: r.Target, IssuedBefore: r.IssuedBefore, AppliesAt: r.AppliesAt}
		if r.Err != nil {
			out.FailureCount++
			out.Results[i].Error = wire.AppendErrorInfo(nil, wire.JSON, wire.NewErrorInfo(r.Err))
		} else {
			out.SuccessCount++
		}
	}
	var shape any = out
	if version < batchResultVersion {
		shape = out.Results
	}
	if text, err = json.Marshal(shape); err != nil {
		return nil, err
	}
	if text, err = wire.Transcode(nil, c.format, wire.JSON, text); err != nil {
		return nil, err
	}
	return &answer{status: http.StatusCreated, body: text}, nil
}
