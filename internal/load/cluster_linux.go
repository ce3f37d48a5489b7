package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"letshare-server/internal/redisclient"
)

// mostNodes is how many nodes the largest cluster has.
const mostNodes = 3

// runCluster puts the same loads on one server without Redis, and on clusters of 1, 2, and 3 nodes, in
// turns. All run all the time, since a node without connections does next to nothing.
func runCluster(ctx context.Context, o *options, doc *document, text io.Writer) []*Report {
	duration, warmup, size := 3*time.Second, 500*time.Millisecond, func(n int) int { return n }
	if o.quick {
		duration, warmup = 100*time.Millisecond, 20*time.Millisecond
		size = func(n int) int { return max(n/100, min(n, 4)) }
	}
	start := time.Now()
	c := doc.Cluster
	c.Machine = thisMachine(o.commit)
	c.Machine.Rounds = o.rounds
	r := &Report{Scenario: "cluster", Dialect: o.dialectName(), Shape: "one server, and 1 to 3 nodes that share a Redis"}
	err := o.onClusters(ctx, func(servers []*options) error {
		for _, load := range []struct {
			name    string
			group   groupSpec
			figures []figure
		}{
			{"200 rooms of 50, the next message when all have the one before",
				groupSpec{rooms: size(200), members: 50, publishers: 1, inflight: 1}, []figure{deliveriesPerSecond, cpuPerDelivery, redisPerPublish}},
			{"a room of 1,000, 16 messages under way",
				groupSpec{rooms: 1, members: size(1000), publishers: 1, inflight: 16}, []figure{deliveriesPerSecond, cpuPerDelivery, redisPerPublish}},
			{"400 messages/s over 200 rooms of 50",
				groupSpec{rooms: size(200), members: 50, publishers: 1, rate: float64(size(400)), inflight: 1}, []figure{latencyP99, cpuPerDelivery, redisPerPublish}},
			{"64 publishers, each of which waits for its ACK",
				groupSpec{rooms: size(64), members: 1, publishers: 1, inflight: 1, acks: true}, []figure{acksPerSecond, latencyP99, cpuPerAck, redisPerPublish}},
		} {
			load.group.name = "rooms"
			for range o.rounds {
				for i, server := range servers {
					with := *server
					with.echo = !load.group.acks
					spec := with.spec(load.group)
					spec.join = !load.group.acks
					round, err := with.serverRound(ctx, load.name+": "+c.Columns[i], spec, duration, warmup, r)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", load.name, c.Columns[i], err)
					}
					r.Rounds = append(r.Rounds, round)
				}
			}
			for _, f := range load.figures {
				row := ClusterRow{Load: load.name, Figure: f.name}
				for _, column := range c.Columns {
					row.Values = append(row.Values, f.of(r, load.name+": "+column))
				}
				c.Rows = append(c.Rows, row)
			}
		}
		return nil
	}, c)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		r.problem("%v", err)
	}
	r.summarize()
	r.write(text)
	doc.Runs = append(doc.Runs, r)
	c.Machine.Seconds = time.Since(start).Seconds()
	fmt.Fprintf(text, "\n%s", c.table())
	return doc.Runs[len(doc.Runs)-1:]
}

// figure is what a row of the table tells.
type figure struct {
	name string
	of   func(r *Report, kind string) string
}

func medianOf(name, verb string, value func(*Round) float64) figure {
	return figure{name, func(r *Report, kind string) string { return spreadOf(r.of(kind, value)).format(verb) }}
}

var (
	deliveriesPerSecond = medianOf("deliveries/s", "%.0f", eachSecond)
	acksPerSecond       = medianOf("ACKs/s", "%.0f", eachSecond)
	latencyP99          = medianOf("p99, ms", "%.1f", p99Millis)
	cpuPerDelivery      = medianOf("CPU of all nodes for each delivery, µs", "%.1f", cpuEach)
	cpuPerAck           = medianOf("CPU of all nodes for each, µs", "%.1f", cpuEach)
	redisPerPublish     = figure{"Redis, for each publish: CPU in µs; commands; bytes in, out", redisFigures}
)

func redisFigures(r *Report, kind string) string {
	of := func(value func(*RedisUse) float64) float64 {
		return median(r.of(kind, func(o *Round) float64 {
			if o.Redis == nil {
				return 0
			}
			return value(o.Redis)
		}))
	}
	commands := of(func(u *RedisUse) float64 { return u.Commands })
	if commands == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f; %.1f; %.0f, %.0f", of(func(u *RedisUse) float64 { return u.Micros }), commands,
		of(func(u *RedisUse) float64 { return u.BytesIn }), of(func(u *RedisUse) float64 { return u.BytesOut }))
}

