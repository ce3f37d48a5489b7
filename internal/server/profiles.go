package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// serveProfiles answers at address, which is one of this machine, with the profiles of
// net/http/pprof, until ctx ends. They show what the process does and the names of its functions, and
// no payloads; yet taking one costs CPU, so nobody else gets there: the Host must be an address of
// this machine too, which keeps web pages out whose name resolves to it.
func (s *Server) serveProfiles(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w (debug.pprof_address)", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	h := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, err := netip.ParseAddrPort(r.Host)
			if err != nil || !host.Addr().IsLoopback() {
				http.Error(w, "only for this machine, by its address", http.StatusForbidden)
				return
			}
			mux.ServeHTTP(w, r)
		}),
		ReadTimeout: headerTime,
		IdleTimeout: time.Minute,
	}
	s.log.Info("profiles are served", "pprof_address", l.Addr().String())
	ended := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer ended()
	if err := h.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
