package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/config"
	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/rest"
	"letshare-server/internal/transport/comet"
)

// TestEveryEndpointAnswersAsItShould asks each endpoint for what it can say, in both formats and over both
// versions of HTTP, and compares that with what the pages promise.
func TestEveryEndpointAnswersAsItShould(t *testing.T) {
	sites := map[string]*site{
		"":     tableSite(t),
		"bare": newSite(t, nil),
		"full": fullSite(t),
	}
	own, common := ownRows(), commonRows()
	seen := make(map[string]bool) // endpoints whose first error was seen
	for _, r := range slices.Concat(own, common[everyRequest], common[withKey], common[withKeyPaced]) {
		t.Run(r.at+"/"+r.what, func(t *testing.T) {
			s := sites[r.site]
			s.t = t
			defer func() { s.t = nil }()
			thorough := r.code == 0 && r.item == 0 || !seen[r.at] && r.media == ""
			seen[r.at] = seen[r.at] || r.code != 0
			s.try(r, thorough)
		})
	}
	t.Run("nothing is missing", func(t *testing.T) { complete(t, sites[""], own, common) })
}

// tableSite is the server that has everything.
func tableSite(t *testing.T) *site {
	s := newSite(t, func(c *config.Config) { c.Sandbox.Enabled = true })
	s.tokens["of a publisher"] = signed("table.all", tableSecret, jwt.MapClaims{"x-ably-capability": `{"*":["publish"]}`})
	s.tokens["of a revocable key"] = signed("table.revocable", tableSecret, nil)
	s.tokens["of nobody's own"] = signed("table.all", tableSecret, jwt.MapClaims{"x-ably-capability": `{"*":["message-update-own"]}`})
	for range 2 {
		s.post("/channels/persisted:history/messages", keyOfAll, `{"name":"n","data":"x"}`, http.StatusCreated)
	}
	for _, channel := range []string{"listed:1", "listed:2"} {
		elsewhere := directory.Node{Name: "n2", Incarnation: "1"}
		if _, err := s.dir.Join(t.Context(), pubsub.ChannelID{App: "table", Name: channel}, elsewhere, pubsub.OccupancyOf(pubsub.ModeSubscribe), 0); err != nil {
			t.Fatal(err)
		}
	}
	s.post("/stats", keyOfAll, examples["POST /stats"].body, http.StatusCreated)
	members := func(channel string, n, size int) {
		t.Helper()
		list := make([]*pubsub.PresenceMessage, n)
		for i := range list {
			list[i] = &pubsub.PresenceMessage{ClientID: []string{"alice", "bob"}[i%2] + strings.Repeat("'", i/2),
				Data: pubsub.Data{Kind: pubsub.TextData, Bytes: []byte(strings.Repeat("x", size))}}
		}
		if err := s.hub.LoadFixture(t.Context(), "table", channel, list); err != nil {
			t.Fatal(err)
		}
	}
	members("persisted:members", 2, 1)
	members("many", 6, 3<<19)
	var list []directory.Revocation
	for i := range 10_000 {
		list = append(list, directory.Revocation{App: "crowded", Key: "crowded.key", Target: "clientId:" + strconv.Itoa(i),
			IssuedBefore: time.Now(), AppliesAt: time.Now(), Expires: time.Now().Add(time.Hour)})
	}
	if err := s.dir.Revoke(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	return s
}

// fullSite is a server whose store is full of what may not be dropped.
func fullSite(t *testing.T) *site {
	s := newSite(t, func(c *config.Config) { c.Limits.LogBytes = 1 << 20 })
	s.first = s.publish("mutable:full")
	body := `{"data":"` + strings.Repeat("x", 60_000) + `"}`
	for range 10_000 {
		res := s.send(s.clients["HTTP/2.0"], http.MethodPost, "/channels/persisted:full/messages", keyOfAll, []byte(body), "Content-Type", jsonMedia)
		switch full := res.StatusCode == http.StatusServiceUnavailable; {
		case full && body == "{}":
			return s
		case full:
			body = "{}" // has room between the others
		}
	}
	t.Fatal("there is no end of it")
	return nil
}

// try makes the request of a row in all ways and checks the answers. Thorough is also with the parameters
// format and envelope.
func (s *site) try(r row, thorough bool) {
	s.t.Helper()
	if r.state != nil {
		defer r.state(s)()
	}
	for protocol, client := range s.clients {
		for _, media := range []string{jsonMedia, packMedia} {
			ways := []string{""}
			if thorough && r.media == "" {
				ways = []string{"", "format", "envelope"}
			}
			for _, way := range ways {
				s.tryOnce(r, protocol, client, media, way)
			}
		}
	}
}

func (s *site) tryOnce(r row, protocol string, client *http.Client, media, way string) {
	s.t.Helper()
	const tries = 200
	for n := 1; ; n++ {
		a := s.request(r, client, media, way)
		wrong := a.compare(&r, protocol, media)
		if wrong == "" {
			return
		}
		if !r.again || n == tries {
			s.t.Errorf("%s, %s, %q: %s", protocol, media, way, wrong)
			return
		}
	}
}

// reply is an answer, out of its envelope if it was in one.
type reply struct {
	protocol string
	status   int
	header   http.Header
	body     any
	problem  string // with the envelope
}

func (s *site) request(r row, client *http.Client, media, way string) reply {
	s.t.Helper()
	if r.prepare != nil {
		as := r.as
		r.prepare(s, &r, client)
		if as != "" {
			r.as = as
		}
	}
	e := examples[r.at]
	method, pattern, _ := strings.Cut(r.at, " ")
	if r.at != "" && e.path == "" {
		s.t.Fatalf("%s has no example", pattern)
	}
	query := cmp.Or(r.query, e.query)
	accept, short := media, "json"
	if media == packMedia {
		short = "msgpack"
	}
	switch way {
	case "format": // wins over Accept
		query += "&format=" + short
		accept = map[string]string{jsonMedia: packMedia, packMedia: jsonMedia}[media]
	case "envelope":
		query += "&envelope=" + short
	}
	body := []byte(r.raw)
	if r.raw == "" && cmp.Or(r.method, method) != http.MethodGet {
		body = encoded(s.t, media, cmp.Or(r.body, e.body))
	}
	if strings.HasPrefix(r.at, "POST /comet/") && r.raw == "" {
		body = []byte(e.body) // which knows one format
	}
	headers := append([]string{"Accept", accept, "Content-Type", media}, r.header...)
	res := s.send(client, cmp.Or(r.method, method), cmp.Or(r.path, e.path)+"?"+strings.TrimPrefix(query, "&"), cmp.Or(r.as, keyOfAll), body, headers...)
	a := reply{protocol: res.Proto, status: res.StatusCode, header: res.Header}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") || res.Header.Get("Content-Type") == "application/x-ndjson" {
		return a
	}
	a.body = decoded(s.t, res)
	if way == "envelope" {
		a.open()
	}
	return a
}

