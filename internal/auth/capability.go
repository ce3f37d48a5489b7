package auth

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"letshare-server/internal/pubsub"
)

// Operation is one thing that a capability can allow on a resource. Each is one bit.
type Operation uint32

// The operations of capabilities.
const (
	OpSubscribe Operation = 1 << iota
	OpPublish
	OpPresence
	OpHistory
	OpStats
	OpPushSubscribe
	OpPushAdmin
	OpChannelMetadata
	OpPrivilegedHeaders
	OpObjectSubscribe
	OpObjectPublish
	OpAnnotationSubscribe
	OpAnnotationPublish
	OpMessageUpdateOwn
	OpMessageUpdateAny
	OpMessageDeleteOwn
	OpMessageDeleteAny
)

var operations = map[string]Operation{
	"subscribe":            OpSubscribe,
	"publish":              OpPublish,
	"presence":             OpPresence,
	"history":              OpHistory,
	"stats":                OpStats,
	"push-subscribe":       OpPushSubscribe,
	"push-admin":           OpPushAdmin,
	"channel-metadata":     OpChannelMetadata,
	"privileged-headers":   OpPrivilegedHeaders,
	"object-subscribe":     OpObjectSubscribe,
	"object-publish":       OpObjectPublish,
	"annotation-subscribe": OpAnnotationSubscribe,
	"annotation-publish":   OpAnnotationPublish,
	"message-update-own":   OpMessageUpdateOwn,
	"message-update-any":   OpMessageUpdateAny,
	"message-delete-own":   OpMessageDeleteOwn,
	"message-delete-any":   OpMessageDeleteAny,
}

func (op Operation) String() string { return OpSet(op).String() }

// OpSet is a set of operations.
type OpSet uint32

// AllOps is the operation "*": everything, also what is not invented yet.
const AllOps = ^OpSet(0)

// Ops returns the set of the given operations.
func Ops(ops ...Operation) OpSet {
	var s OpSet
	for _, op := range ops {
		s |= OpSet(op)
	}
	return s
}

// Has reports whether s contains op.
func (s OpSet) Has(op Operation) bool { return s&OpSet(op) != 0 }

// Names returns the operations of s as capabilities write them, sorted; "*" alone for
// AllOps.
func (s OpSet) Names() []string {
	if s == AllOps {
		return []string{"*"}
	}
	names := []string{}
	for name, op := range operations {
		if s.Has(op) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (s OpSet) String() string { return strings.Join(s.Names(), ",") }

// MaxCapabilityBytes is the longest text of a capability.
const MaxCapabilityBytes = 64 << 10

// Capability says which operations are allowed on which resources. It is immutable and
// meant to be shared: all connections of one key hold the same one. The nil Capability
// allows nothing.
type Capability struct {
	rights []right // sorted by resource, which is unique
}

// right is one line of a capability: operations on all the resources that a pattern covers.
type right struct {
	resource string // as written
	class    string // the qualifier: "" for ordinary channels, "meta", "filter", "*" …
	name     string // resource without the qualifier; segments are separated by colons
	ops      OpSet
}

// FullCapability is what a key has that was given none: {"*":["*"]}.
var FullCapability = &Capability{rights: []right{newRight("*", AllOps)}}

func newRight(resource string, ops OpSet) right {
	class, name := splitResource(resource)
	return right{resource: resource, class: class, name: name, ops: ops}
}

// splitResource takes the qualifier off a resource: "[meta]log" is "meta" and "log".
func splitResource(s string) (class, name string) {
	if strings.HasPrefix(s, "[") {
		if end := strings.IndexByte(s, ']'); end > 0 {
			return s[1:end], s[end+1:]
		}
	}
	return "", s
}

// ParseCapability reads a capability's JSON: an object of resources, each with a list of
// operations. What cannot be read, an unknown or missing operation, and "*" beside others
// is an *pubsub.Error with CodeBadRequest. An object without resources is a valid
// capability that allows nothing.
func ParseCapability(text string) (*Capability, error) {
	if len(text) > MaxCapabilityBytes {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "invalid capability: longer than %d bytes", MaxCapabilityBytes)
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(text), &lists); err != nil || lists == nil || !utf8.ValidString(text) {
		return nil, pubsub.NewError(pubsub.CodeBadRequest,
			"invalid capability: must be a JSON object of resources with lists of operations").Because(err)
	}
	c := &Capability{rights: make([]right, 0, len(lists))}
	for resource, names := range lists {
		if err := checkResource(resource); err != nil {
			return nil, err
		}
		ops, err := parseOps(resource, names)
		if err != nil {
			return nil, err
		}
		c.rights = append(c.rights, newRight(resource, ops))
	}
	c.sort()
	return c, nil
}

func checkResource(resource string) error {
	class, name := splitResource(resource)
	if name == "" || class == "" && strings.HasPrefix(name, "[") {
		return pubsub.Errorf(pubsub.CodeBadRequest, "invalid capability: %q names no resource", clip(resource))
	}
	return nil
}

func parseOps(resource string, names []string) (OpSet, error) {
	if len(names) == 0 {
		return 0, pubsub.Errorf(pubsub.CodeBadRequest, "invalid capability: no operations for %q", clip(resource))
	}
	var ops OpSet
	for _, name := range names {
		if name == "*" {
			if len(names) > 1 {
				return 0, pubsub.Errorf(pubsub.CodeBadRequest,
					`invalid capability: "*" must be the only operation of %q`, clip(resource))
			}
			return AllOps, nil
		}
		if name == "statistics" {
			name = "stats" // of which it is an older name
		}
		op, known := operations[name]
		if !known {
			return 0, pubsub.Errorf(pubsub.CodeBadRequest,
				"invalid capability: unknown operation %q for %q", clip(name), clip(resource))
		}
		ops |= OpSet(op)
	}
	return ops, nil
}

// clip shortens what a client sent, for use in an error text.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func (c *Capability) sort() {
	slices.SortFunc(c.rights, func(a, b right) int { return strings.Compare(a.resource, b.resource) })
}

