package hub

import "slices"

// Turn joins what one reading of one socket causes: all publishes found in it are ordered
// and stored first, and sent together at End. It is used by one goroutine at a time and
// may be used again after End. The zero value is ready.
type Turn struct {
	channels []*channel
}

func (t *Turn) touch(c *channel) {
	if !slices.Contains(t.channels, c) {
		t.channels = append(t.channels, c)
	}
}

// End sends what was published since the last End. Unless another goroutine is sending to
// the same rooms already, the frames of small rooms are handed to their receivers when it
// returns.
func (t *Turn) End() {
	for i, c := range t.channels {
		c.Flush()
		t.channels[i] = nil
	}
	t.channels = t.channels[:0]
}
