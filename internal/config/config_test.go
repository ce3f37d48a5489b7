package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/config"
)

// write makes a file and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, o config.Options) config.Config {
	t.Helper()
	c, warnings, err := config.Load(o)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("error %v, warnings %q", err, warnings)
	}
	return c
}

func TestWithNothingSetTheDefaultsHold(t *testing.T) {
	for mode, environ := range map[config.Mode][]string{
		config.Local:      nil,
		config.Production: {"MODE=production"},
	} {
		c := mustLoad(t, config.Options{Dir: t.TempDir(), Environ: environ})
		if !reflect.DeepEqual(c, config.Default(mode)) {
			t.Errorf("%s: %+v", mode, c)
		}
	}
	c := config.Default(config.Local)
	if c.Server.Port != "8080" || c.JWT.Secret != "letshare-jwt-secret-key-2024" || c.Log.Level != "info" || c.Mode != "local" {
		t.Errorf("documented defaults: %+v", c)
	}
}

func TestTheShippedFilesAreWhatTheyAreDocumentedToBe(t *testing.T) {
	c := mustLoad(t, config.Options{Dir: "../../configs"})
	want := config.Default(config.Local)
	want.JWT.Secret = "letshare-jwt-secret-key-2024-local"
	want.Log.Level = "debug"
	want.CORS.AllowedOrigins = []string{"http://localhost:3000", "http://localhost:5173", "https://letshare.fun"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("local.yaml: %+v, want %+v", c, want)
	}
	c = mustLoad(t, config.Options{Dir: "../../configs", Environ: []string{"MODE=production"}})
	want = config.Default(config.Production)
	want.JWT.Secret = "letshare-jwt-secret-key-2024-production"
	want.CORS.AllowedOrigins = []string{"https://letshare.fun", "https://www.letshare.fun", "https://cdn.letshare.fun"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("production.yaml: %+v, want %+v", c, want)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	file := write(t, "server: {port: 1000, host: file}\nlog: {level: debug}\n")
	c := mustLoad(t, config.Options{
		File:    file,
		Environ: []string{"LETSHARE_SERVER_PORT=2000", "LETSHARE_LOG_LEVEL=warn", "HOME=/root", "LETSHARE_JWT_SECRET="},
		Flags:   map[string]string{"server.port": "3000"},
	})
	if c.Server.Port != "3000" || c.Log.Level != "warn" || c.Server.Host != "file" || c.Log.MaxEntries != 200 {
		t.Errorf("got %+v %+v", c.Server, c.Log)
	}
	if c.JWT.Secret != "letshare-jwt-secret-key-2024" {
		t.Errorf("an empty variable is not none")
	}
}

func TestAProfileChangesTheDefaultsOfLimitsAndWhatIsSetWins(t *testing.T) {
	want := config.Default(config.Local)
	want.Limits.Profile = "ably"
	want.Limits.ConnectionMessagesPerSecond = 50
	want.Limits.ConnectionOutboundMessagesPerSecond = 50
	want.Limits.ConnectionProtocolsPerSecond = 2000
	want.Limits.ChannelsPerConnection = 200
	want.Limits.ChannelMessagesPerSecond = 50
	want.Limits.ChannelBytesPerSecond = 1 << 20
	want.Limits.PresenceMembers = 200
	want.Limits.AppConnections = 200
	want.Limits.AppChannels = 200
	want.Limits.AppRequestsPerSecond = 50
	want.Limits.AppTokenRequestsPerSecond = 50
	for name, o := range map[string]config.Options{
		"the file":        {File: write(t, "limits: {profile: ably}\n")},
		"the environment": {Dir: t.TempDir(), Environ: []string{"LETSHARE_LIMITS_PROFILE=ably"}},
		"a flag":          {Dir: t.TempDir(), Flags: map[string]string{"limits.profile": "ably"}},
	} {
		if c := mustLoad(t, o); !reflect.DeepEqual(c, want) {
			t.Errorf("from %s: %+v, want %+v", name, c.Limits, want.Limits)
		}
	}
	c := mustLoad(t, config.Options{
		File:    write(t, "limits: {profile: ably, presence_members: 1000, app_channels: 7}\n"),
		Environ: []string{"LETSHARE_LIMITS_CONNECTION_MESSAGES_PER_SECOND=0"},
		Flags:   map[string]string{"limits.app_channels": "8"},
	})
	want.Limits.PresenceMembers, want.Limits.AppChannels, want.Limits.ConnectionMessagesPerSecond = 1000, 8, 0
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c.Limits, want.Limits)
	}
}

