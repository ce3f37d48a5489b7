package cli

import (
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
