package wire_test

import (
	"errors"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

func TestARequestForATokenIsReadAsItCame(t *testing.T) {
	for _, c := range []struct {
		name, json string
		want       wire.TokenRequest
	}{
		{"nothing", `{}`, wire.TokenRequest{}},
		{"nulls", `{"keyName":null,"ttl":null,"capability":null,"clientId":null,"timestamp":null,"nonce":null,"mac":null}`, wire.TokenRequest{}},
		{"all", `{"keyName":"a.b","ttl":3600000,"capability":"{ \"b\":[\"*\"], \"a\":[\"*\"] }","clientId":"me","timestamp":1700000000000,"nonce":"0123456789abcdef","mac":"bWFj","more":{"x":[1]}}`,
			wire.TokenRequest{KeyName: "a.b", TTL: "3600000", Capability: `{ "b":["*"], "a":["*"] }`, ClientID: "me", HasClientID: true,
				Timestamp: "1700000000000", Nonce: "0123456789abcdef", MAC: "bWFj"}},
		{"numbers in strings", `{"ttl":"60 s","timestamp":"1700000000000"}`, wire.TokenRequest{TTL: "60 s", Timestamp: "1700000000000"}},
		{"negative", `{"ttl":-1}`, wire.TokenRequest{TTL: "-1"}},
		{"an empty clientId", `{"clientId":""}`, wire.TokenRequest{HasClientID: true}},
		{"a capability that is no string", `{"capability": {"b": ["*"], "a": ["*"]}}`, wire.TokenRequest{Capability: `{"b":["*"],"a":["*"]}`}},
	} {
		packed, err := wire.Transcode(nil, wire.MsgPack, wire.JSON, []byte(c.json))
		if err != nil {
			t.Fatal(err)
		}
		for format, b := range map[wire.Format][]byte{wire.JSON: []byte(c.json), wire.MsgPack: packed} {
			if got, err := wire.DecodeTokenRequest(format, b); err != nil || *got != c.want {
				t.Errorf("%s in %s: %+v %v", c.name, format, got, err)
			}
		}
	}
	spelled, err := wire.DecodeTokenRequest(wire.JSON, []byte(`{"ttl":6.0e4}`))
	if err != nil || spelled.TTL != "6.0e4" {
		t.Errorf("got %+v %v", spelled, err)
	}
}

func TestATokenRequestOfWrongTypesIsRefused(t *testing.T) {
	for json, code := range map[string]pubsub.Code{
		``: 40001, `[]`: 40001, `"x"`: 40001, `{"ttl":`: 40001, `{} {}`: 40001,
		`{"ttl":true}`: 40003, `{"ttl":{}}`: 40003, `{"timestamp":[]}`: 40003, `{"keyName":1}`: 40003, `{"nonce":1}`: 40003, `{"mac":{}}`: 40003,
		`{"clientId":1}`: 40012, `{"capability":[]}`: 40000, `{"capability":7}`: 40000,
	} {
		_, err := wire.DecodeTokenRequest(wire.JSON, []byte(json))
		var e *pubsub.Error
		if !errors.As(err, &e) || e.Code != code || e.StatusCode != 400 {
			t.Errorf("%s: %v, want %d", json, err, code)
		}
	}
	notText, err := msgpack.Marshal(map[string]any{"clientId": "\xff"})
	if err != nil {
		t.Fatal(err)
	}
	var e *pubsub.Error
	if _, err := wire.DecodeTokenRequest(wire.MsgPack, notText); !errors.As(err, &e) || e.Code != pubsub.CodeInvalidClientID {
		t.Errorf("got %v", err)
	}
}

func TestATokenIsWrittenForTheSDKs(t *testing.T) {
	d := &wire.TokenDetails{Token: "a.t", KeyName: "a.b", Issued: 1, Expires: 1700000000000, Capability: `{"*":["*"]}`}
	want := `{"token":"a.t","keyName":"a.b","issued":1,"expires":1700000000000,"capability":"{\"*\":[\"*\"]}"}`
	if got := string(wire.AppendTokenDetails(nil, wire.JSON, d)); got != want {
		t.Errorf("got %s", got)
	}
	d.ClientID = "me"
	packed := wire.AppendTokenDetails(nil, wire.MsgPack, d)
	json, err := wire.Transcode(nil, wire.JSON, wire.MsgPack, packed)
	if err != nil || string(json) != want[:len(want)-1]+`,"clientId":"me"}` {
		t.Errorf("got %s %v", json, err)
	}
}

func FuzzDecodeTokenRequest(f *testing.F) {
	f.Add([]byte(`{"keyName":"a.b","ttl":3600000,"capability":{"a":["*"]},"clientId":"me","timestamp":"17","nonce":"n","mac":"m"}`), true)
	f.Add([]byte{0x81, 0xa3, 't', 't', 'l', 0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, json bool) {
		format := wire.MsgPack
		if json {
			format = wire.JSON
		}
		r, err := wire.DecodeTokenRequest(format, b)
		var e *pubsub.Error
		if (r == nil) != (err != nil) || err != nil && (!errors.As(err, &e) || e.StatusCode != 400) {
			t.Errorf("got %+v %v", r, err)
		}
	})
}
