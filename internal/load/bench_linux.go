package load

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench measures the targets one after the other. What is compared is measured in turns: one round of
// each, then the next round of each.
type bench struct {
	o      *options
	doc    *document
	text   io.Writer
	stderr io.Writer

	rounds   int
	duration time.Duration // of a round
	warmup   time.Duration
	settle   time.Duration
	hold     time.Duration // of idle connections
	size     func(int) int // of rooms, and numbers of them

	reports []*Report
	waves   struct {
		server *ownServer
		memory []*Memory // in each
		left   time.Time // when the last clients did
	}
}

// forgotten is how long after its publishing a message is gone: 240 s and a sweep.
const forgotten = 4*time.Minute + 15*time.Second

func runBench(ctx context.Context, o *options, doc *document, text, stderr io.Writer) []*Report {
	b := &bench{o: o, doc: doc, text: text, stderr: stderr, rounds: o.rounds, duration: 2500 * time.Millisecond,
		warmup: 500 * time.Millisecond, settle: 2 * time.Second, hold: 6 * time.Second, size: func(n int) int { return n }}
	if o.quick {
		b.duration, b.warmup, b.settle, b.hold = 100*time.Millisecond, 20*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
		b.size = func(n int) int { return max(n/100, min(n, 4)) }
	}
	start := time.Now()
	doc.Bench.Machine = thisMachine(o.commit)
	doc.Bench.Machine.Rounds = b.rounds
	defer func() {
		if b.waves.server != nil {
			b.waves.server.stop()
		}
	}()
	for _, section := range []struct {
		what string
		run  func(context.Context, *Report) error
	}{
		{"P15: the first clients come, talk and leave", b.wave},
		{"P1, P3: memory of idle connections", b.idle},
		{"P4, P5: one room of 1,000", b.bigRoom},
		{"P6: 200 rooms of 50", b.manyRooms},
		{"P7: small rooms beside a big one", b.fairness},
		{"P15: the second ones, after the first are forgotten", b.wave},
		{"P8: acknowledgements", b.acks},
		{"P9: connections", b.connects},
		{"P10: latency at a low rate", b.latency},
		{"P11: allocations", b.allocs},
		{"P14: growth", b.growth},
		{"P15: the third ones", b.wave},
	} {
		r := &Report{Scenario: "bench", Dialect: "all", Shape: section.what}
		err := section.run(ctx, r)
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		if err != nil {
			r.problem("%v", err)
		}
		r.summarize()
		r.write(text)
		b.reports = append(b.reports, r)
		if ctx.Err() != nil {
			break
		}
	}
	doc.Runs = append(doc.Runs, b.reports...)
	doc.Bench.Machine.Seconds = time.Since(start).Seconds()
	fmt.Fprintf(text, "\n%s", doc.Bench.table())
	return b.reports
}

func (b *bench) row(id, what, target, measured string, reached bool) {
	b.doc.Bench.Rows = append(b.doc.Bench.Rows, Row{id, what, target, measured, reached})
}

// loads are options for one server and for the floor.
type loads struct {
	b                           *bench
	ably, packed, letshare, low *options
	frame                       int // bytes of a delivery in Ably's JSON, which L1 sends too
}

// with runs f with a server and a floor of its own.
func (b *bench) with(ctx context.Context, r *Report, f func(*loads) error) error {
	return b.withProfiles(ctx, r, false, f)
}

func (b *bench) withProfiles(ctx context.Context, r *Report, profiles bool, f func(*loads) error) error {
	server, err := startOwn(ctx, b.o.serverCommand(), b.o.env, profiles)
	if err != nil {
		return err
	}
	defer server.stop()
	return b.o.onFloor(ctx, b.stderr, func(low *options) error {
		l := &loads{b: b, low: low, ably: b.options("ably"), packed: b.options("ably"), letshare: b.options("letshare")}
		l.packed.format = "msgpack"
		for _, o := range []*options{l.ably, l.packed, l.letshare} {
			if err := server.use(o); err != nil {
				return err
			}
		}
		l.letshare.echo = false
		if l.frame, err = l.ably.probe(ctx, r); err != nil {
			return err
		}
		return f(l)
	})
}

