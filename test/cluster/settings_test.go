package cluster_test

import (
	"strings"
	"testing"

	"letshare-server/test/cluster"
)

func TestANodeThatIsConfiguredDifferentlySaysSoAtTheStart(t *testing.T) {
	t.Parallel()
	const secret, key = "another-jwt-secret-of-no-value-at-all", "clustr.key001:another-secret-of-the-same-key"
	c := start(t, cluster.Options{Nodes: 2})
	differs := func(n *cluster.Node) (line string) {
		for l := range strings.Lines(n.Log()) {
			if strings.Contains(l, "other settings") {
				line = l
			}
		}
		return line
	}
	odd := start(t, cluster.Options{Nodes: 1, Redis: c.Redis, Environ: []string{
		"LETSHARE_JWT_SECRET=" + secret, "LETSHARE_API_KEYS=" + key, "LETSHARE_LIMITS_PRESENCE_MEMBERS=7", "LETSHARE_SERVER_SHUTDOWN_GRACE=1s",
	}}).Nodes[0]
	cluster.Eventually(t, "the node to say what differs", func() bool { return differs(odd) != "" })
	line := differs(odd)
	for _, want := range []string{`"level":"ERROR"`, `"settings":"api_keys, jwt.secret, limits.presence_members"`} {
		if !strings.Contains(line, want) {
			t.Errorf("it does not say %s: %s", want, line)
		}
	}
	cluster.Eventually(t, "the metric", func() bool { return odd.Metric("letshare_redis_differing_settings") == 3 })
	for _, n := range c.Nodes {
		if line := differs(n); line != "" && !strings.Contains(line, "jwt.secret") {
			t.Errorf("a node like the first says %s", line)
		}
	}
	if log := odd.Log(); strings.Contains(log, secret) || strings.Contains(log, "another-secret") {
		t.Error("a log tells a secret")
	}
}
