package transcripts

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
	realtime "letshare-server/internal/server"
)

var update = flag.Bool("update", false, "rewrite what the server says in the transcripts")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds a conversation; nothing waits for it when all is well.
const patience = time.Minute

// The key of the server that plays the other part.
const (
	keyName   = "trscpt.key001"
	keySecret = "transcripts-secret-of-no-value"

	// wideKeyName is a key with the same secret that may do everything on every channel,
	// filtered and meta ones included.
	wideKeyName = "wide.key001"
)

func TestTheServerSpeaksAsTheTranscriptsSay(t *testing.T) {
	paths, err := filepath.Glob("*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := parse(path, text)
		if err != nil {
			t.Error(err)
			continue
		}
		t.Run(tr.name, func(t *testing.T) {
			if *update {
				if err := newPlayer(t, tr, overWebSocket, "json").rewrite(); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, way := range []struct{ name, over, format string }{
				{"json", overWebSocket, "json"},
				{"msgpack", overWebSocket, "msgpack"},
				{"comet-streaming", overStream, "json"},
				{"comet-polling", overPolling, "json"},
			} {
				t.Run(way.name, func(t *testing.T) {
					t.Parallel()
					newPlayer(t, tr, way.over, way.format).play()
				})
			}
		})
	}
}

// What carries the frames.
const (
	overWebSocket = "WebSocket"
	overStream    = "comet, streaming"
	overPolling   = "comet, polling"
)

// player plays one transcript against a server of its own.
type player struct {
	t       *testing.T
	tr      *transcript
	over    string
	format  string
	ctx     context.Context
	names   names
	server  *server
	clients map[int]*client
	serials int // words given to serials while rewriting
}

func newPlayer(t *testing.T, tr *transcript, over, format string) *player {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	p := &player{t: t, tr: tr, over: over, format: format, ctx: ctx, server: startServer(t, tr),
		names: names{"key": keyName + ":" + keySecret, "wide": wideKeyName + ":" + keySecret}, clients: make(map[int]*client)}
	for name, spec := range tr.tokens {
		p.names[name] = mint(t, spec)
	}
	for number := 1; number <= len(tr.clients); number++ {
		if tr.later(number) {
			continue
		}
		if err := p.connect(number); err != nil {
			t.Fatalf("client %d: %v", number, err)
		}
	}
	return p
}

// connect connects a client, and hears its CONNECTED unless a line is about that.
func (p *player) connect(number int) error {
	params, err := p.names.parameters(p.tr.clients[number])
	if err != nil {
		return err
	}
	params.Set("format", p.format)
	if !params.Has("key") && !params.Has("access_token") {
		params.Set("key", keyName+":"+keySecret)
	}
	if !params.Has("v") {
		params.Set("v", "6")
	}
	c, err := dial(p.ctx, p.server.address, p.over, p.format, params)
	if err != nil {
		return err
	}
	p.t.Cleanup(c.line.leave)
	p.clients[number] = c
	if !p.tr.silent(number) {
		return nil
	}
	v, text, _, err := c.receive(p.ctx)
	if err != nil {
		return err
	}
	if !p.bindConnected(number, v) {
		return fmt.Errorf("not connected: %s", text)
	}
	return nil
}

// server is one that plays the other part.
type server struct {
	*realtime.Server
	address string
	stop    func() // drains it
	secrets config.Secrets
	load    func(namespaces string) (config.Config, error)
}

// startServer runs a server with the settings of a transcript until the test ends or stop is
// called.
func startServer(t *testing.T, tr *transcript) *server {
	t.Helper()
	flags := make(map[string]string)
	for _, setting := range strings.Fields(tr.limits) {
		name, value, _ := strings.Cut(setting, "=")
		flags["limits."+name] = value
	}
	s := &server{load: func(namespaces string) (config.Config, error) {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte("namespaces: "+namespaces+"\n"), 0o600); err != nil {
			return config.Config{}, err
		}
		cfg, _, err := config.Load(config.Options{File: file, Flags: flags})
		cfg.DataDir = t.TempDir()
		cfg.Server.Host, cfg.Server.Port = "127.0.0.1", "0"
		cfg.Server.ShutdownGrace = 2 * time.Second
		cfg.APIKeys = []config.Secret{keyName + ":" + keySecret}
		wideApp, wideID, _ := strings.Cut(wideKeyName, ".")
		cfg.Apps = []config.App{{ID: wideApp, Keys: []config.AppKey{{ID: wideID, Secret: keySecret, Capability: `{"[*]*":["*"]}`}}}}
		return cfg, err
	}}
	cfg, err := s.load(tr.namespaces)
	if err != nil {
		t.Fatal(err)
	}
	if s.secrets, err = config.ResolveSecrets(cfg, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey}); err != nil {
		t.Fatal(err)
	}
	if s.Server, err = realtime.New(cfg, s.secrets, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	s.address, s.stop = l.Addr().String(), cancel
	return s
}

