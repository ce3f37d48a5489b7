package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tool runs the tool and returns its exit code and report.
func tool(t *testing.T, ctx context.Context, args ...string) (int, *Report) {
	t.Helper()
	var out bytes.Buffer
	code := run(ctx, []string{os.Args[0], "load"}, append(args, "--json", "-"), &out, t.Output())
	var doc document
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil || len(doc.Runs) != 1 {
		t.Fatalf("exit code %d: %v in %q", code, err, out.String())
	}
	return code, doc.Runs[0]
}

var dialects = []struct {
	name string
	args []string
}{
	{"ably json", []string{"--key", "app.key:secret"}},
	{"ably msgpack without echo", []string{"--key", "app.key:secret", "--format", "msgpack", "--echo=false"}},
	{"letshare", []string{"--dialect", "letshare", "--jwt-secret", "s"}},
}

var quick = []string{"--duration", "200ms", "--warmup", "50ms", "--settle", "50ms", "--timeout", "60s"}

// patience is how long the tool waits for what is lost. What is only late on a busy machine must
// come before.
const patience = "12s"

func arguments(scenario, url string, more ...[]string) []string {
	args := append([]string{scenario, "--url", url}, quick...)
	for _, m := range more {
		args = append(args, m...)
	}
	return args
}

func TestDeliveriesOfARightServerAreVerified(t *testing.T) {
	for _, d := range dialects {
		for name, pace := range map[string][]string{
			"closed":        {"--rooms", "2", "--members", "6"},
			"many at once":  {"--rooms", "2", "--members", "6", "--publishers", "3", "--inflight", "16", "--loops", "2"},
			"open":          {"--rooms", "3", "--members", "5", "--publishers", "2", "--rate", "600", "--loops", "2"},
			"big fragments": {"--members", "3", "--bytes", "20000"},
		} {
			t.Run(d.name+"/"+name, func(t *testing.T) {
				f := none
				if name == "big fragments" {
					f = split
				}
				s, url := startServer(t, f)
				code, r := tool(t, t.Context(), arguments("fanout", url, d.args, pace, []string{"--pid", strconv.Itoa(os.Getpid())})...)
				round := r.Rounds[0]
				if code != 0 || r.Failed || round.wrong() > 0 {
					t.Errorf("exit code %d, %+v", code, r)
				}
				if round.Deliveries == 0 || round.Deliveries != round.Expected || round.Latency.P50 <= 0 {
					t.Errorf("%+v", round)
				}
				if got := s.pongs.Load(); got != int64(r.Connections) {
					t.Errorf("%d of %d pings were answered", got, r.Connections)
				}
				if n := 600. * 0.2; name == "open" && (float64(round.Published) < n-2 || float64(round.Published) > n+2) {
					t.Errorf("%d messages, want %v", round.Published, n)
				}
			})
		}
	}
}

func TestDeliveriesOverTLSAreVerified(t *testing.T) {
	server := startTLSServer(t)
	for _, d := range dialects {
		for name, pace := range map[string][]string{
			"many at once": {"--rooms", "2", "--members", "6", "--publishers", "3", "--inflight", "16", "--loops", "2"},
			"big":          {"--members", "3", "--bytes", "20000"},
		} {
			t.Run(d.name+"/"+name, func(t *testing.T) {
				code, r := tool(t, t.Context(), arguments("fanout", "", d.args, pace, server)...)
				if round := r.Rounds[0]; code != 0 || r.Failed || round.wrong() > 0 || round.Deliveries == 0 || round.Deliveries != round.Expected {
					t.Errorf("exit code %d, %+v", code, r)
				}
			})
		}
	}
	code, r := tool(t, t.Context(), arguments("connect", "", dialects[0].args, server[:2])...)
	if code == 0 || len(r.Errors) == 0 || !strings.Contains(strings.Join(r.Errors, " "), "certificate") {
		t.Errorf("a certificate that nobody vouches for: exit code %d, %v", code, r.Errors)
	}
}

