package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"letshare-server/internal/config"
	"letshare-server/test/cert"
)

// certify writes a certificate for localhost, and its key.
func certify(t *testing.T, dir string, serial int64) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	c, err := cert.New(serial)
	if err != nil {
		t.Fatal(err)
	}
	if certFile, keyFile, err = c.Write(dir); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, c.Pool
}

// startTLS starts a server with a certificate, and clients that trust it, over HTTP/1.1 and HTTP/2.
func startTLS(t *testing.T) (s *running, dir string, clients map[string]*http.Client) {
	t.Helper()
	dir = t.TempDir()
	certFile, keyFile, pool := certify(t, dir, 1)
	s = start(t, func(c *config.Config) { c.TLS.CertFile, c.TLS.KeyFile = certFile, keyFile })
	return s, dir, trusting(t, pool)
}

// trusting returns clients by protocol.
func trusting(t *testing.T, pool *x509.CertPool) map[string]*http.Client {
	clients := make(map[string]*http.Client)
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: h2}
		t.Cleanup(transport.CloseIdleConnections)
		clients[name] = &http.Client{Transport: transport, Timeout: patience}
	}
	return clients
}

// RSC18
func TestEveryDoorIsServedOverTLS(t *testing.T) {
	s, _, clients := startTLS(t)
	for protocol, web := range clients {
		t.Run(protocol, func(t *testing.T) {
			get := func(path string) *http.Response {
				t.Helper()
				res, err := web.Get("https://" + s.addr + path)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = res.Body.Close() })
				if res.Proto != protocol || res.StatusCode != http.StatusOK {
					t.Fatalf("%s: %s %s", path, res.Proto, res.Status)
				}
				return res
			}
			get("/time")
			get("/health/ready")
			stream := bufio.NewReader(get("/event-stream?v=1.2&channels=demo&key=" + testKey).Body)
			comet := bufio.NewReader(get("/comet/connect?v=3&key=" + testKey).Body)
			if line, err := comet.ReadString('\n'); err != nil || !strings.Contains(line, `"action":4`) {
				t.Errorf("comet: %q %v", line, err)
			}
			ws, _, err := websocket.Dial(t.Context(), "wss://"+s.addr+"/?v=3&key="+testKey, &websocket.DialOptions{HTTPClient: clients["HTTP/1.1"]})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			if pm := receive(t, ws); pm["action"] != 4.0 {
				t.Fatalf("got %v", pm)
			}
			send(t, ws, `{"action":10,"channel":"demo"}`)
			if pm := receive(t, ws); pm["action"] != 11.0 {
				t.Fatalf("got %v", pm)
			}
			res, err := web.Post("https://"+s.addr+"/channels/demo/messages?key="+testKey, "application/json", strings.NewReader(`{"data":"over TLS"}`))
			if err != nil || res.StatusCode != http.StatusCreated || res.Proto != protocol {
				t.Fatalf("publish: %v %v", res, err)
			}
			_ = res.Body.Close()
			if pm := receive(t, ws); pm["action"] != 15.0 {
				t.Errorf("got %v", pm)
			}
			if line, err := stream.ReadString('\n'); err != nil || !strings.Contains(line, "over TLS") {
				t.Errorf("event stream: %q %v", line, err)
			}
			if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Errorf("the closing handshake: %v", err)
			}
		})
	}
}

// One process serves both, and rules about TLS hold on each.
func TestPlaintextIsServedBesideTLS(t *testing.T) {
	certFile, keyFile, pool := certify(t, t.TempDir(), 1)
	s := start(t, func(c *config.Config) {
		c.TLS = config.TLS{CertFile: certFile, KeyFile: keyFile, Port: "0"}
		c.Namespaces = []config.Namespace{{ID: "safe", TLSOnly: true}}
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: patience}
	for base, want := range map[string]int{"http://" + s.addr: http.StatusForbidden, "https://" + s.TLSAddr().String(): http.StatusOK} {
		for path, want := range map[string]int{"/channels/safe:a/messages?key=" + testKey: want, "/time": http.StatusOK} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Basic "+basic(testKey))
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s%s: %s", base, path, res.Status)
			}
		}
	}
	plain, _, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/?v=3&key="+testKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.CloseNow()
	secure, _, err := websocket.Dial(t.Context(), "wss://"+s.TLSAddr().String()+"/?v=3&key="+testKey, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer secure.CloseNow()
	for _, ws := range []*websocket.Conn{plain, secure} {
		_ = receive(t, ws)
		send(t, ws, `{"action":10,"channel":"both"}`)
		_ = receive(t, ws)
	}
	send(t, plain, `{"action":15,"msgSerial":0,"channel":"both","messages":[{"data":"x"}]}`)
	if pm := receive(t, secure); pm["action"] != 15.0 {
		t.Errorf("got %v", pm)
	}
	s.stop()
	for _, addr := range []string{s.addr, s.TLSAddr().String()} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			t.Errorf("%s is still open", addr)
		}
	}
}

