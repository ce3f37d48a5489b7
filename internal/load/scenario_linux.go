package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"time"

	"letshare-server/internal/wire"
)

func runScenario(ctx context.Context, o *options, r *Report, stderr io.Writer) error {
	if o.own {
		server, err := startOwn(ctx, o.serverCommand(), o.env, o.scenario == "allocs")
		if err != nil {
			return err
		}
		defer server.stop()
		if err := server.use(o); err != nil {
			return err
		}
	}
	r.Shape = o.shape()
	switch o.scenario {
	case "empty":
		return o.empty(ctx, r)
	case "allocs":
		return o.allocs(ctx, r)
	case "idle":
		return o.idle(ctx, r)
	case "fanout":
		return o.fanout(ctx, r, stderr)
	case "mixed":
		return o.mixed(ctx, r)
	case "acks":
		return o.acks(ctx, r)
	case "connect":
		return o.connects(ctx, r)
	case "baseline":
		return o.baselines(ctx, r, stderr)
	}
	return fmt.Errorf("no scenario %q", o.scenario)
}

func (o *options) shape() string {
	pace := fmt.Sprintf("%d in flight", o.inflight)
	if o.rate != "" {
		pace = o.rate + " messages/s"
	}
	rooms := fmt.Sprintf("%d x %d, %d publishing in each, %s, %d-byte frames", o.rooms, o.members, o.publishers, pace, o.bytes)
	switch o.scenario {
	case "idle":
		return fmt.Sprintf("rooms of %d, %d messages each before, held for %v", o.members, o.talk, o.duration)
	case "acks":
		return fmt.Sprintf("%d publishers, %d in flight each, %d-byte frames", o.publishers, o.inflight, o.bytes)
	case "empty":
		return fmt.Sprintf("%v after its start", o.settle)
	case "allocs":
		return fmt.Sprintf("rooms of %d and of %d, %d-byte frames", smallRoom, o.members, o.bytes)
	case "connect":
		if o.attach {
			return fmt.Sprintf("%d at a time, each entering a room", o.concurrency)
		}
		return fmt.Sprintf("%d at a time", o.concurrency)
	case "mixed":
		return rooms + fmt.Sprintf("; beside 1 x %d, %d in flight", o.bigMembers, o.bigInflight)
	}
	return rooms
}

// spec is the engine for the server with these groups.
func (o *options) spec(groups ...groupSpec) engineSpec {
	now := time.Now()
	return engineSpec{
		addresses: o.addresses,
		host:      o.host,
		tls:       o.tls,
		dialect: func() dialect {
			if o.dialect == "floor" {
				return &floorDialect{echo: o.echo}
			}
			if o.dialect == "letshare" {
				return newLetshareDialect(o.token, o.secret, o.users, now)
			}
			format := wire.JSON
			if o.format == "msgpack" {
				format = wire.MsgPack
			}
			return &ablyDialect{format: format, key: o.key, echo: o.echo, namespace: o.namespace}
		},
		groups:      groups,
		join:        true,
		echo:        o.echo,
		loops:       o.loops,
		perSource:   o.perSource,
		concurrency: o.concurrency,
		timeout:     o.timeout,
		frameBytes:  o.bytes,
	}
}

func (o *options) group(rate float64) groupSpec {
	return groupSpec{name: "rooms", rooms: o.rooms, members: o.members, publishers: o.publishers, rate: rate, inflight: o.inflight}
}

// opened makes an engine and connects it. It is left after an error.
func opened(ctx context.Context, spec engineSpec) (*engine, error) {
	n := 0
	for _, g := range spec.groups {
		n += g.rooms * g.members
	}
	if err := raiseFiles(n); err != nil {
		return nil, err
	}
	e := newEngine(spec)
	if err := e.connect(ctx); err != nil {
		e.leave()
		return nil, err
	}
	return e, nil
}

