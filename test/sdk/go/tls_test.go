package sdk

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"testing"

	"github.com/ably/ably-go/ably"
)

// TestMain makes this process trust the server's certificate: the SDK dials WebSockets with the
// default client, whatever client it is given.
func TestMain(m *testing.M) {
	pem, err := os.ReadFile(os.Getenv("LETSHARE_TEST_CA"))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		fmt.Fprintln(os.Stderr, "these tests are run by \"go test ./test/sdk\" of the server's module, which starts a server for them")
		os.Exit(1)
	}
	http.DefaultTransport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	os.Exit(m.Run())
}

// RSC18
func TestMessagesCrossFromTLSToPlaintextAndBack(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s target) {
		port, err := strconv.Atoi(os.Getenv("LETSHARE_TEST_TLS_PORT"))
		must(t, err)
		secure := []ably.ClientOption{ably.WithTLS(true), ably.WithTLSPort(port), ably.WithHTTPClient(http.DefaultClient)}
		name := unique("tls")
		inside := s.connected(t, "", secure...).Channels.Get(name)
		outside := s.connected(t, "").Channels.Get(name)
		boxes := []<-chan *ably.Message{subscribe(t, inside), subscribe(t, outside)}
		must(t, inside.Publish(deadline(t), "a", "from inside"))
		must(t, outside.Publish(deadline(t), "b", "from outside"))
		must(t, s.rest(t, "", secure...).Channels.Get(name).Publish(deadline(t), "c", "by REST"))
		for _, box := range boxes {
			for _, want := range []string{"from inside", "from outside", "by REST"} {
				if m := next(t, box); m.Data != want {
					t.Errorf("got %v, want %s", m.Data, want)
				}
			}
		}
	})
}
