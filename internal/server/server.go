package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/crypto/acme"

	"letshare-server/internal/apps"
	"letshare-server/internal/auth"
	"letshare-server/internal/config"
	"letshare-server/internal/control"
	"letshare-server/internal/directory"
	"letshare-server/internal/engine"
	"letshare-server/internal/engine/disk"
	"letshare-server/internal/front"
	"letshare-server/internal/guard"
	"letshare-server/internal/hub"
	"letshare-server/internal/letshare"
	"letshare-server/internal/limit"
	"letshare-server/internal/metrics"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/rest"
	"letshare-server/internal/session"
	"letshare-server/internal/socket"
	"letshare-server/internal/stats"
	"letshare-server/internal/throttle"
	"letshare-server/internal/transport/comet"
	"letshare-server/internal/transport/sse"
	"letshare-server/internal/transport/websocket"
	"letshare-server/internal/wsconn"
)

// headerTime is how long a socket may take to send the header of a request.
const headerTime = 10 * time.Second

// Server is one node.
type Server struct {
	config  config.Config // as it was at the start
	secrets config.Secrets
	log     *slog.Logger
	metrics *metrics.Metrics

	originWarnings *throttle.Warnings

	limits    *limit.Set
	proxies   auth.TrustedProxies
	guard     *guard.Guard
	apps      *auth.Registry
	sandbox   sandbox    // nil unless it is enabled
	made      *apps.Apps // those of the control API
	control   *control.API
	stats     *stats.Counters
	engine    engine.Engine
	disk      *disk.Store         // nil without storage.dir
	open      bool                // disk is
	redis     rueidis.Client      // nil without redis.addresses
	agreement *agreement          // nil with it
	kept      func() metrics.Held // by the engine
	dir       directory.Directory
	revoked   *auth.Revocations
	auth      *auth.Authenticator
	hub       *hub.Hub
	sessions  *session.Manager
	comet     *comet.Door
	letshare  *letshare.Door
	sse       *sse.Door
	poller    *socket.Poller
	wheel     *socket.Wheel
	http      *http.Server
	certs     *certificates        // nil without files of a certificate
	ordered   *orderedCertificates // nil without ACME
	secure    net.Listener         // of tls.port; nil if there is none, or before Listen
	doors     *doors

	maxSockets int
	draining   atomic.Bool
}

// stores are where a node keeps things.
type stores struct {
	engine    engine.Engine
	directory directory.Directory
	stats     stats.Store
}

// New builds a node from a checked configuration. It starts nothing and opens nothing, but
// reads the certificate and the file of the apps that were made at run time, and connects to
// Redis if it is one of a cluster: Run, or Close, ends that.
func New(c config.Config, secrets config.Secrets, log *slog.Logger) (*Server, error) {
	return build(c, secrets, log, func(st stores) stores { return st })
}

