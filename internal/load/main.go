package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

const usageText = `usage: letshare-server load <scenario or preset> [flags]

scenarios
  idle      open --connections in rooms of --members, hold them for --duration; RSS per connection
  fanout    --rooms of --members, --publishers in each; --rate of messages a second, or --inflight
            for each room (the next when all have received one); --with-baseline compares with L1
  mixed     small rooms (--rooms, --members, --rate) alone, then beside one of --big-members
  acks      --publishers, each with --inflight publishes not yet acknowledged (ably only)
  connect   open --connections, --concurrency at a time; CPU per connection, with or without --attach
  empty     nobody connects; RSS of the server
  allocs    allocations of the server for each delivery, from rooms of two sizes
  baseline  the physical limit: L1 (one write for each delivery) and L8 (8 frames in each write)
  bench     all targets of docs/performance.md on servers of its own, beside L1 and a featureless server
  cluster   the same load on one server, and on 1, 2 and 3 nodes that share a Redis, all of its own

presets: a scenario with flags; flags behind the name win
%s
--rate also takes a percentage of L1's maximum, which is then measured first.

flags
`

// presets are the measurements of the product's targets.
var presets = []struct {
	name string
	runs []string // arguments of each run
}{
	{"p1", []string{"idle --connections 10000 --members 10 --duration 10s"}},
	{"p3", []string{"empty"}},
	{"p4", []string{"fanout --rooms 1 --members 1000 --inflight 1 --with-baseline"}},
	{"p5", []string{"fanout --rooms 1 --members 1000 --inflight 16 --with-baseline"}},
	{"p6", []string{"fanout --rooms 200 --members 50 --rate 50% --with-baseline"}},
	{"p7", []string{"mixed --rooms 100 --members 10 --rate 500 --big-members 5000"}},
	{"p8", []string{"acks --publishers 64 --inflight 1"}},
	{"p9", []string{"connect --connections 5000 --attach=false", "connect --connections 5000 --attach"}},
	{"p10", []string{"fanout --rooms 200 --members 50 --rate 400"}},
	{"p11", []string{"allocs --members 1000"}},
	{"p14", []string{"fanout --rooms 20 --members 50 --inflight 1 --with-baseline", "fanout --rooms 200 --members 50 --inflight 1 --with-baseline"}},
	{"p15", []string{"idle --connections 10000 --members 10 --talk 3 --rate 5000 --waves 3 --pause 5m --duration 5s"}},
	{"verify", []string{"fanout --rooms 20 --members 50 --publishers 2 --inflight 4 --deliveries 24000000 --flat --env LETSHARE_LIMITS_LOG_BYTES=16777216"}},
}

// What the digits of a marker can hold.
const (
	maxRooms      = 1_000_000
	maxPublishers = 10_000
	maxInflight   = 10_000
)

// options are the flags.
type options struct {
	scenario string

	url         string
	dialect     string
	format      string
	key         string
	token       string
	secret      string
	users       int
	namespace   string
	echo        bool
	attach      bool
	allowRemote bool
	ca          string
	insecure    bool

	connections int
	rooms       int
	members     int
	publishers  int
	rate        string
	inflight    int
	bytes       int
	bigMembers  int
	bigInflight int
	talk        int
	waves       int
	deliveries  int64
	flat        bool

	duration    time.Duration
	warmup      time.Duration
	settle      time.Duration
	pause       time.Duration
	timeout     time.Duration
	rounds      int
	loops       int
	concurrency int
	perSource   int

	pid          int
	baseline     string
	withBaseline bool
	json         string
	html         string
	pprof        string // host:port
	own          bool
	env          []string
	out          string
	redisServer  string
	commit       string
	quick        bool

	// Of the baseline's server.
	serve bool
	floor bool
	frame int
	batch int

	addresses []*net.TCPAddr
	host      string
	tls       *tls.Config // nil without TLS
	measures  measured    // instead of pid: a cluster
	// self is the command line that runs Main again.
	self []string
}

// Main runs the tool with the arguments behind "load" and returns the exit code: 0 if all was
// well, 1 if anything went wrong or was not delivered as it must be, 2 for wrong usage.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 1
	}
	return run(ctx, []string{self, "load"}, args, stdout, stderr)
}

