package session

import (
	"letshare-server/internal/engine"
	"letshare-server/internal/wire"
)

// AppendEntry appends the ProtocolMessage that delivers an entry of a channel to those who
// attached under name, without any frame around it. It appends nothing for an entry that
// clients are not told of. Objects are told in the given layout. Forms of transports are made of it.
func AppendEntry(dst []byte, f wire.Format, name string, layout wire.Layout, e *engine.Entry) []byte {
	x := wire.Entry{Serial: e.Serial, Position: e.Position(), Timestamp: e.Timestamp, Batch: e.Body}
	switch {
	case e.Kind.OfMessages(), e.Kind >= engine.KindMeta:
		return wire.AppendMessagePM(dst, f, name, x)
	case e.Kind == engine.KindPresence:
		return wire.AppendPresencePM(dst, f, name, x)
	case e.Kind == engine.KindAnnotation:
		return wire.AppendAnnotationPM(dst, f, name, x)
	case e.Kind == engine.KindObject:
		return wire.AppendObjectPM(dst, f, name, x, layout)
	}
	return dst
}
