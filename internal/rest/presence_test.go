package rest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// present applies items of one connection to the channel "x".
func present(t *testing.T, h *hub.Hub, connectionID string, msgSerial int64, items ...*pubsub.PresenceMessage) {
	t.Helper()
	var turn hub.Turn
	defer turn.End()
	err := h.Presence(t.Context(), &turn, &hub.Presence{
		Grant:   &auth.Grant{App: "app", ClientRule: auth.ClientAny, Capability: auth.FullCapability},
		Channel: pubsub.ChannelName{Attached: "x", Base: "x"}, Items: items, ConnectionID: connectionID, MsgSerial: msgSerial,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func item(action pubsub.PresenceAction, clientID string, data pubsub.Data) *pubsub.PresenceMessage {
	return &pubsub.PresenceMessage{Action: action, ClientID: clientID, Data: data}
}

// pages follows the next links of a resource of the channel "x" and returns all items as
// "<action> <connectionId>:<clientId>=<data>".
func pages(t *testing.T, api http.Handler, path, query string, header map[string]string) (all []string) {
	t.Helper()
	resource := path[strings.LastIndexByte(path, '/')+1:]
	for range 100 {
		res := do(t, api, request{path: "/channels/x/" + path + "?" + query, header: header})
		items, ok := body(t, res).([]any)
		if !ok || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v", query, res.StatusCode, items)
		}
		for _, v := range items {
			m := v.(map[string]any)
			if m["id"] == nil || m["timestamp"] == nil {
				t.Errorf("incomplete: %v", m)
			}
			all = append(all, fmt.Sprintf("%v %v:%v=%v", m["action"], m["connectionId"], m["clientId"], m["data"]))
		}
		next := links(t, res, resource)["next"]
		if next == nil {
			return all
		}
		query = next.Encode()
	}
	t.Fatal("pages without end")
	return nil
}

// RSP3a, RSP3a1-3
func TestMembersAreListedInPages(t *testing.T) {
	api, h := newAPIAndHub(t)
	if got := pages(t, api, "presence", "", nil); len(got) > 0 {
		t.Errorf("got %v", got)
	}
	for i := range 3 {
		present(t, h, fmt.Sprintf("conn%d", i), 0,
			item(pubsub.PresenceEnter, "a,b", pubsub.Text(fmt.Sprint(i))), item(pubsub.PresenceEnter, "é:c", pubsub.Data{}))
	}
	all := []string{"1 conn0:a,b=0", "1 conn0:é:c=<nil>", "1 conn1:a,b=1", "1 conn1:é:c=<nil>", "1 conn2:a,b=2", "1 conn2:é:c=<nil>"}
	for _, header := range []map[string]string{nil, inMsgpack} {
		for query, want := range map[string][]string{
			"":                                     all,
			"limit=1":                              all,
			"limit=4":                              all,
			"limit=6":                              all,
			"clientId=a%2Cb&limit=2":               {all[0], all[2], all[4]},
			"connectionId=conn1&limit=1":           {all[2], all[3]},
			"connectionId=conn1&clientId=%C3%A9:c": {all[3]},
			"connectionId=conn":                    nil,
			"clientId=*":                           nil,
		} {
			if got := pages(t, api, "presence", query, header); !slices.Equal(got, want) {
				t.Errorf("%q: got %v, want %v", query, got, want)
			}
		}
	}
}

// RSP4a, RSP4b1-3
func TestPresenceHistoryIsListedInPages(t *testing.T) {
	api, h := newAPIAndHub(t)
	present(t, h, "conn", 0, item(pubsub.PresenceEnter, "a", pubsub.Text("1")), item(pubsub.PresenceEnter, "b", pubsub.Binary([]byte{255})))
	do(t, api, request{method: "POST", path: "/channels/x/messages", body: `{"name":"no presence"}`})
	present(t, h, "conn", 1, item(pubsub.PresenceUpdate, "a", pubsub.Text("2")), item(pubsub.PresenceLeave, "b", pubsub.Data{}))
	want := []string{"2 conn:a=1", "2 conn:b=/w==", "4 conn:a=2", "3 conn:b=/w=="}
	for _, query := range []string{"direction=forwards", "direction=forwards&limit=1", "direction=forwards&limit=3&start=1"} {
		if got := pages(t, api, "presence/history", query, nil); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", query, got, want)
		}
	}
	slices.Reverse(want)
	if got := pages(t, api, "presence/history", "limit=1", nil); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := pages(t, api, "messages", "", nil); len(got) != 1 {
		t.Errorf("history of messages: %v", got)
	}
}

func TestPresenceIsReadByThoseWhoMay(t *testing.T) {
	api, _ := newAPIAndHub(t)
	for _, c := range []struct {
		path, key    string
		status, code int
	}{
		{"/channels/x/presence", "app.reader:secret", 200, 0},
		{"/channels/x/presence/history", "app.reader:secret", 401, 40160},
		{"/channels/x/presence", "-", 401, 40101},
		{"/channels/x/presence?limit=0", "", 400, 40003},
		{"/channels/x/presence?limit=1001", "", 400, 40003},
		{"/channels/x/presence?limit=x", "", 400, 40003},
		{"/channels/x/presence?cursor=*", "", 400, 40003},
		{"/channels/x/presence/history?limit=x", "", 400, 40003},
		{"/channels/x/presence/history?cursor=x", "", 400, 40003},
		{"/channels/:x/presence", "", 400, 40010},
		{"/channels/:x/presence/history", "", 400, 40010},
	} {
		res := do(t, api, request{path: c.path, key: c.key})
		if res.StatusCode != c.status || c.code != 0 && res.Header.Get("X-Ably-Errorcode") != fmt.Sprint(c.code) {
			t.Errorf("%s with %q: %d, %s", c.path, c.key, res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
		}
	}
	if res := do(t, api, request{method: "POST", path: "/channels/x/presence"}); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", res.StatusCode)
	}
}
