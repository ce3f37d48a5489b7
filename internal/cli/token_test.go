package cli

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
)

const (
	oneKey = "mine01.key001:a-secret-of-these-tests-that-is-long"
	twoKey = "mine01.key002:another-secret-of-these-tests-it-is"
)

// grantOf checks a token as a server with both keys does.
func grantOf(t *testing.T, token string) *auth.Grant {
	t.Helper()
	var keys []auth.Key
	for _, text := range []string{oneKey, twoKey} {
		k, err := auth.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	app, err := auth.NewApp("mine01", keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := auth.NewAuthenticator(auth.NewRegistry(app), nil).REST(url.Values{"access_token": {strings.TrimSuffix(token, "\n")}}, nil)
	if err != nil {
		t.Fatalf("%q: %v", token, err)
	}
	return g
}

func TestTokenPrintsAblyJWTsThatServersTake(t *testing.T) {
	t.Chdir(t.TempDir())
	configured := []string{"LETSHARE_API_KEYS=" + oneKey + "," + twoKey}
	for _, c := range []struct {
		name       string
		env        []string
		input      string
		args       []string
		key        string
		id         string
		capability string
		life       time.Duration
	}{
		{"the first configured key", configured, "", nil, "mine01.key001", "", `{"*":["*"]}`, time.Hour},
		{"a configured key", configured, "", []string{"-key", "mine01.key002"}, "mine01.key002", "", `{"*":["*"]}`, time.Hour},
		{"a given key", nil, "", []string{"--key", twoKey}, "mine01.key002", "", `{"*":["*"]}`, time.Hour},
		{"a key of the standard input", nil, twoKey + "\n", []string{"-key", "-"}, "mine01.key002", "", `{"*":["*"]}`, time.Hour},
		{"without a line's end", nil, twoKey, []string{"-key", "-"}, "mine01.key002", "", `{"*":["*"]}`, time.Hour},
		{"with all flags", configured, "", []string{"--capability", `{"b":["publish", "history"],"a":["*"]}`, "--client-id", "bob", "--ttl", "24h"},
			"mine01.key001", "bob", `{"a":["*"],"b":["history","publish"]}`, 24 * time.Hour},
		{"any client", configured, "", []string{"-client-id", "*"}, "mine01.key001", "*", `{"*":["*"]}`, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdin = strings.NewReader(c.input)
			defer func() { stdin = os.Stdin }()
			code, out, errs := call(t, c.env, append([]string{"token", "--ably"}, c.args...)...)
			if code != 0 || errs != "" || strings.Count(out, "\n") != 1 {
				t.Fatalf("code %d, stdout %q, stderr %q", code, out, errs)
			}
			g := grantOf(t, out)
			if g.KeyName != c.key || g.ReportedClientID() != c.id || g.Capability.String() != c.capability || g.Expires.Sub(g.Issued) != c.life ||
				time.Since(g.Issued).Abs() > time.Minute {
				t.Errorf("got %+v", g)
			}
		})
	}
}

func TestTokenTellsWhatCannotBe(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		name string
		code int
		args []string
		says string
	}{
		{"a flag of the other kind", 2, []string{"-ably", "-user", "anna"}, "-user"},
		{"a flag of the other kind, too", 2, []string{"-user", "anna", "-client-id", "x"}, "-client-id"},
		{"a key without -ably", 2, []string{"-key", oneKey, "-user", "anna"}, "-key"},
		{"a bad life", 2, []string{"-ably", "-key", oneKey, "-ttl", "long"}, "ttl"},
		{"too long", 1, []string{"-ably", "-key", oneKey, "-ttl", "25h"}, "24h"},
		{"too short", 1, []string{"-ably", "-key", oneKey, "-ttl", "1ms"}, "second"},
		{"backwards", 1, []string{"-ably", "-key", oneKey, "-ttl", "-1h"}, "second"},
		{"a bad capability", 1, []string{"-ably", "-key", oneKey, "-capability", `{"a":["fly"]}`}, "fly"},
		{"a bad key", 1, []string{"-ably", "-key", "mine01:" + "a-secret-of-these-tests"}, "appId.keyId:secret"},
		{"an unknown key", 1, []string{"-ably", "-key", "mine01.nokey"}, "no key mine01.nokey"},
		{"no input", 1, []string{"-ably", "-key", "-"}, "appId.keyId:secret"},
	} {
		stdin = strings.NewReader("")
		code, out, errs := call(t, nil, append([]string{"token"}, c.args...)...)
		stdin = os.Stdin
		if code != c.code || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%s: code %d, stdout %q, stderr %q", c.name, code, out, errs)
		}
		if strings.Contains(errs, "a-secret-of") {
			t.Errorf("%s: a secret is printed: %s", c.name, errs)
		}
	}
}

func TestAGivenKeyNeedsNoConfigurationAndLeavesNothingBehind(t *testing.T) {
	t.Chdir(t.TempDir())
	code, _, errs := call(t, []string{"MODE=production"}, "token", "-ably", "-key", oneKey)
	files, err := filepath.Glob("*")
	if code != 0 || errs != "" || err != nil || len(files) != 0 {
		t.Errorf("code %d, stderr %q, files %q", code, errs, files)
	}
}

func TestKeyPrintsANewKeyEachTime(t *testing.T) {
	t.Chdir(t.TempDir())
	form := regexp.MustCompile(`^[A-Z2-7]{6}\.[A-Z2-7]{6}:[A-Z2-7]{52}\n$`)
	seen := make(map[string]bool)
	for range 20 {
		code, out, errs := call(t, nil, "key")
		if code != 0 || errs != "" || !form.MatchString(out) || seen[out] {
			t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
		}
		seen[out] = true
	}
	if _, out, _ := call(t, nil, "key", "-app", "mine01"); !strings.HasPrefix(out, "mine01.") {
		t.Errorf("got %q", out)
	}
	for _, app := range []string{"a.b", "a:b", "a b", strings.Repeat("a", 65)} {
		if code, out, errs := call(t, nil, "key", "-app", app); code != 2 || out != "" || errs == "" {
			t.Errorf("%q: code %d, stdout %q, stderr %q", app, code, out, errs)
		}
	}
	// What it prints is a configuration that serve takes.
	_, out, _ := call(t, nil, "key")
	if code, _, errs := call(t, []string{"MODE=production", "LETSHARE_API_KEYS=" + strings.TrimSpace(out)}, "check-config"); code != 0 {
		t.Errorf("code %d, %q", code, errs)
	}
}
