package load

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is one scenario's outcome, as --json writes it. Durations are in the unit that their
// names end with.
type Report struct {
	Scenario    string `json:"scenario"`
	Dialect     string `json:"dialect"`
	Shape       string `json:"shape"`
	Connections int    `json:"connections"`

	Rounds []Round `json:"rounds"`
	// Medians has one entry for each kind of round: the median of every number by itself.
	Medians []Round `json:"medians"`
	// RatioToL1 is server CPU per delivery by that of the baseline.
	RatioToL1     float64 `json:"ratioToL1,omitempty"`
	BaselineGiven float64 `json:"baselineCpuPerMillion,omitempty"` // by --baseline
	// P99Ratio is that of the small rooms beside the big one by that of the small rooms alone.
	P99Ratio float64 `json:"p99Ratio,omitempty"`

	Memory *Memory `json:"memory,omitempty"`
	Flat   *Flat   `json:"flat,omitempty"`
	Allocs *Allocs `json:"allocs,omitempty"`

	Notes  []string `json:"notes,omitempty"` // what a reader must know to judge the figures
	Failed bool     `json:"failed"`
	Errors []string `json:"errors,omitempty"`
}

// Round is one measurement. CPU times are the server's, the baseline's in its rounds; they are
// zero if its process is not known.
type Round struct {
	Kind          string  `json:"kind"` // server, L1, L8, alone, beside
	Seconds       float64 `json:"seconds"`
	Published     uint64  `json:"published"`
	Expected      uint64  `json:"expected"`
	Deliveries    uint64  `json:"deliveries"`
	PerSecond     float64 `json:"perSecond"` // deliveries, acknowledgements or connections
	Latency       Latency `json:"latencyMicros"`
	FrameBytes    float64 `json:"frameBytes"` // of a delivery
	PerRead       float64 `json:"deliveriesPerRead"`
	CPUUser       float64 `json:"cpuUserSeconds"`
	CPUSystem     float64 `json:"cpuSystemSeconds"`
	CPUPerMillion float64 `json:"cpuSecondsPerMillion"` // so it is also µs for each
	ToolCPU       float64 `json:"toolCpuSeconds"`
	ToolUser      float64 `json:"toolUserSeconds"`
	ToolPerMil    float64 `json:"toolCpuSecondsPerMillion"`
	ToolBusiest   float64 `json:"toolBusiestThreadPercent"`
	SentLate      float64 `json:"sentLateMaxMicros"` // behind the open loop's schedule
	Pings         uint64  `json:"pings"`

	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	Strays     uint64 `json:"strays"`
	Unacked    uint64 `json:"unacked"`
	BadAcks    uint64 `json:"badAcks"`
	Failures   uint64 `json:"failures"` // error frames, NACKs, connections closed by the server

	WriteCalls       uint64 `json:"writeCalls,omitempty"` // of the baseline, counted by itself
	KernelWriteCalls int64  `json:"kernelWriteCalls,omitempty"`

	Redis *RedisUse `json:"redis,omitempty"` // of a cluster

	Samples     []Sample     `json:"samples,omitempty"`
	Percentiles []Percentile `json:"percentiles,omitempty"`
}

// Sample is what was read at one time of a round: figures of the time since the sample before.
type Sample struct {
	At        float64 `json:"atSeconds"` // since the round began
	PerSecond float64 `json:"perSecond"` // deliveries or acknowledgements
	CPU       float64 `json:"cpuPercent"`
	ToolCPU   float64 `json:"toolCpuPercent"`
	RSS       int64   `json:"rssKiB"`
}

// Percentile is one point of a distribution.
type Percentile struct {
	Percent float64 `json:"percent"`
	Micros  float64 `json:"micros"`
}

// Latency is from the intended time of sending to the read that brought the delivery, in µs.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Memory is the server's, in KiB.
type Memory struct {
	Empty         int64   `json:"emptyKiB"`
	Connected     int64   `json:"connectedKiB"`
	After         int64   `json:"afterHoldKiB"`
	Left          int64   `json:"afterLeavingKiB"`
	Peak          int64   `json:"peakKiB"`
	PerConnection float64 `json:"perConnectionKiB"` // after holding, without the empty server
	// PeakPerConnection is the most that was occupied at any time, without the empty server.
	PeakPerConnection float64 `json:"peakPerConnectionKiB"`
	Threads           int64   `json:"threads"`
	HoldCPU           float64 `json:"holdCpuPercent"`
	Waves             []Wave  `json:"waves,omitempty"`
}

// Flat is the server's memory in a run where it did not grow, in KiB.
type Flat struct {
	SecondQuarter int64 `json:"secondQuarterKiB"` // the most of it
	SecondHalf    int64 `json:"secondHalfKiB"`    // the most of it
}

// Allocs is how often the server allocated, as the Go run-time counts.
type Allocs struct {
	PerPublish      float64 `json:"perPublish"`      // in a small room, deliveries included
	PerPublishLarge float64 `json:"perPublishLarge"` // in a large one
	// PerDelivery is what the members that the large room has more cost, each.
	PerDelivery float64 `json:"perDelivery"`
}

