package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// health asks the server of this configuration whether it is healthy; a container without a
// shell or curl uses it as its health check.
func health(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("health", "Asks a running server whether it is healthy: exit code 0 if it is.", stderr)
	flags := addConfigFlags(fs)
	url := fs.String("url", "", "`address` to ask; http(s)://127.0.0.1:<port>/health/ready if empty")
	timeout := fs.Duration("timeout", 3*time.Second, "how long to wait")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	client := http.DefaultClient
	if *url == "" {
		cfg, _, err := flags.load()
		if err != nil {
			fmt.Fprintln(stderr, err)
			return exitFailed
		}
		host := cfg.Server.Host
		if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
			host = "127.0.0.1"
		}
		scheme := "http"
		if cfg.TLS.Enabled() && cfg.TLS.Port == "" {
			// The certificate is for the name that clients use, and nothing secret is sent.
			scheme, client = "https", &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		}
		*url = scheme + "://" + net.JoinHostPort(host, cfg.Server.Port) + "/health/ready"
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, *url, nil)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	response, err := client.Do(request)
	if err != nil {
		fmt.Fprintln(stderr, "unhealthy:", err)
		return exitFailed
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil || response.StatusCode != http.StatusOK {
		fmt.Fprintf(stderr, "unhealthy: %s %s\n", response.Status, body)
		return exitFailed
	}
	fmt.Fprintf(stdout, "%s", body)
	return exitOK
}