// The listeners share one http.Server, which makes itself ready for HTTP/2 when the first of them is served.
func TestHTTP2IsSpokenWhicheverListenerIsServedFirst(t *testing.T) {
	certFile, keyFile, pool := certify(t, t.TempDir(), 1)
	for _, order := range [][]string{{"http", "https"}, {"https", "http"}} {
		cfg := config.Default(config.Local)
		cfg.DataDir = t.TempDir()
		cfg.TLS = config.TLS{CertFile: certFile, KeyFile: keyFile, Port: "0"}
		s, err := New(cfg, config.Secrets{DefaultApp: "app"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		polling, stop := context.WithCancel(t.Context())
		serving.Go(func() { _ = s.poller.Run(polling) })
		for _, scheme := range order {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			serving.Go(func() {
				if err := s.serve(t.Context(), l, scheme == "https"); !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
			res, err := trusting(t, pool)["HTTP/2.0"].Get(scheme + "://" + l.Addr().String() + "/time")
			if err != nil {
				t.Errorf("%v: %s: %v", order, scheme, err)
				continue
			}
			_ = res.Body.Close()
			if want := map[string]int{"http": 1, "https": 2}[scheme]; res.StatusCode != http.StatusOK || res.ProtoMajor != want {
				t.Errorf("%v: %s: %s %s", order, scheme, res.Proto, res.Status)
			}
		}
		_ = s.http.Close()
		stop()
		serving.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAPortThatIsTakenIsNoStart(t *testing.T) {
	certFile, keyFile, _ := certify(t, t.TempDir(), 1)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	c := config.Default(config.Local)
	c.Server.Host, c.Server.Port = "127.0.0.1", "0"
	c.TLS = config.TLS{CertFile: certFile, KeyFile: keyFile, Port: port}
	s, err := New(c, config.Secrets{DefaultApp: "app"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(); err == nil || !strings.Contains(err.Error(), "LETSHARE_TLS_PORT") {
		t.Errorf("got %v", err)
	}
}

// serial is that of the certificate that the next handshake gets.
func (s *running) serial(t *testing.T) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestANewCertificateIsUsedAndNobodyIsDropped(t *testing.T) {
	s, dir, clients := startTLS(t)
	ws, _, err := websocket.Dial(t.Context(), "wss://"+s.addr+"/?v=3&key="+testKey, &websocket.DialOptions{HTTPClient: clients["HTTP/1.1"]})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	_ = receive(t, ws)
	if n := s.serial(t); n != 1 {
		t.Fatalf("the certificate is number %d", n)
	}
	adopt := func() {
		t.Helper()
		if needRestart, err := s.Reload(s.config, s.secrets); err != nil || len(needRestart) > 0 {
			t.Fatal(needRestart, err)
		}
	}
	certify(t, dir, 2)
	adopt()
	if n := s.serial(t); n != 2 {
		t.Errorf("after a reload the certificate is number %d", n)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	adopt()
	if n := s.serial(t); n != 2 {
		t.Errorf("after a bad key the certificate is number %d", n)
	}
	certify(t, dir, 3)
	s.certs.looked.Store(0) // as if it were long ago
	if n := s.serial(t); n != 3 {
		t.Errorf("after a change of the files the certificate is number %d", n)
	}
	send(t, ws, `{"action":10,"channel":"demo"}`)
	if pm := receive(t, ws); pm["action"] != 11.0 {
		t.Errorf("got %v", pm)
	}
}

func TestABadCertificateIsNoStart(t *testing.T) {
	c := config.Default(config.Local)
	c.TLS.CertFile, c.TLS.KeyFile = filepath.Join(t.TempDir(), "none.pem"), "none.pem"
	if _, err := New(c, config.Secrets{DefaultApp: "app"}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "tls.cert_file") {
		t.Errorf("got %v", err)
	}
}

func TestAHandshakeHasADeadline(t *testing.T) {
	t.Parallel()
	s, _, _ := startTLS(t)
	if s.http.ReadHeaderTimeout != headerTime {
		t.Fatal("the deadline of handshakes is that of headers")
	}
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	_ = conn.SetReadDeadline(began.Add(2 * headerTime))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestPlaintextAtATLSListenerIsToldSo(t *testing.T) {
	s, _, _ := startTLS(t)
	res, err := web.Get("http://" + s.addr + "/time")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Error(res.Status)
	}
}

func TestATLSOnlyNamespaceRefusesPlaintext(t *testing.T) {
	certFile, keyFile, pool := certify(t, t.TempDir(), 1)
	for name, secure := range map[string]bool{"without TLS": false, "with TLS": true} {
		s := start(t, func(c *config.Config) {
			c.Namespaces = []config.Namespace{{ID: "safe", TLSOnly: true}}
			c.Server.TrustedProxies = []string{"127.0.0.0/8"}
			if secure {
				c.TLS.CertFile, c.TLS.KeyFile = certFile, keyFile
			}
		})
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		t.Cleanup(transport.CloseIdleConnections)
		client, scheme := &http.Client{Transport: transport, Timeout: patience}, "http"
		if secure {
			scheme = "https"
		}
		for _, proto := range []string{"", "http", "https", "https, http"} {
			allowed := proto == "https" || proto == "" && secure
			header := make(http.Header)
			if proto != "" {
				header.Set("X-Forwarded-Proto", proto)
			}
			request := func(method, path, body string, want int) {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, scheme+"://"+s.addr+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header = header.Clone()
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Basic "+basic(testKey))
				res, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if code := res.Header.Get("X-Ably-Errorcode"); allowed && res.StatusCode != want ||
					!allowed && (res.StatusCode != http.StatusForbidden || code != "40311") {
					t.Errorf("%s, %q: %s %s: %s %s", name, proto, method, path, res.Status, code)
				}
			}
			request(http.MethodPost, "/channels/safe:a/messages", `{"data":"x"}`, 201)
			request(http.MethodGet, "/channels/safe:a/messages", "", 200)
			request(http.MethodGet, "/channels/safe:a/presence", "", 200)
			request(http.MethodGet, "/channels/safe", "", 200)
			request(http.MethodGet, "/event-stream?v=1.2&channels=safe:a", "", 200)
			ws, _, err := websocket.Dial(t.Context(), strings.Replace(scheme, "http", "ws", 1)+"://"+s.addr+"/?v=3&key="+testKey,
				&websocket.DialOptions{HTTPClient: client, HTTPHeader: header})
			if err != nil {
				t.Fatal(err)
			}
			_ = receive(t, ws)
			send(t, ws, `{"action":10,"channel":"safe:a"}`)
			pm := receive(t, ws)
			if allowed && pm["action"] != 11.0 || !allowed && (pm["action"] != 9.0 || errorCode(pm) != 40311) {
				t.Errorf("%s, %q: attach: %v", name, proto, pm)
			}
			send(t, ws, `{"action":15,"msgSerial":0,"channel":"safe:a","messages":[{"data":"x"}]}`)
			for pm = receive(t, ws); pm["action"] == 15.0; pm = receive(t, ws) {
			}
			if allowed && pm["action"] != 1.0 || !allowed && (pm["action"] != 2.0 || errorCode(pm) != 40311) {
				t.Errorf("%s, %q: publish: %v", name, proto, pm)
			}
			send(t, ws, `{"action":10,"channel":"free"}`)
			for pm = receive(t, ws); pm["action"] == 15.0; pm = receive(t, ws) {
			}
			if pm["action"] != 11.0 {
				t.Errorf("%s, %q: another channel: %v", name, proto, pm)
			}
			_ = ws.CloseNow()
		}
	}
}

// A client that stops reading is cut when its outbox is full. The others get everything meanwhile,
// and nothing of it stays in memory.
func TestAClientThatStopsReadingOverTLSDelaysNobody(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, pool := certify(t, dir, 1)
	s := start(t, func(c *config.Config) {
		c.TLS.CertFile, c.TLS.KeyFile = certFile, keyFile
		c.Limits.OutboxBytes = 1 << 20
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return conn, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	attach := func() *websocket.Conn {
		t.Helper()
		ws, _, err := websocket.Dial(t.Context(), "wss://"+s.addr+"/?v=3&key="+testKey, &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
		ws.SetReadLimit(1 << 20)
		_ = receive(t, ws)
		send(t, ws, `{"action":10,"channel":"room"}`)
		if pm := receive(t, ws); pm["action"] != 11.0 {
			t.Fatalf("got %v", pm)
		}
		return ws
	}
	attach() // and reads no more
	reader, publisher := attach(), attach()
	const each = 40_000
	filler := strings.Repeat("x", each)
	acknowledged := func(n int) { // and takes its own messages
		t.Helper()
		for pm := receive(t, publisher); ; pm = receive(t, publisher) {
			if pm["action"] == 1.0 {
				if pm["msgSerial"] != float64(n) {
					t.Fatalf("acknowledged %v, want %d", pm["msgSerial"], n)
				}
				return
			}
		}
	}
	got := 0
	for n := 0; figure(s.metrics, "letshare_slow_consumers_closed_total") != "1"; n++ {
		if n > 1000 { // 40 MB
			t.Fatal("the slow one is not cut")
		}
		send(t, publisher, `{"action":15,"msgSerial":`+strconv.Itoa(n)+`,"channel":"room","messages":[{"name":"`+strconv.Itoa(n)+`","data":"`+filler+`"}]}`)
		acknowledged(n)
		for got <= n {
			pm := receive(t, reader)
			for _, m := range pm["messages"].([]any) {
				if name := m.(map[string]any)["name"]; name != strconv.Itoa(got) {
					t.Fatalf("got message %v, want %d", name, got)
				}
				got++
			}
		}
	}
	for end := time.Now().Add(patience); figure(s.metrics, "letshare_outbox_bytes") != "0"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s bytes still wait", figure(s.metrics, "letshare_outbox_bytes"))
		}
	}
}

// Sockets count from their first moment: who never does its handshake gets no more of them than
// who never authenticates.
func TestHandshakesThatAreNotDoneAreBounded(t *testing.T) {
	certFile, keyFile, pool := certify(t, t.TempDir(), 1)
	s := start(t, func(c *config.Config) {
		c.TLS.CertFile, c.TLS.KeyFile = certFile, keyFile
		c.Limits.AddressSockets = 3
	})
	closed := func(conn net.Conn, within time.Duration) bool {
		_ = conn.SetReadDeadline(time.Now().Add(within))
		_, err := conn.Read(make([]byte, 1))
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	open := func(claimed string) net.Conn {
		t.Helper()
		s.claimed.Store(claimed)
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	secure := func() (*tls.Conn, error) {
		d := &net.Dialer{Timeout: patience}
		return tls.DialWithDialer(d, "tcp", s.addr, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	}
	var idle []net.Conn
	for range 3 {
		conn := open("203.0.113.1")
		if _, err := conn.Write([]byte("\x16\x03\x01")); err != nil { // the begin of a hello
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	if !closed(open("203.0.113.1"), patience) {
		t.Error("a fourth socket stays open")
	}
	if conn, err := secure(); err == nil {
		_ = conn.Close()
		t.Error("a handshake was done on one socket too many")
	}
	if n := figure(s.metrics, `letshare_limit_exceeded_total{limit="address_sockets"}`); n != "2" {
		t.Errorf("counted %s", n)
	}
	s.claimed.Store("203.0.113.2")
	conn, err := secure()
	if err != nil {
		t.Fatalf("another address: %v", err)
	}
	_ = conn.Close()
	s.claimed.Store("203.0.113.1")
	_ = idle[0].Close()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if conn, err = secure(); err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after one has gone: %v", err)
		}
	}
}
