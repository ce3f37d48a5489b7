package redis

import (
	"context"
	"fmt"
	"strconv"

	"letshare-server/internal/directory"
)

// revocations is what they say by number, their numbers, these by expiry, the newest of each
// target, and how many each app has.
func (k keys) revocations() []string {
	key := string(k) + "{revocations}"
	return []string{key, key + ":n", key + ":x", key + ":t", key + ":a"}
}

// Revoke records revocations.
func (d *Directory) Revoke(ctx context.Context, list []directory.Revocation) error {
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	args := []string{strconv.Itoa(d.opts.Revocations), strconv.Itoa(d.opts.AppRevocations)}
	for i := range list {
		said := d.encodeRevocation(&list[i])
		// The target is what follows on the app.
		args = append(args, list[i].App, said[revocationTimes+4+len(list[i].App):], said)
	}
	m, _, err := d.eval(ctx, scriptRevoke, d.keys.revocations(), args...)
	if err != nil {
		return err
	}
	if n, err := m.AsInt64(); err != nil || n == 0 {
		return directory.ErrTooMany
	}
	d.notifyAll(ctx, string(notice(noticeRevoked)))
	return nil
}

// revocationTimes is the bytes of a revocation before its texts.
const revocationTimes = 1 + 3*6

func (d *Directory) encodeRevocation(r *directory.Revocation) string {
	b := []byte{1}
	b = appendUint(b, uint64(d.stored(r.IssuedBefore)), 6)
	b = appendUint(b, uint64(d.stored(r.AppliesAt)), 6)
	b = appendUint(b, uint64(d.stored(r.Expires)), 6)
	b = appendText(appendText(b, r.App), r.Key)
	return string(append(b, r.Target...))
}

func (d *Directory) decodeRevocation(said string) (v directory.Revocation, err error) {
	r := reader{b: said}
	if version := r.uint(1); version != 1 {
		return v, fmt.Errorf("directory: a revocation in Redis has version %d, known is 1", version)
	}
	v.IssuedBefore, v.AppliesAt, v.Expires = d.restored(int64(r.uint(6))), d.restored(int64(r.uint(6))), d.restored(int64(r.uint(6)))
	v.App, v.Key = r.text(), r.text()
	v.Target = r.b
	if r.broken {
		return v, errMalformed
	}
	return v, nil
}

// revocationPage is how many revocations one call reads.
const revocationPage = 1000

// Revocations returns what was recorded after a position, which is a number.
func (d *Directory) Revocations(ctx context.Context, after string) (list []directory.Revocation, position string, err error) {
	n, _ := strconv.ParseUint(after, 10, 63) // what is none is the beginning
	position = strconv.FormatUint(n, 10)
	for {
		texts, err := d.revocationsAfter(ctx, position)
		if err != nil {
			return nil, "", err
		}
		for _, said := range texts[1:] {
			v, err := d.decodeRevocation(said)
			if err != nil {
				return nil, "", err
			}
			list = append(list, v)
		}
		if texts[0] == position {
			return list, position, nil
		}
		position = texts[0]
	}
}

func (d *Directory) revocationsAfter(ctx context.Context, position string) ([]string, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	m, _, err := d.eval(ctx, scriptRevocations, d.keys.revocations()[:2], position, strconv.Itoa(revocationPage))
	if err != nil {
		return nil, err
	}
	texts, err := m.AsStrSlice()
	if err != nil || len(texts) == 0 {
		return nil, errMalformed
	}
	return texts, nil
}
