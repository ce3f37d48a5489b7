package session

import (
	"math/rand/v2"
	"testing"
)

func TestAMsgSerialIsNewOnce(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var r received
		seen := make(map[int64]bool)
		for range 300 {
			serial := random.Int64N(50) // few enough gaps for all to be remembered
			if r.add(serial) == seen[serial] {
				t.Fatalf("seed %d: %d is new although it is not, or the other way round: %v", seed, serial, r.ranges)
			}
			seen[serial] = true
		}
		for i := 1; i < len(r.ranges); i++ {
			if r.ranges[i-1].last+1 >= r.ranges[i].first {
				t.Fatalf("seed %d: ranges touch: %v", seed, r.ranges)
			}
		}
	}
}

func TestTheMsgSerialsOfATransportTakeLittleMemory(t *testing.T) {
	var r received
	for serial := range int64(10_000) {
		r.add(3 * serial)
	}
	if len(r.ranges) > maxReceivedRanges {
		t.Errorf("%d ranges", len(r.ranges))
	}
	if r.add(3 * 9_999) {
		t.Error("the newest is forgotten")
	}
}
