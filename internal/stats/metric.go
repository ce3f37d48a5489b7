package stats

import (
	"cmp"
	"encoding/binary"
	"errors"
	"iter"
	"math"
	"slices"
	"time"
)

// Metric is one thing that is counted. The numbers are part of the format of a Record.
type Metric uint16

// What messages are counted by. The first of each is what a fixture tells of the whole
// beyond the sum of its parts; what is counted here is counted in parts.
var (
	directions = [...]string{"inbound", "outbound"}
	transports = [...]string{"all", "realtime", "rest", "webhook", "push", "externalQueue", "sharedQueue", "httpEvent"}
	types      = [...]string{"all", "messages", "presence", "objects", "annotations"}
	figures    = [...]string{"count", "data", "uncompressedData", "billableCount", "failed", "refused"}
)

// Transport is how a message came or went.
type Transport uint8

// The transports that are counted.
const (
	Realtime Transport = 1 + iota
	REST
)

// Type is what kind of message it was.
type Type uint8

// The types that are counted.
const (
	Messages Type = 1 + iota
	Presence
	Objects
)

const (
	inbound = iota
	outbound
)

const (
	count   = 0
	data    = 1
	failed  = 4
	refused = 5
)

// Of connections and channels. The last two are never shown: usage is the integral of the
// number over time, in ms, and duration the time over which it was taken.
const (
	peak = iota
	low
	opened
	resourceRefused
	resourceFailed
	usage
	duration
	resourceFigures
)

var resourceNames = [...]string{"peak", "min", "opened", "refused", "failed", "mean"} // the mean in place of usage

// The resources.
const (
	connectionsAll = iota
	connectionsPlain
	connectionsTLS
	channels
	resources
)

var resourcePaths = [resources]string{"connections.all", "connections.plain", "connections.tls", "channels"}

// Requests to the API.
const (
	requestsAll = iota
	requestsOther
	requestsToken
	requestsPush
	requestKinds
)

var (
	requestPaths    = [requestKinds]string{"apiRequests.all", "apiRequests.other", "apiRequests.tokenRequests", "apiRequests.push"}
	nestedRequests  = [requestKinds]string{"", "apiRequests", "tokenRequests", ""}
	requestOutcomes = [...]string{"succeeded", "failed", "refused"}
)

// Where the metrics of each group begin.
const (
	perType       = 6 // figures
	perTransport  = 5 * perType
	perDirection  = 8 * perTransport
	baseTraffic   = 0
	basePersisted = baseTraffic + 2*perDirection
	baseAll       = basePersisted + perTransport
	baseResources = baseAll + perTransport
	baseRequests  = baseResources + resources*resourceFigures
	metrics       = baseRequests + requestKinds*3
)

func traffic(direction int, tr Transport, t Type, figure int) Metric {
	return Metric(baseTraffic + direction*perDirection + int(tr)*perTransport + int(t)*perType + figure)
}

func persisted(t Type, figure int) Metric { return Metric(basePersisted + int(t)*perType + figure) }

func resource(r, figure int) Metric { return Metric(baseResources + r*resourceFigures + figure) }

func request(kind, outcome int) Metric { return Metric(baseRequests + kind*3 + outcome) }

// named is a metric as it is told: usage is told as the mean.
type named struct {
	name   string
	metric Metric
}

// flatNames and nestedNames are the metrics as clients know them, sorted by name: as they
// stand in entries, and as paths in the nested form. known is the latter by path.
var (
	flatNames, nestedNames = names()
	known                  = func() map[string]Metric {
		m := make(map[string]Metric, len(nestedNames))
		for _, n := range nestedNames {
			m[n.name] = n.metric
		}
		return m
	}()
)

