package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

const (
	testSecret  = "a-secret-of-this-test-and-no-other"
	otherSecret = "another-secret-of-this-test-and-no-other"
)

// node is a running server, whose default app "mine" has the revocable keys one and two.
type node struct {
	*Server
	t       *testing.T
	addr    string
	config  config.Config
	secrets config.Secrets
}

func run(t *testing.T) *node {
	t.Helper()
	c := config.Default(config.Local)
	c.DataDir = t.TempDir()
	c.APIKeys = []config.Secret{"mine.one:" + testSecret, "mine.two:" + otherSecret}
	c.Revocable = []string{"mine.one", "mine.two"}
	c.JWT.Secret = testSecret
	c.Sandbox.Enabled = true
	c.Server.ShutdownGrace = 100 * time.Millisecond
	secrets, err := config.ResolveSecrets(c, config.Published{Contains: auth.IsPublished, LocalKey: auth.LocalKey})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c, secrets, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &node{s, t, l.Addr().String(), c, secrets}
}

// token makes a JWT of key one, a minute old.
func (n *node) token(claims jwt.MapClaims) string {
	return n.sign("mine.one", claims)
}

// visitor makes a token for LetShare's door, a minute old.
func (n *node) visitor(id string) string { return n.sign("", jwt.MapClaims{"user_id": id}) }

func (n *node) sign(kid string, claims jwt.MapClaims) string {
	n.t.Helper()
	claims["iat"], claims["exp"] = time.Now().Add(-time.Minute).Unix(), time.Now().Add(30*time.Minute).Unix()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString([]byte(testSecret))
	if err != nil {
		n.t.Fatal(err)
	}
	return text
}

// post sends JSON with a key, and returns the answer.
func (n *node) post(path, key, body string) (status int, answer map[string]any) {
	n.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+n.addr+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key)))
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = json.Unmarshal(text, &answer) // some have none
	return res.StatusCode, answer
}

// client is a connection to one of the doors.
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

func (n *node) dial(path string) *client {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+n.addr+path, nil)
	if err != nil {
		n.t.Fatalf("%s: %v", path[:min(len(path), 20)], err)
	}
	n.t.Cleanup(func() { _ = ws.CloseNow() })
	return &client{n.t, ws}
}

// ably opens a connection, which gets CONNECTED.
func (n *node) ably(query string) *client {
	n.t.Helper()
	s := n.dial("/?v=6&format=json&" + query)
	if action, _ := s.next(); action != 4 {
		n.t.Fatalf("action %d instead of CONNECTED", action)
	}
	return s
}

// next reads one ProtocolMessage and returns its action and the code of its error.
func (s *client) next() (action, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := s.ws.Read(ctx)
	if err != nil {
		s.t.Fatalf("reading: %v", err)
	}
	var pm struct {
		Action  int
		Channel *string
		Error   struct{ Code, StatusCode int }
	}
	if err := json.Unmarshal(text, &pm); err != nil || pm.Channel != nil || pm.Error.Code != 0 && pm.Error.StatusCode != 401 {
		s.t.Errorf("got %s", text)
	}
	return pm.Action, pm.Error.Code
}

