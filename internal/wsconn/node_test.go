package wsconn_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"letshare-server/internal/wsconn"
)

func TestNodesClientIsServed(t *testing.T) {
	onTCP(t, func(t *testing.T, on layer) {
		if _, err := os.Stat("testdata/node_modules/ws/package.json"); err != nil {
			t.Fatal("the npm package ws is not installed in internal/wsconn/testdata: run `make deps`")
		}
		h := serveEcho(t, on, wsconn.Settings{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "node", "testdata/client.js", h.url).CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
	})
}
