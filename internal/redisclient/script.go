package redisclient

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	"github.com/redis/rueidis"
)

// Script is a Lua script. Redis is sent it whole where it does not have it yet.
type Script struct{ text, sha string }

// NewScript returns a script.
func NewScript(text string) *Script {
	sum := sha1.Sum([]byte(text))
	return &Script{text, hex.EncodeToString(sum[:])}
}

// Call is one call of a script.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string
}

func (c *Call) command(client rueidis.Client, whole bool) rueidis.Completed {
	if whole {
		return client.B().Eval().Script(c.Script.text).Numkeys(int64(len(c.Keys))).Key(c.Keys...).Arg(c.Args...).Build()
	}
	return client.B().Evalsha().Sha1(c.Script.sha).Numkeys(int64(len(c.Keys))).Key(c.Keys...).Arg(c.Args...).Build()
}

// Result is the answer to a call.
type Result struct {
	rueidis.RedisMessage
	Err error

	// Unsure says that a call may have been done before the one that Err or the answer belong
	// to, or by it.
	Unsure bool
}

// Do sends a call, and again if it was not done or may not have been, until ctx ends: the
// script is such that it may be called twice.
func (c Call) Do(ctx context.Context, client rueidis.Client) Result {
	m, err := client.Do(ctx, c.command(client, false)).ToMessage()
	return c.follow(ctx, client, m, err)
}

// DoAll sends calls in one go, each as Do does.
func DoAll(ctx context.Context, client rueidis.Client, calls []Call) []Result {
	results := make([]Result, len(calls))
	if len(calls) == 0 {
		return results
	}
	commands := make(rueidis.Commands, len(calls))
	for i := range calls {
		commands[i] = calls[i].command(client, false)
	}
	for i, r := range client.DoMulti(ctx, commands...) {
		m, err := r.ToMessage()
		results[i] = calls[i].follow(ctx, client, m, err)
	}
	return results
}

// follow takes the answer to a call, and calls again if that is right.
func (c *Call) follow(ctx context.Context, client rueidis.Client, m rueidis.RedisMessage, err error) (r Result) {
	whole := false
	for attempt := 0; ; attempt++ {
		if err == nil || rueidis.IsRedisNil(err) {
			r.RedisMessage, r.Err = m, nil
			return r
		}
		switch Classify(err) {
		case Broken, NoMemory:
			r.Err = err
			return r
		case Ambiguous:
			r.Unsure = true
		}
		// The end of ctx says less than what came before it.
		if ctx.Err() == nil || r.Err == nil {
			r.Err = err
		}
		if whole = whole || Classify(err) == NoScript; attempt == 0 && whole && ctx.Err() == nil {
			// At once: the script is sent now.
		} else if !Pause(ctx, attempt) {
			return r
		}
		m, err = client.Do(ctx, c.command(client, whole)).ToMessage()
	}
}

// Repeat sends a command that may be sent twice, and again if it was not done or may not have
// been, until ctx ends. An answer of nothing is rueidis.Nil.
func Repeat(ctx context.Context, client rueidis.Client, build func() rueidis.Completed) (m rueidis.RedisMessage, err error) {
	for attempt := 0; ; attempt++ {
		m, e := client.Do(ctx, build()).ToMessage()
		if ctx.Err() == nil || err == nil {
			err = e
		}
		if f := Classify(e); e == nil || rueidis.IsRedisNil(e) || f == Broken || f == NoMemory {
			return m, e
		}
		if !Pause(ctx, attempt) {
			return m, err
		}
	}
}
