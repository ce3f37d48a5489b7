package pubsub

import "strings"

// Mode is a set of things that an attachment may do. The bits are the wire's flags (TR3q-z).
type Mode uint32

// The modes of an attachment.
const (
	ModePresence            Mode = 1 << 16
	ModePublish             Mode = 1 << 17
	ModeSubscribe           Mode = 1 << 18
	ModePresenceSubscribe   Mode = 1 << 19
	ModeAnnotationPublish   Mode = 1 << 21
	ModeAnnotationSubscribe Mode = 1 << 22
	ModeObjectSubscribe     Mode = 1 << 24
	ModeObjectPublish       Mode = 1 << 25

	// AllModes are the bits of a flags field that are modes.
	AllModes = ModePresence | ModePublish | ModeSubscribe | ModePresenceSubscribe |
		ModeAnnotationPublish | ModeAnnotationSubscribe | ModeObjectSubscribe | ModeObjectPublish

	// DefaultModes are granted to an attachment that asks for none in particular.
	DefaultModes = ModePresence | ModePublish | ModeSubscribe | ModePresenceSubscribe | ModeAnnotationPublish
)

var modeNames = map[string]Mode{
	"presence":             ModePresence,
	"publish":              ModePublish,
	"subscribe":            ModeSubscribe,
	"presence_subscribe":   ModePresenceSubscribe,
	"annotation_publish":   ModeAnnotationPublish,
	"annotation_subscribe": ModeAnnotationSubscribe,
	"object_subscribe":     ModeObjectSubscribe,
	"object_publish":       ModeObjectPublish,
}

// ParseModes reads the "modes" channel parameter: comma-separated names. Unknown names are
// ignored, as unknown flags are.
func ParseModes(s string) Mode {
	var m Mode
	for name := range strings.SplitSeq(s, ",") {
		m |= modeNames[strings.ToLower(strings.TrimSpace(name))]
	}
	return m
}
