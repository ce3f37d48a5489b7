package transcripts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// anyCode is the code of an end without a code, which those of WebSockets are taken for.
const anyCode = -1

// comet is a carrier.
type comet struct {
	base    string // URL up to /comet/
	polling bool
	http    *http.Client
	stop    context.CancelFunc
	stopped sync.WaitGroup // the goroutine that receives

	frames chan json.RawMessage // closed at the end
	begun  chan struct{}        // closed when the first answer is there

	// Set when begun is closed; credentials by write alone.
	key         string
	credentials url.Values

	held bool
	kept [][]byte
	err  error // why receiving ended, if the server did not end it; set when frames is closed
}

// dialComet opens a session as SDKs do, and begins to receive.
func dialComet(ctx context.Context, address string, polling bool, params url.Values) (*comet, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &comet{
		base: "http://" + address + "/comet/", polling: polling, stop: cancel,
		http:   &http.Client{Transport: new(http.Transport)},
		frames: make(chan json.RawMessage, 1000), begun: make(chan struct{}), credentials: make(url.Values),
	}
	for _, name := range []string{"key", "access_token"} {
		if params.Has(name) {
			c.credentials.Set(name, params.Get(name))
		}
	}
	params.Del("format")
	if polling {
		params.Set("stream", "false")
	}
	c.stopped.Go(func() {
		defer close(c.frames)
		first := sync.OnceFunc(func() { close(c.begun) })
		defer first()
		credentials := c.credentials.Encode()
		for path := "connect?" + params.Encode(); ; path = c.key + "/recv?" + credentials {
			over, err := c.receive(ctx, path, first)
			if over || err != nil {
				c.err = err
				return
			}
		}
	})
	<-c.begun
	return c, nil
}

// receive makes one connect or recv, and reports whether the server has no more to say.
func (c *comet) receive(ctx context.Context, path string, first func()) (over bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return false, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return false, err
	}
	defer func() { _ = answer.Body.Close() }()
	switch {
	case answer.StatusCode == http.StatusNoContent:
		return false, nil
	case answer.StatusCode >= 400 && c.key != "":
		return true, nil // it has ended
	case answer.StatusCode >= 400: // SDKs take that for an ERROR
		var body struct{ Error json.RawMessage }
		if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
			return false, err
		}
		c.frames <- json.RawMessage(`{"action":9,"error":` + string(body.Error) + `}`)
		return true, nil
	}
	for lines := bufio.NewReader(answer.Body); ; {
		array, err := lines.ReadBytes('\n')
		if err == io.EOF && len(array) == 0 {
			return over, nil
		}
		if err != nil {
			return false, fmt.Errorf("the answer broke off behind %q: %w", array, err)
		}
		var frames []json.RawMessage
		if err := json.Unmarshal(array, &frames); err != nil {
			return false, err
		}
		for _, f := range frames {
			if c.key == "" {
				var connected struct{ ConnectionKey string }
				if err := json.Unmarshal(f, &connected); err != nil {
					return false, err
				}
				c.key = connected.ConnectionKey
				first()
			}
			c.frames <- f
			over = isLast(f)
		}
	}
}

// isLast reports whether a frame is DISCONNECTED, CLOSED or the connection's ERROR, after
// which SDKs do not ask for more.
func isLast(frame []byte) bool {
	var f struct {
		Action  int
		Channel *string
	}
	return json.Unmarshal(frame, &f) == nil && (f.Action == 6 || f.Action == 8 || f.Action == 9 && f.Channel == nil)
}

func (c *comet) read(ctx context.Context) (frame []byte, code int, err error) {
	select {
	case f, more := <-c.frames:
		if !more {
			return nil, anyCode, c.err
		}
		return f, 0, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

func (c *comet) write(ctx context.Context, frame []byte) error {
	c.kept = append(c.kept, frame)
	if c.held {
		return nil
	}
	return c.release(ctx)
}

func (c *comet) hold() { c.held = true }

func (c *comet) release(ctx context.Context) error {
	c.held = false
	if len(c.kept) == 0 {
		return nil
	}
	body := "[" + string(bytes.Join(c.kept, []byte(","))) + "]"
	c.kept = nil
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+c.key+"/send?"+c.credentials.Encode(), strings.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	// An error is told to the receiver too.
	var frames []json.RawMessage
	if answer.StatusCode != http.StatusNoContent && json.Unmarshal(b, &frames) != nil {
		return fmt.Errorf("send: %s %s", answer.Status, b)
	}
	return nil
}

func (c *comet) cut() {
	c.stop()
	c.stopped.Wait()
	c.http.CloseIdleConnections()
}

// leave implements carrier. The test's context has ended by then.
func (c *comet) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+c.key+"/close?"+c.credentials.Encode(), nil)
	if err == nil {
		var answer *http.Response
		if answer, err = c.http.Do(r); err == nil {
			err = answer.Body.Close()
		}
	}
	_ = err // the server may be gone
	c.cut()
}
