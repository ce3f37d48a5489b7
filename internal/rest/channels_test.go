package rest_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/rest"
)

// attached attaches a connection to channels of an app.
func attached(t *testing.T, h *hub.Hub, app string, names ...string) (all []*hub.Attachment) {
	t.Helper()
	everything, err := auth.ParseCapability(`{"[*]*":["*"]}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		channel, err := pubsub.ParseChannelName(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := h.Attach(t.Context(), &hub.Attach{
			Grant:   &auth.Grant{App: app, ClientRule: auth.ClientAny, Capability: everything},
			Channel: channel, Modes: pubsub.ModeSubscribe, ConnectionID: "conn-" + app, Form: bystander{}, Receiver: bystander{},
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// listed follows the pages of a list of channels and returns the names on each.
func listed(t *testing.T, api http.Handler, query string, header map[string]string) (all [][]string) {
	t.Helper()
	for range 100 {
		res := do(t, api, request{path: "/channels?" + query, header: header})
		list, is := body(t, res).([]any)
		if res.StatusCode != http.StatusOK || !is {
			t.Fatalf("%s: %d %v", query, res.StatusCode, list)
		}
		var page []string
		for _, v := range list {
			if details, is := v.(map[string]any); is {
				occupancy := details["status"].(map[string]any)["occupancy"].(map[string]any)["metrics"].(map[string]any)
				v = fmt.Sprintf("%v=%v", details["channelId"], occupancy["connections"])
			}
			page = append(page, v.(string))
		}
		all = append(all, page)
		next := links(t, res, "channels")["next"]
		if next == nil {
			return all
		}
		query = next.Encode()
	}
	t.Fatal("pages without end")
	return nil
}

func TestActiveChannelsAreListedInPages(t *testing.T) {
	api, h := newAPIAndHub(t)
	a := attached(t, h, "app", "chat:é", "a,b", "chat:1", "[?rewind=1]chat:2", "[meta]chat:1")
	attached(t, h, "other", "secret")
	a[0].Detach() // a moment ago
	if res := do(t, api, request{method: "POST", path: "/channels/z/messages", body: `{}`}); res.StatusCode != 201 {
		t.Fatal(res.Status)
	}
	for _, format := range []string{jsonType, msgpackType} {
		for _, c := range []struct {
			query, version string
			want           [][]string
		}{
			{"", "", [][]string{{"a,b", "chat:1", "chat:2", "chat:é", "z"}}},
			{"limit=2", "3", [][]string{{"a,b", "chat:1"}, {"chat:2", "chat:é"}, {"z"}}},
			{"limit=5", "", [][]string{{"a,b", "chat:1", "chat:2", "chat:é", "z"}}},
			{"prefix=chat:&limit=2", "", [][]string{{"chat:1", "chat:2"}, {"chat:é"}}},
			{"prefix=none", "", [][]string{nil}},
			{"prefix=secret", "", [][]string{nil}},
			{"by=id", "2", [][]string{{"a,b", "chat:1", "chat:2", "chat:é", "z"}}},
			{"by=value&limit=3", "", [][]string{{"a,b=1", "chat:1=1", "chat:2=1"}, {"chat:é=0", "z=0"}}},
			{"prefix=chat:&limit=2", "2", [][]string{{"chat:1=1", "chat:2=1"}, {"chat:é=0"}}},
			{"prefix=chat:&limit=2&v=2", "", [][]string{{"chat:1=1", "chat:2=1"}, {"chat:é=0"}}},
		} {
			got := listed(t, api, c.query, map[string]string{"Accept": format, "X-Ably-Version": c.version})
			if !slices.EqualFunc(got, c.want, slices.Equal) {
				t.Errorf("%s of version %s: %q, want %q", c.query, c.version, got, c.want)
			}
		}
	}
}

func TestMoreChannelsThanOnePageHasAreListedOnce(t *testing.T) {
	api, h := newAPIAndHub(t)
	var want []string
	for i := range 1234 {
		want = append(want, fmt.Sprintf("c%04d", i))
	}
	attached(t, h, "app", want...)
	for query, pages := range map[string]int{"limit=1000": 2, "limit=50": 25, "": 13} {
		got := listed(t, api, query, nil)
		if all := slices.Concat(got...); len(got) != pages || !slices.Equal(all, want) {
			t.Errorf("%q: %d channels on %d pages", query, len(all), len(got))
		}
	}
	if got := listed(t, api, "by=value&limit=1000&prefix=c01", nil); len(got) != 1 || len(got[0]) != 100 {
		t.Errorf("with details: %d pages", len(got))
	}
	if got := listed(t, api, "by=value&limit=1000&prefix=c0", nil); len(got) != 10 || len(got[0]) != 100 {
		t.Errorf("with details: %d pages", len(got))
	}
}

func TestListsOfChannelsAreRefusedWithTheirCodes(t *testing.T) {
	api := newAPI(t)
	for _, c := range []struct {
		r      request
		status int
		code   string
	}{
		{request{path: "/channels", key: "-"}, 401, "40101"},
		{request{path: "/channels", key: "app.reader:secret"}, 401, "40160"},
		{request{path: "/channels?limit=0"}, 400, "40003"},
		{request{path: "/channels?limit=1001"}, 400, "40003"},
		{request{path: "/channels?by=name"}, 400, "40003"},
		{request{path: "/channels?cursor=*"}, 400, "40011"},
		{request{path: "/channels?v=x"}, 400, "40017"},
		{request{path: "/channels", method: http.MethodPost}, 405, "40500"},
		{request{path: "/channels?cursor=" + url.QueryEscape(base64.RawURLEncoding.EncodeToString([]byte("gone")))}, 200, ""},
	} {
		for _, format := range []string{jsonType, msgpackType} {
			c.r.header = map[string]string{"Accept": format}
			res := do(t, api, c.r)
			if code := res.Header.Get("X-Ably-Errorcode"); res.StatusCode != c.status || code != c.code || res.Header.Get("Content-Type") != format {
				t.Errorf("%s: %d %s, want %d %s", c.r.path, res.StatusCode, code, c.status, c.code)
			}
		}
	}
}

// slowDirectory tells of each question for an occupancy and answers when it may.
type slowDirectory struct {
	directory.Directory
	asked, may chan struct{}
}

func (d slowDirectory) Occupancy(ctx context.Context, id pubsub.ChannelID) (pubsub.Occupancy, error) {
	d.asked <- struct{}{}
	<-d.may
	return d.Directory.Occupancy(ctx, id)
}

func TestTheChannelsOfAnAppAreListedOneCallAtATime(t *testing.T) {
	me := directory.Node{Name: "n1", Incarnation: "i1"}
	slow := slowDirectory{directorymemory.NewStore(directorymemory.Options{}).Node(me), make(chan struct{}), make(chan struct{})}
	h := hub.New(hub.Options{Engine: enginememory.NewStore(enginememory.Options{}).Node(me.Name), Directory: slow, Node: me})
	t.Cleanup(h.Close)
	var apps []*auth.App
	for _, id := range []string{"app", "other"} {
		app, err := auth.NewApp(id, []auth.Key{{ID: "key", Secret: "secret"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		apps = append(apps, app)
	}
	api := rest.New(rest.Options{Hub: h, Auth: auth.NewAuthenticator(auth.NewRegistry(apps...), nil)})
	attached(t, h, "app", "x")
	first := make(chan *http.Response, 1)
	go func() { first <- do(t, api, request{path: "/channels?by=value"}) }()
	<-slow.asked
	if res := do(t, api, request{path: "/channels"}); res.StatusCode != 429 || res.Header.Get("X-Ably-Errorcode") != "42912" || res.Header.Get("Retry-After") == "" {
		t.Errorf("meanwhile: %d %v", res.StatusCode, res.Header)
	}
	if res := do(t, api, request{path: "/channels", key: "other.key:secret"}); res.StatusCode != 200 {
		t.Errorf("another app meanwhile: %d", res.StatusCode)
	}
	close(slow.may)
	if res := <-first; res.StatusCode != 200 {
		t.Errorf("the first: %d", res.StatusCode)
	}
	if res := do(t, api, request{path: "/channels"}); res.StatusCode != 200 {
		t.Errorf("after it: %d", res.StatusCode)
	}
}
