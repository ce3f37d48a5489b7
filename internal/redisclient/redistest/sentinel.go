package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"letshare-server/test/host"
)

// MasterName is the primary's name at the Sentinels.
const MasterName = "letshare"

// Sentinels are a primary and a replica, watched by three Sentinels.
type Sentinels struct {
	Servers   [2]*Server // the first begins as primary
	Sentinels []*Server

	t testing.TB
}

// StartSentinels starts all five.
func StartSentinels(t testing.TB, settings ...string) *Sentinels {
	t.Helper()
	return startSentinels(t, nil, settings)
}

func startSentinels(t testing.TB, sec *Security, settings []string) *Sentinels {
	t.Helper()
	settings = append([]string{"--repl-diskless-sync-delay", "0"}, settings...)
	s := &Sentinels{t: t}
	s.Servers[0] = start(t, sec, settings)
	s.Servers[1] = start(t, sec, append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(s.Servers[0].port)}, settings...))
	wait(t, "the replica", func() bool {
		info, err := s.Servers[1].Do("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	for range 3 {
		s.Sentinels = append(s.Sentinels, startSentinel(t, sec, s.Servers[0].port))
	}
	for _, sentinel := range s.Sentinels {
		wait(t, "the Sentinels to know each other", func() bool {
			info, err := sentinel.Do("INFO", "sentinel")
			return err == nil && strings.Contains(info, "status=ok") && strings.Contains(info, "slaves=1") && strings.Contains(info, "sentinels=3")
		})
	}
	return s
}

func startSentinel(t testing.TB, sec *Security, primary int) *Server {
	t.Helper()
	port := host.FreePort(t)
	s := &Server{Addr: fmt.Sprintf("127.0.0.1:%d", port), t: t, dir: t.TempDir(), port: port, exe: program("sentinel"), sec: sec}
	conf := sec.sentinel(port) + fmt.Sprintf("bind 127.0.0.1\ndir %s\nloglevel warning\nsentinel monitor %s 127.0.0.1 %d 2\n"+
		"sentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 3000\n", s.dir, MasterName, primary, MasterName, MasterName) + sec.sentinelAuth()
	if err := os.WriteFile(filepath.Join(s.dir, "sentinel.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// Addresses are those of the Sentinels.
func (s *Sentinels) Addresses() []string {
	var addresses []string
	for _, sentinel := range s.Sentinels {
		addresses = append(addresses, sentinel.Addr)
	}
	return addresses
}

// Primary is the server that the Sentinels take for the primary.
func (s *Sentinels) Primary() *Server {
	s.t.Helper()
	info := s.Sentinels[0].Must("INFO", "sentinel")
	for _, server := range s.Servers {
		if strings.Contains(info, "address="+server.Addr+",") {
			return server
		}
	}
	s.t.Fatalf("no primary in %s", info)
	return nil
}

// WaitPrimary waits until another server than old is the primary, and says so itself.
func (s *Sentinels) WaitPrimary(old *Server) {
	s.t.Helper()
	wait(s.t, "another primary", func() bool {
		primary := s.Primary()
		if primary == old {
			return false
		}
		info, err := primary.Do("INFO", "replication")
		return err == nil && strings.Contains(info, "role:master")
	})
}

// WaitReady waits until the server that is no primary is a replica in step with it, and the
// Sentinels know.
func (s *Sentinels) WaitReady() {
	s.t.Helper()
	wait(s.t, "a replica", func() bool {
		primary := s.Primary()
		for _, server := range s.Servers {
			if server == primary {
				continue
			}
			info, err := server.Do("INFO", "replication")
			if err != nil || !strings.Contains(info, "role:slave") || !strings.Contains(info, "master_link_status:up") {
				return false
			}
		}
		info, err := s.Sentinels[0].Do("INFO", "sentinel")
		return err == nil && strings.Contains(info, "status=ok")
	})
}