// build is New with stores that wrap may put something around.
func build(c config.Config, secrets config.Secrets, log *slog.Logger, wrap func(stores) stores) (_ *Server, err error) {
	s := &Server{
		config:         c,
		secrets:        secrets,
		log:            log,
		metrics:        metrics.New(),
		originWarnings: throttle.New(log),
		maxSockets:     socketLimit(),
	}
	proxies, err := auth.ParseTrustedProxies(c.Server.TrustedProxies)
	if err != nil {
		return nil, err
	}
	configured, err := buildApps(c, secrets)
	if err != nil {
		return nil, err
	}
	s.apps = auth.NewRegistry(configured...)
	limits := limit.Options{Metrics: s.metrics, Log: log}
	if c.Sandbox.Enabled {
		limits.WithoutRates = s.isSandboxed
	}
	s.limits = limit.NewSet(limitsOf(c), limits)
	s.proxies = proxies
	s.guard = guard.New(guard.Options{Limits: s.limits, Proxies: proxies, HeaderTime: headerTime})

	node := directory.Node{Name: "n1", Incarnation: rand.Text()}
	if c.Redis.Clustered() {
		node.Name = "n-" + rand.Text()[:8] // no other node has it
	}
	st, err := s.buildStores(node)
	defer func() {
		if err != nil {
			_ = s.Close() // nothing was written
		}
	}()
	if err != nil {
		return nil, err
	}
	st = wrap(st)
	s.engine, s.dir = st.engine, st.directory
	s.stats = stats.New(stats.Options{Store: st.stats, Log: log})
	s.made = apps.New(apps.Options{Store: s.dir, Registry: s.apps, Shared: c.Redis.Clustered(), Changed: s.madeChanged, Log: log})
	s.hub = hub.New(hub.Options{
		Engine: s.engine, Directory: s.dir, Node: node,
		Namespace: s.namespace,
		Retention: func(id pubsub.ChannelID) time.Duration { p := s.policy(id); return max(p.Retention, p.Last) },
		Limits:    s.limits,
		Metrics:   s.metrics, Stats: s.stats,
	})

	s.wheel = socket.NewWheel()
	s.poller = socket.NewPoller(socket.PollerOptions{Epoll: c.Server.Poller == "epoll"})
	waiting := outbox.NewBudget(int64(c.Limits.OutboxTotalBytes))
	out := outbox.Options{
		MaxBytes: c.Limits.OutboxBytes,
		Budget:   waiting,
		Wheel:    s.wheel,
	}
	s.revoked = auth.NewRevocations(auth.RevocationOptions{Store: s.dir, Life: s.tokenLife, Log: log})
	authenticator := auth.NewAuthenticator(s.apps, nil, auth.WithTokenSecret(string(secrets.TokenSecret)),
		auth.WithNonces(s.dir), auth.WithRevocations(s.revoked), auth.WithSync(s.made.Sync), auth.WithLog(log))
	authenticator.RequireTLS(c.Auth.RequireTLS)
	s.auth = authenticator
	if c.Sandbox.Enabled {
		s.sandbox = s.newSandbox()
		log.Warn("sandbox.enabled: everybody who reaches the server can make apps with keys of their own")
	}
	s.sessions = session.NewManager(session.Options{
		Hub: s.hub, Directory: s.dir, Node: node, Auth: authenticator,
		KeySecret: connectionSecret(c, secrets),
		Limits:    session.Limits{MaxFrameBytes: c.Limits.MaxFrameBytes},
		After:     after(s.wheel), Guard: s.guard, Log: log, Metrics: s.metrics, Stats: s.stats,
	})
	ably := websocket.New(websocket.Options{
		Manager: s.sessions, Poller: s.poller, Wheel: s.wheel, Outbox: out, Proxies: proxies,
		MaxFrameBytes: c.Limits.MaxFrameBytes, Log: log, Ended: s.ended,
	})
	s.comet = comet.New(comet.Options{
		Manager: s.sessions, Workers: s.poller.Workers(), Wheel: s.wheel, Outbox: out, Proxies: proxies,
		MaxFrameBytes: c.Limits.MaxFrameBytes, Overloaded: s.refusesClients, Log: log, Metrics: s.metrics,
	})
	s.letshare = letshare.New(letshare.Options{
		Hub: s.hub, Poller: s.poller, Wheel: s.wheel, Outbox: out, Proxies: proxies,
		Auth: &auth.LetShare{
			Tokens:      auth.NewJWTService(string(secrets.JWTSecret), c.JWT.ExpirationHours),
			App:         secrets.DefaultApp,
			EnforceRoom: c.JWT.EnforceRoom,
			LocalOnly:   secrets.JWTLocalOnly,
			Revocations: s.revoked,
		},
		MaxRoomUsers:   c.WebSocket.MaxRoomUsers,
		PingInterval:   c.WebSocket.PingInterval,
		IdleTimeout:    c.WebSocket.IdleTimeout,
		WildcardEvents: c.LetShare.DirectedEvents == "wildcard",
		Guard:          s.guard, Metrics: doorMetrics{s}, Log: log,
	})
	s.sse = sse.New(sse.Options{
		Hub: s.hub, Auth: authenticator, Poller: s.poller, Wheel: s.wheel, Outbox: out, Proxies: proxies,
		Overloaded: s.overloaded,
		Guard:      s.guard, Metrics: s.metrics, Stats: s.stats, Log: log,
	})
	api := rest.New(rest.Options{
		Hub: s.hub, Connections: s.sessions, Auth: authenticator, Proxies: proxies, Stats: s.stats, Sandbox: s.sandbox,
		Guard: s.guard, Log: log,
	})
	s.control = control.New(control.Options{
		Apps: s.made, Registry: s.apps, Proxies: proxies, Stats: api.AppStats, Guard: s.guard, Log: log,
	})
	s.control.SetTokens(controlTokens(secrets))
	s.doors = &doors{
		node: s, ably: s.guarded(ably), comet: s.guarded(s.comet), letshare: s.guarded(s.letshare), sse: s.guarded(s.sse),
		rest: s.guarded(api), control: s.guardedBy(s.control, control.WriteError), metrics: s.metrics.Handler(),
	}
	s.doors.setPaths()
	s.doors.setOrigins(c)
	s.metrics.Watch(func() metrics.Held {
		held := s.kept()
		held.Sessions, held.OutboxBytes = s.sessions.Kept(), waiting.Used()
		return held
	})
	s.http = &http.Server{
		Handler:           s.doors,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       60 * time.Second,
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    256 << 10, // tokens of up to 128 KiB stand in URLs
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			boundSendBuffer(c)
			return s.guard.ConnContext(ctx, c)
		},
		ConnState: s.guard.ConnState,
	}
	if c.TLS.CertFile != "" {
		if s.certs, err = newCertificates(c.TLS.CertFile, c.TLS.KeyFile, log, s.metrics); err != nil {
			return nil, err
		}
		// Named, or HTTP/2 is not ready if plaintext at another port happens to be served first.
		s.http.TLSConfig = &tls.Config{GetCertificate: s.certs.get, NextProtos: []string{"h2", "http/1.1"}}
	}
	if len(c.TLS.ACME.Domains) > 0 {
		s.ordered = newOrderedCertificates(c, log, s.metrics)
		s.http.TLSConfig = &tls.Config{GetCertificate: s.ordered.get, NextProtos: []string{"h2", "http/1.1", acme.ALPNProto}}
		if c.TLS.Port != "" {
			s.http.Handler = s.ordered.manager.HTTPHandler(s.doors) // answers challenges
		}
	}
	return s, nil
}