func run(ctx context.Context, self, args []string, stdout, stderr io.Writer) int {
	var doc document
	code := 0
	for _, args := range expand(args) {
		o, err := parse(args, stderr)
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		if err != nil {
			fmt.Fprintln(stderr, "load:", err)
			return 2
		}
		o.self = self
		if o.serve {
			serve := func() error { return serveBaseline(stdout, o.frame, o.batch, o.echo) }
			if o.floor {
				serve = func() error { return serveFloor(os.Stdin, stdout) }
			}
			if err := serve(); err != nil {
				fmt.Fprintln(stderr, "load baseline:", err)
				return 1
			}
			return 0
		}
		text := stdout
		if o.json == "-" {
			text = stderr
		}
		for _, report := range o.measure(ctx, &doc, text, stderr) {
			if report.Failed {
				code = 1
			}
		}
		if err := o.save(&doc, stdout); err != nil {
			fmt.Fprintln(stderr, "load:", err)
			code = 1
		}
		if ctx.Err() != nil {
			break
		}
	}
	return code
}

// measure runs the scenario, adds what came of it to doc, and prints it to text.
func (o *options) measure(ctx context.Context, doc *document, text, stderr io.Writer) []*Report {
	switch o.scenario {
	case "bench":
		doc.Bench = &Bench{}
		return runBench(ctx, o, doc, text, stderr)
	case "cluster":
		doc.Cluster = &Cluster{}
		return runCluster(ctx, o, doc, text)
	}
	report := &Report{Scenario: o.scenario, Dialect: o.dialectName()}
	if err := runScenario(ctx, o, report, stderr); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		report.problem("%v", err)
	}
	report.summarize()
	report.write(text)
	doc.Runs = append(doc.Runs, report)
	return doc.Runs[len(doc.Runs)-1:]
}

// save writes the files that were asked for.
func (o *options) save(doc *document, stdout io.Writer) error {
	if o.json != "" {
		if err := writeJSON(o.json, stdout, doc); err != nil {
			return err
		}
	}
	if o.html != "" {
		if err := os.WriteFile(o.html, charts(doc), 0o644); err != nil {
			return err
		}
	}
	switch {
	case o.out == "":
	case doc.Bench != nil:
		return putInto(o.out, "make bench", doc.Bench.table())
	case doc.Cluster != nil:
		return putInto(o.out, "make clusterbench", doc.Cluster.table())
	}
	return nil
}

