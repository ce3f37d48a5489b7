package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/redisclient/redistest"
)

func TestNodesOfAClusterShareTheSecretsThatTheyMake(t *testing.T) {
	redis := redistest.Start(t)
	at := func(prefix string) (token, ofAbly string) {
		t.Helper()
		t.Chdir(t.TempDir()) // another node, with files of its own
		env := []string{"MODE=production", "LETSHARE_REDIS_ADDRESSES=" + redis.Addr, "LETSHARE_REDIS_PREFIX=" + prefix}
		code, token, errs := call(t, env, "token", "-user", "anna")
		if code != 0 {
			t.Fatal(errs)
		}
		code, ofAbly, errs = call(t, env, "token", "-ably")
		if code != 0 {
			t.Fatal(errs)
		}
		if _, err := os.Stat("data"); err == nil {
			t.Error("secrets are kept in files, too")
		}
		return strings.TrimSpace(token), strings.TrimSpace(ofAbly)
	}
	_, first := at("a:")
	token, second := at("a:")
	_, other := at("b:")
	if keyOf(t, first) != keyOf(t, second) || keyOf(t, first) == keyOf(t, other) {
		t.Error("the key that was made is not that of the cluster")
	}
	secret := strings.TrimPrefix(redis.Must("GET", "a:secret:jwt-secret"), "1:")
	if _, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return []byte(secret), nil }); err != nil {
		t.Errorf("the token is not signed with the secret of the cluster: %v", err)
	}
}

// keyOf is the name of the key that signed an Ably JWT.
func keyOf(t *testing.T, token string) any {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Header["kid"]
}

func TestCheckConfigConnectsToRedisOnlyWhenItIsTold(t *testing.T) {
	t.Chdir(t.TempDir())
	redis := redistest.Start(t, "--requirepass", "open sesame")
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"LETSHARE_REDIS_ADDRESSES=" + redis.Addr}
	check := func(env []string, want string, args ...string) {
		t.Helper()
		code, _, errs := call(t, env, append([]string{"check-config"}, args...)...)
		if (code == 0) != (want == "") || !strings.Contains(errs, want) {
			t.Errorf("%q: code %d, %q, want %q", args, code, errs, want)
		}
		for _, name := range []string{"LETSHARE_REDIS_PASSWORD_FILE", "LETSHARE_REDIS_PASSWORD"} {
			_ = os.Unsetenv(name)
		}
	}
	check(env, "")
	check(env, "NOAUTH", "-connect")
	check(append(env, "LETSHARE_REDIS_PASSWORD=wrong"), "WRONGPASS", "-connect")
	check(append(env, "LETSHARE_REDIS_PASSWORD_FILE="+password), "", "-connect")
	check(append(env, "LETSHARE_REDIS_PASSWORD_FILE="+password+"x"), "redis.password_file: open")
}

func TestAServerThatRedisDoesNotLetInSaysWhatToSet(t *testing.T) {
	sec, others := redistest.NewSecurity(t), redistest.NewSecurity(t)
	redis, open, sentinels := sec.Start(t), redistest.Start(t), sec.StartSentinels(t)
	const wrong = "a-wrong-password-of-no-value"
	good := map[string]string{
		"ADDRESSES": redis.Addr, "USER": redistest.User, "PASSWORD": redistest.Password, "TLS_ENABLED": "true",
		"TLS_CA_FILE": sec.CAFile, "TLS_CERT_FILE": sec.CertFile, "TLS_KEY_FILE": sec.KeyFile,
	}
	byName := map[string]string{"ADDRESSES": strings.Join(sentinels.Addresses(), ","), "SENTINEL_MASTER": redistest.MasterName, "SENTINEL_PASSWORD": redistest.SentinelPassword}
	for _, c := range []struct {
		what   string
		change map[string]string // of good; "" unsets
		want   string            // "" is let in
	}{
		{"all is good", nil, ""},
		{"behind Sentinel", byName, ""},
		{"an authority that nobody here knows", map[string]string{"TLS_CA_FILE": ""}, "set redis.tls.ca_file"},
		{"another authority", map[string]string{"TLS_CA_FILE": others.CAFile}, "redis.tls.ca_file, " + others.CAFile + ", is not of the authority"},
		{"another name", map[string]string{"TLS_SERVER_NAME": "redis.example"}, "redis.tls.server_name"},
		{"no certificate", map[string]string{"TLS_CERT_FILE": "", "TLS_KEY_FILE": ""}, "redis.tls.cert_file"},
		{"a certificate of another authority", map[string]string{"TLS_CERT_FILE": others.CertFile, "TLS_KEY_FILE": others.KeyFile}, "redis.tls.cert_file"},
		{"no TLS", map[string]string{"TLS_ENABLED": "", "TLS_CA_FILE": "", "TLS_CERT_FILE": "", "TLS_KEY_FILE": ""}, "redis.tls.enabled"},
		{"TLS to a port without", map[string]string{"ADDRESSES": open.Addr}, "redis.tls.enabled"},
		{"a wrong password", map[string]string{"PASSWORD": wrong}, "WRONGPASS"},
		{"a wrong password", map[string]string{"PASSWORD": wrong}, "set redis.user and redis.password"},
		{"no password", map[string]string{"USER": "", "PASSWORD": ""}, "set redis.user and redis.password"},
		{"a wrong password of the Sentinels", map[string]string{"ADDRESSES": byName["ADDRESSES"], "SENTINEL_MASTER": redistest.MasterName, "SENTINEL_PASSWORD": wrong},
			"set redis.sentinel.user and password"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Chdir(t.TempDir())
			settings := maps.Clone(good)
			maps.Copy(settings, c.change)
			env := []string{"MODE=production", "LETSHARE_SERVER_PORT=0", "LETSHARE_API_KEYS=app.key:" + strings.Repeat("k", 40), "LETSHARE_JWT_SECRET=" + strings.Repeat("j", 40)}
			for name, value := range settings {
				if value != "" {
					env = append(env, "LETSHARE_REDIS_"+name+"="+value)
				}
			}
			commands := [][]string{{"check-config", "-connect"}, {"serve"}}
			if c.want == "" {
				commands = commands[:1]
			}
			for _, args := range commands {
				code, out, errs := call(t, env, args...)
				if said := out + errs; (code == 0) != (c.want == "") || !strings.Contains(said, c.want) {
					t.Errorf("%s: code %d: %s", args[0], code, said)
				} else if strings.Contains(said, wrong) || strings.Contains(said, redistest.Password) || strings.Contains(said, redistest.SentinelPassword) {
					t.Errorf("%s tells a password: %s", args[0], said)
				} else {
					t.Logf("%s: %s", args[0], said)
				}
			}
		})
	}
}
