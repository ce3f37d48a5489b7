package rest_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// statsFixtures are three minutes and one in another month.
const statsFixtures = `[
	{"intervalId":"2024-02-03:15:03","inbound":{"realtime":{"messages":{"count":50,"data":5000}}},"outbound":{"realtime":{"messages":{"count":20,"data":2000}}}},
	{"intervalId":"2024-02-03:15:04","inbound":{"realtime":{"messages":{"count":60,"data":6000}}},"outbound":{"realtime":{"messages":{"count":10,"data":1000}}}},
	{"intervalId":"2024-02-03:15:05","inbound":{"realtime":{"messages":{"count":70,"data":7000}}},"channels":{"peak":50,"mean":1.25},"tokenRequests":{"failed":2}},
	{"intervalId":"2024-03-03:15:07","unit":"minute","inbound":{"rest":{"presence":{"count":15}}}}
]`

// inFormat is a JSON text in a format.
func inFormat(t *testing.T, format, text string) string {
	t.Helper()
	if format == jsonType {
		return text
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func postFixtures(t *testing.T, api http.Handler, format string) {
	t.Helper()
	res := do(t, api, request{method: http.MethodPost, path: "/stats", body: inFormat(t, format, statsFixtures),
		header: map[string]string{"Accept": format, "Content-Type": format}})
	if list, ok := body(t, res).([]any); res.StatusCode != 201 || !ok || len(list) != 0 {
		t.Fatalf("status %d, %v", res.StatusCode, list)
	}
}

// get returns the items of a page, as clients of a version of the API get them.
func getStats(t *testing.T, api http.Handler, format, version, query string) (items []map[string]any, links []string) {
	t.Helper()
	header := map[string]string{"Accept": format}
	if version != "" {
		header["X-Ably-Version"] = version
	}
	res := do(t, api, request{path: "/stats?" + query, header: header})
	list, ok := body(t, res).([]any)
	if res.StatusCode != 200 || !ok {
		t.Fatalf("%s: status %d, %s", query, res.StatusCode, res.Header.Get("X-Ably-Errormessage"))
	}
	for _, item := range list {
		items = append(items, item.(map[string]any))
	}
	return items, res.Header["Link"]
}

// TS12a, TS12c, TS12r-t, RSC7e, RSC19f1
func TestStatisticsHaveTheShapeOfTheClientsVersion(t *testing.T) {
	for _, format := range []string{jsonType, msgpackType} {
		api, _ := newSandbox(t)
		for range 2 { // the second time replaces the first
			postFixtures(t, api, format)
		}
		const query = "start=2024-02-03:15:05&end=2024-02-03:15:05"
		for _, version := range []string{"", "3", "6", "5.1"} {
			items, _ := getStats(t, api, format, version, query)
			want := map[string]any{
				"intervalId": "2024-02-03:15:05", "unit": "minute", "appId": "app",
				"schema": "https://schemas.ably.com/json/app-stats-0.0.5.json",
				"entries": map[string]any{
					"messages.all.all.count": 70.0, "messages.all.all.data": 7000.0,
					"messages.all.messages.count": 70.0, "messages.all.messages.data": 7000.0,
					"messages.inbound.all.all.count": 70.0, "messages.inbound.all.all.data": 7000.0,
					"messages.inbound.all.messages.count": 70.0, "messages.inbound.all.messages.data": 7000.0,
					"messages.inbound.realtime.all.count": 70.0, "messages.inbound.realtime.all.data": 7000.0,
					"messages.inbound.realtime.messages.count": 70.0, "messages.inbound.realtime.messages.data": 7000.0,
					"channels.peak": 50.0, "channels.mean": 1.25,
					"apiRequests.all.failed": 2.0, "apiRequests.tokenRequests.failed": 2.0,
				},
			}
			if len(items) != 1 || !reflect.DeepEqual(items[0], want) {
				t.Errorf("%s, version %q: %v", format, version, items)
			}
		}
		for _, version := range []string{"2", "1.2", "0.8"} {
			items, _ := getStats(t, api, format, version, query)
			figures := map[string]any{"count": 70.0, "data": 7000.0}
			kinds := map[string]any{"all": figures, "messages": figures}
			want := map[string]any{
				"intervalId": "2024-02-03:15:05", "unit": "minute",
				"all": kinds, "inbound": map[string]any{"all": kinds, "realtime": kinds},
				"channels": map[string]any{"peak": 50.0, "mean": 1.25}, "tokenRequests": map[string]any{"failed": 2.0},
			}
			if len(items) != 1 || !reflect.DeepEqual(items[0], want) {
				t.Errorf("%s, version %q: %v", format, version, items)
			}
		}
		if items, _ := getStats(t, api, format, "", query+"&v=2"); items[0]["entries"] != nil || items[0]["inbound"] == nil {
			t.Errorf("the version as a parameter: %v", items)
		}
	}
}

func TestAnIntervalInWhichNothingHappenedHasNoFigures(t *testing.T) {
	api, _ := newSandbox(t)
	res := do(t, api, request{method: http.MethodPost, path: "/stats", body: `{"intervalId":"2024-02","inbound":{"rest":{"all":{"count":0}}}}`})
	if res.StatusCode != 201 {
		t.Fatal(res.Status)
	}
	for version, want := range map[string]map[string]any{
		"2": {"intervalId": "2024-02", "unit": "month"},
		"3": {"intervalId": "2024-02", "unit": "month", "appId": "app", "schema": "https://schemas.ably.com/json/app-stats-0.0.5.json", "entries": map[string]any{}},
	} {
		if items, _ := getStats(t, api, jsonType, version, "unit=month&end=2024-12"); len(items) != 1 || !reflect.DeepEqual(items[0], want) {
			t.Errorf("version %s: %v", version, items)
		}
	}
}

// RSC6b1-4
func TestStatisticsAreSelectedByTheirParameters(t *testing.T) {
	api, _ := newSandbox(t)
	postFixtures(t, api, jsonType)
	for _, c := range []struct {
		query string
		want  string // of inbound messages of all kinds
	}{
		{"end=2024-12", "15 70 60 50"},
		{"end=2024-12&direction=backwards", "15 70 60 50"},
		{"end=2024-12&direction=forwards", "50 60 70 15"},
		{"end=2024-12&limit=1", "15"},
		{"start=2024-02-03:15:04&end=2024-02-03:15:05&direction=forwards", "60 70"},
		{"start=1706972640000&end=1706972730000&direction=forwards", "60 70"},    // 15:04:00 and 15:05:30
		{"start=1706972610000&end=2024-02-03:15:04&direction=forwards", "50 60"}, // 15:03:30
		{"start=2024-02-03&end=2024-02-03&direction=forwards", "50 60 70"},
		{"start=2024-02&end=2024-02-03:15&direction=forwards", "50 60 70"},
		{"start=2024-02-03:15&end=2024-02-03:18&by=hour", "180"},
		{"end=2024-02-03:15:03&unit=hour", "180"},
		{"start=1706972610000&end=1706972610000&unit=month", "180"},
		{"end=2024-12&unit=day", "15 180"},
		{"end=2024-12&unit=day&by=month", "15 180"},
		{"end=2024-12&unit=month&direction=forwards", "180 15"},
		{"end=2023-12", ""},
	} {
		items, _ := getStats(t, api, jsonType, "", c.query)
		var got []string
		for _, item := range items {
			text, _ := json.Marshal(item["entries"].(map[string]any)["messages.inbound.all.all.count"])
			got = append(got, string(text))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.query, got, c.want)
		}
	}
}

// RSC6a, RSC6b3
func TestPagesOfStatisticsFollowOneAnother(t *testing.T) {
	api, _ := newSandbox(t)
	postFixtures(t, api, jsonType)
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"end=2024-12&limit=1", []string{"2024-03-03:15:07", "2024-02-03:15:05", "2024-02-03:15:04", "2024-02-03:15:03"}},
		{"end=2024-02-03&limit=1&direction=forwards&v=2", []string{"2024-02-03:15:03", "2024-02-03:15:04", "2024-02-03:15:05"}},
		{"end=2024-12&limit=3", []string{"2024-03-03:15:07", "2024-02-03:15:05", "2024-02-03:15:04", "2024-02-03:15:03"}},
		{"end=2024-12&limit=4&unit=hour", []string{"2024-03-03:15", "2024-02-03:15"}},
		{"end=2024-12&limit=1&by=month", []string{"2024-03", "2024-02"}},
	} {
		var got, firsts []string
		shapes := make(map[bool]bool)
		for query := c.query; query != ""; {
			items, links := getStats(t, api, jsonType, "", query)
			query = ""
			for _, item := range items {
				got = append(got, item["intervalId"].(string))
				shapes[item["entries"] == nil] = true
			}
			for _, link := range links {
				target, rel, _ := strings.Cut(link, ">; rel=")
				target = strings.TrimPrefix(target, "<./stats?")
				switch rel {
				case `"next"`:
					query = target
				case `"first"`:
					firsts = append(firsts, target)
				}
			}
			if len(got) > 4 {
				break
			}
		}
		if !slices.Equal(got, c.want) || len(shapes) != 1 {
			t.Errorf("%s: %v", c.query, got)
		}
		if len(slices.Compact(firsts)) != 1 {
			t.Errorf("%s: first pages %q", c.query, firsts)
		}
	}
}

