package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// A connectionKey (RTN9b) is "<connectionId>!<base64url of version, generation and MAC>". The MAC
// ties it to the connection and to the secret of the process or cluster. All its characters
// may stand in a URL path unescaped, as the comet transport of the JavaScript SDK needs.
const (
	keyVersion  = 1
	keyMACBytes = 16
	keyBytes    = 1 + 8 + keyMACBytes
)

// keyMaker makes and checks connectionKeys.
type keyMaker struct{ secret []byte }

// keyForm says what a key looks like.
type keyForm uint8

const (
	malformedKey keyForm = iota // of no server of ours
	strangeKey                  // of another incarnation, or forged: its connection is not here
	genuineKey
)

func (k keyMaker) mac(id string, generation uint64) []byte {
	h := hmac.New(sha256.New, k.secret)
	var g [8]byte
	binary.BigEndian.PutUint64(g[:], generation)
	h.Write([]byte{keyVersion})
	h.Write(g[:])
	h.Write([]byte(id))
	return h.Sum(nil)[:keyMACBytes]
}

// make returns the key of one generation of a connection, which is one transport (RTN15e).
func (k keyMaker) make(id string, generation uint64) string {
	b := make([]byte, 0, keyBytes)
	b = append(b, keyVersion)
	b = binary.BigEndian.AppendUint64(b, generation)
	b = append(b, k.mac(id, generation)...)
	return id + "!" + base64.RawURLEncoding.EncodeToString(b)
}

// parse returns the connection and generation that a genuine key was made for.
func (k keyMaker) parse(key string) (id string, generation uint64, form keyForm) {
	id, tail, found := strings.Cut(key, "!")
	b, err := base64.RawURLEncoding.DecodeString(tail)
	if !found || id == "" || err != nil || len(b) != keyBytes || b[0] != keyVersion {
		return "", 0, malformedKey
	}
	generation = binary.BigEndian.Uint64(b[1:9])
	if !hmac.Equal(b[9:], k.mac(id, generation)) {
		return "", 0, strangeKey
	}
	return id, generation, genuineKey
}

// newConnectionID returns an id that is unique while its connection lives (RTN8b): 11 characters of
// the base64url alphabet, so that it contains no ":".
func newConnectionID() string {
	var b [8]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
