package pubsub

import "strconv"

// Metric is a category of a channel's occupancy (CHM2a-h).
type Metric uint8

// The metrics of a channel. All but the members count connections that are attached with the
// mode in question.
const (
	MetricConnections Metric = iota
	MetricPublishers
	MetricSubscribers
	MetricPresenceConnections
	MetricPresenceMembers
	MetricPresenceSubscribers
	MetricObjectPublishers
	MetricObjectSubscribers

	Metrics // how many there are
)

var metricNames = [Metrics]string{
	"connections", "publishers", "subscribers", "presenceConnections", "presenceMembers",
	"presenceSubscribers", "objectPublishers", "objectSubscribers",
}

func (m Metric) String() string { return metricNames[m] }

// ParseMetric returns the metric of a name.
func ParseMetric(name string) (m Metric, ok bool) {
	for m, known := range metricNames {
		if known == name {
			return Metric(m), true
		}
	}
	return 0, false
}

// Occupancy is how many of each metric a channel has, or the difference of two such.
type Occupancy [Metrics]int32

// OccupancyOf is what one connection adds to a channel that it is attached to with the given
// modes. Without modes it is not attached.
func OccupancyOf(modes Mode) (o Occupancy) {
	if modes != 0 {
		o[MetricConnections] = 1
	}
	count := func(metric Metric, mode Mode) {
		if modes&mode != 0 {
			o[metric] = 1
		}
	}
	count(MetricPublishers, ModePublish)
	count(MetricSubscribers, ModeSubscribe)
	count(MetricPresenceConnections, ModePresence)
	count(MetricPresenceSubscribers, ModePresenceSubscribe)
	count(MetricObjectPublishers, ModeObjectPublish)
	count(MetricObjectSubscribers, ModeObjectSubscribe)
	return o
}

// Plus is the sum of o and p.
func (o Occupancy) Plus(p Occupancy) Occupancy {
	for i := range o {
		o[i] += p[i]
	}
	return o
}

// Minus is the difference of o and p.
func (o Occupancy) Minus(p Occupancy) Occupancy {
	for i := range o {
		o[i] -= p[i]
	}
	return o
}

// AppendJSON appends o as the object of its metrics, as "metrics" has it on the wire, or with
// only one of them.
func (o Occupancy) AppendJSON(dst []byte, only ...Metric) []byte {
	dst = append(dst, '{')
	for m := range Metrics {
		if len(only) > 0 && only[0] != m {
			continue
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), metricNames[m]...), '"', ':')
		dst = strconv.AppendInt(dst, int64(o[m]), 10)
	}
	return append(dst, '}')
}