func TestErrorsOfStatistics(t *testing.T) {
	api, _ := newSandbox(t)
	app := provision(t, api, "server")
	post := func(body string) request { return request{method: http.MethodPost, path: "/stats", body: body} }
	token := func() string {
		res := do(t, api, request{method: http.MethodPost, path: "/keys/app.key/requestToken", body: "{}"})
		return body(t, res).(map[string]any)["token"].(string)
	}()
	for _, c := range []struct {
		what         string
		request      request
		status, code int
	}{
		{"no credentials", request{path: "/stats", key: "-"}, 401, 40101},
		{"a wrong secret", request{path: "/stats", key: "app.key:wrong"}, 401, 40101},
		{"an unknown app", request{path: "/stats", key: "no.key:secret"}, 404, 40400},
		{"no capability", request{path: "/stats", key: "app.reader:secret"}, 401, 40160},
		{"a capability for some channels", request{path: "/stats", key: app.Keys[2].KeyStr}, 401, 40160},
		{"a limit that is none", request{path: "/stats?limit=x"}, 400, 40003},
		{"a limit of nothing", request{path: "/stats?limit=0"}, 400, 40003},
		{"a limit beyond the limit", request{path: "/stats?limit=1001"}, 400, 40003},
		{"a direction that is none", request{path: "/stats?direction=up"}, 400, 40003},
		{"a unit that is none", request{path: "/stats?unit=year"}, 400, 40003},
		{"a unit that is none, by its other name", request{path: "/stats?by=Hour"}, 400, 40003},
		{"a start that is no time", request{path: "/stats?start=yesterday"}, 400, 40003},
		{"a start before time", request{path: "/stats?start=-1"}, 400, 40003},
		{"a day that is none", request{path: "/stats?start=2024-02-30"}, 400, 40003},
		{"an end that is no time", request{path: "/stats?end=2024-02-03T15:05"}, 400, 40003},
		{"an end beyond time", request{path: "/stats?end=9223372036854775807"}, 400, 40003},
		{"a start after the end", request{path: "/stats?start=2024-02-03:15:05&end=2024-02-03:15:04"}, 400, 40003},
		{"a cursor that is none", request{path: "/stats?cursor=1"}, 400, 40003},
		{"a cursor of another unit", request{path: "/stats?unit=day&cursor=2024-02"}, 400, 40003},
		{"a version that is none", request{path: "/stats", header: map[string]string{"X-Ably-Version": "new"}}, 400, 40017},
		{"a wrong method", request{method: http.MethodDelete, path: "/stats"}, 405, 40500},
		{"fixtures without credentials", request{method: http.MethodPost, path: "/stats", key: "-", body: "[]"}, 401, 40101},
		{"fixtures with a token", request{method: http.MethodPost, path: "/stats", key: "-", body: "[]", header: map[string]string{"Authorization": "Bearer " + token}}, 401, 40162},
		{"fixtures without the capability", request{method: http.MethodPost, path: "/stats", key: "app.reader:secret", body: "[]"}, 401, 40160},
		{"fixtures that are no JSON", post("nonsense"), 400, 40001},
		{"no fixtures", post(""), 400, 40001},
		{"fixtures that are no objects", post("[1]"), 400, 40001},
		{"a fixture of no interval", post("{}"), 400, 40000},
		{"a fixture of no unit", post(`{"intervalId":"2024-02","unit":"year"}`), 400, 40000},
		{"a fixture of less than nothing", post(`{"intervalId":"2024-02","channels":{"peak":-1}}`), 400, 40000},
		{"fixtures that are too large", post(strings.Repeat(" ", 3<<20)), 413, 40009},
	} {
		for _, format := range []string{jsonType, msgpackType} {
			r := c.request
			r.header = map[string]string{"Accept": format}
			maps.Copy(r.header, c.request.header)
			res := do(t, api, r)
			told, _ := body(t, res).(map[string]any)["error"].(map[string]any)
			if res.StatusCode != c.status || told["code"] != float64(c.code) || told["statusCode"] != float64(c.status) || told["message"] == "" {
				t.Errorf("%s, %s: status %d, %v", c.what, format, res.StatusCode, told)
			}
		}
	}
}