// expand replaces a preset's name by what it stands for.
func expand(args []string) [][]string {
	for _, p := range presets {
		if len(args) > 0 && strings.EqualFold(args[0], p.name) {
			var runs [][]string
			for _, run := range p.runs {
				runs = append(runs, append(strings.Fields(run), args[1:]...))
			}
			return runs
		}
	}
	return [][]string{args}
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.url, "url", "ws://127.0.0.1:8080", "the server; wss:// for TLS, whose handshakes are done one at a time for each of --loops")
	f.StringVar(&o.ca, "ca", "", "wss: `file` of the certificates in PEM that the server's is checked with; empty: those of the system")
	f.BoolVar(&o.insecure, "insecure", false, "wss: do not check the server's certificate")
	f.StringVar(&o.dialect, "dialect", "ably", "ably or letshare")
	f.StringVar(&o.format, "format", "json", "json or msgpack (ably)")
	f.StringVar(&o.key, "key", "", "`appId.keyId:secret` (ably)")
	f.StringVar(&o.token, "token", "", "a token (letshare)")
	f.StringVar(&o.secret, "jwt-secret", "", "secret to make tokens with (letshare)")
	f.IntVar(&o.users, "users", 16, "how many users to make tokens for")
	f.StringVar(&o.namespace, "namespace", "", "namespace of the channels (ably)")
	f.BoolVar(&o.echo, "echo", true, "publishers receive their own messages (ably)")
	f.BoolVar(&o.attach, "attach", true, "connect: enter a room too")
	f.BoolVar(&o.allowRemote, "allow-remote", false, "allow a server that is not on this machine")
	f.IntVar(&o.connections, "connections", 1000, "idle, connect: how many")
	f.IntVar(&o.rooms, "rooms", 1, "how many rooms")
	f.IntVar(&o.members, "members", 10, "connections in a room")
	f.IntVar(&o.publishers, "publishers", 1, "members of a room that publish; acks: how many in all")
	f.StringVar(&o.rate, "rate", "", "messages a second in all, or a percentage of L1's maximum; empty: closed loop")
	f.IntVar(&o.inflight, "inflight", 1, "closed loop: messages under way in a room; acks: for each publisher")
	f.IntVar(&o.bytes, "bytes", 300, "size of a publisher's frame")
	f.IntVar(&o.bigMembers, "big-members", 5000, "mixed: connections in the big room")
	f.IntVar(&o.bigInflight, "big-inflight", 1, "mixed: messages under way in the big room")
	f.IntVar(&o.talk, "talk", 0, "idle: messages that each connection publishes before it is idle")
	f.IntVar(&o.waves, "waves", 1, "idle: how often all come, hold and leave")
	f.Int64Var(&o.deliveries, "deliveries", 0, "fanout, allocs: end a round after so many, and not after --duration")
	f.BoolVar(&o.flat, "flat", false, "fanout: fail if the server's memory grows during a round")
	f.DurationVar(&o.duration, "duration", 5*time.Second, "of a round, or of holding")
	f.DurationVar(&o.warmup, "warmup", time.Second, "publishing that is verified but not measured, before each round")
	f.DurationVar(&o.settle, "settle", 2*time.Second, "rest before memory is read")
	f.DurationVar(&o.pause, "pause", 0, "idle: more rest after each wave")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "how long nothing may happen where something must")
	f.IntVar(&o.rounds, "rounds", 0, "how often to measure (3 with a baseline, otherwise 1)")
	f.IntVar(&o.loops, "loops", 1, "threads")
	f.IntVar(&o.concurrency, "concurrency", 64, "handshakes at a time")
	f.IntVar(&o.perSource, "per-source", 25_000, "connections from one address; more come from 127.0.0.2 and so on")
	f.IntVar(&o.pid, "pid", 0, "the server's process, to read CPU time and memory")
	f.StringVar(&o.baseline, "baseline", "", "compare with L1: CPU seconds per million deliveries, or a report in JSON")
	f.BoolVar(&o.withBaseline, "with-baseline", false, "fanout: measure L1 between the server's rounds")
	f.StringVar(&o.json, "json", "", "write the report as JSON to a file, or to stdout (-)")
	f.StringVar(&o.html, "html", "", "write the report with charts to a file, which needs nothing else")
	f.StringVar(&o.pprof, "pprof", "", "the server's debug.pprof_address (allocs)")
	f.BoolVar(&o.own, "own-server", false, "start a server for each run, and end it: --url, --pid and credentials are its")
	f.Func("env", "`NAME=value` in the environment of --own-server; may be repeated", func(v string) error {
		if !strings.Contains(v, "=") {
			return errors.New("NAME=value")
		}
		o.env = append(o.env, v)
		return nil
	})
	f.StringVar(&o.redisServer, "redis-server", "redis-server", "cluster: the `program` to start")
	f.StringVar(&o.out, "out", "", "bench, cluster: put the table between the marks of this Markdown file")
	f.StringVar(&o.commit, "commit", "", "bench, cluster: what to call the version in the table")
	f.BoolVar(&o.quick, "quick", false, "bench, cluster: try everything in seconds; the figures mean nothing")
	visible := map[string]bool{}
	f.VisitAll(func(fl *flag.Flag) { visible[fl.Name] = true })
	f.BoolVar(&o.serve, "serve", false, "")
	f.BoolVar(&o.floor, "floor", false, "")
	f.IntVar(&o.frame, "frame", 0, "")
	f.IntVar(&o.batch, "batch", 1, "")

	help := func() {
		var names strings.Builder
		for _, p := range presets {
			fmt.Fprintf(&names, "  %-9s %s\n", p.name, strings.Join(p.runs, ", then "))
		}
		fmt.Fprintf(stderr, usageText, names.String())
		shown := flag.NewFlagSet("", flag.ContinueOnError)
		shown.SetOutput(stderr)
		f.VisitAll(func(fl *flag.Flag) {
			if visible[fl.Name] {
				shown.Var(fl.Value, fl.Name, fl.Usage)
			}
		})
		shown.PrintDefaults()
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		help()
		if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help") {
			return nil, flag.ErrHelp
		}
		return nil, errors.New("say what to measure first")
	}
	o.scenario = args[0]
	if err := f.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			help()
		}
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected %q", f.Arg(0))
	}
	if o.serve {
		return o, nil
	}
	return o, o.check()
}