// reload gives the server other namespaces, as a change of its file does.
func (s *server) reload(namespaces string) error {
	cfg, err := s.load(namespaces)
	if err != nil {
		return err
	}
	_, err = s.Reload(cfg, s.secrets)
	return err
}

// mint makes the JWT of a token line.
func mint(t *testing.T, spec tokenSpec) string {
	t.Helper()
	now := time.Now().Unix()
	claims := jwt.MapClaims{"iat": now, "exp": now + int64(spec.TTL)}
	if spec.TTL < 0 {
		claims["iat"] = now + int64(spec.TTL) - 60
	}
	if spec.ClientID != nil {
		claims["x-ably-clientId"] = *spec.ClientID
	}
	if spec.Capability != nil {
		claims["x-ably-capability"] = string(spec.Capability)
	}
	maps.Copy(claims, spec.Claims)
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = keyName
	if spec.Key != "" {
		token.Header["kid"] = spec.Key
	}
	secret := keySecret
	if spec.Secret != "" {
		secret = spec.Secret
	}
	signed, err := token.SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// bindConnected notes the values of a CONNECTED and reports whether v is one.
func (p *player) bindConnected(number int, v any) bool {
	pm, _ := v.(map[string]any)
	if pm["action"] != json.Number("4") {
		return false
	}
	suffix := ""
	if number > 1 {
		suffix = fmt.Sprint(number)
	}
	for _, name := range []string{"connectionId", "connectionKey"} {
		if _, known := p.names[name+suffix]; !known {
			p.names[name+suffix] = pm[name]
		}
	}
	return true
}

// say does what a line of the client's says, or what happens.
func (p *player) say(l line) error {
	c := p.clients[l.client]
	switch l.kind {
	case happens:
		what, number := l.event()
		switch {
		case what == "wait":
		case what == "drain":
			p.server.stop()
		case what == "namespaces":
			return p.server.reload(strings.TrimPrefix(l.body, what))
		case what == "connect" && p.clients[number] == nil:
			return p.connect(number)
		case what == "cut" && p.clients[number] != nil:
			p.clients[number].closed = true
			p.clients[number].line.cut()
		default:
			return fmt.Errorf("unknown event %q", l.body)
		}
		return nil
	case raw:
		body, err := p.names.fill(l.body, func(s string) string { return s })
		if err != nil {
			return err
		}
		return c.line.write(p.ctx, []byte(body))
	case joined:
		c.line.hold()
	}
	body, err := p.names.fill(l.body, func(s string) string { return strings.Trim(show(s), `"`) })
	if err != nil {
		return err
	}
	if err := c.send(p.ctx, body); err != nil {
		return err
	}
	if l.kind == sends {
		return c.line.release(p.ctx)
	}
	return nil
}

// play compares what the server says with the transcript.
func (p *player) play() {
	for i, l := range p.tr.lines {
		where := fmt.Sprintf("%s:%d", p.tr.path, i+1)
		var err error
		switch l.kind {
		case comment:
		case receives:
			err = p.expect(l)
		case closes:
			err = p.expectClose(l)
		default:
			err = p.say(l)
		}
		if err != nil {
			p.t.Fatalf("%s: %v\n  %s", where, err, l.text)
		}
	}
	for number := range p.tr.clients {
		if err := p.expectNothing(number); err != nil {
			p.t.Errorf("%s: client %d: %v", p.tr.path, number, err)
		}
	}
}

// Actions of which the player must know.
const (
	ack      = "1"
	presence = "14"
	message  = "15"
)

func isAction(frame any, action json.Number) bool {
	pm, _ := frame.(map[string]any)
	return pm["action"] == action
}

func (p *player) expect(l line) error {
	want, err := decodeJSON([]byte(l.body))
	if err != nil {
		return err
	}
	c := p.clients[l.client]
	receive := c.next
	if isAction(want, ack) {
		receive = c.receive // an ACK is never among what came before it
	}
	v, text, code, err := receive(p.ctx)
	for err == nil && code == 0 && isAction(want, ack) && (isAction(v, message) || isAction(v, presence)) {
		c.early = append(c.early, early{v, text})
		v, text, code, err = receive(p.ctx)
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("the server closed with %d", code)
	}
	p.bindConnected(l.client, v)
	if err := p.names.match(want, v, "frame"); err != nil {
		return fmt.Errorf("%w\n  got %s", err, text)
	}
	return nil
}

func (p *player) expectClose(l line) error {
	_, text, code, err := p.clients[l.client].next(p.ctx)
	switch {
	case err != nil:
		return err
	case code == 0:
		return fmt.Errorf("got %s", text)
	case code != anyCode && fmt.Sprint(code) != l.body:
		return fmt.Errorf("the server closed with %d", code)
	}
	return nil
}

// lastWord is the id of the ping that ends a conversation: what comes before its answer was
// not expected.
const lastWord = "the end of the transcript"

func (p *player) expectNothing(number int) error {
	c := p.clients[number]
	if c == nil || c.closed {
		return nil
	}
	if err := c.send(p.ctx, `{"action":0,"id":"`+lastWord+`"}`); err != nil {
		return err
	}
	_, text, code, err := c.next(p.ctx)
	if err != nil {
		return err
	}
	if code != 0 || !strings.Contains(text, lastWord) {
		return fmt.Errorf("unexpected: %s (close code %d)", text, code)
	}
	return nil
}

// rewrite plays the client's lines and writes down what the server says after each group of
// them. Lines that still hold are kept as they are.
func (p *player) rewrite() error {
	var out []string
	lines := p.tr.lines
	for i := 0; i < len(lines); {
		said := false
		for ; i < len(lines) && lines[i].kind != receives && lines[i].kind != closes; i++ {
			out = append(out, lines[i].text)
			if lines[i].kind == comment {
				continue
			}
			said = true
			if err := p.say(lines[i]); err != nil {
				return fmt.Errorf("%s: %w", lines[i].text, err)
			}
			if lines[i].kind == joined {
				continue
			}
			if j := i + 1; j < len(lines) && (lines[j].kind == sends || lines[j].kind == joined || lines[j].kind == raw) {
				continue
			}
			i++
			break
		}
		var old []line
		for ; i < len(lines) && (lines[i].kind == receives || lines[i].kind == closes); i++ {
			old = append(old, lines[i])
		}
		if !said && len(old) == 0 {
			continue
		}
		for number := 1; number <= len(p.tr.clients); number++ {
			heard, err := p.hear(number, old)
			if err != nil {
				return err
			}
			out = append(out, heard...)
		}
	}
	return p.tr.write(out)
}

// hear returns the lines of what the server says to one client until it has no more to say:
// until it closes, if a line says that it does, or else until it has answered a ping.
func (p *player) hear(number int, old []line) ([]string, error) {
	c := p.clients[number]
	if c == nil {
		return nil, nil
	}
	var mine []line
	toTheEnd := false
	for _, l := range old {
		if l.client == number {
			mine = append(mine, l)
			toTheEnd = toTheEnd || l.kind == closes
		}
	}
	if c.closed {
		return nil, nil
	}
	suffix := " "
	if number > 1 {
		suffix = fmt.Sprint(number)
	}
	const word = "heard all"
	again := false
	if !toTheEnd {
		if err := c.send(p.ctx, `{"action":0,"id":"`+word+`"}`); err != nil {
			return nil, err
		}
	}
	var out []string
	for {
		v, text, code, err := c.receive(p.ctx)
		if err != nil {
			return nil, err
		}
		if code != 0 {
			return append(out, fmt.Sprintf("X%s %d", suffix, code)), nil
		}
		if strings.Contains(text, `"`+word+`"`) {
			if len(out) >= len(mine) || again {
				return out, nil
			}
			// Answers to pings may pass each other.
			again = true
			if err := c.send(p.ctx, `{"action":0,"id":"`+word+`"}`); err != nil {
				return nil, err
			}
			continue
		}
		p.bindConnected(number, v)
		if n := len(out); n < len(mine) && mine[n].kind == receives {
			if want, err := decodeJSON([]byte(mine[n].body)); err == nil && p.names.match(want, v, "frame") == nil {
				out = append(out, mine[n].text)
				continue
			}
		}
		out = append(out, fmt.Sprintf("S%s %s", suffix, p.anonymous(text)))
	}
}

var (
	serialForm    = regexp.MustCompile(`\d{14}-\d{6}@[A-Za-z0-9]{8}`)
	timestampForm = regexp.MustCompile(`"timestamp":\d+`)
)

// anonymous puts words in place of the values of a frame that differ from run to run.
func (p *player) anonymous(text string) string {
	text = timestampForm.ReplaceAllString(text, `"timestamp":"<any>"`)
	for _, serial := range serialForm.FindAllString(text, -1) {
		known := false
		for _, v := range p.names {
			known = known || v == serial
		}
		if !known {
			p.serials++
			p.names[fmt.Sprintf("serial%d", p.serials)] = serial
		}
	}
	for _, key := range []bool{true, false} { // keys first: they contain the id
		for name, v := range p.names {
			if s, ok := v.(string); ok && len(s) > 4 && strings.HasPrefix(name, "connectionKey") == key {
				text = strings.ReplaceAll(text, s, "<"+name+">")
			}
		}
	}
	return text
}