// measure publishes for warmup, which is only verified, and then for d, which is measured. The
// process's CPU time is taken from before the first message until the last has been delivered.
func measure(ctx context.Context, e *engine, kind string, of measured, warmup, d time.Duration, deliveries int64, r *Report) (Round, error) {
	if warmup > 0 {
		if err := e.publish(ctx, warmup, 0); err != nil {
			return Round{}, err
		}
	}
	before := e.tally()
	e.restart()
	server, err := of.usage()
	if err != nil {
		return Round{}, err
	}
	redis, err := redisUsage(ctx, of.redis)
	if err != nil {
		return Round{}, err
	}
	if deliveries > 0 {
		d = mostDuration
	}
	samples := startSamples(e, of)
	own, start := ownUsage(), e.now()
	err = e.publish(ctx, d, deliveries)
	round := Round{Kind: kind, Samples: samples.end()}
	if err != nil {
		return Round{}, err
	}
	used, err := of.usage()
	if err != nil {
		return Round{}, err
	}
	used = used.since(server)
	round.CPUUser, round.CPUSystem = used.user.Seconds(), used.sys.Seconds()
	mine := ownUsage().since(own)
	round.ToolCPU, round.ToolUser = mine.total().Seconds(), mine.user.Seconds()
	after := e.tally()

	a, b := &after.groups[0], &before.groups[0]
	last := a.last
	all := uint64(0) // all groups cost CPU, the first one is reported
	for g := range after.groups {
		all += after.groups[g].deliveries - before.groups[g].deliveries
	}
	round.Published = a.published - b.published
	round.Expected = a.expected - b.expected
	round.Deliveries = a.deliveries - b.deliveries
	done := round.Deliveries
	if e.spec.groups[0].acks {
		done = a.acks - b.acks
		all = done
	}
	round.Seconds = float64(last-start) / 1e9
	round.PerSecond = ratio(float64(done), round.Seconds)
	round.Latency, round.Percentiles = a.latency.latency(), a.latency.curve()
	round.FrameBytes = ratio(float64(after.counts.frameBytes), float64(after.counts.frames))
	round.PerRead = ratio(float64(all), float64(after.counts.reads))
	round.CPUPerMillion = ratio((round.CPUUser+round.CPUSystem)*1e6, float64(all))
	round.ToolPerMil = ratio(round.ToolCPU*1e6, float64(all))
	round.SentLate = micros(after.lag)
	round.ToolBusiest = 100 * after.busiest
	round.check(&after)
	if last == 0 || done == 0 {
		r.problem("%s: nothing was delivered", kind)
	}
	if of.redis != "" {
		now, err := redisUsage(ctx, of.redis)
		if err != nil {
			return Round{}, err
		}
		round.Redis = now.since(redis, round.Published)
	}
	r.note(&round, after.errors)
	if late := after.lag; late > 10*time.Millisecond {
		r.Notes = append(r.Notes, fmt.Sprintf("%s: the tool sent up to %v late, which counts as latency: the machine is too busy", kind, late.Round(time.Millisecond)))
	}
	if after.busiest > 0.9 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s: a thread of the tool was busy for %.0f %% of the time: what comes per second may be "+
			"the tool's limit and not the server's (--loops gives it more threads); CPU per delivery is right all the same", kind, round.ToolBusiest))
	}
	if o := round.CPUUser + round.CPUSystem; len(of.pids) > 0 && o < 0.2 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s: only %.2f s of CPU time at a resolution of 0.01 s: measure longer", kind, o))
	}
	return round, nil
}

// mostDuration is that of a run which ends by itself.
const mostDuration = 24 * time.Hour

// check fills in what went wrong since the engine began.
func (o *Round) check(t *tally) {
	for _, g := range t.groups {
		if g.expected > g.deliveries {
			o.Lost += g.expected - g.deliveries
		}
		o.Duplicated += g.duplicated
		o.Reordered += g.reordered
	}
	o.Strays, o.Unacked, o.BadAcks, o.Failures, o.Pings = t.counts.strays, t.counts.unacked, t.counts.badAcks, t.counts.failures, t.counts.pings
}

