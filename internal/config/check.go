package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
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

	defaults := Default(c.Mode)
	normal := settings(&defaults)
	for i, s := range settings(&c) {
		unset := reflect.DeepEqual(s.value.Interface(), normal[i].value.Interface()) ||
			s.value.Kind() == reflect.Slice && s.value.Len() == 0
		if s.field.Tag.Get("later") != "" && !unset {
			fail(s.path, "not supported yet; remove it")
		}
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
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fail("tls", "cert_file and key_file must be set together")
	}
	c.checkKeys(fail)
	c.checkLimits(fail)
	return errors.Join(errs...)
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
	checkNamespaces("namespaces", c.Namespaces, fail)
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
		checkNamespaces(path+".namespaces", app.Namespaces, fail)
	}
}

func checkNamespaces(path string, list []Namespace, fail failFunc) {
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
		v := reflect.ValueOf(ns)
		for j := range v.NumField() {
			if f := v.Type().Field(j); f.Tag.Get("later") != "" && !v.Field(j).IsZero() {
				fail(fmt.Sprintf("%s[%d].%s", path, i, f.Tag.Get("yaml")), "not supported yet; remove it")
			}
		}
	}
}

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