func (b *bench) options(dialect string) *options {
	o := *b.o
	o.dialect, o.format, o.echo, o.deliveries = dialect, "json", true, 0
	o.settle, o.duration = b.settle, b.hold
	return &o
}

// turn is what one round does once.
type turn struct {
	kind string
	run  func(ctx context.Context, kind string, r *Report) (Round, error)
}

func (b *bench) take(ctx context.Context, r *Report, turns ...turn) error {
	for range b.rounds {
		for _, t := range turns {
			round, err := t.run(ctx, t.kind, r)
			if err != nil {
				return fmt.Errorf("%s: %w", t.kind, err)
			}
			r.Rounds = append(r.Rounds, round)
		}
	}
	return nil
}

func (b *bench) server(kind string, o *options, groups ...groupSpec) turn {
	return turn{kind, func(ctx context.Context, kind string, r *Report) (Round, error) {
		if !groups[0].acks {
			return o.serverRound(ctx, kind, o.spec(groups...), b.duration, b.warmup, r)
		}
		alone := *o
		alone.echo = false
		spec := alone.spec(groups...)
		spec.join = o.dialect == "floor" // it has nobody outside of rooms
		return o.serverRound(ctx, kind, spec, b.duration, b.warmup, r)
	}}
}

func (b *bench) l1(kind string, l *loads, group groupSpec) turn {
	return turn{kind, func(ctx context.Context, kind string, r *Report) (Round, error) {
		return l.ably.baselineRound(ctx, kind, group, l.frame, b.duration, b.warmup, r, b.stderr)
	}}
}

func (b *bench) bigRoom(ctx context.Context, r *Report) error {
	one := groupSpec{name: "room", rooms: 1, members: b.size(1000), publishers: 1, inflight: 1}
	many := one
	many.inflight = 16
	if err := b.with(ctx, r, func(l *loads) error {
		return b.take(ctx, r, b.l1("L1", l, one), b.server("ably", l.ably, one), b.server("letshare", l.letshare, one), b.server("floor", l.low, one),
			b.server("ably 16", l.ably, many), b.server("letshare 16", l.letshare, many), b.server("floor 16", l.low, many))
	}); err != nil {
		return err
	}
	ably, letshare := r.compare("ably", "L1", cpuEach), r.compare("letshare", "L1", cpuEach)
	b.row("P4", "CPU per delivery, room of 1,000, one message at a time", "≤ 1.2 × L1 (1.05)",
		fmt.Sprintf("Ably %s ×, LetShare %s ×; L1 %s µs", ably.format("%.2f"), letshare.format("%.2f"), spreadOf(r.of("L1", cpuEach)).format("%.1f")),
		max(ably.mid, letshare.mid) <= 1.2)
	ably, letshare = r.compare("ably 16", "L1", cpuEach), r.compare("letshare 16", "L1", cpuEach)
	b.row("P5", "CPU per delivery, the same room, 16 messages in flight", "≤ 0.25 × L1 (0.13)",
		fmt.Sprintf("Ably %s ×, LetShare %s ×; %s deliveries/s", ably.format("%.2f"), letshare.format("%.2f"), spreadOf(r.of("ably 16", eachSecond)).format("%.0f")),
		max(ably.mid, letshare.mid) <= 0.25)
	low, max16 := r.compare("ably", "floor", cpuEach), r.compare("ably 16", "floor 16", cpuEach)
	b.row("F1", "the same beside a featureless server", "≤ 1.2 × one at a time, ≤ 0.35 × with 16 in flight (0.2)",
		fmt.Sprintf("%s ×, %s ×", low.format("%.2f"), max16.format("%.2f")), low.mid <= 1.2 && max16.mid <= 0.35)
	return nil
}

