package server

import (
	"context"
	_ "embed"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/config"
	"letshare-server/internal/redisclient"
)

// Nodes of a cluster that are configured differently treat clients differently: a token that one
// node takes another refuses, and a room is as large as the node allows that is asked. This node
// tells the others, in Redis, with which settings it works, and looks at what they tell.
//
// It says so and goes on. A cluster gets new settings node by node, so that nodes must start
// while others work with the old ones; and a node that ended because of another's mistake would take
// its clients with it.

//go:embed settings.lua
var settingsSource string

var settingsScript = redisclient.NewScript(settingsSource)

// settingsLife is for how long it is believed that a node works with what it told last; it tells that
// every 10 s, and takes it back when it stops.
const settingsLife = 35 * time.Second

// prefixesKey is the key where nodes of all clusters that share a Redis tell their redis.prefix. It
// begins as those of the default prefix do, so that a user who may use these may use it.
const prefixesKey = "letshare:prefixes"

// agreement compares settings. But for settings its fields are of the goroutine that compares.
type agreement struct {
	client rueidis.Client
	prefix string
	host   string
	log    *slog.Logger

	settings atomic.Pointer[map[string]string] // config.Shared

	said   map[string][]string // fields, by key
	differ string              // as it was logged last
	alone  bool                // the user of Redis may not use prefixesKey
}

func newAgreement(client rueidis.Client, prefix string, log *slog.Logger) *agreement {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &agreement{client: client, prefix: prefix, host: host, log: log, said: make(map[string][]string)}
}

// compare tells the others what this node works with, and returns how many settings differ. What
// is new is logged.
func (a *agreement) compare(ctx context.Context) (differing int, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	mine := *a.settings.Load()
	others, err := a.tell(ctx, a.prefix+"settings", mine)
	if err != nil {
		return 0, err
	}
	// Clusters may share a Redis, but who has the same keys and another prefix is likely to have
	// mistyped it. Where the user of Redis may not use this key nobody looks.
	where := "redis.prefix with api_keys " + mine["api_keys"] + "-" + mine["jwt.secret"]
	var elsewhere map[string]string
	if !a.alone {
		if elsewhere, err = a.tell(ctx, prefixesKey, map[string]string{where: a.prefix}); err != nil {
			a.alone = strings.Contains(err.Error(), "NOPERM")
			a.log.Debug("redis.prefix is not compared with that of other clusters", "error", err)
		}
	}
	var names, hosts []string
	for name, host := range others {
		names, hosts = append(names, name), append(hosts, host)
	}
	slices.Sort(names)
	slices.Sort(hosts)
	if host, has := elsewhere[where]; has {
		names, hosts = append(names, "redis.prefix"), append(hosts, host)
	}
	differ := strings.Join(names, ", ")
	switch {
	case differ == a.differ:
	case differ == "":
		a.log.Info("the nodes of the cluster have the same settings again")
	default:
		a.log.Error("other nodes of the cluster have other settings, so that clients are treated differently by each: give all nodes the same, and restart them or send SIGHUP",
			"settings", differ, "other_hosts", strings.Join(slices.Compact(hosts), ", "))
	}
	a.differ = differ
	return len(names), nil
}

// tell says values of settings at a key, and returns those that others say otherwise, each with the host
// of one who does.
func (a *agreement) tell(ctx context.Context, key string, values map[string]string) (others map[string]string, err error) {
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fields = append(fields, name+"="+values[name])
	}
	gone := slices.DeleteFunc(slices.Clone(a.said[key]), func(field string) bool { return slices.Contains(fields, field) })
	args := slices.Concat([]string{strconv.FormatInt(settingsLife.Milliseconds(), 10), a.host, strconv.Itoa(len(fields))}, fields, gone)
	call := redisclient.Call{Script: settingsScript, Keys: []string{key}, Args: args}
	r := call.Do(ctx, a.client)
	if r.Err != nil {
		return nil, r.Err
	}
	a.said[key] = fields
	said, err := r.AsStrSlice()
	if err != nil {
		return nil, err
	}
	others = make(map[string]string)
	for i := 0; i+1 < len(said); i += 2 {
		at := strings.LastIndexByte(said[i], '=')
		if at < 0 {
			continue
		}
		// A setting that only another version has differs in no way that anybody could mend.
		if mine, has := values[said[i][:at]]; has && mine != said[i][at+1:] {
			others[said[i][:at]] = said[i+1]
		}
	}
	return others, nil
}

// leave takes back what this node has told. What others have told too they tell again, within 10 s.
func (a *agreement) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	for key, fields := range a.said {
		if len(fields) > 0 {
			_ = a.client.Do(ctx, a.client.B().Hdel().Key(key).Field(fields...).Build()).Error() // it ends by itself
		}
	}
}

// adopt is told which settings the server goes by from now on.
func (a *agreement) adopt(started, loaded config.Config, secrets config.Secrets) {
	settings := config.Shared(started, loaded, secrets)
	a.settings.Store(&settings)
}
