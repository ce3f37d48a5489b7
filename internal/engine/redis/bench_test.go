package redis

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

// usage is what a server has used so far.
type usage struct {
	cpu               time.Duration
	commands          int64
	bytesIn, bytesOut int64
}

func usageOf(s *redistest.Server) (u usage) {
	info := redisclient.Info(s.Must("INFO", "everything"))
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, _ := strconv.ParseFloat(info[name], 64)
		u.cpu += time.Duration(seconds * float64(time.Second))
	}
	for to, name := range map[*int64]string{&u.commands: "total_commands_processed", &u.bytesIn: "total_net_input_bytes", &u.bytesOut: "total_net_output_bytes"} {
		*to, _ = strconv.ParseInt(info[name], 10, 64)
	}
	return u
}

// report tells what the server used for each of n appends since before.
func report(b *testing.B, s *redistest.Server, before usage, n int) {
	u := usageOf(s)
	per := func(x int64) float64 { return float64(x) / float64(n) }
	b.ReportMetric(per(int64(u.cpu-before.cpu))/1000, "redis-µs/append")
	b.ReportMetric(per(u.commands-before.commands), "commands/append")
	b.ReportMetric(per(u.bytesIn-before.bytesIn), "B-in/append")
	b.ReportMetric(per(u.bytesOut-before.bytesOut), "B-out/append")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "appends/s")
}

// pipelined sends b.N commands, depth at a time, as redis-benchmark -P does; that cannot
// send the zero bytes of the script's arguments.
func pipelined(b *testing.B, s *redistest.Server, depth int, command func(n int) []string) {
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	var out bytes.Buffer
	for n := 0; n < b.N; {
		out.Reset()
		k := 0
		for ; k < depth && n < b.N; k++ {
			words := command(n)
			fmt.Fprintf(&out, "*%d\r\n", len(words))
			for _, w := range words {
				fmt.Fprintf(&out, "$%d\r\n", len(w))
				out.WriteString(w)
				out.WriteString("\r\n")
			}
			n++
		}
		if _, err := conn.Write(out.Bytes()); err != nil {
			b.Fatal(err)
		}
		for ; k > 0; k-- {
			line, err := r.ReadString('\n')
			if err != nil {
				b.Fatal(err)
			}
			switch line[0] {
			case '-':
				b.Fatal(line)
			case '$':
				size, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
				if _, err := r.Discard(size + 2); err != nil && err != io.EOF {
					b.Fatal(err)
				}
			}
		}
	}
}

var benchBody = &pubsub.Batch{ID: "connection:1", ConnectionID: "connection", ClientID: "client",
	Messages: []*pubsub.Message{{Name: "event", Data: pubsub.Text(strings.Repeat("x", 300))}}}

func benchAppend(ch pubsub.ChannelID, connection string, n int) *engine.Append {
	return &engine.Append{Channel: ch, ID: engine.ID{ConnectionID: connection, MsgSerial: int64(n)},
		Entries: []engine.Draft{{Kind: engine.KindMessage, Body: benchBody}}}
}

// BenchmarkXADD is the plain command with the bytes of an entry: what the script is
// compared with.
func BenchmarkXADD(b *testing.B) {
	s := redistest.Start(b)
	value := strings.Repeat("v", entryHeader+len(draft(&engine.Draft{Body: benchBody})))
	before := usageOf(s)
	b.ResetTimer()
	pipelined(b, s, 64, func(int) []string { return []string{"XADD", "stream", "*", "e", value} })
	report(b, s, before, b.N)
}

// BenchmarkScript is the append script with one Append in each call, without the engine.
func BenchmarkScript(b *testing.B) {
	s := redistest.Start(b)
	e := node(b, redisclient.Options{Addresses: []string{s.Addr}}, Options{})
	ch := pubsub.ChannelID{App: "app", Name: "channel"}
	q := &queue{id: ch, keys: e.keys(ch)}
	q.slot = slot(q.keys.state)
	r, err := e.currentRun(b.Context(), q.keys.state, q.slot, nil)
	if err != nil {
		b.Fatal(err)
	}
	before := usageOf(s)
	b.ResetTimer()
	pipelined(b, s, 64, func(n int) []string {
		it, err := e.item(benchAppend(ch, "connection", n), nil)
		if err != nil {
			b.Fatal(err)
		}
		c := &call{queue: q, items: []*item{it}, again: []bool{false}}
		c.prepare(e, ch)
		words := append([]string{"EVALSHA", r.sha[scriptAppend], strconv.Itoa(len(c.keys))}, c.keys...)
		return append(words, c.args...)
	})
	report(b, s, before, b.N)
}

// BenchmarkAppend is publishes with their acknowledgements through the engine.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ channels, inFlight int }{{1, 1}, {1, 64}, {64, 64}, {64, 1024}, {1000, 1024}} {
		b.Run(fmt.Sprintf("Channels%d/InFlight%d", c.channels, c.inFlight), func(b *testing.B) {
			s := redistest.Start(b)
			e := node(b, redisclient.Options{Addresses: []string{s.Addr}}, Options{Timeout: time.Minute})
			channels := make([]pubsub.ChannelID, c.channels)
			for i := range channels {
				channels[i] = pubsub.ChannelID{App: "app", Name: fmt.Sprint("channel", i)}
			}
			before := usageOf(s)
			free := make(chan struct{}, c.inFlight)
			var wg sync.WaitGroup
			wg.Add(b.N)
			b.ResetTimer()
			for n := range b.N {
				free <- struct{}{}
				i := n % len(channels)
				e.Append(benchAppend(channels[i], "connection"+channels[i].Name, n), func(r engine.Result) {
					if r.Err != nil {
						b.Error(r.Err)
					}
					<-free
					wg.Done()
				})
			}
			wg.Wait()
			b.StopTimer()
			report(b, s, before, b.N)
			b.ReportMetric(float64(b.N)/float64(e.Stats().Calls), "appends/call")
		})
	}
}
