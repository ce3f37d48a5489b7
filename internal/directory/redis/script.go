package redis

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
	"letshare-server/internal/redisclient"
)

//go:embed lua/common.lua
var luaCommon string

//go:embed lua/connection.lua
var luaConnection string

//go:embed lua/index.lua
var luaIndex string

//go:embed lua/heartbeat.lua
var luaHeartbeat string

//go:embed lua/leave.lua
var luaLeave string

//go:embed lua/notify.lua
var luaNotify string

//go:embed lua/orphans.lua
var luaOrphans string

//go:embed lua/orphan.lua
var luaOrphan string

//go:embed lua/count.lua
var luaCount string

//go:embed lua/occupancy.lua
var luaOccupancy string

//go:embed lua/touch.lua
var luaTouch string

//go:embed lua/channels.lua
var luaChannels string

//go:embed lua/nonce.lua
var luaNonce string

//go:embed lua/revoke.lua
var luaRevoke string

//go:embed lua/revocations.lua
var luaRevocations string

//go:embed lua/app.lua
var luaApp string

//go:embed lua/inhabit.lua
var luaInhabit string

// The scripts.
var (
	scriptConnection  = newScript(luaConnection)
	scriptIndex       = newScript(luaIndex)
	scriptHeartbeat   = newScript(luaHeartbeat)
	scriptLeave       = newScript(luaLeave)
	scriptNotify      = newScript(luaNotify)
	scriptOrphans     = newScript(luaOrphans)
	scriptOrphan      = newScript(luaOrphan)
	scriptCount       = newScript(luaCount)
	scriptOccupancy   = newScript(luaOccupancy)
	scriptTouch       = newScript(luaTouch)
	scriptChannels    = newScript(luaChannels)
	scriptNonce       = newScript(luaNonce)
	scriptRevoke      = newScript(luaRevoke)
	scriptRevocations = newScript(luaRevocations)
	scriptApp         = newScript(luaApp)
	scriptInhabit     = newScript(luaInhabit)
)

func newScript(text string) *redisclient.Script { return redisclient.NewScript(luaCommon + text) }

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
