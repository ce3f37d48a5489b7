// Package redisclient connects to Redis: one server, a Redis Cluster, or a primary behind
// Sentinel. What keeps data in Redis shares the client that Open returns.
package redisclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Options say which Redis, and how to reach it.
type Options struct {
	// Addresses are "host:port" of a server, of some nodes of a Redis Cluster, or, with
	// MasterName, of the Sentinels.
	Addresses []string

	Username, Password string      // of the servers; empty: none
	TLS                *tls.Config // of all connections; nil: no TLS

	// MasterName is the primary's name at the Sentinels. Empty: there are none.
	MasterName                         string
	SentinelUsername, SentinelPassword string // empty: none

	// Timeout is how long connecting, and an answer on an idle connection, may take. Zero
	// means DefaultTimeout.
	Timeout time.Duration
}

// DefaultTimeout is the Timeout of Options that name none.
const DefaultTimeout = 2 * time.Second

func (o *Options) timeout() time.Duration {
	if o.Timeout == 0 {
		return DefaultTimeout
	}
	return o.Timeout
}

// MinVersion is the first version of Redis that will do.
const MinVersion = 7

// Open connects and checks that every server will do: its version is MinVersion or later and
// it refuses writes when its memory is full, rather than dropping keys. The caller closes
// the client.
func Open(ctx context.Context, opts Options) (rueidis.Client, error) {
	var client rueidis.Client
	var err error
	if opts.MasterName != "" {
		client, err = openSentinel(opts, clientOption(opts))
	} else {
		client, err = rueidis.NewClient(clientOption(opts))
	}
	if err != nil {
		return nil, fmt.Errorf("connect to Redis at %s: %w", strings.Join(opts.Addresses, ", "), err)
	}
	for addr, node := range client.Nodes() {
		if err := check(ctx, node); err != nil {
			client.Close()
			return nil, fmt.Errorf("the server at %s: %w", addr, err)
		}
	}
	return client, nil
}

func clientOption(opts Options) rueidis.ClientOption {
	timeout := opts.timeout()
	dialer := net.Dialer{Timeout: timeout, KeepAlive: max(timeout/2, 100*time.Millisecond)}
	o := rueidis.ClientOption{
		InitAddress:      slices.Clone(opts.Addresses),
		Username:         opts.Username,
		Password:         opts.Password,
		TLSConfig:        opts.TLS,
		Dialer:           dialer,
		ConnWriteTimeout: timeout,
		ClientName:       "letshare-server",
		DisableCache:     true,
		DisableRetry:     true, // who asks knows whether asking again is right
		AlwaysPipelining: true,
		// One connection to each server does: commands are many in a packet.
		PipelineMultiplex:   -1,
		RingScaleEachConn:   8,
		ReadBufferEachConn:  64 << 10,
		WriteBufferEachConn: 64 << 10,
		ClusterOption: rueidis.ClusterOption{
			ShardsRefreshInterval: time.Second,
			MaxMovedRedirections:  3,
		},
	}
	return o
}

var errOldVersion = fmt.Errorf("version %d or later is needed", MinVersion)

func check(ctx context.Context, node rueidis.Client) error {
	text, err := node.Do(ctx, node.B().Info().Build()).ToString()
	if err != nil {
		return err
	}
	info := Info(text)
	major, _, _ := strings.Cut(info["redis_version"], ".")
	if n, err := strconv.Atoi(major); err != nil || n < MinVersion {
		return fmt.Errorf("its version is %q: %w", info["redis_version"], errOldVersion)
	}
	if policy := info["maxmemory_policy"]; policy != "noeviction" {
		return fmt.Errorf("its maxmemory-policy is %q, which drops data that was acknowledged: set it to noeviction", policy)
	}
	return nil
}

// Info takes the answer to INFO apart.
func Info(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			fields[name] = value
		}
	}
	return fields
}
