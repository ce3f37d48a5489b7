package server

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/config"
	"letshare-server/internal/directory"
	directoryredis "letshare-server/internal/directory/redis"
	engineredis "letshare-server/internal/engine/redis"
	"letshare-server/internal/metrics"
	"letshare-server/internal/redisclient"
	statsredis "letshare-server/internal/stats/redis"
)

// RedisOptions are those of a configuration. It reads the files that this names. Errors quote no
// secret.
func RedisOptions(c config.Redis) (opts redisclient.Options, err error) {
	opts = redisclient.Options{
		Addresses: c.Addresses, Username: c.User,
		MasterName: c.Sentinel.Master, SentinelUsername: c.Sentinel.User,
	}
	if opts.Password, err = secretOf("redis.password_file", c.Password, c.PasswordFile); err != nil {
		return opts, err
	}
	if opts.SentinelPassword, err = secretOf("redis.sentinel.password_file", c.Sentinel.Password, c.Sentinel.PasswordFile); err != nil {
		return opts, err
	}
	if c.TLS.Enabled {
		opts.TLS, err = redisTLS(c.TLS)
	}
	return opts, err
}

// OpenRedis connects to the Redis of a configuration that has one, and checks that it will do.
// The caller closes the client.
func OpenRedis(ctx context.Context, c config.Redis) (rueidis.Client, error) {
	opts, err := RedisOptions(c)
	if err != nil {
		return nil, err
	}
	client, err := redisclient.Open(ctx, opts)
	if advice := redisAdvice(c, err); advice != "" {
		err = fmt.Errorf("%w: %s", err, advice)
	}
	return client, err
}

// redisAdvice is what an operator may do about an error of connecting to Redis, or "".
func redisAdvice(c config.Redis, err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		plain   tls.RecordHeaderError
		op      *net.OpError
		answer  *rueidis.RedisError
	)
	refused := errors.As(err, &answer) && (strings.HasPrefix(answer.Error(), "NOAUTH") || strings.HasPrefix(answer.Error(), "WRONGPASS"))
	broken := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
	switch {
	case errors.As(err, &unknown) && c.TLS.CAFile == "":
		return "set redis.tls.ca_file to the certificate of the authority that has issued that of Redis"
	case errors.As(err, &unknown):
		return "redis.tls.ca_file, " + c.TLS.CAFile + ", is not of the authority that has issued the certificate of Redis"
	case errors.As(err, &name):
		return "set redis.tls.server_name to a name that the certificate of Redis has"
	case errors.As(err, &plain), c.TLS.Enabled && errors.Is(err, context.DeadlineExceeded): // Redis waits for the end of a line
		return "if there is no TLS on this port give the tls-port of Redis in redis.addresses, or set redis.tls.enabled to false"
	case errors.As(err, &op) && op.Op == "remote error", broken && c.TLS.Enabled:
		return "Redis may want another certificate of this node: set redis.tls.cert_file and key_file to one of an authority in its tls-ca-cert-file"
	case broken:
		return "if Redis speaks TLS there, set redis.tls.enabled"
	case refused && errors.Is(err, redisclient.ErrNoSentinel):
		return "set redis.sentinel.user and password, or password_file, to what the Sentinels know"
	case refused:
		return "set redis.user and redis.password, or password_file, to what Redis knows"
	}
	return ""
}

// secretOf is a secret that stands in the configuration or in a file.
func secretOf(setting string, secret config.Secret, file string) (string, error) {
	if file == "" {
		return string(secret), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	password := strings.TrimSpace(string(text))
	if password == "" {
		return "", fmt.Errorf("%s: %s is empty", setting, file)
	}
	return password, nil
}

func redisTLS(c config.RedisTLS) (*tls.Config, error) {
	t := &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("redis.tls.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis.tls.ca_file: %s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		own, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("redis.tls: %w", err)
		}
		t.Certificates = []tls.Certificate{own}
	}
	return t, nil
}

// secretFormat begins the value of a secret in Redis.
const secretFormat = "1:"

// KeepSecret returns the secret that the nodes of a cluster keep under a name in Redis. If there
// is none made becomes it. Its key is <prefix>secret:<name>, its value "1:" and the secret.
func KeepSecret(ctx context.Context, client rueidis.Client, prefix, name, made string) (string, error) {
	kept, err := client.Do(ctx, client.B().Set().Key(prefix+"secret:"+name).Value(secretFormat+made).Nx().Get().Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return made, nil
	}
	if err != nil {
		return "", fmt.Errorf("keep %s in Redis: %w", name, err)
	}
	secret, known := strings.CutPrefix(kept, secretFormat)
	if !known {
		return "", fmt.Errorf("what Redis keeps as %s is of another version", name)
	}
	return secret, nil
}

