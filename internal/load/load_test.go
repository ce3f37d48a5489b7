package load

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

func TestBucketsHoldTheirValuesWithinOnePercent(t *testing.T) {
	check := func(v uint64) {
		i := bucketOf(v)
		if i >= len(histogram{}.counts) {
			t.Fatalf("bucket %d of %d does not exist", i, v)
		}
		if top := bucketTop(i); top < v || float64(top-v) > float64(v)/100 {
			t.Fatalf("%d is in a bucket that ends at %d", v, top)
		}
		if v > 0 && bucketOf(v-1) > i {
			t.Fatalf("%d is in a lower bucket than %d", v, v-1)
		}
	}
	for v := range uint64(5000) {
		check(v)
	}
	for range 100_000 {
		check(rand.Uint64() >> (1 + rand.IntN(63)))
	}
	check(1<<63 - 1)
}

func TestPercentilesAreThoseOfTheSortedValues(t *testing.T) {
	var h, part histogram
	if h.percentile(99) != 0 {
		t.Error("an empty histogram has percentiles")
	}
	for i, at := range rand.Perm(10_000) { // 1 ms … 10 s
		to := &h
		if i%3 == 0 {
			to = &part
		}
		to.record(time.Duration(at+1) * time.Millisecond)
	}
	h.add(&part)
	for _, c := range []struct {
		p    float64
		want time.Duration
	}{
		{0, time.Millisecond},
		{50, 5 * time.Second},
		{99, 9900 * time.Millisecond},
		{99.9, 9990 * time.Millisecond},
		{100, 10 * time.Second},
	} {
		if got := h.percentile(c.p); got < c.want || float64(got) > float64(c.want)*1.01 {
			t.Errorf("p%v is %v, want %v", c.p, got, c.want)
		}
	}
	if h.max != 10*time.Second || h.percentile(100) != h.max {
		t.Errorf("max is %v and p100 %v", h.max, h.percentile(100))
	}
}

func TestOneSlowValueInAThousandIsTheP999AndNotTheP99(t *testing.T) {
	var h histogram
	for range 998 {
		h.record(time.Millisecond)
	}
	h.record(time.Second)
	h.record(time.Second)
	if p99, p999 := h.percentile(99), h.percentile(99.9); p99 > 1010*time.Microsecond || p999 != time.Second {
		t.Errorf("p99 %v, p99.9 %v", p99, p999)
	}
}

func TestMarkerComesBackFromAFrame(t *testing.T) {
	want := marker{run: 9876, room: 123456, publisher: 4321, slot: 10_000, seq: 87654321, intended: 1234567890123456}
	payload := appendPayload(nil, &want, 250)
	if len(payload) != 250 {
		t.Fatalf("payload of %d bytes", len(payload))
	}
	frame := `{"data":"` + string(payload) + `","serial":"01"}`
	got, rest, found, ok := findMarker([]byte(frame))
	if !found || !ok || got != want {
		t.Fatalf("found %v, ok %v: %+v", found, ok, got)
	}
	if !complete(rest, 250) {
		t.Error("the whole payload counts as damaged")
	}
	if complete(rest, 251) || complete(rest[:100], 250) {
		t.Error("a payload of another length counts as whole")
	}
	if _, _, found, _ := findMarker([]byte(`{"action":0}`)); found {
		t.Error("a marker was found where there is none")
	}
	for i := len(markerStart); i < markerBytes; i++ {
		for _, c := range []byte{'/', ':', 'A', 0, 0xFF} {
			bad := []byte(frame)
			bad[len(`{"data":"`)+i] = c
			if _, _, found, ok := findMarker(bad); !found || ok {
				t.Fatalf("byte %d being %q was not noticed", i, c)
			}
		}
	}
}

func TestTrackerTellsLossDuplicateAndReorderApart(t *testing.T) {
	for _, c := range []struct {
		name                              string
		seqs                              []uint32
		deliveries, duplicated, reordered uint64
	}{
		{"in order", []uint32{1, 2, 3}, 3, 0, 0},
		{"one lost", []uint32{1, 3}, 2, 0, 0},
		{"the first lost", []uint32{2, 3}, 2, 0, 0},
		{"one twice", []uint32{1, 2, 2, 3}, 3, 1, 0},
		{"an old one again", []uint32{1, 2, 3, 1}, 3, 1, 0},
		{"two exchanged", []uint32{1, 3, 2}, 3, 0, 1},
		{"late and then again", []uint32{1, 4, 2, 3, 2}, 4, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTracker(2, 2)
			for _, seq := range c.seqs {
				tr.saw(1, 0, seq)
			}
			tr.saw(0, 0, 1) // another receiver
			tr.saw(1, 1, 1) // another publisher
			if tr.deliveries != c.deliveries+2 || tr.duplicated != c.duplicated || tr.reordered != c.reordered {
				t.Errorf("%d deliveries, %d duplicated, %d reordered", tr.deliveries-2, tr.duplicated, tr.reordered)
			}
		})
	}
}

