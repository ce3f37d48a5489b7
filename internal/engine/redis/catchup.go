package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/engine"
	"letshare-server/internal/redisclient"
)

// catchers is how many channels read what they are missing at once.
const catchers = 8

// catching is the channels that have to read the log.
type catching struct {
	mu      sync.Mutex
	waiting []*subscription
	working int

	running sync.WaitGroup
}

// catchUp makes s read what it is missing, if it does not do so.
func (e *Engine) catchUp(s *subscription) {
	s.mu.Lock()
	if s.catching || s.closed {
		s.mu.Unlock()
		return
	}
	s.catching, s.live = true, false
	s.mu.Unlock()
	c := &e.catching
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.life.Err() != nil {
		return
	}
	c.waiting = append(c.waiting, s)
	if c.working < catchers {
		c.working++
		c.running.Add(1)
		go e.catchAll()
	}
}

func (e *Engine) catchAll() {
	c := &e.catching
	defer c.running.Done()
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 || e.life.Err() != nil {
			c.working--
			c.waiting = nil
			c.mu.Unlock()
			return
		}
		s := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		if !e.catch(s) {
			c.mu.Lock()
			c.waiting = append(c.waiting, s) // after all others have had their turn
			c.mu.Unlock()
			redisclient.Pause(e.life, 4)
		}
	}
}

// catchPage is how many entries are read at once.
const catchPage = 256

// maxFruitless is how often the log may have nothing for what live entries say is missing:
// then Redis has lost it.
const maxFruitless = 3

// catch reads the log from where s stands until s is live. It reports false if Redis did not
// answer.
func (e *Engine) catch(s *subscription) bool {
	for fruitless := 0; ; {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return true
		}
		position := s.position
		s.mu.Unlock()

		ctx, cancel := context.WithTimeout(e.life, e.opts.ReadTimeout)
		page, err := e.read(ctx, s.id, engine.Query{After: position.serial(), Exact: true, Limit: catchPage})
		cancel()
		if errors.Is(err, engine.ErrGone) || errors.Is(err, engine.ErrForeign) {
			if !e.lost(s) {
				return false
			}
			continue
		}
		if err != nil {
			if errors.Is(err, engine.ErrUnavailable) {
				return false
			}
			e.opts.Log.Error("read what a channel is missing", "channel", s.id, "error", err)
			if !e.lost(s) {
				return false
			}
			continue
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return true
		}
		if len(page.Entries) > 0 {
			fruitless = 0
			s.to.Deliver(page.Entries)
			last, _ := parsePosition(page.Entries[len(page.Entries)-1].Serial)
			s.position, s.newest = last, last
			s.heard = time.Now()
			e.stats.caught.Add(int64(len(page.Entries)))
		} else {
			fruitless++
		}
		if !page.More && fruitless >= maxFruitless {
			s.held, s.heldBytes, s.dropped = nil, 0, false
		}
		done := !page.More && s.release()
		if done {
			s.catching = false
		}
		s.mu.Unlock()
		s.to.Flush()
		if done {
			return true
		}
	}
}

// lost moves s to the tail of a log that does not have what s is missing.
func (e *Engine) lost(s *subscription) bool {
	tail, newest, err := e.tail(e.life, s)
	if err != nil {
		return false
	}
	s.mu.Lock()
	if !s.closed {
		s.position, s.newest = tail, newest
		s.to.Lost(tail.serial())
		e.stats.lost.Add(1)
	}
	s.mu.Unlock()
	s.to.Flush()
	return true
}

// compare asks where the given channels' logs end, and makes those catch up that are behind.
// It reports false if Redis did not answer for some.
func (e *Engine) compare(ctx context.Context, subs []*subscription) bool {
	ok := true
	for len(subs) > 0 {
		part := subs[:min(len(subs), 256)]
		subs = subs[len(part):]
		ok = e.comparePart(ctx, part) && ok
	}
	return ok
}

func (e *Engine) comparePart(ctx context.Context, subs []*subscription) bool {
	ctx, cancel := context.WithTimeout(ctx, e.opts.ReadTimeout)
	defer cancel()
	commands := make(rueidis.Commands, 0, len(subs))
	asked := make([]*subscription, 0, len(subs))
	runs := make([]*run, 0, len(subs))
	ok := true
	for _, s := range subs {
		r, err := e.currentRun(ctx, s.keys.state, s.slot, nil)
		if err != nil {
			ok = false
			continue
		}
		commands = append(commands, e.client.B().Evalsha().Sha1(r.sha[scriptTail]).Numkeys(2).Key(s.keys.state, s.keys.log()).Arg(e.retention(s.id)).Build())
		asked, runs = append(asked, s), append(runs, r)
	}
	if len(commands) == 0 {
		return ok
	}
	for i, answer := range e.client.DoMulti(ctx, commands...) {
		text, err := answer.ToString()
		if err != nil {
			if redisclient.Classify(err) == redisclient.NoScript {
				e.wrongRun(asked[i].slot, runs[i])
				e.catchUp(asked[i]) // which tries again
				continue
			}
			ok = false
			continue
		}
		if tail, _, err := parseTail(text); err == nil {
			s := asked[i]
			s.mu.Lock()
			behind := !s.closed && s.live && s.position != tail && !(s.position.epoch == tail.epoch && s.position.after(tail))
			if !behind {
				s.heard = time.Now()
			}
			s.mu.Unlock()
			if behind {
				e.catchUp(s)
			}
		}
	}
	return ok
}