// serve answers on l until it is closed.
func (s *Server) serve(ctx context.Context, l net.Listener, secure bool) error {
	if secure {
		return s.http.ServeTLS(socket.ForTLS(l), "", "")
	}
	if _, ok := l.(*net.TCPListener); !ok {
		return s.http.Serve(l)
	}
	first := front.New(l, front.Options{
		Handler: s.http.Handler, Paths: webSocketPaths, Workers: s.poller.Workers(), HeaderTime: headerTime,
		ConnContext: s.guard.ConnContext, ConnState: s.guard.ConnState, Log: s.log,
	})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = first.Run(ctx) }) // Serve returns why it ended
	return s.http.Serve(first)
}

// sendBuffer is SO_SNDBUF of HTTP connections, in bytes, as of WebSockets: what a client that
// does not read its answers keeps of the kernel's memory.
const sendBuffer = 256 << 10

func boundSendBuffer(c net.Conn) {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	if tcp, ok := c.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // it ends by itself if this fails
	}
}

// Reload adopts the keys, namespaces, origins, access tokens, limits and domains of a checked
// configuration, and what the files of the certificate hold now, if that is good. Apps that
// were made at run time stay.
// Connections go on with what they were granted, under the new limits, and end if their app
// or key is gone; attachments end if the new rule of their channel forbids them. It returns the settings that differ from those at the start and need a
// restart.
func (s *Server) Reload(c config.Config, secrets config.Secrets) (needRestart []string, err error) {
	if secrets.DefaultApp != s.secrets.DefaultApp {
		return nil, fmt.Errorf("the default app cannot change from %s to %s without a restart", s.secrets.DefaultApp, secrets.DefaultApp)
	}
	configured, err := buildApps(c, secrets)
	if err != nil {
		return nil, err
	}
	s.apps.Replace(configured...)
	s.auth.RequireTLS(c.Auth.RequireTLS)
	s.rulesChanged()
	s.warnOfHidden()
	s.control.SetTokens(controlTokens(secrets))
	s.doors.setOrigins(c)
	if s.agreement != nil {
		running := secrets
		running.JWTSecret, running.TokenSecret = s.secrets.JWTSecret, s.secrets.TokenSecret
		s.agreement.adopt(s.config, c, running)
	}
	limits := c
	limits.Limits.MaxFrameBytes = s.config.Limits.MaxFrameBytes
	s.limits.Replace(limitsOf(limits))
	if s.certs != nil {
		s.certs.reload()
	}
	needRestart = config.NeedRestart(s.config, c)
	switch domains := c.TLS.ACME.Domains; {
	case s.ordered != nil && len(domains) > 0:
		s.ordered.reload(domains)
	case s.ordered != nil || len(domains) > 0:
		needRestart = append(needRestart, "tls.acme.domains")
	}
	return needRestart, nil
}

