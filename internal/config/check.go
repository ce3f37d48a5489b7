package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Check reports everything that is wrong with c. It quotes no secrets.
func (c Config) Check() error {
	var errs []error
	fail := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
	}

	if port, err := strconv.Atoi(c.Server.Port); err != nil || port < 0 || port > 65535 {
		fail("server.port", "must be a port number from 0 to 65535")
	}
	if strings.ContainsAny(c.Server.Host, "/ ") {
		fail("server.host", "must be an address or a host name")
	}
	for _, proxy := range c.Server.TrustedProxies {
		if _, err := netip.ParsePrefix(proxy); err == nil {
			continue
		}
		if _, err := netip.ParseAddr(proxy); err != nil {
			fail("server.trusted_proxies", "%q is neither an address nor a network such as 10.0.0.0/8", proxy)
		}
	}
	if c.Server.ShutdownGrace < 0 {
		fail("server.shutdown_grace", "must not be negative")
	}
	if c.JWT.ExpirationHours < 1 || c.JWT.ExpirationHours > 100*365*24 {
		fail("jwt.expiration_hours", "must be from 1 to %d", 100*365*24)
	}
	for path, origins := range map[string][]string{
		"cors.allowed_origins": c.CORS.AllowedOrigins, "ably.allowed_origins": c.Ably.AllowedOrigins,
	} {
		for _, origin := range origins {
			if problem := originProblem(origin); problem != "" {
				fail(path, "%q %s", origin, problem)
			}
		}
	}
	if !slices.Contains([]string{"parked", "epoll"}, c.Server.Poller) {
		fail("server.poller", "must be parked or epoll")
	}
	if !slices.Contains([]string{"exact", "wildcard"}, c.LetShare.DirectedEvents) {
		fail("letshare.directed_events", "must be exact or wildcard")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		fail("log.level", "must be debug, info, warn or error")
	}
	if c.Log.MaxEntries < 1 || c.Log.MaxEntries > 100_000 {
		fail("log.max_entries", "must be from 1 to 100000")
	}
	if c.Log.Dir == "" {
		fail("log.dir", "must not be empty")
	}
	if c.WebSocket.MaxRoomUsers < 1 {
		fail("websocket.max_room_users", "must be at least 1")
	}
	if c.WebSocket.PingInterval <= 0 {
		fail("websocket.ping_interval", "must be more than 0")
	}
	if c.WebSocket.IdleTimeout < 2*c.WebSocket.PingInterval {
		fail("websocket.idle_timeout", "must be at least twice websocket.ping_interval")
	}
	c.checkTLS(fail)
	for i, token := range c.Admin.Tokens {
		if problem := tokenProblem(string(token)); problem != "" {
			fail(fmt.Sprintf("admin.tokens[%d]", i), "%s", problem)
		}
	}
	if a := c.Debug.PprofAddress; a != "" {
		addr, err := netip.ParseAddrPort(a)
		if err != nil || !addr.Addr().IsLoopback() {
			fail("debug.pprof_address", "must be a loopback address and a port, such as 127.0.0.1:6060")
		}
	}
	if least := 16 << 20; c.Storage.MaxBytes != 0 && c.Storage.MaxBytes < least {
		fail("storage.max_bytes", "must be 0, or at least %d", least)
	}
	c.checkRedis(fail)
	c.checkKeys(fail)
	c.checkLimits(fail)
	return errors.Join(errs...)
}

// minTokenBytes is the length of the shortest access token.
const minTokenBytes = 32

// tokenProblem says what is wrong with an access token, or returns "".
func tokenProblem(token string) string {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return "must be printable ASCII without spaces"
		}
	}
	if len(token) < minTokenBytes {
		return fmt.Sprintf("must have at least %d characters; openssl rand -hex 32 prints some", minTokenBytes)
	}
	return ""
}

// originProblem says what is wrong with an entry of an allow-list, or returns "".
func originProblem(origin string) string {
	u, err := url.Parse(origin)
	switch {
	case origin == "*":
		return "is no origin: list each that is allowed"
	case err != nil || u.Scheme == "" || u.Host == "":
		return "must have the form scheme://host or scheme://host:port"
	case strings.HasSuffix(origin, "/"):
		return "must not end in a slash: browsers send none, and it would never match"
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "must have nothing after the host and port"
	case origin != strings.ToLower(origin):
		return "must be lower case: browsers send it so, and it would never match"
	}
	return ""
}

