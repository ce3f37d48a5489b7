package hub

import (
	"bytes"
	"reflect"
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

func FuzzMemberRecord(f *testing.F) {
	f.Add("conn:a", encodeMember(&pubsub.PresenceMessage{ID: "conn:0:0"}))
	f.Add("conn:a:b", encodeMember(&pubsub.PresenceMessage{ID: "conn:1:2", Data: pubsub.Text(""), Encoding: "json", Extras: []byte(`{"a":1}`)}))
	f.Add("conn", encodeMember(&pubsub.PresenceMessage{Data: pubsub.Binary(bytes.Repeat([]byte{7}, 300))}))
	f.Add("conn:x", []byte{1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r := &engine.Record{RecordKey: engine.RecordKey{Space: engine.RecordPresence, Key: key}, Value: value, Timestamp: 5}
		m, err := decodeMember(r)
		if err != nil {
			return
		}
		if memberKey(m.ConnectionID, m.ClientID).Key != key {
			t.Errorf("key %q became %q and %q", key, m.ConnectionID, m.ClientID)
		}
		r.Value = encodeMember(m)
		again, err := decodeMember(r)
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

func TestMembersOfAnotherVersionAreNotRead(t *testing.T) {
	value := encodeMember(&pubsub.PresenceMessage{ID: "conn:0:0"})
	value[0]++
	if _, err := decodeMember(&engine.Record{RecordKey: memberKey("conn", "a"), Value: value}); err == nil {
		t.Error("a value of an unknown version was read")
	}
}
