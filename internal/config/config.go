package config

import (
	"log/slog"
	"time"
)

// Mode is the run mode, from the environment variable MODE.
type Mode string

// The modes. In local mode published secrets work, from local addresses.
const (
	Local      Mode = "local"
	Production Mode = "production"
)

// Secret is a value that is left out however it is printed. string(s) reveals it.
type Secret string

const hidden = "(hidden)"

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString keeps the secret out of %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps the secret out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps the secret out of JSON and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Config is everything that can be set. Tags: yaml is the name, doc the comment that
// DefaultYAML prints, and reload "yes" says that SIGHUP applies a changed value without a
// restart.
type Config struct {
	Mode Mode `yaml:"-"`

	Server    Server    `yaml:"server" doc:"Where the server listens."`
	JWT       JWT       `yaml:"jwt" doc:"Tokens of LetShare's door, /ws."`
	CORS      CORS      `yaml:"cors" doc:"Who may use /ws, /health and /metrics from a browser."`
	Auth      Auth      `yaml:"auth" doc:"How clients prove who they are."`
	Ably      Ably      `yaml:"ably" doc:"The Ably doors."`
	LetShare  LetShare  `yaml:"letshare" doc:"The LetShare door."`
	Log       Log       `yaml:"log" doc:"Logs go to the standard output; warnings and errors also to errors.log."`
	WebSocket WebSocket `yaml:"websocket" doc:"WebSockets of the LetShare door."`

	APIKeys    []Secret    `yaml:"api_keys" reload:"yes" doc:"Keys of the default app, each appId.keyId:secret. All have the same appId. Empty: in local mode a published key that works from local addresses only, in production one that is made at the first start and kept in data_dir."`
	Revocable  []string    `yaml:"revocable_keys" reload:"yes" doc:"Names, appId.keyId, of those of them whose tokens can be revoked; these live for an hour at most."`
	Namespaces []Namespace `yaml:"namespaces" reload:"yes" doc:"Rules for channels of the default app: for the channel id and all whose name begins with id and a colon."`
	Apps       []App       `yaml:"apps" reload:"yes" doc:"More apps, each with keys and rules of its own."`

	DataDir string  `yaml:"data_dir" doc:"Directory for secrets that the server makes, apps of the control API, revocations of tokens, and statistics. Empty: storage.dir, or else ./data."`
	Storage Storage `yaml:"storage" doc:"Durable storage."`
	Redis   Redis   `yaml:"redis" doc:"Several nodes that share one Redis."`
	Sandbox Sandbox `yaml:"sandbox" doc:"Apps made at run time, for the test suites of SDKs."`
	Admin   Admin   `yaml:"admin" doc:"The control API, at /v1: apps, keys and namespaces while the server runs."`
	TLS     TLS     `yaml:"tls" doc:"Encrypted connections."`
	Debug   Debug   `yaml:"debug" doc:"A look inside the running server."`
	Limits  Limits  `yaml:"limits" doc:"What one client, channel, app or message may use. Sizes are in bytes."`
}

// Server is where the server listens.
type Server struct {
	Host           string        `yaml:"host" doc:"Address to listen on. Empty: all addresses."`
	Port           string        `yaml:"port" doc:"TCP port. 0: any free one."`
	TrustedProxies []string      `yaml:"trusted_proxies" doc:"Addresses or networks (10.0.0.0/8) of reverse proxies whose X-Forwarded-For is believed."`
	ShutdownGrace  time.Duration `yaml:"shutdown_grace" doc:"How long a stopping server lets connections finish."`
	Poller         string        `yaml:"poller" doc:"How TCP sockets, WebSockets above all, wait for bytes. epoll: in epoll sets, on Linux; elsewhere it is parked. parked: in a small goroutine each."`
}

// JWT is about the tokens of LetShare's door.
type JWT struct {
	Secret          Secret `yaml:"secret" doc:"Secret of the HS256 signature. A published one (such as this default) works in local mode only, and from local addresses only."`
	ExpirationHours int    `yaml:"expiration_hours" doc:"How long tokens live that the server makes, in hours."`
	EnforceRoom     bool   `yaml:"enforce_room" doc:"Whether a token with a room_id is good for that room only."`
}

// CORS is about browsers at LetShare's doors.
type CORS struct {
	AllowedOrigins []string `yaml:"allowed_origins" reload:"yes" doc:"Origins that are allowed, exactly as browsers send them: scheme://host[:port], without a slash at the end."`
}

// Auth is about credentials.
type Auth struct {
	RequireTLS bool `yaml:"require_tls" reload:"yes" doc:"Whether keys are refused that come without TLS from other than local addresses. Otherwise the log warns of the first. Tokens are not concerned."`
}