func TestWrongDeliveriesAreDetected(t *testing.T) {
	t.Parallel()
	for _, d := range dialects {
		for _, c := range []struct {
			fault fault
			found func(*Round) uint64
		}{
			{lose, func(r *Round) uint64 { return r.Lost }},
			{repeat, func(r *Round) uint64 { return r.Duplicated }},
			{exchange, func(r *Round) uint64 { return r.Reordered }},
			{damage, func(r *Round) uint64 { return r.Strays }},
			{misroute, func(r *Round) uint64 { return r.Strays }},
			{hangUp, func(r *Round) uint64 { return r.Failures }},
		} {
			t.Run(fmt.Sprintf("%s/%s", d.name, c.fault), func(t *testing.T) {
				t.Parallel()
				_, url := startServer(t, c.fault)
				code, r := tool(t, t.Context(), arguments("fanout", url, d.args,
					[]string{"--members", "4", "--rooms", "2", "--rate", "400", "--timeout", patience})...)
				if code != 1 || !r.Failed || len(r.Rounds) != 1 {
					t.Fatalf("exit code %d, %+v", code, r)
				}
				round := r.Rounds[0]
				got := c.found(&round)
				if c.fault == misroute {
					if got == 0 {
						t.Errorf("not detected: %+v", round)
					}
					return
				}
				// One in each room, and nothing else is wrong than what follows from it.
				if got != 2 {
					t.Errorf("%d detected, want 2: %+v", got, round)
				}
				if c.fault != hangUp && c.fault != damage && round.wrong() != 2 {
					t.Errorf("more is said to be wrong: %+v", round)
				}
			})
		}
	}
}

func TestClosedLoopThatStallsEndsWithTheLoss(t *testing.T) {
	t.Parallel()
	_, url := startServer(t, lose)
	code, r := tool(t, t.Context(), arguments("fanout", url, dialects[0].args,
		[]string{"--members", "4", "--timeout", patience, "--warmup", "0s", "--duration", "20s"})...)
	if code != 1 || len(r.Rounds) != 1 || r.Rounds[0].Lost != 1 {
		t.Errorf("exit code %d, %+v", code, r)
	}
}

func TestWrongAcknowledgementsAreDetected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault fault
		found func(*Round) uint64
	}{
		{none, nil},
		{twoAcks, func(r *Round) uint64 { return r.BadAcks }},
		{noAck, func(r *Round) uint64 { return r.Unacked }},
		{nack, func(r *Round) uint64 { return r.Failures }},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			t.Parallel()
			_, url := startServer(t, c.fault)
			more := []string{"--publishers", "8", "--inflight", "2"}
			if c.fault != none {
				more = append(more, "--timeout", patience, "--duration", "1s")
			}
			code, r := tool(t, t.Context(), arguments("acks", url, dialects[0].args, more)...)
			switch {
			case c.fault == none && (code != 0 || r.Rounds[0].PerSecond <= 0):
				t.Errorf("exit code %d, %+v", code, r)
			case c.fault != none && (code != 1 || c.found(&r.Rounds[0]) == 0):
				t.Errorf("exit code %d, %+v", code, r)
			}
			if c.fault == nack && !strings.Contains(strings.Join(r.Errors, " "), "rate limits") {
				t.Errorf("the errors do not name the fix: %q", r.Errors)
			}
		})
	}
}

// A message that could not be sent or delivered in time is slow, and so are those behind it.
func TestLatencyCountsFromTheIntendedTime(t *testing.T) {
	_, url := startServer(t, stall)
	code, r := tool(t, t.Context(), arguments("fanout", url, dialects[0].args,
		[]string{"--members", "2", "--rate", "500", "--warmup", "0s", "--duration", "500ms"})...)
	if code != 0 {
		t.Fatalf("exit code %d, %+v", code, r)
	}
	// 150 of the 250 messages were due while nothing moved, and waited 150 ms on average.
	l := r.Rounds[0].Latency
	if want := float64(stallTime.Microseconds()); l.Max < want*0.95 || l.P99 < want*0.8 {
		t.Errorf("%+v", l)
	}
}

func TestIdleConnectionsAreHeldInWaves(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			_, url := startServer(t, none)
			code, r := tool(t, t.Context(), arguments("idle", url, d.args,
				[]string{"--connections", "57", "--members", "5", "--talk", "2", "--waves", "2", "--pid", strconv.Itoa(os.Getpid())})...)
			if code != 0 || r.Connections != 57 || r.Memory == nil || r.Memory.Empty < 1000 || len(r.Memory.Waves) != 2 {
				t.Fatalf("exit code %d, %+v", code, r)
			}
			for _, round := range r.Rounds {
				if round.Published != 2*57 || round.Deliveries != round.Expected {
					t.Errorf("%+v", round)
				}
			}
		})
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	for _, attach := range []string{"--attach", "--attach=false"} {
		_, url := startServer(t, none)
		code, r := tool(t, t.Context(), arguments("connect", url, dialects[0].args,
			[]string{attach, "--connections", "50", "--rounds", "2", "--pid", strconv.Itoa(os.Getpid())})...)
		if code != 0 || len(r.Rounds) != 2 || r.Rounds[0].PerSecond < 1 || r.Rounds[0].Latency.P50 <= 0 {
			t.Errorf("%s: exit code %d, %+v", attach, code, r)
		}
	}
}

