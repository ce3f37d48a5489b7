package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/vmihailenco/msgpack/v5"

	"letshare-server/internal/config"
	"letshare-server/internal/directory"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// site is a server with a certificate, and stores that can be made to fail.
type site struct {
	*running
	t       *testing.T
	clients map[string]*http.Client // by protocol
	fault   *atomic.Pointer[fault]  // nil: all is well
	usual   limit.Limits            // those of the configuration
	tokens  map[string]string       // of the app "table", by name
	first   string                  // the serial of a message from before its store was full
}

// fault is how the stores fail.
type fault struct {
	engine, append, directory, nonces, stats error

	listing func() // is called when channels are to be listed
}

type flakyEngine struct {
	engine.Engine
	fault *atomic.Pointer[fault]
}

func (e flakyEngine) failure() error {
	if f := e.fault.Load(); f != nil {
		return f.engine
	}
	return nil
}

func (e flakyEngine) Append(a *engine.Append, done func(engine.Result)) {
	if f := e.fault.Load(); f != nil && (f.append != nil || f.engine != nil) {
		done(engine.Result{Err: errors.Join(f.append, f.engine)})
		return
	}
	e.Engine.Append(a, done)
}

func (e flakyEngine) Subscribe(ctx context.Context, id pubsub.ChannelID, s engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	if err := e.failure(); err != nil {
		return nil, "", err
	}
	return e.Engine.Subscribe(ctx, id, s)
}

func (e flakyEngine) Read(ctx context.Context, id pubsub.ChannelID, q engine.Query) (engine.Page, error) {
	if err := e.failure(); err != nil {
		return engine.Page{}, err
	}
	return e.Engine.Read(ctx, id, q)
}

func (e flakyEngine) Records(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, after string, limit int) ([]engine.Record, error) {
	if err := e.failure(); err != nil {
		return nil, err
	}
	return e.Engine.Records(ctx, id, space, after, limit)
}

func (e flakyEngine) Record(ctx context.Context, id pubsub.ChannelID, key engine.RecordKey) (engine.Record, bool, error) {
	if err := e.failure(); err != nil {
		return engine.Record{}, false, err
	}
	return e.Engine.Record(ctx, id, key)
}

type flakyDirectory struct {
	directory.Directory
	fault *atomic.Pointer[fault]
}

func (d flakyDirectory) failure() error {
	if f := d.fault.Load(); f != nil {
		return f.directory
	}
	return nil
}

func (d flakyDirectory) Create(ctx context.Context, c directory.Connection, max int) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.Directory.Create(ctx, c, max)
}

func (d flakyDirectory) Join(ctx context.Context, id pubsub.ChannelID, n directory.Node, add pubsub.Occupancy, max int) (pubsub.Occupancy, error) {
	if err := d.failure(); err != nil {
		return pubsub.Occupancy{}, err
	}
	return d.Directory.Join(ctx, id, n, add, max)
}

func (d flakyDirectory) Occupancy(ctx context.Context, id pubsub.ChannelID) (pubsub.Occupancy, error) {
	if err := d.failure(); err != nil {
		return pubsub.Occupancy{}, err
	}
	return d.Directory.Occupancy(ctx, id)
}

func (d flakyDirectory) Channels(ctx context.Context, q directory.ChannelQuery) ([]string, bool, error) {
	if f := d.fault.Load(); f != nil && f.listing != nil {
		f.listing()
	}
	if err := d.failure(); err != nil {
		return nil, false, err
	}
	return d.Directory.Channels(ctx, q)
}

func (d flakyDirectory) UseNonce(ctx context.Context, key, nonce string, until time.Time) (bool, error) {
	if f := d.fault.Load(); f != nil && (f.nonces != nil || f.directory != nil) {
		return false, errors.Join(f.nonces, f.directory)
	}
	return d.Directory.UseNonce(ctx, key, nonce, until)
}

func (d flakyDirectory) Revoke(ctx context.Context, list []directory.Revocation) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.Directory.Revoke(ctx, list)
}

type flakyStats struct {
	stats.Store
	fault *atomic.Pointer[fault]
}

func (s flakyStats) failure() error {
	if f := s.fault.Load(); f != nil {
		return f.stats
	}
	return nil
}

func (s flakyStats) Read(ctx context.Context, app string, q stats.Query) (stats.Page, error) {
	if err := s.failure(); err != nil {
		return stats.Page{}, err
	}
	return s.Store.Read(ctx, app, q)
}

func (s flakyStats) Replace(ctx context.Context, app string, fixtures []stats.Fixture) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.Store.Replace(ctx, app, fixtures)
}

const tableSecret = "a-secret-of-the-table-of-endpoints"

