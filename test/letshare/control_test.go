package letshare_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

const adminToken = "an-access-token-of-the-acceptance-tests"

// control sends a request to the control API. err is that of the connection.
func (i *instance) control(method, path, body string) (status int, answer string, err error) {
	r, err := http.NewRequest(method, "http://"+i.addr+"/v1"+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", "Bearer "+adminToken)
	a, err := web.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	return a.StatusCode, string(text), err
}

// must is control with a request that must succeed, and reads the answer.
func (i *instance) must(t testing.TB, status int, method, path, body string, into any) {
	t.Helper()
	got, answer, err := i.control(method, path, body)
	if err != nil || got != status {
		t.Fatalf("%s %s: status %d, %v: %s", method, path, got, err, answer)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(answer), into); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, answer)
		}
	}
}

// madeApp is an app as the control API tells of it.
type madeApp struct{ ID, Name string }

// madeKey is a key as the control API tells of it.
type madeKey struct{ ID, Name, Key string }

var administered = settings{env: []string{"LETSHARE_ADMIN_TOKENS=" + adminToken, "LETSHARE_DATA_DIR=kept"}}

func TestWhatTheControlAPIHasAnsweredSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const rounds, writers = 4, 3
	acknowledged := make(map[string]bool) // names of keys
	var app madeApp
	for round := range rounds {
		s, err := launch(dir, administered)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			s.must(t, 201, "POST", "/accounts/letshare/apps", `{"name":"first"}`, &app)
		}
		// Each writer goes on until the server is gone. One of them kills it, right after an answer.
		var (
			wg sync.WaitGroup
			mu sync.Mutex
		)
		for w := range writers {
			wg.Go(func() {
				for n := range 8 { // of the 100 keys that an app may have
					name := fmt.Sprintf("%d-%d-%d", round, w, n)
					status, answer, err := s.control("POST", "/apps/"+app.ID+"/keys", `{"name":"`+name+`","capability":{"*":["*"]}}`)
					if err != nil {
						return // it is gone
					}
					if status != 201 {
						t.Errorf("status %d: %s", status, answer)
						return
					}
					mu.Lock()
					acknowledged[name] = true
					mu.Unlock()
					if w == 0 && n == 3+round {
						_ = s.cmd.Process.Kill()
						return
					}
				}
			})
		}
		wg.Wait()
		_ = s.cmd.Process.Kill() // if the first writer had no chance
		<-s.exited
	}

	s, err := launch(dir, administered)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	var keys []madeKey
	s.must(t, 200, "GET", "/apps/"+app.ID+"/keys", "", &keys)
	for _, k := range keys {
		delete(acknowledged, k.Name)
	}
	if len(acknowledged) > 0 || len(keys) < 4*rounds {
		t.Errorf("of %d keys these are missing: %v", len(keys), acknowledged)
	}
	// They are good, and known to who must know only.
	if a := s.request(t, "GET", "/channels/x/messages?key="+keys[0].Key, "Accept", "application/json"); a.status != 200 {
		t.Errorf("a key after the restart: %d %s", a.status, a.body)
	}
	info, err := os.Stat(filepath.Join(dir, "kept", "apps.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "kept", ".apps.json-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, k := range keys {
		if _, secret, _ := strings.Cut(k.Key, ":"); strings.Contains(s.output()+s.errorLog(), secret) || strings.Contains(s.output(), adminToken) {
			t.Fatal("a secret is in the log")
		}
	}
}

func TestAFileOfAppsThatIsNotGoodStopsTheStartAndSaysWhy(t *testing.T) {
	t.Parallel()
	for what, text := range map[string]string{
		"damaged":  `{"format":1,"revision":1,"apps":[{"id":"a"`,
		"format 9": `{"format":9,"revision":1,"apps":[]}`,
		"format 8": `{"format":1,"revision":1,"apps":[{"id":"a","revision":1,"data":{"format":8}}]}`,
	} {
		s := administered
		s.prepare = func(dir string) error {
			if err := os.MkdirAll(filepath.Join(dir, "kept"), 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "kept", "apps.json"), []byte(text), 0o600)
		}
		i, err := launch(t.TempDir(), s)
		if err == nil { // it may have listened already
			select {
			case <-i.exited:
				err = fmt.Errorf("%w: %s", i.waitErr, i.output())
			case <-time.After(patience):
				t.Errorf("%s: it runs", what)
				_ = i.stop()
				continue
			}
		}
		if !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "exit status 1") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWithoutADirectoryAppsEndWithTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	with := settings{env: []string{"LETSHARE_ADMIN_TOKENS=" + adminToken}}
	s, err := launch(dir, with)
	if err != nil {
		t.Fatal(err)
	}
	var app madeApp
	s.must(t, 201, "POST", "/accounts/letshare/apps", `{"name":"first"}`, &app)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.output(), "set data_dir to keep them") {
		t.Error("nobody is warned")
	}
	if s, err = launch(dir, with); err != nil {
		t.Fatal(err)
	}
	var all []madeApp
	s.must(t, 200, "GET", "/accounts/letshare/apps", "", &all)
	if len(all) != 1 || all[0].ID == app.ID {
		t.Errorf("there are %v", all)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// Every example of the page is run as a reader would run it, in the order of the page.
func TestTheExamplesOfTheAdminPageWork(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, administered)
	var app, key string
	cases := []struct {
		has    string // in the example
		answer string // a pattern that the whole answer matches; its group, if any, goes to into
		into   *string
	}{
		{"/v1/me", `{"token":{"id":"admin\.tokens\[0\]",.*"account":{"id":"letshare",.*}}`, nil},
		{`'{"name":"shop"}'`, `{"accountId":"letshare","id":"([A-Z0-9]{6})","name":"shop","status":"enabled",.*}`, &app},
		{"/keys", `{"appId":"\w+","id":"([A-Z0-9]{6})","name":"orders",.*"key":"\w+\.\w+:\w+","capability":{"orders:\*":\["publish","subscribe"\]},.*}`, &key},
		{"/namespaces", `{"appId":"\w+","id":"orders","authenticated":true,.*}`, nil},
		{"/apps\n", `\[{.*"id":"testapp".*},{.*"name":"shop".*}\]`, nil},
		{"PATCH", `{"appId":"\w+","id":"orders",.*"persisted":true,.*}`, nil},
		{"/stats?unit=hour", `\[\]`, nil},
		{"/revoke", ``, nil},
		{"DELETE", ``, nil},
	}
	examples := bashBlock.FindAllStringSubmatch(string(page), -1)
	if len(examples) != len(cases) {
		t.Fatalf("%d examples, and it is known of %d what they are answered", len(examples), len(cases))
	}
	for i, c := range cases {
		example := examples[i][1]
		if !strings.Contains(strings.ReplaceAll(example, "'\n", "\n"), c.has) || strings.Count(example, "http://localhost:8080/") != 1 {
			t.Fatalf("this is not one call with %q:\n%s", c.has, example)
		}
		out, err := runExample(t, s, example, "ADMIN_TOKEN="+adminToken, "APP="+app, "KEY_ID="+key)
		m := regexp.MustCompile("(?s)^" + c.answer + "$").FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%v: the answer is %s\n%s", err, out, example)
		}
		if c.into != nil {
			*c.into = string(m[1])
		}
	}
}

func TestARevokedTokenStaysRevokedAfterAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept := settings{env: []string{"LETSHARE_DATA_DIR=kept", "LETSHARE_REVOCABLE_KEYS=testapp.key1"}}
	s, err := launch(dir, kept)
	if err != nil {
		t.Fatal(err)
	}
	post := func(path, body string) (answer string) {
		t.Helper()
		r, err := http.NewRequest("POST", "http://"+s.addr+"/keys/testapp.key1/"+path+"?key="+url.QueryEscape(ablyKey), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		a, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil || a.StatusCode != 201 {
			t.Fatalf("%s: status %d, %v: %s", path, a.StatusCode, err, text)
		}
		return string(text)
	}
	tokens := make(map[string]string)
	for _, client := range []string{"mallory", "alice"} {
		var details struct{ Token string }
		body := fmt.Sprintf(`{"keyName":"testapp.key1","clientId":"%s","timestamp":%d,"nonce":"%s-1234567890123456"}`, client, time.Now().UnixMilli(), client)
		if err := json.Unmarshal([]byte(post("requestToken", body)), &details); err != nil {
			t.Fatal(err)
		}
		tokens[client] = details.Token
	}
	post("revokeTokens", `{"targets":["clientId:mallory"]}`)
	_ = s.cmd.Process.Kill()
	<-s.exited

	if s, err = launch(dir, kept); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	use := func(client string) reply {
		bearer := "Bearer " + base64.StdEncoding.EncodeToString([]byte(tokens[client]))
		return s.request(t, "GET", "/channels/x/messages", "Authorization", bearer, "Accept", "application/json")
	}
	if a := use("mallory"); a.status != 401 || !strings.Contains(a.body, "40141") {
		t.Errorf("a revoked token: %d %s", a.status, a.body)
	}
	if a := use("alice"); a.status != 200 {
		t.Errorf("another token: %d %s", a.status, a.body)
	}
}
