package wire_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

func TestADeliveryIsTheOneOfTheHandbook(t *testing.T) {
	b := &pubsub.Batch{ID: "cAbC12dE:0", ConnectionID: "cAbC12dE", Messages: []*pubsub.Message{{Name: "n", Data: pubsub.Text("d")}}}
	got := wire.AppendMessagePM(nil, wire.JSON, "foo", logged("01726585978700-000000@e7k2", b, 1726585978700))
	want := `{"action":15,"channel":"foo","channelSerial":"01726585978700-000000@e7k2","id":"cAbC12dE:0","connectionId":"cAbC12dE","timestamp":1726585978700,"messages":[{"name":"n","data":"d","action":0,"serial":"01726585978700-000000@e7k2:000","version":{"serial":"01726585978700-000000@e7k2:000","timestamp":1726585978700}}]}`
	if string(got) != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// deliveries are entries and what each of their items must be for its receiver.
func deliveries() (batch *pubsub.Batch, complete []*pubsub.Message) {
	item := func(i int) string { return pubsub.Serial(entrySerial).Item(i) }
	batch = &pubsub.Batch{ID: "cAbC12dE:7", ConnectionID: "cAbC12dE", Messages: []*pubsub.Message{
		{Name: "plain", Data: pubsub.Text("x"), ClientID: "alice"},
		{ID: "cAbC12dE:7:1", ConnectionID: "cAbC12dE", Timestamp: entryTime, Data: pubsub.Binary([]byte{1})},
		{ID: "own", ConnectionID: "other", Timestamp: 5, Extras: []byte(`{"headers":{"k":"v"}}`)},
		{Action: pubsub.MessageUpdate, Serial: "old:000", Timestamp: 5, Version: &pubsub.Version{ClientID: "op", Description: "why"}},
		{Action: pubsub.MessageAppend, Serial: "old:000", Timestamp: 5, Version: &pubsub.Version{Serial: "new", Timestamp: 6}},
		{Action: pubsub.MessageSummary, Serial: "old:000", Summary: []byte(`{"r":{"total":1}}`)},
		{}, {}, {}, {}, {},
	}}
	version := func(i int) *pubsub.Version { return &pubsub.Version{Serial: item(i), Timestamp: entryTime} }
	complete = []*pubsub.Message{
		{ID: "cAbC12dE:7:0", ConnectionID: "cAbC12dE", Timestamp: entryTime, Name: "plain", Data: pubsub.Text("x"), ClientID: "alice", Serial: item(0), Version: version(0)},
		{ID: "cAbC12dE:7:1", ConnectionID: "cAbC12dE", Timestamp: entryTime, Data: pubsub.Binary([]byte{1}), Serial: item(1), Version: version(1)},
		{ID: "own", ConnectionID: "other", Timestamp: 5, Extras: []byte(`{"headers":{"k":"v"}}`), Serial: item(2), Version: &pubsub.Version{Serial: item(2), Timestamp: 5}},
		{ID: "cAbC12dE:7:3", ConnectionID: "cAbC12dE", Timestamp: 5, Action: pubsub.MessageUpdate, Serial: "old:000",
			Version: &pubsub.Version{Serial: item(3), Timestamp: entryTime, ClientID: "op", Description: "why"}},
		{ID: "cAbC12dE:7:4", ConnectionID: "cAbC12dE", Timestamp: 5, Action: pubsub.MessageAppend, Serial: "old:000", Version: &pubsub.Version{Serial: "new", Timestamp: 6}},
		{ID: "cAbC12dE:7:5", ConnectionID: "cAbC12dE", Timestamp: entryTime, Action: pubsub.MessageSummary, Serial: "old:000", Summary: []byte(`{"r":{"total":1}}`),
			Version: &pubsub.Version{Serial: "old:000", Timestamp: entryTime}},
	}
	for i := len(complete); i < len(batch.Messages); i++ {
		complete = append(complete, &pubsub.Message{ID: fmt.Sprint("cAbC12dE:7:", i), ConnectionID: "cAbC12dE", Timestamp: entryTime, Serial: item(i), Version: version(i)})
	}
	return batch, complete
}

// TM2a, TM2c, TM2f, TM2s1-2
func TestReceiversOfADeliverySeeCompleteMessages(t *testing.T) {
	batch, want := deliveries()
	before := dump(batch)
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		pm := decode(t, f, wire.AppendMessagePM(nil, f, "foo", logged(entrySerial, batch, entryTime)))
		if pm.Action != wire.ActionMessage || pm.Channel != "foo" || pm.ChannelSerial != entrySerial || pm.ItemErr != nil {
			t.Errorf("%s: %s", f, dump(pm))
		}
		if m := pm.Messages[1]; m.ID != "" || m.ConnectionID != "" || m.Timestamp != 0 {
			t.Errorf("%s: an item repeats its frame: %+v", f, m)
		}
		pm.Inherit()
		if !reflect.DeepEqual(pm.Messages, want) {
			t.Errorf("%s:\n got %s\nwant %s", f, dump(pm.Messages), dump(want))
		}
	}
	if dump(batch) != before {
		t.Error("the batch was changed")
	}
}

