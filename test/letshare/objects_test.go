package letshare_test

import (
	"encoding/json"
	"fmt"
	"testing"
)

// What was acknowledged of objects is there when a server that was killed comes back, and goes on from there.
func TestObjectsSurviveAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const rounds = 3
	counted := 0 // what was acknowledged
	for round := range rounds + 1 {
		s, err := launch(dir, kept)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Rounds map[string]bool
			Count  int
			Gone   *string
		}
		s.rest(t, "/object", &got)
		// What was under way may have been done, too.
		if got.Count < counted || got.Count > counted+1 || len(got.Rounds) != round || got.Gone != nil {
			t.Errorf("round %d: got %+v, want %d", round, got, counted)
		}
		counted = got.Count
		reader := s.connectAbly(t, "")
		reader.send(fmt.Sprintf(`{"action":10,"channel":%q,"params":{"modes":"object_subscribe,object_publish"}}`, keptChannel))
		text, _ := reader.next(actionAttached)["flags"].(json.Number)
		if flags, err := text.Int64(); err != nil || int(flags>>7&1) != min(round, 1) {
			t.Errorf("round %d: the flags are %v", round, text)
		}
		if round > 0 {
			synced := reader.next("20")
			b, _ := json.Marshal(synced["state"])
			var state []struct {
				Object struct {
					ObjectID string
					Counter  struct{ Count int }
					Map      struct {
						Entries map[string]struct{ Tombstone bool }
					}
				}
			}
			if err := json.Unmarshal(b, &state); err != nil || len(state) != 3 {
				t.Fatalf("round %d: %v in %s", round, err, b)
			}
			if state[0].Object.Counter.Count != counted || !state[2].Object.Map.Entries["gone"].Tombstone {
				t.Errorf("round %d: got %s, want %d", round, b, counted)
			}
		}
		if round == rounds {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			return
		}
		writer := s.connectAbly(t, "")
		writer.send(fmt.Sprintf(`{"action":19,"channel":%q,"msgSerial":0,"state":[
			{"operation":{"action":1,"objectId":"root","mapSet":{"key":"Rounds","value":{"objectId":"map:rounds@1700000000000"}}}},
			{"operation":{"action":1,"objectId":"root","mapSet":{"key":"Count","value":{"objectId":"counter:count@1700000000000"}}}},
			{"operation":{"action":1,"objectId":"root","mapSet":{"key":"gone","value":{"string":"x"}}}},
			{"operation":{"action":2,"objectId":"root","mapRemove":{"key":"gone"}}},
			{"operation":{"action":1,"objectId":"map:rounds@1700000000000","mapSet":{"key":"%d","value":{"boolean":true}}}}]}`, keptChannel, round))
		writer.next(actionAck)
		for n := range 20 {
			writer.send(fmt.Sprintf(`{"action":19,"channel":%q,"msgSerial":%d,"state":[{"operation":{"action":4,"objectId":"counter:count@1700000000000","counterInc":{"number":1}}}]}`, keptChannel, n+1))
			if n < 19 { // the last is under way
				writer.next(actionAck)
				counted++
			}
		}
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}
