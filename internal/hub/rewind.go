package hub

import (
	"strconv"
	"strings"
	"time"

	"letshare-server/internal/pubsub"
)

// Rewind says how far back an attachment begins. The zero value is no rewind.
type Rewind struct {
	Window time.Duration // zero: by count only
	Limit  int           // messages, at most MaxRewind; zero: none
}

// ParseRewind reads the channel parameters "rewind", a number of messages, or of seconds or
// minutes as "30s", "2m", and "rewindLimit". Its errors are *pubsub.Error with
// CodeInvalidParameterValue.
func ParseRewind(params map[string]string) (Rewind, error) {
	limit := MaxRewind
	if v, ok := params["rewindLimit"]; ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > MaxRewind {
			return Rewind{}, invalidParam("rewindLimit", v, "must be a number from 1 to 100")
		}
		limit = n
	}
	rewind, ok := params["rewind"]
	if !ok {
		return Rewind{}, nil
	}
	digits := strings.TrimRight(rewind, "sm")
	n, err := strconv.Atoi(digits)
	var unit time.Duration
	switch rewind[len(digits):] {
	case "":
	case "s":
		unit = time.Second
	case "m":
		unit = time.Minute
	default:
		err = strconv.ErrSyntax
	}
	switch {
	case err != nil || n < 0 || n > 1<<20:
		return Rewind{}, invalidParam("rewind", rewind, `must be a number, alone or with "s" or "m"`)
	case n == 0:
		return Rewind{}, nil
	case unit == 0:
		return Rewind{Limit: min(n, limit)}, nil
	}
	return Rewind{Window: time.Duration(n) * unit, Limit: limit}, nil
}

func invalidParam(name, value, rule string) error {
	if len(value) > 64 {
		value = strings.ToValidUTF8(value[:64], "") + "…"
	}
	return pubsub.Errorf(pubsub.CodeInvalidParameterValue, "Invalid channel param %s=%q: %s", name, value, rule)
}
