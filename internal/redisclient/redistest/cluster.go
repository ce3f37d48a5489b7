package redistest

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Cluster is a Redis Cluster: servers 0 to shards-1 begin as primaries, the others as their
// replicas.
type Cluster struct {
	Servers []*Server

	t   testing.TB
	sec *Security
}

// StartCluster starts a cluster with one replica for each shard; at least three shards.
func StartCluster(t testing.TB, shards int, settings ...string) *Cluster {
	t.Helper()
	return startCluster(t, nil, shards, settings)
}

func startCluster(t testing.TB, sec *Security, shards int, settings []string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, sec: sec}
	for range 2 * shards {
		c.Servers = append(c.Servers, start(t, sec, slices.Concat([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--repl-diskless-sync-delay", "0", "--cluster-allow-replica-migration", "no"}, settings)))
	}
	c.cli(append([]string{"--cluster", "create"}, append(c.Addresses(), "--cluster-replicas", "1", "--cluster-yes")...)...)
	c.WaitReady()
	return c
}

func (c *Cluster) cli(args ...string) string {
	c.t.Helper()
	out, err := exec.Command(program("cli"), append(c.sec.cli(), args...)...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s %q: %v\n%s", program("cli"), args, err, out)
	}
	return string(out)
}

// Addresses are those of all servers.
func (c *Cluster) Addresses() []string {
	var addresses []string
	for _, s := range c.Servers {
		addresses = append(addresses, s.Addr)
	}
	return addresses
}

// WaitReady waits until every server that runs knows an owner of every slot, and every
// replica is in step.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	for _, s := range c.Servers {
		if !s.runs() {
			continue
		}
		wait(c.t, "the cluster as "+s.Addr+" sees it", func() bool {
			info, err := s.Do("CLUSTER", "INFO")
			if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_slots_ok:16384") {
				return false
			}
			repl, err := s.Do("INFO", "replication")
			return err == nil && (strings.Contains(repl, "role:master") || strings.Contains(repl, "master_link_status:up"))
		})
	}
}

// Owner is the primary of the shard that keeps a key, as the first server that runs sees it.
func (c *Cluster) Owner(key string) *Server {
	c.t.Helper()
	owner := c.owner(key)
	if owner == nil {
		c.t.Fatalf("nobody keeps the slot of %s", key)
	}
	return owner
}

// WaitOwner waits until another server than old keeps a key, and the cluster works.
func (c *Cluster) WaitOwner(key string, old *Server) {
	c.t.Helper()
	wait(c.t, "another owner of "+key, func() bool {
		owner := c.owner(key)
		if owner == nil || owner == old {
			return false
		}
		info, err := owner.Do("CLUSTER", "INFO")
		return err == nil && strings.Contains(info, "cluster_state:ok")
	})
}

func (c *Cluster) owner(key string) *Server {
	for _, s := range c.Servers {
		if !s.runs() {
			continue
		}
		n, _ := strconv.Atoi(s.Must("CLUSTER", "KEYSLOT", key))
		for line := range strings.Lines(s.Must("CLUSTER", "NODES")) {
			f := strings.Fields(line)
			if len(f) < 9 || !strings.Contains(f[2], "master") || strings.Contains(f[2], "fail") {
				continue
			}
			for _, r := range f[8:] {
				from, to, isRange := strings.Cut(r, "-")
				if !isRange {
					to = from
				}
				a, err1 := strconv.Atoi(from)
				b, err2 := strconv.Atoi(to)
				if err1 == nil && err2 == nil && a <= n && n <= b {
					return c.byAddr(f[1])
				}
			}
		}
		return nil
	}
	return nil
}

func (c *Cluster) byAddr(addr string) *Server {
	addr, _, _ = strings.Cut(addr, "@")
	for _, s := range c.Servers {
		if s.Addr == addr {
			return s
		}
	}
	c.t.Fatalf("no server has the address %s", addr)
	return nil
}

// ReplicaOf is the first replica of a primary.
func (c *Cluster) ReplicaOf(primary *Server) *Server {
	c.t.Helper()
	id := primary.Must("CLUSTER", "MYID")
	for line := range strings.Lines(primary.Must("CLUSTER", "NODES")) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == id {
			return c.byAddr(f[1])
		}
	}
	c.t.Fatalf("%s has no replica", primary.Addr)
	return nil
}

// MoveSlot moves the slot of a key to another primary, as redis-cli does it: key by key,
// while the cluster works. The keys move one after another; each is called between.
func (c *Cluster) MoveSlot(key string, to *Server, each func()) {
	c.t.Helper()
	from := c.Owner(key)
	slot := from.Must("CLUSTER", "KEYSLOT", key)
	fromID, toID := from.Must("CLUSTER", "MYID"), to.Must("CLUSTER", "MYID")
	to.Must("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.Must("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	for {
		out := c.cli("-h", "127.0.0.1", "-p", strconv.Itoa(from.port), "CLUSTER", "GETKEYSINSLOT", slot, "1")
		name := strings.TrimSuffix(out, "\n")
		if name == "" {
			break
		}
		from.Must("MIGRATE", "127.0.0.1", strconv.Itoa(to.port), name, "0", "5000")
		if each != nil {
			each()
		}
	}
	to.Must("CLUSTER", "SETSLOT", slot, "NODE", toID)
	from.Must("CLUSTER", "SETSLOT", slot, "NODE", toID)
	for _, s := range c.Servers {
		if s != to && s != from && s.runs() && strings.Contains(s.Must("INFO", "replication"), "role:master") {
			s.Must("CLUSTER", "SETSLOT", slot, "NODE", toID)
		}
	}
}

func (s *Server) runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd != nil
}
