package sse

import (
	"time"

	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
)

// expirer is stream as the wheel sees it.
type expirer stream

// Expire does what is due and schedules the next look. It does not block.
func (e *expirer) Expire() {
	s := (*stream)(e)
	if s.ended.Load() {
		return
	}
	now := s.door.opts.Wheel.Now()
	if last := socket.Ticks(s.last.Load()); last != 0 {
		if now < last {
			s.schedule(last.Sub(now))
			return
		}
		if s.out.Queued() > 0 {
			_ = s.conn.Abort() // the peer had its time
		}
		s.out.Close()
		return
	}
	if s.out.Overdue() {
		return // Slow was called
	}
	if expires := s.grant.Expires; !expires.IsZero() && time.Until(expires) <= 0 {
		s.end(s.style.lastError(pubsub.NewError(pubsub.CodeTokenExpired, "token expired")))
		return
	}
	if s.out.Stuck() == 0 && now.Sub(s.out.LastWrite()) >= s.keepaliveEvery() {
		s.out.Put(s.keepalive)
	}
	s.schedule(s.untilDue())
}

// keepaliveEvery leaves a margin of a tenth, and of what the wheel may be late, so that no
// silence is longer than MaxIdleInterval.
func (s *stream) keepaliveEvery() time.Duration {
	limit := s.door.opts.MaxIdleInterval
	return max(limit-max(limit/10, 3*socket.TickLength), limit/2)
}

// untilDue is the time until something may have to be done. It is never longer than the time
// between keepalives, so that a socket that is stuck is seen early enough.
func (s *stream) untilDue() time.Duration {
	next := s.keepaliveEvery()
	if stuck := s.out.Stuck(); stuck > 0 {
		next = min(next, s.out.MaxAge()-stuck)
	} else {
		next -= s.door.opts.Wheel.Since(s.out.LastWrite())
	}
	if expires := s.grant.Expires; !expires.IsZero() {
		next = min(next, time.Until(expires))
	}
	return max(next, socket.TickLength)
}

// schedule arranges the next look, unless a sooner one is arranged or the stream has ended.
func (s *stream) schedule(d time.Duration) {
	wheel := s.door.opts.Wheel
	wheel.ScheduleSooner(&s.timer, (*expirer)(s), d)
	if s.ended.Load() {
		wheel.Stop(&s.timer)
	}
}
