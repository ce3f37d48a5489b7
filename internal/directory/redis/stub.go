package redis

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

var errNotYet = errors.New("directory: not yet")

func (d *Directory) Join(context.Context, pubsub.ChannelID, directory.Node, pubsub.Occupancy, int) (o pubsub.Occupancy, _ error) {
	return o, errNotYet
}
func (d *Directory) Adjust(context.Context, pubsub.ChannelID, directory.Node, pubsub.Occupancy) error {
	return errNotYet
}
func (d *Directory) Occupancy(context.Context, pubsub.ChannelID) (o pubsub.Occupancy, _ error) {
	return o, errNotYet
}
func (d *Directory) Watch(context.Context, pubsub.ChannelID, bool) error { return errNotYet }
func (d *Directory) Touch(pubsub.ChannelID, time.Time)                   {}
func (d *Directory) Channels(context.Context, directory.ChannelQuery) ([]string, bool, error) {
	return nil, false, errNotYet
}
func (d *Directory) UseNonce(context.Context, string, string, time.Time) (bool, error) {
	return false, errNotYet
}
func (d *Directory) Revoke(context.Context, []directory.Revocation) error { return errNotYet }
func (d *Directory) Revocations(context.Context, string) ([]directory.Revocation, string, error) {
	return nil, "", errNotYet
}
func (d *Directory) PutApp(context.Context, string, uint64, json.RawMessage, int) (uint64, error) {
	return 0, errNotYet
}
func (d *Directory) DeleteApp(context.Context, string, uint64) error         { return errNotYet }
func (d *Directory) Apps(context.Context) ([]directory.App, error)           { return nil, errNotYet }
func (d *Directory) buryCounts(context.Context, string, string) (int, error) { return 0, nil }
