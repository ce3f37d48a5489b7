package redis

import (
	"context"
	"crypto/sha1"
	_ "embed" // the scripts
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
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

// script is one of the embedded scripts.
type script struct{ text, sha string }

var (
	scriptConnection = newScript(luaConnection)
	scriptIndex      = newScript(luaIndex)
	scriptHeartbeat  = newScript(luaHeartbeat)
	scriptLeave      = newScript(luaLeave)
	scriptNotify     = newScript(luaNotify)
	scriptOrphans    = newScript(luaOrphans)
	scriptOrphan     = newScript(luaOrphan)
)

func newScript(text string) *script {
	text = luaCommon + text
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// call is one call of a script.
type call struct {
	script *script
	keys   []string
	args   []string
}

func (d *Directory) command(ctx context.Context, c call, whole bool) rueidis.Completed {
	until := int64(0)
	if t, ok := ctx.Deadline(); ok {
		until = t.UnixMilli() + d.clock.Load()
	}
	head := []string{strconv.FormatInt(d.skew.Load(), 10), strconv.FormatInt(until, 10)}
	if whole {
		return d.client.B().Eval().Script(c.script.text).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(head...).Arg(c.args...).Build()
	}
	return d.client.B().Evalsha().Sha1(c.script.sha).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(head...).Arg(c.args...).Build()
}

// bounded is ctx, ended when an operation has had its time.
func (d *Directory) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d.opts.Timeout)
}

// eval calls a script, and again if it was not done or may not have been, until ctx ends:
// scripts are such that they may be called twice. unsure reports whether it may have been done
// by a call before the last. An error that is not of the script's making is
// directory.ErrUnavailable; what was sent is not done after ctx has ended.
func (d *Directory) eval(ctx context.Context, s *script, keys []string, args ...string) (m rueidis.RedisMessage, unsure bool, err error) {
	return d.evalAfter(ctx, call{s, keys, args}, nil)
}

// evalAfter is eval of a call that failed before, unless err is nil.
func (d *Directory) evalAfter(ctx context.Context, c call, err error) (m rueidis.RedisMessage, unsure bool, _ error) {
	whole := false
	var last error
	for attempt := 0; ; attempt++ {
		if err == nil || attempt > 0 {
			if m, err = d.client.Do(ctx, d.command(ctx, c, whole)).ToMessage(); err == nil {
				return m, unsure, nil
			}
		}
		switch {
		case isLate(err) || rueidis.IsRedisNil(err):
		default:
			switch redisclient.Classify(err) {
			case redisclient.NoScript:
				whole = true
				continue
			case redisclient.NoMemory:
				return m, unsure, fmt.Errorf("%w: its memory is full", directory.ErrUnavailable)
			case redisclient.Broken:
				return m, unsure, fmt.Errorf("directory: %w", err)
			case redisclient.Ambiguous:
				unsure = true
			}
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !redisclient.Pause(ctx, attempt) {
			return m, unsure, fmt.Errorf("%w: %w", directory.ErrUnavailable, last)
		}
	}
}

// evalAll calls a script many times in one go. The error is the first.
func (d *Directory) evalAll(ctx context.Context, calls []call) ([]rueidis.RedisMessage, error) {
	if len(calls) == 0 {
		return nil, nil
	}
	commands := make(rueidis.Commands, len(calls))
	for i, c := range calls {
		commands[i] = d.command(ctx, c, false)
	}
	answers := make([]rueidis.RedisMessage, len(calls))
	var errs []error
	for i, r := range d.client.DoMulti(ctx, commands...) {
		var err error
		if answers[i], err = r.ToMessage(); err != nil {
			if answers[i], _, err = d.evalAfter(ctx, calls[i], err); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if len(errs) > 0 {
		return answers, errs[0]
	}
	return answers, nil
}

// do sends one command that may be sent twice, until ctx ends.
func (d *Directory) do(ctx context.Context, build func() rueidis.Completed) (rueidis.RedisMessage, error) {
	var last error
	for attempt := 0; ; attempt++ {
		m, err := d.client.Do(ctx, build()).ToMessage()
		if err == nil || rueidis.IsRedisNil(err) {
			return m, err
		}
		if redisclient.Classify(err) == redisclient.Broken {
			return m, fmt.Errorf("directory: %w", err)
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !redisclient.Pause(ctx, attempt) {
			return m, fmt.Errorf("%w: %w", directory.ErrUnavailable, last)
		}
	}
}

func isLate(err error) bool {
	re, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(re.Error(), "LATE")
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