const (
	// watchInterval is the time between two looks at Redis, and watchTimeout how long one may take.
	watchInterval = 2 * time.Second
	watchTimeout  = time.Second

	// secretsLooks is after how many of them the shared secrets and the settings are looked at.
	secretsLooks = 5
)

// watchRedis notes whether Redis answers, and sees to it that it keeps the cluster's secrets, also
// after it has lost them, until ctx ends.
func (s *Server) watchRedis(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	defer s.agreement.leave(context.WithoutCancel(ctx))
	away, differs := false, false
	for look := 0; ; look++ {
		started := time.Now()
		err := s.lookAtRedis(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.metrics.RedisAnswered(err == nil, time.Since(started))
		switch {
		case err != nil && !away:
			s.log.Error("Redis is away: publishes are refused until it is back", "error", err)
		case err == nil && away:
			s.log.Info("Redis is back")
		}
		if away && err == nil || look%secretsLooks == 0 && err == nil {
			if differing, err := s.agreement.compare(ctx); err == nil {
				s.metrics.SettingsCompared(differing)
			}
			if names := s.differingSecrets(ctx); len(names) > 0 && !differs {
				differs = true
				s.log.Error("other nodes of the cluster work with other secrets: restart this one", "secrets", strings.Join(names, ", "))
			}
		}
		away = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Server) lookAtRedis(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	return s.engine.Ready(ctx)
}

// differingSecrets puts the shared secrets into Redis if they are not there, and returns the names
// of those that are others.
func (s *Server) differingSecrets(ctx context.Context) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	for name, secret := range s.secrets.Shared {
		kept, err := KeepSecret(ctx, s.redis, s.config.Redis.Prefix, name, string(secret))
		if err == nil && kept != string(secret) {
			names = append(names, name)
		}
	}
	return names
}

// connectTimeout is how long connecting to Redis may take at the start.
const connectTimeout = 15 * time.Second

// redisStores connects to Redis and makes the stores that the nodes of the cluster share.
func (s *Server) redisStores(node directory.Node) (stores, error) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	var err error
	if s.redis, err = OpenRedis(ctx, s.config.Redis); err != nil {
		return stores{}, err
	}
	s.agreement = newAgreement(s.redis, s.config.Redis.Prefix, s.log)
	s.agreement.adopt(s.config, s.config, s.secrets)
	e, err := engineredis.New(ctx, s.redis, engineredis.Options{
		Policy: s.policy, Prefix: s.config.Redis.Prefix, Timeout: s.config.Redis.Timeout, Log: s.log,
	})
	if err != nil {
		return stores{}, err
	}
	d, err := directoryredis.New(ctx, s.redis, node, directoryredis.Options{
		Prefix: s.config.Redis.Prefix, Timeout: max(directoryredis.DefaultTimeout, s.config.Redis.Timeout), Log: s.log,
	})
	if err != nil {
		return stores{}, err
	}
	s.kept = func() metrics.Held {
		st, known := e.Stats(), d.Stats()
		return metrics.Held{Redis: &metrics.Redis{
			Appends: st.Appends, Calls: st.Calls, Ambiguous: st.Ambiguous, Gaps: st.Gaps, CaughtUp: st.CaughtUp, Lost: st.Lost,
			FeedBreaks: st.FeedBreaks, QueuedBytes: st.Queued, Channels: st.Subscribed,
			HeardSeconds: time.Since(known.Heard).Seconds(), Returned: known.Returned, Buried: known.Buried,
			Waiting: known.Waiting, Counted: known.Counted, Watched: known.Watched,
		}}
	}
	return stores{engine: e, directory: d, stats: statsredis.New(s.redis, statsredis.Options{Prefix: s.config.Redis.Prefix})}, nil
}

// connectionSecret signs connectionKeys. Those of a node that stands alone are worth nothing after
// it has ended, since its connections have ended with it; those of a cluster are good on all nodes,
// as are tokens.
func connectionSecret(c config.Config, secrets config.Secrets) []byte {
	if !c.Redis.Clustered() {
		return []byte(rand.Text() + rand.Text())
	}
	mac := hmac.New(sha256.New, []byte(secrets.TokenSecret))
	mac.Write([]byte("connectionKey"))
	return mac.Sum(nil)
}
