package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

// batch posts a batch of which both body and answer are in format.
func batch(t *testing.T, api http.Handler, format, version, key string, v any) (*http.Response, any) {
	t.Helper()
	b, err := json.Marshal(v)
	if format == msgpackType {
		b, err = msgpack.Marshal(v)
	}
	if err != nil {
		t.Fatal(err)
	}
	header := map[string]string{"Content-Type": format, "Accept": format}
	if version != "" {
		header["X-Ably-Version"] = version
	}
	res := do(t, api, request{method: http.MethodPost, path: "/messages", key: key, body: string(b), header: header})
	return res, body(t, res)
}

// outcome is an item of a batch in short: the channel and the error's code, or how many serials or
// members there are.
func outcome(v any) string {
	item, _ := v.(map[string]any)
	e, failed := item["error"].(map[string]any)
	switch {
	case failed && len(item) == 2 && e["message"] != "" && e["statusCode"] != nil:
		return fmt.Sprintf("%v: %v", item["channel"], e["code"])
	case len(item) == 3 && strings.HasSuffix(fmt.Sprint(item["messageId"]), ":0"):
		return fmt.Sprintf("%v: %d serials", item["channel"], len(item["serials"].([]any)))
	case len(item) == 2 && item["presence"] != nil:
		return fmt.Sprintf("%v: %d members", item["channel"], len(item["presence"].([]any)))
	}
	return fmt.Sprint("unclear: ", v)
}

func outcomes(v any) (all []string) {
	list, _ := v.([]any)
	for _, item := range list {
		all = append(all, outcome(item))
	}
	return all
}

func names(t *testing.T, api http.Handler, channel string) (all []string) {
	t.Helper()
	res := do(t, api, request{path: "/channels/" + url.PathEscape(channel) + "/messages?direction=forwards"})
	for _, m := range body(t, res).([]any) {
		all = append(all, fmt.Sprint(m.(map[string]any)["name"]))
	}
	return all
}

// RSC22c, BAR2a-c, BSP2a-b, BPR2a-c, BPF2a-b
func TestABatchPublishesEachSpecToEachOfItsChannels(t *testing.T) {
	for _, format := range []string{jsonType, msgpackType} {
		api := newAPI(t)
		specs := []fields{
			{"channels": []string{"a", "[invalid", "b/c", ""}, "messages": []fields{{"name": "1"}, {"name": "2", "data": "x"}}},
			{"channels": "a", "messages": fields{"name": "3"}},
		}
		res, answer := batch(t, api, format, "3", "", specs)
		list, _ := answer.([]any)
		if res.StatusCode != 201 || len(list) != 2 {
			t.Fatalf("%d %v", res.StatusCode, answer)
		}
		for i, want := range [][]string{{"a: 2 serials", "[invalid: 40010", "b/c: 2 serials", ": 40010"}, {"a: 1 serials"}} {
			result := list[i].(map[string]any)
			failed := strings.Count(strings.Join(want, ","), "40010")
			if got := outcomes(result["results"]); len(result) != 3 || !slices.Equal(got, want) ||
				result["successCount"] != float64(len(want)-failed) || result["failureCount"] != float64(failed) {
				t.Errorf("spec %d: %v", i, result)
			}
		}
		if got := names(t, api, "a"); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("in a: %v", got)
		}
		if got := names(t, api, "b/c"); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("in b/c: %v", got)
		}
		// A spec alone is answered as an array of one.
		if _, answer := batch(t, api, format, "", "", specs[1]); len(answer.([]any)) != 1 {
			t.Errorf("a spec alone: %v", answer)
		}
		// What may not be done is told of each channel.
		_, answer = batch(t, api, format, "", "app.reader:secret", specs[1])
		if got := outcomes(answer.([]any)[0].(map[string]any)["results"]); !slices.Equal(got, []string{"a: 40160"}) {
			t.Errorf("without the right: %v", got)
		}
	}
}