func (b *bench) manyRooms(ctx context.Context, r *Report) error {
	group := groupSpec{name: "rooms", rooms: b.size(200), members: 50, publishers: 1, inflight: 1}
	if err := b.with(ctx, r, func(l *loads) error {
		most, err := b.l1("L1 max", l, group).run(ctx, "L1 max", r)
		if err != nil {
			return fmt.Errorf("L1's maximum: %w", err)
		}
		r.Rounds = append(r.Rounds, most)
		group.rate = float64(most.Published) / most.Seconds / 2
		r.Shape += fmt.Sprintf(", %.0f messages/s", group.rate)
		return b.take(ctx, r, b.l1("L1", l, group), b.server("ably", l.ably, group), b.server("letshare", l.letshare, group), b.server("floor", l.low, group))
	}); err != nil {
		return err
	}
	ably, letshare := r.compare("ably", "L1", cpuEach), r.compare("letshare", "L1", cpuEach)
	b.row("P6", "CPU per delivery, 200 rooms of 50, at half of L1's maximum", "≤ 1.25 × L1 (1.05)",
		fmt.Sprintf("Ably %s ×, LetShare %s ×; %.0f deliveries/s, L1 %s µs", ably.format("%.2f"), letshare.format("%.2f"), median(r.of("ably", eachSecond)),
			spreadOf(r.of("L1", cpuEach)).format("%.1f")), max(ably.mid, letshare.mid) <= 1.25)
	low := r.compare("ably", "floor", cpuEach)
	b.row("F2", "the same beside a featureless server", "≤ 1.3 ×", low.format("%.2f")+" ×", low.mid <= 1.3)
	return nil
}

func (b *bench) fairness(ctx context.Context, r *Report) error {
	small := groupSpec{name: "rooms", rooms: b.size(100), members: 10, publishers: 1, rate: 500, inflight: 1}
	big := groupSpec{name: "big", rooms: 1, members: b.size(5000), publishers: 1, inflight: 1}
	if err := b.with(ctx, r, func(l *loads) error {
		return b.take(ctx, r, b.server("ably alone", l.ably, small), b.server("ably beside", l.ably, small, big),
			b.server("letshare alone", l.letshare, small), b.server("letshare beside", l.letshare, small, big))
	}); err != nil {
		return err
	}
	var measured []string
	reached := true
	for _, d := range []struct{ name, kind string }{{"Ably", "ably"}, {"LetShare", "letshare"}} {
		p99 := spreadOf(r.of(d.kind+" beside", p99Millis))
		alone := median(r.of(d.kind+" alone", p99Millis))
		measured = append(measured, fmt.Sprintf("%s %s ms, alone %.1f ms", d.name, p99.format("%.1f"), alone))
		reached = reached && (p99.mid <= 10 || p99.mid <= 5*alone)
	}
	b.row("P7", "p99 of 100 rooms of 10 while a room of 5,000 is busy", "≤ 10 ms, or ≤ 5 × alone (2 ×)", strings.Join(measured, "; "), reached)
	return nil
}

func (b *bench) acks(ctx context.Context, r *Report) error {
	group := groupSpec{name: "publishers", rooms: 64, members: 1, publishers: 1, inflight: 1, acks: true}
	if err := b.with(ctx, r, func(l *loads) error {
		return b.take(ctx, r, b.server("floor", l.low, group), b.server("ably", l.ably, group), b.server("ably msgpack", l.packed, group))
	}); err != nil {
		return err
	}
	rate, cpu := r.compare("ably", "floor", eachSecond), r.compare("ably", "floor", cpuEach)
	packedRate, packedCPU := r.compare("ably msgpack", "floor", eachSecond), r.compare("ably msgpack", "floor", cpuEach)
	b.row("P8", "publish with ACK, 64 publishers, one at a time each", "≥ 0.75 × the featureless server's rate (1.0), ≤ 1.5 × its CPU",
		fmt.Sprintf("JSON %s × of %.0f/s, CPU %s × of %.1f µs; MessagePack %.2f ×, CPU %.2f ×", rate.format("%.2f"), median(r.of("floor", eachSecond)),
			cpu.format("%.2f"), median(r.of("floor", cpuEach)), packedRate.mid, packedCPU.mid),
		min(rate.mid, packedRate.mid) >= 0.75 && max(cpu.mid, packedCPU.mid) <= 1.5)
	return nil
}

