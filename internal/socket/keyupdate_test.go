package socket_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"letshare-server/internal/socket"
)

// renewer writes records of TLS 1.3 for a client, whose crypto/tls cannot ask for new keys.
type renewer struct {
	t      *testing.T
	conn   net.Conn // below TLS
	suite  uint16
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// newRenewer takes over a client's sending; its key log must begin with this handshake.
func newRenewer(t *testing.T, client *tls.Conn, keyLog string) *renewer {
	t.Helper()
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			r := &renewer{t: t, conn: client.NetConn(), suite: client.ConnectionState().CipherSuite}
			r.use(secret)
			return r
		}
	}
	t.Fatal("no secret in the key log")
	return nil
}

// expand is HKDF-Expand-Label (RFC 8446, 7.1).
func (r *renewer) expand(secret []byte, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *renewer) use(secret []byte) {
	var err error
	switch r.suite { // which one depends on the processor
	case tls.TLS_AES_128_GCM_SHA256:
		var block cipher.Block
		if block, err = aes.NewCipher(r.expand(secret, "key", 16)); err == nil {
			r.aead, err = cipher.NewGCM(block)
		}
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		r.aead, err = chacha20poly1305.New(r.expand(secret, "key", 32))
	default:
		r.t.Fatalf("the cipher suite is %s", tls.CipherSuiteName(r.suite))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.secret, r.iv, r.seq = secret, r.expand(secret, "iv", 12), 0
}

// record is one with content of a type.
func (r *renewer) record(kind byte, content string) []byte {
	inner := append([]byte(content), kind)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+r.aead.Overhead()))
	nonce := bytes.Clone(r.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, r.seq) {
		nonce[4+i] ^= b
	}
	r.seq++
	return r.aead.Seal(bytes.Clone(header), nonce, inner, header)
}

// renew asks the server for new keys too.
func (r *renewer) renew() []byte {
	b := r.record(22, "\x18\x00\x00\x01\x01")
	r.use(r.expand(r.secret, "traffic upd", 32))
	return b
}

func renewing(t *testing.T) (*recorder, socket.Stream, *tls.Conn, *renewer) {
	t.Helper()
	p := running(t, socket.PollerOptions{})
	var keyLog bytes.Buffer
	k := tlsKind(tls.VersionTLS13, socket.ForTLS)
	k.dial = func(address string) (net.Conn, error) {
		c := clientTLS.Clone()
		c.KeyLogWriter = &keyLog
		return tls.Dial("tcp", address, c)
	}
	server, client := k.pair(t)
	r := newRecorder()
	s, err := p.Add(server, nil, r)
	if err != nil {
		t.Fatal(err)
	}
	return r, s, client.(*tls.Conn), newRenewer(t, client.(*tls.Conn), keyLog.String())
}

// TLS answers by itself here, on the reading side, and the writing side goes on with other keys.
func TestKeysAreRenewedWhenThePeerAsks(t *testing.T) {
	r, s, client, renewer := renewing(t)
	for n := range 5 {
		if _, err := renewer.conn.Write(append(renewer.renew(), renewer.record(23, "x")...)); err != nil {
			t.Fatal(err)
		}
		await(t, "what follows the new keys", func() bool { return r.len() == n+1 })
		if k, err := s.TryWrite([]byte("answer")); k != 6 || err != nil {
			t.Fatal(k, err)
		}
		_ = client.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 6)
		if _, err := io.ReadFull(client, b); err != nil || string(b) != "answer" {
			t.Fatalf("the peer read %q, %v", b, err)
		}
	}
	_ = client.NetConn().Close()
	_ = r.end(t)
}

func TestAPeerThatRenewsKeysAndDoesNotReadIsCut(t *testing.T) {
	r, s, _, renewer := renewing(t)
	fill(t, s)
	_ = renewer.conn.SetWriteDeadline(time.Now().Add(patience))
	var err error
	for n := 0; err == nil && len(r.closed) == 0; n++ {
		if n > 1_000_000 {
			t.Fatal("it is not cut")
		}
		_, err = renewer.conn.Write(append(renewer.renew(), renewer.record(23, "x")...))
	}
	if err := r.end(t); err == nil || err == io.EOF || errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}
