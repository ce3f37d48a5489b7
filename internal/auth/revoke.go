package auth

import (
	"context"
	"errors"
	"strings"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// RevocationRequest asks that tokens of a key be revoked (RSA17b-g).
type RevocationRequest struct {
	Targets           []string // "clientId:bob", "revocationKey:group", "channel:name"
	IssuedBefore      *int64   // ms since the epoch; nil: now
	AllowReauthMargin bool     // clients get some time for another token
}

// RevocationResult is what became of one target: Err, or the times in ms since the epoch.
type RevocationResult struct {
	Target       string
	IssuedBefore int64
	AppliesAt    int64
	Err          *pubsub.Error
}

const (
	maxRevocationTargets = 100
	maxTargetBytes       = 1024

	// maxIssuedBeforeAge is how far back a revocation may reach: no token that was issued
	// before is alive.
	maxIssuedBeforeAge = maxRevocableTokenLife

	// reauthMargin is the time for another token (RSA17f).
	reauthMargin = 30 * time.Second
)

// RevokeTokens revokes tokens of the key named keyName. g must be of that key itself: a token
// is CodeBasicAuthRequired (RSA17d), another key CodeKeyMismatch, and a key whose tokens cannot be
// revoked CodeTokensNotRevocable. What is wrong with a single target is in its result.
//
// When it returns this node refuses the tokens; other nodes do as soon as they hear of it.
func (a *Authenticator) RevokeTokens(ctx context.Context, g *Grant, keyName string, r *RevocationRequest) ([]RevocationResult, error) {
	if !g.ByKey {
		return nil, pubsub.NewError(pubsub.CodeBasicAuthRequired, "tokens are revoked with their key, not with a token")
	}
	if g.KeyName != keyName {
		return nil, pubsub.NewError(pubsub.CodeKeyMismatch, "tokens are revoked with their own key, not with another")
	}
	key, err := a.namedKey(keyName)
	if err != nil {
		return nil, err
	}
	if !key.Revocable || a.revocations == nil {
		return nil, pubsub.Errorf(pubsub.CodeTokensNotRevocable, "tokens of key %s cannot be revoked", key.name)
	}
	if len(r.Targets) == 0 || len(r.Targets) > maxRevocationTargets {
		return nil, pubsub.Errorf(pubsub.CodeInvalidParameterValue, "invalid targets: there must be 1 to %d", maxRevocationTargets)
	}
	now := a.now().UnixMilli()
	issuedBefore := now
	if r.IssuedBefore != nil {
		issuedBefore = *r.IssuedBefore
	}
	if issuedBefore > now || issuedBefore < now-maxIssuedBeforeAge.Milliseconds() {
		return nil, pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid issuedBefore: must be within the last hour")
	}
	appliesAt := now
	if r.AllowReauthMargin {
		appliesAt = now + 1 + reauthMargin.Milliseconds() // more than the margin after what a client just read
	}

	results := make([]RevocationResult, len(r.Targets))
	list := make([]directory.Revocation, 0, len(r.Targets))
	for i, text := range r.Targets {
		results[i].Target = text
		if results[i].Err = checkTarget(text); results[i].Err != nil {
			continue
		}
		results[i].IssuedBefore, results[i].AppliesAt = issuedBefore, appliesAt
		before := time.UnixMilli(issuedBefore)
		list = append(list, directory.Revocation{
			App: key.AppID, Key: key.name, Target: text,
			IssuedBefore: before, AppliesAt: time.UnixMilli(appliesAt), Expires: before.Add(a.revocations.life(key.AppID)),
		})
	}
	if len(list) == 0 {
		return results, nil
	}
	if err := a.revocations.revoke(ctx, list); err != nil {
		return nil, err
	}
	key.app.touch(a.now())
	return results, nil
}

func checkTarget(text string) *pubsub.Error {
	kind, value, _ := strings.Cut(text, ":")
	switch {
	case kind != targetClientID && kind != targetRevocationKey && kind != targetChannel:
		return pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid target: its type must be clientId, revocationKey or channel")
	case value == "":
		return pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid target: it must have the form type:value")
	case len(text) > maxTargetBytes:
		return pubsub.Errorf(pubsub.CodeInvalidParameterValue, "invalid target: longer than %d bytes", maxTargetBytes)
	}
	return nil
}

func (r *Revocations) life(app string) time.Duration {
	if r.opts.Life != nil {
		return max(r.opts.Life(app), maxRevocableTokenLife)
	}
	return maxRevocableTokenLife
}

// revoke records revocations and adopts them.
func (r *Revocations) revoke(ctx context.Context, list []directory.Revocation) error {
	err := r.opts.Store.Revoke(ctx, list)
	if err == nil {
		err = r.Refresh(ctx)
	}
	switch {
	case errors.Is(err, directory.ErrTooMany):
		return pubsub.NewError(pubsub.CodeRateLimited, "too many tokens were revoked; try again later").Because(err)
	case err != nil:
		return pubsub.NewError(pubsub.CodeUnavailable, "the revocation cannot be recorded; try again").Because(err)
	}
	return nil
}