func TestOlderVersionsGetABatchFlat(t *testing.T) {
	for _, format := range []string{jsonType, msgpackType} {
		api := newAPI(t)
		good := fields{"channels": []string{"a", "b"}, "messages": fields{"name": "1"}}
		res, answer := batch(t, api, format, "2", "", []fields{good, good})
		if got := outcomes(answer); res.StatusCode != 201 || !slices.Equal(got, []string{"a: 1 serials", "b: 1 serials", "a: 1 serials", "b: 1 serials"}) {
			t.Errorf("%d %v", res.StatusCode, answer)
		}
		res, answer = batch(t, api, format, "1.2", "", []fields{good, {"channels": "", "messages": fields{}}})
		v, _ := answer.(map[string]any)
		e, _ := v["error"].(map[string]any)
		if res.StatusCode != 400 || e["code"] != 40020.0 || e["statusCode"] != 400.0 || res.Header.Get("X-Ably-Errorcode") != "40020" ||
			res.Header.Get("X-Ably-Errormessage") == "" || !slices.Equal(outcomes(v["batchResponse"]), []string{"a: 1 serials", "b: 1 serials", ": 40010"}) {
			t.Errorf("%d %v", res.StatusCode, answer)
		}
	}
}

// RSC22d
func TestARepeatedBatchIsPublishedOnceOnEachChannel(t *testing.T) {
	api := newAPI(t)
	spec := fields{"channels": []string{"a", "b"}, "messages": []fields{{"id": "base:0", "name": "1"}, {"id": "base:1", "name": "2"}}}
	_, first := batch(t, api, jsonType, "", "", spec)
	_, second := batch(t, api, jsonType, "", "", []fields{spec})
	if !reflect.DeepEqual(first, second) {
		t.Errorf("first %v, then %v", first, second)
	}
	for _, channel := range []string{"a", "b"} {
		if got := names(t, api, channel); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("in %s: %v", channel, got)
		}
	}
}

func TestAPublishOfABatchIsAllOrNothing(t *testing.T) {
	api := newAPI(t)
	specs := []fields{
		{"channels": []string{"a", "b"}, "messages": []fields{{"name": "1"}, {"name": "2", "clientId": "*"}}},
		{"channels": []string{"a"}, "messages": []fields{{"name": "3"}, {"name": "4", "data": strings.Repeat("x", 65536)}}},
		{"channels": []string{"a"}, "messages": []fields{{"name": "5"}}},
	}
	_, answer := batch(t, api, jsonType, "", "", specs)
	for i, want := range [][]string{{"a: 40012", "b: 40012"}, {"a: 40009"}, {"a: 1 serials"}} {
		if got := outcomes(answer.([]any)[i].(map[string]any)["results"]); !slices.Equal(got, want) {
			t.Errorf("spec %d: %v, want %v", i, got, want)
		}
	}
	if got := names(t, api, "a"); !slices.Equal(got, []string{"5"}) {
		t.Errorf("in a: %v", got)
	}
}

func TestTheRateOfAChannelHoldsForBatchesToo(t *testing.T) {
	api, h := newAPIAndHub(t)
	h.Limits().Replace(limit.Limits{Rates: limit.Rates{ChannelMessages: 1}}) // five at once
	var specs []fields
	for range 7 {
		specs = append(specs, fields{"channels": []string{"a"}, "messages": fields{"name": "x"}})
	}
	specs = append(specs, fields{"channels": []string{"b"}, "messages": fields{"name": "x"}})
	_, answer := batch(t, api, jsonType, "", "", specs)
	var got []string
	for _, result := range answer.([]any) {
		got = append(got, outcomes(result.(map[string]any)["results"])...)
	}
	published := len(names(t, api, "a"))
	if got[0] != "a: 1 serials" || got[6] != "a: 42913" || got[7] != "b: 1 serials" || published < 5 || published > 6 {
		t.Errorf("%d messages, %v", published, got)
	}
}

