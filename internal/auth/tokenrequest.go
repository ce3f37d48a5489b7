package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// TokenRequest asks for an Ably token (TE2-5). Every field is the text that came, since the
// signature is over it; an absent one is empty.
type TokenRequest struct {
	KeyName     string
	TTL         string // ms
	Capability  string // JSON
	ClientID    string
	HasClientID bool   // clientId was there, if only as ""
	Timestamp   string // ms since the epoch
	Nonce       string
	MAC         string // empty: unsigned
}

// TokenDetails is an Ably token and what a client may know of it (TD2-6).
type TokenDetails struct {
	Token      string
	KeyName    string
	Issued     int64 // ms since the epoch, as Expires
	Expires    int64
	Capability string // canonical JSON
	ClientID   string // empty: anonymous
}

// How long Ably tokens live, and which requests for them are current.
const (
	defaultTokenLife      = time.Hour
	maxTokenLife          = 24 * time.Hour
	maxRevocableTokenLife = time.Hour

	timestampWindow = 2 * time.Minute // either way
	minNonceBytes   = 16

	// nonceLife is longer than a request can be current, by what the clocks of nodes may
	// differ.
	nonceLife = 2*timestampWindow + time.Minute
)

// CheckKeyName reports whether there is a key with this name, as CodeNotFound with status 404
// if not.
func (a *Authenticator) CheckKeyName(keyName string) error {
	_, err := a.namedKey(keyName)
	return err
}

func (a *Authenticator) namedKey(keyName string) (*appKey, error) {
	appID, keyID, _ := strings.Cut(keyName, ".")
	app, key, err := a.find(appID, keyID)
	switch {
	case err != nil:
		return nil, err
	case app == nil:
		return nil, unknownApp(appID)
	case key == nil:
		return nil, pubsub.Errorf(pubsub.CodeNotFound, "no key %s", clip(keyName))
	}
	return key, nil
}

// VouchForToken returns the grant on whose strength a request for a token of a key is to be
// answered. A signed request counts for the key itself, whoever brings it (RSA9a). An
// unsigned one needs credentials in the URL's parameters or headers: the key, or a token of it.
//
// Whether the request is current and what it asks for is for IssueToken to check.
func (a *Authenticator) VouchForToken(keyName string, r *TokenRequest, q url.Values, h http.Header) (*Grant, error) {
	key, err := a.namedKey(keyName)
	if err != nil {
		return nil, err
	}
	if r.KeyName != keyName && (r.KeyName != "" || r.MAC != "") {
		return nil, pubsub.Errorf(pubsub.CodeInvalidCredentials, "invalid token request: its keyName is not %s", key.name)
	}
	if r.MAC != "" {
		if !r.signedBy(key) {
			return nil, pubsub.NewError(pubsub.CodeInvalidCredentials, "invalid token request: the mac does not match")
		}
		if key.app.Disabled {
			return nil, appDisabled(key.AppID)
		}
		key.app.touch(a.now())
		return key.anybody, nil
	}
	g, err := a.REST(q, h)
	if err != nil {
		return nil, err
	}
	if g.KeyName != key.name {
		return nil, pubsub.Errorf(pubsub.CodeInvalidCredentials, "the credentials are not of key %s", key.name)
	}
	return g, nil
}

// signedBy reports whether the mac is that of key (RSA9g), in a time that tells nothing of it.
func (r *TokenRequest) signedBy(key *appKey) bool {
	if r.ambiguous() {
		return false
	}
	matches := hmac.Equal([]byte(r.mac(key.Secret, r.TTL)), []byte(r.MAC))
	// SDKs take a ttl of 0 for none when they sign, and send it nevertheless.
	return matches || r.TTL == "0" && hmac.Equal([]byte(r.mac(key.Secret, "")), []byte(r.MAC))
}

// ambiguous reports whether the text that is signed could be that of other fields. Each of them
// is a line, so that a line feed at the end of one might have been at the beginning of the
// next: who had a request signed for the clientId "\nroot" would get a token for "root".
// Within a capability a line feed is layout.
func (r *TokenRequest) ambiguous() bool {
	return strings.Contains(r.KeyName+r.TTL+r.ClientID+r.Timestamp+r.Nonce, "\n") ||
		strings.HasPrefix(r.Capability, "\n") || strings.HasSuffix(r.Capability, "\n")
}