func TestABatchWithoutAnIDKeepsEachMessagesIdentity(t *testing.T) {
	batch, want := deliveries()
	for i, m := range batch.Messages { // as of a batch whose first messages were left out
		m.ID, m.Serial = pubsub.ItemID(batch.ID, i+3), pubsub.Serial(entrySerial).Item(i+3)
		want[i].ID, want[i].Serial = m.ID, m.Serial
		if m.Version == nil {
			want[i].Version.Serial = m.Serial
		}
	}
	batch.ID = ""
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		pm := decode(t, f, wire.AppendMessagePM(nil, f, "foo", logged(entrySerial, batch, entryTime)))
		if pm.ID != "" || pm.ConnectionID != "" || pm.Timestamp != 0 || pm.ChannelSerial != entrySerial {
			t.Errorf("%s: the frame speaks for its items: %s", f, dump(pm))
		}
		if !reflect.DeepEqual(pm.Messages, want) {
			t.Errorf("%s: %s", f, dump(pm.Messages))
		}
	}
}

func TestASingleMessageOfAnEntryIsComplete(t *testing.T) {
	batch, want := deliveries()
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		for i := range batch.Messages {
			got, err := wire.DecodeMessages(f, wire.AppendEntryMessage(nil, f, logged(entrySerial, batch, entryTime), i))
			if err != nil || !reflect.DeepEqual(got[0], want[i]) {
				t.Errorf("%s: %s %v", f, dump(got), err)
			}
		}
	}
}

func TestASinglePresenceMessageOfAnEntryIsComplete(t *testing.T) {
	b := &pubsub.Batch{ID: "c:1", ConnectionID: "c", Presence: []*pubsub.PresenceMessage{
		{Action: pubsub.PresenceEnter, ClientID: "a"},
		{Action: pubsub.PresenceLeave, ClientID: "b", ConnectionID: "d", ID: "s-leave:1:0", Timestamp: 4, Data: pubsub.Binary([]byte{1})},
	}}
	for i, want := range []string{
		`{"action":2,"id":"c:1:0","clientId":"a","connectionId":"c","timestamp":5}`,
		`{"action":3,"id":"s-leave:1:0","clientId":"b","connectionId":"d","data":"AQ==","encoding":"base64","timestamp":4}`,
	} {
		if got := string(wire.AppendEntryPresence(nil, wire.JSON, logged("s", b, 5), i)); got != want {
			t.Error(got)
		}
	}
}

func TestStringsAreWrittenAsTheirFormatHasThem(t *testing.T) {
	const text = "a\"b\\c\n\u2028é\x01"
	var back string
	if err := json.Unmarshal(wire.AppendString(nil, wire.JSON, []byte(text)), &back); err != nil || back != text {
		t.Errorf("%q %v", back, err)
	}
	if got := string(wire.AppendString([]byte("x"), wire.MsgPack, []byte("ab"))); got != "x\xa2ab" {
		t.Errorf("%q", got)
	}
}

func TestItemSerialsAreThoseOfPubsub(t *testing.T) {
	batch := &pubsub.Batch{ID: strings.Repeat("long", 50), Messages: make([]*pubsub.Message, 1001)}
	for i := range batch.Messages {
		batch.Messages[i] = &pubsub.Message{}
	}
	for i := range batch.Messages {
		var m struct{ ID, Serial string }
		if err := json.Unmarshal(wire.AppendEntryMessage(nil, wire.JSON, logged(entrySerial, batch, entryTime), i), &m); err != nil {
			t.Fatal(err)
		}
		if m.Serial != pubsub.Serial(entrySerial).Item(i) || m.ID != pubsub.ItemID(batch.ID, i) {
			t.Fatalf("%d: %+v", i, m)
		}
	}
}

