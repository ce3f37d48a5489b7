package hub_test

import (
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
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

// keepingLast has channels keep their last message for a year.
func keepingLast(o *hub.Options) {
	o.Engine = enginememory.NewStore(enginememory.Options{
		Policy: func(pubsub.ChannelID) engine.Policy { return engine.Policy{Last: 365 * 24 * time.Hour} },
	}).Node("n1")
}

func TestTheLastPublishIsInHistoryAndRewindLongAfterTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, keepingLast)
		say(t, h, "1")
		var turn hub.Turn
		publish(t, h, &turn, hub.Publish{Messages: []*pubsub.Message{{Data: pubsub.Text("2")}, {Data: pubsub.Text("3")}}})
		publish(t, h, &turn, hub.Publish{Messages: message("n", "passing"), Ephemeral: true})
		turn.End()
		time.Sleep(300 * 24 * time.Hour)

		history := func(q hub.History) (data []string, next string) {
			t.Helper()
			q.Grant, q.Channel = anyone, name("room")
			page, err := h.Messages(t.Context(), &q)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Messages {
				data = append(data, string(m.Data.Bytes))
			}
			return data, page.Next
		}
		got, next := history(hub.History{Limit: 1})
		if len(got) != 1 || got[0] != "3" || next == "" {
			t.Fatalf("history with a limit of 1: %q, next %q", got, next)
		}
		if got, next = history(hub.History{Limit: 1, Cursor: next}); len(got) != 1 || got[0] != "2" || next != "" {
			t.Errorf("the next page: %q, next %q", got, next)
		}
		if got, _ := history(hub.History{Limit: 100, Forwards: true}); len(got) != 2 || got[0] != "2" {
			t.Errorf("all, oldest first: %q", got)
		}
		if got, _ := history(hub.History{Limit: 1, Start: time.Now().Add(-time.Hour).UnixMilli()}); len(got) != 0 {
			t.Errorf("of the last hour: %q", got)
		}
		for _, c := range []struct {
			rewind hub.Rewind
			want   int
		}{{hub.Rewind{Limit: 1}, 1}, {hub.Rewind{Limit: 100}, 1}, {hub.Rewind{Window: 2 * time.Minute, Limit: 100}, 0}} {
			b := attach(t, h, hub.Attach{}).Rewind(t.Context(), c.rewind)
			if len(b.Frames) != c.want || b.Err != nil {
				t.Errorf("%+v: %q %v", c.rewind, b.Frames, b.Err)
			}
		}
		time.Sleep(66 * 24 * time.Hour)
		if got, _ := history(hub.History{Limit: 1}); len(got) != 0 {
			t.Errorf("after a year: %q", got)
		}
	})
}
