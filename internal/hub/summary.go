package hub

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// method is how annotations of a type are summed up (TM7b1-5).
type method uint8

const (
	methodNone     method = iota // they are not
	methodTotal                  // how many there are
	methodFlag                   // which clients there are
	methodDistinct               // which clients have used each name
	methodUnique                 // likewise, of names of which a client has one
	methodMultiple               // how often each client has used each name
)

// methodOf returns the method that a type of annotations names, as in "reaction:flag.v1".
func methodOf(kind string) method {
	_, name, _ := strings.Cut(kind, ":")
	switch name {
	case "total.v1":
		return methodTotal
	case "flag.v1":
		return methodFlag
	case "distinct.v1":
		return methodDistinct
	case "unique.v1":
		return methodUnique
	case "multiple.v1":
		return methodMultiple
	}
	return methodNone
}

// named reports whether annotations have to have a name.
func (m method) named() bool {
	return m == methodDistinct || m == methodUnique || m == methodMultiple
}

// personal reports whether annotations are those of an identified client.
func (m method) personal() bool {
	return m == methodFlag || m == methodDistinct || m == methodUnique
}

// maxSummaryClients bounds the clients that a summary lists for one name. The others are counted.
const maxSummaryClients = 100

// summary is how a message is annotated. It is a record of RecordAnnotation with the message's
// serial as key. The value is summaryFormat, the number of types as an unsigned varint, and for
// each the type as a field, the number of its names, and for each of those the name as a field,
// five unsigned varints, which are its total, how much of it is of clients without an identity, how many
// clients there are, how many are listed, and how long their ids are as JSON, and their list as a field.
//
// What each client has done is a record of its own, so that a summary needs to list only some
// of them, see share.
type summary struct {
	types []summaryType
}

type summaryType struct {
	kind  string
	names []summaryName // one without a name for total and flag
}

type summaryName struct {
	name         string
	total        uint64
	unidentified uint64
	clients      uint64 // how many; listed are maxSummaryClients at most, in the order in which they came
	listed       clientList
}

const summaryFormat = 1

// maxTexts is for how many bytes of a value its texts are copied together.
const maxTexts = 512

var errSummary = errors.New("hub: the summary of a message's annotations is not readable")

func summaryKey(serial string) engine.RecordKey {
	return engine.RecordKey{Space: engine.RecordAnnotation, Key: serial}
}

func (s *summary) encode() []byte {
	size := 1 + binary.MaxVarintLen64
	for i := range s.types {
		size += len(s.types[i].kind) + 2*binary.MaxVarintLen32
		for k := range s.types[i].names {
			n := &s.types[i].names[k]
			size += len(n.name) + 7*binary.MaxVarintLen32 + len(n.listed.encoded)
		}
	}
	b := binary.AppendUvarint(append(make([]byte, 0, size), summaryFormat), uint64(len(s.types)))
	for i := range s.types {
		t := &s.types[i]
		b = binary.AppendUvarint(appendField(b, t.kind), uint64(len(t.names)))
		for k := range t.names {
			n := &t.names[k]
			b = appendField(b, n.name)
			for _, v := range [...]uint64{n.total, n.unidentified, n.clients, uint64(n.listed.n), uint64(n.listed.quoted)} {
				b = binary.AppendUvarint(b, v)
			}
			b = appendField(b, n.listed.encoded)
		}
	}
	return b
}

// decoder reads what encode has written. After a failure all it reads is zero.
type decoder struct {
	b      []byte // what is left
	all    string // of which texts are parts; empty: each has memory of its own
	failed bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many things follow, of which each takes a byte at least.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.failed, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	f := d.field()
	if end := len(d.all) - len(d.b); d.all != "" {
		return d.all[end-len(f) : end]
	}
	return string(f)
}

func (d *decoder) field() []byte {
	n := d.count()
	f := d.b[:n:n]
	d.b = d.b[n:]
	return f
}

func decodeSummary(value []byte) (summary, error) {
	if len(value) == 0 || value[0] != summaryFormat {
		return summary{}, errSummary
	}
	d := decoder{b: value[1:]}
	if len(value) <= maxTexts {
		d.all = string(value)
	}
	s := summary{types: make([]summaryType, d.count())}
	for i := range s.types {
		t := &s.types[i]
		t.kind = d.text()
		t.names = make([]summaryName, d.count())
		for k := range t.names {
			n := &t.names[k]
			n.name, n.total, n.unidentified, n.clients = d.text(), d.uint(), d.uint(), d.uint()
			n.listed = clientList{int(d.uint()), int(d.uint()), d.field()}
		}
	}
	if d.failed || len(d.b) > 0 {
		return summary{}, errSummary
	}
	return s, nil
}

// share is what one client has done to a message with annotations of one type: how often it
// has used each name. It is a record of RecordAnnotation, with the format of a summary whose
// one type has the client's names.
func shareKey(serial, kind, clientID string) engine.RecordKey {
	return engine.RecordKey{Space: engine.RecordAnnotation, Key: "c\x00" + serial + "\x00" + kind + "\x00" + clientID}
}

