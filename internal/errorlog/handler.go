package errorlog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// The bounds of one entry, so that the queue is bounded in bytes as well.
const (
	maxTextBytes  = 2 << 10 // of the message and of each value
	maxEntryBytes = 16 << 10
)

// Enabled reports whether records of a level are kept: warnings and worse are.
func (l *Log) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle queues a record. It does not wait for the disk and returns nil.
func (l *Log) Handle(_ context.Context, r slog.Record) error {
	l.put(encode(r, nil))
	return nil
}

// WithAttrs returns a handler that adds attrs to every record.
func (l *Log) WithAttrs(attrs []slog.Attr) slog.Handler { return (&scoped{log: l}).WithAttrs(attrs) }

// WithGroup returns a handler that puts the attributes of every record under name.
func (l *Log) WithGroup(name string) slog.Handler { return (&scoped{log: l}).WithGroup(name) }

// scoped is a Log with attributes and groups. It is immutable.
type scoped struct {
	log   *Log
	scope []scopeStep
}

// scopeStep is what one WithAttrs or WithGroup added.
type scopeStep struct {
	group string // if not empty, a group that encloses all that follows
	attrs []slog.Attr
}

func (s *scoped) Enabled(ctx context.Context, level slog.Level) bool {
	return s.log.Enabled(ctx, level)
}

func (s *scoped) Handle(_ context.Context, r slog.Record) error {
	s.log.put(encode(r, s.scope))
	return nil
}

func (s *scoped) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return s
	}
	return &scoped{log: s.log, scope: append(slices.Clip(s.scope), scopeStep{attrs: attrs})}
}

func (s *scoped) WithGroup(name string) slog.Handler {
	if name == "" {
		return s
	}
	return &scoped{log: s.log, scope: append(slices.Clip(s.scope), scopeStep{group: name})}
}

// entry is one line of the file.
type entry struct {
	Timestamp string         `json:"timestamp"`
	Level     string         `json:"level"`
	Message   string         `json:"message"`
	Fields    map[string]any `json:"fields"`
}

// encode returns the line for a record, with its newline.
func encode(r slog.Record, scope []scopeStep) []byte {
	t := r.Time
	if t.IsZero() {
		t = time.Now()
	}
	e := entry{
		Timestamp: t.UTC().Format(time.RFC3339Nano),
		Level:     levelName(r.Level),
		Message:   clip(r.Message),
		Fields:    map[string]any{},
	}
	into := e.Fields
	for _, step := range scope {
		if step.group != "" {
			into = subgroup(into, step.group)
		}
		for _, a := range step.attrs {
			add(into, a)
		}
	}
	r.Attrs(func(a slog.Attr) bool {
		add(into, a)
		return true
	})
	line := marshal(e)
	if len(line) > maxEntryBytes {
		e.Fields = map[string]any{"truncated": fmt.Sprintf("fields of %d bytes were left out", len(line))}
		line = marshal(e)
	}
	return line
}

func marshal(e entry) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		// Only what encoding/json cannot write gets here, and value leaves no such thing.
		b.Reset()
		e.Fields = map[string]any{"unreadable": err.Error()}
		_ = enc.Encode(e)
	}
	return b.Bytes()
}

func levelName(level slog.Level) string {
	if level >= slog.LevelError {
		return "error"
	}
	return "warning"
}

// subgroup returns the object of a group, which it makes if need be.
func subgroup(fields map[string]any, name string) map[string]any {
	group, is := fields[name].(map[string]any)
	if !is {
		group = map[string]any{}
		fields[name] = group
	}
	return group
}

func add(fields map[string]any, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		attrs := v.Group()
		if len(attrs) == 0 {
			return
		}
		if a.Key != "" {
			fields = subgroup(fields, a.Key)
		}
		for _, a := range attrs {
			add(fields, a)
		}
		return
	}
	if a.Key != "" || v.Any() != nil {
		fields[a.Key] = value(v)
	}
}

// value returns what stands for v in JSON: numbers and booleans as themselves, and
// everything else as text, unless it knows how to become JSON.
func value(v slog.Value) (result any) {
	defer func() {
		// A nil pointer with methods must not end the process that logs it.
		if p := recover(); p != nil {
			result = clip(fmt.Sprintf("unprintable: %v", p))
		}
	}()
	switch v.Kind() {
	case slog.KindString:
		return clip(v.String())
	case slog.KindBool, slog.KindInt64, slog.KindUint64:
		return v.Any()
	case slog.KindFloat64, slog.KindDuration:
		return v.String()
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	}
	switch x := v.Any().(type) {
	case nil:
		return nil
	case error:
		return clip(x.Error())
	case fmt.Stringer:
		return clip(x.String())
	default:
		b, err := json.Marshal(x)
		if err != nil || len(b) > maxTextBytes {
			return clip(fmt.Sprint(x))
		}
		return json.RawMessage(b)
	}
}

func clip(s string) string {
	if len(s) <= maxTextBytes {
		return s
	}
	return strings.ToValidUTF8(s[:maxTextBytes], "") + "…"
}

// Logger returns a logger that writes to both: stdout, which has a level of its own, and l,
// which keeps warnings and worse whatever that level is.
func Logger(stdout slog.Handler, l *Log) *slog.Logger {
	return slog.New(slog.NewMultiHandler(stdout, l))
}
