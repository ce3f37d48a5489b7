package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letshare-server/test/cert"
)

// call runs the program in an empty directory, as a shell would, with variables of the
// environment given as NAME=value.
func call(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "LETSHARE_") || name == "MODE" {
			t.Setenv(name, value) // puts it back
			_ = os.Unsetenv(name)
		}
	}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	var out, err bytes.Buffer
	code = Main(args, &out, &err)
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{{"help"}, {"-h"}, {"-help"}, {"--help"}} {
		code, out, errs := call(t, nil, args...)
		if code != 0 || errs != "" {
			t.Errorf("%v: code %d, %q", args, code, errs)
		}
		for _, name := range []string{"serve", "token", "key", "load", "health", "backup", "restore", "compact", "check-config", "default-config", "version"} {
			if !strings.Contains(out, "  "+name+" ") {
				t.Errorf("%v does not tell of %s", args, name)
			}
		}
	}
}

func TestMistakesOnTheCommandLineAreExitCode2(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{
		{"dance"}, {""}, {"-dance"}, {"serve", "-dance"}, {"serve", "now"}, {"token", "anna"}, {"token"}, {"token", "-user", ""},
		{"token", "-user", "a", "-hours", "x"}, {"check-config", "file"}, {"default-config", "-mode", "staging"}, {"default-config", "x"},
		{"backup"}, {"restore"}, {"backup", "-to"}, {"health", "-timeout", "soon"}, {"health", "-url", "::"}, {"version", "x"}, {"check-config", "-set", "no value"},
	} {
		code, out, errs := call(t, nil, args...)
		if code != 2 || out != "" || errs == "" {
			t.Errorf("%q: code %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

func TestEachCommandExplainsItsFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range commands() {
		if c.name == "load" {
			continue // explains itself in its own package
		}
		code, _, errs := call(t, nil, c.name, "-h")
		if code != 0 || !strings.Contains(errs, "Usage: letshare-server "+c.name) {
			t.Errorf("%s -h: code %d, %q", c.name, code, errs)
		}
	}
}

func TestVersionNamesTheProgramAndItsCompiler(t *testing.T) {
	code, out, _ := call(t, nil, "version")
	if code != 0 || !strings.HasPrefix(out, "letshare-server ") || !strings.Contains(out, " go1.") || strings.Count(out, "\n") != 1 {
		t.Errorf("code %d, %q", code, out)
	}
}

func TestTokenPrintsATokenAndNothingElse(t *testing.T) {
	t.Chdir(t.TempDir())
	code, out, errs := call(t, []string{"LETSHARE_JWT_SECRET=0123456789abcdef-secret", "LETSHARE_JWT_EXPIRATION_HOURS=5"},
		"token", "-user", "anna:x", "-type", "mobile", "-room", "room456")
	parts := strings.Split(strings.TrimSpace(out), ".")
	if code != 0 || errs != "" || len(parts) != 3 || strings.Count(out, "\n") != 1 {
		t.Fatalf("code %d, stdout %q, stderr %q", code, out, errs)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		UserID   string `json:"user_id"`
		UserType string `json:"user_type"`
		RoomID   string `json:"room_id"`
		Iat, Exp int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.UserID != "anna:x" || claims.UserType != "mobile" || claims.RoomID != "room456" || claims.Exp-claims.Iat != 5*3600 ||
		time.Since(time.Unix(claims.Iat, 0)).Abs() > time.Minute {
		t.Errorf("claims %s", payload)
	}
	_, out, _ = call(t, nil, "token", "-user", "a", "-hours", "2")
	payload, _ = base64.RawURLEncoding.DecodeString(strings.Split(out, ".")[1])
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Exp-claims.Iat != 2*3600 {
		t.Errorf("claims %s", payload)
	}
	if code, out, errs := call(t, nil, "token", "-user", strings.Repeat("x", 5000)); code != 1 || out != "" || errs == "" {
		t.Errorf("an impossible user: code %d, %q, %q", code, out, errs)
	}
}

func TestTokenOfProductionIsSignedWithWhatTheServerKeeps(t *testing.T) {
	t.Chdir(t.TempDir())
	_, one, warnings := call(t, []string{"MODE=production"}, "token", "-user", "anna")
	if !strings.Contains(warnings, "not used in production") {
		t.Errorf("stderr %q", warnings)
	}
	if info, err := os.Stat(filepath.Join("data", "jwt-secret")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret is not kept: %v %v", info, err)
	}
	code, two, _ := call(t, []string{"MODE=production"}, "token", "-user", "anna")
	if code != 0 || one == "" || two == "" {
		t.Errorf("code %d, %q, %q", code, one, two)
	}
}

func TestCheckConfig(t *testing.T) {
	t.Chdir(t.TempDir())
	file := func(text string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, test := range []struct {
		name string
		env  []string
		args []string
		bad  string // what the error mentions; empty if all is well
	}{
		{"nothing set", nil, nil, ""},
		{"production", []string{"MODE=production"}, nil, ""},
		{"what default-config prints", nil, []string{"-config", file(defaultFile(t))}, ""},
		{"an unknown mode", []string{"MODE=staging"}, nil, "MODE"},
		{"an unknown setting", nil, []string{"-config", file("server:\n  prot: 1\n")}, "did you mean port"},
		{"an unknown variable", []string{"LETSHARE_SERVER_PROT=1"}, nil, "did you mean LETSHARE_SERVER_PORT"},
		{"a bad port", []string{"LETSHARE_SERVER_PORT=http"}, nil, "server.port"},
		{"a bad port as a flag", nil, []string{"-port", "70000"}, "server.port"},
		{"a missing file", nil, []string{"-config", "nowhere.yaml"}, "nowhere.yaml"},
		{"a key that no server takes", []string{"LETSHARE_API_KEYS=app.key:a secret"}, nil, "app.key"},
		{"one key twice", []string{"LETSHARE_API_KEYS=app.key:one,app.key:two"}, nil, "app.key"},
		{"a bad capability", nil, []string{"-config", file("apps:\n  - id: other\n    keys:\n      - {id: k, secret: s, capability: '{x'}\n")}, "other.k"},
		{"an app twice", []string{"LETSHARE_API_KEYS=app.key:one"}, []string{"-config", file("apps:\n  - id: app\n    keys: [{id: k, secret: s}]\n")}, "app"},
	} {
		code, out, errs := call(t, test.env, append([]string{"check-config"}, test.args...)...)
		good := code == 0 && out == "the configuration is good\n"
		bad := code == 1 && out == "" && strings.Contains(errs, test.bad)
		if test.bad == "" && !good || test.bad != "" && !bad {
			t.Errorf("%s: code %d, stdout %q, stderr %q", test.name, code, out, errs)
		}
		if strings.Contains(errs, "a secret") {
			t.Errorf("%s: a secret is printed: %s", test.name, errs)
		}
		for _, v := range test.env {
			name, _, _ := strings.Cut(v, "=")
			_ = os.Unsetenv(name)
		}
	}
	if made, _ := filepath.Glob("*"); len(made) != 0 {
		t.Errorf("checking has made %v", made)
	}
}

func TestCheckConfigLooksAtTheAppsThatAreKept(t *testing.T) {
	dir := t.TempDir()
	file, left := filepath.Join(dir, "apps.json"), filepath.Join(dir, ".apps.json-1")
	for path, text := range map[string]string{file: `{"format":3,"apps":[]}`, left: "of a server that is writing now"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, _, errs := call(t, []string{"MODE=local", "LETSHARE_DATA_DIR=" + dir}, "check-config")
	if code != 1 || !strings.Contains(errs, "format 3") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, err := os.Stat(left); err != nil {
		t.Errorf("checking has an effect: %v", err)
	}
	if err := os.WriteFile(file, []byte(`{"format":1,"revision":0,"apps":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs = call(t, []string{"MODE=local", "LETSHARE_DATA_DIR=" + dir}, "check-config"); code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

func defaultFile(t *testing.T) string {
	t.Helper()
	code, out, errs := call(t, nil, "default-config")
	if code != 0 || errs != "" {
		t.Fatalf("code %d, %q", code, errs)
	}
	return out
}

func TestDefaultConfigDependsOnTheMode(t *testing.T) {
	t.Chdir(t.TempDir())
	local := defaultFile(t)
	_, production, _ := call(t, []string{"MODE=production"}, "default-config")
	_, flag, _ := call(t, nil, "default-config", "-mode", "production")
	if production != flag || production == local || !strings.Contains(local, "http://localhost:3000") || !strings.Contains(production, "https://cdn.letshare.fun") {
		t.Errorf("local:\n%s\nproduction:\n%s", local, production)
	}
}

func TestHealthAsksTheServer(t *testing.T) {
	t.Chdir(t.TempDir())
	answer := http.StatusOK
	var asked string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.WriteHeader(answer)
		_, _ = w.Write([]byte(`{"status":"as it is"}`))
	}))
	defer s.Close()
	port := s.URL[strings.LastIndexByte(s.URL, ':')+1:]
	for _, args := range [][]string{{"-url", s.URL + "/health/ready"}, {"-port", port}, {"-port", port, "-set", "server.host=0.0.0.0"}, {"-port", port, "-set", "server.host=127.0.0.1"}} {
		asked = ""
		code, out, errs := call(t, nil, append([]string{"health"}, args...)...)
		if code != 0 || !strings.Contains(out, "as it is") || errs != "" || asked != "/health/ready" {
			t.Errorf("%v: code %d, stdout %q, stderr %q, asked for %q", args, code, out, errs, asked)
		}
	}
	answer = http.StatusServiceUnavailable
	if code, out, errs := call(t, nil, "health", "-port", port); code != 1 || out != "" || !strings.Contains(errs, "503") {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
	}
	s.Close()
	if code, _, errs := call(t, nil, "health", "-port", port, "-timeout", "2s"); code != 1 || !strings.Contains(errs, "unhealthy") {
		t.Errorf("with no server: code %d, stderr %q", code, errs)
	}
}

func TestHealthAsksOverTLS(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := cert.New(1)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := c.Write(".")
	if err != nil {
		t.Fatal(err)
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprintf(w, "%v", r.TLS != nil) })
	secure := httptest.NewUnstartedServer(answer)
	secure.TLS = c.Server()
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(answer)
	defer plain.Close()
	port := func(s *httptest.Server) string { return s.URL[strings.LastIndexByte(s.URL, ':')+1:] }
	files := []string{"-set", "tls.cert_file=" + certFile, "-set", "tls.key_file=" + keyFile}
	for _, test := range []struct {
		args []string
		over string
	}{
		{append([]string{"-port", port(secure)}, files...), "true"},
		{append([]string{"-port", port(plain), "-set", "tls.port=" + port(secure)}, files...), "false"},
	} {
		if code, out, errs := call(t, nil, append([]string{"health"}, test.args...)...); code != 0 || out != test.over || errs != "" {
			t.Errorf("%v: code %d, stdout %q, stderr %q", test.args, code, out, errs)
		}
	}
	if code, _, errs := call(t, nil, append([]string{"health", "-port", port(plain)}, files...)...); code != 1 || errs == "" {
		t.Errorf("TLS asked of a server without: code %d, stderr %q", code, errs)
	}
}

func TestServeEndsWhenItCannotStart(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, test := range []struct {
		env []string
		bad string
	}{
		{[]string{"LETSHARE_SERVER_PORT=99999"}, "server.port"},
		{[]string{"LETSHARE_SERVER_HOST=203.0.113.1", "LETSHARE_SERVER_PORT=1"}, "cannot listen"},
		{[]string{"LETSHARE_API_KEYS=app.key:a b"}, "app.key"},
		{[]string{"LETSHARE_LOG_LEVEL=loud"}, "log.level"},
	} {
		code, out, errs := call(t, test.env, "serve")
		if code != 1 || !strings.Contains(out+errs, test.bad) {
			t.Errorf("%v: code %d, %q", test.env, code, out+errs)
		}
		for _, v := range test.env {
			name, _, _ := strings.Cut(v, "=")
			_ = os.Unsetenv(name)
		}
	}
}