// open takes an answer out of its envelope.
func (a *reply) open() {
	v, _ := a.body.(map[string]any)
	status, ok := v["statusCode"].(float64)
	headers, isMap := v["headers"].(map[string]any)
	response, has := v["response"]
	if a.status != http.StatusOK || !ok || !isMap || !has || len(v) != 3 || a.header.Get("X-Ably-Errorcode") != "" {
		a.problem = fmt.Sprintf("no envelope: %d %v %v", a.status, a.header, a.body)
		return
	}
	a.status, a.body, a.header = int(status), response, make(http.Header)
	for name, value := range headers {
		if name != strings.ToLower(name) {
			a.problem = fmt.Sprintf("the envelope's header %s", name)
		}
		switch value := value.(type) {
		case string:
			a.header.Set(name, value)
		case []any:
			for _, one := range value {
				a.header.Add(name, one.(string))
			}
		}
	}
}

// compare tells what is wrong with an answer; empty: nothing.
func (a *reply) compare(r *row, protocol, media string) string {
	if r.media != "" {
		media = r.media
	}
	var types []string
	if r.status != http.StatusNoContent {
		types = []string{media}
	}
	var code []string
	if r.code != 0 {
		code = []string{strconv.Itoa(r.code)}
	}
	switch {
	case a.problem != "":
		return a.problem
	case a.protocol != protocol:
		return "it came over " + a.protocol
	case a.status != r.status:
		return fmt.Sprintf("status %d, not %d: %v", a.status, r.status, a.body)
	case !slices.Equal(a.header["Content-Type"], types):
		return fmt.Sprintf("Content-Type %q, not %q", a.header["Content-Type"], types)
	case !slices.Equal(a.header["X-Ably-Errorcode"], code):
		return fmt.Sprintf("X-Ably-Errorcode %q, not %q: %v", a.header["X-Ably-Errorcode"], code, a.body)
	case (r.status == http.StatusMethodNotAllowed) != (a.header.Get("Allow") != ""):
		return fmt.Sprintf("Allow %q", a.header.Get("Allow"))
	case r.status == http.StatusNoContent && a.body != nil:
		return fmt.Sprintf("a body: %v", a.body)
	case r.status == http.StatusTooManyRequests && r.media == "" && a.header.Get("Retry-After") != "1":
		return fmt.Sprintf("Retry-After %q", a.header.Get("Retry-After"))
	}
	if list, is := a.body.([]any); is && r.media == "" && r.code == 0 && strings.HasPrefix(r.at, "GET ") && !strings.HasPrefix(r.at, "GET /time") && !strings.HasPrefix(r.at, "GET /presence") {
		if wrong := a.pages(len(list), r.query); wrong != "" {
			return wrong
		}
	}
	shape := r.shape
	if r.code != 0 && shape == "" {
		shape = `{"error":` + failure + `}`
	}
	if r.code != 0 {
		e := findError(a.body)
		if e["code"] != float64(r.code) || e["statusCode"] != float64(r.status) {
			return fmt.Sprintf("the body says %v", a.body)
		}
		text, _ := e["message"].(string)
		if told := a.header.Get("X-Ably-Errormessage"); told != pubsub.NewError(0, text).HeaderText() {
			return fmt.Sprintf("X-Ably-Errormessage %q, the body says %q", told, text)
		}
	}
	if r.item != 0 {
		if e := findError(a.body); e["code"] != float64(r.item) || e["statusCode"] != float64(itemStatus(r.item)) {
			return fmt.Sprintf("no result has the error %d: %v", r.item, a.body)
		}
	}
	if shape == "" {
		return ""
	}
	var want any
	if err := json.Unmarshal([]byte(shape), &want); err != nil {
		return err.Error() + " in " + shape
	}
	return misfit(want, a.body, "body")
}