// Ably is about the Ably doors.
type Ably struct {
	TokenSecret    Secret   `yaml:"token_secret" doc:"Secret of the Ably tokens that the server makes. Empty: one that is made at the first start and kept in data_dir."`
	AllowedOrigins []string `yaml:"allowed_origins" reload:"yes" doc:"Origins that may use the Ably doors. Empty: all, since these doors ask for explicit credentials."`
}

// LetShare is about the LetShare door.
type LetShare struct {
	DirectedEvents string `yaml:"directed_events" doc:"exact: an event reaches those who subscribed to it. wildcard: also everybody who subscribed to signal:all."`
}

// Log is about logs.
type Log struct {
	Level      string `yaml:"level" reload:"yes" doc:"Lowest level that is logged: debug, info, warn or error."`
	MaxEntries int    `yaml:"max_entries" doc:"How many of the newest entries errors.log keeps."`
	Dir        string `yaml:"dir" doc:"Directory of errors.log."`
}

// WebSocket is about WebSockets of the LetShare door.
type WebSocket struct {
	MaxRoomUsers int           `yaml:"max_room_users" doc:"How many connections a room holds."`
	PingInterval time.Duration `yaml:"ping_interval" doc:"After how much silence a peer is pinged."`
	IdleTimeout  time.Duration `yaml:"idle_timeout" doc:"After how much silence, pongs included, a peer is given up. At least twice ping_interval."`
}

// Namespace is a rule for channels.
type Namespace struct {
	ID              string `yaml:"id" doc:"The channels' name up to the first colon."`
	Persisted       bool   `yaml:"persisted" doc:"Messages stay in history for the storage period."`
	PersistLast     bool   `yaml:"persist_last" doc:"What was published last stays for a year."`
	Identified      bool   `yaml:"identified" doc:"Clients without a clientId are refused."`
	TLSOnly         bool   `yaml:"tls_only" doc:"Clients without TLS are refused."`
	MutableMessages bool   `yaml:"mutable_messages" doc:"Messages may be updated, deleted and annotated, and stay in history for the storage period."`
	PushEnabled     bool   `yaml:"push_enabled" doc:"Messages may be pushed to devices. Nothing is pushed yet."`

	Limits NamespaceLimits `yaml:"limits" doc:"Limits of each of the channels, in the place of those of the section limits. 0: as there."`
}

// NamespaceLimits are limits of each of the channels of a namespace.
type NamespaceLimits struct {
	MaxMessageBytes          int `yaml:"max_message_bytes" doc:"Size of all messages of one publish; not more than limits.max_message_bytes."`
	ChannelMessagesPerSecond int `yaml:"channel_messages_per_second" doc:"Messages and presence messages. -1: no limit."`
	ChannelBytesPerSecond    int `yaml:"channel_bytes_per_second" doc:"Their size. -1: no limit."`
	PresenceMembers          int `yaml:"presence_members" doc:"Presence members."`
	PresenceBytes            int `yaml:"presence_bytes" doc:"What they take together."`
}

// App is an app beside the default one.
type App struct {
	ID         string      `yaml:"id" doc:"First part of the names of its keys."`
	Keys       []AppKey    `yaml:"keys" doc:"Its keys."`
	Namespaces []Namespace `yaml:"namespaces" doc:"Its rules for channels."`
}

// AppKey is a key of such an app.
type AppKey struct {
	ID         string `yaml:"id" doc:"Second part of the key's name."`
	Secret     Secret `yaml:"secret" doc:"The key's secret."`
	Capability string `yaml:"capability" doc:"JSON of what the key may do. Empty: everything."`
	Revocable  bool   `yaml:"revocable" doc:"Whether tokens of this key can be revoked; they live for an hour at most."`
}

// Storage is about durable storage.
type Storage struct {
	Dir      string `yaml:"dir" doc:"Directory of the database. Empty: everything is kept in memory."`
	MaxBytes int    `yaml:"max_bytes" doc:"Bytes that the database may hold; then publishes to persisted channels are refused. 0: as much as the file system has room for."`
}

// Redis is about several nodes that share one Redis.
type Redis struct {
	Addresses    []string      `yaml:"addresses" doc:"Addresses host:port of Redis: of the server, of some servers of a Redis Cluster, or of the Sentinels. Empty: this node stands alone."`
	Prefix       string        `yaml:"prefix" doc:"Begins the names of all keys. Those who share a Redis and are not nodes of one cluster need different ones."`
	Timeout      time.Duration `yaml:"timeout" doc:"How long a publish may wait for Redis before it is refused; 100ms to 5s."`
	User         string        `yaml:"user" doc:"User of Redis. Empty: its default user."`
	Password     Secret        `yaml:"password" doc:"The user's password."`
	PasswordFile string        `yaml:"password_file" doc:"File that holds the password instead."`
	Sentinel     RedisSentinel `yaml:"sentinel" doc:"Sentinels, which know the primary."`
	TLS          RedisTLS      `yaml:"tls" doc:"Encrypted connections to Redis, and to Sentinels."`
}

