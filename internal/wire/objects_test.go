package wire_test

import (
	"reflect"
	"testing"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// objectFrame is an OBJECT with each kind of operation, as it is written in both layouts. What of the
// old one is not there is as in the new one.
var objectFrame = []struct{ now, before string }{
	{`{"operation":{"action":0,"objectId":"map:a@1","mapCreate":{"semantics":0,"entries":{"k":{"data":{"string":"v"}}}}}}`,
		`{"operation":{"action":0,"objectId":"map:a@1","map":{"semantics":0,"entries":{"k":{"data":{"string":"v"}}}}}}`},
	{`{"clientId":"me","operation":{"action":1,"objectId":"root","mapSet":{"key":"k","value":{"json":"[1]"}}},"serial":"s:000","serialTimestamp":5,"siteCode":"s1"}`,
		`{"clientId":"me","operation":{"action":1,"objectId":"root","mapOp":{"key":"k","data":{"string":"[1]","encoding":"json"}}},"serial":"s:000","serialTimestamp":5,"siteCode":"s1"}`},
	{`{"operation":{"action":2,"objectId":"root","mapRemove":{"key":""}}}`, `{"operation":{"action":2,"objectId":"root","mapOp":{"key":""}}}`},
	{`{"operation":{"action":3,"objectId":"counter:a@1","counterCreate":{"count":-1.5}}}`, `{"operation":{"action":3,"objectId":"counter:a@1","counter":{"count":-1.5}}}`},
	{`{"extras":{"headers":{}},"operation":{"action":4,"objectId":"counter:a@1","counterInc":{"number":0}}}`,
		`{"extras":{"headers":{}},"operation":{"action":4,"objectId":"counter:a@1","counterOp":{"amount":0}}}`},
	{`{"operation":{"action":5,"objectId":"counter:a@1","objectDelete":{}}}`, `{"operation":{"action":5,"objectId":"counter:a@1"}}`},
	{`{"operation":{"action":6,"objectId":"root","mapClear":{}}}`, ``},
	{`{"operation":{"action":0,"objectId":"map:a@1","mapCreateWithObjectId":{"initialValue":"{\"entries\":{\"k\":{\"data\":{\"boolean\":true}}}}","nonce":"n"}}}`,
		`{"operation":{"action":0,"objectId":"map:a@1","initialValue":"{\"entries\":{\"k\":{\"data\":{\"boolean\":true}}}}","nonce":"n"}}`},
	{`{"operation":{"action":3,"objectId":"counter:a@1","counterCreateWithObjectId":{"initialValue":"{\"count\":3}","nonce":"n"}}}`,
		`{"operation":{"action":3,"objectId":"counter:a@1","initialValue":"{\"count\":3}","nonce":"n"}}`},
	{`{"object":{"objectId":"root","siteTimeserials":{"s1":"x"},"tombstone":false,"map":{"semantics":0,"entries":{"k":{"timeserial":"x","data":{"bytes":"/w=="}},"l":{"tombstone":true,"serialTimestamp":7,"timeserial":"y"}},"clearTimeserial":"c"}}}`, ``},
	{`{"object":{"objectId":"map:a@1","siteTimeserials":{},"tombstone":true,"createOp":{"action":0,"objectId":"map:a@1","mapCreate":{"semantics":0,"entries":{}}},"map":{"semantics":0,"entries":{}}},"serialTimestamp":9}`,
		`{"object":{"objectId":"map:a@1","siteTimeserials":{},"tombstone":true,"createOp":{"action":0,"objectId":"map:a@1","map":{"semantics":0,"entries":{}}},"map":{"semantics":0,"entries":{}}},"serialTimestamp":9}`},
	{`{"object":{"objectId":"counter:a@1","siteTimeserials":{},"tombstone":false,"createOp":{"action":3,"objectId":"counter:a@1","counterCreate":{"count":0}},"counter":{"count":3}}}`,
		`{"object":{"objectId":"counter:a@1","siteTimeserials":{},"tombstone":false,"createOp":{"action":3,"objectId":"counter:a@1","counter":{"count":0}},"counter":{"count":3}}}`},
}

func TestObjectMessagesAreWrittenAndReadInBothLayouts(t *testing.T) {
	for _, c := range objectFrame {
		if c.before == "" {
			c.before = c.now
		}
		read := func(f wire.Format, b []byte) *wire.ProtocolMessage {
			pm := decode(t, f, b)
			if pm.ItemErr != nil {
				t.Fatalf("%s: %v", b, pm.ItemErr)
			}
			return pm
		}
		pm := read(wire.JSON, []byte(`{"action":19,"state":[`+c.now+`]}`))
		for layout, want := range map[wire.Layout]string{wire.NewObjects: c.now, wire.OldObjects: c.before} {
			pm.Layout = layout
			if got := string(wire.Append(nil, wire.JSON, pm)); got != `{"action":19,"state":[`+want+`]}` {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
				if got := read(f, wire.Append(nil, f, pm)); !reflect.DeepEqual(got.State, pm.State) {
					t.Errorf("%s in %v: got %s, want %s", want, f, dump(got.State), dump(pm.State))
				}
			}
		}
	}
}

// (RTO11, RTO12)
func TestAnInitialValueIsReadInEitherForm(t *testing.T) {
	for _, text := range []string{`{\"semantics\":0,\"entries\":{\"k\":{\"data\":{\"number\":1}}}}`, `{\"map\":{\"semantics\":0,\"entries\":{\"k\":{\"data\":{\"number\":1}}}}}`} {
		pm := decodeJSON(t, `{"action":19,"state":[{"operation":{"objectId":"map:a@1","initialValue":"`+text+`","nonce":"n"}}]}`)
		want := []pubsub.ObjectEntry{{Key: "k", Data: pubsub.ObjectData{Type: pubsub.NumberValue, Number: 1}}}
		if op := pm.State[0].Operation; pm.ItemErr != nil || !reflect.DeepEqual(op.Entries, want) || !op.Payload || op.Nonce != "n" {
			t.Errorf("%s: %s, %v", text, dump(op), pm.ItemErr)
		}
	}
	for _, text := range []string{`{\"count\":7}`, `{\"counter\":{\"count\":7}}`} {
		pm := decodeJSON(t, `{"action":19,"state":[{"operation":{"action":3,"objectId":"counter:a@1","counterCreateWithObjectId":{"initialValue":"`+text+`"}}}]}`)
		if op := pm.State[0].Operation; pm.ItemErr != nil || op.Number != 7 {
			t.Errorf("%s: %s, %v", text, dump(op), pm.ItemErr)
		}
	}
}

func TestWhatIsNoObjectMessageIsAnItemError(t *testing.T) {
	for _, item := range []string{
		`1`, `{"operation":[]}`, `{"operation":{"action":"x"}}`, `{"operation":{"objectId":1}}`, `{"operation":{"mapSet":1}}`,
		`{"operation":{"action":1,"mapSet":{"key":1}}}`, `{"operation":{"action":1,"mapSet":{"value":1}}}`,
		`{"operation":{"action":1,"mapSet":{"value":{"number":"1"}}}}`, `{"operation":{"action":1,"mapSet":{"value":{"number":1e400}}}}`,
		`{"operation":{"action":1,"mapSet":{"value":{"boolean":1}}}}`, `{"operation":{"action":1,"mapSet":{"value":{"bytes":"%"}}}}`,
		`{"operation":{"action":1,"mapSet":{"value":{"bytes":1}}}}`, `{"operation":{"action":1,"mapSet":{"value":{"json":"{"}}}}`,
		`{"operation":{"action":1,"mapSet":{"value":{"string":"a","number":1}}}}`, `{"operation":{"mapCreate":{"entries":[]}}}`,
		`{"operation":{"mapCreate":{"entries":{"k":1}}}}`, `{"operation":{"mapCreateWithObjectId":{"initialValue":"x"}}}`,
		`{"operation":{"mapCreateWithObjectId":{"initialValue":"[]"}}}`, `{"operation":{"initialValue":"{\"entries\":1}"}}`,
	} {
		pm := decodeJSON(t, `{"action":19,"channel":"c","msgSerial":3,"state":[`+item+`]}`)
		if pm.ItemErr == nil || pm.MsgSerial != 3 {
			t.Errorf("%s is accepted", item)
		}
	}
}

// RTLM23: clients resolve what a map begins with by the serials of its entries.
func TestABroadcastOperationHasItsSerialEverywhere(t *testing.T) {
	batch := &pubsub.Batch{ID: "c:1", ConnectionID: "c", Objects: []*pubsub.ObjectMessage{
		{ClientID: "me", SiteCode: "s1", Operation: &pubsub.ObjectOperation{Action: pubsub.CounterInc, ObjectID: "counter:a@1", Payload: true, Number: 2}},
		{SiteCode: "s1", Operation: &pubsub.ObjectOperation{ObjectID: "map:a@1", Payload: true, Entries: []pubsub.ObjectEntry{
			{Key: "k", Data: pubsub.ObjectData{Type: pubsub.ObjectValue, Text: "counter:a@1"}},
		}}},
	}}
	x := wire.Entry{Serial: "S", Position: "S", Timestamp: 5, Batch: batch}
	want := `{"action":19,"channel":"ch","channelSerial":"S","id":"c:1","connectionId":"c","timestamp":5,"state":[` +
		`{"clientId":"me","operation":{"action":4,"objectId":"counter:a@1","counterInc":{"number":2}},"serial":"S:000","serialTimestamp":5,"siteCode":"s1"},` +
		`{"operation":{"action":0,"objectId":"map:a@1","mapCreate":{"semantics":0,"entries":{"k":{"timeserial":"S:001","data":{"objectId":"counter:a@1"}}}}},"serial":"S:001","serialTimestamp":5,"siteCode":"s1"}]}`
	if got := string(wire.AppendObjectPM(nil, wire.JSON, "ch", x, wire.NewObjects)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	packed := decode(t, wire.MsgPack, wire.AppendObjectPM(nil, wire.MsgPack, "ch", x, wire.OldObjects))
	if op := packed.State[1].Operation; op.Entries[0].Serial != "S:001" || packed.State[0].Operation.Number != 2 {
		t.Errorf("got %s", dump(packed))
	}
}

func TestObjectRequestsNameOneOperation(t *testing.T) {
	list, err := wire.DecodeObjectRequests(wire.JSON, []byte(`[{"id":"i:0","path":"","mapSet":{"key":"k","value":{"bytes":"/w=="}}},{"objectId":"root","mapRemove":{"key":"k"}},`+
		`{"path":"a","counterCreate":{}},{"mapCreate":{"semantics":"LWW"}},{"objectId":"counter:a@1","counterInc":{"number":2}},{"counterCreateWithObjectId":{"initialValue":"{\"count\":1}","nonce":"n"}}]`))
	if err != nil {
		t.Fatal(err)
	}
	var got []pubsub.ObjectAction
	for _, r := range list {
		got = append(got, r.Operation.Action)
	}
	if want := []pubsub.ObjectAction{pubsub.MapSet, pubsub.MapRemove, pubsub.CounterCreate, pubsub.MapCreate, pubsub.CounterInc, pubsub.CounterCreate}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if r := list[0]; r.ID != "i:0" || !r.HasPath || r.ObjectID != "" || r.Operation.Value.Text != "\xff" || list[1].HasPath {
		t.Errorf("got %s", dump(list))
	}
	for _, body := range []string{`{}`, `[1]`, `{"mapClear":{}}`, `{"mapSet":{"key":"k"},"mapRemove":{"key":"k"}}`, `{"path":1,"mapRemove":{"key":"k"}}`} {
		if list, err := wire.DecodeObjectRequests(wire.JSON, []byte(body)); err == nil {
			t.Errorf("%s is accepted: %s", body, dump(list))
		}
	}
}

func TestObjectsAreShownWithAndWithoutTheirTypes(t *testing.T) {
	v := &pubsub.ObjectView{ID: "root", IsMap: true, Entries: []pubsub.ObjectViewEntry{
		{Key: "b", Value: &pubsub.ObjectView{Data: pubsub.ObjectData{Type: pubsub.BytesValue, Text: "\xff"}}},
		{Key: "c", Value: &pubsub.ObjectView{ID: "counter:a@1", Count: 2.5}},
		{Key: "j", Value: &pubsub.ObjectView{Data: pubsub.ObjectData{Type: pubsub.JSONValue, Text: "[1]"}}},
		{Key: "r", Value: &pubsub.ObjectView{Data: pubsub.ObjectData{Type: pubsub.ObjectValue, Text: "root"}}},
		{Key: "t", Value: &pubsub.ObjectView{Data: pubsub.ObjectData{Type: pubsub.BooleanValue, True: true}}},
	}}
	for compact, want := range map[bool]string{
		true: `{"b":"/w==","c":2.5,"j":"[1]","r":{"objectId":"root"},"t":true}`,
		false: `{"objectId":"root","map":{"semantics":"LWW","entries":{"b":{"data":{"bytes":"/w=="}},"c":{"data":{"objectId":"counter:a@1","counter":{"data":{"number":2.5}}}},` +
			`"j":{"data":{"json":"[1]"}},"r":{"data":{"objectId":"root"}},"t":{"data":{"boolean":true}}}}}`,
	} {
		if got := string(wire.AppendObjectView(nil, wire.JSON, v, compact)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if got := unpack(t, wire.AppendObjectView(nil, wire.MsgPack, v, true)).(object)["b"]; !reflect.DeepEqual(got, []byte{0xff}) {
		t.Errorf("bytes: %v", got)
	}
}
