package hub

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

func FuzzVersionRecord(f *testing.F) {
	v := &pubsub.Version{}
	f.Add(encodeVersion(&pubsub.Message{Version: v}, nil))
	f.Add(encodeVersion(&pubsub.Message{ID: "a:0", Name: "n", Data: pubsub.Text(""), Encoding: "json", ClientID: "c", ConnectionID: "k", Timestamp: -5,
		Extras: []byte(`{"a":1}`), Action: pubsub.MessageAppend, Version: &pubsub.Version{ClientID: "d", Description: "w", Metadata: []byte(`{}`)}}, nil))
	f.Add(encodeVersion(&pubsub.Message{EmptyName: true, Data: pubsub.Binary(bytes.Repeat([]byte{7}, 300)), Version: v}, []byte{8}))
	f.Add([]byte{1, 2, 2, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, value []byte) {
		r := &engine.Record{RecordKey: versionKey("serial"), Value: value, Serial: "s", Timestamp: 5}
		m, err := decodeVersion(r)
		if err != nil {
			return
		}
		if m.Serial != "serial" || m.Version.Serial != "s:000" || m.Version.Timestamp != 5 {
			t.Errorf("%+v, %+v", m, m.Version)
		}
		r.Value = encodeVersion(m, nil)
		again, err := decodeVersion(r)
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

func listOf(clients ...any) (l clientList) {
	for i := 0; i < len(clients); i += 2 {
		l.append(clients[i].(string), uint64(clients[i+1].(int)))
	}
	return l
}

func FuzzSummaryRecord(f *testing.F) {
	some := summary{types: []summaryType{
		{kind: "x:total.v1", names: []summaryName{{total: 3, unidentified: 3}}},
		{kind: "x:multiple.v1", names: []summaryName{{name: "\"<\u2028", total: 9, unidentified: 2, clients: 2, listed: listOf("a", 5, "b\xff", 2)}}},
		{kind: "x:flag.v1", names: []summaryName{{total: 1, clients: 1, listed: listOf("a", 1)}}},
	}}
	f.Add(some.encode())
	f.Add(new(summary).encode())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, value []byte) {
		s, err := decodeSummary(value)
		if err != nil {
			return
		}
		again, err := decodeSummary(s.encode())
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
		for i := range s.types {
			for k := range s.types[i].names {
				l := &s.types[i].names[k].listed
				l.n, l.quoted = 0, 0
				for clientID := range l.all() {
					l.n++
					l.quoted += quotedSize(string(clientID))
				}
			}
		}
		if s.tidy(); !json.Valid(s.json()) || len(s.json()) > s.size()+2 {
			t.Errorf("%+v is %s, of %d bytes", s, s.json(), s.size())
		}
		share := summaryType{}
		s.apply(&pubsub.Annotation{Type: "x:unique.v1", Name: "n", ClientID: "a"}, &share)
	})
}

func TestRecordsOfAnotherFormatAreNotRead(t *testing.T) {
	version, sum := encodeVersion(&pubsub.Message{Version: &pubsub.Version{}}, nil), new(summary).encode()
	version[0]++
	sum[0]++
	if _, err := decodeVersion(&engine.Record{Value: version}); err == nil {
		t.Error("a version of an unknown format was read")
	}
	if _, err := decodeSummary(sum); err == nil {
		t.Error("a summary of an unknown format was read")
	}
}