func (b *bench) connects(ctx context.Context, r *Report) error {
	if err := b.with(ctx, r, func(l *loads) error {
		connect := func(o *options, attach bool) func(context.Context, string, *Report) (Round, error) {
			return func(ctx context.Context, kind string, r *Report) (Round, error) {
				with := *o
				with.connections, with.members, with.attach = b.size(5000), 10, attach
				return with.connectOnce(ctx, kind, r)
			}
		}
		return b.take(ctx, r, turn{"floor", connect(l.low, true)}, turn{"connected", connect(l.ably, false)}, turn{"attached", connect(l.ably, true)})
	}); err != nil {
		return err
	}
	connected, attached := spreadOf(r.of("connected", cpuEach)), spreadOf(r.of("attached", cpuEach))
	b.row("P9", "server CPU of upgrade and CONNECTED; with an ATTACH", "≤ 100 µs, ≤ 130 µs (60, 80)",
		fmt.Sprintf("%s µs, %s µs; %.0f/s", connected.format("%.0f"), attached.format("%.0f"), median(r.of("attached", eachSecond))),
		connected.mid <= 100 && attached.mid <= 130)
	low := r.compare("attached", "floor", cpuEach)
	b.row("F3", "the same with the ATTACH beside a featureless server", "≤ 2 ×", low.format("%.2f")+" ×", low.mid <= 2)
	return nil
}

func (b *bench) latency(ctx context.Context, r *Report) error {
	group := groupSpec{name: "rooms", rooms: b.size(200), members: 50, publishers: 1, rate: float64(b.size(400)), inflight: 1}
	if err := b.with(ctx, r, func(l *loads) error {
		return b.take(ctx, r, b.server("floor", l.low, group), b.server("ably", l.ably, group), b.server("letshare", l.letshare, group))
	}); err != nil {
		return err
	}
	ably, letshare, low := spreadOf(r.of("ably", p99Millis)), spreadOf(r.of("letshare", p99Millis)), spreadOf(r.of("floor", p99Millis))
	b.row("P10", "p99 of 400 messages/s over 200 rooms of 50", "≤ the best peer's; here ≤ the featureless server's",
		fmt.Sprintf("Ably %s ms, LetShare %s ms; featureless %s ms", ably.format("%.1f"), letshare.format("%.1f"), low.format("%.1f")),
		max(ably.mid, letshare.mid) <= low.mid)
	return nil
}

func (b *bench) allocs(ctx context.Context, r *Report) error {
	var per []string
	worst := 0.
	if err := b.withProfiles(ctx, r, true, func(l *loads) error {
		for _, d := range []struct {
			name string
			o    *options
		}{{"Ably JSON", l.ably}, {"MessagePack", l.packed}, {"LetShare", l.letshare}} {
			d.o.members, d.o.duration, d.o.warmup = max(b.size(1000), 2*smallRoom), b.duration, b.warmup
			if err := d.o.allocs(ctx, r); err != nil {
				return err
			}
			per = append(per, fmt.Sprintf("%s %.3f (and %.0f per publish)", d.name, r.Allocs.PerDelivery, r.Allocs.PerPublish))
			worst = max(worst, r.Allocs.PerDelivery)
		}
		return nil
	}); err != nil {
		return err
	}
	b.row("P11", "allocations per delivery, whole process, from rooms of 100 and of 1,000", "0, that is < 0.005", strings.Join(per, ", "), worst < 0.005)
	return nil
}

func (b *bench) growth(ctx context.Context, r *Report) error {
	few := groupSpec{name: "rooms", rooms: b.size(20), members: 50, publishers: 1, inflight: 1}
	many := few
	many.rooms = b.size(200)
	if err := b.with(ctx, r, func(l *loads) error {
		return b.take(ctx, r, b.l1("L1 of 1k", l, few), b.l1("L1 of 10k", l, many), b.server("ably of 1k", l.ably, few), b.server("ably of 10k", l.ably, many))
	}); err != nil {
		return err
	}
	ours, l1 := r.compare("ably of 10k", "ably of 1k", cpuEach), r.compare("L1 of 10k", "L1 of 1k", cpuEach)
	b.row("P14", "growth of CPU per delivery from 1,000 to 10,000 connections", "≤ 1.1 × L1's growth",
		fmt.Sprintf("%s, L1 %s", ours.format("%.2f"), l1.format("%.2f")), ours.mid <= 1.1*l1.mid)
	return nil
}

