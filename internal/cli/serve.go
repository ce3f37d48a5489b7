package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
	"letshare-server/internal/errorlog"
	"letshare-server/internal/server"
)

// serve runs the server until SIGTERM or SIGINT; a second one ends it at once.
func serve(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("serve", "Runs the server.", stderr)
	flags := addConfigFlags(fs)
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	cfg, warnings, err := flags.load()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	if cfg.Debug.PprofAddress == "" {
		runtime.MemProfileRate = 0 // nobody would see the samples
	}
	known := make(map[string]string)
	secrets, err := resolveSecrets(cfg, known)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}

	var level slog.LevelVar
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	console := slog.NewJSONHandler(stdout, &slog.HandlerOptions{Level: &level})
	errors := errorlog.New(errorlog.Options{Dir: cfg.Log.Dir, MaxEntries: cfg.Log.MaxEntries, Trouble: console})
	log := errorlog.Logger(console, errors)
	logging, stopLogging := context.WithCancel(context.Background())
	var logs sync.WaitGroup
	logs.Go(func() { _ = errors.Run(logging) })
	defer logs.Wait()
	defer stopLogging()

	for _, w := range append(warnings, secrets.Warnings...) {
		log.Warn(w)
	}
	for _, n := range secrets.Notes {
		log.Info(n)
	}

	s, err := server.New(cfg, secrets, log)
	if err != nil {
		log.Error("cannot start", "error", err)
		return exitFailed
	}
	if err := s.Open(); err != nil {
		log.Error("cannot start", "error", err)
		return exitFailed
	}
	l, err := s.Listen()
	if err != nil {
		log.Error("cannot start", "error", err)
		_ = s.Close() // nothing was written
		return exitFailed
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)   // the next signal kills
	signal.Ignore(syscall.SIGXFSZ) // a file that may not grow is an error of who writes to it
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before anybody knows that there is something to signal
	defer signal.Stop(hangup)
	where := []any{"address", l.Addr().String()}
	if a := s.TLSAddr(); a != nil {
		where = append(where, "tls_address", a.String())
	}
	log.Info("listening", append(where, "mode", string(cfg.Mode), "max_sockets", s.MaxSockets())...)
	fmt.Fprint(stderr, s.Banner(l.Addr()))
	var reloads sync.WaitGroup
	defer reloads.Wait()
	reloads.Go(func() { reloadOnHangup(ctx, hangup, func() error { return reload(s, flags, known, &level, log) }, log) })
	if err := s.Run(ctx, l); err != nil {
		stop()
		log.Error("failed", "error", err)
		return exitFailed
	}
	log.Info("stopped")
	return exitOK
}

// reloadOnHangup reads the configuration again at each signal of hangup until ctx ends. A faulty one
// changes nothing.
func reloadOnHangup(ctx context.Context, hangup <-chan os.Signal, reload func() error, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		if err := reload(); err != nil {
			log.Error("configuration not reloaded", "error", err)
		}
	}
}

func reload(s *server.Server, flags *configFlags, known map[string]string, level *slog.LevelVar, log *slog.Logger) error {
	cfg, warnings, err := flags.load()
	if err != nil {
		return err
	}
	secrets, err := resolveSecrets(cfg, known)
	if err != nil {
		return err
	}
	needRestart, err := s.Reload(cfg, secrets)
	if err != nil {
		return err
	}
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return err
	}
	for _, w := range append(warnings, secrets.Warnings...) {
		log.Warn(w)
	}
	for _, setting := range needRestart {
		log.Warn("setting changed, but takes effect with the next start only", "setting", setting)
	}
	log.Info("configuration reloaded")
	return nil
}

// resolveSecrets finds the secrets of a configuration. Those that the nodes of a cluster share are
// kept in known, too, so that Redis is asked once.
func resolveSecrets(cfg config.Config, known map[string]string) (config.Secrets, error) {
	published := config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey}
	if !cfg.Redis.Clustered() {
		return config.ResolveSecrets(cfg, published)
	}
	ctx, cancel := context.WithTimeout(context.Background(), vaultTimeout)
	defer cancel()
	var client rueidis.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	return config.ResolveSharedSecrets(cfg, published, func(name, made string) (string, error) {
		if secret, has := known[name]; has {
			return secret, nil
		}
		var err error
		if client == nil {
			if client, err = server.OpenRedis(ctx, cfg.Redis); err != nil {
				return "", err
			}
		}
		secret, err := server.KeepSecret(ctx, client, cfg.Redis.Prefix, name, made)
		if err == nil {
			known[name] = secret
		}
		return secret, err
	})
}

// vaultTimeout is how long it may take to get the secrets that the nodes of a cluster share.
const vaultTimeout = 15 * time.Second
