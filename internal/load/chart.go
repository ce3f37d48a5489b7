package load

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
)

// charts is a page with the report as text and as SVG: the distribution of latencies, and what was done
// and used over time. It refers to nothing outside itself.
func charts(d *document) []byte {
	var w bytes.Buffer
	w.WriteString(pageHead)
	if d.Bench != nil {
		fmt.Fprintf(&w, "<pre>%s</pre>\n", html.EscapeString(d.Bench.table()))
	}
	for _, r := range d.Runs {
		fmt.Fprintf(&w, "<h2>%s: %s</h2>\n<p>%s, %d connections</p>\n<div>\n", html.EscapeString(r.Scenario),
			html.EscapeString(r.Shape), html.EscapeString(r.Dialect), r.Connections)
		for _, p := range r.plots() {
			p.write(&w)
		}
		var text bytes.Buffer
		r.write(&text)
		fmt.Fprintf(&w, "</div>\n<pre>%s</pre>\n", html.EscapeString(text.String()))
	}
	w.WriteString("</html>\n")
	return w.Bytes()
}

const pageHead = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>letshare-server load</title>
<style>
:root { color-scheme: light dark; font: 14px system-ui, sans-serif }
body { margin: 2em; max-width: 1400px }
svg { width: 440px; max-width: 100%; margin: 0 1em 1em 0 }
svg text { font: 11px system-ui, sans-serif; fill: currentColor }
svg .grid { stroke: currentColor; stroke-opacity: .15 }
svg polyline { fill: none; stroke-width: 1.4 }
pre { overflow: auto; font-size: 12px }
</style>
`

// plot is a chart of lines over a common axis.
type plot struct {
	title  string
	unit   string // of y
	lines  []line
	rare   bool // x is a percentile, drawn so that each further nine takes as much room
	powers bool // each power of ten of y takes as much room
}

type line struct {
	name   string
	points [][2]float64
}

// plots are the charts of a report; those about which nothing is known are left out.
func (r *Report) plots() (plots []*plot) {
	latency := &plot{title: "latency by percentile", unit: "µs", rare: true, powers: true}
	rate := &plot{title: "done per second over time", unit: "/s"}
	cpu := &plot{title: "CPU of the server over time", unit: "%"}
	tool := &plot{title: "CPU of the tool over time", unit: "%"}
	rss := &plot{title: "RSS of the server over time", unit: "MiB"}
	for i := range r.Rounds {
		round := &r.Rounds[i]
		add := func(p *plot, n int, at func(int) (x, y float64)) {
			l := line{name: round.Kind}
			for i := range n {
				x, y := at(i)
				l.points = append(l.points, [2]float64{x, y})
			}
			// A line of zeros is something that was not read.
			if slices.ContainsFunc(l.points, func(p [2]float64) bool { return p[1] > 0 }) {
				p.lines = append(p.lines, l)
			}
		}
		s := round.Samples
		add(latency, len(round.Percentiles), func(i int) (x, y float64) { return round.Percentiles[i].Percent, round.Percentiles[i].Micros })
		add(rate, len(s), func(i int) (x, y float64) { return s[i].At, s[i].PerSecond })
		add(cpu, len(s), func(i int) (x, y float64) { return s[i].At, s[i].CPU })
		add(tool, len(s), func(i int) (x, y float64) { return s[i].At, s[i].ToolCPU })
		add(rss, len(s), func(i int) (x, y float64) { return s[i].At, mib(s[i].RSS) })
	}
	for _, p := range []*plot{latency, rate, cpu, tool, rss} {
		if len(p.lines) > 0 {
			plots = append(plots, p)
		}
	}
	return plots
}

// The size of a chart and of its frame.
const (
	plotWidth, plotHeight   = 440, 260
	plotLeft, plotRight     = 56, 12
	plotTop, plotBottom     = 34, 44
	plotInnerX, plotInnerY  = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	mostNines               = 7
	smallestShare, smallest = 1e-9, 1e-3
)

var plotColors = []string{"#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#eab308", "#14b8a6", "#64748b"}

// placeX maps x to 0…1 of the width, as far as the largest x.
func (p *plot) placeX(x, most float64) float64 {
	if !p.rare {
		return x / math.Max(most, smallest)
	}
	nines := func(percent float64) float64 { return -math.Log10(math.Max(1-percent/100, smallestShare)) }
	return math.Min(nines(x)/math.Max(nines(most), 1), 1)
}

func (p *plot) placeY(y, least, most float64) float64 {
	if !p.powers {
		return y / math.Max(most, smallest)
	}
	return (math.Log10(math.Max(y, least)) - math.Log10(least)) / math.Max(math.Log10(most)-math.Log10(least), smallest)
}

func (p *plot) write(w *bytes.Buffer) {
	mostX, least, most := 0., math.Inf(1), 0.
	for _, l := range p.lines {
		for _, at := range l.points {
			if !p.rare || at[0] < 100 { // the largest value of all is drawn at the last percentile
				mostX = math.Max(mostX, at[0])
			}
			if at[1] > 0 {
				least = math.Min(least, at[1])
			}
			most = math.Max(most, at[1])
		}
	}
	x := func(v float64) float64 { return plotLeft + plotInnerX*p.placeX(v, mostX) }
	var y func(float64) float64
	var ticksY []float64
	if p.powers {
		least, most = math.Pow10(int(math.Floor(math.Log10(least)))), math.Pow10(int(math.Ceil(math.Log10(most))))
		for v := least; v <= most*1.01; v *= 10 {
			ticksY = append(ticksY, v)
		}
	} else {
		step := niceStep(most)
		most = math.Max(math.Ceil(most/step), 1) * step
		for v := 0.; v <= most*1.01; v += step {
			ticksY = append(ticksY, v)
		}
	}
	y = func(v float64) float64 { return plotTop + plotInnerY*(1-p.placeY(v, least, most)) }

	fmt.Fprintf(w, `<svg viewBox="0 0 %d %d" role="img"><title>%s</title><text x="%d" y="14">%s, %s</text>`, plotWidth, plotHeight,
		html.EscapeString(p.title), plotLeft, html.EscapeString(p.title), p.unit)
	for _, v := range ticksY {
		fmt.Fprintf(w, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%[3]f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			plotLeft, plotWidth-plotRight, y(v), plotLeft-6, y(v)+4, shortNumber(v))
	}
	tick := func(v float64, text string) {
		fmt.Fprintf(w, `<line class="grid" x1="%.1f" x2="%[1]f" y1="%d" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`,
			x(v), plotTop, plotHeight-plotBottom, x(v), plotHeight-plotBottom+14, text)
	}
	if p.rare {
		tick(0, "0")
		for nines := 1; nines <= mostNines; nines++ {
			if v := 100 - math.Pow10(2-nines); v <= mostX {
				tick(v, strconv.FormatFloat(v, 'f', max(nines-2, 0), 64)+" %")
			}
		}
	} else {
		for v, step := 0., niceStep(mostX); v <= mostX*1.001; v += step {
			tick(v, shortNumber(v)+" s")
		}
	}
	var names []string
	for _, l := range p.lines {
		if !slices.Contains(names, l.name) {
			names = append(names, l.name)
		}
		fmt.Fprintf(w, `<polyline stroke="%s" points="`, plotColors[slices.Index(names, l.name)%len(plotColors)])
		for _, at := range l.points {
			fmt.Fprintf(w, "%.1f,%.1f ", x(at[0]), y(at[1]))
		}
		w.WriteString(`"/>`)
	}
	at := plotLeft
	for i, name := range names {
		fmt.Fprintf(w, `<text x="%d" y="%d" style="fill:%s">%s</text>`, at, plotHeight-8, plotColors[i%len(plotColors)], html.EscapeString(name))
		at += 7*len(name) + 14
	}
	w.WriteString("</svg>\n")
}

// niceStep divides the way to most into three to eight steps of 1, 2 or 5 times a power of ten.
func niceStep(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow10(int(math.Floor(math.Log10(most))))
	switch lead := most / power; {
	case lead < 1.5:
		return power / 5
	case lead < 3.5:
		return power / 2
	case lead < 8:
		return power
	}
	return 2 * power
}

// shortNumber has three digits and a letter for thousands and millions.
func shortNumber(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + "M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 3, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