func TestABatchThatCannotBeIsRefusedWhole(t *testing.T) {
	channels := func(n, from int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint("c", from+i))
		}
		return all
	}
	many := func(n int) any { return make([]fields, n) } // null is no message
	empty := func(n int) (all []fields) {
		for range n {
			all = append(all, fields{})
		}
		return all
	}
	specs := func(n, messages int) (all []fields) {
		for range n {
			all = append(all, fields{"channels": "a", "messages": empty(messages)})
		}
		return all
	}
	for _, c := range []struct {
		what         string
		batch        any
		status, code int
	}{
		{"a text", "a", 400, 40000},
		{"nothing", nil, 400, 40000},
		{"no specs", []fields{}, 400, 40000},
		{"a spec that is none", []any{1}, 400, 40000},
		{"no channels", fields{"messages": fields{}}, 400, 40000},
		{"an empty list of channels", fields{"channels": []string{}, "messages": fields{}}, 400, 40000},
		{"a channel that is no text", fields{"channels": []any{"a", 1}, "messages": fields{}}, 400, 40000},
		{"no messages", fields{"channels": "a"}, 400, 40000},
		{"an empty list of messages", fields{"channels": "a", "messages": []any{}}, 400, 40000},
		{"messages that are none", fields{"channels": "a", "messages": many(2)}, 400, 40000},
		{"data that is a number", []fields{{"channels": "a", "messages": fields{}}, {"channels": "a", "messages": fields{"data": 1}}}, 400, 40013},
		{"101 channels", fields{"channels": channels(101, 0), "messages": fields{}}, 400, 90010},
		{"101 channels in two specs", []fields{{"channels": channels(60, 0), "messages": fields{}}, {"channels": channels(60, 41), "messages": fields{}}}, 400, 90010},
		{"1001 messages", fields{"channels": "a", "messages": empty(1001)}, 400, 40034},
		{"1001 specs", specs(1001, 1), 400, 40034},
		{"more messages than all specs may have", specs(11, 1000), 400, 40034},
		{"too many copies", []fields{{"channels": channels(100, 0), "messages": empty(1000)}, {"channels": "c0", "messages": fields{}}}, 400, 40034},
		{"a body too large", fields{"channels": "a", "messages": fields{"data": strings.Repeat("x", 100_000)}}, 413, 40009},
	} {
		for _, format := range []string{jsonType, msgpackType} {
			api := newAPI(t)
			res, answer := batch(t, api, format, "", "", c.batch)
			v, _ := answer.(map[string]any)
			e, _ := v["error"].(map[string]any)
			if res.StatusCode != c.status || e["code"] != float64(c.code) {
				t.Errorf("%s: %d %v, want %d", c.what, res.StatusCode, e, c.code)
			}
			for _, channel := range []string{"a", "c0"} {
				if got := names(t, api, channel); len(got) > 0 {
					t.Errorf("%s: %d messages in %s", c.what, len(got), channel)
				}
			}
		}
	}
	api := newAPI(t)
	for what, r := range map[string]request{
		"401 40101": {path: "/messages", method: http.MethodPost, key: "-", body: `{}`},
		"400 40017": {path: "/messages?v=x", method: http.MethodPost, body: `{}`},
		"400 40001": {path: "/messages", method: http.MethodPost, body: `{`},
		"405 40500": {path: "/messages"},
	} {
		if res := do(t, api, r); what != fmt.Sprint(res.StatusCode, " ", res.Header.Get("X-Ably-Errorcode")) {
			t.Errorf("%s: %d %s", what, res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
		}
	}
}

func TestABatchMayBeAsLargeAsItMay(t *testing.T) {
	api := newAPI(t)
	var channels []string
	for i := range 100 {
		channels = append(channels, fmt.Sprint("c", i))
	}
	res, answer := batch(t, api, msgpackType, "", "", fields{"channels": channels, "messages": make([]struct{}, 1000)})
	results := answer.([]any)[0].(map[string]any)
	if res.StatusCode != 201 || results["successCount"] != 100.0 || outcomes(results["results"])[99] != "c99: 1000 serials" {
		t.Errorf("%d, %v succeeded", res.StatusCode, results["successCount"])
	}
}