// closed waits for the end and returns the code of the close frame.
func (s *client) closed() websocket.StatusCode {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, _, err := s.ws.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func (s *client) expect(action, code int) {
	s.t.Helper()
	if a, c := s.next(); a != action || c != code {
		s.t.Errorf("action %d, code %d; want %d, %d", a, c, action, code)
	}
}

// works checks that a connection is alive, by a ping.
func (s *client) works() {
	s.t.Helper()
	if err := s.ws.Write(context.Background(), websocket.MessageText, []byte(`{"action":0,"id":"x"}`)); err != nil {
		s.t.Fatal(err)
	}
	s.expect(0, 0)
}

const (
	pmDisconnected = 6
	pmError        = 9
	pmAuth         = 17
)

func TestARevocationReachesEveryDoor(t *testing.T) {
	n := run(t)
	bob, eve := n.token(jwt.MapClaims{"x-ably-clientId": "bob"}), n.token(jwt.MapClaims{"x-ably-clientId": "eve"})
	visitor := n.visitor("bob")
	bobs, eves, keys, visitors := n.ably("access_token="+bob), n.ably("access_token="+eve),
		n.ably("clientId=bob&key="+url.QueryEscape("mine.one:"+testSecret)), n.dial("/ws?token="+visitor)
	if status, answer := n.post("/keys/mine.one/revokeTokens", "mine.one:"+testSecret, `{"targets":["clientId:bob"]}`); status != 201 {
		t.Fatalf("status %d %v", status, answer)
	}
	bobs.expect(pmDisconnected, 40141)
	bobs.closed()
	if code := visitors.closed(); code != websocket.StatusPolicyViolation {
		t.Errorf("LetShare's door: close code %d", code)
	}
	eves.works()
	keys.works()
	again := n.dial("/?v=6&format=json&access_token=" + bob)
	again.expect(pmError, 40141)
	if _, res, err := websocket.Dial(t.Context(), "ws://"+n.addr+"/ws?token="+visitor, nil); err == nil || res == nil || res.StatusCode != 401 {
		t.Errorf("LetShare's door takes the token again: %v", err)
	}
	if res, err := http.Get("http://" + n.addr + "/channels/c/messages?access_token=" + bob); err != nil || res.Header.Get("X-Ably-Errorcode") != "40141" {
		t.Errorf("REST takes the token: %v %v", res, err)
	} else {
		res.Body.Close()
	}
}

func TestAClientMayRenewATokenBeforeItsRevocationApplies(t *testing.T) {
	n := run(t)
	token := n.token(jwt.MapClaims{"x-ably-clientId": "bob", "x-ably-revocation-key": "group"})
	fresh := n.token(jwt.MapClaims{"x-ably-clientId": "bob", "x-ably-revocation-key": "other"})
	bobs, other := n.ably("access_token="+token), n.ably("access_token="+fresh)
	status, answer := n.post("/keys/mine.one/revokeTokens", "mine.one:"+testSecret, `{"targets":["revocationKey:group"],"allowReauthMargin":true}`)
	if status != 201 {
		t.Fatalf("status %d %v", status, answer)
	}
	bobs.expect(pmAuth, 0)
	other.works()
	var frame bytes.Buffer
	fmt.Fprintf(&frame, `{"action":17,"auth":{"accessToken":%q}}`, fresh)
	if err := bobs.ws.Write(t.Context(), websocket.MessageText, frame.Bytes()); err != nil {
		t.Fatal(err)
	}
	bobs.expect(4, 0)
	n.ably("access_token=" + token) // until it applies
}

func TestAReloadEndsTheConnectionsOfKeysThatAreGone(t *testing.T) {
	n := run(t)
	one := n.token(jwt.MapClaims{})
	byToken, byKey := n.ably("access_token="+one), n.ably("key="+url.QueryEscape("mine.one:"+testSecret))
	two := n.ably("key=" + url.QueryEscape("mine.two:"+otherSecret))
	n.dial("/ws?token=" + n.visitor("bob"))

	fewer := n.secrets
	fewer.Keys = append([]config.Key{}, n.secrets.Keys...)
	fewer.Keys[1].Capability = `{"x":["subscribe"]}`
	if _, err := n.Reload(n.config, fewer); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*client{byToken, byKey, two} {
		s.works()
	}
	fewer.Keys = fewer.Keys[1:]
	if _, err := n.Reload(n.config, fewer); err != nil {
		t.Fatal(err)
	}
	byToken.expect(pmError, 40131)
	byKey.expect(pmError, 40131)
	two.works()
	for deadline := time.Now().Add(patience); len(n.letshare.Members()) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) { // it may have been slow to come, but does not come back
			t.Fatal("LetShare's door depends on a key")
		}
	}
}

func TestTheConnectionsOfAnAppEndWithIt(t *testing.T) {
	n := run(t)
	status, app := n.post("/apps", "", `{"keys":[{}]}`)
	if status != 201 {
		t.Fatalf("status %d %v", status, app)
	}
	key := app["keys"].([]any)[0].(map[string]any)["keyStr"].(string)
	its, ours := n.ably("key="+url.QueryEscape(key)), n.ably("key="+url.QueryEscape("mine.one:"+testSecret))
	req, err := http.NewRequest(http.MethodDelete, "http://"+n.addr+"/apps/"+app["appId"].(string), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key)))
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || res.StatusCode != 204 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	its.expect(pmError, 40120)
	ours.works()
}
