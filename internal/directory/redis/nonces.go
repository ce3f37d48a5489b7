package redis

import (
	"context"
	"crypto/sha256"
	"strconv"
	"time"

	"letshare-server/internal/directory"
)

// nonceBuckets is into how many parts nonces are divided. It is part of the format.
const nonceBuckets = 64

func (k keys) nonces(bucket byte) string { return string(k) + "u{u:" + strconv.Itoa(int(bucket)) + "}" }

// UseNonce notes that a nonce was used with a key.
func (d *Directory) UseNonce(ctx context.Context, key, nonce string, until time.Time) (bool, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	// A hash, so that a long nonce costs no more than a short one.
	sum := sha256.Sum256([]byte(key + "\x00" + nonce))
	m, unsure, err := d.eval(ctx, scriptNonce, []string{d.keys.nonces(sum[16] % nonceBuckets)},
		string(sum[:16]), number(d.stored(until)), strconv.Itoa(max(d.opts.Nonces/nonceBuckets, 1)))
	if err != nil {
		return false, err
	}
	switch n, err := m.AsInt64(); {
	case err != nil:
		return false, errMalformed
	case n == 2:
		return false, directory.ErrTooMany
	case n == 0 && unsure: // perhaps by this very call, perhaps not
		return false, directory.ErrUnavailable
	default:
		return n == 1, nil
	}
}
