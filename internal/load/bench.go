package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Bench is the outcome of the scenario bench.
type Bench struct {
	Machine Machine `json:"machine"`
	Rows    []Row   `json:"rows"`
}

// Machine is where and of what a Bench was measured.
type Machine struct {
	Date    string  `json:"date"`
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Kernel  string  `json:"kernel"`
	Go      string  `json:"go"`
	Commit  string  `json:"commit"`
	Load    float64 `json:"loadAverageBefore"` // of one minute: what else the machine did
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // that all took
}

// Row is one target.
type Row struct {
	ID       string `json:"id"`
	What     string `json:"what"`
	Target   string `json:"target"`
	Measured string `json:"measured"`
	Reached  bool   `json:"reached"`
}

// line is what stands above a table.
func (m *Machine) line() string {
	return fmt.Sprintf("%s, commit %s: %s, %d cores, Linux %s, %s; %d rounds in %.0f s; load average before: %.2f.\n\n",
		m.Date, m.Commit, m.CPU, m.Cores, m.Kernel, m.Go, m.Rounds, m.Seconds, m.Load)
}

// table is the Markdown between the marks.
func (b *Bench) table() string {
	var w strings.Builder
	w.WriteString(b.Machine.line())
	w.WriteString("| | what | target | measured | reached |\n|---|---|---|---|---|\n")
	for _, r := range b.Rows {
		reached := "**no**"
		if r.Reached {
			reached = "yes"
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", r.ID, r.What, r.Target, r.Measured, reached)
	}
	return w.String()
}

// marks are between what the table that a command makes stands in a page.
func marks(command string) (begin, end []byte) {
	return []byte("<!-- made by " + command + ": begin -->\n"), []byte("<!-- made by " + command + ": end -->\n")
}

// putInto replaces what is between the marks of a page.
func putInto(name, command, table string) error {
	begin, end := marks(command)
	page, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	before, rest, ok1 := bytes.Cut(page, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok1 || !ok2 {
		return errors.New("write the table: " + name + " does not have the marks that the table stands between")
	}
	page = slices.Concat(before, begin, []byte("\n"+table+"\n"), end, after)
	return os.WriteFile(name, page, 0o644)
}

// spread is a figure that was measured in several rounds.
type spread struct{ low, mid, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	return spread{slices.Min(values), median(values), slices.Max(values)}
}

// format prints the median, and the range if there is one.
func (s spread) format(verb string) string {
	mid := fmt.Sprintf(verb, s.mid)
	low, high := fmt.Sprintf(verb, s.low), fmt.Sprintf(verb, s.high)
	if low == high {
		return mid
	}
	return mid + " (" + low + "–" + high + ")"
}

// of takes a figure from every round of a kind.
func (r *Report) of(kind string, figure func(*Round) float64) (values []float64) {
	for i := range r.Rounds {
		if r.Rounds[i].Kind == kind {
			values = append(values, figure(&r.Rounds[i]))
		}
	}
	return values
}

// compare divides a figure of each round of one kind by that of the round of another that was measured
// next to it, so that a machine that is faster at one time than at another does not matter.
func (r *Report) compare(kind, with string, figure func(*Round) float64) spread {
	a, b := r.of(kind, figure), r.of(with, figure)
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return spreadOf(ratios)
}

func cpuEach(r *Round) float64    { return r.CPUPerMillion }
func eachSecond(r *Round) float64 { return r.PerSecond }
func p99Millis(r *Round) float64  { return r.Latency.P99 / 1000 }
