package auth

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"letshare-server/internal/pubsub"
)

// rateClaim is followed by a pattern of channels in the name of a claim, a number: how many
// messages per second its client may publish on each of them.
const rateClaim = "ably.limits.publish.perAttachment.maxRate."

const (
	maxRateClaimBytes = 4096      // of the names of these claims in one token
	mostPublishRate   = 1_000_000 // messages per second; more is no bound
)

// publishRate is one of these claims.
type publishRate struct {
	channelClaim
	rate PublishRate
}

// PublishRate is a number of messages per 1000 seconds.
type PublishRate int

// perSecond is the rate as claims write it.
func (r PublishRate) perSecond() float64 { return float64(r) / 1000 }

func (r PublishRate) String() string { return strconv.FormatFloat(r.perSecond(), 'f', -1, 64) }

// readPublishRates returns the rates that a token's claims set, most specific first.
func readPublishRates[V any](claims map[string]V) ([]publishRate, error) {
	var all []publishRate
	bytes := 0
	for name, v := range claims {
		pattern, is := strings.CutPrefix(name, rateClaim)
		if !is {
			continue
		}
		number, isNumber := any(v).(json.Number)
		perSecond, err := number.Float64()
		if !isNumber || err != nil || perSecond < 0 || pattern == "" {
			return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid claim %q: it must name a channel and be a number, not less than 0", clip(name))
		}
		bytes += len(name)
		all = append(all, publishRate{newChannelClaim(name, pattern), PublishRate(math.Ceil(min(perSecond, mostPublishRate) * 1000))})
	}
	if bytes > maxRateClaimBytes {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "the names of the claims %s* have more than %d bytes", rateClaim, maxRateClaimBytes)
	}
	slices.SortFunc(all, func(a, b publishRate) int { return a.compare(&b.channelClaim) })
	return all, nil
}

// PublishRate returns how much the issuer of the token lets the party publish on a channel,
// given its resource. ok is false if it set no bound. The most specific claim counts.
func (g *Grant) PublishRate(resource string) (rate PublishRate, ok bool) {
	if len(g.publishRates) == 0 {
		return 0, false
	}
	class, name := splitResource(resource)
	for i := range g.publishRates {
		if r := &g.publishRates[i]; r.applies(class, name) {
			return r.rate, true
		}
	}
	return 0, false
}