func TestTheFixedNamesOfTheEnvironment(t *testing.T) {
	c := mustLoad(t, config.Options{Dir: t.TempDir(), Environ: []string{
		"LETSHARE_SERVER_PORT=9000", "LETSHARE_JWT_SECRET=s=e=c", "LETSHARE_LOG_LEVEL=error", "LETSHARE_LOG_DIR=some/logs",
		"LETSHARE_API_KEYS=app001.key001:abc, app001.key002:def", "LETSHARE_SANDBOX_ENABLED=false",
		"LETSHARE_WEBSOCKET_MAX_ROOM_USERS=3", "LETSHARE_CORS_ALLOWED_ORIGINS=http://a, https://b:81,",
		"LETSHARE_SERVER_SHUTDOWN_GRACE=1m", "LETSHARE_JWT_ENFORCE_ROOM=false",
	}})
	if c.Server.Port != "9000" || c.JWT.Secret != "s=e=c" || c.Log.Level != "error" || c.Log.Dir != "some/logs" ||
		!slices.Equal(c.APIKeys, []config.Secret{"app001.key001:abc", "app001.key002:def"}) ||
		c.WebSocket.MaxRoomUsers != 3 || !slices.Equal(c.CORS.AllowedOrigins, []string{"http://a", "https://b:81"}) ||
		c.Server.ShutdownGrace != time.Minute || c.JWT.EnforceRoom {
		t.Errorf("got %+v", c)
	}
}

