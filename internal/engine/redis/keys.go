package redis

import (
	"strconv"
	"strings"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// keys makes the names of a channel's keys; see doc.go.
type keys struct {
	state string // also the name that its entries are published by
}

func (e *Engine) keys(id pubsub.ChannelID) keys {
	return keys{e.opts.Prefix + "{" + id.App + ":" + id.Name + "}"}
}

func (k keys) log() string { return k.state + ":l" }

func (k keys) connection(id string) string { return k.state + ":i" + id }

func (k keys) client(parity int) string { return k.state + ":e" + strconv.Itoa(parity) }

func (k keys) records(s engine.RecordSpace) string { return k.state + ":r" + strconv.Itoa(int(s)) }

func (k keys) names(s engine.RecordSpace) string { return k.state + ":n" + strconv.Itoa(int(s)) }

func (k keys) last() string { return k.state + ":m" }

func (k keys) expiry() string { return k.state + ":x" }

// slot is the hash slot that a Redis Cluster keeps the key in: a CRC-16 (XMODEM) of what
// stands between the first "{" and the "}" that follows.
func slot(key string) uint16 {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if n := strings.IndexByte(key[i+1:], '}'); n > 0 {
			key = key[i+1 : i+1+n]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % slots
}

const slots = 16384