func itemStatus(code int) int { return pubsub.Code(code).StatusCode() }

var linkForm = regexp.MustCompile(`^<\./(\w+)\?([^<> ,]*)>; rel="(first|current|next)"$`)

// pages checks the links of a page.
func (a *reply) pages(n int, query string) string {
	rels := make(map[string]string)
	for _, link := range a.header["Link"] {
		m := linkForm.FindStringSubmatch(link)
		if m == nil {
			return "a link of another form: " + link
		}
		rels[m[3]] = m[2]
	}
	// All examples have one page more if they are cut to one.
	_, next := rels["next"]
	if len(rels) != len(a.header["Link"]) || rels["first"] == "" && query != "" || next != strings.Contains(query, "limit=1") {
		return fmt.Sprintf("%d items and links %v", n, a.header["Link"])
	}
	return ""
}

// findError returns the error that is in a body, or in one of its results.
func findError(v any) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		if e, is := v["error"].(map[string]any); is {
			return e
		}
		return findError(v["results"])
	case []any:
		for _, inner := range v {
			if e := findError(inner); e != nil {
				return e
			}
		}
	}
	return nil
}

// complete checks that the rows have every endpoint that there is, and for each what the pages promise, and
// nothing else.
func complete(t *testing.T, s *site, own []row, common map[string][]row) {
	served := slices.Concat(rest.Endpoints(), comet.Endpoints(), []string{"GET /"})
	for path := range s.doors.paths {
		served = append(served, "GET "+path)
	}
	slices.Sort(served)
	if has := slices.Sorted(maps.Keys(examples)); !slices.Equal(served, has) {
		t.Errorf("the server has %q, the table %q", served, has)
	}
	succeeds := make(map[string]bool)
	codes := map[string]map[int]bool{}
	note := func(class string, code int) {
		if codes[class] == nil {
			codes[class] = make(map[int]bool)
		}
		if code != 0 {
			codes[class][code] = true
		}
	}
	for _, r := range own {
		class := "`" + r.at + "`"
		if r.at == "" {
			class = everyRequest
		}
		if r.status < 300 {
			succeeds[r.at] = true
		}
		if r.item != 0 {
			note(class+", in a result", r.item)
		} else if r.code != 0 {
			note(class, r.code)
		}
	}
	for _, at := range served {
		if !succeeds[at] && !slices.Contains(refusing, at) {
			t.Errorf("no row for what %s is there for", at)
		}
	}
	for class, rows := range common {
		for _, r := range rows {
			note(class, r.code)
		}
	}

	page, err := os.ReadFile("../../docs/rest.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n### Which request gives which\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatal("the page has no such section")
	}
	promised := make(map[string]map[int]bool)
	for _, m := range regexp.MustCompile(`(?m)^\| (.+?) \| ([0-9, ]+) \|$`).FindAllStringSubmatch(section, -1) {
		all := make(map[int]bool)
		for text := range strings.SplitSeq(m[2], ", ") {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Errorf("%s: %v", m[1], err)
			}
			all[n] = true
		}
		for class := range strings.SplitSeq(m[1], "; ") {
			promised[class] = all
		}
	}
	for _, class := range slices.Sorted(maps.Keys(codes)) {
		if !maps.Equal(codes[class], promised[class]) {
			list := slices.Sorted(maps.Keys(codes[class]))
			t.Errorf("the page should have\n| %s | %s |\nand has %v", class, strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]"), slices.Sorted(maps.Keys(promised[class])))
		}
	}
	for class := range promised {
		if codes[class] == nil {
			t.Errorf("the page promises codes for %s, of which there is no row", class)
		}
	}

	// What all codes mean stands above.
	meanings := make(map[int]bool)
	for _, m := range regexp.MustCompile(`(?m)^\| ([0-9, ]+) \| [0-9, ]+ \| .+ \|$`).FindAllStringSubmatch(string(page), -1) {
		for text := range strings.SplitSeq(m[1], ", ") {
			n, _ := strconv.Atoi(text)
			meanings[n] = true
		}
	}
	for _, all := range codes {
		for code := range all {
			if !meanings[code] {
				t.Errorf("the page does not say what %d means", code)
			}
		}
	}
}