func TestUsageOfAProcessGrowsWithItsWork(t *testing.T) {
	start := time.Now()
	for {
		u, err := processUsage(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		own := ownUsage().total()
		if diff := own - u.total(); diff < -2*tick || diff > 20*tick {
			t.Fatalf("/proc says %v, the kernel %v", u.total(), own)
		}
		if u.total() > 50*time.Millisecond {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatal("no CPU time is counted")
		}
	}
	if m, err := processMemory(os.Getpid()); err != nil || m.rss < 1000 || m.peak < m.rss/2 || m.threads < 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestManyConnectionsComeFromSeveralAddresses(t *testing.T) {
	s, url := startServer(t, none)
	code, r := tool(t, t.Context(), arguments("connect", url, dialects[0].args, []string{"--connections", "25", "--per-source", "10"})...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := "map[127.0.0.2:10 127.0.0.3:10 127.0.0.4:5]"; code != 0 || fmt.Sprint(s.hosts) != want {
		t.Errorf("exit code %d, %v: %+v", code, s.hosts, r)
	}
}

func TestSmallRoomsAreMeasuredBesideABigOne(t *testing.T) {
	_, url := startServer(t, none)
	code, r := tool(t, t.Context(), arguments("mixed", url, dialects[2].args,
		[]string{"--rooms", "3", "--members", "3", "--rate", "200", "--big-members", "20"})...)
	if code != 0 || len(r.Rounds) != 2 || r.P99Ratio <= 0 {
		t.Errorf("exit code %d, %+v", code, r)
	}
}

func TestBaselineMakesExactlyTheWritesItShould(t *testing.T) {
	code, r := tool(t, t.Context(), append([]string{"baseline", "--rooms", "2", "--members", "10", "--rounds", "1"}, quick...)...)
	if code != 0 || len(r.Rounds) != 2 {
		t.Fatalf("exit code %d, %+v", code, r)
	}
	for i, batch := range []uint64{1, 8} {
		round := r.Rounds[i]
		if round.Deliveries == 0 || round.WriteCalls*batch < round.Deliveries || round.FrameBytes != 300 {
			t.Errorf("%+v", round)
		}
	}
}

func TestServerIsComparedWithTheBaseline(t *testing.T) {
	_, url := startServer(t, none)
	code, r := tool(t, t.Context(), arguments("fanout", url, dialects[2].args,
		[]string{"--rooms", "2", "--members", "8", "--rate", "5%", "--with-baseline", "--rounds", "1", "--pid", strconv.Itoa(os.Getpid())})...)
	if code != 0 || r.median("L1") == nil || r.median("server") == nil || r.median("L1 max") == nil {
		t.Fatalf("exit code %d, %+v", code, r)
	}
	// Both send the same bytes to as many receivers.
	if l1, server := r.median("L1"), r.median("server"); l1.FrameBytes != server.FrameBytes || l1.Expected*server.Published != server.Expected*l1.Published {
		t.Errorf("L1 %+v\nserver %+v", l1, server)
	}
}

func TestInterruptedRunEndsAtOnce(t *testing.T) {
	_, url := startServer(t, none)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	code, r := tool(t, ctx, arguments("idle", url, dialects[0].args, []string{"--duration", "1h"})...)
	if code != 1 || !strings.Contains(strings.Join(r.Errors, ""), "interrupted") || time.Since(start) > 10*time.Second {
		t.Errorf("exit code %d, %+v", code, r)
	}
}

func TestFailureToConnectNamesTheFix(t *testing.T) {
	_, url := startServer(t, none)
	for _, c := range []struct {
		args []string
		want string
	}{
		{arguments("connect", "ws://127.0.0.1:1", dialects[0].args), "is the server running"},
		{arguments("connect", url, []string{"--key", "another"}), "is not the server's"},
		{arguments("idle", url, dialects[0].args, []string{"--pid", "999999999"}), "--pid"},
		{arguments("connect", url, dialects[0].args, []string{"--connections", "1000000"}), "ulimit"},
	} {
		if c.want == "ulimit" && raiseFiles(1_000_000) == nil {
			continue // this machine would allow it
		}
		code, r := tool(t, t.Context(), c.args...)
		if code != 1 || !strings.Contains(strings.Join(r.Errors, " "), c.want) {
			t.Errorf("want %q: exit code %d, %q", c.want, code, r.Errors)
		}
	}
}

func TestReportIsAnAlignedTable(t *testing.T) {
	_, url := startServer(t, none)
	var out bytes.Buffer
	if code := run(t.Context(), nil, arguments("fanout", url, dialects[0].args, []string{"--members", "3", "--rounds", "2"}), &out, io.Discard); code != 0 {
		t.Fatalf("exit code %d: %s", code, &out)
	}
	for _, want := range []string{"deliveries/s", "median server", "verified: nothing lost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}