// RedisSentinel is about a primary behind Sentinel.
type RedisSentinel struct {
	Master       string `yaml:"master" doc:"The primary's name at the Sentinels, whose addresses redis.addresses are then. Empty: there are none."`
	User         string `yaml:"user" doc:"User of the Sentinels."`
	Password     Secret `yaml:"password" doc:"Its password."`
	PasswordFile string `yaml:"password_file" doc:"File that holds the password instead."`
}

// RedisTLS is about encrypted connections to Redis. Certificates are always checked.
type RedisTLS struct {
	Enabled    bool   `yaml:"enabled" doc:"Whether Redis is spoken to over TLS. Its certificate is always checked."`
	CAFile     string `yaml:"ca_file" doc:"Certificates in PEM that vouch for that of Redis. Empty: those that the system trusts."`
	ServerName string `yaml:"server_name" doc:"Name that the certificate must have. Empty: the host of the address."`
	CertFile   string `yaml:"cert_file" doc:"Certificate in PEM that this node shows. Empty: none."`
	KeyFile    string `yaml:"key_file" doc:"Its private key in PEM."`
}

// Clustered reports whether this node is one of several that share a Redis.
func (r Redis) Clustered() bool { return len(r.Addresses) > 0 }

// Sandbox is about apps made at run time.
type Sandbox struct {
	Enabled bool `yaml:"enabled" doc:"Whether POST /apps makes apps, without authentication. For tests only."`
}

// Admin is about the control API.
type Admin struct {
	Tokens []Secret `yaml:"tokens" reload:"yes" doc:"Access tokens, each of at least 32 characters. Whoever has one can make, change and delete apps. Empty: there is no control API."`
}

// TLS is about who speaks it where, and with which certificate.
type TLS struct {
	Port     string `yaml:"port" doc:"TCP port for TLS beside server.port, which is then without. 0: any free one. Empty: with a certificate server.port speaks TLS only."`
	CertFile string `yaml:"cert_file" doc:"Certificate chain in PEM. Read again when it changes and at SIGHUP. Empty: no TLS, unless there is tls.acme."`
	KeyFile  string `yaml:"key_file" doc:"Its private key in PEM."`
	ACME     ACME   `yaml:"acme" doc:"Certificates that the server gets and renews by itself, by ACME, such as from Let's Encrypt."`
}

// Enabled reports whether TLS is spoken anywhere.
func (t TLS) Enabled() bool { return t.CertFile != "" || len(t.ACME.Domains) > 0 }

// ACME is about certificates that a CA issues to whoever answers under a name.
type ACME struct {
	Domains     []string `yaml:"domains" reload:"yes" doc:"Names to get certificates for. The CA must reach the server under each: on port 443 where TLS is spoken, or on port 80 where it is not. Empty: no ACME."`
	AcceptTerms bool     `yaml:"accept_terms" doc:"Whether you accept the CA's terms of service. Must be true for ACME."`
	Email       string   `yaml:"email" doc:"Address at which the CA may write to you."`
	Directory   string   `yaml:"directory" doc:"URL of the CA's directory. Empty: Let's Encrypt."`
	CacheDir    string   `yaml:"cache_dir" doc:"Directory for the account's key and the certificates. Empty: acme in data_dir."`
}

// Debug is a look inside the running server.
type Debug struct {
	PprofAddress string `yaml:"pprof_address" doc:"Address host:port, on this machine only, that serves profiles at /debug/pprof/ without authentication. Empty: none."`
}

