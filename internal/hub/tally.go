package hub

import (
	"letshare-server/internal/engine"
	"letshare-server/internal/stats"
)

// tally is what was handed to receivers, counted once for each of them.
type tally struct {
	frames                  int
	messages, messageBytes  int
	presence, presenceBytes int
}

// add adds what attachments were sent of p.
func (t *tally) add(p *parcel) {
	t.frames += p.wholesSent
	t.messages += p.wholesSent
	for i := range p.units {
		receivers := p.whole + int(p.receivers[i])
		if receivers == 0 {
			continue
		}
		t.frames += receivers
		u := &p.units[i]
		e := p.batch[u.Entry]
		switch {
		case e.Kind == engine.KindPresence:
			t.presence += receivers * e.Body.Len()
			t.presenceBytes += receivers * e.Body.Size()
		case !e.Kind.OfMessages():
		case u.Item == AllItems:
			t.messages += receivers * e.Body.Len()
			t.messageBytes += receivers * e.Body.Size()
		default:
			t.messages += receivers
			t.messageBytes += receivers * e.Body.Messages[u.Item].Size()
		}
	}
}

// count tells the app of it.
func (t *tally) count(counts *stats.App) {
	counts.Delivered(stats.Realtime, stats.Messages, t.messages, t.messageBytes)
	counts.Delivered(stats.Realtime, stats.Presence, t.presence, t.presenceBytes)
}
