package rest_test

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// bystander is a receiver and a form that say nothing.
type bystander struct{}

func (bystander) AppendFrames(dst []byte, units []hub.Unit, _ *engine.Entry, _ int) ([]byte, []hub.Unit) {
	return dst, units
}
func (bystander) Receive([]byte, bool) {}
func (bystander) Lost(pubsub.Serial)   {}

func TestTheStatusOfAChannelIsItsOccupancy(t *testing.T) {
	api, h := newAPIAndHub(t)
	for i, modes := range []pubsub.Mode{0, pubsub.ModeSubscribe, pubsub.ModeObjectPublish | pubsub.ModeObjectSubscribe} {
		_, err := h.Attach(t.Context(), &hub.Attach{
			Grant:   &auth.Grant{App: "app", ClientRule: auth.ClientAny, Capability: auth.FullCapability},
			Channel: pubsub.ChannelName{Attached: "x", Base: "x"}, Modes: modes, ConnectionID: fmt.Sprint("c", i), Form: bystander{}, Receiver: bystander{},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	present(t, h, "c0", 0, item(pubsub.PresenceEnter, "a", pubsub.Data{}), item(pubsub.PresenceEnter, "b", pubsub.Data{}))
	want := map[string]any{"channelId": "x", "name": "x", "status": map[string]any{"isActive": true, "occupancy": map[string]any{"metrics": map[string]any{
		"connections": 3.0, "publishers": 1.0, "subscribers": 2.0, "presenceConnections": 1.0, "presenceMembers": 2.0,
		"presenceSubscribers": 1.0, "objectPublishers": 1.0, "objectSubscribers": 1.0,
	}}}}
	for _, header := range []map[string]string{nil, inMsgpack} {
		res := do(t, api, request{path: "/channels/x", header: header})
		if got := body(t, res); res.StatusCode != http.StatusOK || !reflect.DeepEqual(got, want) {
			t.Errorf("%d %v", res.StatusCode, got)
		}
	}
	for _, c := range []struct {
		path, key    string
		status, code int
	}{
		{"/channels/x", "app.reader:secret", 401, 40160},
		{"/channels/x", "-", 401, 40101},
		{"/channels/:x", "", 400, 40010},
		{"/channels/%5Bmeta%5Dx", "", 401, 40160}, // rights on channels are none on these
		{"/channels/a%2Fb", "", 200, 0},
	} {
		res := do(t, api, request{path: c.path, key: c.key})
		if res.StatusCode != c.status || c.code != 0 && res.Header.Get("X-Ably-Errorcode") != fmt.Sprint(c.code) {
			t.Errorf("%s with %q: %d, %s", c.path, c.key, res.StatusCode, res.Header.Get("X-Ably-Errorcode"))
		}
	}
}
