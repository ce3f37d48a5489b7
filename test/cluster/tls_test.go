package cluster_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"letshare-server/internal/redisclient/redistest"
	"letshare-server/test/cluster"
)

func TestNodesShareARedisThatWantsTLSAndAPassword(t *testing.T) {
	t.Parallel()
	sec := redistest.NewSecurity(t)
	// These are the rights that docs/operations/cluster.md names.
	const rights, password = "~letshare:* &letshare:* +@all -@dangerous +info", "cluster-tests-redis-password-of-no-value"
	redis := sec.Start(t, slices.Concat([]string{"--user", "letshare", "on", ">" + password}, strings.Fields(rights))...)
	if page, err := os.ReadFile("../../docs/operations/cluster.md"); err != nil || !strings.Contains(string(page), rights) {
		t.Errorf("the page names other rights than %s; %v", rights, err)
	}
	c := start(t, cluster.Options{Nodes: 2, Redis: redis, Environ: []string{
		"LETSHARE_REDIS_USER=letshare", "LETSHARE_REDIS_PASSWORD=" + password,
		"LETSHARE_REDIS_TLS_ENABLED=true", "LETSHARE_REDIS_TLS_CA_FILE=" + sec.CAFile,
		"LETSHARE_REDIS_TLS_CERT_FILE=" + sec.CertFile, "LETSHARE_REDIS_TLS_KEY_FILE=" + sec.KeyFile,
		"LETSHARE_LOG_LEVEL=debug",
	}})
	mover, publisher := c.Nodes[0].Connect("clientId=mover"), c.Nodes[1].Connect("")
	mover.Attach("room")
	mover.Present("room", cluster.Enter, "mover", "here")
	publisher.Publish("room", "one")
	f, _ := mover.Find(func(f *cluster.Frame) bool { return f.Action == cluster.Message })
	mover.Drop()
	publisher.Publish("room", "two")
	moved := c.Nodes[1].Resume(mover)
	if attached := moved.Attach("room", continuing(f.ChannelSerial)); attached.Flags&cluster.Resumed == 0 {
		t.Errorf("attached with %+v", attached)
	}
	// The connections to Redis break, and come again.
	c.Redis.Must("CLIENT", "KILL", "USER", "letshare")
	cluster.Eventually(t, "a publish after the connections broke", func() bool {
		status, _ := c.Nodes[0].Do("POST", "/channels/room/messages", map[string]any{"id": "three", "data": "three"})
		return status == 201
	})
	moved.Find(func(f *cluster.Frame) bool { return f.Action == cluster.Message && f.Messages[0]["data"] == "three" })
	if got, want := moved.Data("room"), []string{"two", "three"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, n := range c.Nodes {
		log := n.Log()
		if strings.Contains(log, password) {
			t.Error("a log tells the password")
		}
		if strings.Contains(log, "NOPERM") {
			t.Error("the user lacks rights:\n" + log)
		}
	}
}
