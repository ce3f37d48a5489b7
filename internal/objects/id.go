package objects

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"letshare-server/internal/pubsub"
)

// idTolerance is how far the time in the id of an object that is being created may be from now.
const idTolerance = 24 * time.Hour

// maxIDBytes bounds ids, of which the longest that clients make have 66 bytes.
const maxIDBytes = 128

// ID is the id of an object taken apart: "<type>:<hash>@<ms>", or root.
type ID struct {
	IsMap bool // of a counter otherwise
	Hash  string
	Ms    int64 // when the object was created; since the epoch
}

// ParseID takes an id apart. The error is CodeInvalidObject.
func ParseID(s string) (ID, error) {
	if s == pubsub.RootObject {
		return ID{IsMap: true}, nil
	}
	kind, rest, _ := strings.Cut(s, ":")
	hash, at, found := strings.Cut(rest, "@")
	ms, err := strconv.ParseInt(at, 10, 64)
	if len(s) > maxIDBytes || kind != "map" && kind != "counter" || hash == "" || !found || err != nil || ms < 0 {
		return ID{}, invalid("invalid object id: %q", clipped(s))
	}
	return ID{IsMap: kind == "map", Hash: hash, Ms: ms}, nil
}

// MakeID returns the id of an object that begins with what initialValue says (RTO14).
func MakeID(isMap bool, initialValue, nonce string, ms int64) string {
	kind := "counter:"
	if isMap {
		kind = "map:"
	}
	return kind + hashOf(initialValue, nonce) + "@" + strconv.FormatInt(ms, 10)
}

func hashOf(initialValue, nonce string) string {
	sum := sha256.Sum256([]byte(initialValue + ":" + nonce))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func invalid(format string, args ...any) *pubsub.Error {
	return pubsub.Errorf(pubsub.CodeInvalidObject, "invalid object message: "+format, args...)
}

func clipped(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
