package sse

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"letshare-server/internal/pubsub"
)

// idOf is the id that a stream makes for a record of the channel with an index.
func idOf(own int, marks []mark) string {
	if len(marks) == 1 {
		return string(appendOwn(nil, marks[0]))
	}
	all := make([]*subscription, len(marks))
	for i, m := range marks {
		all[i] = &subscription{mark: m}
	}
	return string(appendOwn(append(appendOthers(nil, own, all), '.'), marks[own]))
}

func someMarks(r *rand.Rand, n, epochs int) []mark {
	marks := make([]mark, n)
	for i := range marks {
		marks[i].tag = tagOf(pubsub.ChannelID{App: "app", Name: fmt.Sprint("channel ", i)})
		counter := 0
		if r.IntN(4) == 0 {
			counter = r.IntN(pubsub.MaxSerialCounter + 1)
		}
		marks[i].position = positionOf(pubsub.MakeSerial(1_726_585_978_590+r.Int64N(86_400_000), counter, fmt.Sprintf("epoch%03d", r.IntN(epochs))))
		if r.IntN(4) == 0 {
			marks[i].done = 1 + r.IntN(999)
		}
	}
	return marks
}

func TestAnIDTellsThePositionsOfAllChannelsInTheirOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		marks := someMarks(r, 1+r.IntN(12), 1+r.IntN(3))
		id := idOf(r.IntN(len(marks)), marks)
		got, err := parseID(id)
		if err != nil || !reflect.DeepEqual(got, marks) {
			t.Fatalf("%s: %v\n got %v\nwant %v", id, err, got, marks)
		}
		if strings.ContainsAny(id, "\r\n\x00 \"") {
			t.Fatalf("%q does not go into a header as it is", id)
		}
	}
}

func TestIDsAreShort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ channels, most int }{{1, 35}, {2, 75}, {10, 200}, {100, 1300}, {1000, 12_500}} {
		if n := len(idOf(0, someMarks(r, c.channels, 1))); n > c.most {
			t.Errorf("%d characters for %d channels, at most %d were promised", n, c.channels, c.most)
		}
	}
}

func TestTextsThatAreNoIDsAreRefused(t *testing.T) {
	marks := someMarks(rand.New(rand.NewPCG(1, 2)), 3, 2)
	good := idOf(1, marks)
	others, own, _ := strings.Cut(good, ".")
	foreign := mark{tag: marks[0].tag, position: position{ms: maxMillis + 1, epoch: marks[0].epoch}}
	odd := mark{tag: marks[0].tag, position: position{epoch: [8]byte{'a', 'b', '/', 'd', 'e', 'f', 'g', 'h'}}}
	for _, id := range []string{
		"", "x", ".", "cbfKayrzgAXDWM:1556806691343-0", "1083hjuJAB3NbG@1633679346115-0", "01726585978590-000042@abcd1234",
		others, others + ".", "." + own, own + "." + own, others + "." + own + ".", good + "A", good[1:], good[:len(good)-1],
		strings.Repeat("A", maxIDChars+1), string(appendOwn(nil, foreign)), string(appendOwn(nil, odd)),
		idOf(0, []mark{marks[0], foreign}), idOf(0, []mark{marks[0], odd}),
		"_____w." + own, "AQ." + own, "AAAA." + own,
	} {
		if got, err := parseID(id); err == nil || pubsub.ErrorFor(err).Code != pubsub.CodeInvalidParameterValue {
			t.Errorf("%.60q: %v %v", id, got, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := 1; n < 5; n++ {
		f.Add(idOf(n-1, someMarks(r, n, n)))
	}
	f.Fuzz(func(t *testing.T, id string) {
		marks, err := parseID(id)
		if err != nil {
			return
		}
		for own := range marks {
			again, err := parseID(idOf(own, marks))
			if err != nil || !reflect.DeepEqual(again, marks) {
				t.Fatalf("%q: %v, then %v %v", id, marks, again, err)
			}
		}
		for _, m := range marks {
			if _, _, _, err := pubsub.ParseSerial(string(m.serial())); err != nil {
				t.Fatalf("%q: %v", id, err)
			}
		}
	})
}

func TestAChannelThatIsNotInTheIDHasNoPosition(t *testing.T) {
	marks := someMarks(rand.New(rand.NewPCG(1, 2)), 3, 1)
	same := marks[1]
	same.ms++
	all := append([]mark{marks[2]}, marks[1], same)
	first, all := takeMark(all, marks[1].tag)
	second, all := takeMark(all, marks[1].tag)
	third, all := takeMark(all, marks[1].tag)
	none, all := takeMark(all, marks[0].tag)
	if first == nil || *first != marks[1].position || second == nil || *second != same.position || third != nil || none != nil || len(all) != 1 {
		t.Errorf("%v %v %v %v, %v", first, second, third, none, all)
	}
}
