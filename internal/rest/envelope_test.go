package rest_test

import (
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func TestAnEnvelopeHoldsStatusHeadersAndBody(t *testing.T) {
	for format, contentType := range map[string]string{"json": jsonType, "msgpack": msgpackType} {
		api := newAPI(t)
		// call returns what is in the envelope, which is the same whatever Accept says.
		call := func(r request) (status any, response any, header map[string]any) {
			t.Helper()
			var last any
			for _, accept := range []string{jsonType, msgpackType} {
				r := r
				separator := "?"
				if strings.Contains(r.path, "?") {
					separator = "&"
				}
				r.path += separator + "envelope=" + format
				r.header = map[string]string{"Accept": accept}
				res := do(t, api, r)
				v, _ := body(t, res).(map[string]any)
				if res.StatusCode != 200 || len(v) != 3 || !reflect.DeepEqual(res.Header["Content-Type"], []string{contentType}) || res.Header["Link"] != nil {
					t.Fatalf("%s: %d %v with %v", r.path, res.StatusCode, v, res.Header)
				}
				header, _ = v["headers"].(map[string]any)
				if status, response = v["statusCode"], v["response"]; last != nil && r.method == "" && !reflect.DeepEqual(last, v) {
					t.Errorf("%s: %v and %v", r.path, last, v)
				}
				last = v
			}
			return status, response, header
		}
		status, response, header := call(request{method: http.MethodPost, path: "/channels/x/messages", body: `[{"data":"ä"},{"data":"b"}]`})
		published, _ := response.(map[string]any)
		if status != 201.0 || published["channel"] != "x" || header["content-type"] != contentType || len(header) != 1 {
			t.Errorf("publish: %v %v %v", status, response, header)
		}
		status, response, header = call(request{path: "/channels/x/messages?limit=1"})
		links, _ := header["link"].([]any)
		if list, _ := response.([]any); status != 200.0 || len(list) != 1 || len(links) != 3 {
			t.Fatalf("history: %v %v %v", status, response, header)
		}
		// The next page comes in an envelope, too.
		m := linkForm.FindStringSubmatch(links[2].(string))
		if m == nil || m[3] != "next" {
			t.Fatalf("links %v", links)
		}
		if next, err := url.ParseQuery(m[2]); err != nil || next.Get("envelope") != format {
			t.Errorf("next is %v", next)
		}
		status, response, _ = call(request{path: "/channels/x/presence"})
		if list, is := response.([]any); status != 200.0 || !is || len(list) > 0 {
			t.Errorf("presence: %v %v", status, response)
		}
		for _, c := range []struct {
			r      request
			status float64
			code   string
		}{
			{request{path: "/channels/x/messages?limit=x"}, 400, "40003"},
			{request{path: "/channels/x/messages", key: "-"}, 401, "40101"},
			{request{path: "/nowhere"}, 404, "40400"},
			{request{method: http.MethodPut, path: "/time"}, 405, "40500"},
		} {
			status, response, header := call(c.r)
			v, _ := response.(map[string]any)
			e, _ := v["error"].(map[string]any)
			if status != c.status || header["x-ably-errorcode"] != c.code || header["x-ably-errormessage"] != e["message"] || e["statusCode"] != c.status {
				t.Errorf("%s: %v %v %v", c.r.path, status, response, header)
			}
		}
	}
}

func TestAnEnvelopeOfNothingHoldsNull(t *testing.T) {
	api, _ := newSandbox(t)
	app := provision(t, api, "server")
	res := do(t, api, request{method: http.MethodDelete, path: "/apps/" + app.AppID + "?envelope=json", key: app.Keys[0].KeyStr})
	b, err := io.ReadAll(res.Body)
	if want := `{"statusCode":204,"response":null,"headers":{}}`; err != nil || res.StatusCode != 200 || string(b) != want {
		t.Errorf("%d %s, want 200 %s", res.StatusCode, b, want)
	}
}

func TestAnEnvelopeOfAnotherKindIsNone(t *testing.T) {
	api := newAPI(t)
	for _, value := range []string{"", "true", "html"} {
		if _, is := body(t, do(t, api, request{path: "/time?envelope=" + value})).([]any); !is {
			t.Errorf("envelope=%s", value)
		}
	}
}