// Wave is the server's memory in one of several waves of clients, in KiB.
type Wave struct {
	Held int64 `json:"heldKiB"`
	Left int64 `json:"leftKiB"`
	Peak int64 `json:"peakKiB"` // in the wave
}

func (r *Round) wrong() uint64 {
	return r.Lost + r.Duplicated + r.Reordered + r.Strays + r.Unacked + r.BadAcks + r.Failures
}

// problem adds to the errors of a report, which has failed by it.
func (r *Report) problem(format string, args ...any) {
	r.Failed = true
	r.Errors = append(r.Errors, fmt.Sprintf(format, args...))
}

// summarize fills Medians and RatioToL1.
func (r *Report) summarize() {
	var kinds []string
	for _, round := range r.Rounds {
		if !slices.Contains(kinds, round.Kind) {
			kinds = append(kinds, round.Kind)
		}
	}
	r.Medians = nil
	for _, kind := range kinds {
		var of []Round
		for _, round := range r.Rounds {
			if round.Kind == kind {
				of = append(of, round)
			}
		}
		r.Medians = append(r.Medians, medianRound(kind, of))
	}
	server, l1 := r.median("server"), r.median("L1")
	base := r.BaselineGiven
	if l1 != nil {
		base = l1.CPUPerMillion
	}
	if server != nil && base > 0 {
		r.RatioToL1 = server.CPUPerMillion / base
	}
	if alone, beside := r.median("alone"), r.median("beside"); alone != nil && beside != nil && alone.Latency.P99 > 0 {
		r.P99Ratio = beside.Latency.P99 / alone.Latency.P99
	}
}

func (r *Report) median(kind string) *Round {
	for i := range r.Medians {
		if r.Medians[i].Kind == kind {
			return &r.Medians[i]
		}
	}
	return nil
}