func (o *options) check() error {
	for name, v := range map[string]int{
		"connections": o.connections, "rooms": o.rooms, "members": o.members, "inflight": o.inflight,
		"publishers": o.publishers, "bytes": o.bytes, "loops": o.loops, "concurrency": o.concurrency, "users": o.users,
		"big-members": o.bigMembers, "big-inflight": o.bigInflight, "waves": o.waves, "per-source": o.perSource,
	} {
		if v < 1 {
			return fmt.Errorf("--%s must be at least 1", name)
		}
	}
	switch {
	case o.duration <= 0 || o.timeout <= 0:
		return errors.New("--duration and --timeout must be more than 0")
	case o.bytes > 60_000:
		return errors.New("--bytes must be at most 60000")
	case o.rooms > maxRooms, o.connections > maxRooms:
		return fmt.Errorf("at most %d rooms and connections", maxRooms)
	case max(o.inflight, o.bigInflight) > maxInflight:
		return fmt.Errorf("at most %d messages under way", maxInflight)
	case o.deliveries < 0:
		return errors.New("--deliveries must not be negative")
	case o.publishers > maxPublishers:
		return fmt.Errorf("at most %d publishers", maxPublishers)
	}
	if o.rounds == 0 {
		o.rounds = 1
		if (o.withBaseline || o.scenario == "baseline" || o.scenario == "bench" || o.scenario == "cluster") && !o.quick {
			o.rounds = 3
		}
	}
	if o.rounds < 1 {
		return errors.New("--rounds must be at least 1")
	}
	if _, _, err := o.messageRate(); err != nil {
		return err
	}
	switch o.scenario {
	case "baseline":
		return nil
	case "bench", "cluster":
		if o.own {
			return fmt.Errorf("%s starts its own servers by itself: leave --own-server out", o.scenario)
		}
		return nil
	case "empty":
		if o.pid == 0 && !o.own {
			return errors.New("--pid is missing: whose memory?")
		}
		return nil
	case "allocs":
		if o.pprof == "" && !o.own {
			return errors.New("--pprof is missing: the server's debug.pprof_address")
		}
	case "idle", "fanout", "mixed", "acks", "connect":
	default:
		return fmt.Errorf("no scenario or preset %q: there are idle, fanout, mixed, acks, connect, empty, allocs, baseline, bench, cluster and the presets", o.scenario)
	}
	switch o.scenario {
	case "fanout", "mixed":
		if o.publishers > o.members {
			return errors.New("--publishers are members: there cannot be more of them than --members")
		}
	}
	switch o.dialect {
	case "ably":
		if o.format != "json" && o.format != "msgpack" {
			return fmt.Errorf("--format %q: json or msgpack", o.format)
		}
		if o.key == "" && !o.own {
			return errors.New("--key is missing: appId.keyId:secret, which a server in local mode prints when it starts")
		}
	case "letshare":
		if o.scenario == "acks" {
			return errors.New("LetShare's protocol has no acknowledgements: use --dialect ably")
		}
		if o.token == "" && o.secret == "" && !o.own {
			return errors.New("--token or --jwt-secret is missing: the secret is the server's jwt.secret")
		}
		o.echo = false // the protocol never echoes
		if o.scenario == "fanout" && o.members < 2 {
			return errors.New("nobody would receive: LetShare does not echo, so --members must be at least 2")
		}
	default:
		return fmt.Errorf("--dialect %q: ably or letshare", o.dialect)
	}
	if o.own {
		return nil
	}
	return o.resolve()
}

// resolve finds the server's address.
func (o *options) resolve() error {
	u, err := url.Parse(o.url)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("--url %q: ws://host:port", o.url)
	}
	port := "80"
	switch u.Scheme {
	case "ws", "http":
	case "wss", "https":
		port = "443"
		o.tls = &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: o.insecure}
	default:
		return fmt.Errorf("--url %q: ws://host:port, or wss://", o.url)
	}
	if o.tls == nil && (o.ca != "" || o.insecure) {
		return fmt.Errorf("--ca and --insecure are about TLS, and --url %q is not: wss://host:port", o.url)
	}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return fmt.Errorf("--ca: %w", err)
		}
		o.tls.RootCAs = x509.NewCertPool()
		if !o.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("--ca %s: no certificate in PEM", o.ca)
		}
	}
	if u.Port() != "" {
		port = u.Port()
	}
	o.host = u.Host
	address, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return fmt.Errorf("--url %q: %w", o.url, err)
	}
	if !address.IP.IsLoopback() && !o.allowRemote {
		return fmt.Errorf("%v is not on this machine: --allow-remote if you may load it", address)
	}
	o.addresses = []*net.TCPAddr{address}
	return nil
}

// messageRate is the rate of the open loop, in messages a second or as a percentage of L1's
// maximum; both are zero for a closed loop.
func (o *options) messageRate() (perSecond, percent float64, err error) {
	if o.rate == "" {
		return 0, 0, nil
	}
	s, isPercent := strings.CutSuffix(o.rate, "%")
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v <= 0 || v > 1e7 {
		return 0, 0, fmt.Errorf("--rate %q: messages a second, or a percentage of L1's maximum such as 50%%", o.rate)
	}
	if isPercent {
		return 0, v, nil
	}
	return v, 0, nil
}

func (o *options) dialectName() string {
	switch {
	case o.scenario == "baseline":
		return "bare TCP"
	case o.dialect == "ably":
		return "ably " + o.format
	}
	return o.dialect
}
