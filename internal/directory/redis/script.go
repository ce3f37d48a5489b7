package redis

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
	"letshare-server/internal/redisclient"
)

//go:embed lua
var sources embed.FS

// The scripts.
var (
	scriptConnection  = newScript("connection")
	scriptIndex       = newScript("index")
	scriptHeartbeat   = newScript("heartbeat")
	scriptLeave       = newScript("leave")
	scriptNotify      = newScript("notify")
	scriptOrphans     = newScript("orphans")
	scriptOrphan      = newScript("orphan")
	scriptCount       = newScript("count")
	scriptOccupancy   = newScript("occupancy")
	scriptTouch       = newScript("touch")
	scriptChannels    = newScript("channels")
	scriptNonce       = newScript("nonce")
	scriptRevoke      = newScript("revoke")
	scriptRevocations = newScript("revocations")
	scriptApp         = newScript("app")
	scriptAdd         = newScript("add")
	scriptRemove      = newScript("remove")
	scriptBuried      = newScript("buried")
	scriptHold        = newScript("hold")
)

// newScript is an embedded script, with what is common to all.
func newScript(name string) *redisclient.Script {
	text := ""
	for _, part := range []string{"common", name} {
		source, err := sources.ReadFile("lua/" + part + ".lua")
		if err != nil {
			panic(err) // it is embedded
		}
		text += string(source)
	}
	return redisclient.NewScript(text)
}

// call is one call of a script.
type call struct {
	script *redisclient.Script
	keys   []string
	args   []string
}

// timed is a call that does nothing after ctx has ended.
func (d *Directory) timed(ctx context.Context, c call) redisclient.Call {
	until := int64(0)
	if t, ok := ctx.Deadline(); ok {
		until = t.UnixMilli() + d.clock.Load()
	}
	args := append(make([]string, 0, 2+len(c.args)), number(d.skew.Load()), number(until))
	return redisclient.Call{Script: c.script, Keys: c.keys, Args: append(args, c.args...)}
}

// bounded is ctx, ended when an operation has had its time.
func (d *Directory) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d.opts.Timeout)
}

// eval calls a script, and again if it was not done or may not have been, until ctx ends.
// unsure reports whether it may have been done although the answer does not tell. What was sent
// is not done after ctx has ended.
func (d *Directory) eval(ctx context.Context, s *redisclient.Script, keys []string, args ...string) (m rueidis.RedisMessage, unsure bool, err error) {
	r := d.timed(ctx, call{s, keys, args}).Do(ctx, d.client)
	return r.RedisMessage, r.Unsure, storeError(r.Err)
}

// evalAll calls scripts in one go. The error is the first.
func (d *Directory) evalAll(ctx context.Context, calls []call) ([]rueidis.RedisMessage, error) {
	answers, errs := d.evalEach(ctx, calls)
	for _, err := range errs {
		if err != nil {
			return answers, err
		}
	}
	return answers, nil
}

// evalEach calls scripts in one go.
func (d *Directory) evalEach(ctx context.Context, calls []call) ([]rueidis.RedisMessage, []error) {
	timed := make([]redisclient.Call, len(calls))
	for i, c := range calls {
		timed[i] = d.timed(ctx, c)
	}
	answers, errs := make([]rueidis.RedisMessage, len(calls)), make([]error, len(calls))
	for i, r := range redisclient.DoAll(ctx, d.client, timed) {
		answers[i], errs[i] = r.RedisMessage, storeError(r.Err)
	}
	return answers, errs
}

// do sends one command that may be sent twice, until ctx ends.
func (d *Directory) do(ctx context.Context, build func() rueidis.Completed) (rueidis.RedisMessage, error) {
	m, err := redisclient.Repeat(ctx, d.client, build)
	if rueidis.IsRedisNil(err) {
		return m, err
	}
	return m, storeError(err)
}

// storeError is what callers are told of an error of Redis.
func storeError(err error) error {
	switch redisclient.Classify(err) {
	case redisclient.NotFailed:
		return nil
	case redisclient.Broken:
		return fmt.Errorf("directory: %w", err)
	}
	return fmt.Errorf("%w: %w", directory.ErrUnavailable, err)
}

var errMalformed = errors.New("directory: malformed data in Redis")

func number(n int64) string { return strconv.FormatInt(n, 10) }

// maxSkew is how far a node's clock may be from that of Redis without being corrected.
const maxSkew = time.Second

// offset is what is added to a time of this node's to make it one of the store's, in ms.
func (d *Directory) offset() int64 {
	if raw := d.clock.Load(); raw > maxSkew.Milliseconds() || raw < -maxSkew.Milliseconds() {
		return raw
	}
	return 0 // as good as none; and times stay what they were given as
}

// stored is a time as the store has it, in ms; never 0.
func (d *Directory) stored(t time.Time) int64 { return max(t.UnixMilli()+d.offset(), 1) }

// restored is the inverse of stored.
func (d *Directory) restored(ms int64) time.Time { return time.UnixMilli(ms - d.offset()) }
