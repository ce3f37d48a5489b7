package pubsub

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// MaxChannelNameBytes is the longest channel name; a longer one is CodeInvalidChannelName.
const MaxChannelNameBytes = 2048

// ChannelID names a channel of one app. Name is the plain name, without the parameters
// that a client may put in front of it.
type ChannelID struct {
	App  string
	Name string
}

func (id ChannelID) String() string { return id.App + "/" + id.Name }

// ChannelName is a channel's name as a client wrote it, taken apart. The grammar is
// "[" qualifier ("/" routing)? ("?" query)? "]" name.
type ChannelName struct {
	Attached  string     // exactly as written; every answer carries this
	Base      string     // the channel itself, without the qualifier
	Qualifier string     // "", "meta" or "filter"
	Filter    string     // the expression in base64, when Qualifier is "filter"
	Params    url.Values // parameters given inside the qualifier; nil if there are none
}

// ParseChannelName checks and splits the name of a channel. Every error it returns is an
// *Error with CodeInvalidChannelName.
func ParseChannelName(s string) (ChannelName, error) {
	n := ChannelName{Attached: s, Base: s}
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return n, invalidName(s)
		}
		inner := s[1:end]
		n.Base = s[end+1:]
		if q := strings.IndexByte(inner, '?'); q >= 0 {
			params, err := url.ParseQuery(inner[q+1:])
			if err != nil {
				return n, invalidName(s)
			}
			n.Params, inner = params, inner[:q]
		}
		switch {
		case inner == "" && n.Params != nil:
		case inner == "meta":
			n.Qualifier = "meta"
		case strings.HasPrefix(inner, "filter="):
			n.Qualifier, n.Filter = "filter", inner[len("filter="):]
		default:
			return n, invalidName(s)
		}
	}
	if n.Base == "" || n.Base[0] == ':' || n.Base[0] == '[' || len(s) > MaxChannelNameBytes ||
		strings.ContainsAny(s, "\r\n") || !utf8.ValidString(s) {
		return n, invalidName(s)
	}
	return n, nil
}

func invalidName(s string) error {
	if len(s) > 128 {
		s = strings.ToValidUTF8(s[:128], "") + "…"
	}
	return Errorf(CodeInvalidChannelName, "Invalid channel id: %s", s)
}

// Resource is the name that capabilities are matched with: the base name, with the
// qualifier's class in front of it ("[meta]stats:minute", "[filter]news").
func (n ChannelName) Resource() string {
	if n.Qualifier == "" {
		return n.Base
	}
	return "[" + n.Qualifier + "]" + n.Base
}

// ID is the channel that the name stands for. A metachannel is a channel of its own, beside
// the one that it tells of.
func (n ChannelName) ID(app string) ChannelID {
	if n.Qualifier == "meta" {
		return ChannelID{App: app, Name: n.Resource()}
	}
	return ChannelID{App: app, Name: n.Base}
}

// Namespace is the part of a channel's name that rules are found by: all before the first
// colon, or the whole name.
func Namespace(name string) string {
	ns, _, _ := strings.Cut(name, ":")
	return ns
}
