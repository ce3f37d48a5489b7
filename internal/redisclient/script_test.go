package redisclient_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

func TestAScriptIsCalledUntilItIsDone(t *testing.T) {
	s := redistest.Start(t)
	client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	count := redisclient.NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
	call := redisclient.Call{Script: count, Keys: []string{"n"}, Args: []string{"2"}}
	expect := func(r redisclient.Result, want int64) {
		t.Helper()
		if n, err := r.AsInt64(); r.Err != nil || err != nil || n != want || r.Unsure {
			t.Errorf("got %d, %v, %v, unsure %v; want %d", n, r.Err, err, r.Unsure, want)
		}
	}
	expect(call.Do(t.Context(), client), 2) // the server does not have it
	expect(call.Do(t.Context(), client), 4)
	s.Must("SCRIPT", "FLUSH")
	for i, r := range redisclient.DoAll(t.Context(), client, []redisclient.Call{call, call, call}) {
		expect(r, int64(6+2*i))
	}
	broken := redisclient.Call{Script: redisclient.NewScript("return redis.call('LPUSH', KEYS[1], 1)"), Keys: []string{"n"}}
	if r := broken.Do(t.Context(), client); redisclient.Classify(r.Err) != redisclient.Broken || r.Unsure {
		t.Errorf("of a wrong type: %v, unsure %v", r.Err, r.Unsure)
	}

	s.Stop()
	stopped := func(most time.Duration) redisclient.Result {
		ctx, cancel := context.WithTimeout(t.Context(), most)
		defer cancel()
		r := call.Do(ctx, client)
		if !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Fatalf("of a stopped server: %v", r.Err)
		}
		return r
	}
	most := 200 * time.Millisecond
	for !stopped(most).Unsure { // the time was over before anything was sent
		if most *= 2; most > time.Minute {
			t.Fatal("what a stopped server was sent is certain")
		}
	}
	s.Continue()
	get := func() rueidis.Completed { return client.B().Get().Key("none").Build() }
	if _, err := redisclient.Repeat(t.Context(), client, get); !rueidis.IsRedisNil(err) {
		t.Errorf("of nothing: %v", err)
	}
	s.Kill()
	s.Restart()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := call.Do(ctx, client)
	if n, err := r.AsInt64(); r.Err != nil || err != nil || n != 2 {
		t.Errorf("of a server that is back, and empty: %d, %v, %v", n, r.Err, err)
	}
}
