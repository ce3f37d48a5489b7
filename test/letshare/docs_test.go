package letshare_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// bashBlock is a fenced example of a page.
var bashBlock = regexp.MustCompile("(?ms)^```bash\n(.*?)^```$")

// Every example of the page is run as a reader would run it, in the order of the page, against
// a server that has what the page supposes: a key, and one whose tokens can be revoked.
func TestTheExamplesOfTheRESTPageWork(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/rest.md")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, settings{file: "apps:\n  - id: docsapp\n    keys:\n" +
		"      - {id: k1, secret: a-secret-of-the-examples}\n" +
		"      - {id: k2, secret: another-secret-of-the-examples, revocable: true}\n" +
		"    namespaces:\n      - {id: mutable, mutable_messages: true}\n"})
	const key = "KEY=docsapp.k1:a-secret-of-the-examples"
	published, err := runExample(t, s, `curl -u "$KEY" -d '{"data":"Hel"}' http://localhost:8080/channels/mutable:demo/messages`, key)
	var receipt struct{ Serials []string }
	if err != nil || json.Unmarshal(published, &receipt) != nil || len(receipt.Serials) != 1 {
		t.Fatalf("%v: %s", err, published)
	}
	cases := []struct {
		has    string // in the example
		answer string // a pattern that the whole answer matches
	}{
		{"/time?envelope=json", `{"statusCode":200,"response":\[\d+\],"headers":{"content-type":"application/json"}}`},
		{"/requestToken", `{"token":"docsapp\.[^"]+","keyName":"docsapp.k1",.*"clientId":"alice"}`},
		{"/revokeTokens", `{"successCount":1,"failureCount":0,"results":\[{"target":"clientId:alice",.*}\]}`},
		{"/channels/demo/messages\n", `{"channel":"demo","messageId":"[^"]+:0","serials":\["[^"]+"\]}`},
		{"/messages\n", `\[{"successCount":2,"failureCount":0,"results":\[{"channel":"demo",.*{"channel":"demo2",.*}\]}\]`},
		{"/presence?channels=", `{"successCount":2,"failureCount":0,"results":\[{"channel":"demo","presence":\[\]},.*\]}`},
		{"/channels/demo/messages?", `\[{.*"name":"greeting",.*"encoding":"json".*},{.*"name":"greeting",.*"data":"hi".*}\]`},
		{"/channels/mutable:demo/messages/$SERIAL", `{"versionSerial":"[^"]+"}`},
		{"/messages/$SERIAL/annotations", `{"channel":"mutable:demo","messageId":"[^"]+:0","serials":\["[^"]+"\]}`},
		{"/channels/demo/object\n", `{"messageId":"[^"]+:0","channel":"demo","objectIds":\["counter:[^"]+","root"\]}`},
		{"/channels/demo/object\n", `{"open":true,"votes":1}`},
		{"/channels/demo\n", `{"channelId":"demo",.*"connections":0,.*}`},
		{"/channels?prefix=", `\[{"channelId":"demo",.*},{"channelId":"demo2",.*}\]`},
		{"/channels/demo/presence\n", `\[\]`},
		{"/stats?unit=hour", `\[{"intervalId":"[^"]+","unit":"hour","inProgress":.*"entries":{.*"messages.inbound.rest.messages.count":\d+.*}\]`},
	}
	examples := bashBlock.FindAllStringSubmatch(string(page), -1)
	if len(examples) != len(cases) {
		t.Fatalf("%d examples, and it is known of %d what they are answered", len(examples), len(cases))
	}
	for i, c := range cases {
		example := examples[i][1]
		if !strings.Contains(strings.ReplaceAll(example, "'\n", "\n"), c.has) || strings.Count(example, "http://localhost:8080/") != 1 {
			t.Errorf("this is not one call with %q:\n%s", c.has, example)
			continue
		}
		if out, err := runExample(t, s, example,
			key, "REVOCABLE_KEY=docsapp.k2:another-secret-of-the-examples", "SERIAL="+receipt.Serials[0]); err != nil {
			t.Errorf("%v: %s\n%s", err, out, example)
		} else if !json.Valid(out) || !regexp.MustCompile("(?s)^"+c.answer+"$").Match(out) {
			t.Errorf("the answer is %s\n%s", out, example)
		}
	}
}

// runExample runs an example against a server, with some variables. An answer that is an error is
// one of the example.
func runExample(t *testing.T, s *instance, example string, variables ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const strict = "curl() { command curl --silent --show-error --fail-with-body --noproxy '*' \"$@\"; }\n"
	script := strict + strings.ReplaceAll(example, "http://localhost:8080", "http://"+s.addr)
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), variables...)
	return cmd.CombinedOutput()
}
