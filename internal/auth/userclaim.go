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
	channelClaim = "ably.channel."
	roomClaim    = "ably.room."
)

// maxUserClaimBytes bounds the patterns and values of one token together. Every message of the
// client carries one of the values.
const maxUserClaimBytes = 4096

// userClaim is one of these claims.
type userClaim struct {
	claim string // its name
	right        // its pattern
	room  bool
	value string
}

// readUserClaims returns the user claims of a token, most specific first.
func readUserClaims[V any](claims map[string]V) ([]userClaim, error) {
	var all []userClaim
	bytes := 0
	for name, v := range claims {
		pattern, isChannel := strings.CutPrefix(name, channelClaim)
		var isRoom bool
		if !isChannel {
			if pattern, isRoom = strings.CutPrefix(name, roomClaim); !isRoom {
				continue
			}
		}
		value, isString := any(v).(string)
		if !isString || pattern == "" {
			return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid claim %q: it must name a channel or room and be a string", clip(name))
		}
		bytes += len(name) + len(value)
		all = append(all, userClaim{name, newRight(pattern, 0), isRoom, value})
	}
	if bytes > maxUserClaimBytes {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "the claims %s* and %s* have more than %d bytes", channelClaim, roomClaim, maxUserClaimBytes)
	}
	slices.SortFunc(all, func(a, b userClaim) int {
		return cmp.Or(
			cmp.Compare(a.wildcards(), b.wildcards()),
			cmp.Compare(strings.Count(b.claim, ":"), strings.Count(a.claim, ":")),
			strings.Compare(a.claim, b.claim))
	})
	return all, nil
}

// wildcards counts the segments that are "*".
func (c *userClaim) wildcards() (n int) {
	for segment := range strings.SplitSeq(c.name, ":") {
		if segment == "*" {
			n++
		}
	}
	return n
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
	untagged := withoutTag(name)
	for i := range g.userClaims {
		if c := &g.userClaims[i]; !c.room && c.coversClass(class) && (covers(c.name, name) || covers(c.name, untagged)) {
			return c.value, true
		}
	}
	return "", false
}
