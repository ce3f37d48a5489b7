package letshare_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// kept is a server whose messages can be changed and are kept on disk.
var kept = settings{
	env:  []string{"LETSHARE_STORAGE_DIR=kept"},
	file: "namespaces: [{id: kept, mutable_messages: true, persisted: true}]\n",
}

const keptChannel = "kept:room"

// editor is a client that changes messages, with some of it under way at any time, until its
// connection is gone.
type editor struct {
	name string
	text string // the serial of the message that all editors append to and annotate
	own  string // that of the message that only this one updates

	mu    sync.Mutex
	deeds []*deed // by number
}

// deed is something that an editor has done.
type deed struct {
	kind   string // append, update or annotate
	serial string // what it was acknowledged with; empty: it was not
}

var deedKinds = []string{"append", "update", "annotate"}

// mark is the text by which a deed of the editor is known.
func (e *editor) mark(number int) string { return fmt.Sprintf("%s.%d;", e.name, number) }

// next makes another deed and returns its number and its frame.
func (e *editor) next(msgSerial int) (number int, frame string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	number = len(e.deeds)
	d := &deed{kind: deedKinds[number%len(deedKinds)]}
	e.deeds = append(e.deeds, d)
	frame = fmt.Sprintf(`{"channel":%q,"msgSerial":%d,`, keptChannel, msgSerial)
	switch d.kind {
	case "append":
		frame += fmt.Sprintf(`"action":15,"messages":[{"action":5,"serial":%q,"data":%q}]}`, e.text, e.mark(number))
	case "update":
		frame += fmt.Sprintf(`"action":15,"messages":[{"action":1,"serial":%q,"data":%q}]}`, e.own, e.mark(number))
	default:
		frame += fmt.Sprintf(`"action":21,"annotations":[{"action":0,"type":"x:multiple.v1","name":"n","messageSerial":%q,"data":%q}]}`, e.text, e.mark(number))
	}
	return number, frame
}

// edit changes messages over a connection until that is gone, or most are acknowledged, and calls
// acknowledged after each.
func (e *editor) edit(t *testing.T, a *ably, most int, acknowledged func()) {
	const window = 4
	under := make(chan int, window)
	go func() {
		defer close(under)
		for msgSerial := range most {
			number, frame := e.next(msgSerial)
			under <- number
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := a.ws.Write(ctx, websocket.MessageText, []byte(frame))
			cancel()
			if err != nil {
				return
			}
		}
	}()
	for left := most; ; {
		m, ok := <-a.frames
		if !ok {
			break
		}
		var ack struct {
			Action, Count int
			Error         any
			Res           []struct{ Serials []string }
		}
		b, _ := json.Marshal(m)
		if err := json.Unmarshal(b, &ack); err != nil || ack.Action != 1 || len(ack.Res) != ack.Count {
			t.Errorf("%s is answered: %s", e.name, b)
			break
		}
		for _, r := range ack.Res {
			number, ok := <-under
			if !ok || len(r.Serials) != 1 {
				t.Errorf("%s is answered too often: %s", e.name, b)
				return
			}
			e.mu.Lock()
			e.deeds[number].serial = r.Serials[0]
			e.mu.Unlock()
			acknowledged()
			if left--; left == 0 {
				return
			}
		}
	}
	for range under { // without an answer
	}
}

// rest reads what a path below the channel has into v.
func (i *instance) rest(t testing.TB, path string, v any) {
	t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	a := i.request(t, "GET", "/channels/"+url.PathEscape(keptChannel)+path+sep+"limit=1000&key="+url.QueryEscape(ablyKey), "Accept", "application/json")
	if err := json.Unmarshal([]byte(a.body), v); a.status != 200 || err != nil {
		t.Fatalf("GET %s: %d %v %s", path, a.status, err, a.body)
	}
}

type keptMessage struct {
	Serial, Data string
	Version      struct{ Serial string }
	Annotations  struct {
		Summary map[string]map[string]struct {
			Total     int
			ClientIDs map[string]int
		}
	}
}

