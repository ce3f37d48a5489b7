package wsconn

import (
	"time"

	"letshare-server/internal/outbox"
	"letshare-server/internal/socket"
)

// expirer is Conn as the wheel sees it.
type expirer Conn

// Expire looks at what is due, does it, and schedules the next look. Nothing here blocks: the
// application's hook runs on a worker.
func (e *expirer) Expire() {
	c := (*Conn)(e)
	set, wheel := &c.server.set, c.server.wheel
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	if c.phase != running {
		late := wheel.Now() >= c.deadline
		left := c.deadline.Sub(wheel.Now())
		c.mu.Unlock()
		if !late {
			wheel.ScheduleSooner(&c.timer, e, left)
			return
		}
		// The peer had its time. What the kernel has taken is still delivered, unless the
		// outbox is stuck: then so is the kernel.
		if c.out.Queued() > 0 {
			c.out.Abort()
		} else {
			c.out.Close()
		}
		return
	}
	c.mu.Unlock()
	if c.out.Overdue() {
		return // Slow has been called
	}
	now := wheel.Now()
	silent := now.Sub(socket.Ticks(c.lastRead.Load()))
	half := socket.Ticks(c.partial.Load())
	switch {
	case set.PongTimeout > 0 && silent >= set.PongTimeout:
		c.sendClose(End{Cause: Silent, Code: socket.CloseGoingAway, Reason: "no answer to pings"}, closeSent, outbox.ThenNothing)
		return
	case set.FrameTimeout > 0 && half != 0 && now.Sub(half) >= set.FrameTimeout:
		c.sendClose(End{Cause: Stalled, Code: socket.ClosePolicyViolation, Reason: "message took too long"}, lingering, outbox.ThenCloseWrite)
		return
	}
	stuck := c.out.Stuck() > 0 // then nothing would get through
	if set.PingInterval > 0 && silent >= set.PingInterval && !stuck {
		c.mu.Lock()
		due := c.pinged == 0 || now.Sub(c.pinged) >= set.PingInterval
		if due {
			c.pinged = now
		}
		c.mu.Unlock()
		if due {
			c.out.PutQuiet(pingFrame)
		}
	}
	if every := set.heartbeatEvery(); every > 0 && !stuck && now.Sub(c.out.LastWrite()) >= every {
		c.out.Put(set.Heartbeat)
	}
	if _, ok := c.handler.(IdleHandler); ok {
		c.server.poller.Workers().Go((*idler)(c))
	}
	// Unless the end has begun meanwhile and is more impatient.
	wheel.ScheduleSooner(&c.timer, e, c.untilDue())
	c.stopIfClosed()
}

// stopIfClosed undoes a schedule that came after Closed had stopped the timer.
func (c *Conn) stopIfClosed() {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		c.server.wheel.Stop(&c.timer)
	}
}

// untilDue is the time until something may have to be done.
func (c *Conn) untilDue() time.Duration {
	set, now := &c.server.set, c.server.wheel.Now()
	next := lookInterval
	sooner := func(limit, passed time.Duration) {
		if limit > 0 {
			next = min(next, max(limit-passed, 0))
		}
	}
	silent := now.Sub(socket.Ticks(c.lastRead.Load()))
	sooner(set.PongTimeout, silent)
	c.mu.Lock()
	pinged := c.pinged
	c.mu.Unlock()
	if pinged != 0 && silent >= set.PingInterval {
		sooner(set.PingInterval, now.Sub(pinged))
	} else {
		sooner(set.PingInterval, silent)
	}
	sooner(set.heartbeatEvery(), now.Sub(c.out.LastWrite()))
	// These two may begin right after this look, hence both at the latest when they could end.
	sooner(set.FrameTimeout, 0)
	sooner(c.out.MaxAge(), 0)
	if half := socket.Ticks(c.partial.Load()); half != 0 {
		sooner(set.FrameTimeout, now.Sub(half))
	}
	if stuck := c.out.Stuck(); stuck > 0 {
		sooner(c.out.MaxAge(), stuck)
		next = max(next, socket.TickLength) // what is due cannot be done while it is stuck
	}
	return next
}

// heartbeatEvery leaves a margin of a tenth, and of what the wheel may be late, so that the gap
// between two frames never exceeds HeartbeatInterval.
func (s *Settings) heartbeatEvery() time.Duration {
	if s.HeartbeatInterval <= 0 || len(s.Heartbeat) == 0 {
		return 0
	}
	margin := max(s.HeartbeatInterval/10, 3*socket.TickLength)
	return max(s.HeartbeatInterval-margin, s.HeartbeatInterval/2)
}

// idler is Conn as the task that tells the handler of idleness.
type idler Conn

func (i *idler) Run() {
	c := (*Conn)(i)
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.currentPhase() != running {
		return
	}
	now := c.server.wheel.Now()
	c.handler.(IdleHandler).Idle(now.Sub(c.out.LastWrite()), now.Sub(socket.Ticks(c.lastRead.Load())))
}