// TS12q
func TestRequestsAreCountedByTheirOutcome(t *testing.T) {
	api, _ := newSandbox(t)
	publish := request{method: http.MethodPost, path: "/channels/a/messages", body: `[{"name":"n","data":"1234"},{"data":"5"}]`}
	for _, r := range []request{
		publish, publish,
		{path: "/channels/a/messages?limit=3"},
		{path: "/channels/a/messages?limit=0"},                   // failed
		{path: "/channels/a/messages", key: "app.reader:secret"}, // refused
		{path: "/channels/a/presence"},
		{path: "/channels/a/messages", key: "app.key:wrong"}, // of whom, nobody knows
		{path: "/time"},
		{method: http.MethodPost, path: "/keys/app.key/requestToken", body: "{}"},
		{method: http.MethodPost, path: "/keys/app.key/requestToken", body: `{"ttl":-1}`},
		{method: http.MethodPost, path: "/keys/app.key/requestToken", body: "{}", key: "app.key:wrong"},
	} {
		do(t, api, r)
	}
	got := make(map[string]float64)
	items, _ := getStats(t, api, jsonType, "", "")
	for _, item := range items { // of two minutes, perhaps
		for name, n := range item["entries"].(map[string]any) {
			got[name] += n.(float64)
		}
		if i, ok := item["inProgress"].(string); !ok || len(i) != len("2024-02-03:15:05:30") || item["unit"] != "minute" {
			if len(items) == 1 {
				t.Errorf("in progress: %v", item)
			}
		}
	}
	for name, want := range map[string]float64{
		"apiRequests.other.succeeded": 4, "apiRequests.other.failed": 1, "apiRequests.other.refused": 1,
		"apiRequests.tokenRequests.succeeded": 1, "apiRequests.tokenRequests.failed": 1, "apiRequests.tokenRequests.refused": 1,
		"apiRequests.all.succeeded":            5,
		"messages.inbound.rest.messages.count": 4, "messages.inbound.rest.messages.data": 12,
		"messages.outbound.rest.messages.count": 3, "messages.outbound.rest.messages.data": 7,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	// The request that asked is the next one's.
	items, _ = getStats(t, api, jsonType, "", "unit=month&limit=1")
	if n := items[0]["entries"].(map[string]any)["apiRequests.other.succeeded"]; n != 5.0 {
		t.Errorf("%v requests", n)
	}
}

func TestWithoutCountersThereAreNoStatistics(t *testing.T) {
	api := newAPI(t)
	if items, links := getStats(t, api, jsonType, "", "limit=2&unit=hour"); items != nil || len(links) != 2 {
		t.Error(items, links)
	}
}