// Keys of the app "table", and of another one.
const (
	keyOfAll  = "table.all:" + tableSecret
	reader    = "table.reader:" + tableSecret    // may subscribe
	revocable = "table.revocable:" + tableSecret // its tokens can be revoked
	published = "table.published:" + tableSecret // is good for local peers
	crowded   = "crowded.key:" + tableSecret     // of an app with many revocations

	nobody = "-"
)

// newSite runs a server whose app "table" has the keys above and the tokens that credentials
// needs.
func newSite(t *testing.T, change func(*config.Config)) *site {
	t.Helper()
	certFile, keyFile, pool := certify(t, t.TempDir(), 1)
	s := &site{t: t, clients: trusting(t, pool), fault: new(atomic.Pointer[fault]), tokens: make(map[string]string)}
	var secrets config.Secrets
	s.running = startBuilt(t, func(c *config.Config) {
		c.TLS.CertFile, c.TLS.KeyFile = certFile, keyFile
		c.Server.TrustedProxies = []string{"127.0.0.1"}
		c.Apps = []config.App{
			{ID: "table", Keys: []config.AppKey{
				{ID: "all", Secret: tableSecret}, {ID: "revocable", Secret: tableSecret, Revocable: true}, {ID: "published", Secret: tableSecret},
				{ID: "reader", Secret: tableSecret, Capability: `{"*":["subscribe"]}`}, {ID: "gone", Secret: tableSecret}, {ID: "changed", Secret: tableSecret},
			}, Namespaces: []config.Namespace{{ID: "persisted", Persisted: true}, {ID: "identified", Identified: true}, {ID: "safe", TLSOnly: true},
				{ID: "mutable", MutableMessages: true}}},
			{ID: "crowded", Keys: []config.AppKey{{ID: "key", Secret: tableSecret, Revocable: true}}},
		}
		if change != nil {
			change(c)
		}
	}, func(c config.Config, given config.Secrets, log *slog.Logger) (*Server, error) {
		for i := range given.Keys {
			given.Keys[i].LocalOnly = given.Keys[i].ID == "published"
		}
		secrets = given
		return build(c, given, log, func(st stores) stores {
			return stores{flakyEngine{st.engine, s.fault}, flakyDirectory{st.directory, s.fault}, flakyStats{st.stats, s.fault}}
		})
	})
	s.usual = *s.limits.Load()

	issue := func(key, body string) string {
		name, _, _ := strings.Cut(key, ":")
		answer := s.post("/keys/"+name+"/requestToken", key, body, http.StatusCreated)
		return answer["token"].(string)
	}
	s.tokens = map[string]string{
		"anonymous":        issue(keyOfAll, `{}`),
		"bob":              issue(keyOfAll, `{"clientId":"bob"}`),
		"of a key gone":    issue("table.gone:"+tableSecret, `{}`),
		"of a changed key": issue("table.changed:"+tableSecret, `{}`),
		"expired":          signed("table.all", tableSecret, jwt.MapClaims{"exp": time.Now().Add(-time.Second).Unix()}),
		"revoked":          signed("table.revocable", tableSecret, jwt.MapClaims{"x-ably-clientId": "revoked"}),
		"forged":           signed("table.all", "another secret", nil),
		"of no time":       signed("table.all", tableSecret, jwt.MapClaims{"iat": nil}),
		"of long life":     signed("table.all", tableSecret, jwt.MapClaims{"exp": time.Now().Add(48 * time.Hour).Unix()}),
		"of no capability": signed("table.all", tableSecret, jwt.MapClaims{"x-ably-capability": "{"}),
		"of no use":        signed("table.reader", tableSecret, jwt.MapClaims{"x-ably-capability": `{"x":["publish"]}`}),
	}
	s.tokens["tampered"] = s.tokens["bob"] + "A"
	s.post("/keys/table.revocable/revokeTokens", revocable, `{"targets":["clientId:revoked"]}`, http.StatusCreated)
	secrets.Keys = slices.DeleteFunc(secrets.Keys, func(k config.Key) bool { return k.ID == "gone" })
	for i := range secrets.Keys {
		if secrets.Keys[i].ID == "changed" {
			secrets.Keys[i].Secret = "a-secret-that-was-changed-meanwhile"
		}
	}
	if _, err := s.Reload(s.config, secrets); err != nil {
		t.Fatal(err)
	}
	return s
}