// of returns the type's part, which it adds if need be.
func (s *summary) of(kind string) *summaryType {
	i := slices.IndexFunc(s.types, func(t summaryType) bool { return t.kind == kind })
	if i < 0 {
		i = len(s.types)
		s.types = append(s.types, summaryType{kind: kind})
	}
	return &s.types[i]
}

func (t *summaryType) of(name string) *summaryName {
	i := slices.IndexFunc(t.names, func(n summaryName) bool { return n.name == name })
	if i < 0 {
		i = len(t.names)
		t.names = append(t.names, summaryName{name: name})
	}
	return &t.names[i]
}

// used is how often the names of a share were used.
func (t *summaryType) used(name string) uint64 {
	for i := range t.names {
		if t.names[i].name == name {
			return t.names[i].total
		}
	}
	return 0
}

// add notes that a client has used a name so often more, and before as often as said.
func (n *summaryName) add(clientID string, before, more uint64) {
	n.total += more
	if clientID == "" {
		n.unidentified += more
		return
	}
	switch {
	case n.listed.add(clientID, more):
	case before > 0:
		// One of those that are not listed.
	default:
		n.clients++
		if n.listed.n < maxSummaryClients {
			n.listed.append(clientID, more)
		}
	}
}

// remove takes back what a client has done.
func (n *summaryName) remove(clientID string, count uint64) {
	n.total -= min(count, n.total)
	if clientID == "" {
		n.unidentified -= min(count, n.unidentified)
		return
	}
	n.clients -= min(1, n.clients)
	n.listed.remove(clientID)
}

// apply changes the summary, and the share of the client, as an annotation says. It reports
// whether it changes anything.
func (s *summary) apply(a *pubsub.Annotation, share *summaryType) (changed bool) {
	m := methodOf(a.Type)
	if m == methodNone {
		return false
	}
	t := s.of(a.Type)
	count := uint64(1)
	if m == methodMultiple && a.Count != nil {
		count = uint64(*a.Count)
	}
	name := a.Name
	if !m.named() {
		name = ""
	}
	drop := func(name string) {
		if used := share.used(name); used > 0 {
			t.of(name).remove(a.ClientID, used)
			share.of(name).total = 0
			changed = true
		}
	}
	switch create := a.Action == pubsub.AnnotationCreate; {
	case m == methodTotal && create, m == methodMultiple && create && a.ClientID == "":
		t.of(name).add("", 0, count)
		changed = true
	case m == methodTotal, m == methodMultiple && a.ClientID == "":
		if n := t.of(name); n.unidentified > 0 {
			n.remove("", count)
			changed = true
		}
	case create:
		used := share.used(name)
		if m != methodMultiple && used > 0 {
			break
		}
		if m == methodUnique {
			for i := range share.names {
				drop(share.names[i].name)
			}
		}
		t.of(name).add(a.ClientID, used, count)
		share.of(name).total += count
		changed = true
	case m == methodUnique: // whatever its name
		for i := range share.names {
			drop(share.names[i].name)
		}
	default:
		drop(name)
	}
	s.tidy()
	share.tidy()
	return changed
}

// tidy drops what has come to nothing.
func (s *summary) tidy() {
	for i := range s.types {
		s.types[i].tidy()
	}
	s.types = slices.DeleteFunc(s.types, func(t summaryType) bool { return len(t.names) == 0 })
}

func (t *summaryType) tidy() {
	t.names = slices.DeleteFunc(t.names, func(n summaryName) bool { return n.total == 0 })
}

// json is the summary as clients are told it (TM8a, TM7c1, TM7d1, TM7e1).
func (s *summary) json() []byte {
	b := []byte{'{'}
	for i := range s.types {
		t := &s.types[i]
		b = appendKey(b, t.kind)
		m := methodOf(t.kind)
		if !m.named() {
			b = t.names[0].append(b, m)
			continue
		}
		b = append(b, '{')
		for k := range t.names {
			b = t.names[k].append(appendKey(b, t.names[k].name), m)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func (n *summaryName) append(b []byte, m method) []byte {
	b = strconv.AppendUint(append(b, `{"total":`...), n.total, 10)
	if m == methodTotal {
		return append(b, '}')
	}
	b = append(b, `,"clientIds":`...)
	if m == methodMultiple {
		b = append(b, '{')
		for clientID, count := range n.listed.all() {
			b = strconv.AppendUint(appendKey(b, string(clientID)), count, 10)
		}
		b = strconv.AppendUint(append(b, `},"totalUnidentified":`...), n.unidentified, 10)
		b = strconv.AppendUint(append(b, `,"totalClientIds":`...), n.clients, 10)
	} else {
		b = append(b, '[')
		for clientID := range n.listed.all() {
			if b[len(b)-1] != '[' {
				b = append(b, ',')
			}
			b = appendJSONString(b, string(clientID))
		}
		b = append(b, ']')
	}
	b = append(b, `,"clipped":`...)
	return append(strconv.AppendBool(b, n.clients > uint64(n.listed.n)), '}')
}

// appendKey appends the name of a member of an object, with the comma that it may need.
func appendKey(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendJSONString(b, name), ':')
}

func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // cannot fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
