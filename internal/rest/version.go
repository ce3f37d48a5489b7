package rest

import (
	"strconv"
	"strings"

	"letshare-server/internal/pubsub"
)

const (
	// newestVersion is the version of Ably's protocol that is meant by who names none.
	newestVersion = 6

	// batchResultVersion is the version from which on batches are answered with counts and
	// results.
	batchResultVersion = 3

	// namesVersion is the version from which on channels are listed by name alone.
	namesVersion = 3
)

// version is the version of the protocol that the client speaks (RSC7e, RSC19f1): the header
// X-Ably-Version, or else the parameter v. Of "1.2" it is the 1. Only what differs between
// versions asks for it, so that a text that is no version, CodeUnsupportedVersion, harms nothing
// else.
func (c *call) version() (int, error) {
	text := c.Header.Get("X-Ably-Version")
	if text == "" {
		text = c.query.Get("v")
	}
	if text == "" {
		return newestVersion, nil
	}
	major, minor, dotted := strings.Cut(text, ".")
	n, err := strconv.ParseUint(major, 10, 31)
	if err == nil && dotted {
		_, err = strconv.ParseUint(minor, 10, 31)
	}
	if err != nil {
		return 0, pubsub.NewError(pubsub.CodeUnsupportedVersion, "unsupported protocol version")
	}
	return int(n), nil
}
