package cluster_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"letshare-server/test/cluster"
)

// get reads a JSON answer of a node.
func get(t *testing.T, n *cluster.Node, path string) (answer any) {
	t.Helper()
	status, body := n.Do("GET", path, nil)
	if err := json.Unmarshal(body, &answer); status != 200 || err != nil {
		t.Fatalf("%s: %d: %s", path, status, body)
	}
	return answer
}

// agree waits until all nodes answer alike, and what is wanted.
func agree(t *testing.T, c *cluster.Cluster, path string, wanted func(answer any) bool) (answer any) {
	t.Helper()
	cluster.Eventually(t, "all nodes to agree on "+path, func() bool {
		answer = get(t, c.Nodes[0], path)
		for _, n := range c.Nodes[1:] {
			if !reflect.DeepEqual(get(t, n, path), answer) {
				return false
			}
		}
		return wanted(answer)
	})
	return answer
}

func TestAllNodesTellTheSame(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	var clients []*cluster.Client
	for i := range 6 {
		l := c.Nodes[i%3].Connect(fmt.Sprintf("clientId=m%d", i))
		l.Attach("room")
		clients = append(clients, l)
	}
	// Everybody publishes and enters at the same time.
	var all sync.WaitGroup
	for i, l := range clients {
		all.Go(func() {
			var last int64
			l.Post(cluster.Frame{Action: cluster.Presence, Channel: "room", Presence: []map[string]any{{"action": cluster.Enter, "data": "x"}}})
			for k := range 20 {
				last = l.Post(cluster.Frame{Action: cluster.Message, Channel: "room", Messages: []map[string]any{{"data": fmt.Sprint(i, " ", k)}}})
				if k%5 == 0 {
					if status, answer := c.Nodes[k%3].Do("POST", "/channels/room/messages", map[string]any{"data": fmt.Sprint("rest ", i, k)}); status != 201 {
						t.Errorf("%d: %s", status, answer)
					}
				}
			}
			l.Acked(last)
		})
	}
	all.Wait()
	const want = 6 * (20 + 4)
	for _, l := range clients {
		cluster.Eventually(t, "all messages", func() bool { return len(l.Data("room")) >= want && len(l.Events("room")) >= 6 })
	}
	first := clients[0].Data("room")
	for i, l := range clients {
		if got := l.Data("room"); !slices.Equal(got, first) {
			t.Errorf("client %d got\n%q, and the first\n%q", i, got, first)
		}
		// Who entered before it attached it was told by SYNC: all have attached before.
		if got := l.Events("room"); len(got) != 6 {
			t.Errorf("client %d was told %q", i, got)
		}
	}
	agree(t, c, "/channels/room/messages?limit=1000&direction=forwards", func(answer any) bool { return len(answer.([]any)) == want })
	agree(t, c, "/channels/room/presence", func(answer any) bool { return len(answer.([]any)) == 6 })

	metric := func(answer any, name string) float64 {
		m := answer.(map[string]any)["status"].(map[string]any)["occupancy"].(map[string]any)["metrics"].(map[string]any)
		return m[name].(float64)
	}
	agree(t, c, "/channels/room", func(answer any) bool {
		return metric(answer, "connections") == 6 && metric(answer, "presenceMembers") == 6 && metric(answer, "subscribers") == 6
	})
	for _, l := range clients[:4] {
		l.Send(map[string]any{"action": cluster.Close})
	}
	agree(t, c, "/channels/room", func(answer any) bool {
		return metric(answer, "connections") == 2 && metric(answer, "presenceMembers") == 2
	})
	for _, n := range c.Nodes {
		if got := members(t, n, "room"); !slices.Equal(got, []string{"m4", "m5"}) {
			t.Errorf("the members are %q", got)
		}
	}
	// What a node tells who comes later.
	late := c.Nodes[1].Connect("")
	late.Attach("room")
	f, _ := late.Next(cluster.Sync)
	if len(f.Presence) != 2 {
		t.Errorf("who comes later is told %+v", f.Presence)
	}
}

func TestChangesAndAnnotationsFromAllNodesComeToTheSame(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{File: "namespaces: [{id: mutable, mutable_messages: true}]\n"})
	const name = "mutable:x"
	var clients []*cluster.Client
	for i := range 3 {
		l := c.Nodes[i].Connect(fmt.Sprintf("clientId=m%d", i))
		l.Attach(name)
		clients = append(clients, l)
	}
	ack := clients[0].Publish(name, "begin")
	serial := ack.Res[0].Serials[0]
	path := "/channels/" + name + "/messages/" + serial

	// Appends, updates and annotations at the same time, from everywhere.
	var all sync.WaitGroup
	const each = 8
	for i, n := range c.Nodes {
		all.Go(func() {
			for k := range each {
				change := map[string]any{"action": 5, "data": fmt.Sprintf("+%d%d", i, k)}
				if status, answer := n.Do("PATCH", path, change); status != 200 {
					t.Errorf("%d: %s", status, answer)
				}
			}
		})
		all.Go(func() {
			for k := range each {
				clients[i].Acked(clients[i].Post(cluster.Frame{Action: cluster.Annotation, Channel: name, Annotations: []map[string]any{
					{"action": 0, "messageSerial": serial, "type": "reaction:distinct.v1", "name": fmt.Sprint("r", k)},
				}}))
			}
		})
	}
	all.Wait()
	text := ""
	agree(t, c, path, func(answer any) bool {
		text = answer.(map[string]any)["data"].(string)
		for i := range c.Nodes {
			at := 0
			for k := range each { // the appends of one node in their order, each once
				part := fmt.Sprintf("+%d%d", i, k)
				next := strings.Index(text[at:], part)
				if next < 0 || strings.Count(text, part) != 1 {
					return false
				}
				at += next
			}
		}
		return len(text) == len("begin")+3*each*3
	})
	// All clients know the same end: the newest version whole, and the sums.
	sums := func(l *cluster.Client) (newest string) {
		for _, f := range l.All() {
			for _, m := range f.Messages {
				if m["action"] == float64(4) {
					b, _ := json.Marshal(m["annotations"])
					newest = string(b)
				}
			}
		}
		return newest
	}
	for _, l := range clients {
		cluster.Eventually(t, "the summary", func() bool { return strings.Count(sums(l), `"total":3`) == each })
		if got := sums(l); got != sums(clients[0]) {
			t.Errorf("the summary is %s, and %s on another node", got, sums(clients[0]))
		}
	}
	versions := func(l *cluster.Client) (all []string) {
		for _, f := range l.All() {
			for _, m := range f.Messages {
				if m["action"] != float64(4) {
					all = append(all, fmt.Sprint(m["action"], m["version"].(map[string]any)["serial"]))
				}
			}
		}
		return all
	}
	for _, l := range clients {
		cluster.Eventually(t, "all versions", func() bool { return len(versions(l)) == 1+3*each })
		if got := versions(l); !slices.Equal(got, versions(clients[0])) {
			t.Errorf("the versions are\n%q, and\n%q on another node", got, versions(clients[0]))
		}
	}
}