// RSC24, BAR2a-c, BGR2a-b, BGF2a-b
func TestABatchOfMembersListsThoseOfEachChannel(t *testing.T) {
	for _, format := range []string{jsonType, msgpackType} {
		api, h := newAPIAndHub(t)
		present(t, h, "conn", 0, item(pubsub.PresenceEnter, "alice", pubsub.Text("1")), item(pubsub.PresenceEnter, "bob", pubsub.Data{}))
		get := func(query, version string) (*http.Response, any) {
			t.Helper()
			res := do(t, api, request{path: "/presence?" + query, header: map[string]string{"Accept": format, "X-Ably-Version": version}})
			return res, body(t, res)
		}
		want := []string{"empty: 0 members", "x: 2 members", ":y: 40010", "x: 2 members"}
		for _, query := range []string{"channels=empty,x,:y,x", "channels=empty%7Cx%7C:y%7Cx&separator=%7C"} {
			res, answer := get(query, "3")
			v, _ := answer.(map[string]any)
			if res.StatusCode != 200 || len(v) != 3 || v["successCount"] != 3.0 || v["failureCount"] != 1.0 || !slices.Equal(outcomes(v["results"]), want) {
				t.Errorf("%s: %d %v", query, res.StatusCode, answer)
				continue
			}
			alice := v["results"].([]any)[1].(map[string]any)["presence"].([]any)[0].(map[string]any)
			if alice["clientId"] != "alice" || alice["data"] != "1" || alice["action"] != 1.0 || alice["connectionId"] != "conn" {
				t.Errorf("the member is %v", alice)
			}
		}
		if res, answer := get("channels=x,empty", "2"); res.StatusCode != 200 || !slices.Equal(outcomes(answer), []string{"x: 2 members", "empty: 0 members"}) {
			t.Errorf("flat: %d %v", res.StatusCode, answer)
		}
		res, answer := get("channels=x,", "2")
		v, _ := answer.(map[string]any)
		if res.StatusCode != 400 || res.Header.Get("X-Ably-Errorcode") != "40020" || !slices.Equal(outcomes(v["batchResponse"]), []string{"x: 2 members", ": 40010"}) {
			t.Errorf("flat, with a failure: %d %v", res.StatusCode, answer)
		}
		for _, c := range []struct {
			query  string
			status int
			code   string
		}{
			{"", 400, "40003"}, {"channels=", 400, "40003"}, {"channels=x&v=x", 400, "40017"},
			{"channels=" + strings.Repeat("x,", 99) + "x", 200, ""}, {"channels=" + strings.Repeat("x,", 100) + "x", 400, "90010"},
		} {
			res := do(t, api, request{path: "/presence?" + c.query, header: map[string]string{"Accept": format}})
			if res.StatusCode != c.status || res.Header.Get("X-Ably-Errorcode") != c.code {
				t.Errorf("%.30s: %d %s", c.query, res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
			}
		}
	}
	if res := do(t, newAPI(t), request{path: "/presence?channels=x", key: "-"}); res.StatusCode != 401 {
		t.Errorf("nobody: %d", res.StatusCode)
	}
}

func TestABatchOfMembersIsBounded(t *testing.T) {
	api, h := newAPIAndHub(t)
	large := strings.Repeat("x", 60_000)
	for i := range 16 {
		present(t, h, "conn", int64(i), item(pubsub.PresenceEnter, fmt.Sprint(i), pubsub.Text(large)))
	}
	res := do(t, api, request{path: "/presence?channels=" + strings.Repeat("x,", 19) + "empty"})
	v, _ := body(t, res).(map[string]any)
	got := outcomes(v["results"])
	if len(got) != 20 || got[7] != "x: 16 members" || got[8] != "x: 40009" || got[18] != "x: 40009" || got[19] != "empty: 0 members" {
		t.Errorf("%v", got)
	}
}
