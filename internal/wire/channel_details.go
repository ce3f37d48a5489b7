package wire

import "letshare-server/internal/pubsub"

// AppendChannelDetails appends what REST tells of a channel's state (CHD2a-b, CHS2a-b, CHO2a): it is active, and
// has this occupancy.
func AppendChannelDetails(dst []byte, f Format, channel string, o pubsub.Occupancy) []byte {
	w := writer{b: dst, format: f}
	details := w.object()
	w.key("channelId")
	w.str(channel)
	w.key("name")
	w.str(channel)
	w.key("status")
	status := w.object()
	w.key("isActive")
	w.bool(true)
	w.key("occupancy")
	occupancy := w.object()
	w.key("metrics")
	metrics := w.object()
	for m := range pubsub.Metrics {
		w.key(m.String())
		w.int(int64(o[m]))
	}
	w.endObject(metrics)
	w.endObject(occupancy)
	w.endObject(status)
	w.endObject(details)
	return w.b
}
