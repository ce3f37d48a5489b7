package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

// sandboxed is a server with a sandbox, and a way to stop it.
func sandboxed(t *testing.T) (url string, stop func()) {
	t.Helper()
	s := start(t, func(c *config.Config) {
		c.APIKeys = nil
		c.Sandbox.Enabled = true
	})
	return "http://" + s.addr, s.stop
}

var web = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

func ask(t *testing.T, method, url, body string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

const streamPath = "/sse?v=1.2&channels=demo&key=" + auth.LocalKey

func TestPagesOfAnyOriginMayReadStreams(t *testing.T) {
	url, _ := sandboxed(t)
	const origin = "http://localhost:5999"
	preflight := ask(t, http.MethodOptions, url+streamPath, "", "Origin", origin,
		"Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization,last-event-id")
	if preflight.StatusCode != http.StatusNoContent || !strings.Contains(preflight.Header.Get("Access-Control-Allow-Headers"), "last-event-id") {
		t.Errorf("preflight: %s %v", preflight.Status, preflight.Header)
	}
	for path, status := range map[string]int{streamPath: 200, "/event-stream" + strings.TrimPrefix(streamPath, "/sse"): 200, "/sse?v=1.2&channels=demo": 401} {
		res := ask(t, http.MethodGet, url+path, "", "Origin", origin)
		h := res.Header
		if res.StatusCode != status || h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Allow-Credentials") != "true" ||
			h.Get("Vary") != "Origin" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "X-Ably-Errorcode") {
			t.Errorf("%s: %s %v", path, res.Status, h)
		}
	}
	// The published key is not for pages from elsewhere.
	if res := ask(t, http.MethodGet, url+streamPath, "", "Origin", "https://elsewhere.example"); res.StatusCode != http.StatusForbidden {
		t.Errorf("from elsewhere: %s", res.Status)
	}
}

func TestStreamsEndAtOnceWhenTheServerStops(t *testing.T) {
	url, stop := sandboxed(t)
	res := ask(t, http.MethodGet, url+streamPath, "")
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	stop() // has ten seconds
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestStreamsEndWithTheirApp(t *testing.T) {
	url, _ := sandboxed(t)
	var app struct {
		AppID string
		Keys  []struct{ KeyStr string }
	}
	made := ask(t, http.MethodPost, url+"/apps", `{"keys":[{}]}`, "Content-Type", "application/json")
	if err := json.NewDecoder(made.Body).Decode(&app); err != nil || len(app.Keys) != 1 {
		t.Fatalf("%s %v", made.Status, err)
	}
	res := ask(t, http.MethodGet, url+"/event-stream?v=1.2&channels=demo&key="+app.Keys[0].KeyStr, "")
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	if gone := ask(t, http.MethodDelete, url+"/apps/"+app.AppID+"?key="+app.Keys[0].KeyStr, ""); gone.StatusCode != http.StatusNoContent {
		t.Fatal(gone.Status)
	}
	r := bufio.NewReader(res.Body)
	line, err := r.ReadString('\n')
	if err != nil || !strings.Contains(line, `"event":"error"`) || !strings.Contains(line, "40120") {
		t.Errorf("%q %v", line, err)
	}
	if rest, err := r.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("then %q %v", rest, err)
	}
}
