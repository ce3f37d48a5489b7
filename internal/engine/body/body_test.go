package body

import (
	"bytes"
	"reflect"
	"testing"

	"letshare-server/internal/pubsub"
)

func examples() []*pubsub.Batch {
	three := int64(3)
	return []*pubsub.Batch{
		{},
		{ID: "b", ConnectionID: "c", ClientID: "me", Ephemeral: true},
		{ID: "b", Messages: []*pubsub.Message{
			{},
			{EmptyName: true, Data: pubsub.Text(""), Extras: []byte{}, Summary: []byte{}},
			{
				ID: "b:0", Name: "name", Data: pubsub.Text("héllo"), Encoding: "json", ClientID: "me", ConnectionID: "c",
				Timestamp: -5, Extras: []byte(`{"a":1}`), Action: pubsub.MessageSummary, Serial: "s:000",
				Version: &pubsub.Version{Serial: "v", Timestamp: 7, ClientID: "other", Description: "why", Metadata: []byte(`{}`)},
				Summary: []byte(`{"reaction":{}}`),
			},
			{Data: pubsub.Binary([]byte{0, 1, 255}), Version: &pubsub.Version{}},
		}},
		{ID: "b", Presence: []*pubsub.PresenceMessage{
			{}, {
				ID: "c:0:0", Action: pubsub.PresenceUpdate, ClientID: "me", ConnectionID: "c", Data: pubsub.Binary(nil), Encoding: "cipher",
				Timestamp: 1 << 50, Extras: []byte("{}"),
			},
		}},
		{ID: "b", Annotations: []*pubsub.Annotation{
			{}, {
				ID: "a", Action: pubsub.AnnotationDelete, Type: "reaction:sum.v1", Name: "like", ClientID: "me", ConnectionID: "c", Count: &three,
				Data: pubsub.Text("x"), Encoding: "e", MessageSerial: "m", Serial: "s", Timestamp: 9, Extras: []byte("{}"),
			},
		}},
		{ID: "b", Objects: []*pubsub.ObjectMessage{
			{Operation: &pubsub.ObjectOperation{}},
			{Operation: &pubsub.ObjectOperation{Payload: true, Entries: []pubsub.ObjectEntry{
				{Key: "a", Data: pubsub.ObjectData{Type: pubsub.ObjectValue, Text: "root"}},
				{Key: "", Data: pubsub.ObjectData{Type: pubsub.StringValue}},
				{Key: "b", Data: pubsub.ObjectData{Type: pubsub.BytesValue, Text: "\xff"}},
				{Key: "c", Data: pubsub.ObjectData{Type: pubsub.NumberValue, Number: -1.5}},
				{Key: "d", Data: pubsub.ObjectData{Type: pubsub.BooleanValue, True: true}},
			}}},
			{
				ID: "o", ClientID: "me", ConnectionID: "c", Timestamp: 9, Extras: []byte("{}"), SiteCode: "s1",
				Operation: &pubsub.ObjectOperation{
					Action: pubsub.CounterInc, ObjectID: "root", Payload: true, Key: "k", Number: 2,
					Value:   pubsub.ObjectData{Type: pubsub.JSONValue, Text: "[]"},
					Entries: []pubsub.ObjectEntry{{Key: "e", Data: pubsub.ObjectData{Type: pubsub.StringValue, Text: "v"}}},
				},
			},
		}},
	}
}

func TestABodyReadsBackAsItWasWritten(t *testing.T) {
	for i, want := range examples() {
		got, err := Decode(Append([]byte("before"), want)[len("before"):])
		if err != nil {
			t.Fatalf("example %d: %v", i, err)
		}
		if len(want.Presence) > 1 {
			want.Presence[1].Data.Bytes = []byte{} // nothing is written of the difference
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("example %d: got %+v, want %+v", i, got, want)
		}
	}
}

// TestEveryFieldIsWritten fails when a field is added to one of the types and not here.
func TestEveryFieldIsWritten(t *testing.T) {
	for _, b := range examples()[1:] {
		if len(b.Messages) > 0 {
			b.Messages = b.Messages[2:3]
			b.Messages[0].EmptyName = true
		} else if len(b.Presence) > 0 {
			b.Presence = b.Presence[1:]
			b.Presence[0].Data = pubsub.Text("x")
		} else if len(b.Annotations) > 0 {
			b.Annotations = b.Annotations[1:]
		} else if len(b.Objects) > 0 {
			b.Objects = b.Objects[2:]
			// The rest of these is given by the place in the order, or for nobody to see.
			expectNoZero(t, b.Objects[0].Operation, "Semantics", "InitialValue", "Nonce")
		}
		for _, item := range [][]any{all(b.Messages), all(b.Presence), all(b.Annotations)} {
			for _, it := range item {
				expectNoZero(t, it, "ConnectionKey")
			}
		}
		for _, m := range b.Messages {
			expectNoZero(t, m.Version)
		}
	}
	for _, b := range examples() {
		for _, m := range b.Objects[min(len(b.Objects), 2):] {
			expectNoZero(t, m, "State", "Serial", "SerialTimestamp")
		}
	}
	expectNoZero(t, examples()[1], "Messages", "Presence", "Annotations", "Objects")
}

func all[T any](items []T) (out []any) {
	for _, it := range items {
		out = append(out, it)
	}
	return out
}

func expectNoZero(t *testing.T, item any, except ...string) {
	t.Helper()
	v := reflect.ValueOf(item).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		skip := false
		for _, e := range except {
			skip = skip || e == name
		}
		if !skip && v.Field(i).IsZero() {
			t.Errorf("%T: the example has no %s: is it written?", item, name)
		}
	}
}

func TestWhatIsNoBodyIsRefused(t *testing.T) {
	whole := Append(nil, examples()[2])
	for n := range whole {
		if _, err := Decode(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", n, len(whole))
		}
	}
	for what, b := range map[string][]byte{
		"a later version":    {2, 0},
		"an unknown field":   {1, 99, 0},
		"an unknown kind":    {1, 0x90, 0, 0},
		"a field of an item": {1, kindMessage, 99, 0, 0},
		"bytes after it":     {1, 0, 0},
		"a huge length":      {1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		if got, err := Decode(b); err == nil {
			t.Errorf("%s: got %+v", what, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range examples() {
		f.Add(Append(nil, b))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := Decode(in)
		if err != nil {
			return
		}
		out := Append(nil, b)
		again, err := Decode(out)
		if err != nil {
			t.Fatalf("what was written anew: %v", err)
		}
		if !bytes.Equal(Append(nil, again), out) {
			t.Fatal("it reads back as something else")
		}
	})
}