// note makes a report fail by what is wrong in a round.
func (r *Report) note(o *Round, errs []string) {
	if o.wrong() > 0 {
		r.Failed = true
	}
	for _, e := range errs {
		r.problem("%s: %s", o.Kind, e)
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// serverRound opens the server's connections, measures, and closes them.
func (o *options) serverRound(ctx context.Context, kind string, spec engineSpec, d, warmup time.Duration, r *Report) (Round, error) {
	e, err := opened(ctx, spec)
	if err != nil {
		return Round{}, err
	}
	defer e.leave()
	r.Connections = max(r.Connections, e.conns)
	return measure(ctx, e, kind, o.measured(), warmup, d, o.deliveries, r)
}

// baselineRound measures L1, or L8 if batch is 8, with messages of so many bytes.
func (o *options) baselineRound(ctx context.Context, kind string, group groupSpec, frame int, d, warmup time.Duration, r *Report, stderr io.Writer) (round Round, err error) {
	bare := bareDialect{}
	_, frame = payloadFor(bare, "", frame)
	batch := max(group.batch, 1)
	server, err := startBaseline(ctx, o.self, stderr, "--frame", strconv.Itoa(frame), "--batch", strconv.Itoa(batch),
		"--echo="+strconv.FormatBool(o.echo))
	if err != nil {
		return Round{}, err
	}
	ended := false
	defer func() {
		if !ended {
			_, _ = server.end()
		}
	}()
	spec := o.spec(group)
	spec.addresses, spec.tls, spec.dialect, spec.frameBytes = []*net.TCPAddr{server.address}, nil, func() dialect { return bare }, frame
	e, err := opened(ctx, spec)
	if err != nil {
		return Round{}, err
	}
	defer e.leave()
	r.Connections = max(r.Connections, e.conns)
	writes := writeCalls(server.pid)
	round, err = measure(ctx, e, kind, measured{pids: []int{server.pid}}, warmup, d, 0, r)
	if err != nil {
		return Round{}, err
	}
	kernel := int64(-1)
	if writes >= 0 {
		kernel = writeCalls(server.pid) - writes
	}
	ended = true
	counts, err := server.end()
	if err != nil {
		return Round{}, err
	}
	round.WriteCalls, round.KernelWriteCalls = counts.Writes, kernel

	// The baseline is one only if it did exactly the writes it should.
	all := e.tally().groups[0]
	want := all.expected / uint64(batch)
	switch {
	case counts.Messages != all.published:
		r.problem("%s: %d messages were published, its server read %d", kind, all.published, counts.Messages)
	case counts.Writes != want:
		r.problem("%s: %d deliveries should take %d write calls, its server made %d", kind, all.expected, want, counts.Writes)
	case kernel >= 0 && (kernel < int64(want) || float64(kernel) > float64(want)*1.01+100):
		r.problem("%s: its server counted %d write calls, the kernel %d", kind, counts.Writes, kernel)
	}
	return round, nil
}

// onFloor runs f with options for a floor server that lives as long.
func (o *options) onFloor(ctx context.Context, stderr io.Writer, f func(*options) error) error {
	server, err := startBaseline(ctx, o.self, stderr, "--floor")
	if err != nil {
		return err
	}
	floor := *o
	floor.dialect, floor.addresses, floor.host, floor.pid = "floor", []*net.TCPAddr{server.address}, server.address.String(), server.pid
	err = f(&floor)
	if _, ended := server.end(); err == nil {
		err = ended
	}
	return err
}

func (o *options) fanout(ctx context.Context, r *Report, stderr io.Writer) error {
	rate, percent, err := o.messageRate()
	if err != nil {
		return err
	}
	if o.baseline != "" {
		if r.BaselineGiven, err = baselineFrom(o.baseline); err != nil {
			return err
		}
	}
	frame := 0
	if o.withBaseline || percent > 0 {
		if frame, err = o.probe(ctx, r); err != nil {
			return err
		}
	}
	if percent > 0 {
		if rate, err = o.share(ctx, percent, frame, r, stderr); err != nil {
			return err
		}
	}
	l1 := o.group(rate)
	l1.inflight = 1 // L1 is one message at a time, whatever the server gets
	for range o.rounds {
		if o.withBaseline {
			round, err := o.baselineRound(ctx, "L1", l1, frame, o.duration, o.warmup, r, stderr)
			if err != nil {
				return fmt.Errorf("L1: %w", err)
			}
			r.Rounds = append(r.Rounds, round)
		}
		round, err := o.serverRound(ctx, "server", o.spec(o.group(rate)), o.duration, o.warmup, r)
		if err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, round)
		if o.flat {
			r.checkFlat(&round)
		}
	}
	return nil
}

// probe learns the size of the server's deliveries from a small room.
func (o *options) probe(ctx context.Context, r *Report) (frame int, err error) {
	group := groupSpec{rooms: 1, members: 2, publishers: 1, inflight: 1}
	quiet := *o
	quiet.pid, quiet.measures, quiet.deliveries = 0, measured{}, 0
	round, err := quiet.serverRound(ctx, "probe", o.spec(group), 200*time.Millisecond, 0, r)
	if err != nil {
		return 0, err
	}
	if round.wrong() > 0 || round.Deliveries == 0 {
		return 0, errors.New("a first try with two connections did not work")
	}
	return int(math.Round(round.FrameBytes)), nil
}

// share is so many percent of the messages a second that L1 reaches in a closed loop.
func (o *options) share(ctx context.Context, percent float64, frame int, r *Report, stderr io.Writer) (float64, error) {
	group := o.group(0)
	group.inflight = 1
	most, err := o.baselineRound(ctx, "L1 max", group, frame, o.duration, o.warmup, r, stderr)
	if err != nil {
		return 0, fmt.Errorf("L1's maximum: %w", err)
	}
	rate := float64(most.Published) / most.Seconds * percent / 100
	r.Rounds = append(r.Rounds, most)
	r.Shape += fmt.Sprintf(" (%.0f/s)", rate)
	return rate, nil
}

func (o *options) baselines(ctx context.Context, r *Report, stderr io.Writer) error {
	rate, percent, err := o.messageRate()
	if err != nil {
		return err
	}
	if percent > 0 {
		if rate, err = o.share(ctx, percent, o.bytes, r, stderr); err != nil {
			return err
		}
	}
	for range o.rounds {
		l1 := o.group(rate)
		round, err := o.baselineRound(ctx, "L1", l1, o.bytes, o.duration, o.warmup, r, stderr)
		if err != nil {
			return fmt.Errorf("L1: %w", err)
		}
		r.Rounds = append(r.Rounds, round)
		l8 := o.group(0) // eight frames in a write need eight messages at once
		l8.inflight, l8.batch = 8, 8
		if round, err = o.baselineRound(ctx, "L8", l8, o.bytes, o.duration, o.warmup, r, stderr); err != nil {
			return fmt.Errorf("L8: %w", err)
		}
		r.Rounds = append(r.Rounds, round)
	}
	return nil
}

// serverCommand is the command line that runs a server of the same build.
func (o *options) serverCommand() []string { return []string{o.self[0], "serve"} }

// empty reads the memory of a server to which nobody is connected.
func (o *options) empty(ctx context.Context, r *Report) error {
	if err := wait(ctx, o.settle); err != nil {
		return err
	}
	now, err := processMemory(o.pid)
	r.Memory = &Memory{Empty: now.rss, Connected: now.rss, After: now.rss, Left: now.rss, Peak: now.peak, Threads: now.threads}
	return err
}

// smallRoom is the size of the room that a large one is compared with. Both have a goroutine for the
// fan-out, which rooms of up to 64 do without, so that what a publish costs by itself is the same in both,
// and the difference is the deliveries'.
const smallRoom = 100

// allocs publishes in a small room and in one of so many members, one message at a time.
func (o *options) allocs(ctx context.Context, r *Report) error {
	if o.members <= smallRoom {
		return fmt.Errorf("allocs: --members must be more than %d", smallRoom)
	}
	perPublish := make(map[int]float64)
	for _, members := range []int{smallRoom, o.members} {
		e, err := opened(ctx, o.spec(groupSpec{name: "room", rooms: 1, members: members, publishers: 1, inflight: 1}))
		if err != nil {
			return err
		}
		round, n, err := o.allocsRound(ctx, e, fmt.Sprintf("of %d", members), r)
		e.leave()
		if err != nil {
			return err
		}
		r.Connections = max(r.Connections, e.conns)
		r.Rounds = append(r.Rounds, round)
		perPublish[members] = ratio(float64(n), float64(round.Published))
	}
	small, large := perPublish[smallRoom], perPublish[o.members]
	r.Allocs = &Allocs{PerPublish: small, PerPublishLarge: large, PerDelivery: max(large-small, 0) / float64(o.members-smallRoom)}
	return nil
}

func (o *options) allocsRound(ctx context.Context, e *engine, kind string, r *Report) (Round, uint64, error) {
	if err := e.publish(ctx, o.warmup, 0); err != nil { // pools fill
		return Round{}, 0, err
	}
	// Telling them allocates too: as much the second time.
	first, err := mallocs(ctx, o.pprof)
	if err != nil {
		return Round{}, 0, err
	}
	before, err := mallocs(ctx, o.pprof)
	if err != nil {
		return Round{}, 0, err
	}
	round, err := measure(ctx, e, kind, o.measured(), 0, o.duration, o.deliveries, r)
	if err != nil {
		return Round{}, 0, err
	}
	after, err := mallocs(ctx, o.pprof)
	return round, max(after-before, before-first) - (before - first), err
}

func (o *options) mixed(ctx context.Context, r *Report) error {
	rate, percent, err := o.messageRate()
	if err != nil {
		return err
	}
	if rate == 0 || percent > 0 {
		return errors.New("mixed: --rate of the small rooms is missing, in messages a second")
	}
	small := o.group(rate)
	big := groupSpec{name: "big", rooms: 1, members: o.bigMembers, publishers: 1, inflight: o.bigInflight}
	for range o.rounds {
		round, err := o.serverRound(ctx, "alone", o.spec(small), o.duration, o.warmup, r)
		if err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, round)
		if round, err = o.serverRound(ctx, "beside", o.spec(small, big), o.duration, o.warmup, r); err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, round)
	}
	return nil
}