type failFunc func(path, format string, args ...any)

func (c *Config) checkKeys(fail failFunc) {
	defaultApp := ""
	for i, text := range c.APIKeys {
		path := fmt.Sprintf("api_keys[%d]", i)
		k, ok := splitKey(string(text))
		switch {
		case !ok:
			fail(path, "must have the form appId.keyId:secret")
		case defaultApp != "" && k.App != defaultApp:
			fail(path, "is of app %s, but the first key is of %s; put keys of other apps under apps", k.App, defaultApp)
		case defaultApp == "":
			defaultApp = k.App
		}
	}
	for i, name := range c.Revocable {
		if !c.hasKey(name) {
			fail(fmt.Sprintf("revocable_keys[%d]", i), "must be the name of one of api_keys, appId.keyId")
		}
	}
	c.checkNamespaces("namespaces", c.Namespaces, fail)
	seen := map[string]bool{defaultApp: defaultApp != ""}
	for i, app := range c.Apps {
		path := fmt.Sprintf("apps[%d]", i)
		if app.ID == "" {
			fail(path+".id", "must not be empty")
		} else if seen[app.ID] {
			fail(path+".id", "%s is there twice", app.ID)
		}
		seen[app.ID] = true
		for j, key := range app.Keys {
			if key.ID == "" || key.Secret == "" {
				fail(fmt.Sprintf("%s.keys[%d]", path, j), "must have an id and a secret")
			}
		}
		c.checkNamespaces(path+".namespaces", app.Namespaces, fail)
	}
}

// hasKey reports whether a key of the default app may have this name. One that the server makes
// is known only later.
func (c *Config) hasKey(name string) bool {
	if strings.Contains(name, ":") {
		return false // a whole key, with its secret
	}
	for _, text := range c.APIKeys {
		if k, ok := splitKey(string(text)); ok && k.name() == name {
			return true
		}
	}
	app, id, _ := strings.Cut(name, ".")
	return len(c.APIKeys) == 0 && app != "" && id != ""
}

func (c *Config) checkNamespaces(path string, list []Namespace, fail failFunc) {
	seen := make(map[string]bool)
	for i, ns := range list {
		at := fmt.Sprintf("%s[%d].id", path, i)
		switch {
		case ns.ID == "":
			fail(at, "must not be empty")
		case strings.Contains(ns.ID, ":"):
			fail(at, "must have no colon: it is the part of the channels' name before it")
		case seen[ns.ID]:
			fail(at, "%s is there twice", ns.ID)
		}
		seen[ns.ID] = true
		limits := reflect.ValueOf(ns.Limits)
		for f, v := range limits.Fields() {
			least := int64(0)
			if strings.HasSuffix(yamlName(f), "_per_second") {
				least = -1
			}
			if v.Int() < least {
				fail(fmt.Sprintf("%s[%d].limits.%s", path, i, yamlName(f)), "must be at least %d", least)
			}
		}
		if ns.Limits.MaxMessageBytes > c.Limits.MaxMessageBytes {
			fail(fmt.Sprintf("%s[%d].limits.max_message_bytes", path, i), "must not be more than limits.max_message_bytes, which clients are told")
		}
	}
}

func (c *Config) checkTLS(fail failFunc) {
	if port := c.TLS.Port; port != "" {
		switch n, err := strconv.Atoi(port); {
		case err != nil || n < 0 || n > 65535:
			fail("tls.port", "must be empty, or a port number from 0 to 65535")
		case port == c.Server.Port && n != 0:
			fail("tls.port", "must differ from server.port, which speaks TLS by itself if tls.port is empty")
		case !c.TLS.Enabled():
			fail("tls.port", "needs a certificate: set tls.cert_file and tls.key_file, or tls.acme.domains")
		}
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fail("tls", "cert_file and key_file must be set together")
	}
	acme := c.TLS.ACME
	for _, name := range acme.Domains {
		if !domain.MatchString(name) || len(name) > 253 {
			fail("tls.acme.domains", "%q must be a name such as realtime.example.com, in lower case and ASCII (xn--), without a wildcard", name)
		}
	}
	if len(acme.Domains) > 0 && c.TLS.CertFile != "" {
		fail("tls", "cert_file and acme.domains exclude each other")
	}
	if len(acme.Domains) > 0 && !acme.AcceptTerms {
		fail("tls.acme.accept_terms", "must be true for ACME: read the terms of service of the CA first")
	}
	if u, err := url.Parse(acme.Directory); acme.Directory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		fail("tls.acme.directory", "must be a URL that begins with https://")
	}
	if acme.Email != "" && !strings.Contains(acme.Email, "@") {
		fail("tls.acme.email", "must be an address such as ops@example.com")
	}
}