func (b *bench) idle(ctx context.Context, r *Report) error {
	per := map[string][]float64{}
	var empty, peak []float64
	for range b.rounds {
		for _, dialect := range []string{"ably", "letshare"} {
			o := b.options(dialect)
			o.own, o.connections, o.members, o.talk, o.waves, o.rate = true, b.size(10_000), 10, 0, 1, ""
			o.echo = dialect == "ably"
			one := &Report{Scenario: "idle", Dialect: o.dialectName()}
			// Something of the start is still to be given back.
			server, err := startOwn(ctx, o.serverCommand(), o.env, false)
			if err != nil {
				return err
			}
			if err = server.use(o); err == nil {
				if err = wait(ctx, b.settle); err == nil {
					err = o.idle(ctx, one)
				}
			}
			server.stop()
			if err != nil {
				return err
			}
			for i := range one.Rounds {
				one.Rounds[i].Kind = dialect
			}
			r.Rounds = append(r.Rounds, one.Rounds...)
			r.Notes = append(r.Notes, one.Notes...)
			r.Connections, r.Memory = one.Connections, one.Memory
			if one.Failed {
				r.Failed, r.Errors = true, append(r.Errors, one.Errors...)
			}
			per[dialect] = append(per[dialect], one.Memory.PerConnection)
			empty = append(empty, mib(one.Memory.Empty))
			peak = append(peak, one.Memory.PeakPerConnection)
		}
	}
	ably, letshare := spreadOf(per["ably"]), spreadOf(per["letshare"])
	b.row("P1", "RSS per idle connection, subscribed to one channel, of 10,000", "≤ 3.0 KiB (1.5)",
		fmt.Sprintf("Ably %s KiB, LetShare %s KiB; at the peak, while they come, %.1f KiB", ably.format("%.2f"), letshare.format("%.2f"), median(peak)),
		max(ably.mid, letshare.mid) <= 3)
	start := spreadOf(empty)
	b.row("P3", "RSS of the empty server", "≤ 18 MiB (12)", start.format("%.1f")+" MiB", start.mid <= 18)
	return nil
}

// wave is one of P15's: clients come, talk and leave, and what they said is forgotten before the next come.
func (b *bench) wave(ctx context.Context, r *Report) error {
	o := b.options("ably")
	o.connections, o.members, o.talk, o.rate = b.size(10_000), 10, 3, "5000"
	w := &b.waves
	if w.server == nil {
		server, err := startOwn(ctx, o.serverCommand(), o.env, false)
		if err != nil {
			return err
		}
		w.server, w.left = server, time.Now().Add(b.settle-forgotten)
	}
	if err := w.server.use(o); err != nil {
		return err
	}
	if rest := time.Until(w.left.Add(forgotten)); rest > 0 && !b.o.quick {
		if err := wait(ctx, rest); err != nil {
			return err
		}
	}
	rested := time.Since(w.left)
	if err := o.idle(ctx, r); err != nil {
		return err
	}
	w.memory, w.left = append(w.memory, r.Memory), time.Now()
	if len(w.memory) < 3 {
		return nil
	}
	first, last := w.memory[0], w.memory[2]
	more, peaks := mib(last.Empty-first.Empty), ratio(float64(last.Peak), float64(first.Peak))
	b.row("P15", "memory after 10,000 clients came, talked and left; three times", "≤ empty + 15 MiB; third peak ≤ 1.05 × the first",
		fmt.Sprintf("empty + %.1f MiB, %s after the second wave; third peak %.2f × of %.1f MiB", more, rested.Round(time.Second), peaks, mib(first.Peak)),
		more <= 15 && peaks <= 1.05)
	return nil
}

// thisMachine names the version as given, or as the build says.
func thisMachine(commit string) Machine {
	m := Machine{Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: "?", Commit: cmp.Or(commit, "?")}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range bytes.Lines(b) {
			if name, ok := bytes.CutPrefix(line, []byte("model name")); ok {
				m.CPU = strings.TrimSpace(strings.TrimLeft(string(name), "\t :"))
				break
			}
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(b), &m.Load)
	}
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		settings := map[string]string{}
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		if rev := settings["vcs.revision"]; rev != "" {
			m.Commit = rev[:min(len(rev), 12)]
			if settings["vcs.modified"] == "true" {
				m.Commit += " with changes"
			}
		}
	}
	return m
}