// signed makes a JWT of half an hour, a minute old, with other claims or, where they are nil, without.
func signed(kid, secret string, claims jwt.MapClaims) string {
	all := jwt.MapClaims{"iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(30 * time.Minute).Unix()}
	for name, v := range claims {
		if all[name] = v; v == nil {
			delete(all, name)
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, all)
	token.Header["kid"] = kid
	text, err := token.SignedString([]byte(secret))
	if err != nil {
		panic(err)
	}
	return text
}

// post makes a request that must be answered with a status, in JSON, and returns the answer.
func (s *site) post(path, as, body string, status int) map[string]any {
	s.t.Helper()
	res := s.send(s.clients["HTTP/2.0"], http.MethodPost, path, as, []byte(body), "Content-Type", "application/json")
	answer, _ := decoded(s.t, res).(map[string]any)
	if res.StatusCode != status {
		s.t.Fatalf("POST %s: %s %v", path, res.Status, answer)
	}
	return answer
}

// send makes a request and reads the answer. as is a key, or the name of one of the tokens, or
// nobody.
func (s *site) send(client *http.Client, method, path, as string, body []byte, headers ...string) *http.Response {
	s.t.Helper()
	res, err := s.fetch(client, method, path, as, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

func (s *site) fetch(client *http.Client, method, path, as string, body []byte, headers ...string) (*http.Response, error) {
	r, err := http.NewRequest(method, "https://"+s.addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token, is := s.tokens[as]; is {
		r.Header.Set("Authorization", "Bearer "+token)
	} else if as != nobody {
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(as)))
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if media := res.Header.Get("Content-Type"); res.StatusCode == http.StatusOK && (strings.HasPrefix(media, "text/event-stream") || media == "application/x-ndjson") {
		return res, nil // there is no end of it
	}
	b, err := io.ReadAll(res.Body)
	res.Body = io.NopCloser(bytes.NewReader(b))
	return res, err
}

// decoded is what an answer says, in whatever format, as encoding/json decodes it; nil if it
// has no body, and the text if it is in neither format.
func decoded(t *testing.T, res *http.Response) (v any) {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	switch media := res.Header.Get("Content-Type"); {
	case len(b) == 0:
		return nil
	case media == "application/x-msgpack":
		if err := msgpack.Unmarshal(b, &v); err != nil {
			t.Fatalf("%v in %q", err, b)
		}
		if b, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
		v = nil
	case !strings.HasPrefix(media, "application/json"):
		return string(b)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return v
}

// encoded is a body that is given as JSON, in another format.
func encoded(t *testing.T, media, text string) []byte {
	t.Helper()
	if media != "application/x-msgpack" || text == "" {
		return []byte(text)
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	b, err := msgpack.Marshal(whole(v))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// whole makes whole numbers integers.
func whole(v any) any {
	switch v := v.(type) {
	case float64:
		if n := int64(v); float64(n) == v {
			return n
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	}
	return v
}

// misfit tells what of v is not as a shape wants it; empty: nothing. A shape is JSON, in which
// "<string>", "<number>", "<bool>", "<object>" and "<any>" stand for such values, a name that ends with ? for a member
// that may be missing, and ["…", shape] for a list of any length.
func misfit(shape, v any, path string) string {
	switch want := shape.(type) {
	case string:
		var ok bool
		switch want {
		case "<any>":
			ok = true
		case "<string>":
			s, is := v.(string)
			ok = is && s != ""
		case "<object>":
			_, ok = v.(map[string]any)
		case "<number>":
			_, ok = v.(float64)
		case "<bool>":
			_, ok = v.(bool)
		default:
			ok = v == want
		}
		if !ok {
			return fmt.Sprintf("%s is %v, not %s", path, v, want)
		}
	case []any:
		got, is := v.([]any)
		if len(want) == 2 && want[0] == "…" {
			want = slices.Repeat(want[1:], len(got))
		}
		if !is || len(got) != len(want) {
			return fmt.Sprintf("%s is %v, not a list of %d", path, v, len(want))
		}
		for i := range want {
			if wrong := misfit(want[i], got[i], path+"["+strconv.Itoa(i)+"]"); wrong != "" {
				return wrong
			}
		}
	case map[string]any:
		got, is := v.(map[string]any)
		if !is {
			return fmt.Sprintf("%s is %v, not an object", path, v)
		}
		for name, inner := range want {
			name, optional := strings.CutSuffix(name, "?")
			member, has := got[name]
			if !has && optional {
				continue
			}
			if !has {
				return fmt.Sprintf("%s has no %s: %v", path, name, v)
			}
			if wrong := misfit(inner, member, path+"."+name); wrong != "" {
				return wrong
			}
		}
		for name := range got {
			if _, known := want[name]; !known {
				if _, optional := want[name+"?"]; !optional {
					return fmt.Sprintf("%s has a member %s: %v", path, name, v)
				}
			}
		}
	default:
		if v != shape {
			return fmt.Sprintf("%s is %v, not %v", path, v, shape)
		}
	}
	return ""
}