// Limits is what one client, channel, app or message may use.
type Limits struct {
	Profile string `yaml:"profile" reload:"yes" doc:"ably: settings of this section that are not set have the values that Ably documents. Empty: they have those below."`

	MaxMessageBytes int `yaml:"max_message_bytes" reload:"yes" doc:"Size of all messages of one publish."`
	MaxFrameBytes   int `yaml:"max_frame_bytes" doc:"Size of one WebSocket message, or of one protocol message of a comet request, inclusive."`
	MaxBodyBytes    int `yaml:"max_body_bytes" reload:"yes" doc:"Size of the body of one HTTP request."`

	Burst time.Duration `yaml:"burst" reload:"yes" doc:"For how long what a rate allows may be saved up, and then be used at once."`

	ConnectionMessagesPerSecond         int `yaml:"connection_messages_per_second" reload:"yes" doc:"Messages and presence messages that one connection may send; more are refused, and 20 times as many end it. 0: no limit."`
	ConnectionOutboundMessagesPerSecond int `yaml:"connection_outbound_messages_per_second" reload:"yes" doc:"Messages that one connection is sent; more are dropped, and its client is told. A change from 0 counts for channels attached later. 0: no limit."`
	ConnectionProtocolsPerSecond        int `yaml:"connection_protocol_messages_per_second" reload:"yes" doc:"Protocol messages of any kind that one connection may send; one that sends more is closed."`
	ChannelsPerConnection               int `yaml:"channels_per_connection" reload:"yes" doc:"Attachments of one connection."`

	ChannelMessagesPerSecond int `yaml:"channel_messages_per_second" reload:"yes" doc:"Messages and presence messages to one channel. 0: no limit."`
	ChannelBytesPerSecond    int `yaml:"channel_bytes_per_second" reload:"yes" doc:"Their size. 0: no limit."`
	PresenceMembers          int `yaml:"presence_members" reload:"yes" doc:"Presence members of one channel."`
	PresenceBytes            int `yaml:"presence_bytes" reload:"yes" doc:"What the members of one channel take together; everybody who attaches is sent all of them."`
	Objects                  int `yaml:"objects" reload:"yes" doc:"Maps and counters of one channel."`
	ObjectBytes              int `yaml:"object_bytes" reload:"yes" doc:"What they take together; everybody who attaches to receive them is sent all of them."`

	AppConnections            int `yaml:"app_connections" reload:"yes" doc:"Ably connections of one app that are open. 0: no limit."`
	AppConnectionsPerSecond   int `yaml:"app_connections_per_second" reload:"yes" doc:"New Ably connections of one app. 0: no limit."`
	AppChannels               int `yaml:"app_channels" reload:"yes" doc:"Channels of one app that have an attachment. 0: no limit."`
	AppRequestsPerSecond      int `yaml:"app_requests_per_second" reload:"yes" doc:"REST requests of one app, those for tokens aside. 0: no limit."`
	AppTokenRequestsPerSecond int `yaml:"app_token_requests_per_second" reload:"yes" doc:"Requests of one app for tokens. 0: no limit."`

	AddressSockets           int `yaml:"address_sockets" reload:"yes" doc:"Sockets from one address on which nobody has authenticated yet. IPv6 addresses with the same 64 bits in front count as one; local and private ones are not counted."`
	AddressFailuresPerSecond int `yaml:"address_failures_per_second" reload:"yes" doc:"Failed authentications from such an address; then it gets 429."`

	OutboxBytes      int `yaml:"outbox_bytes" doc:"Bytes that wait for one connection; one that falls further behind is closed and resumes."`
	OutboxTotalBytes int `yaml:"outbox_total_bytes" doc:"Bytes that wait for all connections together."`
	LogBytes         int `yaml:"log_bytes" doc:"Bytes of recent messages that are kept in memory."`
}

// Default returns the configuration of a mode as it is with nothing set.
func Default(mode Mode) Config {
	c := Config{
		Mode:   mode,
		Server: Server{Port: "8080", ShutdownGrace: 10 * time.Second, Poller: "epoll"},
		JWT:    JWT{Secret: "letshare-jwt-secret-key-2024", ExpirationHours: 720, EnforceRoom: true},
		CORS: CORS{AllowedOrigins: []string{
			"http://localhost:3000", "http://localhost:5173", "https://letshare.fun",
		}},
		LetShare:  LetShare{DirectedEvents: "exact"},
		Log:       Log{Level: "info", MaxEntries: 200, Dir: "logs"},
		Redis:     Redis{Prefix: "letshare:", Timeout: 700 * time.Millisecond},
		WebSocket: WebSocket{MaxRoomUsers: 50, PingInterval: 25 * time.Second, IdleTimeout: 75 * time.Second},
		Limits: Limits{
			MaxMessageBytes: 64 << 10,
			MaxFrameBytes:   512 << 10,
			MaxBodyBytes:    2 << 20,

			Burst: 5 * time.Second,

			ConnectionProtocolsPerSecond: 20_000,
			ChannelsPerConnection:        1000,

			PresenceMembers: 1000,
			PresenceBytes:   1 << 20,
			Objects:         50_000,
			ObjectBytes:     6_815_744,

			AddressSockets:           1000,
			AddressFailuresPerSecond: 10,

			OutboxBytes:      4 << 20,
			OutboxTotalBytes: 256 << 20,
			LogBytes:         256 << 20,
		},
	}
	if mode == Production {
		c.CORS.AllowedOrigins = []string{
			"https://letshare.fun", "https://www.letshare.fun", "https://cdn.letshare.fun",
		}
	}
	return c
}