func TestADeliveryByRESTHasNoConnection(t *testing.T) {
	b := &pubsub.Batch{ID: "r", Messages: []*pubsub.Message{{}}}
	if got := string(wire.AppendMessagePM(nil, wire.JSON, "", logged("", b, 0))); got != `{"action":15,"channel":"","id":"r","messages":[{"action":0}]}` {
		t.Error(got)
	}
}

func TestPresenceAndAnnotationsAreDelivered(t *testing.T) {
	b := &pubsub.Batch{ID: "c:1", ConnectionID: "c", Presence: []*pubsub.PresenceMessage{
		{Action: pubsub.PresenceEnter, ClientID: "a", ID: "c:1:0", ConnectionID: "c", Timestamp: 5}, {Action: pubsub.PresenceLeave, ConnectionID: "d", ID: "s-leave:1:0", Timestamp: 4}}}
	want := `{"action":14,"channel":"foo","channelSerial":"s","id":"c:1","connectionId":"c","timestamp":5,"presence":[{"action":2,"clientId":"a"},{"action":3,"id":"s-leave:1:0","connectionId":"d","timestamp":4}]}`
	if got := string(wire.AppendPresencePM(nil, wire.JSON, "foo", logged("s", b, 5))); got != want {
		t.Error(got)
	}
	b = &pubsub.Batch{ID: "c:1", ConnectionID: "c", Annotations: []*pubsub.Annotation{{Type: "r:total.v1", MessageSerial: "m"}, {Serial: "own"}}}
	want = `{"action":21,"channel":"foo","channelSerial":"s","id":"c:1","connectionId":"c","timestamp":5,"annotations":[{"action":0,"type":"r:total.v1","messageSerial":"m","serial":"s:000"},{"action":0,"serial":"own"}]}`
	if got := string(wire.AppendAnnotationPM(nil, wire.JSON, "foo", logged("s", b, 5))); got != want {
		t.Error(got)
	}
}

func TestADeliveryAllocatesNothing(t *testing.T) {
	batch, _ := deliveries()
	batch.Messages[2].Extras = []byte(`{"headers":{"k":"v\n\u00e9","n":[1,-1.5,true,null]},"ref":{"type":"x"}}`)
	presence := &pubsub.Batch{ID: "c:1", ConnectionID: "c", Presence: []*pubsub.PresenceMessage{{ClientID: "a", Data: pubsub.Text("x")}}}
	ack := &wire.ProtocolMessage{Action: wire.ActionAck, Count: 1, Res: []wire.PublishResult{{Serials: []string{"s"}}}, EntryRes: []wire.EntryResult{{Entry: entrySerial, Items: 3}}}
	part := *batch
	part.ID = ""
	dst := make([]byte, 0, 8192)
	for _, f := range []wire.Format{wire.JSON, wire.MsgPack} {
		for name, write := range map[string]func(){
			"messages": func() { wire.AppendMessagePM(dst, f, "foo", logged(entrySerial, batch, entryTime)) },
			"a part":   func() { wire.AppendMessagePM(dst, f, "foo", logged(entrySerial, &part, entryTime)) },
			"presence": func() { wire.AppendPresencePM(dst, f, "foo", logged(entrySerial, presence, entryTime)) },
			"an ACK":   func() { wire.Append(dst, f, ack) },
		} {
			if n := testing.AllocsPerRun(100, write); n != 0 {
				t.Errorf("%s as %s: %v allocations", name, f, n)
			}
		}
	}
}

// logged is an entry of the log.
func logged(serial pubsub.Serial, b *pubsub.Batch, timestamp int64) wire.Entry {
	return wire.Entry{Serial: serial, Position: serial, Timestamp: timestamp, Batch: b}
}

// RTL15b
func TestAnUnloggedEntryLeavesTheClientWhereItStands(t *testing.T) {
	b := &pubsub.Batch{ID: "c:0", Messages: []*pubsub.Message{{Name: "n"}}}
	got := decode(t, wire.JSON, wire.AppendMessagePM(nil, wire.JSON, "foo",
		wire.Entry{Serial: "own", Position: "before", Timestamp: 5, Batch: b}))
	if got.ChannelSerial != "before" || got.Messages[0].Serial != "own:000" {
		t.Errorf("channelSerial %q, serial %q", got.ChannelSerial, got.Messages[0].Serial)
	}
}
