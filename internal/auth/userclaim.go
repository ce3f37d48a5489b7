package auth

import (
	"cmp"
	"slices"
	"strings"

	"letshare-server/internal/pubsub"
)

// The claims of a JWT by which its issuer tells others something of the client that it cannot
// tell or change itself: "ably.channel.<pattern>" for what it publishes on channels, and
// "ably.room.<pattern>" for chat rooms, whose channels are named "room::$chat" and the like.
const (
	userClaimOnChannels = "ably.channel."
	userClaimInRooms    = "ably.room."
)

// maxUserClaimBytes bounds the patterns and values of one token together. Every message of the
// client carries one of the values.
const maxUserClaimBytes = 4096

// userClaim is one of these claims.
type userClaim struct {
	channelClaim
	room  bool
	value string
}

// channelClaim is a claim that is about the channels of a pattern in its name.
type channelClaim struct {
	claim string // its name
	right        // its pattern
}

func newChannelClaim(name, pattern string) channelClaim {
	return channelClaim{name, newRight(pattern, 0)}
}

// compare puts the more specific of two claims first.
func (c *channelClaim) compare(other *channelClaim) int {
	return cmp.Or(
		cmp.Compare(c.wildcards(), other.wildcards()),
		cmp.Compare(strings.Count(other.claim, ":"), strings.Count(c.claim, ":")),
		strings.Compare(c.claim, other.claim))
}

// wildcards counts the segments that are "*".
func (c *channelClaim) wildcards() (n int) {
	for segment := range strings.SplitSeq(c.name, ":") {
		if segment == "*" {
			n++
		}
	}
	return n
}

// applies reports whether the claim is about a channel, given its resource's parts.
func (c *channelClaim) applies(class, name string) bool {
	return c.coversClass(class) && (covers(c.name, name) || covers(c.name, withoutTag(name)))
}

// readUserClaims returns the user claims of a token, most specific first.
func readUserClaims[V any](claims map[string]V) ([]userClaim, error) {
	var all []userClaim
	bytes := 0
	for name, v := range claims {
		pattern, isChannel := strings.CutPrefix(name, userClaimOnChannels)
		var isRoom bool
		if !isChannel {
			if pattern, isRoom = strings.CutPrefix(name, userClaimInRooms); !isRoom {
				continue
			}
		}
		value, isString := any(v).(string)
		if !isString || pattern == "" {
			return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid claim %q: it must name a channel or room and be a string", clip(name))
		}
		bytes += len(name) + len(value)
		all = append(all, userClaim{newChannelClaim(name, pattern), isRoom, value})
	}
	if bytes > maxUserClaimBytes {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "the claims %s* and %s* have more than %d bytes", userClaimOnChannels, userClaimInRooms, maxUserClaimBytes)
	}
	slices.SortFunc(all, func(a, b userClaim) int { return a.compare(&b.channelClaim) })
	return all, nil
}

// UserClaim returns what the issuer of the token says of the party on a channel, given its
// resource, for extras.userClaim of what it publishes there. The most specific claim counts,
// and in a chat room those for rooms before those for channels.
func (g *Grant) UserClaim(resource string) (value string, ok bool) {
	if len(g.userClaims) == 0 {
		return "", false
	}
	class, name := splitResource(resource)
	room, _, inRoom := strings.Cut(name, "::$")
	if inRoom {
		for i := range g.userClaims {
			if c := &g.userClaims[i]; c.room && c.coversClass(class) && covers(c.name, room) {
				return c.value, true
			}
		}
	}
	for i := range g.userClaims {
		if c := &g.userClaims[i]; !c.room && c.applies(class, name) {
			return c.value, true
		}
	}
	return "", false
}