func (o *options) acks(ctx context.Context, r *Report) error {
	group := groupSpec{name: "publishers", rooms: o.publishers, members: 1, publishers: 1, inflight: o.inflight, acks: true}
	spec := o.spec(group)
	spec.join, spec.echo = false, false
	for range o.rounds {
		round, err := o.serverRound(ctx, "server", spec, o.duration, o.warmup, r)
		if err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, round)
	}
	return nil
}

// silent is a group of rooms, the last one perhaps smaller, whose members do not publish.
func (o *options) silent() []groupSpec {
	members := min(o.members, o.connections)
	groups := []groupSpec{{name: "rooms", rooms: o.connections / members, members: members}}
	if rest := o.connections % members; rest > 0 {
		groups = append(groups, groupSpec{name: "rest", rooms: 1, members: rest})
	}
	return groups
}

func (o *options) connects(ctx context.Context, r *Report) error {
	for range o.rounds {
		round, err := o.connectOnce(ctx, "server", r)
		if err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, round)
	}
	return nil
}

// connectOnce opens all connections and closes them.
func (o *options) connectOnce(ctx context.Context, kind string, r *Report) (Round, error) {
	spec := o.spec(o.silent()...)
	spec.join = o.attach || o.dialect != "ably" // the others say nothing before the room
	if err := raiseFiles(o.connections); err != nil {
		return Round{}, err
	}
	e := newEngine(spec)
	defer e.leave()
	r.Connections = e.conns
	round, err := o.connectRound(ctx, e, r)
	round.Kind = kind
	return round, err
}

