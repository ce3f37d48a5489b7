package hub_test

import (
	"testing"
	"time"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

func TestRewindIsANumberOfMessagesOrATime(t *testing.T) {
	for _, c := range []struct {
		rewind, limit string
		want          hub.Rewind
		bad           bool
	}{
		{rewind: "-", want: hub.Rewind{}},
		{rewind: "-", limit: "5", want: hub.Rewind{}},
		{rewind: "1", want: hub.Rewind{Limit: 1}},
		{rewind: "0", want: hub.Rewind{}},
		{rewind: "0s", want: hub.Rewind{}},
		{rewind: "500", want: hub.Rewind{Limit: 100}},
		{rewind: "50", limit: "7", want: hub.Rewind{Limit: 7}},
		{rewind: "15s", want: hub.Rewind{Window: 15 * time.Second, Limit: 100}},
		{rewind: "2m", limit: "10", want: hub.Rewind{Window: 2 * time.Minute, Limit: 10}},
		{rewind: "", bad: true},
		{rewind: "-1", bad: true},
		{rewind: "s", bad: true},
		{rewind: "1ms", bad: true},
		{rewind: "1h", bad: true},
		{rewind: "9999999", bad: true},
		{rewind: "1", limit: "0", bad: true},
		{rewind: "1", limit: "101", bad: true},
		{rewind: "1", limit: "x", bad: true},
	} {
		params := make(map[string]string)
		if c.rewind != "-" {
			params["rewind"] = c.rewind
		}
		if c.limit != "" {
			params["rewindLimit"] = c.limit
		}
		got, err := hub.ParseRewind(params)
		if bad := err != nil; bad != c.bad || got != c.want {
			t.Errorf("rewind=%s rewindLimit=%s: %v, %v", c.rewind, c.limit, got, err)
		}
		if c.bad && pubsub.ErrorFor(err).Code != pubsub.CodeInvalidParameterValue {
			t.Errorf("rewind=%s rewindLimit=%s: %v", c.rewind, c.limit, err)
		}
	}
}