func medianRound(kind string, of []Round) Round {
	m := of[0]
	m.Kind, m.Samples, m.Percentiles = kind, nil, nil
	for _, field := range []func(*Round) *float64{
		func(r *Round) *float64 { return &r.Seconds },
		func(r *Round) *float64 { return &r.PerSecond },
		func(r *Round) *float64 { return &r.Latency.P50 },
		func(r *Round) *float64 { return &r.Latency.P99 },
		func(r *Round) *float64 { return &r.Latency.P999 },
		func(r *Round) *float64 { return &r.Latency.Max },
		func(r *Round) *float64 { return &r.FrameBytes },
		func(r *Round) *float64 { return &r.PerRead },
		func(r *Round) *float64 { return &r.CPUUser },
		func(r *Round) *float64 { return &r.CPUSystem },
		func(r *Round) *float64 { return &r.CPUPerMillion },
		func(r *Round) *float64 { return &r.ToolCPU },
		func(r *Round) *float64 { return &r.ToolPerMil },
		func(r *Round) *float64 { return &r.ToolBusiest },
		func(r *Round) *float64 { return &r.SentLate },
	} {
		values := make([]float64, len(of))
		for i := range of {
			values[i] = *field(&of[i])
		}
		*field(&m) = median(values)
	}
	for _, field := range []func(*Round) *uint64{
		func(r *Round) *uint64 { return &r.Lost },
		func(r *Round) *uint64 { return &r.Duplicated },
		func(r *Round) *uint64 { return &r.Reordered },
		func(r *Round) *uint64 { return &r.Strays },
		func(r *Round) *uint64 { return &r.Unacked },
		func(r *Round) *uint64 { return &r.BadAcks },
		func(r *Round) *uint64 { return &r.Failures },
	} { // what went wrong once did go wrong
		sum := uint64(0)
		for i := range of {
			sum += *field(&of[i])
		}
		*field(&m) = sum
	}
	return m
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// write prints the report for people.
func (r *Report) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s, %s, %d connections\n", r.Scenario, r.Dialect, r.Shape, r.Connections)
	if len(r.Rounds) > 0 {
		r.writeRounds(w)
	}
	if r.RatioToL1 > 0 {
		fmt.Fprintf(w, "server CPU per delivery: %.2f x L1\n", r.RatioToL1)
	}
	if r.P99Ratio > 0 {
		fmt.Fprintf(w, "p99 of the small rooms beside the big one: %.2f x alone\n", r.P99Ratio)
	}
	if m := r.Memory; m != nil && r.Scenario == "empty" {
		fmt.Fprintf(w, "server RSS: %.1f MiB, peak %.1f MiB, %d threads\n", mib(m.Empty), mib(m.Peak), m.Threads)
	} else if m != nil {
		r.writeMemory(w, m)
	}
	if a := r.Allocs; a != nil {
		fmt.Fprintf(w, "allocations per delivery: %.3f; per publish: %.1f in the small room, %.1f in the large one\n", a.PerDelivery, a.PerPublish, a.PerPublishLarge)
	}
	if f := r.Flat; f != nil {
		fmt.Fprintf(w, "server RSS is flat: at most %.1f MiB in the second quarter of the run, %.1f MiB in its second half (allowed: x %.2f + %.0f MiB)\n",
			mib(f.SecondQuarter), mib(f.SecondHalf), flatFactor, mib(flatKiB))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	wrong := Round{}
	for _, round := range r.Rounds {
		wrong.Lost += round.Lost
		wrong.Duplicated += round.Duplicated
		wrong.Reordered += round.Reordered
		wrong.Strays += round.Strays
		wrong.Unacked += round.Unacked
		wrong.BadAcks += round.BadAcks
		wrong.Failures += round.Failures
	}
	switch {
	case wrong.wrong() > 0:
		fmt.Fprintf(w, "WRONG: %d lost, %d duplicated, %d reordered, %d strays, %d unacknowledged, %d bad acknowledgements, %d failures\n",
			wrong.Lost, wrong.Duplicated, wrong.Reordered, wrong.Strays, wrong.Unacked, wrong.BadAcks, wrong.Failures)
	case !r.Failed && len(r.Rounds) > 0:
		fmt.Fprintln(w, "verified: nothing lost, duplicated, reordered or refused")
	}
	for _, e := range r.Errors {
		fmt.Fprintf(w, "ERROR: %s\n", e)
	}
}

func (r *Report) writeRounds(w io.Writer) {
	what, each := "deliveries/s", "CPU s/M"
	switch r.Scenario {
	case "acks":
		what, each = "acks/s", "CPU µs/ack"
	case "connect", "idle":
		what, each = "connects/s", "CPU µs/conn"
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t%s\tp50 µs\tp99\tp99.9\tmax\t%s\tuser s\tsys s\ttool s/M\tper read\tlate µs\tB/frame\t\n", what, each)
	line := func(name string, o *Round) {
		cpu := "-\t-\t-"
		if o.CPUUser+o.CPUSystem > 0 {
			cpu = fmt.Sprintf("%.2f\t%.2f\t%.2f", o.CPUPerMillion, o.CPUUser, o.CPUSystem)
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t%.2f\t%.2f\t%.0f\t%.0f\t\n", name, o.PerSecond, o.Latency.P50,
			o.Latency.P99, o.Latency.P999, o.Latency.Max, cpu, o.ToolPerMil, o.PerRead, o.SentLate, o.FrameBytes)
	}
	for i := range r.Rounds {
		line(r.Rounds[i].Kind, &r.Rounds[i])
	}
	if len(r.Rounds) > len(r.Medians) {
		for i := range r.Medians {
			line("median "+r.Medians[i].Kind, &r.Medians[i])
		}
	}
	t.Flush()
}

func (r *Report) writeMemory(w io.Writer, m *Memory) {
	fmt.Fprintf(w, "server RSS: empty %.1f MiB, connected %.1f MiB, after holding %.1f MiB, after leaving %.1f MiB, peak %.1f MiB, %d threads\n",
		mib(m.Empty), mib(m.Connected), mib(m.After), mib(m.Left), mib(m.Peak), m.Threads)
	fmt.Fprintf(w, "RSS per connection: %.2f KiB, at the peak %.2f KiB; server CPU while holding: %.1f %%\n", m.PerConnection, m.PeakPerConnection, m.HoldCPU)
	for i, wave := range m.Waves {
		fmt.Fprintf(w, "wave %d: held %.1f MiB, left %.1f MiB, peak %.1f MiB\n", i+1, mib(wave.Held), mib(wave.Left), mib(wave.Peak))
	}
}

func mib(kib int64) float64 { return float64(kib) / 1024 }

// document is what --json writes and --baseline reads.
type document struct {
	Runs    []*Report `json:"runs"`
	Bench   *Bench    `json:"bench,omitempty"`
	Cluster *Cluster  `json:"cluster,omitempty"`
}

func writeJSON(name string, stdout io.Writer, d *document) error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	b = append(b, '\n')
	if name == "-" {
		_, err = stdout.Write(b)
		return err
	}
	return os.WriteFile(name, b, 0o644)
}

// baselineFrom reads L1's CPU seconds per million: a number, or a report that has L1 in it.
func baselineFrom(s string) (float64, error) {
	var v float64
	if n, err := fmt.Sscanf(s, "%g", &v); n == 1 && err == nil && !strings.Contains(s, ".json") {
		return v, nil
	}
	b, err := os.ReadFile(s)
	if err != nil {
		return 0, fmt.Errorf("read --baseline: %w", err)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return 0, fmt.Errorf("read --baseline %s: %w", s, err)
	}
	for _, r := range d.Runs {
		if l1 := r.median("L1"); l1 != nil && l1.CPUPerMillion > 0 {
			return l1.CPUPerMillion, nil
		}
	}
	return 0, fmt.Errorf("read --baseline %s: no L1 in it", s)
}