func TestFaultsNameThePlaceAndTheNearestName(t *testing.T) {
	for _, c := range []struct{ name, file, env, want string }{
		{"a key", "server:\n  prot: 80", "", ":2: unknown setting server.prot, did you mean port?"},
		{"a section", "\n\nwebsockets:\n  max_room_users: 5", "", ":3: unknown setting websockets, did you mean websocket?"},
		{"nothing near", "zzzzzzzzzzz: 1", "", ":1: unknown setting zzzzzzzzzzz"},
		{"in a list", "namespaces:\n  - id: a\n    persist: true", "", ":3: unknown setting namespaces[0].persist"},
		{"twice", "log:\n  level: info\n  level: debug", "", ":3: log.level is there twice"},
		{"no number", "log: {max_entries: many}", "", ":1: log.max_entries must be a whole number"},
		{"no list", "cors:\n  allowed_origins: http://a", "", ":2: cors.allowed_origins must be a list"},
		{"no value", "log:\n  level: [info]", "", ":2: log.level must be a single value"},
		{"no section", "log: info", "", ":1: log must have settings below it"},
		{"no duration", "server: {shutdown_grace: 10}", "", "server.shutdown_grace must be a duration"},
		{"no yaml", "log: {", "", "test.yaml: yaml:"},
		{"two documents", "log: {level: info}\n---\nlog: {level: debug}", "", "more than one document"},
		{"a variable", "", "LETSHARE_SEVER_PORT=80", "unknown variable LETSHARE_SEVER_PORT, did you mean LETSHARE_SERVER_PORT?"},
		{"a variable's value", "", "LETSHARE_LOG_MAX_ENTRIES=x", "LETSHARE_LOG_MAX_ENTRIES: must be a whole number"},
		{"a list of objects", "", "LETSHARE_NAMESPACES=a", "unknown variable LETSHARE_NAMESPACES"},
		{"mode", "", "MODE=test", `MODE is "test": must be local or production`},
		{"port", "server: {port: 70000}", "", "server.port: must be a port number"},
		{"a small database", "storage: {max_bytes: 1000}", "", "storage.max_bytes: must be 0, or at least"},
		{"Redis without a port", "redis: {addresses: [redis]}", "", `redis.addresses: "redis" must have the form host:port`},
		{"Redis and a database", "redis: {addresses: ['a:1']}\nstorage: {dir: d}", "", "storage.dir: excludes redis.addresses"},
		{"a prefix with braces", "redis: {prefix: 'a{b}:'}", "", "redis.prefix: must be"},
		{"a long wait", "redis: {timeout: 9s}", "", "redis.timeout: must be from 100ms to 5s"},
		{"two passwords", "redis: {password: a, password_file: b}", "", "redis: password and password_file exclude each other"},
		{"a user of Redis without a password", "redis: {user: a}", "", "redis.user: needs a password"},
		{"Sentinels without a name", "redis: {sentinel: {password: a}}", "", "redis.sentinel.master: must be"},
		{"two passwords of Sentinel", "redis: {sentinel: {master: m, password: a, password_file: b}}", "", "redis.sentinel: password and password_file"},
		{"a user of Sentinel without a password", "redis: {sentinel: {master: m, user: a}}", "", "redis.sentinel.user: needs a password"},
		{"half of a certificate for Redis", "redis: {tls: {enabled: true, cert_file: c}}", "", "redis.tls: cert_file and key_file must be set together"},
		{"TLS to Redis by half", "redis: {tls: {ca_file: c}}", "", "redis.tls.enabled: must be true"},
		{"level", "log: {level: loud}", "", "log.level: must be debug, info, warn or error"},
		{"half of a certificate", "tls: {cert_file: c.pem}", "", "tls: cert_file and key_file must be set together"},
		{"profiles for everybody", "debug: {pprof_address: '0.0.0.0:6060'}", "", "debug.pprof_address: must be a loopback address and a port"},
		{"profiles by name", "debug: {pprof_address: 'localhost:6060'}", "", "debug.pprof_address: must be a loopback address and a port"},
		{"TLS on one port", "server: {port: 8443}\ntls: {port: 8443, cert_file: c, key_file: k}", "", "tls.port: must differ from server.port"},
		{"TLS on no port", "tls: {port: x, cert_file: c, key_file: k}", "", "tls.port: must be empty, or a port number"},
		{"TLS without a certificate", "tls: {port: 8443}", "", "tls.port: needs a certificate"},
		{"ACME without a yes", "tls: {acme: {domains: [a.example]}}", "", "tls.acme.accept_terms: must be true"},
		{"ACME and files", "tls: {cert_file: c, key_file: k, acme: {domains: [a.example], accept_terms: true}}", "", "tls: cert_file and acme.domains exclude each other"},
		{"ACME for all", "tls: {acme: {domains: ['*.a.example'], accept_terms: true}}", "", "without a wildcard"},
		{"ACME for an address", "tls: {acme: {domains: [192.0.2.1], accept_terms: true}}", "", `"192.0.2.1" must be a name`},
		{"ACME for a host", "tls: {acme: {domains: [localhost], accept_terms: true}}", "", `"localhost" must be a name`},
		{"ACME in plaintext", "tls: {acme: {directory: 'http://ca.example'}}", "", "tls.acme.directory: must be a URL that begins with https://"},
		{"ACME for nobody", "tls: {acme: {email: me}}", "", "tls.acme.email: must be an address"},
		{"slash", "cors: {allowed_origins: ['https://a/']}", "", "must not end in a slash"},
		{"star", "cors: {allowed_origins: ['*']}", "", "list each that is allowed"},
		{"no scheme", "ably: {allowed_origins: ['a.com']}", "", `ably.allowed_origins: "a.com" must have the form`},
		{"upper case", "ably: {allowed_origins: ['https://A.com']}", "", "must be lower case"},
		{"proxy", "server: {trusted_proxies: [me]}", "", "neither an address nor a network"},
		{"key", "api_keys: [nonsense]", "", "api_keys[0]: must have the form appId.keyId:secret"},
		{"two apps", "api_keys: [a.b:c, d.e:f]", "", "api_keys[1]: is of app d, but the first key is of a"},
		{"no revocable key", "api_keys: [a.b:c]\nrevocable_keys: [a.b, a.c]", "", "revocable_keys[1]: must be the name of one of api_keys"},
		{"a whole revocable key", "revocable_keys: ['a.b:c']", "", "revocable_keys[0]: must be the name of one of api_keys"},
		{"app twice", "apps: [{id: a}, {id: a}]", "", "apps[1].id: a is there twice"},
		{"key without secret", "apps: [{id: a, keys: [{id: b}]}]", "", "apps[0].keys[0]: must have an id and a secret"},
		{"namespace", "namespaces: [{id: 'a:b'}]", "", "namespaces[0].id: must have no colon"},
		{"a namespace's limit", "namespaces: [{id: n, limits: {presence_members: -1}}]", "", "namespaces[0].limits.presence_members: must be at least 0"},
		{"a namespace's rate", "namespaces: [{id: n, limits: {channel_bytes_per_second: -2}}]", "", "namespaces[0].limits.channel_bytes_per_second: must be at least -1"},
		{"an app's namespace's limit", "apps: [{id: a, namespaces: [{id: n, limits: {max_message_bytes: 70000}}]}]", "",
			"apps[0].namespaces[0].limits.max_message_bytes: must not be more than limits.max_message_bytes"},
		{"no such limit", "namespaces: [{id: n, limits: {presense_members: 1}}]", "", "unknown setting namespaces[0].limits.presense_members, did you mean presence_members?"},
		{"limit", "limits: {max_message_bytes: 0}", "", "limits.max_message_bytes: must be at least 1"},
		{"limit that may be off", "limits: {app_channels: -1}", "", "limits.app_channels: must be at least 0"},
		{"profile", "limits: {profile: able}", "", "limits.profile: must be empty or ably"},
		{"burst", "limits: {burst: 10ms}", "", "limits.burst: must be from 1s to 1m"},
		{"frame", "limits: {max_frame_bytes: 10}", "", "limits.max_frame_bytes: must be at least limits.max_message_bytes"},
		{"idle", "websocket: {idle_timeout: 30s}", "", "websocket.idle_timeout: must be at least twice"},
		{"room", "websocket: {max_room_users: 0}", "", "websocket.max_room_users: must be at least 1"},
		{"events", "letshare: {directed_events: all}", "", "letshare.directed_events: must be exact or wildcard"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := config.Options{Dir: t.TempDir(), Environ: []string{c.env}}
			if c.file != "" {
				o.File = write(t, c.file)
			}
			_, _, err := config.Load(o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAllFaultsAreReportedTogether(t *testing.T) {
	_, _, err := config.Load(config.Options{
		File:    write(t, "log: {lvl: x}\nserver: {shutdown_grace: 1}"),
		Environ: []string{"LETSHARE_X=1"},
		Flags:   map[string]string{"no.such": "1"},
	})
	for _, want := range []string{"log.lvl", "server.shutdown_grace", "LETSHARE_X", "no.such"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

func TestAFileThatIsNamedMustExist(t *testing.T) {
	if _, _, err := config.Load(config.Options{File: filepath.Join(t.TempDir(), "none.yaml")}); err == nil {
		t.Error("no error")
	}
}

func TestAFileMayBeEmptyOrLeaveValuesOut(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "server:\n", "server:\n  port:\njwt:\n  secret: ~\napi_keys:\n"} {
		if c := mustLoad(t, config.Options{File: write(t, text)}); !reflect.DeepEqual(c, config.Default(config.Local)) {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func TestWhatKubernetesInjectsIsIgnoredWithOneWarning(t *testing.T) {
	injected := []string{
		"LETSHARE_SERVER_PORT=tcp://10.0.0.1:8080", "LETSHARE_SERVER_SERVICE_HOST=10.0.0.1", "LETSHARE_SERVER_SERVICE_PORT=8080",
		"LETSHARE_SERVER_SERVICE_PORT_HTTP=8080", "LETSHARE_SERVER_PORT_8080_TCP=tcp://10.0.0.1:8080",
		"LETSHARE_SERVER_PORT_8080_TCP_PROTO=tcp", "LETSHARE_SERVER_PORT_8080_TCP_PORT=8080",
		"LETSHARE_SERVER_PORT_8080_TCP_ADDR=10.0.0.1", "LETSHARE_SERVICE_HOST=10.0.0.2", "LETSHARE_PORT=tcp://10.0.0.2:80",
		"LETSHARE_REDIS_SERVICE_HOST=10.0.0.3", "LETSHARE_REDIS_PORT=tcp://10.0.0.3:6379",
	}
	c, warnings, err := config.Load(config.Options{Dir: t.TempDir(), Environ: injected})
	if err != nil || len(warnings) != 1 || c.Server.Port != "8080" {
		t.Fatalf("port %s, warnings %q, error %v", c.Server.Port, warnings, err)
	}
	for _, e := range injected {
		if name, _, _ := strings.Cut(e, "="); !strings.Contains(warnings[0], name) {
			t.Errorf("%s is not mentioned in %q", name, warnings[0])
		}
	}
	if c := mustLoad(t, config.Options{Dir: t.TempDir(), Environ: []string{"LETSHARE_SERVER_PORT=9000"}}); c.Server.Port != "9000" {
		t.Errorf("a real port was ignored")
	}
}

func TestObjectsAndAliasesInTheFile(t *testing.T) {
	c := mustLoad(t, config.Options{File: write(t, `
namespaces:
  - &p {id: persisted, persisted: true}
  - {id: Mixed_Case, identified: true}
  - {id: rest, persist_last: true, tls_only: true, mutable_messages: true, push_enabled: true, limits: {channel_messages_per_second: -1, max_message_bytes: 10}}
apps:
  - id: app2
    keys:
      - {id: k1, secret: 12345678901234567890, capability: '{"*":["subscribe"]}', revocable: true}
    namespaces: [*p]
`)})
	want := config.Default(config.Local)
	p := config.Namespace{ID: "persisted", Persisted: true}
	want.Namespaces = []config.Namespace{p, {ID: "Mixed_Case", Identified: true},
		{ID: "rest", PersistLast: true, TLSOnly: true, MutableMessages: true, PushEnabled: true,
			Limits: config.NamespaceLimits{ChannelMessagesPerSecond: -1, MaxMessageBytes: 10}}}
	want.Apps = []config.App{{ID: "app2", Namespaces: []config.Namespace{p}, Keys: []config.AppKey{
		{ID: "k1", Secret: "12345678901234567890", Capability: `{"*":["subscribe"]}`, Revocable: true},
	}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v", c)
	}
}

func TestTheDefaultFileLoadsAsTheDefaults(t *testing.T) {
	for _, mode := range []config.Mode{config.Local, config.Production} {
		text := config.DefaultYAML(mode)
		c := mustLoad(t, config.Options{File: write(t, text), Environ: []string{"MODE=" + string(mode)}})
		want := config.Default(mode)
		// Empty lists come back as such.
		want.APIKeys, want.Revocable, want.Namespaces, want.Apps = []config.Secret{}, []string{}, []config.Namespace{}, []config.App{}
		want.Ably.AllowedOrigins, want.Server.TrustedProxies, want.Redis.Addresses = []string{}, []string{}, []string{}
		want.Admin.Tokens = []config.Secret{}
		want.TLS.ACME.Domains = []string{}
		if !reflect.DeepEqual(c, want) {
			t.Errorf("%s: got %+v, want %+v", mode, c, want)
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, "# \n") || len(line) > 300 {
				t.Errorf("a setting has no comment: %q", line)
			}
		}
	}
}

func TestEveryExampleInTheDefaultFileLoads(t *testing.T) {
	var text strings.Builder
	for line := range strings.Lines(config.DefaultYAML(config.Local)) {
		switch {
		case strings.HasSuffix(line, "namespaces: []\n") || strings.HasSuffix(line, "apps: []\n"):
			line = strings.Replace(line, " []", "", 1)
		case strings.HasPrefix(line, "#   "):
			line = line[1:]
		}
		// Values that an example leaves empty but that must be there, and lists that are filled below.
		line = strings.Replace(line, `- id: ""`, `- id: "x"`, 1)
		line = strings.Replace(line, `secret: "" #`, `secret: "y" #`, 1)
		line = strings.Replace(line, "keys: [] #", "keys: #", 1)
		line = strings.Replace(line, "namespaces: [] #", "namespaces: #", 1)
		text.WriteString(line)
	}
	c := mustLoad(t, config.Options{File: write(t, text.String())})
	if len(c.Namespaces) != 1 || len(c.Apps) != 1 || len(c.Apps[0].Keys) != 1 || len(c.Apps[0].Namespaces) != 1 {
		t.Errorf("got %+v %+v", c.Namespaces, c.Apps)
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	c := config.Default(config.Local)
	c.APIKeys = []config.Secret{"app001.key001:very-secret"}
	c.JWT.Secret = "very-secret"
	c.Admin.Tokens = []config.Secret{"very-secret"}
	c.Apps = []config.App{{Keys: []config.AppKey{{Secret: "very-secret"}}}}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("config", "config", c, "secret", c.JWT.Secret)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", c, c, c, c.JWT.Secret), log.String()} {
		if strings.Contains(text, "very-secret") {
			t.Errorf("printed: %s", text)
		}
	}
	for _, text := range []string{"jwt: {secret: [very-secret]}", "api_keys: [very-secret]", "api_keys: [very-secret, a.b:c, d.e:very-secret]"} {
		if _, _, err := config.Load(config.Options{File: write(t, text)}); err == nil || strings.Contains(err.Error(), "very-secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReloadKnowsWhatNeedsARestart(t *testing.T) {
	a, b := config.Default(config.Local), config.Default(config.Local)
	b.Log.Level = "debug"
	b.CORS.AllowedOrigins = []string{"https://x"}
	b.Admin.Tokens = []config.Secret{"x"}
	b.APIKeys, b.Revocable, b.Namespaces = []config.Secret{"a.b:c"}, []string{"a.b"}, []config.Namespace{{ID: "x"}}
	if got := config.NeedRestart(a, b); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	b.Server.Port, b.Log.Dir = "1", "x"
	if got := config.NeedRestart(a, b); !slices.Equal(got, []string{"server.port", "log.dir"}) {
		t.Errorf("got %q", got)
	}
}

var published = config.Published{
	Contains: func(s string) bool { return strings.Contains(s, "letshare-jwt-secret") || s == localKey },
	LocalKey: localKey,
}

const localKey = "letshr.local0:everybody-knows"

func resolve(t *testing.T, c config.Config) config.Secrets {
	t.Helper()
	s, err := config.ResolveSecrets(c, published)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append(s.Warnings, s.Notes...) {
		for _, k := range s.Keys {
			if strings.Contains(text, string(k.Secret)) || strings.Contains(text, string(s.JWTSecret)) {
				t.Errorf("a secret is told: %q", text)
			}
		}
	}
	return s
}

func production(t *testing.T) config.Config {
	c := config.Default(config.Production)
	c.DataDir = filepath.Join(t.TempDir(), "data")
	return c
}

func TestInLocalModePublishedSecretsWorkForLocalPeersOnly(t *testing.T) {
	c := config.Default(config.Local)
	c.DataDir = filepath.Join(t.TempDir(), "data")
	s := resolve(t, c)
	if s.JWTSecret != "letshare-jwt-secret-key-2024" || !s.JWTLocalOnly || len(s.Keys) != 1 || !s.Keys[0].LocalOnly ||
		s.DefaultApp != "letshr" || s.Keys[0].ID != "local0" || len(s.Warnings) != 0 || len(s.TokenSecret) < 32 {
		t.Errorf("got %+v", s)
	}
	c.JWT.Secret, c.APIKeys = "a secret of my own", []config.Secret{"mine01.key001:4711", localKey}
	s = resolve(t, c)
	if s.JWTSecret != "a secret of my own" || s.JWTLocalOnly || len(s.Keys) != 2 || s.Keys[0].LocalOnly || !s.Keys[1].LocalOnly ||
		s.DefaultApp != "mine01" {
		t.Errorf("got %+v", s)
	}
	c.JWT.Secret = ""
	if s := resolve(t, c); s.JWTSecret == "" || !s.JWTLocalOnly {
		t.Errorf("got %+v", s)
	}
}

func TestProductionMakesItsOwnSecretsAndKeepsThem(t *testing.T) {
	c := production(t)
	c.JWT.Secret = "letshare-jwt-secret-key-2024-production"
	c.APIKeys = []config.Secret{localKey}
	first := resolve(t, c)
	if len(first.JWTSecret) < 32 || first.JWTLocalOnly || len(first.Keys) != 1 || len(first.Keys[0].Secret) < 32 ||
		len(first.Keys[0].App) != 6 || len(first.Keys[0].ID) != 6 || first.Keys[0].LocalOnly || first.DefaultApp != first.Keys[0].App {
		t.Errorf("got %#v", first)
	}
	if len(first.TokenSecret) < 32 || first.TokenSecret == first.JWTSecret || len(first.Warnings) != 2 || len(first.Notes) != 3 {
		t.Errorf("warnings %q, notes %q", first.Warnings, first.Notes)
	}
	for _, name := range []string{"jwt-secret", "api-key", "token-secret"} {
		info, err := os.Stat(filepath.Join(c.DataDir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	entries, err := os.ReadDir(c.DataDir)
	if err != nil || len(entries) != 3 {
		t.Errorf("data directory: %v %v", entries, err)
	}
	second := resolve(t, c)
	if first.JWTSecret != second.JWTSecret || first.TokenSecret != second.TokenSecret || !slices.Equal(first.Keys, second.Keys) {
		t.Error("the second start has other secrets")
	}
	if other := resolve(t, production(t)); other.JWTSecret == first.JWTSecret || other.TokenSecret == first.TokenSecret || other.Keys[0].Secret == first.Keys[0].Secret {
		t.Error("another installation has the same secrets")
	}
}

func TestProductionUsesWhatIsConfiguredAndTouchesNoFile(t *testing.T) {
	c := production(t)
	c.JWT.Secret, c.APIKeys = "a secret of my own", []config.Secret{"mine01.key001:4711"}
	c.Ably.TokenSecret = "a secret of my own for the tokens"
	c.Apps = []config.App{{ID: "other1", Keys: []config.AppKey{{ID: "k", Secret: "0815", Capability: "{}", Revocable: true}}}}
	s := resolve(t, c)
	want := []config.Key{{App: "mine01", ID: "key001", Secret: "4711"}, {App: "other1", ID: "k", Secret: "0815", Capability: "{}", Revocable: true}}
	if s.JWTSecret != "a secret of my own" || s.TokenSecret != c.Ably.TokenSecret || !slices.Equal(s.Keys, want) || len(s.Warnings) != 0 {
		t.Errorf("got %#v", s)
	}
	if _, err := os.Stat(c.DataDir); !os.IsNotExist(err) {
		t.Errorf("the data directory was made")
	}
}

func TestKeysAreRevocableWhoseNamesSaySo(t *testing.T) {
	c := production(t)
	c.JWT.Secret, c.Ably.TokenSecret = "a secret of my own", "a secret of my own for the tokens"
	c.APIKeys, c.Revocable = []config.Secret{"mine01.key001:4711", "mine01.key002:4712"}, []string{"mine01.key002"}
	want := []config.Key{{App: "mine01", ID: "key001", Secret: "4711"}, {App: "mine01", ID: "key002", Secret: "4712", Revocable: true}}
	if s := resolve(t, c); !slices.Equal(s.Keys, want) {
		t.Errorf("got %#v", s.Keys)
	}

	// So can the key that the server has made, which is known from the second start on.
	c = production(t)
	made := resolve(t, c).Keys[0]
	c.Revocable = []string{made.App + "." + made.ID}
	if s := resolve(t, c); made.Revocable || len(s.Keys) != 1 || s.Keys[0].Secret != made.Secret || !s.Keys[0].Revocable {
		t.Errorf("got %#v", s.Keys)
	}
}

func TestAPlaceThatCannotBeWrittenMeansSecretsForThisRunAndWarnings(t *testing.T) {
	c := production(t)
	if err := os.WriteFile(c.DataDir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	c.JWT.Secret = ""
	// A path below a file cannot be made, nor read: as on a read-only disk.
	s, err := config.ResolveSecrets(c, published)
	if err != nil || len(s.JWTSecret) < 32 || len(s.TokenSecret) < 32 || len(s.Keys) != 1 || len(s.Warnings) != 3 {
		t.Fatalf("got %v %#v %q", err, s, s.Warnings)
	}
	if !strings.Contains(s.Warnings[0], "LETSHARE_JWT_SECRET") || !strings.Contains(s.Warnings[1], "LETSHARE_API_KEYS") ||
		!strings.Contains(s.Warnings[2], "LETSHARE_ABLY_TOKEN_SECRET") {
		t.Errorf("warnings %q", s.Warnings)
	}
}

func TestAKeptSecretThatIsUnusableIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"jwt-secret": "short", "api-key": "no key at all, although it is long enough for one", "token-secret": "brief",
	} {
		c := production(t)
		if err := os.Mkdir(c.DataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.DataDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.ResolveSecrets(c, published); err == nil || !strings.Contains(err.Error(), "remove it") || strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPublishedOrShortTokenSecret(t *testing.T) {
	for _, mode := range []config.Mode{config.Local, config.Production} {
		c := production(t)
		c.Mode, c.APIKeys, c.JWT.Secret = mode, []config.Secret{"mine01.key001:4711"}, "a secret of my own"
		c.Ably.TokenSecret = "letshare-jwt-secret-key-2024"
		if s := resolve(t, c); s.TokenSecret == c.Ably.TokenSecret || len(s.TokenSecret) < 32 || len(s.Warnings) != 1 {
			t.Errorf("%s: got %#v, warnings %q", mode, s, s.Warnings)
		}
		c.Ably.TokenSecret = "guess me"
		if s := resolve(t, c); s.TokenSecret != "guess me" || len(s.Warnings) != 1 {
			t.Errorf("%s: got %#v, warnings %q", mode, s, s.Warnings)
		}
	}
}

func TestAnAccessTokenIsLongAndPublishedNowhere(t *testing.T) {
	const good, known = "an-access-token-of-this-test-only", "letshare-jwt-secret-key-2024-local-or-so"
	c := mustLoad(t, config.Options{Environ: []string{"LETSHARE_ADMIN_TOKENS=" + good + "," + known}, Dir: t.TempDir()})
	c.DataDir = t.TempDir()
	s := resolve(t, c)
	if len(s.AdminTokens) != 1 || s.AdminTokens[0] != (config.AdminToken{Name: "admin.tokens[0]", Secret: good}) ||
		len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "admin.tokens[1]") {
		t.Errorf("got %+v, warnings %q", s.AdminTokens, s.Warnings)
	}
	for _, bad := range []string{good[:31], "with a space in the middle of the token", "with-letters-beyond-ASCII-é-in-the-token"} {
		_, _, err := config.Load(config.Options{Environ: []string{"LETSHARE_ADMIN_TOKENS=" + bad}, Dir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "admin.tokens[0]: must ") || strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestWhereAppsOfTheControlAPIAreKept(t *testing.T) {
	for _, c := range []struct {
		mode             config.Mode
		dataDir, storage string
		want             string
	}{
		{config.Local, "", "", ""},
		{config.Local, "mine", "", "mine/apps.json"},
		{config.Local, "", "db", "db/apps.json"},
		{config.Production, "", "", "data/apps.json"},
		{config.Production, "mine", "db", "mine/apps.json"},
	} {
		got := config.Config{Mode: c.mode, DataDir: c.dataDir, Storage: config.Storage{Dir: c.storage}}.AppsFile()
		if got != filepath.FromSlash(c.want) {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestAKeptSecretThatOthersCanReadIsWarnedOf(t *testing.T) {
	c := production(t)
	resolve(t, c)
	if err := os.Chmod(filepath.Join(c.DataDir, "jwt-secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.JWT.Secret = ""
	if s := resolve(t, c); len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "chmod 600") {
		t.Errorf("warnings %q", s.Warnings)
	}
}

func TestManyProcessesThatStartAtOnceAgreeOnTheSecret(t *testing.T) {
	c := production(t)
	results := make(chan config.Secrets, 8)
	for range cap(results) {
		go func() {
			s, err := config.ResolveSecrets(c, published)
			if err != nil {
				t.Error(err)
			}
			results <- s
		}()
	}
	secrets := map[config.Secret]bool{}
	for range cap(results) {
		secrets[(<-results).JWTSecret] = true
	}
	if len(secrets) != 1 {
		t.Errorf("%d secrets", len(secrets))
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("server: {port: 80}\napps: [{id: a, keys: [{id: b, secret: c}]}]")
	f.Add("a: &a [*a]\n")
	f.Add(config.DefaultYAML(config.Local))
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, err := config.Load(config.Options{File: path})
		if err == nil && c.Check() != nil {
			t.Error("what was loaded does not pass its own check")
		}
	})
}
