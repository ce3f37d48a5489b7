package redisclient_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

func TestMain(m *testing.M) {
	// A client of a cluster closes connections to servers that left it 5 s after they did.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"))
}

func TestAServerThatDropsKeysIsRefused(t *testing.T) {
	s := redistest.Start(t, "--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb")
	client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: []string{s.Addr}})
	if err == nil {
		client.Close()
		t.Fatal("it is accepted")
	}
	if text := err.Error(); !strings.Contains(text, "allkeys-lru") || !strings.Contains(text, "noeviction") {
		t.Errorf("the error does not say what to do: %v", err)
	}
}

func TestAPasswordIsSent(t *testing.T) {
	s := redistest.Start(t, "--user", "node", "on", ">secret", "~*", "&*", "+@all", "--user", "default", "off")
	for _, c := range []struct {
		password string
		ok       bool
	}{{"secret", true}, {"wrong", false}, {"", false}} {
		opts := redisclient.Options{Addresses: []string{s.Addr}, Username: "node", Password: c.password}
		if c.password == "" {
			opts.Username = ""
		}
		client, err := redisclient.Open(t.Context(), opts)
		if (err == nil) != c.ok {
			t.Errorf("password %q: got %v", c.password, err)
		}
		if err == nil {
			client.Close()
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestNoServerIsAnErrorAtOnce(t *testing.T) {
	s := redistest.Start(t)
	s.Kill()
	if client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: []string{s.Addr}}); err == nil {
		client.Close()
		t.Error("it connects to nothing")
	}
	if client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: []string{s.Addr}, MasterName: "none"}); err == nil {
		client.Close()
		t.Error("it connects to no Sentinel")
	}
}

func TestSentinelsThatDoNotKnowTheNameAreAnError(t *testing.T) {
	s := redistest.StartSentinels(t)
	if client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: s.Addresses(), MasterName: "another"}); err == nil {
		client.Close()
		t.Error("it connects to an unknown primary")
	} else if !strings.Contains(err.Error(), "another") {
		t.Errorf("the error does not name it: %v", err)
	}
	client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: s.Addresses(), MasterName: redistest.MasterName})
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}
