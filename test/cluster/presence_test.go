package cluster_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"letshare-server/test/cluster"
)

// members are the clientIds that a node lists as members of a channel.
func members(t *testing.T, n *cluster.Node, channel string) (all []string) {
	t.Helper()
	status, body := n.Do("GET", "/channels/"+channel+"/presence", nil)
	var list []struct{ ClientID string }
	if err := json.Unmarshal(body, &list); status != 200 || err != nil {
		t.Fatalf("%d: %s", status, body)
	}
	for _, m := range list {
		all = append(all, m.ClientID)
	}
	slices.Sort(all)
	return all
}

// leaves waits until a client was told that a member left.
func leaves(t *testing.T, c *cluster.Client, clientID string) {
	t.Helper()
	if _, ok := c.Find(func(f *cluster.Frame) bool {
		return f.Action == cluster.Presence && f.Presence[0]["clientId"] == clientID && f.Presence[0]["action"] == float64(cluster.Leave)
	}); !ok {
		t.Fatalf("%s does not leave; told was %q", clientID, c.Events("room"))
	}
}

func TestMembersOfAKilledNodeLeaveOnceWhenTheirTimeIsOver(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	watchers := []*cluster.Client{c.Nodes[1].Connect(""), c.Nodes[1].Connect(""), c.Nodes[2].Connect("")}
	for _, w := range watchers {
		w.Attach("room")
	}
	enter := func(clientID, grace string) *cluster.Client {
		m := c.Nodes[0].Connect("clientId=" + clientID + "&remainPresentFor=" + grace)
		m.Attach("room")
		m.Present("room", cluster.Enter, clientID, "x")
		return m
	}
	enter("gone", "1000")
	stays := enter("stays", "1000")
	patient := enter("patient", "600000")
	enter("lost", "5000").Drop() // its node still waits for it when that dies
	for _, w := range watchers {
		w.Find(func(f *cluster.Frame) bool {
			return f.Action == cluster.Presence && f.Presence[0]["clientId"] == "lost"
		})
	}
	c.Nodes[0].Kill()
	killed := time.Now()
	resumed := c.Nodes[1].Resume(stays)
	resumed.Send(map[string]any{"action": cluster.Heartbeat})
	for _, w := range watchers {
		leaves(t, w, "gone")
	}
	t.Logf("who had a second left %v after the node was killed", time.Since(killed).Round(time.Millisecond))
	for _, n := range c.Nodes[1:] {
		if got := members(t, n, "room"); slices.Contains(got, "gone") || !slices.Contains(got, "stays") || !slices.Contains(got, "patient") {
			t.Errorf("the members are %q", got)
		}
	}
	// A resume is possible long after the node was found to be gone.
	back := c.Nodes[2].Resume(patient)
	back.Attach("room")
	back.Send(map[string]any{"action": cluster.Close})
	// It did not attach since it was resumed.
	resumed.Send(map[string]any{"action": cluster.Close})
	for _, clientID := range []string{"stays", "patient", "lost"} {
		for _, w := range watchers {
			cluster.Eventually(t, clientID+" to leave", func() bool { return slices.Contains(w.Events("room"), "3 "+clientID) })
		}
	}
	want := []string{"2 gone", "2 stays", "2 patient", "2 lost", "3 gone", "3 lost", "3 patient", "3 stays"}
	for _, w := range watchers {
		got := w.Events("room")
		slices.Sort(got[4:])
		if !slices.Equal(got, want) {
			t.Errorf("told was %q", got)
		}
	}
	if got := members(t, c.Nodes[1], "room"); len(got) > 0 {
		t.Errorf("the members are %q", got)
	}
}