func names() (flat, nested []named) {
	both := func(path string, m Metric) {
		flat = append(flat, named{"messages." + path, m})
		nested = append(nested, named{path, m})
	}
	for t, typ := range types {
		for f, figure := range figures {
			for d, direction := range directions {
				for tr, transport := range transports {
					both(direction+"."+transport+"."+typ+"."+figure, traffic(d, Transport(tr), Type(t), f))
				}
			}
			both("persisted."+typ+"."+figure, persisted(Type(t), f))
			flat = append(flat, named{"messages.all." + typ + "." + figure, Metric(baseAll + t*perType + f)})
			nested = append(nested, named{"all." + typ + "." + figure, Metric(baseAll + t*perType + f)})
		}
	}
	for r, path := range resourcePaths {
		for f, figure := range resourceNames {
			nested = append(nested, named{path + "." + figure, resource(r, f)})
			if r == connectionsAll || r == channels {
				flat = append(flat, named{path + "." + figure, resource(r, f)})
			}
		}
	}
	for k := range requestPaths {
		for o, outcome := range requestOutcomes {
			flat = append(flat, named{requestPaths[k] + "." + outcome, request(k, o)})
			if nestedRequests[k] != "" {
				nested = append(nested, named{nestedRequests[k] + "." + outcome, request(k, o)})
			}
		}
	}
	for _, list := range [][]named{flat, nested} {
		slices.SortFunc(list, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	}
	return flat, nested
}

// Totals is what was counted in an interval. The zero value is nothing.
type Totals struct{ n [metrics]float64 }

// follow adds what was counted after t: counts add up, peaks and lows are those of both.
func (t *Totals) follow(next *Totals) {
	for m := range baseResources {
		t.n[m] += next.n[m]
	}
	t.followResources(next.n[baseResources:baseRequests])
	for m := baseRequests; m < metrics; m++ {
		t.n[m] += next.n[m]
	}
}

// beside adds what was counted at the same time elsewhere: all add up but the durations. The
// peak is then no less than it was.
func (t *Totals) beside(other *Totals) {
	var durations [resources]float64
	for r := range durations {
		durations[r] = max(t.n[resource(r, duration)], other.n[resource(r, duration)])
	}
	for m := range t.n {
		t.n[m] += other.n[m]
	}
	for r, d := range durations {
		t.n[resource(r, duration)] = d
	}
}

// followResources is follow for the figures of resources, all of them.
func (t *Totals) followResources(next []float64) {
	for r := range resources {
		mine, its := t.n[resource(r, 0):][:resourceFigures], next[r*resourceFigures:][:resourceFigures]
		top, bottom := max(mine[peak], its[peak]), min(mine[low], its[low])
		switch { // an interval in which there was none has no low
		case mine[duration] == 0:
			bottom = its[low]
		case its[duration] == 0:
			bottom = mine[low]
		}
		for i := range mine {
			mine[i] += its[i]
		}
		mine[peak], mine[low] = top, bottom
	}
}

// followRecord is follow for Totals that are encoded. After an error t is of no use.
func (t *Totals) followRecord(next Record) error {
	var its [resources * resourceFigures]float64
	for m, v := range next.all() {
		switch {
		case m < 0:
			return errRecord
		case m >= baseResources && m < baseRequests:
			its[m-baseResources] = v
		default:
			t.n[m] += v
		}
	}
	t.followResources(its[:])
	return nil
}

// Record is Totals in few bytes; the package's comment tells the format. It is immutable.
type Record []byte

const recordVersion = 1

var errRecord = errors.New("stats: malformed record")

// Record returns t encoded.
func (t *Totals) Record() Record {
	r := make(Record, 1, 64)
	r[0] = recordVersion
	last := -1
	for m, v := range t.n {
		if v == 0 {
			continue
		}
		r = binary.AppendUvarint(r, uint64(m-last))
		last = m
		if v < 1<<53 && v == math.Trunc(v) {
			r = binary.AppendUvarint(r, uint64(v)<<1)
		} else {
			r = binary.AppendUvarint(r, 1)
			r = binary.BigEndian.AppendUint64(r, math.Float64bits(v))
		}
	}
	return slices.Clip(r)
}

// Totals decodes r.
func (r Record) Totals() (*Totals, error) {
	t := new(Totals)
	for m, v := range r.all() {
		if m < 0 {
			return nil, errRecord
		}
		t.n[m] = v
	}
	return t, nil
}

// all yields the metrics that are not zero, in ascending order. It ends with -1 if r is
// malformed.
func (r Record) all() iter.Seq2[int, float64] {
	return func(yield func(int, float64) bool) {
		if len(r) == 0 || r[0] != recordVersion {
			yield(-1, 0)
			return
		}
		rest, at := []byte(r[1:]), -1
		for len(rest) > 0 {
			step, n := binary.Uvarint(rest)
			if n <= 0 || step == 0 || step > metrics || at+int(step) >= metrics {
				yield(-1, 0)
				return
			}
			rest, at = rest[n:], at+int(step)
			value, n := binary.Uvarint(rest)
			if n <= 0 {
				yield(-1, 0)
				return
			}
			rest = rest[n:]
			v := float64(value >> 1)
			switch {
			case value == 1 && len(rest) >= 8:
				v, rest = math.Float64frombits(binary.BigEndian.Uint64(rest)), rest[8:]
				if !(v > 0 && v <= math.MaxFloat64) {
					yield(-1, 0)
					return
				}
			case value&1 != 0 || value>>1 >= 1<<53:
				yield(-1, 0)
				return
			}
			if !yield(at, v) {
				return
			}
		}
	}
}

// sum makes the wholes from their parts. What a whole has beyond its parts, which is where
// it stands before, counts in the larger wholes too.
func (t *Totals) sum() {
	for f := range figures {
		all := t.n[baseAll+f:]
		for typ := 1; typ < len(types); typ++ {
			all[0] += all[typ*perType]
		}
		for d := range directions {
			block := t.n[baseTraffic+d*perDirection+f : baseTraffic+(d+1)*perDirection]
			for typ := 1; typ < len(types); typ++ {
				block[0] += block[typ*perType]
			}
			for tr := 1; tr < len(transports); tr++ {
				one := block[tr*perTransport:]
				for typ := 1; typ < len(types); typ++ {
					one[0] += one[typ*perType]
					block[typ*perType] += one[typ*perType]
				}
				block[0] += one[0]
			}
			for typ := range types {
				all[typ*perType] += block[typ*perType]
			}
		}
		kept := t.n[basePersisted+f:]
		for typ := 1; typ < len(types); typ++ {
			kept[0] += kept[typ*perType]
		}
	}
	for o := range requestOutcomes {
		for k := 1; k < requestKinds; k++ {
			t.n[request(requestsAll, o)] += t.n[request(k, o)]
		}
	}
}

// part is the inverse of sum, for a fixture, which may tell the parts, the wholes, or both. A
// whole that is less than its parts is ignored.
func (t *Totals) part() {
	whole := *t
	parts := *t
	for m := range parts.n {
		if isWhole(m) {
			parts.n[m] = 0
		}
	}
	// From small wholes to large ones, each time with what is known by then.
	for level := range 4 {
		sums := parts
		sums.sum()
		for m := range parts.n {
			if isWhole(m) && levelOf(m) == level {
				parts.n[m] = max(0, whole.n[m]-sums.n[m])
			}
		}
	}
	*t = parts
}

// isWhole reports whether the metric is the sum of others and what is beyond them.
func isWhole(m int) bool { return levelOf(m) >= 0 }

// levelOf orders the wholes, so that the parts of each come before it; -1 is no whole.
func levelOf(m int) int {
	switch {
	case m < basePersisted:
		tr, typ := m%perDirection/perTransport, m%perTransport/perType
		switch {
		case tr == 0 && typ == 0:
			return 1
		case tr == 0 || typ == 0:
			return 0
		}
	case m < baseAll:
		if (m-basePersisted)/perType == 0 {
			return 0
		}
	case m < baseResources:
		if (m-baseAll)/perType == 0 {
			return 3
		}
		return 2
	case m >= baseRequests && m < baseRequests+3:
		return 0
	}
	return -1
}

// Item is an interval and what was counted in it.
type Item struct {
	Interval Interval
	Record   Record

	// Live is for how long of the interval the store was there to be added to. A mean counts
	// what is not in the Record of this time as none.
	Live time.Duration

	// Until is, for an interval that is not over, the moment up to which it was counted;
	// otherwise zero.
	Until time.Time
}

// Flat returns the item's entries that are not zero, sorted by name.
func (i *Item) Flat() (iter.Seq2[string, float64], error) { return i.entries(flatNames) }

// Nested returns the same as paths in the form that clients of protocol versions below 3
// know, such as "inbound.realtime.messages.count", sorted by path.
func (i *Item) Nested() (iter.Seq2[string, float64], error) { return i.entries(nestedNames) }

func (i *Item) entries(names []named) (iter.Seq2[string, float64], error) {
	t, err := i.Record.Totals()
	if err != nil {
		return nil, err
	}
	t.sum()
	for r := range resources {
		used, over := &t.n[resource(r, usage)], max(t.n[resource(r, duration)], float64(i.Live.Milliseconds()))
		if over > 0 {
			*used = math.Round(*used/over*1000) / 1000
		}
	}
	return func(yield func(string, float64) bool) {
		for _, n := range names {
			if v := t.n[n.metric]; v != 0 && !yield(n.name, v) {
				return
			}
		}
	}, nil
}
