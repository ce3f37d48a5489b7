package load

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The marks of the table in a page.
const (
	benchBegin = "<!-- made by make bench: begin -->\n"
	benchEnd   = "<!-- made by make bench: end -->\n"
)

func TestBenchMeasuresEveryTargetAndFillsInTheTable(t *testing.T) {
	dir := t.TempDir()
	page, report, chart := filepath.Join(dir, "page.md"), filepath.Join(dir, "bench.json"), filepath.Join(dir, "bench.html")
	if err := os.WriteFile(page, []byte("before\n"+benchBegin+"old\n"+benchEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code := run(t.Context(), []string{os.Args[0], "load"}, []string{"bench", "--quick", "--commit", "abc", "--timeout", "60s",
		"--out", page, "--json", report, "--html", chart}, &out, t.Output())
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, &out)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if !strings.HasPrefix(text, "before\n"+benchBegin) || !strings.HasSuffix(text, benchEnd+"after\n") || strings.Contains(text, "old") ||
		!strings.Contains(text, ", commit abc: ") {
		t.Errorf("the page is now\n%s", text)
	}
	for _, id := range []string{"P1", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P14", "P15", "F1", "F2", "F3"} {
		row := regexp.MustCompile(`(?m)^\| ` + id + ` \| .+ \| .+ \| (.+) \| (yes|\*\*no\*\*) \|$`).FindStringSubmatch(text)
		if row == nil || !strings.ContainsAny(row[1], "0123456789") {
			t.Errorf("no row for %s in\n%s", id, text)
		}
	}
	var doc document
	if b, err = os.ReadFile(report); err != nil || json.Unmarshal(b, &doc) != nil || doc.Bench == nil || len(doc.Runs) != 12 {
		t.Errorf("%v: %.300s", err, b)
	}
	if b, err = os.ReadFile(chart); err != nil || bytes.Count(b, []byte("<svg")) < 7 {
		t.Errorf("%v: %.300s", err, b)
	}
}

func TestTheSameLoadIsPutOnClustersOfSeveralSizes(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	begin, end := marks("make clusterbench")
	if err := os.WriteFile(page, slices.Concat([]byte("before\n"), begin, []byte("old\n"), end, []byte("after\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code := run(t.Context(), []string{os.Args[0], "load"}, []string{"cluster", "--quick", "--commit", "abc", "--timeout", "60s", "--out", page}, &out, t.Output())
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, &out)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if !strings.HasPrefix(text, "before\n"+string(begin)) || !strings.HasSuffix(text, string(end)+"after\n") || strings.Contains(text, "old") {
		t.Errorf("the page is now\n%s", text)
	}
	const some = `[0-9.]*[1-9][0-9.]*`
	for figure, want := range map[string]int{
		`deliveries/s \| (` + some + `( \| )?){4}`:                                          2,
		`ACKs/s \| (` + some + `( \| )?){4}`:                                                1,
		`p99, ms \| (` + some + `( \| )?){4}`:                                               2,
		`bytes in, out \| –( \| ` + some + `; ` + some + `; ` + some + `, ` + some + `){3}`: 4,
	} {
		if rows := regexp.MustCompile(figure).FindAllString(text, -1); len(rows) != want {
			t.Errorf("%d rows like %s, not %d, in\n%s", len(rows), figure, want, text)
		}
	}
}

func TestATableGoesNowhereButBetweenItsMarks(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	for _, text := range []string{"", benchBegin, benchEnd + benchBegin} {
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := putInto(page, "make bench", "table"); err == nil {
			t.Errorf("%q: written", text)
		}
		if b, _ := os.ReadFile(page); string(b) != text {
			t.Errorf("%q became %q", text, b)
		}
	}
}

// The floor is compared with, so it must do all that the tool verifies.
func TestTheFeaturelessServerDeliversRight(t *testing.T) {
	for _, c := range []struct {
		name  string
		echo  bool
		group groupSpec
	}{
		{"with echo", true, groupSpec{rooms: 3, members: 7, publishers: 3, inflight: 16}},
		{"without echo", false, groupSpec{rooms: 3, members: 7, publishers: 3, inflight: 16}},
		{"acknowledgements", false, groupSpec{rooms: 5, members: 1, publishers: 1, inflight: 4, acks: true}},
		{"long messages", true, groupSpec{rooms: 1, members: 3, publishers: 3, inflight: 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &options{self: []string{os.Args[0], "load"}, echo: c.echo, bytes: 300, loops: 2, perSource: 1000, concurrency: 16, timeout: time.Minute}
			if c.name == "long messages" {
				o.bytes = 30_000
			}
			r := &Report{}
			err := o.onFloor(t.Context(), t.Output(), func(o *options) error {
				round, err := o.serverRound(t.Context(), "floor", o.spec(c.group), 200*time.Millisecond, 20*time.Millisecond, r)
				if err == nil && (round.wrong() > 0 || round.PerSecond == 0) {
					t.Errorf("%+v", round)
				}
				return err
			})
			if err != nil || r.Failed {
				t.Errorf("%v, %q", err, r.Errors)
			}
		})
	}
}

func TestARunEndsAfterSoManyDeliveries(t *testing.T) {
	for _, loops := range []string{"1", "3"} {
		code, r := tool(t, t.Context(), "fanout", "--own-server", "--rooms", "4", "--members", "10", "--publishers", "2", "--inflight", "4",
			"--deliveries", "20000", "--warmup", "50ms", "--loops", loops, "--timeout", "60s")
		if code != 0 || len(r.Rounds) != 1 {
			t.Fatalf("exit code %d, %+v", code, r)
		}
		// Rooms may have a whole round of messages under way when it is enough.
		if n := r.Rounds[0].Deliveries; n < 20000 || n > 20000+4*4*10 {
			t.Errorf("%s loops: %d deliveries", loops, n)
		}
		if r.Rounds[0].CPUUser+r.Rounds[0].CPUSystem == 0 {
			t.Errorf("the server's CPU time is not known: %+v", r.Rounds[0])
		}
	}
}

// The promise of the hot path, kept by the whole program over real sockets: what a publish allocates,
// from the read that brings it to its acknowledgement, does not depend on how many members are sent it.
func TestAServerAllocatesNothingForEachDelivery(t *testing.T) {
	for _, c := range []struct {
		args       []string
		perPublish float64
	}{
		{[]string{"--format", "json"}, 26},
		{[]string{"--format", "msgpack"}, 26},
		{[]string{"--dialect", "letshare"}, 57},
	} {
		t.Run(c.args[1], func(t *testing.T) {
			members, deliveries := "1000", "60000"
			if raceEnabled {
				members, deliveries = "120", "12000" // pools forget at random, so that only the way of counting is tried
			}
			code, r := tool(t, t.Context(), append([]string{"allocs", "--own-server", "--members", members, "--deliveries", deliveries,
				"--warmup", "200ms", "--timeout", "60s"}, c.args...)...)
			if code != 0 || r.Allocs == nil {
				t.Fatalf("exit code %d, %+v", code, r)
			}
			t.Logf("%+v", r.Allocs)
			if raceEnabled {
				return
			}
			// What the process does besides is in it, so it is not exactly 0.
			if a := r.Allocs; a.PerDelivery > 0.005 || a.PerPublish > c.perPublish || a.PerPublishLarge > c.perPublish+5 {
				t.Errorf("too many: %+v, want 0 for each delivery and %v for each publish", a, c.perPublish)
			}
		})
	}
}

func TestMemoryOfAnEmptyServerIsRead(t *testing.T) {
	code, r := tool(t, t.Context(), "empty", "--own-server", "--settle", "10ms", "--env", "LETSHARE_LOG_LEVEL=info")
	if code != 0 || r.Memory == nil || r.Memory.Empty < 4<<10 || r.Memory.Peak < r.Memory.Empty/2 {
		t.Errorf("exit code %d, %+v", code, r)
	}
	if code, r = tool(t, t.Context(), "empty", "--own-server", "--env", "LETSHARE_LOG_LEVEL=nonsense"); code != 1 ||
		!strings.Contains(strings.Join(r.Errors, ""), "log.level") {
		t.Errorf("exit code %d, %q", code, r.Errors)
	}
}

func TestGrowingMemoryIsNotFlat(t *testing.T) {
	grow := func(n int, rss func(i int) int64) (s []Sample) {
		for i := range n {
			s = append(s, Sample{RSS: rss(i)})
		}
		return s
	}
	for _, c := range []struct {
		name    string
		samples []Sample
		want    string // of the error
	}{
		{"settles in the first quarter", grow(100, func(i int) int64 { return min(int64(i), 25) << 10 }), ""},
		{"breathes", grow(100, func(i int) int64 { return 60<<10 + int64(i%4)<<10 }), ""},
		{"grows", grow(100, func(i int) int64 { return 60<<10 + int64(i)*200 }), "memory grew"},
		{"grows at the end", grow(100, func(i int) int64 { return 60<<10 + int64(i/99)*10<<10 }), "memory grew"},
		{"unknown", grow(100, func(int) int64 { return 0 }), "--pid"},
		{"short", grow(5, func(int) int64 { return 1000 }), "two seconds"},
	} {
		r := &Report{}
		r.checkFlat(&Round{Samples: c.samples})
		if got := strings.Join(r.Errors, " "); r.Failed != (c.want != "") || !strings.Contains(got, c.want) || (r.Flat != nil) == r.Failed {
			t.Errorf("%s: %q, %+v", c.name, got, r.Flat)
		}
	}
}

func TestSamplesAreThinnedWithoutLosingPeaks(t *testing.T) {
	var all []Sample
	for i := range 10 {
		all = append(all, Sample{At: float64(i), PerSecond: float64(i), RSS: int64(100 - i)})
	}
	half := thinned(all)
	if len(half) != 5 || half[0] != (Sample{At: 1, PerSecond: 0.5, RSS: 100}) || half[4].At != 9 {
		t.Errorf("%+v", half)
	}
}

// A chart is for the eye; this is about what the eye would not forgive.
func TestChartsStayInsideTheirFrames(t *testing.T) {
	var h histogram
	for i := range 100_000 {
		h.record(time.Duration(1000 + i*i/1000))
	}
	round := Round{Kind: "<server>", Percentiles: h.curve()}
	for i := range 40 {
		round.Samples = append(round.Samples, Sample{At: float64(i) / 4, PerSecond: float64(i * 7000), CPU: float64(i), RSS: 50 << 10})
	}
	page := string(charts(&document{Runs: []*Report{{Scenario: "fanout", Shape: "a < b", Rounds: []Round{round, {Kind: "without samples"}}}}}))
	if n := strings.Count(page, "<svg"); n != 4 { // the tool's CPU is all zeros
		t.Errorf("%d charts", n)
	}
	if strings.Contains(page, "<server>") || strings.Contains(page, "NaN") || strings.Contains(page, "Inf") || strings.Contains(page, "http") {
		t.Error(page)
	}
	points := 0
	for _, m := range regexp.MustCompile(`(-?[\d.]+),(-?[\d.]+) `).FindAllStringSubmatch(page, -1) {
		var x, y float64
		if err := json.Unmarshal([]byte("["+m[1]+","+m[2]+"]"), &[]*float64{&x, &y}); err != nil {
			t.Fatal(err)
		}
		points++
		if x < plotLeft-1 || x > plotWidth-plotRight+1 || y < plotTop-1 || y > plotHeight-plotBottom+1 {
			t.Errorf("a point at %v,%v", x, y)
		}
	}
	if points < 3*40+20 {
		t.Errorf("%d points", points)
	}
}
