package server

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"letshare-server/internal/config"
	"letshare-server/internal/redisclient"
	"letshare-server/internal/redisclient/redistest"
)

// told is a node's agreement, and what it has logged.
type told struct {
	*agreement
	log bytes.Buffer
}

// says returns what was logged since it was asked last.
func (n *told) says() string {
	defer n.log.Reset()
	return n.log.String()
}

func TestNodesSayInWhichSettingsTheyDiffer(t *testing.T) {
	redis := redistest.Start(t)
	client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: []string{redis.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := config.Default(config.Production)
	s := config.Secrets{
		JWTSecret: "the-jwt-secret", TokenSecret: "the-token-secret", DefaultApp: "app001",
		Keys: []config.Key{{App: "app001", ID: "key001", Secret: "the-secret-of-a-key"}},
	}
	open := func(host string) *told {
		n := &told{}
		n.agreement = newAgreement(client, c.Redis.Prefix, slog.New(slog.NewTextHandler(&n.log, nil)))
		n.host = host
		n.adopt(c, c, s)
		return n
	}
	compare := func(n *told, differing int, words ...string) {
		t.Helper()
		got, err := n.compare(t.Context())
		if err != nil || got != differing {
			t.Errorf("%d settings differ, want %d; %v", got, differing, err)
		}
		said := n.says()
		if len(words) == 0 && said != "" {
			t.Errorf("it says %s", said)
		}
		for _, word := range words {
			if !strings.Contains(said, word) {
				t.Errorf("it does not say %s: %s", word, said)
			}
		}
	}
	a, b := open("host-a"), open("host-b")
	compare(a, 0)
	compare(b, 0)

	// One gets new settings. What it takes back the other says again, and each tells of it once.
	other, keys := c, s
	other.Limits.PresenceMembers, other.Server.Port, other.Log.Level = 7, "1", "debug"
	keys.Keys = append(slices.Clone(s.Keys), config.Key{App: "app001", ID: "key002", Secret: "another-secret"})
	b.adopt(c, other, keys)
	compare(b, 0)
	compare(a, 2, "level=ERROR", `settings="api_keys, limits.presence_members"`, "other_hosts=host-b")
	compare(b, 2, "level=ERROR", `settings="api_keys, limits.presence_members"`, "other_hosts=host-a")
	compare(a, 2)
	compare(b, 2)

	// The other gets them, too: from then on nobody says the old ones.
	a.adopt(c, other, keys)
	compare(a, 0, "the same settings again")
	compare(b, 0, "the same settings again")

	// A node that stops takes back what it said, and a node that lives says it again.
	third := open("host-c")
	compare(third, 2, "other_hosts=host-b")
	third.leave(t.Context())
	compare(a, 0)
	compare(b, 0)

	// What others said long ago does not count: here as if by a node that was killed.
	killed := open("host-d")
	compare(killed, 2, "other_hosts")
	for field := range strings.FieldsSeq(strings.ReplaceAll(redis.Must("EVAL", `return table.concat(redis.call("HKEYS", KEYS[1]), " ")`, "1", c.Redis.Prefix+"settings"), "\n", " ")) {
		if strings.HasPrefix(field, "api_keys=") || strings.HasPrefix(field, "limits.presence_members=") {
			redis.Must("HSET", c.Redis.Prefix+"settings", field, "1 host-d")
		}
	}
	compare(a, 0)
	compare(b, 0)

	// A secret is not told, nor all of its digest.
	all := redis.Must("EVAL", `return table.concat(redis.call("HGETALL", KEYS[1]), "\n")`, "1", c.Redis.Prefix+"settings")
	for _, secret := range []string{"the-jwt-secret", "the-token-secret", "the-secret-of-a-key", "another-secret"} {
		if strings.Contains(all, secret) {
			t.Errorf("Redis is told %s", secret)
		}
	}
	for line := range strings.Lines(all) {
		if name, digest, is := strings.Cut(strings.TrimSpace(line), "="); is && name == "jwt.secret" && len(digest) != 4 {
			t.Errorf("the digest %s of a secret can be used to find it out", digest)
		}
	}
}

func TestANodeWithAnotherPrefixIsNoticed(t *testing.T) {
	redis := redistest.Start(t)
	client, err := redisclient.Open(t.Context(), redisclient.Options{Addresses: []string{redis.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := config.Default(config.Production)
	open := func(prefix, key string) *told {
		n := &told{}
		n.agreement = newAgreement(client, prefix, slog.New(slog.NewTextHandler(&n.log, nil)))
		n.adopt(c, c, config.Secrets{DefaultApp: "app001", Keys: []config.Key{{App: "app001", ID: "key001", Secret: config.Secret(key)}}})
		return n
	}
	for _, n := range []struct {
		prefix, key string
		differing   int
	}{{"letshare:", "k", 0}, {"letshare:", "k", 0}, {"another:", "of another cluster", 0}, {"letshrae:", "k", 1}} {
		got, err := open(n.prefix, n.key).compare(t.Context())
		if err != nil || got != n.differing {
			t.Errorf("%s: %d settings differ, want %d; %v", n.prefix, got, n.differing, err)
		}
	}
	n := open("letshrae:", "k")
	if _, err := n.compare(t.Context()); err != nil || !strings.Contains(n.says(), "settings=redis.prefix") {
		t.Errorf("it does not say what differs; %v", err)
	}
}
