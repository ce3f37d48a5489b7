package letshare_test

import (
	"encoding/json"
	"net/url"
	"testing"
)

// Who comes through this door is counted in the statistics of the default app.
func TestMembersAreInTheStatistics(t *testing.T) {
	t.Parallel()
	s := start(t, settings{})
	one, two := s.connect(t, "anna"), s.connect(t, "bert")
	one.subscribe("room")
	two.subscribe("room")
	two.publish("room", `{"from":1}`)
	one.expect("room", "signal:all", `{"from":1}`)
	one.close()
	want := map[string]float64{
		"connections.all.opened": 2, "channels.opened": 1,
		"messages.inbound.realtime.messages.count": 1, "messages.outbound.realtime.messages.count": 1, "messages.all.all.count": 2,
	}
	eventually(t, patience, "the statistics are right", func() bool {
		var hours []struct{ Entries map[string]float64 }
		r := s.request(t, "GET", "/stats?unit=hour&key="+url.QueryEscape(ablyKey))
		if err := json.Unmarshal([]byte(r.body), &hours); err != nil || r.status != 200 {
			t.Fatal(r.status, err)
		}
		got := make(map[string]float64)
		for _, h := range hours { // two, if the first has ended meanwhile
			for name, n := range h.Entries {
				got[name] += n
			}
		}
		for name, n := range want {
			if got[name] != n {
				return false
			}
		}
		return true
	})
}