// redisPrefix is the syntax of redis.prefix. Braces would put keys that belong together on
// different shards of a Redis Cluster.
var redisPrefix = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)

func (c *Config) checkRedis(fail failFunc) {
	r := c.Redis
	for _, address := range r.Addresses {
		host, port, err := net.SplitHostPort(address)
		if n, notNumber := strconv.Atoi(port); err != nil || host == "" || notNumber != nil || n < 1 || n > 65535 {
			fail("redis.addresses", "%q must have the form host:port", address)
		}
	}
	if r.Clustered() && c.Storage.Dir != "" {
		fail("storage.dir", "excludes redis.addresses: messages are kept either on this machine or in Redis")
	}
	if !redisPrefix.MatchString(r.Prefix) {
		fail("redis.prefix", "must be 1 to 64 letters, digits and characters of _.:-")
	}
	if r.Timeout < 100*time.Millisecond || r.Timeout > 5*time.Second {
		fail("redis.timeout", "must be from 100ms to 5s")
	}
	if r.Password != "" && r.PasswordFile != "" {
		fail("redis", "password and password_file exclude each other")
	}
	if r.User != "" && r.Password == "" && r.PasswordFile == "" {
		fail("redis.user", "needs a password")
	}
	s := r.Sentinel
	if s.Password != "" && s.PasswordFile != "" {
		fail("redis.sentinel", "password and password_file exclude each other")
	}
	if s.User != "" && s.Password == "" && s.PasswordFile == "" {
		fail("redis.sentinel.user", "needs a password")
	}
	if s.Master == "" && (s.User != "" || s.Password != "" || s.PasswordFile != "") {
		fail("redis.sentinel.master", "must be the primary's name at the Sentinels")
	}
	t := r.TLS
	if (t.CertFile == "") != (t.KeyFile == "") {
		fail("redis.tls", "cert_file and key_file must be set together")
	}
	if !t.Enabled && (t.CAFile != "" || t.ServerName != "" || t.CertFile != "") {
		fail("redis.tls.enabled", "must be true for the other settings of redis.tls to have an effect")
	}
}

// domain is the syntax of names that certificates are ordered for: labels of which the last is no number.
var domain = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$`)

func (c *Config) checkLimits(fail failFunc) {
	normal := Default(c.Mode)
	defaults := settings(&normal)
	for i, s := range settings(c) {
		if !strings.HasPrefix(s.path, "limits.") || s.value.Kind() != reflect.Int {
			continue
		}
		// Those without a default may be off.
		if least := min(defaults[i].value.Int(), 1); s.value.Int() < least {
			fail(s.path, "must be at least %d", least)
		}
	}
	if !slices.Contains([]string{"", ablyProfile}, c.Limits.Profile) {
		fail("limits.profile", "must be empty or %s", ablyProfile)
	}
	if c.Limits.Burst < time.Second || c.Limits.Burst > time.Minute {
		fail("limits.burst", "must be from 1s to 1m")
	}
	if c.Limits.MaxFrameBytes < c.Limits.MaxMessageBytes {
		fail("limits.max_frame_bytes", "must be at least limits.max_message_bytes")
	}
	if c.Limits.OutboxBytes < c.Limits.MaxFrameBytes {
		fail("limits.outbox_bytes", "must be at least limits.max_frame_bytes")
	}
	if c.Limits.OutboxTotalBytes < c.Limits.OutboxBytes {
		fail("limits.outbox_total_bytes", "must be at least limits.outbox_bytes")
	}
}

// Address is what the server listens on, "host:port".
func (c Config) Address() string { return net.JoinHostPort(c.Server.Host, c.Server.Port) }

// TLSAddress is what it listens on for TLS beside that, or "" if it does not.
func (c Config) TLSAddress() string {
	if c.TLS.Port == "" {
		return ""
	}
	return net.JoinHostPort(c.Server.Host, c.TLS.Port)
}
