package letshare_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// allows reports whether an origin may ask for /health.
func (i *instance) allows(t *testing.T, origin string) bool {
	t.Helper()
	return i.request(t, "GET", "/health", "Origin", origin).status == 200
}

// roomSize finds how many a room holds.
func (i *instance) roomSize(t *testing.T) string {
	t.Helper()
	room := newRoom()
	for range 60 {
		c := i.connect(t, "anna")
		c.send(`{"type":"subscribe","channel":` + q(room) + `}`)
		if m := c.next(); m["type"] == "error" {
			text, _ := m["error"].(map[string]any)["message"].(string)
			return text
		}
	}
	return ""
}

func TestTheEnvironmentWinsOverTheFileAndTheFileOverTheDefaults(t *testing.T) {
	t.Parallel()
	file := "jwt:\n  secret: \"secret of the file\"\ncors:\n  allowed_origins:\n    - \"https://file.example\"\n" +
		"log:\n  level: \"warn\"\n  max_entries: 7\nwebsocket:\n  max_room_users: 2\nserver:\n  port: \"1\"\n"
	s := start(t, settings{file: file, without: []string{"LETSHARE_JWT_SECRET"}, env: []string{"LETSHARE_LOG_LEVEL=info"}})
	// From the file.
	c := userClaims("anna")
	if r := s.request(t, "GET", "/ws?token="+sign("HS256", "secret of the file", c)); r.status != 400 {
		t.Errorf("a token signed with the file's secret: %d %s", r.status, r.body)
	}
	if r := s.request(t, "GET", "/ws?token="+token(c)); r.status != 401 {
		t.Errorf("a token signed with another secret: %d", r.status)
	}
	if !s.allows(t, "https://file.example") || s.allows(t, "http://localhost:3000") {
		t.Error("the origins are not those of the file")
	}
	// The port of the file is 1, on which this would not listen.
	if s.addr == "127.0.0.1:1" {
		t.Error("the port is the file's")
	}

	s = start(t, settings{file: file, env: []string{
		"LETSHARE_CORS_ALLOWED_ORIGINS=https://one.example,https://two.example", "LETSHARE_WEBSOCKET_MAX_ROOM_USERS=1", "LETSHARE_LOG_LEVEL=info",
	}})
	if text := s.roomSize(t); text != "房间已满，最多支持1个用户" {
		t.Errorf("the room's size is the file's: %s", text)
	}
	if !s.allows(t, "https://one.example") || !s.allows(t, "https://two.example") || s.allows(t, "https://file.example") {
		t.Error("the origins are not those of the environment")
	}
}

func TestTheFileOfTheModeIsRead(t *testing.T) {
	t.Parallel()
	other := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "configs", "local.yaml"), []byte("websocket:\n  max_room_users: 9\n"), 0o600)
	}
	s := start(t, settings{mode: "production", file: "websocket:\n  max_room_users: 3\n", prepare: other})
	if text := s.roomSize(t); text != "房间已满，最多支持3个用户" {
		t.Errorf("got %s", text)
	}
	if !s.allows(t, "https://www.letshare.fun") || s.allows(t, "http://localhost:3000") {
		t.Error("the origins are not production's")
	}
}

func TestWithoutAFileTheDefaultsHold(t *testing.T) {
	t.Parallel()
	s := start(t, settings{})
	if text := s.roomSize(t); text != "房间已满，最多支持50个用户" {
		t.Errorf("got %s", text)
	}
	for _, origin := range []string{"http://localhost:3000", "http://localhost:5173", "https://letshare.fun"} {
		if !s.allows(t, origin) {
			t.Errorf("%s is refused", origin)
		}
	}
}

func TestLocalModeTakesThePublishedSecretFromLocalPeersOnly(t *testing.T) {
	t.Parallel()
	s := start(t, settings{without: []string{"LETSHARE_JWT_SECRET"}})
	path := "/ws?token=" + sign("HS256", "letshare-jwt-secret-key-2024", userClaims("anna"))
	s.dial(t, path).works()
	for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "Via"} {
		if r := s.request(t, "GET", path, append([]string{header, "10.0.0.1"}, handshake...)...); r.status != 401 {
			t.Errorf("through a proxy (%s): status %d", header, r.status)
		}
	}
}

func TestProductionModeNeverTakesAPublishedSecret(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"", "letshare-jwt-secret-key-2024", "letshare-jwt-secret-key-2024-local", "letshare-jwt-secret-key-2024-production", "your-secret"} {
		s := start(t, settings{mode: "production", without: []string{"LETSHARE_JWT_SECRET", "LETSHARE_API_KEYS"}, env: []string{"LETSHARE_JWT_SECRET=" + secret}})
		for _, signed := range []string{"", "letshare-jwt-secret-key-2024", "letshare-jwt-secret-key-2024-local", "letshare-jwt-secret-key-2024-production", secret} {
			r := s.request(t, "GET", "/ws?token="+sign("HS256", signed, userClaims("anna")), handshake...)
			if r.status != 401 {
				t.Errorf("configured with %q: a token signed with %q gets %d", secret, signed, r.status)
			}
		}
		// The command line signs with what the server made for itself.
		cmd := exec.Command(program, "token", "-user", "anna")
		cmd.Dir, cmd.Env = s.dir, []string{"MODE=production", "LETSHARE_JWT_SECRET=" + secret}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("server token: %v", err)
		}
		s.dial(t, "/ws?token="+strings.TrimSpace(string(out))).works()
		if strings.Contains(s.errors(), "eyJ") || strings.Contains(s.output(), "eyJ") {
			t.Error("a token is printed in production")
		}
	}
}

func TestTheSubcommandTokenMakesTokensThatTheServerTakes(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(program, "token", "-user", "anna:x", "-type", "mobile", "-room", "myroom")
	cmd.Dir, cmd.Env = shared.dir, []string{"LETSHARE_JWT_SECRET=" + jwtSecret}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	c := shared.dial(t, "/ws?token="+strings.TrimSpace(string(out)))
	c.subscribe("myroom")
	c.send(`{"type":"subscribe","channel":"other"}`)
	if code, _ := c.expectError(); code != "403" {
		t.Errorf("another room is refused with %s", code)
	}
	c.leave("myroom")
}