// check compares what the server has with what it has acknowledged.
func (e *editor) check(t *testing.T, s *instance) {
	t.Helper()
	var text, own keptMessage
	var versions []keptMessage
	var annotations []struct{ Serial, ClientID, Data string }
	s.rest(t, "/messages/"+e.text, &text)
	s.rest(t, "/messages/"+e.own, &own)
	s.rest(t, "/messages/"+e.own+"/versions", &versions)
	s.rest(t, "/messages/"+e.text+"/annotations", &annotations)
	marks := map[string][]string{"append": strings.SplitAfter(text.Data, ";")}
	serials := make(map[string]string) // of marks
	for _, v := range versions {
		marks["update"] = append(marks["update"], v.Data)
		serials[v.Data] = v.Version.Serial
	}
	mine := 0
	for _, a := range annotations {
		marks["annotate"] = append(marks["annotate"], a.Data)
		serials[a.Data] = a.Serial
		if a.ClientID == e.name {
			mine++
		}
	}
	if got := text.Annotations.Summary["x:multiple.v1"]["n"]; got.ClientIDs[e.name] != mine || got.Total != len(annotations) {
		t.Errorf("the summary is %+v with %d annotations, %d of %s", got, len(annotations), mine, e.name)
	}
	if n := len(versions); own.Data != versions[n-1].Data || own.Version.Serial != versions[n-1].Version.Serial {
		t.Errorf("%s's message is %+v, its newest version %+v", e.name, own, versions[n-1])
	}
	last := make(map[string]int) // by kind, where the deed before is
	for number, d := range e.deeds {
		mark := e.mark(number)
		count, at := 0, 0
		for i, m := range marks[d.kind] {
			if m == mark {
				count, at = count+1, i
			}
		}
		switch {
		case count > 1 || count == 0 && d.serial != "":
			t.Errorf("%s %s is there %d times; acknowledged with %q", d.kind, mark, count, d.serial)
		case count == 1 && at < last[d.kind]:
			t.Errorf("%s %s is before what was done before it", d.kind, mark)
		case count == 1 && d.kind != "append" && d.serial != "" && serials[mark] != d.serial:
			t.Errorf("%s %s has the serial %s; acknowledged with %s", d.kind, mark, serials[mark], d.serial)
		case count == 1:
			last[d.kind] = at
		}
	}
}

// A server that is killed while messages are changed has all that it has acknowledged when it comes
// back, once and in order, and goes on from there.
func TestWhatWasDoneToMessagesSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const rounds, editors = 3, 3
	all := make([]*editor, editors)
	for round := range rounds + 1 {
		s, err := launch(dir, kept)
		if err != nil {
			t.Fatal(err)
		}
		publisher := s.connectAbly(t, "")
		if round == 0 {
			var serials []string
			for range editors + 1 {
				publisher.publish(keptChannel, `{"name":"n","data":""}`)
				res, _ := publisher.next(actionAck)["res"].([]any)
				one, _ := res[0].(map[string]any)
				list, _ := one["serials"].([]any)
				serials = append(serials, fmt.Sprint(list[0]))
			}
			for i := range all {
				all[i] = &editor{name: fmt.Sprint("e", i), text: serials[editors], own: serials[i]}
			}
		}
		for _, e := range all {
			e.check(t, s)
		}
		history := historyOf(t, s)
		reader := s.connectAbly(t, "&clientId=reader")
		reader.send(fmt.Sprintf(`{"action":10,"channel":%q,"params":{"rewind":"%d"}}`, keptChannel, editors+1))
		reader.next(actionAttached)
		read := make(map[string]string) // data by serial
		for len(read) < editors+1 {
			readMessages(t, reader.next(actionMessage), read)
		}
		for _, m := range history {
			if read[m.Serial] != m.Data {
				t.Errorf("round %d: the rewind has %q, the history %q", round, read[m.Serial], m.Data)
			}
		}

		// All go on until the server is killed, right after an answer, but for the last round.
		most, enough := 1<<20, 60+rand.IntN(60)
		if round == rounds {
			most = 40
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		done := 0
		for _, e := range all {
			a := s.connectAbly(t, "&clientId="+e.name)
			wg.Go(func() {
				e.edit(t, a, most, func() {
					mu.Lock()
					defer mu.Unlock()
					if done++; done == enough && round < rounds {
						_ = s.cmd.Process.Kill()
					}
				})
			})
		}
		wg.Wait()
		if round < rounds {
			<-s.exited
			continue
		}
		for _, e := range all {
			e.check(t, s)
		}
		for _, m := range historyOf(t, s) {
			for read[m.Serial] != m.Data {
				readMessages(t, reader.next(actionMessage), read)
			}
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}
}

// historyOf is the channel's messages, which are as they are now and in the places where they were
// published.
func historyOf(t *testing.T, s *instance) (history []keptMessage) {
	t.Helper()
	s.rest(t, "/messages?direction=forwards", &history)
	for i, m := range history {
		var now keptMessage
		s.rest(t, "/messages/"+m.Serial, &now)
		if now.Data != m.Data || now.Version != m.Version || i > 0 && m.Serial <= history[i-1].Serial {
			t.Errorf("in the history, %d: %+v; by itself: %+v", i, m, now)
		}
	}
	return history
}

// readMessages notes what a frame says of messages.
func readMessages(t *testing.T, frame map[string]any, data map[string]string) {
	t.Helper()
	var pm struct {
		Messages []struct {
			Action       int
			Serial, Data string
		}
	}
	b, _ := json.Marshal(frame)
	if err := json.Unmarshal(b, &pm); err != nil {
		t.Fatal(err)
	}
	for _, m := range pm.Messages {
		switch before, known := data[m.Serial]; {
		case m.Action == 4: // a summary
		case m.Action != 5:
			data[m.Serial] = m.Data
		case !known:
			t.Fatalf("a part of a message that was not sent: %s", b)
		default:
			data[m.Serial] = before + m.Data
		}
	}
}