// buildApps makes the apps of the configuration.
func buildApps(c config.Config, secrets config.Secrets) ([]*auth.App, error) {
	keys := make(map[string][]auth.Key)
	order := []string{secrets.DefaultApp}
	namespaces := map[string][]config.Namespace{secrets.DefaultApp: c.Namespaces}
	for _, a := range c.Apps {
		order = append(order, a.ID)
		namespaces[a.ID] = a.Namespaces
	}
	for _, k := range secrets.Keys {
		key := auth.Key{AppID: k.App, ID: k.ID, Secret: string(k.Secret), Revocable: k.Revocable, LocalOnly: k.LocalOnly}
		if k.Capability != "" {
			capability, err := auth.ParseCapability(k.Capability)
			if err != nil {
				return nil, fmt.Errorf("key %s: %w", key.Name(), err)
			}
			key.Capability = capability
		}
		keys[k.App] = append(keys[k.App], key)
	}
	var apps []*auth.App
	for _, id := range order {
		rules := make([]auth.Namespace, 0, len(namespaces[id]))
		for _, ns := range namespaces[id] {
			rules = append(rules, ruleOf(ns))
		}
		app, err := auth.NewApp(id, keys[id], rules)
		if err != nil {
			return nil, err
		}
		apps = append(apps, app)
	}
	return apps, nil
}

// ruleOf is a rule of the configuration as auth has it.
func ruleOf(ns config.Namespace) auth.Namespace {
	return auth.Namespace{
		ID:              ns.ID,
		Persisted:       ns.Persisted,
		PersistLast:     ns.PersistLast,
		Identified:      ns.Identified,
		TLSOnly:         ns.TLSOnly,
		MutableMessages: ns.MutableMessages,
		PushEnabled:     ns.PushEnabled,
		Limits: auth.NamespaceLimits{
			MessageBytes:    ns.Limits.MaxMessageBytes,
			PresenceMembers: ns.Limits.PresenceMembers,
			PresenceBytes:   ns.Limits.PresenceBytes,
			Messages:        ns.Limits.ChannelMessagesPerSecond,
			Bytes:           ns.Limits.ChannelBytesPerSecond,
		},
	}
}

func (s *Server) namespace(app, channel string) auth.Namespace {
	if a := s.apps.Lookup(app); a != nil {
		return a.Namespace(channel)
	}
	return auth.Namespace{}
}

// persistedRetention is the storage period of persisted namespaces, as far as the budget
// allows: limits.log_bytes in memory, storage.max_bytes on disk.
const persistedRetention = 24 * time.Hour

// lastRetention is for how long the last message of channels with persist_last stays.
const lastRetention = 365 * 24 * time.Hour

// policy says how long a channel's messages are kept.
func (s *Server) policy(channel pubsub.ChannelID) (p engine.Policy) {
	rule := s.namespace(channel.App, channel.Name)
	if rule.Persisted {
		p.Retention = persistedRetention
	}
	if rule.PersistLast {
		p.Last = lastRetention
	}
	return p
}

// socketLimit is how many sockets the node takes: nine tenths of what the process may open.
// The Go run-time has raised the soft limit to the hard one already.
func socketLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 900
	}
	return int(min(limit.Cur, 1<<30)) / 10 * 9
}

// clients is how many are connected, by whatever transport.
func (s *Server) clients() int { return s.poller.Len() + s.comet.Len() }

func (s *Server) overloaded() bool { return s.clients() >= s.maxSockets || s.draining.Load() }

// refusesClients is overloaded for a client that is told so.
func (s *Server) refusesClients() bool {
	if !s.overloaded() {
		return false
	}
	s.metrics.Refused("overloaded")
	if !s.draining.Load() {
		s.limits.Exceeded(limit.OpenFiles, "")
	}
	return true
}

// ready says why the node should get no new clients; nil means that it should.
func (s *Server) ready(ctx context.Context) error {
	if s.draining.Load() {
		return errors.New("draining")
	}
	if err := s.engine.Ready(ctx); err != nil {
		s.log.Warn("engine not ready", "error", err)
		return errors.New("storage unavailable")
	}
	return nil
}

// MaxSockets is how many clients the node takes before it refuses more with 503.
func (s *Server) MaxSockets() int { return s.maxSockets }