func TestAcknowledgementsAreReadWithoutDecoding(t *testing.T) {
	for _, format := range []wire.Format{wire.JSON, wire.MsgPack} {
		for _, serial := range []int64{0, 5, 127, 128, 300, 70_000, 1 << 33} {
			pm := &wire.ProtocolMessage{Action: wire.ActionAck, MsgSerial: serial, Count: 3, Res: []wire.PublishResult{{Serials: []string{"a"}}}}
			d := &ablyDialect{format: format}
			b := wire.Append(nil, format, pm)
			e, ok := d.ack(b)
			if want := (event{kind: eventAck, serial: serial, count: 3}); !ok || e != want || d.read(b) != want {
				t.Errorf("%v %d: %v %+v", format, serial, ok, e)
			}
			for i := range b {
				d.ack(b[:i]) // must not panic
			}
		}
		nack := &wire.ProtocolMessage{Action: wire.ActionNack, Count: 1, Error: wire.NewErrorInfo(&pubsub.Error{Code: 40160, Message: "denied"})}
		d := &ablyDialect{format: format}
		if e := d.read(wire.Append(nil, format, nack)); e.kind != eventError || !strings.Contains(e.text, "40160") {
			t.Errorf("%v: a NACK is %+v", format, e)
		}
	}
}

func TestPublishersFramesHaveTheSizeAskedFor(t *testing.T) {
	for _, d := range []dialect{
		&ablyDialect{format: wire.JSON}, &ablyDialect{format: wire.MsgPack}, &letshareDialect{}, bareDialect{}, &floorDialect{},
	} {
		for _, want := range []int{240, 300, 1000, 50_000} {
			if _, got := payloadFor(d, "L0000-000000", want); got != want {
				t.Errorf("%T: %d bytes instead of %d", d, got, want)
			}
		}
	}
}

func TestPresetsAreValid(t *testing.T) {
	for _, p := range presets {
		for _, args := range expand([]string{p.name, "--own-server", "--duration", "7s"}) {
			o, err := parse(args, t.Output())
			if err != nil {
				t.Errorf("%s: %v", p.name, err)
			} else if o.duration != 7*time.Second {
				t.Errorf("%s: a flag behind the name is ignored", p.name)
			}
		}
	}
}

func TestWrongUseNamesTheFix(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "say what"},
		{"nothing", "no scenario"},
		{"idle", "--key"},
		{"idle --dialect letshare", "--jwt-secret"},
		{"acks --dialect letshare --token x", "--dialect ably"},
		{"idle --key k --url ws://192.0.2.1:80", "--allow-remote"},
		{"idle --key k --url tcp://127.0.0.1", "wss://"},
		{"idle --key k --insecure", "wss://"},
		{"idle --key k --url wss://127.0.0.1 --ca nowhere.pem", "nowhere.pem"},
		{"idle --key k --url wss://127.0.0.1 --ca doc.go", "no certificate"},
		{"fanout --key k --rate lots", "50%"},
		{"fanout --key k --deliveries -1", "--deliveries"},
		{"fanout --own-server --env NAME", "NAME=value"},
		{"empty", "--pid"},
		{"allocs --key k", "--pprof"},
		{"bench --own-server", "--own-server"},
		{"fanout --key k --members 2 --publishers 3", "--members"},
		{"fanout --key k --rooms 0", "--rooms"},
		{"fanout --key k --rooms 2 surplus", "surplus"},
		{"idle --nonsense", "nonsense"},
	} {
		if _, err := parse(strings.Fields(c.args), t.Output()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}

func TestMedianIgnoresTheOutlierButKeepsTheErrors(t *testing.T) {
	r := Report{Rounds: []Round{
		{Kind: "server", CPUPerMillion: 2}, {Kind: "L1", CPUPerMillion: 10},
		{Kind: "server", CPUPerMillion: 90, Lost: 1}, {Kind: "L1", CPUPerMillion: 10},
		{Kind: "server", CPUPerMillion: 3}, {Kind: "L1", CPUPerMillion: 1},
	}}
	r.summarize()
	if got := r.median("server"); got.CPUPerMillion != 3 || got.Lost != 1 {
		t.Errorf("median %+v", got)
	}
	if r.RatioToL1 != 0.3 {
		t.Errorf("ratio %v", r.RatioToL1)
	}
}

func BenchmarkFindMarker(b *testing.B) {
	payload := append(appendPayload(make([]byte, 120, 1000), &marker{seq: 5}, 220), make([]byte, 120)...)
	for b.Loop() {
		if m, _, _, ok := findMarker(payload); !ok || m.seq != 5 {
			b.Fatal("not found")
		}
	}
}