func (o *options) connectRound(ctx context.Context, e *engine, r *Report) (Round, error) {
	var before usage
	var err error
	if o.pid > 0 {
		if before, err = processUsage(o.pid); err != nil {
			return Round{}, err
		}
	}
	own, start := ownUsage(), time.Now()
	if err := e.connect(ctx); err != nil {
		return Round{}, err
	}
	round := Round{Kind: "server", Seconds: time.Since(start).Seconds(), ToolCPU: ownUsage().since(own).total().Seconds()}
	if o.pid > 0 {
		// What the server does a moment after it answered belongs to the connection too.
		if err := e.hold(ctx, 50*time.Millisecond); err != nil {
			return Round{}, err
		}
		after, err := processUsage(o.pid)
		if err != nil {
			return Round{}, err
		}
		used := after.since(before)
		round.CPUUser, round.CPUSystem = used.user.Seconds(), used.sys.Seconds()
	}
	n := float64(e.conns)
	t := e.tally()
	round.PerSecond = n / round.Seconds
	round.Latency = t.connectTimes.latency()
	round.CPUPerMillion = (round.CPUUser + round.CPUSystem) * 1e6 / n
	round.ToolPerMil = round.ToolCPU * 1e6 / n
	round.check(&t)
	r.note(&round, t.errors)
	return round, nil
}

