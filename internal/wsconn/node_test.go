package wsconn_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"letshare-server/internal/wsconn"
)

func TestTheRulesHoldForAnotherImplementation(t *testing.T) {
	if _, err := os.Stat("testdata/node_modules/ws/package.json"); err != nil {
		t.Fatal("the npm package ws is not installed in internal/wsconn/testdata: run `make deps`")
	}
	for _, script := range []string{"client.js", "conformance.js"} {
		for _, on := range layers {
			t.Run(script+"/"+on.name, func(t *testing.T) {
				h := serveEchoOn(t, on, wsconn.Settings{})
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				args := []string{"testdata/" + script, h.url}
				if on.tls {
					args = append(args, "whole") // TLS cuts as it likes, and handshakes are dear
				}
				out, err := exec.CommandContext(ctx, "node", args...).CombinedOutput()
				t.Logf("%s", out)
				if err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}