// Listen opens the configured addresses. It returns the listener of server.port; that of tls.port is
// kept for Run, which must follow.
func (s *Server) Listen() (net.Listener, error) {
	l, err := listen(s.config.Address(), "LETSHARE_SERVER_PORT")
	if err != nil || s.config.TLSAddress() == "" {
		return l, err
	}
	if s.secure, err = listen(s.config.TLSAddress(), "LETSHARE_TLS_PORT"); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func listen(address, setting string) (net.Listener, error) {
	// Whoever is silent is noticed by pings, idle times and what is not acknowledged, all of
	// them sooner than by TCP's own probes, which cost four system calls for each connection.
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w (set %s to a free port)", address, err, setting)
	}
	return l, nil
}

// TLSAddr is where TLS is spoken beside the address of the listener that Listen returned; nil
// if nowhere.
func (s *Server) TLSAddr() net.Addr {
	if s.secure == nil {
		return nil
	}
	return s.secure.Addr()
}

// refresh reads what all nodes know, for the first time.
func (s *Server) refresh(ctx context.Context) error {
	if err := s.revoked.Refresh(ctx); err != nil {
		return fmt.Errorf("read the revocations of tokens: %w", err)
	}
	if err := s.made.Refresh(ctx); err != nil {
		return fmt.Errorf("read the apps that were made at run time: %w", err)
	}
	return nil
}