// Ops returns all that is allowed on a resource: the union over every pattern that matches
// it. A resource is a channel's name as pubsub.ChannelName.Resource gives it, qualifier in
// front. The name "*" asks for rights on every ordinary channel, which stats and
// enumeration need.
//
// A name that ends in "::$tag", as those of chat rooms and spaces do, is also matched
// without this ending, since capabilities name the room.
func (c *Capability) Ops(resource string) OpSet {
	if c == nil || resource == "" {
		return 0
	}
	class, name := splitResource(resource)
	room := withoutTag(name)
	var ops OpSet
	for i := range c.rights {
		r := &c.rights[i]
		if r.coversClass(class) && (covers(r.name, name) || room != name && covers(r.name, room)) {
			ops |= r.ops
		}
	}
	return ops
}

// Allows reports whether op is allowed on resource.
func (c *Capability) Allows(op Operation, resource string) bool { return c.Ops(resource).Has(op) }

// withoutTag removes a trailing "::$tag", and returns name unchanged if it has none.
func withoutTag(name string) string {
	i := strings.LastIndex(name, "::$")
	if i <= 0 || i+3 == len(name) || strings.IndexByte(name[i+3:], ':') >= 0 {
		return name
	}
	return name[:i]
}

// coversClass reports whether r speaks of resources with the given qualifier: "[*]" speaks
// of all, ordinary channels included, and everything else of its own kind only.
func (r *right) coversClass(class string) bool { return r.class == "*" || r.class == class }

// covers reports whether pattern matches every name that other matches; a name without
// wildcards matches itself. "*" as the last segment stands for one or more segments, as an
// earlier one for exactly one, and as a part of a segment for itself.
func covers(pattern, other string) bool {
	for {
		p, patternRest, patternMore := strings.Cut(pattern, ":")
		if p == "*" && !patternMore {
			return true
		}
		// Where other has a final "*", pattern needs one too, and this is not it: one of
		// the next two comparisons fails.
		o, otherRest, otherMore := strings.Cut(other, ":")
		if p != "*" && p != o || patternMore != otherMore {
			return false
		}
		if !patternMore {
			return true
		}
		pattern, other = patternRest, otherRest
	}
}

// Intersect returns what c and d both allow, as a token's capability is limited by that of
// its key: of each two resources the narrower if one covers the other, with the operations
// that both have. The result may be Empty.
func (c *Capability) Intersect(d *Capability) *Capability {
	both := &Capability{}
	if c == nil || d == nil {
		return both
	}
	merged := make(map[string]OpSet)
	for i := range c.rights {
		for j := range d.rights {
			a, b := &c.rights[i], &d.rights[j]
			var resource string
			switch {
			case a.coversClass(b.class) && covers(a.name, b.name):
				resource = b.resource
			case b.coversClass(a.class) && covers(b.name, a.name):
				resource = a.resource
			default:
				continue
			}
			if ops := a.ops & b.ops; ops != 0 {
				merged[resource] |= ops
			}
		}
	}
	both.rights = make([]right, 0, len(merged))
	for resource, ops := range merged {
		both.rights = append(both.rights, newRight(resource, ops))
	}
	both.sort()
	return both
}

// Empty reports whether c allows nothing at all.
func (c *Capability) Empty() bool { return c == nil || len(c.rights) == 0 }

// Equal reports whether c and d are written the same way in canonical form.
func (c *Capability) Equal(d *Capability) bool {
	if c.Empty() || d.Empty() {
		return c.Empty() == d.Empty()
	}
	return slices.Equal(c.rights, d.rights)
}

// String returns the canonical JSON: no spaces, resources and operations sorted.
func (c *Capability) String() string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	if c != nil {
		for i, r := range c.rights {
			if i > 0 {
				b.WriteByte(',')
			}
			encodeInline(&b, enc, r.resource)
			b.WriteByte(':')
			encodeInline(&b, enc, r.ops.Names())
		}
	}
	b.WriteByte('}')
	return b.String()
}

// encodeInline writes v's JSON without the newline that an Encoder adds. Strings and lists
// of strings always have one.
func encodeInline(b *bytes.Buffer, enc *json.Encoder, v any) {
	if enc.Encode(v) == nil {
		b.Truncate(b.Len() - 1)
	}
}

// LogValue is the canonical JSON.
func (c *Capability) LogValue() slog.Value { return slog.StringValue(c.String()) }