func (r *TokenRequest) mac(secret, ttl string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	for _, field := range []string{r.KeyName, ttl, r.Capability, r.ClientID, r.Timestamp, r.Nonce} {
		mac.Write([]byte(field + "\n"))
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// IssueToken answers a request that g vouches for. The token gets nothing that g does not
// have: no other capability, clientId or longer life.
func (a *Authenticator) IssueToken(ctx context.Context, g *Grant, r *TokenRequest) (*TokenDetails, error) {
	key, err := a.namedKey(g.KeyName)
	if err != nil {
		return nil, err
	}
	now := a.now()
	if err := r.checkTimestamp(now); err != nil {
		return nil, err
	}
	if err := a.useNonce(ctx, key.name, r, now); err != nil {
		return nil, err
	}
	life, err := r.life(now, g, key.Revocable)
	if err != nil {
		return nil, err
	}
	id, err := r.clientID(g)
	if err != nil {
		return nil, err
	}
	capability, err := narrowed(g.Capability, r.Capability) // (RSA6, RSA9f, TK2b)
	if err != nil {
		return nil, err
	}

	d := &TokenDetails{KeyName: key.name, Issued: now.UnixMilli(), Capability: capability.String()}
	d.Expires = d.Issued + life.Milliseconds()
	claims := tokenClaims{
		KeyID: key.ID, Key: key.fingerprint[:], Issued: d.Issued, Expires: d.Expires, Capability: []byte(d.Capability),
	}
	if !g.ByKey {
		// Who revokes a token means also those that were made with it.
		claims.Issued, claims.RevocationKey = g.Issued.UnixMilli(), g.RevocationKey
		// Neither do they lose what its issuer says of the client, and how much it may publish.
		for _, c := range g.userClaims {
			if claims.UserClaims == nil {
				claims.UserClaims = make(map[string]string, len(g.userClaims))
			}
			claims.UserClaims[c.claim] = c.value
		}
		for _, r := range g.publishRates {
			if claims.PublishRates == nil {
				claims.PublishRates = make(map[string]json.Number, len(g.publishRates))
			}
			claims.PublishRates[r.claim] = json.Number(r.rate.String())
		}
	}
	if id != "" {
		d.ClientID, claims.ClientID = id, &id
	}
	if d.Token, err = a.tokens.seal(key.AppID, claims); err != nil {
		return nil, err
	}
	if len(d.Token) > maxTokenBytes {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "the token would be longer than %d bytes", maxTokenBytes)
	}
	return d, nil
}

// checkTimestamp refuses requests of another time (RSA9d, TK2d). Only unsigned ones may do without a
// timestamp.
func (r *TokenRequest) checkTimestamp(now time.Time) error {
	if r.Timestamp == "" && r.MAC == "" {
		return nil
	}
	ms, ok := wholeNumber(r.Timestamp)
	if age := now.Sub(time.UnixMilli(ms)); !ok || age > timestampWindow || age < -timestampWindow {
		return pubsub.NewError(pubsub.CodeTimestampNotCurrent, "Timestamp not current")
	}
	return nil
}

// useNonce refuses requests that were used before (RSA9c, TK2e). Only unsigned ones may do
// without a nonce.
func (a *Authenticator) useNonce(ctx context.Context, keyName string, r *TokenRequest, now time.Time) error {
	switch {
	case r.Nonce == "" && r.MAC == "":
		return nil
	case len(r.Nonce) < minNonceBytes:
		return pubsub.Errorf(pubsub.CodeNonceReplayed, "invalid nonce: shorter than %d characters", minNonceBytes)
	}
	if a.nonces == nil {
		return pubsub.NewError(pubsub.CodeUnavailable, "requests for tokens are not taken")
	}
	fresh, err := a.nonces.UseNonce(ctx, keyName, r.Nonce, now.Add(nonceLife))
	switch {
	case errors.Is(err, directory.ErrTooMany):
		return pubsub.NewError(pubsub.CodeBusy, "requests for tokens cannot be checked now; try again in a few minutes").Because(err)
	case err != nil:
		return pubsub.NewError(pubsub.CodeUnavailable, "requests for tokens cannot be checked now; try again").Because(err)
	case !fresh:
		return pubsub.NewError(pubsub.CodeNonceReplayed, "Nonce value replayed")
	}
	return nil
}

// life is how long the token is to live (RSA5, RSA9e, TK2a).
func (r *TokenRequest) life(now time.Time, g *Grant, revocable bool) (time.Duration, error) {
	longest := maxTokenLife
	if revocable {
		longest = maxRevocableTokenLife
	}
	left := time.Duration(math.MaxInt64)
	if !g.Expires.IsZero() {
		left = g.Expires.Sub(now)
	}
	ms, ok := wholeNumber(r.TTL)
	switch {
	case r.TTL == "", ok && ms == 0:
		return min(defaultTokenLife, left), nil
	case !ok || ms < 0:
		return 0, pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid ttl: must be a positive number of milliseconds")
	case ms > longest.Milliseconds():
		return 0, pubsub.Errorf(pubsub.CodeInvalidParameterValue, "invalid ttl: the longest is %d", longest.Milliseconds())
	case ms > left.Milliseconds():
		return 0, pubsub.NewError(pubsub.CodeInvalidParameterValue, "invalid ttl: the token would outlive the one that asks for it")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// clientID is the token's clientId, or empty (TK2c).
func (r *TokenRequest) clientID(g *Grant) (string, error) {
	switch {
	case r.HasClientID && (r.ClientID == "" || !utf8.ValidString(r.ClientID)):
		return "", pubsub.Errorf(pubsub.CodeInvalidClientID, "invalid clientId: %q", clip(r.ClientID))
	case g.ClientRule == ClientAny:
		return r.ClientID, nil
	case r.HasClientID && r.ClientID != g.ClientID:
		return "", pubsub.Errorf(pubsub.CodeIncompatibleCredential, "the credentials are not for clientId %q", clip(r.ClientID))
	}
	return g.ClientID, nil
}

// wholeNumber reads a number as clients write it: in decimal, perhaps with a fraction of
// zeros or an exponent.
func wholeNumber(text string) (n int64, ok bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, true
	}
	if strings.Trim(text, "0123456789+-.eE") != "" { // ParseFloat knows more forms
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}