// Run serves clients on l, and on tls.port, until ctx ends, then lets them go within the grace
// period. It returns when every goroutine of the node is done; the listeners are closed by then.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var (
		wg     sync.WaitGroup
		failed = make(chan error, 8)
	)
	run := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(work); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	closeListeners := func() {
		_ = l.Close()
		if s.secure != nil {
			_ = s.secure.Close()
		}
	}
	if err := s.Open(); err != nil {
		closeListeners()
		return err
	}
	if err := s.refresh(ctx); err != nil {
		closeListeners()
		return errors.Join(err, s.Close())
	}
	s.warnOfHidden()
	// The engine ends after everybody who appends, and the hub after the engine, which delivers.
	storing, stopStoring := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStoring()
	var stored sync.WaitGroup
	stored.Go(func() {
		if err := s.engine.Run(storing); err != nil {
			failed <- fmt.Errorf("engine: %w", err)
		}
	})
	if s.disk != nil {
		run("commands", s.commands)
	}
	if s.redis != nil {
		run("redis", s.watchRedis)
	}
	run("directory", s.dir.Run)
	run("hub", s.hub.Run)
	run("sessions", s.sessions.Run)
	run("orphans", s.sessions.RunOrphans)
	run("revocations", func(ctx context.Context) error { return s.revoked.Run(ctx, s.recheck, s.sessions.Renew) })
	run("apps", s.made.Run)
	run("timer wheel", s.wheel.Run)
	run("metrics", s.metrics.Run)
	run("statistics", s.stats.Run)
	run("memory", func(ctx context.Context) error {
		return returnMemory(ctx, func() int64 { held := s.kept(); return held.LogBytes + held.IDBytes })
	})
	if s.sandbox != nil {
		run("sandbox", s.sandbox.Run)
	}
	if address := s.config.Debug.PprofAddress; address != "" {
		run("profiles", func(ctx context.Context) error { return s.serveProfiles(ctx, address) })
	}
	polling, stopPolling := context.WithCancel(work)
	defer stopPolling()
	var doors sync.WaitGroup
	doors.Go(func() { _ = s.comet.Run(polling) })
	doors.Go(func() {
		if err := s.poller.Run(polling); err != nil {
			failed <- err
		}
	})
	serve := func(l net.Listener, secure bool) {
		wg.Go(func() {
			if err := s.serve(work, l, secure); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	if serve(l, s.config.TLS.Enabled() && s.secure == nil); s.secure != nil {
		serve(s.secure, true)
	}
	if s.ordered != nil {
		run("certificates", s.ordered.Run)
	}

	var err error
	select {
	case <-ctx.Done():
		s.drain()
	case err = <-failed:
	}
	s.draining.Store(true)
	_ = s.http.Close() // nothing is served any more
	stopPolling()
	doors.Wait()
	stop()
	wg.Wait()
	stopStoring()
	stored.Wait()
	s.hub.Close()
	return errors.Join(err, s.Close())
}

// drain stops taking clients and tells those who are there to go elsewhere, spread over the
// grace period so that they do not all come back at once.
func (s *Server) drain() {
	s.draining.Store(true)
	grace := s.config.Server.ShutdownGrace
	deadline := time.Now().Add(grace)
	s.log.Info("stopping", "connections", s.clients(), "grace", grace.String())

	s.sse.Drain() // at once: each stream has a time of its own to come back after
	var goodbyes []func()
	for _, session := range s.sessions.Sessions() {
		goodbyes = append(goodbyes, session.Drain)
	}
	for _, member := range s.letshare.Members() {
		goodbyes = append(goodbyes, member.Drain)
	}
	spread := grace * 7 / 10
	started := time.Now()
	for i, goodbye := range goodbyes {
		if wait := spread*time.Duration(i)/time.Duration(len(goodbyes)) - time.Since(started); wait > time.Millisecond {
			time.Sleep(wait)
		}
		goodbye()
	}
	// Not earlier, since comet clients come by themselves to be told.
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var requests sync.WaitGroup
	requests.Go(func() { _ = s.http.Shutdown(ctx) }) // Close follows anyway
	defer requests.Wait()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.clients() > 0 && time.Now().Before(deadline) {
		<-tick.C
	}
}

// ended notes how a connection of an Ably door ended.
func (s *Server) ended(end wsconn.End) {
	if end.Cause == wsconn.Slow {
		s.metrics.SlowConsumerClosed()
		s.limits.Exceeded(slowLimits[end.Slow], "")
	}
}

// doorMetrics is Metrics as LetShare's door sees it.
type doorMetrics struct{ s *Server }

func (m doorMetrics) LetShareOpened() {
	m.s.metrics.ConnectionOpened(metrics.LetShare)
	m.s.stats.App(m.s.secrets.DefaultApp).ConnectionOpened()
}

func (m doorMetrics) LetShareClosed(end wsconn.End) {
	m.s.metrics.ConnectionClosed(metrics.LetShare)
	m.s.stats.App(m.s.secrets.DefaultApp).ConnectionClosed()
	m.s.ended(end)
}

func (m doorMetrics) Refused(reason string) { m.s.metrics.Refused(reason) }

// timer is a use of the wheel for a function.
type timer struct {
	socket.Timer
	f func()
}

// Expire implements socket.Expirer.
func (t *timer) Expire() { t.f() }

// after is time.AfterFunc on the wheel, for functions that only queue.
func after(wheel *socket.Wheel) func(time.Duration, func()) func() {
	return func(d time.Duration, f func()) (stop func()) {
		t := &timer{f: f}
		wheel.Schedule(&t.Timer, t, max(d, 0))
		return func() { wheel.Stop(&t.Timer) }
	}
}

// Banner tells a person who has just started the server in local mode what to paste where.
// It quotes credentials that are published anyway and no others; in production it is empty.
func (s *Server) Banner(addr net.Addr) string {
	if s.config.Mode != config.Local {
		return ""
	}
	_, port, _ := net.SplitHostPort(addr.String())
	k := s.secrets.Keys[0]
	key := k.App + "." + k.ID + ":" + "<its secret>"
	if k.LocalOnly {
		key = k.App + "." + k.ID + ":" + string(k.Secret)
	}
	token := "<letshare-server token -user NAME>"
	if s.secrets.JWTLocalOnly {
		made, err := auth.NewJWTService(string(s.secrets.JWTSecret), s.config.JWT.ExpirationHours).GenerateToken("demo", "desktop", "")
		if err != nil {
			return ""
		}
		token = made
	}
	secure, option := "", "tls: false, port"
	if s.config.TLS.Enabled() && s.secure == nil {
		secure, option = "s", "tlsPort"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nLetShare Server listens on port %s (mode local)\n\n", port)
	fmt.Fprintf(&b, "  Ably SDK    new Ably.Realtime({ key: %q, endpoint: \"localhost\", %s: %s })\n", key, option, port)
	if s.secure != nil {
		_, port, _ := net.SplitHostPort(s.secure.Addr().String())
		fmt.Fprintf(&b, "  with TLS    tlsPort: %s instead of tls and port; wss://localhost:%s\n", port, port)
	}
	fmt.Fprintf(&b, "  LetShare    customServerUrl ws%s://localhost:%s\n", secure, port)
	fmt.Fprintf(&b, "              customAuthToken %s\n", token)
	fmt.Fprintf(&b, "  curl        curl -u '%s' http%s://localhost:%s/channels/demo/messages\n\n", key, secure, port)
	return b.String()
}
