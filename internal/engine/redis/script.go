package redis

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	_ "embed" // the scripts
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/redisclient"
)

//go:embed lua/common.lua
var luaCommon string

//go:embed lua/fast.lua
var luaFast string

//go:embed lua/append.lua
var luaAppend string

//go:embed lua/read.lua
var luaRead string

//go:embed lua/tail.lua
var luaTail string

//go:embed lua/records.lua
var luaRecords string

// script names one of the embedded scripts.
type script int

const (
	scriptAppend script = iota
	scriptRead
	scriptTail
	scriptRecords
	scriptCount
)

var sources = [scriptCount]*string{&luaAppend, &luaRead, &luaTail, &luaRecords}

// run is the scripts as one Redis process has them: the epoch stands in their text, so that
// another process does not know them and says so (NOSCRIPT). They are loaded on nothing but
// the connection that told the process's run id.
type run struct {
	epoch string
	skew  int64
	text  [scriptCount]string
	sha   [scriptCount]string
}

func newRun(runID string, skew int64) *run {
	r := &run{epoch: epochOf(runID), skew: skew}
	head := fmt.Sprintf("local EPOCH = '%s'\nlocal SKEW = %d\n", r.epoch, skew)
	for i, source := range sources {
		r.text[i] = head
		if script(i) == scriptAppend {
			r.text[i] += luaFast
		}
		r.text[i] += luaCommon + *source
		sum := sha1.Sum([]byte(r.text[i]))
		r.sha[i] = hex.EncodeToString(sum[:])
	}
	return r
}

// epochOf makes an epoch of a run id: all nodes find the same.
func epochOf(runID string) string {
	sum := sha256.Sum256([]byte(runID))
	text := new(big.Int).SetBytes(sum[:]).Text(36)
	return strings.Repeat("0", max(0, pubsub.EpochLength-len(text))) + text[:min(len(text), pubsub.EpochLength)]
}

// runs are the processes that keep the slots, as far as they are known.
type runs struct {
	slot []atomic.Pointer[run] // one for all, or one for each slot of a cluster

	mu     sync.Mutex
	shards map[string]*shardRun
}

// shardRun is the process that a shard was found to have.
type shardRun struct {
	asking sync.Mutex // one asks at a time
	run    atomic.Pointer[run]
	clock  clock
}

func (r *runs) shard(name string) *shardRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shards[name]
	if s == nil {
		s = new(shardRun)
		r.shards[name] = s
	}
	return s
}

func (r *runs) of(slot uint16) *atomic.Pointer[run] { return &r.slot[int(slot)%len(r.slot)] }

// currentRun returns the process that keeps the slot of key; stale, if not nil, is not it.
// What one slot of a shard has found out goes for all until they find that it is wrong.
func (e *Engine) currentRun(ctx context.Context, key string, slot uint16, stale *run) (*run, error) {
	good := func(r *run) bool { return r != nil && r != stale && r.skew == e.skew.Load() }
	p := e.runs.of(slot)
	if r := p.Load(); good(r) {
		return r, nil
	}
	shard := e.runs.shard(e.shardOf(slot))
	if r := shard.run.Load(); good(r) {
		p.Store(r)
		return r, nil
	}
	shard.asking.Lock()
	defer shard.asking.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r := shard.run.Load(); good(r) {
		p.Store(r)
		return r, nil
	}
	var r *run
	err := e.client.Dedicated(func(c rueidis.DedicatedClient) error {
		start := time.Now()
		text, err := c.Do(ctx, c.B().Eval().Script("return redis.call('INFO', 'server')").Numkeys(1).Key(key).Build()).ToString()
		if err != nil {
			return err
		}
		info := redisclient.Info(text)
		id := info["run_id"]
		if id == "" {
			return errors.New("engine: INFO of Redis has no run_id")
		}
		if micros, err := strconv.ParseInt(info["server_time_usec"], 10, 64); err == nil {
			shard.clock.restart(micros/1000, start, time.Since(start))
		}
		r = newRun(id, e.skew.Load())
		for i := range r.text {
			if err := c.Do(ctx, c.B().ScriptLoad().Script(r.text[i]).Build()).Error(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.Store(r)
	old := shard.run.Swap(r)
	if old != nil && old.epoch != r.epoch {
		e.opts.Log.Info("another Redis process keeps channels", "epoch", r.epoch, "before", old.epoch)
		e.checkTopology()
	}
	return r, nil
}

// wrongRun says that another process than r keeps the slot.
func (e *Engine) wrongRun(slot uint16, r *run) {
	e.runs.of(slot).CompareAndSwap(r, nil)
	e.runs.shard(e.shardOf(slot)).run.CompareAndSwap(r, nil)
}

// eval runs a script that reads, and tries again until ctx ends.
func (e *Engine) eval(ctx context.Context, s script, key string, keys, args []string) (rueidis.RedisMessage, error) {
	sl := slot(key)
	var stale *run
	var last error
	for attempt := 0; ; attempt++ {
		r, err := e.currentRun(ctx, key, sl, stale)
		if err == nil {
			cmd := e.client.B().Evalsha().Sha1(r.sha[s]).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
			var m rueidis.RedisMessage
			if m, err = e.client.Do(ctx, cmd).ToMessage(); err == nil {
				return m, nil
			}
		}
		switch redisclient.Classify(err) {
		case redisclient.NoScript:
			stale = r
			if attempt < 3 {
				continue
			}
		case redisclient.NoMemory:
			return rueidis.RedisMessage{}, engine.ErrFull
		case redisclient.Broken:
			return rueidis.RedisMessage{}, err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !redisclient.Pause(ctx, attempt) {
			return rueidis.RedisMessage{}, fmt.Errorf("%w: %w", engine.ErrUnavailable, last)
		}
	}
}
