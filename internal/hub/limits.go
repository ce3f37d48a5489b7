package hub

import (
	"cmp"
	"errors"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

// channelLimits are those of one channel. Rates of 0 are none.
type channelLimits struct {
	messageBytes    int // of one publish
	presenceMembers int
	presenceBytes   int64
	objects         int
	objectBytes     int64
	messages, bytes int // per second
}

// limitsOf are the limits in force for the channels of a namespace: what its rule does not say
// is as in all others.
func (h *Hub) limitsOf(app string, rule *auth.Namespace) channelLimits {
	all, own := h.opts.Limits.For(app), &rule.Limits
	return channelLimits{
		messageBytes:    cmp.Or(own.MessageBytes, all.MessageBytes),
		presenceMembers: cmp.Or(own.PresenceMembers, all.PresenceMembers),
		presenceBytes:   cmp.Or(int64(own.PresenceBytes), all.PresenceBytes),
		objects:         all.Objects,
		objectBytes:     all.ObjectBytes,
		messages:        max(cmp.Or(own.Messages, all.ChannelMessages), 0),
		bytes:           max(cmp.Or(own.Bytes, all.ChannelBytes), 0),
	}
}

// pace counts items against the rates of their channel, and says which of them does not
// allow it.
func (h *Hub) pace(l *channelLimits, id pubsub.ChannelID, items, bytes int) error {
	set := h.opts.Limits
	if !limit.AllowOf(set, &h.messageRates, id, l.messages, items) {
		set.Exceeded(limit.ChannelMessages, id.App)
		return pubsub.Errorf(pubsub.CodeChannelMessageRate, "rate limit exceeded: %d messages per second on one channel", l.messages)
	}
	if !limit.AllowOf(set, &h.byteRates, id, l.bytes, bytes) {
		set.Exceeded(limit.ChannelBytes, id.App)
		return pubsub.Errorf(pubsub.CodeChannelByteRate, "rate limit exceeded: %d bytes per second on one channel", l.bytes)
	}
	return nil
}

// publisher is who publishes on one channel under a rate that its token sets: a connection, or
// for requests without one whoever has such a token.
type publisher struct {
	channel      pubsub.ChannelID
	connectionID string
	token        string
}

// paceToken counts messages against the rate that the publisher's token sets for the channel,
// if it does.
func (h *Hub) paceToken(p *Publish, id pubsub.ChannelID) error {
	rate, bounded := p.Grant.PublishRate(p.Channel.Resource())
	if !bounded {
		return nil
	}
	who := publisher{channel: id, connectionID: p.publisher()}
	if who.connectionID == "" {
		who.token = p.Grant.KeyName + "\x00" + p.Grant.ClientID
	}
	// Rates are in thousandths, since one message may be for many seconds.
	if rate > 0 && limit.AllowOf(h.opts.Limits, &h.tokenRates, who, int(rate), 1000*len(p.Messages)) {
		return nil
	}
	h.opts.Limits.Exceeded(limit.TokenMessages, id.App)
	return pubsub.Errorf(pubsub.CodeConnectionRateExceeded, "rate limit exceeded: the token allows %v messages per second on this channel", rate)
}

// noteFull tells of an Append that the engine had no room for.
func (h *Hub) noteFull(err error, app string) {
	if errors.Is(err, engine.ErrFull) {
		h.opts.Limits.Exceeded(limit.LogBytes, app)
	}
}

// countChannel counts one more channel of an app, or refuses it. The channel's shard may be
// locked.
func (h *Hub) countChannel(app string) error {
	most := h.opts.Limits.For(app).AppChannels
	h.appsMu.Lock()
	defer h.appsMu.Unlock()
	if n := h.appChannels[app]; most > 0 && n >= most {
		h.opts.Limits.Exceeded(limit.AppChannels, app)
		h.opts.Stats.App(app).ChannelRefused()
		return pubsub.Errorf(pubsub.CodeChannelLimit, "the application has %d channels already", n)
	}
	h.appChannels[app]++
	return nil
}

// uncountChannel takes one channel of an app off.
func (h *Hub) uncountChannel(app string) {
	h.appsMu.Lock()
	defer h.appsMu.Unlock()
	if h.appChannels[app]--; h.appChannels[app] == 0 {
		delete(h.appChannels, app)
	}
}
