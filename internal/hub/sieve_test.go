package hub

import (
	"testing"

	"letshare-server/internal/engine"
	"letshare-server/internal/filter"
	"letshare-server/internal/pubsub"
)

func TestEqualFiltersArePutToAMessageOnce(t *testing.T) {
	one, err1 := filter.Compile("name == 'a'")
	same, err2 := filter.Compile("name == 'a'")
	other, err3 := filter.Compile("name")
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	batch := []*engine.Entry{
		{Kind: engine.KindMessage, Body: &pubsub.Batch{ID: "i", Messages: []*pubsub.Message{{Name: "a"}, {Name: "b"}}}},
		{Kind: engine.KindPresence, Body: &pubsub.Batch{}},
	}
	var s sieve
	first := s.sift(one, batch)
	if got := s.sift(same, batch); got[0] == nil || got[0] != first[0] {
		t.Error("an equal filter was run again")
	}
	if got := s.sift(other, batch); got[0] != batch[0] || got[1] != nil {
		t.Errorf("got %v", got)
	}
	if len(first[0].Body.Messages) != 1 || len(batch[0].Body.Messages) != 2 || batch[0].Body.Messages[0].ID != "" {
		t.Error("the entry was changed")
	}
}
