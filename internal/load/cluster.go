package load

import (
	"fmt"
	"strings"
)

// Cluster is the outcome of the scenario cluster.
type Cluster struct {
	Machine Machine      `json:"machine"`
	Columns []string     `json:"columns"` // who was loaded
	Rows    []ClusterRow `json:"rows"`
}

// ClusterRow is one figure of one load, for each column.
type ClusterRow struct {
	Load   string   `json:"load"`
	Figure string   `json:"figure"`
	Values []string `json:"values"`
}

// RedisUse is what Redis did for each message that was published: its CPU time in µs, commands, and
// bytes to and from it. What nodes ask of it beside that is included.
type RedisUse struct {
	Micros   float64 `json:"cpuMicros"`
	Commands float64 `json:"commands"`
	BytesIn  float64 `json:"bytesIn"`
	BytesOut float64 `json:"bytesOut"`
}

// measured is whose CPU time and memory a round has: those of a server, or of all nodes of a cluster
// together, and of their Redis by itself.
type measured struct {
	pids  []int
	redis string // host:port; empty: there is none
}

// table is the Markdown between the marks.
func (c *Cluster) table() string {
	var w strings.Builder
	w.WriteString(c.Machine.line())
	fmt.Fprintf(&w, "| load | | %s |\n|---|---|%s\n", strings.Join(c.Columns, " | "), strings.Repeat("---|", len(c.Columns)))
	load := ""
	for _, r := range c.Rows {
		name := r.Load
		if name == load {
			name = ""
		}
		load = r.Load
		fmt.Fprintf(&w, "| %s | %s | %s |\n", name, r.Figure, strings.Join(r.Values, " | "))
	}
	return w.String()
}
