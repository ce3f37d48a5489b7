package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	"letshare-server/internal/engine/disk"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/metrics"
	"letshare-server/internal/stats"
)

// buildStores makes those of the configuration. A database is not opened yet.
func (s *Server) buildStores(node directory.Node) (stores, error) {
	if s.config.Redis.Clustered() {
		return s.redisStores(node)
	}
	records := directorymemory.NewStore(directorymemory.Options{})
	if file := s.config.AppsFile(); file != "" {
		if err := records.KeepApps(file); err != nil {
			return stores{}, err
		}
	} else if len(s.secrets.AdminTokens) > 0 {
		s.log.Warn("apps of the control API end with this process: set data_dir to keep them")
	}
	if file := s.config.RevocationsFile(); file != "" {
		if err := records.KeepRevocations(file); err != nil {
			return stores{}, err
		}
	}
	counted := stats.NewMemory(stats.MemoryOptions{})
	if file := s.config.StatisticsFile(); file != "" {
		if err := counted.Keep(file); err != nil {
			return stores{}, err
		}
	}
	return stores{engine: s.buildEngine(node.Name), directory: records.Node(node), stats: counted}, nil
}

// buildEngine makes the engine of a node that stands alone.
func (s *Server) buildEngine(node string) engine.Engine {
	if s.config.Storage.Dir == "" {
		store := enginememory.NewStore(enginememory.Options{LogBytes: int64(s.config.Limits.LogBytes), Policy: s.policy})
		s.kept = func() metrics.Held { return heldIn(store.Stats()) }
		return store.Node(node)
	}
	s.disk = disk.NewStore(disk.Options{
		Dir: s.config.Storage.Dir, MaxBytes: int64(s.config.Storage.MaxBytes),
		LogBytes: int64(s.config.Limits.LogBytes), Policy: s.policy,
		Metrics: s.metrics, Log: s.log,
	})
	s.kept = func() metrics.Held {
		stats := s.disk.Stats()
		held := heldIn(stats.Memory)
		held.Storage = &metrics.Storage{FileBytes: stats.FileBytes, FreeBytes: stats.FreeBytes, WaitingBytes: stats.Waiting}
		return held
	}
	return s.disk.Node(node)
}

func heldIn(stats enginememory.Stats) metrics.Held {
	return metrics.Held{LogBytes: stats.Bytes, IDBytes: stats.IDBytes, Evicted: stats.Evicted}
}

// Open opens what New did not: the database, if there is one. Run does it if nobody has, and
// closes it.
func (s *Server) Open() error {
	if s.disk == nil || s.open {
		return nil
	}
	if err := s.disk.Open(); err != nil {
		return err
	}
	s.open = true
	return nil
}

// Close closes what New and Open opened, for those who do not call Run then.
func (s *Server) Close() error {
	if s.redis != nil {
		s.redis.Close()
	}
	if !s.open {
		return nil
	}
	s.open = false
	return s.disk.Close()
}

// CommandSocket is the socket in storage.dir by which commands reach the running server. Who may
// write to it is decided by the file system: its owner alone.
const CommandSocket = "letshare.sock"

// backupTime bounds one backup.
const backupTime = time.Hour

// commands answers those of the machine's own until ctx ends. It has no other door, and
// nothing is lost without it but that a backup needs the server to stop.
func (s *Server) commands(ctx context.Context) error {
	path := filepath.Join(s.config.Storage.Dir, CommandSocket)
	l, err := listenCommands(path)
	if err != nil {
		s.log.Warn("no backup can be made while the server runs", "error", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /backup", s.backup)
	// Shutdown would wait for a backup, and Close ends it.
	srv := &http.Server{Handler: mux, ReadTimeout: headerTime, WriteTimeout: backupTime, ErrorLog: s.http.ErrorLog,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func listenCommands(path string) (net.Listener, error) {
	// The directory is locked, so that a socket there is what a killed server has left.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// backup answers with a copy of the database.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	s.log.Info("backup begins")
	started := time.Now()
	var size int64
	err := s.disk.Backup(r.Context(), func(n int64) (io.Writer, error) {
		size = n
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		return w, nil
	})
	switch {
	case err == nil:
		s.log.Info("backup done", "bytes", size, "took", time.Since(started).String())
	case size == 0:
		s.log.Warn("backup failed", "error", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		s.log.Warn("backup failed", "error", err)
		panic(http.ErrAbortHandler) // so that nobody takes it for whole
	}
}