// onClusters runs f with options for one server, and for clusters of one node and more.
func (o *options) onClusters(ctx context.Context, f func([]*options) error, c *Cluster) error {
	alone, err := startOwn(ctx, o.serverCommand(), o.env, false)
	if err != nil {
		return err
	}
	defer alone.stop()
	redis, err := startRedis(ctx, o.redisServer)
	if err != nil {
		return err
	}
	defer redis.stop()
	env := append(slices.Clone(o.env), "LETSHARE_REDIS_ADDRESSES="+redis.address, "LETSHARE_API_KEYS="+alone.key, "LETSHARE_JWT_SECRET="+alone.secret)
	var nodes []*ownServer
	defer func() {
		for _, n := range nodes {
			n.stop()
		}
	}()
	for range mostNodes {
		n, err := startOwn(ctx, o.serverCommand(), env, false)
		if err != nil {
			return err
		}
		n.key, n.secret = alone.key, alone.secret
		nodes = append(nodes, n)
	}
	one := *o
	if err := alone.use(&one); err != nil {
		return err
	}
	servers := []*options{&one}
	c.Columns = []string{"no Redis"}
	for count := 1; count <= mostNodes; count++ {
		of := one
		of.pid, of.addresses, of.measures = 0, nil, measured{redis: redis.address}
		for _, n := range nodes[:count] {
			node := *o
			if err := n.use(&node); err != nil {
				return err
			}
			of.addresses = append(of.addresses, node.addresses...)
			of.measures.pids = append(of.measures.pids, n.pid)
		}
		servers = append(servers, &of)
		c.Columns = append(c.Columns, fmt.Sprintf("%d of a cluster's nodes", count))
	}
	return f(servers)
}

// measured is whose CPU time a round tells.
func (o *options) measured() measured {
	if o.pid > 0 {
		return measured{pids: []int{o.pid}}
	}
	return o.measures
}

// ownRedis is a Redis that the tool started for itself, which keeps nothing on disk.
type ownRedis struct {
	address string
	process *exec.Cmd
	dir     string
}

func startRedis(ctx context.Context, program string) (*ownRedis, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("start Redis: %w (apt-get install redis-server, or name the program with --redis-server)", err)
	}
	dir, err := os.MkdirTemp("", "letshare-load-")
	if err != nil {
		return nil, fmt.Errorf("start Redis: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start Redis: %w", err)
	}
	s := &ownRedis{address: l.Addr().String(), dir: dir}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	// An interrupt goes to the whole process group; Redis ends with stop.
	s.process = exec.CommandContext(context.WithoutCancel(ctx), path, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.process.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start Redis: %w", err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		_, err := redisUsage(ctx, s.address)
		if err == nil {
			return s, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			s.stop()
			return nil, fmt.Errorf("start Redis: %w", err)
		}
		_ = wait(ctx, 20*time.Millisecond) // ends with ctx, which is looked at above
	}
}

func (s *ownRedis) stop() {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(10*time.Second, func() { _ = s.process.Process.Kill() })
	defer kill.Stop()
	_ = s.process.Wait() // how it ended is no part of a measurement
	os.RemoveAll(s.dir)
}

// redisTotals is what a Redis has done since it began.
type redisTotals struct {
	cpu                         time.Duration
	commands, bytesIn, bytesOut int64
}

// redisUsage asks a Redis; without an address there is none, and no use of it.
func redisUsage(ctx context.Context, address string) (redisTotals, error) {
	if address == "" {
		return redisTotals{}, nil
	}
	fail := func(err error) (redisTotals, error) {
		return redisTotals{}, fmt.Errorf("ask Redis what it did: %w", err)
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return fail(err)
	}
	if _, err := io.WriteString(conn, "INFO everything\r\n"); err != nil {
		return fail(err)
	}
	in := bufio.NewReader(conn)
	head, err := in.ReadString('\n')
	if err != nil {
		return fail(err)
	}
	size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "$")))
	if err != nil || head[0] != '$' || size < 0 || size > 1<<20 {
		return fail(fmt.Errorf("it said %.100q", head))
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(in, text); err != nil {
		return fail(err)
	}
	info := redisclient.Info(string(text))
	var t redisTotals
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info[name], 64)
		if err != nil {
			return fail(fmt.Errorf("%s: %w", name, err))
		}
		t.cpu += time.Duration(seconds * float64(time.Second))
	}
	for to, name := range map[*int64]string{&t.commands: "total_commands_processed", &t.bytesIn: "total_net_input_bytes", &t.bytesOut: "total_net_output_bytes"} {
		if *to, err = strconv.ParseInt(info[name], 10, 64); err != nil {
			return fail(fmt.Errorf("%s: %w", name, err))
		}
	}
	return t, nil
}

// since is the use for each of so many publishes.
func (t redisTotals) since(before redisTotals, published uint64) *RedisUse {
	per := func(v float64) float64 { return ratio(v, float64(published)) }
	return &RedisUse{
		Micros:   per(micros(t.cpu - before.cpu)),
		Commands: per(float64(t.commands - before.commands)),
		BytesIn:  per(float64(t.bytesIn - before.bytesIn)),
		BytesOut: per(float64(t.bytesOut - before.bytesOut)),
	}
}
