package cluster_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/test/cluster"
)

// within checks that what began then has been felt everywhere in a second, if times count.
func within(t *testing.T, what string, began time.Time, late func() time.Duration) {
	t.Helper()
	took := time.Since(began)
	t.Logf("%s: everywhere after %v", what, took.Round(time.Millisecond))
	if full && took > time.Second+3*late() {
		t.Errorf("%s: everywhere after %v", what, took)
	}
}

// ends waits until the server ends a connection with an error.
func ends(t *testing.T, c *cluster.Client, code int) {
	t.Helper()
	if f, ok := c.Next(cluster.Disconnected, cluster.ActionError); !ok || f.Error == nil || f.Error.Code != code {
		t.Fatalf("the connection ends with %+v", f.Error)
	}
}

// refuses waits until a node refuses who it let in before.
func refuses(t *testing.T, n *cluster.Node, params string, code int) {
	t.Helper()
	c, err := n.Dial(params)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	ends(t, c, code)
}

func TestARevocationActsOnAllNodes(t *testing.T) {
	t.Parallel()
	keyName, secret, _ := strings.Cut(cluster.Key, ":")
	c := start(t, cluster.Options{Environ: []string{"LETSHARE_REVOCABLE_KEYS=" + keyName}})
	token := func(clientID string) string {
		now := time.Now().Unix() - 2 // one that is made in the second of the revocation counts as older
		j := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"iat": now, "exp": now + 600, "x-ably-clientId": clientID})
		j.Header["kid"] = keyName
		text, err := j.SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return "access_token=" + url.QueryEscape(text)
	}
	late := lateness(t)
	bob, anna := token("bob"), token("anna")
	var bobs, annas []*cluster.Client
	for _, n := range c.Nodes {
		bobs, annas = append(bobs, n.Connect(bob)), append(annas, n.Connect(anna))
	}
	began := time.Now()
	if status, answer := c.Nodes[0].Do("POST", "/keys/"+keyName+"/revokeTokens", map[string]any{"targets": []string{"clientId:bob"}}); status != 201 {
		t.Fatalf("%d: %s", status, answer)
	}
	for _, l := range bobs {
		ends(t, l, 40141)
	}
	within(t, "a revocation", began, late)
	for i, n := range c.Nodes {
		refuses(t, n, bob, 40141)
		n.Connect(anna)
		annas[i].Publish("room", "anna is still here")
	}
	// Who comes back after a crash knows it, too.
	c.Nodes[2].Kill()
	c.Nodes[2].Start()
	refuses(t, c.Nodes[2], bob, 40141)
}

func TestAppsAndKeysAreKnownToAllNodes(t *testing.T) {
	t.Parallel()
	const admin = "an-access-token-of-the-cluster-tests"
	c := start(t, cluster.Options{Environ: []string{"LETSHARE_ADMIN_TOKENS=" + admin}})
	ask := func(n *cluster.Node, method, path string, body any, into any) {
		t.Helper()
		status, answer, err := n.Ask(method, "/v1"+path, "Bearer "+admin, body)
		if err != nil || status >= 300 {
			t.Fatalf("%s %s: %d, %v: %s", method, path, status, err, answer)
		}
		if into != nil {
			if err := json.Unmarshal(answer, into); err != nil {
				t.Fatal(err)
			}
		}
	}
	type made struct{ ID, Key string }
	late := lateness(t)
	var app made
	var keys [2]made
	began := time.Now()
	ask(c.Nodes[0], "POST", "/accounts/letshare/apps", map[string]any{"name": "made"}, &app)
	for i := range keys {
		ask(c.Nodes[1+i], "POST", "/apps/"+app.ID+"/keys", map[string]any{"name": "k", "capability": map[string]any{"*": []string{"*"}}}, &keys[i])
	}
	// Nobody waits until a node has been told of it.
	var first, second []*cluster.Client
	for _, n := range c.Nodes {
		first = append(first, n.Connect("key="+url.QueryEscape(keys[0].Key)))
		second = append(second, n.Connect("key="+url.QueryEscape(keys[1].Key)))
	}
	within(t, "a new app with two keys", began, late)
	for i, n := range c.Nodes {
		for range 5 {
			var key made
			ask(c.Nodes[(i+1)%len(c.Nodes)], "POST", "/apps/"+app.ID+"/keys", map[string]any{"name": "k", "capability": map[string]any{"*": []string{"*"}}}, &key)
			basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(key.Key))
			if status, answer, err := n.Ask("GET", "/channels/room/messages", basic, nil); err != nil || status != 200 {
				t.Fatalf("%d, %v: %s", status, err, answer)
			}
		}
	}
	for _, l := range second {
		l.Attach("room")
	}
	first[0].Publish("room", "hello")
	for _, l := range second {
		if f := l.Expect(cluster.Message); f.Messages[0]["data"] != "hello" {
			t.Errorf("got %+v", f)
		}
	}

	began = time.Now()
	ask(c.Nodes[2], "POST", "/apps/"+app.ID+"/keys/"+keys[0].ID+"/revoke", nil, nil)
	for _, l := range first {
		ends(t, l, 40131)
	}
	within(t, "a key that is revoked", began, late)
	for i, n := range c.Nodes {
		second[i].Publish("room", "the other key works")
		refuses(t, n, "key="+url.QueryEscape(keys[0].Key), 40101)
	}

	began = time.Now()
	ask(c.Nodes[1], "DELETE", "/apps/"+app.ID, nil, nil)
	for _, l := range second {
		if f, ok := l.Next(cluster.Disconnected, cluster.ActionError); !ok || f.Error == nil {
			t.Errorf("an app that is gone: %+v", f)
		}
	}
	within(t, "an app that is deleted", began, late)
}

func TestAnUnknownKeyIsNoFinalRefusalWhileRedisStandsStill(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Nodes: 1})
	n := c.Nodes[0]
	const unknown = "key=nobody.knows0:it"
	refuses(t, n, unknown, 40101)
	c.Redis.Stop()
	refuses(t, n, unknown, 50005)
	key, _, _ := strings.Cut(cluster.Key, ":")
	refuses(t, n, "key="+key+":wrong", 40101)
	c.Redis.Continue()
	cluster.Eventually(t, "Redis to answer again", func() bool {
		status, _, err := n.Try("GET", "/health/ready", nil)
		return err == nil && status == 200
	})
	refuses(t, n, unknown, 40101)
}
