package socket

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// ErrNotWebSocket is why Upgrade refused a request that does not ask for a WebSocket correctly.
var ErrNotWebSocket = errors.New("socket: not a WebSocket handshake")

// acceptGUID is the constant of RFC 6455, 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// notOurs are header fields a handler may have set that would contradict the answer.
var notOurs = map[string]bool{
	"Connection": true, "Content-Length": true, "Content-Type": true, "Transfer-Encoding": true, "Upgrade": true,
	"Sec-Websocket-Accept": true, "Sec-Websocket-Extensions": true, "Sec-Websocket-Protocol": true,
}

// Opening is a connection that Upgrade has taken over from net/http.
type Opening struct {
	Conn net.Conn // without a deadline

	// Answer is what the peer waits for: 101. It is for the owner of Conn to write, before
	// anything else, so that it can leave together with what comes first.
	Answer []byte

	// Buffered is what the peer sent after the handshake and was read already. It is a copy, so
	// that nothing of net/http's stays in use.
	Buffered []byte
}

// Upgrade accepts a WebSocket handshake (RFC 6455, 4.2) and takes the connection over. Fields in
// w.Header() are part of the answer; extensions and subprotocols are declined. Who may connect
// (Origin) is the caller's to decide before.
//
// After an error the request has been answered: 426 for another version of the protocol, 405 and
// 400 for what is no handshake (ErrNotWebSocket), 500 if the connection cannot be taken over.
func Upgrade(w http.ResponseWriter, r *http.Request) (*Opening, error) {
	key, err := checkHandshake(w, r)
	if err != nil {
		return nil, err
	}
	conn, rw, err := takeOver(w)
	if err != nil {
		http.Error(w, "cannot switch protocols", http.StatusInternalServerError)
		return nil, fmt.Errorf("socket: hijack: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("socket: hijack: %w", err)
	}
	o := &Opening{Conn: conn}
	if rw != nil && rw.Reader.Buffered() > 0 {
		n := rw.Reader.Buffered()
		b, _ := rw.Reader.Peek(n)
		o.Buffered = append(make([]byte, 0, n), b...)
	}
	answer := bytes.NewBuffer(make([]byte, 0, 256))
	answer.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
	answer.WriteString(acceptKey(key))
	answer.WriteString("\r\n")
	if h := w.Header(); len(h) > 0 {
		_ = h.WriteSubset(answer, notOurs) // a Buffer does not fail
	}
	answer.WriteString("\r\n")
	o.Answer = answer.Bytes()
	return o, nil
}

// takeOver takes the connection from whoever serves it, with what was read of it, if anything.
func takeOver(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	if t, ok := w.(Taker); ok {
		conn, err := t.Take()
		return conn, nil, err
	}
	return http.NewResponseController(w).Hijack()
}

// checkHandshake returns the request's key, or answers it and says what is wrong.
func checkHandshake(w http.ResponseWriter, r *http.Request) (key string, err error) {
	refuse := func(status int, what string) (string, error) {
		http.Error(w, what, status)
		return "", fmt.Errorf("%w: %s", ErrNotWebSocket, what)
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return refuse(http.StatusMethodNotAllowed, "method is not GET")
	}
	if !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1 {
		return refuse(http.StatusBadRequest, "protocol is not HTTP/1.1")
	}
	if !hasToken(r.Header["Upgrade"], "websocket") {
		return refuse(http.StatusBadRequest, "Upgrade does not name websocket")
	}
	if !hasToken(r.Header["Connection"], "upgrade") {
		return refuse(http.StatusBadRequest, "Connection does not name upgrade")
	}
	if v := r.Header["Sec-Websocket-Version"]; len(v) != 1 || strings.TrimSpace(v[0]) != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		return refuse(http.StatusUpgradeRequired, "Sec-WebSocket-Version is not 13")
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key is missing or repeated")
	}
	key = strings.TrimSpace(keys[0])
	var nonce [18]byte
	if len(key) != 24 {
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64")
	}
	if n, err := base64.StdEncoding.Decode(nonce[:], []byte(key)); err != nil || n != 16 {
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64")
	}
	return key, nil
}

// acceptKey proves that the key was read.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hasToken looks for a token in a comma-separated header field, in any case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}