func (o *options) idle(ctx context.Context, r *Report) error {
	groups := o.silent()
	if o.talk > 0 {
		for i := range groups {
			groups[i].publishers = groups[i].members
		}
	}
	rate, percent, err := o.messageRate()
	if err != nil {
		return err
	}
	if percent > 0 {
		return errors.New("idle: --rate is messages a second, for --talk")
	}
	if rate == 0 {
		rate = 1000
	}
	m := &Memory{}
	if o.pid > 0 {
		r.Memory = m
	}
	read := func(into *int64) error {
		if o.pid == 0 {
			return nil
		}
		now, err := processMemory(o.pid)
		*into, m.Peak, m.Threads = now.rss, now.peak, now.threads
		return err
	}
	if err := read(&m.Empty); err != nil {
		return err
	}
	if o.pid > 0 && !restartPeak(o.pid) {
		r.Notes = append(r.Notes, "the server's peak cannot be read for each wave: it is the most since the server began")
	}
	if used, err := processUsage(o.pid); err == nil && used.total() > time.Second {
		r.Notes = append(r.Notes, "the server has worked before: memory that it kept is used again, and RSS per connection looks too small; start it anew")
	}
	peak := int64(0) // of all waves
	defer func() {
		m.Peak = max(m.Peak, peak)
		m.PeakPerConnection = ratio(float64(m.Peak-m.Empty), float64(r.Connections))
	}()
	for range o.waves {
		wave := Wave{}
		round, err := o.idleWave(ctx, o.spec(groups...), rate, read, m, &wave, r)
		if err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, round)
		if err := wait(ctx, o.settle+o.pause); err != nil {
			return err
		}
		if err := read(&wave.Left); err != nil {
			return err
		}
		wave.Peak, m.Left = m.Peak, wave.Left
		peak = max(peak, m.Peak)
		if o.waves > 1 {
			m.Waves = append(m.Waves, wave)
			if o.pid > 0 {
				restartPeak(o.pid)
			}
		}
	}
	return nil
}

func (o *options) idleWave(ctx context.Context, spec engineSpec, rate float64, read func(*int64) error, m *Memory, wave *Wave, r *Report) (Round, error) {
	start, own := time.Now(), ownUsage()
	e, err := opened(ctx, spec)
	if err != nil {
		return Round{}, err
	}
	defer e.leave()
	r.Connections = e.conns
	round := Round{Kind: "connect", Seconds: time.Since(start).Seconds()}
	round.ToolCPU = ownUsage().since(own).total().Seconds()
	round.PerSecond = float64(e.conns) / round.Seconds
	if o.talk > 0 {
		if err := e.talk(ctx, o.talk, rate); err != nil {
			return Round{}, err
		}
	}
	if err := e.hold(ctx, o.settle); err != nil {
		return Round{}, err
	}
	if err := read(&m.Connected); err != nil {
		return Round{}, err
	}
	var before, after usage
	if o.pid > 0 {
		if before, err = processUsage(o.pid); err != nil {
			return Round{}, err
		}
	}
	if err := e.hold(ctx, o.duration); err != nil {
		return Round{}, err
	}
	if o.pid > 0 {
		if after, err = processUsage(o.pid); err != nil {
			return Round{}, err
		}
		m.HoldCPU = 100 * after.since(before).total().Seconds() / after.at.Sub(before.at).Seconds()
	}
	if err := read(&m.After); err != nil {
		return Round{}, err
	}
	wave.Held = m.After
	if len(m.Waves) == 0 {
		m.PerConnection = float64(m.After-m.Empty) / float64(e.conns)
	}
	t := e.tally()
	for g := range t.groups {
		round.Published += t.groups[g].published
		round.Expected += t.groups[g].expected
		round.Deliveries += t.groups[g].deliveries
	}
	round.Latency = t.connectTimes.latency()
	round.check(&t)
	r.note(&round, t.errors)
	return round, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
